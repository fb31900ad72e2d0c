//! The few things about C that every file here needs.
//!
//! The bindings turn C enums into Rust enums, and a Rust enum that holds a
//! value without a name is undefined behaviour. So enums are read and written
//! as plain integers through [`get_enum!`] and [`set_enum!`], and functions
//! that take or return enums are declared here again with integers, which is
//! the same thing to the C calling convention.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use ffmpeg_sys_next as sys;
use trix_model::Rational;

use crate::error::{AvError, Result};

/// Reads an enum field of the structure behind a pointer as an integer.
macro_rules! get_enum {
    ($p:expr, $field:ident) => {{
        let field = std::ptr::addr_of!((*$p).$field);
        debug_assert_eq!(std::mem::size_of_val(&*field.cast::<i32>()), 4);
        field.cast::<i32>().read()
    }};
}

/// Writes an enum field of the structure behind a pointer as an integer.
macro_rules! set_enum {
    ($p:expr, $field:ident, $value:expr) => {
        std::ptr::addr_of_mut!((*$p).$field).cast::<i32>().write($value)
    };
}

pub(crate) use {get_enum, set_enum};

// SAFETY: these are the prototypes of libav 7.1 with `int` in place of enums,
// which GCC and Clang both make `int` or `unsigned int`; the libraries are
// linked by ffmpeg-sys-next.
unsafe extern "C" {
    pub fn avcodec_find_decoder(id: c_int) -> *const sys::AVCodec;
    pub fn avcodec_get_name(id: c_int) -> *const c_char;
    pub fn avcodec_profile_name(id: c_int, profile: c_int) -> *const c_char;
    pub fn av_get_pix_fmt(name: *const c_char) -> c_int;
    pub fn av_get_pix_fmt_name(format: c_int) -> *const c_char;
    pub fn av_pix_fmt_desc_get(format: c_int) -> *const sys::AVPixFmtDescriptor;
    pub fn av_image_get_linesize(format: c_int, width: c_int, plane: c_int) -> c_int;
    pub fn av_get_sample_fmt(name: *const c_char) -> c_int;
    pub fn av_get_sample_fmt_name(format: c_int) -> *const c_char;
    pub fn av_frame_get_side_data(
        frame: *const sys::AVFrame,
        kind: c_int,
    ) -> *mut sys::AVFrameSideData;
    pub fn av_frame_remove_side_data(frame: *mut sys::AVFrame, kind: c_int);
    pub fn av_packet_get_side_data(
        packet: *const sys::AVPacket,
        kind: c_int,
        size: *mut usize,
    ) -> *mut u8;
    pub fn av_packet_new_side_data(packet: *mut sys::AVPacket, kind: c_int, size: usize)
    -> *mut u8;
    pub fn av_packet_side_data_get(
        data: *const sys::AVPacketSideData,
        count: c_int,
        kind: c_int,
    ) -> *const sys::AVPacketSideData;
    pub fn av_packet_side_data_new(
        data: *mut *mut sys::AVPacketSideData,
        count: *mut c_int,
        kind: c_int,
        size: usize,
        flags: c_int,
    ) -> *mut sys::AVPacketSideData;
    pub fn swr_alloc_set_opts2(
        context: *mut *mut sys::SwrContext,
        out_layout: *const sys::AVChannelLayout,
        out_format: c_int,
        out_rate: c_int,
        in_layout: *const sys::AVChannelLayout,
        in_format: c_int,
        in_rate: c_int,
        log_offset: c_int,
        log: *mut c_void,
    ) -> c_int;
}

/// The text behind a C string, or `None` for null.
///
/// # Safety
/// `text` is null or points to a terminated string that lives for the call.
pub unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller promises the rest.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// A C string; inner zeros, which no name of libav has, end it early.
pub fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// `None` for libav's "no timestamp".
pub fn timestamp(value: i64) -> Option<i64> {
    (value != sys::AV_NOPTS_VALUE).then_some(value)
}

/// libav's form of an optional timestamp.
pub fn raw_timestamp(value: Option<i64>) -> i64 {
    value.unwrap_or(sys::AV_NOPTS_VALUE)
}

/// A positive rational, or `None` for libav's 0/1 and 0/0, which mean "unknown".
pub fn positive(value: sys::AVRational) -> Option<Rational> {
    Rational::new(i64::from(value.num), i64::from(value.den)).filter(|r| r.is_positive())
}

/// libav's form of a rational, which has 32-bit parts.
pub fn raw_rational(value: Rational) -> Result<sys::AVRational> {
    match (i32::try_from(value.num()), i32::try_from(value.den())) {
        (Ok(num), Ok(den)) => Ok(sys::AVRational { num, den }),
        _ => Err(AvError::Unsupported { what: format!("the fraction {value}") }),
    }
}

/// A libav dictionary, freed with its owner.
pub struct Dictionary(*mut sys::AVDictionary);

impl Dictionary {
    /// An empty one.
    pub fn new() -> Dictionary {
        Dictionary(ptr::null_mut())
    }

    /// Sets `key` to `value`.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let (key, value) = (c_string(key), c_string(value));
        // SAFETY: both strings are terminated and are copied by libav; the
        // pointer is null or a dictionary that we own.
        let code = unsafe { sys::av_dict_set(&mut self.0, key.as_ptr(), value.as_ptr(), 0) };
        if code < 0 {
            return Err(AvError::OutOfMemory { operation: "setting an option" });
        }
        Ok(())
    }

    /// Where libav wants a dictionary that it may change.
    pub fn as_mut_ptr(&mut self) -> *mut *mut sys::AVDictionary {
        &mut self.0
    }

    /// The first entry, which after a call that takes options is one that nobody knew.
    pub fn first_key(&self) -> Option<String> {
        entries(self.0).into_iter().next().map(|(k, _)| k)
    }
}

impl Drop for Dictionary {
    fn drop(&mut self) {
        // SAFETY: null or a dictionary that we own; libav sets it to null.
        unsafe { sys::av_dict_free(&mut self.0) }
    }
}

/// All entries of a dictionary.
pub fn entries(dictionary: *const sys::AVDictionary) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut entry: *const sys::AVDictionaryEntry = ptr::null();
    loop {
        // SAFETY: the dictionary is null or valid, and `entry` is null or what
        // the last call returned; key and value are terminated strings.
        unsafe {
            entry = sys::av_dict_get(
                dictionary,
                c"".as_ptr(),
                entry,
                sys::AV_DICT_IGNORE_SUFFIX as c_int,
            );
            if entry.is_null() {
                return all;
            }
            if let (Some(key), Some(value)) = (text((*entry).key), text((*entry).value)) {
                all.push((key, value));
            }
        }
    }
}

/// `AVMasteringDisplayMetadata` of libavutil/mastering_display_metadata.h,
/// which the bindings leave out. Later versions of libav may append fields,
/// so its size is a lower bound.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MasteringDisplayMetadata {
    pub display_primaries: [[sys::AVRational; 2]; 3],
    pub white_point: [sys::AVRational; 2],
    pub min_luminance: sys::AVRational,
    pub max_luminance: sys::AVRational,
    pub has_primaries: c_int,
    pub has_luminance: c_int,
}

/// `AVContentLightMetadata` of the same header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ContentLightMetadata {
    pub max_cll: libc::c_uint,
    pub max_fall: libc::c_uint,
}
