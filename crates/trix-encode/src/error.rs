//! Errors of this crate: the operation, the object, the cause, and whose fault it is.

use trix_model::{ErrorClass, ErrorOrigin, Failure};
use trix_plan::encoder::VideoVariant;
use trix_plan::params::ParamError;

use crate::cpu::CpuLevel;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, EncodeError>;

/// What went wrong in opening or driving an encoder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Settings that `trix_plan::params` refuses; it names key, value and what is allowed.
    #[error("{}", join(errors))]
    Settings {
        /// One for each setting that is refused.
        errors: Vec<ParamError>,
    },
    /// The encoder cannot take such a picture.
    #[error("{variant} cannot encode {what}")]
    Unsupported {
        /// The encoder.
        variant: VideoVariant,
        /// e.g. `853x480: with 4:2:0 the width must be even`.
        what: String,
    },
    /// The CPU feature level that the plan asks for is not there, or another one is in use already.
    #[error("the CPU feature level {wanted} cannot be used: {reason}")]
    Cpu {
        /// The level.
        wanted: CpuLevel,
        /// Why.
        reason: String,
    },
    /// A frame has another size or format than the encoder was opened with.
    #[error("frame {frame} is {got}, but the encoder was opened for {wanted}")]
    Frame {
        /// Frames sent before.
        frame: u64,
        /// Its size and format.
        got: String,
        /// Expected size and format.
        wanted: String,
    },
    /// A frame has no time, or one that does not rise.
    #[error("frame {frame} has pts {}, after {}", opt(*pts), opt(*after))]
    Time {
        /// Frames sent before.
        frame: u64,
        /// Its time in ticks.
        pts: Option<i64>,
        /// Time of the frame before it.
        after: Option<i64>,
    },
    /// A frame was sent after [`crate::VideoEncoder::flush`].
    #[error("frame {frame} was sent after the end")]
    AfterEnd {
        /// Frames sent before.
        frame: u64,
    },
    /// The library refused or failed.
    #[error("{library}: {operation}: {reason}")]
    Library {
        /// `x264`, `x265` or `rav1e`.
        library: &'static str,
        /// What was under way.
        operation: &'static str,
        /// What the library said of it.
        reason: String,
    },
    /// libav refused or failed.
    #[error(transparent)]
    Av(#[from] trix_av::AvError),
}

fn join(errors: &[ParamError]) -> String {
    errors.iter().map(ParamError::to_string).collect::<Vec<_>>().join("; ")
}

fn opt(pts: Option<i64>) -> String {
    pts.map_or_else(|| "none".into(), |p| p.to_string())
}

impl EncodeError {
    /// Stable code in snake_case for [`Failure::code`].
    pub fn code(&self) -> &'static str {
        match self {
            EncodeError::Settings { .. } => "bad_parameter",
            EncodeError::Unsupported { .. } => "unsupported_picture",
            EncodeError::Cpu { .. } => "cpu_level",
            EncodeError::Frame { .. } | EncodeError::Time { .. } | EncodeError::AfterEnd { .. } => {
                "bug"
            }
            EncodeError::Library { .. } => "encoder_failed",
            EncodeError::Av(e) => e.code(),
        }
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Failure {
        let (class, origin) = match &error {
            EncodeError::Settings { .. } | EncodeError::Unsupported { .. } => {
                (ErrorClass::Deterministic, ErrorOrigin::Request)
            }
            // Another node may have the level.
            EncodeError::Cpu { .. } => (ErrorClass::Resource, ErrorOrigin::Node),
            EncodeError::Frame { .. } | EncodeError::Time { .. } | EncodeError::AfterEnd { .. } => {
                (ErrorClass::Deterministic, ErrorOrigin::Bug)
            }
            EncodeError::Library { .. } => (ErrorClass::Deterministic, ErrorOrigin::Engine),
            EncodeError::Av(e) => return e.failure(),
        };
        Failure::new(class, origin, error.code(), error.to_string())
    }
}
