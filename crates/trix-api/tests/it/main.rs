//! The real server on a free port, over a real PostgreSQL.

mod access;
mod audit;
mod document;
mod events;
mod explain;
mod files;
mod harness;
#[cfg(feature = "ui")]
mod interface;
mod jobs;
mod outage;
mod shares;
mod worker;
