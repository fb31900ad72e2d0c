//! The packet index that inspection writes, and its small sibling for planning.
//!
//! [`PacketIndex`] stays an artifact: per packet its times, size, flags and a
//! 128-bit hash, and the table of presented frames. [`PlanningIndex`] goes into
//! the database as one compressed value: the presented frames' timestamps and,
//! per random access point, one hash over its packets.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest128;
use crate::time::Rational;

/// Packet starts a picture that can be decoded without earlier ones.
pub const PACKET_KEY: u8 = 1;
/// The edit list or the container says: decode, but do not present.
pub const PACKET_DISCARD: u8 = 2;
/// The demuxer marked the packet as damaged.
pub const PACKET_CORRUPT: u8 = 4;

/// One coded packet. Times are in ticks of its stream's time base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketEntry {
    /// Presentation time, if the container states or implies it.
    pub pts: Option<i64>,
    /// Decode time, if stated or implied.
    pub dts: Option<i64>,
    /// Duration, 0 when unknown.
    pub duration: i64,
    /// Byte position in the file, -1 when unknown.
    pub pos: i64,
    /// Bytes.
    pub size: u32,
    /// `PACKET_*` bits.
    pub flags: u8,
    /// xxh3-128 of the payload.
    pub hash: Digest128,
}

/// How the table of presented frames came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameSource {
    /// One frame per packet that is not discarded; times from the packets.
    Packets,
    /// The packets do not say (missing times, split fields, a start without a
    /// key frame), so the stream was decoded once to learn it.
    Decode,
}

/// All packets of one stream, in file order, and its presented frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamIndex {
    /// Index of the stream in the container.
    pub stream: u32,
    /// Seconds per tick.
    pub time_base: Rational,
    /// xxh3-128 over codec id and parameter sets (extradata).
    pub parameters: Digest128,
    /// Packets in file order.
    pub packets: Vec<PacketEntry>,
    /// Video only: the presented frames in display order.
    pub frames: Option<FrameTable>,
}

/// The presented frames of a video stream, in display order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameTable {
    /// Where the table comes from.
    pub source: FrameSource,
    /// Presentation time of each frame; strictly rising.
    pub pts: Vec<i64>,
    /// End of the last frame.
    pub end: i64,
    /// Random access points, rising by frame.
    pub access: Vec<AccessPoint>,
}

/// A place where decoding can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessPoint {
    /// Number of the first frame that decodes right from here.
    pub frame: u32,
    /// Position of the packet in [`StreamIndex::packets`].
    pub packet: u32,
}

/// The packet index of a whole source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketIndex {
    /// Version of this structure.
    pub version: u32,
    /// One entry per audio or video stream.
    pub streams: Vec<StreamIndex>,
}

/// What planning needs of the main video stream; small enough for a database column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanningIndex {
    /// Index of the video stream.
    pub stream: u32,
    /// Seconds per tick.
    pub time_base: Rational,
    /// Codec id and parameter sets.
    pub parameters: Digest128,
    /// Presentation times of all frames, in display order, strictly rising.
    pub pts: Vec<i64>,
    /// End of the last frame.
    pub end: i64,
    /// Access-point groups, rising by frame.
    pub groups: Vec<AccessGroup>,
    /// Per audio stream of the source: (stream index, hash over all its packets and parameters).
    pub audio: Vec<(u32, Digest128)>,
}

/// One access point with the packets up to the next one, in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessGroup {
    /// First frame that decodes right from here.
    pub frame: u32,
    /// One hash over hash, pts, dts and flags of the group's packets.
    pub hash: Digest128,
}

/// Damage in a serialised index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading an index: {0}")]
pub struct IndexError(pub String);
