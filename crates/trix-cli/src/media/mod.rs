//! The commands that parse media; linked into `trix-media` alone.

pub mod args;
pub mod encode;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod sandbox;
pub mod show;
pub mod slot;
pub mod verify;
