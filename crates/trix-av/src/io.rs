//! libav's input and output over something that the caller opened.
//!
//! Reads and writes name their position (`pread`, `pwrite` for files), so
//! several contexts may share a descriptor, and the file's own offset is never used.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use ffmpeg_sys_next as sys;

use crate::error::{AvError, Result};

/// Bytes that libav asks for at a time: large enough that a spinning disk or a
/// network share streams, small enough to stay in the second-level cache.
const BUFFER: usize = 128 * 1024;

/// `AVSEEK_SIZE` and `AVSEEK_FORCE`, macros of avio.h.
const SEEK_SIZE: c_int = 0x10000;
const SEEK_FORCE: c_int = 0x20000;

/// What an input reads from.
pub trait Source: Send {
    /// Reads up to `buffer.len()` bytes at `position`; 0 is the end.
    fn read_at(&mut self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Bytes in all.
    fn size(&mut self) -> io::Result<u64>;

    /// Fills as much of `buffer` as there is.
    fn read_up_to(&mut self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut n = 0;
        while n < buffer.len() {
            match self.read_at(&mut buffer[n..], position + n as u64) {
                Ok(0) => break,
                Ok(read) => n += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(n)
    }
}

impl Source for File {
    fn read_at(&mut self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, position)
    }

    fn size(&mut self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// A [`Source`] from anything that reads and seeks, for example one that takes
/// checksums on the way.
pub struct Seeking<R> {
    reader: R,
    position: Option<u64>,
}

impl<R> Seeking<R> {
    pub(crate) fn new(reader: R) -> Seeking<R> {
        Seeking { reader, position: None }
    }

    pub(crate) fn into_inner(self) -> R {
        self.reader
    }
}

impl<R: Read + Seek + Send> Source for Seeking<R> {
    fn read_at(&mut self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        if self.position != Some(position) {
            self.position = None;
            self.reader.seek(SeekFrom::Start(position))?;
        }
        self.position = None;
        let n = self.reader.read(buffer)?;
        self.position = Some(position + n as u64);
        Ok(n)
    }

    fn size(&mut self) -> io::Result<u64> {
        self.position = None;
        self.reader.seek(SeekFrom::End(0))
    }
}

/// What a muxer writes to.
pub(crate) struct Sink(pub(crate) Arc<File>);

impl Source for Sink {
    fn read_at(&mut self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        FileExt::read_at(&*self.0, buffer, position)
    }

    fn size(&mut self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

struct State<S> {
    source: S,
    position: u64,
    /// The system's last error, which libav knows only as a number.
    error: Option<io::Error>,
}

/// An `AVIOContext` over a source. It must outlive the format context that uses it.
pub(crate) struct Avio<S> {
    context: *mut sys::AVIOContext,
    /// Owned through a raw pointer, because the context holds the same pointer.
    state: *mut State<S>,
}

// SAFETY: the context and the state belong to this value alone, and libav
// touches them only inside calls that the owner makes; the source is Send.
unsafe impl<S: Send> Send for Avio<S> {}

type WriteCallback = unsafe extern "C" fn(*mut c_void, *const u8, c_int) -> c_int;

impl<S: Source> Avio<S> {
    /// For reading.
    pub(crate) fn new(source: S) -> Result<Avio<S>> {
        Avio::with(source, None)
    }

    fn with(source: S, write: Option<WriteCallback>) -> Result<Avio<S>> {
        let state = Box::into_raw(Box::new(State { source, position: 0, error: None }));
        // SAFETY: the buffer comes from av_malloc, as libav may reallocate it;
        // the state lives until this value is dropped; the callbacks have the
        // prototypes of libav 7.1 and the type of the state. A failure frees
        // what was made.
        let context = unsafe {
            let buffer = sys::av_malloc(BUFFER).cast::<u8>();
            let context = if buffer.is_null() {
                std::ptr::null_mut()
            } else {
                sys::avio_alloc_context(
                    buffer,
                    BUFFER as c_int,
                    c_int::from(write.is_some()),
                    state.cast(),
                    Some(read::<S>),
                    write,
                    Some(seek::<S>),
                )
            };
            if context.is_null() {
                sys::av_free(buffer.cast());
                drop(Box::from_raw(state));
            }
            context
        };
        if context.is_null() {
            return Err(AvError::OutOfMemory { operation: "allocating an I/O buffer" });
        }
        Ok(Avio { context, state })
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::AVIOContext {
        self.context
    }

    /// The system's error since the last call, if any.
    pub(crate) fn take_error(&mut self) -> Option<io::Error> {
        // SAFETY: the state is ours, and libav is not running.
        unsafe { (*self.state).error.take() }
    }

    /// Frees the context and gives the source back.
    pub(crate) fn into_source(mut self) -> S {
        self.free_context();
        // SAFETY: ours, and not freed again, since drop is skipped.
        let state = unsafe { Box::from_raw(self.state) };
        std::mem::forget(self);
        state.source
    }
}

impl<S> Avio<S> {
    fn free_context(&mut self) {
        // SAFETY: the context is ours; libav may have replaced the buffer, so
        // the context's own pointer is freed.
        unsafe {
            sys::av_freep(std::ptr::addr_of_mut!((*self.context).buffer).cast());
            sys::avio_context_free(&mut self.context);
        }
    }
}

impl Avio<Sink> {
    /// For writing.
    pub(crate) fn writer(file: Arc<File>) -> Result<Avio<Sink>> {
        Avio::with(Sink(file), Some(write_all))
    }
}

impl<S> Drop for Avio<S> {
    fn drop(&mut self) {
        self.free_context();
        // SAFETY: the state is ours, and the context that knew it is gone.
        unsafe { drop(Box::from_raw(self.state)) }
    }
}

/// Runs a callback's body: no panic may cross C, and an error is kept.
fn guarded<S>(state: &mut State<S>, body: impl FnOnce(&mut State<S>) -> io::Result<i64>) -> i64 {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| body(state)))
        .unwrap_or_else(|_| Err(io::Error::other("a callback panicked")));
    match outcome {
        Ok(value) => value,
        Err(error) => {
            let code = error.raw_os_error().unwrap_or(libc::EIO);
            state.error = Some(error);
            i64::from(sys::AVERROR(code))
        }
    }
}

/// Called by libav on the thread that called libav.
unsafe extern "C" fn read<S: Source>(opaque: *mut c_void, buffer: *mut u8, size: c_int) -> c_int {
    let (Ok(size), false) = (usize::try_from(size), buffer.is_null()) else {
        return sys::AVERROR(libc::EINVAL);
    };
    // SAFETY: opaque is the state that was given with this callback, and
    // nobody else uses it during the call; the buffer has `size` bytes.
    let (state, buffer) =
        unsafe { (&mut *opaque.cast::<State<S>>(), std::slice::from_raw_parts_mut(buffer, size)) };
    let code = guarded(state, |state| {
        loop {
            match state.source.read_at(buffer, state.position) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
                Ok(0) => return Ok(i64::from(sys::AVERROR_EOF)),
                Ok(n) => {
                    state.position += n as u64;
                    return Ok(n as i64);
                }
            }
        }
    });
    code as c_int
}

/// Called by libav on the thread that called libav.
unsafe extern "C" fn write_all(opaque: *mut c_void, buffer: *const u8, size: c_int) -> c_int {
    let (Ok(size), false) = (usize::try_from(size), buffer.is_null()) else {
        return sys::AVERROR(libc::EINVAL);
    };
    // SAFETY: as for `read`; only writers over a Sink have this callback.
    let (state, buffer) =
        unsafe { (&mut *opaque.cast::<State<Sink>>(), std::slice::from_raw_parts(buffer, size)) };
    let code = guarded(state, |state| {
        state.source.0.write_all_at(buffer, state.position)?;
        state.position += size as u64;
        Ok(size as i64)
    });
    code as c_int
}

/// Called by libav on the thread that called libav.
unsafe extern "C" fn seek<S: Source>(opaque: *mut c_void, offset: i64, whence: c_int) -> i64 {
    // SAFETY: as for `read`.
    let state = unsafe { &mut *opaque.cast::<State<S>>() };
    guarded(state, |state| {
        let base = match whence & !SEEK_FORCE {
            SEEK_SIZE => return Ok(state.source.size()? as i64),
            libc::SEEK_SET => 0,
            libc::SEEK_CUR => state.position,
            libc::SEEK_END => state.source.size()?,
            // Not the system's error, so it is not kept.
            _ => return Ok(i64::from(sys::AVERROR(libc::EINVAL))),
        };
        match i64::try_from(base).ok().and_then(|b| b.checked_add(offset)) {
            Some(position) if position >= 0 => {
                state.position = position as u64;
                Ok(position)
            }
            _ => Ok(i64::from(sys::AVERROR(libc::EINVAL))),
        }
    })
}
