//! The CPU feature level that encoders are forced to.
//!
//! x264 gives other bytes with other SIMD levels, so the level is a part of the
//! engine id and is never what the machine happens to have. `x86-64-v3` (AVX2)
//! is the highest one that is used: every server of the last ten years has it,
//! and AVX-512 differs among them.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use trix_x264_sys as x264;
use trix_x265_sys as x265;

use crate::error::{EncodeError, Result};

/// A CPU feature level, as the x86-64 psABI names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CpuLevel {
    /// C code alone: any architecture.
    Portable,
    /// SSE2.
    V1,
    /// SSSE3 and SSE4.2.
    V2,
    /// AVX2, BMI2, FMA and LZCNT.
    V3,
}

impl CpuLevel {
    /// Every level, lowest first.
    pub const ALL: &[CpuLevel] = &[CpuLevel::Portable, CpuLevel::V1, CpuLevel::V2, CpuLevel::V3];

    /// The highest level that this machine has.
    pub fn best() -> CpuLevel {
        static BEST: OnceLock<CpuLevel> = OnceLock::new();
        *BEST.get_or_init(|| {
            CpuLevel::ALL
                .iter()
                .rev()
                .copied()
                .find(|l| l.available())
                .unwrap_or(CpuLevel::Portable)
        })
    }

    /// True when this machine has all features of the level.
    #[cfg(target_arch = "x86_64")]
    pub fn available(self) -> bool {
        match self {
            CpuLevel::Portable | CpuLevel::V1 => true,
            CpuLevel::V2 => {
                is_x86_feature_detected!("ssse3")
                    && is_x86_feature_detected!("sse4.1")
                    && is_x86_feature_detected!("sse4.2")
                    && is_x86_feature_detected!("popcnt")
            }
            CpuLevel::V3 => {
                CpuLevel::V2.available()
                    && is_x86_feature_detected!("avx")
                    && is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("lzcnt")
            }
        }
    }

    /// True when this machine has all features of the level.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn available(self) -> bool {
        self == CpuLevel::Portable
    }

    /// The name in engine ids.
    pub const fn as_str(self) -> &'static str {
        match self {
            CpuLevel::Portable => "portable",
            CpuLevel::V1 => "x86-64-v1",
            CpuLevel::V2 => "x86-64-v2",
            CpuLevel::V3 => "x86-64-v3",
        }
    }

    /// x264's `cpu` mask, which its program takes as `--asm MASK`.
    pub const fn x264_mask(self) -> u32 {
        const V1: i32 =
            x264::X264_CPU_MMX | x264::X264_CPU_MMX2 | x264::X264_CPU_SSE | x264::X264_CPU_SSE2;
        const V2: i32 = V1
            | x264::X264_CPU_SSE2_IS_FAST
            | x264::X264_CPU_SSE3
            | x264::X264_CPU_SSSE3
            | x264::X264_CPU_SSE4
            | x264::X264_CPU_SSE42;
        const V3: i32 = V2
            | x264::X264_CPU_LZCNT
            | x264::X264_CPU_AVX
            | x264::X264_CPU_FMA3
            | x264::X264_CPU_BMI1
            | x264::X264_CPU_BMI2
            | x264::X264_CPU_AVX2;
        match self {
            CpuLevel::Portable => 0,
            CpuLevel::V1 => V1 as u32,
            CpuLevel::V2 => V2 as u32,
            CpuLevel::V3 => V3 as u32,
        }
    }

    /// x265's `cpuid` mask, which its program takes as `--asm MASK`.
    pub const fn x265_mask(self) -> i32 {
        const V1: i32 =
            x265::X265_CPU_MMX | x265::X265_CPU_MMX2 | x265::X265_CPU_SSE | x265::X265_CPU_SSE2;
        const V2: i32 = V1
            | (x265::X265_CPU_SSE2_IS_FAST
                | x265::X265_CPU_SSE3
                | x265::X265_CPU_SSSE3
                | x265::X265_CPU_SSE4
                | x265::X265_CPU_SSE42);
        const V3: i32 = V2
            | (x265::X265_CPU_LZCNT
                | x265::X265_CPU_AVX
                | x265::X265_CPU_FMA3
                | x265::X265_CPU_BMI1
                | x265::X265_CPU_BMI2
                | x265::X265_CPU_AVX2);
        match self {
            CpuLevel::Portable => 0,
            CpuLevel::V1 => V1,
            CpuLevel::V2 => V2,
            CpuLevel::V3 => V3,
        }
    }

    pub(crate) fn check(self) -> Result<()> {
        if self.available() {
            return Ok(());
        }
        let best = CpuLevel::best();
        Err(EncodeError::Cpu { wanted: self, reason: format!("this machine has {best} at most") })
    }

    /// Refuses a second level in one process: x265 chooses its functions once,
    /// by the first encoder that is opened, and would ignore the second silently.
    pub(crate) fn claim_for_process(self) -> Result<()> {
        static LEVEL: OnceLock<CpuLevel> = OnceLock::new();
        let first = *LEVEL.get_or_init(|| self);
        if first == self {
            return Ok(());
        }
        Err(EncodeError::Cpu {
            wanted: self,
            reason: format!("x265 was opened with {first} in this process, and cannot change"),
        })
    }
}

impl fmt::Display for CpuLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CpuLevel {
    type Err = String;
    fn from_str(s: &str) -> std::result::Result<CpuLevel, String> {
        CpuLevel::ALL.iter().copied().find(|l| l.as_str() == s).ok_or_else(|| {
            let all: Vec<_> = CpuLevel::ALL.iter().map(|l| l.as_str()).collect();
            format!("{s:?} is no CPU feature level; there are {}", all.join(", "))
        })
    }
}

/// The encoders' part of the engine id: versions, builds and the forced level,
/// as words with blanks between them.
pub fn engine_id(level: CpuLevel) -> String {
    format!(
        "x264/{}+{} x265/{}+{} rav1e/{} cpu/{level}",
        x264::VERSION.replace(' ', "-"),
        x264::BUILD_KEY,
        x265::VERSION,
        x265::BUILD_KEY,
        rav1e::version::short(),
    )
}
