//! The two binaries that people start: trix and trix-media.
