//! Finds files that name other files: playlists by their first bytes, movies by
//! their data references. And encrypted tracks, which stand in the same boxes.
//!
//! libav skips an external track of a movie with a log line and exit code 0, so
//! the boxes are read here too. Nothing is allocated by what a box claims.

use std::io;

use crate::budget;
use crate::error::Result;
use crate::io::Source;

/// Bytes of the head that are looked at.
const HEAD: usize = 4096;
/// Boxes visited at most, and depth; a real movie has a few thousand at depth 7.
const MAX_BOXES: u32 = 200_000;

/// What kind of reference the first bytes are, if any.
pub(crate) fn in_head(source: &mut dyn Source) -> io::Result<Option<&'static str>> {
    let mut head = [0u8; HEAD];
    let n = source.read_up_to(&mut head, 0)?;
    Ok(sniff(&head[..n]))
}

fn sniff(head: &[u8]) -> Option<&'static str> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let start = head.iter().position(|b| !b.is_ascii_whitespace())?;
    let head = &head[start..];
    let lower: Vec<u8> = head.iter().take(1024).map(u8::to_ascii_lowercase).collect();
    let has = |needle: &[u8]| lower.windows(needle.len()).any(|w| w == needle);
    if lower.starts_with(b"#extm3u") {
        Some("HLS playlist")
    } else if lower.starts_with(b"ffconcat") {
        Some("concatenation script")
    } else if lower.starts_with(b"v=0\n") || lower.starts_with(b"v=0\r\n") {
        Some("SDP session")
    } else if lower.starts_with(b"[playlist]") || lower.starts_with(b"[reference]") {
        Some("playlist")
    } else if lower.starts_with(b"rtsptext") || lower.starts_with(b"smiltext") {
        Some("QuickTime link")
    } else if lower.starts_with(b"<") {
        if has(b"<mpd") {
            Some("DASH manifest")
        } else if has(b"<smil") {
            Some("SMIL presentation")
        } else if has(b"<asx") {
            Some("ASX playlist")
        } else if has(b"<smoothstreamingmedia") {
            Some("Smooth Streaming manifest")
        } else if has(b"<playlist") {
            Some("XSPF playlist")
        } else if has(b"<compositionplaylist") || has(b"<assetmap") || has(b"<packinglist") {
            Some("IMF package")
        } else {
            None
        }
    } else {
        None
    }
}

/// What a movie's boxes say of its tracks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MovieFacts {
    /// Tracks, counted from 0, whose samples lie in another file.
    pub external: Vec<u32>,
    /// Tracks, counted from 0, whose samples are encrypted.
    pub encrypted: Vec<u32>,
    /// End of the last top-level box by its own account, or of a Matroska segment.
    pub claimed_size: u64,
    /// It names movies to be played in its place.
    pub reference: bool,
    /// Boxes of tracks.
    pub tracks: u64,
    /// Entries that the tables of tracks and fragments make libav's index have, with every edit's
    /// repetitions.
    pub samples: u64,
    /// Bytes that a compressed header claims to have.
    pub header_bytes: u64,
    /// Samples of each track by its number, and the numbers of the tracks that hold chapters:
    /// libav reads every sample of those when it opens the file.
    lengths: Vec<(u32, u64)>,
    chapter_tracks: Vec<u32>,
}

impl MovieFacts {
    /// Compares what the boxes promise with what is taken.
    pub(crate) fn check(&self) -> Result<()> {
        budget::STREAMS.check(self.tracks)?;
        budget::SAMPLES.check(self.samples)?;
        let chapters = self.lengths.iter().filter(|(n, _)| self.chapter_tracks.contains(n));
        budget::CHAPTERS.check(chapters.map(|(_, samples)| *samples).max().unwrap_or(0))?;
        budget::HEADER_BYTES.check(self.header_bytes)
    }
}

/// Walks the boxes of an MP4 or MOV file. Damage ends the walk silently: what
/// to say of a damaged file is the demuxer's business.
pub(crate) fn in_movie(source: &mut dyn Source, size: u64) -> io::Result<MovieFacts> {
    let mut walk = Walk { source, facts: MovieFacts::default(), boxes: 0, here: Track::default() };
    walk.children(0, size, 0)?;
    Ok(walk.facts)
}

/// End of a Matroska or WebM file by its segment's own account; `None` for other files, and for
/// recordings that were never closed.
pub(crate) fn matroska_end(source: &mut dyn Source) -> io::Result<Option<u64>> {
    let mut head = [0u8; 256];
    let n = source.read_up_to(&mut head, 0)?;
    Ok(segment_end(&head[..n]))
}

/// RFC 8794: an element is an id, a size of 1 to 8 bytes whose first bit says how many, and a
/// body; a size of ones alone is unknown. A file is an EBML header, then one segment.
fn segment_end(head: &[u8]) -> Option<u64> {
    let size = |at: usize| -> Option<(u64, usize)> {
        let first = *head.get(at)?;
        let length = first.leading_zeros() as usize + 1;
        let bytes = head.get(at..at + length)?;
        let marked = bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let value = marked & ((1u64 << (7 * length)) - 1);
        (value != (1u64 << (7 * length)) - 1).then_some((value, at + length))
    };
    if !head.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) {
        return None;
    }
    let (header, body) = size(4)?;
    let segment = body.checked_add(usize::try_from(header).ok()?)?;
    if head.get(segment..segment.checked_add(4)?)? != [0x18, 0x53, 0x80, 0x67] {
        return None;
    }
    let (length, body) = size(segment + 4)?;
    (body as u64).checked_add(length)
}

struct Walk<'a> {
    source: &'a mut dyn Source,
    facts: MovieFacts,
    boxes: u32,
    here: Track,
}

/// The track that is being walked.
#[derive(Default)]
struct Track {
    /// Its data references: true where external.
    references: Vec<bool>,
    /// The data reference, from 1, of each of its sample descriptions.
    used: Vec<usize>,
    encrypted: bool,
    /// Its number, by which other tracks refer to it.
    number: u32,
    /// It is sound.
    sound: bool,
    /// Samples by the table of sizes.
    samples: u64,
    /// Samples by the tables of durations and offsets.
    timed: u64,
    /// Every sample lasts one tick.
    ticks: bool,
    /// Edits, each of which may show the whole.
    edits: u64,
}

impl Track {
    /// Entries of libav's index. Of sound whose samples have one size and one tick each it keeps
    /// whole chunks.
    fn entries(&self) -> u64 {
        if self.sound && self.ticks {
            return 0;
        }
        self.samples.max(self.timed).saturating_mul(self.edits.max(1))
    }
}

impl Walk<'_> {
    fn children(&mut self, mut at: u64, end: u64, depth: u32) -> io::Result<()> {
        while at.checked_add(8).is_some_and(|body| body <= end) && self.boxes < MAX_BOXES {
            self.boxes += 1;
            let mut head = [0u8; 16];
            let n = self.source.read_up_to(&mut head, at)?;
            if n < 8 {
                return Ok(());
            }
            let mut size = u64::from(be32(&head[0..4]));
            let mut body = at + 8;
            if size == 1 && n == 16 {
                size = u64::from(be32(&head[8..12])) << 32 | u64::from(be32(&head[12..16]));
                body = at + 16;
            } else if size == 0 {
                size = end - at;
            }
            let Some(next) = at.checked_add(size).filter(|next| *next >= body) else {
                return Ok(());
            };
            if depth == 0 {
                self.facts.claimed_size = self.facts.claimed_size.max(next);
            }
            self.visit(&head[4..8], body, next.min(end), depth)?;
            at = next;
        }
        Ok(())
    }

    fn visit(&mut self, kind: &[u8], body: u64, end: u64, depth: u32) -> io::Result<()> {
        match (depth, kind) {
            (0, b"moov" | b"moof")
            | (1, b"cmov")
            | (2, b"mdia" | b"edts" | b"tref")
            | (3, b"minf")
            | (4, b"dinf" | b"stbl") => self.children(body, end, depth + 1),
            (1, b"rmra") => {
                // QuickTime File Format: a reference movie has no tracks but files to play instead.
                self.facts.reference = true;
                Ok(())
            }
            (1, b"traf") => self.children(body, end, 2),
            (2, b"trun") => {
                // ISO/IEC 14496-12, 8.8.8: without flags a run says nothing of its samples but
                // their number.
                let samples = u64::from(self.word(body + 4)?.unwrap_or(0));
                self.facts.samples = self.facts.samples.saturating_add(samples);
                Ok(())
            }
            (2, b"cmvd") => {
                self.facts.header_bytes = u64::from(self.word(body)?.unwrap_or(0));
                Ok(())
            }
            (1, b"trak") => {
                self.here = Track::default();
                self.children(body, end, depth + 1)?;
                self.facts.samples = self.facts.samples.saturating_add(self.here.entries());
                if self.facts.lengths.len() <= budget::STREAMS.allowed as usize {
                    self.facts.lengths.push((self.here.number, self.here.samples));
                }
                let track = self.facts.tracks as u32;
                let Track { references, used, encrypted, .. } = std::mem::take(&mut self.here);
                let is_external =
                    |i: &usize| i.checked_sub(1).and_then(|i| references.get(i)) == Some(&true);
                if used.iter().any(is_external) {
                    self.facts.external.push(track);
                }
                if encrypted {
                    self.facts.encrypted.push(track);
                }
                self.facts.tracks += 1;
                Ok(())
            }
            (5, b"dref") => self.data_references(body, end),
            (5, b"stsd") => self.sample_descriptions(body, end),
            (5, b"stsz") => {
                // 8.7.3.2: a size for all, or a size for each, which the file must then hold.
                let (all, count) = (self.word(body + 4)?, self.word(body + 8)?);
                let held = end.saturating_sub(body.saturating_add(12)) / 4;
                let count = u64::from(count.unwrap_or(0));
                self.here.samples = if all == Some(0) { count.min(held) } else { count };
                Ok(())
            }
            (5, b"stts" | b"ctts") => self.times(kind == b"stts", body, end),
            (3, b"hdlr") => {
                let mut kind = [0; 4];
                self.source.read_up_to(&mut kind, body + 8)?;
                self.here.sound = &kind == b"soun";
                Ok(())
            }
            (2, b"tkhd") => {
                // 8.3.2: behind two times of 32 bits, or of 64.
                let long = self.word(body)?.is_some_and(|flags| flags >> 24 == 1);
                self.here.number = self.word(body + if long { 20 } else { 12 })?.unwrap_or(0);
                Ok(())
            }
            (3, b"chap") => {
                let held = end.saturating_sub(body) / 4;
                for n in 0..held.min(budget::STREAMS.allowed) {
                    let track = self.word(body + 4 * n)?;
                    self.facts.chapter_tracks.extend(track);
                }
                Ok(())
            }
            (3, b"elst") => {
                // 8.6.6: 12 bytes an edit, or 20.
                let long = self.word(body)?.is_some_and(|flags| flags >> 24 == 1);
                let held = end.saturating_sub(body.saturating_add(8)) / if long { 20 } else { 12 };
                self.here.edits = u64::from(self.word(body + 4)?.unwrap_or(0)).min(held);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// ISO/IEC 14496-12, 8.6.1: runs of samples with one duration, or one offset, each.
    fn times(&mut self, durations: bool, body: u64, end: u64) -> io::Result<()> {
        let claimed = u64::from(self.word(body + 4)?.unwrap_or(0));
        let mut at = body + 8;
        let held = end.saturating_sub(at) / 8;
        let mut left = claimed.min(held);
        if claimed > held {
            // libav allocates for what a table claims before it finds that it ends.
            self.here.timed = self.here.timed.max(claimed);
        }
        if durations {
            self.here.ticks = left == 1 && self.word(at + 4)? == Some(1);
        }
        let mut sum = 0u64;
        let mut block = [0u8; 32 << 10];
        while left > 0 && sum <= budget::SAMPLES.allowed {
            let want = (left as usize).min(block.len() / 8) * 8;
            let got = self.source.read_up_to(&mut block[..want], at)? / 8;
            sum += block[..got * 8].chunks_exact(8).map(|e| u64::from(be32(e))).sum::<u64>();
            if got * 8 < want {
                break;
            }
            at += want as u64;
            left -= got as u64;
        }
        self.here.timed = self.here.timed.max(sum);
        Ok(())
    }

    /// 32 bits at a place, if the file has them.
    fn word(&mut self, at: u64) -> io::Result<Option<u32>> {
        let mut word = [0; 4];
        let n = self.source.read_up_to(&mut word, at)?;
        Ok((n == 4).then(|| u32::from_be_bytes(word)))
    }

    /// ISO/IEC 14496-12, 8.7.2: flag 1 says "in this file".
    fn data_references(&mut self, body: u64, end: u64) -> io::Result<()> {
        let mut at = body + 8;
        while at + 12 <= end && self.here.references.len() < 256 {
            let mut head = [0u8; 12];
            if self.source.read_up_to(&mut head, at)? < 12 {
                break;
            }
            self.here.references.push(head[11] & 1 == 0);
            at += u64::from(be32(&head[0..4])).max(12);
        }
        Ok(())
    }

    /// ISO/IEC 14496-12, 8.5.2: every entry names one of the data references.
    fn sample_descriptions(&mut self, body: u64, end: u64) -> io::Result<()> {
        let mut at = body + 8;
        for _ in 0..64 {
            if at + 16 > end {
                break;
            }
            let mut head = [0u8; 16];
            if self.source.read_up_to(&mut head, at)? < 16 {
                break;
            }
            self.here.used.push(usize::from(u16::from_be_bytes([head[14], head[15]])));
            // 8.12: the entry of a protected track is renamed; drmi and drms are Apple's.
            self.here.encrypted |= matches!(&head[4..8], b"encv" | b"enca" | b"drmi" | b"drms");
            at += u64::from(be32(&head[0..4])).max(16);
        }
        Ok(())
    }
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::{segment_end, sniff};

    #[test]
    fn a_segment_says_where_it_ends_unless_it_is_a_recording() {
        let file = |size: &[u8]| {
            let mut file = vec![0x1a, 0x45, 0xdf, 0xa3, 0x83, 0, 0, 0, 0x18, 0x53, 0x80, 0x67];
            file.extend_from_slice(size);
            file
        };
        assert_eq!(segment_end(&file(&[0x8a])), Some(13 + 10));
        assert_eq!(segment_end(&file(&[0x01, 0, 0, 0, 0, 0, 1, 0])), Some(20 + 256));
        assert_eq!(segment_end(&file(&[0x01, 255, 255, 255, 255, 255, 255, 255])), None);
        assert_eq!(segment_end(&file(&[0x01, 0])), None, "cut inside the size");
        assert_eq!(segment_end(b"\0\0\0\x18ftypmp42"), None);
        assert_eq!(segment_end(b""), None);
    }

    #[test]
    fn playlists_are_known_by_their_first_bytes() {
        for (head, what) in [
            (&b"#EXTM3U\n#EXTINF:1,\nfile.ts\n"[..], Some("HLS playlist")),
            (b"\xef\xbb\xbf\n #extm3u8\n", Some("HLS playlist")),
            (b"<?xml version=\"1.0\"?>\n<MPD xmlns=\"urn\">", Some("DASH manifest")),
            (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", Some("SDP session")),
            (b"ffconcat version 1.0\nfile a.mp4\n", Some("concatenation script")),
            (
                b"<?xml version=\"1.0\"?><playlist xmlns=\"http://xspf.org/ns/0/\">",
                Some("XSPF playlist"),
            ),
            (
                b"<PackingList xmlns=\"http://www.smpte-ra.org/schemas/2067-2/2016/PKL\">",
                Some("IMF package"),
            ),
            (b"<?xml version=\"1.0\"?><tt xmlns=\"http://www.w3.org/ns/ttml\">", None),
            (b"WEBVTT\n\n", None),
            (b"\0\0\0\x18ftypmp42", None),
            (b"", None),
        ] {
            assert_eq!(sniff(head), what);
        }
    }
}
