//! The service role that runs tasks: claims, slots, results, publication.
//!
//! | file | what |
//! |---|---|
//! | `core` | the worker's mind: events in, actions out; no clock, no input, no output |
//! | `attempt` | one attempt: open the inputs, run the slot, keep what it made |
//! | `publish` | copy and publish, which parse no media |
//! | `shares` | verified handles and what watches them |
//! | `probe` | the child process that looks at a share, and may hang as long as that does |
//! | `remount` | the helper with root's rights that mounts shares anew |
//! | `state` | the state folder: lock, identity, outbox |
//!
//! **A worker parses no media and has no SQL.** It talks to the database through
//! [`trix_db::WorkerStore`] alone.

mod attempt;
pub mod core;
mod probe;
mod publish;
mod remount;
mod shares;
mod state;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trix_db::{Credentials, DbError, ProtocolTimes, RegisterRequest, Resources, WorkerStore};
use trix_model::{AttemptId, ShareName, with_causes};
use trix_slot::{Groups, Hello, LaunchError, Launcher, Measure, Policy};
use trix_storage::{ClusterTag, StageName};
use uuid::Uuid;

use crate::attempt::{Context, Stop};
use crate::core::{Action, Call, CallError, Core, CoreConfig, Event, Reply};
pub use crate::probe::{Prober, probe_main};
pub use crate::remount::{MountList, RemountError, serve as serve_mounts};
pub use crate::shares::ShareMount;
use crate::shares::{Shares, Watch};
use crate::state::StateDir;
pub use crate::state::StateError;

/// Everything that a worker is told.
#[derive(Clone)]
pub struct WorkerConfig {
    /// Name of the enrolled node.
    pub node: String,
    /// The node's secret.
    pub node_token: String,
    /// Folder for the lock, the identity and the outbox; made if need be.
    pub state: PathBuf,
    /// Shares that this node has.
    pub shares: Vec<ShareMount>,
    /// Which of them is the cache.
    pub cache: ShareName,
    /// Largest artifact in bytes that the cache takes.
    pub max_object: u64,
    /// What the node gives to tasks.
    pub capacity: Resources,
    /// Starts slots: `trix-media slot`.
    pub launcher: Launcher,
    /// Starts the processes that look at shares.
    pub prober: Prober,
    /// Socket of the mount helper, if there is one.
    pub mount_helper: Option<PathBuf>,
    /// User and group of slots when the worker is root; `None` keeps root without
    /// capabilities.
    pub slot_user: Option<(u32, u32)>,
    /// The database.
    pub store: Arc<dyn WorkerStore>,
    /// The protocol's times.
    pub times: ProtocolTimes,
    /// How long running attempts may go on after a stop.
    pub drain_limit: Duration,
}

impl std::fmt::Debug for WorkerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerConfig")
            .field("node", &self.node)
            .field("state", &self.state)
            .field("shares", &self.shares)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The state folder cannot be used.
    #[error("opening the worker's state folder")]
    State(#[from] StateError),
    /// Slots cannot be started.
    #[error("asking the slot program who it is")]
    Slot(#[from] LaunchError),
    /// The slots' box is weaker than the configuration allows.
    #[error("no attempt runs here: {0} (worker.sandbox = \"best-effort\" does without)")]
    Sandbox(String),
    /// A thread could not be started.
    #[error("starting the worker's threads")]
    Thread(#[source] std::io::Error),
    /// The cluster does not let this node in.
    #[error("node {node} is not let in: {reason}")]
    Denied {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
}

/// Runs a worker until `stop` is cancelled or the cluster has drained it. When it
/// returns, no slot of it lives.
pub async fn run(config: WorkerConfig, stop: CancellationToken) -> Result<(), WorkerError> {
    let path = config.state.clone();
    let (state, earlier, outbox, mut torn) = blocking(move || {
        let state = StateDir::open(&path)?;
        let (earlier, outbox, torn) = (state.identity()?, state.outbox()?, state.torn()?);
        Ok::<_, StateError>((Arc::new(state), earlier, outbox, torn))
    })
    .await?;
    // What a kept result tells of is still needed: intake's staged copy, for one.
    torn.retain(|attempt| outbox.iter().all(|result| result.attempt != *attempt));
    let left = earlier.as_ref().map(|i| Torn { attempts: torn, of: i.registered.incarnation });
    // Until it is registered again, what it removes is what the earlier process left.
    let cluster = earlier.as_ref().map(|i| ClusterTag::from(i.registered.cluster));
    let cluster = cluster.unwrap_or_default();
    raise_file_limit();
    let (launcher, slot_user) = (config.launcher.clone(), config.slot_user);
    let (launcher, hello) = blocking(move || try_box(launcher, slot_user)).await?;
    let (events, inbox) = unbounded_channel();
    let shares = Shares::start(
        config.shares.clone(),
        config.cache.clone(),
        config.max_object,
        &Watch {
            prober: config.prober.clone(),
            mount_helper: config.mount_helper.clone(),
            times: config.times,
        },
        state.clone(),
        events.clone(),
    )
    .map_err(WorkerError::Thread)?;
    tracing::info!(
        node = %config.node, engine = %hello.engine, mcpu = config.capacity.mcpu,
        ram = config.capacity.ram, shares = %shares.describe(), "worker starts"
    );

    // Without an identity nobody could hand these in.
    let orphans = if earlier.is_none() { outbox.clone() } else { Vec::new() };
    for result in &orphans {
        tracing::warn!(attempt = %result.attempt, "a result without its worker's identity is dropped");
        state.forget(result.attempt)?;
    }
    let outbox = if orphans.is_empty() { outbox } else { Vec::new() };
    let core = Core::new(
        CoreConfig {
            times: config.times,
            capacity: config.capacity,
            engine: hello.engine.clone(),
            cache: config.cache.clone(),
            drain_limit: config.drain_limit,
        },
        earlier,
        outbox,
    );
    let context = Arc::new(Context {
        shares,
        launcher,
        engine: hello.engine,
        times: config.times,
        slot_user: config.slot_user,
        store: config.store.clone(),
        runtime: tokio::runtime::Handle::current(),
        events: events.clone(),
        cluster: std::sync::RwLock::new(cluster),
    });
    let (store, hints) = (config.store.clone(), events.clone());
    let shell = Shell {
        config,
        context,
        state,
        events,
        core,
        me: None,
        left,
        torn: Vec::new(),
        running: HashMap::new(),
        call: None,
        begun: Instant::now(),
    };
    let follow = store.follow_work(Box::new(move |hint| {
        // Without a receiver the worker has ended.
        let _ = hints.send(Event::Hint(hint));
    }));
    tokio::select! {
        ended = shell.run(inbox, stop) => ended,
        never = follow => match never {},
    }
}

/// Has a slot close its box around nothing: says once what this machine lacks, and
/// refuses to go on where the configuration demands it.
fn try_box(launcher: Launcher, user: Option<(u32, u32)>) -> Result<(Launcher, Hello), WorkerError> {
    let launcher = launcher.with_groups(Arc::new(Groups::find()));
    let (hello, boxed) = launcher.trial(user)?;
    if let Some(objection) = launcher.policy().objection(&boxed) {
        return Err(WorkerError::Sandbox(objection));
    }
    let told = |measures: &[Measure]| {
        measures.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    tracing::info!(
        uid = boxed.uid, landlock = ?boxed.landlock, policy = ?launcher.policy(),
        enforced = told(&boxed.enforced), "slots are boxed"
    );
    for lacking in boxed.partly.iter().chain(&boxed.missing) {
        if Policy::DEMANDED.contains(&lacking.measure) {
            tracing::warn!(errno = ?lacking.errno, "slots are boxed more weakly: {lacking}");
        } else {
            tracing::info!(errno = ?lacking.errno, "slots do without: {lacking}");
        }
    }
    Ok((launcher, hello))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // The closures here do not panic and are never aborted; if one did, so do we.
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

/// Attempts that did not end before their process did.
struct Torn {
    attempts: Vec<AttemptId>,
    /// The cluster that they belong to.
    of: Uuid,
}

/// Does what the core says.
struct Shell {
    config: WorkerConfig,
    context: Arc<Context>,
    state: Arc<StateDir>,
    events: UnboundedSender<Event>,
    core: Core,
    me: Option<Credentials>,
    /// What an earlier process left, until the cluster is known.
    left: Option<Torn>,
    /// Attempts of an earlier process whose stages are removed from shares that come up.
    torn: Vec<AttemptId>,
    running: HashMap<AttemptId, Arc<Stop>>,
    call: Option<JoinHandle<Result<Reply, CallError>>>,
    begun: Instant,
}

impl Shell {
    async fn run(
        mut self,
        mut inbox: UnboundedReceiver<Event>,
        stop: CancellationToken,
    ) -> Result<(), WorkerError> {
        let mut draining = false;
        let mut self_test = tokio::time::interval(self.config.times.self_test);
        self_test.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut actions = self.core.tick(self.now());
        loop {
            for action in std::mem::take(&mut actions) {
                if let Some(ended) = self.act(action).await {
                    self.clear(&mut inbox).await;
                    return ended;
                }
            }
            let wake = self.begun.checked_add(self.core.wake());
            let wake = wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            let call = async {
                match &mut self.call {
                    Some(call) => call.await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                answer = call => {
                    self.call = None;
                    Some(Event::Called(answer.unwrap_or_else(|e| {
                        Err(CallError::Broken(format!("the call to the database ended: {e}")))
                    })))
                }
                Some(event) = inbox.recv() => Some(event),
                () = stop.cancelled(), if !draining => {
                    tracing::info!(running = self.running.len(), "draining");
                    draining = true;
                    Some(Event::Drain)
                }
                _ = self_test.tick(), if self.me.is_some() && !draining => {
                    self.test_machine();
                    None
                }
                () = tokio::time::sleep_until(wake.into()) => None,
            };
            match &event {
                Some(Event::Ended { attempt, .. }) => self.ended(*attempt),
                Some(Event::ShareOk(share)) if !self.torn.is_empty() => {
                    self.drop_stages(self.torn.clone(), |mount| mount.name == *share);
                }
                _ => {}
            }
            let now = self.now();
            actions = match event {
                Some(event) => self.core.on(event, now, rand::random()),
                None => self.core.tick(now),
            };
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    async fn act(&mut self, action: Action) -> Option<Result<(), WorkerError>> {
        match action {
            Action::Call(call) => self.call(call),
            Action::Start(claim) => self.start(*claim),
            Action::Kill(attempt, why) => {
                tracing::info!(%attempt, ?why, "killing");
                if let Some(stop) = self.running.get(&attempt) {
                    stop.stop();
                }
            }
            Action::Abandon(attempt) => {
                self.running.remove(&attempt);
                tracing::error!(
                    %attempt, abandoned = self.core.abandoned(),
                    "the attempt's thread hangs; leaving it to itself"
                );
            }
            Action::Keep(result) => {
                let (state, attempt) = (self.state.clone(), result.attempt);
                if let Err(e) = blocking(move || state.keep(&result)).await {
                    // It is still in memory and goes out with the next sync.
                    tracing::error!(%attempt, "keeping a result: {}", with_causes(&e));
                }
            }
            Action::Forget(attempt) => {
                let state = self.state.clone();
                if let Err(e) = blocking(move || state.forget(attempt)).await {
                    tracing::error!(%attempt, "forgetting a result: {}", with_causes(&e));
                }
            }
            Action::Remember(identity) => {
                self.me = Some(identity.registered.me.clone());
                let cluster = ClusterTag::from(identity.registered.cluster);
                *self.context.cluster.write().unwrap_or_else(|e| e.into_inner()) = cluster;
                self.adopt_torn(identity.registered.incarnation);
                let state = self.state.clone();
                if let Err(e) = blocking(move || state.remember(&identity)).await {
                    // The next process then registers afresh, and the dispatcher
                    // finds this incarnation by its silence.
                    tracing::error!("keeping the worker's identity: {}", with_causes(&e));
                }
            }
            Action::DropStages(attempts) => self.drop_stages(attempts, |_| true),
            Action::Exit(ended) => {
                let node = self.config.node.clone();
                return Some(ended.map_err(|reason| WorkerError::Denied { node, reason }));
            }
        }
        None
    }

    /// Removes what a killed process left on the shares: on those that are usable now,
    /// and on the others once they are. Only within the cluster that it worked for: in
    /// another one the same numbers are somebody else's.
    fn adopt_torn(&mut self, incarnation: Uuid) {
        let Some(Torn { attempts, of }) = self.left.take() else { return };
        for attempt in &attempts {
            self.ended(*attempt);
        }
        if of == incarnation {
            self.torn = attempts;
            self.drop_stages(self.torn.clone(), |_| true);
        }
    }

    fn ended(&mut self, attempt: AttemptId) {
        self.running.remove(&attempt);
        if let Err(e) = self.state.end(attempt) {
            tracing::warn!(%attempt, "noting its end: {}", with_causes(&e));
        }
    }

    fn start(&mut self, claim: trix_db::Claim) {
        let attempt = claim.attempt;
        // The stage of a publication is what it is rolled forward from: it is not noted.
        if !matches!(claim.spec, trix_plan::task::TaskSpec::Publish(_))
            && let Err(e) = self.state.begin(attempt)
        {
            tracing::warn!(%attempt, "noting its begin: {}", with_causes(&e));
        }
        tracing::info!(%attempt, job = %claim.job, task = %claim.name, "attempt starts");
        let started = match self.me.clone() {
            Some(me) => attempt::start(self.context.clone(), claim, me),
            None => Err(std::io::Error::other("the worker is not registered")),
        };
        match started {
            Ok(stop) => {
                self.running.insert(attempt, stop);
            }
            Err(e) => {
                let failure = trix_model::Failure::new(
                    trix_model::ErrorClass::Resource,
                    trix_model::ErrorOrigin::Node,
                    "node_limit",
                    format!("starting a thread for the attempt: {e}"),
                );
                let outcome = trix_db::Outcome::Failed(failure);
                // The receiver is this very loop.
                let _ =
                    self.events.send(Event::Ended { attempt, outcome, usage: Default::default() });
            }
        }
    }

    /// Deletes stages on a thread of its own: a share may hang.
    fn drop_stages(&self, attempts: Vec<AttemptId>, on: impl Fn(&ShareMount) -> bool) {
        if attempts.is_empty() {
            return;
        }
        let context = self.context.clone();
        let mounts: Vec<ShareMount> =
            self.config.shares.iter().filter(|mount| on(mount)).cloned().collect();
        let sweep = move || {
            let names: Vec<StageName> =
                attempts.into_iter().map(|a| context.stage_name(a)).collect();
            for mount in mounts {
                let Ok((share, _)) = context.shares.write(&mount.name) else { continue };
                for name in &names {
                    let removed = match trix_storage::Stage::open(share.dir(), name) {
                        Ok(stage) => stage.remove(),
                        Err(e) if e.is_not_found() => continue,
                        Err(e) => Err(e),
                    };
                    if let Err(e) = removed {
                        // The janitor is the next to try.
                        tracing::warn!(stage = %name, "removing a stage: {}", e.with_causes());
                    }
                }
            }
        };
        if let Err(e) = std::thread::Builder::new().name("drop-stages".into()).spawn(sweep) {
            tracing::warn!(error = %e, "no thread to remove stages; the janitor will");
        }
    }

    /// Asks this machine for the known answer, and tells the cluster what it said.
    fn test_machine(&self) {
        let Some(me) = self.me.clone() else { return };
        let (launcher, user) = (self.context.launcher.clone(), self.config.slot_user);
        let store = self.config.store.clone();
        tokio::spawn(async move {
            let answer = match blocking(move || launcher.self_test(user)).await {
                Ok(answer) => answer,
                // Nothing is proved by it: a node where no slot starts fails its attempts.
                Err(e) => return tracing::warn!("the self-test: {}", with_causes(&e)),
            };
            if !answer.is_right() {
                tracing::error!(
                    given = %answer.given, expected = %answer.expected,
                    "this machine does not give the known answer: its memory or a core is bad"
                );
            }
            // The next one is soon enough.
            match store.self_test(me, answer.given, answer.expected).await {
                Ok(node) => tracing::debug!(?node, right = answer.is_right(), "self-test"),
                Err(e) => tracing::warn!("telling the self-test: {}", with_causes(&e)),
            }
        });
    }

    fn call(&mut self, call: Call) {
        let store = self.config.store.clone();
        let request = |shares_ok| RegisterRequest {
            node: self.config.node.clone(),
            node_token: self.config.node_token.clone(),
            boot_id: boot_id(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            engine: self.context.engine.clone(),
            capacity: self.config.capacity,
            shares_ok,
        };
        let asked = match call {
            Call::Register { shares_ok } => {
                let request = request(shares_ok);
                tokio::spawn(async move { store.register(request).await.map(Reply::Registered) })
            }
            Call::Supersede(me, old) => {
                tokio::spawn(
                    async move { store.supersede(me, old).await.map(|_| Reply::Superseded) },
                )
            }
            Call::Sync(request) => {
                tokio::spawn(async move { store.sync(*request).await.map(Reply::Synced) })
            }
            Call::Leave(me) => {
                tokio::spawn(async move { store.leave(me).await.map(|()| Reply::Left) })
            }
        };
        self.call = Some(tokio::spawn(async move {
            match asked.await {
                Ok(answer) => answer.map_err(call_error),
                Err(e) => Err(CallError::Broken(e.to_string())),
            }
        }));
    }

    /// Leaves no child behind. Nothing runs here after an orderly end; after a
    /// refusal everything may.
    async fn clear(&mut self, inbox: &mut UnboundedReceiver<Event>) {
        if let Some(call) = self.call.take() {
            call.abort();
        }
        for stop in self.running.values() {
            stop.stop();
        }
        let ended = async {
            while !self.running.is_empty() {
                if let Some(Event::Ended { attempt, .. }) = inbox.recv().await {
                    self.running.remove(&attempt);
                }
            }
        };
        if tokio::time::timeout(self.config.times.cancel_kill, ended).await.is_err() {
            // Threads on a dead share; their slots are killed, and die with us at the latest.
            tracing::error!("attempts hang at the worker's end");
        }
    }
}

fn call_error(e: DbError) -> CallError {
    let text = with_causes(&e);
    match e {
        e if e.is_unavailable() => CallError::Away(text),
        DbError::Denied { .. } => CallError::Denied(text),
        _ => CallError::Broken(text),
    }
}

/// A film's chunks are passed to its mux all at once: the usual limit of 1024 files is
/// too low for long ones, and what is allowed beyond it costs nothing.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = %e, "raising the limit of open files");
    }
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |id| id.trim().to_owned())
}
