//! Sample format, rate and channel layout of sound, to the sample.

use std::ffi::c_int;
use std::ptr;

use ffmpeg_sys_next as sys;
use trix_model::time::{Rounding, mul_div};

use crate::error::{AvError, Result};
use crate::ffi;
use crate::frame::{AudioFrame, Layout, SampleFormat};

/// Converts runs of samples, one after the other. Between inputs of one rate
/// the number of samples that comes out is exactly that which went in, times
/// the ratio of the rates, rounded to the nearest.
pub struct Resampler {
    format: SampleFormat,
    rate: u32,
    /// `None` keeps the source's.
    layout: Option<Layout>,
    current: Option<Current>,
}

impl Resampler {
    /// To samples of `format` at `rate` in `layout` (libav's words, e.g. `stereo`; `None` keeps the source's).
    ///
    /// # Errors
    /// [`AvError::Request`] for a layout that libav does not know.
    pub fn new(format: SampleFormat, rate: u32, layout: Option<&str>) -> Result<Resampler> {
        if c_int::try_from(rate).map_or(true, |r| r <= 0) {
            return Err(AvError::Request { what: format!("there is no sample rate of {rate} Hz") });
        }
        let layout = layout.map(Layout::parse).transpose()?;
        Ok(Resampler { format, rate, layout, current: None })
    }

    /// Takes a run and gives what is ready, without a pts: samples are counted.
    pub fn push(&mut self, source: &AudioFrame) -> Result<Option<AudioFrame>> {
        let shape = Shape::of(source);
        let mut out = Vec::new();
        if self.current.as_ref().is_none_or(|c| c.shape != shape) {
            out.extend(self.finish()?);
            self.current = Some(Current::new(self, shape)?);
        }
        if let Some(current) = &mut self.current {
            current.taken += source.samples() as i64;
            match current.context {
                None => out.push(source.share()?),
                Some(_) => out.extend(current.convert(Some(source), self.format, self.rate)?),
            }
        }
        AudioFrame::join(out)
    }

    /// Gives what is left. The next [`Resampler::push`] starts anew.
    pub fn finish(&mut self) -> Result<Option<AudioFrame>> {
        let Some(mut current) = self.current.take() else { return Ok(None) };
        if current.context.is_none() {
            return Ok(None);
        }
        let mut out = Vec::new();
        while let Some(frame) = current.convert(None, self.format, self.rate)? {
            out.push(frame);
        }
        let wanted = mul_div(
            current.taken,
            i64::from(self.rate),
            i64::from(current.shape.rate),
            Rounding::Nearest,
        );
        // The filter's tail is a few samples longer or shorter than the sum.
        let mut excess = usize::try_from(current.given - wanted).unwrap_or(0);
        while excess > 0 {
            let Some(last) = out.pop() else { break };
            let keep = last.samples().saturating_sub(excess);
            excess -= last.samples() - keep;
            if keep > 0 {
                out.push(last.slice(0, keep)?);
            }
        }
        if let Ok(short @ 1..) = usize::try_from(wanted - current.given) {
            out.push(AudioFrame::alloc_layout(self.format, self.rate, &current.layout, short)?);
        }
        AudioFrame::join(out)
    }
}

/// What a conversion context depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    format: SampleFormat,
    rate: u32,
    layout: String,
    channels: u16,
}

impl Shape {
    fn of(source: &AudioFrame) -> Shape {
        Shape {
            format: source.format(),
            rate: source.rate(),
            layout: source.layout(),
            channels: source.channels(),
        }
    }

    /// The layout; where only the number of channels is known, the usual one of so many.
    fn layout(&self) -> Layout {
        match Layout::parse(&self.layout) {
            Ok(layout) if layout.is_ordered() => layout,
            _ => Layout::default_of(self.channels),
        }
    }
}

struct Current {
    /// `None` when the samples go through as they are.
    context: Option<Context>,
    shape: Shape,
    /// What comes out.
    layout: Layout,
    taken: i64,
    given: i64,
}

struct Context(*mut sys::SwrContext);

// SAFETY: the context belongs to this value alone and runs on the caller's thread.
unsafe impl Send for Context {}

impl Current {
    fn new(target: &Resampler, shape: Shape) -> Result<Current> {
        let from = shape.layout();
        let to = match &target.layout {
            Some(layout) => layout.share()?,
            None => shape.layout(),
        };
        let same = shape.format == target.format
            && shape.rate == target.rate
            && from.describe() == to.describe();
        let context = if same {
            None
        } else {
            let mut raw = ptr::null_mut();
            // SAFETY: the layouts are valid and copied; formats are libav's numbers.
            let code = unsafe {
                ffi::swr_alloc_set_opts2(
                    &mut raw,
                    to.as_ptr(),
                    target.format.raw(),
                    target.rate as c_int,
                    from.as_ptr(),
                    shape.format.raw(),
                    shape.rate as c_int,
                    0,
                    ptr::null_mut(),
                )
            };
            let context = Context(raw);
            if code < 0 {
                return Err(AvError::library("making a resampler", code));
            }
            if shape.rate != target.rate {
                // SoX's resampler at 28 bits, which is beyond 24-bit sound.
                // SAFETY: a context of ours; terminated names and values.
                unsafe {
                    sys::av_opt_set(raw.cast(), c"resampler".as_ptr(), c"soxr".as_ptr(), 0);
                    sys::av_opt_set(raw.cast(), c"precision".as_ptr(), c"28".as_ptr(), 0);
                }
            }
            // SAFETY: a context of ours with all parameters set.
            let code = unsafe { sys::swr_init(raw) };
            if code < 0 {
                return Err(AvError::Unsupported {
                    what: format!(
                        "converting {} at {} Hz to {} at {} Hz",
                        shape.layout,
                        shape.rate,
                        to.describe(),
                        target.rate
                    ),
                });
            }
            Some(context)
        };
        Ok(Current { context, shape, layout: to, taken: 0, given: 0 })
    }

    /// `None` as source drains the filter.
    fn convert(
        &mut self,
        source: Option<&AudioFrame>,
        format: SampleFormat,
        rate: u32,
    ) -> Result<Option<AudioFrame>> {
        let Some(Context(context)) = &self.context else { return Ok(None) };
        let context = *context;
        let samples = source.map_or(0, AudioFrame::samples) as c_int;
        // SAFETY: an initialised context.
        let room = unsafe { sys::swr_get_out_samples(context, samples) };
        if room < 0 {
            return Err(AvError::library("resampling", room));
        }
        if room == 0 {
            return Ok(None);
        }
        let out = AudioFrame::alloc_layout(format, rate, &self.layout, room as usize)?;
        // SAFETY: the output has room for so many samples in each of its
        // planes; the input's planes hold its samples, in the context's format.
        let count = unsafe {
            sys::swr_convert(
                context,
                (*out.as_ptr()).extended_data as *const *mut u8,
                room,
                source.map_or(ptr::null(), |s| (*s.as_ptr()).extended_data.cast_const().cast()),
                samples,
            )
        };
        if count < 0 {
            return Err(AvError::library("resampling", count));
        }
        if count == 0 {
            return Ok(None);
        }
        self.given += i64::from(count);
        if count == room { Ok(Some(out)) } else { out.slice(0, count as usize).map(Some) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: ours; libav sets the pointer to null.
        unsafe { sys::swr_free(&mut self.0) }
    }
}
