//! Shares as handles, settle rule, fixity, artifact cache, names, atomic publish, receipts.
