//! HEVC by x265, 8, 10 and 12 bit.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use trix_av::{CodecParameters, VideoFrame};
use trix_model::Rational;
use trix_model::pixel::Chroma;
use trix_plan::encoder::RateControl;
use trix_x265_sys as sys;

use crate::encoder::{Headers, Packet, Received, VideoConfig, VideoEncoder};
use crate::error::{EncodeError, Result};
use crate::nal::hdr10_messages;
use crate::timeline::Timeline;

// Defaults: what trix sets whatever the profile says.

fn defaults(p: &mut sys::x265_param, config: &VideoConfig, pools: &CStr) -> Result<()> {
    let variant = config.settings.variant;
    let unsupported = |what: String| EncodeError::Unsupported { variant, what };
    // The bytes depend on it, so it is the engine id's, never the machine's.
    p.cpuid = config.cpu.x265_mask();
    let threads = config.settings.threads;
    p.numaPools = pools.as_ptr();
    p.bEnableWavefront = c_int::from(threads > 1);
    // x265 would count the machine's cores; the plan's number stands for them.
    p.frameNumThreads = match threads {
        1 => 1,
        2..=7 => 2,
        8..=15 => 3,
        _ => 4,
    };
    p.bDistributeModeAnalysis = 0;
    p.bDistributeMotionEstimation = 0;
    p.bOpenGOP = 0;
    p.bIntraRefresh = 0;
    p.radl = 0;
    p.bAnnexB = 1;
    p.bRepeatHeaders = c_int::from(config.headers == Headers::InBand);
    // It would name the CPU.
    p.bEmitInfoSEI = 0;
    p.totalFrames = 0;

    p.internalBitDepth = c_int::from(config.picture.format.depth);
    p.sourceBitDepth = p.internalBitDepth;
    p.internalCsp = colour_space(config);
    p.sourceWidth = config.picture.width as c_int;
    p.sourceHeight = config.picture.height as c_int;
    let rate = config.frame_rate;
    let parts = u32::try_from(rate.num()).ok().zip(u32::try_from(rate.den()).ok());
    (p.fpsNum, p.fpsDenom) =
        parts.ok_or_else(|| unsupported(format!("frame rate {rate}: both parts are 32 bit")))?;
    fit_coding_units(p, config);
    if starves_its_filter(p) {
        p.bEnableWavefront = 0;
    }
    signal(p, config);
    Ok(())
}

/// True of a picture for which x265 waits for ever as soon as its rows run side by side. The
/// filter of row 0 is begun by row 1, or by row 2 where SAO looks at what was not deblocked;
/// a picture of two rows has no row 2.
fn starves_its_filter(p: &sys::x265_param) -> bool {
    let rows = (p.sourceHeight as u32).div_ceil(p.maxCUSize);
    let two_behind = p.bEnableSAO != 0 && (p.bSaoNonDeblocked != 0 || p.bEnableLoopFilter == 0);
    two_behind && rows == 2
}

/// x265 refuses pictures below one coding tree unit; smaller units code them.
fn fit_coding_units(p: &mut sys::x265_param, config: &VideoConfig) {
    let side = config.picture.width.min(config.picture.height);
    while p.maxCUSize > 16 && p.maxCUSize > side {
        p.maxCUSize /= 2;
    }
    p.minCUSize = p.minCUSize.min(p.maxCUSize);
    p.maxTUSize = p.maxTUSize.min(p.maxCUSize);
    p.rc.qgSize = p.rc.qgSize.min(p.maxCUSize);
    // A quadtree of transforms ends at 4x4.
    let depth = p.maxCUSize.ilog2() - 1;
    p.tuQTMaxIntraDepth = p.tuQTMaxIntraDepth.min(depth);
    p.tuQTMaxInterDepth = p.tuQTMaxInterDepth.min(depth);
}

/// Colour and chroma place: only what the source states. HDR10 messages are
/// written by [`crate::nal`], since x265 ties them to repeated headers.
fn signal(p: &mut sys::x265_param, config: &VideoConfig) {
    let color = &config.color;
    if let Some(full) = color.full_range {
        p.vui.bEnableVideoSignalTypePresentFlag = 1;
        p.vui.bEnableVideoFullRangeFlag = c_int::from(full);
    }
    if color.primaries.is_some() || color.transfer.is_some() || color.matrix.is_some() {
        // The three stand together; 2 is "unspecified".
        let code = |c: Option<u8>| c.map_or(2, c_int::from);
        p.vui.bEnableVideoSignalTypePresentFlag = 1;
        p.vui.bEnableColorDescriptionPresentFlag = 1;
        p.vui.colorPrimaries = code(color.primaries);
        p.vui.transferCharacteristics = code(color.transfer);
        p.vui.matrixCoeffs = code(color.matrix);
    }
    if let (Some(place), Chroma::C420) = (color.chroma_location, config.picture.format.chroma) {
        p.vui.bEnableChromaLocInfoPresentFlag = 1;
        p.vui.chromaSampleLocTypeTopField = c_int::from(place);
        p.vui.chromaSampleLocTypeBottomField = c_int::from(place);
    }
}

/// Both parts in 16 bits, as the stream has them; halved until they fit.
fn aspect(sar: Rational) -> Option<(i64, i64)> {
    let (mut w, mut h) = (sar.num(), sar.den());
    while w > 65_535 || h > 65_535 {
        (w, h) = (w / 2, h / 2);
    }
    (w > 0 && h > 0).then_some((w, h))
}

fn colour_space(config: &VideoConfig) -> c_int {
    match config.picture.format.chroma {
        Chroma::Mono => sys::X265_CSP_I400,
        Chroma::C420 => sys::X265_CSP_I420,
        Chroma::C422 => sys::X265_CSP_I422,
        Chroma::C444 => sys::X265_CSP_I444,
    }
}

// Settings: what the profile says, by x265's own names.

/// The functions of one bit depth. All are there, which `of` looks at once.
#[derive(Clone, Copy)]
struct Api {
    param_alloc: unsafe extern "C" fn() -> *mut sys::x265_param,
    param_free: unsafe extern "C" fn(*mut sys::x265_param),
    param_parse: unsafe extern "C" fn(*mut sys::x265_param, *const c_char, *const c_char) -> c_int,
    param_apply_profile: unsafe extern "C" fn(*mut sys::x265_param, *const c_char) -> c_int,
    param_default_preset:
        unsafe extern "C" fn(*mut sys::x265_param, *const c_char, *const c_char) -> c_int,
    picture_alloc: unsafe extern "C" fn() -> *mut sys::x265_picture,
    picture_free: unsafe extern "C" fn(*mut sys::x265_picture),
    picture_init: unsafe extern "C" fn(*mut sys::x265_param, *mut sys::x265_picture),
    encoder_open: unsafe extern "C" fn(*mut sys::x265_param) -> *mut sys::x265_encoder,
    encoder_headers:
        unsafe extern "C" fn(*mut sys::x265_encoder, *mut *mut sys::x265_nal, *mut u32) -> c_int,
    encoder_encode: unsafe extern "C" fn(
        *mut sys::x265_encoder,
        *mut *mut sys::x265_nal,
        *mut u32,
        *mut sys::x265_picture,
        *mut sys::x265_picture,
    ) -> c_int,
    encoder_close: unsafe extern "C" fn(*mut sys::x265_encoder),
}

impl Api {
    fn of(depth: u8) -> Result<Api> {
        let missing = |what: String| EncodeError::Library {
            library: "x265",
            operation: "asking for its functions",
            reason: what,
        };
        // SAFETY: takes any number and returns null or a static table.
        let table = unsafe { sys::api_get(c_int::from(depth)).as_ref() }
            .ok_or_else(|| missing(format!("there are none for {depth} bit")))?;
        // The declarations were made from the header that the library was built
        // with; other sizes would mean memory corruption, so look once.
        if table.sizeof_param as usize != size_of::<sys::x265_param>()
            || table.sizeof_picture as usize != size_of::<sys::x265_picture>()
        {
            return Err(missing("its structures have other sizes than declared".into()));
        }
        let get = || {
            Some(Api {
                param_alloc: table.param_alloc?,
                param_free: table.param_free?,
                param_parse: table.param_parse?,
                param_apply_profile: table.param_apply_profile?,
                param_default_preset: table.param_default_preset?,
                picture_alloc: table.picture_alloc?,
                picture_free: table.picture_free?,
                picture_init: table.picture_init?,
                encoder_open: table.encoder_open?,
                encoder_headers: table.encoder_headers?,
                encoder_encode: table.encoder_encode?,
                encoder_close: table.encoder_close?,
            })
        };
        get().ok_or_else(|| missing("one is missing".into()))
    }
}

struct Param {
    raw: *mut sys::x265_param,
    api: Api,
}

impl Param {
    fn preset(api: Api, config: &VideoConfig) -> Result<Param> {
        // SAFETY: no precondition; null is checked.
        let raw = unsafe { (api.param_alloc)() };
        if raw.is_null() {
            return Err(refused("allocating parameters", "memory"));
        }
        let this = Param { raw, api };
        let preset = c_string(&config.settings.preset);
        let tune = config.settings.tune.as_deref().map(c_string);
        // SAFETY: an allocated structure, which the call initialises, and
        // terminated strings or null.
        let code = unsafe {
            (api.param_default_preset)(
                raw,
                preset.as_ptr(),
                tune.as_ref().map_or(ptr::null(), |t| t.as_ptr()),
            )
        };
        if code < 0 {
            return Err(refused("choosing the preset", &config.settings.preset));
        }
        Ok(this)
    }

    fn get(&mut self) -> &mut sys::x265_param {
        // SAFETY: allocated and initialised in `preset`, freed in `drop`, and
        // the only way to it is through `self`.
        unsafe { &mut *self.raw }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let (n, v) = (c_string(name), c_string(value));
        // SAFETY: an initialised structure and two terminated strings.
        match unsafe { (self.api.param_parse)(self.raw, n.as_ptr(), v.as_ptr()) } {
            0 => Ok(()),
            _ => Err(refused("setting a parameter", &format!("{name}={value}"))),
        }
    }

    fn settings(&mut self, config: &VideoConfig, pools: &CStr) -> Result<()> {
        let settings = &config.settings;
        if settings.keyint > 0 {
            // Scene cuts inside a segment become I frames that are no IDR.
            self.get().keyframeMax = settings.keyint as c_int;
            self.get().keyframeMin = settings.keyint as c_int;
        }
        if let Some((w, h)) = config.sample_aspect.and_then(aspect) {
            self.set("sar", &format!("{w}:{h}"))?;
        }
        let mut profile = None;
        for (name, value) in config.ordered_params()? {
            match name {
                "profile" => profile = Some(value),
                _ => self.set(name, &value)?,
            }
        }
        let vbv = match &settings.rate {
            RateControl::Crf { crf, vbv } => {
                self.set("crf", crf)?;
                *vbv
            }
            RateControl::Qp { qp } => {
                self.set("qp", &qp.to_string())?;
                None
            }
            RateControl::Bitrate { kbps, vbv } => {
                self.set("bitrate", &kbps.to_string())?;
                *vbv
            }
            RateControl::Lossless => {
                self.set("lossless", "1")?;
                None
            }
        };
        if let Some(vbv) = vbv {
            self.set("vbv-maxrate", &vbv.max_kbps.to_string())?;
            self.set("vbv-bufsize", &vbv.buffer_kbit.to_string())?;
        }
        self.get().logLevel = sys::X265_LOG_ERROR;
        defaults(self.get(), config, pools)?;
        if let Some(profile) = profile {
            let name = c_string(&profile);
            // SAFETY: an initialised structure and a terminated string.
            if unsafe { (self.api.param_apply_profile)(self.raw, name.as_ptr()) } < 0 {
                return Err(refused("applying the profile", &profile));
            }
        }
        Ok(())
    }
}

impl Drop for Param {
    fn drop(&mut self) {
        // SAFETY: allocated by the same table, freed once.
        unsafe { (self.api.param_free)(self.raw) }
    }
}

fn refused(operation: &'static str, reason: &str) -> EncodeError {
    EncodeError::Library { library: "x265", operation, reason: format!("{reason} was refused") }
}

fn c_string(text: &str) -> CString {
    // Profiles are text; what lies behind a zero would not reach the library anyway.
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

/// A picture structure of the library's own size.
struct Picture {
    raw: *mut sys::x265_picture,
    api: Api,
}

impl Picture {
    fn new(api: Api) -> Result<Picture> {
        // SAFETY: no precondition; null is checked.
        let raw = unsafe { (api.picture_alloc)() };
        if raw.is_null() {
            return Err(refused("allocating a picture", "memory"));
        }
        Ok(Picture { raw, api })
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // SAFETY: allocated by the same table, freed once.
        unsafe { (self.api.picture_free)(self.raw) }
    }
}

// State.

/// An open x265 encoder.
pub struct X265 {
    handle: *mut sys::x265_encoder,
    api: Api,
    param: Param,
    input: Picture,
    output: Picture,
    config: VideoConfig,
    extradata: Vec<u8>,
    /// NAL units that stand before every IDR picture.
    messages: Vec<u8>,
    timeline: Timeline,
    /// Pictures that display runs behind decode.
    delay: u64,
    coded: u64,
    ready: VecDeque<(u64, Packet)>,
    ended: bool,
    drained: bool,
}

// SAFETY: x265 binds nothing to the thread that opened it, and every call goes
// through `&mut self`.
unsafe impl Send for X265 {}

impl X265 {
    /// Opens x265; see [`VideoConfig::open`].
    pub fn open(config: &VideoConfig) -> Result<X265> {
        config.cpu.claim_for_process()?;
        let api = Api::of(config.picture.format.depth)?;
        let pools = match config.settings.threads {
            1 => c_string("none"),
            n => c_string(&n.to_string()),
        };
        let mut param = Param::preset(api, config)?;
        param.settings(config, &pools)?;
        // x265 may use fewer B frames than it was told, never more.
        let delay = match (param.get().bframes, param.get().bBPyramid) {
            (0, _) => 0,
            (_, 0) => 1,
            _ => 2,
        };
        // SAFETY: an initialised structure; x265 copies it and its strings, of
        // which `pools` is alive here.
        let mut handle = unsafe { (api.encoder_open)(param.raw) };
        if handle.is_null() {
            // x265 has no other way to say why than the error output, and says
            // some of it only as information: once more, aloud.
            param.get().logLevel = sys::X265_LOG_INFO;
            // SAFETY: as above.
            handle = unsafe { (api.encoder_open)(param.raw) };
        }
        // Nothing may point to the local string any more.
        param.get().numaPools = ptr::null();
        if handle.is_null() {
            return Err(EncodeError::Library {
                library: "x265",
                operation: "opening the encoder",
                reason: "it wrote the reason to the error output".into(),
            });
        }
        // From here on `drop` closes the encoder.
        let close = |e| {
            // SAFETY: opened above, and not kept.
            unsafe { (api.encoder_close)(handle) };
            e
        };
        let mut this = X265 {
            handle,
            api,
            param,
            input: Picture::new(api).map_err(close)?,
            output: Picture::new(api).map_err(close)?,
            config: config.clone(),
            extradata: Vec::new(),
            messages: hdr10_messages(&config.hdr),
            timeline: Timeline::new(config.time_base, config.frame_rate),
            delay,
            coded: 0,
            ready: VecDeque::new(),
            ended: false,
            drained: false,
        };
        this.read_headers()?;
        Ok(this)
    }

    fn read_headers(&mut self) -> Result<()> {
        let mut nals = ptr::null_mut();
        let mut count = 0;
        // SAFETY: an open encoder and two places to write to.
        let size = unsafe { (self.api.encoder_headers)(self.handle, &mut nals, &mut count) };
        if size < 0 {
            return Err(failed("writing the parameter sets"));
        }
        // SAFETY: x265 gave `count` units that live until the next call.
        for nal in unsafe { units(nals, count) } {
            match nal.kind {
                k if is_parameter_set(k) => self.extradata.extend(nal.bytes),
                // With headers in the stream, x265 repeats its messages itself.
                sys::NAL_UNIT_PREFIX_SEI if self.config.headers == Headers::Global => {
                    self.messages.extend(nal.bytes);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Hands a picture over, or none to get what is delayed, and keeps what
    /// comes out. Returns whether something came.
    fn encode(&mut self, input: *mut sys::x265_picture) -> Result<bool> {
        let mut nals = ptr::null_mut();
        let mut count = 0;
        // SAFETY: an open encoder; the picture is null or initialised, with
        // planes alive for the call, which copies them; `output` is the
        // library's own structure.
        let (code, number) = unsafe {
            let code = (self.api.encoder_encode)(
                self.handle,
                &mut nals,
                &mut count,
                input,
                self.output.raw,
            );
            (code, (*self.output.raw).userData as usize as u64)
        };
        if code < 0 {
            return Err(failed("encoding a frame"));
        }
        if code == 0 || count == 0 {
            return Ok(false);
        }
        let pts = self.timeline.pts(number).ok_or_else(|| EncodeError::Library {
            library: "x265",
            operation: "encoding a frame",
            reason: format!("frame {number} came out, but never went in"),
        })?;
        // SAFETY: x265 gave `count` units that live until the next call.
        let (payload, key) = unsafe { self.assemble(nals, count) };
        let dts = self.timeline.dts(self.coded, self.delay);
        self.coded += 1;
        self.ready.push_back((number, Packet { pts, dts, duration: 0, key, payload }));
        Ok(true)
    }

    /// One access unit, with messages before an IDR picture, and without
    /// parameter sets when they are global.
    ///
    /// # Safety
    /// `nals` points to `count` units.
    unsafe fn assemble(&self, nals: *const sys::x265_nal, count: u32) -> (Vec<u8>, bool) {
        let global = self.config.headers == Headers::Global;
        // SAFETY: by the function's own condition.
        let all = || unsafe { units(nals, count) };
        // H.265, table 7-1: 16 to 21 are random access pictures, 19 and 20 IDR.
        let key = all().any(|n| (16..=21).contains(&n.kind));
        let mut payload = Vec::with_capacity(all().map(|n| n.bytes.len()).sum());
        let mut message = key && !self.messages.is_empty();
        for nal in all() {
            let header = is_parameter_set(nal.kind);
            if header && global {
                continue;
            }
            if message && !header && nal.kind != sys::NAL_UNIT_ACCESS_UNIT_DELIMITER {
                if payload.is_empty() {
                    // An access unit's first start code has four bytes.
                    payload.push(0);
                }
                payload.extend_from_slice(&self.messages);
                message = false;
            }
            payload.extend_from_slice(nal.bytes);
        }
        (payload, key)
    }
}

fn failed(operation: &'static str) -> EncodeError {
    let reason = "it wrote the reason to the error output".into();
    EncodeError::Library { library: "x265", operation, reason }
}

fn is_parameter_set(kind: u32) -> bool {
    matches!(kind, sys::NAL_UNIT_VPS | sys::NAL_UNIT_SPS | sys::NAL_UNIT_PPS)
}

/// A NAL unit in x265's memory, start code included.
struct Unit<'a> {
    kind: u32,
    bytes: &'a [u8],
}

/// # Safety
/// `nals` points to `count` units whose payloads outlive the iterator.
unsafe fn units<'a>(nals: *const sys::x265_nal, count: u32) -> impl Iterator<Item = Unit<'a>> {
    (0..count as usize).map(move |i| {
        // SAFETY: by the function's own condition.
        let nal = unsafe { &*nals.add(i) };
        // SAFETY: the same.
        let bytes = unsafe { std::slice::from_raw_parts(nal.payload, nal.sizeBytes as usize) };
        Unit { kind: nal.type_, bytes }
    })
}

impl Drop for X265 {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed once, before its parameters are freed.
        unsafe { (self.api.encoder_close)(self.handle) }
    }
}

impl VideoEncoder for X265 {
    fn send(&mut self, frame: &VideoFrame) -> Result<()> {
        let number = self.timeline.len();
        if self.ended {
            return Err(EncodeError::AfterEnd { frame: number });
        }
        self.config.check_frame(frame, number)?;
        self.timeline.push(frame)?;
        // SAFETY: both structures are the library's own, and alive.
        let picture = unsafe {
            (self.api.picture_init)(self.param.raw, self.input.raw);
            &mut *self.input.raw
        };
        picture.pts = number as i64;
        picture.userData = number as usize as *mut c_void;
        picture.bitDepth = c_int::from(self.config.picture.format.depth);
        picture.colorSpace = colour_space(&self.config);
        for i in 0..self.config.picture.format.planes() {
            let plane = frame.plane(i);
            picture.planes[i] = plane.data.as_ptr().cast_mut().cast();
            picture.stride[i] = c_int::try_from(plane.stride).unwrap_or(c_int::MAX);
        }
        self.encode(self.input.raw).map(|_| ())
    }

    fn receive(&mut self) -> Result<Received> {
        if self.ended && self.ready.is_empty() && !self.drained {
            self.drained = !self.encode(ptr::null_mut())?;
        }
        let Some((number, _)) = self.ready.front() else {
            return Ok(if self.ended { Received::End } else { Received::NeedInput });
        };
        let Some(duration) = self.timeline.duration(*number, self.ended) else {
            return Ok(Received::NeedInput);
        };
        let Some((_, mut packet)) = self.ready.pop_front() else { return Ok(Received::NeedInput) };
        packet.duration = duration;
        Ok(Received::Packet(packet))
    }

    fn flush(&mut self) -> Result<()> {
        self.ended = true;
        Ok(())
    }

    fn extradata(&self) -> &[u8] {
        &self.extradata
    }

    fn parameters(&self) -> CodecParameters {
        self.config.parameters(&self.extradata, self.delay)
    }

    fn lookahead(&self) -> u32 {
        0
    }
}
