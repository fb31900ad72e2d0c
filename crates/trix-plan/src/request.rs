//! What a profile asks for: the TOML file, read with every mistake reported.
//!
//! The reader walks the document itself instead of deserialising it, so that
//! all mistakes come at once, each with its key, its value, what is allowed,
//! and its line. [`crate::profile::Profile`] is what the request means.

use std::cell::RefCell;
use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::params;

/// One mistake in a profile.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// Key in the file, e.g. `rendition[1].crf`, or an option such as `--crf`.
    pub key: String,
    /// The value as it was given; empty when the key is missing.
    pub value: String,
    /// What is allowed there, in words.
    pub allowed: String,
    /// Line in the file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if self.value.is_empty() {
            write!(f, "{} is missing; {}", self.key, self.allowed)
        } else {
            write!(f, "{} = {} is refused; {}", self.key, self.value, self.allowed)
        }
    }
}

/// A profile as it was asked for; nothing is filled in yet.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub name: Option<String>,
    pub description: Option<String>,
    pub segment_seconds: Option<String>,
    pub archive: Option<DestinationRequest>,
    pub publish: Option<DestinationRequest>,
    pub preview: Option<PreviewRequest>,
    pub container: Option<String>,
    /// `[video]`: what renditions fall back to.
    pub video: EncodeRequest,
    pub renditions: Vec<EncodeRequest>,
    pub audio: Vec<AudioRequest>,
    pub mezzanine: Option<EncodeRequest>,
    /// Where keys stand, for the problems that only the conversion sees.
    pub lines: BTreeMap<String, u32>,
}

#[derive(Debug, Default)]
pub(crate) struct DestinationRequest {
    pub share: Option<String>,
    pub path: Option<String>,
    /// `[archive]` only.
    pub keep: Option<bool>,
}

#[derive(Debug, Default)]
pub(crate) struct PreviewRequest {
    pub destination: DestinationRequest,
    pub poster: Option<bool>,
    pub thumbnail_seconds: Option<i64>,
    pub thumbnail_width: Option<i64>,
    pub proxy: Option<EncodeRequest>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct EncodeRequest {
    pub name: Option<String>,
    pub encoder: Option<String>,
    pub preset: Option<String>,
    pub tune: Option<String>,
    pub crf: Option<String>,
    pub qp: Option<i64>,
    pub bitrate_kbps: Option<i64>,
    pub lossless: Option<bool>,
    pub maxrate_kbps: Option<i64>,
    pub bufsize_kbit: Option<i64>,
    pub width: Option<i64>,
    pub height: Option<i64>,
    pub pixels: Option<String>,
    pub chroma: Option<String>,
    pub threads: Option<i64>,
    pub params: BTreeMap<String, String>,
    /// `[mezzanine]` only.
    pub container: Option<String>,
    /// `[mezzanine]` only.
    pub audio: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct AudioRequest {
    pub name: Option<String>,
    pub codec: Option<String>,
    pub bit_rate: Option<i64>,
    pub channels: Option<i64>,
    pub sample_rate: Option<i64>,
    pub languages: Option<Vec<String>>,
}

impl Request {
    /// Reads a file; the request holds what could be read beside the problems.
    pub fn read(text: &str) -> (Request, Vec<Problem>) {
        let page = Page { text, lines: RefCell::default(), problems: RefCell::default() };
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let syntax = errors.iter().map(|e| Problem {
                key: "TOML".to_owned(),
                value: e.message().trim().replace('\n', "; "),
                allowed: "the file must be valid TOML 1.0".to_owned(),
                line: e.span().map(|s| page.line(s.start)),
            });
            return (Request::default(), syntax.collect());
        }
        let mut request = Section::new(&page, String::new(), document.get_ref()).request();
        request.lines = page.lines.into_inner();
        (request, page.problems.into_inner())
    }
}

struct Page<'t> {
    text: &'t str,
    lines: RefCell<BTreeMap<String, u32>>,
    problems: RefCell<Vec<Problem>>,
}

impl Page<'_> {
    fn line(&self, at: usize) -> u32 {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        1 + before.iter().filter(|b| **b == b'\n').count() as u32
    }
}

/// A table of the document; each key is taken once, what is left over is unknown.
struct Section<'p, 't> {
    page: &'p Page<'t>,
    path: String,
    table: &'p DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'p, 't> Section<'p, 't> {
    fn new(page: &'p Page<'t>, path: String, table: &'p DeTable<'t>) -> Section<'p, 't> {
        Section { page, path, table, known: Vec::new() }
    }

    fn request(mut self) -> Request {
        match self.integer("v") {
            Some(1) => {}
            Some(v) => self.refuse("v", v.to_string(), "allowed is 1"),
            None if self.get("v").is_none() => self.refuse("v", String::new(), "write v = 1"),
            None => {}
        }
        let name = self.text("name");
        let description = self.text("description");
        let archive = self.section("archive", |s| DestinationRequest {
            share: s.text("share"),
            path: s.text("path"),
            keep: s.boolean("keep"),
        });
        let mut segment_seconds = None;
        let video = self.section("video", |s| {
            segment_seconds = s.decimal("segment_seconds");
            s.encode()
        });
        let renditions = self.sections("rendition", |s| {
            let name = s.text("name");
            EncodeRequest { name, ..s.encode() }
        });
        let audio = self.sections("audio", |s| AudioRequest {
            name: s.text("name"),
            codec: s.text("codec"),
            bit_rate: s.integer("bit_rate"),
            channels: s.integer("channels"),
            sample_rate: s.integer("sample_rate"),
            languages: s.texts("languages"),
        });
        let container = self.section("package", |s| s.text("container")).flatten();
        let mezzanine = self.section("mezzanine", |s| {
            let (container, audio) = (s.text("container"), s.text("audio"));
            EncodeRequest { container, audio, ..s.encode() }
        });
        let preview = self.section("preview", |s| PreviewRequest {
            destination: DestinationRequest {
                share: s.text("share"),
                path: s.text("path"),
                keep: None,
            },
            poster: s.boolean("poster"),
            thumbnail_seconds: s.integer("thumbnail_seconds"),
            thumbnail_width: s.integer("thumbnail_width"),
            proxy: s.section("proxy", |s| s.encode()),
        });
        let publish = self.section("publish", |s| DestinationRequest {
            share: s.text("share"),
            path: s.text("path"),
            keep: None,
        });
        self.done();
        Request {
            name,
            description,
            segment_seconds,
            archive,
            publish,
            preview,
            container,
            video: video.unwrap_or_default(),
            renditions,
            audio,
            mezzanine,
            lines: BTreeMap::new(),
        }
    }

    fn encode(&mut self) -> EncodeRequest {
        EncodeRequest {
            name: None,
            encoder: self.text("encoder"),
            preset: self.word("preset"),
            tune: self.text("tune"),
            crf: self.decimal("crf"),
            qp: self.integer("qp"),
            bitrate_kbps: self.integer("bitrate_kbps"),
            lossless: self.boolean("lossless"),
            maxrate_kbps: self.integer("maxrate_kbps"),
            bufsize_kbit: self.integer("bufsize_kbit"),
            width: self.integer("width"),
            height: self.integer("height"),
            pixels: self.text("pixels"),
            chroma: self.text("chroma"),
            threads: self.integer("threads"),
            params: self.params("params"),
            container: None,
            audio: None,
        }
    }

    fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn get(&self, name: &str) -> Option<&'p Spanned<DeValue<'t>>> {
        self.table.get(name)
    }

    /// Takes a key's value and notes where it stands.
    fn take(&mut self, name: &'static str) -> Option<&'p Spanned<DeValue<'t>>> {
        self.known.push(name);
        let value = self.get(name)?;
        self.note(self.key(name), value);
        Some(value)
    }

    fn note(&self, key: String, value: &Spanned<DeValue<'t>>) {
        let line = self.page.line(value.span().start);
        self.page.lines.borrow_mut().insert(key, line);
    }

    fn refuse(&self, name: &str, value: String, allowed: &str) {
        let line = self.get(name).map(|v| self.page.line(v.span().start));
        self.refuse_at(self.key(name), value, allowed, line);
    }

    fn refuse_at(&self, key: String, value: String, allowed: &str, line: Option<u32>) {
        let allowed = allowed.to_owned();
        self.page.problems.borrow_mut().push(Problem { key, value, allowed, line });
    }

    /// The value through `read`, or a problem that says what the key takes.
    fn read<T>(
        &mut self,
        name: &'static str,
        takes: &str,
        read: impl Fn(&'p DeValue<'t>) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(name)?.get_ref();
        let read = read(value);
        if read.is_none() {
            self.refuse(name, shown(value), &format!("it takes {takes}"));
        }
        read
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        self.read(name, "text in quotes", |v| v.as_str().map(str::to_owned))
    }

    /// Text, or a number for encoders whose presets are numbers.
    fn word(&mut self, name: &'static str) -> Option<String> {
        self.read(name, "text in quotes or a whole number", |v| match v {
            DeValue::Integer(_) => integer(v).map(|n| n.to_string()),
            v => v.as_str().map(str::to_owned),
        })
    }

    fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.read(name, "true or false", |v| v.as_bool())
    }

    fn integer(&mut self, name: &'static str) -> Option<i64> {
        self.read(name, "a whole number", integer)
    }

    fn decimal(&mut self, name: &'static str) -> Option<String> {
        self.read(name, "a decimal number such as 23.5", |v| {
            let text = match v {
                DeValue::Integer(_) => integer(v)?.to_string(),
                DeValue::Float(f) => f.as_str().to_owned(),
                v => v.as_str()?.to_owned(),
            };
            params::millionths(&text).map(params::decimal_text)
        })
    }

    /// A list of texts; one text alone is a list of one.
    fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        self.read(name, "text in quotes or a list of it", |v| match v {
            DeValue::Array(items) => {
                items.iter().map(|i| i.get_ref().as_str().map(str::to_owned)).collect()
            }
            v => v.as_str().map(|s| vec![s.to_owned()]),
        })
    }

    /// A table of an encoder's own parameters, whose keys are checked with the encoder known.
    fn params(&mut self, name: &'static str) -> BTreeMap<String, String> {
        let Some(table) = self.read(name, "a table", |v| v.as_table()) else {
            return BTreeMap::new();
        };
        let mut out = BTreeMap::new();
        for (key, value) in table {
            let path = format!("{}.{}", self.key(name), key.get_ref());
            self.note(path.clone(), value);
            let text = match value.get_ref() {
                DeValue::Boolean(b) => Some(b.to_string()),
                DeValue::Float(f) => Some(f.as_str().to_owned()),
                v @ DeValue::Integer(_) => integer(v).map(|n| n.to_string()),
                v => v.as_str().map(str::to_owned),
            };
            match text {
                Some(text) => {
                    out.insert(key.get_ref().to_string(), text);
                }
                None => {
                    let line = Some(self.page.line(value.span().start));
                    let takes = "it takes text, a number, true or false";
                    self.refuse_at(path, shown(value.get_ref()), takes, line);
                }
            }
        }
        out
    }

    fn section<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Section<'p, 't>) -> T,
    ) -> Option<T> {
        let table = self.read(name, "a table", |v| v.as_table())?;
        Some(self.inside(self.key(name), table, read))
    }

    fn sections<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&mut Section<'p, 't>) -> T,
    ) -> Vec<T> {
        let takes = format!("tables: [[{name}]]");
        let Some(items) = self.read(name, &takes, |v| v.as_array()) else { return Vec::new() };
        let mut out = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let path = format!("{}[{i}]", self.key(name));
            self.note(path.clone(), item);
            match item.get_ref().as_table() {
                Some(table) => out.push(self.inside(path, table, &read)),
                None => {
                    let line = Some(self.page.line(item.span().start));
                    self.refuse_at(path, shown(item.get_ref()), &format!("it takes {takes}"), line);
                }
            }
        }
        out
    }

    fn inside<T>(
        &self,
        path: String,
        table: &'p DeTable<'t>,
        read: impl FnOnce(&mut Section<'p, 't>) -> T,
    ) -> T {
        let mut section = Section::new(self.page, path, table);
        let out = read(&mut section);
        section.done();
        out
    }

    /// What was never taken is unknown.
    fn done(self) {
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let allowed = format!("the keys here are {}", self.known.join(", "));
                let line = Some(self.page.line(key.span().start));
                self.refuse_at(self.key(name), shown(value.get_ref()), &allowed, line);
            }
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let n = value.as_integer()?;
    i64::from_str_radix(n.as_str(), n.radix()).ok()
}

/// A value as it is repeated in a message; long ones are cut.
fn shown(value: &DeValue<'_>) -> String {
    let text = match value {
        DeValue::String(s) => format!("{s:?}"),
        DeValue::Integer(n) => n.to_string(),
        DeValue::Float(n) => n.to_string(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(d) => d.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
