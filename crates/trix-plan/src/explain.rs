//! A plan in words, for people.

use std::fmt::Write as _;

use trix_model::media::{Audio, Stream};
use trix_model::{MediaDescription, PlanningIndex};

use crate::encoder::{AudioSettings, RateControl, VideoSettings};
use crate::estimate::{self, Estimate, estimate};
use crate::planner::{Film, PlanError, film, has_packets};
use crate::profile::{Profile, Role, VideoTrack};
use crate::task::{EncodeAudio, EncodeChunk, IntakeResult, Mux, Plan, Publish, TaskSpec};

/// Explains plan 1 of a source: what the source is, what is made of it, where it goes, what was
/// left out and why, and about how long it takes.
pub fn explain(profile: &Profile, intake: &IntakeResult, plan: &Plan) -> Result<String, PlanError> {
    let index = PlanningIndex::from_base64(&intake.planning_index)
        .map_err(|source| PlanError::Index { object: String::new(), source })?;
    let film = film("", &intake.media, &index)?;
    let mut page = Page::default();
    page.source(&intake.media, film.as_ref(), &index);
    page.video(plan, film.as_ref());
    page.audio(plan, &intake.media);
    page.files(profile, plan);
    page.destinations(plan);
    page.left_out(profile, plan);
    page.silent(&intake.media, &index);
    page.findings(intake);
    page.estimate(&estimate(plan), plan);
    Ok(page.0)
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, label: &str, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{label:<10}{text}");
    }

    fn source(&mut self, media: &MediaDescription, film: Option<&Film<'_>>, index: &PlanningIndex) {
        let container = &media.container;
        let Some(film) = film else {
            self.line("source", &format!("{container} without a picture"));
            return;
        };
        let v = film.video;
        let rate = film.rate.rate;
        let kind = if film.rate.constant { "constant" } else { "variable, on average" };
        let fps = decimal(rate.num(), rate.den());
        self.line(
            "source",
            &format!(
                "{container}: {} {}x{} {}, {} frames at {fps} a second ({kind}), {}",
                film.stream.codec,
                v.width,
                v.height,
                v.pixel_format,
                index.frames(),
                clock(estimate::seconds(film))
            ),
        );
        if let Some(aspect) = v.sample_aspect.filter(|a| a.num() != a.den()) {
            let (num, den) = (aspect.num(), aspect.den());
            self.line(
                "",
                &format!("pixels are {num}:{den}, and stay so unless a file says square"),
            );
        }
        if v.rotation != 0 {
            self.line("", &format!("the picture is turned by {} degrees", v.rotation));
        }
    }

    fn video(&mut self, plan: &Plan, film: Option<&Film<'_>>) {
        let chunks: Vec<&EncodeChunk> = plan
            .tasks
            .iter()
            .filter_map(|t| match &t.spec {
                TaskSpec::EncodeChunk(chunk) => Some(chunk),
                _ => None,
            })
            .collect();
        if let (Some(first), Some(film)) = (chunks.first(), film) {
            let longest = chunks.iter().map(|c| c.range.count).max().unwrap_or(0);
            let shortest = chunks.iter().map(|c| c.range.count).min().unwrap_or(0);
            let lengths = match shortest == longest {
                true => shortest.to_string(),
                false => format!("{shortest} to {longest}"),
            };
            let preroll: u32 = chunks.iter().map(|c| c.range.first - c.decode_from).sum();
            let keyint = first.renditions.iter().map(|r| r.settings.keyint).max().unwrap_or(0);
            self.line(
                "picture",
                &format!(
                    "{} of {lengths} frames, segments of {keyint} frames, \
                     {preroll} frames of pre-roll in all",
                    count(chunks.len(), "chunk")
                ),
            );
            for r in &first.renditions {
                let p = r.picture;
                let mut text = format!(
                    "{:<16}{} {}x{} {} bit, {}",
                    r.name,
                    r.settings.variant,
                    p.width,
                    p.height,
                    p.format.depth,
                    settings(&r.settings)
                );
                if film.video.hdr.mastering_display.is_some() && p.format.depth < 10 {
                    text.push_str("; HDR in 8 bits: expect banding");
                }
                self.line("", &text);
            }
        }
        if plan.tasks.iter().any(|t| matches!(t.spec, TaskSpec::CopyVideo(_))) {
            self.line("picture", "copied as it is, without decoding");
        }
    }

    fn audio(&mut self, plan: &Plan, media: &MediaDescription) {
        let mut label = "sound";
        for task in &plan.tasks {
            let TaskSpec::EncodeAudio(EncodeAudio { stream, settings, .. }) = &task.spec else {
                continue;
            };
            let Some((source, audio)) = media.audios().find(|(s, _)| s.index == *stream) else {
                continue;
            };
            self.line(label, &format!("{:<16}{}", task.name, sound(source, audio, settings)));
            label = "";
        }
        if label == "sound" {
            self.line(label, "none");
        }
    }

    fn files(&mut self, profile: &Profile, plan: &Plan) {
        let mut label = "files";
        for task in &plan.tasks {
            let TaskSpec::Mux(Mux { container, video, audio, .. }) = &task.spec else { continue };
            let name = task.name.trim_start_matches("mux/");
            let sounds = count(audio.len(), "sound track");
            let what = match video {
                Some(_) => format!("picture and {sounds}"),
                None => sounds,
            };
            let role = profile.files.iter().find(|f| f.name == name).map(|f| f.role);
            let role = match role {
                Some(Role::Archive) => ", mezzanine",
                Some(Role::Preview) => ", proxy",
                Some(Role::Output) | None => "",
            };
            let file = format!("{name}.{}", container.as_str());
            self.line(label, &format!("{file:<16}{what}{role}; decoded whole before it is used"));
            label = "";
        }
    }

    fn destinations(&mut self, plan: &Plan) {
        let mut label = "published";
        for task in &plan.tasks {
            match &task.spec {
                TaskSpec::Publish(Publish { share, target, role, files }) => {
                    let files: Vec<_> = files.iter().map(|f| f.name.as_str()).collect();
                    let to = format!("{share}:{target}");
                    self.line(label, &format!("{role} to {to}: {}", files.join(", ")));
                    label = "";
                }
                TaskSpec::Copy(copy) => {
                    let why = "intake left no copy, so the source is read again";
                    self.line("archive", &format!("a copy is staged on {}: {why}", copy.share));
                }
                _ => {}
            }
        }
        if !plan.results.is_empty() {
            let files: Vec<_> = plan.results.iter().map(|f| f.name.as_str()).collect();
            self.line("results", &files.join(", "));
        }
    }

    fn left_out(&mut self, profile: &Profile, plan: &Plan) {
        let published = plan.tasks.iter().flat_map(|t| match &t.spec {
            TaskSpec::Publish(publish) => publish.files.as_slice(),
            _ => &[],
        });
        let names: Vec<&str> = published
            .map(|f| f.name.file_name())
            .chain(plan.results.iter().map(|f| f.name.file_name()))
            .collect();
        for file in &profile.files {
            let name = format!("{}.{}", file.name, file.container.as_str());
            if names.contains(&name.as_str()) {
                continue;
            }
            if let VideoTrack::Encode(_) = file.video {
                let why = "the source is smaller, and another rendition gives the same picture";
                self.line("left out", &format!("{}: {why}", file.name));
            }
        }
    }

    fn silent(&mut self, media: &MediaDescription, index: &PlanningIndex) {
        for (stream, _) in media.audios().filter(|(s, _)| !has_packets(index, s)) {
            self.line("left out", &format!("sound track {}: it has no packets", stream.index));
        }
    }

    fn findings(&mut self, intake: &IntakeResult) {
        for finding in &intake.findings {
            let severity = format!("{:?}", finding.severity).to_lowercase();
            self.line("finding", &format!("{severity}: {} ({})", finding.message, finding.code));
        }
    }

    fn estimate(&mut self, sum: &Estimate, plan: &Plan) {
        self.line(
            "estimate",
            &format!(
                "{}, about {} on one core, at least {} on many; {} MiB written; \
                 largest task {} MiB of memory",
                count(plan.tasks.len(), "task"),
                clock((sum.core_ms / 1000) as i64),
                clock((sum.critical_ms / 1000) as i64),
                sum.bytes >> 20,
                sum.largest_ram >> 20
            ),
        );
        self.line("engine", &plan.engine);
    }
}

fn settings(s: &VideoSettings) -> String {
    let mut words = Vec::new();
    if !s.preset.is_empty() {
        words.push(s.preset.clone());
    }
    words.extend(s.tune.iter().map(|t| format!("tune {t}")));
    let vbv = match &s.rate {
        RateControl::Crf { vbv, .. } | RateControl::Bitrate { vbv, .. } => *vbv,
        RateControl::Qp { .. } | RateControl::Lossless => None,
    };
    words.push(match &s.rate {
        RateControl::Crf { crf, .. } => format!("CRF {crf}"),
        RateControl::Qp { qp } => format!("QP {qp}"),
        RateControl::Bitrate { kbps, .. } => format!("{kbps} kbit/s"),
        RateControl::Lossless => "without loss".to_owned(),
    });
    words.extend(vbv.map(|v| format!("at most {} kbit/s", v.max_kbps)));
    if s.threads > 1 {
        words.push(format!("{} threads", s.threads));
    }
    words.extend(s.params.iter().map(|(k, v)| format!("{k}={v}")));
    words.join(", ")
}

fn sound(stream: &Stream, audio: &Audio, to: &AudioSettings) -> String {
    let language = stream.language.as_deref().unwrap_or("no language");
    let from = format!("{} {} ch {} Hz", stream.codec, audio.channels, audio.sample_rate);
    let mut out = format!("{language}: {from} → {}", to.codec.as_str());
    if let Some(bits) = to.bit_rate {
        let _ = write!(out, " {} kbit/s", bits / 1000);
    }
    if let Some(channels) = to.channels {
        let _ = write!(out, ", mixed down to {channels}");
    }
    if let Some(rate) = to.sample_rate {
        let _ = write!(out, ", {rate} Hz");
    }
    out
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Three digits behind the point, without a float.
fn decimal(num: i64, den: i64) -> String {
    let thousandths = (i128::from(num) * 1000 + i128::from(den) / 2) / i128::from(den.max(1));
    crate::params::decimal_text(i64::try_from(thousandths * 1000).unwrap_or(i64::MAX))
}

fn clock(seconds: i64) -> String {
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02} h") } else { format!("{m}:{s:02} min") }
}
