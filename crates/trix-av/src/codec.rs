//! libav's own encoders: AAC, FLAC and PCM for sound, FFV1 for pictures, JPEG
//! and PNG for stills. Settings in, packets out.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::ptr;

use ffmpeg_sys_next as sys;
use serde::{Deserialize, Serialize};
use trix_model::{ColorDescription, HdrMetadata, PixelFormat, Rational};

use crate::error::{AvError, Result};
use crate::ffi::{self, Dictionary, set_enum};
use crate::frame::{self, AudioFrame, Layout, SampleFormat, VideoFrame};
use crate::input::Packet;
use crate::mux::{AudioParameters, CodecKind, CodecParameters, EncodedPacket, VideoParameters};
use crate::{log, pixel, scale};

/// Samples in a packet of PCM: whatever runs come in, the packets are the same.
const PCM_PACKET: usize = 4096;

/// Sound codecs that this crate encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioCodecKind {
    /// AAC-LC.
    Aac,
    /// FLAC, 16 or 24 bit.
    Flac,
    /// Linear PCM, 16 bit little-endian.
    PcmS16le,
    /// Linear PCM, 24 bit little-endian.
    PcmS24le,
    /// Linear PCM, 32 bit little-endian.
    PcmS32le,
}

impl AudioCodecKind {
    /// The PCM that keeps `depth` bits a sample; 24 where the source has no depth (lossy codecs).
    pub const fn pcm(depth: Option<u8>) -> AudioCodecKind {
        match depth {
            Some(0..=16) => AudioCodecKind::PcmS16le,
            Some(17..=24) | None => AudioCodecKind::PcmS24le,
            Some(_) => AudioCodecKind::PcmS32le,
        }
    }

    /// libav's name of codec and encoder.
    pub const fn name(self) -> &'static str {
        match self {
            AudioCodecKind::Aac => "aac",
            AudioCodecKind::Flac => "flac",
            AudioCodecKind::PcmS16le => "pcm_s16le",
            AudioCodecKind::PcmS24le => "pcm_s24le",
            AudioCodecKind::PcmS32le => "pcm_s32le",
        }
    }
}

/// Everything that decides the bytes of a sound encoder, but for the samples.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AudioEncoderSettings {
    /// Which codec.
    pub codec: AudioCodecKind,
    /// Samples a second.
    pub rate: u32,
    /// Channel layout in libav's words, e.g. `stereo`.
    pub layout: String,
    /// bit/s for AAC; libav's own choice when `None`.
    pub bit_rate: Option<u32>,
    /// Bits a sample of the source, for FLAC: above 16, or unknown, gives 24.
    pub source_depth: Option<u8>,
}

/// Encodes one sound programme.
pub struct AudioEncoder {
    encoder: Encoder,
    settings: AudioEncoderSettings,
    layout: Layout,
    format: SampleFormat,
    depth: u8,
    /// Samples that the encoder takes at a time.
    chunk: usize,
    /// Samples that wait for a whole chunk, by plane.
    waiting: Vec<Vec<u8>>,
    taken: i64,
    sent: i64,
    coded_end: i64,
}

impl AudioEncoder {
    /// Opens an encoder.
    ///
    /// # Errors
    /// [`AvError::Request`] when the codec does not know the rate or the layout.
    pub fn open(settings: &AudioEncoderSettings) -> Result<AudioEncoder> {
        let layout = Layout::parse(&settings.layout)?;
        let deep = settings.source_depth.is_none_or(|d| d > 16);
        let (format, depth) = match settings.codec {
            AudioCodecKind::Aac => (SampleFormat::F32P, 0),
            AudioCodecKind::Flac if deep => (SampleFormat::S32, 24),
            AudioCodecKind::Flac | AudioCodecKind::PcmS16le => (SampleFormat::S16, 16),
            AudioCodecKind::PcmS24le => (SampleFormat::S32, 24),
            AudioCodecKind::PcmS32le => (SampleFormat::S32, 32),
        };
        let name = settings.codec.name();
        let rate = c_int::try_from(settings.rate).unwrap_or(0);
        let mut encoder = Encoder::new(name)?;
        let c = encoder.context;
        // SAFETY: a context of ours that is not open yet; plain numbers, an
        // enum as an integer, and a layout that is copied.
        unsafe {
            set_enum!(c, sample_fmt, format.raw());
            (*c).sample_rate = rate;
            (*c).time_base = sys::AVRational { num: 1, den: rate.max(1) };
            (*c).bits_per_raw_sample = c_int::from(depth);
            if let Some(bit_rate) = settings.bit_rate {
                (*c).bit_rate = i64::from(bit_rate);
            }
            let code = sys::av_channel_layout_copy(&mut (*c).ch_layout, layout.as_ptr());
            if code < 0 {
                return Err(AvError::library("copying a channel layout", code));
            }
        }
        encoder.open(&mut Dictionary::new()).map_err(|_| AvError::Request {
            what: format!(
                "{name} can't encode {} at {} Hz{}",
                settings.layout,
                settings.rate,
                settings.bit_rate.map_or(String::new(), |b| format!(" with {b} bit/s")),
            ),
        })?;
        // SAFETY: an open encoder.
        let frame_size = unsafe { (*c).frame_size };
        let chunk = usize::try_from(frame_size).ok().filter(|n| *n > 0).unwrap_or(PCM_PACKET);
        let planes = if format.planar { usize::from(layout.channels()) } else { 1 };
        Ok(AudioEncoder {
            encoder,
            settings: settings.clone(),
            layout,
            format,
            depth,
            chunk,
            waiting: vec![Vec::new(); planes],
            taken: 0,
            sent: 0,
            coded_end: 0,
        })
    }

    /// How samples must be stored that are sent; the rate and the layout are those of the settings.
    pub fn input_format(&self) -> SampleFormat {
        self.format
    }

    /// Samples in a packet (the last may hold fewer).
    pub fn frame_size(&self) -> usize {
        self.chunk
    }

    /// Codec parameters for the muxer. `trailing_padding` is known after [`AudioEncoder::finish`].
    pub fn parameters(&self) -> CodecParameters {
        let c = self.encoder.context;
        // SAFETY: an open encoder.
        let (padding, profile, bit_rate) =
            unsafe { ((*c).initial_padding, (*c).profile, (*c).bit_rate) };
        CodecParameters {
            codec: self.settings.codec.name().to_owned(),
            extradata: self.encoder.extradata(),
            profile: (profile >= 0).then_some(profile),
            level: None,
            bit_rate: u64::try_from(bit_rate).ok().filter(|b| *b > 0),
            kind: CodecKind::Audio(AudioParameters {
                sample_rate: self.settings.rate,
                channels: self.layout.channels(),
                layout: Some(self.layout.describe()),
                sample_format: self.format.name().to_owned(),
                initial_padding: padding.max(0) as u32,
                trailing_padding: u32::try_from(self.coded_end - self.taken).unwrap_or(0),
                frame_size: if self.settings.codec == AudioCodecKind::Aac {
                    self.chunk as u32
                } else {
                    0
                },
                bits: self.depth,
            }),
        }
    }

    fn bytes_a_sample(&self) -> usize {
        let channels = if self.format.planar { 1 } else { usize::from(self.layout.channels()) };
        usize::from(self.format.bytes) * channels
    }

    /// Takes a run of samples of any length and gives the packets that are ready.
    /// Times are samples; the first packet's is minus the initial padding.
    ///
    /// # Errors
    /// [`AvError::Request`] when the samples are stored otherwise than [`AudioEncoder::input_format`] says.
    pub fn send(&mut self, samples: &AudioFrame) -> Result<Vec<EncodedPacket>> {
        if samples.format() != self.format
            || samples.rate() != self.settings.rate
            || samples.channels() != self.layout.channels()
        {
            return Err(AvError::Request {
                what: format!(
                    "the encoder takes {} {} at {} Hz, not {samples:?}",
                    self.format.name(),
                    self.settings.layout,
                    self.settings.rate
                ),
            });
        }
        for (i, plane) in self.waiting.iter_mut().enumerate() {
            plane.extend_from_slice(samples.data(i));
        }
        self.taken += samples.samples() as i64;
        let mut packets = Vec::new();
        let whole = self.waiting[0].len() / self.bytes_a_sample() / self.chunk;
        for _ in 0..whole {
            self.encode(self.chunk, &mut packets)?;
        }
        Ok(packets)
    }

    /// The last packets. Those that reach beyond the sound end where it ends.
    pub fn finish(&mut self) -> Result<Vec<EncodedPacket>> {
        let mut packets = Vec::new();
        let left = self.waiting[0].len() / self.bytes_a_sample();
        if left > 0 {
            self.encode(left, &mut packets)?;
        }
        self.encoder.send_frame(None)?;
        self.receive(&mut packets)?;
        for packet in &mut packets {
            let end = packet.pts + packet.duration;
            if end > self.taken {
                packet.duration = (self.taken - packet.pts).max(0);
            }
        }
        Ok(packets)
    }

    fn encode(&mut self, samples: usize, packets: &mut Vec<EncodedPacket>) -> Result<()> {
        let bytes = samples * self.bytes_a_sample();
        let mut chunk =
            AudioFrame::alloc_layout(self.format, self.settings.rate, &self.layout, samples)?;
        for (i, plane) in self.waiting.iter_mut().enumerate() {
            chunk.data_mut(i)?.copy_from_slice(&plane[..bytes]);
            plane.drain(..bytes);
        }
        chunk.set_pts(Some(self.sent));
        self.sent += samples as i64;
        self.encoder.send_frame(Some(chunk.as_ptr()))?;
        self.receive(packets)
    }

    fn receive(&mut self, packets: &mut Vec<EncodedPacket>) -> Result<()> {
        while let Some(packet) = self.encoder.receive_packet()? {
            // What the decoder gives for it, which is more than what is heard of the last.
            let coded = match self.settings.codec {
                AudioCodecKind::Aac => self.chunk as i64,
                _ => packet.duration,
            };
            self.coded_end = self.coded_end.max(packet.pts + coded);
            packets.push(packet);
        }
        Ok(())
    }
}

/// Everything that decides the bytes of an FFV1 encoder, but for the pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ffv1Settings {
    /// Chroma and depth.
    pub format: PixelFormat,
    /// Samples a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Sample aspect ratio.
    pub sample_aspect: Option<Rational>,
    /// Colour.
    pub color: ColorDescription,
    /// HDR metadata; goes into the container.
    pub hdr: HdrMetadata,
    /// Seconds per tick of the frames' pts.
    pub time_base: Rational,
    /// Nominal frame rate.
    pub frame_rate: Rational,
    /// Threads; no more than there are slices do any work.
    pub threads: u32,
    /// libav's own options by name (`slices`, `coder`, `context`, `slicecrc`), over ours.
    pub options: BTreeMap<String, String>,
}

/// Encodes pictures with FFV1 version 3: every frame a key frame, a checksum in every slice.
pub struct Ffv1Encoder {
    encoder: Encoder,
    settings: Ffv1Settings,
}

impl Ffv1Encoder {
    /// Opens an encoder.
    ///
    /// # Errors
    /// [`AvError::Request`] for an option that FFV1 does not know or a value that it refuses.
    pub fn open(settings: &Ffv1Settings) -> Result<Ffv1Encoder> {
        let mut encoder = Encoder::new("ffv1")?;
        let format = pixel::raw(settings.format).ok_or_else(|| AvError::Request {
            what: format!("FFV1 has no {:?}", settings.format),
        })?;
        let c = encoder.context;
        // SAFETY: a context of ours that is not open yet; plain numbers, and
        // enums as integers.
        unsafe {
            (*c).width = c_int::try_from(settings.width).unwrap_or(0);
            (*c).height = c_int::try_from(settings.height).unwrap_or(0);
            set_enum!(c, pix_fmt, format);
            (*c).time_base = ffi::raw_rational(settings.time_base)?;
            (*c).framerate = ffi::raw_rational(settings.frame_rate)?;
            if let Some(aspect) = settings.sample_aspect {
                (*c).sample_aspect_ratio = ffi::raw_rational(aspect)?;
            }
            set_enum!(c, color_primaries, frame::raw_code(settings.color.primaries));
            set_enum!(c, color_trc, frame::raw_code(settings.color.transfer));
            set_enum!(c, colorspace, frame::raw_code(settings.color.matrix));
            set_enum!(c, color_range, frame::raw_range(settings.color.full_range));
            set_enum!(
                c,
                chroma_sample_location,
                frame::raw_location(settings.color.chroma_location)
            );
            (*c).thread_count = c_int::try_from(settings.threads.max(1)).unwrap_or(1);
            (*c).gop_size = 1;
        }
        let mut options = Dictionary::new();
        options.set("level", "3")?;
        options.set("slicecrc", "1")?;
        for (name, value) in &settings.options {
            options.set(name, value)?;
        }
        let opened = encoder.open(&mut options);
        if let Some(name) = options.first_key() {
            return Err(AvError::Request { what: format!("FFV1 has no parameter {name:?}") });
        }
        opened.map_err(|_| AvError::Request {
            what: format!(
                "FFV1 refuses {:?} at {}x{} with {:?}",
                settings.format, settings.width, settings.height, settings.options
            ),
        })?;
        Ok(Ffv1Encoder { encoder, settings: settings.clone() })
    }

    /// Codec parameters for the muxer.
    pub fn parameters(&self) -> CodecParameters {
        let s = &self.settings;
        CodecParameters {
            codec: "ffv1".to_owned(),
            extradata: self.encoder.extradata(),
            profile: None,
            level: None,
            bit_rate: None,
            kind: CodecKind::Video(VideoParameters {
                width: s.width,
                height: s.height,
                pixel_format: pixel::pixel_format_name(s.format).to_owned(),
                sample_aspect: s.sample_aspect,
                color: s.color,
                hdr: s.hdr,
                frame_rate: Some(s.frame_rate),
                reorder: 0,
            }),
        }
    }

    /// Encodes a picture of the settings' format and size; its pts and duration go to the packet.
    pub fn send(&mut self, picture: &VideoFrame) -> Result<Vec<EncodedPacket>> {
        let s = &self.settings;
        if picture.format() != Some(s.format)
            || (picture.width(), picture.height()) != (s.width, s.height)
        {
            return Err(AvError::Request {
                what: format!(
                    "the encoder takes {} {}x{}, not {picture:?}",
                    pixel::pixel_format_name(s.format),
                    s.width,
                    s.height
                ),
            });
        }
        self.encoder.send_frame(Some(picture.as_ptr()))?;
        self.packets()
    }

    /// The last packets.
    pub fn finish(&mut self) -> Result<Vec<EncodedPacket>> {
        self.encoder.send_frame(None)?;
        self.packets()
    }

    fn packets(&mut self) -> Result<Vec<EncodedPacket>> {
        let mut packets = Vec::new();
        while let Some(packet) = self.encoder.receive_packet()? {
            packets.push(packet);
        }
        Ok(packets)
    }
}

/// A JPEG file of a picture: 8-bit 4:2:0, full range, BT.601, as JFIF wants it.
/// `quality` is libav's quantiser from 2 (best) to 31.
///
/// # Errors
/// [`AvError::Request`] for a quality out of range.
pub fn encode_jpeg(picture: &VideoFrame, quality: u32) -> Result<Vec<u8>> {
    if !(2..=31).contains(&quality) {
        return Err(AvError::Request {
            what: format!("the JPEG quality is {quality}, allowed are 2 to 31"),
        });
    }
    let picture = scale::for_jpeg(picture)?;
    let mut encoder = Encoder::new("mjpeg")?;
    let c = encoder.context;
    let lambda = quality as c_int * sys::FF_QP2LAMBDA as c_int;
    // SAFETY: a context of ours that is not open yet; plain numbers.
    unsafe {
        (*c).flags |= sys::AV_CODEC_FLAG_QSCALE as c_int;
        (*c).global_quality = lambda;
        (*(picture.as_ptr())).quality = lambda;
    }
    encode_still(&mut encoder, &picture)
}

/// A PNG file of a picture: 8-bit RGB.
pub fn encode_png(picture: &VideoFrame) -> Result<Vec<u8>> {
    let picture = scale::to_rgb(picture)?;
    encode_still(&mut Encoder::new("png")?, &picture)
}

fn encode_still(encoder: &mut Encoder, picture: &VideoFrame) -> Result<Vec<u8>> {
    let (c, f) = (encoder.context, picture.as_ptr());
    // SAFETY: a context of ours that is not open yet and a valid frame; enums
    // go over as integers.
    unsafe {
        (*c).width = (*f).width;
        (*c).height = (*f).height;
        set_enum!(c, pix_fmt, (*f).format);
        set_enum!(c, color_range, ffi::get_enum!(f, color_range));
        (*c).time_base = sys::AVRational { num: 1, den: 25 };
    }
    encoder.open(&mut Dictionary::new())?;
    encoder.send_frame(Some(f))?;
    encoder.send_frame(None)?;
    let mut file = Vec::new();
    while let Some(packet) = encoder.receive_packet()? {
        file.extend_from_slice(&packet.data);
    }
    if file.is_empty() {
        return Err(AvError::Unsupported { what: "a still of this picture".to_owned() });
    }
    Ok(file)
}

/// An encoder of libav, of any kind.
struct Encoder {
    codec: *const sys::AVCodec,
    context: *mut sys::AVCodecContext,
    name: &'static str,
}

// SAFETY: the context belongs to this value alone; with more than one thread
// libav's own threads synchronise with whatever thread calls it.
unsafe impl Send for Encoder {}

impl Encoder {
    fn new(name: &'static str) -> Result<Encoder> {
        log::install();
        let c_name = ffi::c_string(name);
        // SAFETY: a terminated name; null is checked.
        let codec = unsafe { sys::avcodec_find_encoder_by_name(c_name.as_ptr()) };
        if codec.is_null() {
            return Err(AvError::Unsupported { what: format!("encoding {name} with this libav") });
        }
        // SAFETY: a codec that exists; null is checked; plain numbers are set.
        unsafe {
            let context = sys::avcodec_alloc_context3(codec);
            if context.is_null() {
                return Err(AvError::OutOfMemory { operation: "opening an encoder" });
            }
            // Parameter sets go to the container; no version goes into the stream.
            (*context).flags |= (sys::AV_CODEC_FLAG_GLOBAL_HEADER
                | sys::AV_CODEC_FLAG_BITEXACT
                | sys::AV_CODEC_FLAG_FRAME_DURATION) as c_int;
            (*context).thread_count = 1;
            Ok(Encoder { codec, context, name })
        }
    }

    fn open(&mut self, options: &mut Dictionary) -> Result<()> {
        // SAFETY: a context of ours that is not open yet.
        let code = unsafe { sys::avcodec_open2(self.context, self.codec, options.as_mut_ptr()) };
        if code < 0 {
            return Err(AvError::library(format!("opening the encoder {}", self.name), code));
        }
        Ok(())
    }

    fn extradata(&self) -> Vec<u8> {
        // SAFETY: a context of ours; the pointer is null or has so many bytes.
        unsafe {
            let (data, size) = ((*self.context).extradata, (*self.context).extradata_size);
            match usize::try_from(size) {
                Ok(size @ 1..) if !data.is_null() => {
                    std::slice::from_raw_parts(data, size).to_vec()
                }
                _ => Vec::new(),
            }
        }
    }

    fn send_frame(&mut self, frame: Option<*mut sys::AVFrame>) -> Result<()> {
        // SAFETY: an open encoder and a valid frame of its format, or null for the end.
        let code = unsafe {
            sys::avcodec_send_frame(self.context, frame.map_or(ptr::null(), |f| f.cast_const()))
        };
        if code < 0 {
            return Err(AvError::library(format!("encoding with {}", self.name), code));
        }
        Ok(())
    }

    /// `None` when a frame is wanted first, or at the end.
    fn receive_packet(&mut self) -> Result<Option<EncodedPacket>> {
        let packet = Packet::new()?;
        // SAFETY: an open encoder and an empty packet of ours.
        let code = unsafe { sys::avcodec_receive_packet(self.context, packet.as_ptr()) };
        if code == sys::AVERROR(libc::EAGAIN) || code == sys::AVERROR_EOF {
            return Ok(None);
        }
        if code < 0 {
            return Err(AvError::library(format!("encoding with {}", self.name), code));
        }
        Ok(Some(packet.to_encoded()))
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: ours; libav sets the pointer to null.
        unsafe { sys::avcodec_free_context(&mut self.context) }
    }
}
