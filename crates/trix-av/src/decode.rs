//! Decoding: packets to frames, and the frames of an index by number.

use std::collections::{BTreeMap, HashSet};
use std::ffi::c_int;
use std::fs::File;

use ffmpeg_sys_next as sys;
use trix_model::ColorDescription;
use trix_model::index::{FrameSource, FrameTable, PACKET_DISCARD, PacketEntry, StreamIndex};

use crate::error::{AvError, Result};
use crate::ffi::{self, get_enum};
use crate::frame::{AudioFrame, MAX_AREA, RawFrame, VideoFrame, complete_color};
use crate::index::hash;
use crate::input::{AUDIO, Input, Packet, VIDEO};
use crate::io::Source;

/// What a decoder gives. "Need more input" and "end" are no errors.
#[derive(Debug)]
pub enum Received<T> {
    /// A frame.
    Item(T),
    /// Send another packet first.
    NeedInput,
    /// Everything is out, after `send(None)`.
    End,
}

/// An open decoder of either kind.
struct Decoder {
    context: *mut sys::AVCodecContext,
    stream: u32,
    /// Presentation time of the packet that was sent last, for error messages.
    sent: Option<i64>,
}

// SAFETY: the context belongs to this value alone; with more than one thread
// libav's own threads synchronise with whatever thread calls it.
unsafe impl Send for Decoder {}

impl Decoder {
    fn open<S: Source>(
        input: &Input<S>,
        stream: u32,
        threads: u32,
        reorder: u32,
    ) -> Result<Decoder> {
        let parameters = input.parameters(stream)?;
        // SAFETY: valid parameters; takes any number and returns null or a static structure.
        let codec = unsafe { ffi::avcodec_find_decoder(get_enum!(parameters, codec_id)) };
        if codec.is_null() {
            return Err(AvError::NoDecoder { stream, codec: input.codec(stream)? });
        }
        let opening =
            |code| AvError::library(format!("opening the decoder of stream {stream}"), code);
        // SAFETY: a fresh context that is freed by Decoder's drop from here on;
        // the fields that are set are plain numbers.
        unsafe {
            let context = sys::avcodec_alloc_context3(codec);
            if context.is_null() {
                return Err(AvError::OutOfMemory { operation: "opening a decoder" });
            }
            let decoder = Decoder { context, stream, sent: None };
            let code = sys::avcodec_parameters_to_context(context, parameters);
            if code < 0 {
                return Err(opening(code));
            }
            (*context).pkt_timebase = (*input.stream(stream)?).time_base;
            (*context).thread_count = c_int::try_from(threads.max(1)).unwrap_or(1);
            (*context).flags |= sys::AV_CODEC_FLAG_COPY_OPAQUE as c_int;
            (*context).max_pixels = MAX_AREA as i64;
            // Streams that don't state how far pictures are reordered make the
            // decoder guess, and it drops pictures while it learns; the index knows.
            (*context).has_b_frames =
                (*context).has_b_frames.max(c_int::try_from(reorder).unwrap_or(0));
            let code = sys::avcodec_open2(context, codec, std::ptr::null_mut());
            if code < 0 {
                return Err(opening(code));
            }
            Ok(decoder)
        }
    }

    fn error(&self, code: i32) -> AvError {
        if code == sys::AVERROR(libc::ENOMEM) {
            return AvError::OutOfMemory { operation: "decoding" };
        }
        AvError::Decode { stream: self.stream, pts: self.sent, cause: code.into() }
    }

    fn send(&mut self, packet: Option<&Packet>) -> Result<()> {
        if let Some(packet) = packet {
            // An empty packet would mean "end" to libav, and holds no picture.
            if packet.data().is_empty() {
                return Ok(());
            }
            self.sent = packet.pts();
        }
        // SAFETY: an open decoder; null means end of input.
        let code = unsafe {
            sys::avcodec_send_packet(self.context, packet.map_or(std::ptr::null(), |p| p.as_ptr()))
        };
        match code {
            0.. => Ok(()),
            // A second "end".
            code if code == sys::AVERROR_EOF && packet.is_none() => Ok(()),
            code => Err(self.error(code)),
        }
    }

    fn receive(&mut self) -> Result<Received<RawFrame>> {
        let frame = RawFrame::new()?;
        // SAFETY: an open decoder and an empty frame of ours.
        let code = unsafe { sys::avcodec_receive_frame(self.context, frame.as_ptr()) };
        match code {
            0.. => Ok(Received::Item(frame)),
            code if code == sys::AVERROR(libc::EAGAIN) => Ok(Received::NeedInput),
            code if code == sys::AVERROR_EOF => Ok(Received::End),
            code => Err(self.error(code)),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: ours; libav sets the pointer to null.
        unsafe { sys::avcodec_free_context(&mut self.context) }
    }
}

/// Decodes one video stream.
pub struct VideoDecoder {
    decoder: Decoder,
    /// Container cropping: top, bottom, left, right.
    crop: [u32; 4],
    /// What the stream says of colour where a frame says nothing.
    color: ColorDescription,
}

impl VideoDecoder {
    /// `threads` beyond 1 change no picture, only when it comes out.
    ///
    /// # Errors
    /// [`AvError::NoDecoder`], [`AvError::NoStream`].
    pub fn open<S: Source>(input: &Input<S>, stream: u32, threads: u32) -> Result<VideoDecoder> {
        VideoDecoder::open_reordering(input, stream, threads, 0)
    }

    pub(crate) fn open_reordering<S: Source>(
        input: &Input<S>,
        stream: u32,
        threads: u32,
        reorder: u32,
    ) -> Result<VideoDecoder> {
        if input.media_type(stream) != Some(VIDEO) {
            return Err(AvError::NoStream { stream, kind: "video" });
        }
        let decoder = Decoder::open(input, stream, threads, reorder)?;
        Ok(VideoDecoder { decoder, crop: input.cropping(stream), color: input.color(stream) })
    }

    /// Gives the decoder a packet, or `None` for the end.
    ///
    /// # Errors
    /// [`AvError::Decode`] for a damaged packet; the decoder can go on.
    pub fn send(&mut self, packet: Option<&Packet>) -> Result<()> {
        self.decoder.send(packet)
    }

    /// The next frame in display order.
    ///
    /// # Errors
    /// [`AvError::Decode`] for damage; the decoder can go on.
    pub fn receive(&mut self) -> Result<Received<VideoFrame>> {
        Ok(match self.decoder.receive()? {
            Received::Item(raw) => {
                let mut frame = VideoFrame::from_raw(raw)?;
                let own = frame.color();
                let whole_color = complete_color(own, self.color);
                if own != whole_color {
                    frame.set_color(whole_color);
                }
                let [top, bottom, left, right] = self.crop;
                let leaves = top + bottom < frame.height() && left + right < frame.width();
                Received::Item(if self.crop != [0; 4] && leaves {
                    frame.crop(top, bottom, left, right)?
                } else {
                    frame
                })
            }
            Received::NeedInput => Received::NeedInput,
            Received::End => Received::End,
        })
    }
}

/// Samples behind the declared end that are taken for padding: two packets of
/// the longest kind of AAC. More is sound that the container forgot.
const MAX_PADDING: i64 = 4096;

/// Decodes one audio stream. Priming that the container declares is cut off by
/// libav, and the pts move with it; padding behind a movie's declared end is
/// cut off here.
pub struct AudioDecoder {
    decoder: Decoder,
    /// Where sound ends, in ticks that are samples.
    end: Option<i64>,
}

impl AudioDecoder {
    /// Opens the decoder of an audio stream.
    ///
    /// # Errors
    /// [`AvError::NoDecoder`], [`AvError::NoStream`].
    pub fn open<S: Source>(input: &Input<S>, stream: u32) -> Result<AudioDecoder> {
        if input.media_type(stream) != Some(AUDIO) {
            return Err(AvError::NoStream { stream, kind: "audio" });
        }
        Ok(AudioDecoder {
            decoder: Decoder::open(input, stream, 1, 0)?,
            end: input.sound_end(stream),
        })
    }

    /// Gives the decoder a packet, or `None` for the end.
    ///
    /// # Errors
    /// [`AvError::Decode`] for a damaged packet; the decoder can go on.
    pub fn send(&mut self, packet: Option<&Packet>) -> Result<()> {
        self.decoder.send(packet)
    }

    /// The next run of samples.
    ///
    /// # Errors
    /// [`AvError::Decode`] for damage; the decoder can go on.
    pub fn receive(&mut self) -> Result<Received<AudioFrame>> {
        loop {
            return Ok(match self.decoder.receive()? {
                Received::Item(raw) => match self.cut(AudioFrame::from_raw(raw)?)? {
                    Some(frame) => Received::Item(frame),
                    None => continue,
                },
                Received::NeedInput => Received::NeedInput,
                Received::End => Received::End,
            });
        }
    }

    /// The frame without what lies behind the declared end.
    fn cut(&self, frame: AudioFrame) -> Result<Option<AudioFrame>> {
        let (Some(end), Some(pts)) = (self.end, frame.pts()) else { return Ok(Some(frame)) };
        let samples = frame.samples() as i64;
        let behind = pts + samples - end;
        if behind <= 0 || behind > MAX_PADDING {
            return Ok(Some(frame));
        }
        if behind >= samples {
            return Ok(None);
        }
        let mut cut = frame.slice(0, (samples - behind) as usize)?;
        cut.set_pts(Some(pts));
        Ok(Some(cut))
    }
}

/// Frames that may wait for an earlier one, when a decoder gives them out of
/// order: no codec reorders by more than 16.
const MAX_PENDING: usize = 32;
/// Packets that are looked at after a seek before it counts as failed.
const MAX_SEARCH: usize = 600;

/// Decodes the frames of an index from some access point on; the state of a
/// [`FrameReader`] without its input, so that indexing can use it too.
pub(crate) struct Walk {
    decoder: VideoDecoder,
    /// The packet of the access point, read already to recognise it.
    held: Option<Packet>,
    /// Ordinal of the packet that is sent next.
    cursor: usize,
    /// Number of the frame that comes next out of this.
    next: u32,
    pending: BTreeMap<u32, VideoFrame>,
    /// Frames whose packet already stands for another frame; see [`followers`].
    followers: HashSet<u32>,
    last: Option<u32>,
    draining: bool,
    /// Frames that the table does not know, at or behind the first one wanted.
    pub(crate) unexpected: u32,
    strict_from: i64,
}

impl Walk {
    /// Positions `input` at the access point for `first` and opens a decoder.
    pub(crate) fn start<S: Source>(
        input: &mut Input<S>,
        index: &StreamIndex,
        decode_from: u32,
        first: u32,
        threads: u32,
    ) -> Result<Walk> {
        let stream = index.stream;
        let table = table(index)?;
        let point = table
            .access
            .iter()
            .rev()
            .find(|a| a.frame <= decode_from.min(first))
            .or(table.access.first())
            .ok_or(AvError::NoSamples { stream })?;
        input.keep_only(&[stream]);
        let decoder =
            VideoDecoder::open_reordering(input, stream, threads, reorder(&index.packets))?;
        let cursor = point.packet as usize;
        let held = position(input, index, cursor)?;
        Ok(Walk {
            decoder,
            held: Some(held),
            cursor,
            next: first,
            pending: BTreeMap::new(),
            followers: followers(index, table),
            last: None,
            draining: false,
            unexpected: 0,
            strict_from: table.pts.get(first as usize).copied().unwrap_or(i64::MAX),
        })
    }

    /// The next frame with its number; `None` behind the last.
    pub(crate) fn next<S: Source>(
        &mut self,
        input: &mut Input<S>,
        index: &StreamIndex,
    ) -> Result<Option<(u32, VideoFrame)>> {
        let table = table(index)?;
        let total = table.pts.len() as u32;
        loop {
            if let Some(frame) = self.pending.remove(&self.next) {
                let number = self.next;
                self.next += 1;
                return Ok(Some((number, timed(frame, table, number))));
            }
            if self.next >= total {
                return Ok(None);
            }
            if self.pending.len() >= MAX_PENDING {
                return Err(self.missing(index, table));
            }
            match self.decoder.receive() {
                Ok(Received::Item(frame)) => self.sort_in(frame, table),
                Ok(Received::NeedInput) => self.feed(input, index)?,
                Ok(Received::End) => {
                    if !self.pending.contains_key(&self.next) {
                        return Err(self.missing(index, table));
                    }
                }
                // Damage: what matters is whether a frame of the table is missing.
                Err(error @ AvError::Decode { .. }) => tracing::debug!("{error}"),
                Err(error) => return Err(error),
            }
        }
    }

    /// Decodes what is left behind the last frame, which should be nothing.
    pub(crate) fn drain<S: Source>(
        &mut self,
        input: &mut Input<S>,
        index: &StreamIndex,
    ) -> Result<()> {
        let table = table(index)?;
        loop {
            match self.decoder.receive() {
                Ok(Received::Item(frame)) => self.sort_in(frame, table),
                Ok(Received::NeedInput) => self.feed(input, index)?,
                Ok(Received::End) => return Ok(()),
                Err(error @ AvError::Decode { .. }) => tracing::debug!("{error}"),
                Err(error) => return Err(error),
            }
        }
    }

    fn missing(&self, index: &StreamIndex, table: &FrameTable) -> AvError {
        let pts = table.pts.get(self.next as usize).copied().unwrap_or(table.end);
        AvError::FrameMissing { stream: index.stream, frame: self.next, pts }
    }

    fn sort_in(&mut self, frame: VideoFrame, table: &FrameTable) {
        let found = frame.pts().and_then(|pts| table.pts.binary_search(&pts).ok());
        let Some(mut number) = found.map(|n| n as u32) else {
            if frame.pts().is_some_and(|pts| pts >= self.strict_from) {
                self.unexpected += 1;
            }
            return;
        };
        // A second frame of the same packet has the same pts.
        while self.last.is_some_and(|last| last >= number) && self.followers.contains(&(number + 1))
        {
            number += 1;
        }
        self.last = Some(number);
        if number < self.next {
            return;
        }
        if self.pending.insert(number, frame).is_some() {
            self.unexpected += 1;
        }
    }

    fn feed<S: Source>(&mut self, input: &mut Input<S>, index: &StreamIndex) -> Result<()> {
        let sent = loop {
            if self.draining {
                break self.decoder.send(None);
            }
            let packet = match self.held.take().map_or_else(|| input.read_packet(), |p| Ok(Some(p)))
            {
                Ok(packet) => packet,
                // The index ends where the demuxer failed when it was made.
                Err(AvError::Demux { .. }) => None,
                Err(error) => return Err(error),
            };
            let Some(mut packet) = packet else {
                if self.cursor < index.packets.len() {
                    return Err(changed(index, self.cursor));
                }
                self.draining = true;
                continue;
            };
            if packet.stream() != index.stream {
                continue;
            }
            let Some(entry) = index.packets.get(self.cursor) else {
                // The file has grown since; what the index says still holds.
                self.draining = true;
                continue;
            };
            if !same(entry, &packet) {
                return Err(changed(index, self.cursor));
            }
            stamp(&mut packet, entry, self.cursor);
            self.cursor += 1;
            break self.decoder.send(Some(&packet));
        };
        match sent {
            Err(error @ AvError::Decode { .. }) => {
                tracing::debug!("{error}");
                Ok(())
            }
            other => other,
        }
    }
}

fn table(index: &StreamIndex) -> Result<&FrameTable> {
    index.frames.as_ref().ok_or(AvError::NoStream { stream: index.stream, kind: "video" })
}

fn changed(index: &StreamIndex, packet: usize) -> AvError {
    AvError::PacketChanged { stream: index.stream, packet: packet as u32 }
}

/// Gives a packet the times that the index has: demuxers guess missing times
/// from what they saw before, and after a seek they saw something else.
pub(crate) fn stamp(packet: &mut Packet, entry: &PacketEntry, ordinal: usize) {
    packet.set_times(entry.pts, entry.dts);
    packet.set_discard(entry.flags & PACKET_DISCARD != 0);
    // 0 is what a frame has that no packet stands behind.
    packet.set_opaque(ordinal + 1);
}

/// Same payload.
fn same(entry: &PacketEntry, packet: &Packet) -> bool {
    let data = packet.data();
    entry.size as usize == data.len() && entry.hash == hash(data)
}

/// Same payload at the same place: a slate of black repeats its payloads.
fn same_place(entry: &PacketEntry, packet: &Packet) -> bool {
    let place = if entry.pos >= 0 && packet.pos() >= 0 {
        entry.pos == packet.pos()
    } else if let (Some(ours), Some(theirs)) = (entry.dts, packet.dts()) {
        ours == theirs
    } else {
        false
    };
    place && same(entry, packet)
}

/// Finds packet `target` of the stream in a fresh or used input: by the
/// container's own index where that leads there, else by reading from the
/// start. Gives the packet itself, since it has to be read to be recognised.
fn position<S: Source>(input: &mut Input<S>, index: &StreamIndex, target: usize) -> Result<Packet> {
    if target > 0
        && let Some(packet) = seek_to(input, index, target)?
    {
        return Ok(packet);
    }
    input.restart()?;
    let mut cursor = 0;
    loop {
        match input.read_packet()? {
            Some(packet) if packet.stream() != index.stream => {}
            Some(packet) if same(&index.packets[cursor], &packet) => {
                if cursor == target {
                    return Ok(packet);
                }
                cursor += 1;
            }
            _ => return Err(changed(index, cursor)),
        }
    }
}

/// Seeks and reads on to `target`; tries a place further ahead when the first
/// leads behind it (a parser may need what precedes a picture).
fn seek_to<S: Source>(
    input: &mut Input<S>,
    index: &StreamIndex,
    target: usize,
) -> Result<Option<Packet>> {
    let by_byte = input.seeks_by_byte();
    for back in [0usize, 12, 120] {
        let entry = &index.packets[target.saturating_sub(back)];
        let moved = if by_byte {
            entry.pos >= 0 && input.seek_byte(entry.pos)
        } else {
            entry.dts.or(entry.pts).is_some_and(|t| input.seek_time(index.stream, t))
        };
        if moved && let Some(packet) = catch_up(input, index, target)? {
            return Ok(Some(packet));
        }
    }
    tracing::debug!(stream = index.stream, packet = target, "seek failed, reading from the start");
    Ok(None)
}

/// Reads up to `target`. `None` when the place where the seek landed can't be
/// recognised or lies behind it.
fn catch_up<S: Source>(
    input: &mut Input<S>,
    index: &StreamIndex,
    target: usize,
) -> Result<Option<Packet>> {
    let mut cursor: Option<usize> = None;
    for _ in 0..MAX_SEARCH {
        let packet = match input.read_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) | Err(AvError::Demux { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if packet.stream() != index.stream {
            continue;
        }
        let here = match cursor {
            Some(cursor) if same(&index.packets[cursor], &packet) => cursor,
            Some(_) => return Ok(None),
            None => match locate(index, target, &packet) {
                Some(here) => here,
                None => continue,
            },
        };
        if here == target {
            return Ok(Some(packet));
        }
        if here > target {
            return Ok(None);
        }
        cursor = Some(here + 1);
    }
    Ok(None)
}

/// Which packet of the index this is, looking around `target`.
fn locate(index: &StreamIndex, target: usize, packet: &Packet) -> Option<usize> {
    let end = (target + MAX_SEARCH).min(index.packets.len());
    (0..end).rev().find(|i| same_place(&index.packets[*i], packet))
}

/// How far pictures are reordered: the most packets that precede one in decode
/// order and follow it in display order.
pub(crate) fn reorder(packets: &[PacketEntry]) -> u32 {
    let mut open: Vec<i64> = Vec::new();
    let mut depth = 0;
    for pts in packets.iter().filter_map(|p| p.pts) {
        let later = open.iter().filter(|p| **p > pts).count();
        depth = depth.max(later);
        // 16 is the most that H.264 and HEVC allow.
        if open.len() == 17 {
            open.remove(0);
        }
        open.push(pts);
    }
    depth.min(16) as u32
}

/// Numbers of frames that share their packet with an earlier frame: their pts
/// stands at no packet. Only a table from a decode can have them.
fn followers(index: &StreamIndex, table: &FrameTable) -> HashSet<u32> {
    if table.source == FrameSource::Packets {
        return HashSet::new();
    }
    let stated: HashSet<i64> = index.packets.iter().filter_map(|p| p.pts).collect();
    let without = |(_, pts): &(usize, &i64)| !stated.contains(*pts);
    table.pts.iter().enumerate().filter(without).map(|(n, _)| n as u32).collect()
}

fn timed(mut frame: VideoFrame, table: &FrameTable, number: u32) -> VideoFrame {
    let n = number as usize;
    let pts = table.pts[n];
    frame.set_pts(Some(pts));
    frame.set_duration(table.pts.get(n + 1).copied().unwrap_or(table.end) - pts);
    frame
}

/// The frames of an index, by number, in display order.
pub struct FrameReader<S: Source = File> {
    input: Input<S>,
    index: StreamIndex,
    walk: Walk,
}

impl<S: Source> FrameReader<S> {
    /// Reads from frame `first` on. Decoding starts at the nearest access point
    /// before it; what comes out earlier is dropped.
    ///
    /// # Errors
    /// [`AvError::PacketChanged`] when the file is not the one that was indexed.
    pub fn open(
        input: Input<S>,
        index: &StreamIndex,
        first: u32,
        threads: u32,
    ) -> Result<FrameReader<S>> {
        FrameReader::open_from(input, index, first, first, threads)
    }

    /// Like [`FrameReader::open`], but decoding starts at the access point for `decode_from`.
    /// The frames are the same from whatever access point.
    pub fn open_from(
        mut input: Input<S>,
        index: &StreamIndex,
        decode_from: u32,
        first: u32,
        threads: u32,
    ) -> Result<FrameReader<S>> {
        let walk = Walk::start(&mut input, index, decode_from, first, threads)?;
        Ok(FrameReader { input, index: index.clone(), walk })
    }

    /// The next frame with its number. Its pts is the table's, its duration
    /// lasts to the next frame. `None` behind the last.
    ///
    /// # Errors
    /// [`AvError::FrameMissing`] when the decoder does not give what the index
    /// promised; [`AvError::PacketChanged`].
    #[allow(clippy::should_implement_trait)] // An error does not end it like an iterator.
    pub fn next(&mut self) -> Result<Option<(u32, VideoFrame)>> {
        self.walk.next(&mut self.input, &self.index)
    }
}

/// The sound of one stream, from its start.
pub struct AudioReader<S: Source = File> {
    input: Input<S>,
    decoder: AudioDecoder,
    stream: u32,
    draining: bool,
    damaged: u64,
}

impl<S: Source> AudioReader<S> {
    /// Opens the stream's decoder and leaves out all other streams.
    pub fn open(mut input: Input<S>, stream: u32) -> Result<AudioReader<S>> {
        let decoder = AudioDecoder::open(&input, stream)?;
        input.keep_only(&[stream]);
        Ok(AudioReader { input, decoder, stream, draining: false, damaged: 0 })
    }

    /// The next run of samples, its pts in the stream's time base. `None` at the end.
    ///
    /// Damaged packets are left out and counted; the pts tell where samples are missing.
    #[allow(clippy::should_implement_trait)] // An error does not end it like an iterator.
    pub fn next(&mut self) -> Result<Option<AudioFrame>> {
        loop {
            match self.decoder.receive() {
                Ok(Received::Item(frame)) => return Ok(Some(frame)),
                Ok(Received::End) => return Ok(None),
                Ok(Received::NeedInput) => self.feed()?,
                Err(error @ AvError::Decode { .. }) => self.note(&error),
                Err(error) => return Err(error),
            }
        }
    }

    fn feed(&mut self) -> Result<()> {
        let packet = if self.draining {
            None
        } else {
            match self.input.read_packet() {
                Ok(packet) => packet,
                Err(error @ AvError::Demux { .. }) => {
                    self.note(&error);
                    None
                }
                Err(error) => return Err(error),
            }
        };
        let sent = match &packet {
            Some(packet) if packet.stream() != self.stream => return Ok(()),
            Some(packet) => self.decoder.send(Some(packet)),
            None => {
                self.draining = true;
                self.decoder.send(None)
            }
        };
        match sent {
            Err(error @ AvError::Decode { .. }) => {
                self.note(&error);
                Ok(())
            }
            other => other,
        }
    }

    fn note(&mut self, error: &AvError) {
        self.damaged += 1;
        tracing::debug!("{error}");
    }

    /// Packets that could not be decoded so far.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}
