//! The shares of a node: verified handles, and a probe that watches each.
//!
//! A probe runs on a thread of its own, because a dead share may hold it for ever.
//! The handle of a good probe is the only way to a share: a dead mount's path is an
//! empty local folder, and writes by path would fill the node's own disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use trix_db::ProtocolTimes;
use trix_model::{Failure, ShareName};
use trix_storage::{
    Cache, Capabilities, Expect, MoveMethod, Probe, Share, ShareRole, ShareState, WritableShare,
};
use uuid::Uuid;

use crate::core::Event;
use crate::state::StateDir;
use crate::with_causes;

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
}

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
    heard: Instant,
    /// Good probes in a row.
    goods: u32,
    /// It was lost once; then one good probe is not enough.
    lost_before: bool,
}

/// A share that was verified.
#[derive(Clone, Debug)]
enum Handle {
    Read(Share),
    Write(WritableShare, MoveMethod),
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
    /// Starts the probes; they tell `events` what is usable and what is not any more.
    pub fn start(
        mounts: Vec<ShareMount>,
        cache: ShareName,
        max_object: u64,
        times: &ProtocolTimes,
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
                heard: Instant::now(),
                goods: 0,
                lost_before: false,
            };
            let current = Arc::new(Mutex::new(current));
            let (wake, woken) = channel();
            let prober = Prober {
                mount: mount.clone(),
                state: state.clone(),
                markers: markers.clone(),
                current: current.clone(),
                events: events.clone(),
            };
            let interval = times.mount_probe;
            std::thread::Builder::new()
                .name(format!("probe-{}", mount.name))
                .spawn(move || prober.run(interval, &woken))?;
            all.insert(mount.name.clone(), Mount { mount, state: current, wake });
        }
        Ok(Shares { mounts: all, cache, max_object })
    }

    /// Looks for probes that do not answer: two deadlines missed is a hung share.
    pub fn look_for_hung(&self, times: &ProtocolTimes, events: &UnboundedSender<Event>) {
        let limit = times.mount_probe + 2 * times.mount_deadline;
        for (name, mount) in &self.mounts {
            let mut current = lock(&mount.state);
            if current.usable && current.heard.elapsed() > limit {
                current.lose("it does not answer");
                tracing::warn!(share = %name, "the share hangs");
                // The receiver is gone only when the worker ends.
                let _ = events.send(Event::ShareLost(name.clone(), current.reason.clone()));
            }
        }
    }

    /// Has these shares probed now: something on them went wrong.
    pub fn doubt<'a>(&self, names: impl IntoIterator<Item = &'a ShareName>) {
        for mount in names.into_iter().filter_map(|name| self.mounts.get(name)) {
            // A probe thread that ended has nobody left to tell.
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

/// The thread that watches one share.
struct Prober {
    mount: ShareMount,
    state: Arc<StateDir>,
    /// Held while the file of markers is read and written.
    markers: Arc<Mutex<()>>,
    current: Arc<Mutex<Current>>,
    events: UnboundedSender<Event>,
}

impl Prober {
    fn run(self, interval: Duration, woken: &std::sync::mpsc::Receiver<()>) {
        loop {
            let verdict = self.look();
            if !self.tell(verdict) {
                return;
            }
            match woken.recv_timeout(interval) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => while woken.try_recv().is_ok() {},
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// One probe; may hang as long as the share does.
    fn look(&self) -> Result<Handle, String> {
        let kept = lock(&self.current).handle.clone();
        let handle = match kept {
            Some(handle) => handle,
            None => self.open()?,
        };
        let expect = |marker| Expect { marker, mount: None, min_free: MIN_FREE };
        let probe: Probe = match &handle {
            Handle::Read(share) => {
                share.probe(&Expect { min_free: 0, ..expect(self.mount.marker) })
            }
            Handle::Write(share, _) => share.probe(&expect(Some(self.marker(share)?))),
        };
        match probe.state {
            ShareState::Ok | ShareState::Slow => Ok(handle),
            _ => Err(probe.reason),
        }
    }

    fn open(&self) -> Result<Handle, String> {
        let (name, root) = (self.mount.name.clone(), &self.mount.root);
        if self.mount.role == ShareRole::Source {
            return Share::open(name, root).map(Handle::Read).map_err(|e| e.with_causes());
        }
        let share = WritableShare::open(name, root).map_err(|e| e.with_causes())?;
        // Before anything is written, even by the trial below: is it the right folder?
        let marker = self.marker(&share)?;
        share.verify_marker(marker).map_err(|e| e.with_causes())?;
        let found = Capabilities::probe(&share).map_err(|e| e.with_causes())?;
        Ok(Handle::Write(share, found.move_method))
    }

    /// The marker that the share must have: the configured one, else the one that this
    /// node has seen, else (the first time) the one that it has or gets.
    fn marker(&self, share: &WritableShare) -> Result<Uuid, String> {
        if let Some(marker) = self.mount.marker {
            return Ok(marker);
        }
        // The share is touched outside the lock: if it hangs, the others must not.
        let kept = || {
            let markers = self.state.markers().map_err(|e| with_causes(&e))?;
            Ok::<_, String>((markers.get(&self.mount.name).copied(), markers))
        };
        {
            let _turn = self.markers.lock().unwrap_or_else(|e| e.into_inner());
            if let (Some(marker), _) = kept()? {
                return Ok(marker);
            }
        }
        let marker = share.ensure_marker().map_err(|e| e.with_causes())?;
        let _turn = self.markers.lock().unwrap_or_else(|e| e.into_inner());
        let (_, mut markers) = kept()?;
        markers.insert(self.mount.name.clone(), marker);
        self.state.remember_markers(&markers).map_err(|e| with_causes(&e))?;
        Ok(marker)
    }

    /// Keeps the verdict and tells the worker of a change; false when nobody listens.
    fn tell(&self, verdict: Result<Handle, String>) -> bool {
        let name = self.mount.name.clone();
        let mut current = lock(&self.current);
        current.heard = Instant::now();
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
