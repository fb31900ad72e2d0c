//! Real workers against a real PostgreSQL, with a toy in their slots: nothing is
//! decoded here, everything else is as in production.

mod away;
mod faults;
mod mounts;
mod publish;
mod support;
mod work;
