//! The binaries from outside, as people and programs meet them.

mod clips;
mod colour;
mod probe;
mod refusals;
mod resume;
#[cfg(feature = "service")]
mod service;
mod slots;
mod sources;
mod support;
mod variants;
