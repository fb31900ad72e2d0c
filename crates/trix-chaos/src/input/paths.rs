//! Row X2: hostile paths, names and templates.
//!
//! A share lies beside a folder that nobody may touch. What is planted on the share leads there
//! by every way that a file system knows; a watch on the folder and its content say whether
//! anyone went. Templates are filled with hostile titles, and what comes out must be a plain path
//! of just as many parts as the template has.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::fs::{RenameFlags, inotify};
use trix_model::path::fold;
use trix_model::{Failure, RelPath, ShareName, SharePath};
use trix_plan::planner::{Delivery, plan1};
use trix_plan::profile::Profile;
use trix_plan::task::{IntakeResult, SourceRef, TaskSpec};
use trix_storage::names::refuse_collisions;
use trix_storage::{Dir, Share, StorageError, WritableShare};
use trix_testkit::clips;

use super::Site;
use super::report::{Counts, Verdict};
use super::run::{self, Extent, lock};
use super::seed::Random;
use super::slots::{Slots, source_ref};
use super::trial::Bench;

const ROW: &str = "X2";

/// Rounds of a swap that runs beside the operations.
const ROUNDS: usize = 60;

/// The share, and the folder beside it that must stay as it is.
struct Ground {
    share: PathBuf,
    outside: PathBuf,
    watch: rustix::fd::OwnedFd,
    before: Vec<(PathBuf, Vec<u8>)>,
}

const SECRET: &[u8] = b"nobody may read this";

impl Ground {
    fn lay(folder: &Path) -> Result<Ground> {
        let (share, outside) = (folder.join("share"), folder.join("outside"));
        for made in [&share, &outside, &share.join("real"), &outside.join("inner")] {
            fs::create_dir_all(made).context("laying the ground")?;
        }
        fs::write(outside.join("secret.mov"), SECRET).context("laying the ground")?;
        fs::write(outside.join("inner/secret.mov"), SECRET).context("laying the ground")?;
        fs::write(share.join("real/film.mov"), "a film").context("laying the ground")?;
        for (link, to) in [
            ("up", ".."),
            ("out", "../outside"),
            ("absolute", outside.to_str().context("the ground's path is no UTF-8")?),
            ("film-link.mov", "../outside/secret.mov"),
            ("loop", "loop"),
            ("hop", "out/inner"),
            ("proc", "/proc/self/root"),
            ("fd", "/proc/self/fd/0"),
            ("real/up", "../.."),
        ] {
            symlink(to, share.join(link)).context("planting a link")?;
        }
        fs::hard_link(share.join("real/film.mov"), share.join("hard.mov"))
            .context("planting a hard link")?;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            share.join("pipe.mov"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .context("planting a pipe")?;
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watch = inotify::init(flags).context("watching")?;
        let ground = Ground { share, outside, watch, before: Vec::new() };
        let before = ground.outside()?;
        let all = inotify::WatchFlags::ALL_EVENTS;
        for folder in [ground.outside.clone(), ground.outside.join("inner")] {
            inotify::add_watch(&ground.watch, folder, all).context("watching the outside")?;
        }
        // A watch that sees nothing proves nothing.
        fs::read(ground.outside.join("secret.mov")).context("trying the watch")?;
        ensure!(ground.visits()? > 0, "the watch does not see a reader");
        Ok(Ground { before, ..ground })
    }

    fn outside(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut found = Vec::new();
        let mut folders = vec![self.outside.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).context("looking outside")? {
                let path = entry.context("looking outside")?.path();
                if path.is_dir() {
                    folders.push(path.clone());
                    found.push((path, Vec::new()));
                } else {
                    found.push((path.clone(), fs::read(&path).context("looking outside")?));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// How much the watch saw since the last look, in bytes of events.
    fn visits(&self) -> Result<usize> {
        let mut buffer = [0u8; 16 << 10];
        match rustix::io::read(&self.watch, &mut buffer[..]) {
            Ok(n) => Ok(n),
            Err(rustix::io::Errno::AGAIN) => Ok(0),
            Err(e) => Err(e).context("reading the watch"),
        }
    }

    /// Everything that is wrong on the outside.
    fn check(&self) -> Result<Vec<String>> {
        let mut defects = Vec::new();
        if self.visits()? > 0 {
            defects.push("someone went outside of the share".to_owned());
        }
        if self.outside()? != self.before {
            defects.push("the outside was changed".to_owned());
        }
        // The second look read it all itself.
        self.visits()?;
        Ok(defects)
    }
}

/// Runs the row.
pub fn run(site: &Site, seed: u64, extent: &Extent) -> Result<Counts> {
    let film = Film::new(site)?;
    let ground = Ground::lay(&site.folder.join("ground"))?;
    // One at a time: what the watch sees must be this input's doing.
    let counts = Mutex::new(Counts::default());
    for n in extent.from..extent.from + extent.count {
        if extent.until.is_some_and(|until| std::time::Instant::now() >= until) {
            break;
        }
        one(&ground, &film, seed, n, &counts).with_context(|| format!("input {n}"))?;
    }
    Ok(run::into(counts))
}

fn one(ground: &Ground, film: &Film, seed: u64, n: u64, counts: &Mutex<Counts>) -> Result<()> {
    let mut random = Random::of(seed, ROW, n);
    let (how, verdict, mut defects) = match random.below(10) {
        0..=3 => path(ground, &mut random)?,
        4..=5 => swap(ground, &mut random)?,
        6..=8 => template(film, &mut random)?,
        _ => twins(&mut random),
    };
    defects.extend(ground.check()?);
    let mut counts = lock(counts);
    counts.add(&verdict);
    counts.defects(n, &how, defects);
    Ok(())
}

type Told = (String, Verdict, Vec<String>);

/// A path of hostile parts.
fn hostile_path(random: &mut Random) -> String {
    const PARTS: &[&str] = &[
        "..",
        ".",
        "",
        "up",
        "out",
        "absolute",
        "hop",
        "loop",
        "proc",
        "fd",
        "real",
        "film-link.mov",
        "film.mov",
        "secret.mov",
        "outside",
        "hard.mov",
        "pipe.mov",
        "%2e%2e",
        "%2f",
        "..%00",
        "\0",
        "..\\..",
        "C:",
        "CON",
        "nul.mov",
        "~",
        "~root",
        "$HOME",
        "`id`",
        "...",
        ".. ",
        " ..",
        "\u{202e}vom.mlif",
        "\u{ff0e}\u{ff0e}",
        "\u{2025}",
        "e\u{301}",
        "é",
        "inner",
        "-rf",
        "new",
        "a\nb",
        "\u{7f}",
        "\u{200b}",
        "..;",
        "etc",
        "passwd",
        "self",
        "root",
    ];
    let mut text = random.pick_str(&["", "", "", "/", "//", "./", "../", "\\"]).to_owned();
    for i in 0..1 + random.below(5) {
        if i > 0 {
            text.push('/');
        }
        match random.below(12) {
            0 => text.push_str(&"ж".repeat(120 + random.below(20))),
            1 => text.push_str(&"x".repeat(250 + random.below(8))),
            _ => text.push_str(random.pick_str(PARTS)),
        }
    }
    text
}

/// Every operation of a share on one path.
fn path(ground: &Ground, random: &mut Random) -> Result<Told> {
    let text = hostile_path(random);
    let how = format!("path {text:?}");
    let parsed: Result<SharePath, _> = format!("source:{text}").parse();
    let parsed = match parsed {
        Ok(parsed) => parsed.path,
        Err(_) => {
            let plain = !text.is_empty() && text.split('/').all(|p| p == "real" || p == "film.mov");
            let defects = if plain { vec!["a plain path was refused".to_owned()] } else { vec![] };
            return Ok((how, Verdict::Refused("bad_path".to_owned()), defects));
        }
    };
    let (share, writable) = open(ground)?;
    let mut defects = Vec::new();
    let outcome = operate(&share, &writable, &parsed, &mut defects);
    let verdict = match outcome {
        Ok(()) => Verdict::Ok,
        Err(e) => Verdict::Refused(Failure::from(e).code),
    };
    Ok((how, verdict, defects))
}

fn open(ground: &Ground) -> Result<(Share, WritableShare)> {
    let name = |text: &str| text.parse::<ShareName>().context("naming a share");
    let share = Share::open(name("source")?, &ground.share).context("opening the share")?;
    let writable =
        WritableShare::open(name("output")?, &ground.share).context("opening the share")?;
    Ok((share, writable))
}

/// Reads, lists, makes, links and removes at one path; the first refusal is the answer, but
/// everything is tried.
fn operate(
    share: &Share,
    writable: &WritableShare,
    path: &RelPath,
    defects: &mut Vec<String>,
) -> Result<(), StorageError> {
    let mut answer = Ok(());
    let mut note = |result: Result<(), StorageError>| {
        if answer.is_ok() {
            answer = result;
        }
    };
    match share.read_small(path, 1 << 20) {
        Ok(bytes) if bytes == SECRET => defects.push("the secret was read".to_owned()),
        result => note(result.map(|_| ())),
    }
    note(share.list(path).map(|_| ()));
    note(share.stat(path).map(|_| ()));
    note(share.source_ref(path).map(|_| ()));
    let dir: &Dir = writable.dir();
    note(path.join("made/by/trix").map_err(Into::into).and_then(|path| dir.make_dirs(&path)));
    note(path.join("new.mp4").map_err(Into::into).and_then(|path| dir.create(&path).map(|_| ())));
    let film: Result<RelPath, StorageError> = "real/film.mov".parse().map_err(StorageError::from);
    note(film.and_then(|film| dir.link(&film, dir, &path.join("linked.mov")?)));
    note(path.join("new.mp4").map_err(Into::into).and_then(|p| dir.unlink(&p).map(|_| ())));
    note(path.join("linked.mov").map_err(Into::into).and_then(|p| dir.unlink(&p).map(|_| ())));
    note(path.join("made").map_err(Into::into).and_then(|path| dir.remove_tree(&path)));
    answer
}

/// Operations while a folder and a link to the outside change places all the time.
fn swap(ground: &Ground, random: &mut Random) -> Result<Told> {
    let (folder, link) = (ground.share.join("turning"), ground.share.join("turning-link"));
    fs::create_dir_all(folder.join("inner")).context("making the folder that turns")?;
    fs::write(folder.join("secret.mov"), "a film").context("making the folder that turns")?;
    symlink("../outside", &link).context("making the link that turns")?;
    let names = ["turning", "turning/secret.mov", "turning/inner", "turning/inner/secret.mov"];
    let name = names[random.below(names.len())];
    let path: RelPath = name.parse().context("naming what turns")?;
    let (share, writable) = open(ground)?;
    let stop = AtomicBool::new(false);
    let mut defects = Vec::new();
    let mut refused = 0;
    std::thread::scope(|scope| {
        let turner = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                let here = rustix::fs::CWD;
                rustix::fs::renameat_with(here, &folder, here, &link, RenameFlags::EXCHANGE)
                    .context("turning")?;
            }
            Ok(())
        });
        for _ in 0..ROUNDS {
            if operate(&share, &writable, &path, &mut defects).is_err() {
                refused += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        match turner.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    for at in [&folder, &link] {
        let meta = fs::symlink_metadata(at).context("looking at what turned")?;
        let removed = if meta.is_dir() { fs::remove_dir_all(at) } else { fs::remove_file(at) };
        removed.context("removing what turned")?;
    }
    let verdict = if refused > 0 { Verdict::Refused("swapped".to_owned()) } else { Verdict::Ok };
    Ok((format!("swap of {name}"), verdict, defects))
}

/// A film to plan with.
struct Film {
    intake: IntakeResult,
    source: SourceRef,
    engine: String,
}

impl Film {
    fn new(site: &Site) -> Result<Film> {
        let slots = Slots::new(&site.media, &site.folder.join("stages"))?;
        let path = site.folder.join("film.mkv");
        clips::make(&path, "-f lavfi -i testsrc2=s=64x48:r=25:d=1 -c:v ffv1 -threads 1");
        let source = source_ref(&path)?;
        let (_, taken) = Bench::new(&slots)?.intake(&path, &source)?;
        let (intake, _) = taken.context("the film for templates is refused")?;
        Ok(Film { intake, source, engine: slots.engine().to_owned() })
    }
}

fn hostile_name(random: &mut Random) -> String {
    const NAMES: &[&str] = &[
        "..",
        ".",
        "../..",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "..\\..",
        ".trix",
        ".trix/stage",
        ".trix-share",
        "CON",
        "nul",
        "com1.mov",
        "LPT9",
        "aux.tar.gz",
        "{title}",
        "{source}",
        "{",
        "}",
        "{}",
        "{title",
        "%2e%2e%2f",
        "\u{202e}gpj.exe",
        "\u{200f}",
        "\u{2066}x\u{2069}",
        "name.",
        "name ",
        " name",
        "...",
        "a:b",
        "a*?<>|\"",
        "\0",
        "a\nb",
        "e\u{301}",
        "é",
        "Ǆ",
        "ﬁlm",
        "İ",
        "-rf",
        "~",
        "",
        " ",
        "\t",
        "manifest.json",
        "v1",
        "\u{ff0f}etc",
        "\u{2215}etc",
        "\u{0338}",
        "🎬",
    ];
    match random.below(8) {
        0 => "ж".repeat(100 + random.below(200)),
        1 => format!("{}{}", random.pick_str(NAMES), random.pick_str(NAMES)),
        2 => format!("{}/{}", random.pick_str(NAMES), random.pick_str(NAMES)),
        _ => random.pick_str(NAMES).to_owned(),
    }
}

/// A template of a profile, filled by the planner.
fn template(film: &Film, random: &mut Random) -> Result<Told> {
    const TEMPLATES: &[&str] = &[
        "{title}",
        "{title}/{source}",
        "films/{title}",
        "{profile}/{title}/{source}",
        "x{title}y",
        "{title}.{source}",
        "../{title}",
        "/{title}",
        "{title}/..",
        "a//{title}",
        ".trix/{title}",
        "{unknown}",
        "{title",
        "{title}}",
        "..{title}",
        "./{title}",
        "{title}/",
        "",
        ".trix-{title}",
    ];
    let template = random.pick_str(TEMPLATES);
    let (title, source) = (hostile_name(random), hostile_name(random));
    let how = format!("template {template:?}, title {title:?}, source {source:?}");
    let text = format!(
        "v = 1\nname = \"chaos\"\n[[rendition]]\nname = \"r\"\nencoder = \"x264-8\"\n\
         [publish]\nshare = \"output\"\npath = '{template}'\n"
    );
    let refused = |code: &str| Verdict::Refused(code.to_owned());
    let Ok(profile) = Profile::parse(&text) else {
        return Ok((how, refused("bad_profile"), Vec::new()));
    };
    let mut from = film.source.clone();
    let Ok(location) = format!("source:{source}.mov").parse() else {
        return Ok((how, refused("bad_path"), Vec::new()));
    };
    from.location = location;
    let plan = plan1(&profile, &film.intake, &from, &film.engine, &title, Delivery::Shares);
    let plan = match plan {
        Ok(plan) => plan,
        Err(e) => return Ok((how, Verdict::Refused(Failure::from(e).code), Vec::new())),
    };
    let mut defects = Vec::new();
    for task in &plan.tasks {
        let TaskSpec::Publish(publish) = &task.spec else { continue };
        let target = publish.target.as_str();
        if target.split('/').count() != template.split('/').count() {
            defects.push(format!("{target:?} has more parts than its template"));
        }
        for part in target.split('/') {
            defects.extend(unsafe_part(part).map(|what| format!("{target:?}: {what}")));
        }
        let names: Vec<&str> = publish.files.iter().map(|file| file.name.as_str()).collect();
        if let Err(e) = refuse_collisions(names.iter().copied().chain(["manifest.json"])) {
            defects.push(format!("planned to collide: {e}"));
        }
    }
    Ok((how, Verdict::Ok, defects))
}

/// What some file system, or the next person, would stumble over.
fn unsafe_part(part: &str) -> Option<&'static str> {
    let device = part.split('.').next().unwrap_or("").trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| {
        device
            .strip_prefix(prefix)
            .is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
    };
    let mark = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if matches!(part, "" | "." | "..") {
        Some("leads elsewhere")
    } else if part.starts_with(".trix") {
        Some("is a name of trix's own")
    } else if part.len() > 255 {
        Some("is too long")
    } else if part.chars().any(|c| c.is_control() || c == '\\') {
        Some("holds a character that shares refuse")
    } else if part.chars().any(|c| matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*')) {
        Some("holds a character that CIFS refuses")
    } else if part.chars().any(mark) {
        Some("turns the direction of text")
    } else if part.ends_with(['.', ' ']) {
        Some("ends with what Windows drops")
    } else if matches!(device.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || numbered("COM")
        || numbered("LPT")
    {
        Some("is a device of Windows")
    } else {
        None
    }
}

/// Two names that some file system takes for one.
fn twins(random: &mut Random) -> Told {
    const TWINS: &[(&str, &str)] = &[
        ("Film", "film"),
        ("ФИЛЬМ", "фильм"),
        ("é", "e\u{301}"),
        ("É", "e\u{301}"),
        ("straße", "STRASSE"),
        ("ς", "Σ"),
        ("ﬁ", "FI"),
        ("\u{c5}", "\u{212b}"),
        ("ǆ", "Ǆ"),
        ("й", "и\u{306}"),
        ("한", "\u{1112}\u{1161}\u{11ab}"),
    ];
    let (a, b) = *random.pick(TWINS);
    // Of files, and of the folders that different files lie in.
    let (a, b) = if random.one_in(2) {
        (format!("{a}/1.mp4"), format!("{b}/2.mp4"))
    } else {
        (format!("{a}.mp4"), format!("{b}.mp4"))
    };
    let how = format!("twins {a:?} and {b:?}");
    let mut defects = Vec::new();
    if refuse_collisions([a.as_str(), b.as_str()]).is_ok() {
        defects.push(format!("both were taken; they fold to {:?} and {:?}", fold(&a), fold(&b)));
    }
    (how, Verdict::Refused("name_collision".to_owned()), defects)
}
