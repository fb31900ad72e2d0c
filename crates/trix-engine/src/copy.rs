//! The source's own packets, moved to the output timeline and else untouched.

use trix_av::{EncodedPacket, Input, copy_parameters};
use trix_model::index::PACKET_DISCARD;
use trix_model::time::{Rounding, rescale};
use trix_model::{Failure, Rational};
use trix_plan::task::{CopyVideo, EncodeAudio, Output, TaskResult};

use crate::io::{Control, TaskIo, read_index};
use crate::packetfile::{PacketHeader, PacketWriter};
use crate::run::{made, only};

/// All packets of the main video.
pub fn video(
    task: &CopyVideo,
    wanted: &[Output],
    io: &dyn TaskIo,
    control: &Control<'_>,
) -> Result<TaskResult, Failure> {
    let output = only(wanted, "video")?;
    let source = io.source(&task.source)?;
    let index = read_index(io, &task.index)?;
    let total = index.stream(task.stream).map_or(0, |s| s.packets.len()) as u64;
    let written = packets(source, task.stream, io, output, control, total, |p, _base| {
        Some(EncodedPacket {
            pts: p.pts()? - task.zero_pts,
            dts: p.dts().or(p.pts())? - task.zero_pts,
            ..p.to_encoded()
        })
    })?;
    Ok(TaskResult { outputs: vec![made(output, written)], detail: None })
}

/// All packets of a sound programme that reach beyond the timeline's zero.
pub fn audio(
    task: &EncodeAudio,
    wanted: &[Output],
    io: &dyn TaskIo,
    control: &Control<'_>,
) -> Result<TaskResult, Failure> {
    let output = only(wanted, "audio")?;
    let source = io.source(&task.source)?;
    let index = read_index(io, &task.index)?;
    let total = index.stream(task.stream).map_or(0, |s| s.packets.len()) as u64;
    let written = packets(source, task.stream, io, output, control, total, |p, base| {
        let zero = rescale(task.zero_pts, task.time_base, base, Rounding::Nearest);
        let pts = p.pts()? - zero;
        if p.flags() & PACKET_DISCARD != 0 || pts + p.duration() <= 0 {
            return None;
        }
        Some(EncodedPacket { pts, dts: pts, ..p.to_encoded() })
    })?;
    Ok(TaskResult { outputs: vec![made(output, written)], detail: None })
}

fn packets(
    source: std::fs::File,
    stream: u32,
    io: &dyn TaskIo,
    output: &Output,
    control: &Control<'_>,
    total: u64,
    mut convert: impl FnMut(&trix_av::Packet, Rational) -> Option<EncodedPacket>,
) -> Result<crate::packetfile::Written, Failure> {
    let mut input = Input::open(source)?;
    let base = input.time_base(stream)?;
    let header =
        PacketHeader { version: 1, parameters: copy_parameters(&input, stream)?, time_base: base };
    let mut writer = PacketWriter::create(io.create(output)?, &header)?;
    let mut done = 0;
    while let Some(packet) = input.read_packet()? {
        if packet.stream() != stream {
            continue;
        }
        if let Some(packet) = convert(&packet, base) {
            writer.write(&packet)?;
        }
        done += 1;
        control.at("copy", done, total, 0)?;
    }
    Ok(writer.finish()?)
}
