//! Packet files → a finished file.
//!
//! Video chunks follow each other in the plan's order, sound runs beside them;
//! packets are written in the order of their decode times, so that a player
//! never has to seek between the tracks.

use trix_av::{CodecParameters, EncodedPacket, MuxOptions, MuxTrack, Muxer};
use trix_model::time::{Rounding, rescale};
use trix_model::{Failure, Key, Rational};
use trix_plan::task::{Container, Mux, Output, TaskResult};

use crate::io::{Control, TaskIo, write_failure};
use crate::packetfile::{PacketReader, Written};
use crate::run::{made, only};

/// One track's packets, from one packet file after the other.
struct Track<'a> {
    io: &'a dyn TaskIo,
    keys: std::slice::Iter<'a, Key>,
    reader: PacketReader,
    next: Option<EncodedPacket>,
    last_dts: Option<i64>,
}

pub fn run(
    task: &Mux,
    wanted: &[Output],
    io: &dyn TaskIo,
    control: &Control<'_>,
) -> Result<TaskResult, Failure> {
    let output = only(wanted, "file")?;
    let mut tracks = Vec::new();
    let mut described = Vec::new();
    if let Some(video) = &task.video {
        let track = Track::open(io, &video.chunks)?;
        described.push(MuxTrack {
            parameters: track.reader.header().parameters.clone(),
            time_base: track.reader.header().time_base,
            language: None,
            title: None,
            default: true,
            rotation: video.rotation,
        });
        tracks.push(track);
    }
    for audio in &task.audio {
        let track = Track::open(io, std::slice::from_ref(&audio.key))?;
        described.push(MuxTrack {
            parameters: track.reader.header().parameters.clone(),
            time_base: track.reader.header().time_base,
            language: audio.language.clone(),
            title: audio.title.clone(),
            default: audio.default,
            rotation: 0,
        });
        tracks.push(track);
    }

    let file = io.create(output)?;
    let options =
        MuxOptions { fast_start: task.container != Container::Mkv, tags: task.tags.clone() };
    let mut muxer = Muxer::create(file, task.container, &described, &options)?;
    let bases: Vec<Rational> = described.iter().map(|t| t.time_base).collect();
    let chunks = task.video.as_ref().map_or(0, |v| v.chunks.len()) as u64;
    let mut frames = 0;
    while let Some(n) = earliest(&tracks, &bases) {
        let track = &mut tracks[n];
        let Some(packet) = track.take(&described[n].parameters)? else { continue };
        frames += u64::from(n == 0);
        let left = track.keys.len() as u64;
        muxer.write(n, &packet)?;
        control.at("mux", chunks.saturating_sub(left), chunks.max(1), frames)?;
    }
    let written = digest(muxer.finish()?, &output.name)?;
    Ok(TaskResult { outputs: vec![made(output, written)], detail: None })
}

/// The track whose next packet is to be decoded first.
fn earliest(tracks: &[Track<'_>], bases: &[Rational]) -> Option<usize> {
    // One common fine base for comparing only; the packets keep their own ticks.
    let fine = Rational::new(1, 1_000_000_000).expect("a constant");
    tracks
        .iter()
        .enumerate()
        .filter_map(|(n, t)| {
            Some((rescale(t.next.as_ref()?.dts, bases[n], fine, Rounding::Down), n))
        })
        .min()
        .map(|(_, n)| n)
}

impl<'a> Track<'a> {
    fn open(io: &'a dyn TaskIo, keys: &'a [Key]) -> Result<Track<'a>, Failure> {
        let mut keys = keys.iter();
        let first = keys.next().ok_or_else(|| Failure::bug("a track without packet files"))?;
        let reader = PacketReader::open(io.artifact(first)?)?;
        let mut track = Track { io, keys, reader, next: None, last_dts: None };
        track.next = track.reader.next_packet()?;
        Ok(track)
    }

    /// The next packet; moves on to the next file when one ends. Joining fails
    /// closed: every file must have the very same parameter sets and time base.
    fn take(&mut self, parameters: &CodecParameters) -> Result<Option<EncodedPacket>, Failure> {
        let Some(mut packet) = self.next.take() else { return Ok(None) };
        self.next = self.reader.next_packet()?;
        while self.next.is_none() {
            let Some(key) = self.keys.next() else { break };
            let following = PacketReader::open(self.io.artifact(key)?)?;
            if following.header().parameters != *parameters
                || following.header().time_base != self.reader.header().time_base
            {
                return Err(Failure::bug(
                    "two chunks of a rendition have different parameter sets",
                )
                .about(key));
            }
            self.reader = following;
            self.next = self.reader.next_packet()?;
        }
        // At a chunk's start an encoder takes the decode times before its first
        // frame by the frames' distance, which at a varying rate can fall before
        // the last of the chunk before. Nothing is presented by decode time.
        if let Some(last) = self.last_dts
            && packet.dts <= last
        {
            packet.dts = last + 1;
        }
        if packet.dts > packet.pts {
            return Err(Failure::bug(format!(
                "a packet would be decoded at {} after its presentation at {}",
                packet.dts, packet.pts
            )));
        }
        self.last_dts = Some(packet.dts);
        Ok(Some(packet))
    }
}

/// BLAKE3 of the finished file: fast start moves its parts, so it is read once more.
fn digest(mut file: std::fs::File, name: &str) -> Result<Written, Failure> {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::Start(0)).map_err(|e| write_failure(name, &e))?;
    let (digest, size) = trix_storage::blake3_of(&mut file, name)?;
    Ok(Written { digest, size })
}
