//! The protocol against a real PostgreSQL.

mod life;
mod schema;
mod support;
