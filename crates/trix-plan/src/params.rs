//! Encoder parameters by name: what each encoder knows, what is allowed, and
//! what is trix's own to set.
//!
//! A profile's `params` map and the command line's `--params key=value` are
//! checked here, before anything is planned, so that an unknown key or a value
//! out of range is refused with the key, the value and what is allowed. A test
//! in trix-encode feeds the limits of every key of these tables to the real
//! libraries, so that table and library agree.
//!
//! Sources: `x264.h` and `common/base.c` of x264 0.164, `x265.h` and
//! `common/param.cpp` of x265 3.5, rav1e 0.8.1's `EncoderConfig`, and
//! `libavcodec/ffv1enc.c`.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::encoder::{RateControl, VideoSettings, VideoVariant};
use crate::rules;

/// One parameter that a profile may set.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// The encoder's own name, in its canonical spelling.
    pub name: &'static str,
    /// Other spellings that the encoder takes for the same thing.
    pub aliases: &'static [&'static str],
    /// Which values are allowed.
    pub kind: Kind,
}

/// Which values a parameter takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `1`, `true`, `yes` or `0`, `false`, `no`; canonical are `1` and `0`.
    Bool,
    /// A whole number.
    Int {
        /// Smallest allowed.
        min: i64,
        /// Largest allowed.
        max: i64,
    },
    /// A decimal fraction as text, at most six digits behind the point.
    Decimal {
        /// Smallest allowed, in millionths.
        min: i64,
        /// Largest allowed, in millionths.
        max: i64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Between `min` and `max` values of one kind with commas (or colons) between them.
    List {
        /// Kind of each value.
        of: &'static Kind,
        /// Fewest values.
        min: usize,
        /// Most values.
        max: usize,
    },
    /// `false` to switch it off, else as the kind says.
    OffOr(&'static Kind),
}

/// A parameter that trix sets itself, or does not offer.
#[derive(Clone, Copy, Debug)]
pub struct Owned {
    /// Names that are refused.
    pub names: &'static [&'static str],
    /// Why, as the end of a sentence.
    pub reason: &'static str,
}

/// Why a setting was refused. Each carries the key, the value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParamError {
    /// The encoder knows no such parameter.
    #[error("{variant} has no parameter {key:?}{}", hint(nearest))]
    Unknown {
        /// The encoder.
        variant: VideoVariant,
        /// The key that was given.
        key: String,
        /// The value that was given.
        value: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// The parameter is not a profile's to set.
    #[error("{variant}: {key}={value} is refused: {reason}")]
    Owned {
        /// The encoder.
        variant: VideoVariant,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Why.
        reason: String,
    },
    /// The value is not allowed.
    #[error("{variant}: {key}={value:?} is not allowed: {key} takes {allowed}")]
    Value {
        /// The encoder.
        variant: VideoVariant,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is allowed, in words.
        allowed: String,
    },
    /// The same parameter was given under two names, or twice.
    #[error("{variant}: {key} is given more than once ({first:?} and {second:?})")]
    Twice {
        /// The encoder.
        variant: VideoVariant,
        /// The canonical key.
        key: String,
        /// One spelling.
        first: String,
        /// The other.
        second: String,
    },
    /// A piece of `--params` is empty or has no key.
    #[error("{piece:?} is not key=value")]
    Syntax {
        /// The piece.
        piece: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!("; did you mean {n:?}?")).unwrap_or_default()
}

/// Checks what a profile says about an encoder: preset, tune and parameters.
///
/// Errors: one per setting that is refused, in the order preset, tune, parameters by name.
pub fn check(
    variant: VideoVariant,
    preset: &str,
    tune: Option<&str>,
    params: &BTreeMap<String, String>,
) -> Result<(), Vec<ParamError>> {
    let mut errors = Vec::new();
    one_of(variant, "preset", preset, presets(variant), &mut errors);
    if let Some(tune) = tune {
        one_of(variant, "tune", tune, tunes(variant), &mut errors);
    }
    if let Err(more) = canonical(variant, params) {
        errors.extend(more);
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Checks all of an encoder's settings: [`check`], rate control, key frames, threads, and what
/// goes with what ([`rules`]).
pub fn check_settings(settings: &VideoSettings) -> Result<(), Vec<ParamError>> {
    let variant = settings.variant;
    let mut errors = check(variant, &settings.preset, settings.tune.as_deref(), &settings.params)
        .err()
        .unwrap_or_default();
    let mut refuse = |key: &str, value: String, allowed: String| {
        errors.push(ParamError::Value { variant, key: key.into(), value, allowed });
    };
    let threads = Kind::Int { min: 1, max: 128 };
    if threads.canonical(&settings.threads.to_string()).is_none() {
        refuse("threads", settings.threads.to_string(), threads.to_string());
    }
    let keyint = Kind::Int { min: 0, max: 100_000 };
    if keyint.canonical(&settings.keyint.to_string()).is_none() {
        refuse("keyint", settings.keyint.to_string(), keyint.to_string());
    }
    let rates = rate_limits(variant);
    match &settings.rate {
        RateControl::Crf { crf, vbv } => match rates.crf {
            None => refuse("rate", "crf".into(), rates.modes.into()),
            Some(kind) => {
                if kind.canonical(crf).is_none() {
                    refuse("crf", crf.clone(), kind.to_string());
                }
                check_vbv(vbv, &mut refuse);
            }
        },
        RateControl::Qp { qp } => match rates.qp {
            None => refuse("rate", "qp".into(), rates.modes.into()),
            Some(kind) => {
                if kind.canonical(&qp.to_string()).is_none() {
                    refuse("qp", qp.to_string(), kind.to_string());
                }
            }
        },
        RateControl::Bitrate { kbps, vbv } => match rates.kbps {
            None => refuse("rate", "bitrate".into(), rates.modes.into()),
            Some(kind) => {
                if kind.canonical(&kbps.to_string()).is_none() {
                    refuse("bitrate", kbps.to_string(), format!("{kind} kbit/s"));
                }
                if vbv.is_some() && !rates.vbv {
                    refuse("vbv", "set".into(), "nothing: the encoder has no VBV".into());
                }
                check_vbv(vbv, &mut refuse);
            }
        },
        RateControl::Lossless if !rates.lossless => {
            refuse("rate", "lossless".into(), rates.modes.into());
        }
        RateControl::Lossless => {}
    }
    errors.extend(rules::check_together(settings));
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn check_vbv(vbv: &Option<crate::encoder::Vbv>, refuse: &mut impl FnMut(&str, String, String)) {
    const KBIT: Kind = Kind::Int { min: 1, max: 2_000_000 };
    if let Some(vbv) = vbv {
        for (key, value) in [("vbv-maxrate", vbv.max_kbps), ("vbv-bufsize", vbv.buffer_kbit)] {
            if KBIT.canonical(&value.to_string()).is_none() {
                refuse(key, value.to_string(), KBIT.to_string());
            }
        }
    }
}

/// Parameters under their canonical names and in canonical spelling, so that two
/// ways to write the same thing give the same key.
///
/// `no-KEY` and `noKEY` of a switch become `KEY=0`; `_` in a name counts as `-`.
pub fn canonical(
    variant: VideoVariant,
    params: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Vec<ParamError>> {
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    let mut spelled: BTreeMap<&'static str, &str> = BTreeMap::new();
    let mut errors = Vec::new();
    for (key, value) in params {
        match one(variant, key, value) {
            Err(e) => errors.push(e),
            Ok((name, value)) => {
                if let Some(first) = spelled.insert(name, key) {
                    errors.push(ParamError::Twice {
                        variant,
                        key: name.into(),
                        first: first.into(),
                        second: key.clone(),
                    });
                }
                out.insert(name.into(), value);
            }
        }
    }
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

/// Reads `key=value:key=value` as the command line's `--params` has it.
///
/// A key without a value is a switch that is on. A value with several numbers
/// takes commas between them, because the colon parts the parameters.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, ParamError> {
    let mut out = BTreeMap::new();
    for piece in text.split(':').filter(|p| !p.trim().is_empty()) {
        let (key, value) = piece.split_once('=').unwrap_or((piece, "1"));
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || value.is_empty() {
            return Err(ParamError::Syntax { piece: piece.into() });
        }
        if out.insert(key.to_string(), value.to_string()).is_some() {
            return Err(ParamError::Syntax { piece: format!("{piece} (given twice)") });
        }
    }
    Ok(out)
}

fn one(
    variant: VideoVariant,
    key: &str,
    value: &str,
) -> Result<(&'static str, String), ParamError> {
    let wanted = key.trim_start_matches("--").replace('_', "-");
    let find =
        |name: &str| table(variant).iter().find(|p| p.name == name || p.aliases.contains(&name));
    let refused = |name: &str| owned(variant).iter().find(|o| o.names.contains(&name));
    let positive = wanted.strip_prefix("no-").or_else(|| wanted.strip_prefix("no"));
    if let Some(param) = find(&wanted) {
        return match param.kind.canonical(value) {
            Some(value) => Ok((param.name, value)),
            None => Err(ParamError::Value {
                variant,
                key: key.into(),
                value: value.into(),
                allowed: param.kind.to_string(),
            }),
        };
    }
    if let Some(param) = positive.and_then(find) {
        let off = match (param.kind, Kind::Bool.canonical(value)) {
            (Kind::Bool, Some(on)) => Some(if on == "1" { "0" } else { "1" }),
            (Kind::OffOr(_), Some(on)) if on == "1" => Some("false"),
            (Kind::Int { min, max }, Some(on)) if on == "1" && min <= 0 && max >= 0 => Some("0"),
            _ => None,
        };
        return match off {
            Some(off) => Ok((param.name, off.into())),
            None => Err(ParamError::Value {
                variant,
                key: key.into(),
                value: value.into(),
                allowed: format!("1; or set {} to {}", param.name, param.kind),
            }),
        };
    }
    if let Some(owned) = refused(&wanted).or_else(|| positive.and_then(refused)) {
        return Err(ParamError::Owned {
            variant,
            key: key.into(),
            value: value.into(),
            reason: owned.reason.into(),
        });
    }
    Err(ParamError::Unknown {
        variant,
        key: key.into(),
        value: value.into(),
        nearest: nearest(variant, &wanted),
    })
}

fn one_of(
    variant: VideoVariant,
    key: &str,
    value: &str,
    allowed: &[&str],
    errors: &mut Vec<ParamError>,
) {
    if !allowed.contains(&value) {
        errors.push(ParamError::Value {
            variant,
            key: key.into(),
            value: value.into(),
            allowed: words(allowed),
        });
    }
}

fn words(allowed: &[&str]) -> String {
    match allowed {
        [] => "nothing".into(),
        [""] => "nothing: leave it empty".into(),
        _ => allowed.join(", "),
    }
}

/// The known name that is nearest in edit distance, if it is near at all.
fn nearest(variant: VideoVariant, wanted: &str) -> Option<String> {
    table(variant)
        .iter()
        .flat_map(|p| p.aliases.iter().chain(std::iter::once(&p.name)))
        .map(|name| (distance(wanted, name), *name))
        .min()
        .filter(|(d, name)| *d <= 1 + name.len().min(wanted.len()) / 3)
        .map(|(_, name)| name.to_string())
}

/// Levenshtein's edit distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Kind {
    /// The value in canonical spelling, or `None` when it is not allowed.
    pub fn canonical(&self, value: &str) -> Option<String> {
        match self {
            Kind::Bool => match value.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" => Some("1".into()),
                "0" | "false" | "no" => Some("0".into()),
                _ => None,
            },
            Kind::Int { min, max } => {
                let n: i64 = value.strip_prefix('+').unwrap_or(value).parse().ok()?;
                (*min..=*max).contains(&n).then(|| n.to_string())
            }
            Kind::Decimal { min, max } => {
                let n = millionths(value)?;
                (*min..=*max).contains(&n).then(|| decimal_text(n))
            }
            Kind::Choice(all) => {
                all.iter().find(|c| c.eq_ignore_ascii_case(value)).map(|c| c.to_string())
            }
            Kind::List { of, min, max } => {
                let values: Option<Vec<_>> =
                    value.split([',', ':']).map(|v| of.canonical(v.trim())).collect();
                let values = values?;
                (*min..=*max).contains(&values.len()).then(|| values.join(","))
            }
            Kind::OffOr(kind) => match value.to_ascii_lowercase().as_str() {
                "false" | "no" | "off" => Some("false".into()),
                _ => kind.canonical(value),
            },
        }
    }

    /// Values at the ends of what is allowed, for tests against the real library.
    pub fn limits(&self) -> Vec<String> {
        match self {
            Kind::Bool => vec!["0".into(), "1".into()],
            Kind::Int { min, max } => vec![min.to_string(), max.to_string()],
            Kind::Decimal { min, max } => vec![decimal_text(*min), decimal_text(*max)],
            Kind::Choice(all) => all.iter().map(|c| c.to_string()).collect(),
            Kind::List { of, min, max } => {
                let ends = of.limits();
                [*min, *max]
                    .iter()
                    .flat_map(|n| ends.iter().map(|e| vec![e.as_str(); *n].join(",")))
                    .collect()
            }
            Kind::OffOr(kind) => {
                let mut all = kind.limits();
                all.push("false".into());
                all
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Bool => f.write_str("0 or 1"),
            Kind::Int { min, max } => write!(f, "a whole number from {min} to {max}"),
            Kind::Decimal { min, max } => {
                write!(f, "a decimal from {} to {}", decimal_text(*min), decimal_text(*max))
            }
            Kind::Choice(all) => f.write_str(&words(all)),
            Kind::List { of, min, max } if min == max => {
                write!(f, "{min} times ({of}) with commas")
            }
            Kind::List { of, min, max } => write!(f, "{min} to {max} times ({of}) with commas"),
            Kind::OffOr(kind) => write!(f, "false, or {kind}"),
        }
    }
}

/// A decimal as millionths: exact, so that no float decides what is allowed.
pub fn millionths(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !plain(whole) || !plain(part) {
        return None;
    }
    let part = part.trim_end_matches('0');
    if part.len() > 6 || whole.len() > 12 {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: i64 = format!("{part:0<6}").parse().ok()?;
    Some(sign * (whole * 1_000_000 + part))
}

/// Millionths as the shortest decimal text: `23.5`, `-1`, `0.15`.
pub fn decimal_text(millionths: i64) -> String {
    let sign = if millionths < 0 { "-" } else { "" };
    let (whole, part) =
        (millionths.unsigned_abs() / 1_000_000, millionths.unsigned_abs() % 1_000_000);
    if part == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{}", format!("{part:06}").trim_end_matches('0'))
    }
}

/// Presets of an encoder by its own names, fastest first; FFV1 has one without a name.
pub const fn presets(variant: VideoVariant) -> &'static [&'static str] {
    match variant {
        VideoVariant::X264_8 | VideoVariant::X264_10 => X26X_PRESETS,
        VideoVariant::X265_8 | VideoVariant::X265_10 | VideoVariant::X265_12 => X26X_PRESETS,
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => {
            &["10", "9", "8", "7", "6", "5", "4", "3", "2", "1", "0"]
        }
        VideoVariant::Ffv1 => &[""],
    }
}

/// Tunes of an encoder by its own names.
pub const fn tunes(variant: VideoVariant) -> &'static [&'static str] {
    match variant {
        VideoVariant::X264_8 | VideoVariant::X264_10 => &[
            "film",
            "animation",
            "grain",
            "stillimage",
            "psnr",
            "ssim",
            "fastdecode",
            "zerolatency",
        ],
        VideoVariant::X265_8 | VideoVariant::X265_10 | VideoVariant::X265_12 => {
            &["psnr", "ssim", "grain", "zerolatency", "fastdecode", "animation"]
        }
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => &["psnr", "psychovisual"],
        VideoVariant::Ffv1 => &[],
    }
}

/// Parameters that a profile may set, in the order in which they are applied.
pub const fn table(variant: VideoVariant) -> &'static [Param] {
    match variant {
        VideoVariant::X264_8 => X264_8,
        VideoVariant::X264_10 => X264_10,
        VideoVariant::X265_8 => X265_8,
        VideoVariant::X265_10 => X265_10,
        VideoVariant::X265_12 => X265_12,
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => RAV1E,
        VideoVariant::Ffv1 => FFV1,
    }
}

/// Parameters that are refused, with the reason.
pub const fn owned(variant: VideoVariant) -> &'static [Owned] {
    match variant {
        VideoVariant::X264_8 | VideoVariant::X264_10 => X264_OWNED,
        VideoVariant::X265_8 | VideoVariant::X265_10 | VideoVariant::X265_12 => X265_OWNED,
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => RAV1E_OWNED,
        VideoVariant::Ffv1 => FFV1_OWNED,
    }
}

struct RateLimits {
    crf: Option<Kind>,
    qp: Option<Kind>,
    kbps: Option<Kind>,
    vbv: bool,
    lossless: bool,
    modes: &'static str,
}

const fn rate_limits(variant: VideoVariant) -> RateLimits {
    const KBPS: Option<Kind> = Some(Kind::Int { min: 1, max: 2_000_000 });
    let modes = match variant {
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => "qp (rav1e's quantizer) or bitrate",
        VideoVariant::Ffv1 => "lossless",
        _ => "crf, qp, bitrate or lossless",
    };
    let base = RateLimits { crf: None, qp: None, kbps: KBPS, vbv: true, lossless: true, modes };
    match variant {
        VideoVariant::X264_8 | VideoVariant::X265_8 => {
            RateLimits { crf: Some(decimal(0, 51_000_000)), qp: Some(int(0, 51)), ..base }
        }
        // Ten bits reach 12 steps, twelve bits 24 steps below zero in CRF; x264
        // counts its quantiser from there, x265 from zero.
        VideoVariant::X264_10 => {
            RateLimits { crf: Some(decimal(-12_000_000, 51_000_000)), qp: Some(int(0, 63)), ..base }
        }
        VideoVariant::X265_10 => {
            RateLimits { crf: Some(decimal(-12_000_000, 51_000_000)), qp: Some(int(0, 51)), ..base }
        }
        VideoVariant::X265_12 => {
            RateLimits { crf: Some(decimal(-24_000_000, 51_000_000)), qp: Some(int(0, 51)), ..base }
        }
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => {
            RateLimits { qp: Some(int(0, 255)), vbv: false, lossless: false, ..base }
        }
        VideoVariant::Ffv1 => RateLimits { kbps: None, vbv: false, ..base },
    }
}

/// Frames behind a chunk's end that must be fed and dropped so that the chunk's
/// last frames are decided as in an uncut encode.
///
/// For x264 that is its decision window: at frame *k* it looks at *k* to *k* + n,
/// where n is `rc-lookahead` with the macroblock tree or VBV, else what the
/// B-frame decision needs, and one more when frame durations vary, because a
/// frame's duration is known from the next frame. x265 needs none (measured),
/// rav1e's temporal search ends at key frames, FFV1 has no lookahead.
pub fn run_over(settings: &VideoSettings, constant_rate: bool) -> u32 {
    match settings.variant {
        VideoVariant::X264_8 | VideoVariant::X264_10 => {
            x264_window(settings) + u32::from(!constant_rate)
        }
        _ => 0,
    }
}

/// The largest distance between IDR frames that x264 is told.
///
/// It is twice the segment, because x264 halves the *smallest* distance against
/// it and would otherwise turn scene cuts in a segment's second half into IDR
/// frames; the segment's own IDR frames are forced.
pub const fn x264_keyint_max(keyint: u32) -> u32 {
    match keyint {
        0 => 250,
        1 => 1,
        n => n.saturating_mul(2),
    }
}

fn x264_window(settings: &VideoSettings) -> u32 {
    // Parameters that would be refused do not reach an encoder, so they do not count.
    let params = canonical(settings.variant, &settings.params).unwrap_or_default();
    let get = |key: &str| params.get(key).and_then(|v| millionths(v));
    let int = |key: &str| get(key).map(|m| m / 1_000_000);
    let (mut bframes, mut adapt, mut lookahead) = match settings.preset.as_str() {
        "ultrafast" => (0, 0, 0),
        "superfast" => (3, 1, 0),
        "veryfast" => (3, 1, 10),
        "faster" => (3, 1, 20),
        "fast" => (3, 1, 30),
        "slow" => (3, 1, 50),
        "slower" => (3, 2, 60),
        "veryslow" => (8, 2, 60),
        "placebo" => (16, 2, 60),
        _ => (3, 1, 40),
    };
    let mut mbtree = !matches!(settings.preset.as_str(), "ultrafast" | "superfast");
    let mut qcomp_is_one = false;
    match settings.tune.as_deref() {
        Some("animation") => bframes += 2,
        Some("zerolatency") => {
            (bframes, lookahead, mbtree) = (0, 0, false);
        }
        _ => {}
    }
    bframes = int("bframes").unwrap_or(bframes);
    adapt = int("b-adapt").unwrap_or(adapt);
    lookahead = int("rc-lookahead").unwrap_or(lookahead);
    mbtree = int("mbtree").map_or(mbtree, |v| v != 0);
    if let Some(qcomp) = get("qcomp") {
        qcomp_is_one = qcomp == 1_000_000;
    }
    let mut vbv_set = false;
    let mut constant_quantiser = false;
    match &settings.rate {
        RateControl::Crf { vbv, .. } | RateControl::Bitrate { vbv, .. } => vbv_set = vbv.is_some(),
        RateControl::Qp { .. } | RateControl::Lossless => constant_quantiser = true,
    }
    if rules::x264_lossless(settings) {
        (constant_quantiser, bframes) = (true, 0);
    }
    if constant_quantiser {
        (mbtree, vbv_set) = (false, false);
    }
    if params.get("profile").is_some_and(|p| p == "baseline") {
        bframes = 0;
    }
    if int("bluray-compat") == Some(1) {
        bframes = bframes.min(3);
    }
    let keyint_max = i64::from(x264_keyint_max(settings.keyint));
    bframes = bframes.clamp(0, 16.min(keyint_max - 1));
    if bframes == 0 {
        adapt = 0;
    }
    lookahead = lookahead.clamp(0, 250);
    // With VBV the window may be longer than the key frame distance, by buffer
    // length and frame rate; not to shorten it then only costs a few frames.
    if !vbv_set {
        lookahead = lookahead.min(keyint_max);
    }
    if keyint_max == 1 || qcomp_is_one || lookahead == 0 {
        mbtree = false;
    }
    let mut window = if adapt == 2 { bframes.max(3) * 4 } else { bframes };
    if mbtree || vbv_set {
        window = window.max(lookahead);
    }
    window as u32
}

// The tables.

const X26X_PRESETS: &[&str] = &[
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
];

const fn int(min: i64, max: i64) -> Kind {
    Kind::Int { min, max }
}

const fn decimal(min: i64, max: i64) -> Kind {
    Kind::Decimal { min, max }
}

const fn p(name: &'static str, kind: Kind) -> Param {
    Param { name, aliases: &[], kind }
}

const fn pa(name: &'static str, aliases: &'static [&'static str], kind: Kind) -> Param {
    Param { name, aliases, kind }
}

const SWITCH: Kind = Kind::Bool;
const MATRIX: Kind = int(1, 255);
const DEBLOCK: Kind = Kind::OffOr(&Kind::List { of: &int(-6, 6), min: 1, max: 2 });
const VIDEO_FORMATS: Kind = Kind::Choice(&["component", "pal", "ntsc", "secam", "mac", "undef"]);
const X265_FORMATS: Kind = Kind::Choice(&["component", "pal", "ntsc", "secam", "mac", "unknown"]);

macro_rules! x264_table {
    (qp_max: $qp_max:expr, crf_min: $crf_min:expr, profiles: $profiles:expr) => {
        &[
            p("profile", Kind::Choice($profiles)),
            pa(
                "level",
                &["level-idc"],
                Kind::Choice(&[
                    "1", "1b", "1.1", "1.2", "1.3", "2", "2.1", "2.2", "3", "3.1", "3.2", "4",
                    "4.1", "4.2", "5", "5.1", "5.2", "6", "6.1", "6.2",
                ]),
            ),
            p("bluray-compat", SWITCH),
            p("overscan", Kind::Choice(&["undef", "show", "crop"])),
            p("videoformat", VIDEO_FORMATS),
            p(
                "alternative-transfer",
                Kind::Choice(&[
                    "bt709",
                    "undef",
                    "bt470m",
                    "bt470bg",
                    "smpte170m",
                    "smpte240m",
                    "linear",
                    "log100",
                    "log316",
                    "iec61966-2-4",
                    "bt1361e",
                    "iec61966-2-1",
                    "bt2020-10",
                    "bt2020-12",
                    "smpte2084",
                    "smpte428",
                    "arib-std-b67",
                ]),
            ),
            pa("ref", &["frameref"], int(1, 16)),
            p("dpb-size", int(1, 16)),
            pa("min-keyint", &["keyint-min"], int(1, 100_000)),
            p("scenecut", int(0, 100)),
            p("bframes", int(0, 16)),
            p("b-adapt", int(0, 2)),
            p("b-bias", int(-90, 100)),
            p("b-pyramid", Kind::Choice(&["none", "strict", "normal"])),
            p("nf", SWITCH),
            pa("deblock", &["filter"], DEBLOCK),
            p("slice-max-size", int(0, 1_000_000)),
            p("slice-max-mbs", int(0, 139_264)),
            p("slice-min-mbs", int(0, 139_264)),
            p("slices", int(0, 250)),
            p("slices-max", int(0, 250)),
            p("cabac", SWITCH),
            p("cabac-idc", int(0, 2)),
            p("interlaced", SWITCH),
            p("tff", SWITCH),
            p("bff", SWITCH),
            p("fake-interlaced", SWITCH),
            p("constrained-intra", SWITCH),
            p("cqm", Kind::Choice(&["flat", "jvt"])),
            p("cqm4", Kind::List { of: &MATRIX, min: 16, max: 16 }),
            p("cqm8", Kind::List { of: &MATRIX, min: 64, max: 64 }),
            p("cqm4i", Kind::List { of: &MATRIX, min: 16, max: 16 }),
            p("cqm4p", Kind::List { of: &MATRIX, min: 16, max: 16 }),
            p("cqm4iy", Kind::List { of: &MATRIX, min: 16, max: 16 }),
            p("cqm4ic", Kind::List { of: &MATRIX, min: 16, max: 16 }),
            p("cqm4py", Kind::List { of: &MATRIX, min: 16, max: 16 }),
            p("cqm4pc", Kind::List { of: &MATRIX, min: 16, max: 16 }),
            p("cqm8i", Kind::List { of: &MATRIX, min: 64, max: 64 }),
            p("cqm8p", Kind::List { of: &MATRIX, min: 64, max: 64 }),
            pa(
                "partitions",
                &["analyse"],
                Kind::List {
                    of: &Kind::Choice(&["none", "all", "i4x4", "i8x8", "p8x8", "p4x4", "b8x8"]),
                    min: 1,
                    max: 5,
                },
            ),
            p("8x8dct", SWITCH),
            pa("weightb", &["weight-b"], SWITCH),
            p("weightp", int(0, 2)),
            pa("direct", &["direct-pred"], Kind::Choice(&["none", "spatial", "temporal", "auto"])),
            p("chroma-qp-offset", int(-12, 12)),
            p("me", Kind::Choice(&["dia", "hex", "umh", "esa", "tesa"])),
            pa("merange", &["me-range"], int(4, 1024)),
            pa("mvrange", &["mv-range"], int(32, 8192)),
            pa("mvrange-thread", &["mv-range-thread"], int(-1, 8192)),
            pa("subme", &["subq"], int(0, 11)),
            p("psy-rd", Kind::List { of: &decimal(0, 10_000_000), min: 1, max: 2 }),
            p("psy", SWITCH),
            p("chroma-me", SWITCH),
            p("mixed-refs", SWITCH),
            p("trellis", int(0, 2)),
            p("fast-pskip", SWITCH),
            p("dct-decimate", SWITCH),
            p("deadzone-inter", int(0, 32)),
            p("deadzone-intra", int(0, 32)),
            p("nr", int(0, 65_536)),
            p("crf-max", decimal($crf_min, 51_000_000)),
            p("rc-lookahead", int(0, 250)),
            pa("qpmin", &["qp-min"], int(0, $qp_max)),
            pa("qpmax", &["qp-max"], int(0, $qp_max)),
            pa("qpstep", &["qp-step"], int(2, $qp_max)),
            p("ratetol", decimal(10_000, 1_000_000_000)),
            p("vbv-init", decimal(0, 2_000_000_000_000)),
            pa("ipratio", &["ip-factor"], decimal(10_000, 10_000_000)),
            pa("pbratio", &["pb-factor"], decimal(10_000, 10_000_000)),
            p("aq-mode", int(0, 3)),
            p("aq-strength", decimal(0, 3_000_000)),
            p("qcomp", decimal(0, 1_000_000)),
            p("mbtree", SWITCH),
            p("qblur", decimal(0, 99_000_000)),
            pa("cplxblur", &["cplx-blur"], decimal(0, 999_000_000)),
            p("aud", SWITCH),
            p("sps-id", int(0, 31)),
            p("nal-hrd", Kind::Choice(&["none", "vbr", "cbr"])),
            p("filler", SWITCH),
            p("pic-struct", SWITCH),
            p("frame-packing", int(-1, 7)),
        ]
    };
}

const X264_8: &[Param] = x264_table!(
    qp_max: 69,
    crf_min: 0,
    profiles: &["baseline", "main", "high", "high422", "high444"]
);
const X264_10: &[Param] = x264_table!(
    qp_max: 81,
    crf_min: -12_000_000,
    profiles: &["high10", "high422", "high444"]
);

const RATE: &str = "the rate control has its own keys in the profile (crf, qp, bitrate, vbv)";
const GRID: &str =
    "every segment starts with an IDR frame and is closed; the segment length is the profile's";
const THREADS: &str = "threads are the plan's, because their number is part of the key";
const CPU: &str = "the CPU feature level is forced, because the bytes depend on it";
const SOURCE: &str = "it comes from the source and is never guessed";
const FORMAT: &str = "size, format and time come from the frames";
const HEADERS: &str = "the container decides where the parameter sets stand";
const PASSES: &str = "passes and shared analysis are the plan's";
const FILES: &str = "it names a file, and encoders open none";
const NO_STREAM: &str = "it does not change the stream";
const FRAMES: &str = "it counts frames, and a chunk's frames do not start at the film's";
const FIELDS: &str = "frames are fed whole";

const X264_OWNED: &[Owned] = &[
    Owned {
        names: &["crf", "qp", "qp-constant", "bitrate", "vbv-maxrate", "vbv-bufsize"],
        reason: RATE,
    },
    Owned { names: &["keyint", "open-gop", "intra-refresh", "stitchable"], reason: GRID },
    Owned {
        names: &[
            "threads",
            "lookahead-threads",
            "sliced-threads",
            "sync-lookahead",
            "deterministic",
            "n-deterministic",
        ],
        reason: THREADS,
    },
    Owned {
        names: &["asm", "cpu-independent", "opencl", "opencl-clbin", "opencl-device"],
        reason: CPU,
    },
    Owned {
        names: &[
            "sar",
            "fullrange",
            "range",
            "colorprim",
            "transfer",
            "colormatrix",
            "chromaloc",
            "mastering-display",
            "cll",
        ],
        reason: SOURCE,
    },
    Owned {
        names: &[
            "fps",
            "force-cfr",
            "input-res",
            "input-csp",
            "input-depth",
            "output-depth",
            "timebase",
            "crop-rect",
            "frames",
            "seek",
            "demuxer",
            "muxer",
        ],
        reason: FORMAT,
    },
    Owned { names: &["annexb", "repeat-headers", "global-header"], reason: HEADERS },
    Owned { names: &["pass", "stats"], reason: PASSES },
    Owned {
        names: &["cqmfile", "dump-yuv", "qpfile", "tcfile-in", "tcfile-out", "output"],
        reason: FILES,
    },
    Owned {
        names: &["psnr", "ssim", "log", "log-level", "log-file", "quiet", "verbose", "progress"],
        reason: NO_STREAM,
    },
    Owned { names: &["zones"], reason: FRAMES },
    Owned {
        names: &["avcintra-class", "avcintra-flavor"],
        reason: "AVC-Intra has parameter sets in every frame and cannot be joined",
    },
    Owned { names: &["preset", "tune"], reason: "it has its own key in the profile" },
];

/// How far x265 searches for motion. It takes 32767 itself, and then counts half as far again in
/// 16 bits (me=umh): the search leaves the picture, and the process dies.
const X265_REACH: Kind = int(0, 16_384);

macro_rules! x265_table {
    (peak: $peak:expr, crf_min: $crf_min:expr, profiles: $profiles:expr) => {
        &[
            p("profile", Kind::Choice($profiles)),
            pa(
                "level-idc",
                &["level"],
                Kind::Choice(&[
                    "1", "2", "2.1", "3", "3.1", "4", "4.1", "5", "5.1", "5.2", "6", "6.1", "6.2",
                    "8.5",
                ]),
            ),
            p("high-tier", SWITCH),
            p("allow-non-conformance", SWITCH),
            p("ctu", Kind::Choice(&["16", "32", "64"])),
            p("min-cu-size", Kind::Choice(&["8", "16", "32"])),
            p("tu-intra-depth", int(1, 4)),
            p("tu-inter-depth", int(1, 4)),
            p("max-tu-size", Kind::Choice(&["4", "8", "16", "32"])),
            p("limit-tu", int(0, 4)),
            p("me", Kind::Choice(&["dia", "hex", "umh", "star", "sea", "full"])),
            p("subme", int(0, 7)),
            p("merange", X265_REACH),
            p("hme", SWITCH),
            p(
                "hme-search",
                Kind::List {
                    of: &Kind::Choice(&["dia", "hex", "umh", "star", "sea", "full"]),
                    min: 3,
                    max: 3,
                },
            ),
            p("hme-range", Kind::List { of: &X265_REACH, min: 3, max: 3 }),
            p("rect", SWITCH),
            p("amp", SWITCH),
            p("max-merge", int(1, 5)),
            p("temporal-mvp", SWITCH),
            p("early-skip", SWITCH),
            p("rskip", int(0, 2)),
            p("rskip-edge-threshold", int(0, 100)),
            p("splitrd-skip", SWITCH),
            p("rdpenalty", int(0, 2)),
            p("tskip", SWITCH),
            p("tskip-fast", SWITCH),
            p("strong-intra-smoothing", SWITCH),
            p("cu-lossless", SWITCH),
            pa("constrained-intra", &["cip"], SWITCH),
            p("fast-intra", SWITCH),
            p("b-intra", SWITCH),
            p("lookahead-slices", int(0, 16)),
            p("scenecut", int(0, 100)),
            p("scenecut-bias", decimal(0, 100_000_000)),
            p("fades", SWITCH),
            p("scenecut-aware-qp", int(0, 3)),
            p("temporal-layers", SWITCH),
            p("min-keyint", int(1, 100_000)),
            p("rc-lookahead", int(0, 250)),
            p("gop-lookahead", int(0, 250)),
            p("bframes", int(0, 16)),
            p("bframe-bias", int(-90, 100)),
            p("b-adapt", int(0, 2)),
            p("b-pyramid", SWITCH),
            // HEVC allows 8 with those that B frames need; with B frames it is 6 or 7.
            p("ref", int(1, 8)),
            p("limit-refs", int(0, 3)),
            p("limit-modes", SWITCH),
            p("weightp", SWITCH),
            p("weightb", SWITCH),
            p("analyze-src-pics", SWITCH),
            p("cbqpoffs", int(-12, 12)),
            p("crqpoffs", int(-12, 12)),
            p("rd", int(1, 6)),
            pa("rdoq-level", &["rdoq"], int(0, 2)),
            p("dynamic-rd", decimal(0, 4_000_000)),
            p("psy-rd", decimal(0, 5_000_000)),
            p("psy-rdoq", decimal(0, 50_000_000)),
            p("ssim-rd", SWITCH),
            p("rd-refine", SWITCH),
            p("signhide", SWITCH),
            p("deblock", DEBLOCK),
            p("sao", SWITCH),
            p("sao-non-deblock", SWITCH),
            p("limit-sao", SWITCH),
            p("selective-sao", int(0, 4)),
            p("scaling-list", Kind::Choice(&["off", "default"])),
            p("nr-intra", int(0, 2000)),
            p("nr-inter", int(0, 2000)),
            pa("ipratio", &["ip-factor"], decimal(10_000, 10_000_000)),
            pa("pbratio", &["pb-factor"], decimal(10_000, 10_000_000)),
            p("qcomp", decimal(500_000, 1_000_000)),
            p("qpstep", int(1, 69)),
            p("qpmin", int(0, 69)),
            p("qpmax", int(0, 69)),
            p("cplxblur", decimal(0, 999_000_000)),
            p("qblur", decimal(0, 99_000_000)),
            p("aq-mode", int(0, 4)),
            p("aq-strength", decimal(0, 3_000_000)),
            p("aq-motion", SWITCH),
            p("hevc-aq", SWITCH),
            p("qp-adaptation-range", decimal(1_000_000, 6_000_000)),
            p("qg-size", Kind::Choice(&["8", "16", "32", "64"])),
            p("cutree", SWITCH),
            p("rc-grain", SWITCH),
            p("const-vbv", SWITCH),
            p("strict-cbr", SWITCH),
            p("vbv-init", decimal(0, 2_000_000_000_000)),
            p("vbv-end", decimal(0, 2_000_000_000_000)),
            p("min-vbv-fullness", decimal(0, 100_000_000)),
            p("max-vbv-fullness", decimal(0, 100_000_000)),
            p("crf-max", decimal($crf_min, 51_000_000)),
            p("crf-min", decimal($crf_min, 51_000_000)),
            p("max-ausize-factor", decimal(500_000, 1_000_000)),
            p("slices", int(1, 16)),
            p("opt-qp-pps", SWITCH),
            p("opt-ref-list-length-pps", SWITCH),
            p("opt-cu-delta-qp", SWITCH),
            p("log2-max-poc-lsb", int(4, 16)),
            p("vui-timing-info", SWITCH),
            p("vui-hrd-info", SWITCH),
            p("hrd", SWITCH),
            p("hash", int(0, 3)),
            p("aud", SWITCH),
            p("single-sei", SWITCH),
            p("idr-recovery-sei", SWITCH),
            p("atc-sei", int(-1, 18)),
            p("pic-struct", int(-1, 12)),
            p("overscan", Kind::Choice(&["unknown", "show", "crop"])),
            p("videoformat", X265_FORMATS),
            p("hdr10-opt", SWITCH),
            p("min-luma", int(0, $peak)),
            p("max-luma", int(0, $peak)),
        ]
    };
}

const X265_8: &[Param] = x265_table!(peak: 255, crf_min: 0, profiles: &["main", "main444-8"]);
const X265_10: &[Param] = x265_table!(
    peak: 1023,
    crf_min: -12_000_000,
    profiles: &["main10", "main422-10", "main444-10"]
);
const X265_12: &[Param] = x265_table!(
    peak: 4095,
    crf_min: -24_000_000,
    profiles: &["main12", "main422-12", "main444-12"]
);

const X265_OWNED: &[Owned] = &[
    Owned {
        names: &["crf", "qp", "bitrate", "vbv-maxrate", "vbv-bufsize", "lossless"],
        reason: RATE,
    },
    Owned {
        names: &[
            "keyint",
            "open-gop",
            "intra-refresh",
            "radl",
            "chunk-start",
            "chunk-end",
            "hrd-concat",
        ],
        reason: GRID,
    },
    Owned {
        names: &[
            "frame-threads",
            "pools",
            "numa-pools",
            "wpp",
            "pmode",
            "pme",
            "lookahead-threads",
            "copy-pic",
            "force-flush",
        ],
        reason: THREADS,
    },
    Owned { names: &["asm", "svt"], reason: CPU },
    Owned {
        names: &[
            "sar",
            "range",
            "colorprim",
            "transfer",
            "colormatrix",
            "chromaloc",
            "master-display",
            "max-cll",
            "cll",
            "hdr",
            "hdr10",
            "hdr-opt",
        ],
        reason: SOURCE,
    },
    Owned {
        names: &[
            "fps",
            "input",
            "input-res",
            "input-csp",
            "input-depth",
            "output-depth",
            "display-window",
            "crop-rect",
            "frames",
            "seek",
            "total-frames",
            "dither",
            "frame-dup",
            "dup-threshold",
            "vbv-end-fr-adj",
        ],
        reason: FORMAT,
    },
    Owned { names: &["annexb", "repeat-headers", "info"], reason: HEADERS },
    Owned {
        names: &[
            "pass",
            "stats",
            "slow-firstpass",
            "multi-pass-opt-rps",
            "multi-pass-opt-analysis",
            "multi-pass-opt-distortion",
            "vbv-live-multi-pass",
            "analysis-save",
            "analysis-load",
            "analysis-reuse-mode",
            "analysis-reuse-file",
            "analysis-reuse-level",
            "analysis-save-reuse-level",
            "analysis-load-reuse-level",
            "scale-factor",
            "refine-intra",
            "refine-inter",
            "refine-mv",
            "refine-ctu-distortion",
            "refine-analysis-type",
            "dynamic-refine",
            "ctu-info",
        ],
        reason: PASSES,
    },
    Owned {
        names: &[
            "lambda-file",
            "nalu-file",
            "dhdr10-info",
            "dhdr10-opt",
            "qpfile",
            "scaling-list-file",
            "zonefile",
            "recon",
            "output",
        ],
        reason: FILES,
    },
    Owned {
        names: &[
            "psnr",
            "ssim",
            "csv",
            "csv-log-level",
            "log",
            "log-level",
            "cu-stats",
            "progress",
        ],
        reason: NO_STREAM,
    },
    Owned { names: &["zones"], reason: FRAMES },
    Owned { names: &["interlace", "field"], reason: FIELDS },
    Owned {
        names: &["masking-strength"],
        reason: "x265 reads it by the scene cut mode set before it; scenecut-aware-qp has defaults",
    },
    Owned { names: &["uhd-bd"], reason: GRID },
    Owned {
        names: &["hist-scenecut", "hist-threshold"],
        reason: "x265 counts the padding between lines with the picture, and crashes on its values",
    },
    Owned {
        names: &["lowpass-dct"],
        reason: "x265 switches it once for the whole process, by the first encoder opened",
    },
    Owned {
        names: &["dolby-vision-profile"],
        reason: "it needs a Dolby Vision RPU, which no source brings yet",
    },
    Owned { names: &["preset", "tune"], reason: "it has its own key in the profile" },
];

const RAV1E: &[Param] = &[
    p("tiles", int(0, 4096)),
    p("tile-cols", Kind::Choice(&["0", "1", "2", "4", "8", "16", "32", "64"])),
    p("tile-rows", Kind::Choice(&["0", "1", "2", "4", "8", "16", "32", "64"])),
    p("low-latency", SWITCH),
    p("error-resilient", SWITCH),
    p("min-quantizer", int(0, 255)),
    p("reservoir-frame-delay", int(12, 131_072)),
    p("rdo-lookahead-frames", int(1, 250)),
    p("multiref", SWITCH),
    p("fast-deblock", SWITCH),
    p("cdef", SWITCH),
    p("lrf", SWITCH),
];

const RAV1E_OWNED: &[Owned] = &[
    Owned { names: &["quantizer", "bitrate"], reason: RATE },
    Owned {
        names: &["keyint", "min-keyint", "switch-frame-interval", "scd-speed", "scene-detection"],
        reason: GRID,
    },
    Owned { names: &["threads", "slots"], reason: THREADS },
    Owned {
        names: &["primaries", "transfer", "matrix", "range", "mastering-display", "content-light"],
        reason: SOURCE,
    },
    Owned { names: &["limit", "skip", "still-picture", "width", "height"], reason: FORMAT },
    Owned { names: &["first-pass", "second-pass", "two-pass"], reason: PASSES },
    Owned { names: &["output", "photon-noise-table"], reason: FILES },
    Owned { names: &["psnr", "quiet", "verbose", "metrics"], reason: NO_STREAM },
    Owned { names: &["speed", "tune"], reason: "it has its own key in the profile" },
];

const FFV1: &[Param] = &[
    p("coder", Kind::Choice(&["rice", "range_def", "range_tab"])),
    p("context", int(0, 1)),
    p("slices", Kind::Choice(&["4", "6", "9", "12", "16", "20", "24", "25", "28", "30"])),
];

const FFV1_OWNED: &[Owned] = &[
    Owned {
        names: &["slicecrc", "level"],
        reason: "an archive copy is FFV1 version 3 with a CRC a slice",
    },
    Owned { names: &["g", "gop", "keyint"], reason: "every frame of an archive copy stands alone" },
    Owned { names: &["threads", "thread-type"], reason: THREADS },
    Owned { names: &["pass", "passlogfile"], reason: PASSES },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn settings(variant: VideoVariant, preset: &str) -> VideoSettings {
        VideoSettings {
            variant,
            preset: preset.into(),
            tune: None,
            rate: RateControl::Crf { crf: "23".into(), vbv: None },
            keyint: 48,
            threads: 1,
            params: BTreeMap::new(),
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let e = check(VideoVariant::X264_8, "medium", None, &map(&[("bframe", "3")])).unwrap_err();
        assert_eq!(
            e[0].to_string(),
            r#"x264-8 has no parameter "bframe"; did you mean "bframes"?"#
        );
        let e = check(VideoVariant::X265_10, "medium", None, &map(&[("wibble", "1")])).unwrap_err();
        assert_eq!(e[0].to_string(), r#"x265-10 has no parameter "wibble""#);
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_what_is_allowed() {
        let e = check(VideoVariant::X264_8, "medium", None, &map(&[("subme", "12")])).unwrap_err();
        assert_eq!(
            e[0].to_string(),
            r#"x264-8: subme="12" is not allowed: subme takes a whole number from 0 to 11"#
        );
        let e =
            check(VideoVariant::X265_8, "medium", None, &map(&[("qcomp", "0.4999")])).unwrap_err();
        assert!(e[0].to_string().ends_with("qcomp takes a decimal from 0.5 to 1"), "{}", e[0]);
    }

    #[test]
    fn every_fault_is_named_at_once_and_presets_and_tunes_are_checked() {
        let params = map(&[("keyint", "12"), ("ref", "0"), ("x", "1")]);
        let e = check(VideoVariant::X264_8, "quick", Some("films"), &params).unwrap_err();
        assert_eq!(e.len(), 5, "{e:?}");
        assert!(matches!(&e[2], ParamError::Owned { key, .. } if key == "keyint"));
        assert!(check(VideoVariant::Ffv1, "", None, &map(&[("slices", "24")])).is_ok());
        assert!(check(VideoVariant::Ffv1, "medium", None, &BTreeMap::new()).is_err());
    }

    #[test]
    fn ways_to_write_the_same_thing_have_one_canonical_form() {
        let params = map(&[
            ("subq", "+7"),
            ("no-mbtree", "1"),
            ("psy_rd", "1.00:0.150"),
            ("deblock", "-1:-1"),
        ]);
        assert_eq!(
            canonical(VideoVariant::X264_8, &params).unwrap(),
            map(&[("subme", "7"), ("mbtree", "0"), ("psy-rd", "1,0.15"), ("deblock", "-1,-1")])
        );
        let off = canonical(VideoVariant::X264_8, &map(&[("no-deblock", "1")])).unwrap();
        assert_eq!(off, map(&[("deblock", "false")]));
        let twice = canonical(VideoVariant::X264_8, &map(&[("subme", "7"), ("subq", "7")]));
        assert!(matches!(twice.unwrap_err()[0], ParamError::Twice { .. }));
    }

    #[test]
    fn the_command_lines_form_is_read_with_switches_and_commas() {
        assert_eq!(
            parse("subme=7:no-mbtree:deblock=-1,-1").unwrap(),
            map(&[("subme", "7"), ("no-mbtree", "1"), ("deblock", "-1,-1")])
        );
        assert!(parse("").unwrap().is_empty());
        assert!(parse("subme=").is_err());
        assert!(parse("=7").is_err());
        assert!(parse("ref=1:ref=2").is_err());
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(millionths("23.5"), Some(23_500_000));
        assert_eq!(millionths("-.5"), Some(-500_000));
        assert_eq!(millionths("1.0000000"), Some(1_000_000));
        for bad in ["", ".", "-", "1e3", "0x10", "1.0000001", "nan", "1.2.3", " 1"] {
            assert_eq!(millionths(bad), None, "{bad:?}");
        }
        assert_eq!(decimal_text(-150_000), "-0.15");
        assert_eq!(decimal_text(51_000_000), "51");
    }

    #[test]
    fn rate_control_is_checked_by_encoder() {
        let mut s = settings(VideoVariant::X264_8, "medium");
        assert!(check_settings(&s).is_ok());
        s.rate = RateControl::Crf { crf: "-1".into(), vbv: None };
        assert!(check_settings(&s).is_err());
        s.variant = VideoVariant::X264_10;
        assert!(check_settings(&s).is_ok());
        let mut av1 = settings(VideoVariant::Rav1e8, "6");
        assert!(check_settings(&av1).unwrap_err()[0].to_string().contains("quantizer"));
        av1.rate = RateControl::Qp { qp: 120 };
        assert!(check_settings(&av1).is_ok());
        av1.threads = 0;
        assert!(check_settings(&av1).is_err());
    }

    #[test]
    fn no_name_is_both_offered_and_refused_and_none_stands_twice() {
        for &variant in VideoVariant::ALL {
            let mut seen = std::collections::BTreeSet::new();
            let offered = table(variant)
                .iter()
                .flat_map(|p| p.aliases.iter().chain(std::iter::once(&p.name)));
            let refused = owned(variant).iter().flat_map(|o| o.names);
            for name in offered.chain(refused) {
                assert!(seen.insert(*name), "{variant}: {name} stands twice");
            }
        }
    }

    #[test]
    fn the_limits_of_every_parameter_are_canonical_themselves() {
        for &variant in VideoVariant::ALL {
            for param in table(variant) {
                for value in param.kind.limits() {
                    let got = param.kind.canonical(&value);
                    assert_eq!(got.as_deref(), Some(value.as_str()), "{variant} {}", param.name);
                }
            }
        }
    }

    #[test]
    fn run_over_follows_the_lookahead() {
        assert_eq!(run_over(&settings(VideoVariant::X264_8, "medium"), true), 40);
        assert_eq!(run_over(&settings(VideoVariant::X264_8, "veryfast"), true), 10);
        assert_eq!(run_over(&settings(VideoVariant::X264_8, "veryfast"), false), 11);
        assert_eq!(run_over(&settings(VideoVariant::X264_10, "superfast"), true), 3);
        assert_eq!(run_over(&settings(VideoVariant::X265_8, "slow"), true), 0);
        let mut s = settings(VideoVariant::X264_8, "slower");
        s.rate = RateControl::Qp { qp: 20 };
        assert_eq!(run_over(&s, true), 12);
    }
}
