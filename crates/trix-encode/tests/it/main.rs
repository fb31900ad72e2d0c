//! The encoders against generated pictures, other people's decoders, and the
//! encoders' own programs.

mod chunks;
mod identity;
mod pictures;
mod refusals;
mod signal;
mod streams;
mod table;
mod tools;
