//! Where decoding of H.264, HEVC and VVC can start, by the units in a packet.
//!
//! Containers mark more: any I picture, or the start of a gradual refresh.
//! Pictures after such a place may refer to pictures before it, so only what
//! the standards promise counts.

/// How units are found in a stream's packets.
pub(crate) struct Nals {
    codec: Codec,
    /// Bytes of a unit's length, or `None` for start codes.
    length: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Codec {
    H264,
    Hevc,
    Vvc,
}

impl Nals {
    /// `None` for codecs without such units.
    pub(crate) fn of(codec: &str, extradata: &[u8]) -> Option<Nals> {
        let codec = match codec {
            "h264" => Codec::H264,
            "hevc" => Codec::Hevc,
            "vvc" => Codec::Vvc,
            _ => return None,
        };
        let start_codes = extradata.is_empty()
            || extradata.starts_with(&[0, 0, 1])
            || extradata.starts_with(&[0, 0, 0, 1]);
        // ISO/IEC 14496-15: the configuration record says how long lengths are.
        let at = match codec {
            Codec::H264 => extradata.get(4).map(|b| b & 3),
            Codec::Hevc => extradata.get(21).map(|b| b & 3),
            Codec::Vvc => extradata.first().map(|b| b >> 1 & 3),
        };
        let length = if start_codes { None } else { at.map(|n| usize::from(n) + 1) };
        Some(Nals { codec, length })
    }

    /// True when every picture that follows the packet's in display order can
    /// be decoded from here.
    pub(crate) fn starts_at(&self, packet: &[u8]) -> bool {
        match self.length {
            Some(length) => LengthUnits { rest: packet, length }.any_start(self.codec),
            None => StartCodeUnits { rest: packet }.any_start(self.codec),
        }
    }
}

trait Units<'a>: Iterator<Item = &'a [u8]> + Sized {
    fn any_start(self, codec: Codec) -> bool {
        for unit in self {
            match (codec, unit) {
                (Codec::H264, [header, rest @ ..]) => match header & 0x1f {
                    5 => return true,
                    6 if recovers_at_once(rest) => return true,
                    // A slice of another kind: what comes after can't help.
                    1 | 2 => return false,
                    _ => {}
                },
                // Table 7-1 of H.265: 16 to 21 are the random access pictures.
                (Codec::Hevc, [header, ..]) => match header >> 1 & 0x3f {
                    16..=21 => return true,
                    0..=15 => return false,
                    _ => {}
                },
                // Table 5 of H.266: IDR 7 and 8, CRA 9; gradual refresh (10) does not count.
                (Codec::Vvc, [_, header, ..]) => match header >> 3 {
                    7..=9 => return true,
                    0..=6 | 10 => return false,
                    _ => {}
                },
                _ => {}
            }
        }
        false
    }
}

/// H.264 Annex D.2.8: a recovery point with no frame to wait for.
fn recovers_at_once(sei: &[u8]) -> bool {
    // Emulation prevention: 0 0 3 stands for 0 0.
    let mut bytes = Vec::with_capacity(sei.len().min(256));
    let mut zeros = 0;
    for &b in sei.iter().take(4096) {
        if zeros >= 2 && b == 3 {
            zeros = 0;
            continue;
        }
        zeros = if b == 0 { zeros + 1 } else { 0 };
        bytes.push(b);
    }
    let mut rest = &bytes[..];
    loop {
        let Some((kind, after)) = sei_number(rest) else { return false };
        let Some((size, body)) = sei_number(after) else { return false };
        if kind == 6 {
            // recovery_frame_cnt is ue(v), and 0 is the single bit 1.
            return body.first().is_some_and(|b| b & 0x80 != 0);
        }
        let Some(next) = body.get(size..) else { return false };
        rest = next;
    }
}

/// A number of the SEI syntax: 255s and a last byte are added up.
fn sei_number(mut bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0usize;
    loop {
        let (first, rest) = bytes.split_first()?;
        value += usize::from(*first);
        bytes = rest;
        if *first != 255 {
            return Some((value, bytes));
        }
    }
}

struct LengthUnits<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Iterator for LengthUnits<'a> {
    type Item = &'a [u8];
    fn next(&mut self) -> Option<&'a [u8]> {
        let (head, body) = self.rest.split_at_checked(self.length)?;
        let size = head.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
        let (unit, rest) = body.split_at_checked(size).unwrap_or((body, &[]));
        self.rest = rest;
        Some(unit)
    }
}

impl<'a> Units<'a> for LengthUnits<'a> {}

struct StartCodeUnits<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for StartCodeUnits<'a> {
    type Item = &'a [u8];
    fn next(&mut self) -> Option<&'a [u8]> {
        let start = find_start(self.rest)? + 3;
        let body = &self.rest[start..];
        let end = find_start(body).unwrap_or(body.len());
        self.rest = &body[end..];
        Some(&body[..end])
    }
}

impl<'a> Units<'a> for StartCodeUnits<'a> {}

fn find_start(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|w| w == [0, 0, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h264(packet: &[u8]) -> bool {
        Nals::of("h264", &[]).unwrap().starts_at(packet)
    }

    #[test]
    fn idr_and_immediate_recovery_points_start_and_others_do_not() {
        assert!(h264(&[0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x65, 0x88]));
        assert!(!h264(&[0, 0, 0, 1, 0x41, 0x9a]));
        // Recovery point, one byte: count 0 (bit 1), then with count 1 (010).
        assert!(h264(&[0, 0, 1, 0x06, 6, 1, 0xc4, 0x80, 0, 0, 1, 0x41, 0x9a]));
        assert!(!h264(&[0, 0, 1, 0x06, 6, 1, 0x44, 0x80, 0, 0, 1, 0x41, 0x9a]));
        // Behind another message, with lengths instead of start codes.
        let nals = Nals::of("h264", &[1, 0x64, 0, 0x1f, 0xff]).unwrap();
        let sei = [0x06, 5, 2, 9, 9, 6, 1, 0xc4, 0x80];
        let mut packet = vec![0, 0, 0, sei.len() as u8];
        packet.extend(sei);
        packet.extend([0, 0, 0, 2, 0x41, 0x9a]);
        assert!(nals.starts_at(&packet));
    }

    #[test]
    fn hevc_starts_at_random_access_pictures_only() {
        let nals = Nals::of("hevc", &[]).unwrap();
        assert!(nals.starts_at(&[0, 0, 1, 0x40, 1, 0, 0, 1, 21 << 1, 1]));
        assert!(nals.starts_at(&[0, 0, 1, 19 << 1, 1]));
        assert!(!nals.starts_at(&[0, 0, 1, 1 << 1, 1]));
        assert!(!nals.starts_at(&[0, 0, 1, 9 << 1, 1]));
        assert!(!nals.starts_at(&[]));
    }

    #[test]
    fn damaged_lengths_end_the_walk() {
        let nals = Nals::of("h264", &[1, 0x64, 0, 0x1f, 0xff]).unwrap();
        assert!(!nals.starts_at(&[0xff, 0xff, 0xff, 0xff, 0x06]));
        assert!(!nals.starts_at(&[0, 0]));
    }
}
