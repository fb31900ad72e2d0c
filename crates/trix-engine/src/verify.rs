//! Full decode of a finished file against what the plan says must be in it.

use std::fs::File;

use trix_av::{AudioDecoder, Input, Received, VideoDecoder};
use trix_model::media::StreamKind;
use trix_model::time::{Rounding, rescale};
use trix_model::{Failure, MediaDescription, Rational};
use trix_plan::task::{ExpectVideo, Expectation, Output, TaskResult, Verify, VerifyReport};
use trix_storage::fixity;

use crate::intake::write;
use crate::io::{Control, TaskIo};
use crate::run::only;

pub fn run(
    task: &Verify,
    wanted: &[Output],
    io: &dyn TaskIo,
    control: &Control<'_>,
) -> Result<TaskResult, Failure> {
    let output = only(wanted, "report")?;
    let total = task.expect.video.as_ref().map_or(0, |v| u64::from(v.frames));
    let checked = check_file(io.artifact(&task.file)?, total, io.threads(), control)?;
    compare(&task.expect, &checked)?;
    let (sha256, size) = fixity::sha256_of(&mut io.artifact(&task.file)?, "the finished file")?;
    let samples = checked.audio.iter().map(|a| a.samples).collect();
    let report = VerifyReport {
        frames: checked.video.as_ref().map_or(0, |v| v.frames),
        samples,
        size,
        sha256,
    };
    let json = serde_json::to_vec(&report).map_err(|e| Failure::bug(e.to_string()))?;
    let detail = serde_json::to_value(&report).map_err(|e| Failure::bug(e.to_string()))?;
    Ok(TaskResult { outputs: vec![write(output, &json, io)?], detail: Some(detail) })
}

/// What a full decode of a file gave.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Checked {
    /// What the file says of itself.
    pub media: MediaDescription,
    /// The main picture, if there is one.
    pub video: Option<CheckedVideo>,
    /// Sound tracks in order.
    pub audio: Vec<CheckedAudio>,
}

/// What decoding the picture gave.
#[derive(Clone, Debug, serde::Serialize)]
pub struct CheckedVideo {
    /// Stream in the container.
    pub stream: u32,
    /// Frames that came out.
    pub frames: u32,
    /// Time of the first frame in ticks of `time_base`.
    pub first: i64,
    /// End of the last frame in ticks of `time_base`.
    pub end: i64,
    /// Seconds per tick.
    pub time_base: Rational,
}

/// What decoding a sound track gave.
#[derive(Clone, Debug, serde::Serialize)]
pub struct CheckedAudio {
    /// Stream in the container.
    pub stream: u32,
    /// Samples that came out.
    pub samples: u64,
}

/// Decodes everything in a file, the picture with that many threads; any damage is an error.
/// `frames` is for progress only.
pub fn check_file(
    file: File,
    frames: u64,
    threads: u32,
    control: &Control<'_>,
) -> Result<Checked, Failure> {
    let mut input = Input::open(file)?;
    let media = trix_av::describe(&mut input)?;
    let main = media.main_video().map(|(s, _)| s.index);
    let mut video = match main {
        Some(stream) => Some((
            VideoDecoder::open(&input, stream, threads)?,
            CheckedVideo {
                stream,
                frames: 0,
                first: 0,
                end: 0,
                time_base: input.time_base(stream)?,
            },
        )),
        None => None,
    };
    let mut audio = Vec::new();
    for (s, _) in media.audios() {
        let checked = CheckedAudio { stream: s.index, samples: 0 };
        audio.push((AudioDecoder::open(&input, s.index)?, checked));
    }

    loop {
        let packet = input.read_packet()?;
        let stream = packet.as_ref().map(|p| p.stream());
        if let Some((decoder, checked)) = &mut video
            && stream.is_none_or(|s| s == checked.stream)
        {
            decoder.send(packet.as_ref())?;
            while let Received::Item(frame) = decoder.receive()? {
                let pts = frame.pts().unwrap_or(checked.end);
                if checked.frames == 0 {
                    checked.first = pts;
                } else if pts < checked.end && checked.end - pts > frame.duration() {
                    return Err(damaged(format!(
                        "frame {} comes at {pts}, before the end of the one before",
                        checked.frames
                    )));
                }
                checked.end = pts + frame.duration();
                checked.frames += 1;
            }
            control.at("verify", u64::from(checked.frames), frames, 0)?;
        }
        for (decoder, checked) in &mut audio {
            if stream.is_none_or(|s| s == checked.stream) {
                decoder.send(packet.as_ref())?;
                while let Received::Item(frame) = decoder.receive()? {
                    checked.samples += frame.samples() as u64;
                }
            }
        }
        if packet.is_none() {
            break;
        }
    }
    Ok(Checked {
        media,
        video: video.map(|v| v.1),
        audio: audio.into_iter().map(|a| a.1).collect(),
    })
}

fn compare(expect: &Expectation, checked: &Checked) -> Result<(), Failure> {
    match (&expect.video, &checked.video) {
        (Some(expected), Some(found)) => compare_video(expected, found, &checked.media)?,
        (Some(_), None) => return Err(mismatch("picture", "one track", "none")),
        (None, Some(_)) => return Err(mismatch("picture", "none", "one track")),
        (None, None) => {}
    }
    if expect.audio.len() != checked.audio.len() {
        return Err(mismatch("sound tracks", expect.audio.len(), checked.audio.len()));
    }
    for (n, (expected, (stream, _))) in expect.audio.iter().zip(checked.media.audios()).enumerate()
    {
        if let Some(codec) = &expected.codec
            && *codec != stream.codec
        {
            return Err(mismatch(&format!("codec of sound track {n}"), codec, &stream.codec));
        }
        if expected.language != stream.language {
            let words = |l: &Option<String>| l.clone().unwrap_or("none".into());
            return Err(mismatch(
                &format!("language of sound track {n}"),
                words(&expected.language),
                words(&stream.language),
            ));
        }
        if checked.audio[n].samples == 0 {
            return Err(mismatch(&format!("samples of sound track {n}"), "some", 0));
        }
    }
    Ok(())
}

fn compare_video(
    expected: &ExpectVideo,
    found: &CheckedVideo,
    media: &MediaDescription,
) -> Result<(), Failure> {
    let stream = &media.streams[found.stream as usize];
    let StreamKind::Video(video) = &stream.kind else {
        return Err(Failure::bug("the main video is no video"));
    };
    if expected.codec != stream.codec {
        return Err(mismatch("video codec", &expected.codec, &stream.codec));
    }
    if expected.frames != found.frames {
        return Err(mismatch("frames", expected.frames, found.frames));
    }
    if (expected.width, expected.height) != (video.width, video.height) {
        return Err(mismatch(
            "picture size",
            format!("{}x{}", expected.width, expected.height),
            format!("{}x{}", video.width, video.height),
        ));
    }
    let duration =
        rescale(expected.duration, expected.time_base, found.time_base, Rounding::Nearest);
    // Each of the two ends is rounded once to the file's ticks; a container of
    // milliseconds rounds the last frame's duration as well.
    let off = (found.end - found.first - duration).abs();
    let frame = duration / i64::from(expected.frames.max(1));
    if off > 2.max(frame / 2) {
        return Err(mismatch("duration in ticks", duration, found.end - found.first));
    }
    let signalled = [
        ("colour primaries", expected.color.primaries, video.color.primaries),
        ("transfer characteristics", expected.color.transfer, video.color.transfer),
        ("matrix coefficients", expected.color.matrix, video.color.matrix),
    ];
    for (what, wanted, got) in signalled {
        if wanted.is_some() && wanted != got {
            let words = |v: Option<u8>| v.map_or("none".to_owned(), |v| v.to_string());
            return Err(mismatch(what, words(wanted), words(got)));
        }
    }
    Ok(())
}

fn mismatch(
    what: &str,
    expected: impl std::fmt::Display,
    found: impl std::fmt::Display,
) -> Failure {
    Failure::new(
        trix_model::ErrorClass::Deterministic,
        trix_model::ErrorOrigin::Engine,
        "verify_mismatch",
        format!("the finished file has the wrong {what}: {found} instead of {expected}"),
    )
}

fn damaged(message: String) -> Failure {
    Failure::source("damaged", message)
}
