//! Safe libav: demux, decode, filter, scale, resample, mux; the only crate that sees ffmpeg-next.
