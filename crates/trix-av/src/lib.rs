//! Safe libav: demux, decode, filter, scale, resample, mux.
//!
//! **No other crate sees libav.** Nothing here opens a path: inputs and outputs
//! are descriptors that the caller opened, and a file that names another one is
//! refused. Nothing here starts a thread unless a `threads` parameter asks for it.
//!
//! In the data's order: [`Input`] reads packets, [`describe`] and
//! [`build_index`] say what is there, [`FrameReader`] and [`AudioReader`]
//! decode, [`Scaler`] and [`Resampler`] convert, [`AudioEncoder`] and
//! [`Ffv1Encoder`] encode, [`Muxer`] writes.

pub mod budget;
mod codec;
mod decode;
mod error;
mod ffi;
mod frame;
mod index;
mod input;
mod io;
pub mod log;
mod mux;
mod nal;
mod pixel;
mod probe;
mod reference;
mod resample;
mod scale;
mod versions;

pub use codec::{
    AudioCodecKind, AudioEncoder, AudioEncoderSettings, Ffv1Encoder, Ffv1Settings, encode_jpeg,
    encode_png,
};
pub use decode::{AudioDecoder, AudioReader, FrameReader, Received, VideoDecoder};
pub use error::{AvError, Cause, Result};
pub use frame::{AudioFrame, MAX_AREA, MAX_SIDE, Plane, PlaneMut, SampleFormat, VideoFrame};
pub use index::{INDEX_VERSION, IndexMode, Indexed, build_index, build_index_with};
pub use input::{Input, Packet};
pub use io::{Seeking, Source};
pub use mux::{
    AudioParameters, CodecKind, CodecParameters, EncodedPacket, MuxOptions, MuxTrack, Muxer,
    VideoParameters, copy_parameters,
};
pub use pixel::{is_rgb, nearest_pixel_format, pixel_format_by_name, pixel_format_name};
pub use probe::{describe, probe};
pub use resample::Resampler;
pub use scale::{RGB_MATRIX, Scaler, Target, output_color};
pub use versions::{Versions, versions};
