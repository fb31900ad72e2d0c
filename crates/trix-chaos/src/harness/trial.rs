//! One run: a site under load, faults that are counted, healing, and the look at what is left.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};
use trix_model::{AttemptId, Epoch, TaskId};

use super::audit;
use super::client::{Client, Consumer, Journal, Load, LoadOptions};
use super::report::Report;
use super::restore::{Fate, Lost};
use super::site::{PATIENCE, Role, Site, SiteOptions, lock, pause};
use crate::rng::Rng;

/// What a row is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The seed of everything.
    pub seed: u64,
    /// How long faults go on.
    pub time: Duration,
    /// Factor on the protocol's times.
    pub scale: f64,
    /// Print what happens.
    pub verbose: bool,
}

/// A site under load.
pub struct Trial {
    /// The site.
    pub site: Arc<Site>,
    /// What its clients write down.
    pub journal: Arc<Journal>,
    /// Random numbers of the faults.
    pub rng: Rng,
    /// The report as it grows.
    pub report: Report,
    /// Histories that restores have cut off.
    pub lost: Vec<Lost>,
    order: Order,
    load: Option<Load>,
    consumers: Vec<Consumer>,
    meter: Meter,
    killed: HashMap<AttemptId, u64>,
    /// Workers that were killed, by node and process id.
    dead: HashSet<(String, i64)>,
    /// Roles that are started again some time after they were killed.
    comebacks: JoinSet<Result<()>>,
    begun: Instant,
}

impl Trial {
    /// Starts a site, its load and consumers of its events.
    pub async fn start(
        row: &'static str,
        order: Order,
        options: SiteOptions,
        load: LoadOptions,
        consumers: u32,
    ) -> Result<Trial> {
        let mut rng = Rng::new(order.seed);
        let site = Arc::new(Site::start(SiteOptions { scale: order.scale, ..options }).await?);
        let journal = Arc::new(Journal::default());
        Client::new(site.clone(), journal.clone())?.store_profiles().await?;
        let meter = Meter::start(site.clone())?;
        let consumers = (0..consumers)
            .map(|_| Consumer::start(site.clone(), journal.clone(), rng.fork()))
            .collect::<Result<_>>()?;
        let load = Some(Load::start(site.clone(), journal.clone(), load, &mut rng));
        Ok(Trial {
            site,
            journal,
            rng,
            report: Report::new(row, order.seed),
            lost: Vec::new(),
            order,
            load,
            consumers,
            meter,
            killed: HashMap::new(),
            dead: HashSet::new(),
            comebacks: JoinSet::new(),
            begun: Instant::now(),
        })
    }

    /// True while faults go on.
    pub fn goes_on(&self) -> bool {
        self.begun.elapsed() < self.order.time
    }

    /// Says what happens, if anybody wants to know.
    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.order.verbose {
            eprintln!("{:>8} ms  {}", self.site.now_ms(), what());
        }
    }

    /// Counts a fault.
    pub fn count(&mut self, fault: &str) {
        *self.report.faults.entry(fault.to_owned()).or_default() += 1;
    }

    /// Counts what happened many times.
    pub fn count_many(&mut self, fault: &str, times: u64) {
        *self.report.faults.entry(fault.to_owned()).or_default() += times;
    }

    /// Sleeps for about `mean`, as the gaps of a Poisson process are.
    pub async fn gap(&mut self, mean: Duration) {
        let gap = mean.mul_f64(-(1.0 - self.rng.unit()).ln()).min(mean * 5);
        tokio::time::sleep(gap).await;
    }

    /// Kills a role and lets it come back later. False when it did not run.
    pub fn kill(&mut self, role: Role, back_after: Duration) -> Result<bool> {
        let pid = self.site.with(role, |p| Ok(p.pid().as_raw_nonzero().get()))?;
        let died = tokio::task::block_in_place(|| self.site.kill_role(role))?;
        let (Some(pid), Some(slots)) = (pid, died) else { return Ok(false) };
        self.dead.insert((role.to_string(), pid.into()));
        self.say(|| {
            format!("{role} is killed with {} slots, back after {back_after:?}", slots.len())
        });
        for slot in slots {
            if let Some(attempt) = super::slot::attempt_of(&slot.name) {
                self.killed.insert(attempt, slot.cpu_ns);
                self.meter.note(attempt, slot.cpu_ns);
            }
        }
        let site = self.site.clone();
        self.comebacks.spawn(async move {
            tokio::time::sleep(back_after).await;
            site.start_role(role)
        });
        Ok(true)
    }

    /// Kills a slot, if any is at work.
    pub fn kill_a_slot(&mut self) -> bool {
        let slots = self.site.slots();
        if slots.is_empty() {
            return false;
        }
        let (attempt, slot) = self.rng.pick(&slots).clone();
        if !self.site.kill_slot(&slot) {
            return false;
        }
        self.say(|| format!("the slot of {attempt} is killed"));
        self.killed.insert(attempt, slot.cpu_ns);
        self.meter.note(attempt, slot.cpu_ns);
        true
    }

    /// Nanoseconds of processor time that slots have had so far.
    pub fn work_done(&self) -> u64 {
        self.meter.total()
    }

    /// Lets the load submit nothing more; what is under way goes on.
    pub async fn hush(&mut self) -> Result<()> {
        match self.load.take() {
            Some(load) => load.stop().await,
            None => Ok(()),
        }
    }

    /// Starts another load behind one that was hushed.
    pub fn reload(&mut self, load: LoadOptions) {
        self.load = Some(Load::start(self.site.clone(), self.journal.clone(), load, &mut self.rng));
    }

    /// Waits for every role that was to come back.
    pub async fn everybody_back(&mut self) -> Result<()> {
        while let Some(back) = self.comebacks.join_next().await {
            back.context("a comeback panicked")??;
        }
        Ok(())
    }

    /// Heals, waits until all is done and quiet, and looks at everything.
    pub async fn finish(mut self) -> Result<Report> {
        let faults_s = self.begun.elapsed().as_secs_f64();
        self.hush().await?;
        self.everybody_back().await?;
        self.say(|| "healing".to_owned());
        self.site.heal().await?;
        let healed = Instant::now();
        let client = Client::new(self.site.clone(), self.journal.clone())?;
        client.settle(&mut self.rng).await?;
        let jobs = self.end_of_jobs(&client).await?;
        let quiet = self.quiet().await?;
        self.report.figure("quiet after s", healed.elapsed().as_secs_f64());
        self.say(|| "quiet".to_owned());
        if !quiet {
            self.report.violations.push("I15: it does not become quiet".to_owned());
        }
        let mut consumed = Vec::new();
        for consumer in std::mem::take(&mut self.consumers) {
            consumed.push(consumer.finish().await?);
        }
        let wrong = audit::all(&self.site, &self.journal, &consumed, &self.lost).await?;
        self.report.violations.extend(wrong);
        self.fates().await?;
        self.figures(jobs, faults_s).await?;
        self.meter.stop();

        let wrong = self.site.end_roles().await;
        self.report.violations.extend(wrong.into_iter().map(|w| format!("I16: {w}")));
        if self.site.has_nas() {
            let bare = self.site.nas(|nas| nas.end())?;
            self.report.violations.extend(bare.iter().map(|b| format!("I11: bare: {b}")));
        }
        let left = self.site.processes();
        let left = left.iter().map(|p| format!("I16: process {:?} is left: {}", p.name, p.line));
        self.report.violations.extend(left);
        let locks = "select count(*) from pg_locks where locktype = 'advisory'";
        if self.site.number(locks).await? > 0 {
            self.report.violations.push("I16: an advisory lock is left".to_owned());
        }
        if !self.report.violations.is_empty() {
            self.site.keep();
            eprintln!("the folder is kept: {}", self.site.path().display());
        }
        Ok(self.report)
    }

    /// Waits until every job is over. A job that failed because its tasks were killed too
    /// often is taken up again, as its operator would; and after a restore, one that found a
    /// version of the lost history in its way, as often as there are such versions.
    async fn end_of_jobs(&mut self, client: &Client) -> Result<usize> {
        const OPEN: &str =
            "select count(*) from job where state not in ('succeeded', 'failed', 'cancelled')";
        // What was killed too often is in quarantine, for its operator to look at.
        const STOPPED: &str = "select j.id from job j where j.state = 'failed' \
            and not exists (select from task t where t.job_id = j.id and t.state = 'failed' \
                and (t.failure->>'code' is distinct from 'publish_conflict' \
                    or not exists (select from event_log where kind = 'adopted'))) \
            and exists (select from task t where t.job_id = j.id \
                and t.state in ('failed', 'quarantined'))";
        let begun = Instant::now();
        let mut patience = (
            self.site.number("select count(*) from task where state in ('done')").await?,
            Instant::now(),
        );
        loop {
            for row in self.site.rows(STOPPED).await? {
                let job = row["id"].as_i64().context("a job without a number")?;
                if client.retry(job).await? {
                    self.say(|| format!("job {job} is taken up again"));
                    *self.report.figures.entry("jobs retried".to_owned()).or_default() += 1.0;
                }
            }
            if self.site.number(OPEN).await? == 0 && self.site.rows(STOPPED).await?.is_empty() {
                break;
            }
            // As long as something gets done it may take as long as it takes.
            let done =
                self.site.number("select count(*) from task where state in ('done')").await?;
            if done != patience.0 {
                patience = (done, Instant::now());
            }
            if patience.1.elapsed() > PATIENCE / 2 {
                self.say(|| format!("jobs do not end after {:?}", begun.elapsed()));
                break;
            }
            pause().await;
        }
        Ok(self.site.number("select count(*) from job").await? as usize)
    }

    /// Waits until nothing runs, is published, waits for a number, or lies in a stage.
    async fn quiet(&self) -> Result<bool> {
        // Workers that nobody hears any more have still to be marked.
        let busy = format!(
            "select (select count(*) from attempt where state = 'running') \
             + (select count(*) from publication where state in ('prepared', 'moving')) \
             + (select count(*) from event_in) \
             + abs((select count(*) from worker where state in ('active', 'draining')) - {})",
            self.site.options().workers
        );
        let begun = Instant::now();
        loop {
            let stages = ["archive", "output", "preview", "cache"].iter().any(|share| {
                let stage = self.site.share(share).join(".trix/stage");
                std::fs::read_dir(stage).into_iter().flatten().next().is_some()
            });
            if self.site.number(&busy).await? == 0 && !stages && self.site.slots().is_empty() {
                return Ok(true);
            }
            if begun.elapsed() > Duration::from_secs(60) {
                return Ok(false);
            }
            pause().await;
        }
    }

    /// What became of the histories that restores have cut off.
    async fn fates(&mut self) -> Result<()> {
        let mut sum = Fate::default();
        for lost in &self.lost {
            let (wrong, fate) = lost.wrong(&self.site).await?;
            self.report.violations.extend(wrong);
            sum.adopted += fate.adopted;
            sum.flagged += fate.flagged;
        }
        if !self.lost.is_empty() {
            self.report.figure("lost versions adopted", sum.adopted as f64);
            self.report.figure("lost versions flagged", sum.flagged as f64);
        }
        Ok(())
    }

    async fn figures(&mut self, jobs: usize, faults_s: f64) -> Result<()> {
        let count = |query: &'static str| self.site.number(query);
        let tasks = count("select count(*) from task where state in ('done', 'skipped')").await?;
        let attempts = count("select count(*) from attempt").await?;
        let lost = count("select count(*) from attempt where state = 'lost'").await?;
        let refused = count("select count(*) from event_log where kind = 'result.refused'").await?;
        let marked = count("select count(*) from event_log where kind = 'worker.lost'").await?;
        // Adoption leaps over numbers that nobody had.
        let leaders = count("select epoch % 4294967296 from leader").await?;
        let events = count("select count(*) from event_log").await?;
        self.report.tasks = tasks as u64;
        let slowest = self.journal.calls().iter().map(|c| c.took_ms).max().unwrap_or_default();
        for (name, value) in [
            ("seconds of faults", faults_s),
            ("jobs", jobs as f64),
            ("attempts", attempts as f64),
            ("attempts lost", lost as f64),
            ("results refused", refused as f64),
            ("workers marked", marked as f64),
            ("leaders", leaders as f64),
            ("events", events as f64),
            ("calls", self.journal.calls().len() as f64),
            ("slowest answer ms", slowest as f64),
        ] {
            self.report.figure(name, value);
        }
        let (repeated, killed) = self.repeated().await?;
        self.report.figure("cpu repeated ms", repeated as f64 / 1e6);
        self.report.figure("cpu killed ms", killed as f64 / 1e6);
        Ok(())
    }

    /// Processor time of attempts that came to nothing, and of those that were at work when
    /// something was killed under them.
    async fn repeated(&self) -> Result<(u64, u64)> {
        let useful =
            "select task_id, epoch from attempt where state = 'succeeded' and not result_lost";
        let useful: Vec<AttemptId> =
            (self.site.rows(useful).await?.iter()).filter_map(attempt_of_row).collect();
        let all = self.meter.all();
        let repeated = all.iter().filter(|(a, _)| !useful.contains(a)).map(|(_, ns)| ns).sum();
        // An attempt whose slot had ended runs until its result is committed: it was killed
        // with its worker, too.
        let mut killed = self.killed.clone();
        let lost = "select a.task_id, a.epoch, n.name, w.pid from attempt a \
            join worker w on w.id = a.worker_id join node n on n.id = w.node_id \
            where a.state = 'lost'";
        for row in self.site.rows(lost).await? {
            let node = row["name"].as_str().unwrap_or_default().to_owned();
            let attempt = attempt_of_row(&row);
            if let (Some(attempt), Some(pid)) = (attempt, row["pid"].as_i64())
                && self.dead.contains(&(node, pid))
            {
                killed.insert(attempt, all.get(&attempt).copied().unwrap_or_default());
            }
        }
        Ok((repeated, killed.values().sum()))
    }
}

/// The attempt that a row's columns `task_id` and `epoch` name.
fn attempt_of_row(row: &Value) -> Option<AttemptId> {
    let (task, epoch) = (row["task_id"].as_i64()?, row["epoch"].as_i64()?);
    Some(AttemptId { task: TaskId(task), epoch: Epoch(epoch) })
}

/// Adds up the processor time of slots, by attempt.
struct Meter {
    seen: Arc<Mutex<HashMap<AttemptId, u64>>>,
    stop: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Meter {
    /// Looks at all slots twenty times a second.
    fn start(site: Arc<Site>) -> Result<Meter> {
        let (seen, stop) = (Arc::new(Mutex::new(HashMap::new())), Arc::new(AtomicBool::new(false)));
        let (into, until) = (seen.clone(), stop.clone());
        let task = tokio::task::spawn_blocking(move || {
            while !until.load(Ordering::Relaxed) {
                for (attempt, slot) in site.slots() {
                    note(&mut lock(&into), attempt, slot.cpu_ns);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Ok(Meter { seen, stop, task: Some(task) })
    }

    fn note(&self, attempt: AttemptId, cpu_ns: u64) {
        note(&mut lock(&self.seen), attempt, cpu_ns);
    }

    fn total(&self) -> u64 {
        lock(&self.seen).values().sum()
    }

    fn all(&self) -> BTreeMap<AttemptId, u64> {
        lock(&self.seen).iter().map(|(a, ns)| (*a, *ns)).collect()
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task = None;
    }
}

fn note(seen: &mut HashMap<AttemptId, u64>, attempt: AttemptId, cpu_ns: u64) {
    let known = seen.entry(attempt).or_default();
    *known = cpu_ns.max(*known);
}
