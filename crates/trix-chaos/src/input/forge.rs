//! Writes containers by hand: boxes, elements, bits, and files with holes.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// A piece of a file. A hole costs no disk, and reads as zeros.
#[derive(Clone, Debug)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many zeros.
    Hole(u64),
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Piece {
        Piece::Bytes(bytes)
    }
}

/// Writes pieces one behind the other.
pub fn write(path: &Path, pieces: &[Piece]) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut end = 0;
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => {
                file.write_all(bytes).context("writing an input")?;
                end += bytes.len() as u64;
            }
            Piece::Hole(len) => {
                end += len;
                file.seek(SeekFrom::Start(end)).context("leaving a hole")?;
            }
        }
    }
    file.set_len(end).context("ending an input")
}

/// A box of ISO/IEC 14496-12: size, kind, body.
pub fn mp4(kind: &[u8; 4], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    claiming(body.len() as u32 + 8, kind, body)
}

/// A box that says that it has so many bytes.
pub fn claiming(size: u32, kind: &[u8; 4], body: impl AsRef<[u8]>) -> Vec<u8> {
    [&size.to_be_bytes()[..], kind, body.as_ref()].concat()
}

/// Words of 32 bits, most significant byte first.
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// A movie as a tree that is written back after changes. Its `mdat` stands before `moov`, so
/// that chunk offsets stay right whatever happens to `moov`.
#[derive(Clone, Debug)]
pub struct Movie(Vec<Node>);

#[derive(Clone, Debug)]
struct Node {
    kind: [u8; 4],
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Nodes(Vec<Node>),
    Bytes(Vec<u8>),
}

const PARENTS: &[&[u8; 4]] =
    &[b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts", b"moof", b"traf", b"mvex"];

impl Movie {
    /// Reads a sound movie.
    pub fn parse(bytes: &[u8]) -> Movie {
        Movie(nodes(bytes))
    }

    /// The movie as a file.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(Node::bytes).collect()
    }

    /// Replaces the body of the first box at this path, or adds it.
    pub fn set(mut self, path: &str, body: impl AsRef<[u8]>) -> Movie {
        *at(&mut self.0, path) = Body::Bytes(body.as_ref().to_vec());
        self
    }

    /// The body of the first box at this path; empty when there is none.
    pub fn get(&self, path: &str) -> Vec<u8> {
        let mut copy = self.clone();
        match at(&mut copy.0, path) {
            Body::Bytes(bytes) => bytes.clone(),
            Body::Nodes(nodes) => nodes.iter().flat_map(Node::bytes).collect(),
        }
    }

    /// Writes numbers into a body, each at its offset.
    pub fn patch(self, path: &str, at: usize, bytes: &[u8]) -> Movie {
        let mut body = self.get(path);
        body[at..at + bytes.len()].copy_from_slice(bytes);
        self.set(path, body)
    }

    /// Adds bytes at the end of a box that holds boxes.
    pub fn add(mut self, path: &str, bytes: &[u8]) -> Movie {
        let inner = self.get(path);
        *at(&mut self.0, path) = Body::Bytes([&inner, bytes].concat());
        self
    }

    /// Adds bytes at the end of the file.
    pub fn behind(&self, bytes: &[u8]) -> Vec<u8> {
        [&self.bytes(), bytes].concat()
    }
}

fn nodes(mut bytes: &[u8]) -> Vec<Node> {
    let mut nodes = Vec::new();
    while let Some((head, _)) = bytes.split_first_chunk::<8>() {
        let [a, b, c, d, kind @ ..] = *head;
        let size = (u32::from_be_bytes([a, b, c, d]) as usize).clamp(8, bytes.len());
        let inner = &bytes[8..size];
        let body = if PARENTS.contains(&&kind) {
            Body::Nodes(self::nodes(inner))
        } else {
            Body::Bytes(inner.to_vec())
        };
        nodes.push(Node { kind, body });
        bytes = &bytes[size..];
    }
    nodes
}

fn at<'n>(nodes: &'n mut Vec<Node>, path: &str) -> &'n mut Body {
    let (name, rest) = path.split_once('/').map_or((path, None), |(n, r)| (n, Some(r)));
    let mut kind = [b' '; 4];
    kind[..name.len()].copy_from_slice(name.as_bytes());
    let position = nodes.iter().position(|node| node.kind == kind).unwrap_or_else(|| {
        let empty = if rest.is_some() { Body::Nodes(Vec::new()) } else { Body::Bytes(Vec::new()) };
        nodes.push(Node { kind, body: empty });
        nodes.len() - 1
    });
    let body = &mut nodes[position].body;
    match rest {
        None => body,
        Some(rest) => {
            if let Body::Bytes(bytes) = body {
                *body = Body::Nodes(self::nodes(bytes));
            }
            match body {
                Body::Nodes(nodes) => at(nodes, rest),
                Body::Bytes(_) => unreachable!("it was made a list of boxes just before"),
            }
        }
    }
}

impl Node {
    fn bytes(&self) -> Vec<u8> {
        match &self.body {
            Body::Bytes(bytes) => mp4(&self.kind, bytes),
            Body::Nodes(nodes) => {
                mp4(&self.kind, nodes.iter().flat_map(Node::bytes).collect::<Vec<_>>())
            }
        }
    }
}

/// A visual sample entry (ISO/IEC 14496-12, 12.1.3) inside a whole `stsd`.
pub fn visual(kind: &[u8; 4], width: u16, height: u16, more: &[u8]) -> Vec<u8> {
    let mut entry = vec![0; 78];
    entry[7] = 1;
    entry[24..26].copy_from_slice(&width.to_be_bytes());
    entry[26..28].copy_from_slice(&height.to_be_bytes());
    entry[28..36].copy_from_slice(&words(&[0x48_0000, 0x48_0000]));
    entry[41] = 1;
    entry[75] = 24;
    entry[76..78].copy_from_slice(&[0xff, 0xff]);
    entry.extend_from_slice(more);
    [words(&[0, 1]), mp4(kind, entry)].concat()
}

/// An EBML element (RFC 8794) with a size of eight bytes.
pub fn ebml(id: u32, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    ebml_claiming(id, body.len() as u64, body)
}

/// An element that says that it has so many bytes.
pub fn ebml_claiming(id: u32, size: u64, body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out: Vec<u8> = id.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
    out.extend_from_slice(&(size & 0x00ff_ffff_ffff_ffff | 1 << 56).to_be_bytes());
    out.extend_from_slice(body.as_ref());
    out
}

/// An element of a whole number.
pub fn number(id: u32, value: u64) -> Vec<u8> {
    ebml(id, value.to_be_bytes())
}

/// A Matroska file of these elements in its segment.
pub fn matroska(segment: &[Vec<u8>]) -> Vec<u8> {
    [head(), ebml(0x1853_8067, segment.concat())].concat()
}

/// The EBML header of a Matroska file.
pub fn head() -> Vec<u8> {
    let fields =
        [number(0x4286, 1), number(0x42f7, 1), ebml(0x4282, "matroska"), number(0x4287, 4)];
    ebml(0x1a45_dfa3, fields.concat())
}

/// Information about the segment: nanoseconds a tick and ticks in all.
pub fn info(scale: u64, duration: f64) -> Vec<u8> {
    let fields = [number(0x2a_d7b1, scale), ebml(0x4489, duration.to_be_bytes())];
    ebml(0x1549_a966, fields.concat())
}

/// A track of pictures, with more elements in it.
pub fn picture_track(n: u64, codec: &str, width: u64, height: u64, more: &[u8]) -> Vec<u8> {
    let video = ebml(0xe0, [number(0xb0, width), number(0xba, height)].concat());
    let fields = [number(0xd7, n), number(0x73c5, n), number(0x83, 1), ebml(0x86, codec), video];
    ebml(0xae, [fields.concat(), more.to_vec()].concat())
}

/// A cluster at `time` with one block of `track`.
pub fn cluster(time: u64, track: u8, data: &[u8]) -> Vec<u8> {
    let block = ebml(0xa3, [&[0x80 | track, 0, 0, 0x80], data].concat());
    ebml(0x1f43_b675, [number(0xe7, time), block].concat())
}

/// Bits of an H.264 or HEVC header.
#[derive(Debug, Default)]
pub struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    /// The lowest `count` bits of `value`.
    pub fn put(mut self, count: u32, value: u64) -> Bits {
        for i in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> i & 1) as u8) << (7 - self.used % 8);
            }
            self.used += 1;
        }
        self
    }

    /// An Exp-Golomb number.
    pub fn golomb(self, value: u64) -> Bits {
        let len = (value + 1).ilog2();
        self.put(len, 0).put(len + 1, value + 1)
    }

    /// With the stop bit.
    pub fn end(self) -> Vec<u8> {
        self.put(1, 1).bytes
    }
}

/// An `avcC` box whose sequence parameter set claims so many macroblocks.
pub fn avc_of(width_mbs: u64, height_mbs: u64) -> Vec<u8> {
    let sps = Bits::default()
        .put(8, 0x67)
        .put(24, 0x42_00_3e)
        .golomb(0)
        .golomb(0)
        .golomb(2)
        .golomb(16)
        .put(1, 0)
        .golomb(width_mbs - 1)
        .golomb(height_mbs - 1)
        .put(1, 1)
        .put(1, 1)
        .put(2, 0)
        .end();
    let pps = Bits::default().put(8, 0x68).golomb(0).golomb(0).put(2, 0).golomb(0).golomb(0);
    let pps = pps.golomb(0).put(3, 0).golomb(0).golomb(0).golomb(0).put(3, 0).end();
    let mut body = vec![1, 0x42, 0, 0x3e, 0xff, 0xe1];
    body.extend_from_slice(&(sps.len() as u16).to_be_bytes());
    body.extend_from_slice(&sps);
    body.push(1);
    body.extend_from_slice(&(pps.len() as u16).to_be_bytes());
    body.extend_from_slice(&pps);
    mp4(b"avcC", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_movie_is_written_back_as_it_was_and_changes_where_it_is_changed() {
        let inner = mp4(b"trak", mp4(b"tkhd", [1, 2, 3, 4]));
        let file = [mp4(b"ftyp", "mp42"), mp4(b"moov", &inner)].concat();
        let movie = Movie::parse(&file);
        assert_eq!(movie.bytes(), file);
        assert_eq!(movie.get("moov/trak/tkhd"), [1, 2, 3, 4]);
        let changed = movie.patch("moov/trak/tkhd", 1, &[9]).set("moov/udta", "x");
        assert_eq!(changed.get("moov/trak/tkhd"), [1, 9, 3, 4]);
        assert_eq!(changed.bytes().len(), file.len() + 9);
    }

    #[test]
    fn exp_golomb_codes_are_those_of_the_standard() {
        // ISO/IEC 14496-10, table 9-2: 0 is 1, 1 is 010, 3 is 00100.
        let bits = Bits::default().golomb(0).golomb(1).golomb(3).end();
        assert_eq!(bits, [0b1010_0010, 0b0100_0000]);
    }
}
