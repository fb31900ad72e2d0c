//! The encoder trait, and x264, x265, rav1e and libavcodec behind it.
//!
//! ```text
//! VideoConfig::new(settings, picture, time_base, frame_rate)   and its public fields
//! config.open() -> Box<dyn VideoEncoder>
//! encoder.send(&VideoFrame); encoder.receive() -> Packet | NeedInput | End; encoder.flush()
//! encoder.extradata(); encoder.parameters() -> trix_av::CodecParameters; encoder.lookahead()
//! CpuLevel::best(); engine_id(level)
//! ```
//!
//! The same configuration and frames give the same bytes, on every machine that
//! has the CPU level: no clock, host name, core count or CPU name reaches a
//! stream, and threads are counted by the plan.
//!
//! **No encoder here opens a file or starts a program.** Every encoder file has
//! the same anatomy: defaults, settings, state, the trait, tests.

mod cpu;
mod encoder;
mod error;
mod ffv1;
mod nal;
mod rav1e;
mod timeline;
mod x264;
mod x265;

pub use cpu::{CpuLevel, engine_id};
pub use encoder::{Headers, Packet, Received, VideoConfig, VideoEncoder};
pub use error::{EncodeError, Result};
