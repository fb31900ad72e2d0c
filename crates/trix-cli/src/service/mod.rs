//! The roles, and what talks to them from the command line.

pub mod client;
pub mod doctor;
pub mod ingest;
pub mod operate;
pub mod up;
