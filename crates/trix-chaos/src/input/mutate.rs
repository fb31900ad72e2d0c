//! Damages clips: bits, ranges, numbers where a container keeps its numbers, cuts, splices.
//!
//! Blind damage mostly hits coded pictures, since those are most of a file. Half of it therefore
//! goes where sizes and counts stand: box headers and the words behind them, EBML sizes, headers
//! of transport packets, and what follows a start code.

use super::corpus::Clip;
use super::seed::Random;

/// An input, and what was done to make it.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// For the report: `h264-aac.mp4: 3 numbers, cut at 8123`.
    pub how: String,
    /// The file.
    pub bytes: Vec<u8>,
}

/// A number in a file: where it stands and how many bytes it has.
type Site = (usize, usize);

/// Sites looked for at most in a file.
const MAX_SITES: usize = 20_000;

/// Makes an input of one of the clips.
pub fn mutate(clips: &[Clip], random: &mut Random) -> Mutant {
    let clip = random.pick(clips);
    let mut bytes = clip.bytes.clone();
    let mut did = Vec::new();
    for _ in 0..1 + random.below(3) {
        if bytes.is_empty() {
            break;
        }
        did.push(match random.below(16) {
            0..=1 => flip_bits(&mut bytes, random),
            2..=3 => overwrite(&mut bytes, random),
            4..=9 => numbers(&mut bytes, random),
            10 => cut(&mut bytes, random),
            11 => splice(&mut bytes, random.pick(clips), random),
            12 => repeat(&mut bytes, random),
            13 => remove(&mut bytes, random),
            14 => swap(&mut bytes, random),
            _ => append(&mut bytes, random.pick(clips), random),
        });
    }
    Mutant { how: format!("{}: {}", clip.name, did.join(", ")), bytes }
}

/// Damage likes the head of a file, where a demuxer believes what it reads.
fn place(len: usize, random: &mut Random) -> usize {
    let within = if random.one_in(2) { len.min(2048) } else { len };
    random.below(within)
}

fn flip_bits(bytes: &mut [u8], random: &mut Random) -> String {
    let n = 1 + random.below(16);
    for _ in 0..n {
        let at = place(bytes.len(), random);
        bytes[at] ^= 1 << random.below(8);
    }
    format!("{n} bits")
}

fn overwrite(bytes: &mut [u8], random: &mut Random) -> String {
    let at = place(bytes.len(), random);
    let len = (1 + random.below(64)).min(bytes.len() - at);
    let fill = *random.pick(&[Some(0), Some(0xff), None]);
    for byte in &mut bytes[at..at + len] {
        *byte = fill.unwrap_or_else(|| random.any() as u8);
    }
    format!("{len} bytes at {at}")
}

fn numbers(bytes: &mut [u8], random: &mut Random) -> String {
    let sites = sites(bytes);
    let n = 1 + random.below(3);
    for _ in 0..n {
        let (at, width) = if sites.is_empty() || random.one_in(4) {
            (place(bytes.len(), random), *random.pick(&[1, 2, 4, 8]))
        } else {
            *random.pick(&sites)
        };
        let Some(place) = bytes.get_mut(at..at + width) else { continue };
        let old = place.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let new = boundary(old, width, random).to_be_bytes();
        if random.one_in(8) {
            let little: Vec<u8> = new[8 - width..].iter().rev().copied().collect();
            place.copy_from_slice(&little);
        } else {
            place.copy_from_slice(&new[8 - width..]);
        }
    }
    format!("{n} numbers")
}

/// A number at which arithmetic likes to go wrong.
fn boundary(old: u64, width: usize, random: &mut Random) -> u64 {
    let max = u64::MAX >> (64 - 8 * width);
    let sign = max / 2 + 1;
    match random.below(12) {
        0 => 0,
        1 => 1,
        2 => max,
        3 => max - 1,
        4 => sign,
        5 => sign - 1,
        6 => old.wrapping_add(1),
        7 => old.wrapping_sub(1),
        8 => old.wrapping_mul(2),
        9 => old ^ sign,
        10 => 1 << random.below(8 * width),
        _ => random.any(),
    }
}

fn cut(bytes: &mut Vec<u8>, random: &mut Random) -> String {
    bytes.truncate(random.below(bytes.len()));
    format!("cut at {}", bytes.len())
}

fn splice(bytes: &mut Vec<u8>, other: &Clip, random: &mut Random) -> String {
    let at = random.below(bytes.len());
    bytes.truncate(at);
    let from = random.below(other.bytes.len());
    bytes.extend_from_slice(&other.bytes[from..]);
    format!("from {at} on {} from {from}", other.name)
}

fn append(bytes: &mut Vec<u8>, other: &Clip, _: &mut Random) -> String {
    bytes.extend_from_slice(&other.bytes);
    format!("{} behind it", other.name)
}

fn range(len: usize, random: &mut Random) -> (usize, usize) {
    let from = place(len, random);
    (from, (from + 1 + random.below(4096)).min(len))
}

fn repeat(bytes: &mut Vec<u8>, random: &mut Random) -> String {
    let (from, to) = range(bytes.len(), random);
    let piece = bytes[from..to].to_vec();
    let times = 1 + random.below(32);
    for _ in 0..times {
        bytes.splice(to..to, piece.iter().copied());
    }
    format!("{from}..{to} {times} times more")
}

fn remove(bytes: &mut Vec<u8>, random: &mut Random) -> String {
    let (from, to) = range(bytes.len(), random);
    bytes.drain(from..to);
    format!("without {from}..{to}")
}

fn swap(bytes: &mut [u8], random: &mut Random) -> String {
    let len = (1 + random.below(512)).min(bytes.len() / 2);
    let a = random.below(bytes.len() - 2 * len + 1);
    let b = a + len + random.below(bytes.len() - a - 2 * len + 1);
    let (head, tail) = bytes.split_at_mut(b);
    head[a..a + len].swap_with_slice(&mut tail[..len]);
    format!("{len} bytes of {a} and {b} changed over")
}

/// Where a file of any known container keeps its numbers.
fn sites(bytes: &[u8]) -> Vec<Site> {
    let mut sites = Vec::new();
    if bytes.get(4..8).is_some_and(|kind| kind == b"ftyp") {
        boxes(bytes, 0, bytes.len(), 0, &mut sites);
    } else if bytes.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) {
        elements(bytes, 0, bytes.len(), 0, &mut sites);
    } else if bytes.len() > 188 && bytes[0] == 0x47 && bytes[188] == 0x47 {
        for at in (0..bytes.len()).step_by(188).take(MAX_SITES / 8) {
            // Header, length of the adaptation field, and where PSI and PES keep lengths and times.
            sites.extend([1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14].map(|i| (at + i, 1)));
            sites.extend([(at + 1, 2), (at + 6, 2), (at + 9, 4)]);
        }
    } else {
        start_codes(bytes, &mut sites);
    }
    sites.truncate(MAX_SITES);
    sites
}

fn boxes(bytes: &[u8], mut at: usize, end: usize, depth: u32, sites: &mut Vec<Site>) {
    const PARENTS: &[&[u8]] = &[
        b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts", b"udta", b"moof", b"traf",
        b"mvex", b"mfra", b"ilst",
    ];
    while at + 8 <= end && sites.len() < MAX_SITES {
        let size = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let next = at.saturating_add(size as usize).min(end);
        sites.push((at, 4));
        sites.push((at + 4, 4));
        if size < 8 {
            return;
        }
        if PARENTS.contains(&&bytes[at + 4..at + 8]) && depth < 10 {
            boxes(bytes, at + 8, next, depth + 1, sites);
        } else {
            // Version and flags, counts, and the first entries of a table.
            let words = (at + 8..next.min(at + 136)).step_by(4);
            sites.extend(words.filter(|word| word + 4 <= next).map(|word| (word, 4)));
            sites.extend((at + 8..next.min(at + 136)).map(|byte| (byte, 1)));
        }
        at = next;
    }
}

fn elements(bytes: &[u8], mut at: usize, end: usize, depth: u32, sites: &mut Vec<Site>) {
    /// Elements that hold elements: header, segment, seek head, info, tracks and what is in one,
    /// cluster, block group, cues, chapters, tags, attachments.
    const PARENTS: &[u32] = &[
        0x1a45_dfa3,
        0x1853_8067,
        0x114d_9b74,
        0x4dbb,
        0x1549_a966,
        0x1654_ae6b,
        0xae,
        0xe0,
        0xe1,
        0x6d80,
        0x6240,
        0x5034,
        0x55b0,
        0x1f43_b675,
        0xa0,
        0x1c53_bb6b,
        0xbb,
        0xb7,
        0x1043_a770,
        0x45b9,
        0xb6,
        0x1254_c367,
        0x7373,
        0x67c8,
        0x1941_a469,
        0x61a7,
    ];
    while at < end && sites.len() < MAX_SITES {
        let id_len = bytes[at].leading_zeros() as usize + 1;
        let Some(&first) = bytes.get(at + id_len).filter(|_| id_len <= 4) else { return };
        let id = bytes[at..at + id_len].iter().fold(0u32, |n, b| n << 8 | u32::from(*b));
        let size_at = at + id_len;
        let size_len = first.leading_zeros() as usize + 1;
        if size_len > 8 || size_at + size_len > end {
            return;
        }
        sites.push((at, id_len));
        sites.push((size_at, size_len));
        let marked =
            bytes[size_at..size_at + size_len].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let size = marked & ((1u64 << (7 * size_len)) - 1);
        let body = size_at + size_len;
        let next = usize::try_from(size).map_or(end, |size| body.saturating_add(size)).min(end);
        if PARENTS.contains(&id) && depth < 12 {
            elements(bytes, body, next, depth + 1, sites);
        } else {
            let len = next - body;
            if (1..=8).contains(&len) {
                sites.push((body, len));
            }
            sites.extend((body..next.min(body + 24)).map(|byte| (byte, 1)));
        }
        at = next;
    }
}

fn start_codes(bytes: &[u8], sites: &mut Vec<Site>) {
    for at in 0..bytes.len().saturating_sub(12) {
        if bytes[at..at + 3] == [0, 0, 1] {
            sites.extend((at + 3..at + 12).map(|byte| (byte, 1)));
            sites.push((at + 4, 4));
            if sites.len() >= MAX_SITES {
                return;
            }
        }
    }
    // Neither boxes nor elements nor start codes: the head is all there is to aim at.
    sites.extend((0..bytes.len().min(256)).map(|byte| (byte, 1)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_damage_takes_the_smallest_files() {
        let clips: Vec<Clip> = [1, 2, 3, 9, 200, 400]
            .map(|len| Clip { name: format!("{len}"), bytes: vec![0x47; len] })
            .to_vec();
        for n in 0..5000 {
            mutate(&clips, &mut Random::of(1, "test", n));
        }
    }

    #[test]
    fn numbers_of_boxes_and_elements_are_found() {
        let movie =
            [b"\0\0\0\x10ftypmp42\0\0\0\0", &b"\0\0\0\x18moov\0\0\0\x10trak\0\0\0\x08free"[..]];
        let found = sites(&movie.concat());
        for at in [0, 16, 24, 32] {
            assert!(found.contains(&(at, 4)), "{at} is missing in {found:?}");
        }
        let matroska = [0x1a, 0x45, 0xdf, 0xa3, 0x84, 0x42, 0x86, 0x81, 1];
        let found = sites(&matroska);
        for site in [(0, 4), (4, 1), (5, 2), (7, 1), (8, 1)] {
            assert!(found.contains(&site), "{site:?} is missing in {found:?}");
        }
    }
}
