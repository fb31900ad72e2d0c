//! The whole service from outside: the real binaries, a real PostgreSQL, real encodes.

mod faults;
mod ingest;
mod life;
mod refusals;
mod rig;
