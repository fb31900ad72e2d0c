//! The real server on a free port, over a real PostgreSQL.

mod access;
mod document;
mod events;
mod files;
mod harness;
mod jobs;
mod outage;
mod shares;
mod worker;
