//! Reading containers: one descriptor, no other file, limits on what a header may claim.

use std::ffi::{c_char, c_int};
use std::fs::File;
use std::io::{Read, Seek};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use ffmpeg_sys_next as sys;
use trix_model::index::{PACKET_CORRUPT, PACKET_DISCARD, PACKET_KEY};
use trix_model::media::{
    Audio, DESCRIPTION_VERSION, FieldOrder, MediaDescription, Stream, StreamKind, Video,
};
use trix_model::{ColorDescription, Finding, HdrMetadata, Rational, Severity};

use crate::budget;
use crate::error::{AvError, Result};
use crate::ffi::{self, Dictionary, get_enum};
use crate::frame;
use crate::io::{Avio, Seeking, Source};
use crate::mux::EncodedPacket;
use crate::{log, pixel, reference};

/// The demuxers that a source may need. None of them opens another file by
/// itself (vobsub, hls, dash, sdp, concat, image sequences do, and are absent),
/// and none takes any file for its own (rawvideo and raw PCM do).
const DEMUXERS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo,avi,mxf,gxf,\
    lxf,asf,flv,nut,dv,ogg,ivf,obu,av1,h264,hevc,m4v,yuv4mpegpipe,wav,w64,aiff,flac,mp3,aac,ac3,\
    eac3,dts,truehd,srt,webvtt,ass,scc,stl,microdvd,sup";

/// Bytes and microseconds that are read to learn what the streams are: libav's
/// usual ones first, the deep ones where a stream stays unknown (sound that
/// begins late in a transport stream).
const PROBE: (i64, i64) = (5_000_000, 5_000_000);
const DEEP_PROBE: (i64, i64) = (64 << 20, 30_000_000);
/// Where libav itself stops to make streams. Above the budget, so that the
/// refusal can say by how much it is exceeded; not far, because one of a
/// transport stream takes 130 KB.
const MAX_STREAMS: c_int = 1000;

/// The name that libav sees. Empty, some demuxers fail with "out of memory".
const NEUTRAL_NAME: &std::ffi::CStr = c"in";

/// What the `io_open` callback writes to, behind the context's opaque pointer.
#[derive(Default)]
struct Guard {
    refused: AtomicU32,
}

/// An opened media file.
pub struct Input<S: Source = File> {
    context: *mut sys::AVFormatContext,
    /// `None` only while [`Input::restart`] has the source, and after it failed.
    io: Option<Avio<S>>,
    guard: Box<Guard>,
    size: u64,
    claimed_size: u64,
    only: Option<Vec<u32>>,
    /// Limits of the probe that found the streams.
    probe: (i64, i64),
    /// Colour per stream as the container's header says it. libav forgets it
    /// where the bitstream says nothing.
    stated: Vec<ColorDescription>,
    /// Nothing was read or sought since it was opened.
    fresh: bool,
    /// The demuxer said end or failed; reading on gives the same.
    ended: bool,
    failed: Option<i32>,
}

// SAFETY: the context, its I/O and its guard belong to this value alone; libav
// keeps no thread-local state about a demuxer and starts no thread for it.
unsafe impl<S: Source> Send for Input<S> {}

impl Input<File> {
    /// Opens a file and reads as much of it as needed to know its streams.
    ///
    /// # Errors
    /// [`AvError::Empty`], [`AvError::NotMedia`], [`AvError::NestedReference`],
    /// [`AvError::Encrypted`], [`AvError::Io`].
    pub fn open(file: File) -> Result<Input> {
        Input::open_source(file)
    }
}

impl<R: Read + Seek + Send> Input<Seeking<R>> {
    /// Like [`Input::open`], from anything that reads and seeks.
    pub fn open_reader(reader: R) -> Result<Input<Seeking<R>>> {
        Input::open_source(Seeking::new(reader))
    }

    /// Closes the input and gives the reader back; `None` when a restart failed
    /// and lost it.
    pub fn into_reader(mut self) -> Option<R> {
        self.close();
        Some(self.io.take()?.into_source().into_inner())
    }
}

impl<S: Source> Input<S> {
    fn open_source(mut source: S) -> Result<Input<S>> {
        log::install();
        let reading = |source| AvError::Io { operation: "reading the input", source };
        let size = source.size().map_err(reading)?;
        if size == 0 {
            return Err(AvError::Empty);
        }
        if let Some(what) = reference::in_head(&mut source).map_err(reading)? {
            return Err(AvError::NestedReference { what: what.to_owned() });
        }
        let mut facts = reference::in_movie(&mut source, size).map_err(reading)?;
        if let Some(end) = reference::matroska_end(&mut source).map_err(reading)? {
            facts.claimed_size = end;
        }
        if let Some(track) = facts.external.first() {
            return Err(AvError::NestedReference { what: format!("external track {track}") });
        }
        if facts.reference {
            return Err(AvError::NestedReference { what: "reference movie".to_owned() });
        }
        facts.check()?;
        if let Some(stream) = facts.encrypted.first() {
            return Err(AvError::Encrypted { stream: *stream });
        }
        let io = Avio::new(source)?;
        let mut input = Input {
            context: ptr::null_mut(),
            io: Some(io),
            guard: Box::default(),
            size,
            claimed_size: facts.claimed_size,
            only: None,
            probe: PROBE,
            stated: Vec::new(),
            fresh: true,
            ended: false,
            failed: None,
        };
        input.open_context(PROBE)?;
        if input.has_unknown() {
            input.reset()?;
            input.open_context(DEEP_PROBE)?;
        }
        Ok(input)
    }

    /// True when a picture or sound stream's basic properties are not known.
    fn has_unknown(&self) -> bool {
        (0..self.streams()).any(|i| {
            let Ok(p) = self.parameters(i) else { return false };
            // SAFETY: valid parameters; enums are read as integers.
            unsafe {
                match get_enum!(p, codec_type) {
                    VIDEO => (*p).width == 0 || (*p).format == pixel::NO_FORMAT,
                    AUDIO => (*p).sample_rate == 0 || (*p).ch_layout.nb_channels == 0,
                    _ => false,
                }
            }
        })
    }

    fn open_context(&mut self, (bytes, time): (i64, i64)) -> Result<()> {
        self.probe = (bytes, time);
        let Some(io) = &self.io else {
            return Err(AvError::Request { what: "the input is closed".to_owned() });
        };
        let mut options = Dictionary::new();
        options.set("format_whitelist", DEMUXERS)?;
        // Names no protocol that exists, so that none is allowed.
        options.set("protocol_whitelist", "none")?;
        // SAFETY: a fresh context; the fields set are plain numbers, the I/O
        // outlives it, the guard lives in a box that this value keeps, and the
        // callbacks have the prototypes of libav 7.1. avformat_open_input
        // frees the context and nulls the pointer when it fails.
        unsafe {
            let mut context = sys::avformat_alloc_context();
            if context.is_null() {
                return Err(AvError::OutOfMemory { operation: "opening the input" });
            }
            (*context).pb = io.as_ptr();
            (*context).flags |= sys::AVFMT_FLAG_CUSTOM_IO as c_int;
            (*context).opaque = ptr::from_ref::<Guard>(&self.guard).cast_mut().cast();
            (*context).io_open = Some(refuse_open);
            (*context).io_close2 = Some(refuse_close);
            (*context).probesize = bytes;
            (*context).max_analyze_duration = time;
            (*context).max_streams = MAX_STREAMS;
            let code = sys::avformat_open_input(
                &mut context,
                NEUTRAL_NAME.as_ptr(),
                ptr::null(),
                options.as_mut_ptr(),
            );
            if code < 0 {
                return Err(self.open_error(code));
            }
            self.context = context;
            self.check_budget()?;
            self.stated = (0..self.streams()).map(|i| self.coded_color(i)).collect();
            let code = sys::avformat_find_stream_info(self.context, ptr::null_mut());
            if code < 0 {
                return Err(self.open_error(code));
            }
        }
        // The first packets of a stream may have brought more of everything.
        self.check_budget()?;
        if self.guard.refused.load(Ordering::Relaxed) > 0 {
            return Err(AvError::NestedReference { what: "a file opened by name".to_owned() });
        }
        Ok(())
    }

    /// Compares what the header asks for with what is taken.
    fn check_budget(&self) -> Result<()> {
        budget::STREAMS.check(self.streams().into())?;
        // SAFETY: an opened context with so many chapters, each valid, and
        // dictionaries that are null or valid.
        let (chapters, dictionaries) = unsafe {
            let chapters = (*self.context).nb_chapters;
            budget::CHAPTERS.check(chapters.into())?;
            let own = (*self.context).metadata;
            let of_chapters: Vec<_> = (0..chapters as usize)
                .map(|n| (**(*self.context).chapters.add(n)).metadata)
                .collect();
            (of_chapters, own)
        };
        let (mut tags, mut tag_bytes, mut parameters) = (0, 0, 0);
        let of_streams = (0..self.streams()).filter_map(|i| {
            // SAFETY: a valid stream; its dictionary is null or valid.
            self.stream(i).ok().map(|stream| unsafe { (*stream).metadata })
        });
        for dictionary in chapters.into_iter().chain(of_streams).chain([dictionaries]) {
            for (key, value) in ffi::entries(dictionary) {
                tags += 1;
                tag_bytes += (key.len() + value.len()) as u64;
            }
            budget::TAGS.check(tags)?;
            budget::TAG_BYTES.check(tag_bytes)?;
        }
        for i in 0..self.streams() {
            if self.is_video(i) || self.is_audio(i) {
                parameters += self.extradata(i)?.len() as u64;
            }
        }
        budget::PARAMETER_BYTES.check(parameters)
    }

    fn open_error(&mut self, code: i32) -> AvError {
        if let Some(source) = self.io.as_mut().and_then(Avio::take_error) {
            return AvError::Io { operation: "reading the input", source };
        }
        if self.guard.refused.load(Ordering::Relaxed) > 0 {
            return AvError::NestedReference { what: "a file opened by name".to_owned() };
        }
        if code == sys::AVERROR(libc::ENOMEM) {
            // libav has one code for both, and the context is gone; its words differ.
            if log::recent().iter().any(|line| line.contains("max_streams")) {
                return budget::STREAMS.over(MAX_STREAMS as u64);
            }
            return AvError::OutOfMemory { operation: "opening the input" };
        }
        AvError::NotMedia { cause: code.into() }
    }

    /// Starts again at the first packet, as a fresh [`Input::open`] does: after
    /// a seek demuxers and parsers may keep state, after this they can't.
    pub fn restart(&mut self) -> Result<()> {
        if self.fresh {
            return Ok(());
        }
        self.reset()?;
        self.open_context(self.probe)?;
        if let Some(only) = self.only.take() {
            self.keep_only(&only);
        }
        Ok(())
    }

    /// Back to the source alone.
    fn reset(&mut self) -> Result<()> {
        self.close();
        let Some(io) = self.io.take() else {
            return Err(AvError::Request { what: "the input is closed".to_owned() });
        };
        // A new context for I/O too, since the old one holds a position and a buffer.
        self.io = Some(Avio::new(io.into_source())?);
        (self.fresh, self.ended, self.failed) = (true, false, None);
        Ok(())
    }

    fn close(&mut self) {
        // SAFETY: ours or null; the I/O and the guard are dropped after it, and
        // libav sets the pointer to null. Custom I/O is left to its owner.
        unsafe { sys::avformat_close_input(&mut self.context) }
    }

    /// Short name of the container: `mov`, `matroska`, `mpegts`, …
    pub fn container(&self) -> String {
        if self.context.is_null() {
            return String::new();
        }
        // SAFETY: an opened context has a format with a static name.
        let name = unsafe { ffi::text((*(*self.context).iformat).name) }.unwrap_or_default();
        name.split(',').next().unwrap_or_default().to_owned()
    }

    /// Bytes of the file when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Number of streams.
    pub fn streams(&self) -> u32 {
        if self.context.is_null() {
            return 0;
        }
        // SAFETY: an opened context.
        unsafe { (*self.context).nb_streams }
    }

    pub(crate) fn stream(&self, index: u32) -> Result<*mut sys::AVStream> {
        if index >= self.streams() {
            return Err(AvError::NoStream { stream: index, kind: "" });
        }
        // SAFETY: below the count, so the pointer is there and valid.
        Ok(unsafe { *(*self.context).streams.add(index as usize) })
    }

    pub(crate) fn parameters(&self, index: u32) -> Result<*mut sys::AVCodecParameters> {
        // SAFETY: streams of an opened context have parameters.
        Ok(unsafe { (*self.stream(index)?).codecpar })
    }

    /// Kind of a stream, as libav counts media types.
    pub(crate) fn media_type(&self, index: u32) -> Option<i32> {
        let parameters = self.parameters(index).ok()?;
        // SAFETY: valid parameters; an enum read as an integer.
        Some(unsafe { get_enum!(parameters, codec_type) })
    }

    /// True for video streams that are no cover picture.
    pub fn is_video(&self, index: u32) -> bool {
        self.media_type(index) == Some(VIDEO) && !self.is_attached_picture(index)
    }

    /// True for audio streams.
    pub fn is_audio(&self, index: u32) -> bool {
        self.media_type(index) == Some(AUDIO)
    }

    fn is_attached_picture(&self, index: u32) -> bool {
        let pictures =
            (sys::AV_DISPOSITION_ATTACHED_PIC | sys::AV_DISPOSITION_TIMED_THUMBNAILS) as c_int;
        // SAFETY: a valid stream.
        self.stream(index).is_ok_and(|s| unsafe { (*s).disposition & pictures != 0 })
    }

    /// Index of the film: the default video stream, else the first.
    pub fn main_video(&self) -> Option<u32> {
        let mut videos = (0..self.streams()).filter(|i| self.is_video(*i));
        let first = videos.next()?;
        let is_default = |i: &u32| {
            // SAFETY: a valid stream.
            self.stream(*i).is_ok_and(|s| unsafe {
                (*s).disposition & sys::AV_DISPOSITION_DEFAULT as c_int != 0
            })
        };
        Some(std::iter::once(first).chain(videos).find(is_default).unwrap_or(first))
    }

    /// Seconds per tick of a stream.
    pub fn time_base(&self, index: u32) -> Result<Rational> {
        // SAFETY: a valid stream.
        let raw = unsafe { (*self.stream(index)?).time_base };
        ffi::positive(raw).ok_or_else(|| AvError::Unsupported {
            what: format!("the time base of stream {index}"),
        })
    }

    /// Codec of a stream, as libav names it.
    pub fn codec(&self, index: u32) -> Result<String> {
        // SAFETY: valid parameters; the name is a static string.
        let name = unsafe {
            ffi::text(ffi::avcodec_get_name(get_enum!(self.parameters(index)?, codec_id)))
        };
        Ok(match name {
            Some(name) if name != "none" && name != "unknown_codec" => name,
            _ => "unknown".to_owned(),
        })
    }

    /// The codec's parameter sets, as the container holds them.
    pub fn extradata(&self, index: u32) -> Result<&[u8]> {
        let p = self.parameters(index)?;
        // SAFETY: valid parameters; the pointer is null or has so many bytes,
        // and nobody changes them while the input is borrowed.
        unsafe {
            let size = usize::try_from((*p).extradata_size).unwrap_or(0);
            if (*p).extradata.is_null() || size == 0 {
                return Ok(&[]);
            }
            Ok(std::slice::from_raw_parts((*p).extradata, size))
        }
    }

    /// Leaves out the packets of all other streams from here on.
    pub fn keep_only(&mut self, streams: &[u32]) {
        for i in 0..self.streams() {
            let discard = if streams.contains(&i) { DISCARD_DEFAULT } else { DISCARD_ALL };
            if let Ok(stream) = self.stream(i) {
                // SAFETY: a valid stream; the enum is written as an integer.
                unsafe { ffi::set_enum!(stream, discard, discard) }
            }
        }
        self.only = Some(streams.to_vec());
    }

    /// Undoes [`Input::keep_only`].
    pub fn keep_all(&mut self) {
        let all: Vec<u32> = (0..self.streams()).collect();
        self.keep_only(&all);
        self.only = None;
    }

    /// The next packet, or `None` at the end.
    ///
    /// # Errors
    /// [`AvError::Demux`] where the demuxer gives up before the end (once, then
    /// `None`), [`AvError::Io`], [`AvError::Encrypted`].
    pub fn read_packet(&mut self) -> Result<Option<Packet>> {
        if self.ended || self.context.is_null() {
            return Ok(None);
        }
        self.fresh = false;
        let packet = Packet::new()?;
        // "Again" is how some demuxers say that they skipped something.
        for _ in 0..10_000 {
            // SAFETY: an opened context and an empty packet of ours.
            let code = unsafe { sys::av_read_frame(self.context, packet.0) };
            if code == sys::AVERROR(libc::EAGAIN) {
                continue;
            }
            if code < 0 {
                self.ended = true;
                if let Some(source) = self.io.as_mut().and_then(Avio::take_error) {
                    return Err(AvError::Io { operation: "reading the input", source });
                }
                if code == sys::AVERROR_EOF {
                    return Ok(None);
                }
                self.failed = Some(code);
                return Err(AvError::Demux { cause: code.into() });
            }
            if packet.has_side_data(sys::AVPacketSideDataType::AV_PKT_DATA_ENCRYPTION_INFO as i32) {
                return Err(AvError::Encrypted { stream: packet.stream() });
            }
            return Ok(Some(packet));
        }
        self.ended = true;
        Err(AvError::Demux { cause: "no packet in 10000 tries".into() })
    }

    /// Moves to a packet of `stream` at or before decode time `dts`, as the container's own index has it.
    pub(crate) fn seek_time(&mut self, stream: u32, dts: i64) -> bool {
        self.seek(stream, dts, 0)
    }

    /// Moves to a byte of the file.
    pub(crate) fn seek_byte(&mut self, position: i64) -> bool {
        self.seek(u32::MAX, position, sys::AVSEEK_FLAG_BYTE as c_int)
    }

    fn seek(&mut self, stream: u32, target: i64, flags: c_int) -> bool {
        if self.context.is_null() {
            return false;
        }
        let stream = c_int::try_from(stream).unwrap_or(-1);
        // SAFETY: an opened context; a stream that is not there is refused by libav.
        let code = unsafe {
            sys::avformat_seek_file(self.context, stream, i64::MIN, target, target, flags)
        };
        self.fresh = false;
        self.ended = false;
        self.failed = None;
        code >= 0
    }

    /// True where [`Input::seek_byte`] lands on a packet: streams that can be entered anywhere.
    pub(crate) fn seeks_by_byte(&self) -> bool {
        matches!(
            self.container().as_str(),
            "mpegts" | "mpeg" | "mpegvideo" | "h264" | "hevc" | "m4v" | "dv" | "obu"
        )
    }

    /// What is odd about the container: truncation, and why reading ended early.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if matches!(self.container().as_str(), "mov" | "matroska") && self.claimed_size > self.size
        {
            findings.push(finding(
                "truncated",
                Severity::Error,
                format!(
                    "the container says that it has {} bytes, the file has {}",
                    self.claimed_size, self.size
                ),
            ));
        }
        if let Some(code) = self.failed {
            findings.push(finding(
                "damaged",
                Severity::Error,
                format!(
                    "reading ended before the end of the file: {}",
                    AvError::Demux { cause: code.into() }
                ),
            ));
        }
        if self.container() == "mpegts"
            && !self.size.is_multiple_of(188)
            && !self.size.is_multiple_of(192)
            && !self.size.is_multiple_of(204)
        {
            findings.push(finding(
                "truncated",
                Severity::Error,
                format!("{} bytes are no whole number of transport packets", self.size),
            ));
        }
        findings
    }

    /// What the container and the first packets say. [`crate::probe()`] adds
    /// what only a decoded frame tells.
    pub fn description(&self) -> MediaDescription {
        let (duration, metadata) = if self.context.is_null() {
            (sys::AV_NOPTS_VALUE, ptr::null_mut())
        } else {
            // SAFETY: an opened context; its dictionary is null or valid.
            unsafe { ((*self.context).duration, (*self.context).metadata) }
        };
        let mut tags = std::collections::BTreeMap::new();
        for (key, value) in ffi::entries(metadata) {
            let key = key.to_ascii_lowercase();
            // The file type box is no tag, though libav lists it with them.
            if !matches!(key.as_str(), "major_brand" | "minor_version" | "compatible_brands") {
                tags.insert(key, value);
            }
        }
        for (key, value) in self.service() {
            tags.entry(key).or_insert(value);
        }
        let streams: Vec<Stream> =
            (0..self.streams()).filter_map(|i| self.describe_stream(i).ok()).collect();
        if !tags.contains_key("timecode") {
            let timecode = (0..self.streams()).find_map(|i| self.stream_tag(i, "timecode"));
            tags.extend(timecode.map(|t| ("timecode".to_owned(), t)));
        }
        MediaDescription {
            version: DESCRIPTION_VERSION,
            container: self.container(),
            size: self.size,
            duration_us: ffi::timestamp(duration).filter(|d| *d > 0),
            streams,
            tags,
        }
    }

    /// Name and provider of a transport stream's first service that has them.
    fn service(&self) -> Vec<(String, String)> {
        if self.context.is_null() {
            return Vec::new();
        }
        // SAFETY: an opened context with `nb_programs` pointers to programs, which are not
        // touched while `self` is borrowed; their dictionaries are null or valid.
        let programs = unsafe {
            let context = &*self.context;
            (0..context.nb_programs as usize)
                .map(|n| ffi::entries((**context.programs.add(n)).metadata))
        };
        let told = |(key, value): &(String, String)| {
            matches!(key.as_str(), "service_name" | "service_provider") && !value.is_empty()
        };
        programs
            .map(|tags| tags.into_iter().filter(told).collect::<Vec<_>>())
            .find(|tags| !tags.is_empty())
            .unwrap_or_default()
    }

    fn stream_tag(&self, index: u32, key: &str) -> Option<String> {
        // SAFETY: a valid stream; its dictionary is null or valid.
        let metadata = unsafe { (*self.stream(index).ok()?).metadata };
        ffi::entries(metadata)
            .into_iter()
            .find(|(k, _)| k.eq_ignore_ascii_case(key))
            .map(|(_, v)| v)
            .filter(|v| !v.is_empty())
    }

    /// A movie's handler name where it is a title and not the name of a program's part.
    fn handler_title(&self, index: u32) -> Option<String> {
        const PROGRAMS: [&str; 9] =
            ["handle", "media", "gpac", "bento", "l-smash", "concept", "alias", "import", "track"];
        let name = self.stream_tag(index, "handler_name")?;
        let lower = name.to_lowercase();
        let title = lower.trim();
        let program = title.len() < 2 || PROGRAMS.iter().any(|p| title.contains(p));
        (!program).then(|| name.trim().to_owned())
    }

    fn describe_stream(&self, index: u32) -> Result<Stream> {
        let (s, p) = (self.stream(index)?, self.parameters(index)?);
        // SAFETY: a valid stream and valid parameters; enums are read as integers.
        let (profile, start, duration, bit_rate, disposition) = unsafe {
            (
                ffi::text(ffi::avcodec_profile_name(get_enum!(p, codec_id), (*p).profile)),
                ffi::timestamp((*s).start_time),
                ffi::timestamp((*s).duration).filter(|d| *d > 0),
                u64::try_from((*p).bit_rate).ok().filter(|b| *b > 0),
                (*s).disposition,
            )
        };
        let language = self
            .stream_tag(index, "language")
            // A transport stream lists the languages of both channels of dual mono.
            .and_then(|l| l.split(',').next().map(str::to_owned))
            .filter(|l| l != "und" && !l.is_empty());
        let kind = match self.media_type(index) {
            Some(VIDEO) => StreamKind::Video(self.describe_video(index)?),
            Some(AUDIO) => StreamKind::Audio(self.describe_audio(index)?),
            Some(SUBTITLE) => StreamKind::Subtitle,
            _ => StreamKind::Data,
        };
        Ok(Stream {
            index,
            codec: self.codec(index)?,
            profile,
            time_base: self.time_base(index).unwrap_or(Rational::ONE),
            start,
            duration,
            bit_rate,
            language,
            title: self.stream_tag(index, "title").or_else(|| self.handler_title(index)),
            default: disposition & sys::AV_DISPOSITION_DEFAULT as c_int != 0,
            attached_picture: self.is_attached_picture(index),
            kind,
        })
    }

    /// Colour of a stream: the bitstream's word, and the container's where that is silent.
    pub(crate) fn color(&self, index: u32) -> ColorDescription {
        let stated = self.stated.get(index as usize).copied().unwrap_or_default();
        frame::complete_color(self.coded_color(index), stated)
    }

    fn coded_color(&self, index: u32) -> ColorDescription {
        let Ok(p) = self.parameters(index) else { return ColorDescription::default() };
        // SAFETY: valid parameters; enums are read as integers.
        unsafe {
            frame::color_from_raw(
                get_enum!(p, color_primaries),
                get_enum!(p, color_trc),
                get_enum!(p, color_space),
                get_enum!(p, color_range),
                get_enum!(p, chroma_location),
                (*p).format,
            )
        }
    }

    fn describe_video(&self, index: u32) -> Result<Video> {
        let (s, p) = (self.stream(index)?, self.parameters(index)?);
        // SAFETY: valid parameters; enums are read as integers.
        let (format, fields, raw_depth) =
            unsafe { ((*p).format, get_enum!(p, field_order), (*p).bits_per_raw_sample) };
        let [top, bottom, left, right] = self.cropping(index);
        // SAFETY: valid parameters and a valid stream.
        let (width, height, parameter_aspect, stream_aspect, frame_rate, average_rate) = unsafe {
            (
                (*p).width.max(0) as u32,
                (*p).height.max(0) as u32,
                ffi::positive((*p).sample_aspect_ratio),
                ffi::positive((*s).sample_aspect_ratio),
                ffi::positive((*s).r_frame_rate),
                ffi::positive((*s).avg_frame_rate),
            )
        };
        Ok(Video {
            width: width.saturating_sub(left + right),
            height: height.saturating_sub(top + bottom),
            pixel_format: pixel::name(format).unwrap_or_else(|| "unknown".to_owned()),
            depth: pixel::info(format).map_or(raw_depth.clamp(0, 64) as u8, |i| i.depth),
            // The container's word goes before the bitstream's, as in players.
            sample_aspect: stream_aspect.or(parameter_aspect),
            frame_rate,
            average_rate,
            color: self.color(index),
            hdr: self.hdr(index),
            fields: match fields {
                1 => FieldOrder::Progressive,
                // By display order: "bottom coded first, top displayed first" is 5.
                2 | 5 => FieldOrder::TopFirst,
                3 | 4 => FieldOrder::BottomFirst,
                _ => FieldOrder::Unknown,
            },
            rotation: self.rotation(index),
            dolby_vision: self.dolby_vision(index),
        })
    }

    fn describe_audio(&self, index: u32) -> Result<Audio> {
        let p = self.parameters(index)?;
        // SAFETY: valid parameters with a valid layout.
        unsafe {
            let ordered = get_enum!(ptr::addr_of!((*p).ch_layout), order) != 0;
            let depth = [(*p).bits_per_raw_sample, (*p).bits_per_coded_sample]
                .into_iter()
                .find_map(|b| u8::try_from(b).ok().filter(|b| *b > 0));
            Ok(Audio {
                sample_rate: (*p).sample_rate.max(0) as u32,
                channels: (*p).ch_layout.nb_channels.clamp(0, 0xffff) as u16,
                layout: ordered.then(|| frame::describe_layout(&(*p).ch_layout)),
                sample_format: ffi::text(ffi::av_get_sample_fmt_name((*p).format))
                    .unwrap_or_else(|| "unknown".to_owned()),
                depth: depth.filter(|_| is_lossless(&self.codec(index).unwrap_or_default())),
            })
        }
    }

    /// The stream's side data of a kind, if it has at least `size` bytes.
    pub(crate) fn side_data(&self, index: u32, kind: i32, size: usize) -> Option<&[u8]> {
        let p = self.parameters(index).ok()?;
        // SAFETY: valid parameters own their side data, which nobody changes
        // while the input is borrowed; the entry's size is its own.
        unsafe {
            let entry =
                ffi::av_packet_side_data_get((*p).coded_side_data, (*p).nb_coded_side_data, kind);
            if entry.is_null() || (*entry).data.is_null() || (*entry).size < size {
                return None;
            }
            Some(std::slice::from_raw_parts((*entry).data, (*entry).size))
        }
    }

    fn hdr(&self, index: u32) -> HdrMetadata {
        use sys::AVPacketSideDataType as Kind;
        let mastering = self.side_data(
            index,
            Kind::AV_PKT_DATA_MASTERING_DISPLAY_METADATA as i32,
            size_of::<ffi::MasteringDisplayMetadata>(),
        );
        let light = self.side_data(
            index,
            Kind::AV_PKT_DATA_CONTENT_LIGHT_LEVEL as i32,
            size_of::<ffi::ContentLightMetadata>(),
        );
        // SAFETY: null, or at least as large as the structure; libav allocates
        // side data aligned for any structure.
        unsafe {
            HdrMetadata {
                mastering_display: frame::mastering_from_raw(
                    mastering.map_or(ptr::null(), |d| d.as_ptr().cast()),
                ),
                content_light: frame::light_from_raw(
                    light.map_or(ptr::null(), |d| d.as_ptr().cast()),
                ),
            }
        }
    }

    /// Where a movie's sound ends, in ticks that are samples: libav's decoders
    /// give the padding behind it too.
    pub(crate) fn sound_end(&self, index: u32) -> Option<i64> {
        let (s, p) = (self.stream(index).ok()?, self.parameters(index).ok()?);
        // SAFETY: a valid stream and valid parameters.
        let (start, duration, base, rate) =
            unsafe { ((*s).start_time, (*s).duration, (*s).time_base, (*p).sample_rate) };
        if self.container() != "mov" || base.num != 1 || base.den != rate {
            return None;
        }
        let duration = ffi::timestamp(duration).filter(|d| *d > 0)?;
        ffi::timestamp(start).unwrap_or(0).checked_add(duration)
    }

    /// Clockwise rotation for presentation, in quarter turns.
    pub fn rotation(&self, index: u32) -> u16 {
        let kind = sys::AVPacketSideDataType::AV_PKT_DATA_DISPLAYMATRIX as i32;
        // SAFETY: 36 bytes are nine numbers, aligned as libav allocates.
        self.side_data(index, kind, 36)
            .map_or(0, |m| unsafe { frame::rotation_from_matrix(m.as_ptr().cast()) })
    }

    /// Lines and columns that the container cuts off: top, bottom, left, right.
    pub(crate) fn cropping(&self, index: u32) -> [u32; 4] {
        let kind = sys::AVPacketSideDataType::AV_PKT_DATA_FRAME_CROPPING as i32;
        let Some(data) = self.side_data(index, kind, 16) else { return [0; 4] };
        let at = |i: usize| u32::from_le_bytes([data[i], data[i + 1], data[i + 2], data[i + 3]]);
        let crop = [at(0), at(4), at(8), at(12)];
        // A crop that leaves nothing is damage, not a wish.
        let (width, height) = match self.parameters(index) {
            // SAFETY: valid parameters.
            Ok(p) => unsafe { ((*p).width.max(0) as u64, (*p).height.max(0) as u64) },
            Err(_) => (0, 0),
        };
        let [top, bottom, left, right] = crop.map(u64::from);
        if top + bottom >= height || left + right >= width { [0; 4] } else { crop }
    }

    fn dolby_vision(&self, index: u32) -> Option<String> {
        let kind = sys::AVPacketSideDataType::AV_PKT_DATA_DOVI_CONF as i32;
        // Eight single bytes of AVDOVIDecoderConfigurationRecord: profile is
        // the third, compatibility the eighth.
        let d = self.side_data(index, kind, 8)?;
        Some(format!("{}.{}", d[2], d[7]))
    }
}

impl<S: Source> Drop for Input<S> {
    fn drop(&mut self) {
        self.close();
    }
}

pub(crate) fn finding(code: &str, severity: Severity, message: String) -> Finding {
    Finding {
        code: code.to_owned(),
        severity,
        message,
        stream: None,
        frames: None,
        measured: None,
        allowed: None,
    }
}

fn is_lossless(codec: &str) -> bool {
    codec.starts_with("pcm_")
        || matches!(codec, "flac" | "alac" | "truehd" | "mlp" | "s302m" | "wavpack" | "tta")
}

/// `AVMediaType` and `AVDiscard` as plain numbers.
pub(crate) const VIDEO: i32 = 0;
pub(crate) const AUDIO: i32 = 1;
const SUBTITLE: i32 = 3;
const DISCARD_DEFAULT: i32 = 0;
const DISCARD_ALL: i32 = 48;

/// Called by libav when a demuxer wants another file.
unsafe extern "C" fn refuse_open(
    context: *mut sys::AVFormatContext,
    _io: *mut *mut sys::AVIOContext,
    _url: *const c_char,
    _flags: c_int,
    _options: *mut *mut sys::AVDictionary,
) -> c_int {
    // SAFETY: the opaque pointer is the guard that was set before opening, and
    // nested contexts (which libav makes for some formats) inherit it or null.
    let guard = unsafe { (*context).opaque.cast::<Guard>().as_ref() };
    if let Some(guard) = guard {
        guard.refused.fetch_add(1, Ordering::Relaxed);
    }
    sys::AVERROR(libc::EACCES)
}

/// libav's default would treat our context as one that it opened itself.
unsafe extern "C" fn refuse_close(
    _context: *mut sys::AVFormatContext,
    _io: *mut sys::AVIOContext,
) -> c_int {
    0
}

/// A coded packet with its counted payload.
pub struct Packet(*mut sys::AVPacket);

// SAFETY: a packet has no thread of its own; its buffer is counted with atomics.
unsafe impl Send for Packet {}

impl Packet {
    pub(crate) fn new() -> Result<Packet> {
        // SAFETY: no precondition; null is checked.
        let packet = unsafe { sys::av_packet_alloc() };
        if packet.is_null() {
            return Err(AvError::OutOfMemory { operation: "allocating a packet" });
        }
        Ok(Packet(packet))
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::AVPacket {
        self.0
    }

    /// Index of its stream in the container.
    pub fn stream(&self) -> u32 {
        // SAFETY: a valid packet.
        unsafe { (*self.0).stream_index.max(0) as u32 }
    }

    /// Presentation time in ticks.
    pub fn pts(&self) -> Option<i64> {
        // SAFETY: a valid packet.
        ffi::timestamp(unsafe { (*self.0).pts })
    }

    /// Decode time in ticks.
    pub fn dts(&self) -> Option<i64> {
        // SAFETY: a valid packet.
        ffi::timestamp(unsafe { (*self.0).dts })
    }

    /// Sets both times.
    pub fn set_times(&mut self, pts: Option<i64>, dts: Option<i64>) {
        // SAFETY: a valid packet that we own.
        unsafe {
            (*self.0).pts = ffi::raw_timestamp(pts);
            (*self.0).dts = ffi::raw_timestamp(dts);
        }
    }

    /// Duration in ticks, 0 when unknown.
    pub fn duration(&self) -> i64 {
        // SAFETY: a valid packet.
        unsafe { (*self.0).duration.max(0) }
    }

    /// Byte position in the file, -1 when unknown.
    pub fn pos(&self) -> i64 {
        // SAFETY: a valid packet.
        unsafe { (*self.0).pos }
    }

    /// `PACKET_*` bits of [`trix_model::index`].
    pub fn flags(&self) -> u8 {
        // SAFETY: a valid packet.
        let raw = unsafe { (*self.0).flags };
        let mut flags = 0;
        for (bit, ours) in [
            (sys::AV_PKT_FLAG_KEY as c_int, PACKET_KEY),
            (sys::AV_PKT_FLAG_DISCARD as c_int, PACKET_DISCARD),
            (sys::AV_PKT_FLAG_CORRUPT as c_int, PACKET_CORRUPT),
        ] {
            if raw & bit != 0 {
                flags |= ours;
            }
        }
        flags
    }

    pub(crate) fn set_discard(&mut self, discard: bool) {
        // SAFETY: a valid packet that we own.
        unsafe {
            if discard {
                (*self.0).flags |= sys::AV_PKT_FLAG_DISCARD as c_int;
            } else {
                (*self.0).flags &= !(sys::AV_PKT_FLAG_DISCARD as c_int);
            }
        }
    }

    /// A number that the decoder hands on to the frame.
    pub(crate) fn set_opaque(&mut self, value: usize) {
        // SAFETY: a valid packet; the pointer is a number and never followed.
        unsafe { (*self.0).opaque = value as *mut _ }
    }

    /// The coded bytes.
    pub fn data(&self) -> &[u8] {
        // SAFETY: a valid packet; the pointer is null or has so many bytes,
        // and nobody changes them while the packet is borrowed.
        unsafe {
            let size = usize::try_from((*self.0).size).unwrap_or(0);
            if (*self.0).data.is_null() || size == 0 {
                return &[];
            }
            std::slice::from_raw_parts((*self.0).data, size)
        }
    }

    /// True when the packet carries side data of the kind.
    pub(crate) fn has_side_data(&self, kind: i32) -> bool {
        // SAFETY: a valid packet; the size is not wanted.
        unsafe { !ffi::av_packet_get_side_data(self.0, kind, ptr::null_mut()).is_null() }
    }

    /// (samples to skip at the start, at the end), if the packet says so.
    pub fn skipped_samples(&self) -> Option<(u32, u32)> {
        let kind = sys::AVPacketSideDataType::AV_PKT_DATA_SKIP_SAMPLES as i32;
        let mut size = 0usize;
        // SAFETY: a valid packet; the data has `size` bytes while it lives.
        let data = unsafe {
            let data = ffi::av_packet_get_side_data(self.0, kind, &mut size);
            if data.is_null() || size < 8 {
                return None;
            }
            std::slice::from_raw_parts(data, size)
        };
        let at = |i: usize| u32::from_le_bytes([data[i], data[i + 1], data[i + 2], data[i + 3]]);
        Some((at(0), at(4)))
    }

    /// The packet as the muxer takes it; times that the container does not
    /// state come out as 0 and are the caller's to mend.
    pub fn to_encoded(&self) -> EncodedPacket {
        let dts = self.dts().or(self.pts()).unwrap_or(0);
        EncodedPacket {
            pts: self.pts().unwrap_or(dts),
            dts,
            duration: self.duration(),
            key: self.flags() & PACKET_KEY != 0,
            discard_padding: self.skipped_samples().map_or(0, |(_, end)| end),
            data: self.data().to_vec(),
        }
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: ours; libav sets the pointer to null.
        unsafe { sys::av_packet_free(&mut self.0) }
    }
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (stream, size) = (self.stream(), self.data().len());
        write!(f, "Packet(stream {stream} pts {:?} dts {:?} {size} bytes)", self.pts(), self.dts())
    }
}
