//! Keys: what an output is to be, before it is made.
//!
//! A key is BLAKE3 over canonical JSON of the task's kind, the kind's version,
//! the parameters that decide bytes, the digests of exactly the inputs that
//! are read, and the engine. **No name of a rendition, share or file is in it**
//! (but for intake, whose input is known by nothing else yet), so renaming
//! loses nothing, and one changed packet touches only what reads it. Inputs
//! that are artifacts count by their own keys.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;
use serde_json::{Value, json};
use trix_model::color::ColorDescription;
use trix_model::digest::Digest;
use trix_model::{Key, PlanningIndex};

use crate::canon::{CanonError, canonical};
use crate::task::{
    CopyVideo, EncodeAudio, EncodeChunk, Mux, Sidecar, SourceRef, Stills, Verify, VideoRendition,
};

/// Form of what is hashed; raised when the envelope itself changes.
const FORM: u32 = 1;

/// Version per kind. **Raise a number by hand when that kind's code changes what it writes**: its
/// artifacts are then made anew, and those of no other kind.
const VERSIONS: &[(&str, u32)] = &[
    ("intake", 1),
    ("encode_chunk", 1),
    ("copy_video", 1),
    ("encode_audio", 1),
    ("mux", 1),
    ("verify", 1),
    ("stills", 1),
];

/// What an engine is made of: everything beside a task's own parameters and inputs that decides
/// bytes. The binary fills it in.
///
/// Names in use: `x264`, `x265`, `rav1e`, `libav` (version, patches and flags of each) and `cpu`
/// (the feature level that they are forced to).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    parts: BTreeMap<String, String>,
}

impl Engine {
    /// An engine without parts.
    pub fn new() -> Engine {
        Engine::default()
    }

    /// Adds a component with its version, patches and flags.
    pub fn with(mut self, name: &str, value: &str) -> Engine {
        self.parts.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The engine id: 32 hexadecimal digits.
    pub fn id(&self) -> String {
        // Length-prefixed, so that no two lists of parts read the same.
        let mut hash = blake3::Hasher::new();
        for text in self.parts.iter().flat_map(|(name, value)| [name, value]) {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.finalize().to_hex()[..32].to_owned()
    }

    /// The parts as one line for people.
    pub fn describe(&self) -> String {
        let parts: Vec<_> = self.parts.iter().map(|(n, v)| format!("{n} {v}")).collect();
        parts.join("; ")
    }
}

/// Key of a source's packet index.
pub fn index(source: &SourceRef, engine: &str) -> Result<Key, CanonError> {
    key("intake", "index", engine, source, json!([]))
}

/// Key of an intake's result: findings depend on the sidecars too.
pub fn intake_result(
    source: &SourceRef,
    sidecars: &[Sidecar],
    engine: &str,
) -> Result<Key, CanonError> {
    let parameters = json!({ "source": source, "sidecars": sidecars });
    key("intake", "result", engine, &parameters, json!([]))
}

/// Key of one rendition of a chunk.
pub fn chunk(
    task: &EncodeChunk,
    rendition: &VideoRendition,
    index: &PlanningIndex,
    engine: &str,
) -> Result<Key, CanonError> {
    let behind = task.range.first + task.range.count;
    let read = task.decode_from..behind.saturating_add(rendition.run_over).min(index.frames());
    // Packets are written with times on the output timeline; it begins at zero_pts.
    let times = (task.range.first..read.end)
        .chain([read.end])
        .filter_map(|frame| index.pts_of(frame))
        .map(|pts| pts.wrapping_sub(task.zero_pts));
    let parameters = json!({
        "settings": rendition.settings,
        "picture": rendition.picture,
        "sample_aspect": rendition.sample_aspect,
        "color": rendition.color,
        "hdr": rendition.hdr,
        "run_over": rendition.run_over,
        "frames": task.range.count,
        "rotation": task.rotation,
        "time_base": task.time_base,
        "frame_rate": task.frame_rate,
        "constant_rate": task.constant_rate,
    });
    let inputs = json!({
        "parameters": index.parameters,
        "packets": packets(index, [read]),
        "times": times_digest(times),
    });
    key("encode_chunk", "packets", engine, &parameters, inputs)
}

/// Key of the main video's packets as they are.
pub fn copied_video(
    task: &CopyVideo,
    index: &PlanningIndex,
    engine: &str,
) -> Result<Key, CanonError> {
    let parameters = json!({ "time_base": task.time_base });
    let inputs = json!({
        "parameters": index.parameters,
        "packets": packets(index, std::iter::once(0..index.frames())),
        "times": times_digest(
            index.pts.iter().chain([&index.end]).map(|t| t.wrapping_sub(task.zero_pts))
        ),
    });
    key("copy_video", "video", engine, &parameters, inputs)
}

/// Key of a sound track. `None` when the planning index has no such stream.
pub fn audio(
    task: &EncodeAudio,
    index: &PlanningIndex,
    engine: &str,
) -> Result<Option<Key>, CanonError> {
    let Some((_, packets)) = index.audio.iter().find(|(s, _)| *s == task.stream) else {
        return Ok(None);
    };
    let parameters = json!({
        "settings": task.settings,
        "zero_pts": task.zero_pts,
        "time_base": task.time_base,
    });
    let inputs = json!({ "packets": packets });
    key("encode_audio", "audio", engine, &parameters, inputs).map(Some)
}

/// Key of a muxed file: all of its specification decides bytes, the keys of its inputs stand in it.
pub fn mux(task: &Mux, engine: &str) -> Result<Key, CanonError> {
    key("mux", "file", engine, task, json!([]))
}

/// Key of a verification's report.
pub fn verify(task: &Verify, engine: &str) -> Result<Key, CanonError> {
    key("verify", "report", engine, &task.expect, json!([task.file]))
}

/// Keys of poster, sprite and map, in this order: the map reads no picture.
pub fn stills(
    task: &Stills,
    color: &ColorDescription,
    index: &PlanningIndex,
    engine: &str,
) -> Result<[Key; 3], CanonError> {
    let time = |frame: &u32| index.pts_of(*frame);
    let pictures = |frames: &[u32]| {
        json!({
            "parameters": index.parameters,
            "packets": packets(index, frames.iter().map(|f| *f..*f + 1)),
        })
    };
    let poster = json!({
        "time": time(&task.poster_frame),
        "size": task.poster_size,
        "rotation": task.rotation,
        "color": color,
    });
    let sprite = json!({
        "times": task.frames.iter().map(time).collect::<Vec<_>>(),
        "size": task.thumb_size,
        "columns": task.columns,
        "rotation": task.rotation,
        "color": color,
    });
    let map = json!({
        "spans_ms": task.spans_ms,
        "size": task.thumb_size,
        "columns": task.columns,
    });
    Ok([
        key("stills", "poster", engine, &poster, pictures(&[task.poster_frame]))?,
        key("stills", "sprite", engine, &sprite, pictures(&task.frames))?,
        key("stills", "map", engine, &map, json!([]))?,
    ])
}

/// One digest over the groups that are read for some runs of frames.
fn packets(index: &PlanningIndex, runs: impl IntoIterator<Item = Range<u32>>) -> Digest {
    let mut hash = blake3::Hasher::new();
    let mut last = None;
    for group in runs.into_iter().flat_map(|run| index.groups_for(run)) {
        // Runs may share groups; each counts once, where it first comes.
        if last.is_none_or(|l| l < group.frame) {
            hash.update(group.hash.as_bytes());
            last = Some(group.frame);
        }
    }
    Digest(*hash.finalize().as_bytes())
}

fn times_digest(times: impl Iterator<Item = i64>) -> Digest {
    let mut hash = blake3::Hasher::new();
    times.for_each(|t| {
        hash.update(&t.to_le_bytes());
    });
    Digest(*hash.finalize().as_bytes())
}

fn key<P: Serialize + ?Sized>(
    kind: &'static str,
    output: &'static str,
    engine: &str,
    parameters: &P,
    inputs: Value,
) -> Result<Key, CanonError> {
    let version = VERSIONS.iter().find(|(k, _)| *k == kind).map_or(0, |(_, v)| *v);
    let parameters = serde_json::to_value(parameters).map_err(CanonError::Serialise)?;
    let text = canonical(&json!({
        "v": FORM,
        "kind": kind,
        "version": version,
        "output": output,
        "engine": engine,
        "parameters": parameters,
        "inputs": inputs,
    }))?;
    Ok(Key(*blake3::hash(text.as_bytes()).as_bytes()))
}
