//! Tests of trix-plan from outside.

mod fixture;
mod graph;
mod grid;
mod keys;
mod plans;
mod profiles;
