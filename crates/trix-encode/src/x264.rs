//! H.264 by x264, 8 and 10 bit.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Mutex;

use trix_av::{CodecParameters, VideoFrame};
use trix_model::Rational;
use trix_model::pixel::Chroma;
use trix_plan::encoder::RateControl;
use trix_plan::params;
use trix_x264_sys as sys;

use crate::encoder::{Headers, Packet, Received, VideoConfig, VideoEncoder};
use crate::error::{EncodeError, Result};
use crate::timeline::Timeline;

// Defaults: what trix sets whatever the profile says.

fn defaults(p: &mut sys::x264_param_t, config: &VideoConfig) -> Result<()> {
    let variant = config.settings.variant;
    let unsupported = |what: String| EncodeError::Unsupported { variant, what };
    // The bytes depend on it, so it is the engine id's, never the machine's.
    p.cpu = config.cpu.x264_mask();
    p.i_threads = config.settings.threads as c_int;
    p.b_sliced_threads = 0;
    p.b_deterministic = 1;
    // Chunks are joined: parameter sets must not depend on a chunk's content.
    p.b_stitchable = 1;
    p.b_open_gop = 0;
    p.b_intra_refresh = 0;
    p.b_annexb = 1;
    p.b_repeat_headers = c_int::from(config.headers == Headers::InBand);
    p.i_frame_total = 0;

    p.i_bitdepth = c_int::from(config.picture.format.depth);
    p.i_csp = colour_space(config);
    p.i_width = config.picture.width as c_int;
    p.i_height = config.picture.height as c_int;
    let fraction = |r: Rational, name: &str| {
        let n = u32::try_from(r.num());
        let d = u32::try_from(r.den());
        n.ok().zip(d.ok()).ok_or_else(|| unsupported(format!("{name} {r}: both parts are 32 bit")))
    };
    (p.i_fps_num, p.i_fps_den) = fraction(config.frame_rate, "frame rate")?;
    p.b_vfr_input = c_int::from(!config.constant_rate);
    // At a constant rate x264 counts frames, as its program does for y4m.
    (p.i_timebase_num, p.i_timebase_den) = if config.constant_rate {
        (p.i_fps_den, p.i_fps_num)
    } else {
        fraction(config.time_base, "time base")?
    };
    signal(p, config);
    Ok(())
}

/// Colour, aspect and HDR metadata: only what the source states.
fn signal(p: &mut sys::x264_param_t, config: &VideoConfig) {
    let color = &config.color;
    let code = |c: Option<u8>, unstated: c_int| c.map_or(unstated, c_int::from);
    p.vui.i_colorprim = code(color.primaries, p.vui.i_colorprim);
    p.vui.i_transfer = code(color.transfer, p.vui.i_transfer);
    p.vui.i_colmatrix = code(color.matrix, p.vui.i_colmatrix);
    p.vui.i_chroma_loc = code(color.chroma_location, p.vui.i_chroma_loc);
    if let Some(full) = color.full_range {
        p.vui.b_fullrange = c_int::from(full);
    }
    if let Some(sar) = config.sample_aspect {
        // x264 halves what does not fit 16 bits; what does not fit 32 is no aspect.
        let part = |n: i64| c_int::try_from(n).unwrap_or(0);
        (p.vui.i_sar_width, p.vui.i_sar_height) = (part(sar.num()), part(sar.den()));
    }
    if let Some(m) = &config.hdr.mastering_display {
        let [[rx, ry], [gx, gy], [bx, by]] = m.primaries.map(|c| c.map(c_int::from));
        let [wx, wy] = m.white_point.map(c_int::from);
        p.mastering_display = sys::x264_param_t__bindgen_ty_5 {
            b_mastering_display: 1,
            i_green_x: gx,
            i_green_y: gy,
            i_blue_x: bx,
            i_blue_y: by,
            i_red_x: rx,
            i_red_y: ry,
            i_white_x: wx,
            i_white_y: wy,
            i_display_max: i64::from(m.max_luminance),
            i_display_min: i64::from(m.min_luminance),
        };
    }
    if let Some(light) = &config.hdr.content_light {
        p.content_light_level = sys::x264_param_t__bindgen_ty_6 {
            b_cll: 1,
            i_max_cll: c_int::from(light.max_content),
            i_max_fall: c_int::from(light.max_frame_average),
        };
    }
}

fn colour_space(config: &VideoConfig) -> c_int {
    let base = match config.picture.format.chroma {
        Chroma::Mono => sys::X264_CSP_I400,
        Chroma::C420 => sys::X264_CSP_I420,
        Chroma::C422 => sys::X264_CSP_I422,
        Chroma::C444 => sys::X264_CSP_I444,
    };
    base | if config.picture.format.depth > 8 { sys::X264_CSP_HIGH_DEPTH } else { 0 }
}

// Settings: what the profile says, by x264's own names.

struct Param(sys::x264_param_t);

impl Param {
    fn preset(config: &VideoConfig) -> Result<Param> {
        let preset = c_string(&config.settings.preset);
        let tune = config.settings.tune.as_deref().map(c_string);
        let mut p = MaybeUninit::<sys::x264_param_t>::uninit();
        // SAFETY: x264_param_default_preset writes the whole structure before
        // it looks at the names, which are terminated strings or null.
        let (code, p) = unsafe {
            let code = sys::x264_param_default_preset(
                p.as_mut_ptr(),
                preset.as_ptr(),
                tune.as_ref().map_or(ptr::null(), |t| t.as_ptr()),
            );
            (code, p.assume_init())
        };
        if code < 0 {
            return Err(refused("choosing the preset", &config.settings.preset));
        }
        Ok(Param(p))
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let (n, v) = (c_string(name), c_string(value));
        // SAFETY: an initialised structure and two terminated strings.
        match unsafe { sys::x264_param_parse(&mut self.0, n.as_ptr(), v.as_ptr()) } {
            0 => Ok(()),
            _ => Err(refused("setting a parameter", &format!("{name}={value}"))),
        }
    }

    fn settings(&mut self, config: &VideoConfig) -> Result<()> {
        let settings = &config.settings;
        self.0.i_keyint_max = params::x264_keyint_max(settings.keyint) as c_int;
        if settings.keyint > 0 {
            // Scene cuts inside a segment become I frames that are no IDR.
            self.0.i_keyint_min = settings.keyint as c_int;
        }
        let mut profile = None;
        for (name, value) in config.ordered_params()? {
            match name {
                "profile" => profile = Some(value),
                "min-keyint" => self.0.i_keyint_min = value.parse().unwrap_or(0),
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
                self.set("qp", "0")?;
                None
            }
        };
        if let Some(vbv) = vbv {
            self.set("vbv-maxrate", &vbv.max_kbps.to_string())?;
            self.set("vbv-bufsize", &vbv.buffer_kbit.to_string())?;
        }
        defaults(&mut self.0, config)?;
        if let Some(profile) = profile {
            let name = c_string(&profile);
            // SAFETY: an initialised structure and a terminated string.
            if unsafe { sys::x264_param_apply_profile(&mut self.0, name.as_ptr()) } < 0 {
                return Err(refused("applying the profile", &profile));
            }
        }
        Ok(())
    }
}

impl Drop for Param {
    fn drop(&mut self) {
        // SAFETY: frees the strings that x264_param_parse copied; the encoder has its own.
        unsafe { sys::x264_param_cleanup(&mut self.0) }
    }
}

fn refused(operation: &'static str, reason: &str) -> EncodeError {
    EncodeError::Library { library: "x264", operation, reason: format!("{reason} was refused") }
}

fn c_string(text: &str) -> CString {
    // Profiles are text; what lies behind a zero would not reach the library anyway.
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

/// What x264 said last, for the error that follows. x264's threads write it too.
#[derive(Default)]
struct Log(Mutex<Option<String>>);

impl Log {
    fn take(&self) -> String {
        let mut last = self.0.lock().unwrap_or_else(|e| e.into_inner());
        last.take().unwrap_or_else(|| "no reason given".into())
    }
}

unsafe extern "C" {
    /// The C library's, for the formatted part of a message.
    fn vsnprintf(
        buffer: *mut c_char,
        size: usize,
        format: *const c_char,
        arguments: *mut sys::__va_list_tag,
    ) -> c_int;
}

/// Called by x264, from any of its threads, with printf's arguments.
unsafe extern "C" fn log(
    sink: *mut c_void,
    level: c_int,
    format: *const c_char,
    arguments: *mut sys::__va_list_tag,
) {
    let mut buffer = [0 as c_char; 1024];
    // SAFETY: x264 hands a format and the arguments that belong to it; the
    // buffer's size is passed, and vsnprintf terminates what it writes.
    let text = unsafe {
        vsnprintf(buffer.as_mut_ptr(), buffer.len(), format, arguments);
        CStr::from_ptr(buffer.as_ptr())
    };
    // No panic may cross into C. A message that cannot be kept is not worth one.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let text = text.to_string_lossy().trim().to_owned();
        match level {
            sys::X264_LOG_ERROR => {
                tracing::debug!(target: "x264", "{text}");
                // SAFETY: `sink` is the Log that the encoder keeps until it is closed.
                let log = unsafe { &*sink.cast::<Log>() };
                *log.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(text);
            }
            sys::X264_LOG_WARNING => tracing::warn!(target: "x264", "{text}"),
            _ => tracing::debug!(target: "x264", "{text}"),
        }
    }));
}

// State.

/// An open x264 encoder.
pub struct X264 {
    handle: *mut sys::x264_t,
    /// Boxed, because x264 keeps its address.
    log: Box<Log>,
    config: VideoConfig,
    extradata: Vec<u8>,
    /// The message that names the settings, until the first packet takes it along.
    info: Vec<u8>,
    timeline: Timeline,
    /// Pictures that display runs behind decode.
    delay: u64,
    lookahead: u32,
    coded: u64,
    ready: VecDeque<(u64, Packet)>,
    ended: bool,
}

// SAFETY: x264 binds nothing to the thread that opened it, and every call goes
// through `&mut self` or reads what no call changes.
unsafe impl Send for X264 {}

impl X264 {
    /// Opens x264; see [`VideoConfig::open`].
    pub fn open(config: &VideoConfig) -> Result<X264> {
        let log_sink = Box::new(Log::default());
        let mut param = Param::preset(config)?;
        param.0.pf_log = Some(log);
        param.0.p_log_private = ptr::from_ref(&*log_sink).cast_mut().cast();
        param.0.i_log_level = sys::X264_LOG_WARNING;
        param.settings(config)?;
        // SAFETY: an initialised structure; x264 copies it and its strings.
        let handle = unsafe { sys::x264_encoder_open(&mut param.0) };
        if handle.is_null() {
            return Err(EncodeError::Library {
                library: "x264",
                operation: "opening the encoder",
                reason: log_sink.take(),
            });
        }
        let mut this = X264 {
            handle,
            log: log_sink,
            config: config.clone(),
            extradata: Vec::new(),
            info: Vec::new(),
            timeline: Timeline::new(config.time_base, config.frame_rate),
            delay: 0,
            lookahead: 0,
            coded: 0,
            ready: VecDeque::new(),
            ended: false,
        };
        this.read_parameters();
        this.read_headers()?;
        Ok(this)
    }

    fn read_parameters(&mut self) {
        let mut p = MaybeUninit::<sys::x264_param_t>::uninit();
        // SAFETY: an open encoder; the call copies its whole structure into ours,
        // whose pointers stay the encoder's and are not followed here.
        let (p, delayed) = unsafe {
            sys::x264_encoder_parameters(self.handle, p.as_mut_ptr());
            (p.assume_init(), sys::x264_encoder_maximum_delayed_frames(self.handle))
        };
        self.delay = match (p.i_bframe, p.i_bframe_pyramid) {
            (0, _) => 0,
            (_, 0) => 1,
            _ => 2,
        };
        // Threads add delay, but look at no more frames than one thread does.
        let threads = if p.b_sliced_threads != 0 { 1 } else { p.i_threads };
        self.lookahead = (delayed - (threads - 1) - p.i_sync_lookahead).max(0) as u32;
    }

    fn read_headers(&mut self) -> Result<()> {
        let mut nals = ptr::null_mut();
        let mut count = 0;
        // SAFETY: an open encoder and two places to write to.
        let size = unsafe { sys::x264_encoder_headers(self.handle, &mut nals, &mut count) };
        if size < 0 {
            return Err(self.failed("writing the parameter sets"));
        }
        // SAFETY: x264 gave `count` units that live until the next call.
        for nal in unsafe { units(nals, count) } {
            match nal.kind {
                sys::NAL_SPS | sys::NAL_PPS => self.extradata.extend(nal.bytes),
                // With headers in the stream, x264 writes its message itself.
                sys::NAL_SEI if self.config.info_message && self.is_global() => {
                    self.info.extend(nal.bytes);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn is_global(&self) -> bool {
        self.config.headers == Headers::Global
    }

    /// Frames that went in and did not come out yet.
    fn delayed(&self) -> c_int {
        // SAFETY: an open encoder.
        unsafe { sys::x264_encoder_delayed_frames(self.handle) }
    }

    fn failed(&self, operation: &'static str) -> EncodeError {
        EncodeError::Library { library: "x264", operation, reason: self.log.take() }
    }

    /// Hands a picture over, or none to get what is delayed, and keeps what comes out.
    fn encode(&mut self, input: Option<&mut sys::x264_picture_t>) -> Result<()> {
        let mut nals = ptr::null_mut();
        let mut count = 0;
        let mut out = MaybeUninit::<sys::x264_picture_t>::uninit();
        // SAFETY: an open encoder; the picture's planes are alive for the call,
        // which copies them; `out` is initialised before it is read, since x264
        // sets the fields that are used below whenever it returns a packet.
        let (size, out) = unsafe {
            sys::x264_picture_init(out.as_mut_ptr());
            let mut out = out.assume_init();
            let input = input.map_or(ptr::null_mut(), ptr::from_mut);
            let size =
                sys::x264_encoder_encode(self.handle, &mut nals, &mut count, input, &mut out);
            (size, out)
        };
        if size < 0 {
            return Err(self.failed("encoding a frame"));
        }
        if size == 0 {
            return Ok(());
        }
        let mut payload = std::mem::take(&mut self.info);
        // SAFETY: x264 gave `count` units that live until the next call.
        for nal in unsafe { units(nals, count) } {
            if self.config.info_message || !nal.is_info() {
                payload.extend_from_slice(nal.bytes);
            }
        }
        // The number travelled through x264 beside the picture.
        let number = out.opaque as usize as u64;
        let pts = self.timeline.pts(number).ok_or_else(|| EncodeError::Library {
            library: "x264",
            operation: "encoding a frame",
            reason: format!("frame {number} came out, but never went in"),
        })?;
        let dts = self.timeline.dts(self.coded, self.delay);
        self.coded += 1;
        let packet = Packet { pts, dts, duration: 0, key: out.b_keyframe != 0, payload };
        self.ready.push_back((number, packet));
        Ok(())
    }
}

/// A NAL unit in x264's memory, start code included.
struct Unit<'a> {
    kind: u32,
    bytes: &'a [u8],
}

impl Unit<'_> {
    /// x264's own message: user data (type 5) of an SEI unit.
    fn is_info(&self) -> bool {
        let body = self.bytes.iter().position(|b| *b == 1).map(|one| &self.bytes[one + 1..]);
        self.kind == sys::NAL_SEI
            && body.is_some_and(|b| b.get(1) == Some(&5) && b.windows(4).any(|w| w == b"x264"))
    }
}

/// # Safety
/// `nals` points to `count` units whose payloads outlive the iterator.
unsafe fn units<'a>(nals: *const sys::x264_nal_t, count: c_int) -> impl Iterator<Item = Unit<'a>> {
    (0..usize::try_from(count).unwrap_or(0)).map(move |i| {
        // SAFETY: by the function's own condition.
        let nal = unsafe { &*nals.add(i) };
        let len = usize::try_from(nal.i_payload).unwrap_or(0);
        // SAFETY: the same.
        let bytes = unsafe { std::slice::from_raw_parts(nal.p_payload, len) };
        Unit { kind: nal.i_type as u32, bytes }
    })
}

impl Drop for X264 {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed once; the log outlives the call, because
        // fields are dropped after this.
        unsafe { sys::x264_encoder_close(self.handle) }
    }
}

impl VideoEncoder for X264 {
    fn send(&mut self, frame: &VideoFrame) -> Result<()> {
        let number = self.timeline.len();
        if self.ended {
            return Err(EncodeError::AfterEnd { frame: number });
        }
        self.config.check_frame(frame, number)?;
        self.timeline.push(frame)?;
        let mut picture = MaybeUninit::<sys::x264_picture_t>::uninit();
        // SAFETY: x264_picture_init writes the whole structure.
        let mut picture = unsafe {
            sys::x264_picture_init(picture.as_mut_ptr());
            picture.assume_init()
        };
        let keyint = u64::from(self.config.settings.keyint);
        if keyint > 1 && number > 0 && number.is_multiple_of(keyint) {
            picture.i_type = sys::X264_TYPE_IDR;
        }
        picture.i_pts = if self.config.constant_rate {
            number as i64
        } else {
            // From zero, so that a chunk does not depend on its place in the film.
            frame.pts().unwrap_or(0) - self.timeline.first()
        };
        picture.opaque = number as usize as *mut c_void;
        picture.img.i_csp = colour_space(&self.config);
        let planes = self.config.picture.format.planes();
        picture.img.i_plane = planes as c_int;
        for i in 0..planes {
            let plane = frame.plane(i);
            picture.img.plane[i] = plane.data.as_ptr().cast_mut();
            picture.img.i_stride[i] = c_int::try_from(plane.stride).unwrap_or(c_int::MAX);
        }
        self.encode(Some(&mut picture))
    }

    fn receive(&mut self) -> Result<Received> {
        while self.ended && self.ready.is_empty() && self.delayed() > 0 {
            self.encode(None)?;
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
        self.lookahead
    }
}
