//! Row B4: files that name other files, or other machines.
//!
//! The evidence is from outside the slot: every slot runs under strace, whose log must show no
//! open of anything that the file names and no connection at all; a file with a secret is
//! watched by inotify; and a listener on a port of its own counts who comes. A refusal must be
//! `nested_reference` wherever the file says by itself that it is one.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use rustix::fs::inotify;
use trix_slot::Launcher;

use super::Site;
use super::corpus;
use super::forge::{Movie, ebml, info, matroska, mp4, picture_track, words};
use super::report::Counts;
use super::run::{self, Extent, lock};
use super::slots::Slots;
use super::trial::Bench;

const ROW: &str = "B4";

/// System calls that would be an outside open, whether they succeed or not.
const TRACED: &str = "open,openat,openat2,creat,execve,execveat,socket,connect,bind,sendto,sendmsg,\
    readlink,readlinkat,stat,lstat,newfstatat,statx,access,faccessat,faccessat2";

/// Names that a playlist may be hidden under.
const ENDINGS: &[&str] = &[
    "mov", "mp4", "m4v", "mkv", "webm", "ts", "m2ts", "mts", "mpg", "mxf", "avi", "wmv", "flv",
    "ogg", "wav", "mp3", "m3u8", "mpd", "jpg", "%03d.png",
];

/// What the answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The file says by itself that it leads elsewhere.
    Nested,
    /// It may be taken for what it holds, or refused for any reason.
    Any,
}

struct Reference {
    name: String,
    /// Its name on the share.
    file: String,
    bytes: Vec<u8>,
    answer: Answer,
}

/// What must not be reached.
struct Bait {
    /// A film beside the sources: what a reference would lead to.
    film: PathBuf,
    listener: TcpListener,
    port: u16,
    watch: rustix::fd::OwnedFd,
}

impl Bait {
    fn lay(folder: &Path, film: &[u8]) -> Result<Bait> {
        fs::create_dir_all(folder).context("making the bait's folder")?;
        let path = folder.join("secret-film.ts");
        fs::write(&path, film).context("laying the bait")?;
        let listener = TcpListener::bind("127.0.0.1:0").context("listening")?;
        listener.set_nonblocking(true).context("listening")?;
        let port = listener.local_addr().context("listening")?.port();
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watch = inotify::init(flags).context("watching")?;
        let events = inotify::WatchFlags::OPEN | inotify::WatchFlags::ACCESS;
        inotify::add_watch(&watch, &path, events).context("watching the bait")?;
        Ok(Bait { film: path, listener, port, watch })
    }

    /// Who came since the last look.
    fn taken(&self) -> Result<Vec<String>> {
        let mut taken = Vec::new();
        let mut buffer = [0u8; 4096];
        match rustix::io::read(&self.watch, &mut buffer[..]) {
            Ok(n) if n > 0 => taken.push("the bait was opened".to_owned()),
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(e) => return Err(e).context("reading the watch"),
        }
        match self.listener.accept() {
            Ok((_, from)) => taken.push(format!("a connection came from {from}")),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e).context("accepting"),
        }
        Ok(taken)
    }
}

/// Runs the row.
pub fn run(site: &Site, extent: &Extent) -> Result<Counts> {
    let clips = corpus::make(&site.folder.join("clips"), 1)?;
    let film = |name: &str| {
        let found = clips.iter().find(|clip| clip.name == name);
        found.map(|clip| clip.bytes.clone()).with_context(|| format!("no clip {name}"))
    };
    let bait = Bait::lay(&site.folder.join("bait"), &film("h264-ac3.ts")?)?;
    // The watch and the listener must be able to see what they are there to see.
    fs::read(&bait.film).context("taking the bait")?;
    std::net::TcpStream::connect(("127.0.0.1", bait.port)).context("calling the listener")?;
    ensure!(bait.taken()?.len() == 2, "the bait does not notice who takes it");

    let traces = site.folder.join("traces");
    fs::create_dir_all(&traces).context("making a folder for traces")?;
    let strace = strace()?;
    let references = references(&bait, &film("h264-aac.mp4")?, &film("mpeg4-mp3.avi")?);
    let left = (references.len() as u64).saturating_sub(extent.from);
    let extent = Extent { count: extent.count.min(left), ..extent.clone() };
    let counts = run::all(&extent, &|n, counts| {
        let reference = &references[n as usize];
        one(site, &bait, strace.as_deref(), &traces, n, reference, counts)
    })?;
    if strace.is_none() {
        println!("{ROW}: strace is not installed; the bait alone is the evidence");
    }
    Ok(counts)
}

/// References of the row, for its usual count.
pub fn usual() -> u64 {
    134
}

fn strace() -> Result<Option<PathBuf>> {
    let path = Path::new("/usr/bin/strace");
    Ok(path.exists().then(|| path.to_owned()))
}

fn one(
    site: &Site,
    bait: &Bait,
    strace: Option<&Path>,
    traces: &Path,
    n: u64,
    reference: &Reference,
    counts: &Mutex<Counts>,
) -> Result<()> {
    let trace = traces.join(format!("{n}.log"));
    let launcher = match strace {
        // -D: the tracer is the grandchild, so that the slot stays the worker's own child.
        Some(program) => Launcher::new(program).with_args(
            ["-D", "-f", "-qq", "-s", "256", "-e", &format!("trace={TRACED}"), "-o"]
                .into_iter()
                .map(str::to_owned)
                .chain([path(&trace)?, path(&site.media)?, "slot".to_owned()]),
        ),
        None => Launcher::new(&site.media),
    };
    let slots = Slots::with_launcher(launcher, &site.folder.join(format!("stages-{n}")))?;
    if strace.is_some() {
        // What the hello did is the start of the process, not what the file asked for.
        fs::write(&trace, "").context("emptying a trace")?;
    }
    let bench = Bench::new(&slots)?;
    let source = site.folder.join(format!("{ROW}-{n}"));
    fs::write(&source, &reference.bytes).context("writing an input")?;
    let trial = bench.try_named(&source, &reference.file)?;
    let mut defects = trial.defects;
    let code = trial.failure.as_ref().map_or("", |f| f.code.as_str());
    if reference.answer == Answer::Nested && code != "nested_reference" {
        defects.push(format!("answered {:?}, not nested_reference", trial.verdict));
    }
    defects.extend(bait.taken()?);
    if strace.is_some() {
        let text = fs::read_to_string(&trace).context("reading a trace")?;
        ensure!(text.contains("execve("), "the trace of input {n} holds no start of a slot");
        defects.extend(outside(&text));
    }
    if !defects.is_empty() {
        site.keep(ROW, n, &source)?;
    }
    fs::remove_file(&source).context("removing an input")?;
    let mut counts = lock(counts);
    counts.add(&trial.verdict);
    counts.took(&trial.usage);
    counts.defects(n, &reference.name, defects);
    Ok(())
}

fn path(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a path is no UTF-8")?.to_owned())
}

/// Calls that no slot has a reason for, behind the program's own start: what the file names, and
/// every socket. The loader and the C library open a few files of the system.
fn outside(trace: &str) -> Vec<String> {
    /// Read by the loader, the C library, the allocator, or written by the box.
    const SYSTEM: &[&str] = &[
        "/etc/ld.so",
        "/lib/",
        "/lib64/",
        "/usr/lib/",
        "/proc/self/",
        "/proc/sys/vm/overcommit",
        "/sys/fs/cgroup",
        "/sys/devices/system/cpu",
        "/proc/stat",
        "/proc/cpuinfo",
        "/dev/urandom",
        "/sys/devices/system/node",
        "/etc/localtime",
        "/proc/meminfo",
        "/usr/share/zoneinfo",
        "/proc/mounts",
        "/sys/kernel/mm",
        "/etc/gcrypt",
    ];
    let mut found: Vec<String> = trace
        .lines()
        .filter(|line| {
            let call = line.split_once(' ').map_or(*line, |(_, call)| call.trim_start());
            if call.starts_with("execve(") && call.contains("\"slot\"") {
                return false;
            }
            if ["socket(", "connect(", "bind(", "execve"].iter().any(|c| call.starts_with(c)) {
                return true;
            }
            let Some(name) = call.split('"').nth(1) else { return false };
            // An empty name is a look at an open descriptor; a hexadecimal one an output's.
            let own = name.is_empty()
                || (name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()));
            !own && !SYSTEM.iter().any(|system| name.starts_with(system))
        })
        .filter(|line| !line.contains("sendmsg(") && !line.contains("sendto("))
        .map(|line| format!("a call outside: {line}"))
        .collect();
    found.truncate(4);
    found
}

/// All references, to the bait by every name that it can have.
fn references(bait: &Bait, movie: &[u8], avi: &[u8]) -> Vec<Reference> {
    let film = bait.film.display().to_string();
    let port = bait.port;
    let targets = [
        film.clone(),
        format!("file:{film}"),
        format!("file://{film}"),
        "secret-film.ts".to_owned(),
        "../bait/secret-film.ts".to_owned(),
        format!("http://127.0.0.1:{port}/a.ts"),
        format!("tcp://127.0.0.1:{port}"),
        format!("crypto:{film}"),
        format!("crypto+file:{film}"),
        format!("subfile,,start,0,end,0,,:{film}"),
        format!("concat:{film}|{film}"),
        format!("cache:{film}"),
        format!("async:{film}"),
        "data:video/mp2t;base64,R0AAEA==".to_owned(),
        format!("tee:{film}"),
        "pipe:0".to_owned(),
        "fd:0".to_owned(),
        "/proc/self/fd/0".to_owned(),
        "/etc/passwd".to_owned(),
        format!("gopher://127.0.0.1:{port}/x"),
        format!("udp://127.0.0.1:{port}"),
    ];
    let mut all = Vec::new();
    let mut add = |answer, name: String, bytes: Vec<u8>| {
        all.push(Reference { name, file: "input.mov".to_owned(), bytes, answer });
    };
    for target in &targets {
        let hls =
            format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n");
        add(Answer::Nested, format!("HLS playlist of {target}"), hls.into_bytes());
        let concat = format!("ffconcat version 1.0\nfile '{target}'\n");
        add(Answer::Nested, format!("concatenation of {target}"), concat.into_bytes());
        let dash = format!(
            "<?xml version=\"1.0\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\" \
             mediaPresentationDuration=\"PT2S\" minBufferTime=\"PT1S\"><Period><AdaptationSet \
             mimeType=\"video/mp4\"><Representation id=\"1\" bandwidth=\"1\"><BaseURL>{target}\
             </BaseURL></Representation></AdaptationSet></Period></MPD>"
        );
        add(Answer::Nested, format!("DASH manifest of {target}"), dash.into_bytes());
    }
    // The key, the map and the media line are read by other code than the segments.
    for (what, line) in [
        ("key", format!("#EXT-X-KEY:METHOD=AES-128,URI=\"{film}\"\n#EXTINF:2,\n{film}")),
        ("map", format!("#EXT-X-MAP:URI=\"{film}\"\n#EXTINF:2,\n{film}")),
        ("variant", format!("#EXT-X-STREAM-INF:BANDWIDTH=1\n{film}")),
        ("sound", format!("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"a\",URI=\"{film}\"")),
    ] {
        let text = format!("#EXTM3U\n#EXT-X-VERSION:7\n{line}\n#EXT-X-ENDLIST\n");
        add(Answer::Nested, format!("HLS {what}"), text.into_bytes());
    }
    for (what, text) in [
        (
            "SDP",
            format!(
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
            ),
        ),
        ("PLS", format!("[playlist]\nFile1={film}\nLength1=2\nNumberOfEntries=1\n")),
        ("reference", format!("[Reference]\nRef1={film}\n")),
        ("QuickTime link", format!("RTSPtext\nrtsp://127.0.0.1:{port}/a.mov\n")),
        ("SMIL text", format!("SMILtext\n<smil><body><video src=\"{film}\"/></body></smil>\n")),
        ("SMIL", format!("<smil><body><video src=\"{film}\"/></body></smil>")),
        ("ASX", format!("<asx version=\"3.0\"><entry><ref href=\"{film}\"/></entry></asx>")),
        (
            "Smooth Streaming",
            format!(
                "<?xml version=\"1.0\"?><SmoothStreamingMedia MajorVersion=\"2\"><StreamIndex Url=\"{film}\"/></SmoothStreamingMedia>"
            ),
        ),
        (
            "IMF composition",
            format!(
                "<?xml version=\"1.0\"?>\n<CompositionPlaylist xmlns=\"http://www.smpte-ra.org/schemas/2067-3/2016\"><Id>urn:uuid:1</Id><a>{film}</a></CompositionPlaylist>"
            ),
        ),
        (
            "IMF asset map",
            format!(
                "<?xml version=\"1.0\"?>\n<AssetMap xmlns=\"http://www.smpte-ra.org/schemas/429-9/2007/AM\"><Path>{film}</Path></AssetMap>"
            ),
        ),
        (
            "XSPF",
            format!(
                "<?xml version=\"1.0\"?><playlist xmlns=\"http://xspf.org/ns/0/\"><trackList><track><location>{film}</location></track></trackList></playlist>"
            ),
        ),
        (
            "IMF packing list",
            format!(
                "<?xml version=\"1.0\"?>\n<PackingList xmlns=\"http://www.smpte-ra.org/schemas/2067-2/2016/PKL\"><OriginalFileName>{film}</OriginalFileName></PackingList>"
            ),
        ),
        ("M3U without a head", format!("{film}\n")),
        ("cue sheet", format!("FILE \"{film}\" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n")),
        ("concatenation without a head", format!("file '{film}'\n")),
        (
            "VobSub index",
            format!(
                "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 0\n# {film}\n"
            ),
        ),
        ("ffmetadata", format!(";FFMETADATA1\ntitle={film}\n")),
        ("image sequence", format!("{film}%03d.png\n")),
        ("AviSynth script", format!("AviSource(\"{film}\")\n")),
    ] {
        let answer = match what {
            "M3U without a head"
            | "cue sheet"
            | "concatenation without a head"
            | "VobSub index"
            | "ffmetadata"
            | "image sequence"
            | "AviSynth script" => Answer::Any,
            _ => Answer::Nested,
        };
        add(answer, what.to_owned(), text.into_bytes());
    }
    // What stands in front of a playlist must not hide it.
    let plain = format!("#EXTM3U\n#EXTINF:2,\n{film}\n");
    for (what, head) in [
        ("a byte order mark", &b"\xef\xbb\xbf"[..]),
        ("empty lines", b"\n\n  \t\r\n"),
        ("a byte order mark and empty lines", b"\xef\xbb\xbf\r\n"),
    ] {
        add(Answer::Nested, format!("HLS behind {what}"), [head, plain.as_bytes()].concat());
    }
    let wide: Vec<u8> = plain.encode_utf16().flat_map(u16::to_le_bytes).collect();
    add(Answer::Any, "HLS in UTF-16".to_owned(), [&b"\xff\xfe"[..], &wide].concat());
    add(
        Answer::Any,
        "HLS behind an ID3 tag".to_owned(),
        [&b"ID3\x04\0\0\0\0\0\0"[..], plain.as_bytes()].concat(),
    );
    movies(&film, movie, &mut add);
    others(&film, avi, &plain, &mut add);
    for ending in ENDINGS {
        all.push(Reference {
            name: format!("HLS playlist named .{ending}"),
            file: format!("input.{ending}"),
            bytes: plain.clone().into_bytes(),
            answer: Answer::Nested,
        });
    }
    all
}

/// Movies whose samples lie elsewhere.
fn movies(film: &str, movie: &[u8], add: &mut impl FnMut(Answer, String, Vec<u8>)) {
    let movie = Movie::parse(movie);
    let dref = |entries: &[Vec<u8>]| {
        let body = [words(&[0, entries.len() as u32]), entries.concat()].concat();
        movie.clone().set("moov/trak/mdia/minf/dinf/dref", body).bytes()
    };
    let alias = alias(film);
    let flagged = |flags: u32, body: &[u8]| [words(&[flags]), body.to_vec()].concat();
    let url = format!("{film}\0");
    for (what, entry) in [
        ("alias", mp4(b"alis", flagged(0, &alias))),
        ("alias without a record", mp4(b"alis", flagged(0, &[]))),
        ("resource alias", mp4(b"rsrc", flagged(0, &alias))),
        ("url", mp4(b"url ", flagged(0, url.as_bytes()))),
        ("file url", mp4(b"url ", flagged(0, format!("file://{url}").as_bytes()))),
        ("urn", mp4(b"urn ", flagged(0, [b"name\0", url.as_bytes()].concat().as_slice()))),
        ("cios", mp4(b"cios", flagged(0, url.as_bytes()))),
    ] {
        add(Answer::Nested, format!("movie with {what} reference"), dref(&[entry]));
    }
    // An alias that says that it is in this file is one of a careless writer, and harmless.
    add(
        Answer::Any,
        "movie with a reference to itself".to_owned(),
        dref(&[mp4(b"alis", flagged(1, &alias))]),
    );
    add(
        Answer::Nested,
        "movie with an unused and a used reference".to_owned(),
        dref(&[mp4(b"alis", flagged(0, &alias)), mp4(b"url ", flagged(1, &[]))]),
    );
    let link = mp4(
        b"rmda",
        mp4(
            b"rdrf",
            [words(&[0]), b"url ".to_vec(), words(&[url.len() as u32]), url.clone().into_bytes()]
                .concat(),
        ),
    );
    let link = mp4(b"moov", mp4(b"rmra", link));
    add(
        Answer::Nested,
        "reference movie".to_owned(),
        [mp4(b"ftyp", b"qt  \0\0\0\0"), link].concat(),
    );
}

/// An alias record with the bait's path in both spellings (QuickTime File Format, "alis").
fn alias(film: &str) -> Vec<u8> {
    let mut record = vec![0; 150];
    record[4..6].copy_from_slice(&200u16.to_be_bytes());
    record[6..8].copy_from_slice(&2u16.to_be_bytes());
    record[10] = 1;
    record[11] = b'x';
    record[50] = 14;
    record[51..65].copy_from_slice(b"secret-film.ts");
    // Levels up and down, as libav reads them when it is told to follow references.
    record[130..134].copy_from_slice(&[0, 1, 0, 1]);
    for kind in [2u16, 18] {
        record.extend_from_slice(&kind.to_be_bytes());
        record.extend_from_slice(&(film.len() as u16).to_be_bytes());
        record.extend_from_slice(film.as_bytes());
        if !film.len().is_multiple_of(2) {
            record.push(0);
        }
    }
    record.extend_from_slice(&[0xff, 0xff, 0, 0]);
    record
}

/// References inside of other containers.
fn others(film: &str, avi: &[u8], playlist: &str, add: &mut impl FnMut(Answer, String, Vec<u8>)) {
    // GAB2: a subtitle file inside of an AVI stream, which libav hands to a demuxer by its content.
    let inner = playlist.as_bytes();
    let mut gab = b"GAB2\0\x02\0".to_vec();
    gab.extend_from_slice(&0u32.to_le_bytes());
    gab.extend_from_slice(&4u16.to_le_bytes());
    gab.extend_from_slice(&(inner.len() as u32).to_le_bytes());
    gab.extend_from_slice(inner);
    let chunk = [b"01tx", &(gab.len() as u32).to_le_bytes()[..], &gab].concat();
    let place = avi.windows(4).position(|w| w == b"movi").map_or(avi.len(), |at| at + 4);
    add(
        Answer::Any,
        "AVI with a playlist as GAB2".to_owned(),
        [&avi[..place], &chunk, &avi[place..]].concat(),
    );
    let sound = avi.windows(4).position(|w| w == b"auds");
    if let Some(at) = sound {
        let mut with_text = avi.to_vec();
        with_text[at..at + 4].copy_from_slice(b"txts");
        let with_text = [&with_text[..place], &chunk, &with_text[place..]].concat();
        add(Answer::Any, "AVI with a subtitle stream of GAB2".to_owned(), with_text);
    }
    let tracks = ebml(0x1654_ae6b, picture_track(1, "V_MJPEG", 64, 48, &[]));
    for (name, data) in
        [("a.m3u8", playlist), ("../../a.srt", "1\n"), ("a.ffconcat", "ffconcat version 1.0\n")]
    {
        let fields = [ebml(0x466e, name), ebml(0x4660, "text/plain"), ebml(0x465c, data)];
        let list = ebml(0x1941_a469, ebml(0x61a7, fields.concat()));
        let file = matroska(&[info(1_000_000, 1000.0), tracks.clone(), list]);
        add(Answer::Any, format!("Matroska with the attachment {name}"), file);
    }
    for id in [0x73_a4u32, 0x3c_b923, 0x3e_b923, 0x7384] {
        // Segment links and the file's own name are hints to players.
        let linked = ebml(0x1549_a966, [ebml(id, film)].concat());
        let file = matroska(&[linked, tracks.clone()]);
        add(Answer::Any, format!("Matroska linked by element {id:x}"), file);
    }
    let chapter = ebml(0xb6, [ebml(0x6e67, film), ebml(0x91, [0])].concat());
    let chapters = ebml(0x1043_a770, ebml(0x45b9, chapter));
    let file = matroska(&[info(1_000_000, 1000.0), tracks, chapters]);
    add(Answer::Any, "Matroska with a chapter of another segment".to_owned(), file);
    for (what, text) in [
        (
            "ASS with an include",
            format!(
                "[Script Info]\nScriptType: v4.00+\nCollisions: Normal\n[Events]\nDialogue: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,{{\\fn{film}}}x\n"
            ),
        ),
        ("SRT with a link", format!("1\n00:00:00,000 --> 00:00:01,000\n<img src=\"{film}\">\n")),
        (
            "WebVTT with a style",
            format!("WEBVTT\n\nSTYLE\n@import url(\"{film}\");\n\n00:00.000 --> 00:01.000\nx\n"),
        ),
    ] {
        add(Answer::Any, what.to_owned(), text.into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::outside;

    #[test]
    fn a_trace_tells_what_the_file_asked_for_from_what_every_process_does() {
        let start = "7 execve(\"/x/trix-media\", [\"/x/trix-media\", \"slot\"], 0x7 /* 0 vars */) = 0\n\
            7 openat(AT_FDCWD, \"/lib/x86_64-linux-gnu/libc.so.6\", O_RDONLY) = 3\n\
            7 newfstatat(3, \"\", {st_mode=S_IFREG}, AT_EMPTY_PATH) = 0\n";
        assert_eq!(outside(start), Vec::<String>::new());
        for bad in [
            "8 openat(AT_FDCWD, \"/etc/passwd\", O_RDONLY) = -1 EACCES",
            "8 openat(AT_FDCWD, \"secret-film.ts\", O_RDONLY) = -1 ENOENT",
            "8 socket(AF_INET, SOCK_STREAM, 0) = -1 EPERM",
            "8 execve(\"/bin/sh\", [\"sh\"], 0x7) = -1 EACCES",
        ] {
            assert_eq!(outside(&format!("{start}{bad}\n")).len(), 1, "{bad}");
        }
    }
}
