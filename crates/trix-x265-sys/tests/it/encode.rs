//! A few generated frames through the raw API.

use std::ffi::c_int;
use std::ptr;

use trix_x265_sys as sys;

const WIDTH: usize = 320;
const HEIGHT: usize = 192;
const FRAMES: i64 = 8;

/// A byte stream and the types of its NAL units in order.
#[derive(Debug, PartialEq, Eq)]
struct Stream {
    bytes: Vec<u8>,
    types: Vec<u32>,
}

impl Stream {
    fn take(&mut self, nals: *const sys::x265_nal, count: u32) {
        for index in 0..count as usize {
            // SAFETY: x265 gives an array of `count` units that lives until its next call.
            let nal = unsafe { &*nals.add(index) };
            assert!(nal.sizeBytes > 0);
            // SAFETY: the payload has as many bytes as the unit says.
            let payload =
                unsafe { std::slice::from_raw_parts(nal.payload, nal.sizeBytes as usize) };
            self.bytes.extend_from_slice(payload);
            self.types.push(nal.type_);
        }
    }

    fn count(&self, kind: u32) -> usize {
        self.types.iter().filter(|t| **t == kind).count()
    }

    /// Units that carry a slice: their types are below 32.
    fn slices(&self) -> usize {
        self.types.iter().filter(|t| **t < 32).count()
    }
}

/// A moving gradient: something to predict, and never flat. Three planes of samples of one or two bytes.
fn paint(number: i64, depth: usize) -> [Vec<u8>; 3] {
    [0, 1, 2].map(|plane| {
        let (width, height) = if plane == 0 { (WIDTH, HEIGHT) } else { (WIDTH / 2, HEIGHT / 2) };
        let mut samples = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let value = (x * 2 + y * 3 + number as usize * 5 + plane * 40) & 0xff;
                if depth > 8 {
                    samples.extend_from_slice(&((value << (depth - 8)) as u16).to_ne_bytes());
                } else {
                    samples.push(value as u8);
                }
            }
        }
        samples
    })
}

fn encode(depth: usize) -> Stream {
    let mut stream = Stream { bytes: Vec::new(), types: Vec::new() };
    // SAFETY: every function comes from the table of this depth, every structure is made and freed by it, and the
    // planes outlive the call that reads them.
    unsafe {
        let api = sys::api_get(depth as c_int).as_ref().expect("a table for the depth");
        assert_eq!(api.bit_depth, depth as c_int);
        let param = api.param_alloc.unwrap()();
        assert_eq!(api.param_default_preset.unwrap()(param, c"ultrafast".as_ptr(), ptr::null()), 0);
        for (name, value) in [
            (c"log-level", c"error"),
            (c"pools", c"none"),
            (c"frame-threads", c"1"),
            (c"info", c"0"),
            (c"repeat-headers", c"1"),
            (c"annexb", c"1"),
        ] {
            assert_eq!(
                api.param_parse.unwrap()(param, name.as_ptr(), value.as_ptr()),
                0,
                "{name:?}"
            );
        }
        (*param).sourceWidth = WIDTH as c_int;
        (*param).sourceHeight = HEIGHT as c_int;
        (*param).fpsNum = 25;
        (*param).fpsDenom = 1;
        (*param).internalCsp = sys::X265_CSP_I420;

        let encoder = api.encoder_open.unwrap()(param);
        assert!(!encoder.is_null(), "x265 opens at {depth} bit");
        let picture = api.picture_alloc.unwrap()();
        api.picture_init.unwrap()(param, picture);
        let (mut nals, mut count) = (ptr::null_mut(), 0);
        let sample = if depth > 8 { 2 } else { 1 };
        for number in 0..FRAMES {
            let mut planes = paint(number, depth);
            for (index, plane) in planes.iter_mut().enumerate() {
                (*picture).planes[index] = plane.as_mut_ptr().cast();
                let width = if index == 0 { WIDTH } else { WIDTH / 2 };
                (*picture).stride[index] = (width * sample) as c_int;
            }
            (*picture).bitDepth = depth as c_int;
            (*picture).pts = number;
            let given = api.encoder_encode.unwrap()(
                encoder,
                &mut nals,
                &mut count,
                picture,
                ptr::null_mut(),
            );
            assert!(given >= 0);
            stream.take(nals, count);
        }
        while api.encoder_encode.unwrap()(
            encoder,
            &mut nals,
            &mut count,
            ptr::null_mut(),
            ptr::null_mut(),
        ) > 0
        {
            stream.take(nals, count);
        }
        api.encoder_close.unwrap()(encoder);
        api.picture_free.unwrap()(picture);
        api.param_free.unwrap()(param);
    }
    stream
}

fn check(depth: usize) {
    let stream = encode(depth);
    assert_eq!(stream.slices(), FRAMES as usize);
    for kind in [sys::NAL_UNIT_VPS, sys::NAL_UNIT_SPS, sys::NAL_UNIT_PPS] {
        assert_eq!(stream.count(kind), 1, "{kind}");
    }
    // The video parameter set comes first: start code, then unit type 32.
    assert_eq!(&stream.bytes[..4], [0, 0, 0, 1]);
    assert_eq!(stream.bytes[4] >> 1, 32);
    assert_eq!(encode(depth), stream, "the same input gives the same bytes");
}

#[test]
fn eight_bit_frames_become_a_stream() {
    check(8);
}

#[test]
fn ten_bit_frames_become_a_stream() {
    check(10);
}

#[test]
fn twelve_bit_frames_become_a_stream() {
    check(12);
}

#[test]
fn a_depth_that_x265_does_not_have_gives_no_table() {
    // SAFETY: any number may be asked for.
    assert!(unsafe { sys::api_get(9) }.is_null());
}

#[test]
fn the_version_is_told_and_the_build_is_named() {
    assert!(!sys::VERSION.is_empty());
    assert_eq!(sys::BUILD_KEY.len(), 16);
}
