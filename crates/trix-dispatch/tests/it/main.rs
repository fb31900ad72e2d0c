//! Dispatchers against a real PostgreSQL, with workers that pretend.

mod cache;
mod support;
mod whole;
