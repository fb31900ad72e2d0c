//! The packet index that inspection writes, and its small sibling for planning.
//!
//! [`PacketIndex`] stays an artifact: per packet its times, size, flags and a
//! 128-bit hash, and the table of presented frames. [`PlanningIndex`] goes into
//! the database as one compressed value: the presented frames' timestamps and,
//! per random access point, one hash over its packets.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::digest::Digest128;
use crate::error::{ErrorClass, ErrorOrigin, Failure};
use crate::time::Rational;

mod codec;

/// Current version of [`PacketIndex`].
pub const PACKET_INDEX_VERSION: u32 = 1;

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

/// What planning needs of the source; small enough for a database column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanningIndex {
    /// Index of the main video stream; `None` for a source without pictures, whose `pts`, `access`
    /// and `groups` are empty.
    pub stream: Option<u32>,
    /// Seconds per tick of the main video; 1/1 without pictures.
    pub time_base: Rational,
    /// Codec id and parameter sets of the main video; zero without pictures.
    pub parameters: Digest128,
    /// Presentation times of all frames, in display order, strictly rising.
    pub pts: Vec<i64>,
    /// End of the last frame.
    pub end: i64,
    /// Frames of all access points, strictly rising. The first is 0: what stands before the first
    /// access point of the stream is decoded from the start of the file.
    pub access: Vec<u32>,
    /// Groups of packets, strictly rising by frame, the first at frame 0.
    pub groups: Vec<AccessGroup>,
    /// Per audio stream that has packets: (stream index, hash over all its packets and parameters).
    pub audio: Vec<(u32, Digest128)>,
}

/// The packets from one access point up to the next group's, in file order.
///
/// A group spans one access point, or those within one second of film where
/// they stand closer (intra-only sources): groups then begin at whole seconds
/// of the nominal rate, where chunks begin too, and the value stays small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessGroup {
    /// First frame that decodes right from here.
    pub frame: u32,
    /// How many frames presented before `frame` may have their packets in this group (leading
    /// pictures of an open GOP); decoding those frames reads this group too.
    pub lead: u32,
    /// One hash over hash, pts, dts and flags of the group's packets.
    pub hash: Digest128,
}

/// Why an index cannot be read or made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Not an index of this kind at all.
    #[error("reading an index: this is no {0}")]
    Kind(&'static str),
    /// Written by a version that this build does not know.
    #[error("reading a {what}: version {found} is not the known one, {known}")]
    Version {
        /// Which index.
        what: &'static str,
        /// Version in the file.
        found: u8,
        /// Version that this build reads.
        known: u8,
    },
    /// Bytes were changed or are missing.
    #[error("reading a {0}: the checksum does not match")]
    Checksum(&'static str),
    /// Not base64.
    #[error("reading a {0}: it is not base64")]
    Base64(&'static str),
    /// More than an index of a real film holds.
    #[error("reading a {what}: it unpacks to more than {limit} bytes")]
    TooLarge {
        /// Which index.
        what: &'static str,
        /// Most bytes that are unpacked.
        limit: usize,
    },
    /// Right checksum, wrong content: a value that no writer of ours makes.
    #[error("reading a {what}: {problem}")]
    Content {
        /// Which index.
        what: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// The packet index has no such stream, or no frame table for it.
    #[error("making a planning index: stream {0} has no table of frames")]
    NoFrames(u32),
}

impl From<IndexError> for Failure {
    fn from(e: IndexError) -> Failure {
        let message = e.to_string();
        match e {
            IndexError::NoFrames(_) => Failure::source("no_frames", message),
            // The artifact was verified when it was made: whoever stored it damaged it, and the
            // cache makes it anew.
            _ => {
                Failure::new(ErrorClass::Transient, ErrorOrigin::Share, "artifact_damaged", message)
            }
        }
    }
}

impl FrameTable {
    /// The frame that is presented at exactly `pts`.
    pub fn frame_at_pts(&self, pts: i64) -> Option<u32> {
        frame_at(&self.pts, pts)
    }

    /// The last access point from which `frame` decodes right; `None` means the start of the file.
    pub fn access_for(&self, frame: u32) -> Option<AccessPoint> {
        let behind = self.access.partition_point(|a| a.frame <= frame);
        self.access[..behind].last().copied()
    }

    /// Time of a frame's start; for the number behind the last frame, the end of the film.
    pub fn pts_of(&self, frame: u32) -> Option<i64> {
        pts_of(&self.pts, self.end, frame)
    }
}

impl PacketIndex {
    /// The entry of a stream by its number in the container.
    pub fn stream(&self, stream: u32) -> Option<&StreamIndex> {
        self.streams.iter().find(|s| s.stream == stream)
    }
}

impl PlanningIndex {
    /// What planning needs of `index`: the frames of the main video `video` (`None` for a source
    /// without pictures) and one hash per audio stream, which is every stream without a table of
    /// frames.
    pub fn from_index(
        index: &PacketIndex,
        video: Option<u32>,
    ) -> Result<PlanningIndex, IndexError> {
        let audio = index
            .streams
            .iter()
            .filter(|s| s.frames.is_none() && !s.packets.is_empty())
            .map(|s| {
                let mut hash = PacketHasher::new();
                hash.bytes(s.parameters.as_bytes());
                hash.bytes(&s.time_base.num().to_le_bytes());
                hash.bytes(&s.time_base.den().to_le_bytes());
                s.packets.iter().for_each(|p| hash.packet(p));
                (s.stream, hash.finish())
            })
            .collect();
        let Some(video) = video else {
            return Ok(PlanningIndex {
                stream: None,
                time_base: Rational::ONE,
                parameters: Digest128([0; 16]),
                pts: Vec::new(),
                end: 0,
                access: Vec::new(),
                groups: Vec::new(),
                audio,
            });
        };
        let stream = index.stream(video).ok_or(IndexError::NoFrames(video))?;
        let frames = stream.frames.as_ref().ok_or(IndexError::NoFrames(video))?;
        let points = access_from_start(stream, frames)?;
        Ok(PlanningIndex {
            stream: Some(video),
            time_base: stream.time_base,
            parameters: stream.parameters,
            pts: frames.pts.clone(),
            end: frames.end,
            access: points.iter().map(|p| p.frame).collect(),
            groups: group(stream, frames, &points),
            audio,
        })
    }

    /// Number of presented frames.
    pub fn frames(&self) -> u32 {
        self.pts.len() as u32
    }

    /// The frame that is presented at exactly `pts`.
    pub fn frame_at_pts(&self, pts: i64) -> Option<u32> {
        frame_at(&self.pts, pts)
    }

    /// Time of a frame's start; for the number behind the last frame, the end of the film.
    pub fn pts_of(&self, frame: u32) -> Option<i64> {
        pts_of(&self.pts, self.end, frame)
    }

    /// Frame of the access point from which `frame` is decoded.
    pub fn access_for(&self, frame: u32) -> u32 {
        let behind = self.access.partition_point(|a| *a <= frame);
        self.access[..behind].last().copied().unwrap_or(0)
    }

    /// Frames that are decoded and thrown away before `frame` is there.
    pub fn preroll(&self, frame: u32) -> u32 {
        frame - self.access_for(frame)
    }

    /// Groups whose packets are read to decode the frames of `frames`, pre-roll included.
    pub fn groups_for(&self, frames: Range<u32>) -> &[AccessGroup] {
        if frames.is_empty() || self.groups.is_empty() {
            return &[];
        }
        let from = self.access_for(frames.start);
        let first = self.groups.partition_point(|g| g.frame <= from).saturating_sub(1);
        // A group is read when one of its leading pictures, or its own first frame, is wanted.
        let behind = self.groups.partition_point(|g| g.frame.saturating_sub(g.lead) < frames.end);
        &self.groups[first..behind.max(first + 1)]
    }
}

fn frame_at(table: &[i64], pts: i64) -> Option<u32> {
    table.binary_search(&pts).ok().map(|i| i as u32)
}

fn pts_of(table: &[i64], end: i64, frame: u32) -> Option<i64> {
    match (frame as usize).cmp(&table.len()) {
        std::cmp::Ordering::Less => Some(table[frame as usize]),
        std::cmp::Ordering::Equal => Some(end),
        std::cmp::Ordering::Greater => None,
    }
}

/// The access points, strictly rising, with one at frame 0 in front if the stream does not begin
/// with one.
fn access_from_start(
    stream: &StreamIndex,
    frames: &FrameTable,
) -> Result<Vec<AccessPoint>, IndexError> {
    let what = "packet index";
    let mut points: Vec<AccessPoint> = Vec::with_capacity(frames.access.len() + 1);
    for a in &frames.access {
        if a.frame as usize >= frames.pts.len() || a.packet as usize >= stream.packets.len() {
            return Err(IndexError::Content { what, problem: "an access point lies outside" });
        }
        // A point that does not rise adds nothing: decoding from the one before is right as well.
        if points.last().is_some_and(|l| l.frame >= a.frame || l.packet >= a.packet) {
            continue;
        }
        points.push(*a);
    }
    if !frames.pts.is_empty() {
        match points.first_mut() {
            // Packets before the first access point are read with it, if only to skip them.
            Some(first) if first.frame == 0 => first.packet = 0,
            _ => points.insert(0, AccessPoint { frame: 0, packet: 0 }),
        }
    }
    Ok(points)
}

/// Groups of packets; see [`AccessGroup`].
fn group(stream: &StreamIndex, frames: &FrameTable, points: &[AccessPoint]) -> Vec<AccessGroup> {
    let second = frames_a_second(stream.time_base, &frames.pts);
    let mut starts: Vec<AccessPoint> = Vec::new();
    for p in points {
        if starts.last().is_none_or(|s| s.frame / second < p.frame / second) {
            starts.push(*p);
        }
    }
    let ends = starts.iter().skip(1).map(|s| s.packet as usize).chain([stream.packets.len()]);
    let mut before = 0;
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let packets = &stream.packets[start.packet as usize..end];
            let mut hash = PacketHasher::new();
            packets.iter().for_each(|p| hash.packet(p));
            let lead = match frames.source {
                FrameSource::Packets => packets
                    .iter()
                    .filter_map(|p| frames.frame_at_pts(p.pts?))
                    .min()
                    .map_or(0, |first| start.frame.saturating_sub(first)),
                // The packets' times do not tell which frame comes from which packet; any frame
                // since the last group may need this one.
                FrameSource::Decode => start.frame - before,
            };
            before = start.frame;
            AccessGroup { frame: start.frame, lead, hash: hash.finish() }
        })
        .collect()
}

/// Whole frames in a second by the average rate of the table, at least one.
fn frames_a_second(time_base: Rational, pts: &[i64]) -> u32 {
    let (Some(first), Some(last)) = (pts.first(), pts.last()) else { return 1 };
    let span = i128::from(*last) - i128::from(*first);
    if span <= 0 || !time_base.is_positive() {
        return 1;
    }
    let seconds_num = span * i128::from(time_base.num());
    let rate =
        ((pts.len() as i128 - 1) * i128::from(time_base.den()) + seconds_num / 2) / seconds_num;
    rate.clamp(1, 1000) as u32
}

/// A hash over what decides the decoded result of packets: content, times and flags, but not
/// where they lie in the file.
struct PacketHasher(blake3::Hasher);

impl PacketHasher {
    fn new() -> PacketHasher {
        PacketHasher(blake3::Hasher::new())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn packet(&mut self, p: &PacketEntry) {
        let mut record = [0u8; 35];
        record[..16].copy_from_slice(p.hash.as_bytes());
        record[16] = u8::from(p.pts.is_some());
        record[17..25].copy_from_slice(&p.pts.unwrap_or(0).to_le_bytes());
        record[25] = u8::from(p.dts.is_some());
        record[26..34].copy_from_slice(&p.dts.unwrap_or(0).to_le_bytes());
        record[34] = p.flags;
        self.bytes(&record);
    }

    fn finish(self) -> Digest128 {
        let mut out = [0u8; 16];
        out.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        Digest128(out)
    }
}
