//! From a profile and what intake found to a graph of tasks.
//!
//! ```text
//! plan 0   intake
//! plan 1   encode/0000 … ─┐
//!          audio/1 …      ├─ mux/1080p ── verify/1080p ─┐
//!                                                       ├─ publish/output
//!          copy-video ────┘                             │
//!          stills, mux/proxy … verify/proxy ────────────┴─ publish/preview
//!          archive/copy, mezzanine … ───────────────────── publish/archive
//! ```
//!
//! Costs follow a crude model, meant for packing and for a first estimate that
//! measured times soon replace: see [`crate::estimate`].

use std::collections::{BTreeMap, BTreeSet};

use trix_model::index::IndexError;
use trix_model::media::{Audio, Stream, Video};
use trix_model::pixel::Chroma;
use trix_model::time::{Rounding, rescale};
use trix_model::{
    Failure, Key, MediaDescription, PathError, PixelFormat, PlanningIndex, Rational, RelPath,
};

use crate::canon::CanonError;
use crate::encoder::{AudioCodec, AudioSettings, Picture, VideoVariant};
use crate::estimate;
use crate::grid::{FrameRate, Grid};
use crate::profile::{
    AudioTrack, ChromaChoice, Destination, Fields, FileSpec, Languages, Pixels, Preview, Profile,
    Role, VideoEncode, VideoTrack, fill,
};
use crate::task::{
    CopySource, CopyVideo, Cost, EncodeAudio, EncodeChunk, ExpectAudio, ExpectVideo, Expectation,
    Intake, IntakeResult, Mux, MuxAudio, MuxVideo, Output, Plan, Publish, PublishFile, PublishFrom,
    ResultFile, Sidecar, SourceRef, Task, TaskSpec, Verify, VideoRendition,
};
use crate::{key, params, rules};

/// Version of [`Plan`].
pub const PLAN_VERSION: u32 = 1;

/// What becomes of finished files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Tasks publish them on the profile's shares.
    Shares,
    /// No task publishes: [`Plan::results`] lists what the caller copies to a folder. The source
    /// stays where it is; it is not copied as an archive.
    Folder,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A picture is wanted and there is none.
    #[error("planning {object}: the source has no video stream")]
    NoVideo {
        /// Source.
        object: String,
    },
    /// A video stream without frames.
    #[error("planning {object}: video stream {stream} has no frame to present")]
    NoFrames {
        /// Source.
        object: String,
        /// Stream.
        stream: u32,
    },
    /// No sound track matches.
    #[error("planning {object}: no sound track is in {wanted}; the source has {found}")]
    NoLanguage {
        /// Source.
        object: String,
        /// Languages of the profile.
        wanted: String,
        /// Languages of the source.
        found: String,
    },
    /// Neither picture nor sound.
    #[error("planning {object}: file {file:?} would have neither picture nor sound")]
    Empty {
        /// Source.
        object: String,
        /// File of the profile.
        file: String,
    },
    /// A copied stream does not fit the container.
    #[error("planning {object}: {container} holds no {codec}, which file {file:?} would copy")]
    Container {
        /// Source.
        object: String,
        /// File of the profile.
        file: String,
        /// Container.
        container: &'static str,
        /// Codec of the source.
        codec: String,
    },
    /// A depth that cannot be kept without loss.
    #[error("planning {object}: {depth} bits a sample cannot be kept without loss; at most 12 can")]
    Depth {
        /// Source.
        object: String,
        /// Depth of the source.
        depth: u8,
    },
    /// Larger than encoders and players take.
    #[error("planning {object}: a picture of {width}x{height} is outside 2x2 to 16384x16384")]
    Size {
        /// Source.
        object: String,
        /// Width.
        width: u32,
        /// Height.
        height: u32,
    },
    /// The encoder takes no picture of this size with these parameters.
    #[error("planning {object}: file {file:?} would be {width}x{height}: {reason}")]
    Picture {
        /// Source.
        object: String,
        /// File of the profile.
        file: String,
        /// Width.
        width: u32,
        /// Height.
        height: u32,
        /// Which rule it breaks.
        reason: String,
    },
    /// The profile does not say where files go.
    #[error("planning {object}: profile {profile:?} names no share to publish on")]
    NoShare {
        /// Source.
        object: String,
        /// Profile.
        profile: String,
    },
    /// A name that is no path.
    #[error("planning {object}: naming what is published")]
    Name {
        /// Source.
        object: String,
        /// Why.
        #[source]
        source: PathError,
    },
    /// The path template gives no path.
    #[error("planning {object}: folder {template:?}: {problem}")]
    Folder {
        /// Source.
        object: String,
        /// Template of the profile.
        template: String,
        /// Why.
        problem: String,
    },
    /// Intake's result contradicts itself: ours, not the file's.
    #[error("planning {object}: intake's result has {problem}")]
    Intake {
        /// Source.
        object: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Intake's result cannot be read.
    #[error("planning {object}: {source}")]
    Index {
        /// Source.
        object: String,
        /// Why.
        source: IndexError,
    },
    /// A parameter has no canonical form.
    #[error("planning: making a key: {0}")]
    Key(#[from] CanonError),
}

impl From<PlanError> for Failure {
    fn from(e: PlanError) -> Failure {
        let message = e.to_string();
        let failure = |code: &str| Failure::source(code, message.clone());
        match e {
            PlanError::NoVideo { object } => failure("no_video").about(object),
            PlanError::NoFrames { object, .. } => failure("no_frames").about(object),
            PlanError::NoLanguage { object, .. } => failure("no_language").about(object),
            PlanError::Empty { object, .. } => failure("empty_file").about(object),
            PlanError::Container { object, .. } => {
                Failure::request("codec_not_in_container", message).about(object)
            }
            PlanError::Depth { object, .. } => failure("unsupported_depth").about(object),
            PlanError::Size { object, .. } => failure("unsupported_size").about(object),
            PlanError::Picture { object, .. } => {
                Failure::request("unsupported_picture", message).about(object)
            }
            PlanError::NoShare { object, .. } => {
                Failure::request("no_share", message).about(object)
            }
            PlanError::Name { object, .. } | PlanError::Folder { object, .. } => {
                Failure::request("bad_name", message).about(object)
            }
            PlanError::Intake { object, .. } | PlanError::Index { object, .. } => {
                Failure::bug(message).about(object)
            }
            PlanError::Key(_) => Failure::bug(message),
        }
    }
}

/// Plan 0: intake. The archive's share gets the tee when the profile keeps the source.
pub fn plan0(
    source: &SourceRef,
    sidecars: &[Sidecar],
    profile: &Profile,
    engine: &str,
    delivery: Delivery,
) -> Result<Plan, PlanError> {
    let tee = match (&profile.archive, delivery) {
        (Some(archive), Delivery::Shares) if archive.keep_source => Some(archive.to.share.clone()),
        _ => None,
    };
    let outputs = vec![
        Output { name: "index".to_owned(), key: key::index(source, engine)? },
        Output { name: "result".to_owned(), key: key::intake_result(source, sidecars, engine)? },
    ];
    let cost = estimate::intake(source.size, tee.is_some());
    let spec =
        TaskSpec::Intake(Intake { source: source.clone(), sidecars: sidecars.to_vec(), tee });
    let task = Task { name: INTAKE.to_owned(), spec, needs: Vec::new(), outputs, cost };
    Ok(Plan {
        version: PLAN_VERSION,
        engine: engine.to_owned(),
        tasks: vec![task],
        results: Vec::new(),
    })
}

/// Plan 1: everything after intake. Its tasks may need the task `intake` of plan 0.
pub fn plan1(
    profile: &Profile,
    intake: &IntakeResult,
    source: &SourceRef,
    engine: &str,
    title: &str,
    delivery: Delivery,
) -> Result<Plan, PlanError> {
    let object = source.location.to_string();
    let index = PlanningIndex::from_base64(&intake.planning_index)
        .map_err(|source| PlanError::Index { object: object.clone(), source })?;
    let film = film(&object, &intake.media, &index)?;
    let index_key = key::index(source, engine)?;
    let planner = Planner {
        profile,
        intake,
        source,
        engine,
        title,
        object,
        index: &index,
        index_key,
        film,
        tasks: Vec::new(),
    };
    planner.plan(delivery)
}

const INTAKE: &str = "intake";
const STILLS: &str = "stills";
const COPY_VIDEO: &str = "copy-video";
const ARCHIVE_COPY: &str = "archive/copy";

/// The main video as planning sees it.
#[derive(Clone, Copy)]
pub(crate) struct Film<'a> {
    pub stream: &'a Stream,
    pub video: &'a Video,
    pub rate: FrameRate,
    /// Source pts of frame 0.
    pub zero: i64,
    /// Ticks from frame 0 to the end of the last frame.
    pub duration: i64,
    /// Seconds per tick.
    pub time_base: Rational,
}

/// The main video, if the source has one.
pub(crate) fn film<'a>(
    object: &str,
    media: &'a MediaDescription,
    index: &PlanningIndex,
) -> Result<Option<Film<'a>>, PlanError> {
    let Some(number) = index.stream else { return Ok(None) };
    let found = media.videos().find(|(s, _)| s.index == number);
    let object = object.to_owned();
    let Some((stream, video)) = found else {
        return Err(PlanError::Intake {
            object,
            problem: "an index of a stream without a picture",
        });
    };
    // What a slot says is not trusted: beyond these bounds, which no demuxer of ours exceeds, sums
    // would overflow.
    let (width, height) = (video.width, video.height);
    if width.max(height) > 65_536 {
        return Err(PlanError::Size { object, width, height });
    }
    let parts = [Some(index.time_base), video.sample_aspect].into_iter().flatten();
    if parts.into_iter().any(|r| r.num().max(r.den()) > u32::MAX.into()) {
        return Err(PlanError::Intake { object, problem: "a fraction beyond 32 bits" });
    }
    let Some(zero) = index.pts.first().copied() else {
        return Err(PlanError::NoFrames { object, stream: number });
    };
    let Some(stated) = index.end.checked_sub(zero) else {
        return Err(PlanError::Intake { object, problem: "times beyond 64 bits" });
    };
    let rate = FrameRate::of(index, video);
    // At a constant rate the last frame is as long as the others, whatever its packet says: some
    // multiplexers give all packets one tick.
    let duration = match rate.rate.inverse() {
        Some(tick) if rate.constant => {
            rescale(index.pts.len() as i64, tick, index.time_base, Rounding::Nearest)
        }
        _ => stated,
    };
    Ok(Some(Film { stream, video, rate, zero, duration, time_base: index.time_base }))
}

/// One file with everything about it resolved.
struct Planned<'p> {
    spec: &'p FileSpec,
    /// Picture and settings of what is encoded.
    rendition: Option<VideoRendition>,
    /// Per sound track: its stream, its settings, the profile's entry.
    audio: Vec<Sound<'p>>,
}

struct Sound<'p> {
    stream: &'p Stream,
    settings: AudioSettings,
    entry: &'p str,
    default: bool,
}

struct Planner<'p> {
    profile: &'p Profile,
    intake: &'p IntakeResult,
    source: &'p SourceRef,
    engine: &'p str,
    title: &'p str,
    object: String,
    index: &'p PlanningIndex,
    index_key: Key,
    film: Option<Film<'p>>,
    tasks: Vec<Task>,
}

impl<'p> Planner<'p> {
    fn plan(mut self, delivery: Delivery) -> Result<Plan, PlanError> {
        let files = self.files()?;
        let chunks = self.encode(&files)?;
        let copied = self.copy_video(&files)?;
        let sounds = self.audio(&files)?;
        let mut made: Made<'_> = BTreeMap::new();
        for file in &files {
            let name = file.spec.name.as_str();
            let (spec, needs, cost) = self.mux(file, &chunks, copied, &sounds);
            let key = key::mux(&spec, self.engine)?;
            // Files that are equal to the byte are made and verified once.
            let twin = made.values().find(|m| m.key == key).cloned();
            let file = twin.unwrap_or_else(|| {
                let file =
                    MadeFile { key, mux: format!("mux/{name}"), verify: format!("verify/{name}") };
                let outputs = vec![Output { name: "file".to_owned(), key }];
                self.task(file.mux.clone(), TaskSpec::Mux(spec), needs, outputs, cost);
                file
            });
            made.insert(name, file);
        }
        let mut verified = BTreeSet::new();
        for file in &files {
            let made = &made[file.spec.name.as_str()];
            if verified.insert(made.key) {
                self.verify(file, made, &sounds)?;
            }
        }
        let stills = match &self.profile.preview {
            Some(preview) => self.stills(preview)?,
            None => Vec::new(),
        };
        let mut results = Vec::new();
        match delivery {
            Delivery::Shares => self.publish(&files, &made, &stills)?,
            Delivery::Folder => results = self.results(&files, &made, &stills)?,
        }
        Ok(Plan {
            version: PLAN_VERSION,
            engine: self.engine.to_owned(),
            tasks: self.tasks,
            results,
        })
    }

    fn film(&self) -> Result<Film<'p>, PlanError> {
        self.film.ok_or_else(|| PlanError::NoVideo { object: self.object.clone() })
    }

    fn task(
        &mut self,
        name: String,
        spec: TaskSpec,
        needs: Vec<String>,
        outputs: Vec<Output>,
        cost: Cost,
    ) {
        self.tasks.push(Task { name, spec, needs, outputs, cost });
    }

    /// Files of the profile that this source gets, with pictures and tracks resolved.
    fn files(&self) -> Result<Vec<Planned<'p>>, PlanError> {
        let mut files = Vec::new();
        for spec in &self.profile.files {
            let rendition = match &spec.video {
                VideoTrack::Encode(encode) => Some(self.rendition(&spec.name, encode)?),
                VideoTrack::Copy => {
                    let codec = &self.film()?.stream.codec;
                    self.holds(spec, codec)?;
                    None
                }
                VideoTrack::None => None,
            };
            let audio = self.sounds(spec)?;
            if matches!(spec.video, VideoTrack::None) && audio.is_empty() {
                let (object, file) = (self.object.clone(), spec.name.clone());
                return Err(PlanError::Empty { object, file });
            }
            files.push(Planned { spec, rendition, audio });
        }
        let left_out = left_out(&files);
        files.retain(|f| !left_out.contains(&f.spec.name));
        Ok(files)
    }

    fn holds(&self, spec: &FileSpec, codec: &str) -> Result<(), PlanError> {
        if spec.container.holds(codec) {
            return Ok(());
        }
        Err(PlanError::Container {
            object: self.object.clone(),
            file: spec.name.clone(),
            container: spec.container.as_str(),
            codec: codec.to_owned(),
        })
    }

    fn rendition(&self, name: &str, encode: &VideoEncode) -> Result<VideoRendition, PlanError> {
        let film = self.film()?;
        let video = film.video;
        let variant = encode.settings.variant;
        let format = format(video, variant, encode.chroma)
            .map_err(|depth| PlanError::Depth { object: self.object.clone(), depth })?;
        let (width, height, sample_aspect) = size(video, encode, format.chroma);
        if !(2..=16_384).contains(&width) || !(2..=16_384).contains(&height) {
            return Err(PlanError::Size { object: self.object.clone(), width, height });
        }
        let mut settings = encode.settings.clone();
        settings.keyint = match variant {
            // Every frame of a mezzanine stands alone.
            VideoVariant::Ffv1 => 1,
            _ => self.grid(&film).segment,
        };
        let picture = Picture { width, height, format };
        rules::check_picture(&settings, &picture, film.rate.rate).map_err(|reason| {
            let (object, file) = (self.object.clone(), name.to_owned());
            PlanError::Picture { object, file, width, height, reason }
        })?;
        let run_over = params::run_over(&settings, film.rate.constant);
        Ok(VideoRendition {
            name: name.to_owned(),
            settings,
            picture,
            sample_aspect,
            color: video.color,
            hdr: video.hdr,
            run_over,
        })
    }

    fn grid(&self, film: &Film<'_>) -> Grid {
        Grid::new(self.index, film.rate.rate, self.profile.segment_ms)
    }

    fn sounds(&self, spec: &'p FileSpec) -> Result<Vec<Sound<'p>>, PlanError> {
        // A track without a single packet is no sound; `explain` says that it is left out.
        let tracks: Vec<(&Stream, &Audio)> =
            self.intake.media.audios().filter(|(s, _)| has_packets(self.index, s)).collect();
        let mut sounds: Vec<Sound<'p>> = Vec::new();
        for (stream, audio) in &tracks {
            for entry in spec.audio.iter().filter(|e| matches(&e.languages, stream)) {
                if entry.settings.codec == AudioCodec::Copy {
                    self.holds(spec, &stream.codec)?;
                }
                // Only the first entry of a track is a default: players take one.
                let default =
                    stream.default && sounds.iter().all(|s| s.stream.index != stream.index);
                let (settings, entry) = (sound_settings(entry, audio), entry.name.as_str());
                // Entries that mix down differently are the same for a track with few channels.
                let same = |s: &Sound<'_>| s.stream.index == stream.index && s.settings == settings;
                if sounds.iter().any(same) {
                    continue;
                }
                sounds.push(Sound { stream, settings, entry, default });
            }
        }
        if sounds.is_empty() && !tracks.is_empty() && !spec.audio.is_empty() {
            let wanted: BTreeSet<&str> = spec
                .audio
                .iter()
                .flat_map(|e| match &e.languages {
                    Languages::All => vec!["all"],
                    Languages::Only(list) => list.iter().map(String::as_str).collect(),
                })
                .collect();
            let found: BTreeSet<&str> = tracks.iter().map(|(s, _)| language(s)).collect();
            return Err(PlanError::NoLanguage {
                object: self.object.clone(),
                wanted: joined(wanted),
                found: joined(found),
            });
        }
        // One default and no more; the first track if the source marks none.
        let first = sounds.iter().position(|s| s.default).unwrap_or(0);
        sounds.iter_mut().enumerate().for_each(|(i, s)| s.default = i == first);
        Ok(sounds)
    }

    /// Chunk tasks; gives each file's chunk keys by its name.
    fn encode(&mut self, files: &[Planned<'_>]) -> Result<BTreeMap<String, Vec<Key>>, PlanError> {
        let mut keys: BTreeMap<String, Vec<Key>> = BTreeMap::new();
        // Two files may want the same picture (a proxy and the lowest rung of a small source): it
        // is encoded once.
        let mut renditions: Vec<VideoRendition> = Vec::new();
        let mut from: BTreeMap<&str, usize> = BTreeMap::new();
        for (file, wanted) in files.iter().filter_map(|f| Some((f, f.rendition.as_ref()?))) {
            let same = |r: &VideoRendition| {
                VideoRendition { name: wanted.name.clone(), ..r.clone() } == *wanted
            };
            let place = renditions.iter().position(same).unwrap_or(renditions.len());
            if place == renditions.len() {
                renditions.push(wanted.clone());
            }
            from.insert(&file.spec.name, place);
        }
        if renditions.is_empty() {
            return Ok(keys);
        }
        let film = self.film()?;
        let grid = self.grid(&film);
        for (number, chunk) in (0u32..).zip(&grid.chunks) {
            let spec = EncodeChunk {
                source: self.source.clone(),
                index: self.index_key,
                stream: film.stream.index,
                chunk: number,
                range: chunk.range,
                decode_from: chunk.decode_from,
                zero_pts: film.zero,
                time_base: film.time_base,
                frame_rate: film.rate.rate,
                constant_rate: film.rate.constant,
                renditions: renditions.clone(),
                rotation: film.video.rotation,
            };
            let mut outputs: Vec<Output> = Vec::new();
            for rendition in &renditions {
                let key = key::chunk(&spec, rendition, self.index, self.engine)?;
                outputs.push(Output { name: rendition.name.clone(), key });
            }
            for (file, place) in &from {
                keys.entry((*file).to_owned()).or_default().push(outputs[*place].key);
            }
            let cost = estimate::chunk(&spec, film.video);
            let name = format!("encode/{number:04}");
            self.task(name, TaskSpec::EncodeChunk(spec), vec![INTAKE.to_owned()], outputs, cost);
        }
        Ok(keys)
    }

    fn copy_video(&mut self, files: &[Planned<'_>]) -> Result<Option<Key>, PlanError> {
        if !files.iter().any(|f| matches!(f.spec.video, VideoTrack::Copy)) {
            return Ok(None);
        }
        let film = self.film()?;
        let spec = CopyVideo {
            source: self.source.clone(),
            index: self.index_key,
            stream: film.stream.index,
            zero_pts: film.zero,
            time_base: film.time_base,
        };
        let key = key::copied_video(&spec, self.index, self.engine)?;
        let outputs = vec![Output { name: "video".to_owned(), key }];
        let cost = estimate::demux(self.source.size);
        let needs = vec![INTAKE.to_owned()];
        self.task(COPY_VIDEO.to_owned(), TaskSpec::CopyVideo(spec), needs, outputs, cost);
        Ok(Some(key))
    }

    /// Sound tasks, one per track and settings; gives name and key of each.
    fn audio(&mut self, files: &[Planned<'_>]) -> Result<Sounds, PlanError> {
        let mut sounds: Sounds = Vec::new();
        let entries: BTreeSet<&str> =
            files.iter().flat_map(|f| f.audio.iter().map(|s| s.entry)).collect();
        // Zero of the film; without a picture, of the first sound.
        let (zero_pts, time_base) = match &self.film {
            Some(film) => (film.zero, film.time_base),
            None => first_sound(&self.intake.media),
        };
        for sound in files.iter().flat_map(|f| &f.audio) {
            let stream = sound.stream.index;
            if find_sound(&sounds, stream, &sound.settings).is_some() {
                continue;
            }
            let name = match entries.len() {
                1 => format!("audio/{stream}"),
                _ => format!("audio/{stream}-{}", sound.entry),
            };
            let spec = EncodeAudio {
                source: self.source.clone(),
                index: self.index_key,
                stream,
                settings: sound.settings.clone(),
                zero_pts,
                time_base,
            };
            let Some(key) = key::audio(&spec, self.index, self.engine)? else {
                let problem = "no hash for a sound track";
                return Err(PlanError::Intake { object: self.object.clone(), problem });
            };
            let outputs = vec![Output { name: "audio".to_owned(), key }];
            let seconds = self.seconds();
            let cost = estimate::audio(&spec, sound.stream, seconds, self.source.size);
            let settings = sound.settings.clone();
            sounds.push(MadeSound { stream, settings, task: name.clone(), key });
            let needs = vec![INTAKE.to_owned()];
            self.task(name, TaskSpec::EncodeAudio(spec), needs, outputs, cost);
        }
        Ok(sounds)
    }

    /// Whole seconds of the film, at least one.
    fn seconds(&self) -> u64 {
        let us = match &self.film {
            Some(film) => rescale(film.duration, film.time_base, MICROSECOND, Rounding::Up),
            None => self.intake.media.duration_us.unwrap_or(0),
        };
        // A year, because it is only for estimates and must not overflow them.
        (us.max(0) as u64).div_ceil(1_000_000).clamp(1, 31_536_000)
    }

    fn mux(
        &self,
        file: &Planned<'_>,
        chunks: &BTreeMap<String, Vec<Key>>,
        copied: Option<Key>,
        sounds: &Sounds,
    ) -> (Mux, Vec<String>, Cost) {
        let mut needs = Vec::new();
        let video = match (&file.spec.video, &self.film) {
            (VideoTrack::Encode(_), Some(film)) => {
                let chunks = chunks.get(&file.spec.name).cloned().unwrap_or_default();
                needs.extend((0..chunks.len()).map(|n| format!("encode/{n:04}")));
                Some(MuxVideo { chunks, duration: film.duration, rotation: 0 })
            }
            (VideoTrack::Copy, Some(film)) => {
                needs.push(COPY_VIDEO.to_owned());
                let chunks = copied.into_iter().collect();
                Some(MuxVideo { chunks, duration: film.duration, rotation: film.video.rotation })
            }
            _ => None,
        };
        let mut audio = Vec::new();
        for sound in &file.audio {
            if let Some(made) = find_sound(sounds, sound.stream.index, &sound.settings) {
                needs.push(made.task.clone());
                audio.push(MuxAudio {
                    key: made.key,
                    language: sound.stream.language.clone(),
                    title: sound.stream.title.clone(),
                    default: sound.default,
                });
            }
        }
        let mut tags = BTreeMap::new();
        if !self.title.trim().is_empty() {
            tags.insert("title".to_owned(), self.title.trim().to_owned());
        }
        let cost = estimate::mux(file.rendition.as_ref(), self.seconds(), self.source.size);
        (Mux { container: file.spec.container, video, audio, tags }, needs, cost)
    }

    fn verify(
        &mut self,
        file: &Planned<'_>,
        made: &MadeFile,
        sounds: &Sounds,
    ) -> Result<(), PlanError> {
        let video = match (&file.rendition, &file.spec.video, &self.film) {
            (Some(rendition), _, Some(film)) => Some(ExpectVideo {
                codec: rendition.settings.variant.codec().to_owned(),
                frames: self.index.frames(),
                width: rendition.picture.width,
                height: rendition.picture.height,
                duration: film.duration,
                time_base: film.time_base,
                color: rendition.color,
            }),
            (None, VideoTrack::Copy, Some(film)) => Some(ExpectVideo {
                codec: film.stream.codec.clone(),
                frames: self.index.frames(),
                width: film.video.width,
                height: film.video.height,
                duration: film.duration,
                time_base: film.time_base,
                color: film.video.color,
            }),
            _ => None,
        };
        let audio = file
            .audio
            .iter()
            .filter(|s| find_sound(sounds, s.stream.index, &s.settings).is_some())
            .map(|s| ExpectAudio {
                // PCM's name follows the depth that the decoder gives.
                codec: match s.settings.codec {
                    AudioCodec::Aac => Some("aac".to_owned()),
                    AudioCodec::Flac => Some("flac".to_owned()),
                    AudioCodec::Pcm | AudioCodec::Copy => None,
                },
                language: s.stream.language.clone(),
            })
            .collect();
        let cost = estimate::verify(file.rendition.as_ref(), self.film.as_ref(), self.seconds());
        let spec = Verify { file: made.key, expect: Expectation { video, audio } };
        let key = key::verify(&spec, self.engine)?;
        let outputs = vec![Output { name: "report".to_owned(), key }];
        let needs = vec![made.mux.clone()];
        self.task(made.verify.clone(), TaskSpec::Verify(spec), needs, outputs, cost);
        Ok(())
    }

    /// Poster and thumbnails; gives what is to be published of them.
    fn stills(&mut self, preview: &Preview) -> Result<Vec<(&'static str, Key)>, PlanError> {
        if !preview.poster && preview.thumbnails.is_none() {
            return Ok(Vec::new());
        }
        let film = self.film()?;
        let spec = crate::stills::stills(self.source, self.index_key, &film, self.index, preview);
        let [poster, sprite, map] = key::stills(&spec, &film.video.color, self.index, self.engine)?;
        let mut wanted = Vec::new();
        if preview.poster {
            wanted.push(("poster.jpg", "poster", poster));
        }
        if preview.thumbnails.is_some() {
            wanted.push(("sprite.jpg", "sprite", sprite));
            wanted.push(("sprite.vtt", "map", map));
        }
        let outputs =
            wanted.iter().map(|(_, name, key)| Output { name: (*name).to_owned(), key: *key });
        let outputs = outputs.collect();
        let cost = estimate::stills(&spec, film.video);
        let needs = vec![INTAKE.to_owned()];
        self.task(STILLS.to_owned(), TaskSpec::Stills(spec), needs, outputs, cost);
        Ok(wanted.into_iter().map(|(file, _, key)| (file, key)).collect())
    }

    fn publish(
        &mut self,
        files: &[Planned<'_>],
        made: &Made<'_>,
        stills: &[(&'static str, Key)],
    ) -> Result<(), PlanError> {
        let profile = self.profile;
        if let Some(archive) = &profile.archive {
            let mut publish = Publication::default();
            if archive.keep_source {
                let task = match &self.intake.staged {
                    Some(_) => INTAKE.to_owned(),
                    None => self.copy_source(&archive.to),
                };
                let sha256 = self.intake.hashes.sha256;
                let name = format!("source/{}", self.source.location.path.file_name());
                publish.needs.push(task.clone());
                publish.files.push((name, PublishFrom::Staged { task, sha256 }));
            }
            publish.add(files, made, Role::Archive);
            self.publication("archive", &archive.to, publish)?;
        }
        let mut output = Publication::default();
        output.add(files, made, Role::Output);
        if !output.files.is_empty() {
            let to = profile.publish.as_ref().ok_or_else(|| PlanError::NoShare {
                object: self.object.clone(),
                profile: profile.name.clone(),
            })?;
            self.publication("output", to, output)?;
        }
        if let Some(preview) = &profile.preview {
            let mut publish = Publication::default();
            publish.add(files, made, Role::Preview);
            if !stills.is_empty() {
                publish.needs.push(STILLS.to_owned());
            }
            for (name, key) in stills {
                publish.files.push(((*name).to_owned(), PublishFrom::Artifact { key: *key }));
            }
            if !publish.files.is_empty() {
                self.publication("preview", &preview.to, publish)?;
            }
        }
        Ok(())
    }

    /// The copy for the archive when intake teed none.
    fn copy_source(&mut self, to: &Destination) -> String {
        let spec = CopySource {
            source: self.source.clone(),
            share: to.share.clone(),
            sha256: self.intake.hashes.sha256,
        };
        let cost = estimate::copy(self.source.size);
        let needs = vec![INTAKE.to_owned()];
        self.task(ARCHIVE_COPY.to_owned(), TaskSpec::Copy(spec), needs, Vec::new(), cost);
        ARCHIVE_COPY.to_owned()
    }

    fn publication(
        &mut self,
        role: &str,
        to: &Destination,
        publication: Publication,
    ) -> Result<(), PlanError> {
        let file_name = self.source.location.path.file_name();
        let stem = file_name.rsplit_once('.').map_or(file_name, |(stem, _)| stem);
        let fields = Fields { title: self.title, profile: &self.profile.name, source: stem };
        let target = fill(&to.path, &fields).map_err(|problem| PlanError::Folder {
            object: self.object.clone(),
            template: to.path.clone(),
            problem,
        })?;
        let mut files = Vec::new();
        for (name, from) in publication.files {
            files.push(PublishFile { name: self.path(&name)?, from });
        }
        let share = to.share.clone();
        let spec = Publish { share, target, role: role.to_owned(), files };
        let cost = estimate::publish(&self.tasks, &spec, self.source.size);
        let name = format!("publish/{role}");
        self.task(name, TaskSpec::Publish(spec), publication.needs, Vec::new(), cost);
        Ok(())
    }

    fn path(&self, name: &str) -> Result<RelPath, PlanError> {
        name.parse().map_err(|source| PlanError::Name { object: self.object.clone(), source })
    }

    fn results(
        &self,
        files: &[Planned<'_>],
        made: &Made<'_>,
        stills: &[(&'static str, Key)],
    ) -> Result<Vec<ResultFile>, PlanError> {
        let mut results = Vec::new();
        for file in files {
            let name = file_name(file.spec);
            let name = match file.spec.role {
                Role::Preview => format!("preview/{name}"),
                Role::Output | Role::Archive => name,
            };
            let made = &made[file.spec.name.as_str()];
            let (key, after) = (made.key, made.verify.clone());
            results.push(ResultFile { name: self.path(&name)?, key, after });
        }
        for (name, key) in stills {
            let name = self.path(&format!("preview/{name}"))?;
            results.push(ResultFile { name, key: *key, after: STILLS.to_owned() });
        }
        Ok(results)
    }
}

const MICROSECOND: Rational = Rational::MICROSECOND;

/// A file that is made, and by which tasks.
#[derive(Clone)]
struct MadeFile {
    key: Key,
    mux: String,
    verify: String,
}

/// By the file's name.
type Made<'n> = BTreeMap<&'n str, MadeFile>;

/// A sound artifact that is made.
struct MadeSound {
    stream: u32,
    settings: AudioSettings,
    task: String,
    key: Key,
}

type Sounds = Vec<MadeSound>;

fn find_sound<'s>(sounds: &'s Sounds, stream: u32, with: &AudioSettings) -> Option<&'s MadeSound> {
    sounds.iter().find(|s| s.stream == stream && s.settings == *with)
}

/// What one publish task takes.
#[derive(Default)]
struct Publication {
    needs: Vec<String>,
    files: Vec<(String, PublishFrom)>,
}

impl Publication {
    fn add(&mut self, files: &[Planned<'_>], made: &Made<'_>, role: Role) {
        for file in files.iter().filter(|f| f.spec.role == role) {
            let MadeFile { key, verify, .. } = &made[file.spec.name.as_str()];
            if !self.needs.contains(verify) {
                self.needs.push(verify.clone());
            }
            self.files.push((file_name(file.spec), PublishFrom::Artifact { key: *key }));
        }
    }
}

fn file_name(spec: &FileSpec) -> String {
    format!("{}.{}", spec.name, spec.container.as_str())
}

/// Names of renditions that a smaller source makes pointless: another one of the same encoder with
/// a smaller box gives the same picture.
fn left_out(files: &[Planned<'_>]) -> BTreeSet<String> {
    let boxed = |f: &Planned<'_>| match &f.spec.video {
        VideoTrack::Encode(e) if f.spec.role == Role::Output => {
            Some((e.width.unwrap_or(u32::MAX), e.height.unwrap_or(u32::MAX)))
        }
        _ => None,
    };
    let same = |a: &Planned<'_>, b: &Planned<'_>| match (&a.rendition, &b.rendition) {
        (Some(a), Some(b)) => a.picture == b.picture && a.settings.variant == b.settings.variant,
        _ => false,
    };
    files
        .iter()
        .filter(|file| {
            let Some((width, height)) = boxed(file) else { return false };
            files.iter().any(|other| {
                boxed(other)
                    .is_some_and(|(w, h)| w <= width && h <= height && (w, h) != (width, height))
                    && same(file, other)
            })
        })
        .map(|f| f.spec.name.clone())
        .collect()
}

fn matches(languages: &Languages, stream: &Stream) -> bool {
    match languages {
        Languages::All => true,
        Languages::Only(list) => list.contains(language(stream)),
    }
}

/// True for a sound track that holds anything.
pub(crate) fn has_packets(index: &PlanningIndex, stream: &Stream) -> bool {
    index.audio.iter().any(|(number, _)| *number == stream.index)
}

fn language(stream: &Stream) -> &str {
    stream.language.as_deref().unwrap_or("und")
}

fn joined(words: BTreeSet<&str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// Settings for a track: mixed down but never up, and with a bit rate for what has one.
fn sound_settings(entry: &AudioTrack, audio: &Audio) -> AudioSettings {
    let channels = entry.settings.channels.filter(|n| *n < audio.channels);
    let bit_rate = match entry.settings.codec {
        AudioCodec::Aac => {
            entry.settings.bit_rate.or(Some(match channels.unwrap_or(audio.channels) {
                0 | 1 => 96_000,
                2 => 160_000,
                3..=6 => 384_000,
                _ => 512_000,
            }))
        }
        AudioCodec::Flac | AudioCodec::Pcm | AudioCodec::Copy => None,
    };
    let sample_rate = entry.settings.sample_rate.filter(|n| *n != audio.sample_rate);
    AudioSettings { channels, bit_rate, sample_rate, codec: entry.settings.codec }
}

/// The earliest start of all sound tracks and the time base that it counts in.
fn first_sound(media: &MediaDescription) -> (i64, Rational) {
    media
        .audios()
        .map(|(s, _)| (s.start.unwrap_or(0), s.time_base))
        .min_by_key(|(start, base)| rescale(*start, *base, MICROSECOND, Rounding::Down))
        .unwrap_or((0, MICROSECOND))
}

/// Format that an encoder is given, or the depth that cannot be kept.
fn format(video: &Video, variant: VideoVariant, wanted: ChromaChoice) -> Result<PixelFormat, u8> {
    let source = source_chroma(&video.pixel_format);
    let chroma = match wanted {
        ChromaChoice::C420 => Chroma::C420,
        ChromaChoice::C422 => Chroma::C422,
        ChromaChoice::C444 => Chroma::C444,
        // Only FFV1 keeps pictures without colour as such: players expect chroma planes.
        ChromaChoice::Source => match source {
            Chroma::Mono if variant != VideoVariant::Ffv1 => Chroma::C420,
            chroma => chroma,
        },
    };
    let depth = match variant.depth() {
        Some(depth) => depth,
        None => match video.depth {
            0..=8 => 8,
            9..=10 => 10,
            11..=12 => 12,
            deeper => return Err(deeper),
        },
    };
    Ok(PixelFormat { chroma, depth })
}

/// The chroma sampling that loses nothing of a libav pixel format.
fn source_chroma(name: &str) -> Chroma {
    let has = |part: &str| name.contains(part);
    if name.starts_with("gray") || name.starts_with("mono") {
        Chroma::Mono
    } else if ["420", "nv12", "nv21", "p010", "p012", "p016", "410"].iter().any(|p| has(p)) {
        Chroma::C420
    } else if [
        "422", "411", "yuyv", "uyvy", "yvyu", "nv16", "nv20", "p210", "p212", "p216", "y210",
        "y212",
    ]
    .iter()
    .any(|p| has(p))
    {
        Chroma::C422
    } else {
        // 4:4:4, 4:4:0, and all kinds of RGB.
        Chroma::C444
    }
}

/// Size and sample aspect of the encoded picture.
///
/// The picture is turned upright first. It is fitted into the box by its
/// display aspect, never grows, and each side becomes a number that its chroma
/// sampling can halve. A sample aspect that the source does not state stays
/// unstated.
fn size(video: &Video, encode: &VideoEncode, chroma: Chroma) -> (u32, u32, Option<Rational>) {
    let (mut width, mut height) = (video.width, video.height);
    let mut aspect = video.sample_aspect.filter(|a| a.is_positive());
    if matches!(video.rotation, 90 | 270) {
        (width, height) = (height, width);
        aspect = aspect.and_then(Rational::inverse);
    }
    let sar = aspect.unwrap_or(Rational::ONE);
    // Display size in units of 1/den of a pixel, by the width, as players do.
    let (num, unit) = (i128::from(sar.num()), i128::from(sar.den()));
    let (w, h) = (i128::from(width), i128::from(height));
    let (shown_w, shown_h) = (w * num, h * unit);
    // The scale is the smallest of 1, box width / display width, box height / display height.
    let limit = |side: Option<u32>, shown: i128| side.map(|s| (i128::from(s & !1) * unit, shown));
    let scale = [limit(encode.width, shown_w), limit(encode.height, shown_h)]
        .into_iter()
        .flatten()
        .filter(|(bound, shown)| bound < shown)
        .min_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)))
        .unwrap_or((1, 1));
    let (from_w, from_h, of, aspect) = match encode.pixels {
        Pixels::Keep => (w, h, 1, aspect),
        Pixels::Square => (shown_w, shown_h, unit, aspect.map(|_| Rational::ONE)),
    };
    let (even_w, even_h) = match chroma {
        Chroma::C420 => (2, 2),
        Chroma::C422 => (2, 1),
        Chroma::C444 | Chroma::Mono => (1, 1),
    };
    // Without a scale the lossless encoder keeps odd sizes; its chroma planes round up.
    let (even_w, even_h) =
        if encode.settings.variant == VideoVariant::Ffv1 { (1, 1) } else { (even_w, even_h) };
    let side = |from: i128, even: i128| {
        let whole = from * scale.0;
        let unit = of * scale.1 * even;
        let nearest = (whole + unit / 2) / unit * even;
        // Rounding up must not grow the picture.
        let side = if nearest * of > from { nearest - even } else { nearest };
        side.clamp(even, i128::from(u32::MAX)) as u32
    };
    (side(from_w, even_w), side(from_h, even_h), aspect)
}

/// Ticks as milliseconds, rounded.
pub(crate) fn milliseconds(ticks: i64, time_base: Rational) -> u64 {
    let (num, den) = (time_base.num(), time_base.den());
    let ms = i128::from(ticks) * i128::from(num) * 1000;
    let ms = (ms + i128::from(den) / 2).div_euclid(i128::from(den));
    u64::try_from(ms.max(0)).unwrap_or(u64::MAX)
}
