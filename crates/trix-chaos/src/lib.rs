//! Fault injection, hostile input, and the checker of the invariants.

pub mod input;
