//! Dispatchers against a real PostgreSQL, with workers that pretend.

mod cache;
mod stages;
mod support;
mod whole;
