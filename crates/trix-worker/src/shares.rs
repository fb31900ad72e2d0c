//! The shares of a node: verified handles, and a watcher of each.
//!
//! A watcher is a thread that asks a [probe child](crate::probe) how the share is. The handle
//! that came with a good answer is the only way to a share.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use trix_db::ProtocolTimes;
use trix_model::{Failure, ShareName, with_causes};
use trix_storage::{Cache, MoveMethod, Share, ShareRole, WritableShare};
use uuid::Uuid;

use crate::core::Event;
use crate::probe::{Look, NoShare, ProbeChild, Prober};
use crate::state::StateDir;

/// A share as the node's configuration names it.
#[derive(Clone, Debug)]
pub struct ShareMount {
    /// Its name in the cluster.
    pub name: ShareName,
    /// Where it lies on this node.
    pub root: PathBuf,
    /// What it is for; sources are never written to.
    pub role: ShareRole,
    /// The marker that it must have. `None`: a writable share keeps the one that it
    /// had when this node first used it.
    pub marker: Option<Uuid>,
    /// The mount helper may mount it anew when it is away.
    pub remount: bool,
}

/// So many probes of one share may hang in the kernel; a share that was mounted anew needs a
/// fresh one, and a mount that hangs for ever must not fill the table of processes.
const MAX_STUCK: usize = 8;

/// So many bytes must be free on a writable share.
const MIN_FREE: u64 = 64 << 20;

/// All shares of the node.
#[derive(Debug)]
pub struct Shares {
    mounts: BTreeMap<ShareName, Mount>,
    cache: ShareName,
    max_object: u64,
}

#[derive(Debug)]
struct Mount {
    mount: ShareMount,
    state: Arc<Mutex<Current>>,
    wake: Sender<()>,
}

/// What the last probes said.
#[derive(Debug)]
struct Current {
    handle: Option<Handle>,
    usable: bool,
    reason: String,
    /// Good probes in a row.
    goods: u32,
    /// It was lost once; then one good probe is not enough.
    lost_before: bool,
}

/// A share that was verified.
#[derive(Clone, Debug)]
pub(crate) enum Handle {
    Read(Share),
    Write(WritableShare, MoveMethod),
}

impl Handle {
    /// The descriptor of its root.
    pub fn root(&self) -> BorrowedFd<'_> {
        match self {
            Handle::Read(share) => share.as_fd(),
            Handle::Write(share, _) => share.as_fd(),
        }
    }

    /// How files get their names there; `None` for a source.
    pub fn moves(&self) -> Option<MoveMethod> {
        match self {
            Handle::Read(_) => None,
            Handle::Write(_, moves) => Some(*moves),
        }
    }
}

impl Current {
    fn lose(&mut self, reason: &str) {
        self.usable = false;
        self.reason = reason.to_owned();
        self.goods = 0;
        self.lost_before = true;
    }
}

fn lock(state: &Mutex<Current>) -> MutexGuard<'_, Current> {
    // Only whole values are written under the lock.
    state.lock().unwrap_or_else(|e| e.into_inner())
}

impl Shares {
    /// Starts the watchers; they tell `events` what is usable and what is not any more.
    pub fn start(
        mounts: Vec<ShareMount>,
        cache: ShareName,
        max_object: u64,
        watch: &Watch,
        state: Arc<StateDir>,
        events: UnboundedSender<Event>,
    ) -> std::io::Result<Shares> {
        let markers = Arc::new(Mutex::new(()));
        let mut all = BTreeMap::new();
        for mount in mounts {
            let current = Current {
                handle: None,
                usable: false,
                reason: "it was not probed yet".to_owned(),
                goods: 0,
                lost_before: false,
            };
            let current = Arc::new(Mutex::new(current));
            let (wake, woken) = channel();
            let watcher = Watcher {
                mount: mount.clone(),
                watch: watch.clone(),
                state: state.clone(),
                markers: markers.clone(),
                current: current.clone(),
                events: events.clone(),
                child: None,
                stuck: Vec::new(),
                remount: Pause::new(&watch.times),
            };
            std::thread::Builder::new()
                .name(format!("share-{}", mount.name))
                .spawn(move || watcher.run(&woken))?;
            all.insert(mount.name.clone(), Mount { mount, state: current, wake });
        }
        Ok(Shares { mounts: all, cache, max_object })
    }

    /// Has these shares probed now: something on them went wrong.
    pub fn doubt<'a>(&self, names: impl IntoIterator<Item = &'a ShareName>) {
        for mount in names.into_iter().filter_map(|name| self.mounts.get(name)) {
            // A watcher that ended has nobody left to tell.
            let _ = mount.wake.send(());
        }
    }

    fn handle(&self, name: &ShareName) -> Result<Handle, Failure> {
        let mount = self
            .mounts
            .get(name)
            .ok_or_else(|| Failure::share(format!("this node has no share {name}")).about(name))?;
        let current = lock(&mount.state);
        match &current.handle {
            Some(handle) if current.usable => Ok(handle.clone()),
            _ => {
                let message = format!("share {name} is away: {}", current.reason);
                Err(Failure::share(message).about(name))
            }
        }
    }

    /// A share to read from.
    pub fn read(&self, name: &ShareName) -> Result<Share, Failure> {
        Ok(match self.handle(name)? {
            Handle::Read(share) => share,
            Handle::Write(share, _) => Share::clone(&share),
        })
    }

    /// A share to write to, and how files get their names there.
    pub fn write(&self, name: &ShareName) -> Result<(WritableShare, MoveMethod), Failure> {
        match self.handle(name)? {
            Handle::Write(share, method) => Ok((share, method)),
            Handle::Read(_) => {
                let message = format!("share {name} is a source and never written to");
                Err(Failure::request("share_not_writable", message).about(name))
            }
        }
    }

    /// The artifact cache.
    pub fn cache(&self) -> Result<Cache, Failure> {
        let (share, _) = self.write(&self.cache)?;
        Ok(Cache::on_share(&share, self.max_object)?)
    }

    /// Names and roles, for the start-up's log line.
    pub fn describe(&self) -> String {
        let all = self.mounts.values().map(|m| format!("{} ({:?})", m.mount.name, m.mount.role));
        all.collect::<Vec<_>>().join(", ").to_lowercase()
    }
}

/// What all watchers go by.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// Starts probe children.
    pub prober: Prober,
    /// Where the mount helper listens, if there is one.
    pub mount_helper: Option<PathBuf>,
    /// The protocol's times.
    pub times: ProtocolTimes,
}

/// The thread that watches one share. It waits for nothing that has no end.
struct Watcher {
    mount: ShareMount,
    watch: Watch,
    state: Arc<StateDir>,
    /// Held while the file of markers is read and written.
    markers: Arc<Mutex<()>>,
    current: Arc<Mutex<Current>>,
    events: UnboundedSender<Event>,
    child: Option<ProbeChild>,
    /// Killed children that hang in the kernel.
    stuck: Vec<Child>,
    remount: Pause,
}

impl Watcher {
    fn run(mut self, woken: &std::sync::mpsc::Receiver<()>) {
        loop {
            let mut verdict = self.look();
            if verdict.is_err() && self.mount.remount && self.remount.is_over() {
                self.ask_for_remount();
                verdict = self.look();
            }
            if verdict.is_ok() {
                self.remount = Pause::new(&self.watch.times);
            }
            if !self.tell(verdict) {
                break;
            }
            match woken.recv_timeout(self.watch.times.mount_probe) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => while woken.try_recv().is_ok() {},
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.give_up_child();
    }

    /// One look by the child.
    fn look(&mut self) -> Result<Handle, String> {
        let kept = lock(&self.current).handle.clone();
        let known = self.known_marker()?;
        let mut child = match self.child.take() {
            Some(child) => child,
            None => self.start_child()?,
        };
        let look = Look {
            name: self.mount.name.clone(),
            root: self.mount.root.clone(),
            role: self.mount.role,
            marker: known,
            min_free: if self.mount.role == ShareRole::Source { 0 } else { MIN_FREE },
            open: kept.is_none(),
        };
        let found = match child.look(&look, self.watch.times.mount_deadline) {
            Ok(found) => found,
            Err(NoShare::Unusable(reason)) => {
                self.child = Some(child);
                return Err(reason);
            }
            Err(NoShare::Silent(reason)) => {
                self.stuck.extend(child.end());
                return Err(reason);
            }
        };
        self.child = Some(child);
        if let (None, Some(marker), false) =
            (known, found.marker, self.mount.role == ShareRole::Source)
        {
            self.remember_marker(marker)?;
        }
        match (kept, found.root) {
            // A child that was started anew has opened the root anew, and that is the one
            // that it looks at from now on.
            (_, Some(root)) => self.handle(root, found.moves),
            (Some(handle), None) => Ok(handle),
            (None, None) => Err("its probe kept the root to itself".to_owned()),
        }
    }

    fn start_child(&mut self) -> Result<ProbeChild, String> {
        // What the kernel has let go of is reaped here.
        self.stuck.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if self.stuck.len() >= MAX_STUCK {
            return Err(format!("{} probes hang in it", self.stuck.len()));
        }
        self.watch.prober.start().map_err(|e| format!("starting its probe: {e}"))
    }

    fn give_up_child(&mut self) {
        if let Some(child) = self.child.take() {
            self.stuck.extend(child.end());
        }
    }

    fn handle(&self, root: OwnedFd, moves: Option<MoveMethod>) -> Result<Handle, String> {
        let (name, path) = (self.mount.name.clone(), &self.mount.root);
        match moves {
            None => Share::from_fd(name, path, root).map(Handle::Read),
            Some(moves) => {
                WritableShare::from_fd(name, path, root).map(|share| Handle::Write(share, moves))
            }
        }
        .map_err(|e| e.with_causes())
    }

    /// Has the mount helper mount the share anew, which may take as long as its server likes.
    fn ask_for_remount(&mut self) {
        let Some(helper) = &self.watch.mount_helper else { return };
        let name = &self.mount.name;
        match crate::remount::ask(helper, name) {
            Ok(()) => tracing::info!(share = %name, "the share was mounted anew"),
            Err(e) => tracing::warn!(share = %name, "mounting the share anew: {}", with_causes(&e)),
        }
        // The old child looks at the old mount.
        self.give_up_child();
        lock(&self.current).handle = None;
        self.remount.lengthen();
    }

    /// The marker that the share must have: the configured one, else the one that this
    /// node has seen; `None` at the first time, when it tells the one that it has or gets.
    fn known_marker(&self) -> Result<Option<Uuid>, String> {
        if self.mount.marker.is_some() || self.mount.role == ShareRole::Source {
            return Ok(self.mount.marker);
        }
        let _turn = self.markers.lock().unwrap_or_else(|e| e.into_inner());
        let markers = self.state.markers().map_err(|e| with_causes(&e))?;
        Ok(markers.get(&self.mount.name).copied())
    }

    fn remember_marker(&self, marker: Uuid) -> Result<(), String> {
        let _turn = self.markers.lock().unwrap_or_else(|e| e.into_inner());
        let mut markers = self.state.markers().map_err(|e| with_causes(&e))?;
        markers.insert(self.mount.name.clone(), marker);
        self.state.remember_markers(&markers).map_err(|e| with_causes(&e))
    }

    /// Keeps the verdict and tells the worker of a change; false when nobody listens.
    fn tell(&self, verdict: Result<Handle, String>) -> bool {
        let name = self.mount.name.clone();
        let mut current = lock(&self.current);
        let event = match verdict {
            Ok(handle) => {
                current.handle = Some(handle);
                current.goods += 1;
                // A share that was lost must be good twice: servers come back in steps.
                let enough = if current.lost_before { 2 } else { 1 };
                if current.usable || current.goods < enough {
                    return !self.events.is_closed();
                }
                current.usable = true;
                current.reason.clear();
                tracing::info!(share = %name, root = %self.mount.root.display(), "the share is usable");
                Event::ShareOk(name)
            }
            Err(reason) => {
                // The next probe opens it anew: a remounted share needs a new handle.
                current.handle = None;
                let news = current.usable || current.reason != reason;
                current.lose(&reason);
                if !news {
                    return !self.events.is_closed();
                }
                tracing::warn!(share = %name, %reason, "the share is not usable");
                Event::ShareLost(name, reason)
            }
        };
        self.events.send(event).is_ok()
    }
}

/// A pause that grows from that between two probes to sixty of them (5 s to 5 min).
#[derive(Debug)]
struct Pause {
    until: Instant,
    next: Duration,
    longest: Duration,
}

impl Pause {
    fn new(times: &ProtocolTimes) -> Pause {
        let (next, longest) = (times.mount_probe, times.mount_probe * 60);
        Pause { until: Instant::now(), next, longest }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn lengthen(&mut self) {
        self.until = Instant::now() + self.next;
        self.next = (self.next * 2).min(self.longest);
    }
}
