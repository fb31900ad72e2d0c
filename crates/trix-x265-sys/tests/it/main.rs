//! The library encodes at each depth, and exports nothing.

mod encode;
mod symbols;
