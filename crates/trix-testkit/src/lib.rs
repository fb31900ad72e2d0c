//! Generated clips with known truth, throw-away databases, and helpers that tests share.

pub mod clips;
pub mod pg;
