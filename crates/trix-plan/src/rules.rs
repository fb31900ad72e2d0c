//! What the encoders refuse of settings that are each allowed by themselves.
//!
//! [`params`] knows the range of every parameter. Here stand the rules between parameters, and
//! between them and the picture. The libraries tell of most of them only when they are opened,
//! x265 on its error output alone, and of some by a crash; here they are known before anything
//! runs. What needs no picture is refused when a profile is read, the rest when the source is
//! planned.
//!
//! Sources: `encoder.c`, `common/base.c` and `common/set.c` of x264 0.164, `common/param.cpp`,
//! `encoder/encoder.cpp` and `encoder/level.cpp` of x265 3.5, and `libavcodec/ffv1enc.c`. A test
//! in trix-encode puts settings on both sides of the rules to the real libraries.

use std::collections::{BTreeMap, BTreeSet};

use trix_model::Rational;
use trix_model::pixel::Chroma;

use crate::encoder::{Picture, RateControl, VideoSettings, VideoVariant};
use crate::params::{self, Kind, ParamError, millionths};

/// Checks settings against each other, before a picture is known.
pub(crate) fn check_together(settings: &VideoSettings) -> Vec<ParamError> {
    let given = Given::of(settings);
    match settings.variant {
        VideoVariant::X264_8 | VideoVariant::X264_10 => given.x264_together(),
        VideoVariant::X265_8 | VideoVariant::X265_10 | VideoVariant::X265_12 => {
            given.x265_together()
        }
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 | VideoVariant::Ffv1 => Vec::new(),
    }
}

/// Checks that the stream's profile holds this chroma sampling.
pub(crate) fn check_chroma(settings: &VideoSettings, chroma: Chroma) -> Result<(), ParamError> {
    let given = Given::of(settings);
    let Some(profile) = given.text("profile").filter(|p| !holds(p, chroma)) else {
        return Ok(());
    };
    let table = params::table(settings.variant).iter().find(|p| p.name == "profile");
    let all = match table.map(|p| p.kind) {
        Some(Kind::Choice(all)) => all,
        _ => &[],
    };
    let fit: Vec<&str> = all.iter().copied().filter(|p| holds(p, chroma)).collect();
    let name = match chroma {
        Chroma::Mono => "pictures without colour",
        Chroma::C420 => "4:2:0",
        Chroma::C422 => "4:2:2",
        Chroma::C444 => "4:4:4",
    };
    Err(ParamError::Value {
        variant: settings.variant,
        key: "profile".to_owned(),
        value: profile.to_owned(),
        allowed: format!("{} with {name}", fit.join(" or ")),
    })
}

/// Checks what an encoder takes of a picture's size and format and its rate in frames a second;
/// the reason where it does not.
pub fn check_picture(
    settings: &VideoSettings,
    picture: &Picture,
    rate: Rational,
) -> Result<(), String> {
    check_chroma(settings, picture.format.chroma).map_err(|e| e.to_string())?;
    let given = Given::of(settings);
    match settings.variant {
        VideoVariant::X264_8 | VideoVariant::X264_10 => given.x264_picture(picture),
        VideoVariant::X265_8 | VideoVariant::X265_10 | VideoVariant::X265_12 => {
            at_least_16(settings.variant, picture)?;
            given.x265_picture(picture, rate)
        }
        VideoVariant::Rav1e8 | VideoVariant::Rav1e10 => at_least_16(settings.variant, picture),
        VideoVariant::Ffv1 => ffv1_slices(settings, picture).map(|_| ()),
    }
}

fn at_least_16(variant: VideoVariant, picture: &Picture) -> Result<(), String> {
    if picture.width.min(picture.height) < 16 {
        return Err(format!("{variant} takes sides of 16 at least"));
    }
    Ok(())
}

fn holds(profile: &str, chroma: Chroma) -> bool {
    match chroma {
        Chroma::C420 => true,
        Chroma::Mono => profile.starts_with("high") || profile.contains("444"),
        Chroma::C422 => profile.contains("422") || profile.contains("444"),
        Chroma::C444 => profile.contains("444"),
    }
}

/// Settings with their parameters in canonical form.
struct Given<'a> {
    settings: &'a VideoSettings,
    params: BTreeMap<String, String>,
}

impl Given<'_> {
    fn of(settings: &VideoSettings) -> Given<'_> {
        // What is wrong by itself is named by `params` and counts as not given here.
        let params = params::canonical(settings.variant, &settings.params).unwrap_or_default();
        Given { settings, params }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.params.get(key).map(String::as_str)
    }

    fn whole(&self, key: &str) -> Option<i64> {
        self.text(key)?.parse().ok()
    }

    fn on(&self, key: &str) -> bool {
        self.text(key) == Some("1")
    }

    fn refused(&self, key: &str, allowed: String) -> ParamError {
        let value = self.text(key).unwrap_or_default().to_owned();
        ParamError::Value { variant: self.settings.variant, key: key.to_owned(), value, allowed }
    }
}

// x264.

/// Parameters that part a picture into fields.
const FIELDS: [&str; 4] = ["interlaced", "tff", "bff", "fake-interlaced"];

/// x264's parameters that set quantisation matrices.
const MATRICES: [&str; 10] =
    ["cqm4", "cqm8", "cqm4i", "cqm4p", "cqm4iy", "cqm4ic", "cqm4py", "cqm4pc", "cqm8i", "cqm8p"];

/// True where x264 codes without loss: quantiser zero, and a CRF that rounds to it. Ten bits
/// reach 12 steps below zero.
pub(crate) fn x264_lossless(settings: &VideoSettings) -> bool {
    match &settings.rate {
        RateControl::Lossless => true,
        RateControl::Qp { qp } => *qp == 0,
        RateControl::Crf { crf, .. } => {
            let steps = 6 * (i64::from(settings.variant.depth().unwrap_or(8)) - 8);
            (millionths(crf).unwrap_or(0) + steps * 1_000_000) / 1_000_000 <= 0
        }
        RateControl::Bitrate { .. } => false,
    }
}

impl Given<'_> {
    fn x264_together(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        let profile = self.text("profile");
        if x264_lossless(self.settings) && profile.is_some_and(|p| p != "high444") {
            let allowed = "high444 alone without loss (lossless, qp 0, or a crf that rounds to it)";
            errors.push(self.refused("profile", allowed.to_owned()));
        }
        if profile == Some("baseline") {
            let fields = FIELDS.into_iter().filter(|key| self.on(key));
            errors.extend(fields.map(|key| self.refused(key, "0 with profile baseline".into())));
        }
        errors.extend(self.x264_quantisers());
        errors
    }

    /// Matrices leave x264 a range of quantisers, and the rate control may have another.
    fn x264_quantisers(&self) -> Option<ParamError> {
        if x264_lossless(self.settings) {
            // Nothing is quantised, and x264 drops the matrices.
            return None;
        }
        let (key, smallest, largest) = self.x264_matrices()?;
        let (lowest, highest) = self.x264_range(smallest, largest);
        let or_more = || format!("{lowest} or more with the matrices of {key}");
        let at_most = || format!("at most {highest} with the matrices of {key}");
        let RateControl::Qp { qp } = self.settings.rate else {
            let qpmax = self.whole("qpmax").unwrap_or(highest);
            let qpmin = self.whole("qpmin").unwrap_or(0).min(qpmax);
            return if qpmax < lowest {
                Some(self.refused("qpmax", or_more()))
            } else if qpmin > highest {
                Some(self.refused("qpmin", at_most()))
            } else {
                None
            };
        };
        let allowed = match i64::from(qp) {
            qp if qp < lowest => or_more(),
            qp if qp > highest => at_most(),
            _ => return None,
        };
        let (key, value) = ("qp".to_owned(), qp.to_string());
        Some(ParamError::Value { variant: self.settings.variant, key, value, allowed })
    }

    /// A parameter that sets matrices, and the smallest and largest coefficient of all that do.
    fn x264_matrices(&self) -> Option<(&'static str, i64, i64)> {
        let mut found: Option<(&'static str, i64, i64)> = None;
        for key in MATRICES {
            for c in self.text(key).into_iter().flat_map(|list| list.split(',')) {
                let c = c.parse().unwrap_or(16);
                let (first, smallest, largest) = found.unwrap_or((key, c, c));
                found = Some((first, smallest.min(c), largest.max(c)));
            }
        }
        // The standard's own matrices reach from 6 to 42.
        found.or((self.text("cqm") == Some("jvt")).then_some(("cqm", 6, 42)))
    }

    /// Quantisers at which x264 can divide by such coefficients.
    ///
    /// It multiplies instead: the multiplier of a small coefficient at a low quantiser must fit
    /// in 16 bits, less at ten bits a sample, and that of a large one at a high quantiser must not
    /// vanish. The scales are those of `quant4_scale` at the positions where they are largest and
    /// smallest; those of 8x8 blocks lie in between.
    fn x264_range(&self, smallest: i64, largest: i64) -> (i64, i64) {
        const COARSE: [i64; 6] = [13_107, 11_916, 10_082, 9_362, 8_192, 7_282];
        const FINE: [i64; 6] = [5_243, 4_660, 4_194, 3_647, 3_355, 2_893];
        let depth = i64::from(self.settings.variant.depth().unwrap_or(8));
        // Behind the codec's last quantiser x264 counts 18 more, at which it only drops more.
        let last = 51 + 6 * (depth - 8);
        let most = ((1 << (25 - depth)) - 1).min(0xffff);
        let multiplier = |scale: [i64; 6], coefficient: i64, q: i64| {
            let whole = (scale[(q % 6) as usize] * 16 + coefficient / 2) / coefficient;
            match q / 6 - 1 {
                shift @ 1.. => (whole + (1 << (shift - 1))) >> shift,
                shift => whole << -shift,
            }
        };
        let too_low = (0..=last).rev().find(|q| multiplier(COARSE, smallest, *q) > most);
        let too_high = (0..=last).find(|q| multiplier(FINE, largest, *q) == 0);
        // Chroma has a quantiser of its own, which psychovisual decisions lower by 4 at most.
        let offset = (self.whole("chroma-qp-offset").unwrap_or(0) - 4).clamp(-12, 0);
        (too_low.map_or(0, |q| q + 1 - offset), too_high.map_or(last + 18, |q| q - 1))
    }

    fn x264_picture(&self, picture: &Picture) -> Result<(), String> {
        let (width, height) = (picture.width, picture.height);
        if FIELDS.into_iter().any(|key| self.on(key)) {
            // A field has half of the lines, and its chroma half of those.
            let step = if picture.format.chroma == Chroma::C420 { 4 } else { 2 };
            if !height.is_multiple_of(step) {
                return Err(format!("interlaced pictures need a multiple of {step} lines"));
            }
        }
        if self.whole("frame-packing") == Some(7)
            && !(width.is_multiple_of(3) && height.is_multiple_of(3))
        {
            return Err("frame-packing 7 parts both sides by three".to_owned());
        }
        Ok(())
    }
}

// x265.

/// What x265 takes from preset, tune and parameters before it looks at a picture.
struct Shape {
    /// Side of a coding tree unit.
    ctu: u32,
    /// Side of the smallest coding unit.
    min_cu: u32,
    bframes: i64,
    lookahead: i64,
    refs: i64,
    /// Pictures that display runs behind decode.
    reorder: i64,
}

/// A level of HEVC (tables A.8 and A.9), as x265 knows it.
struct Level {
    name: &'static str,
    /// Samples a picture.
    samples: u64,
    /// Samples a second.
    per_second: u64,
    /// kbit/s of the main tier.
    kbps: u64,
    /// kbit of its buffer.
    kbit: u64,
    /// Both of the high tier, where there is one.
    high: Option<u64>,
}

const fn level(
    name: &'static str,
    samples: u64,
    per_second: u64,
    [kbps, kbit]: [u64; 2],
    high: Option<u64>,
) -> Level {
    Level { name, samples, per_second, kbps, kbit, high }
}

/// All but 8.5, which has no limits.
const LEVELS: [Level; 13] = [
    level("1", 36_864, 552_960, [128, 350], None),
    level("2", 122_880, 3_686_400, [1500, 1500], None),
    level("2.1", 245_760, 7_372_800, [3000, 3000], None),
    level("3", 552_960, 16_588_800, [6000, 6000], None),
    level("3.1", 983_040, 33_177_600, [10_000, 10_000], None),
    level("4", 2_228_224, 66_846_720, [12_000, 12_000], Some(30_000)),
    level("4.1", 2_228_224, 133_693_440, [20_000, 20_000], Some(50_000)),
    level("5", 8_912_896, 267_386_880, [25_000, 25_000], Some(100_000)),
    level("5.1", 8_912_896, 534_773_760, [40_000, 40_000], Some(160_000)),
    level("5.2", 8_912_896, 1_069_547_520, [60_000, 60_000], Some(240_000)),
    level("6", 35_651_584, 1_069_547_520, [60_000, 60_000], Some(240_000)),
    level("6.1", 35_651_584, 2_139_095_040, [120_000, 120_000], Some(480_000)),
    level("6.2", 35_651_584, 4_278_190_080, [240_000, 240_000], Some(800_000)),
];

/// Levels whose coding tree units may be 16 wide.
const BELOW_5: usize = 7;

/// A stream as a level looks at it.
struct Asked {
    width: u64,
    height: u64,
    /// Samples a second.
    per_second: u64,
    /// The highest bit rate that is set, in kbit/s; 0 when none is.
    kbps: u64,
    /// kbit.
    buffer: u64,
    high_tier: bool,
    /// Pictures that a decoder must hold.
    held: i64,
}

impl Level {
    fn holds_size(&self, a: &Asked) -> bool {
        let side = |n: u64| n * n <= self.samples * 8;
        a.width * a.height <= self.samples && side(a.width) && side(a.height)
    }

    fn holds(&self, a: &Asked) -> bool {
        let samples = a.width * a.height;
        let pictures = match samples {
            n if n <= self.samples / 4 => 16,
            n if n <= self.samples / 2 => 12,
            n if n <= self.samples * 3 / 4 => 8,
            _ => 6,
        };
        let above_main = |value: u64, main: u64| {
            self.high.is_some_and(|high| (main + 1..=high).contains(&value))
        };
        let needs_high = above_main(a.kbps, self.kbps) || above_main(a.buffer, self.kbit);
        self.holds_size(a)
            && a.per_second <= self.per_second
            && a.kbps <= self.high.unwrap_or(self.kbps)
            && a.held <= pictures
            && (a.high_tier || !needs_high)
    }
}

impl Given<'_> {
    fn x265_shape(&self) -> Shape {
        let (ctu, min_cu, mut bframes, mut lookahead, refs) = match self.settings.preset.as_str() {
            "ultrafast" => (32, 16, 3, 5, 1),
            "superfast" => (32, 8, 3, 10, 1),
            "veryfast" | "faster" => (64, 8, 4, 15, 2),
            "fast" => (64, 8, 4, 15, 3),
            "slow" => (64, 8, 4, 25, 4),
            "slower" | "veryslow" => (64, 8, 8, 40, 5),
            "placebo" => (64, 8, 8, 60, 5),
            _ => (64, 8, 4, 20, 3),
        };
        match self.settings.tune.as_deref() {
            Some("zerolatency") => (bframes, lookahead) = (0, 0),
            Some("animation") if bframes + 2 < lookahead => bframes += 2,
            _ => {}
        }
        let side = |key: &str, preset: u32| {
            self.whole(key).and_then(|n| u32::try_from(n).ok()).unwrap_or(preset)
        };
        let bframes = self.whole("bframes").unwrap_or(bframes);
        let reorder = match bframes {
            0 => 0,
            1 => 1,
            _ if self.text("b-pyramid") == Some("0") => 1,
            _ => 2,
        };
        Shape {
            ctu: side("ctu", ctu),
            min_cu: side("min-cu-size", min_cu),
            bframes,
            lookahead: self.whole("rc-lookahead").unwrap_or(lookahead),
            refs: self.whole("ref").unwrap_or(refs),
            reorder,
        }
    }

    fn x265_together(&self) -> Vec<ParamError> {
        let mut errors = Vec::new();
        let mut refuse = |key: &str, allowed: String| errors.push(self.refused(key, allowed));
        let (rate, shape) = (&self.settings.rate, self.x265_shape());
        let capped = matches!(rate, RateControl::Bitrate { vbv: Some(_), .. });
        if self.on("strict-cbr") && !capped {
            let allowed = "0, unless a bit rate, its maximum and its buffer are set";
            refuse("strict-cbr", allowed.to_owned());
        }
        // Slices need wavefronts, and those need a pool of threads.
        if self.settings.threads == 1 && self.whole("slices").is_some_and(|n| n > 1) {
            refuse("slices", "1, unless threads are 2 or more".to_owned());
        }
        if shape.bframes > 0 && shape.bframes >= shape.lookahead {
            let (bframes, lookahead) = (shape.bframes, shape.lookahead);
            if self.text("rc-lookahead").is_some() {
                let allowed = format!("{} or more with {bframes} B frames", bframes + 1);
                refuse("rc-lookahead", allowed);
            } else {
                let most = (lookahead - 1).max(0);
                refuse("bframes", format!("at most {most} with a lookahead of {lookahead}"));
            }
        }
        if shape.refs + shape.reorder > 8 && !self.on("allow-non-conformance") {
            let most = 8 - shape.reorder;
            refuse("ref", format!("at most {most} with the B frames that are set"));
        }
        if let Some(name) = self.text("level-idc") {
            if matches!(rate, RateControl::Qp { .. } | RateControl::Lossless) {
                let allowed = "nothing with qp or lossless: a level is a promise of a bit rate";
                refuse("level-idc", allowed.to_owned());
            }
            // x265 would widen the unit behind the back of all that was sized by it.
            if is_5_or_above(name) && self.text("ctu") == Some("16") {
                refuse("ctu", format!("32 or 64 with level {name}"));
            }
        }
        errors
    }

    fn x265_picture(&self, picture: &Picture, rate: Rational) -> Result<(), String> {
        let (width, height) = (picture.width, picture.height);
        let shape = self.x265_shape();
        // As trix-encode has it: smaller units code pictures below one unit.
        let mut ctu = shape.ctu;
        while ctu > 16 && ctu > width.min(height) {
            ctu /= 2;
        }
        // Without wavefronts, which x265 switches off in narrow pictures, it writes the slices
        // past the end of their table, and crashes.
        let sliced = self.whole("slices").is_some_and(|n| n > 1) && height > ctu;
        if sliced && width.div_ceil(ctu) < 3 {
            let least = 2 * ctu + 1;
            return Err(format!("slices need {least} columns with coding tree units of {ctu}"));
        }
        // What x265 looks at is padded to whole coding units.
        let unit = shape.min_cu.min(ctu);
        let (width, height) = (width.next_multiple_of(unit), height.next_multiple_of(unit));
        let samples = u64::from(width) * u64::from(height);
        let part = |n: i64| u64::try_from(n).unwrap_or(0);
        let (kbps, buffer) = match self.settings.rate {
            RateControl::Crf { vbv: Some(vbv), .. }
            | RateControl::Bitrate { vbv: Some(vbv), .. } => (vbv.max_kbps, vbv.buffer_kbit),
            RateControl::Bitrate { kbps, vbv: None } => (kbps, 0),
            _ => (0, 0),
        };
        let asked = Asked {
            width: width.into(),
            height: height.into(),
            per_second: samples.saturating_mul(part(rate.num())) / part(rate.den()).max(1),
            kbps: kbps.into(),
            buffer: buffer.into(),
            high_tier: self.text("high-tier") != Some("0"),
            held: match self.settings.keyint {
                // All pictures are intra, whatever else is set.
                1 => 3,
                _ => ((shape.reorder + 2).max(shape.refs) + 1).min(16),
            },
        };
        if let Some(name) = self.text("level-idc") {
            return level_holds(name, &asked, ctu);
        }
        let free = self.on("allow-non-conformance") || self.settings.rate == RateControl::Lossless;
        if ctu == 16 && !free && !LEVELS[..BELOW_5].iter().any(|level| level.holds(&asked)) {
            return Err(
                "its size and rates ask for level 5 or above, whose coding tree units are \
                        32 or 64, so sides of 32 at least: set a larger ctu or lower rates"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

fn is_5_or_above(level: &str) -> bool {
    !LEVELS[..BELOW_5].iter().any(|l| l.name == level)
}

fn level_holds(name: &str, asked: &Asked, ctu: u32) -> Result<(), String> {
    if is_5_or_above(name) && ctu == 16 {
        return Err(format!("level {name} has coding tree units of 32, so sides of 32 at least"));
    }
    let Some(level) = LEVELS.iter().find(|l| l.name == name) else { return Ok(()) };
    if !level.holds_size(asked) {
        let (samples, side) = (level.samples, (level.samples * 8).isqrt());
        return Err(format!("level {name} holds {samples} samples a picture, sides of {side}"));
    }
    if asked.per_second > level.per_second {
        return Err(format!("level {name} holds {} samples a second", level.per_second));
    }
    Ok(())
}

// FFV1.

/// Slices that FFV1 parts a picture of this size and format into: those that are asked for, or
/// the number next to the usual one at which none splits a chroma sample.
pub fn ffv1_slices(settings: &VideoSettings, picture: &Picture) -> Result<u32, String> {
    let fit = ffv1_counts(picture);
    if let Some(wanted) = Given::of(settings).whole("slices") {
        if let Some(n) = fit.iter().copied().find(|n| i64::from(*n) == wanted) {
            return Ok(n);
        }
        let fit: Vec<String> = fit.iter().map(u32::to_string).collect();
        return Err(format!("{wanted} slices do not fit it; these do: {}", fit.join(", ")));
    }
    // Slices are what a decoder shares among threads; 4 is right up to HD.
    let pixels = u64::from(picture.width) * u64::from(picture.height);
    let usual = if pixels > 2_100_000 { 16 } else { 4 };
    let found = fit.range(usual..).next().or(fit.last());
    found.copied().ok_or_else(|| "no number of slices fits it".to_owned())
}

/// The search of `encode_init` in `libavcodec/ffv1enc.c`: the grid is as wide as it is high, and
/// less than twice as wide at most.
fn ffv1_counts(picture: &Picture) -> BTreeSet<u32> {
    const MAX_SLICES: u32 = 1024;
    let Picture { width, height, format } = *picture;
    let (halved_w, halved_h) = match format.chroma {
        Chroma::C420 => (true, true),
        Chroma::C422 => (true, false),
        Chroma::C444 | Chroma::Mono => (false, false),
    };
    let (columns, rows) = match format.chroma {
        Chroma::Mono => (width, height),
        _ => format.plane_size(1, width, height),
    };
    // A slice's memory, by bits a sample and planes.
    let bits = u64::from(format.depth + 1) * format.planes() as u64;
    let small = |h: u32, v: u32| {
        u64::from(width.div_ceil(h)) * u64::from(height.div_ceil(v)) * bits <= 8 << 24
    };
    // An odd side ends with half a chroma sample; the last slice must have it.
    let whole = |side: u32, n: u32, halved: bool| {
        let last = side - (u64::from(side) * u64::from(n - 1) / u64::from(n)) as u32;
        !halved || side.is_multiple_of(2) || !last.is_multiple_of(2)
    };
    let first = if width > 352 || height > 288 { 2 } else { 1 };
    let grids = (first.min(rows)..32).flat_map(|v| (v..2 * v).map(move |h| (h, v)));
    grids
        .filter(|(h, v)| *h <= columns && *v <= rows && small(*h, *v))
        .filter(|(h, v)| whole(width, *h, halved_w) && whole(height, *v, halved_h))
        .map(|(h, v)| h * v)
        .filter(|n| *n <= MAX_SLICES)
        .collect()
}

#[cfg(test)]
mod tests {
    use trix_model::PixelFormat;

    use super::*;
    use crate::encoder::Vbv;

    fn settings(
        variant: VideoVariant,
        rate: RateControl,
        params: &[(&str, &str)],
    ) -> VideoSettings {
        VideoSettings {
            variant,
            preset: if variant == VideoVariant::Ffv1 { "" } else { "fast" }.into(),
            tune: None,
            rate,
            keyint: 0,
            threads: 2,
            params: params.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        }
    }

    fn crf(crf: &str) -> RateControl {
        RateControl::Crf { crf: crf.into(), vbv: None }
    }

    fn bitrate(kbps: u32) -> RateControl {
        RateControl::Bitrate { kbps, vbv: None }
    }

    fn picture(width: u32, height: u32) -> Picture {
        Picture { width, height, format: PixelFormat::YUV420P8 }
    }

    fn rate() -> Rational {
        Rational::new(25, 1).unwrap()
    }

    /// The keys that are refused.
    #[track_caller]
    fn keys(variant: VideoVariant, rate: RateControl, params: &[(&str, &str)]) -> Vec<String> {
        let errors = params::check_settings(&settings(variant, rate, params)).err();
        let key = |e: ParamError| match e {
            ParamError::Value { key, .. } => key,
            other => panic!("{other}"),
        };
        errors.unwrap_or_default().into_iter().map(key).collect()
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn x264_profiles_hold_lossless_pictures_fields_and_chroma_or_are_refused() {
        use VideoVariant::{X264_8, X264_10};
        let high = [("profile", "high")];
        assert_eq!(keys(X264_8, RateControl::Lossless, &high), ["profile"]);
        assert_eq!(keys(X264_8, RateControl::Qp { qp: 0 }, &high), ["profile"]);
        assert_eq!(keys(X264_8, crf("0.9"), &high), ["profile"]);
        assert_eq!(keys(X264_8, crf("1"), &high), NONE);
        assert_eq!(keys(X264_10, crf("-11.5"), &[("profile", "high10")]), ["profile"]);
        assert_eq!(keys(X264_10, crf("-11"), &[("profile", "high10")]), NONE);
        assert_eq!(keys(X264_8, RateControl::Lossless, &[("profile", "high444")]), NONE);
        assert_eq!(keys(X264_8, crf("20"), &[("profile", "baseline"), ("tff", "1")]), ["tff"]);
        assert_eq!(keys(X264_8, crf("20"), &[("profile", "main"), ("tff", "1")]), NONE);

        let high10 = settings(X264_10, crf("20"), &[("profile", "high10")]);
        assert!(check_chroma(&high10, Chroma::C420).is_ok());
        let error = check_chroma(&high10, Chroma::C422).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"x264-10: profile="high10" is not allowed: profile takes high422 or high444 with 4:2:2"#
        );
    }

    #[test]
    fn x264_matrices_leave_room_for_the_quantiser() {
        use VideoVariant::{X264_8, X264_10};
        let ones = vec!["1"; 16].join(",");
        let ones = [("cqm4py", ones.as_str())];
        // The multiplier of a one does not fit 16 bits below 17; chroma takes four more.
        assert_eq!(keys(X264_8, RateControl::Qp { qp: 17 }, &ones), ["qp"]);
        assert_eq!(keys(X264_8, RateControl::Qp { qp: 22 }, &ones), NONE);
        assert_eq!(keys(X264_10, RateControl::Qp { qp: 23 }, &ones), ["qp"]);
        assert_eq!(keys(X264_10, RateControl::Qp { qp: 28 }, &ones), NONE);
        assert_eq!(keys(X264_8, crf("20"), &ones), NONE);
        assert_eq!(keys(X264_8, crf("20"), &[ones[0], ("qpmax", "10")]), ["qpmax"]);
        assert_eq!(keys(X264_8, RateControl::Qp { qp: 0 }, &ones), NONE);
        assert_eq!(keys(X264_8, RateControl::Qp { qp: 1 }, &[("cqm", "flat")]), NONE);
        assert_eq!(keys(X264_10, RateControl::Qp { qp: 1 }, &[("cqm", "jvt")]), ["qp"]);
        // The multiplier of 255 vanishes at 63, which only ten bits a sample have.
        let large = vec!["255"; 64].join(",");
        let large = [("cqm8", large.as_str())];
        assert_eq!(keys(X264_10, RateControl::Qp { qp: 63 }, &large), ["qp"]);
        assert_eq!(keys(X264_8, RateControl::Qp { qp: 51 }, &large), NONE);
    }

    #[test]
    fn x264_parts_a_picture_only_where_it_can_be_parted() {
        let parted = settings(VideoVariant::X264_8, crf("20"), &[("frame-packing", "7")]);
        assert!(check_picture(&parted, &picture(96, 64), rate()).is_err());
        assert!(check_picture(&parted, &picture(96, 66), rate()).is_ok());
        let fields = settings(VideoVariant::X264_8, crf("20"), &[("tff", "1")]);
        assert!(check_picture(&fields, &picture(64, 22), rate()).is_err());
        assert!(check_picture(&fields, &picture(64, 24), rate()).is_ok());
    }

    #[test]
    fn x265_refuses_by_name_what_needs_another_setting() {
        use VideoVariant::{X265_8, X265_10};
        let vbv = Some(Vbv { max_kbps: 500, buffer_kbit: 500 });
        let capped = RateControl::Bitrate { kbps: 500, vbv };
        assert_eq!(keys(X265_8, crf("20"), &[("strict-cbr", "yes")]), ["strict-cbr"]);
        assert_eq!(keys(X265_8, capped, &[("strict-cbr", "yes")]), NONE);

        assert_eq!(keys(X265_8, crf("20"), &[("bframes", "15")]), ["bframes"]);
        assert_eq!(keys(X265_8, crf("20"), &[("bframes", "14")]), NONE);
        assert_eq!(keys(X265_8, crf("20"), &[("rc-lookahead", "4")]), ["rc-lookahead"]);
        assert_eq!(keys(X265_8, crf("20"), &[("rc-lookahead", "4"), ("bframes", "0")]), NONE);

        assert_eq!(keys(X265_8, crf("20"), &[("ref", "7")]), ["ref"]);
        assert_eq!(keys(X265_8, crf("20"), &[("ref", "7"), ("b-pyramid", "0")]), NONE);
        assert_eq!(keys(X265_8, crf("20"), &[("ref", "7"), ("allow-non-conformance", "1")]), NONE);

        let level = [("level-idc", "5")];
        assert_eq!(keys(X265_10, RateControl::Qp { qp: 20 }, &level), ["level-idc"]);
        assert_eq!(keys(X265_10, RateControl::Lossless, &level), ["level-idc"]);
        assert_eq!(keys(X265_10, crf("20"), &level), NONE);
        assert_eq!(keys(X265_10, crf("20"), &[level[0], ("ctu", "16")]), ["ctu"]);
        assert_eq!(keys(X265_10, crf("20"), &[("level-idc", "4.1"), ("ctu", "16")]), NONE);

        let mut one = settings(X265_8, crf("20"), &[("slices", "3")]);
        assert!(params::check_settings(&one).is_ok());
        one.threads = 1;
        assert!(params::check_settings(&one).is_err());
    }

    #[test]
    fn x265_slices_need_three_units_side_by_side() {
        let slices = settings(VideoVariant::X265_10, crf("20"), &[("slices", "14")]);
        assert!(check_picture(&slices, &picture(18, 1200), rate()).is_err());
        assert!(check_picture(&slices, &picture(128, 1200), rate()).is_err());
        assert!(check_picture(&slices, &picture(130, 1200), rate()).is_ok());
        // One row of units is one slice.
        assert!(check_picture(&slices, &picture(32, 32), rate()).is_ok());
        let one = settings(VideoVariant::X265_10, crf("20"), &[("slices", "1")]);
        assert!(check_picture(&one, &picture(18, 1200), rate()).is_ok());
    }

    #[test]
    fn x265_levels_hold_the_picture_and_its_rates() {
        let at = |rates: RateControl, params: &[(&str, &str)], width, height| {
            let settings = settings(VideoVariant::X265_8, rates, params);
            check_picture(&settings, &picture(width, height), rate())
        };
        assert!(at(crf("20"), &[], 15, 64).is_err());
        // Level 6.2 ends at 800 Mbit/s; a picture of 16 lines has no unit that level 5 takes.
        assert!(at(bitrate(2_000_000), &[], 96, 64).is_ok());
        assert!(at(bitrate(2_000_000), &[], 96, 16).is_err());
        assert!(at(bitrate(50_000), &[], 96, 16).is_ok());
        assert!(at(bitrate(50_000), &[("high-tier", "0")], 96, 16).is_err());
        assert!(at(bitrate(2_000_000), &[("allow-non-conformance", "1")], 96, 16).is_ok());
        assert!(at(RateControl::Lossless, &[], 96, 16).is_ok());
        assert!(at(crf("20"), &[("ctu", "16")], 1920, 1080).is_ok());
        assert!(at(crf("20"), &[("ctu", "16")], 3840, 2160).is_err());
        assert!(at(crf("20"), &[], 3840, 2160).is_ok());

        let level = |name: &'static str, width, height| {
            at(crf("20"), &[("level-idc", name)], width, height)
        };
        assert!(level("4", 1920, 1080).is_ok());
        assert!(level("3.1", 1920, 1080).is_err());
        assert!(level("5", 96, 30).is_err());
        assert!(level("4.1", 96, 30).is_ok());
        // Few samples, but a side that is too long.
        assert!(level("1", 1200, 18).is_err());
        let fast = settings(VideoVariant::X265_8, crf("20"), &[("level-idc", "4")]);
        let sixty = Rational::new(60, 1).unwrap();
        assert!(check_picture(&fast, &picture(1920, 1080), sixty).is_err());
    }

    #[test]
    fn ffv1_finds_slices_that_split_no_chroma_sample() {
        let slices = |params: &[(&str, &str)], width, height, chroma, depth| {
            let format = PixelFormat { chroma, depth };
            let settings = settings(VideoVariant::Ffv1, RateControl::Lossless, params);
            ffv1_slices(&settings, &Picture { width, height, format })
        };
        assert_eq!(slices(&[], 64, 48, Chroma::C420, 8), Ok(4));
        assert_eq!(slices(&[], 64, 43, Chroma::C420, 8), Ok(9));
        assert_eq!(slices(&[], 31, 16, Chroma::C420, 12), Ok(6));
        assert_eq!(slices(&[], 64, 43, Chroma::C444, 8), Ok(4));
        assert_eq!(slices(&[], 2, 2, Chroma::C420, 8), Ok(1));
        assert_eq!(slices(&[], 3840, 2160, Chroma::C422, 10), Ok(16));
        // Sixteen slices would be too large for libavcodec.
        assert_eq!(slices(&[], 16_384, 16_384, Chroma::C420, 8), Ok(56));
        assert_eq!(slices(&[("slices", "6")], 64, 48, Chroma::C420, 8), Ok(6));
        let error = slices(&[("slices", "6")], 64, 43, Chroma::C420, 8).unwrap_err();
        assert!(error.starts_with("6 slices do not fit it; these do: 1, 9, 12, "), "{error}");
    }
}
