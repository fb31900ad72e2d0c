//! Writing containers: packets of any origin → MP4, MOV or Matroska.
//!
//! The same packets give the same bytes: no date, no version, no random
//! number. Priming and a late start become edit lists, exact to the sample.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::fs::File;
use std::ptr;
use std::sync::Arc;

use ffmpeg_sys_next as sys;
use serde::{Deserialize, Serialize};
use trix_model::time::{Rounding, rescale};
use trix_model::{ColorDescription, HdrMetadata, Rational};
use trix_plan::task::Container;

use crate::error::{AvError, Result};
use crate::ffi::{self, Dictionary, set_enum};
use crate::frame::{self, Layout};
use crate::input::{AUDIO, Input, Packet, VIDEO};
use crate::io::{Avio, Sink, Source};
use crate::{log, pixel};

/// What a muxer needs to know of a track's codec. Plain data, so that it can
/// be stored with the packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecParameters {
    /// Codec as libav names it, e.g. `h264`.
    pub codec: String,
    /// Parameter sets as the encoder gives them (for H.264 and HEVC with start codes or as `avcC`/`hvcC`).
    pub extradata: Vec<u8>,
    /// Codec profile as libav counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<i32>,
    /// Codec level as libav counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
    /// bit/s, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bit_rate: Option<u64>,
    /// What is particular to the kind.
    pub kind: CodecKind,
}

/// Kind of a track with its properties.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CodecKind {
    /// Pictures.
    Video(VideoParameters),
    /// Sound.
    Audio(AudioParameters),
}

/// Properties of a picture track.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoParameters {
    /// Samples a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Pixel format as libav names it.
    pub pixel_format: String,
    /// Sample aspect ratio, if stated.
    pub sample_aspect: Option<Rational>,
    /// Colour.
    pub color: ColorDescription,
    /// HDR metadata.
    pub hdr: HdrMetadata,
    /// Nominal frame rate.
    pub frame_rate: Option<Rational>,
    /// Pictures by which display runs behind decode.
    pub reorder: u32,
}

/// Properties of a sound track.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioParameters {
    /// Samples a second.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u16,
    /// Channel layout in libav's words, if the order is known.
    pub layout: Option<String>,
    /// Sample format as libav names it.
    pub sample_format: String,
    /// Samples that the decoder gives before the first real one.
    pub initial_padding: u32,
    /// Samples that the decoder gives behind the last real one.
    pub trailing_padding: u32,
    /// Samples in every packet, 0 when that varies.
    pub frame_size: u32,
    /// Bits a sample for PCM and lossless codecs, else 0.
    pub bits: u8,
}

/// A coded picture or run of samples on its way to a muxer. Times are ticks of its track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPacket {
    /// Presentation time.
    pub pts: i64,
    /// Decode time.
    pub dts: i64,
    /// Duration.
    pub duration: i64,
    /// Decoding can start here.
    pub key: bool,
    /// Samples at the end that are not to be heard.
    pub discard_padding: u32,
    /// The payload.
    pub data: Vec<u8>,
}

/// A track of the file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MuxTrack {
    /// Codec.
    pub parameters: CodecParameters,
    /// Seconds per tick of the track's packets.
    pub time_base: Rational,
    /// ISO 639-2 code.
    pub language: Option<String>,
    /// Title.
    pub title: Option<String>,
    /// Marked as default.
    pub default: bool,
    /// Clockwise rotation that players must apply: 0, 90, 180 or 270.
    pub rotation: u16,
}

/// How the file is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MuxOptions {
    /// MP4 and MOV: the index goes to the front, so that playing can start at once.
    pub fast_start: bool,
    /// Container tags.
    pub tags: BTreeMap<String, String>,
}

/// The codec parameters of a stream, for writing its packets as they are.
pub fn copy_parameters<S: Source>(input: &Input<S>, stream: u32) -> Result<CodecParameters> {
    let p = input.parameters(stream)?;
    // SAFETY: valid parameters.
    let (profile, level, bit_rate, padding, trailing, frame_size, delay) = unsafe {
        (
            (*p).profile,
            (*p).level,
            (*p).bit_rate,
            (*p).initial_padding,
            (*p).trailing_padding,
            (*p).frame_size,
            (*p).video_delay,
        )
    };
    let description = input.description();
    let kind = description.streams.iter().find(|s| s.index == stream).map(|s| s.kind.clone());
    let kind = match kind {
        Some(trix_model::media::StreamKind::Video(v)) => CodecKind::Video(VideoParameters {
            width: v.width,
            height: v.height,
            pixel_format: v.pixel_format,
            sample_aspect: v.sample_aspect,
            color: v.color,
            hdr: v.hdr,
            frame_rate: v.average_rate.or(v.frame_rate),
            reorder: delay.max(0) as u32,
        }),
        Some(trix_model::media::StreamKind::Audio(a)) => CodecKind::Audio(AudioParameters {
            sample_rate: a.sample_rate,
            channels: a.channels,
            layout: a.layout,
            sample_format: a.sample_format,
            initial_padding: padding.max(0) as u32,
            trailing_padding: trailing.max(0) as u32,
            frame_size: frame_size.max(0) as u32,
            bits: a.depth.unwrap_or(0),
        }),
        _ => return Err(AvError::NoStream { stream, kind: "video or audio" }),
    };
    Ok(CodecParameters {
        codec: input.codec(stream)?,
        extradata: input.extradata(stream)?.to_vec(),
        profile: (profile >= 0).then_some(profile),
        level: (level >= 0).then_some(level),
        bit_rate: u64::try_from(bit_rate).ok().filter(|b| *b > 0),
        kind,
    })
}

/// What the callbacks of a muxer need, behind the context's opaque pointer.
struct Reopen {
    file: Arc<File>,
    /// Contexts that libav asked for and has not given back.
    open: Vec<Avio<Sink>>,
}

/// Writes one file.
pub struct Muxer {
    context: *mut sys::AVFormatContext,
    io: Avio<Sink>,
    reopen: *mut Reopen,
    file: Arc<File>,
    tracks: Vec<Track>,
    matroska: bool,
}

struct Track {
    time_base: Rational,
    /// The container's, known after the header.
    written_base: Rational,
}

// SAFETY: the context, its I/O and what its callbacks use belong to this value alone.
unsafe impl Send for Muxer {}

impl Muxer {
    /// Starts a file: writes the header. The descriptor must be readable too,
    /// because fast start moves what was written.
    ///
    /// # Errors
    /// [`AvError::Request`] when the container can't hold a codec or a time base.
    pub fn create(
        file: File,
        container: Container,
        tracks: &[MuxTrack],
        options: &MuxOptions,
    ) -> Result<Muxer> {
        log::install();
        let file = Arc::new(file);
        let io = Avio::writer(file.clone())?;
        let reopen = Box::into_raw(Box::new(Reopen { file: file.clone(), open: Vec::new() }));
        let name = match container {
            Container::Mp4 => c"mp4",
            Container::Mov => c"mov",
            Container::Mkv => c"matroska",
        };
        let mut muxer = Muxer {
            context: ptr::null_mut(),
            io,
            reopen,
            file,
            tracks: Vec::new(),
            matroska: container == Container::Mkv,
        };
        // SAFETY: a fresh context that drop frees; the I/O outlives it, the
        // callbacks have the prototypes of libav 7.1, and what they use lives
        // until drop.
        unsafe {
            let code = sys::avformat_alloc_output_context2(
                &mut muxer.context,
                ptr::null(),
                name.as_ptr(),
                c"out".as_ptr(),
            );
            if code < 0 || muxer.context.is_null() {
                return Err(AvError::library(format!("making a {name:?} file"), code));
            }
            let c = muxer.context;
            (*c).pb = muxer.io.as_ptr();
            (*c).flags |= sys::AVFMT_FLAG_CUSTOM_IO as c_int;
            if muxer.matroska {
                // Without it the track ids are random numbers. MP4 has none, and
                // would leave out all titles and tags with it.
                (*c).flags |= sys::AVFMT_FLAG_BITEXACT as c_int;
            }
            (*c).opaque = reopen.cast();
            (*c).io_open = Some(open_again);
            (*c).io_close2 = Some(close_again);
            // FLAC in MP4 and the like are standards by now.
            (*c).strict_std_compliance = sys::FF_COMPLIANCE_EXPERIMENTAL as c_int;
        }
        for track in tracks {
            muxer.add(track, container)?;
        }
        // libav would name itself and its version as the tool.
        let tool = ("encoding_tool".to_owned(), "trix".to_owned());
        let tool = (container == Container::Mp4).then_some((&tool.0, &tool.1));
        for (key, value) in tool.into_iter().chain(&options.tags) {
            let (key, value) = (ffi::c_string(key), ffi::c_string(value));
            // SAFETY: a context of ours; the strings are copied.
            unsafe {
                let metadata = &mut (*muxer.context).metadata;
                sys::av_dict_set(metadata, key.as_ptr(), value.as_ptr(), 0);
            }
        }
        muxer.write_header(tracks, options)?;
        Ok(muxer)
    }

    fn add(&mut self, track: &MuxTrack, container: Container) -> Result<()> {
        let base = ffi::raw_rational(track.time_base)?;
        // Players of MP4 take a track's title from its handler; Matroska has a field.
        let handler = if container == Container::Mkv { &None } else { &track.title };
        let metadata =
            [("language", &track.language), ("title", &track.title), ("handler_name", handler)];
        // SAFETY: a context of ours, not written yet; a new stream and its
        // parameters are valid until the context is freed.
        unsafe {
            let stream = sys::avformat_new_stream(self.context, ptr::null());
            if stream.is_null() {
                return Err(AvError::OutOfMemory { operation: "adding a track" });
            }
            (*stream).time_base = base;
            if track.default {
                (*stream).disposition |= sys::AV_DISPOSITION_DEFAULT as c_int;
            }
            for (key, value) in metadata {
                if let Some(value) = value {
                    let (key, value) = (ffi::c_string(key), ffi::c_string(value));
                    sys::av_dict_set(&mut (*stream).metadata, key.as_ptr(), value.as_ptr(), 0);
                }
            }
            fill_parameters((*stream).codecpar, &track.parameters, track.rotation)?;
            if track.parameters.codec == "hevc" && container != Container::Mkv {
                // Parameter sets stand in the index alone; Apple's players take nothing else.
                (*(*stream).codecpar).codec_tag = u32::from_le_bytes(*b"hvc1");
            }
            if let CodecKind::Video(v) = &track.parameters.kind {
                if let Some(aspect) = v.sample_aspect {
                    (*stream).sample_aspect_ratio = ffi::raw_rational(aspect)?;
                }
                if let Some(rate) = v.frame_rate {
                    (*stream).avg_frame_rate = ffi::raw_rational(rate)?;
                    (*stream).r_frame_rate = (*stream).avg_frame_rate;
                }
            }
        }
        self.tracks.push(Track { time_base: track.time_base, written_base: track.time_base });
        Ok(())
    }

    fn write_header(&mut self, tracks: &[MuxTrack], options: &MuxOptions) -> Result<()> {
        let mut dictionary = Dictionary::new();
        if !self.matroska {
            if options.fast_start {
                dictionary.set("movflags", "+faststart")?;
            }
            dictionary.set("use_editlist", "1")?;
            // Edits are counted in the movie's ticks: they must hold a video
            // tick and a sample alike. A timecode track is not wanted.
            dictionary.set("movie_timescale", &movie_timescale(tracks).to_string())?;
            dictionary.set("write_tmcd", "0")?;
            let video = tracks.iter().find(|t| matches!(t.parameters.kind, CodecKind::Video(_)));
            if let Some(track) = video {
                dictionary.set("video_track_timescale", &track.time_base.den().to_string())?;
            }
        }
        // SAFETY: a context of ours with all its streams. What libav would say
        // of its own version is taken out again between the two steps.
        let code = unsafe {
            let code = sys::avformat_init_output(self.context, dictionary.as_mut_ptr());
            if code < 0 {
                code
            } else {
                let metadata = &mut (*self.context).metadata;
                sys::av_dict_set(metadata, c"encoder".as_ptr(), ptr::null(), 0);
                sys::avformat_write_header(self.context, ptr::null_mut())
            }
        };
        if code < 0 {
            if let Some(error) = self.write_error() {
                return Err(error);
            }
            let codecs: Vec<&str> = tracks.iter().map(|t| t.parameters.codec.as_str()).collect();
            return Err(AvError::Request {
                what: format!(
                    "the container can't hold {}: {}",
                    codecs.join(" and "),
                    crate::error::Cause::from(code)
                ),
            });
        }
        if let Some(option) = dictionary.first_key() {
            return Err(AvError::Unsupported { what: format!("the muxer option {option}") });
        }
        for (i, track) in self.tracks.iter_mut().enumerate() {
            // SAFETY: a context of ours with so many streams.
            let base = unsafe { (**(*self.context).streams.add(i)).time_base };
            track.written_base = ffi::positive(base).unwrap_or(track.time_base);
        }
        Ok(())
    }

    /// Writes a packet of a track. Packets of one track come in decode order;
    /// those of all tracks roughly in time.
    ///
    /// # Errors
    /// [`AvError::Io`] when the device refuses; [`AvError::Library`] for times that go backwards.
    pub fn write(&mut self, track: usize, packet: &EncodedPacket) -> Result<()> {
        let Some(bases) = self.tracks.get(track) else {
            return Err(AvError::Request { what: format!("there is no track {track}") });
        };
        let to = |t: i64| rescale(t, bases.time_base, bases.written_base, Rounding::Nearest);
        let (pts, mut dts) = (to(packet.pts), to(packet.dts));
        if self.matroska && pts >= 0 {
            // Matroska stores no decode times, but libav would shift the whole
            // film so that none is negative.
            dts = dts.max(0);
        }
        let raw = Packet::new()?;
        let size = c_int::try_from(packet.data.len())
            .map_err(|_| AvError::Unsupported { what: "a packet of 2 GiB".to_owned() })?;
        // SAFETY: an empty packet of ours gets a buffer of this size, into
        // which the data is copied; all else are plain numbers.
        unsafe {
            let p = raw.as_ptr();
            let code = sys::av_new_packet(p, size);
            if code < 0 {
                return Err(AvError::OutOfMemory { operation: "writing a packet" });
            }
            ptr::copy_nonoverlapping(packet.data.as_ptr(), (*p).data, packet.data.len());
            (*p).stream_index = track as c_int;
            (*p).pts = pts;
            (*p).dts = dts.min(pts);
            // By its ends, so that rounding does not add up.
            (*p).duration = to(packet.pts + packet.duration) - pts;
            if packet.key {
                (*p).flags |= sys::AV_PKT_FLAG_KEY as c_int;
            }
            if packet.discard_padding > 0 {
                let data = ffi::av_packet_new_side_data(
                    p,
                    sys::AVPacketSideDataType::AV_PKT_DATA_SKIP_SAMPLES as c_int,
                    10,
                );
                if data.is_null() {
                    return Err(AvError::OutOfMemory { operation: "writing a packet" });
                }
                let data = std::slice::from_raw_parts_mut(data, 10);
                data.fill(0);
                data[4..8].copy_from_slice(&packet.discard_padding.to_le_bytes());
            }
            let code = sys::av_interleaved_write_frame(self.context, p);
            if code < 0 {
                return Err(self.write_error().unwrap_or_else(|| {
                    AvError::library(
                        format!("writing a packet of track {track} (dts {})", packet.dts),
                        code,
                    )
                }));
            }
        }
        Ok(())
    }

    /// Completes the file and gives the descriptor back. Whether and when to
    /// fsync is the caller's decision.
    pub fn finish(mut self) -> Result<File> {
        // SAFETY: a context of ours whose header was written.
        let code = unsafe {
            let code = sys::av_write_trailer(self.context);
            sys::avio_flush(self.io.as_ptr());
            if code < 0 { code } else { (*self.io.as_ptr()).error }
        };
        if let Some(error) = self.write_error() {
            return Err(error);
        }
        if code < 0 {
            return Err(AvError::library("completing the file", code));
        }
        let file = self.file.clone();
        drop(self);
        Arc::try_unwrap(file).map_err(|_| AvError::Unsupported {
            what: "a file that is still in use after it was completed".to_owned(),
        })
    }

    fn write_error(&mut self) -> Option<AvError> {
        let source = self.io.take_error()?;
        Some(AvError::Io { operation: "writing the output", source })
    }
}

impl Drop for Muxer {
    fn drop(&mut self) {
        // SAFETY: all ours; the context goes first, since it knows the others.
        unsafe {
            if !self.context.is_null() {
                sys::avformat_free_context(self.context);
            }
            drop(Box::from_raw(self.reopen));
        }
    }
}

/// # Safety
/// `p` points to valid, empty parameters.
unsafe fn fill_parameters(
    p: *mut sys::AVCodecParameters,
    from: &CodecParameters,
    rotation: u16,
) -> Result<()> {
    let name = ffi::c_string(&from.codec);
    // SAFETY: valid parameters that are filled field by field; enums go over
    // as integers that libav itself gave; extradata gets its own padded buffer.
    unsafe {
        let descriptor = sys::avcodec_descriptor_get_by_name(name.as_ptr());
        if descriptor.is_null() {
            return Err(AvError::Request { what: format!("there is no codec {:?}", from.codec) });
        }
        set_enum!(p, codec_id, ffi::get_enum!(descriptor, id));
        (*p).profile = from.profile.unwrap_or(sys::FF_PROFILE_UNKNOWN);
        (*p).level = from.level.unwrap_or(sys::FF_LEVEL_UNKNOWN);
        (*p).bit_rate = from.bit_rate.and_then(|b| i64::try_from(b).ok()).unwrap_or(0);
        if !from.extradata.is_empty() {
            let size = from.extradata.len();
            let padded = size + sys::AV_INPUT_BUFFER_PADDING_SIZE as usize;
            let data = sys::av_mallocz(padded).cast::<u8>();
            let length = c_int::try_from(size);
            let (false, Ok(length)) = (data.is_null(), length) else {
                sys::av_free(data.cast());
                return Err(AvError::OutOfMemory { operation: "adding a track" });
            };
            ptr::copy_nonoverlapping(from.extradata.as_ptr(), data, size);
            (*p).extradata = data;
            (*p).extradata_size = length;
        }
        match &from.kind {
            CodecKind::Video(v) => fill_video(p, v, rotation),
            CodecKind::Audio(a) => fill_audio(p, a, &from.codec),
        }
    }
}

/// # Safety
/// `p` points to valid parameters.
unsafe fn fill_video(
    p: *mut sys::AVCodecParameters,
    v: &VideoParameters,
    rotation: u16,
) -> Result<()> {
    use sys::AVPacketSideDataType as Kind;
    // SAFETY: as the caller promises; side data is written through a pointer
    // that libav allocated for its size.
    unsafe {
        set_enum!(p, codec_type, VIDEO);
        (*p).width = c_int::try_from(v.width).unwrap_or(0);
        (*p).height = c_int::try_from(v.height).unwrap_or(0);
        (*p).format = pixel::by_name(&v.pixel_format).unwrap_or(pixel::NO_FORMAT);
        (*p).video_delay = c_int::try_from(v.reorder).unwrap_or(0);
        if let Some(aspect) = v.sample_aspect {
            (*p).sample_aspect_ratio = ffi::raw_rational(aspect)?;
        }
        if let Some(rate) = v.frame_rate {
            (*p).framerate = ffi::raw_rational(rate)?;
        }
        set_enum!(p, color_primaries, frame::raw_code(v.color.primaries));
        set_enum!(p, color_trc, frame::raw_code(v.color.transfer));
        set_enum!(p, color_space, frame::raw_code(v.color.matrix));
        set_enum!(p, color_range, frame::raw_range(v.color.full_range));
        set_enum!(p, chroma_location, frame::raw_location(v.color.chroma_location));
        if let Some(m) = v.hdr.mastering_display {
            let point =
                |xy: [u16; 2]| xy.map(|v| sys::AVRational { num: c_int::from(v), den: 50_000 });
            let light = |v: u32| sys::AVRational {
                num: c_int::try_from(v).unwrap_or(c_int::MAX),
                den: 10_000,
            };
            let data = ffi::MasteringDisplayMetadata {
                display_primaries: m.primaries.map(point),
                white_point: point(m.white_point),
                min_luminance: light(m.min_luminance),
                max_luminance: light(m.max_luminance),
                has_primaries: 1,
                has_luminance: 1,
            };
            add_side_data(p, Kind::AV_PKT_DATA_MASTERING_DISPLAY_METADATA as i32, data)?;
        }
        if let Some(l) = v.hdr.content_light {
            let data = ffi::ContentLightMetadata {
                max_cll: u32::from(l.max_content),
                max_fall: u32::from(l.max_frame_average),
            };
            add_side_data(p, Kind::AV_PKT_DATA_CONTENT_LIGHT_LEVEL as i32, data)?;
        }
        if !rotation.is_multiple_of(360) {
            let mut matrix = [0i32; 9];
            // Clockwise here, though its sister function reads counter-clockwise.
            sys::av_display_rotation_set(matrix.as_mut_ptr(), f64::from(rotation));
            add_side_data(p, Kind::AV_PKT_DATA_DISPLAYMATRIX as i32, matrix)?;
        }
    }
    Ok(())
}

/// # Safety
/// `p` points to valid parameters; `T` is the structure that libav has for the kind.
unsafe fn add_side_data<T: Copy>(p: *mut sys::AVCodecParameters, kind: i32, data: T) -> Result<()> {
    // SAFETY: libav allocates the size of the structure, aligned for any.
    unsafe {
        let entry = ffi::av_packet_side_data_new(
            &mut (*p).coded_side_data,
            &mut (*p).nb_coded_side_data,
            kind,
            size_of::<T>(),
            0,
        );
        if entry.is_null() {
            return Err(AvError::OutOfMemory { operation: "adding a track" });
        }
        (*entry).data.cast::<T>().write(data);
    }
    Ok(())
}

/// # Safety
/// `p` points to valid parameters.
unsafe fn fill_audio(
    p: *mut sys::AVCodecParameters,
    a: &AudioParameters,
    codec: &str,
) -> Result<()> {
    let layout = match &a.layout {
        Some(words) => Layout::parse(words)?,
        None => Layout::default_of(a.channels),
    };
    let format = ffi::c_string(&a.sample_format);
    let bits = c_int::from(a.bits);
    // SAFETY: as the caller promises; the layout is copied.
    unsafe {
        set_enum!(p, codec_type, AUDIO);
        (*p).sample_rate = c_int::try_from(a.sample_rate).unwrap_or(0);
        (*p).format = ffi::av_get_sample_fmt(format.as_ptr());
        let code = sys::av_channel_layout_copy(&mut (*p).ch_layout, layout.as_ptr());
        if code < 0 {
            return Err(AvError::library("copying a channel layout", code));
        }
        (*p).initial_padding = c_int::try_from(a.initial_padding).unwrap_or(0);
        (*p).trailing_padding = c_int::try_from(a.trailing_padding).unwrap_or(0);
        (*p).frame_size = c_int::try_from(a.frame_size).unwrap_or(0);
        (*p).bits_per_raw_sample = bits;
        if codec.starts_with("pcm_") {
            (*p).bits_per_coded_sample = bits;
            (*p).block_align = bits / 8 * c_int::from(a.channels);
        }
    }
    Ok(())
}

/// A clock that holds every track's ticks, if a 32-bit one does; else the sound's.
fn movie_timescale(tracks: &[MuxTrack]) -> i64 {
    let den = |t: &MuxTrack| t.time_base.den();
    let common = tracks.iter().try_fold(1i64, |n, t| {
        let d = den(t);
        let lcm = n / gcd(n, d) * d;
        (lcm <= 50_000_000).then_some(lcm)
    });
    common.unwrap_or_else(|| {
        let audio = tracks.iter().find(|t| matches!(t.parameters.kind, CodecKind::Audio(_)));
        audio.map_or(90_000, den)
    })
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Called by libav when fast start wants to read what was written.
unsafe extern "C" fn open_again(
    context: *mut sys::AVFormatContext,
    io: *mut *mut sys::AVIOContext,
    _url: *const c_char,
    flags: c_int,
    _options: *mut *mut sys::AVDictionary,
) -> c_int {
    if flags & sys::AVIO_FLAG_WRITE as c_int != 0 {
        return sys::AVERROR(libc::EACCES);
    }
    // SAFETY: the opaque pointer is what create() set, and lives until drop.
    let reopen = unsafe { &mut *(*context).opaque.cast::<Reopen>() };
    match Avio::new(Sink(reopen.file.clone())) {
        Ok(again) => {
            // SAFETY: libav wants the context there.
            unsafe { *io = again.as_ptr() };
            reopen.open.push(again);
            0
        }
        Err(_) => sys::AVERROR(libc::ENOMEM),
    }
}

/// Called by libav when it has read enough. The default would treat the
/// context as one that libav opened by name.
unsafe extern "C" fn close_again(
    context: *mut sys::AVFormatContext,
    io: *mut sys::AVIOContext,
) -> c_int {
    // SAFETY: as for open_again.
    let reopen = unsafe { &mut *(*context).opaque.cast::<Reopen>() };
    reopen.open.retain(|a| a.as_ptr() != io);
    0
}
