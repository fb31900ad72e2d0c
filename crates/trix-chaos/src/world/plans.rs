//! The plans of a world: real [`Plan`]s of real specs over films that do not exist, small
//! enough that hundreds of steps see a whole job through. Jobs of one film share keys, as
//! titles that are submitted twice do.

use trix_model::{Digest, Key, Rational};
use trix_plan::task::{
    Container, Cost, EncodeChunk, Expectation, FrameRange, Intake, Mux, MuxVideo, Output, Plan,
    Publish, PublishFile, PublishFrom, SourceRef, Task, TaskSpec, Verify,
};

/// The engine of every slot.
pub const ENGINE: &str = "engine-1";
/// The cache share.
pub const CACHE: &str = "cache";
/// The source share.
pub const SOURCE: &str = "in";
/// The destination.
pub const OUTPUT: &str = "out";

/// What a film is encoded to: which decides the keys behind intake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Which film.
    pub film: u8,
    /// Which profile.
    pub profile: u8,
    /// How many chunks.
    pub chunks: u8,
}

/// The key of something made from a film.
fn key(what: u8, film: u8, profile: u8, n: u8) -> Key {
    let mut k = [0u8; 32];
    k[..4].copy_from_slice(&[what, film, profile, n]);
    // So that keys do not sort as they are made.
    k[31] = what.wrapping_mul(31) ^ film.wrapping_mul(17) ^ n.wrapping_mul(101);
    k.rotate_right(1);
    Key(k)
}

/// The digest of what a key stands for, in a run without faults.
pub fn golden(key: &Key) -> Digest {
    Digest(key.0)
}

fn share(name: &str) -> trix_model::ShareName {
    // The three names above are names.
    name.parse().unwrap_or_else(|_| unreachable!("{name} is a share's name"))
}

fn source(film: u8) -> SourceRef {
    let location = format!("{SOURCE}:film-{film}.mov");
    let location = location.parse().unwrap_or_else(|_| unreachable!("{location} is a path"));
    SourceRef { location, size: 9, mtime_ns: 1 }
}

fn task(
    name: String,
    spec: TaskSpec,
    needs: &[String],
    outputs: &[(&str, Key)],
    mcpu: u32,
) -> Task {
    Task {
        name,
        spec,
        needs: needs.to_vec(),
        outputs: outputs.iter().map(|(n, k)| Output { name: (*n).into(), key: *k }).collect(),
        cost: Cost { mcpu, ram: 100, scratch: 10, estimate_ms: 1000 },
    }
}

/// Intake of a film.
pub fn plan0(film: u8) -> Plan {
    let spec = TaskSpec::Intake(Intake { source: source(film), sidecars: vec![], tee: None });
    let tasks = vec![task("intake".into(), spec, &[], &[("index", key(0, film, 0, 0))], 1000)];
    Plan { version: 1, engine: ENGINE.into(), tasks, results: vec![] }
}

/// Chunks → file → verification → publication.
pub fn plan1(w: Wish) -> Plan {
    let Wish { film, profile, chunks } = w;
    let index = key(0, film, 0, 0);
    let chunk_key = |n: u8| key(1, film, profile, n);
    let file = key(2, film, profile, chunks);
    let mut tasks = Vec::new();
    let mut names = Vec::new();
    for n in 0..chunks {
        let first = u32::from(n) * 2;
        let spec = TaskSpec::EncodeChunk(EncodeChunk {
            source: source(film),
            index,
            stream: 0,
            chunk: u32::from(n),
            range: FrameRange { first, count: 2, first_pts: 0, end_pts: 2 },
            decode_from: 0,
            zero_pts: 0,
            time_base: Rational::ONE,
            frame_rate: Rational::ONE,
            constant_rate: true,
            renditions: vec![],
            rotation: 0,
        });
        let name = format!("encode/{n:04}");
        tasks.push(task(name.clone(), spec, &["intake".into()], &[("r", chunk_key(n))], 1000));
        names.push(name);
    }
    let mux = TaskSpec::Mux(Mux {
        container: Container::Mp4,
        video: Some(MuxVideo {
            chunks: (0..chunks).map(chunk_key).collect(),
            duration: i64::from(chunks) * 2,
            rotation: 0,
        }),
        audio: vec![],
        tags: Default::default(),
    });
    tasks.push(task("mux/r".into(), mux, &names, &[("file", file)], 500));
    let expect = Expectation { video: None, audio: vec![] };
    let verify = TaskSpec::Verify(Verify { file, expect });
    let report = key(3, film, profile, chunks);
    tasks.push(task("verify/r".into(), verify, &["mux/r".into()], &[("report", report)], 1000));
    let named = |name: &str, key| PublishFile {
        name: name.parse().unwrap_or_else(|_| unreachable!("{name} is a name")),
        from: PublishFrom::Artifact { key },
    };
    let target = format!("films/film-{film}");
    let publish = TaskSpec::Publish(Publish {
        share: share(OUTPUT),
        target: target.parse().unwrap_or_else(|_| unreachable!("{target} is a path")),
        role: "output".into(),
        files: vec![named("Film.mp4", file), named("report.json", report)],
    });
    let needs = ["mux/r".into(), "verify/r".into()];
    tasks.push(task("publish/output".into(), publish, &needs, &[], 250));
    Plan { version: 1, engine: ENGINE.into(), tasks, results: vec![] }
}
