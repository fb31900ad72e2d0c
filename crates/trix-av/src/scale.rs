//! Size, pixel format and rotation of pictures.
//!
//! YUV stays YUV: matrix and range go through as they are. The arithmetic is
//! the bit-exact one on every machine, chroma is taken from where the source
//! says it lies, and a picture that is right already passes without a copy.

use std::ffi::c_int;
use std::ptr;

use ffmpeg_sys_next as sys;
use trix_model::ColorDescription;
use trix_model::pixel::{Chroma, PixelFormat};

use crate::error::{AvError, Result};
use crate::ffi;
use crate::frame::VideoFrame;
use crate::pixel;

/// The matrix that RGB sources are converted with (BT.709), and what is
/// signalled for them then.
pub const RGB_MATRIX: u8 = 1;

/// What a [`Scaler`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Chroma and depth.
    pub format: PixelFormat,
    /// Samples a line, after rotation.
    pub width: u32,
    /// Lines, after rotation.
    pub height: u32,
    /// Clockwise rotation: 0, 90, 180 or 270 degrees.
    pub rotation: u16,
}

/// The colour description of what comes out of a [`Scaler`] for a source of
/// this description and pixel format (libav's name).
///
/// YUV keeps its own. RGB becomes limited-range BT.709 YUV; its primaries and
/// transfer stay.
pub fn output_color(source: ColorDescription, pixel_format: &str) -> ColorDescription {
    if !pixel::is_rgb(pixel_format) {
        return source;
    }
    ColorDescription {
        matrix: Some(RGB_MATRIX),
        full_range: Some(false),
        chroma_location: None,
        ..source
    }
}

/// Converts pictures of whatever format, one after the other, to one target.
pub struct Scaler {
    target: Target,
    first: Option<Converter>,
    second: Option<Converter>,
}

impl Scaler {
    /// # Errors
    /// [`AvError::Request`] for a rotation that is no quarter turn or a format
    /// that trix does not have.
    pub fn new(target: Target) -> Result<Scaler> {
        if !matches!(target.rotation, 0 | 90 | 180 | 270) {
            return Err(AvError::Request {
                what: format!("rotation is {}, allowed are 0, 90, 180 and 270", target.rotation),
            });
        }
        if pixel::raw(target.format).is_none() {
            return Err(AvError::Request {
                what: format!("there is no picture of {:?}", target.format),
            });
        }
        Ok(Scaler { target, first: None, second: None })
    }

    /// The picture as the target wants it, with the source's times, aspect and side data.
    ///
    /// # Errors
    /// [`AvError::Unsupported`] for source formats that can't be read.
    pub fn scale(&mut self, source: &VideoFrame) -> Result<VideoFrame> {
        let Target { format, width, height, rotation } = self.target;
        if rotation == 0 {
            if source.format() == Some(format)
                && (source.width(), source.height()) == (width, height)
            {
                return source.share();
            }
            return convert(&mut self.first, source, format, width, height);
        }
        // Chroma is turned at full resolution: 4:2:2 turned is no 4:2:2, and
        // chroma that lies left would lie on top.
        let full = PixelFormat {
            chroma: if format.chroma == Chroma::Mono { Chroma::Mono } else { Chroma::C444 },
            depth: format.depth,
        };
        let (w, h) = if rotation == 180 { (width, height) } else { (height, width) };
        let upright = convert(&mut self.first, source, full, w, h)?;
        let turned = rotate(&upright, full, rotation)?;
        if full == format {
            return Ok(turned);
        }
        convert(&mut self.second, &turned, format, width, height)
    }
}

/// Converts with a context that is made anew when the source's shape changes.
fn convert(
    slot: &mut Option<Converter>,
    source: &VideoFrame,
    format: PixelFormat,
    width: u32,
    height: u32,
) -> Result<VideoFrame> {
    if source.format() == Some(format) && (source.width(), source.height()) == (width, height) {
        return source.share();
    }
    let shape = Shape::of(source, format, width, height)?;
    let converter = match slot.take() {
        Some(converter) if converter.shape == shape => slot.insert(converter),
        _ => slot.insert(Converter::new(shape)?),
    };
    converter.run(source)
}

/// Everything that a scaling context depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    source_format: i32,
    source_size: (u32, u32),
    target_format: i32,
    target_size: (u32, u32),
    /// H.273 numbers of the coefficients.
    matrix: i32,
    target_matrix: i32,
    source_full: bool,
    target_full: bool,
    /// Chroma position in 1/256 of a luma sample: (horizontal, vertical).
    chroma: (c_int, c_int),
    target_chroma: (c_int, c_int),
    color: ColorDescription,
}

impl Shape {
    fn of(source: &VideoFrame, format: PixelFormat, width: u32, height: u32) -> Result<Shape> {
        let color = output_color(source.color(), &source.format_name());
        let rgb = pixel::is_rgb(&source.format_name());
        let target_format = pixel::raw(format)
            .ok_or_else(|| AvError::Unsupported { what: format!("a picture of {format:?}") })?;
        // What is not stated is taken as limited, here and by every player; it
        // goes through unchanged, and only matters for how dark is clipped.
        let full = color.full_range.unwrap_or(false);
        // H.264 figure E-1 by its numbers; not stated means left.
        let chroma = match color.chroma_location {
            Some(1) => (128, 128),
            Some(2) => (0, 0),
            Some(3) => (128, 0),
            Some(4) => (0, 256),
            Some(5) => (128, 256),
            _ => (0, 128),
        };
        let matrix = i32::from(color.matrix.unwrap_or(RGB_MATRIX));
        Ok(Shape {
            source_format: source.raw_format(),
            source_size: (source.width(), source.height()),
            target_format,
            target_size: (width, height),
            matrix,
            target_matrix: matrix,
            source_full: rgb || full,
            target_full: full,
            chroma,
            target_chroma: chroma,
            color,
        })
    }
}

struct Converter {
    context: *mut sys::SwsContext,
    shape: Shape,
}

// SAFETY: the context belongs to this value alone and runs on the caller's thread.
unsafe impl Send for Converter {}

impl Converter {
    fn new(shape: Shape) -> Result<Converter> {
        // SAFETY: no precondition; null is checked.
        let context = unsafe { sys::sws_alloc_context() };
        if context.is_null() {
            return Err(AvError::OutOfMemory { operation: "making a scaler" });
        }
        let converter = Converter { context, shape };
        // Bicubic, with the precise paths, and the same on every processor.
        let flags = sys::SWS_BICUBIC as i64
            | sys::SWS_ACCURATE_RND as i64
            | sys::SWS_FULL_CHR_H_INT as i64
            | sys::SWS_FULL_CHR_H_INP as i64
            | sys::SWS_BITEXACT as i64;
        for (name, value) in [
            (c"srcw", i64::from(shape.source_size.0)),
            (c"srch", i64::from(shape.source_size.1)),
            (c"src_format", i64::from(shape.source_format)),
            (c"dstw", i64::from(shape.target_size.0)),
            (c"dsth", i64::from(shape.target_size.1)),
            (c"dst_format", i64::from(shape.target_format)),
            (c"src_range", i64::from(shape.source_full)),
            (c"dst_range", i64::from(shape.target_full)),
            (c"sws_flags", flags),
            (c"src_h_chr_pos", chroma_position(shape.source_format, shape.chroma).0),
            (c"src_v_chr_pos", chroma_position(shape.source_format, shape.chroma).1),
            (c"dst_h_chr_pos", chroma_position(shape.target_format, shape.target_chroma).0),
            (c"dst_v_chr_pos", chroma_position(shape.target_format, shape.target_chroma).1),
            (c"threads", 1),
        ] {
            // SAFETY: a context of ours with an option class; a terminated name.
            let code = unsafe { sys::av_opt_set_int(context.cast(), name.as_ptr(), value, 0) };
            if code < 0 {
                return Err(AvError::library(format!("setting the scaler's {name:?}"), code));
            }
        }
        // SAFETY: a context of ours with all sizes and formats set; the
        // coefficient tables are static.
        unsafe {
            let code = sys::sws_init_context(context, ptr::null_mut(), ptr::null_mut());
            if code < 0 {
                let what = format!(
                    "scaling {} {}x{}",
                    pixel::name(shape.source_format).unwrap_or_default(),
                    shape.source_size.0,
                    shape.source_size.1
                );
                return Err(AvError::Unsupported { what });
            }
            let table = sys::sws_getCoefficients(coefficients(shape.matrix));
            let target_table = sys::sws_getCoefficients(coefficients(shape.target_matrix));
            // A negative answer says that both sides are alike and nothing is to do.
            sys::sws_setColorspaceDetails(
                context,
                table,
                c_int::from(shape.source_full),
                target_table,
                c_int::from(shape.target_full),
                0,
                1 << 16,
                1 << 16,
            );
        }
        Ok(converter)
    }

    fn run(&mut self, source: &VideoFrame) -> Result<VideoFrame> {
        let (width, height) = self.shape.target_size;
        let mut target = VideoFrame::alloc_raw(self.shape.target_format, width, height)?;
        // SAFETY: both frames have the formats and sizes of the context, which
        // the shape's equality asserts, and the target is ours alone.
        let code = unsafe { sys::sws_scale_frame(self.context, target.as_ptr(), source.as_ptr()) };
        if code < 0 {
            return Err(AvError::library("scaling a picture", code));
        }
        target.copy_properties(source)?;
        target.set_color(self.shape.color);
        Ok(target)
    }
}

impl Drop for Converter {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { sys::sws_freeContext(self.context) }
    }
}

/// libav's number for a matrix: H.273's where it has coefficients, else BT.709.
/// The table only matters where YUV meets RGB or another matrix.
fn coefficients(matrix: i32) -> c_int {
    match matrix {
        1 | 4 | 5 | 6 | 7 | 9 => matrix,
        10 => 9,
        _ => 1,
    }
}

/// Only subsampled directions have a position; -513 is libav's "as usual".
fn chroma_position(format: i32, (h, v): (c_int, c_int)) -> (i64, i64) {
    let Some(info) = pixel::info(format).filter(|i| !i.rgb && i.components >= 3) else {
        return (-513, -513);
    };
    (
        if info.log2_chroma_w == 1 { i64::from(h) } else { -513 },
        if info.log2_chroma_h == 1 { i64::from(v) } else { -513 },
    )
}

/// Turns a picture whose planes all have the same size.
fn rotate(source: &VideoFrame, format: PixelFormat, rotation: u16) -> Result<VideoFrame> {
    let (w, h) = (source.width(), source.height());
    let (tw, th) = if rotation == 180 { (w, h) } else { (h, w) };
    let mut target = VideoFrame::alloc(format, tw, th)?;
    let size = format.bytes();
    for i in 0..format.planes() {
        let from = source.plane(i);
        let mut to = target.plane_mut(i)?;
        for y in 0..th {
            let row = to.row_mut(y);
            for x in 0..tw {
                let (sx, sy) = match rotation {
                    90 => (y, h - 1 - x),
                    180 => (w - 1 - x, h - 1 - y),
                    _ => (w - 1 - y, x),
                };
                let at = sy as usize * from.stride + sx as usize * size;
                let x = x as usize * size;
                // A length that the compiler knows: any other is a call for every sample.
                match size {
                    1 => row[x] = from.data[at],
                    2 => row[x..x + 2].copy_from_slice(&from.data[at..at + 2]),
                    n => row[x..x + n].copy_from_slice(&from.data[at..at + n]),
                }
            }
        }
    }
    target.copy_properties(source)?;
    target.set_color(source.color());
    target.remove_rotation();
    // A sample that was wide is high now.
    if rotation != 180
        && let Some(aspect) = source.sample_aspect().and_then(|a| a.inverse())
    {
        target.set_sample_aspect(ffi::raw_rational(aspect)?);
    }
    Ok(target)
}

/// 8-bit 4:2:0 with full range and BT.601's matrix: what JFIF files hold, and
/// what every browser takes them for. Without tone mapping: a picture in PQ or
/// HLG keeps its values.
pub(crate) fn for_jpeg(source: &VideoFrame) -> Result<VideoFrame> {
    let mut shape = Shape::of(source, PixelFormat::YUV420P8, source.width(), source.height())?;
    shape.target_matrix = 6;
    shape.target_full = true;
    shape.color.matrix = Some(6);
    shape.color.full_range = Some(true);
    shape.color.chroma_location = Some(1);
    shape.target_chroma = (128, 128);
    Converter::new(shape)?.run(source)
}

/// 8-bit RGB.
pub(crate) fn to_rgb(source: &VideoFrame) -> Result<VideoFrame> {
    let mut shape = Shape::of(source, PixelFormat::YUV420P8, source.width(), source.height())?;
    shape.target_format =
        pixel::by_name("rgb24").ok_or_else(|| AvError::Unsupported { what: "RGB".to_owned() })?;
    shape.target_full = true;
    shape.color.matrix = Some(0);
    shape.color.full_range = Some(true);
    Converter::new(shape)?.run(source)
}
