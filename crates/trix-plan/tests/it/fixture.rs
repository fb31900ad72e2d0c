//! Sources as intake would describe them.

use trix_model::color::{ColorDescription, HdrMetadata};
use trix_model::digest::{Digest, Digest128, SourceHashes};
use trix_model::index::{
    AccessPoint, FrameSource, FrameTable, PACKET_INDEX_VERSION, PACKET_KEY, PacketEntry,
    StreamIndex,
};
use trix_model::media::{Audio, DESCRIPTION_VERSION, FieldOrder, Stream, StreamKind, Video};
use trix_model::{MediaDescription, PacketIndex, PlanningIndex, Rational};
use trix_plan::task::{IntakeResult, Plan, SourceRef, StagedFile};
use trix_plan::{Delivery, PlanError, Profile, plan0, plan1};

pub const ENGINE: &str = "0123456789abcdef0123456789abcdef";

pub fn ratio(num: i64, den: i64) -> Rational {
    Rational::new(num, den).unwrap()
}

/// A film whose description and packets tests may change before it is planned.
#[derive(Clone)]
pub struct Source {
    pub location: String,
    pub title: String,
    pub media: MediaDescription,
    pub index: PacketIndex,
    pub staged: bool,
}

fn hash(seed: u64) -> Digest128 {
    Digest128((u128::from(seed) * 0x9e37_79b9_7f4a_7c15_f39c).to_le_bytes())
}

/// H.264 in MP4 at 23.976, closed groups of two seconds, with the given sound tracks.
pub fn film(width: u32, height: u32, frames: u32, languages: &[Option<&str>]) -> Source {
    let time_base = ratio(1, 24000);
    let packets = (0..frames).map(|n| PacketEntry {
        pts: Some(i64::from(n) * 1001),
        dts: Some(i64::from(n) * 1001),
        duration: 1001,
        pos: i64::from(n) * 1000,
        size: 1000,
        flags: if n % 48 == 0 { PACKET_KEY } else { 0 },
        hash: hash(u64::from(n)),
    });
    let access = (0..frames).step_by(48).map(|n| AccessPoint { frame: n, packet: n });
    let frame_table = FrameTable {
        source: FrameSource::Packets,
        pts: (0..frames).map(|n| i64::from(n) * 1001).collect(),
        end: i64::from(frames) * 1001,
        access: access.collect(),
    };
    let video = Stream {
        index: 0,
        codec: "h264".into(),
        profile: Some("High".into()),
        time_base,
        start: Some(0),
        duration: Some(i64::from(frames) * 1001),
        bit_rate: None,
        language: None,
        title: None,
        default: true,
        attached_picture: false,
        kind: StreamKind::Video(Video {
            width,
            height,
            pixel_format: "yuv420p".into(),
            depth: 8,
            sample_aspect: Some(Rational::ONE),
            frame_rate: Some(ratio(24000, 1001)),
            average_rate: Some(ratio(24000, 1001)),
            color: ColorDescription {
                primaries: Some(1),
                transfer: Some(1),
                matrix: Some(1),
                full_range: Some(false),
                chroma_location: None,
            },
            hdr: HdrMetadata::default(),
            fields: FieldOrder::Progressive,
            rotation: 0,
            dolby_vision: None,
        }),
    };
    let mut streams = vec![video];
    let mut index = vec![StreamIndex {
        stream: 0,
        time_base,
        parameters: hash(1 << 40),
        packets: packets.collect(),
        frames: Some(frame_table),
    }];
    for (n, language) in (1..).zip(languages) {
        streams.push(Stream {
            index: n,
            codec: "pcm_s24le".into(),
            profile: None,
            time_base: ratio(1, 48000),
            start: Some(0),
            duration: None,
            bit_rate: None,
            language: language.map(str::to_owned),
            title: None,
            default: n == 1,
            attached_picture: false,
            kind: StreamKind::Audio(Audio {
                sample_rate: 48_000,
                channels: 6,
                layout: Some("5.1(side)".into()),
                sample_format: "s32".into(),
                depth: Some(24),
            }),
        });
        index.push(StreamIndex {
            stream: n,
            time_base: ratio(1, 48000),
            parameters: hash(u64::from(n) << 41),
            packets: vec![PacketEntry {
                pts: Some(0),
                dts: Some(0),
                duration: 1024,
                pos: 0,
                size: 1,
                flags: PACKET_KEY,
                hash: hash(u64::from(n) << 42),
            }],
            frames: None,
        });
    }
    Source {
        location: "incoming:films/night/feature.mov".into(),
        title: "The Night".into(),
        media: MediaDescription {
            version: DESCRIPTION_VERSION,
            container: "mov".into(),
            size: 5_000_000_000,
            duration_us: Some(i64::from(frames) * 1_001_000_000 / 24_000),
            streams,
            tags: Default::default(),
        },
        index: PacketIndex { version: PACKET_INDEX_VERSION, streams: index },
        staged: true,
    }
}

impl Source {
    pub fn video(&mut self) -> &mut Video {
        match &mut self.media.streams[0].kind {
            StreamKind::Video(video) => video,
            other => panic!("{other:?} is no video"),
        }
    }

    pub fn frames(&mut self) -> &mut FrameTable {
        self.index.streams[0].frames.as_mut().unwrap()
    }

    pub fn planning(&self) -> PlanningIndex {
        PlanningIndex::from_index(&self.index, self.media.main_video().map(|(s, _)| s.index))
            .unwrap()
    }

    pub fn source_ref(&self) -> SourceRef {
        SourceRef {
            location: self.location.parse().unwrap(),
            size: self.media.size,
            mtime_ns: 1_700_000_000_000_000_000,
        }
    }

    pub fn intake(&self) -> IntakeResult {
        let sha256 = Digest([7; 32]);
        let staged = StagedFile {
            location: "archive:.trix/stage/1-1/source".parse().unwrap(),
            size: self.media.size,
            sha256,
        };
        IntakeResult {
            media: self.media.clone(),
            hashes: SourceHashes {
                sha256,
                md5: Digest128([1; 16]),
                xxh3: Digest128([2; 16]),
                size: self.media.size,
            },
            planning_index: self.planning().to_base64(),
            findings: Vec::new(),
            staged: self.staged.then_some(staged),
        }
    }

    pub fn plan(&self, profile: &Profile, delivery: Delivery) -> Result<(Plan, Plan), PlanError> {
        let source = self.source_ref();
        let first = plan0(&source, &[], profile, ENGINE, delivery)?;
        let second = plan1(profile, &self.intake(), &source, ENGINE, &self.title, delivery)?;
        trix_plan::validate(&[&first, &second]).unwrap();
        Ok((first, second))
    }
}

pub fn shipped(name: &str) -> Profile {
    Profile::parse(Profile::shipped_text(name).unwrap()).unwrap()
}
