//! The packet index: every packet with its hash, and the frames that will be seen.
//!
//! The table of frames must be what the decoder gives, to the frame. Where the
//! packets say it plainly the table is made from them, and the first and the
//! last access-point group are decoded to make sure; in every other case the
//! stream is decoded once, and what came out is the table.

use std::collections::HashSet;
use std::ffi::c_int;
use std::ptr;

use ffmpeg_sys_next as sys;
use trix_model::digest::Digest128;
use trix_model::index::{
    AccessPoint, FrameSource, FrameTable, PACKET_CORRUPT, PACKET_DISCARD, PACKET_KEY, PacketEntry,
    PacketIndex, StreamIndex,
};
use trix_model::{Finding, Rational, Severity};

use crate::budget;
use crate::decode::{self, Received, VideoDecoder, Walk};
use crate::error::{AvError, Result};
use crate::ffi::{self, get_enum};
use crate::input::{Input, Packet, finding};
use crate::io::Source;
use crate::nal::Nals;

/// Current version of [`PacketIndex`].
pub const INDEX_VERSION: u32 = 1;

/// Frames at the start that are decoded to check a table made from packets.
const CHECKED_AT_START: u32 = 48;

/// Bytes of packets between two reports of progress.
const TELL_EVERY: usize = 4 << 20;

/// An index with what was odd about the file.
#[derive(Debug)]
pub struct Indexed {
    /// The index.
    pub index: PacketIndex,
    /// Truncation, damaged packets, frames that can't be decoded.
    pub findings: Vec<Finding>,
}

/// How the table of frames is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexMode {
    /// From the packets where they are plain, else by a decode.
    Auto,
    /// By a decode of the whole stream.
    Decode,
}

/// Reads all packets of a fresh input and makes its index.
///
/// # Errors
/// [`AvError::NoSamples`], [`AvError::NoFrames`], [`AvError::TooDamaged`], [`AvError::NoDecoder`] about
/// the main video stream; [`AvError::Encrypted`]; [`AvError::Io`]. A damaged
/// tail is no error but a finding, and the index ends before it.
pub fn build_index<S: Source>(
    input: &mut Input<S>,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Indexed> {
    build_index_with(input, IndexMode::Auto, progress)
}

/// Like [`build_index`], with a choice of how the frames are found.
///
/// `progress` is told the byte position now and then; `false` ends the work
/// with [`AvError::Cancelled`].
pub fn build_index_with<S: Source>(
    input: &mut Input<S>,
    mode: IndexMode,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Indexed> {
    let main = input.main_video();
    if let Some(stream) = main {
        // Say so before a hundred gigabytes are read.
        VideoDecoder::open(input, stream, 1)?;
    }
    let mut scan = Scan::new(input, main)?;
    let mut findings = scan.read(input, progress)?;
    if !scan.facts.inter {
        // H.264 of cameras and mezzanines: all pictures are intra, though few
        // are marked as places to start.
        scan.facts.access.fill(true);
    }
    let Scan { streams, facts, .. } = scan;
    let mut index = PacketIndex { version: INDEX_VERSION, streams };
    if let Some(stream) = main {
        let entry = index.streams.iter_mut().find(|s| s.stream == stream);
        let entry = entry.ok_or(AvError::NoSamples { stream })?;
        if entry.packets.is_empty() {
            return Err(AvError::NoSamples { stream });
        }
        let plain = match mode {
            IndexMode::Auto => plain_table(input, entry, &facts)?,
            IndexMode::Decode => None,
        };
        match plain {
            Some(table) => {
                entry.frames = Some(table);
                if let Some(why) = check(input, entry)? {
                    tracing::debug!(stream, why, "the packets do not tell the frames, decoding");
                    decode_table(input, entry, &facts, &mut findings, progress)?;
                }
            }
            None => decode_table(input, entry, &facts, &mut findings, progress)?,
        }
        if let Some(table) = &entry.frames {
            check_times(table, entry.time_base)?;
        }
    }
    Ok(Indexed { index, findings })
}

/// A film is neither years long nor has it a million frames a second: what is
/// planned over such times would never end.
fn check_times(table: &FrameTable, time_base: Rational) -> Result<()> {
    let (Some(first), frames) = (table.pts.first(), table.pts.len() as i128) else {
        return Ok(());
    };
    let ticks = (i128::from(table.end) - i128::from(*first)).max(1);
    let (num, den) = (i128::from(time_base.num()), i128::from(time_base.den()));
    budget::SECONDS.check(u64::try_from(ticks * num / den).unwrap_or(u64::MAX))?;
    budget::RATE.check(u64::try_from(frames * den / (ticks * num)).unwrap_or(u64::MAX))
}

/// xxh3-128 as it stands in the index.
pub(crate) fn hash(data: &[u8]) -> Digest128 {
    Digest128(xxhash_rust::xxh3::xxh3_128(data).to_be_bytes())
}

/// What the main video's packets showed beside their entries.
#[derive(Default)]
struct Facts {
    /// Per packet: decoding can start here.
    access: Vec<bool>,
    /// A packet held a single field.
    fields: bool,
    /// A packet held a picture that refers to others, or nobody looked.
    inter: bool,
    /// A packet held no picture that is shown by itself.
    odd: bool,
}

struct Scan {
    main: Option<u32>,
    streams: Vec<StreamIndex>,
    facts: Facts,
    nals: Option<Nals>,
    parser: Option<Parser>,
    intra_only: bool,
}

impl Scan {
    fn new<S: Source>(input: &mut Input<S>, main: Option<u32>) -> Result<Scan> {
        let wanted: Vec<u32> =
            (0..input.streams()).filter(|i| input.is_video(*i) || input.is_audio(*i)).collect();
        input.keep_only(&wanted);
        let mut streams = Vec::new();
        for stream in wanted {
            let mut parameters = input.codec(stream)?.into_bytes();
            parameters.push(0);
            parameters.extend_from_slice(input.extradata(stream)?);
            streams.push(StreamIndex {
                stream,
                time_base: input.time_base(stream)?,
                parameters: hash(&parameters),
                packets: Vec::new(),
                frames: None,
            });
        }
        let mut scan = Scan {
            main,
            streams,
            facts: Facts::default(),
            nals: None,
            parser: None,
            intra_only: false,
        };
        if let Some(stream) = main {
            let codec = input.codec(stream)?;
            scan.nals = Nals::of(&codec, input.extradata(stream)?);
            scan.intra_only = is_intra_only(&codec);
            if matches!(codec.as_str(), "h264" | "mpeg2video" | "mpeg1video") {
                scan.parser = Parser::open(input, stream)?;
            }
        }
        Ok(scan)
    }

    fn read<S: Source>(
        &mut self,
        input: &mut Input<S>,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Vec<Finding>> {
        let (mut corrupt, mut told, mut kept, mut bytes) = (0u32, 0usize, 0u64, 0u64);
        let most = budget::packet_bytes(input.size());
        loop {
            let packet = match input.read_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                // The input keeps it as a finding.
                Err(AvError::Demux { .. }) => break,
                Err(error) => return Err(error),
            };
            let stream = packet.stream();
            let Some(position) = self.streams.iter().position(|s| s.stream == stream) else {
                continue;
            };
            if self.main == Some(stream) {
                self.look_at(&packet);
            }
            told += packet.data().len();
            if told >= TELL_EVERY {
                told = 0;
                if !progress(u64::try_from(packet.pos()).unwrap_or(0)) {
                    return Err(AvError::Cancelled);
                }
            }
            kept += 1;
            budget::PACKETS.check(kept)?;
            bytes += packet.data().len() as u64;
            most.check(bytes)?;
            let data = packet.data();
            let flags = packet.flags();
            corrupt += u32::from(flags & PACKET_CORRUPT != 0);
            self.streams[position].packets.push(PacketEntry {
                pts: packet.pts(),
                dts: packet.dts(),
                duration: packet.duration(),
                pos: packet.pos(),
                size: data.len() as u32,
                flags,
                hash: hash(data),
            });
        }
        let mut findings = input.findings();
        if corrupt > 0 {
            let mut f = finding(
                "damaged_packets",
                Severity::Error,
                format!("the container marks {corrupt} packets as damaged"),
            );
            f.measured = Some(corrupt.to_string());
            f.allowed = Some("0".to_owned());
            findings.push(f);
        }
        Ok(findings)
    }

    fn look_at(&mut self, packet: &Packet) {
        let key = packet.flags() & PACKET_KEY != 0;
        let access = match &self.nals {
            _ if self.intra_only => true,
            Some(nals) => nals.starts_at(packet.data()),
            None => key,
        };
        self.facts.access.push(access);
        self.facts.odd |= packet.data().is_empty();
        if let Some(parser) = &mut self.parser {
            let picture = parser.look_at(packet);
            self.facts.fields |= picture.field;
            self.facts.inter |= !picture.intra || !key;
        } else {
            self.facts.inter = true;
        }
    }
}

/// The table as the packets tell it, or `None` where they don't tell it plainly.
fn plain_table<S: Source>(
    input: &Input<S>,
    entry: &StreamIndex,
    facts: &Facts,
) -> Result<Option<FrameTable>> {
    let packets = &entry.packets;
    let codec = input.codec(entry.stream)?;
    if !one_packet_is_one_frame(&codec) || facts.fields || facts.odd || !facts.access[0] {
        return Ok(None);
    }
    if packets.iter().any(|p| p.pts.is_none() || p.flags & PACKET_CORRUPT != 0) {
        return Ok(None);
    }
    let shown = |p: &PacketEntry| p.flags & PACKET_DISCARD == 0;
    // Edits that only cut the head or the tail are plain; cuts inside are not.
    let (Some(first), Some(last)) =
        (packets.iter().position(shown), packets.iter().rposition(shown))
    else {
        return Ok(None);
    };
    let mut cut_inside = packets[first..=last].iter().filter(|p| !shown(p));
    let first_pts = packets[first].pts;
    let last_pts = packets.iter().filter(|p| shown(p)).filter_map(|p| p.pts).max();
    if cut_inside.any(|p| p.pts > first_pts && p.pts < last_pts) {
        return Ok(None);
    }
    let mut pts: Vec<i64> = packets.iter().filter(|p| shown(p)).filter_map(|p| p.pts).collect();
    pts.sort_unstable();
    if pts.windows(2).any(|w| w[0] == w[1]) {
        return Ok(None);
    }
    // Pictures that precede the first one in display order refer to what the file lacks.
    if packets.iter().map(|p| p.pts).min() != Some(packets[0].pts) {
        return Ok(None);
    }
    let end = end_of(&pts, packets, input, entry, facts.fields);
    let access = access_points(&pts, packets, facts);
    Ok(Some(FrameTable { source: FrameSource::Packets, pts, end, access }))
}

/// Access points with the first frame that decodes right from each, rising.
///
/// Pictures that come after the access point in the file and before it in
/// display order may refer to the group before, so the first right frame is
/// the access point's own.
fn access_points(pts: &[i64], packets: &[PacketEntry], facts: &Facts) -> Vec<AccessPoint> {
    let mut access = vec![AccessPoint { frame: 0, packet: 0 }];
    for (i, packet) in packets.iter().enumerate().skip(1) {
        if !facts.access.get(i).copied().unwrap_or(false) {
            continue;
        }
        let Some(time) = packet.pts else { continue };
        // A packet that is decoded but not shown may still start what is shown.
        let frame = pts.partition_point(|p| *p < time) as u32;
        if frame as usize >= pts.len() {
            continue;
        }
        match access.last_mut() {
            // Of several that lead to the same frame the last is the shortest way,
            // but the first packet stays, for it starts the whole.
            Some(last) if last.frame == frame && last.packet != 0 => last.packet = i as u32,
            Some(last) if last.frame < frame => {
                access.push(AccessPoint { frame, packet: i as u32 });
            }
            _ => {}
        }
    }
    access
}

/// End of the last frame.
fn end_of<S: Source>(
    pts: &[i64],
    packets: &[PacketEntry],
    input: &Input<S>,
    entry: &StreamIndex,
    fields: bool,
) -> i64 {
    let Some(last) = pts.last().copied() else { return 0 };
    let stated = packets.iter().find(|p| p.pts == Some(last)).map_or(0, |p| p.duration);
    let step = pts.len().checked_sub(2).map(|i| last.saturating_sub(pts[i]));
    let duration = match (stated, step) {
        // A field's duration is half of what is shown.
        (d, None | Some(0)) if d > 0 => d,
        (d, Some(_)) if d > 0 && !fields => d,
        (_, Some(step)) => step,
        _ => nominal(input, entry.stream, entry.time_base),
    };
    last.saturating_add(duration.max(1))
}

/// Duration of a frame by the container's average rate, at least one tick.
fn nominal<S: Source>(input: &Input<S>, stream: u32, time_base: Rational) -> i64 {
    let Ok(s) = input.stream(stream) else { return 1 };
    // SAFETY: a valid stream.
    let (average, base) = unsafe { ((*s).avg_frame_rate, (*s).r_frame_rate) };
    ffi::positive(average)
        .or(ffi::positive(base))
        .and_then(|rate| {
            let (n, d) = (
                rate.den().checked_mul(time_base.den())?,
                rate.num().checked_mul(time_base.num())?,
            );
            Some(trix_model::time::mul_div(1, n, d, trix_model::time::Rounding::Nearest))
        })
        .unwrap_or(1)
        .max(1)
}

/// Decodes the first and the last group. `Some(why)` when the table is wrong.
fn check<S: Source>(input: &mut Input<S>, entry: &StreamIndex) -> Result<Option<&'static str>> {
    let Some(table) = &entry.frames else { return Ok(Some("no table")) };
    let total = table.pts.len() as u32;
    let second = table.access.get(1).map_or(total, |a| a.frame.max(2).min(total));
    let last = table.access.last().map_or(0, |a| a.frame).min(total.saturating_sub(2));
    let spans = [(0, second.min(CHECKED_AT_START)), (last, total)];
    for (from, to) in spans {
        let mut walk = match Walk::start(input, entry, from, from, 1) {
            Ok(walk) => walk,
            Err(AvError::PacketChanged { .. }) => return Ok(Some("it reads differently twice")),
            Err(error) => return Err(error),
        };
        for _ in from..to {
            match walk.next(input, entry) {
                Ok(Some(_)) => {}
                Ok(None) | Err(AvError::FrameMissing { .. }) => {
                    return Ok(Some("a frame is missing"));
                }
                Err(AvError::PacketChanged { .. }) => {
                    return Ok(Some("it reads differently twice"));
                }
                Err(error) => return Err(error),
            }
        }
        if to == total {
            walk.drain(input, entry)?;
        }
        if walk.unexpected > 0 {
            return Ok(Some("there are more frames than packets"));
        }
    }
    Ok(None)
}

/// One frame as it came out of the whole decode.
struct Seen {
    packet: Option<usize>,
    time: Option<i64>,
    duration: i64,
}

/// Decodes the whole stream and makes the table from what comes out.
fn decode_table<S: Source>(
    input: &mut Input<S>,
    entry: &mut StreamIndex,
    facts: &Facts,
    findings: &mut Vec<Finding>,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<()> {
    let stream = entry.stream;
    let (seen, errors) = decode_all(input, entry, progress)?;
    if seen.is_empty() {
        return Err(AvError::NoFrames { stream, codec: input.codec(stream)? });
    }
    if errors > 0 {
        // A recording that starts between key frames loses a few; more is damage.
        let packets = entry.packets.len() as u32;
        if errors > packets / 2 {
            let codec = input.codec(stream)?;
            return Err(AvError::TooDamaged { stream, codec, errors, packets });
        }
        let many = errors as usize * 20 > entry.packets.len();
        let mut f = finding(
            "undecodable_packets",
            if many { Severity::Error } else { Severity::Warning },
            format!("{errors} packets of stream {stream} can't be decoded"),
        );
        f.stream = Some(stream);
        f.measured = Some(errors.to_string());
        f.allowed = Some("0".to_owned());
        findings.push(f);
    }
    let step = nominal(input, stream, entry.time_base);
    // SAFETY: a valid stream.
    let start = ffi::timestamp(unsafe { (*input.stream(stream)?).start_time }).unwrap_or(0);
    let pts = rising(&seen, start, step);
    // From here on a packet's pts is that of the frame that it becomes, and a
    // packet that becomes none has none: so a frame that leaves the decoder
    // tells its number whatever was decoded before.
    let mut given = HashSet::new();
    for packet in &mut entry.packets {
        packet.pts = None;
    }
    for (frame, time) in seen.iter().zip(&pts) {
        if let Some(packet) = frame.packet.filter(|p| *p < entry.packets.len())
            && given.insert(packet)
        {
            entry.packets[packet].pts = Some(*time);
        }
    }
    let end = end_of(&pts, &entry.packets, input, entry, facts.fields);
    let access = access_points(&pts, &entry.packets, facts);
    entry.frames = Some(FrameTable { source: FrameSource::Decode, pts, end, access });
    Ok(())
}

fn decode_all<S: Source>(
    input: &mut Input<S>,
    entry: &StreamIndex,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<(Vec<Seen>, u32)> {
    input.restart()?;
    input.keep_only(&[entry.stream]);
    let (reorder, size) = (decode::reorder(&entry.packets), input.size());
    let mut decoder = VideoDecoder::open_reordering(input, entry.stream, 1, reorder)?;
    let (mut seen, mut errors, mut cursor, mut ended) = (Vec::new(), 0, 0usize, false);
    loop {
        match decoder.receive() {
            Ok(Received::Item(frame)) => {
                seen.push(Seen {
                    packet: frame.opaque().checked_sub(1),
                    time: frame.pts().or(frame.best_effort()),
                    duration: frame.duration(),
                });
                continue;
            }
            Ok(Received::End) => return Ok((seen, errors)),
            Ok(Received::NeedInput) => {}
            Err(AvError::Decode { .. }) => {
                errors += 1;
                continue;
            }
            Err(error) => return Err(error),
        }
        let packet = match input.read_packet() {
            Ok(packet) if !ended => packet,
            Ok(_) | Err(AvError::Demux { .. }) => None,
            Err(error) => return Err(error),
        };
        let sent = match packet {
            Some(packet) if packet.stream() != entry.stream => continue,
            Some(mut packet) => {
                let Some(known) = entry.packets.get(cursor) else {
                    return Err(AvError::PacketChanged {
                        stream: entry.stream,
                        packet: cursor as u32,
                    });
                };
                // A long film takes hours, and who hears nothing takes it for a stall. Not
                // every packet knows its place in the file, so it is told by the number.
                let told = u128::from(size) * cursor as u128 / entry.packets.len() as u128;
                if !progress(u64::try_from(told).unwrap_or(size)) {
                    return Err(AvError::Cancelled);
                }
                decode::stamp(&mut packet, known, cursor);
                cursor += 1;
                decoder.send(Some(&packet))
            }
            None => {
                ended = true;
                decoder.send(None)
            }
        };
        match sent {
            Err(AvError::Decode { .. }) => errors += 1,
            other => other?,
        }
    }
}

/// Strictly rising times for frames in display order, from what the decoder
/// said: missing ones go on from the one before; where they don't rise, the
/// frames are spread evenly up to the next that does.
fn rising(seen: &[Seen], start: i64, step: i64) -> Vec<i64> {
    let mut times: Vec<i64> = Vec::with_capacity(seen.len());
    let mut usual = step;
    for frame in seen {
        let previous = times.last().copied();
        let time = match (frame.time, previous) {
            (Some(time), _) => time,
            (None, Some(previous)) => previous.saturating_add(usual),
            (None, None) => start,
        };
        if let Some(previous) = previous.filter(|p| *p < time) {
            usual = if frame.duration > 0 { frame.duration } else { time.saturating_sub(previous) };
        } else if frame.duration > 0 {
            usual = frame.duration;
        }
        times.push(time);
    }
    let mut i = 1;
    while i < times.len() {
        if times[i] > times[i - 1] {
            i += 1;
            continue;
        }
        // times[i..j] do not rise above times[i - 1].
        let base = times[i - 1];
        let j = (i..times.len()).find(|j| times[*j] > base).unwrap_or(times.len());
        let gap = (j - i + 1) as i64;
        let room = match times.get(j) {
            Some(next) => next.saturating_sub(base),
            None => gap.saturating_mul(step),
        };
        for (k, time) in times[i..j].iter_mut().enumerate() {
            let k = k as i64 + 1;
            // In 128 bits, because a room of 2^62 ticks times two does not fit in 64.
            let part = (i128::from(room) * i128::from(k) / i128::from(gap)) as i64;
            *time = base.saturating_add(part.max(k));
        }
        i = j;
        // Where there was no room for whole ticks the next ones are pushed on.
        while i < times.len() && times[i] <= times[i - 1] {
            times[i] = times[i - 1].saturating_add(1);
            i += 1;
        }
    }
    times
}

/// Codecs whose every packet is one frame that is shown, if the container is sound.
fn one_packet_is_one_frame(codec: &str) -> bool {
    is_intra_only(codec)
        || matches!(codec, "h264" | "hevc" | "vvc" | "mpeg2video" | "mpeg1video" | "vp9" | "av1")
}

fn is_intra_only(codec: &str) -> bool {
    matches!(
        codec,
        "prores"
            | "dnxhd"
            | "ffvhuff"
            | "huffyuv"
            | "utvideo"
            | "magicyuv"
            | "mjpeg"
            | "jpeg2000"
            | "v210"
            | "v308"
            | "v408"
            | "v410"
            | "r210"
            | "rawvideo"
            | "dvvideo"
            | "png"
            | "cfhd"
            | "hqx"
            | "hq_hqa"
    )
}

/// What the parser says of a packet's picture.
struct Looked {
    /// It is a single field.
    field: bool,
    /// It refers to no other.
    intra: bool,
}

/// libav's parser over whole packets, for what it says of the picture.
struct Parser {
    parser: *mut sys::AVCodecParserContext,
    context: *mut sys::AVCodecContext,
}

impl Parser {
    fn open<S: Source>(input: &Input<S>, stream: u32) -> Result<Option<Parser>> {
        let parameters = input.parameters(stream)?;
        // SAFETY: valid parameters; both contexts are freed by drop.
        unsafe {
            let parser = sys::av_parser_init(get_enum!(parameters, codec_id));
            if parser.is_null() {
                return Ok(None);
            }
            let context = sys::avcodec_alloc_context3(ptr::null());
            let made = Parser { parser, context };
            if context.is_null() {
                return Err(AvError::OutOfMemory { operation: "opening a parser" });
            }
            let code = sys::avcodec_parameters_to_context(context, parameters);
            if code < 0 {
                return Err(AvError::library("opening a parser", code));
            }
            (*parser).flags |= sys::PARSER_FLAG_COMPLETE_FRAMES as c_int;
            Ok(Some(made))
        }
    }

    fn look_at(&mut self, packet: &Packet) -> Looked {
        let data = packet.data();
        let (mut out, mut out_size) = (ptr::null_mut(), 0);
        // SAFETY: both contexts are ours; the data has its size and libav's
        // padding behind it, as every packet of a demuxer; the output points
        // into the data and is not used.
        unsafe {
            sys::av_parser_parse2(
                self.parser,
                self.context,
                &mut out,
                &mut out_size,
                data.as_ptr(),
                data.len() as c_int,
                sys::AV_NOPTS_VALUE,
                sys::AV_NOPTS_VALUE,
                0,
            );
            Looked {
                // AV_PICTURE_STRUCTURE_TOP_FIELD and _BOTTOM_FIELD.
                field: matches!(get_enum!(self.parser, picture_structure), 1 | 2),
                // AV_PICTURE_TYPE_I.
                intra: (*self.parser).pict_type == 1,
            }
        }
    }
}

impl Drop for Parser {
    fn drop(&mut self) {
        // SAFETY: both are ours; null is allowed.
        unsafe {
            sys::av_parser_close(self.parser);
            sys::avcodec_free_context(&mut self.context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(times: &[Option<i64>]) -> Vec<Seen> {
        times.iter().map(|time| Seen { packet: None, time: *time, duration: 0 }).collect()
    }

    #[test]
    fn missing_times_go_on_and_equal_times_are_spread() {
        assert_eq!(rising(&seen(&[None, None, Some(20)]), 5, 10), [5, 15, 20]);
        assert_eq!(rising(&seen(&[Some(0), Some(0), Some(10)]), 0, 10), [0, 5, 10]);
        assert_eq!(rising(&seen(&[Some(4), Some(4), Some(4), Some(5)]), 0, 1), [4, 5, 6, 7]);
        assert_eq!(rising(&seen(&[Some(10), Some(5)]), 0, 3), [10, 13]);
    }

    #[test]
    fn times_at_the_ends_of_64_bits_stay_within_them() {
        let (low, high) = (i64::MIN + 1, i64::MAX - 1);
        for times in [
            vec![Some(low), Some(low), Some(low), Some(high)],
            vec![Some(high), None, None],
            vec![Some(high), Some(low), None, Some(high)],
        ] {
            for step in [1, i64::MAX] {
                assert_eq!(rising(&seen(&times), 0, step).len(), times.len());
            }
        }
    }

    #[test]
    fn a_film_is_neither_weeks_long_nor_has_it_a_million_frames_a_second() {
        let table = |pts: Vec<i64>, end| FrameTable {
            source: FrameSource::Packets,
            pts,
            end,
            access: Vec::new(),
        };
        let millisecond = Rational::new(1, 1000).unwrap();
        assert!(check_times(&table(vec![0, 40, 80], 120), millisecond).is_ok());
        assert!(check_times(&table(vec![0, 86_400_000], 172_800_000), millisecond).is_ok());
        let years = table(vec![0, 31_536_000_000], 63_072_000_000);
        assert_eq!(check_times(&years, millisecond).unwrap_err().code(), "over_budget");
        let all = table(vec![i64::MIN + 1, 0], i64::MAX);
        assert_eq!(check_times(&all, millisecond).unwrap_err().code(), "over_budget");
        let rush = table((0..2000).collect(), 2000);
        let microsecond = Rational::new(1, 1_000_000).unwrap();
        assert_eq!(check_times(&rush, microsecond).unwrap_err().code(), "over_budget");
    }
}
