//! The real clips.

use std::path::{Path, PathBuf};

use trix_av::{AvError, IndexMode, Input, build_index_with, probe};
use trix_model::index::FrameSource;

use crate::fixture::{open, real_clips};
use crate::frames::{main_stream, read, table};
use crate::judge;

fn files(root: &Path, folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root.join(folder))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_file())
        .collect();
    files.sort();
    files
}

#[test]
fn survey() {
    let Some(root) = real_clips("survey") else { return };
    for folder in ["clips", "shapes"] {
        for path in files(&root, folder) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            println!("{name}: {}", look(&path));
        }
    }
}

fn look(path: &Path) -> String {
    let mut input = match Input::open(open(path)) {
        Ok(input) => input,
        Err(e) => return format!("refused {} ({e})", e.code()),
    };
    let Some(main) = input.main_video() else { return "no video".into() };
    let indexed = match build_index_with(&mut input, IndexMode::Auto, &mut |_| true) {
        Ok(i) => i,
        Err(e) => return format!("index refused {} ({e})", e.code()),
    };
    let judged = judge::frame_times(path, main);
    let t = table(&indexed);
    let same = judged.iter().copied().collect::<Option<Vec<i64>>>().as_ref() == Some(&t.pts);
    let all = read(path, main_stream(&indexed), 0, 0, usize::MAX);
    let mut note = format!(
        "{} {} frames, ffprobe {} {}, reader {}, access {}, findings {:?}",
        input.codec(main).unwrap(),
        t.pts.len(),
        judged.len(),
        if same { "same" } else { "DIFFERENT" },
        all.len(),
        t.access.len(),
        indexed.findings.iter().map(|f| f.code.as_str()).collect::<Vec<_>>()
    );
    if t.source == FrameSource::Decode {
        note.push_str(" DECODED");
    }
    if !same {
        note.push_str(&format!(
            " ours {:?} theirs {:?}",
            &t.pts[..t.pts.len().min(6)],
            &judged[..judged.len().min(6)]
        ));
    }
    let _ = probe(open(path)).map(|d| note.push_str(&format!(" {}", d.container)));
    let _: Option<AvError> = None;
    note
}
