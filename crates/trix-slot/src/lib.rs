//! The contract between worker and slot: launch, sandbox, wire types, and the
//! slot's main.
//!
//! A **slot** is a child process that runs one attempt: one `posix_spawn` of
//! `trix-media slot`, boxed, with nothing but open descriptors. What decodes and
//! encodes is a parameter of [`slot_main`]: **this crate links no codec.**
//!
//! | file | side | what |
//! |---|---|---|
//! | `wire` | both | messages and descriptors over the socket pair |
//! | `launch` | worker | spawn, watch, stall, cancel, and what an exit means |
//! | `process` | worker | a child that is ours to kill and to reap |
//! | `cgroup` | worker | memory and threads of one attempt, where groups are delegated |
//! | `sandbox` | slot | the box, step by step: `charsets`, `files` (Landlock), `calls` (seccomp) |
//! | `slot` | slot | main: hello, job, box, work, result |

mod cgroup;
pub mod launch;
mod process;
mod sandbox;
mod slot;
pub mod wire;

pub use cgroup::Groups;
pub use launch::{
    Control, Ended, LaunchError, Launcher, Outcome, Report, Running, SlotIo, Usage, slot_user,
};
pub use sandbox::BoxError;
pub use slot::{OpenedIo, slot_main};
pub use wire::{
    Boxed, Hello, InputName, KnownAnswer, Limits, Measure, Missing, Policy, SlotJob, TEE_NAME,
    stage_name,
};
