//! One place through which every system call on a writable folder goes, so that a test can
//! fail each of them in turn.

use std::fmt;
use std::io;

/// Runs the system calls of this crate. The product uses [`Direct`]; fault tests count the
/// calls and fail the n-th before or after it was done.
pub trait Ops: Send + Sync + fmt::Debug {
    /// Runs one call. `op` is its name (`link`, `fsync`, `write`), `object` what it acts on.
    fn run(
        &self,
        op: &'static str,
        object: &str,
        call: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()>;
}

/// Just runs the call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct;

impl Ops for Direct {
    fn run(
        &self,
        _op: &'static str,
        _object: &str,
        call: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        call()
    }
}
