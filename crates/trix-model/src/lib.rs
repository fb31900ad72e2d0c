//! The nouns of trix: ids, exact time, media description, findings, job and
//! task states, error classes.
//!
//! **trix-model opens no file, knows no clock, and runs no C.** Everything here
//! is plain data that every other crate may name.

pub mod color;
pub mod digest;
pub mod error;
pub mod finding;
pub mod ids;
pub mod index;
pub mod media;
pub mod path;
pub mod pixel;
pub mod progress;
pub mod state;
pub mod time;

pub use color::{ColorDescription, ContentLight, HdrMetadata, MasteringDisplay};
pub use digest::{Digest, Key};
pub use error::{ErrorClass, ErrorOrigin, Failure, with_causes};
pub use finding::{Finding, Severity};
pub use ids::{AttemptId, Epoch, JobId, NodeId, TaskId, WorkerId};
pub use index::{PacketIndex, PlanningIndex};
pub use media::MediaDescription;
pub use path::{PathError, RelPath, ShareName, SharePath};
pub use pixel::PixelFormat;
pub use progress::Progress;
pub use time::Rational;
