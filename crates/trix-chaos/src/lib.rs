//! Proof of the protocol.
//!
//! | module | what |
//! |---|---|
//! | `model` | the tables and the functions of the migrations, in memory |
//! | `world` | workers, dispatchers, clients, shares, and all that goes wrong, under one seed |
//! | `breaks` | safeguards that are taken out, to see that the checker notices |
//! | `campaign` | many seeds on all cores; the smallest run that shows a violation |
//! | `replay` | traces of the world against the real PostgreSQL, state by state |
//! | `harness` | a real installation in a folder of its own, faults from outside, rows of trials |
//! | `fleet` | what the queue and the protocol can do, measured |
//! | `input` | hostile files, references, parameters and names for the real slot |
//! | `check` | the invariants: rules over the tables, folders and journals |
//!
//! The worker's mind ([`trix_worker::core`]) and the dispatcher's pass
//! ([`trix_dispatch::pass`]) are the real ones; the database is a model whose every call
//! is compared with the real functions by `replay`.

pub mod breaks;
pub mod campaign;
pub mod check;
pub mod fleet;
pub mod harness;
pub mod input;
pub mod model;
pub mod replay;
pub mod rng;
pub mod world;
