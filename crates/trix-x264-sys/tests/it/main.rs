//! The library encodes at both depths, and exports nothing.

mod encode;
mod symbols;
