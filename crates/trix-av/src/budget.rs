//! What a file may ask for before anything of it is believed.
//!
//! A few bytes of a header can promise a billion frames, and a library that
//! believes them allocates for them. The limits stand far above every delivery
//! that was seen, and low enough that an attempt stays below a gigabyte and
//! half a minute. Each refusal names what is asked for, how much, and how much
//! is allowed. The table of docs/refusals.md shows the same numbers.

use crate::error::{AvError, Result};

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is counted, as the end of "the file asks for N …".
    pub what: &'static str,
    /// How much is taken.
    pub allowed: u64,
}

/// Streams of a file, of all kinds; a transport stream's tables may claim 8192.
pub const STREAMS: Limit = Limit { what: "streams", allowed: 200 };

/// Samples that a movie's tables promise without holding a byte for each of
/// them: an entry of libav's index takes 24 bytes. A day at 120 frames a second
/// is ten million.
pub const SAMPLES: Limit = Limit { what: "samples in its tables", allowed: 16_000_000 };

/// Packets that the index holds, at about 72 bytes each: half a day of picture
/// at 60 frames a second with two tracks of AAC.
pub const PACKETS: Limit = Limit { what: "packets", allowed: 8_000_000 };

/// Chapters; a day with one each ten seconds.
pub const CHAPTERS: Limit = Limit { what: "chapters", allowed: 10_000 };

/// Tags of the file, its streams and its chapters, in number …
pub const TAGS: Limit = Limit { what: "tags", allowed: 20_000 };

/// … and in bytes.
pub const TAG_BYTES: Limit = Limit { what: "bytes of tags", allowed: 16 << 20 };

/// Bytes of parameters of all coded streams: parameter sets, code books.
pub const PARAMETER_BYTES: Limit = Limit { what: "bytes of codec parameters", allowed: 16 << 20 };

/// Seconds from the first frame to the end of the last.
pub const SECONDS: Limit = Limit { what: "seconds of picture", allowed: 7 * 86_400 };

/// Frames a second on the average of the whole picture.
pub const RATE: Limit = Limit { what: "frames a second", allowed: 1000 };

/// Bytes that a compressed movie header claims to have; libav allocates them at once.
pub const HEADER_BYTES: Limit = Limit { what: "bytes of compressed header", allowed: 64 << 20 };

/// Bytes of all packets out of a file of `size` bytes. A header may make a packet of next to
/// nothing: Matroska puts the same bytes before each, edits repeat samples. Honest files stay
/// near their own size.
pub const fn packet_bytes(size: u64) -> Limit {
    Limit { what: "bytes of packets", allowed: size.saturating_mul(16).saturating_add(4 << 30) }
}

/// Every limit that no file moves, for the table of the documentation.
pub const ALL: &[Limit] = &[
    STREAMS,
    SAMPLES,
    PACKETS,
    CHAPTERS,
    TAGS,
    TAG_BYTES,
    PARAMETER_BYTES,
    SECONDS,
    RATE,
    HEADER_BYTES,
];

impl Limit {
    /// Fails when `asked` is more than is taken.
    pub(crate) fn check(self, asked: u64) -> Result<()> {
        if asked > self.allowed { Err(self.over(asked)) } else { Ok(()) }
    }

    /// The refusal.
    pub(crate) fn over(self, asked: u64) -> AvError {
        AvError::OverBudget { what: self.what, asked, allowed: self.allowed }
    }
}
