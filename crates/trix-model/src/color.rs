//! Colour description and HDR metadata, as code points of ITU-T H.273.
//!
//! They go from source to output and are never guessed: a value that the
//! source does not state stays `None`.

use serde::{Deserialize, Serialize};

use crate::time::Rational;

/// The colour properties of a picture (H.273 code points; `None` = not stated).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ColorDescription {
    /// ColourPrimaries.
    pub primaries: Option<u8>,
    /// TransferCharacteristics.
    pub transfer: Option<u8>,
    /// MatrixCoefficients.
    pub matrix: Option<u8>,
    /// `true` for full range, `false` for limited.
    pub full_range: Option<bool>,
    /// Chroma sample location type, 0 (left) to 5, as H.264/H.265 VUI count it.
    pub chroma_location: Option<u8>,
}

/// Mastering display colour volume, SMPTE ST 2086.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MasteringDisplay {
    /// Red, green, blue as (x, y) in units of 0.00002.
    pub primaries: [[u16; 2]; 3],
    /// White point (x, y) in units of 0.00002.
    pub white_point: [u16; 2],
    /// Maximum luminance in units of 0.0001 cd/m².
    pub max_luminance: u32,
    /// Minimum luminance in units of 0.0001 cd/m².
    pub min_luminance: u32,
}

/// Content light level, CTA-861.3, in cd/m².
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContentLight {
    /// MaxCLL.
    pub max_content: u16,
    /// MaxFALL.
    pub max_frame_average: u16,
}

/// Static HDR10 metadata of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HdrMetadata {
    /// Mastering display, if stated.
    pub mastering_display: Option<MasteringDisplay>,
    /// Content light level, if stated.
    pub content_light: Option<ContentLight>,
}

/// Display aspect of a picture whose pixels have aspect `sar`.
pub fn display_aspect(width: u32, height: u32, sar: Rational) -> Option<Rational> {
    Rational::new(i64::from(width) * sar.num(), i64::from(height) * sar.den())
}
