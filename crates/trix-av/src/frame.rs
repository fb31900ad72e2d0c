//! Decoded pictures and sound: owned, reference-counted, with checked sizes.
//!
//! A frame becomes one of these at once when it leaves a decoder, and every
//! plane was checked against the buffer behind it by then. So a [`Plane`] can
//! be handed to an encoder without another look.

use std::ffi::c_int;
use std::ptr;

use ffmpeg_sys_next as sys;
use trix_model::color::{ContentLight, MasteringDisplay};
use trix_model::{ColorDescription, HdrMetadata, PixelFormat, Rational};

use crate::error::{AvError, Result};
use crate::ffi::{self, get_enum, set_enum};
use crate::pixel;

/// The largest side and the largest area of a picture that trix touches: a
/// header may claim more, and would cost memory before anything is decoded.
pub const MAX_SIDE: u32 = 32_768;
/// See [`MAX_SIDE`]; 2^28 samples are more than 16384x16384.
pub const MAX_AREA: u64 = 1 << 28;

/// An `AVFrame` that is freed with its owner.
pub(crate) struct RawFrame(*mut sys::AVFrame);

// SAFETY: an AVFrame has no thread of its own; its buffers are counted with
// atomics, so the last owner may free them on any thread.
unsafe impl Send for RawFrame {}
// SAFETY: behind a shared reference it is only read, by us and by what libav does with a
// `const AVFrame *`; all that writes to it or to its samples takes `&mut`.
unsafe impl Sync for RawFrame {}

impl RawFrame {
    /// An empty frame for a decoder to fill.
    pub(crate) fn new() -> Result<RawFrame> {
        // SAFETY: no precondition; null is checked.
        let frame = unsafe { sys::av_frame_alloc() };
        if frame.is_null() {
            return Err(AvError::OutOfMemory { operation: "allocating a frame" });
        }
        Ok(RawFrame(frame))
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::AVFrame {
        self.0
    }

    /// Another owner of the same samples.
    fn share(&self) -> Result<RawFrame> {
        let new = RawFrame::new()?;
        // SAFETY: both are valid frames, the new one is empty.
        let code = unsafe { sys::av_frame_ref(new.0, self.0) };
        if code < 0 {
            return Err(AvError::library("sharing a frame", code));
        }
        Ok(new)
    }

    /// True when `len` bytes from `data` lie inside one of the frame's buffers.
    fn holds(&self, data: *const u8, len: usize) -> bool {
        let start = data as usize;
        let Some(end) = start.checked_add(len) else { return false };
        // SAFETY: the frame is valid; its buffer pointers are null or valid,
        // and the count of the extended ones is libav's own.
        unsafe {
            let fixed = (*self.0).buf.iter().copied();
            let extended = (0..usize::try_from((*self.0).nb_extended_buf).unwrap_or(0))
                .map(|i| *(*self.0).extended_buf.add(i));
            fixed.chain(extended).filter(|b| !b.is_null()).any(|b| {
                let from = (*b).data as usize;
                from <= start && end <= from.saturating_add((*b).size)
            })
        }
    }
}

impl Drop for RawFrame {
    fn drop(&mut self) {
        // SAFETY: we own it; libav sets the pointer to null.
        unsafe { sys::av_frame_free(&mut self.0) }
    }
}

/// One plane of a picture, read-only. Can't outlive its frame.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// `stride * (height - 1)` bytes and then one line.
    pub data: &'a [u8],
    /// Bytes from line to line, at least `row_bytes`.
    pub stride: usize,
    /// Bytes of samples in a line.
    pub row_bytes: usize,
    /// Samples a line (for packed formats, pixels).
    pub width: u32,
    /// Lines.
    pub height: u32,
}

impl<'a> Plane<'a> {
    /// The samples of line `y`, as bytes.
    pub fn row(&self, y: u32) -> &'a [u8] {
        let start = y as usize * self.stride;
        &self.data[start..start + self.row_bytes]
    }
}

/// One plane of a picture that nobody else holds.
#[derive(Debug)]
pub struct PlaneMut<'a> {
    /// See [`Plane::data`].
    pub data: &'a mut [u8],
    /// See [`Plane::stride`].
    pub stride: usize,
    /// See [`Plane::row_bytes`].
    pub row_bytes: usize,
    /// See [`Plane::width`].
    pub width: u32,
    /// See [`Plane::height`].
    pub height: u32,
}

impl PlaneMut<'_> {
    /// The samples of line `y`, as bytes.
    pub fn row_mut(&mut self, y: u32) -> &mut [u8] {
        let start = y as usize * self.stride;
        &mut self.data[start..start + self.row_bytes]
    }
}

/// A picture. Its samples are counted, so [`VideoFrame::share`] copies none.
pub struct VideoFrame {
    raw: RawFrame,
    /// libav's number; stays the same as the frame's for the frame's life.
    format: i32,
}

impl VideoFrame {
    /// A new picture with undefined samples, 64-byte aligned lines, no pts.
    pub fn alloc(format: PixelFormat, width: u32, height: u32) -> Result<VideoFrame> {
        let number = pixel::raw(format).ok_or_else(|| AvError::Unsupported {
            what: format!("a picture of {:?} with {} bits", format.chroma, format.depth),
        })?;
        VideoFrame::alloc_raw(number, width, height)
    }

    pub(crate) fn alloc_raw(format: i32, width: u32, height: u32) -> Result<VideoFrame> {
        check_size(width, height)?;
        let raw = RawFrame::new()?;
        // SAFETY: an empty frame that we own; the sizes were checked, and
        // av_frame_get_buffer allocates by them, so they match the buffers.
        unsafe {
            (*raw.0).format = format;
            (*raw.0).width = width as c_int;
            (*raw.0).height = height as c_int;
            let code = sys::av_frame_get_buffer(raw.0, 64);
            if code < 0 {
                return Err(AvError::library("allocating a picture", code));
            }
        }
        VideoFrame::from_raw(raw)
    }

    /// Takes what a decoder or filter filled, after checking that every plane
    /// lies inside its buffer.
    pub(crate) fn from_raw(raw: RawFrame) -> Result<VideoFrame> {
        // SAFETY: a valid frame.
        let (format, width, height) = unsafe { ((*raw.0).format, (*raw.0).width, (*raw.0).height) };
        let unsupported = |what: &str| AvError::Unsupported { what: what.to_owned() };
        let (w, h) = match (u32::try_from(width), u32::try_from(height)) {
            (Ok(w), Ok(h)) => (w, h),
            _ => return Err(unsupported("a picture of negative size")),
        };
        check_size(w, h)?;
        let info = pixel::info(format).ok_or_else(|| unsupported("an unknown pixel format"))?;
        if info.hardware {
            return Err(unsupported("a picture in the memory of a device"));
        }
        let frame = VideoFrame { raw, format };
        for i in 0..info.planes {
            let (data, stride, rows, row_bytes) = frame.geometry(i)?;
            let span = stride
                .unsigned_abs()
                .checked_mul(rows.saturating_sub(1))
                .and_then(|n| n.checked_add(row_bytes))
                .ok_or_else(|| unsupported("a plane larger than memory"))?;
            // With a negative stride the first line is the last in memory.
            let lowest = if stride < 0 {
                data.wrapping_sub(stride.unsigned_abs() * rows.saturating_sub(1))
            } else {
                data
            };
            if stride.unsigned_abs() < row_bytes || !frame.raw.holds(lowest, span) {
                return Err(unsupported("a picture whose planes exceed its buffers"));
            }
        }
        Ok(frame)
    }

    /// (data, stride, lines, bytes of samples a line) of plane `i`.
    fn geometry(&self, i: usize) -> Result<(*mut u8, isize, usize, usize)> {
        let unsupported = || AvError::Unsupported { what: format!("plane {i} of a picture") };
        // SAFETY: a valid frame; `i` is below 4 by the check.
        let (data, stride, width, height) = unsafe {
            if i >= 4 {
                return Err(unsupported());
            }
            let f = self.raw.0;
            ((*f).data[i], (*f).linesize[i] as isize, (*f).width, (*f).height)
        };
        if data.is_null() {
            return Err(unsupported());
        }
        let info = pixel::info(self.format).ok_or_else(unsupported)?;
        let rows = if (i == 1 || i == 2) && info.planes > 1 {
            (height as usize).div_ceil(1 << info.log2_chroma_h)
        } else {
            height as usize
        };
        // SAFETY: takes any numbers and returns bytes or an error.
        let row_bytes = unsafe { ffi::av_image_get_linesize(self.format, width, i as c_int) };
        let row_bytes = usize::try_from(row_bytes).map_err(|_| unsupported())?;
        Ok((data, stride, rows, row_bytes))
    }

    /// trix's pixel format, or `None` when the samples lie in another layout
    /// (packed, RGB, semi-planar, bottom-up) that [`crate::Scaler`] converts.
    pub fn format(&self) -> Option<PixelFormat> {
        let format = pixel::from_raw(self.format)?;
        let upright = (0..format.planes()).all(|i| self.geometry(i).is_ok_and(|g| g.1 > 0));
        upright.then_some(format)
    }

    /// libav's name of the pixel format.
    pub fn format_name(&self) -> String {
        pixel::name(self.format).unwrap_or_else(|| "unknown".to_owned())
    }

    pub(crate) fn raw_format(&self) -> i32 {
        self.format
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::AVFrame {
        self.raw.0
    }

    /// Samples a line.
    pub fn width(&self) -> u32 {
        // SAFETY: a valid frame.
        unsafe { (*self.raw.0).width as u32 }
    }

    /// Lines.
    pub fn height(&self) -> u32 {
        // SAFETY: a valid frame.
        unsafe { (*self.raw.0).height as u32 }
    }

    /// Presentation time in ticks of the stream's time base.
    pub fn pts(&self) -> Option<i64> {
        // SAFETY: a valid frame.
        ffi::timestamp(unsafe { (*self.raw.0).pts })
    }

    /// Sets the presentation time.
    pub fn set_pts(&mut self, pts: Option<i64>) {
        // SAFETY: a valid frame that we own.
        unsafe { (*self.raw.0).pts = ffi::raw_timestamp(pts) }
    }

    /// Duration in ticks of the stream's time base, 0 when unknown.
    pub fn duration(&self) -> i64 {
        // SAFETY: a valid frame.
        unsafe { (*self.raw.0).duration.max(0) }
    }

    /// Sets the duration.
    pub fn set_duration(&mut self, duration: i64) {
        // SAFETY: a valid frame that we own.
        unsafe { (*self.raw.0).duration = duration }
    }

    fn flag(&self, flag: u32) -> bool {
        // SAFETY: a valid frame.
        unsafe { (*self.raw.0).flags as u32 & flag != 0 }
    }

    /// The decoder says that this picture needs no other.
    pub fn is_key(&self) -> bool {
        self.flag(sys::AV_FRAME_FLAG_KEY as u32)
    }

    /// The decoder says that this picture holds two fields of different times.
    pub fn is_interlaced(&self) -> bool {
        self.flag(sys::AV_FRAME_FLAG_INTERLACED as u32)
    }

    /// The top field comes first, if interlaced.
    pub fn top_field_first(&self) -> bool {
        self.flag(sys::AV_FRAME_FLAG_TOP_FIELD_FIRST as u32)
    }

    /// The decoder had to conceal damage.
    pub fn is_corrupt(&self) -> bool {
        // SAFETY: a valid frame.
        self.flag(sys::AV_FRAME_FLAG_CORRUPT as u32)
            || unsafe { (*self.raw.0).decode_error_flags != 0 }
    }

    /// Number of planes.
    pub fn planes(&self) -> usize {
        pixel::info(self.format).map_or(0, |i| i.planes)
    }

    /// Plane `i`, or `None` when there is no such plane or its lines go upwards.
    pub fn try_plane(&self, i: usize) -> Option<Plane<'_>> {
        if i >= self.planes() {
            return None;
        }
        let (data, stride, rows, row_bytes) = self.geometry(i).ok()?;
        let stride = usize::try_from(stride).ok().filter(|s| *s > 0)?;
        let len = stride * (rows - 1) + row_bytes;
        assert!(self.raw.holds(data, len), "a frame was checked and then changed");
        // SAFETY: the range lies inside a buffer that this frame keeps alive,
        // as the line above asserts; while `self` is borrowed nobody writes,
        // because writing needs `&mut` and an unshared buffer.
        let data = unsafe { std::slice::from_raw_parts(data, len) };
        Some(Plane { data, stride, row_bytes, width: self.plane_width(i), height: rows as u32 })
    }

    /// Plane `i` of a frame that has a [`VideoFrame::format`].
    ///
    /// # Panics
    /// When there is no such plane: check `format()` first.
    pub fn plane(&self, i: usize) -> Plane<'_> {
        self.try_plane(i)
            .unwrap_or_else(|| panic!("a {} picture has no upright plane {i}", self.format_name()))
    }

    fn plane_width(&self, i: usize) -> u32 {
        let info = pixel::info(self.format);
        match info {
            Some(d) if (i == 1 || i == 2) && d.planes > 1 => {
                self.width().div_ceil(1 << d.log2_chroma_w)
            }
            _ => self.width(),
        }
    }

    /// Plane `i` for writing. Samples that are shared with another frame are copied first.
    ///
    /// # Errors
    /// Out of memory; no such plane.
    pub fn plane_mut(&mut self, i: usize) -> Result<PlaneMut<'_>> {
        // SAFETY: a valid frame that we own.
        let code = unsafe { sys::av_frame_make_writable(self.raw.0) };
        if code < 0 {
            return Err(AvError::library("copying a picture", code));
        }
        let Plane { data, stride, row_bytes, width, height } = self
            .try_plane(i)
            .ok_or_else(|| AvError::Unsupported { what: format!("writing plane {i}") })?;
        let (start, len) = (data.as_ptr().cast_mut(), data.len());
        // SAFETY: the range was checked by try_plane; the buffers have one
        // owner since make_writable, and `&mut self` keeps it the only borrow.
        let data = unsafe { std::slice::from_raw_parts_mut(start, len) };
        Ok(PlaneMut { data, stride, row_bytes, width, height })
    }

    /// Another owner of the same samples, with its own times.
    pub fn share(&self) -> Result<VideoFrame> {
        Ok(VideoFrame { raw: self.raw.share()?, format: self.format })
    }

    /// Colour as the bitstream states it.
    pub fn color(&self) -> ColorDescription {
        let f = self.raw.0;
        // SAFETY: a valid frame; enums are read as integers.
        let (primaries, transfer, matrix, range, location) = unsafe {
            (
                get_enum!(f, color_primaries),
                get_enum!(f, color_trc),
                get_enum!(f, colorspace),
                get_enum!(f, color_range),
                get_enum!(f, chroma_location),
            )
        };
        color_from_raw(primaries, transfer, matrix, range, location, self.format)
    }

    /// Sets what [`VideoFrame::color`] returns; the samples stay as they are.
    pub fn set_color(&mut self, color: ColorDescription) {
        let f = self.raw.0;
        // SAFETY: a valid frame that we own; enums are written as integers,
        // and each is either a code point of H.273 or "unspecified".
        unsafe {
            set_enum!(f, color_primaries, raw_code(color.primaries));
            set_enum!(f, color_trc, raw_code(color.transfer));
            set_enum!(f, colorspace, raw_code(color.matrix));
            set_enum!(f, color_range, raw_range(color.full_range));
            set_enum!(f, chroma_location, raw_location(color.chroma_location));
        }
    }

    /// Sample aspect ratio, if stated.
    pub fn sample_aspect(&self) -> Option<Rational> {
        // SAFETY: a valid frame.
        ffi::positive(unsafe { (*self.raw.0).sample_aspect_ratio })
    }

    /// HDR10 metadata that this picture carries.
    pub fn hdr(&self) -> HdrMetadata {
        let side = |kind: sys::AVFrameSideDataType, size: usize| {
            // SAFETY: a valid frame; the result is null or valid while the
            // frame lives, and the size is compared with what will be read.
            unsafe {
                let data = ffi::av_frame_get_side_data(self.raw.0, kind as c_int);
                if data.is_null() || (*data).size < size {
                    return ptr::null();
                }
                (*data).data.cast_const()
            }
        };
        // SAFETY: null, or at least as large as the structure that is read.
        unsafe {
            HdrMetadata {
                mastering_display: mastering_from_raw(
                    side(
                        sys::AVFrameSideDataType::AV_FRAME_DATA_MASTERING_DISPLAY_METADATA,
                        size_of::<ffi::MasteringDisplayMetadata>(),
                    )
                    .cast(),
                ),
                content_light: light_from_raw(
                    side(
                        sys::AVFrameSideDataType::AV_FRAME_DATA_CONTENT_LIGHT_LEVEL,
                        size_of::<ffi::ContentLightMetadata>(),
                    )
                    .cast(),
                ),
            }
        }
    }

    /// Clockwise rotation that this picture's own display matrix asks for.
    pub(crate) fn rotation(&self) -> Option<u16> {
        // SAFETY: a valid frame; the data is null or valid while it lives and
        // holds nine 32-bit numbers, which the size check asserts.
        unsafe {
            let data = ffi::av_frame_get_side_data(
                self.raw.0,
                sys::AVFrameSideDataType::AV_FRAME_DATA_DISPLAYMATRIX as c_int,
            );
            if data.is_null() || (*data).size < 36 {
                return None;
            }
            Some(rotation_from_matrix((*data).data.cast()))
        }
    }

    pub(crate) fn set_sample_aspect(&mut self, aspect: sys::AVRational) {
        // SAFETY: a valid frame that we own.
        unsafe { (*self.raw.0).sample_aspect_ratio = aspect }
    }

    /// Forgets the display matrix, after it was obeyed.
    pub(crate) fn remove_rotation(&mut self) {
        // SAFETY: a valid frame that we own.
        unsafe {
            ffi::av_frame_remove_side_data(
                self.raw.0,
                sys::AVFrameSideDataType::AV_FRAME_DATA_DISPLAYMATRIX as c_int,
            );
        }
    }

    /// libav's estimate where the packet had no pts.
    pub(crate) fn best_effort(&self) -> Option<i64> {
        // SAFETY: a valid frame.
        ffi::timestamp(unsafe { (*self.raw.0).best_effort_timestamp })
    }

    /// What the packet carried in its opaque field.
    pub(crate) fn opaque(&self) -> usize {
        // SAFETY: a valid frame; the pointer is a number and never followed.
        unsafe { (*self.raw.0).opaque as usize }
    }

    /// Cuts `top`, `bottom`, `left`, `right` samples off by moving the plane pointers.
    pub(crate) fn crop(self, top: u32, bottom: u32, left: u32, right: u32) -> Result<VideoFrame> {
        let raw = self.raw;
        // SAFETY: a valid frame that we own; libav itself checks the sums
        // against the size, and from_raw checks the planes again.
        unsafe {
            (*raw.0).crop_top = top as usize;
            (*raw.0).crop_bottom = bottom as usize;
            (*raw.0).crop_left = left as usize;
            (*raw.0).crop_right = right as usize;
            let code = sys::av_frame_apply_cropping(raw.0, sys::AV_FRAME_CROP_UNALIGNED as c_int);
            if code < 0 {
                return Err(AvError::library("cropping a picture", code));
            }
        }
        VideoFrame::from_raw(raw)
    }

    /// Copies times, colour, aspect and side data, but no samples.
    pub(crate) fn copy_properties(&mut self, from: &VideoFrame) -> Result<()> {
        // SAFETY: both are valid frames, the destination is ours alone.
        let code = unsafe { sys::av_frame_copy_props(self.raw.0, from.raw.0) };
        if code < 0 {
            return Err(AvError::library("copying a picture's properties", code));
        }
        Ok(())
    }
}

impl std::fmt::Debug for VideoFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, w, h) = (self.format_name(), self.width(), self.height());
        write!(f, "VideoFrame({name} {w}x{h} pts {:?})", self.pts())
    }
}

fn check_size(width: u32, height: u32) -> Result<()> {
    let area = u64::from(width) * u64::from(height);
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE || area > MAX_AREA {
        return Err(AvError::Unsupported { what: format!("a picture of {width}x{height}") });
    }
    Ok(())
}

/// H.273 code point, `None` for "unspecified" (2) and the reserved 0 and 3.
fn code_point(value: i32) -> Option<u8> {
    match value {
        2 | 3 => None,
        1..=255 => Some(value as u8),
        _ => None,
    }
}

pub(crate) fn raw_code(value: Option<u8>) -> i32 {
    value.map_or(2, i32::from)
}

pub(crate) fn raw_range(full: Option<bool>) -> i32 {
    full.map_or(0, |full| if full { 2 } else { 1 })
}

pub(crate) fn raw_location(location: Option<u8>) -> i32 {
    location.map_or(0, |l| i32::from(l) + 1)
}

/// trix's colour description from libav's numbers, which are H.273's but for
/// range and chroma location.
pub(crate) fn color_from_raw(
    primaries: i32,
    transfer: i32,
    matrix: i32,
    range: i32,
    location: i32,
    format: i32,
) -> ColorDescription {
    // 0 is a real matrix (identity, that is RGB), unlike 0 elsewhere. A YUV
    // picture can't have it, there it means that nobody set the field.
    let matrix = match matrix {
        0 => pixel::info(format).is_some_and(|i| i.rgb).then_some(0),
        other => code_point(other),
    };
    let full_range = match range {
        1 => Some(false),
        2 => Some(true),
        // The "j" formats are how old decoders said full range.
        _ => pixel::name(format).is_some_and(|n| n.starts_with("yuvj")).then_some(true),
    };
    ColorDescription {
        primaries: code_point(primaries),
        transfer: code_point(transfer),
        matrix,
        full_range,
        chroma_location: (1..=6).contains(&location).then(|| (location - 1) as u8),
    }
}

/// `first`, and what it leaves open from `second`.
pub(crate) fn complete_color(
    first: ColorDescription,
    second: ColorDescription,
) -> ColorDescription {
    ColorDescription {
        primaries: first.primaries.or(second.primaries),
        transfer: first.transfer.or(second.transfer),
        matrix: first.matrix.or(second.matrix),
        full_range: first.full_range.or(second.full_range),
        chroma_location: first.chroma_location.or(second.chroma_location),
    }
}

/// # Safety
/// Null or a valid structure.
pub(crate) unsafe fn mastering_from_raw(
    data: *const ffi::MasteringDisplayMetadata,
) -> Option<MasteringDisplay> {
    if data.is_null() {
        return None;
    }
    // SAFETY: the caller promises that it is valid; it has no enum.
    let m = unsafe { &*data };
    if m.has_primaries == 0 || m.has_luminance == 0 {
        return None;
    }
    // Halves away from zero, so that a value that came from these units returns to them.
    let scaled = |r: sys::AVRational, units: i64| -> Option<u32> {
        let r = Rational::new(i64::from(r.num), i64::from(r.den))?;
        u32::try_from(Rational::new(r.num().checked_mul(units)?, r.den())?.times(1)).ok()
    };
    let short = |r: sys::AVRational| u16::try_from(scaled(r, 50_000)?).ok();
    let point = |xy: [sys::AVRational; 2]| Some([short(xy[0])?, short(xy[1])?]);
    Some(MasteringDisplay {
        primaries: [
            point(m.display_primaries[0])?,
            point(m.display_primaries[1])?,
            point(m.display_primaries[2])?,
        ],
        white_point: point(m.white_point)?,
        max_luminance: scaled(m.max_luminance, 10_000)?,
        min_luminance: scaled(m.min_luminance, 10_000)?,
    })
}

/// # Safety
/// Null or a valid structure.
pub(crate) unsafe fn light_from_raw(
    data: *const ffi::ContentLightMetadata,
) -> Option<ContentLight> {
    if data.is_null() {
        return None;
    }
    // SAFETY: the caller promises that it is valid; it has no enum.
    let l = unsafe { &*data };
    let (max, average) = (u16::try_from(l.max_cll).ok()?, u16::try_from(l.max_fall).ok()?);
    // 0/0 says "unknown" in both CTA-861.3 and the SEI.
    (max != 0 || average != 0)
        .then_some(ContentLight { max_content: max, max_frame_average: average })
}

/// Clockwise rotation to a quarter turn, from libav's 3x3 matrix.
///
/// # Safety
/// Points to nine readable 32-bit numbers.
pub(crate) unsafe fn rotation_from_matrix(matrix: *const i32) -> u16 {
    // SAFETY: as the caller promises.
    let counter_clockwise = unsafe { sys::av_display_rotation_get(matrix) };
    if !counter_clockwise.is_finite() {
        return 0;
    }
    let clockwise = (-counter_clockwise / 90.0).round() as i32;
    (clockwise.rem_euclid(4) * 90) as u16
}

/// Sound: a run of samples of all channels.
pub struct AudioFrame {
    raw: RawFrame,
}

/// How samples are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SampleFormat {
    /// Bytes a sample.
    pub bytes: u8,
    /// Floating point or integer.
    pub float: bool,
    /// One plane per channel, or channels interleaved in one plane.
    pub planar: bool,
}

impl SampleFormat {
    /// 16-bit integer, interleaved.
    pub const S16: SampleFormat = SampleFormat { bytes: 2, float: false, planar: false };
    /// 32-bit integer, interleaved (24-bit samples lie in its upper bits).
    pub const S32: SampleFormat = SampleFormat { bytes: 4, float: false, planar: false };
    /// 32-bit float, interleaved.
    pub const F32: SampleFormat = SampleFormat { bytes: 4, float: true, planar: false };
    /// 32-bit float, planar.
    pub const F32P: SampleFormat = SampleFormat { bytes: 4, float: true, planar: true };

    /// libav's name.
    pub const fn name(self) -> &'static str {
        match (self.bytes, self.float, self.planar) {
            (1, _, false) => "u8",
            (1, _, true) => "u8p",
            (2, _, false) => "s16",
            (2, _, true) => "s16p",
            (4, false, false) => "s32",
            (4, false, true) => "s32p",
            (4, true, false) => "flt",
            (4, true, true) => "fltp",
            (8, true, false) => "dbl",
            (8, true, true) => "dblp",
            (8, false, false) => "s64",
            (8, false, true) => "s64p",
            _ => "",
        }
    }

    pub(crate) fn raw(self) -> c_int {
        let name = ffi::c_string(self.name());
        // SAFETY: a terminated string.
        unsafe { ffi::av_get_sample_fmt(name.as_ptr()) }
    }

    pub(crate) fn from_raw(format: c_int) -> Option<SampleFormat> {
        // SAFETY: takes any number and returns null or a static string.
        let name = unsafe { ffi::text(ffi::av_get_sample_fmt_name(format)) }?;
        [1u8, 2, 4, 8]
            .into_iter()
            .flat_map(|bytes| [(bytes, false), (bytes, true)])
            .flat_map(|(bytes, float)| {
                [false, true].map(|planar| SampleFormat { bytes, float, planar })
            })
            .find(|f| f.name() == name)
    }
}

impl AudioFrame {
    /// `samples` samples of silence in every channel of `layout` (libav's words, e.g. `stereo`, `5.1`).
    pub fn alloc(
        format: SampleFormat,
        rate: u32,
        layout: &str,
        samples: usize,
    ) -> Result<AudioFrame> {
        let layout = Layout::parse(layout)?;
        AudioFrame::alloc_layout(format, rate, &layout, samples)
    }

    pub(crate) fn alloc_layout(
        format: SampleFormat,
        rate: u32,
        layout: &Layout,
        samples: usize,
    ) -> Result<AudioFrame> {
        let bad = || AvError::Unsupported { what: format!("{samples} samples at {rate} Hz") };
        let count = c_int::try_from(samples).map_err(|_| bad())?;
        let rate = c_int::try_from(rate).ok().filter(|r| *r > 0).ok_or_else(bad)?;
        if count == 0 {
            return Err(bad());
        }
        let raw = RawFrame::new()?;
        // SAFETY: an empty frame that we own; libav allocates by the fields
        // that are set here, so they match the buffers; the layout is copied.
        unsafe {
            (*raw.0).format = format.raw();
            (*raw.0).sample_rate = rate;
            (*raw.0).nb_samples = count;
            let code = sys::av_channel_layout_copy(&mut (*raw.0).ch_layout, layout.as_ptr());
            if code < 0 {
                return Err(AvError::library("copying a channel layout", code));
            }
            let code = sys::av_frame_get_buffer(raw.0, 0);
            if code < 0 {
                return Err(AvError::library("allocating sound", code));
            }
        }
        let mut frame = AudioFrame::from_raw(raw)?;
        for i in 0..frame.planes() {
            // Unsigned 8-bit samples have their silence in the middle.
            frame.data_mut(i)?.fill(if format.bytes == 1 { 0x80 } else { 0 });
        }
        Ok(frame)
    }

    /// Takes what a decoder or resampler filled, after checking the planes.
    pub(crate) fn from_raw(raw: RawFrame) -> Result<AudioFrame> {
        let bad = |what: &str| AvError::Unsupported { what: what.to_owned() };
        // SAFETY: a valid frame.
        let (samples, channels) = unsafe { ((*raw.0).nb_samples, (*raw.0).ch_layout.nb_channels) };
        if samples <= 0 || channels <= 0 {
            return Err(bad("sound without samples or channels"));
        }
        let frame = AudioFrame { raw };
        if frame.sample_format().is_none() {
            return Err(bad("an unknown sample format"));
        }
        for i in 0..frame.planes() {
            let (data, len) = frame.geometry(i);
            if data.is_null() || !frame.raw.holds(data, len) {
                return Err(bad("sound whose planes exceed its buffers"));
            }
        }
        Ok(frame)
    }

    fn geometry(&self, i: usize) -> (*mut u8, usize) {
        let Some(format) = self.sample_format() else { return (ptr::null_mut(), 0) };
        let per_plane = if format.planar { 1 } else { usize::from(self.channels()) };
        let len = self.samples() * usize::from(format.bytes) * per_plane;
        // SAFETY: `i` is below the number of planes, which is how many
        // pointers extended_data has.
        let data = unsafe { *(*self.raw.0).extended_data.add(i) };
        (data, len)
    }

    /// How samples are stored.
    ///
    /// Every frame that exists has one; `None` only while one is being checked.
    fn sample_format(&self) -> Option<SampleFormat> {
        // SAFETY: a valid frame.
        SampleFormat::from_raw(unsafe { (*self.raw.0).format })
    }

    /// How samples are stored.
    pub fn format(&self) -> SampleFormat {
        self.sample_format().unwrap_or(SampleFormat::S16)
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::AVFrame {
        self.raw.0
    }

    /// Samples a second.
    pub fn rate(&self) -> u32 {
        // SAFETY: a valid frame.
        unsafe { (*self.raw.0).sample_rate.max(0) as u32 }
    }

    /// Channels.
    pub fn channels(&self) -> u16 {
        // SAFETY: a valid frame.
        unsafe { (*self.raw.0).ch_layout.nb_channels.clamp(0, 0xffff) as u16 }
    }

    /// Channel layout in libav's words, e.g. `stereo`; `2 channels` when the order is unknown.
    pub fn layout(&self) -> String {
        // SAFETY: a valid frame with a valid layout.
        unsafe { describe_layout(&(*self.raw.0).ch_layout) }
    }

    /// Samples in each channel.
    pub fn samples(&self) -> usize {
        // SAFETY: a valid frame.
        unsafe { (*self.raw.0).nb_samples.max(0) as usize }
    }

    /// Presentation time in ticks of the stream's time base.
    pub fn pts(&self) -> Option<i64> {
        // SAFETY: a valid frame.
        ffi::timestamp(unsafe { (*self.raw.0).pts })
    }

    /// Sets the presentation time.
    pub fn set_pts(&mut self, pts: Option<i64>) {
        // SAFETY: a valid frame that we own.
        unsafe { (*self.raw.0).pts = ffi::raw_timestamp(pts) }
    }

    /// Number of planes: channels when planar, else 1.
    pub fn planes(&self) -> usize {
        if self.format().planar { usize::from(self.channels()) } else { 1 }
    }

    /// The samples of plane `i` in native byte order.
    ///
    /// # Panics
    /// When there is no such plane.
    pub fn data(&self, i: usize) -> &[u8] {
        assert!(i < self.planes(), "sound of {} planes has no plane {i}", self.planes());
        let (data, len) = self.geometry(i);
        assert!(self.raw.holds(data, len), "a frame was checked and then changed");
        // SAFETY: inside a buffer that this frame keeps alive, as asserted.
        unsafe { std::slice::from_raw_parts(data, len) }
    }

    /// The samples of plane `i` for writing; shared samples are copied first.
    pub fn data_mut(&mut self, i: usize) -> Result<&mut [u8]> {
        // SAFETY: a valid frame that we own.
        let code = unsafe { sys::av_frame_make_writable(self.raw.0) };
        if code < 0 {
            return Err(AvError::library("copying sound", code));
        }
        let (start, len) = (self.data(i).as_ptr().cast_mut(), self.data(i).len());
        // SAFETY: checked by `data`; one owner since make_writable, and
        // `&mut self` keeps it the only borrow.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, len) })
    }

    /// Another owner of the same samples.
    pub fn share(&self) -> Result<AudioFrame> {
        Ok(AudioFrame { raw: self.raw.share()? })
    }

    /// Runs of one format behind each other; `None` when there is none.
    pub(crate) fn join(mut runs: Vec<AudioFrame>) -> Result<Option<AudioFrame>> {
        if runs.len() <= 1 {
            return Ok(runs.pop());
        }
        let first = &runs[0];
        let total = runs.iter().map(AudioFrame::samples).sum();
        // SAFETY: a valid frame with a valid layout.
        let layout = unsafe { Layout::copy(&(*first.raw.0).ch_layout)? };
        let mut joined = AudioFrame::alloc_layout(first.format(), first.rate(), &layout, total)?;
        for i in 0..joined.planes() {
            let plane = joined.data_mut(i)?;
            let mut at = 0;
            for run in &runs {
                let data = run.data(i);
                plane[at..at + data.len()].copy_from_slice(data);
                at += data.len();
            }
        }
        Ok(Some(joined))
    }

    /// A copy of samples `from..from + count` of every channel, without a pts.
    pub fn slice(&self, from: usize, count: usize) -> Result<AudioFrame> {
        let format = self.format();
        assert!(from + count <= self.samples(), "a slice beyond the frame's samples");
        // SAFETY: a valid frame with a valid layout.
        let layout = unsafe { Layout::copy(&(*self.raw.0).ch_layout)? };
        let mut new = AudioFrame::alloc_layout(format, self.rate(), &layout, count)?;
        let per_plane = if format.planar { 1 } else { usize::from(self.channels()) };
        let width = usize::from(format.bytes) * per_plane;
        for i in 0..self.planes() {
            let source = &self.data(i)[from * width..(from + count) * width];
            new.data_mut(i)?.copy_from_slice(source);
        }
        Ok(new)
    }
}

impl std::fmt::Debug for AudioFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, layout, n) = (self.format().name(), self.layout(), self.samples());
        write!(
            f,
            "AudioFrame({name} {layout} {} Hz, {n} samples, pts {:?})",
            self.rate(),
            self.pts()
        )
    }
}

/// A channel layout that is freed with its owner.
pub(crate) struct Layout(sys::AVChannelLayout);

impl Layout {
    /// By libav's words: `stereo`, `5.1(side)`, `FL+FR+LFE`, `3 channels`.
    pub(crate) fn parse(words: &str) -> Result<Layout> {
        let name = ffi::c_string(words);
        // SAFETY: all-zero is libav's own initial value of a layout.
        let mut layout = Layout(unsafe { std::mem::zeroed() });
        // SAFETY: a layout that we own and a terminated string.
        let code = unsafe { sys::av_channel_layout_from_string(&mut layout.0, name.as_ptr()) };
        if code < 0 {
            return Err(AvError::Request { what: format!("{words:?} is no channel layout") });
        }
        Ok(layout)
    }

    /// The usual layout of so many channels.
    pub(crate) fn default_of(channels: u16) -> Layout {
        // SAFETY: all-zero is libav's own initial value; the call fills it.
        unsafe {
            let mut layout = Layout(std::mem::zeroed());
            sys::av_channel_layout_default(&mut layout.0, c_int::from(channels));
            layout
        }
    }

    /// # Safety
    /// Points to a valid layout.
    pub(crate) unsafe fn copy(from: *const sys::AVChannelLayout) -> Result<Layout> {
        // SAFETY: all-zero is libav's own initial value; `from` is valid.
        unsafe {
            let mut layout = Layout(std::mem::zeroed());
            let code = sys::av_channel_layout_copy(&mut layout.0, from);
            if code < 0 {
                return Err(AvError::library("copying a channel layout", code));
            }
            Ok(layout)
        }
    }

    pub(crate) fn share(&self) -> Result<Layout> {
        // SAFETY: a valid layout.
        unsafe { Layout::copy(&self.0) }
    }

    pub(crate) fn as_ptr(&self) -> *const sys::AVChannelLayout {
        &self.0
    }

    pub(crate) fn channels(&self) -> u16 {
        self.0.nb_channels.clamp(0, 0xffff) as u16
    }

    /// False when only the number of channels is known.
    pub(crate) fn is_ordered(&self) -> bool {
        // AV_CHANNEL_ORDER_UNSPEC is 0.
        // SAFETY: a valid layout; the enum is read as an integer.
        unsafe { get_enum!(self.as_ptr(), order) != 0 }
    }

    pub(crate) fn describe(&self) -> String {
        // SAFETY: a valid layout.
        unsafe { describe_layout(&self.0) }
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: a layout that we own.
        unsafe { sys::av_channel_layout_uninit(&mut self.0) }
    }
}

/// # Safety
/// Points to a valid layout.
pub(crate) unsafe fn describe_layout(layout: *const sys::AVChannelLayout) -> String {
    let mut buffer = [0 as libc::c_char; 256];
    // SAFETY: the buffer outlives the call and its size is passed.
    unsafe {
        let code = sys::av_channel_layout_describe(layout, buffer.as_mut_ptr(), buffer.len());
        if code <= 0 {
            return String::new();
        }
        buffer[255] = 0;
        ffi::text(buffer.as_ptr()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_have_the_size_that_the_format_says_and_odd_sizes_round_up() {
        let mut frame = VideoFrame::alloc(PixelFormat::YUV420P10, 35, 17).unwrap();
        assert_eq!(frame.format(), Some(PixelFormat::YUV420P10));
        let luma = frame.plane(0);
        assert_eq!((luma.width, luma.height, luma.row_bytes), (35, 17, 70));
        let chroma = frame.plane(2);
        assert_eq!((chroma.width, chroma.height, chroma.row_bytes), (18, 9, 36));
        assert!(frame.try_plane(3).is_none());
        frame.plane_mut(1).unwrap().row_mut(8).fill(7);
        assert!(frame.plane(1).row(8).iter().all(|b| *b == 7));
    }

    #[test]
    fn writing_to_a_shared_frame_leaves_the_other_owner_as_it_was() {
        let mut first = VideoFrame::alloc(PixelFormat::YUV420P8, 16, 16).unwrap();
        first.plane_mut(0).unwrap().data.fill(1);
        let second = first.share().unwrap();
        first.plane_mut(0).unwrap().data.fill(2);
        assert!(second.plane(0).row(3).iter().all(|b| *b == 1));
        assert!(first.plane(0).row(3).iter().all(|b| *b == 2));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (w, h) in [(0, 16), (16, 0), (MAX_SIDE + 1, 16), (MAX_SIDE, MAX_SIDE)] {
            let error = VideoFrame::alloc(PixelFormat::YUV420P8, w, h).unwrap_err();
            assert!(matches!(error, AvError::Unsupported { .. }), "{error}");
        }
    }

    #[test]
    fn colour_goes_in_and_comes_out_unchanged() {
        let mut frame = VideoFrame::alloc(PixelFormat::YUV420P8, 16, 16).unwrap();
        assert_eq!(frame.color(), ColorDescription::default());
        let color = ColorDescription {
            primaries: Some(9),
            transfer: Some(16),
            matrix: Some(9),
            full_range: Some(false),
            chroma_location: Some(2),
        };
        frame.set_color(color);
        assert_eq!(frame.color(), color);
    }

    #[test]
    fn sound_starts_silent_and_slices_keep_every_channel() {
        let mut frame = AudioFrame::alloc(SampleFormat::F32P, 48_000, "5.1", 10).unwrap();
        assert_eq!((frame.channels(), frame.planes(), frame.samples()), (6, 6, 10));
        for c in 0..6 {
            assert!(frame.data(c).iter().all(|b| *b == 0));
            frame.data_mut(c).unwrap()[8..12].copy_from_slice(&(c as f32).to_ne_bytes());
        }
        let slice = frame.slice(2, 1).unwrap();
        assert_eq!(slice.layout(), "5.1");
        assert_eq!(slice.data(5), 5f32.to_ne_bytes());
    }

    #[test]
    fn sample_formats_go_through_libav_and_back() {
        for format in [SampleFormat::S16, SampleFormat::S32, SampleFormat::F32P] {
            assert_eq!(SampleFormat::from_raw(format.raw()), Some(format));
        }
        assert_eq!(SampleFormat::from_raw(-1), None);
    }
}
