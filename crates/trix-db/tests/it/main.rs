//! The protocol against a real PostgreSQL.

mod audit;
mod claims;
mod cluster;
mod cost;
mod events;
mod explain;
mod fence;
mod hints;
mod jobs;
mod large;
mod life;
mod lookups;
mod operate;
mod outage;
mod pairs;
mod publish;
mod queue;
mod retry;
mod schema;
mod support;
