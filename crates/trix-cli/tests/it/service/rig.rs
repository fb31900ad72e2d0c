//! A service of one's own: folders, a port, processes that end with the test.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use trix_testkit::clips;

/// Longest wait for anything: far more than a busy machine needs.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// Small and quick: archive copy, two renditions, preview.
pub const SMALL: &str = r#"
v = 1
name = "small"
description = "Archive copy, two renditions, preview: for tests"
[archive]
share = "archive"
path = "{title}"
[video]
encoder = "x264-8"
preset = "veryfast"
[[rendition]]
name = "full"
width = 160
height = 90
crf = 23
[[rendition]]
name = "half"
width = 80
height = 46
crf = 26
[[audio]]
codec = "aac"
languages = "all"
[package]
container = "mp4"
[preview]
share = "preview"
path = "{title}"
thumbnail_seconds = 10
thumbnail_width = 80
[preview.proxy]
preset = "ultrafast"
crf = 30
height = 46
[publish]
share = "output"
path = "{title}"
"#;

/// [`SMALL`], with chunks that take long enough to be met under way.
pub fn slow() -> String {
    SMALL.replace("veryfast", "slow")
}

/// Folders, configuration and address of one service.
pub struct Site {
    folder: tempfile::TempDir,
    port: u16,
    http: reqwest::Client,
}

/// A process that this test started. Dropping it ends it.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Site {
    /// Five shares, a state folder and a free port; nothing runs yet.
    pub fn new() -> Site {
        let folder = tempfile::Builder::new().prefix("trix-it-").tempdir_in("/var/tmp").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let http =
            reqwest::Client::builder().timeout(Duration::from_secs(20)).no_proxy().build().unwrap();
        let site = Site { folder, port, http };
        let root = site.folder.path();
        let mut text = format!(
            "[node]\nname = \"one\"\nstate = \"{0}/state\"\n[api]\nlisten = \"127.0.0.1:{port}\"\n\
             [worker]\ndrain_s = 1\n[cache]\nmax_gib = 2\n[times]\nscale = 0.1\n",
            root.display()
        );
        let shares = [
            ("incoming", "source"),
            ("archive", "output"),
            ("output", "output"),
            ("preview", "preview"),
            ("cache", "cache"),
        ];
        for (name, role) in shares {
            let place = site.share(name);
            std::fs::create_dir(&place).unwrap();
            std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
            text += &format!(
                "[[share]]\nname = \"{name}\"\nrole = \"{role}\"\nroot = \"{}\"\n",
                place.display()
            );
        }
        // The private server's user must be able to enter.
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(site.config(), text).unwrap();
        site
    }

    /// Root of a share.
    pub fn share(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Something beneath the site's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("trix.toml")
    }

    /// A title of 40 s in five chunks, with two languages, on the source share.
    pub fn title(&self, name: &str) -> PathBuf {
        clips::make(
            &self.share("incoming").join(name),
            "-f lavfi -i testsrc2=size=160x90:rate=25:duration=40 \
             -f lavfi -i sine=frequency=440:sample_rate=48000:duration=40 \
             -f lavfi -i sine=frequency=660:sample_rate=48000:duration=40 \
             -map 0:v -map 1:a -map 2:a -c:v libx264 -preset veryfast -pix_fmt yuv420p -g 50 \
             -c:a aac -b:a 64k -metadata:s:a:0 language=eng -metadata:s:a:1 language=rus \
             -color_primaries bt709 -color_trc bt709 -colorspace bt709",
        )
    }

    /// Starts `trix` with arguments and variables. It is told to end when this
    /// thread does, however that happens.
    pub fn start(&self, log: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let log = self.path(&format!("{log}.log"));
        let to = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", env!("CARGO_BIN_EXE_trix"), "--config"])
            .arg(self.config())
            .args(arguments)
            .envs(variables.iter().copied())
            .env("RUST_LOG", "info,sqlx=warn,trix_api=warn")
            .stdin(Stdio::null())
            .stdout(to.try_clone().unwrap())
            .stderr(to)
            .spawn()
            .expect("setpriv is there: scripts/setup installs util-linux");
        Process { child, log }
    }

    /// `trix up` on a private server, ready to take jobs.
    pub async fn up(&self) -> Process {
        let mut up = self.start("up", &["up"], &[]);
        self.ready(&mut [&mut up]).await;
        up
    }

    /// Waits until a job would be taken.
    pub async fn ready(&self, processes: &mut [&mut Process]) {
        let begun = Instant::now();
        loop {
            let answer = self.run(&["ready"], &[]);
            if answer.status.success() {
                return;
            }
            for p in processes.iter_mut() {
                p.must_live();
            }
            let why = String::from_utf8_lossy(&answer.stderr);
            assert!(begun.elapsed() < PATIENCE, "{why}\n{}", tails(processes));
            pause().await;
        }
    }

    /// Runs a `trix` command to its end.
    pub fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_trix"))
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn token(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.path("state/cli-token")).ok()?;
        Some(text.trim().to_owned())
    }

    /// The address that a path has.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The client, for requests without token.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Calls the API with the token of this machine's commands.
    pub async fn api(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        key: Option<&str>,
    ) -> (u16, Value) {
        let mut request = self
            .http
            .request(method.parse().unwrap(), self.url(&format!("/api/v1{path}")))
            .bearer_auth(self.token().expect("the api laid the token into the state folder"));
        if let Some(body) = body {
            request = request.json(&body);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Stores [`SMALL`] and submits a file of the source share under it.
    pub async fn submit(&self, file: &str, key: &str) -> i64 {
        self.submit_with(file, key, SMALL).await
    }

    /// Like [`Site::submit`], with another text of the profile.
    pub async fn submit_with(&self, file: &str, key: &str, text: &str) -> i64 {
        let (status, answer) =
            self.api("PUT", "/profiles/small", Some(json!({ "text": text })), None).await;
        assert_eq!(status, 200, "{answer}");
        let body = json!({ "source": format!("incoming:{file}"), "profile": "small" });
        let (status, job) = self.api("POST", "/jobs", Some(body), Some(key)).await;
        assert_eq!(status, 201, "{job}");
        job["id"].as_i64().unwrap()
    }

    /// The job with everything, as soon as `is` holds for it.
    pub async fn until(&self, job: i64, what: &str, mut is: impl FnMut(&Job) -> bool) -> Job {
        let begun = Instant::now();
        loop {
            let (status, answer) = self.api("GET", &format!("/jobs/{job}"), None, None).await;
            if status == 200 {
                let job = Job(answer);
                if is(&job) {
                    return job;
                }
                assert!(begun.elapsed() < PATIENCE, "{what} does not come:\n{}", job.text());
            } else {
                assert_eq!(status, 503, "{answer}");
                assert!(begun.elapsed() < PATIENCE, "{what} does not come: {answer}");
            }
            pause().await;
        }
    }

    /// Waits until a chunk is done and another is being encoded, by `node` if it is
    /// named.
    pub async fn midway(&self, job: i64, node: Option<&str>) -> Job {
        let under_way = |j: &Job| !j.chunks("done").is_empty() && !j.encoding(node).is_empty();
        let job = self.until(job, "the middle", |j| j.has_ended() || under_way(j)).await;
        assert!(!job.has_ended(), "it was over before its middle was seen:\n{}", job.text());
        job
    }

    /// Waits for the end, which must be success.
    pub async fn succeeded(&self, job: i64) -> Job {
        let job = self.until(job, "the end", Job::has_ended).await;
        assert_eq!(job.state(), "succeeded", "{}", job.text());
        job
    }

    /// Waits for the end, which must be failure.
    pub async fn failed(&self, job: i64) -> Job {
        let job = self.until(job, "the end", Job::has_ended).await;
        assert_eq!(job.state(), "failed", "{}", job.text());
        job
    }

    /// Files that are visible on a share, without trix's own folder.
    pub fn visible(&self, share: &str) -> Vec<String> {
        let mut all = files(&self.share(share));
        all.retain(|f| !f.starts_with(".trix/") && f != ".trix-share");
        all
    }

    /// What lies in stages and beside artifacts, on all shares: must be nothing
    /// when nothing runs.
    pub fn debris(&self) -> Vec<String> {
        let mut found = Vec::new();
        for share in ["archive", "output", "preview", "cache"] {
            let stage = self.share(share).join(".trix/stage");
            let stages = std::fs::read_dir(&stage).into_iter().flatten().flatten();
            found.extend(stages.map(|s| s.path().display().to_string()));
        }
        let objects = files(&self.share("cache").join("objects"));
        found.extend(objects.into_iter().filter(|o| o.ends_with(".new")));
        found
    }

    /// Waits until nothing is left in stages: the janitor may be at it.
    pub async fn no_debris(&self) {
        let begun = Instant::now();
        while !self.debris().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "left behind: {:#?}", self.debris());
            pause().await;
        }
    }

    /// All processes that have a file of this site open or work in its folder: the
    /// roles, slots, the private server. `(pid, command line)`.
    pub fn users(&self) -> BTreeMap<i32, String> {
        let within = |link: PathBuf| {
            std::fs::read_link(link).is_ok_and(|to| to.starts_with(self.folder.path()))
        };
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
                continue;
            };
            let place = entry.path();
            let open = std::fs::read_dir(place.join("fd")).into_iter().flatten().flatten();
            if pid as u32 != std::process::id()
                && (within(place.join("cwd")) || open.into_iter().any(|f| within(f.path())))
            {
                let line = std::fs::read(place.join("cmdline")).unwrap_or_default();
                all.insert(pid, String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        all
    }

    /// Slots that run now.
    pub fn slots(&self) -> Vec<Pid> {
        let of_a_slot = |line: &String| line.contains("trix-media") && line.contains("slot");
        (self.users().into_iter())
            .filter(|(_, line)| of_a_slot(line))
            .filter_map(|(pid, _)| Pid::from_raw(pid))
            .collect()
    }
}

impl Drop for Site {
    /// Whatever still has this site's files open was started for it.
    fn drop(&mut self) {
        for (pid, line) in self.users() {
            eprintln!("ending {pid} {line}");
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Process {
    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not stop:\n{}", self.tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn must_live(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("it ended with {status}:\n{}", self.tail());
        }
    }

    /// End of its log.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.tail());
        }
        let _ = kill_process(pid, Signal::CONT);
        let _ = kill_process(pid, Signal::TERM);
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > Duration::from_secs(20) {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A job as the API tells it.
pub struct Job(pub Value);

impl Job {
    /// Its state.
    pub fn state(&self) -> &str {
        self.0["job"]["state"].as_str().unwrap()
    }

    /// Nothing of it will move any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.state(), "succeeded" | "failed" | "cancelled")
    }

    /// Its tasks.
    pub fn tasks(&self) -> &[Value] {
        self.0["tasks"].as_array().unwrap()
    }

    /// Its attempts.
    pub fn attempts(&self) -> &[Value] {
        self.0["attempts"].as_array().unwrap()
    }

    /// Names of the tasks in a state that encode pictures.
    pub fn chunks(&self, state: &str) -> Vec<String> {
        (self.tasks().iter())
            .filter(|t| t["kind"] == "encode_chunk" && t["state"] == state)
            .map(|t| t["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A publication by its role.
    pub fn publication(&self, role: &str) -> &Value {
        let all = self.0["publications"].as_array().unwrap();
        all.iter().find(|p| p["role"] == role).unwrap_or_else(|| panic!("no {role}: {all:#?}"))
    }

    /// Names of chunks that are being encoded, by `node` if it is named.
    pub fn encoding(&self, node: Option<&str>) -> Vec<String> {
        let chunks = self.chunks("running");
        (self.attempts().iter())
            .filter(|a| a["state"] == "running" && node.is_none_or(|n| a["node"] == n))
            .map(|a| a["name"].as_str().unwrap().to_owned())
            .filter(|name| chunks.contains(name))
            .collect()
    }

    /// Number of attempts of a task.
    pub fn tries(&self, task: &str) -> usize {
        self.attempts().iter().filter(|a| a["name"] == task).count()
    }

    /// What to read when a test fails.
    pub fn text(&self) -> String {
        let mut text = format!("{:#}\n", self.0["job"]);
        for t in self.tasks() {
            text += &format!(
                "{} {} epoch {} cached {} {} {}\n",
                t["name"], t["state"], t["epoch"], t["cached"], t["waits_for"], t["failure"]
            );
        }
        for a in self.attempts() {
            text += &format!(
                "{} {} {} on {} lost {} {}\n",
                a["name"], a["epoch"], a["state"], a["node"], a["result_lost"], a["failure"]
            );
        }
        text
    }
}

fn tails(processes: &[&mut Process]) -> String {
    processes.iter().map(|p| p.tail()).collect::<Vec<_>>().join("\n--\n")
}

/// Between two looks.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// All files beneath a folder, sorted, relative to it.
pub fn files(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                open.push(path);
            } else {
                all.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    all.sort();
    all
}

/// A checksum by an independent program (`md5sum`, `sha256sum`).
pub fn sum(program: &str, file: &Path) -> String {
    let out = clips::tool(program, &[file.to_str().unwrap()]);
    String::from_utf8(out).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// sha256 of all files of a share whose names end so, by name.
pub fn sums(folder: &Path, ending: &str) -> BTreeMap<String, String> {
    (files(folder).into_iter())
        .filter(|f| f.ends_with(ending) && !f.starts_with(".trix"))
        .map(|f| (f.clone(), sum("sha256sum", &folder.join(&f))))
        .collect()
}
