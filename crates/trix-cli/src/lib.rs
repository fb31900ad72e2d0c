//! What the two binaries share.
//!
//! **The binary `trix` links no codec.** `trix encode`, `probe`, `plan` and
//! `verify` hand over to `trix-media` by exec, so people type only `trix`.

pub mod config;
pub mod handover;
#[cfg(feature = "media")]
pub mod media;
#[cfg(feature = "service")]
pub mod service;
