//! The encoder trait, and x264, x265, rav1e and libavcodec behind it.
