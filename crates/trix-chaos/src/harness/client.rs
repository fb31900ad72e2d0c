//! Clients that write down what they were told: submits, answers, events.
//!
//! A journal is what an honest client may hold against the service: jobs that were
//! accepted, answers that came twice, events in their order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use trix_model::{ShareName, SharePath};
use trix_plan::task::SourceRef;

use super::film::{CHUNK, Film};
use super::site::{Site, lock, pause};
use crate::rng::Rng;

/// The profiles that jobs use: the second makes other renditions of the same films, and so
/// another version of the same targets.
pub const PROFILES: [&str; 2] = ["first", "second"];

/// Text of a profile.
pub fn profile(name: &str) -> String {
    let crf = if name == PROFILES[0] { 23 } else { 29 };
    format!(
        "v = 1\nname = \"{name}\"\ndescription = \"for trials\"\n\
         [archive]\nshare = \"archive\"\npath = \"{{title}}\"\n\
         [video]\nencoder = \"x264-8\"\npreset = \"veryfast\"\n\
         [[rendition]]\nname = \"full\"\nwidth = 160\nheight = 90\ncrf = {crf}\n\
         [[rendition]]\nname = \"half\"\nwidth = 80\nheight = 46\ncrf = 26\n\
         [[audio]]\ncodec = \"aac\"\nlanguages = \"all\"\n\
         [package]\ncontainer = \"mp4\"\n\
         [preview]\nshare = \"preview\"\npath = \"{{title}}\"\nthumbnail_seconds = 10\n\
         thumbnail_width = 80\n\
         [preview.proxy]\npreset = \"ultrafast\"\ncrf = 30\nheight = 46\n\
         [publish]\nshare = \"output\"\npath = \"{{title}}\"\n"
    )
}

/// One request and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// When it was sent, in milliseconds of the site.
    pub at_ms: u64,
    /// Which api was asked.
    pub api: u8,
    /// Method and path.
    pub what: String,
    /// The idempotency key, for submits.
    pub key: Option<String>,
    /// The status; 0 when no answer came.
    pub status: u16,
    /// The problem's code, if it was one.
    pub code: Option<String>,
    /// The job that was named.
    pub job: Option<i64>,
    /// Milliseconds until the answer.
    pub took_ms: u64,
}

/// A film that was submitted, once for each key.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// Its file as the api must have seen it.
    pub source: SourceRef,
    /// The film.
    pub film: Film,
    /// Title that the job publishes under.
    pub title: String,
    /// Profile.
    pub profile: String,
    /// The idempotency key.
    pub key: String,
    /// The job, once an api has said so.
    pub job: Option<i64>,
}

/// What all clients wrote down.
#[derive(Default)]
pub struct Journal {
    calls: Mutex<Vec<Call>>,
    submits: Mutex<Vec<Submitted>>,
    /// What clients saw that must not be.
    wrong: Mutex<Vec<String>>,
}

impl Journal {
    /// All calls.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    /// All submits that were tried.
    pub fn submits(&self) -> Vec<Submitted> {
        lock(&self.submits).clone()
    }

    /// What must not be.
    pub fn wrong(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

    /// Notes something that must not be.
    pub fn complain(&self, what: String) {
        lock(&self.wrong).push(what);
    }
}

/// Talks to the apis of a site.
pub struct Client {
    site: Arc<Site>,
    journal: Arc<Journal>,
    http: reqwest::Client,
    token: String,
}

impl Client {
    /// A client with the token of the commands.
    pub fn new(site: Arc<Site>, journal: Arc<Journal>) -> Result<Client> {
        let http =
            reqwest::Client::builder().timeout(Duration::from_secs(20)).no_proxy().build()?;
        let token = site.token()?;
        Ok(Client { site, journal, http, token })
    }

    /// One request to one api. `None` when no answer came.
    pub async fn call(
        &self,
        api: u8,
        method: &str,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Option<(u16, Value)>> {
        let at_ms = self.site.now_ms();
        let url = format!("{}/api/v1{path}", self.site.api(api));
        let mut request = self.http.request(method.parse()?, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let begun = Instant::now();
        let answer = match request.send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                // The api may die between the head and the body of its answer.
                answer.text().await.ok().map(|text| (status, text))
            }
            Err(_) => None,
        };
        let answer = answer
            .map(|(status, text)| (status, serde_json::from_str(&text).unwrap_or(Value::Null)));
        let value = answer.as_ref().map(|(_, value)| value);
        lock(&self.journal.calls).push(Call {
            at_ms,
            api,
            what: format!("{method} {path}"),
            key: key.map(str::to_owned),
            status: answer.as_ref().map_or(0, |(status, _)| *status),
            code: value.and_then(|v| v["code"].as_str()).map(str::to_owned),
            job: value.and_then(|v| v["id"].as_i64()),
            took_ms: begun.elapsed().as_millis() as u64,
        });
        Ok(answer)
    }

    /// Stores the profiles.
    pub async fn store_profiles(&self) -> Result<()> {
        for name in PROFILES {
            let body = json!({ "text": profile(name) });
            let answer =
                self.call(1, "PUT", &format!("/profiles/{name}"), Some(&body), None).await?;
            if !matches!(answer, Some((200 | 201, _))) {
                bail!("storing the profile {name}: {answer:?}");
            }
        }
        Ok(())
    }

    /// Lays a film onto the source share.
    pub fn deliver(&self, name: &str, film: &Film) -> Result<SourceRef> {
        let path = self.site.share("incoming").join(name);
        let (bytes, new) = (film.bytes(), path.with_extension("part"));
        std::fs::write(&new, &bytes)?;
        std::fs::rename(&new, &path)?;
        let modified = std::fs::metadata(&path)?.modified()?;
        let since = modified.duration_since(std::time::UNIX_EPOCH)?;
        let share: ShareName = "incoming".parse().context("a constant")?;
        Ok(SourceRef {
            location: SharePath::new(share, name.parse()?),
            size: bytes.len() as u64,
            mtime_ns: i64::try_from(since.as_nanos())?,
        })
    }

    /// Submits until an api has said which job it is, or `stop` says to give up. Every answer
    /// that names a job must name the same one.
    pub async fn submit(
        &self,
        mut wish: Submitted,
        rng: &mut Rng,
        stop: &AtomicBool,
    ) -> Result<()> {
        let position = {
            let mut submits = lock(&self.journal.submits);
            submits.push(wish.clone());
            submits.len() - 1
        };
        let body = json!({ "source": wish.source.location.to_string(), "profile": wish.profile,
            "title": wish.title });
        // Now and then it asks again although it knows, as a client that lost its notes would.
        let mut again = rng.one_in(5);
        while !stop.load(Ordering::Relaxed) || wish.job.is_none() {
            let api = 1 + rng.below(u64::from(self.site.options().apis)) as u8;
            let answer = self.call(api, "POST", "/jobs", Some(&body), Some(&wish.key)).await?;
            match answer {
                Some((200 | 201, job)) => {
                    let job = job["id"].as_i64().context("a job without a number")?;
                    if wish.job.is_some_and(|known| known != job) {
                        self.journal.complain(format!(
                            "I2: key {} was job {:?}, then job {job}",
                            wish.key, wish.job
                        ));
                    }
                    wish.job = Some(job);
                    lock(&self.journal.submits)[position].job = wish.job;
                    if !std::mem::take(&mut again) {
                        return Ok(());
                    }
                }
                Some((status @ (503 | 429 | 504), _)) => {
                    if status == 503 && stop.load(Ordering::Relaxed) {
                        // Without the database nobody says which job it is; it is asked for
                        // again when everything is healed.
                        return Ok(());
                    }
                }
                None => {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                }
                Some((status, problem)) => {
                    self.journal.complain(format!("a submit was answered {status}: {problem}"));
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(rng.between(20, 300))).await;
        }
        Ok(())
    }

    /// Asks once more for every submit that nobody has answered, now that everything is healed.
    pub async fn settle(&self, rng: &mut Rng) -> Result<()> {
        for (position, submit) in self.journal.submits().into_iter().enumerate() {
            if submit.job.is_none() {
                let job = self.taken(&submit, rng).await?;
                lock(&self.journal.submits)[position].job = Some(job);
            }
        }
        Ok(())
    }

    /// Sends every submit once more, as clients do that hear of a restored database: what it
    /// knows it answers with the same job, what it lost it takes anew. Gives the number of
    /// the latter.
    pub async fn submit_again(&self, rng: &mut Rng) -> Result<u64> {
        let mut anew = 0;
        for (position, submit) in self.journal.submits().into_iter().enumerate() {
            let job = self.taken(&submit, rng).await?;
            if submit.job.is_some_and(|known| known != job) {
                anew += 1;
            }
            lock(&self.journal.submits)[position].job = Some(job);
        }
        Ok(anew)
    }

    /// Submits to a healed site until it says which job it is.
    async fn taken(&self, submit: &Submitted, rng: &mut Rng) -> Result<i64> {
        let body = json!({ "source": submit.source.location.to_string(),
            "profile": submit.profile, "title": submit.title });
        let begun = Instant::now();
        loop {
            let api = 1 + rng.below(u64::from(self.site.options().apis)) as u8;
            let answer = self.call(api, "POST", "/jobs", Some(&body), Some(&submit.key)).await?;
            if let Some((200 | 201, job)) = &answer {
                return job["id"].as_i64().context("a job without a number");
            }
            if begun.elapsed() > super::site::PATIENCE {
                bail!("a healed site does not take {}: {answer:?}", submit.key);
            }
            pause().await;
        }
    }

    /// Takes a failed job up again, as an operator would.
    pub async fn retry(&self, job: i64) -> Result<bool> {
        let answer = self.call(1, "POST", &format!("/jobs/{job}/retry"), None, None).await?;
        Ok(matches!(answer, Some((200, _))))
    }
}

/// How films of a load are.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Jobs that are open at the same time.
    pub open: usize,
    /// Most chunks of a film.
    pub chunks: u32,
    /// Milliseconds of a chunk.
    pub work_ms: u64,
    /// Which load of the trial it is: keys and titles of each are its own.
    pub load: u32,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions { open: 4, chunks: 16, work_ms: 250, load: 0 }
    }
}

/// Keeps a site busy until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Starts as many clients as jobs shall be open, each submitting one job after the other.
    pub fn start(
        site: Arc<Site>,
        journal: Arc<Journal>,
        options: LoadOptions,
        rng: &mut Rng,
    ) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..options.open)
            .map(|n| {
                let (site, journal, stop) = (site.clone(), journal.clone(), stop.clone());
                let rng = rng.fork();
                tokio::spawn(client(n, site, journal, options, rng, stop))
            })
            .collect();
        Load { stop, tasks }
    }

    /// Submits nothing more.
    pub async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.context("a client of the load panicked")??;
        }
        Ok(())
    }
}

async fn client(
    n: usize,
    site: Arc<Site>,
    journal: Arc<Journal>,
    options: LoadOptions,
    mut rng: Rng,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    let client = Client::new(site, journal.clone())?;
    let mut last: Option<Submitted> = None;
    for round in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("{}-{n}-{round}", options.load);
        let key = format!("client-{name}");
        let wish = match &last {
            // The same film under the other profile: a second version of the same targets,
            // with whatever the first has left in the cache.
            Some(last) if last.profile == PROFILES[0] && rng.one_in(3) => {
                Submitted { profile: PROFILES[1].to_owned(), key, job: None, ..last.clone() }
            }
            _ => {
                let film = Film {
                    seed: rng.bits(),
                    frames: CHUNK * rng.between(2, u64::from(options.chunks)) as u32,
                    tracks: rng.between(1, 3) as u32,
                    work_ms: options.work_ms,
                    noise: rng.between(1_000, 200_000) as u32,
                };
                let title = format!("film-{name}");
                let source = client.deliver(&format!("{title}.mov"), &film)?;
                Submitted { source, film, title, profile: PROFILES[0].to_owned(), key, job: None }
            }
        };
        client.submit(wish.clone(), &mut rng, &stop).await?;
        last = Some(wish);
        let job = journal
            .submits()
            .iter()
            .find(|s| s.key == last.as_ref().map_or("", |l| &l.key))
            .and_then(|s| s.job);
        // The next one follows when this is over, so that about as many are open as were asked for.
        while let Some(job) = job
            && !stop.load(Ordering::Relaxed)
        {
            let api = 1 + rng.below(u64::from(client.site.options().apis)) as u8;
            let answer = client.call(api, "GET", &format!("/jobs/{job}"), None, None).await?;
            match answer {
                Some((200, detail)) => {
                    let state = detail["job"]["state"].as_str().unwrap_or_default();
                    if matches!(state, "succeeded" | "failed" | "cancelled") {
                        break;
                    }
                }
                Some((404, _)) => {
                    journal.complain(format!("I1: job {job} was accepted and is not there"));
                    break;
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    Ok(())
}

/// What a consumer of events saw.
#[derive(Debug, Default)]
pub struct Consumed {
    /// How often each number came.
    pub seen: BTreeMap<i64, u32>,
    /// The number that it began behind.
    pub from: i64,
    /// Connections that it made.
    pub connections: u32,
    /// Snapshots that it was sent to, by the number it had.
    pub snapshots: Vec<(i64, i64)>,
    /// The log that its numbers are of.
    pub incarnation: String,
    /// `degraded` messages that it got.
    pub degraded: u32,
}

impl Consumed {
    /// The number behind which it must have seen all: since the last snapshot, or from its
    /// beginning on. Holes before that it complains of itself.
    pub fn whole_from(&self) -> i64 {
        self.snapshots.last().map_or(self.from, |(_, after)| *after)
    }
}

/// A consumer of the WebSocket that drops its connection now and then and resumes.
pub struct Consumer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Consumed>>,
}

impl Consumer {
    /// Starts one.
    pub fn start(site: Arc<Site>, journal: Arc<Journal>, rng: Rng) -> Result<Consumer> {
        let stop = Arc::new(AtomicBool::new(false));
        let token = site.token()?;
        let task = tokio::spawn(consume(site, journal, rng, token, stop.clone()));
        Ok(Consumer { stop, task })
    }

    /// Reads up to the log's head and gives what it saw. The site must be healed.
    pub async fn finish(self) -> Result<Consumed> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("a consumer panicked")?
    }
}

async fn consume(
    site: Arc<Site>,
    journal: Arc<Journal>,
    mut rng: Rng,
    token: String,
    stop: Arc<AtomicBool>,
) -> Result<Consumed> {
    let mut seen = Consumed { from: -1, ..Consumed::default() };
    let mut last = -1;
    loop {
        let api = 1 + rng.below(u64::from(site.options().apis)) as u8;
        let mut request =
            format!("{}/ws", site.api(api).replace("http:", "ws:")).into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        let opened = tokio::time::timeout(
            Duration::from_secs(10),
            tokio_tungstenite::connect_async(request),
        )
        .await;
        let Ok(Ok((mut socket, _))) = opened else {
            pause().await;
            continue;
        };
        seen.connections += 1;
        let until = Instant::now() + Duration::from_millis(rng.between(200, 4000));
        loop {
            let ending = stop.load(Ordering::Relaxed);
            if ending {
                let head = site.number("select head from event_head").await?;
                if last >= head {
                    return Ok(seen);
                }
            } else if Instant::now() > until {
                // Dropped without a word, as a laptop's lid would.
                break;
            }
            let next = tokio::time::timeout(Duration::from_millis(200), socket.next()).await;
            let text = match next {
                Err(_) => continue,
                Ok(Some(Ok(Message::Text(text)))) => text,
                Ok(Some(Ok(_))) => continue,
                Ok(None | Some(Err(_))) => break,
            };
            let message: Value = serde_json::from_str(&text)?;
            match message["type"].as_str() {
                Some("hello") => {
                    if last < 0 {
                        last = message["head"].as_i64().context("a hello without a head")?;
                        seen.from = last;
                        seen.incarnation = incarnation(&message)?;
                    }
                    // The number that it has is of the log that it read it from.
                    let resume = json!({ "type": "resume", "seq": last,
                        "incarnation": seen.incarnation });
                    if socket.send(Message::Text(resume.to_string().into())).await.is_err() {
                        break;
                    }
                }
                Some("events") => {
                    for event in message["items"].as_array().into_iter().flatten() {
                        let seq = event["seq"].as_i64().context("an event without a number")?;
                        if seq > last + 1 {
                            journal.complain(format!("I13: event {seq} came after {last}"));
                        }
                        *seen.seen.entry(seq).or_default() += 1;
                        last = last.max(seq);
                    }
                }
                Some("snapshot") => {
                    let seq = message["seq"].as_i64().context("a snapshot without a number")?;
                    seen.snapshots.push((last, seq));
                    seen.incarnation = incarnation(&message)?;
                    last = seq;
                }
                Some("degraded") => seen.degraded += 1,
                _ => {}
            }
        }
    }
}

/// The log that a message is of.
fn incarnation(message: &Value) -> Result<String> {
    message["incarnation"].as_str().map(str::to_owned).context("a log without incarnation")
}
