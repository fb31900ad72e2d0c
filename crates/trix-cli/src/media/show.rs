//! Durations, sizes and colours in the words that people use.

use trix_model::media::{Audio, FieldOrder, MediaDescription, Stream, StreamKind, Video};
use trix_model::{ColorDescription, Failure, Rational};

/// `1:02:03.456`
pub fn clock(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let ms = us.unsigned_abs() / 1000;
    format!(
        "{sign}{}:{:02}:{:02}.{:03}",
        ms / 3_600_000,
        ms / 60_000 % 60,
        ms / 1000 % 60,
        ms % 1000
    )
}

/// `12.3 MB`, in powers of ten as file managers and disks count.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `23.976` for 24000/1001, `25` for 25/1.
pub fn rate(rate: Rational) -> String {
    let text = format!("{:.3}", rate.to_f64());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Colour in the names of H.273 where it has one, in numbers else.
pub fn color(c: &ColorDescription) -> String {
    let name = |v: Option<u8>, names: &[(u8, &str)]| match v {
        None => "-".to_owned(),
        Some(n) => names
            .iter()
            .find(|(code, _)| *code == n)
            .map_or_else(|| n.to_string(), |(_, name)| (*name).to_owned()),
    };
    if c.primaries.or(c.transfer).or(c.matrix).is_none() {
        return match c.full_range {
            Some(true) => "colour not stated, full range".into(),
            Some(false) | None => "colour not stated".into(),
        };
    }
    let primaries = name(
        c.primaries,
        &[
            (1, "bt709"),
            (5, "bt470bg"),
            (6, "smpte170m"),
            (9, "bt2020"),
            (11, "dci-p3"),
            (12, "p3-d65"),
        ],
    );
    let transfer = name(
        c.transfer,
        &[
            (1, "bt709"),
            (6, "smpte170m"),
            (13, "srgb"),
            (14, "bt2020-10"),
            (15, "bt2020-12"),
            (16, "pq"),
            (18, "hlg"),
        ],
    );
    let matrix = name(
        c.matrix,
        &[
            (0, "rgb"),
            (1, "bt709"),
            (5, "bt470bg"),
            (6, "smpte170m"),
            (9, "bt2020nc"),
            (10, "bt2020c"),
        ],
    );
    let range = match c.full_range {
        Some(true) => ", full range",
        Some(false) => ", limited range",
        None => "",
    };
    format!("{primaries}/{transfer}/{matrix}{range}")
}

/// One line for a stream.
pub fn stream(s: &Stream) -> (String, String) {
    match &s.kind {
        StreamKind::Video(v) => ("video".into(), video(s, v)),
        StreamKind::Audio(a) => ("audio".into(), audio(s, a)),
        StreamKind::Subtitle => ("subtitle".into(), s.codec.clone()),
        StreamKind::Data => ("data".into(), s.codec.clone()),
    }
}

fn video(s: &Stream, v: &Video) -> String {
    let mut parts =
        vec![with_profile(s), format!("{}x{}", v.width, v.height), v.pixel_format.clone()];
    if let Some(sar) = v.sample_aspect.filter(|r| *r != Rational::ONE) {
        parts.push(format!("SAR {}:{}", sar.num(), sar.den()));
    }
    match (v.frame_rate, v.average_rate) {
        (Some(r), Some(a)) if r != a => {
            parts.push(format!("{} fps ({} on average)", rate(r), rate(a)));
        }
        (Some(r), _) | (None, Some(r)) => parts.push(format!("{} fps", rate(r))),
        (None, None) => {}
    }
    parts.push(color(&v.color));
    match v.fields {
        FieldOrder::TopFirst => parts.push("interlaced, top field first".into()),
        FieldOrder::BottomFirst => parts.push("interlaced, bottom field first".into()),
        FieldOrder::Progressive | FieldOrder::Unknown => {}
    }
    if v.rotation != 0 {
        parts.push(format!("rotated by {}°", v.rotation));
    }
    if v.hdr.mastering_display.is_some() {
        parts.push("HDR10 mastering display".into());
    }
    if let Some(light) = v.hdr.content_light {
        parts.push(format!("MaxCLL {} MaxFALL {}", light.max_content, light.max_frame_average));
    }
    if let Some(dv) = &v.dolby_vision {
        parts.push(format!("Dolby Vision {dv}"));
    }
    if s.attached_picture {
        parts.push("attached picture".into());
    }
    parts.join(", ")
}

fn audio(s: &Stream, a: &Audio) -> String {
    let layout = a.layout.clone().unwrap_or_else(|| format!("{} channels", a.channels));
    let mut parts = vec![with_profile(s), format!("{} Hz", a.sample_rate), layout];
    if let Some(depth) = a.depth.filter(|d| *d > 0) {
        parts.push(format!("{depth} bit"));
    }
    if let Some(rate) = s.bit_rate {
        parts.push(format!("{} kbit/s", rate / 1000));
    }
    parts.join(", ")
}

fn with_profile(s: &Stream) -> String {
    match &s.profile {
        Some(p) => format!("{} ({p})", s.codec),
        None => s.codec.clone(),
    }
}

/// An error with its causes, and the code by which programs and `docs/refusals.md` know it.
pub fn error(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Failure>() {
        Some(failure) => format!("{error:#} [{}]", failure.code),
        None => format!("{error:#}"),
    }
}

/// A file's headline: container, duration, size.
pub fn headline(d: &MediaDescription) -> String {
    let duration = d.duration_us.map_or("duration not stated".into(), clock);
    format!("{}, {duration}, {}", d.container, size(d.size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(clock(3_723_456_000), "1:02:03.456");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(999_600), "1.0 MB");
        assert_eq!(rate(Rational::new(24000, 1001).unwrap()), "23.976");
        assert_eq!(rate(Rational::new(25, 1).unwrap()), "25");
    }
}
