//! libav's log, which is one callback for the whole process.
//!
//! libav says "error" for things that the caller handles (a damaged packet in
//! the middle of a broadcast recording), so its words go to `tracing` one level
//! down, under the target `libav`; the last lines are kept for reports.

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic;
use std::sync::{Mutex, Once, PoisonError};

use ffmpeg_sys_next as sys;

/// Lines that [`recent`] keeps.
const KEPT_LINES: usize = 100;

static RECENT: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
static INSTALL: Once = Once::new();

/// Routes libav's log to `tracing`. Opening an input, encoder or muxer does it by itself.
pub fn install() {
    INSTALL.call_once(|| {
        // SAFETY: the callback has the prototype that libav wants, lives as
        // long as the process, and may be called on any thread.
        unsafe {
            sys::av_log_set_level(sys::AV_LOG_WARNING as c_int);
            sys::av_log_set_callback(Some(callback));
        }
    });
}

/// The last lines at warning or worse, oldest first, for the report of a failure.
pub fn recent() -> Vec<String> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Forgets the kept lines, at the start of an attempt.
pub fn clear() {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Called by libav on whatever thread it works.
unsafe extern "C" fn callback(
    object: *mut c_void,
    level: c_int,
    format: *const c_char,
    arguments: *mut sys::__va_list_tag,
) {
    if level > sys::AV_LOG_WARNING as c_int || format.is_null() {
        return;
    }
    let mut line = [0 as c_char; 1024];
    let mut prefix: c_int = 0;
    // SAFETY: format and arguments come from libav as they are wanted here, and
    // the buffer's size is passed. The object is left out, because libav would
    // print its address, which differs from run to run.
    unsafe {
        sys::av_log_format_line2(
            std::ptr::null_mut(),
            level,
            format,
            arguments,
            line.as_mut_ptr(),
            line.len() as c_int,
            &mut prefix,
        );
    }
    line[line.len() - 1] = 0;
    // SAFETY: an object that logs starts with a pointer to its class (that is
    // libav's rule for `avcl`), or is null; class names are static strings.
    let who = unsafe {
        let class =
            if object.is_null() { std::ptr::null() } else { *object.cast::<*const sys::AVClass>() };
        if class.is_null() || (*class).class_name.is_null() {
            "libav".to_owned()
        } else {
            CStr::from_ptr((*class).class_name).to_string_lossy().into_owned()
        }
    };
    // SAFETY: the buffer was zero and is terminated.
    let text = unsafe { CStr::from_ptr(line.as_ptr()) }.to_string_lossy().trim_end().to_owned();
    if text.is_empty() {
        return;
    }
    // A subscriber that panics must not unwind through C; the line is lost then.
    let _ = panic::catch_unwind(|| {
        {
            let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
            if recent.len() == KEPT_LINES {
                recent.pop_front();
            }
            recent.push_back(format!("{who}: {text}"));
        }
        if level <= sys::AV_LOG_FATAL as c_int {
            tracing::warn!(target: "libav", who, "{text}");
        } else if level <= sys::AV_LOG_ERROR as c_int {
            tracing::info!(target: "libav", who, "{text}");
        } else {
            tracing::debug!(target: "libav", who, "{text}");
        }
    });
}
