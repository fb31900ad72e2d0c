//! A few generated frames through the raw API.

use std::mem::MaybeUninit;
use std::ptr;

use trix_x264_sys as sys;

const WIDTH: i32 = 320;
const HEIGHT: i32 = 192;
const FRAMES: i64 = 12;

/// A byte stream and the types of its NAL units in order.
#[derive(Debug, PartialEq, Eq)]
struct Stream {
    bytes: Vec<u8>,
    types: Vec<i32>,
}

impl Stream {
    fn take(&mut self, nals: *const sys::x264_nal_t, count: i32) {
        for index in 0..count as usize {
            // SAFETY: x264 gives an array of `count` units that lives until its next call.
            let nal = unsafe { &*nals.add(index) };
            assert!(nal.i_payload > 0);
            // SAFETY: the payload has as many bytes as the unit says.
            let payload =
                unsafe { std::slice::from_raw_parts(nal.p_payload, nal.i_payload as usize) };
            self.bytes.extend_from_slice(payload);
            self.types.push(nal.i_type);
        }
    }

    fn count(&self, kind: u32) -> usize {
        self.types.iter().filter(|t| **t == kind as i32).count()
    }
}

/// A moving gradient: something to predict, and never flat.
fn paint(picture: &mut sys::x264_picture_t, number: i64, depth: i32) {
    for plane in 0..3 {
        let (width, height) = if plane == 0 { (WIDTH, HEIGHT) } else { (WIDTH / 2, HEIGHT / 2) };
        let stride = picture.img.i_stride[plane] as usize;
        for y in 0..height as usize {
            for x in 0..width as usize {
                let value = (x * 2 + y * 3 + number as usize * 5 + plane * 40) & 0xff;
                // SAFETY: x264_picture_alloc made each plane at least height lines of `stride` bytes.
                unsafe {
                    let line = picture.img.plane[plane].add(y * stride);
                    if depth > 8 {
                        *line.cast::<u16>().add(x) = (value << (depth - 8)) as u16;
                    } else {
                        *line.add(x) = value as u8;
                    }
                }
            }
        }
    }
}

fn encode(depth: i32, preset: &std::ffi::CStr) -> Stream {
    let mut stream = Stream { bytes: Vec::new(), types: Vec::new() };
    // SAFETY: each structure is filled by x264's own initialiser before it is read, pointers outlive the calls, and
    // the encoder is closed once.
    unsafe {
        let mut param = MaybeUninit::<sys::x264_param_t>::uninit();
        assert_eq!(
            sys::x264_param_default_preset(param.as_mut_ptr(), preset.as_ptr(), ptr::null()),
            0
        );
        let mut param = param.assume_init();
        let space = if depth > 8 {
            sys::X264_CSP_I420 | sys::X264_CSP_HIGH_DEPTH
        } else {
            sys::X264_CSP_I420
        };
        param.i_bitdepth = depth;
        param.i_csp = space;
        param.i_width = WIDTH;
        param.i_height = HEIGHT;
        param.i_fps_num = 25;
        param.i_fps_den = 1;
        param.i_threads = 1;
        param.b_annexb = 1;
        param.b_repeat_headers = 1;
        param.i_log_level = sys::X264_LOG_ERROR;

        let encoder = sys::x264_encoder_open(&mut param);
        assert!(!encoder.is_null(), "x264 opens at {depth} bit");
        let mut picture = MaybeUninit::<sys::x264_picture_t>::uninit();
        assert_eq!(sys::x264_picture_alloc(picture.as_mut_ptr(), space, WIDTH, HEIGHT), 0);
        let mut picture = picture.assume_init();
        let mut out = MaybeUninit::<sys::x264_picture_t>::uninit();
        let (mut nals, mut count) = (ptr::null_mut(), 0);
        for number in 0..FRAMES {
            paint(&mut picture, number, depth);
            picture.i_pts = number;
            assert!(
                sys::x264_encoder_encode(
                    encoder,
                    &mut nals,
                    &mut count,
                    &mut picture,
                    out.as_mut_ptr()
                ) >= 0
            );
            stream.take(nals, count);
        }
        while sys::x264_encoder_delayed_frames(encoder) > 0 {
            assert!(
                sys::x264_encoder_encode(
                    encoder,
                    &mut nals,
                    &mut count,
                    ptr::null_mut(),
                    out.as_mut_ptr()
                ) >= 0
            );
            stream.take(nals, count);
        }
        sys::x264_encoder_close(encoder);
        sys::x264_picture_clean(&mut picture);
    }
    stream
}

fn check(depth: i32, profile: u8) {
    let stream = encode(depth, c"medium");
    assert_eq!(stream.count(sys::NAL_SLICE_IDR), 1);
    assert_eq!(stream.count(sys::NAL_SLICE_IDR) + stream.count(sys::NAL_SLICE), FRAMES as usize);
    assert_eq!((stream.count(sys::NAL_SPS), stream.count(sys::NAL_PPS)), (1, 1));
    // The parameter set comes first: start code, unit type 7, then profile_idc.
    assert_eq!(&stream.bytes[..4], [0, 0, 0, 1]);
    assert_eq!(stream.bytes[4] & 0x1f, 7);
    assert_eq!(stream.bytes[5], profile);
    assert_eq!(encode(depth, c"medium"), stream, "the same input gives the same bytes");
}

#[test]
fn eight_bit_frames_become_a_high_profile_stream() {
    check(8, 100);
}

#[test]
fn ten_bit_frames_become_a_high_10_stream() {
    check(10, 110);
}

#[test]
fn a_depth_that_x264_does_not_have_is_refused() {
    // SAFETY: the parameters are initialised by x264, and a refused open gives null and keeps nothing.
    let encoder = unsafe {
        let mut param = MaybeUninit::<sys::x264_param_t>::uninit();
        sys::x264_param_default(param.as_mut_ptr());
        let mut param = param.assume_init();
        param.i_bitdepth = 12;
        param.i_width = WIDTH;
        param.i_height = HEIGHT;
        param.i_log_level = sys::X264_LOG_NONE;
        sys::x264_encoder_open(&mut param)
    };
    assert!(encoder.is_null());
}

#[test]
fn the_version_is_told_and_the_build_is_named() {
    assert!(sys::VERSION.starts_with("0."), "{}", sys::VERSION);
    assert_eq!(sys::BUILD_KEY.len(), 16);
}
