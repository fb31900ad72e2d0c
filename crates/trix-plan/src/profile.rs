//! Profiles: what is to be made of a title, resolved and checked.
//!
//! A profile is one readable TOML file (see `profiles/` for those that are
//! shipped and for every key in use). [`crate::request`] reads what was asked
//! for; this file turns it into what is meant, with all defaults filled in and
//! every value checked. Its version is a hash over the result.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trix_model::digest::Digest;
use trix_model::pixel::Chroma;
use trix_model::{Failure, RelPath, ShareName};
use unicode_normalization::UnicodeNormalization;

use crate::canon::canonical;
use crate::encoder::{AudioCodec, AudioSettings, RateControl, Vbv, VideoSettings, VideoVariant};
use crate::params::{self, ParamError};
use crate::request::{AudioRequest, DestinationRequest, EncodeRequest, PreviewRequest, Request};
use crate::rules;
use crate::task::Container;

pub use crate::request::Problem;

/// Version of the profile's format.
const VERSION: u32 = 1;

/// A resolved profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Version of this structure.
    pub v: u32,
    /// Name: a-z, 0-9, `-` and `_`.
    pub name: String,
    /// One sentence for people.
    pub description: String,
    /// Milliseconds of a segment; rounded to whole frames when a film is planned.
    pub segment_ms: u32,
    /// Bit-exact copy, if one is kept, and where the mezzanine goes.
    pub archive: Option<Archive>,
    /// Where finished files go.
    pub publish: Option<Destination>,
    /// Poster, thumbnails and the share of the proxy.
    pub preview: Option<Preview>,
    /// Files to make, in the order of the profile.
    pub files: Vec<FileSpec>,
}

/// A share and a folder on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The share.
    pub share: ShareName,
    /// Folder of a title, with the fields `{title}`, `{profile}` and `{source}`.
    pub path: String,
}

/// What is kept for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Where.
    pub to: Destination,
    /// Keep the source bit for bit; otherwise only the mezzanine is kept.
    pub keep_source: bool,
}

/// What people look at before they decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Where.
    pub to: Destination,
    /// Make a poster.
    pub poster: bool,
    /// Make thumbnails.
    pub thumbnails: Option<Thumbnails>,
}

/// Thumbnails for scrubbing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thumbnails {
    /// Seconds from one to the next.
    pub every_s: u32,
    /// Width in square pixels.
    pub width: u32,
}

/// One file to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// Unique in the profile; the file is called after it.
    pub name: String,
    /// Whom it is for.
    pub role: Role,
    /// Container.
    pub container: Container,
    /// The picture.
    pub video: VideoTrack,
    /// Sound: each entry is applied to every matching track of the source.
    pub audio: Vec<AudioTrack>,
}

/// Whom a file is for: it decides the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Production: goes to the output share.
    Output,
    /// A mezzanine: goes to the archive share.
    Archive,
    /// A proxy: goes to the preview share.
    Preview,
}

/// The picture of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "video", rename_all = "snake_case")]
pub enum VideoTrack {
    /// Encoded anew.
    Encode(VideoEncode),
    /// The source's packets as they are.
    Copy,
    /// No picture.
    None,
}

/// How a picture is encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoEncode {
    /// Encoder settings; `keyint` is set when a film is planned.
    pub settings: VideoSettings,
    /// Box that the picture is fitted into, in display pixels: it keeps its aspect and never grows.
    pub width: Option<u32>,
    /// See `width`.
    pub height: Option<u32>,
    /// What becomes of pixels that are not square.
    pub pixels: Pixels,
    /// Chroma sampling.
    pub chroma: ChromaChoice,
}

/// What becomes of pixels that are not square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pixels {
    /// They stay as they are, and so does the sample aspect ratio.
    Keep,
    /// The picture is scaled to square ones.
    Square,
}

/// Chroma sampling of an encoded picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChromaChoice {
    /// Half width, half height: what players play.
    #[serde(rename = "4:2:0")]
    C420,
    /// Half width.
    #[serde(rename = "4:2:2")]
    C422,
    /// Full.
    #[serde(rename = "4:4:4")]
    C444,
    /// The source's.
    #[serde(rename = "source")]
    Source,
}

/// Sound of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioTrack {
    /// Unique among the tracks of a profile unless the settings are the same.
    pub name: String,
    /// Settings; what is open is taken from the source track.
    pub settings: AudioSettings,
    /// Which tracks of the source.
    pub languages: Languages,
}

/// Which sound tracks of a source are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Languages {
    /// All, also those that state none.
    All,
    /// Those that state one of these ISO 639-2 codes; `und` means none stated.
    Only(BTreeSet<String>),
}

/// Everything that is wrong with a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading the profile{}: {}", named(.name), list(.problems))]
pub struct ProfileError {
    /// The profile's name, if it says one.
    pub name: Option<String>,
    /// Every mistake, in the order of the file.
    pub problems: Vec<Problem>,
}

fn named(name: &Option<String>) -> String {
    name.as_ref().map(|n| format!(" {n:?}")).unwrap_or_default()
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

impl From<ProfileError> for Failure {
    fn from(e: ProfileError) -> Failure {
        let object = e.name.clone().unwrap_or_default();
        Failure::request("bad_profile", e.to_string()).about(object)
    }
}

/// One file without a profile: the command line form.
#[derive(Clone, Debug, Default)]
pub struct SingleFile {
    /// An encoder by name, `copy` or `none`.
    pub video: String,
    /// Container of the file.
    pub container: Option<Container>,
    /// `--preset`.
    pub preset: Option<String>,
    /// `--tune`.
    pub tune: Option<String>,
    /// `--crf`, a decimal.
    pub crf: Option<String>,
    /// `--qp`.
    pub qp: Option<i64>,
    /// `--bitrate` in kbit/s.
    pub bitrate_kbps: Option<i64>,
    /// `--params key=value:key=value`.
    pub params: Option<String>,
    /// `--size WxH`.
    pub size: Option<String>,
    /// `--chroma`.
    pub chroma: Option<String>,
    /// `--threads` inside the encoder.
    pub threads: Option<i64>,
    /// `aac`, `flac`, `pcm`, `copy` or `none`.
    pub audio: String,
    /// `--audio-bitrate` in bit/s.
    pub audio_bit_rate: Option<i64>,
}

/// The profiles that are built in: name and text.
const SHIPPED: &[(&str, &str)] = &[
    ("archive-and-ladder", include_str!("../profiles/archive-and-ladder.toml")),
    ("ladder-veryfast", include_str!("../profiles/ladder-veryfast.toml")),
    ("h264-single", include_str!("../profiles/h264-single.toml")),
    ("hevc-10", include_str!("../profiles/hevc-10.toml")),
    ("av1", include_str!("../profiles/av1.toml")),
    ("mezzanine-ffv1", include_str!("../profiles/mezzanine-ffv1.toml")),
];

impl Profile {
    /// Name and text of every shipped profile.
    pub fn shipped() -> &'static [(&'static str, &'static str)] {
        SHIPPED
    }

    /// Text of a shipped profile.
    pub fn shipped_text(name: &str) -> Option<&'static str> {
        SHIPPED.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
    }

    /// Reads a profile. All mistakes are reported at once.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        let (request, mut problems) = Request::read(text);
        let name = request.name.clone();
        // What did not read is reported; asking for more of it would only repeat that.
        let syntax = problems.iter().any(|p| p.key == "TOML");
        let mut check = Check { lines: &request.lines, problems: Vec::new() };
        let profile = if syntax { None } else { Some(check.profile(&request)) };
        let known: BTreeSet<String> = problems.iter().map(|p| p.key.clone()).collect();
        problems.extend(check.problems.into_iter().filter(|p| !known.contains(&p.key)));
        problems.sort_by_key(|p| p.line.unwrap_or(u32::MAX));
        match profile {
            Some(profile) if problems.is_empty() => Ok(profile),
            _ => Err(ProfileError { name, problems }),
        }
    }

    /// The profile that makes one file as the command line says.
    ///
    /// Problems name options (`--crf`) instead of keys.
    pub fn single(file: &SingleFile) -> Result<Profile, ProfileError> {
        let lines = BTreeMap::new();
        let mut check = Check { lines: &lines, problems: Vec::new() };
        let size = file.size.as_ref().and_then(|s| {
            let size = s
                .split_once(['x', 'X'])
                .and_then(|(w, h)| Some((w.trim().parse().ok()?, h.trim().parse().ok()?)));
            if size.is_none() {
                check.refuse("size", s, "it takes WIDTHxHEIGHT, for example 1280x720");
            }
            size
        });
        let params = match file.params.as_deref().map(params::parse).transpose() {
            Ok(params) => params.unwrap_or_default(),
            Err(e) => {
                let given = file.params.as_deref().unwrap_or_default();
                check.refuse("params", given, &format!("it takes key=value:key=value; {e}"));
                BTreeMap::new()
            }
        };
        let encode = EncodeRequest {
            encoder: Some(file.video.clone()),
            preset: file.preset.clone(),
            tune: file.tune.clone(),
            crf: file.crf.as_deref().map(|crf| {
                // What is no decimal is refused by the encoder's own range.
                params::millionths(crf).map_or_else(|| crf.to_owned(), params::decimal_text)
            }),
            qp: file.qp,
            bitrate_kbps: file.bitrate_kbps,
            params,
            width: size.map(|s: (i64, i64)| s.0),
            height: size.map(|s| s.1),
            chroma: file.chroma.clone(),
            threads: file.threads,
            ..EncodeRequest::default()
        };
        let audio = if file.audio == "none" {
            Vec::new()
        } else {
            vec![AudioRequest {
                codec: Some(file.audio.clone()),
                bit_rate: file.audio_bit_rate,
                ..AudioRequest::default()
            }]
        };
        let container = file.container.unwrap_or(Container::Mp4);
        let video = check.video("", &encode, &EncodeRequest::default());
        let audio = check.audios("audio", &audio);
        let spec =
            FileSpec { name: "output".to_owned(), role: Role::Output, container, video, audio };
        check.fits("video", &spec);
        if matches!(spec.video, VideoTrack::None) && spec.audio.is_empty() {
            check.refuse("video", "none", "a file needs a picture or sound");
        }
        let problems: Vec<Problem> = check.problems.into_iter().map(as_option).collect();
        if !problems.is_empty() {
            return Err(ProfileError { name: None, problems });
        }
        Ok(Profile {
            v: VERSION,
            name: "single".to_owned(),
            description: format!("One file: {}", file.video),
            segment_ms: 2000,
            archive: None,
            publish: None,
            preview: None,
            files: vec![spec],
        })
    }

    /// Content hash: the version of a profile.
    pub fn version(&self) -> Digest {
        // A resolved profile holds integers and text only, so it always has a canonical form; if
        // that were ever broken, the hash of the error text still tells profiles apart by it.
        let text = canonical(self).unwrap_or_else(|e| e.to_string());
        Digest(*blake3::hash(text.as_bytes()).as_bytes())
    }

    /// Every share that it writes to.
    pub fn shares(&self) -> BTreeSet<&ShareName> {
        let archive = self.archive.iter().map(|a| &a.to);
        let preview = self.preview.iter().map(|p| &p.to);
        archive.chain(&self.publish).chain(preview).map(|d| &d.share).collect()
    }
}

/// A key of the conversion as the option of the command line that set it.
fn as_option(problem: Problem) -> Problem {
    let last = problem.key.rsplit('.').next().unwrap_or_default();
    let option = match problem.key.as_str() {
        k if k.starts_with("audio") => match last {
            "bit_rate" => "--audio-bitrate",
            _ => "--audio",
        },
        k if k.starts_with("params.") => return Problem { key: format!("--{k}"), ..problem },
        _ => match last {
            "width" | "height" => "--size",
            "encoder" => "--video",
            "bitrate_kbps" => "--bitrate",
            other => return Problem { key: format!("--{other}"), ..problem },
        },
    };
    Problem { key: option.to_owned(), ..problem }
}

/// The conversion of a request into a profile; it goes on after a problem to find them all.
struct Check<'l> {
    lines: &'l BTreeMap<String, u32>,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn refuse(&mut self, key: &str, value: &str, allowed: &str) {
        // A missing key is reported where its section stands.
        let section = key.rsplit_once('.').map_or("", |(section, _)| section);
        let line = self.lines.get(key).or_else(|| self.lines.get(section)).copied();
        let (key, value) = (key.to_owned(), value.to_owned());
        self.problems.push(Problem { key, value, allowed: allowed.to_owned(), line });
    }

    fn profile(&mut self, request: &Request) -> Profile {
        let name = self.name("name", request.name.as_deref());
        let segment_ms = self.segment(request.segment_seconds.as_deref());
        let container = self.container("package.container", request.container.as_deref());
        let audio = self.audios("audio", &request.audio);
        let mut files = Vec::new();
        for (i, rendition) in request.renditions.iter().enumerate() {
            let at = format!("rendition[{i}]");
            let name = self.name(&format!("{at}.name"), rendition.name.as_deref());
            let video = self.video(&format!("{at}."), rendition, &request.video);
            let container = container.unwrap_or(Container::Mp4);
            let audio = audio.clone();
            let spec = FileSpec { name, role: Role::Output, container, video, audio };
            self.fits(&at, &spec);
            files.push(spec);
        }
        let archive = request.archive.as_ref().and_then(|a| {
            let to = self.destination("archive", a)?;
            Some(Archive { to, keep_source: a.keep.unwrap_or(true) })
        });
        if let Some(mezzanine) = &request.mezzanine {
            files.push(self.mezzanine(mezzanine));
            if request.archive.is_none() {
                self.refuse("mezzanine", "a table", "it needs [archive], where it is kept");
            }
        }
        let publish = request.publish.as_ref().and_then(|p| self.destination("publish", p));
        if request.publish.is_none() && !request.renditions.is_empty() {
            self.refuse("publish.share", "", "renditions need a share to be published on");
        }
        let preview = request.preview.as_ref().and_then(|p| self.preview(p));
        if let Some(proxy) = request.preview.as_ref().and_then(|p| p.proxy.as_ref()) {
            files.push(self.proxy(proxy));
        }
        let mut seen = BTreeSet::new();
        for (i, rendition) in request.renditions.iter().enumerate() {
            let name = rendition.name.as_deref().unwrap_or_default();
            if !name.is_empty() && !seen.insert(name) {
                self.refuse(&format!("rendition[{i}].name"), name, "each name is used once");
            }
            if matches!(name, "mezzanine" | "proxy") {
                let allowed = "mezzanine and proxy are names of other sections";
                self.refuse(&format!("rendition[{i}].name"), name, allowed);
            }
        }
        if files.is_empty() && archive.is_none() && preview.is_none() {
            self.refuse("rendition", "", "a profile makes a rendition, an archive or a preview");
        }
        if archive.as_ref().is_some_and(|a| !a.keep_source) && request.mezzanine.is_none() {
            self.refuse("archive.keep", "false", "without [mezzanine] nothing would be archived");
        }
        Profile {
            v: VERSION,
            name,
            description: request.description.clone().unwrap_or_default(),
            segment_ms,
            archive,
            publish,
            preview,
            files,
        }
    }

    fn name(&mut self, key: &str, name: Option<&str>) -> String {
        let allowed = "allowed are 1 to 63 of a-z, 0-9, - and _, beginning with a letter or digit";
        let name = name.unwrap_or_default();
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ok = (1..=63).contains(&name.len())
            && name.bytes().all(|b| fine(b) || b == b'-' || b == b'_')
            && name.bytes().next().is_some_and(fine);
        if !ok {
            self.refuse(key, name, allowed);
        }
        name.to_owned()
    }

    fn segment(&mut self, seconds: Option<&str>) -> u32 {
        let Some(text) = seconds else { return 2000 };
        match params::millionths(text) {
            Some(n) if (500_000..=10_000_000).contains(&n) && n % 1000 == 0 => (n / 1000) as u32,
            _ => {
                let allowed = "allowed is 0.5 to 10, in thousandths at most";
                self.refuse("video.segment_seconds", text, allowed);
                2000
            }
        }
    }

    fn container(&mut self, key: &str, name: Option<&str>) -> Option<Container> {
        let name = name?;
        let container = Container::ALL.iter().copied().find(|c| c.as_str() == name);
        if container.is_none() {
            self.refuse(key, name, "allowed are mp4, mov and mkv");
        }
        container
    }

    fn destination(&mut self, section: &str, asked: &DestinationRequest) -> Option<Destination> {
        let path = asked.path.as_deref().unwrap_or("{title}");
        if let Err(why) = fill(path, &Fields { title: "t", profile: "p", source: "s" }) {
            self.refuse(&format!("{section}.path"), path, &why);
        }
        let key = format!("{section}.share");
        let allowed = "it takes the name of a share: 1 to 63 of a-z, 0-9 and -";
        match asked.share.as_deref().map(str::parse::<ShareName>) {
            Some(Ok(share)) => Some(Destination { share, path: path.to_owned() }),
            Some(Err(_)) => {
                self.refuse(&key, asked.share.as_deref().unwrap_or_default(), allowed);
                None
            }
            None => {
                self.refuse(&key, "", allowed);
                None
            }
        }
    }

    fn preview(&mut self, asked: &PreviewRequest) -> Option<Preview> {
        let to = self.destination("preview", &asked.destination);
        let every = asked.thumbnail_seconds.unwrap_or(10);
        let every_s = self.whole("preview.thumbnail_seconds", Some(every), 0..=3600);
        let width = asked.thumbnail_width.unwrap_or(160);
        let width = self.whole("preview.thumbnail_width", Some(width), 32..=640);
        let thumbnails = match (every_s, width) {
            (Some(every_s), Some(width)) if every_s > 0 => Some(Thumbnails { every_s, width }),
            _ => None,
        };
        Some(Preview { to: to?, poster: asked.poster.unwrap_or(true), thumbnails })
    }

    /// A whole number in a range.
    fn whole(
        &mut self,
        key: &str,
        n: Option<i64>,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<u32> {
        let n = n?;
        if range.contains(&n) {
            return u32::try_from(n).ok();
        }
        let allowed = format!("allowed is {} to {}", range.start(), range.end());
        self.refuse(key, &n.to_string(), &allowed);
        None
    }

    fn mezzanine(&mut self, asked: &EncodeRequest) -> FileSpec {
        let at = "mezzanine";
        let container = self.container("mezzanine.container", asked.container.as_deref());
        let container = container.unwrap_or(Container::Mkv);
        let ffv1 = EncodeRequest {
            encoder: Some(VideoVariant::Ffv1.as_str().to_owned()),
            ..EncodeRequest::default()
        };
        let video = self.video("mezzanine.", asked, &ffv1);
        let codec = asked.audio.clone().unwrap_or_else(|| match container {
            Container::Mkv => "flac".to_owned(),
            Container::Mov | Container::Mp4 => "pcm".to_owned(),
        });
        let audio = self.one_audio("mezzanine.audio", at, codec, None, None);
        let name = at.to_owned();
        let spec = FileSpec { name, role: Role::Archive, container, video, audio };
        self.fits(at, &spec);
        spec
    }

    fn proxy(&mut self, asked: &EncodeRequest) -> FileSpec {
        let small = EncodeRequest {
            encoder: Some(VideoVariant::X264_8.as_str().to_owned()),
            preset: Some("veryfast".to_owned()),
            crf: Some("28".to_owned()),
            // A height given alone would otherwise be limited by this width too.
            width: if asked.height.is_some() { None } else { Some(480) },
            height: if asked.width.is_some() { None } else { Some(270) },
            ..EncodeRequest::default()
        };
        let video = self.video("preview.proxy.", asked, &small);
        let audio = self.one_audio("preview", "proxy", "aac".to_owned(), Some(96_000), Some(2));
        let container = Container::Mp4;
        let name = "proxy".to_owned();
        let spec = FileSpec { name, role: Role::Preview, container, video, audio };
        self.fits("preview.proxy", &spec);
        spec
    }

    fn one_audio(
        &mut self,
        key: &str,
        name: &str,
        codec: String,
        bit_rate: Option<i64>,
        channels: Option<i64>,
    ) -> Vec<AudioTrack> {
        if codec == "none" {
            return Vec::new();
        }
        let (name, codec) = (Some(name.to_owned()), Some(codec));
        let asked = AudioRequest { name, codec, bit_rate, channels, ..AudioRequest::default() };
        self.audio_track(&format!("{key}."), &asked).into_iter().collect()
    }

    fn audios(&mut self, section: &str, asked: &[AudioRequest]) -> Vec<AudioTrack> {
        let mut tracks: Vec<AudioTrack> = Vec::new();
        for (i, asked) in asked.iter().enumerate() {
            let at = format!("{section}[{i}].");
            let Some(track) = self.audio_track(&at, asked) else { continue };
            if tracks.iter().any(|t| t.name == track.name)
                || matches!(track.name.as_str(), "mezzanine" | "proxy")
            {
                let allowed = "each name is used once; without one the codec is the name";
                self.refuse(&format!("{at}name"), &track.name, allowed);
            }
            tracks.push(track);
        }
        tracks
    }

    fn audio_track(&mut self, at: &str, asked: &AudioRequest) -> Option<AudioTrack> {
        let key = |name: &str| format!("{at}{name}");
        let allowed = "allowed are aac, flac, pcm and copy";
        let codec = match asked.codec.as_deref() {
            Some(text) => match AudioCodec::ALL.iter().find(|c| c.as_str() == text) {
                Some(codec) => *codec,
                None => {
                    self.refuse(&key("codec"), text, allowed);
                    return None;
                }
            },
            None => {
                self.refuse(&key("codec"), "", allowed);
                return None;
            }
        };
        let name = match &asked.name {
            Some(name) => self.name(&key("name"), Some(name)),
            None => codec.as_str().to_owned(),
        };
        let bit_rate = self.whole(&key("bit_rate"), asked.bit_rate, 8_000..=1_536_000);
        let channels = self.whole(&key("channels"), asked.channels, 1..=8).map(|n| n as u16);
        let sample_rate = self.whole(&key("sample_rate"), asked.sample_rate, 8_000..=192_000);
        if let Some(n) = asked.bit_rate
            && codec != AudioCodec::Aac
        {
            let allowed = format!("{} has no bit rate to choose", codec.as_str());
            self.refuse(&key("bit_rate"), &n.to_string(), &allowed);
        }
        if codec == AudioCodec::Aac && sample_rate.is_some_and(|n| n > 96_000) {
            let n = sample_rate.unwrap_or_default().to_string();
            self.refuse(&key("sample_rate"), &n, "AAC allows 8000 to 96000");
        }
        if codec == AudioCodec::Copy {
            for (name, n) in [("channels", asked.channels), ("sample_rate", asked.sample_rate)] {
                if let Some(n) = n {
                    self.refuse(&key(name), &n.to_string(), "copied sound stays as it is");
                }
            }
        }
        let languages = match &asked.languages {
            None => Languages::All,
            Some(list) if list.iter().any(|l| l == "all") => Languages::All,
            Some(list) => {
                let bad = |l: &&String| l.len() != 3 || !l.bytes().all(|b| b.is_ascii_lowercase());
                let allowed = "allowed are \"all\" or ISO 639-2 codes such as \"eng\"";
                if let Some(bad) = list.iter().find(bad) {
                    self.refuse(&key("languages"), bad, allowed);
                }
                if list.is_empty() {
                    self.refuse(&key("languages"), "[]", allowed);
                }
                Languages::Only(list.iter().cloned().collect())
            }
        };
        let settings = AudioSettings { codec, bit_rate, channels, sample_rate };
        Some(AudioTrack { name, settings, languages })
    }

    /// The picture of a file; `base` is what it falls back to.
    fn video(&mut self, at: &str, asked: &EncodeRequest, base: &EncodeRequest) -> VideoTrack {
        let key = |name: &str| format!("{at}{name}");
        let encoder = asked.encoder.as_deref().or(base.encoder.as_deref()).unwrap_or("x264-8");
        let variant = match encoder {
            "copy" | "none" => {
                self.nothing_to_set(at, asked, encoder);
                return if encoder == "copy" { VideoTrack::Copy } else { VideoTrack::None };
            }
            name => match name.parse::<VideoVariant>() {
                Ok(variant) => variant,
                Err(_) => {
                    let all: Vec<_> = VideoVariant::ALL.iter().map(|v| v.as_str()).collect();
                    let allowed = format!("allowed are {}, copy and none", all.join(", "));
                    self.refuse(&key("encoder"), name, &allowed);
                    return VideoTrack::None;
                }
            },
        };
        // What falls back is meant for the encoder that stands beside it.
        let same = base.encoder.as_deref().unwrap_or("x264-8") == variant.as_str();
        let base = if same {
            base.clone()
        } else {
            EncodeRequest {
                width: base.width,
                height: base.height,
                threads: base.threads,
                pixels: base.pixels.clone(),
                ..EncodeRequest::default()
            }
        };
        let settings = self.settings(at, variant, asked, &base);
        let width = self.whole(&key("width"), asked.width.or(base.width), 16..=16_384);
        let height = self.whole(&key("height"), asked.height.or(base.height), 16..=16_384);
        let pixels = match asked.pixels.as_deref().or(base.pixels.as_deref()) {
            None | Some("keep") => Pixels::Keep,
            Some("square") => Pixels::Square,
            Some(other) => {
                self.refuse(&key("pixels"), other, "allowed are keep and square");
                Pixels::Keep
            }
        };
        let chroma = match asked.chroma.as_deref().or(base.chroma.as_deref()) {
            None if variant == VideoVariant::Ffv1 => ChromaChoice::Source,
            None | Some("4:2:0") => ChromaChoice::C420,
            Some("4:2:2") => ChromaChoice::C422,
            Some("4:4:4") => ChromaChoice::C444,
            Some("source") => ChromaChoice::Source,
            Some(other) => {
                let allowed = "allowed are 4:2:0, 4:2:2, 4:4:4 and source";
                self.refuse(&key("chroma"), other, allowed);
                ChromaChoice::C420
            }
        };
        let sampling = match chroma {
            ChromaChoice::C420 => Some(Chroma::C420),
            ChromaChoice::C422 => Some(Chroma::C422),
            ChromaChoice::C444 => Some(Chroma::C444),
            // Known only when the source is.
            ChromaChoice::Source => None,
        };
        if let Some(Err(e)) = sampling.map(|c| rules::check_chroma(&settings, c)) {
            self.param(at, &e);
        }
        VideoTrack::Encode(VideoEncode { settings, width, height, pixels, chroma })
    }

    fn nothing_to_set(&mut self, at: &str, asked: &EncodeRequest, encoder: &str) {
        let number = |n: Option<i64>| n.map(|n| n.to_string());
        let set = [
            ("preset", asked.preset.clone()),
            ("tune", asked.tune.clone()),
            ("crf", asked.crf.clone()),
            ("qp", number(asked.qp)),
            ("bitrate_kbps", number(asked.bitrate_kbps)),
            ("maxrate_kbps", number(asked.maxrate_kbps)),
            ("bufsize_kbit", number(asked.bufsize_kbit)),
            ("lossless", asked.lossless.map(|b| b.to_string())),
            ("width", number(asked.width)),
            ("height", number(asked.height)),
            ("pixels", asked.pixels.clone()),
            ("chroma", asked.chroma.clone()),
            ("threads", number(asked.threads)),
            ("params", asked.params.keys().next().cloned()),
        ];
        let allowed = format!("nothing is encoded with encoder = {encoder:?}");
        for (name, value) in set {
            if let Some(value) = value {
                self.refuse(&format!("{at}{name}"), &value, &allowed);
            }
        }
    }

    fn settings(
        &mut self,
        at: &str,
        variant: VideoVariant,
        asked: &EncodeRequest,
        base: &EncodeRequest,
    ) -> VideoSettings {
        let preset = asked.preset.clone().or_else(|| base.preset.clone());
        let preset = preset.unwrap_or_else(|| default_preset(variant).to_owned());
        let tune = asked.tune.clone().or_else(|| base.tune.clone());
        let rate = self.rate(at, variant, asked, base);
        let mut params = base.params.clone();
        params.extend(asked.params.clone());
        let (params, mut errors) = match params::canonical(variant, &params) {
            Ok(params) => (params, Vec::new()),
            Err(errors) => (BTreeMap::new(), errors),
        };
        let threads = asked.threads.or(base.threads).unwrap_or(1);
        let threads = match u32::try_from(threads) {
            Ok(threads) => threads,
            Err(_) => {
                self.refuse(&format!("{at}threads"), &threads.to_string(), "allowed is 1 to 128");
                1
            }
        };
        let settings = VideoSettings { variant, preset, tune, rate, keyint: 0, threads, params };
        errors.extend(params::check_settings(&settings).err().unwrap_or_default());
        for e in errors {
            self.param(at, &e);
        }
        settings
    }

    /// A refusal of the encoder's tables under the profile's key for it.
    fn param(&mut self, at: &str, e: &ParamError) {
        let key = |key: &str| match key {
            "preset" | "tune" | "threads" | "crf" | "qp" => format!("{at}{key}"),
            "bitrate" => format!("{at}bitrate_kbps"),
            "vbv-maxrate" => format!("{at}maxrate_kbps"),
            "vbv-bufsize" => format!("{at}bufsize_kbit"),
            "vbv" => format!("{at}maxrate_kbps"),
            other => format!("{at}params.{other}"),
        };
        match e {
            ParamError::Value { key: k, value, allowed, variant } if k == "rate" => {
                let key = match value.as_str() {
                    "bitrate" => format!("{at}bitrate_kbps"),
                    mode => format!("{at}{mode}"),
                };
                let allowed = format!("{variant} takes {allowed}");
                self.refuse(&key, value, &allowed);
            }
            ParamError::Value { key: k, value, allowed, .. } => {
                self.refuse(&key(k), shown(value), &format!("allowed is {allowed}"));
            }
            ParamError::Unknown { key: k, value, variant, .. } => {
                let names: Vec<_> = params::table(*variant).iter().map(|p| p.name).collect();
                let allowed = format!("{e}; it knows {}", names.join(", "));
                self.refuse(&format!("{at}params.{k}"), shown(value), &allowed);
            }
            ParamError::Owned { key: k, value, .. } => {
                self.refuse(&format!("{at}params.{k}"), shown(value), &e.to_string());
            }
            ParamError::Twice { key: k, first, .. } => {
                self.refuse(&format!("{at}params.{k}"), first, &e.to_string());
            }
            ParamError::Syntax { piece } => {
                self.refuse(&format!("{at}params"), piece, &e.to_string());
            }
        }
    }

    fn rate(
        &mut self,
        at: &str,
        variant: VideoVariant,
        asked: &EncodeRequest,
        base: &EncodeRequest,
    ) -> RateControl {
        let says = |r: &EncodeRequest| {
            r.crf.is_some()
                || r.qp.is_some()
                || r.bitrate_kbps.is_some()
                || r.lossless == Some(true)
        };
        let from = if says(asked) { asked } else { base };
        let maxrate = asked.maxrate_kbps.or(base.maxrate_kbps);
        let bufsize = asked.bufsize_kbit.or(base.bufsize_kbit);
        let given: Vec<&str> = [
            ("crf", from.crf.is_some()),
            ("qp", from.qp.is_some()),
            ("bitrate_kbps", from.bitrate_kbps.is_some()),
            ("lossless", from.lossless == Some(true)),
        ]
        .into_iter()
        .filter_map(|(name, is)| is.then_some(name))
        .collect();
        if given.len() > 1 {
            let allowed = format!("only one of {} can be set", given.join(", "));
            self.refuse(&format!("{at}{}", given[1]), "set", &allowed);
        }
        let vbv = match (maxrate, bufsize) {
            (None, None) => None,
            (Some(max), buffer) => {
                let range = 1..=2_000_000;
                let max_kbps = self.whole(&format!("{at}maxrate_kbps"), Some(max), range.clone());
                // Without a buffer size: two seconds at the highest rate, as ladders do.
                let buffer = buffer.unwrap_or(max.saturating_mul(2).min(2_000_000));
                let buffer_kbit = self.whole(&format!("{at}bufsize_kbit"), Some(buffer), range);
                max_kbps
                    .zip(buffer_kbit)
                    .map(|(max_kbps, buffer_kbit)| Vbv { max_kbps, buffer_kbit })
            }
            (None, Some(buffer)) => {
                let allowed = "it needs maxrate_kbps beside it";
                self.refuse(&format!("{at}bufsize_kbit"), &buffer.to_string(), allowed);
                None
            }
        };
        let rate = if let Some(crf) = &from.crf {
            RateControl::Crf { crf: crf.clone(), vbv }
        } else if let Some(qp) = from.qp {
            let qp = self.whole(&format!("{at}qp"), Some(qp), 0..=255).unwrap_or(0);
            RateControl::Qp { qp }
        } else if let Some(kbps) = from.bitrate_kbps {
            let key = format!("{at}bitrate_kbps");
            let kbps = self.whole(&key, Some(kbps), 1..=2_000_000).unwrap_or(1);
            RateControl::Bitrate { kbps, vbv }
        } else if from.lossless == Some(true) {
            RateControl::Lossless
        } else {
            default_rate(variant, vbv)
        };
        if vbv.is_some() && matches!(rate, RateControl::Qp { .. } | RateControl::Lossless) {
            let max = maxrate.unwrap_or_default().to_string();
            self.refuse(&format!("{at}maxrate_kbps"), &max, "only crf and bitrate can be capped");
        }
        rate
    }

    /// Codecs that a container does not hold.
    fn fits(&mut self, at: &str, spec: &FileSpec) {
        let container = spec.container;
        if let VideoTrack::Encode(v) = &spec.video {
            let codec = v.settings.variant.codec();
            if !container.holds(codec) {
                let allowed = format!("{} holds no {codec}", container.as_str());
                self.refuse(&format!("{at}.encoder"), v.settings.variant.as_str(), &allowed);
            }
        }
        for track in &spec.audio {
            let codec = match track.settings.codec {
                // Known only when the source is.
                AudioCodec::Copy => continue,
                AudioCodec::Aac => "aac",
                AudioCodec::Flac => "flac",
                AudioCodec::Pcm => "pcm_s24le",
            };
            if !container.holds(codec) {
                let name = track.settings.codec.as_str();
                let allowed = format!("{} holds no {name}", container.as_str());
                self.refuse(&format!("{at}.audio"), name, &allowed);
            }
        }
    }
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "\"\"" } else { value }
}

fn default_preset(variant: VideoVariant) -> &'static str {
    match variant {
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => "6",
        VideoVariant::Ffv1 => "",
        _ => "medium",
    }
}

/// Each library's own default.
fn default_rate(variant: VideoVariant, vbv: Option<Vbv>) -> RateControl {
    let crf = |crf: &str| RateControl::Crf { crf: crf.to_owned(), vbv };
    match variant {
        VideoVariant::X264_8 | VideoVariant::X264_10 => crf("23"),
        VideoVariant::X265_8 | VideoVariant::X265_10 | VideoVariant::X265_12 => crf("28"),
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => RateControl::Qp { qp: 100 },
        VideoVariant::Ffv1 => RateControl::Lossless,
    }
}

/// What the fields of a path template stand for.
pub(crate) struct Fields<'a> {
    /// The title.
    pub title: &'a str,
    /// The profile's name.
    pub profile: &'a str,
    /// The source's file name without its ending.
    pub source: &'a str,
}

/// A path template with its fields filled in, safe as a path whatever a title says.
pub(crate) fn fill(template: &str, fields: &Fields<'_>) -> Result<RelPath, String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let end = rest[at..].find('}').map(|e| at + e);
        let field = match end {
            Some(end) if rest[at..].starts_with('{') => &rest[at + 1..end],
            _ => return Err("a brace has no partner".to_owned()),
        };
        out.push_str(&match field {
            "title" => file_name(fields.title),
            "profile" => file_name(fields.profile),
            "source" => file_name(fields.source),
            _ => return Err("the fields are {title}, {profile} and {source}".to_owned()),
        });
        rest = &rest[end.map_or(rest.len(), |e| e + 1)..];
    }
    out.push_str(rest);
    let path: RelPath = out.parse().map_err(|e| format!("it takes a relative path; {e}"))?;
    if path.is_root() {
        return Err("a title needs a folder of its own".to_owned());
    }
    // Refused here, before anything is encoded; trix-storage would refuse it in the end.
    if path.as_str().split('/').any(|part| part.starts_with(".trix")) {
        return Err("names that begin with .trix are trix's own".to_owned());
    }
    Ok(path)
}

/// A title as part of one component of a path: nothing that leaves the folder, hides it, is too
/// long, or that a share of another system refuses or takes for something else. Letters of all
/// scripts stay.
fn file_name(title: &str) -> String {
    // One form of each letter: file systems that ignore the form would take two titles for one.
    let mut safe: String = title
        .trim()
        .nfc()
        .map(|c| match c {
            '/' | '\\' | '<' | '>' | ':' | '"' | '|' | '?' | '*' => '_',
            c if c.is_control() || is_direction_mark(c) => '_',
            c => c,
        })
        .collect();
    // File systems allow 255 bytes; the template may add some.
    let mut end = safe.len().min(180);
    while !safe.is_char_boundary(end) {
        end -= 1;
    }
    safe.truncate(end);
    // Windows drops blanks and dots at the end; a dot at the beginning hides the folder.
    let mut safe = safe.trim_start_matches(['.', ' ']).trim_end_matches(['.', ' ']).to_owned();
    if is_device(&safe) {
        safe.insert(0, '_');
    }
    if safe.is_empty() { "untitled".to_owned() } else { safe }
}

/// Marks that turn the direction of text make a name look like another.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}')
}

/// Names that are devices of Windows, whatever stands behind a dot.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or("").trim_end().to_ascii_uppercase();
    let port = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || port.is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{Fields, fill};

    #[test]
    fn a_title_is_one_plain_part_of_a_path() {
        let filled = |title: &str| {
            let fields = Fields { title, profile: "p", source: "s" };
            fill("films/{title}", &fields).map(|path| path.to_string())
        };
        for (title, part) in [
            ("../../etc", "_.._etc"),
            ("a/b", "a_b"),
            ("Film: Part 2?", "Film_ Part 2_"),
            ("CON", "_CON"),
            ("com1.mov", "_com1.mov"),
            ("\u{202e}gpj.exe", "_gpj.exe"),
            ("name. .", "name"),
            ("e\u{301}", "é"),
            ("...", "untitled"),
            ("Ирония судьбы", "Ирония судьбы"),
        ] {
            assert_eq!(filled(title), Ok(format!("films/{part}")), "{title:?}");
        }
        let fields = Fields { title: "x", profile: "p", source: "s" };
        assert!(fill(".trix/{title}", &fields).is_err());
        assert!(fill("a/.trix-{title}", &fields).is_err());
    }
}
