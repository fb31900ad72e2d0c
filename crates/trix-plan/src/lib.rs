//! Profile + description + findings → plan.
//!
//! **trix-plan opens no file, knows no clock, and runs no C.** A plan is a
//! graph of pure tasks whose outputs are named by keys before anything runs.

pub mod encoder;
pub mod task;
