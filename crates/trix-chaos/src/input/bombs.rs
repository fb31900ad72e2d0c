//! Row B3: small files that ask for the world.
//!
//! Each is taken with its limits, or refused, within 30 s of processor and 1 GiB.

use std::fs;
use std::sync::Mutex;

use anyhow::{Context, Result};

use super::Site;
use super::corpus;
use super::forge::{
    Bits, Movie, Piece, avc_of, claiming, cluster, ebml, ebml_claiming, head, info, matroska, mp4,
    number, picture_track, visual, words, write,
};
use super::report::Counts;
use super::run::{self, Extent, lock};
use super::slots::{Baseline, Slots};
use super::trial::Bench;

const ROW: &str = "B3";

const VIDEO: &str = "moov/trak/mdia/minf/stbl";

/// What bombs are made of.
#[derive(Debug)]
pub struct Kit {
    movie: Movie,
    fragmented: Vec<u8>,
    picture: Vec<u8>,
    clips: Vec<corpus::Clip>,
}

/// A bomb: what it is, and how it is made.
pub type Bomb = (&'static str, fn(&Kit) -> Vec<Piece>);

/// Runs the row: the bombs from `extent.from` on.
pub fn run(site: &Site, extent: &Extent) -> Result<Counts> {
    let kit = Kit::new(site)?;
    let slots = Slots::new(&site.media, &site.folder.join("stages"))?;
    let bench = Bench::new(&slots)?;
    let baseline = Baseline::take()?;
    let all = bombs();
    let left = (all.len() as u64).saturating_sub(extent.from);
    let extent = Extent { count: extent.count.min(left), ..extent.clone() };
    let mut counts = run::all(&extent, &|n, counts| {
        let (name, make) = all[n as usize];
        one(site, &bench, n, name, &make(&kit), counts)
    })?;
    counts.defects(all.len() as u64, "after all", baseline.grown(1 << 30)?);
    counts.defects(all.len() as u64, "after all", slots.orphans()?);
    Ok(counts)
}

fn one(
    site: &Site,
    bench: &Bench<'_>,
    n: u64,
    name: &str,
    pieces: &[Piece],
    counts: &Mutex<Counts>,
) -> Result<()> {
    let path = site.folder.join(format!("{ROW}-{n}"));
    write(&path, pieces)?;
    let trial = bench.try_file(&path)?;
    if !trial.defects.is_empty() {
        site.keep(ROW, n, &path)?;
    }
    fs::remove_file(&path).context("removing an input")?;
    let ram = trial.usage.peak_ram >> 20;
    // At once, because a run of bombs is long and one of them may be the last.
    println!("       {n} {name}: {:?}, {} ms, {ram} MiB", trial.verdict, trial.usage.cpu_ms);
    let mut counts = lock(counts);
    counts.add(&trial.verdict);
    counts.took(&trial.usage);
    counts.defects(n, name, trial.defects);
    Ok(())
}

impl Kit {
    fn new(site: &Site) -> Result<Kit> {
        let clips = corpus::make(&site.folder.join("clips"), 1)?;
        let movie = Movie::parse(&clip(&clips, "h264-aac.mp4")?);
        let jpegs = clip(&clips, "mjpeg.mov")?;
        let start = find(&jpegs, &[0xff, 0xd8, 0xff]).context("mjpeg.mov holds no picture")?;
        let end = find(&jpegs[start..], &[0xff, 0xd9]).context("the picture does not end")?;
        let fragmented = clip(&clips, "h264-fragmented.mp4")?;
        Ok(Kit { movie, fragmented, picture: jpegs[start..start + end + 2].to_vec(), clips })
    }

    /// The clip with the bytes at `from` behind `mark` replaced.
    fn patched(&self, name: &str, mark: &[u8], from: usize, bytes: &[u8]) -> Vec<Piece> {
        let mut file = clip(&self.clips, name).unwrap_or_default();
        if let Some(at) = find(&file, mark).map(|at| at + from)
            && let Some(place) = file.get_mut(at..at + bytes.len())
        {
            place.copy_from_slice(bytes);
        }
        vec![file.into()]
    }

    /// A movie of one picture that lies in a file of its own kind.
    fn still(&self, entry: &[u8], data: &[u8]) -> Vec<Piece> {
        let at = self.movie.bytes().len() as u32 + 8;
        let mdat = mp4(b"mdat", data);
        // What stands in front of it moves with the size of `moov`, so it goes in front of all.
        let moved = |at: u32| {
            self.movie
                .clone()
                .set(&format!("{VIDEO}/stsd"), entry)
                .set(&format!("{VIDEO}/stsz"), words(&[0, data.len() as u32, 1]))
                .set(&format!("{VIDEO}/stts"), words(&[0, 1, 1, 1024]))
                .set(&format!("{VIDEO}/stsc"), words(&[0, 1, 1, 1, 1]))
                .set(&format!("{VIDEO}/stco"), words(&[0, 1, at]))
                .set(&format!("{VIDEO}/ctts"), words(&[0, 0]))
                .set(&format!("{VIDEO}/stss"), words(&[0, 1, 1]))
        };
        let len = moved(at).bytes().len() as u32;
        vec![moved(len + 8).bytes().into(), mdat.into()]
    }

    /// A movie with one table of its picture replaced.
    fn table(&self, name: &str, body: &[u32]) -> Vec<Piece> {
        vec![self.movie.clone().set(&format!("{VIDEO}/{name}"), words(body)).bytes().into()]
    }

    /// A Matroska film of pictures at these ticks, with more elements before the clusters.
    fn film(&self, scale: u64, duration: f64, times: &[u64], more: &[Vec<u8>]) -> Vec<Piece> {
        let track = picture_track(1, "V_MJPEG", 64, 48, &[]);
        let mut segment = vec![info(scale, duration), ebml(0x1654_ae6b, track)];
        segment.extend_from_slice(more);
        segment.extend(times.iter().map(|time| cluster(*time, 1, &self.picture)));
        vec![matroska(&segment).into()]
    }

    /// A Matroska film whose tracks are these, with one picture.
    fn tracks(&self, tracks: &[u8]) -> Vec<Piece> {
        let segment =
            [info(1_000_000, 1000.0), ebml(0x1654_ae6b, tracks), cluster(0, 1, &self.picture)];
        vec![matroska(&segment).into()]
    }
}

fn clip(clips: &[corpus::Clip], name: &str) -> Result<Vec<u8>> {
    let found = clips.iter().find(|clip| clip.name == name);
    Ok(found.with_context(|| format!("the corpus has no {name}"))?.bytes.clone())
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

/// Elements in elements, innermost first.
fn nested(id: u32, depth: usize, innermost: Vec<u8>) -> Vec<u8> {
    // Written from the inside out, so that it takes one pass: sizes are known behind a body only.
    let mut heads = Vec::with_capacity(depth);
    let mut size = innermost.len();
    for _ in 0..depth {
        let head = ebml_claiming(id, size as u64, []);
        size += head.len();
        heads.push(head);
    }
    heads.into_iter().rev().flatten().chain(innermost).collect()
}

fn nested_boxes(kind: &[u8; 4], depth: u32) -> Vec<u8> {
    (1..=depth).rev().flat_map(|level| claiming(level * 8, kind, [])).collect()
}

/// An ID3v2.4 tag of these frames; sizes have seven bits a byte.
fn id3(frames: &[u8]) -> Vec<u8> {
    let len = frames.len() as u32;
    let size = [len >> 21 & 127, len >> 14 & 127, len >> 7 & 127, len & 127].map(|b| b as u8);
    [b"ID3\x04\0\0", &size[..], frames].concat()
}

fn zlib(len: usize) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec_zlib(&vec![0; len], 9)
}

/// A PNG of one bit a pixel and all zeros.
fn png(side: u32) -> Vec<u8> {
    // Decoders look at checksums only when they are told to.
    let chunk = |kind: &[u8; 4], body: &[u8]| {
        [&(body.len() as u32).to_be_bytes()[..], kind, body, &[0; 4]].concat()
    };
    let header = [words(&[side, side]), vec![1, 0, 0, 0, 0]].concat();
    let rows = zlib((side as usize / 8 + 1) * side as usize);
    [
        &b"\x89PNG\r\n\x1a\n"[..],
        &chunk(b"IHDR", &header),
        &chunk(b"IDAT", &rows),
        &chunk(b"IEND", &[]),
    ]
    .concat()
}

/// The tables of a track of `count` samples of `size` bytes, `delta` ticks each, all in one chunk.
fn samples(kit: &Kit, count: u32, size: u32, delta: u32) -> Movie {
    let stbl = |name: &str| format!("{VIDEO}/{name}");
    kit.movie
        .clone()
        .set(&stbl("stsz"), words(&[0, size, count]))
        .set(&stbl("stts"), words(&[0, 1, count, delta]))
        .set(&stbl("stsc"), words(&[0, 1, 1, count, 1]))
        .set(&stbl("stco"), words(&[0, 1, 48]))
        .set(&stbl("ctts"), words(&[0, 0]))
        .set(&stbl("stss"), words(&[0, 1, 1]))
}

fn edits(count: u32, each: [u32; 3]) -> Vec<u32> {
    let mut body = vec![0, count];
    for _ in 0..count {
        body.extend_from_slice(&each);
    }
    body
}

fn with_edits(kit: &Kit, body: &[u32]) -> Vec<Piece> {
    vec![kit.movie.clone().set("moov/trak/edts/elst", words(body)).bytes().into()]
}

/// A fragment whose run promises so many samples without a byte for any of them.
fn fragment(samples: u32) -> Vec<u8> {
    let tfhd = mp4(b"tfhd", words(&[0x02_0000 | 0x18, 1, 1024, 1]));
    let trun = mp4(b"trun", words(&[0, samples]));
    mp4(b"moof", [mp4(b"mfhd", words(&[0, 99])), mp4(b"traf", [tfhd, trun].concat())].concat())
}

/// A chapter track: `tref` of the picture leads to a text track of so many samples.
fn chapter_track(kit: &Kit, count: u32) -> Vec<Piece> {
    let text = [words(&[0, 1]), mp4(b"text", vec![0; 51])].concat();
    let track = kit.movie.get("moov/trak");
    let mut header = kit.movie.get("moov/trak/tkhd");
    header[12..16].copy_from_slice(&[0, 0, 0, 9]);
    let mut handler = kit.movie.get("moov/trak/mdia/hdlr");
    handler[8..12].copy_from_slice(b"text");
    let chapters = Movie::parse(&mp4(b"trak", track))
        .set("trak/tkhd", header)
        .set("trak/mdia/hdlr", handler)
        .set("trak/mdia/minf/stbl/stsd", text)
        .set("trak/mdia/minf/stbl/stsz", words(&[0, 2, count]))
        .set("trak/mdia/minf/stbl/stts", words(&[0, 1, count, 1]))
        .set("trak/mdia/minf/stbl/stsc", words(&[0, 1, 1, count, 1]))
        .set("trak/mdia/minf/stbl/stco", words(&[0, 1, 48]))
        .set("trak/mdia/minf/stbl/ctts", words(&[0, 0]))
        .set("trak/mdia/minf/stbl/stss", words(&[0, 0]));
    let movie = kit.movie.clone().set("moov/trak/tref", mp4(b"chap", words(&[9])));
    vec![movie.add("moov", &chapters.bytes()).bytes().into()]
}

/// `moov` with a list of tags in it.
fn tags(kit: &Kit, list: &[u8]) -> Vec<Piece> {
    let handler = mp4(b"hdlr", [&words(&[0, 0])[..], b"mdirappl", &[0; 9]].concat());
    let meta = mp4(b"meta", [words(&[0]), handler, mp4(b"ilst", list)].concat());
    vec![kit.movie.clone().add("moov", &mp4(b"udta", meta)).bytes().into()]
}

/// One tag of `len` bytes that are a hole.
fn one_tag(kit: &Kit, kind: &[u8; 4], len: u32) -> Vec<Piece> {
    let handler = mp4(b"hdlr", [&words(&[0, 0])[..], b"mdirappl", &[0; 9]].concat());
    let data = claiming(len + 16, b"data", words(&[1, 0]));
    let tag = claiming(len + 24, kind, data);
    let list = claiming(len + 32, b"ilst", tag);
    let meta = claiming(
        len + 32 + 4 + handler.len() as u32 + 8,
        b"meta",
        [words(&[0]), handler, list].concat(),
    );
    let body_end = meta.len() as u32 + len;
    let udta = claiming(body_end + 8, b"udta", meta);
    let moov = kit.movie.get("moov");
    let head = claiming(moov.len() as u32 + udta.len() as u32 + len + 8, b"moov", &moov);
    let front = kit.movie.bytes();
    let front = &front[..front.len() - moov.len() - 8];
    vec![[front, &head, &udta].concat().into(), Piece::Hole(len.into())]
}

fn movie_of(kit: &Kit, scale: u32, length: u64) -> Vec<Piece> {
    let mut body = words(&[0x0100_0000, 0, 0, 0, 0, scale]);
    body.extend_from_slice(&length.to_be_bytes());
    let media = [&body[..], &[0x55, 0xc4, 0, 0]].concat();
    vec![kit.movie.clone().set("moov/trak/mdia/mdhd", media).bytes().into()]
}

fn spaced(kit: &Kit, scale: u32, delta: u32) -> Vec<Piece> {
    let count = kit.movie.get(&format!("{VIDEO}/stsz"));
    let count = u32::from_be_bytes([count[8], count[9], count[10], count[11]]);
    let movie = kit.movie.clone().patch("moov/trak/mdia/mdhd", 12, &scale.to_be_bytes());
    let movie = movie.set("moov/trak/edts/elst", words(&[0, 0]));
    let movie = movie.set(&format!("{VIDEO}/ctts"), words(&[0, 0]));
    vec![movie.set(&format!("{VIDEO}/stts"), words(&[0, 1, count, delta])).bytes().into()]
}

fn cmov(kit: &Kit, claimed: u32, packed: &[u8]) -> Vec<Piece> {
    let inner = [mp4(b"dcom", b"zlib"), mp4(b"cmvd", [&claimed.to_be_bytes(), packed].concat())];
    vec![kit.movie.clone().set("moov", mp4(b"cmov", inner.concat())).bytes().into()]
}

/// Transport packets of one table section.
fn psi(pid: u16, section: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, chunk) in [&[0][..], section].concat().chunks(184).enumerate() {
        let start = if n == 0 { 0x40 } else { 0 };
        let pid = pid.to_be_bytes();
        out.extend_from_slice(&[0x47, start | pid[0], pid[1], 0x10 | (n as u8 & 15)]);
        out.extend_from_slice(chunk);
        out.resize(out.len().next_multiple_of(188), 0xff);
    }
    out
}

/// A section with the checksum of ISO/IEC 13818-1, annex A.
fn section(table: u8, id: u16, body: &[u8]) -> Vec<u8> {
    let len = (body.len() + 9) as u16 | 0xb000;
    let mut out = vec![table];
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0xc1, 0, 0]);
    out.extend_from_slice(body);
    let crc = out.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            if crc & 1 << 31 == 0 { crc << 1 } else { crc << 1 ^ 0x04c1_1db7 }
        })
    });
    out.extend_from_slice(&crc.to_be_bytes());
    out
}

/// A stream of so many programmes of so many elementary streams each.
fn programmes(programmes: u16, streams: u16) -> Vec<Piece> {
    let list: Vec<u8> = (0..programmes)
        .flat_map(|n| [(n + 1).to_be_bytes(), (0xe100 + n).to_be_bytes()].concat())
        .collect();
    let mut file = psi(0, &section(0, 1, &list));
    for n in 0..programmes {
        let mut body = vec![0xe0, 0x20, 0xf0, 0];
        for stream in 0..streams {
            let pid = (0x400 + n * streams + stream) & 0x1fff | 0xe000;
            body.extend_from_slice(&[0x1b, (pid >> 8) as u8, pid as u8, 0xf0, 0]);
        }
        file.extend(psi(0x100 + n, &section(2, n + 1, &body)));
    }
    vec![file.into()]
}

/// An Ogg page that begins a stream of its own.
fn ogg_page(serial: u32, data: &[u8]) -> Vec<u8> {
    let mut page = b"OggS\0\x02\0\0\0\0\0\0\0\0".to_vec();
    page.extend_from_slice(&serial.to_le_bytes());
    page.extend_from_slice(&[0; 8]);
    page.push(1);
    page.push(data.len() as u8);
    page.extend_from_slice(data);
    page
}

fn riff(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [kind, &(body.len() as u32).to_le_bytes()[..], body].concat()
}

/// An H.264 file whose parameter set has this size.
fn annex_b(avc: &[u8]) -> Vec<u8> {
    // Behind the box's head and six bytes: length, set, one byte, length, set.
    let len = usize::from(u16::from_be_bytes([avc[14], avc[15]]));
    let slice = Bits::default().put(8, 0x65).golomb(0).golomb(7).golomb(0).put(4, 0).golomb(0);
    let slice = slice.put(2, 0).golomb(0).put(64, u64::MAX).end();
    let start = [0u8, 0, 0, 1];
    [&start[..], &avc[16..16 + len], &start, &avc[16 + len + 3..], &start, &slice].concat()
}

/// Every bomb.
pub fn bombs() -> Vec<Bomb> {
    vec![
        ("raw picture of 30000x30000", |k| {
            let movie = samples(k, 1, 0x7fff_ffff, 1024);
            let entry = visual(b"raw ", 30_000, 30_000, &[]);
            vec![movie.set(&format!("{VIDEO}/stsd"), entry).bytes().into()]
        }),
        ("v210 picture of 65535x65535", |k| {
            k.still(&visual(b"v210", 65_535, 65_535, &[]), &[0x55; 4096])
        }),
        ("H.264 parameter set of 30000x30000 in a movie", |k| {
            k.still(
                &visual(b"avc1", 30_000, 30_000, &avc_of(1875, 1875)),
                &[0, 0, 0, 2, 0x65, 0x88],
            )
        }),
        ("H.264 parameter set of 30000x30000, no container", |_| {
            vec![annex_b(&avc_of(1875, 1875)).into()]
        }),
        ("H.264 parameter set of 16384x16384 in a small frame", |k| {
            k.still(&visual(b"avc1", 64, 48, &avc_of(1024, 1024)), &[0, 0, 0, 2, 0x65, 0x88])
        }),
        ("JPEG of 65500x65500", |k| {
            let mut jpeg = k.picture.clone();
            if let Some(at) = find(&jpeg, &[0xff, 0xc0]) {
                jpeg[at + 5..at + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
            }
            k.still(&visual(b"jpeg", 64, 48, &[]), &jpeg)
        }),
        ("PNG of 30000x30000 in 110 KB", |k| {
            k.still(&visual(b"png ", 30_000, 30_000, &[]), &png(30_000))
        }),
        ("PNG of 16000x16000 that says 64x48", |k| {
            k.still(&visual(b"png ", 64, 48, &[]), &png(16_000))
        }),
        ("ProRes frame of 65520x65520", |k| {
            k.patched("prores-pcm.mov", b"icpf", 12, &[0xff, 0xf0, 0xff, 0xf0])
        }),
        ("MPEG-2 sequence of 4095x4095 times 4", |k| {
            k.patched("mpeg2.m2v", &[0, 0, 1, 0xb3], 4, &[0xff, 0xff, 0xff])
        }),
        ("YUV4MPEG of 30000x30000", |_| {
            let head = b"YUV4MPEG2 W30000 H30000 F25:1 Ip A1:1 C420jpeg\nFRAME\n".to_vec();
            vec![head.into(), Piece::Hole(1_350_000_000)]
        }),
        ("VP8 frame of 16383x16383", |k| {
            k.patched("vp8.ivf", &[0x9d, 0x01, 0x2a], 3, &[0xff, 0x3f, 0xff, 0x3f])
        }),
        ("FFV1 track of 100000x100000", |k| {
            k.tracks(&picture_track(1, "V_FFV1", 100_000, 100_000, &[]))
        }),
        ("AVI of raw pictures of 30000x30000", |k| {
            let mut pieces = k.patched("mjpeg-pcm.avi", b"strf", 12, &30_000u32.to_le_bytes());
            if let Some(Piece::Bytes(file)) = pieces.first_mut()
                && let Some(at) = find(file, b"strf")
            {
                file[at + 16..at + 20].copy_from_slice(&30_000u32.to_le_bytes());
                file[at + 22..at + 28].copy_from_slice(&[24, 0, 0, 0, 0, 0]);
            }
            pieces
        }),
        ("JPEG 2000 picture of 2^31 columns", |k| {
            k.patched("jpeg2000.mov", &[0xff, 0x51], 6, &[0x7f, 0xff, 0xff, 0xff])
        }),
        ("10^9 frames of one byte from three tables", |k| {
            vec![samples(k, 1_000_000_000, 1, 1).bytes().into()]
        }),
        ("10^7 frames of no byte", |k| vec![samples(k, 10_000_000, 0, 1).bytes().into()]),
        ("2^32 frames of no byte", |k| vec![samples(k, u32::MAX, 0, 1).bytes().into()]),
        ("30 million frames of one byte", |k| vec![samples(k, 30_000_000, 1, 1).bytes().into()]),
        ("stsz claims 2^32 entries", |k| k.table("stsz", &[0, 0, u32::MAX, 9])),
        ("stts claims 2^32 entries", |k| k.table("stts", &[0, u32::MAX, 1, 1])),
        ("stts of one entry of 2^31 samples", |k| k.table("stts", &[0, 1, 1 << 31, 1])),
        ("ctts claims 2^30 entries", |k| k.table("ctts", &[0, 1 << 30, 1, 1])),
        ("ctts of one entry of 2^31 samples", |k| k.table("ctts", &[0, 1, 1 << 31, 1])),
        ("stco claims 2^32 entries", |k| k.table("stco", &[0, u32::MAX, 48])),
        ("stsc claims 2^32 entries", |k| k.table("stsc", &[0, u32::MAX, 1, 1, 1])),
        ("stsc of 2^32 samples a chunk", |k| k.table("stsc", &[0, 1, 1, u32::MAX, 1])),
        ("stss claims 2^32 entries", |k| k.table("stss", &[0, u32::MAX, 1])),
        ("stsd claims 2^32 entries", |k| k.table("stsd", &[0, u32::MAX, 16, 0x6176_6331])),
        ("10^5 edits that each play the whole", |k| {
            with_edits(k, &edits(100_000, [1250, 0, 0x1_0000]))
        }),
        ("10^6 edits that each play the whole", |k| {
            with_edits(k, &edits(1_000_000, [1250, 0, 0x1_0000]))
        }),
        ("10^5 empty edits of 2^31 ticks", |k| {
            with_edits(k, &edits(100_000, [1 << 31, u32::MAX, 0x1_0000]))
        }),
        ("an edit list that claims 2^32 entries", |k| {
            with_edits(k, &[0, u32::MAX, 1250, 0, 0x1_0000])
        }),
        ("an edit at rate 0 for ever", |k| with_edits(k, &[0, 1, u32::MAX, 0, 0])),
        ("a fragment run of 10^7 samples without data", |k| {
            vec![[k.fragmented.clone(), fragment(10_000_000)].concat().into()]
        }),
        ("30 fragment runs of 10^7 samples without data", |k| {
            vec![[k.fragmented.clone(), fragment(10_000_000).repeat(30)].concat().into()]
        }),
        ("a fragment run of 2^31 samples", |k| {
            vec![[k.fragmented.clone(), fragment(1 << 31)].concat().into()]
        }),
        ("a random access table that claims 2^32 entries", |k| {
            let tfra = mp4(b"tfra", words(&[0, 1, 0, u32::MAX, 0, 0, 0]));
            let mfro = mp4(b"mfro", words(&[0, tfra.len() as u32 + 24]));
            let mfra = mp4(b"mfra", [tfra, mfro].concat());
            vec![[k.fragmented.clone(), mfra].concat().into()]
        }),
        ("a segment index of 65535 references", |k| {
            let mut body = vec![0, 1, 1000, 0, 0, 65_535];
            body.extend((0..65_535).flat_map(|_| [0x7fff_ffff, u32::MAX, 0]));
            vec![[k.fragmented.clone(), mp4(b"sidx", words(&body))].concat().into()]
        }),
        ("10^5 tracks of a movie", |k| {
            vec![k.movie.clone().add("moov", &mp4(b"trak", []).repeat(100_000)).bytes().into()]
        }),
        ("2000 whole tracks of a movie", |k| {
            let track = mp4(b"trak", k.movie.get("moov/trak"));
            vec![k.movie.clone().add("moov", &track.repeat(2000)).bytes().into()]
        }),
        ("10^5 tracks of a Matroska file", |k| {
            let tracks: Vec<u8> =
                (1..=100_000).flat_map(|n| picture_track(n, "V_MJPEG", 64, 48, &[])).collect();
            k.tracks(&tracks)
        }),
        ("200 programmes of 200 streams", |_| programmes(200, 200)),
        ("one programme of 200 streams", |_| programmes(1, 200)),
        ("10^5 streams of an Ogg file", |_| {
            let vorbis = [b"\x01vorbis\0\0\0\0\x02\x80\xbb\0\0".as_slice(), &[0; 13]].concat();
            vec![(0..100_000).flat_map(|n| ogg_page(n, &vorbis)).collect::<Vec<u8>>().into()]
        }),
        ("10^5 streams of an AVI file", |_| {
            let header = [b"vidsMJPG".as_slice(), &[0; 48]].concat();
            let format = [words(&[0x2800_0000, 0x4000_0000, 0x3000_0000]), vec![0; 28]].concat();
            let list = [b"strl".to_vec(), riff(b"strh", &header), riff(b"strf", &format)].concat();
            let lists = riff(b"LIST", &list).repeat(100_000);
            let hdrl = [b"hdrl".to_vec(), riff(b"avih", &[0; 56]), lists].concat();
            vec![riff(b"RIFF", &[b"AVI ".to_vec(), riff(b"LIST", &hdrl)].concat()).into()]
        }),
        ("10^6 chapters of a Matroska file", |k| {
            let atom = ebml(0xb6, [number(0x73c4, 1), number(0x91, 0)].concat());
            let edition = ebml(0x45b9, atom.repeat(1_000_000));
            k.film(1_000_000, 1000.0, &[0, 100], &[ebml(0x1043_a770, edition)])
        }),
        ("10^6 tags of a Matroska file", |k| {
            let tag = ebml(0x67c8, [ebml(0x45a3, "NAME"), ebml(0x4487, "value")].concat());
            let tags = ebml(0x7373, tag.repeat(1_000_000));
            k.film(1_000_000, 1000.0, &[0, 100], &[ebml(0x1254_c367, tags)])
        }),
        ("10^6 different tags of a movie", |k| {
            let list: Vec<u8> = (0..1_000_000u32)
                .flat_map(|n| {
                    let data = mp4(b"data", [words(&[1, 0]), b"value".to_vec()].concat());
                    mp4(&(n | 0xa900_0000).to_be_bytes(), data)
                })
                .collect();
            tags(k, &list)
        }),
        ("10^6 subtitles of a Matroska file", |k| {
            let text = ebml(
                0xae,
                [number(0xd7, 2), number(0x73c5, 2), number(0x83, 17), ebml(0x86, "S_TEXT/UTF8")]
                    .concat(),
            );
            let tracks = [picture_track(1, "V_MJPEG", 64, 48, &[]), text].concat();
            let block = ebml(0xa3, [0x82, 0, 0, 0x80, b'x']);
            let segment = [
                info(1_000_000, 1000.0),
                ebml(0x1654_ae6b, tracks),
                cluster(0, 1, &k.picture),
                ebml(0x1f43_b675, [number(0xe7, 0), block.repeat(1_000_000)].concat()),
            ];
            vec![matroska(&segment).into()]
        }),
        ("10^6 cues of a subtitle file", |_| {
            let cues: String = (0..1_000_000)
                .map(|n| format!("{n}\n00:00:00,000 --> 00:00:01,000\nx\n\n"))
                .collect();
            vec![cues.into_bytes().into()]
        }),
        ("a chapter track of 10^7 samples", |k| chapter_track(k, 10_000_000)),
        ("a chapter track of 10^5 samples", |k| chapter_track(k, 100_000)),
        ("10^6 chapters in ID3", |k| {
            let frame = b"CHAP\0\0\0\x12\0\0a\0\0\0\0\0\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff";
            let frames = frame.repeat(1_000_000);
            vec![[id3(&frames), clip(&k.clips, "sound.mp3").unwrap_or_default()].concat().into()]
        }),
        ("10^5 ID3 tags in a row", |k| {
            let sound = clip(&k.clips, "sound.mp3").unwrap_or_default();
            vec![[id3(&[]).repeat(100_000), sound].concat().into()]
        }),
        ("ID3 tags in ID3 tags", |k| {
            let inner = (0..1000).fold(Vec::new(), |inner, _| id3(&inner));
            vec![[inner, clip(&k.clips, "sound.mp3").unwrap_or_default()].concat().into()]
        }),
        ("10^6 comments of a FLAC file", |_| {
            let comment = [&4u32.to_le_bytes()[..], b"a=bc"].concat();
            let comments =
                [&[0; 4], &1_000_000u32.to_le_bytes()[..], &comment.repeat(1_000_000)].concat();
            let info = [b"\0\0\0\x22\x10\0\x10\0".as_slice(), &[0; 30]].concat();
            let size = comments.len() as u32 | 0x8400_0000;
            let parts = [b"fLaC".to_vec(), info, size.to_be_bytes().to_vec(), comments];
            vec![parts.concat().into()]
        }),
        ("boxes in boxes, 10^5 deep", |k| {
            vec![k.movie.behind(&nested_boxes(b"moov", 100_000)).into()]
        }),
        ("tracks in tracks, 10^5 deep", |k| {
            vec![k.movie.clone().add("moov", &nested_boxes(b"trak", 100_000)).bytes().into()]
        }),
        ("chapters in chapters, 10^5 deep", |k| {
            let edition = ebml(0x45b9, nested(0xb6, 100_000, Vec::new()));
            k.film(1_000_000, 1000.0, &[0], &[ebml(0x1043_a770, edition)])
        }),
        ("tags in tags, 10^5 deep", |k| {
            let inner = [ebml(0x45a3, "NAME"), ebml(0x4487, "value")].concat();
            let tags = ebml(0x7373, nested(0x67c8, 100_000, inner));
            k.film(1_000_000, 1000.0, &[0], &[ebml(0x1254_c367, tags)])
        }),
        ("a Matroska file in a Matroska file, 10^4 deep", |k| {
            let film = k.film(1_000_000, 1000.0, &[0], &[]);
            let Some(Piece::Bytes(film)) = film.first() else { return Vec::new() };
            vec![[head(), nested(0x1853_8067, 10_000, film.clone())].concat().into()]
        }),
        ("lists in lists of a WAVE file, 10^5 deep", |_| {
            let lists: Vec<u8> = (1..=100_000u32)
                .rev()
                .flat_map(|n| [b"LIST", &(n * 12).to_le_bytes()[..], b"INFO"].concat())
                .collect();
            vec![riff(b"RIFF", &[b"WAVE".to_vec(), lists].concat()).into()]
        }),
        ("a track of 2^63 ticks of a second", |k| movie_of(k, 1, i64::MAX as u64)),
        ("a track of 2^64 ticks", |k| movie_of(k, 12_288, u64::MAX)),
        ("a track at no ticks a second", |k| movie_of(k, 0, 1 << 40)),
        ("a track at 2^32 ticks a second", |k| movie_of(k, u32::MAX, 1 << 40)),
        ("samples of 2^31 ticks", |k| spaced(k, 1, 0x7fff_ffff)),
        ("samples of 2^32 ticks", |k| spaced(k, 1, u32::MAX)),
        ("a frame an hour", |k| spaced(k, 1, 3600)),
        ("a frame a year", |k| spaced(k, 1, 31_536_000)),
        ("10^9 frames a second", |k| spaced(k, 1_000_000_000, 1)),
        ("a Matroska film that lasts for ever", |k| {
            k.film(1_000_000, f64::INFINITY, &[0, 40], &[])
        }),
        ("a Matroska film that lasts no number", |k| k.film(1_000_000, f64::NAN, &[0, 40], &[])),
        ("Matroska ticks of 2^63 ns", |k| k.film(1 << 63, 1000.0, &[0, 1, 2], &[])),
        ("Matroska ticks of no time", |k| k.film(0, 1000.0, &[0, 1, 2], &[])),
        ("a Matroska cluster at 2^63", |k| {
            k.film(1_000_000, 1000.0, &[0, i64::MAX as u64, 7], &[])
        }),
        ("Matroska frames a day apart", |k| {
            let times: Vec<u64> = (0..8).map(|n| n * 86_400_000).collect();
            k.film(1_000_000, 1000.0, &times, &[])
        }),
        ("Matroska frames of one nanosecond", |k| {
            let track = picture_track(1, "V_MJPEG", 64, 48, &number(0x23_e383, 1));
            k.tracks(&track)
        }),
        ("a box of 2^63 bytes", |k| {
            let giant = [words(&[1]), b"free".to_vec(), words(&[0x7fff_ffff, u32::MAX])].concat();
            vec![k.movie.behind(&giant).into()]
        }),
        ("a box of 2^64 - 1 bytes", |k| {
            let giant = [words(&[1]), b"mdat".to_vec(), words(&[u32::MAX, u32::MAX])].concat();
            vec![k.movie.behind(&giant).into()]
        }),
        ("a box of 2^64 - 1 bytes in front", |k| {
            let giant = [words(&[1]), b"free".to_vec(), words(&[u32::MAX, u32::MAX])].concat();
            vec![[mp4(b"ftyp", b"isom\0\0\0\0"), giant, k.movie.bytes()].concat().into()]
        }),
        ("a tag of 300 MB", |k| one_tag(k, b"\xa9nam", 300 << 20)),
        ("a cover of 300 MB", |k| one_tag(k, b"covr", 300 << 20)),
        ("a cover of 2 GB", |k| one_tag(k, b"covr", 2_000_000_000)),
        ("codec parameters of 500 MB", |_| {
            let private = ebml_claiming(0x63a2, 500 << 20, []);
            let fields = [number(0xd7, 1), number(0x73c5, 1), number(0x83, 1)].concat();
            let name = ebml(0x86, "V_MPEG4/ISO/AVC");
            let len = (fields.len() + name.len() + private.len()) as u64 + (500 << 20);
            let track = ebml_claiming(0xae, len, []);
            let tracks = ebml_claiming(0x1654_ae6b, track.len() as u64 + len, []);
            let info = info(1_000_000, 1000.0);
            let all = info.len() + tracks.len() + track.len();
            let segment = ebml_claiming(0x1853_8067, all as u64 + len, []);
            let head = [head(), segment, info, tracks, track, fields, name, private].concat();
            vec![head.into(), Piece::Hole(500 << 20)]
        }),
        ("avcC of 200 parameter sets of 64 KB", |k| {
            let mut body = vec![1, 0x42, 0, 0x3e, 0xff, 0xff];
            for _ in 0..31 {
                body.extend_from_slice(&[0xff, 0xff]);
                body.resize(body.len() + 65_535, 0x67);
            }
            body.push(255);
            for _ in 0..255 {
                body.extend_from_slice(&[0xff, 0xff]);
                body.resize(body.len() + 65_535, 0x68);
            }
            k.still(&visual(b"avc1", 64, 48, &mp4(b"avcC", body)), &[0; 64])
        }),
        ("an attachment of 300 MB", |k| {
            let data = ebml_claiming(0x465c, 300 << 20, []);
            let fields =
                [ebml(0x466e, "a.ttf"), ebml(0x4660, "font/ttf"), number(0x46ae, 7)].concat();
            let len = (fields.len() + data.len()) as u64 + (300 << 20);
            let file = ebml_claiming(0x61a7, len, []);
            let list = ebml_claiming(0x1941_a469, file.len() as u64 + len, []);
            let film = k.film(1_000_000, 1000.0, &[0, 40], &[]);
            let mut pieces = film;
            if let Some(Piece::Bytes(film)) = pieces.first_mut() {
                // The segment's size is unknown, so that what follows is in it.
                let at = head().len() + 4;
                film[at..at + 8].copy_from_slice(&[1, 255, 255, 255, 255, 255, 255, 255]);
            }
            pieces.push([list, file, fields, data].concat().into());
            pieces.push(Piece::Hole(300 << 20));
            pieces
        }),
        ("10^5 attachments", |k| {
            let fields = [ebml(0x466e, "a.ttf"), ebml(0x4660, "font/ttf"), number(0x46ae, 7)];
            let file = ebml(0x61a7, [fields.concat(), ebml(0x465c, "x")].concat());
            let list = ebml(0x1941_a469, file.repeat(100_000));
            k.film(1_000_000, 1000.0, &[0, 40], &[list])
        }),
        ("10^5 empty elements before the tracks", |k| {
            k.film(1_000_000, 1000.0, &[0, 40], &[ebml(0xec, []).repeat(100_000)])
        }),
        ("an empty element of 2^56 bytes", |k| {
            k.film(1_000_000, 1000.0, &[0, 40], &[ebml_claiming(0xec, (1 << 56) - 2, [])])
        }),
        ("a compressed movie header that claims 4 GB", |k| cmov(k, u32::MAX, &zlib(1000))),
        ("a compressed movie header of 256 MB of zeros", |k| cmov(k, 256 << 20, &zlib(256 << 20))),
        ("a compressed movie header in itself", |k| {
            let inner =
                mp4(b"moov", mp4(b"cmov", [mp4(b"dcom", b"zlib"), mp4(b"cmvd", [0; 8])].concat()));
            let packed = miniz_oxide::deflate::compress_to_vec_zlib(&inner, 9);
            cmov(k, inner.len() as u32, &packed)
        }),
        ("a compressed Matroska block of 512 MB of zeros", |_| {
            let compression = ebml(0x5034, number(0x4254, 0));
            let encoding = [number(0x5031, 0), number(0x5032, 1), number(0x5033, 0), compression];
            let encodings = ebml(0x6d80, ebml(0x6240, encoding.concat()));
            let track = picture_track(1, "V_MJPEG", 64, 48, &encodings);
            let blocks = cluster(0, 1, &zlib(512 << 20));
            let segment = [info(1_000_000, 1000.0), ebml(0x1654_ae6b, track), blocks];
            vec![matroska(&segment).into()]
        }),
        ("a stripped header of 64 MB on each of 10^4 blocks", |_| {
            let compression = [number(0x4254, 3), ebml(0x4255, vec![0xff; 64 << 20])].concat();
            let encoding = [number(0x5031, 0), number(0x5032, 1), ebml(0x5034, compression)];
            let encodings = ebml(0x6d80, ebml(0x6240, encoding.concat()));
            let track = picture_track(1, "V_MJPEG", 64, 48, &encodings);
            let block = ebml(0xa3, [0x81, 0, 0, 0x80, b'x']);
            let segment = [
                info(1_000_000, 1000.0),
                ebml(0x1654_ae6b, track),
                ebml(0x1f43_b675, [number(0xe7, 0), block.repeat(10_000)].concat()),
            ];
            vec![matroska(&segment).into()]
        }),
        ("an AVI index that leads to itself", |_| {
            let header = [b"vidsMJPG".as_slice(), &[0; 48]].concat();
            let format = [words(&[0x2800_0000, 0x4000_0000, 0x3000_0000]), vec![0; 28]].concat();
            let mut index = vec![4, 0, 0, 0, 1, 0, 0, 0];
            index.extend_from_slice(b"00dc\0\0\0\0\0\0\0\0\0\0\0\0");
            // The one entry leads to the chunk that it stands in.
            index.extend_from_slice(&[0; 16]);
            let list = [b"strl".to_vec(), riff(b"strh", &header), riff(b"strf", &format)].concat();
            let list = [list, riff(b"indx", &index)].concat();
            let hdrl = [b"hdrl".to_vec(), riff(b"avih", &[0; 56]), riff(b"LIST", &list)].concat();
            let mut file = [b"AVI ".to_vec(), riff(b"LIST", &hdrl)].concat();
            file = riff(b"RIFF", &file);
            if let Some(at) = find(&file, b"indx") {
                let place = at + 8 + 24;
                file[place..place + 8].copy_from_slice(&(at as u64).to_le_bytes());
            }
            vec![file.into(), Piece::Hole(4096)]
        }),
    ]
}
