//! Runs one task, or a whole plan, as stages in data order.
//!
//! **trix-engine opens no path and knows no clock that reaches an artifact.**
//! One attempt runs to completion on one thread: decode a frame, filter it,
//! hand it to each encoder in turn, next frame. Parallelism is many attempts.
//!
//! In the data's order:
//!
//! | file | stage |
//! |---|---|
//! | [`intake`] | one read of the source: checksums, description, packet index, tee |
//! | [`encode`] | one decode of a chunk feeds all its missing renditions |
//! | [`audio`] | one sound programme, whole |
//! | [`copy`] | the source's own packets |
//! | [`stills`] | poster, thumbnail sprite and map |
//! | [`mux`] | packet files → a file |
//! | [`verify`] | full decode of a finished file against the plan |
//! | [`run`] | which of these a task is |
//! | [`answer`] | the known-answer self-test of a machine |
//! | [`local`] | a whole plan in this process |

mod answer;
mod audio;
mod copy;
mod encode;
mod intake;
mod io;
pub mod local;
mod mux;
pub mod packetfile;
mod run;
mod stills;
mod verify;

pub use answer::known_answer;
pub use io::{Control, TaskIo, stopped};
pub use run::{engine_id, run_task};
pub use verify::{Checked, CheckedAudio, CheckedVideo, check_file};
