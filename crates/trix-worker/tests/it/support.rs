//! A site: a database with a leader, shares, and workers as processes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use trix_db::access::Role;
use trix_db::jobs::{AttemptRow, Submit, TaskRow};
use trix_db::leader::Seat;
use trix_db::{Db, ProtocolTimes};
use trix_model::state::{AttemptState, JobState, TaskState};
use trix_model::{Digest, JobId, Key, WorkerId};
use trix_plan::encoder::{AudioCodec, AudioSettings};
use trix_plan::task::{
    Container, Cost, EncodeAudio, Intake, Mux, MuxAudio, Output, Plan, Publish, PublishFile,
    PublishFrom, SourceRef, Task, TaskSpec,
};
use trix_testkit::pg::TestDb;

/// A tenth of the real times. A probe of a local folder hangs only when the whole
/// machine does, which is not what these tests are about.
pub fn times() -> ProtocolTimes {
    ProtocolTimes {
        mount_deadline: Duration::from_secs(20),
        ..ProtocolTimes::default().scaled(0.1)
    }
}

/// An example of this package, which Cargo builds beside its tests.
pub fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("the test knows its own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join("examples").join(name);
    assert!(path.exists(), "{} is not built; run the tests of the whole package", path.display());
    path
}

pub struct Site {
    pub db: Db,
    pub url: String,
    pub root: Arc<TempDir>,
    tokens: BTreeMap<String, String>,
    plan1: Arc<std::sync::Mutex<BTreeMap<JobId, Plan>>>,
    leader: JoinHandle<()>,
    times: ProtocolTimes,
    /// Where a mount helper listens, for workers that are started from now on.
    pub mount_helper: Option<PathBuf>,
    /// How their slots are started.
    pub slot_args: &'static [&'static str],
}

impl Drop for Site {
    fn drop(&mut self) {
        self.leader.abort();
    }
}

impl Site {
    /// A site on the database at `url`, with folders for the shares `in`, `out` and `cache`.
    pub async fn new(url: &str) -> Site {
        Site::with_times(url, times()).await
    }

    /// The same at another pace.
    pub async fn with_times(url: &str, times: ProtocolTimes) -> Site {
        let root = TempDir::with_prefix_in("trix-worker-", "/var/tmp").unwrap();
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for share in ["in", "out", "cache"] {
            std::fs::create_dir(root.path().join(share)).unwrap();
        }
        std::fs::write(root.path().join("in/film.mov"), b"not really a film").unwrap();
        Site::around(url, Arc::new(root), times).await
    }

    /// The same shares with another database.
    pub async fn on_another(&self, url: &str) -> Site {
        std::fs::remove_dir_all(self.path("state-one")).unwrap();
        Site::around(url, self.root.clone(), self.times).await
    }

    async fn around(url: &str, root: Arc<TempDir>, times: ProtocolTimes) -> Site {
        let db = Db::open(url, times).unwrap();
        let plan1 = Arc::new(std::sync::Mutex::new(BTreeMap::new()));
        let leader = tokio::spawn(lead(db.clone(), plan1.clone()));
        let tokens = BTreeMap::new();
        let url = url.to_owned();
        Site {
            db,
            url,
            root,
            tokens,
            plan1,
            leader,
            times,
            mount_helper: None,
            slot_args: &["slot"],
        }
    }

    pub fn path(&self, share: &str) -> PathBuf {
        self.root.path().join(share)
    }

    /// Starts a worker process on `node`.
    pub async fn worker(&mut self, node: &str, mcpu: u32) -> Process {
        let token = self.token(node).await;
        let told = json!({
            "url": self.url, "node": node, "token": token, "root": self.root.path(),
            "slot": example("worker_toy_slot"), "times": self.times, "mcpu": mcpu,
            "mount_helper": self.mount_helper, "slot_args": self.slot_args,
        });
        Process::start(&told.to_string())
    }

    /// The secret of a node, which is enrolled when it is new.
    pub async fn token(&mut self, node: &str) -> String {
        if !self.tokens.contains_key(node) {
            let secret = self.db.enrol_node(node).await.unwrap().secret;
            self.tokens.insert(node.to_owned(), secret);
        }
        self.tokens[node].clone()
    }

    /// Submits a job: intake, then one task for each of `names`, then (unless it is
    /// empty) a file of their outputs, published as `title`.
    pub async fn submit(&self, title: &str, names: &[&str], publish: bool) -> JobId {
        let (plan, plan1) = self.plans(title, names, publish);
        self.submit_plans(title, plan, plan1).await
    }

    /// Submits a job of the given plans.
    pub async fn submit_plans(&self, title: &str, plan: Plan, plan1: Plan) -> JobId {
        let principal = match self.db.create_principal(title, Role::Operator, None).await {
            Ok(principal) => principal.id,
            Err(_) => self.db.principals().await.unwrap()[0].id,
        };
        let profile = self.db.put_profile("toy", Digest([7; 32]), "", false).await.unwrap();
        let submit = Submit {
            principal,
            key: title.to_owned(),
            request_hash: Digest([1; 32]),
            request: json!({}),
            title: title.to_owned(),
            profile: profile.id,
            sources: vec!["in:film.mov".parse().unwrap()],
            band: 5,
            plan,
        };
        let job = self.db.submit(&submit).await.unwrap().job;
        self.plan1.lock().unwrap().insert(job, plan1);
        job
    }

    fn plans(&self, title: &str, names: &[&str], publish: bool) -> (Plan, Plan) {
        let key = |name: &str| key(title, name);
        let task = |name: &str, spec, needs: &[&str], outputs: &[&str]| {
            task(title, name, spec, needs, outputs)
        };
        let source = self.source();
        let intake = Intake { source: source.clone(), sidecars: Vec::new(), tee: None };
        let plan0 = plan(vec![task("intake", TaskSpec::Intake(intake), &[], &["index"])]);
        let index = key("intake:index");
        let mut tasks = Vec::new();
        for (stream, name) in names.iter().enumerate() {
            let spec = TaskSpec::EncodeAudio(EncodeAudio {
                source: source.clone(),
                index,
                stream: stream as u32,
                settings: AudioSettings {
                    codec: AudioCodec::Aac,
                    bit_rate: None,
                    channels: None,
                    sample_rate: None,
                },
                zero_pts: 0,
                time_base: "1/1000".parse().unwrap(),
            });
            tasks.push(task(name, spec, &["intake"], &["audio"]));
        }
        if publish {
            let audio = names.iter().map(|name| MuxAudio {
                key: key(&format!("{name}:audio")),
                language: None,
                title: None,
                default: false,
            });
            let mux = Mux {
                container: Container::Mp4,
                video: None,
                audio: audio.collect(),
                tags: BTreeMap::new(),
            };
            tasks.push(task("mux/file", TaskSpec::Mux(mux), names, &["file"]));
            let publish = Publish {
                share: "out".parse().unwrap(),
                target: format!("titles/{title}").parse().unwrap(),
                role: "output".into(),
                files: vec![PublishFile {
                    name: "film.mp4".parse().unwrap(),
                    from: PublishFrom::Artifact { key: key("mux/file:file") },
                }],
            };
            tasks.push(task("publish/output", TaskSpec::Publish(publish), &["mux/file"], &[]));
        }
        (plan0, plan(tasks))
    }

    /// What the file of a job with these tasks must be, by a site where nothing goes wrong.
    pub async fn golden(&self, names: &[&str]) -> blake3::Hash {
        let database = TestDb::new().await.unwrap();
        let mut site = Site::new(database.url()).await;
        std::fs::copy(self.path("in/film.mov"), site.path("in/film.mov")).unwrap();
        let worker = site.worker("golden", 2000).await;
        let job = site.submit("film", names, true).await;
        site.done(job).await;
        worker.term();
        blake3::hash(&std::fs::read(site.path("out/titles/film/v1/film.mp4")).unwrap())
    }

    pub fn source(&self) -> SourceRef {
        let file = std::fs::metadata(self.path("in/film.mov")).unwrap();
        let since = file.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        SourceRef {
            location: "in:film.mov".parse().unwrap(),
            size: file.len(),
            mtime_ns: since.as_nanos() as i64,
        }
    }

    /// Waits until `what` holds; asks again while the database is away.
    pub async fn until<F: Future<Output = Option<bool>>>(&self, what: &str, is: impl Fn() -> F) {
        let deadline = Instant::now() + Duration::from_secs(90);
        while is().await != Some(true) {
            if Instant::now() > deadline {
                let mut all = Vec::new();
                for job in self.db.jobs(&Default::default()).await.unwrap_or_default() {
                    all.push(format!("{:?}", self.db.tasks(job.id).await));
                    all.push(format!("{:?}", self.db.attempts(job.id).await));
                }
                panic!("waited in vain until {what}; {}", all.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn done(&self, job: JobId) {
        self.until("the job succeeds", || async {
            let state = self.db.job(job).await.ok()??.state;
            assert!(
                !matches!(state, JobState::Failed | JobState::Cancelled),
                "{state}: {:?} {:?}",
                self.db.tasks(job).await,
                self.db.attempts(job).await
            );
            Some(state == JobState::Succeeded)
        })
        .await;
    }

    pub async fn task(&self, job: JobId, name: &str) -> Option<TaskRow> {
        self.db.tasks(job).await.ok()?.into_iter().find(|t| t.name == name)
    }

    pub async fn running(&self, job: JobId, name: &str) {
        self.until(&format!("{name} works in its slot"), || async {
            let task = self.task(job, name).await?;
            Some(task.state == TaskState::Running && task.progress?.done > 0)
        })
        .await;
    }

    pub async fn state(&self, job: JobId, name: &str, state: TaskState) {
        self.until(&format!("{name} is {state}"), || async {
            Some(self.task(job, name).await?.state == state)
        })
        .await;
    }

    pub async fn attempts(&self, job: JobId, name: &str) -> Vec<AttemptRow> {
        let all = self.db.attempts(job).await.unwrap();
        let mut all: Vec<_> = all.into_iter().filter(|a| a.name == name).collect();
        all.sort_by_key(|a| a.epoch);
        all
    }

    /// Every task of the job was done in its first attempt.
    pub async fn nothing_repeated(&self, job: JobId) {
        for attempt in self.db.attempts(job).await.unwrap() {
            assert_eq!(
                (attempt.epoch.0, attempt.state),
                (1, AttemptState::Succeeded),
                "{attempt:?}"
            );
        }
    }

    /// The active worker of a node.
    pub async fn active(&self, node: &str) -> Option<WorkerId> {
        let workers = self.db.workers(false).await.ok()?;
        workers.into_iter().find(|w| w.node == node).map(|w| w.id)
    }

    /// Neither stages nor probes are left on the shares.
    pub fn no_debris(&self) {
        for share in ["out", "cache"] {
            for folder in [".trix/stage", ".trix/probe"] {
                let folder = self.path(share).join(folder);
                if folder.exists() {
                    // A probe may be at work this very moment.
                    let deadline = Instant::now() + Duration::from_secs(20);
                    while std::fs::read_dir(&folder).unwrap().next().is_some() {
                        assert!(Instant::now() < deadline, "left in {}", folder.display());
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
        }
    }

    /// Names beneath a folder of a share.
    pub fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.root.path().join(path))
            .map(|entries| {
                entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
            })
            .unwrap_or_default();
        names.sort();
        names
    }
}

pub fn plan(tasks: Vec<Task>) -> Plan {
    Plan { version: 1, engine: "toy".into(), tasks, results: Vec::new() }
}

fn key(title: &str, name: &str) -> Key {
    Key(*blake3::hash(format!("{title}/{name}").as_bytes()).as_bytes())
}

pub fn task(title: &str, name: &str, spec: TaskSpec, needs: &[&str], outputs: &[&str]) -> Task {
    Task {
        name: name.to_owned(),
        spec,
        needs: needs.iter().map(|n| (*n).to_owned()).collect(),
        outputs: (outputs.iter())
            .map(|o| Output { name: (*o).to_owned(), key: key(title, &format!("{name}:{o}")) })
            .collect(),
        cost: Cost { mcpu: 1000, ram: 64 << 20, scratch: 1 << 20, estimate_ms: 100 },
    }
}

/// A small dispatcher: ticks, marks, appends plan 1.
async fn lead(db: Db, plans: Arc<std::sync::Mutex<BTreeMap<JobId, Plan>>>) {
    let mut seat: Option<(Seat, Instant)> = None;
    loop {
        tokio::time::sleep(times().tick).await;
        let Some((held, last)) = &mut seat else {
            if let Ok(Some(taken)) = Seat::try_take(&db, "test", Duration::ZERO).await {
                seat = Some((taken, Instant::now()));
            }
            continue;
        };
        let now = Instant::now();
        match held.tick(now.duration_since(*last)).await {
            Ok(_) => *last = now,
            Err(trix_db::DbError::NotLeader { .. }) => {
                seat = None;
                continue;
            }
            // The session is gone with the database; another one is taken.
            Err(_) => {
                let outage = last.elapsed();
                if let Ok(Some(taken)) = Seat::try_take(&db, "test", outage).await {
                    seat = Some((taken, *last));
                }
                continue;
            }
        }
        let leader = held.leader();
        for job in leader.jobs_to_plan(10).await.unwrap_or_default() {
            let plan = plans.lock().unwrap().get(&job.job).cloned();
            if let Some(plan) = plan
                && let Err(e) = leader.append_plan(job.job, &plan).await
            {
                eprintln!("appending plan 1: {e}");
            }
        }
        // Away is away; the next tick tries again.
        let _ = leader.mark_lost().await;
        let _ = leader.cache_hits().await;
        let _ = leader.finish_cancels().await;
    }
}

/// A worker process; killed and reaped when dropped.
pub struct Process {
    pub child: Child,
}

impl Process {
    pub fn start(told: &str) -> Process {
        let mut child = Command::new(example("worker_process"))
            .arg(told)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        Process { child }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Its slots.
    pub fn slots(&self) -> Vec<u32> {
        let mut all = Vec::new();
        let tasks = format!("/proc/{}/task", self.child.id());
        for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(text.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
        }
        all.retain(|pid| is_slot(*pid));
        all
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and waits for an orderly end.
    pub fn term(mut self) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < deadline, "the worker did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its other children look at shares.
fn is_slot(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|argument| argument == b"slot")
}

pub fn alive(pid: u32) -> bool {
    // A zombie that nobody has reaped yet is dead all the same.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

pub fn all_dead(pids: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    for pid in pids {
        while alive(*pid) {
            assert!(Instant::now() < deadline, "slot {pid} lives");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// All files beneath a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => all.extend(files(&path)),
            path => all.push(path),
        }
    }
    all
}
