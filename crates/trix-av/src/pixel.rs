//! Names of pixel and sample formats: trix's, and libav's as plain integers.

use trix_model::pixel::{Chroma, PixelFormat};

use crate::ffi;

/// libav's number for "no format".
pub(crate) const NO_FORMAT: i32 = -1;

/// What libav's descriptor says of a pixel format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PixelInfo {
    pub components: u8,
    pub log2_chroma_w: u8,
    pub log2_chroma_h: u8,
    pub depth: u8,
    pub rgb: bool,
    pub hardware: bool,
    pub planes: usize,
}

/// Properties of a pixel format, `None` for numbers that libav does not know.
pub(crate) fn info(format: i32) -> Option<PixelInfo> {
    // SAFETY: takes any number and returns null or a static structure.
    let d = unsafe { ffi::av_pix_fmt_desc_get(format) };
    if d.is_null() {
        return None;
    }
    // SAFETY: not null, so it points to a static structure without enums.
    let d = unsafe { &*d };
    let components = &d.comp[..usize::from(d.nb_components).min(4)];
    Some(PixelInfo {
        components: d.nb_components,
        log2_chroma_w: d.log2_chroma_w,
        log2_chroma_h: d.log2_chroma_h,
        depth: components.iter().map(|c| c.depth).max().unwrap_or(0).clamp(0, 64) as u8,
        rgb: d.flags & u64::from(ffmpeg_sys_next::AV_PIX_FMT_FLAG_RGB as u32) != 0,
        hardware: d.flags & u64::from(ffmpeg_sys_next::AV_PIX_FMT_FLAG_HWACCEL as u32) != 0,
        planes: components.iter().map(|c| c.plane.max(0) as usize + 1).max().unwrap_or(0),
    })
}

/// libav's name of a pixel format, e.g. `yuv422p10le`.
pub(crate) fn name(format: i32) -> Option<String> {
    // SAFETY: takes any number and returns null or a static string.
    unsafe { ffi::text(ffi::av_get_pix_fmt_name(format)) }
}

/// The format of this libav name, as a plain integer.
pub(crate) fn by_name(name: &str) -> Option<i32> {
    let name = ffi::c_string(name);
    // SAFETY: a terminated string that lives for the call.
    let format = unsafe { ffi::av_get_pix_fmt(name.as_ptr()) };
    (format != NO_FORMAT).then_some(format)
}

/// libav's name of one of trix's formats.
pub fn pixel_format_name(format: PixelFormat) -> &'static str {
    match (format.chroma, format.depth) {
        (Chroma::Mono, 8) => "gray",
        (Chroma::Mono, 10) => "gray10le",
        (Chroma::Mono, 12) => "gray12le",
        (Chroma::C420, 8) => "yuv420p",
        (Chroma::C420, 10) => "yuv420p10le",
        (Chroma::C420, 12) => "yuv420p12le",
        (Chroma::C422, 8) => "yuv422p",
        (Chroma::C422, 10) => "yuv422p10le",
        (Chroma::C422, 12) => "yuv422p12le",
        (Chroma::C444, 8) => "yuv444p",
        (Chroma::C444, 10) => "yuv444p10le",
        (Chroma::C444, 12) => "yuv444p12le",
        _ => "",
    }
}

/// trix's form of a pixel format that libav names; `None` for all but planar
/// YUV (or luma alone) with 8, 10 or 12 little-endian bits.
///
/// `yuvj420p` and its siblings are the same planes as `yuv420p` with full
/// range, which the colour description says.
pub fn pixel_format_by_name(name: &str) -> Option<PixelFormat> {
    let name = match name {
        "yuvj420p" => "yuv420p",
        "yuvj422p" => "yuv422p",
        "yuvj444p" => "yuv444p",
        other => other,
    };
    [Chroma::Mono, Chroma::C420, Chroma::C422, Chroma::C444]
        .into_iter()
        .flat_map(|chroma| [8, 10, 12].map(|depth| PixelFormat { chroma, depth }))
        .find(|format| pixel_format_name(*format) == name)
}

/// The planar YUV format that keeps all that a source of libav's format `name`
/// has: chroma is never thinned, bits are never dropped below 12, RGB becomes
/// 4:4:4. `None` for formats without samples (hardware surfaces, unknown names).
pub fn nearest_pixel_format(name: &str) -> Option<PixelFormat> {
    if let Some(format) = pixel_format_by_name(name) {
        return Some(format);
    }
    let d = info(by_name(name)?)?;
    if d.hardware || d.depth == 0 {
        return None;
    }
    let palette = name == "pal8";
    let chroma = if d.rgb || palette {
        Chroma::C444
    } else if d.components <= 2 {
        Chroma::Mono
    } else {
        match (d.log2_chroma_w, d.log2_chroma_h) {
            (0, 0) => Chroma::C444,
            (1, 0) | (2, 0) => Chroma::C422,
            (0, _) => Chroma::C444,
            _ => Chroma::C420,
        }
    };
    let depth = match d.depth {
        0..=8 => 8,
        9..=10 => 10,
        _ => 12,
    };
    Some(PixelFormat { chroma, depth })
}

/// True when libav's pixel format of this name holds RGB (or a palette of RGB).
pub fn is_rgb(name: &str) -> bool {
    name == "pal8" || by_name(name).and_then(info).is_some_and(|d| d.rgb)
}

pub(crate) fn raw(format: PixelFormat) -> Option<i32> {
    by_name(pixel_format_name(format))
}

pub(crate) fn from_raw(format: i32) -> Option<PixelFormat> {
    pixel_format_by_name(&name(format)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_of_ours_has_a_name_that_libav_knows_and_comes_back() {
        for chroma in [Chroma::Mono, Chroma::C420, Chroma::C422, Chroma::C444] {
            for depth in [8, 10, 12] {
                let format = PixelFormat { chroma, depth };
                let number = raw(format).unwrap();
                assert_eq!(from_raw(number), Some(format));
                assert_eq!(info(number).unwrap().planes, format.planes());
            }
        }
    }

    #[test]
    fn the_nearest_format_loses_neither_chroma_nor_depth() {
        let near = |name| nearest_pixel_format(name).unwrap();
        assert_eq!(near("yuvj422p"), PixelFormat { chroma: Chroma::C422, depth: 8 });
        assert_eq!(near("uyvy422"), PixelFormat { chroma: Chroma::C422, depth: 8 });
        assert_eq!(near("nv12"), PixelFormat::YUV420P8);
        assert_eq!(near("p010le"), PixelFormat::YUV420P10);
        assert_eq!(near("gbrp10le"), PixelFormat { chroma: Chroma::C444, depth: 10 });
        assert_eq!(near("yuva444p12le"), PixelFormat { chroma: Chroma::C444, depth: 12 });
        assert_eq!(near("yuv422p16le"), PixelFormat { chroma: Chroma::C422, depth: 12 });
        assert_eq!(near("yuv411p"), PixelFormat { chroma: Chroma::C422, depth: 8 });
        assert_eq!(near("yuv440p"), PixelFormat { chroma: Chroma::C444, depth: 8 });
        assert_eq!(near("pal8"), PixelFormat { chroma: Chroma::C444, depth: 8 });
        assert_eq!(near("gray16be"), PixelFormat { chroma: Chroma::Mono, depth: 12 });
        assert!(nearest_pixel_format("vaapi").is_none());
        assert!(nearest_pixel_format("nonsense").is_none());
    }
}
