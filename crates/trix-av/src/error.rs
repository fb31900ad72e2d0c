//! Errors of this crate: the operation, the object, the cause, and whose fault it is.

use std::ffi::CStr;
use std::{fmt, io};

use ffmpeg_sys_next as sys;
use trix_model::{ErrorClass, ErrorOrigin, Failure};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, AvError>;

/// What went wrong in demuxing, decoding, filtering, encoding or muxing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AvError {
    /// The operating system refused a read or a write; says nothing about the media.
    #[error("{operation}")]
    Io {
        /// e.g. `reading the input`.
        operation: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file has no byte.
    #[error("the file is empty")]
    Empty,
    /// No demuxer knows the file, or its header is damaged.
    #[error("the file is no media that can be read: {cause}")]
    NotMedia {
        /// libav's code, or what is missing.
        cause: Cause,
    },
    /// The file refers to other files, which trix never follows.
    #[error("the file refers to other files instead of holding media ({what})")]
    NestedReference {
        /// What the reference is: `HLS playlist`, `external track 1`, …
        what: String,
    },
    /// The file asks for more than any delivery needs; see [`crate::budget`].
    #[error("the file asks for {asked} {what}; at most {allowed} are taken")]
    OverBudget {
        /// What is counted.
        what: &'static str,
        /// How much.
        asked: u64,
        /// How much is allowed.
        allowed: u64,
    },
    /// A track is encrypted.
    #[error("stream {stream} is encrypted")]
    Encrypted {
        /// Index in the container.
        stream: u32,
    },
    /// There is no video stream (attached pictures don't count).
    #[error("the file has no video stream")]
    NoVideo,
    /// The container has no stream of this number or of the wanted kind.
    #[error("the file has no {kind} stream {stream}")]
    NoStream {
        /// Index in the container.
        stream: u32,
        /// `video`, `audio` or empty.
        kind: &'static str,
    },
    /// The stream is announced, but holds no packet.
    #[error("stream {stream} holds no samples")]
    NoSamples {
        /// Index in the container.
        stream: u32,
    },
    /// The stream holds packets, but no frame comes out of them.
    #[error("no frame of stream {stream} can be decoded ({codec})")]
    NoFrames {
        /// Index in the container.
        stream: u32,
        /// Codec as libav names it.
        codec: String,
    },
    /// More than half of the main video's packets can't be decoded.
    #[error("{errors} of {packets} packets of stream {stream} can't be decoded ({codec})")]
    TooDamaged {
        /// Index in the container.
        stream: u32,
        /// Codec as libav names it.
        codec: String,
        /// Packets that failed.
        errors: u32,
        /// Packets in all.
        packets: u32,
    },
    /// Our libav has no decoder for the codec.
    #[error("there is no decoder for {codec} (stream {stream})")]
    NoDecoder {
        /// Index in the container.
        stream: u32,
        /// Codec as libav names it.
        codec: String,
    },
    /// The demuxer stopped with an error before the end of the file.
    #[error("reading a packet: {cause}")]
    Demux {
        /// libav's code.
        cause: Cause,
    },
    /// A packet can't be decoded.
    #[error("decoding a packet of stream {stream} (pts {}): {cause}", OptPts(*pts))]
    Decode {
        /// Index in the container.
        stream: u32,
        /// Its presentation time.
        pts: Option<i64>,
        /// libav's code.
        cause: Cause,
    },
    /// The decoder gave other frames than the index says.
    #[error("frame {frame} (pts {pts}) of stream {stream} did not come out of the decoder")]
    FrameMissing {
        /// Index in the container.
        stream: u32,
        /// Number in the index.
        frame: u32,
        /// Its presentation time.
        pts: i64,
    },
    /// The file's packets are not those of the index: it changed, or it is another file.
    #[error("packet {packet} of stream {stream} is not what the index says")]
    PacketChanged {
        /// Index in the container.
        stream: u32,
        /// Position in the index.
        packet: u32,
    },
    /// A size or format that is not supported.
    #[error("{what} is not supported")]
    Unsupported {
        /// e.g. `a picture of 0x0`.
        what: String,
    },
    /// What was asked for can't be done; names the allowed values.
    #[error("{what}")]
    Request {
        /// Full sentence.
        what: String,
    },
    /// libav failed where it should not.
    #[error("{operation}: {cause}")]
    Library {
        /// e.g. `opening the encoder aac`.
        operation: String,
        /// libav's code.
        cause: Cause,
    },
    /// The caller's progress function said stop.
    #[error("stopped on request")]
    Cancelled,
    /// libav could not allocate.
    #[error("out of memory while {operation}")]
    OutOfMemory {
        /// What was under way.
        operation: &'static str,
    },
}

/// An error code of libav, or our own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An `AVERROR` value.
    Code(i32),
    /// Our words.
    Words(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Code(code) => f.write_str(&describe(*code)),
            Cause::Words(words) => f.write_str(words),
        }
    }
}

impl From<i32> for Cause {
    fn from(code: i32) -> Cause {
        Cause::Code(code)
    }
}

impl From<&str> for Cause {
    fn from(words: &str) -> Cause {
        Cause::Words(words.to_owned())
    }
}

struct OptPts(Option<i64>);

impl fmt::Display for OptPts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pts) => write!(f, "{pts}"),
            None => f.write_str("unknown"),
        }
    }
}

/// The text that libav has for a code.
fn describe(code: i32) -> String {
    let mut buffer = [0 as libc::c_char; 128];
    // SAFETY: the buffer outlives the call, its length is passed, and libav
    // terminates what it writes; the buffer was zero before in any case.
    let text = unsafe {
        sys::av_strerror(code, buffer.as_mut_ptr(), buffer.len());
        CStr::from_ptr(buffer.as_ptr())
    };
    text.to_string_lossy().into_owned()
}

impl AvError {
    pub(crate) fn library(operation: impl Into<String>, code: i32) -> AvError {
        if code == sys::AVERROR(sys::ENOMEM) {
            return AvError::OutOfMemory { operation: "working in libav" };
        }
        AvError::Library { operation: operation.into(), cause: code.into() }
    }

    /// Stable code in snake_case for [`Failure::code`].
    pub fn code(&self) -> &'static str {
        match self {
            AvError::Io { .. } => "io",
            AvError::Empty => "empty_file",
            AvError::NotMedia { .. } => "not_media",
            AvError::NestedReference { .. } => "nested_reference",
            AvError::OverBudget { .. } => "over_budget",
            AvError::Encrypted { .. } => "encrypted",
            AvError::NoVideo => "no_video",
            AvError::NoStream { .. } => "no_stream",
            AvError::NoSamples { .. } => "no_samples",
            AvError::NoFrames { .. } => "no_frames",
            AvError::TooDamaged { .. } => "too_damaged",
            AvError::NoDecoder { .. } => "no_decoder",
            AvError::Demux { .. } => "damaged",
            AvError::Decode { .. } => "undecodable",
            AvError::FrameMissing { .. } => "frame_missing",
            AvError::PacketChanged { .. } => "source_changed",
            AvError::Unsupported { .. } => "unsupported",
            AvError::Request { .. } => "bad_parameter",
            AvError::Library { .. } => "libav",
            AvError::Cancelled => "cancelled",
            AvError::OutOfMemory { .. } => "out_of_memory",
        }
    }

    /// This error as the service sees it, with the whole chain of causes in the message.
    pub fn failure(&self) -> Failure {
        let (class, origin) = match self {
            // The share and the disk stand behind our descriptors.
            AvError::Io { .. } => (ErrorClass::Transient, ErrorOrigin::Share),
            AvError::Empty
            | AvError::NotMedia { .. }
            | AvError::NestedReference { .. }
            | AvError::OverBudget { .. }
            | AvError::Encrypted { .. }
            | AvError::NoVideo
            | AvError::NoStream { .. }
            | AvError::NoSamples { .. }
            | AvError::NoFrames { .. }
            | AvError::TooDamaged { .. }
            | AvError::NoDecoder { .. }
            | AvError::Demux { .. }
            | AvError::Decode { .. }
            | AvError::FrameMissing { .. }
            | AvError::PacketChanged { .. }
            | AvError::Unsupported { .. } => (ErrorClass::Deterministic, ErrorOrigin::Source),
            AvError::Request { .. } => (ErrorClass::Deterministic, ErrorOrigin::Request),
            AvError::Library { .. } => (ErrorClass::Deterministic, ErrorOrigin::Engine),
            AvError::Cancelled => (ErrorClass::Transient, ErrorOrigin::Request),
            AvError::OutOfMemory { .. } => (ErrorClass::Resource, ErrorOrigin::Node),
        };
        let mut message = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        Failure::new(class, origin, self.code(), message)
    }
}

impl From<AvError> for Failure {
    fn from(error: AvError) -> Failure {
        error.failure()
    }
}
