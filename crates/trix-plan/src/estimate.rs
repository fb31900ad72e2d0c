//! What tasks take: a crude model, and the sums over a plan.
//!
//! Speeds are megapixels a second and core of a usual server (about 3 GHz,
//! AVX2), rounded from runs on 1080p film; they are right within a factor of
//! two. They order tasks (longest first), fill nodes and tell people roughly
//! what to expect; nothing else depends on them, no key holds them, and
//! measured times replace them once there are some.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trix_model::media::{Stream, StreamKind, Video};
use trix_model::time::{Rounding, rescale};

use crate::encoder::{AudioCodec, RateControl, VideoSettings, VideoVariant};
use crate::planner::Film;
use crate::task::{
    Cost, EncodeAudio, EncodeChunk, Plan, Publish, Stills, Task, TaskSpec, VideoRendition,
};

const MIB: u64 = 1 << 20;
/// A process with its libraries, demuxer and buffers.
const BASE_RAM: u64 = 48 * MIB;
/// Bytes a millisecond that one read of a share gives with all hashes taken.
const READ: u64 = 300_000;
/// Bytes a millisecond that a copy gives, with fsync and read-back.
const COPY: u64 = 150_000;

/// Sums over a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Milliseconds of one core, over all tasks.
    pub core_ms: u64,
    /// The longest chain of tasks that need each other: no number of nodes is faster.
    pub critical_ms: u64,
    /// Bytes that are written.
    pub bytes: u64,
    /// Memory of the largest task.
    pub largest_ram: u64,
    /// Milliseconds of one core by kind of task.
    pub by_kind: BTreeMap<String, u64>,
}

/// Sums over all tasks of a plan.
pub fn estimate(plan: &Plan) -> Estimate {
    let mut sum = Estimate::default();
    // Tasks need only tasks before them, so one pass finds when each can end.
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    for task in &plan.tasks {
        let Cost { mcpu, ram, scratch, estimate_ms } = task.cost;
        // More threads end sooner.
        let wall = estimate_ms * 1000 / u64::from(mcpu.max(1000));
        let start = task.needs.iter().filter_map(|n| ends.get(n.as_str())).max().copied();
        let end = start.unwrap_or(0) + wall;
        ends.insert(&task.name, end);
        sum.core_ms += estimate_ms;
        sum.critical_ms = sum.critical_ms.max(end);
        sum.bytes = sum.bytes.saturating_add(scratch);
        sum.largest_ram = sum.largest_ram.max(ram);
        *sum.by_kind.entry(task.spec.kind().to_owned()).or_default() += estimate_ms;
    }
    sum
}

pub(crate) fn intake(size: u64, tee: bool) -> Cost {
    let scratch = if tee { size } else { 0 };
    let estimate_ms = 200 + size / if tee { COPY } else { READ };
    Cost { mcpu: 1000, ram: BASE_RAM + 128 * MIB, scratch, estimate_ms }
}

pub(crate) fn demux(size: u64) -> Cost {
    let estimate_ms = 100 + size / READ;
    Cost { mcpu: 1000, ram: BASE_RAM + 64 * MIB, scratch: size, estimate_ms }
}

pub(crate) fn copy(size: u64) -> Cost {
    Cost { mcpu: 500, ram: 32 * MIB, scratch: size, estimate_ms: 100 + size / COPY }
}

pub(crate) fn chunk(task: &EncodeChunk, video: &Video) -> Cost {
    let pixels = u64::from(video.width) * u64::from(video.height);
    let preroll = task.range.first - task.decode_from;
    let frames = u64::from(task.range.count);
    let run_over = task.renditions.iter().map(|r| r.run_over).max().unwrap_or(0);
    let decoded = frames + u64::from(preroll) + u64::from(run_over);
    let mut cost = Cost {
        mcpu: 1000,
        ram: BASE_RAM + decoder_ram(video),
        scratch: 0,
        estimate_ms: 20 + decoded * pixels / (decode_speed(video) * 1000),
    };
    for r in &task.renditions {
        let pixels = u64::from(r.picture.width) * u64::from(r.picture.height);
        let fed = frames + u64::from(r.run_over);
        cost.estimate_ms += fed * pixels * 10 / (encode_speed(&r.settings) * 1000);
        cost.ram += encoder_ram(r);
        cost.mcpu = cost.mcpu.max(r.settings.threads.saturating_mul(1000));
        let rate = task.frame_rate;
        let ms = rate.inverse().map_or(0, |spf| spf.times(frames as i64 * 1000)).max(0) as u64;
        cost.scratch = cost.scratch.saturating_add(kbps(r).saturating_mul(ms) / 8);
    }
    cost
}

pub(crate) fn audio(task: &EncodeAudio, stream: &Stream, seconds: u64, size: u64) -> Cost {
    let (rate, channels) = match &stream.kind {
        // Bounded, so that the products below fit.
        StreamKind::Audio(a) => {
            (u64::from(a.sample_rate.min(1 << 20)), u64::from(a.channels.clamp(1, 64)))
        }
        _ => (48_000, 2),
    };
    // Bytes a second of the result, and samples a millisecond that are coded.
    let (bytes, speed) = match task.settings.codec {
        AudioCodec::Aac => (u64::from(task.settings.bit_rate.unwrap_or(160_000)) / 8, 2_000),
        AudioCodec::Flac => (rate * channels * 2, 8_000),
        AudioCodec::Pcm => (rate * channels * 3, 20_000),
        AudioCodec::Copy => (stream.bit_rate.unwrap_or(384_000) / 8, 1_000_000),
    };
    // The whole file is read to find the track's packets.
    let estimate_ms = 50 + seconds * rate * channels / speed + size / (3 * READ);
    Cost {
        mcpu: 1000,
        ram: BASE_RAM + 32 * MIB,
        scratch: bytes.saturating_mul(seconds),
        estimate_ms,
    }
}

pub(crate) fn mux(rendition: Option<&VideoRendition>, seconds: u64, source: u64) -> Cost {
    let scratch = file_size(rendition, seconds, source);
    Cost { mcpu: 1000, ram: BASE_RAM + 64 * MIB, scratch, estimate_ms: 50 + scratch / COPY }
}

pub(crate) fn verify(
    rendition: Option<&VideoRendition>,
    film: Option<&Film<'_>>,
    seconds: u64,
) -> Cost {
    let (pixels, frames) = match (rendition, film) {
        (Some(r), Some(film)) => {
            let pixels = u64::from(r.picture.width) * u64::from(r.picture.height);
            (pixels, film.rate.rate.times(seconds as i64).max(0) as u64)
        }
        (None, Some(film)) => {
            let pixels = u64::from(film.video.width) * u64::from(film.video.height);
            (pixels, film.rate.rate.times(seconds as i64).max(0) as u64)
        }
        _ => (0, 0),
    };
    let ram = BASE_RAM + 64 * MIB + pixels * 3 * 20;
    let estimate_ms = 50 + pixels * frames / (H264_DECODE * 1000) + seconds * 2;
    Cost { mcpu: 1000, ram, scratch: 4096, estimate_ms }
}

pub(crate) fn stills(task: &Stills, video: &Video) -> Cost {
    let pixels = u64::from(video.width) * u64::from(video.height);
    let pictures = task.frames.len() as u64 + 1;
    let (w, h) = task.thumb_size;
    let scratch = pictures * u64::from(w) * u64::from(h) / 4 + 512 * 1024;
    // Few frames are decoded for each picture, because it snaps to an access point.
    let estimate_ms = 50 + pictures * 4 * pixels / (decode_speed(video) * 1000);
    let ram = BASE_RAM + decoder_ram(video) + pictures * u64::from(w) * u64::from(h) * 3;
    Cost { mcpu: 1000, ram, scratch, estimate_ms }
}

/// A publication moves what earlier tasks made.
pub(crate) fn publish(tasks: &[Task], spec: &Publish, source: u64) -> Cost {
    let keys: Vec<_> = TaskSpec::Publish(spec.clone()).input_keys();
    let made = |task: &&Task| task.outputs.iter().any(|o| keys.contains(&o.key));
    let sizes = tasks.iter().filter(made).map(|t| t.cost.scratch);
    let artifacts = sizes.fold(0, u64::saturating_add);
    // A staged file is read back, but not copied again.
    let staged = spec.files.len() > keys.len();
    let estimate_ms = 200 + artifacts / COPY + if staged { source / READ } else { 0 };
    Cost { mcpu: 250, ram: 32 * MIB, scratch: artifacts, estimate_ms }
}

fn file_size(rendition: Option<&VideoRendition>, seconds: u64, source: u64) -> u64 {
    rendition.map_or(source, |r| (kbps(r) + 400) * seconds * 125)
}

/// Megapixels a second of a decoder on one core.
const H264_DECODE: u64 = 150;

fn decode_speed(video: &Video) -> u64 {
    // Deep and dense formats are intra-only mezzanines with high bit rates.
    if video.depth > 8 { 70 } else { H264_DECODE }
}

fn decoder_ram(video: &Video) -> u64 {
    // Up to 16 reference pictures, frames in flight, and one picture being converted.
    let bytes = if video.depth > 8 { 2 } else { 1 };
    u64::from(video.width) * u64::from(video.height) * 2 * bytes * 24
}

fn encoder_ram(r: &VideoRendition) -> u64 {
    let pixels = u64::from(r.picture.width) * u64::from(r.picture.height);
    let bytes = r.picture.format.bytes() as u64;
    // Pictures that the encoder holds, each with its planes, half-pel planes and motion data.
    let held = match r.settings.variant {
        VideoVariant::Ffv1 => 4,
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => 60,
        _ => u64::from(r.run_over) + 16,
    };
    let each = match r.settings.variant {
        VideoVariant::X264_8 | VideoVariant::X264_10 => 4,
        VideoVariant::Ffv1 => 3,
        _ => 7,
    };
    16 * MIB + pixels * bytes * each * held
}

/// Megapixels a second of an encoder on one core, times ten.
fn encode_speed(settings: &VideoSettings) -> u64 {
    match settings.variant {
        VideoVariant::Ffv1 => 400,
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => match settings.preset.as_str() {
            "10" => 100,
            "9" => 60,
            "8" => 40,
            "7" => 30,
            "6" => 22,
            "5" => 15,
            "4" => 10,
            "3" => 6,
            "2" => 3,
            _ => 1,
        },
        VideoVariant::X264_8 | VideoVariant::X264_10 => match settings.preset.as_str() {
            "ultrafast" => 1800,
            "superfast" => 1200,
            "veryfast" => 750,
            "faster" => 500,
            "fast" => 400,
            "slow" => 180,
            "slower" => 90,
            "veryslow" => 50,
            "placebo" => 20,
            _ => 300,
        },
        VideoVariant::X265_8 | VideoVariant::X265_10 | VideoVariant::X265_12 => {
            match settings.preset.as_str() {
                "ultrafast" => 350,
                "superfast" => 280,
                "veryfast" => 160,
                "faster" => 150,
                "fast" => 110,
                "slow" => 35,
                "slower" => 12,
                "veryslow" => 7,
                "placebo" => 3,
                _ => 80,
            }
        }
    }
}

/// Kilobits a second of a rendition of usual film.
fn kbps(r: &VideoRendition) -> u64 {
    let pixels = u64::from(r.picture.width) * u64::from(r.picture.height);
    // About 4 Mbit/s at 1080p with H.264, 2.4 with its successors.
    let usual = match r.settings.variant {
        VideoVariant::X264_8 | VideoVariant::X264_10 => pixels / 500,
        VideoVariant::Ffv1 => pixels / 20,
        _ => pixels / 850,
    };
    match &r.settings.rate {
        RateControl::Bitrate { kbps, .. } => u64::from(*kbps),
        RateControl::Crf { vbv: Some(vbv), .. } => usual.min(u64::from(vbv.max_kbps)),
        RateControl::Crf { .. } | RateControl::Qp { .. } => usual,
        RateControl::Lossless => pixels / 20,
    }
    .max(50)
}

/// Whole seconds, rounded, for people.
pub(crate) fn seconds(film: &Film<'_>) -> i64 {
    rescale(film.duration, film.time_base, trix_model::Rational::ONE, Rounding::Nearest)
}
