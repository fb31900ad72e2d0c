//! Converters of character sets, opened while files can still be read.
//!
//! The transport-stream demuxer converts service names with the C library's iconv,
//! which loads a module for each character set on first use. In the box the load is
//! refused, and the name silently stays as raw bytes. A converter that is held open
//! keeps its module, and a later open of the same set finds it without a file.

use std::ffi::CStr;

/// The sets of ETSI EN 300 468, annex A, by the names that libav asks for.
const DVB: [&CStr; 18] = [
    c"ISO6937",
    c"ISO-8859-1",
    c"ISO-8859-2",
    c"ISO-8859-3",
    c"ISO-8859-4",
    c"ISO-8859-5",
    c"ISO-8859-6",
    c"ISO-8859-7",
    c"ISO-8859-8",
    c"ISO-8859-9",
    c"ISO-8859-10",
    c"ISO-8859-11",
    c"ISO-8859-13",
    c"ISO-8859-14",
    c"ISO-8859-15",
    c"KSC_5601",
    c"GB2312",
    c"UCS-2BE",
];

/// Opens those that this machine has for the life of the process; false when it has none.
/// One that is not installed reads the same outside of the box: not at all.
pub(super) fn keep_open() -> bool {
    let opened = DVB.iter().filter(|name| {
        // SAFETY: both names end with zero. The handle is never closed, as said above.
        let handle = unsafe { libc::iconv_open(c"UTF-8".as_ptr(), name.as_ptr()) };
        handle as isize != -1
    });
    opened.count() > 0
}
