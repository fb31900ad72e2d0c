//! Pixel formats that frames can have inside trix.

use serde::{Deserialize, Serialize};

/// How chroma is sampled against luma.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chroma {
    /// Luma only.
    Mono,
    /// Half width, half height.
    C420,
    /// Half width.
    C422,
    /// Full.
    C444,
}

/// Planar YUV with little-endian samples: what encoders take.
///
/// Eight-bit samples use one byte, all others two. Sources in other layouts
/// (packed, RGB, semi-planar) are converted by the filter stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PixelFormat {
    /// Chroma sampling.
    pub chroma: Chroma,
    /// Bits a sample: 8, 10 or 12.
    pub depth: u8,
}

impl PixelFormat {
    /// 8-bit 4:2:0.
    pub const YUV420P8: PixelFormat = PixelFormat { chroma: Chroma::C420, depth: 8 };
    /// 10-bit 4:2:0.
    pub const YUV420P10: PixelFormat = PixelFormat { chroma: Chroma::C420, depth: 10 };
    /// 12-bit 4:2:0.
    pub const YUV420P12: PixelFormat = PixelFormat { chroma: Chroma::C420, depth: 12 };

    /// Bytes a sample.
    pub const fn bytes(self) -> usize {
        if self.depth > 8 { 2 } else { 1 }
    }

    /// Number of planes.
    pub const fn planes(self) -> usize {
        match self.chroma {
            Chroma::Mono => 1,
            _ => 3,
        }
    }

    /// Width and height in samples of plane `i` of a picture of this format.
    pub const fn plane_size(self, i: usize, width: u32, height: u32) -> (u32, u32) {
        if i == 0 {
            return (width, height);
        }
        match self.chroma {
            Chroma::Mono => (0, 0),
            Chroma::C420 => (width.div_ceil(2), height.div_ceil(2)),
            Chroma::C422 => (width.div_ceil(2), height),
            Chroma::C444 => (width, height),
        }
    }
}
