//! Tests of the simulator, of its breaks, of the replay, and of the checker.

mod bites;
mod check;
mod replay;
mod sim;
