//! The media description of a file, with what only a decoded frame tells.

use std::fs::File;

use trix_model::MediaDescription;
use trix_model::media::{FieldOrder, StreamKind, Video};

use crate::decode::{Received, VideoDecoder};
use crate::error::{AvError, Result};
use crate::frame::{VideoFrame, complete_color};
use crate::input::Input;
use crate::io::Source;

/// Packets of a video stream that may go by before its first frame comes out.
const MAX_PACKETS: u32 = 200;

/// Describes a file; see [`describe`].
///
/// # Errors
/// Those of [`Input::open`].
pub fn probe(file: File) -> Result<MediaDescription> {
    describe(&mut Input::open(file)?)
}

/// Describes an input: container, streams, and per video stream its first
/// frame, because many containers leave HDR metadata, field order or even the
/// pixel format to the bitstream. The input starts again afterwards.
///
/// A stream without decoder or without frames is described by its container alone.
pub fn describe<S: Source>(input: &mut Input<S>) -> Result<MediaDescription> {
    let mut description = input.description();
    let videos: Vec<u32> = description.videos().map(|(s, _)| s.index).collect();
    for stream in videos {
        input.restart()?;
        let Some(frame) = first_frame(input, stream)? else { continue };
        let entry = description.streams.iter_mut().find(|s| s.index == stream);
        if let Some(StreamKind::Video(video)) = entry.map(|s| &mut s.kind) {
            complete(video, &frame);
        }
    }
    input.keep_all();
    input.restart()?;
    Ok(description)
}

/// The first frame that can be decoded, if one comes soon.
fn first_frame<S: Source>(input: &mut Input<S>, stream: u32) -> Result<Option<VideoFrame>> {
    let mut decoder = match VideoDecoder::open(input, stream, 1) {
        Ok(decoder) => decoder,
        Err(AvError::NoDecoder { .. } | AvError::Library { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    input.keep_only(&[stream]);
    let mut packets = 0;
    loop {
        match decoder.receive() {
            Ok(Received::Item(frame)) => return Ok(Some(frame)),
            Ok(Received::End) => return Ok(None),
            Ok(Received::NeedInput) => {}
            Err(AvError::Decode { .. } | AvError::Unsupported { .. }) => continue,
            Err(error) => return Err(error),
        }
        let packet = match input.read_packet() {
            Ok(packet) => packet.filter(|_| packets < MAX_PACKETS),
            Err(AvError::Demux { .. }) => None,
            Err(error) => return Err(error),
        };
        if packet.as_ref().is_some_and(|p| p.stream() != stream) {
            continue;
        }
        packets += 1;
        match decoder.send(packet.as_ref()) {
            Ok(()) | Err(AvError::Decode { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The frame's own colour, and else what the container left open.
fn complete(video: &mut Video, frame: &VideoFrame) {
    video.color = complete_color(frame.color(), video.color);
    let hdr = frame.hdr();
    video.hdr.mastering_display = video.hdr.mastering_display.or(hdr.mastering_display);
    video.hdr.content_light = video.hdr.content_light.or(hdr.content_light);
    video.sample_aspect = video.sample_aspect.or(frame.sample_aspect());
    if video.rotation == 0 {
        video.rotation = frame.rotation().unwrap_or(0);
    }
    if video.pixel_format == "unknown" {
        video.pixel_format = frame.format_name();
        video.depth = crate::pixel::info(frame.raw_format()).map_or(0, |i| i.depth);
    }
    if video.width == 0 || video.height == 0 {
        (video.width, video.height) = (frame.width(), frame.height());
    }
    if video.fields == FieldOrder::Unknown {
        video.fields = match (frame.is_interlaced(), frame.top_field_first()) {
            (false, _) => FieldOrder::Progressive,
            (true, true) => FieldOrder::TopFirst,
            (true, false) => FieldOrder::BottomFirst,
        };
    }
}
