//! Made-up films and what is made of them: every byte is a pure function of a key.
//!
//! A film is a file whose first line says how long it is and how much work its chunks
//! are; the rest is noise of its seed. The real planner makes the real plan of it,
//! because [`intake`] describes and indexes it as the engine would a real film.
//! Nothing here knows a clock or a path, so that harness and slot agree on the golden
//! content without talking to each other.

use std::io::Read;

use serde::{Deserialize, Serialize};
use trix_model::color::{ColorDescription, HdrMetadata};
use trix_model::digest::{Digest128, SourceHashes};
use trix_model::index::{
    AccessPoint, FrameSource, FrameTable, PACKET_INDEX_VERSION, PACKET_KEY, PacketEntry,
    PacketIndex, StreamIndex,
};
use trix_model::media::{
    Audio, DESCRIPTION_VERSION, FieldOrder, MediaDescription, Stream, StreamKind, Video,
};
use trix_model::{Key, PlanningIndex, Rational};
use trix_plan::task::IntakeResult;

/// Frames a second of every film.
pub const RATE: i64 = 25;
/// Frames from one access point to the next.
const ACCESS: u32 = 50;
/// The shortest chunk that the planner makes, in frames.
pub const CHUNK: u32 = 200;
/// A film's first line is shorter than this.
const HEAD_LIMIT: usize = 512;

/// What the first line of a film says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Film {
    /// Makes this film another one than those of other seeds.
    pub seed: u64,
    /// Frames; a chunk is made of every [`CHUNK`], up to 24 of them.
    pub frames: u32,
    /// Sound tracks.
    pub tracks: u32,
    /// Milliseconds that a chunk or a sound track takes, half as much more or less by its key.
    pub work_ms: u64,
    /// Bytes of noise behind the first line.
    pub noise: u32,
}

impl Film {
    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("plain numbers");
        bytes.push(b'\n');
        let head = bytes.len();
        bytes.resize(head + self.noise as usize, 0);
        let mut seed = blake3::Hasher::new_derive_key("trix-chaos: noise of a film");
        seed.update(&self.seed.to_le_bytes());
        seed.finalize_xof().fill(&mut bytes[head..]);
        bytes
    }

    /// Reads the first line. `None` when the file is no film of ours.
    pub fn read(file: &mut impl Read) -> std::io::Result<Option<Film>> {
        let mut head = Vec::new();
        file.take(HEAD_LIMIT as u64).read_to_end(&mut head)?;
        let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
        Ok(serde_json::from_slice(line).ok())
    }

    /// What intake says of this film, without the tee.
    pub fn intake(&self, hashes: SourceHashes) -> IntakeResult {
        let index = self.index();
        let planning = PlanningIndex::from_index(&index, Some(0)).expect("stream 0 has frames");
        IntakeResult {
            media: self.media(hashes.size),
            hashes,
            planning_index: planning.to_base64(),
            findings: Vec::new(),
            staged: None,
        }
    }

    fn media(&self, size: u64) -> MediaDescription {
        let stream = |index, codec: &str, time_base, kind| Stream {
            index,
            codec: codec.to_owned(),
            profile: None,
            time_base,
            start: Some(0),
            duration: None,
            bit_rate: None,
            language: None,
            title: None,
            default: index == 0,
            attached_picture: false,
            kind,
        };
        let rate = Rational::new(RATE, 1);
        let picture = Video {
            width: 160,
            height: 90,
            pixel_format: "yuv420p".to_owned(),
            depth: 8,
            sample_aspect: Some(Rational::ONE),
            frame_rate: rate,
            average_rate: rate,
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
        };
        let mut streams = vec![stream(0, "h264", frame_base(), StreamKind::Video(picture))];
        for track in 1..=self.tracks {
            let sound = Audio {
                sample_rate: 48_000,
                channels: 2,
                layout: Some("stereo".to_owned()),
                sample_format: "fltp".to_owned(),
                depth: None,
            };
            let mut track = stream(track, "aac", sample_base(), StreamKind::Audio(sound));
            track.language =
                Some(["eng", "rus", "deu", "fra"][(track.index as usize - 1) % 4].into());
            streams.push(track);
        }
        MediaDescription {
            version: DESCRIPTION_VERSION,
            container: "mov".to_owned(),
            size,
            duration_us: Some(i64::from(self.frames) * 1_000_000 / RATE),
            streams,
            tags: Default::default(),
        }
    }

    fn index(&self) -> PacketIndex {
        let hash = |stream: u32, n: u32| {
            let mut hasher = blake3::Hasher::new_derive_key("trix-chaos: packet of a film");
            hasher.update(&self.seed.to_le_bytes());
            hasher.update(&stream.to_le_bytes());
            hasher.update(&n.to_le_bytes());
            let mut bytes = [0; 16];
            hasher.finalize_xof().fill(&mut bytes);
            Digest128(bytes)
        };
        let packet = |stream: u32, n: u32, duration: i64, key: bool| PacketEntry {
            pts: Some(i64::from(n) * duration),
            dts: Some(i64::from(n) * duration),
            duration,
            pos: -1,
            size: 1000,
            flags: if key { PACKET_KEY } else { 0 },
            hash: hash(stream, n),
        };
        let access = (0..self.frames).step_by(ACCESS as usize);
        let picture = StreamIndex {
            stream: 0,
            time_base: frame_base(),
            parameters: hash(0, u32::MAX),
            packets: (0..self.frames).map(|n| packet(0, n, 1, n % ACCESS == 0)).collect(),
            frames: Some(FrameTable {
                source: FrameSource::Packets,
                pts: (0..i64::from(self.frames)).collect(),
                end: i64::from(self.frames),
                access: access.map(|n| AccessPoint { frame: n, packet: n }).collect(),
            }),
        };
        // One packet a second says as much about sound as all of them would.
        let seconds = self.frames.div_ceil(RATE as u32);
        let sound = (1..=self.tracks).map(|stream| StreamIndex {
            stream,
            time_base: sample_base(),
            parameters: hash(stream, u32::MAX),
            packets: (0..seconds).map(|n| packet(stream, n, 48_000, true)).collect(),
            frames: None,
        });
        PacketIndex {
            version: PACKET_INDEX_VERSION,
            streams: std::iter::once(picture).chain(sound).collect(),
        }
    }
}

fn frame_base() -> Rational {
    Rational::new(1, RATE).expect("a constant")
}

fn sample_base() -> Rational {
    Rational::new(1, 48_000).expect("a constant")
}

/// The bytes of the artifact with a key: what every slot writes, and what must be published.
pub fn content(key: &Key) -> Vec<u8> {
    let size = 2048 + u16::from_le_bytes([key.as_bytes()[0], key.as_bytes()[1]]) as usize / 4;
    let mut bytes = vec![0; size];
    let mut hasher = blake3::Hasher::new_derive_key("trix-chaos: content of an artifact");
    hasher.update(key.as_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Milliseconds of a task of about `usual`, by the key of its first output: tasks that all
/// take the same time would all end at the same time.
pub fn work_ms(usual: u64, key: &Key) -> u64 {
    usual / 2 + usual * u64::from(key.as_bytes()[2]) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    fn film() -> Film {
        Film { seed: 7, frames: 5 * CHUNK, tracks: 2, work_ms: 100, noise: 3000 }
    }

    #[test]
    fn a_film_tells_what_it_is() {
        let bytes = film().bytes();
        assert_eq!(Film::read(&mut bytes.as_slice()).unwrap(), Some(film()));
        assert_eq!(Film::read(&mut &b"no film"[..]).unwrap(), None);
        assert_ne!(Film { seed: 8, ..film() }.bytes()[200..], bytes[200..]);
    }

    #[test]
    fn the_planner_takes_a_film_for_a_real_one() {
        let bytes = film().bytes();
        let mut fixity = trix_storage::fixity::Fixity::new();
        fixity.update(&bytes);
        let result = film().intake(fixity.finish());
        let index = PlanningIndex::from_base64(&result.planning_index).unwrap();
        assert_eq!(index.frames(), 5 * CHUNK);
        assert_eq!(index.audio.len(), 2);
    }
}
