//! Tests of the simulator, of its breaks, of the replay, of hostile input, and of the checker.

mod bites;
mod check;
mod input;
mod replay;
mod sim;
