//! The only crate with SQL.
//!
//! The schema and the protocol's functions stand in `migrations/`; this crate
//! calls them with deadlines and gives typed answers. [`Db`] is the handle,
//! [`WorkerStore`] is all that a worker may ask.

pub mod access;
pub mod catalog;
pub mod cluster;
pub mod error;
pub mod events;
pub mod explain;
pub mod fleet;
pub mod handle;
pub mod hints;
pub mod inspect;
pub mod jobs;
pub mod leader;
pub mod operate;
mod sql;
pub mod times;
pub mod worker;

pub use error::DbError;
pub use handle::{Db, connect, migrations_hash};
pub use hints::WorkHint;
pub use times::ProtocolTimes;
pub use worker::{
    Accepted, ArtifactRef, AttemptProgress, AttemptResult, Claim, Credentials, Manifest,
    ManifestFile, Outcome, Publication, RegisterRequest, Registered, Resources, ResultVerdict,
    SyncReply, SyncRequest, Usage, Verdict, WorkerStore,
};
