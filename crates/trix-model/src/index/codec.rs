//! The binary form of both indexes.
//!
//! ```text
//! magic (4 bytes) | version (1) | zlib stream | BLAKE3 of all before (32)
//! ```
//!
//! Unpacked, everything is unsigned varints (LEB128), signed numbers in zigzag, hashes as they
//! are. Columns stand together, times as differences of differences, so that a constant frame
//! rate is a row of zeros, which zlib makes vanish. Reading trusts nothing: the checksum comes
//! first, what is unpacked has a limit, and counts are compared with the bytes left before
//! anything is allocated.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_zlib_with_limit};

use super::{
    AccessGroup, AccessPoint, FrameSource, FrameTable, IndexError, PACKET_INDEX_VERSION,
    PacketEntry, PacketIndex, PlanningIndex, StreamIndex,
};
use crate::digest::Digest128;
use crate::time::Rational;

/// Level 6 of zlib: level 9 takes five times as long for one per cent.
const LEVEL: u8 = 6;

struct Kind {
    what: &'static str,
    magic: [u8; 4],
    version: u8,
    limit: usize,
}

/// Four hours at 60 frames a second with 16 sound tracks unpack to about 280 MB.
const PACKETS: Kind = Kind {
    what: "packet index",
    magic: *b"TXPI",
    version: PACKET_INDEX_VERSION as u8,
    limit: 512 << 20,
};

/// 24 hours at 60 frames a second with irregular times unpack to about 16 MB.
const PLANNING: Kind =
    Kind { what: "planning index", magic: *b"TXPL", version: 1, limit: 32 << 20 };

impl PacketIndex {
    /// The artifact's bytes; the same index always gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.len(self.streams.len());
        for s in &self.streams {
            w.stream(s);
        }
        PACKETS.seal(&w.0)
    }

    /// Reads what [`PacketIndex::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<PacketIndex, IndexError> {
        let raw = PACKETS.open(bytes)?;
        let mut r = Reader { what: PACKETS.what, left: &raw };
        let streams = r.len(16)?;
        let streams = (0..streams).map(|_| r.stream()).collect::<Result<_, _>>()?;
        r.end()?;
        Ok(PacketIndex { version: PACKET_INDEX_VERSION, streams })
    }
}

impl PlanningIndex {
    /// The database's bytes; the same index always gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::default();
        // 0 says that there are no pictures.
        w.unsigned(self.stream.map_or(0, |s| u128::from(s) + 1));
        w.rational(self.time_base);
        w.hash(&self.parameters);
        w.len(self.pts.len());
        w.times(self.pts.iter().copied());
        w.signed(self.end.into());
        w.len(self.access.len());
        w.rising(self.access.iter().copied());
        w.len(self.groups.len());
        w.rising(self.groups.iter().map(|g| g.frame));
        self.groups.iter().for_each(|g| w.unsigned(g.lead.into()));
        self.groups.iter().for_each(|g| w.hash(&g.hash));
        w.len(self.audio.len());
        for (stream, hash) in &self.audio {
            w.unsigned((*stream).into());
            w.hash(hash);
        }
        PLANNING.seal(&w.0)
    }

    /// Reads what [`PlanningIndex::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<PlanningIndex, IndexError> {
        let raw = PLANNING.open(bytes)?;
        let mut r = Reader { what: PLANNING.what, left: &raw };
        let stream = match r.unsigned()? {
            0 => None,
            n => Some(u32::try_from(n - 1).map_err(|_| r.bad("a stream number is too large"))?),
        };
        let time_base = r.rational()?;
        let parameters = r.hash()?;
        let n = r.len(1)?;
        let pts = r.times(n)?;
        if pts.windows(2).any(|w| w[0] >= w[1]) {
            return Err(r.bad("times do not rise"));
        }
        let end = r.i64()?;
        if pts.last().is_some_and(|last| *last >= end) {
            return Err(r.bad("the film ends before its last frame"));
        }
        let n = r.len(1)?;
        let access = r.rising(n)?;
        let n = r.len(18)?;
        let frames = r.rising(n)?;
        let leads = (0..n).map(|_| r.u32()).collect::<Result<Vec<_>, _>>()?;
        let hashes = (0..n).map(|_| r.hash()).collect::<Result<Vec<_>, _>>()?;
        let groups: Vec<AccessGroup> = frames
            .into_iter()
            .zip(leads)
            .zip(hashes)
            .map(|((frame, lead), hash)| AccessGroup { frame, lead, hash })
            .collect();
        // Both tables begin with frame 0 where there is one, and stay inside the film.
        let starts = [access.first().copied(), groups.first().map(|g| g.frame)];
        let lasts = [access.last().copied(), groups.last().map(|g| g.frame)];
        let first = if pts.is_empty() { None } else { Some(0) };
        if starts.iter().any(|s| *s != first) {
            return Err(r.bad("access points do not begin with the first frame"));
        }
        if lasts.iter().flatten().any(|l| *l as usize >= pts.len()) {
            return Err(r.bad("an access point lies outside"));
        }
        if stream.is_none() && !pts.is_empty() {
            return Err(r.bad("frames without a stream"));
        }
        let n = r.len(17)?;
        let audio =
            (0..n).map(|_| Ok((r.u32()?, r.hash()?))).collect::<Result<Vec<_>, IndexError>>()?;
        r.end()?;
        Ok(PlanningIndex { stream, time_base, parameters, pts, end, access, groups, audio })
    }

    /// The text of an intake's result: [`PlanningIndex::to_bytes`] in base64 (standard alphabet).
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.to_bytes())
    }

    /// Reads what [`PlanningIndex::to_base64`] wrote.
    pub fn from_base64(text: &str) -> Result<PlanningIndex, IndexError> {
        let bytes = STANDARD.decode(text).map_err(|_| IndexError::Base64(PLANNING.what))?;
        PlanningIndex::from_bytes(&bytes)
    }
}

impl Kind {
    fn seal(&self, raw: &[u8]) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.push(self.version);
        out.extend(compress_to_vec_zlib(raw, LEVEL));
        let sum = blake3::hash(&out);
        out.extend(sum.as_bytes());
        out
    }

    fn open(&self, bytes: &[u8]) -> Result<Vec<u8>, IndexError> {
        let Some((sealed, sum)) = bytes.split_last_chunk::<32>() else {
            return Err(IndexError::Kind(self.what));
        };
        let Some((magic, rest)) = sealed.split_first_chunk::<4>() else {
            return Err(IndexError::Kind(self.what));
        };
        if *magic != self.magic {
            return Err(IndexError::Kind(self.what));
        }
        let Some((version, packed)) = rest.split_first() else {
            return Err(IndexError::Kind(self.what));
        };
        if *version != self.version {
            let (what, found, known) = (self.what, *version, self.version);
            return Err(IndexError::Version { what, found, known });
        }
        if blake3::hash(sealed).as_bytes() != sum {
            return Err(IndexError::Checksum(self.what));
        }
        decompress_to_vec_zlib_with_limit(packed, self.limit).map_err(|e| match e.status {
            TINFLStatus::HasMoreOutput => {
                IndexError::TooLarge { what: self.what, limit: self.limit }
            }
            _ => IndexError::Content { what: self.what, problem: "it does not unpack" },
        })
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    /// Times are i64, so differences of differences need up to 66 bits.
    fn unsigned(&mut self, mut n: u128) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn signed(&mut self, n: i128) {
        self.unsigned(((n << 1) ^ (n >> 127)) as u128);
    }

    fn len(&mut self, n: usize) {
        self.unsigned(n as u128);
    }

    fn hash(&mut self, hash: &Digest128) {
        self.0.extend(hash.as_bytes());
    }

    fn rational(&mut self, r: Rational) {
        self.signed(r.num().into());
        self.signed(r.den().into());
    }

    fn times(&mut self, times: impl Iterator<Item = i64>) {
        let mut line = Line::default();
        times.for_each(|t| {
            let n = line.encode(t);
            self.signed(n);
        });
    }

    /// A time that may be missing: 0, or one more than its zigzag form.
    fn maybe_times(&mut self, times: impl Iterator<Item = Option<i64>>) {
        let mut line = Line::default();
        times.for_each(|t| match t {
            None => self.unsigned(0),
            Some(t) => {
                let n = line.encode(t);
                self.unsigned(((n << 1) ^ (n >> 127)) as u128 + 1);
            }
        });
    }

    fn rising(&mut self, numbers: impl Iterator<Item = u32>) {
        let mut last = 0;
        numbers.for_each(|n| {
            self.unsigned((n - last).into());
            last = n;
        });
    }

    fn stream(&mut self, s: &StreamIndex) {
        self.unsigned(s.stream.into());
        self.rational(s.time_base);
        self.hash(&s.parameters);
        self.len(s.packets.len());
        self.maybe_times(s.packets.iter().map(|p| p.pts));
        self.maybe_times(s.packets.iter().map(|p| p.dts));
        self.times(s.packets.iter().map(|p| p.duration));
        self.times(s.packets.iter().map(|p| p.pos));
        s.packets.iter().for_each(|p| self.unsigned(p.size.into()));
        s.packets.iter().for_each(|p| self.0.push(p.flags));
        s.packets.iter().for_each(|p| self.hash(&p.hash));
        let Some(frames) = &s.frames else {
            self.0.push(0);
            return;
        };
        self.0.push(match frames.source {
            FrameSource::Packets => 1,
            FrameSource::Decode => 2,
        });
        self.len(frames.pts.len());
        self.times(frames.pts.iter().copied());
        self.signed(frames.end.into());
        self.len(frames.access.len());
        self.times(frames.access.iter().map(|a| a.frame.into()));
        self.times(frames.access.iter().map(|a| a.packet.into()));
    }
}

/// The last value and the last step: what the next value is predicted from.
#[derive(Default)]
struct Line {
    value: i128,
    step: i128,
}

impl Line {
    fn encode(&mut self, t: i64) -> i128 {
        let step = i128::from(t) - self.value;
        let bend = step - self.step;
        *self = Line { value: t.into(), step };
        bend
    }

    fn decode(&mut self, bend: i128) -> Option<i64> {
        let step = self.step.checked_add(bend)?;
        let t = i64::try_from(self.value.checked_add(step)?).ok()?;
        *self = Line { value: t.into(), step };
        Some(t)
    }
}

struct Reader<'a> {
    what: &'static str,
    left: &'a [u8],
}

impl Reader<'_> {
    fn bad(&self, problem: &'static str) -> IndexError {
        IndexError::Content { what: self.what, problem }
    }

    fn byte(&mut self) -> Result<u8, IndexError> {
        let (first, rest) = self.left.split_first().ok_or_else(|| self.bad("it ends early"))?;
        self.left = rest;
        Ok(*first)
    }

    fn unsigned(&mut self) -> Result<u128, IndexError> {
        let mut n = 0u128;
        // Ten bytes carry 70 bits, more than any value that a writer makes.
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            n |= u128::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(self.bad("a number is too long"))
    }

    fn signed(&mut self) -> Result<i128, IndexError> {
        self.unsigned().map(unzigzag)
    }

    fn i64(&mut self) -> Result<i64, IndexError> {
        i64::try_from(self.signed()?).map_err(|_| self.bad("a number is too large"))
    }

    fn u32(&mut self) -> Result<u32, IndexError> {
        u32::try_from(self.unsigned()?).map_err(|_| self.bad("a number is too large"))
    }

    /// A count of things that take at least `each` bytes.
    fn len(&mut self, each: usize) -> Result<usize, IndexError> {
        match usize::try_from(self.unsigned()?) {
            Ok(n) if n <= self.left.len() / each => Ok(n),
            _ => Err(self.bad("a count is larger than what follows")),
        }
    }

    fn hash(&mut self) -> Result<Digest128, IndexError> {
        let (hash, rest) =
            self.left.split_first_chunk::<16>().ok_or_else(|| self.bad("it ends early"))?;
        self.left = rest;
        Ok(Digest128(*hash))
    }

    fn rational(&mut self) -> Result<Rational, IndexError> {
        let (num, den) = (self.i64()?, self.i64()?);
        match Rational::new(num, den) {
            // Only the reduced form with a positive value is ever written as a time base.
            Some(r) if r.is_positive() && r.num() == num && r.den() == den => Ok(r),
            _ => Err(self.bad("a time base is not a positive fraction in lowest terms")),
        }
    }

    fn times(&mut self, n: usize) -> Result<Vec<i64>, IndexError> {
        let mut line = Line::default();
        (0..n)
            .map(|_| {
                let bend = self.signed()?;
                line.decode(bend).ok_or_else(|| self.bad("a time is too large"))
            })
            .collect()
    }

    fn maybe_times(&mut self, n: usize) -> Result<Vec<Option<i64>>, IndexError> {
        let mut line = Line::default();
        (0..n)
            .map(|_| match self.unsigned()? {
                0 => Ok(None),
                n => match line.decode(unzigzag(n - 1)) {
                    Some(t) => Ok(Some(t)),
                    None => Err(self.bad("a time is too large")),
                },
            })
            .collect()
    }

    fn rising(&mut self, n: usize) -> Result<Vec<u32>, IndexError> {
        let mut last = 0u32;
        (0..n)
            .map(|i| {
                let step = self.u32()?;
                if i > 0 && step == 0 {
                    return Err(self.bad("frame numbers do not rise"));
                }
                last = last.checked_add(step).ok_or_else(|| self.bad("a number is too large"))?;
                Ok(last)
            })
            .collect()
    }

    fn numbers(&mut self, n: usize) -> Result<Vec<u32>, IndexError> {
        let times = self.times(n)?;
        times
            .into_iter()
            .map(|t| u32::try_from(t).map_err(|_| self.bad("a number is too large")))
            .collect()
    }

    fn stream(&mut self) -> Result<StreamIndex, IndexError> {
        let stream = self.u32()?;
        let time_base = self.rational()?;
        let parameters = self.hash()?;
        let n = self.len(22)?;
        let pts = self.maybe_times(n)?;
        let dts = self.maybe_times(n)?;
        let durations = self.times(n)?;
        let positions = self.times(n)?;
        let sizes = (0..n).map(|_| self.u32()).collect::<Result<Vec<_>, _>>()?;
        let flags = (0..n).map(|_| self.byte()).collect::<Result<Vec<_>, _>>()?;
        let mut packets = Vec::with_capacity(n);
        for i in 0..n {
            packets.push(PacketEntry {
                pts: pts[i],
                dts: dts[i],
                duration: durations[i],
                pos: positions[i],
                size: sizes[i],
                flags: flags[i],
                hash: self.hash()?,
            });
        }
        let source = match self.byte()? {
            0 => return Ok(StreamIndex { stream, time_base, parameters, packets, frames: None }),
            1 => FrameSource::Packets,
            2 => FrameSource::Decode,
            _ => return Err(self.bad("an unknown source of frames")),
        };
        let n = self.len(1)?;
        let pts = self.times(n)?;
        if pts.windows(2).any(|w| w[0] >= w[1]) {
            return Err(self.bad("times do not rise"));
        }
        let end = self.i64()?;
        let n = self.len(2)?;
        let access_frames = self.numbers(n)?;
        let access_packets = self.numbers(n)?;
        let access: Vec<AccessPoint> = access_frames
            .into_iter()
            .zip(access_packets)
            .map(|(frame, packet)| AccessPoint { frame, packet })
            .collect();
        let outside =
            |a: &AccessPoint| a.frame as usize >= pts.len() || a.packet as usize >= packets.len();
        if access.iter().any(outside) {
            return Err(self.bad("an access point lies outside"));
        }
        let frames = Some(FrameTable { source, pts, end, access });
        Ok(StreamIndex { stream, time_base, parameters, packets, frames })
    }

    fn end(&self) -> Result<(), IndexError> {
        if self.left.is_empty() { Ok(()) } else { Err(self.bad("something follows its end")) }
    }
}

fn unzigzag(n: u128) -> i128 {
    (n >> 1) as i128 ^ -((n & 1) as i128)
}
