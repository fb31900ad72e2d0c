//! Fixity: all checksums of a file in one read, checksum files of rights-holders, and digests
//! of artifacts.

use std::io::{self, Read, Seek, SeekFrom, Write};

use md5::Md5;
use sha2::{Digest as _, Sha256};
use trix_model::digest::{Digest128, SourceHashes};
use trix_model::{Digest, Failure, Finding, Severity};
use trix_plan::task::{SidecarAlgorithm, SourceRef};
use unicode_normalization::UnicodeNormalization;
use xxhash_rust::xxh3::Xxh3;

use crate::dir::{SourceFile, StageFile};
use crate::error::{Result, StorageError};
use crate::share::check_unchanged;

/// A gap that a reader leaves is read at once up to this size, in bytes: skipping a few boxes
/// must not leave the whole rest of the file for a second read.
const NEAR: u64 = 16 << 20;

/// Bytes read at a time: large enough for network shares, small enough for the cache of a core.
pub const BUFFER: usize = 1 << 20;

/// Checksum files are small; a larger one is refused.
pub const SIDECAR_LIMIT: u64 = 4 << 20;

/// sha256, md5 and xxh3-128 in one pass.
#[derive(Clone)]
pub struct Fixity {
    sha256: Sha256,
    md5: Md5,
    xxh3: Xxh3,
    size: u64,
}

/// sha256 and BLAKE3 in one pass: what published files have.
#[derive(Clone)]
pub struct PublishHasher {
    sha256: Sha256,
    blake3: blake3::Hasher,
    size: u64,
}

/// Size and digests of a published file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishDigests {
    /// Bytes.
    pub size: u64,
    /// sha256.
    pub sha256: Digest,
    /// BLAKE3.
    pub blake3: Digest,
}

impl Default for Fixity {
    fn default() -> Fixity {
        Fixity::new()
    }
}

impl Fixity {
    /// Over nothing yet.
    pub fn new() -> Fixity {
        Fixity { sha256: Sha256::new(), md5: Md5::new(), xxh3: Xxh3::new(), size: 0 }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        // In pieces, so that one read from memory serves all three.
        for piece in bytes.chunks(64 << 10) {
            self.sha256.update(piece);
            self.md5.update(piece);
            self.xxh3.update(piece);
        }
        self.size += bytes.len() as u64;
    }

    /// The checksums.
    pub fn finish(self) -> SourceHashes {
        SourceHashes {
            sha256: Digest(self.sha256.finalize().into()),
            md5: Digest128(self.md5.finalize().into()),
            xxh3: Digest128(self.xxh3.digest128().to_be_bytes()),
            size: self.size,
        }
    }
}

impl Default for PublishHasher {
    fn default() -> PublishHasher {
        PublishHasher::new()
    }
}

impl PublishHasher {
    /// Over nothing yet.
    pub fn new() -> PublishHasher {
        PublishHasher { sha256: Sha256::new(), blake3: blake3::Hasher::new(), size: 0 }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(64 << 10) {
            self.sha256.update(piece);
            self.blake3.update(piece);
        }
        self.size += bytes.len() as u64;
    }

    /// The digests.
    pub fn finish(self) -> PublishDigests {
        PublishDigests {
            size: self.size,
            sha256: Digest(self.sha256.finalize().into()),
            blake3: Digest(self.blake3.finalize().into()),
        }
    }
}

/// Reads to the end in pieces and gives each to `each`; the number of bytes read.
pub(crate) fn drain(
    reader: &mut impl Read,
    object: &str,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                total += n as u64;
                each(&buffer[..n])?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(StorageError::io("reading", object, e)),
        }
    }
}

/// BLAKE3 and size of what a reader gives: the digest of an artifact.
pub fn blake3_of(reader: &mut impl Read, object: &str) -> Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let size = drain(reader, object, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok((Digest(hasher.finalize().into()), size))
}

/// sha256 and size of what a reader gives.
pub fn sha256_of(reader: &mut impl Read, object: &str) -> Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let size = drain(reader, object, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok((Digest(hasher.finalize().into()), size))
}

/// sha256 and BLAKE3 of what a reader gives.
pub fn publish_digests_of(reader: &mut impl Read, object: &str) -> Result<PublishDigests> {
    let mut hasher = PublishHasher::new();
    drain(reader, object, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// Told the number of bytes done so far; an error ends the work.
type OnBytes<'a> = Box<dyn FnMut(u64) -> Result<(), Failure> + Send + 'a>;

/// A source that is read once: whatever its reader asks for, the checksums are taken of each
/// byte in order, and each byte is written to the copy, if one is wanted.
///
/// A demuxer reads mostly forwards but seeks now and then (an index at the end, say). Bytes are
/// hashed when the read position crosses the *frontier*, the end of what was hashed so far;
/// reads behind it or far beyond it pass by, and a small gap in front of a read is read with it.
/// [`OncePass::finish`] reads what is left. A source of which the index is at the end thus has
/// that index read twice, and nothing else.
pub struct OncePass<'a> {
    file: SourceFile,
    position: u64,
    frontier: u64,
    fixity: Fixity,
    copy: Option<StageFile>,
    progress: Option<OnBytes<'a>>,
    /// A failure to write the copy, kept until [`OncePass::finish`] because a demuxer swallows
    /// the kind of an error.
    failed: Option<StorageError>,
}

impl<'a> OncePass<'a> {
    /// Begins. `copy` receives the bytes in order, if given.
    pub fn new(file: SourceFile, copy: Option<StageFile>) -> OncePass<'a> {
        file.advise_sequential();
        OncePass {
            file,
            position: 0,
            frontier: 0,
            fixity: Fixity::new(),
            copy,
            progress: None,
            failed: None,
        }
    }

    /// Calls `report` with the number of bytes hashed, after each advance. An error ends the read.
    pub fn on_progress(
        mut self,
        report: impl FnMut(u64) -> Result<(), Failure> + Send + 'a,
    ) -> OncePass<'a> {
        self.progress = Some(Box::new(report));
        self
    }

    /// Size of the source when it was opened.
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// Bytes hashed so far.
    pub fn done(&self) -> u64 {
        self.frontier
    }

    /// Reads what was not read yet, checks that the source is still as it was planned
    /// ([`StorageError::Changed`]), syncs the copy, and gives the checksums.
    pub fn finish(mut self, source: &SourceRef) -> Result<SourceHashes> {
        if let Some(e) = self.failed.take() {
            return Err(e);
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = match self.file.read_at(&mut buffer, self.frontier) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(StorageError::io("reading", self.file.object(), e)),
            };
            if n == 0 {
                break;
            }
            self.advance(self.frontier, &buffer[..n])?;
        }
        let now = self.file.stat_now()?;
        check_unchanged(self.file.object(), source, now.size, now.mtime_ns)?;
        // A file that grew and shrank again, or a server that cut the read short.
        check_unchanged(self.file.object(), source, self.frontier, now.mtime_ns)?;
        if let Some(copy) = self.copy {
            copy.sync()?;
        }
        Ok(self.fixity.finish())
    }

    /// Reads what lies between the frontier and the position, if it is little.
    fn close_gap(&mut self) -> Result<()> {
        let gap = self.position.saturating_sub(self.frontier);
        if gap == 0 || gap > NEAR {
            return Ok(());
        }
        let mut buffer = vec![0; BUFFER.min(gap as usize)];
        while self.frontier < self.position {
            let want = buffer.len().min((self.position - self.frontier) as usize);
            let n = self
                .file
                .read_full_at(&mut buffer[..want], self.frontier)
                .map_err(|e| StorageError::io("reading", self.file.object(), e))?;
            if n == 0 {
                break;
            }
            self.advance(self.frontier, &buffer[..n])?;
        }
        Ok(())
    }

    fn advance(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset + bytes.len() as u64;
        if offset > self.frontier || end <= self.frontier {
            return Ok(());
        }
        let fresh = &bytes[(self.frontier - offset) as usize..];
        self.fixity.update(fresh);
        if let Some(copy) = &mut self.copy {
            copy.write_all(fresh)
                .map_err(|e| StorageError::io("writing", copy.object().to_owned(), e))?;
        }
        self.frontier = end;
        if let Some(report) = &mut self.progress {
            report(end).map_err(StorageError::Refused)?;
        }
        Ok(())
    }
}

impl Read for OncePass<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(e) = &self.failed {
            return Err(io::Error::other(e.with_causes()));
        }
        let n = self.file.read_at(buf, self.position)?;
        let closed = if n == 0 { Ok(()) } else { self.close_gap() };
        if let Err(e) = closed.and_then(|()| self.advance(self.position, &buf[..n])) {
            let told = io::Error::other(e.with_causes());
            self.failed = Some(e);
            return Err(told);
        }
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for OncePass<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(d) => self.file.size().checked_add_signed(d),
            SeekFrom::Current(d) => self.position.checked_add_signed(d),
        };
        self.position = target.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "seek to before the beginning")
        })?;
        Ok(self.position)
    }
}

/// Copies a source, bit by bit, into a new file and gives the checksums of what was read.
/// The copy is synced. [`StorageError::Changed`] if the source changed before or meanwhile.
pub fn copy_source(
    file: SourceFile,
    source: &SourceRef,
    copy: StageFile,
    progress: impl FnMut(u64) -> Result<(), Failure> + Send,
) -> Result<SourceHashes> {
    check_unchanged(file.object(), source, file.size(), file.mtime_ns())?;
    OncePass::new(file, Some(copy)).on_progress(progress).finish(source)
}

/// One line of a checksum file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarEntry {
    /// The checksum in lower-case hexadecimal.
    pub hex: String,
    /// The file that it names; `None` for a bare checksum.
    pub name: Option<String>,
}

/// Why a checksum file says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SidecarError {
    /// Not text.
    #[error("it is not text in UTF-8 or UTF-16")]
    NotText,
    /// A line that is no checksum.
    #[error("line {line} is not a checksum of {digits} hexadecimal digits with a file name")]
    Line {
        /// Counted from 1.
        line: usize,
        /// Digits that the algorithm has.
        digits: usize,
    },
    /// Nothing in it.
    #[error("it holds no checksum")]
    Empty,
}

/// Reads a checksum file: `HEX  name` and `HEX *name` (GNU), `\HEX  na\nme` (GNU, escaped),
/// `MD5 (name) = HEX` (BSD and `--tag`), or one bare checksum. Upper case, CRLF, byte order
/// marks, blank lines and comments (`#`, `;`) are fine.
pub fn parse_sidecar(
    algorithm: SidecarAlgorithm,
    bytes: &[u8],
) -> Result<Vec<SidecarEntry>, SidecarError> {
    let digits = match algorithm {
        SidecarAlgorithm::Md5 => 32,
        SidecarAlgorithm::Sha256 => 64,
    };
    let text = decode(bytes).ok_or(SidecarError::NotText)?;
    let mut entries = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim_end_matches(['\r', ' ', '\t']).trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') || line.starts_with(';') {
            continue;
        }
        let entry = gnu_line(line, digits).or_else(|| bsd_line(line, algorithm, digits));
        entries.push(entry.ok_or(SidecarError::Line { line: i + 1, digits })?);
    }
    if entries.is_empty() { Err(SidecarError::Empty) } else { Ok(entries) }
}

fn decode(bytes: &[u8]) -> Option<String> {
    let utf16 = |units: &dyn Fn([u8; 2]) -> u16, rest: &[u8]| {
        let (pairs, odd) = rest.as_chunks::<2>();
        if !odd.is_empty() {
            return None;
        }
        String::from_utf16(&pairs.iter().map(|p| units(*p)).collect::<Vec<_>>()).ok()
    };
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        // What PowerShell's redirection writes.
        [0xff, 0xfe, rest @ ..] => utf16(&u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => utf16(&u16::from_be_bytes, rest),
        _ => String::from_utf8(bytes.to_vec()).ok(),
    }
}

fn hex(text: &str, digits: usize) -> Option<String> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| text.to_ascii_lowercase())
}

fn gnu_line(line: &str, digits: usize) -> Option<SidecarEntry> {
    let (escaped, line) = match line.strip_prefix('\\') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let sum = hex(line.get(..digits)?, digits)?;
    let rest = &line[digits..];
    if rest.is_empty() {
        return (!escaped).then_some(SidecarEntry { hex: sum, name: None });
    }
    // GNU writes two columns, blank and blank or `*`; others write one blank or a tab.
    let name = rest.strip_prefix([' ', '\t'])?;
    let name = name.strip_prefix(['*', ' ']).unwrap_or(name).trim_start_matches([' ', '\t']);
    if name.is_empty() {
        return None;
    }
    let name = if escaped { unescape(name) } else { name.to_owned() };
    Some(SidecarEntry { hex: sum, name: Some(name) })
}

/// GNU writes a backslash, line feed and carriage return in names as `\\`, `\n` and `\r`.
fn unescape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match (c, chars.as_str().chars().next()) {
            ('\\', Some(code @ ('\\' | 'n' | 'r'))) => {
                chars.next();
                out.push(match code {
                    'n' => '\n',
                    'r' => '\r',
                    other => other,
                });
            }
            _ => out.push(c),
        }
    }
    out
}

fn bsd_line(line: &str, algorithm: SidecarAlgorithm, digits: usize) -> Option<SidecarEntry> {
    let (escaped, line) = match line.strip_prefix('\\') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (tag, rest) = line.split_once('(')?;
    let wanted: &[&str] = match algorithm {
        SidecarAlgorithm::Md5 => &["MD5"],
        SidecarAlgorithm::Sha256 => &["SHA256", "SHA2-256", "SHA-256"],
    };
    if !wanted.iter().any(|w| tag.trim().eq_ignore_ascii_case(w)) {
        return None;
    }
    let (name, sum) = rest.rsplit_once(')')?;
    let sum = hex(sum.trim_start().strip_prefix('=')?.trim(), digits)?;
    let name = if escaped { unescape(name) } else { name.to_owned() };
    Some(SidecarEntry { hex: sum, name: Some(name) })
}

/// Compares a checksum file with what was read: findings `checksum_match` (info),
/// `checksum_mismatch` (error), `sidecar_no_entry` or `sidecar_unreadable` (warnings).
///
/// `sidecar` and `source` are file names. Folders in the checksum file are ignored, and so are
/// case and Unicode form if no name fits exactly. A checksum file with one entry is about the
/// file that it was delivered with, whatever name stands in it.
pub fn compare_sidecar(
    algorithm: SidecarAlgorithm,
    sidecar: &str,
    bytes: &[u8],
    source: &str,
    hashes: &SourceHashes,
) -> Finding {
    let (label, measured) = match algorithm {
        SidecarAlgorithm::Md5 => ("md5", hashes.md5.to_string()),
        SidecarAlgorithm::Sha256 => ("sha256", hashes.sha256.to_string()),
    };
    let finding = |code: &str, severity, message: String, allowed: Option<String>| Finding {
        code: code.to_owned(),
        severity,
        message,
        stream: None,
        frames: None,
        measured: Some(format!("{label}:{measured}")),
        allowed: allowed.map(|a| format!("{label}:{a}")),
    };
    let entries = match parse_sidecar(algorithm, bytes) {
        Ok(entries) => entries,
        Err(e) => return unreadable_sidecar(sidecar, &e.to_string()),
    };
    let base = |name: &str| name.rsplit(['/', '\\']).next().unwrap_or(name).to_owned();
    let named = |fit: &dyn Fn(&str) -> bool| -> Vec<&SidecarEntry> {
        // As it stands first: on Linux a backslash is a letter like any other.
        let fits = |name: &str| fit(name) || fit(&base(name));
        entries.iter().filter(|e| e.name.as_deref().is_some_and(fits)).collect()
    };
    let mut fitting = named(&|n| n == source);
    if fitting.is_empty() {
        let fold = |n: &str| n.nfc().collect::<String>().to_lowercase();
        fitting = named(&|n| fold(n) == fold(source));
    }
    if fitting.is_empty()
        && let [only] = entries.as_slice()
    {
        fitting.push(only);
    }
    let Some(first) = fitting.first() else {
        return finding(
            "sidecar_no_entry",
            Severity::Warning,
            format!("{sidecar} has {} checksums and none is of {source}", entries.len()),
            None,
        );
    };
    if fitting.iter().any(|e| e.hex != first.hex) {
        return unreadable_sidecar(sidecar, &format!("it has different checksums for {source}"));
    }
    if first.hex == measured {
        let message = format!("{source} has the {label} that {sidecar} states");
        return finding("checksum_match", Severity::Info, message, Some(first.hex.clone()));
    }
    let other = match &first.name {
        Some(name) if name != source && base(name) != source => format!(" for {:?}", base(name)),
        _ => String::new(),
    };
    finding(
        "checksum_mismatch",
        Severity::Error,
        format!(
            "{source} has another {label} than {sidecar} states{other}: the file is damaged or was replaced"
        ),
        Some(first.hex.clone()),
    )
}

/// The finding for a checksum file that could not be opened or read.
pub fn unreadable_sidecar(sidecar: &str, reason: &str) -> Finding {
    Finding {
        code: "sidecar_unreadable".to_owned(),
        severity: Severity::Warning,
        message: format!("the checksum file {sidecar} says nothing: {reason}"),
        stream: None,
        frames: None,
        measured: None,
        allowed: None,
    }
}

/// The algorithm that a checksum file's name says, and the name of the file it is about:
/// `film.mov.md5` → (md5, `film.mov`), `film.md5` → (md5, `film`), `MD5SUMS` → (md5, nothing).
pub fn sidecar_of(name: &str) -> Option<(SidecarAlgorithm, Option<&str>)> {
    let lower = name.to_ascii_lowercase();
    if lower == "md5sums" || lower == "md5sums.txt" {
        return Some((SidecarAlgorithm::Md5, None));
    }
    if lower == "sha256sums" || lower == "sha256sums.txt" {
        return Some((SidecarAlgorithm::Sha256, None));
    }
    let (stem, extension) = name.rsplit_once('.')?;
    match extension.to_ascii_lowercase().as_str() {
        "md5" if !stem.is_empty() => Some((SidecarAlgorithm::Md5, Some(stem))),
        "sha256" if !stem.is_empty() => Some((SidecarAlgorithm::Sha256, Some(stem))),
        _ => None,
    }
}
