//! Poster, thumbnail sprite and its WebVTT map, for the preview.

use std::fmt::Write as _;

use trix_av::{FrameReader, Input, Scaler, Target, VideoFrame, encode_jpeg};
use trix_model::{Failure, PixelFormat};
use trix_plan::task::{Output, Stills, TaskResult};

use crate::intake::write;
use crate::io::{Control, TaskIo, read_index, stream_index};
use crate::run::find;

/// JPEG's quantiser scale of libav: 2 is best, 31 worst; 4 shows no blocks at these sizes.
const JPEG_QUALITY: u32 = 4;
/// Name under which the sprite is published; the map refers to it.
const SPRITE_NAME: &str = "sprite.jpg";

pub fn run(
    task: &Stills,
    wanted: &[Output],
    io: &dyn TaskIo,
    control: &Control<'_>,
) -> Result<TaskResult, Failure> {
    let index = read_index(io, &task.index)?;
    let stream = stream_index(&index, task.stream)?;
    let total = task.frames.len() as u64 + 1;

    let at = |frame: u32| -> Result<VideoFrame, Failure> {
        let input = Input::open(io.source(&task.source)?)?;
        let mut reader = FrameReader::open(input, stream, frame, 1)?;
        reader.next()?.map(|(_, frame)| frame).ok_or_else(|| {
            Failure::source("frames_missing", format!("the source has no frame {frame}"))
        })
    };

    let mut outputs = Vec::new();
    if let Some(output) = find(wanted, "poster") {
        let picture = still(&at(task.poster_frame)?, task.poster_size, task.rotation)?;
        outputs.push(write(output, &encode_jpeg(&picture, JPEG_QUALITY)?, io)?);
        control.at("stills", 1, total, 0)?;
    }
    if let Some(output) = find(wanted, "sprite") {
        let (w, h) = task.thumb_size;
        let columns = task.columns.max(1);
        let rows = (task.frames.len() as u32).div_ceil(columns).max(1);
        let mut sprite = VideoFrame::alloc(PixelFormat::YUV420P8, w * columns, h * rows)?;
        black(&mut sprite)?;
        for (n, &frame) in task.frames.iter().enumerate() {
            let thumb = still(&at(frame)?, task.thumb_size, task.rotation)?;
            let n = n as u32;
            paste(&thumb, &mut sprite, n % columns * w, n / columns * h)?;
            control.at("stills", u64::from(n) + 2, total, 0)?;
        }
        outputs.push(write(output, &encode_jpeg(&sprite, JPEG_QUALITY)?, io)?);
    }
    if let Some(output) = find(wanted, "map") {
        outputs.push(write(output, map(task).as_bytes(), io)?);
    }
    Ok(TaskResult { outputs, detail: None })
}

fn still(frame: &VideoFrame, size: (u32, u32), rotation: u16) -> Result<VideoFrame, Failure> {
    let target = Target { format: PixelFormat::YUV420P8, width: size.0, height: size.1, rotation };
    Ok(Scaler::new(target)?.scale(frame)?)
}

fn black(sprite: &mut VideoFrame) -> Result<(), Failure> {
    for i in 0..sprite.planes() {
        let value = if i == 0 { 16 } else { 128 };
        let mut plane = sprite.plane_mut(i)?;
        for y in 0..plane.height {
            plane.row_mut(y).fill(value);
        }
    }
    Ok(())
}

/// Copies a thumbnail to its place; places are even, so chroma fits.
fn paste(thumb: &VideoFrame, sprite: &mut VideoFrame, x: u32, y: u32) -> Result<(), Failure> {
    for i in 0..thumb.planes() {
        let shift = u32::from(i > 0);
        let from = thumb.plane(i);
        let mut to = sprite.plane_mut(i)?;
        let x = (x >> shift) as usize;
        for row in 0..from.height {
            let line = from.row(row);
            to.row_mut((y >> shift) + row)[x..x + line.len()].copy_from_slice(line);
        }
    }
    Ok(())
}

/// The sprite's map: one cue a thumbnail, with its rectangle as a media fragment.
fn map(task: &Stills) -> String {
    let clock = |ms: u64| {
        format!(
            "{:02}:{:02}:{:02}.{:03}",
            ms / 3_600_000,
            ms / 60_000 % 60,
            ms / 1000 % 60,
            ms % 1000
        )
    };
    let (w, h) = task.thumb_size;
    let mut text = String::from("WEBVTT\n");
    for (n, span) in task.spans_ms.windows(2).enumerate() {
        let n = n as u32;
        let (x, y) = (n % task.columns * w, n / task.columns * h);
        let _ = write!(
            text,
            "\n{} --> {}\n{SPRITE_NAME}#xywh={x},{y},{w},{h}\n",
            clock(span[0]),
            clock(span[1])
        );
    }
    text
}
