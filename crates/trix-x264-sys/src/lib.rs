//! Raw declarations of x264, with 8 and 10 bit in one library.
//!
//! The depth of an encoder is the field `i_bitdepth` of its `x264_param_t` (8 unless set) and must agree with the
//! colour space flag `X264_CSP_HIGH_DEPTH` of its pictures. The name [`x264_encoder_open`] stands for the function whose
//! real name carries the API version, so callers need not know it.
//!
//! The source of truth is `x264.h`: units, ranges and ownership are told there. C enums are integer constants here.
//! The safe layer is `trix-encode`; nothing else uses this crate.

mod bindings {
    #![allow(
        missing_docs,
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        clippy::all
    )]
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}
pub use bindings::*;

/// The version that is compiled in, as x264 writes it into its streams, for example `0.164.3095 baee400`.
pub const VERSION: &str = env!("TRIX_NATIVE_VERSION");

/// Names what decides the encoder's bytes: sources, flags and compilers. A part of the engine id.
pub const BUILD_KEY: &str = env!("TRIX_NATIVE_KEY");
