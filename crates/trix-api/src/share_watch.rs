//! Shares as this server sees them: probed in threads that may be given up.
//!
//! A call on a dead network share may hang for ever, so every call runs on a
//! thread of its own with a deadline. A thread that is late is abandoned and
//! counted; a share with too many of them is not called any more until they end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use trix_model::{Failure, ShareName};
use trix_storage::StorageError;
use trix_storage::dir::Space;
use trix_storage::share::{Expect, Probe, Root, Roots, Share, ShareRole, ShareState};
use uuid::Uuid;

use crate::problem::Problem;

/// Calls that may run on one share at once, the abandoned ones included.
const CALLS: usize = 16;

/// A share of this machine.
pub struct Watched {
    /// Its name.
    pub name: ShareName,
    /// Where it lies and what it is for.
    pub root: Root,
    state: Mutex<State>,
    calls: Arc<Semaphore>,
}

struct State {
    share: Option<Share>,
    marker: Option<Uuid>,
    seen: Seen,
}

/// How a share is.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The verdict.
    pub state: ShareState,
    /// Since when it is so.
    pub since: OffsetDateTime,
    /// In words; empty if all is well.
    pub reason: String,
    /// Room, if it could be asked.
    pub space: Option<Space>,
    /// Type of its file system, if it is known.
    pub fs_type: Option<String>,
}

/// All shares of this machine but the cache.
#[derive(Clone)]
pub struct Shares {
    all: Arc<BTreeMap<ShareName, Watched>>,
    deadline: Duration,
}

impl Shares {
    /// Nothing is opened yet.
    pub fn new(roots: &Roots, deadline: Duration) -> Shares {
        let all = roots
            .iter()
            .filter(|(_, root)| root.role != ShareRole::Cache)
            .map(|(name, root)| {
                let seen = Seen {
                    state: ShareState::Gone,
                    since: OffsetDateTime::now_utc(),
                    reason: "it was not looked at yet".to_owned(),
                    space: None,
                    fs_type: None,
                };
                let watched = Watched {
                    name: name.clone(),
                    root: root.clone(),
                    state: Mutex::new(State { share: None, marker: None, seen }),
                    calls: Arc::new(Semaphore::new(CALLS)),
                };
                (name.clone(), watched)
            })
            .collect();
        Shares { all: Arc::new(all), deadline }
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = &Watched> {
        self.all.values()
    }

    /// One of them.
    pub fn get(&self, name: &ShareName) -> Option<&Watched> {
        self.all.get(name)
    }

    /// Says which marker a share must have from now on.
    pub fn expect_marker(&self, name: &ShareName, marker: Option<Uuid>) {
        if let Some(w) = self.all.get(name) {
            w.lock().marker = marker;
        }
    }

    /// Looks at all shares once.
    pub async fn probe_all(&self) {
        futures_util::future::join_all(self.iter().map(|w| w.probe(self.deadline))).await;
    }

    /// Looks at all shares again and again, each at its own pace.
    pub async fn watch(self, every: Duration, cancel: CancellationToken) {
        let each = self.iter().map(|w| async {
            loop {
                w.probe(self.deadline).await;
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(every) => {}
                }
            }
        });
        futures_util::future::join_all(each).await;
    }

    /// Calls `f` with a share that is in order, under the deadline. A share that is
    /// away answers 503 with `code`.
    pub async fn call<T: Send + 'static>(
        &self,
        name: &ShareName,
        code: &str,
        f: impl FnOnce(&Share) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, Problem> {
        let watched = self.get(name).ok_or_else(|| Problem::not_found("share", name))?;
        let share = watched.usable(code)?;
        let away = |reason: String| unavailable(code, name, &reason);
        match watched.run(self.deadline, move || f(&share)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) if e.is_share_away() => {
                let reason = e.with_causes();
                watched.set(ShareState::Gone, reason.clone(), None);
                Err(away(reason))
            }
            Ok(Err(e)) => Err(storage_problem(e)),
            Err(late) => {
                watched.set(ShareState::Hung, late.clone(), None);
                Err(away(late))
            }
        }
    }
}

impl Watched {
    /// How it is.
    pub fn seen(&self) -> Seen {
        self.lock().seen.clone()
    }

    /// The share if it can be read, else 503 with `code`.
    pub fn usable(&self, code: &str) -> Result<Share, Problem> {
        let state = self.lock();
        // A share that is full or read-only can still be read.
        let readable = matches!(
            state.seen.state,
            ShareState::Ok | ShareState::Slow | ShareState::ReadOnly | ShareState::Full
        );
        match &state.share {
            Some(share) if readable => Ok(share.clone()),
            _ => Err(unavailable(code, &self.name, &state.seen.reason)),
        }
    }

    async fn probe(&self, deadline: Duration) {
        let (held, marker) = {
            let state = self.lock();
            // A handle of a mount that is gone never comes back: open it again.
            let usable = !matches!(state.seen.state, ShareState::Gone | ShareState::Wrong);
            (state.share.clone().filter(|_| usable), state.marker)
        };
        let (name, root) = (self.name.clone(), self.root.root.clone());
        let started = std::time::Instant::now();
        let result = self
            .run(deadline, move || {
                let share = match held {
                    Some(share) => share,
                    None => Share::open(name, &root)?,
                };
                let expect = Expect { marker, mount: None, min_free: 0 };
                let probe = share.probe(&expect);
                Ok::<_, StorageError>((share, probe))
            })
            .await;
        match result {
            Ok(Ok((share, probe))) => {
                let Probe { mut state, mut reason, space, mount, .. } = probe;
                if state == ShareState::Ok && started.elapsed() > deadline / 2 {
                    state = ShareState::Slow;
                    reason = format!("it took {} ms to answer", started.elapsed().as_millis());
                }
                self.lock().share = Some(share);
                self.set(state, reason, Some((space, mount.map(|m| m.fs_type))));
            }
            Ok(Err(e)) => self.set(ShareState::Gone, e.with_causes(), None),
            Err(late) => self.set(ShareState::Hung, late, None),
        }
    }

    /// Runs `f` on a thread of its own; `Err` says that it did not end in time.
    async fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let Ok(permit) = self.calls.clone().try_acquire_owned() else {
            return Err(format!("{CALLS} earlier calls have not come back"));
        };
        let (send, receive) = tokio::sync::oneshot::channel();
        let spawned =
            std::thread::Builder::new().name(format!("share {}", self.name)).spawn(move || {
                let result = f();
                drop(permit);
                // Nobody waits any more when the deadline is past.
                let _ = send.send(result);
            });
        if let Err(e) = spawned {
            return Err(format!("no thread could be started: {e}"));
        }
        match tokio::time::timeout(deadline, receive).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err("the call panicked; the server's log says why".to_owned()),
            Err(_) => {
                let abandoned = CALLS - self.calls.available_permits();
                tracing::warn!(share = %self.name, abandoned, "a call on a share is late");
                Err(format!("it did not answer within {} ms", deadline.as_millis()))
            }
        }
    }

    fn set(
        &self,
        state: ShareState,
        reason: String,
        more: Option<(Option<Space>, Option<String>)>,
    ) {
        let mut held = self.lock();
        let seen = &mut held.seen;
        if seen.state != state {
            seen.since = OffsetDateTime::now_utc();
            tracing::info!(share = %self.name, from = %seen.state, to = %state, reason, "a share changed");
        }
        seen.state = state;
        seen.reason = reason;
        if let Some((space, fs_type)) = more {
            seen.space = space;
            seen.fs_type = fs_type;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn unavailable(code: &str, name: &ShareName, reason: &str) -> Problem {
    Problem::unavailable(code, format!("share {name} is away: {reason}"), 10).about(name)
}

/// A failure of storage as an answer: what was asked for decides the status.
pub fn storage_problem(e: StorageError) -> Problem {
    use axum::http::StatusCode;
    let status = match &e {
        StorageError::NotFound { .. } => Some(StatusCode::NOT_FOUND),
        StorageError::Escape { .. } | StorageError::Path(_) => Some(StatusCode::BAD_REQUEST),
        _ => None,
    };
    let mut p = Problem::from(Failure::from(e));
    if let Some(status) = status {
        p.status = status.as_u16();
    }
    p
}
