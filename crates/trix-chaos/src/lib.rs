//! Proof that the job system loses nothing: fault injection over real processes, and
//! the checker of the invariants.
//!
//! | module | what |
//! |---|---|
//! | `harness` | a whole installation in a folder of its own, faults from outside, rows of trials |
//! | `rng` | random numbers whose seeds stay valid |

pub mod harness;
pub mod rng;
