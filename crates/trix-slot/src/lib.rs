//! The contract between worker and slot: launch, sandbox, wire types, and the slot's main.
