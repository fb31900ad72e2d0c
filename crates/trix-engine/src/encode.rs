//! One decode of a chunk feeds all its missing renditions.

use std::sync::Mutex;

use trix_av::{EncodedPacket, FrameReader, Input, Scaler, Target, VideoFrame};
use trix_encode::{CpuLevel, Headers, Received, VideoConfig, VideoEncoder};
use trix_model::index::StreamIndex;
use trix_model::{Failure, Rational};
use trix_plan::task::{EncodeChunk, Output, TaskResult, VideoRendition};

use crate::io::{Control, TaskIo};
use crate::packetfile::{PacketHeader, PacketWriter};
use crate::run::{find, made};

/// Where frames of a chunk lie on the output timeline, in the ticks that encoders see.
struct Timeline {
    time_base: Rational,
    /// Presentation time and duration of each frame of the chunk and its run-over.
    times: Vec<(i64, i64)>,
}

/// One rendition on its way: scaler → encoder → packet file.
struct Lane<'a> {
    rendition: &'a VideoRendition,
    output: &'a Output,
    scaler: Scaler,
    encoder: Box<dyn VideoEncoder>,
    writer: PacketWriter,
    /// Packets of the chunk written so far; run-over packets are not.
    written: u32,
}

pub fn run(
    task: &EncodeChunk,
    wanted: &[Output],
    io: &dyn TaskIo,
    control: &Control<'_>,
) -> Result<TaskResult, Failure> {
    let renditions: Vec<(&VideoRendition, &Output)> =
        task.renditions.iter().filter_map(|r| Some((r, find(wanted, &r.name)?))).collect();
    let index = crate::io::read_index(io, &task.index)?;
    let stream = crate::io::stream_index(&index, task.stream)?;
    let run_over = renditions.iter().map(|(r, _)| r.run_over).max().unwrap_or(0);
    let timeline = timeline(task, stream, run_over)?;
    let count = task.range.count as usize;

    let input = Input::open(io.source(&task.source)?)?;
    let mut reader = FrameReader::open_from(input, stream, task.decode_from, task.range.first, 1)?;
    let mut lanes = Vec::with_capacity(renditions.len());
    for (rendition, output) in renditions {
        lanes.push(Lane::open(task, rendition, output, timeline.time_base, io)?);
    }

    let total = task.range.count as u64;
    for (n, &(pts, duration)) in timeline.times.iter().enumerate() {
        let Some((_, frame)) = reader.next()? else {
            return Err(missing(task, n));
        };
        let busy = lanes
            .iter_mut()
            .filter(|lane| n < count + lane.rendition.run_over as usize && !lane.is_whole(count));
        side_by_side(busy.collect(), io.threads(), &|lane| {
            lane.feed(&frame, pts, duration)?;
            lane.drain(&timeline, count)
        })?;
        let frames: u64 = lanes.iter().map(|l| u64::from(l.written)).sum();
        control.at("encode", (n as u64 + 1).min(total), total, frames)?;
    }
    let unfinished = lanes.iter_mut().filter(|lane| !lane.is_whole(count));
    side_by_side(unfinished.collect(), io.threads(), &|lane| {
        lane.encoder.flush()?;
        lane.drain(&timeline, count)
    })?;
    let mut outputs = Vec::with_capacity(lanes.len());
    for lane in lanes {
        outputs.push(lane.finish(count)?);
    }
    control.at("encode", total, total, total * outputs.len() as u64)?;
    Ok(TaskResult { outputs, detail: None })
}

/// Does `step` for each lane, on up to `threads` threads: cores that would idle at the end of a
/// run, when there are fewer chunks than slots. Each lane's bytes depend on its own calls alone,
/// so their number changes none. Starting a thread takes a hundredth of what a frame does.
fn side_by_side<'a, 'l>(
    lanes: Vec<&'l mut Lane<'a>>,
    threads: u32,
    step: &(dyn Fn(&mut Lane<'a>) -> Result<(), Failure> + Sync),
) -> Result<(), Failure> {
    let helpers = (threads as usize).min(lanes.len()).saturating_sub(1);
    if helpers == 0 {
        return lanes.into_iter().try_for_each(step);
    }
    let left = Mutex::new(lanes.into_iter());
    let work = || {
        // Nobody panics while he holds the lock: it is held for one `next`.
        let next = || left.lock().unwrap_or_else(|e| e.into_inner()).next();
        while let Some(lane) = next() {
            step(lane)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let helping: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
        let own = work();
        helping.into_iter().fold(own, |all, thread| {
            all.and(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    })
}

/// Times of the chunk's frames for the encoder. At a constant rate a frame's
/// time is its number; otherwise the source's ticks are kept.
fn timeline(task: &EncodeChunk, stream: &StreamIndex, run_over: u32) -> Result<Timeline, Failure> {
    let frames = crate::io::frame_table(stream)?;
    let first = task.range.first as usize;
    let end = frames.pts.len().min(first + (task.range.count + run_over) as usize);
    if end < first + task.range.count as usize {
        return Err(Failure::bug(format!(
            "chunk {} ends behind the last of {} frames",
            task.chunk,
            frames.pts.len()
        )));
    }
    if task.constant_rate {
        let time_base = task
            .frame_rate
            .inverse()
            .ok_or_else(|| Failure::bug("a plan has a frame rate of zero"))?;
        let times = (first..end).map(|n| (n as i64, 1)).collect();
        return Ok(Timeline { time_base, times });
    }
    let times = (first..end)
        .map(|n| {
            let next = frames.pts.get(n + 1).copied().unwrap_or(frames.end);
            (frames.pts[n] - task.zero_pts, next - frames.pts[n])
        })
        .collect();
    Ok(Timeline { time_base: task.time_base, times })
}

fn missing(task: &EncodeChunk, n: usize) -> Failure {
    Failure::source(
        "frames_missing",
        format!(
            "the source ends at frame {} although its index promises {} frames in chunk {}",
            task.range.first as usize + n,
            task.range.count,
            task.chunk
        ),
    )
}

impl<'a> Lane<'a> {
    fn open(
        task: &EncodeChunk,
        rendition: &'a VideoRendition,
        output: &'a Output,
        time_base: Rational,
        io: &dyn TaskIo,
    ) -> Result<Lane<'a>, Failure> {
        let encoder = VideoConfig {
            settings: rendition.settings.clone(),
            picture: rendition.picture,
            time_base,
            frame_rate: task.frame_rate,
            constant_rate: task.constant_rate,
            sample_aspect: rendition.sample_aspect,
            color: rendition.color,
            hdr: rendition.hdr,
            cpu: CpuLevel::best(),
            headers: Headers::Global,
            info_message: true,
        }
        .open()?;
        let header = PacketHeader { version: 1, parameters: encoder.parameters(), time_base };
        Ok(Lane {
            rendition,
            output,
            scaler: Scaler::new(Target {
                format: rendition.picture.format,
                width: rendition.picture.width,
                height: rendition.picture.height,
                rotation: task.rotation,
            })?,
            encoder,
            writer: PacketWriter::create(io.create(output)?, &header)?,
            written: 0,
        })
    }

    fn feed(&mut self, frame: &VideoFrame, pts: i64, duration: i64) -> Result<(), Failure> {
        let mut picture = self.scaler.scale(frame)?;
        picture.set_pts(Some(pts));
        picture.set_duration(duration);
        Ok(self.encoder.send(&picture)?)
    }

    /// Whether every frame of the chunk is written.
    ///
    /// The encoder is closed then with the run-over still inside: it was there to be looked at,
    /// and encoding it would cost a fifth of a chunk of eight seconds at x264's medium.
    fn is_whole(&self, count: usize) -> bool {
        self.written as usize == count
    }

    /// Writes what the encoder has; packets of run-over frames are dropped.
    fn drain(&mut self, timeline: &Timeline, count: usize) -> Result<(), Failure> {
        let end = timeline.times.get(count).map_or(i64::MAX, |t| t.0);
        while !self.is_whole(count)
            && let Received::Packet(packet) = self.encoder.receive()?
        {
            if packet.pts >= end {
                continue;
            }
            let at = timeline.times[..count].binary_search_by_key(&packet.pts, |t| t.0).map_err(
                |_| {
                    Failure::bug(format!(
                        "the encoder of {} gave a packet at {} where no frame was",
                        self.rendition.name, packet.pts
                    ))
                },
            )?;
            self.writer.write(&EncodedPacket {
                pts: packet.pts,
                dts: packet.dts,
                duration: timeline.times[at].1,
                key: packet.key,
                discard_padding: 0,
                data: packet.payload,
            })?;
            self.written += 1;
        }
        Ok(())
    }

    fn finish(self, count: usize) -> Result<trix_plan::task::MadeOutput, Failure> {
        if !self.is_whole(count) {
            return Err(Failure::bug(format!(
                "the encoder of {} gave {} packets for {count} frames",
                self.rendition.name, self.written
            )));
        }
        Ok(made(self.output, self.writer.finish()?))
    }
}
