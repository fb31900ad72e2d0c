//! The packet file: how encoded chunks and sound tracks lie in the cache.
//!
//! ```text
//! "TRIXPKT1"                      8 bytes
//! header length, header (JSON)    u32 LE + bytes: codec parameters, time base
//! record*                         tag 1, flags, pts, dts, duration, cut, length, payload
//! end                             tag 0, number of records (u64 LE)
//! BLAKE3 of all of the above      32 bytes
//! ```
//!
//! All integers are little-endian. Matroska would round times to milliseconds
//! and MP4 needs its index before the first byte; this needs neither.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};

use serde::{Deserialize, Serialize};
use trix_av::{CodecParameters, EncodedPacket};
use trix_model::{Digest, ErrorClass, ErrorOrigin, Failure, Rational};

const MAGIC: &[u8; 8] = b"TRIXPKT1";
const TAG_END: u8 = 0;
const TAG_PACKET: u8 = 1;
const FLAG_KEY: u8 = 1;
/// A header holds parameter sets and a few numbers; more than this is damage.
const MAX_HEADER: u32 = 16 << 20;
/// No coded picture of a format that trix writes comes near.
const MAX_PACKET: u32 = 1 << 30;

/// Damage or disagreement in a packet file.
#[derive(Debug, thiserror::Error)]
pub enum PacketFileError {
    /// The file ends or the device fails.
    #[error("reading a packet file")]
    Read(#[source] std::io::Error),
    /// Writing failed.
    #[error("writing a packet file")]
    Write(#[source] std::io::Error),
    /// What stands there is not what was written.
    #[error("a packet file is damaged: {0}")]
    Damaged(String),
}

impl From<PacketFileError> for Failure {
    fn from(error: PacketFileError) -> Failure {
        match error {
            PacketFileError::Write(e) => crate::io::write_failure("packet file", &e),
            PacketFileError::Read(e) => Failure::share(format!("reading a packet file: {e}")),
            // The cache lost or changed bytes; made anew it is whole.
            PacketFileError::Damaged(_) => Failure::new(
                ErrorClass::Transient,
                ErrorOrigin::Share,
                "artifact_damaged",
                error.to_string(),
            ),
        }
    }
}

/// What stands before the packets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PacketHeader {
    /// Version of this format.
    pub version: u32,
    /// Codec and its parameter sets.
    pub parameters: CodecParameters,
    /// Seconds per tick of the packets' times.
    pub time_base: Rational,
}

/// Bytes and digest of a finished file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// BLAKE3 over the whole file.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// Writes one packet file from front to back.
pub struct PacketWriter {
    out: HashingWriter<BufWriter<File>>,
    packets: u64,
}

impl PacketWriter {
    /// Starts a file with its header.
    pub fn create(file: File, header: &PacketHeader) -> Result<PacketWriter, PacketFileError> {
        let mut w = PacketWriter {
            out: HashingWriter::new(BufWriter::with_capacity(256 << 10, file)),
            packets: 0,
        };
        let json = serde_json::to_vec(header).map_err(|e| PacketFileError::Write(e.into()))?;
        w.put(MAGIC)?;
        w.put(&(json.len() as u32).to_le_bytes())?;
        w.put(&json)?;
        Ok(w)
    }

    /// Appends one packet.
    pub fn write(&mut self, packet: &EncodedPacket) -> Result<(), PacketFileError> {
        let mut head = [0u8; 34];
        head[0] = TAG_PACKET;
        head[1] = if packet.key { FLAG_KEY } else { 0 };
        head[2..10].copy_from_slice(&packet.pts.to_le_bytes());
        head[10..18].copy_from_slice(&packet.dts.to_le_bytes());
        head[18..26].copy_from_slice(&packet.duration.to_le_bytes());
        head[26..30].copy_from_slice(&packet.discard_padding.to_le_bytes());
        head[30..34].copy_from_slice(&(packet.data.len() as u32).to_le_bytes());
        self.put(&head)?;
        self.put(&packet.data)?;
        self.packets += 1;
        Ok(())
    }

    /// Writes end mark and trailer and flushes; whether and when to fsync is the caller's decision.
    pub fn finish(mut self) -> Result<Written, PacketFileError> {
        self.put(&[TAG_END])?;
        let packets = self.packets;
        self.put(&packets.to_le_bytes())?;
        let trailer = self.out.digest();
        self.put(trailer.as_bytes())?;
        let written = Written { digest: self.out.digest(), size: self.out.written };
        self.out.inner.flush().map_err(PacketFileError::Write)?;
        Ok(written)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), PacketFileError> {
        self.out.write_all(bytes).map_err(PacketFileError::Write)
    }
}

/// Reads one packet file from front to back and checks it on the way.
pub struct PacketReader {
    input: HashingReader,
    header: PacketHeader,
    packets: u64,
    ended: bool,
}

impl PacketReader {
    /// Reads magic and header.
    pub fn open(file: File) -> Result<PacketReader, PacketFileError> {
        let mut input = HashingReader {
            inner: BufReader::with_capacity(256 << 10, file),
            hasher: blake3::Hasher::new(),
        };
        let mut magic = [0u8; 8];
        input.fill(&mut magic)?;
        if &magic != MAGIC {
            return Err(PacketFileError::Damaged("it does not begin with TRIXPKT1".into()));
        }
        let length = input.u32()?;
        if length > MAX_HEADER {
            return Err(PacketFileError::Damaged(format!("its header claims {length} bytes")));
        }
        let json = input.bytes(length)?;
        let header = serde_json::from_slice(&json)
            .map_err(|e| PacketFileError::Damaged(format!("its header does not parse: {e}")))?;
        Ok(PacketReader { input, header, packets: 0, ended: false })
    }

    /// Codec parameters and time base.
    pub fn header(&self) -> &PacketHeader {
        &self.header
    }

    /// The next packet, or `None` behind the last when count and trailer are right.
    pub fn next_packet(&mut self) -> Result<Option<EncodedPacket>, PacketFileError> {
        if self.ended {
            return Ok(None);
        }
        let mut tag = [0u8; 1];
        self.input.fill(&mut tag)?;
        match tag[0] {
            TAG_PACKET => {
                let mut head = [0u8; 25];
                self.input.fill(&mut head)?;
                let time = |at: usize| {
                    i64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"))
                };
                let (pts, dts, duration) = (time(1), time(9), time(17));
                let discard_padding = self.input.u32()?;
                let length = self.input.u32()?;
                if length > MAX_PACKET {
                    return Err(PacketFileError::Damaged(format!(
                        "packet {} claims {length} bytes",
                        self.packets
                    )));
                }
                let data = self.input.bytes(length)?;
                self.packets += 1;
                Ok(Some(EncodedPacket {
                    pts,
                    dts,
                    duration,
                    key: head[0] & FLAG_KEY != 0,
                    discard_padding,
                    data,
                }))
            }
            TAG_END => {
                let mut count = [0u8; 8];
                self.input.fill(&mut count)?;
                if u64::from_le_bytes(count) != self.packets {
                    return Err(PacketFileError::Damaged("its packet count is wrong".into()));
                }
                let expected = self.input.hasher.finalize();
                let mut trailer = [0u8; 32];
                self.input.fill(&mut trailer)?;
                if expected.as_bytes() != &trailer {
                    return Err(PacketFileError::Damaged("its BLAKE3 trailer is wrong".into()));
                }
                self.ended = true;
                Ok(None)
            }
            other => Err(PacketFileError::Damaged(format!(
                "unknown tag {other} behind packet {}",
                self.packets
            ))),
        }
    }
}

/// Counts and hashes what goes through.
pub struct HashingWriter<W> {
    inner: W,
    hasher: blake3::Hasher,
    written: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps `inner`.
    pub fn new(inner: W) -> HashingWriter<W> {
        HashingWriter { inner, hasher: blake3::Hasher::new(), written: 0 }
    }

    /// BLAKE3 of all bytes so far.
    pub fn digest(&self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }

    /// Flushes and tells what was written.
    pub fn finish(mut self) -> std::io::Result<Written> {
        self.inner.flush()?;
        Ok(Written { digest: self.digest(), size: self.written })
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

struct HashingReader {
    inner: BufReader<File>,
    hasher: blake3::Hasher,
}

impl HashingReader {
    fn fill(&mut self, buf: &mut [u8]) -> Result<(), PacketFileError> {
        self.inner.read_exact(buf).map_err(PacketFileError::Read)?;
        self.hasher.update(buf);
        Ok(())
    }

    fn u32(&mut self) -> Result<u32, PacketFileError> {
        let mut b = [0u8; 4];
        self.fill(&mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    /// Grows with what is there, so that a false length in a damaged file
    /// costs no memory.
    fn bytes(&mut self, length: u32) -> Result<Vec<u8>, PacketFileError> {
        let mut data = Vec::new();
        let got = (&mut self.inner)
            .take(u64::from(length))
            .read_to_end(&mut data)
            .map_err(PacketFileError::Read)?;
        if got != length as usize {
            return Err(PacketFileError::Damaged("it ends in the middle of a packet".into()));
        }
        self.hasher.update(&data);
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom};

    use trix_av::{AudioParameters, CodecKind};

    use super::*;

    fn header() -> PacketHeader {
        PacketHeader {
            version: 1,
            parameters: CodecParameters {
                codec: "pcm_s16le".into(),
                extradata: vec![1, 2, 3],
                profile: None,
                level: None,
                bit_rate: None,
                kind: CodecKind::Audio(AudioParameters {
                    sample_rate: 48_000,
                    channels: 2,
                    layout: Some("stereo".into()),
                    sample_format: "s16".into(),
                    initial_padding: 0,
                    trailing_padding: 0,
                    frame_size: 0,
                    bits: 16,
                }),
            },
            time_base: Rational::new(1, 48_000).unwrap(),
        }
    }

    fn packets() -> Vec<EncodedPacket> {
        (0..50i64)
            .map(|n| EncodedPacket {
                pts: n * 100 - 7,
                dts: n * 100 - 7,
                duration: 100,
                key: n % 3 == 0,
                discard_padding: (n == 49) as u32 * 5,
                data: vec![n as u8; 17 * n as usize],
            })
            .collect()
    }

    fn written() -> (Vec<u8>, Written) {
        let mut file = tempfile::tempfile().unwrap();
        let mut writer = PacketWriter::create(file.try_clone().unwrap(), &header()).unwrap();
        packets().iter().for_each(|p| writer.write(p).unwrap());
        let written = writer.finish().unwrap();
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        (bytes, written)
    }

    fn read(bytes: &[u8]) -> Result<Vec<EncodedPacket>, PacketFileError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut reader = PacketReader::open(file)?;
        let mut packets = Vec::new();
        while let Some(packet) = reader.next_packet()? {
            packets.push(packet);
        }
        Ok(packets)
    }

    #[test]
    fn what_is_written_is_read_and_the_digest_is_that_of_the_file() {
        let (bytes, written) = written();
        assert_eq!(written.size, bytes.len() as u64);
        assert_eq!(written.digest.as_bytes(), blake3::hash(&bytes).as_bytes());
        assert_eq!(read(&bytes).unwrap(), packets());
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let (bytes, _) = written();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(read(&damaged).is_err(), "a flipped byte at {at} went unnoticed");
        }
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "a cut at {length} went unnoticed");
        }
    }
}
