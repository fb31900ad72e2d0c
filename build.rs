//! The build script of trix-x264-sys and trix-x265-sys: which one is told by the crate's `links` key.

fn main() {
    trix_native_build::main();
}
