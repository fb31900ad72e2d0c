//! Safe libav: demux, decode, filter, scale, resample, mux.
//!
//! **No other crate sees libav.** Nothing here opens a path: inputs and outputs
//! are descriptors that the caller opened, and a file that names another one is
//! refused. Nothing here starts a thread unless a `threads` parameter asks for it.

mod error;
mod ffi;
pub mod frame;
pub mod pixel;

pub use error::{AvError, Cause, Result};
pub use frame::{AudioFrame, Plane, PlaneMut, SampleFormat, VideoFrame};
pub use pixel::{nearest_pixel_format, pixel_format_by_name, pixel_format_name};
