//! The service role that people and programs talk to: REST, events, the operator UI.
//!
//! **trix-api has no SQL and parses no media.** It validates, plans intake,
//! writes the job through trix-db, and browses shares through their handles.

pub mod media;
pub mod problem;
pub mod routes;
pub mod state;
pub mod ws;

pub use routes::{openapi, openapi_json};
