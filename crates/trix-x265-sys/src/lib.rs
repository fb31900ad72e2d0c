//! Raw declarations of x265, with 8, 10 and 12 bit in one library.
//!
//! Everything goes through the table of functions that [`api_get`] gives for a depth (`8`, `10` or `12`; null for
//! any other): the depth's own structures differ inside, so a parameter set or a picture of one table must not reach a
//! function of another. The name [`api_get`] stands for the function whose real name carries the API version.
//!
//! The source of truth is `x265.h`: units, ranges and ownership are told there. C enums are integer constants here.
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

/// The version that is compiled in, as the lock names it, for example `3.5`.
pub const VERSION: &str = env!("TRIX_NATIVE_VERSION");

/// Names what decides the encoder's bytes: sources, flags and compilers. A part of the engine id.
pub const BUILD_KEY: &str = env!("TRIX_NATIVE_KEY");
