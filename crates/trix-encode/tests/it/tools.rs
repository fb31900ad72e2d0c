//! Other people's programs as judges. The product starts none of them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use trix_av::VideoFrame;
use trix_av::{MuxOptions, MuxTrack, Muxer};
use trix_encode::VideoConfig;
use trix_plan::task::Container;

use crate::pictures::{Encoded, RATE};

/// The program's path, or a line that says which test is skipped and why.
pub fn program(name: &str, test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file())
    });
    if found.is_none() {
        println!("SKIP {test}: the program {name} is not installed");
    }
    found
}

pub fn run(program: &Path, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(
        out.status.success(),
        "{} {}: {}",
        program.display(),
        args.join(" "),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// Writes pictures as YUV4MPEG2, which both encoders' programs read.
pub fn write_y4m(path: &Path, config: &VideoConfig, frames: &[VideoFrame]) {
    let p = config.picture;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let colour = match p.format.depth {
        8 => "420jpeg".to_owned(),
        d => format!("420p{d}"),
    };
    let (num, den) = RATE;
    writeln!(file, "YUV4MPEG2 W{} H{} F{num}:{den} Ip A0:0 C{colour}", p.width, p.height).unwrap();
    for frame in frames {
        file.write_all(b"FRAME\n").unwrap();
        for i in 0..p.format.planes() {
            let plane = frame.plane(i);
            for y in 0..plane.height {
                file.write_all(plane.row(y)).unwrap();
            }
        }
    }
    file.flush().unwrap();
}

/// The name of a file that [`write_stream`] writes.
pub fn stream_name(config: &VideoConfig) -> &'static str {
    match config.settings.variant.codec() {
        "h264" => "a.h264",
        "hevc" => "a.hevc",
        "av1" => "a.ivf",
        _ => "a.mkv",
    }
}

/// Writes a stream in a form that ffprobe reads: Annex B, IVF for AV1, Matroska for FFV1.
pub fn write_stream(path: &Path, config: &VideoConfig, encoded: &Encoded) {
    match config.settings.variant.codec() {
        "av1" => std::fs::write(path, ivf(config, encoded)).unwrap(),
        "ffv1" => mux(path, Container::Mkv, config, encoded),
        _ => std::fs::write(path, encoded.stream()).unwrap(),
    }
}

/// Writes a container with the product's muxer.
pub fn mux(path: &Path, container: Container, config: &VideoConfig, encoded: &Encoded) {
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(path).unwrap();
    let track = MuxTrack {
        parameters: encoded.parameters.clone(),
        time_base: config.time_base,
        language: None,
        title: None,
        default: true,
        rotation: 0,
    };
    let options = MuxOptions::default();
    let mut muxer = Muxer::create(file, container, &[track], &options).unwrap();
    for packet in &encoded.packets {
        muxer.write(0, &packet.clone().into()).unwrap();
    }
    muxer.finish().unwrap();
}

fn ivf(config: &VideoConfig, encoded: &Encoded) -> Vec<u8> {
    let mut out = b"DKIF\0\0\x20\0AV01".to_vec();
    out.extend((config.picture.width as u16).to_le_bytes());
    out.extend((config.picture.height as u16).to_le_bytes());
    out.extend((RATE.0 as u32).to_le_bytes());
    out.extend((RATE.1 as u32).to_le_bytes());
    out.extend((encoded.packets.len() as u32).to_le_bytes());
    out.extend([0; 4]);
    for packet in &encoded.packets {
        out.extend((packet.payload.len() as u32).to_le_bytes());
        out.extend(packet.pts.to_le_bytes());
        out.extend(&packet.payload);
    }
    out
}

/// What ffprobe says of the stream and its first frame, after decoding all of it.
pub fn probe(ffprobe: &Path, path: &Path) -> serde_json::Value {
    let path = path.to_str().unwrap();
    let text = run(
        ffprobe,
        &["-v", "error", "-count_frames", "-show_streams", "-show_frames", "-of", "json", path],
    );
    serde_json::from_str(&text).unwrap()
}
