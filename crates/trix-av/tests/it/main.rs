//! trix-av against files that Debian's ffmpeg makes and judges.

mod clips;
mod convert;
mod fixture;
mod frames;
mod judge;
mod mux;
mod refusals;
