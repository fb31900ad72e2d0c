//! The settle rule: a delivery is complete when two looks at it saw the same.
//!
//! Compared are size, modification time in whole seconds (sshfs has no finer) and a hash of the
//! last bytes. Inodes are not: some network file systems invent them.

use trix_model::RelPath;
use trix_model::digest::Digest128;
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Result, StorageError};
use crate::share::Share;

/// So many last bytes are hashed. Copying tools that reserve the size at first write the end last.
const TAIL: u64 = 1 << 20;

/// What one look at a file saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Observation {
    /// Bytes.
    pub size: u64,
    /// Modification time in whole seconds since 1970.
    pub mtime_s: i64,
    /// xxh3-128 of the last megabyte.
    pub tail: Digest128,
}

/// What two looks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Nothing to compare with yet.
    FirstLook,
    /// Still being written.
    Changing,
    /// Nothing changed between the looks.
    Settled,
}

/// Looks at a file.
pub fn observe(share: &Share, path: &RelPath) -> Result<Observation> {
    let file = share.open_read(path)?;
    let size = file.size();
    let mut tail = vec![0; size.min(TAIL) as usize];
    let offset = size - tail.len() as u64;
    let got = file
        .read_full_at(&mut tail, offset)
        .map_err(|e| StorageError::io("reading the end of", file.object(), e))?;
    tail.truncate(got);
    Ok(Observation {
        size,
        mtime_s: file.mtime_ns().div_euclid(1_000_000_000),
        tail: Digest128(xxh3_128(&tail).to_be_bytes()),
    })
}

/// The rule. How far apart the looks are is the caller's choice; they should be further apart
/// than the attribute cache of the share's file system holds (1.5 s were seen on sshfs).
pub fn settle(before: Option<&Observation>, now: &Observation) -> Settle {
    match before {
        None => Settle::FirstLook,
        Some(before) if before == now => Settle::Settled,
        Some(_) => Settle::Changing,
    }
}
