//! Tests of trix-model from outside.

mod index;
mod states;
