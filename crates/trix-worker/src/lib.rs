//! The service role that runs tasks: claims, slots, results, publication.
