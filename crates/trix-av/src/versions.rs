//! Which libav this is, for the engine id: what decides the bytes.

use std::fmt;

use ffmpeg_sys_next as sys;
use trix_model::Digest;

use crate::ffi;

/// The libav that is linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Release, e.g. `7.1.5`.
    pub libav: &'static str,
    /// Library versions in the order avutil, avcodec, avformat, swscale, swresample.
    pub libraries: [(u32, u32, u32); 5],
    /// BLAKE3 of the configure options.
    pub configuration: Digest,
}

/// What is linked, asked of the library itself.
pub fn versions() -> Versions {
    // SAFETY: no preconditions; the configuration is a static string.
    let (numbers, configuration) = unsafe {
        (
            [
                sys::avutil_version(),
                sys::avcodec_version(),
                sys::avformat_version(),
                sys::swscale_version(),
                sys::swresample_version(),
            ],
            ffi::text(sys::avcodec_configuration()).unwrap_or_default(),
        )
    };
    // Where the build lay says nothing about the bytes.
    let options: Vec<&str> =
        configuration.split_whitespace().filter(|o| !o.starts_with("--prefix=")).collect();
    Versions {
        libav: env!("TRIX_LIBAV_VERSION"),
        libraries: numbers.map(|n| (n >> 16, n >> 8 & 0xff, n & 0xff)),
        configuration: Digest(*blake3::hash(options.join(" ").as_bytes()).as_bytes()),
    }
}

impl fmt::Display for Versions {
    /// As it stands in the engine id: `libav/7.1.5+9d4422ee5c8c0eff`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "libav/{}+", self.libav)?;
        self.configuration.as_bytes()[..8].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
