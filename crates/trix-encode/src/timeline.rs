//! Times of frames in and packets out.
//!
//! Encoders count frames; this keeps each frame's own pts beside it, so that
//! what comes out has exactly the times that went in, whatever the encoder
//! rounds. The dts of the *j*-th coded packet is the pts of the frame *delay*
//! places before it in display order; before the first frame it is continued
//! backwards at the nominal rate.

use trix_av::VideoFrame;
use trix_model::Rational;
use trix_model::time::{Rounding, rescale};

use crate::error::{EncodeError, Result};

/// The times of all frames that were sent.
pub struct Timeline {
    pts: Vec<i64>,
    /// Duration of the last frame as it states it, 0 when it does not.
    last_duration: i64,
    time_base: Rational,
    frame_length: Rational,
}

impl Timeline {
    /// `frame_rate` must be above zero, which opening an encoder checks.
    pub fn new(time_base: Rational, frame_rate: Rational) -> Timeline {
        let frame_length = frame_rate.inverse().unwrap_or(Rational::ONE);
        Timeline { pts: Vec::new(), last_duration: 0, time_base, frame_length }
    }

    /// Frames sent so far, which is also the next frame's number.
    pub fn len(&self) -> u64 {
        self.pts.len() as u64
    }

    /// Takes the next frame's time and returns its number.
    pub fn push(&mut self, frame: &VideoFrame) -> Result<u64> {
        let number = self.len();
        let after = self.pts.last().copied();
        match frame.pts() {
            Some(pts) if after.is_none_or(|a| pts > a) => {
                self.pts.push(pts);
                self.last_duration = frame.duration();
                Ok(number)
            }
            pts => Err(EncodeError::Time { frame: number, pts, after }),
        }
    }

    /// Time of the first frame.
    pub fn first(&self) -> i64 {
        self.pts.first().copied().unwrap_or(0)
    }

    /// Time of a frame that was sent.
    pub fn pts(&self, number: u64) -> Option<i64> {
        self.pts.get(usize::try_from(number).ok()?).copied()
    }

    /// Decode time of the `coded`-th packet when display runs `delay` frames behind.
    pub fn dts(&self, coded: u64, delay: u64) -> i64 {
        match coded.checked_sub(delay).and_then(|n| self.pts(n)) {
            Some(pts) => pts,
            None => self.first() - self.nominal(delay.saturating_sub(coded)),
        }
    }

    /// Time from a frame to the next; `None` while the next is not known and may still come.
    pub fn duration(&self, number: u64, ended: bool) -> Option<i64> {
        let pts = self.pts(number)?;
        match self.pts(number + 1) {
            Some(next) => Some(next - pts),
            None if ended && self.last_duration > 0 => Some(self.last_duration),
            None if ended => Some(self.nominal(1)),
            None => None,
        }
    }

    /// Ticks of so many frames at the nominal rate; at least a tick each.
    fn nominal(&self, frames: u64) -> i64 {
        let frames = frames as i64;
        rescale(frames, self.frame_length, self.time_base, Rounding::Nearest).max(frames)
    }
}
