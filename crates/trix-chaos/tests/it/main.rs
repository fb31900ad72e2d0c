//! Small counts of every row, and what earlier runs found.

mod input;
