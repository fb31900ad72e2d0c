//! What can go wrong with shares, caches and publications, and how the service sees it.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use trix_model::{Digest, ErrorClass, ErrorOrigin, Failure, PathError};

/// The result of everything in this crate.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// One thing that went wrong: operation, object, cause.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A system call failed. The class follows from the error number.
    #[error("{op} {object}")]
    Io {
        /// What was being done, as a verb: `opening`, `linking`.
        op: &'static str,
        /// To what: `share:relative/path` or a local path.
        object: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Nothing has that name.
    #[error("{object} does not exist")]
    NotFound {
        /// What was looked for.
        object: String,
    },
    /// A symbolic link, or a way out of the share, was in the path.
    #[error("{object} is refused: a symbolic link or a way out of the share is on its path")]
    Escape {
        /// The path.
        object: String,
    },
    /// A folder, device, pipe or socket stands where a file was expected.
    #[error("{object} is {found}, not a regular file")]
    NotRegular {
        /// The path.
        object: String,
        /// What it is.
        found: &'static str,
    },
    /// The kernel lacks what the safety of shares rests on.
    #[error(
        "this kernel has no {what}, which is needed to keep paths inside their share (Linux 5.6 or newer has it)"
    )]
    Unsupported {
        /// The missing system call.
        what: &'static str,
    },
    /// A path is not one that shares have.
    #[error("refusing a path")]
    Path(#[from] PathError),
    /// Size or modification time differ from what the job was planned with.
    #[error("{object} changed: {was} when the job was planned, {now} now")]
    Changed {
        /// The source.
        object: String,
        /// Size and time as planned.
        was: String,
        /// Size and time as found.
        now: String,
    },
    /// Same size and time, other bytes.
    #[error("{object} has sha256 {found} where {expected} was read before")]
    Unstable {
        /// The source.
        object: String,
        /// Digest at intake.
        expected: Digest,
        /// Digest now.
        found: Digest,
    },
    /// The folder is not the share that it should be: the marker is absent or another's.
    #[error("{root} is not share {share}: {reason}")]
    WrongShare {
        /// Name of the share.
        share: String,
        /// The folder.
        root: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// Less room than the files need.
    #[error("{object} has {free} bytes free and {need} are needed")]
    NoSpace {
        /// Where.
        object: String,
        /// Bytes needed.
        need: u64,
        /// Bytes free.
        free: u64,
    },
    /// A path of this machine lies in no share.
    #[error("{path} lies in no share of this node; {hint}")]
    OutsideShares {
        /// The path.
        path: PathBuf,
        /// What would help.
        hint: String,
    },
    /// No share of that name in the node's configuration.
    #[error("this node has no share {0:?}; its file of configuration names the roots")]
    UnknownShare(String),
    /// A share is used against its role.
    #[error("share {share} has the role {role} and is not written to")]
    NotWritable {
        /// The share.
        share: String,
        /// Its role.
        role: String,
    },
    /// The name is taken by something else. Nothing was overwritten.
    #[error("{object} exists already and is another file: {reason}")]
    Conflict {
        /// The taken name.
        object: String,
        /// How they differ.
        reason: String,
    },
    /// Bytes are not those that were written or promised.
    #[error("{object} is damaged: {reason}")]
    Damaged {
        /// The file.
        object: String,
        /// Expected and found.
        reason: String,
    },
    /// What a publication was to move is neither in its stage nor at its destination.
    #[error("{object} is neither in its stage nor published; it must be staged again")]
    StageLost {
        /// The file.
        object: String,
    },
    /// An artifact larger than the cache takes.
    #[error("{object} has {size} bytes and the cache takes objects up to {limit}")]
    TooLarge {
        /// The artifact.
        object: String,
        /// Its size.
        size: u64,
        /// `cache.max_object`.
        limit: u64,
    },
    /// A document on a share cannot be read as what it should be.
    #[error("reading {object}")]
    Document {
        /// The file.
        object: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Two of the names to publish are one name on a share that ignores case.
    #[error("{first:?} and {second:?} are the same name on some file systems")]
    NameCollision {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// The fence or the caller refused, or could not be asked.
    #[error("{0}")]
    Refused(Failure),
}

impl StorageError {
    /// A failed system call: what was being done, to what, and the cause.
    pub fn io(op: &'static str, object: impl Into<String>, source: io::Error) -> Self {
        StorageError::Io { op, object: object.into(), source }
    }

    /// A failed system call with a path beneath a share: links and ways out have their own kind.
    pub(crate) fn path_op(op: &'static str, object: String, source: io::Error) -> Self {
        match errno(&source) {
            Some(Errno::NOENT) => StorageError::NotFound { object },
            Some(Errno::LOOP | Errno::XDEV) => StorageError::Escape { object },
            Some(Errno::NOSYS) => StorageError::Unsupported { what: "openat2" },
            _ => StorageError::Io { op, object, source },
        }
    }

    /// The error number, if a system call is the cause.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            StorageError::Io { source, .. } => errno(source),
            _ => None,
        }
    }

    /// True if nothing has that name.
    pub fn is_not_found(&self) -> bool {
        matches!(self, StorageError::NotFound { .. })
    }

    /// True if the share itself is away: mount gone, server dead, wrong folder.
    pub fn is_share_away(&self) -> bool {
        match self {
            StorageError::WrongShare { .. } => true,
            other => other.errno().is_some_and(is_share_away),
        }
    }

    /// The sentence with all its causes.
    pub fn with_causes(&self) -> String {
        trix_model::with_causes(self)
    }
}

fn errno(e: &io::Error) -> Option<Errno> {
    Errno::from_io_error(e)
}

/// Error numbers that network file systems give when the server or the mount is away
/// (measured for sshfs and cifs, reliability.md section 2). `EROFS` is among them because a
/// file system that met an error goes read-only under us and comes back by a remount.
pub(crate) fn is_share_away(e: Errno) -> bool {
    matches!(
        e,
        Errno::IO
            | Errno::NOTCONN
            | Errno::STALE
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::CONNREFUSED
            | Errno::TIMEDOUT
            | Errno::REMOTEIO
            | Errno::NODEV
            | Errno::NXIO
            | Errno::ROFS
            | Errno::SHUTDOWN
            | Errno::PIPE
    )
}

impl From<StorageError> for Failure {
    fn from(e: StorageError) -> Failure {
        use ErrorClass::{Deterministic, Resource, Transient};
        use ErrorOrigin::{Node, Request, Share, Source};
        let message = e.with_causes();
        let make = |class, origin, code: &str, object: String| {
            Failure::new(class, origin, code, message).about(object)
        };
        match e {
            StorageError::Io { object, source, .. } => match errno(&source) {
                Some(n) if is_share_away(n) => make(Transient, Share, "share_unavailable", object),
                Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
                    make(Resource, Share, "no_space", object)
                }
                Some(Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOBUFS) => {
                    make(Resource, Node, "node_limit", object)
                }
                Some(Errno::ACCESS | Errno::PERM) => {
                    make(Deterministic, Share, "permission_denied", object)
                }
                Some(Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ) => {
                    make(Deterministic, Request, "name_refused", object)
                }
                Some(Errno::NOTDIR | Errno::ISDIR) => {
                    make(Deterministic, Source, "not_a_file", object)
                }
                // All else (busy, interrupted, unknown to us) may pass: the budget of
                // transient failures bounds it.
                _ => make(Transient, Share, "share_io", object),
            },
            StorageError::NotFound { object } => make(Deterministic, Source, "not_found", object),
            StorageError::Escape { object } => make(Deterministic, Source, "path_refused", object),
            StorageError::NotRegular { object, .. } => {
                make(Deterministic, Source, "not_a_file", object)
            }
            StorageError::Unsupported { .. } => {
                make(Deterministic, Node, "kernel_unsupported", String::new())
            }
            StorageError::Path(_) => make(Deterministic, Request, "path_refused", String::new()),
            StorageError::Changed { object, .. } => {
                make(Deterministic, Source, "source_changed", object)
            }
            // Once more on another node; the dispatcher then makes it deterministic.
            StorageError::Unstable { object, .. } => {
                make(Transient, Source, "source_unstable", object)
            }
            StorageError::WrongShare { share, .. } => {
                make(Transient, Share, "share_unavailable", share)
            }
            StorageError::NoSpace { object, .. } => make(Resource, Share, "no_space", object),
            StorageError::OutsideShares { path, .. } => {
                make(Deterministic, Request, "outside_shares", path.display().to_string())
            }
            StorageError::UnknownShare(share) => {
                make(Deterministic, Request, "unknown_share", share)
            }
            StorageError::NotWritable { share, .. } => {
                make(Deterministic, Request, "share_not_writable", share)
            }
            StorageError::Conflict { object, .. } => {
                make(Deterministic, Share, "publish_conflict", object)
            }
            // A damaged copy is made again; the bytes that it was made from are elsewhere.
            StorageError::Damaged { object, .. } => make(Transient, Share, "damaged", object),
            StorageError::StageLost { object } => make(Transient, Share, "stage_lost", object),
            StorageError::TooLarge { object, .. } => {
                make(Deterministic, Request, "object_too_large", object)
            }
            StorageError::Document { object, .. } => {
                make(Deterministic, Share, "document_unreadable", object)
            }
            StorageError::NameCollision { second, .. } => {
                make(Deterministic, Request, "name_collision", second)
            }
            StorageError::Refused(failure) => failure,
        }
    }
}
