//! The protocol against a real PostgreSQL.

mod claims;
mod cluster;
mod events;
mod fence;
mod jobs;
mod life;
mod outage;
mod pairs;
mod publish;
mod retry;
mod schema;
mod support;
