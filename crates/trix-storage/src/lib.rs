//! Shares as handles, settle rule, fixity, artifact cache, names, atomic publish, receipts.
//!
//! Everything here is synchronous and may hang as long as a dead share hangs: callers run it on
//! threads or in processes that they can give up. **trix-storage parses no media and knows no
//! clock.** In the order of the data:
//!
//! - [`Share`] and [`WritableShare`]: named folders held as handles; [`Roots`]: where they lie.
//! - [`settle`]: whether a delivery is complete.
//! - [`fixity`]: all checksums in the one read ([`OncePass`]), and what rights-holders' checksum
//!   files say.
//! - [`Stage`]: where files are made; [`Cache`]: artifacts under their keys.
//! - [`Publisher`]: the only thing that makes anything visible on a destination, under a
//!   [`Fence`].
//! - [`names`]: slugs, safe names, collisions.

pub mod cache;
pub mod dir;
pub mod error;
pub mod fixity;
pub mod names;
pub mod ops;
pub mod publish;
pub mod settle;
pub mod share;
pub mod stage;

pub use cache::{Cache, CacheFile, Committed, PruneRule, Pruned};
pub use dir::{Dir, Entry, EntryKind, SourceFile, Space, StageFile, Stat};
pub use error::{Result, StorageError};
pub use fixity::{Fixity, OncePass, blake3_of, compare_sidecar, copy_source};
pub use publish::{
    Capabilities, Draft, Fence, FileProof, FolderFence, Item, ItemFrom, Known, Manifest,
    MoveMethod, Prepared, Publication, Publisher, Receipt, Request, SourceProof,
};
pub use share::{Expect, Mount, Probe, Root, Roots, Share, ShareRole, ShareState, WritableShare};
pub use stage::{ClusterTag, Stage, StageEntry, StageName, sweep_stages};
