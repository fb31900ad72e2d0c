//! Chores with a name and a pace of their own: retention, the cache, and stages that
//! nobody needs any more.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use trix_db::DbError;
use trix_db::leader::Leader;
use trix_model::{Key, TaskId};
use trix_storage::share::ShareRole;
use trix_storage::{Cache, ClusterTag, StageEntry};

use crate::DispatchConfig;
use crate::reconcile::step;

/// Objects in one look for what to prune.
const PRUNE_BATCH: u32 = 500;

/// An object that the database does not know may be the output of an attempt whose
/// result is on its way, also through an outbox: it stays for so long.
const STRAY_AGE: Duration = Duration::from_secs(24 * 3600);

/// Stages are looked through once in so many probes of shares: once a minute.
const SWEEP_PROBES: u32 = 12;

/// What is done now and then.
pub(crate) struct Chores<'a> {
    config: &'a DispatchConfig,
    retire: Due,
    prune: Due,
    sweep: Due,
}

/// When something is due.
struct Due {
    every: Duration,
    last: Option<Instant>,
}

impl Due {
    fn new(every: Duration) -> Due {
        Due { every, last: None }
    }

    fn is_due(&mut self) -> bool {
        let due = self.last.is_none_or(|t| t.elapsed() >= self.every);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}

impl<'a> Chores<'a> {
    pub(crate) fn new(config: &'a DispatchConfig) -> Chores<'a> {
        let retire = Due::new(config.retire_every);
        let prune = Due::new(config.prune_every);
        let sweep = Due::new(config.db.times().mount_probe * SWEEP_PROBES);
        Chores { config, retire, prune, sweep }
    }

    /// Runs what is due.
    pub(crate) async fn run_due(&mut self, leader: &Leader) -> Result<(), DbError> {
        if self.retire.is_due() {
            let retired = leader.retire(&self.config.retention).await;
            if let Some(retired) = step("dropping old history", retired)? {
                tracing::debug!(?retired, "dropped what is older than its retention");
            }
        }
        if self.prune.is_due() {
            prune(self.config, leader).await?;
        }
        if self.sweep.is_due() {
            sweep(self.config, leader).await?;
        }
        Ok(())
    }
}

/// Removes what no unfinished task needs, least recently used first, until the cache
/// holds no more than it may.
async fn prune(config: &DispatchConfig, leader: &Leader) -> Result<(), DbError> {
    let (roots, name, limit) = (config.roots.clone(), config.cache.clone(), config.cache_limit);
    let deadline = config.db.times().mount_deadline;
    // A dead share may hang for ever: the thread is then given up, and the leader goes on.
    let look = bounded("looking after the cache", deadline, move || -> trix_storage::Result<_> {
        let cache = Cache::on_share(&roots.open_writable(&name)?, u64::MAX)?;
        let share_limit = cache.share_limit()?;
        let limit = limit.map_or(share_limit, |l| l.min(share_limit));
        let mut listed = cache.list()?;
        listed.sort_by_key(|(_, _, used)| *used);
        Ok((cache, limit, listed))
    });
    let Some((cache, limit, listed)) = look.await else { return Ok(()) };
    let mut total: u64 = listed.iter().map(|(_, size, _)| size).sum();
    if total <= limit {
        return Ok(());
    }
    let before = total;

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let old = i64::try_from(now.saturating_sub(STRAY_AGE).as_nanos()).unwrap_or(i64::MAX);
    let old: Vec<(Key, u64)> =
        listed.into_iter().filter(|(_, _, used)| *used < old).map(|(k, s, _)| (k, s)).collect();
    let mut strays = Vec::new();
    for chunk in old.chunks(PRUNE_BATCH as usize) {
        let keys: Vec<Key> = chunk.iter().map(|(k, _)| *k).collect();
        let Some(known) = step("looking up artifacts", config.db.artifacts(&keys).await)? else {
            return Ok(());
        };
        strays.extend(chunk.iter().filter(|(k, _)| !known.iter().any(|a| a.key == *k)));
    }
    let mut next = strays;
    while total > limit {
        if next.is_empty() {
            let Some(found) =
                step("looking for artifacts to prune", leader.prunable(PRUNE_BATCH).await)?
            else {
                break;
            };
            next = found.into_iter().map(|a| (a.key, a.size)).collect();
            if next.is_empty() {
                tracing::warn!(total, limit, "the cache is over its limit and all of it is needed");
                break;
            }
        }
        let mut forgotten = 0;
        for (key, size) in std::mem::take(&mut next) {
            if total <= limit {
                break;
            }
            // The row first: a reader that finds a row must find the file, or wait for
            // it to be made again; a file without a row is only a stray.
            if step("forgetting an artifact", leader.forget_artifact(key).await)? != Some(true) {
                continue;
            }
            forgotten += 1;
            let cache = cache.clone();
            if bounded("pruning the cache", deadline, move || cache.remove(&key)).await.is_none() {
                return Ok(());
            }
            total = total.saturating_sub(size);
        }
        // All of a batch was taken into use meanwhile: the next look will tell.
        if forgotten == 0 {
            break;
        }
    }
    tracing::info!(before, after = total, limit, "pruned the cache");
    Ok(())
}

/// Removes what attempts of jobs that are over left on shares: the archive copy that intake
/// staged for a job that was cancelled, and stages of workers that never came back.
async fn sweep(config: &DispatchConfig, leader: &Leader) -> Result<(), DbError> {
    const WHAT: &str = "looking for stages that nobody needs";
    let Some(cluster) = step(WHAT, config.db.cluster_id().await)? else { return Ok(()) };
    // Another cluster on the same share has tasks of the same numbers.
    let cluster = ClusterTag::from(cluster);
    let deadline = config.db.times().mount_deadline;
    let writable = config.roots.iter().filter(|(_, root)| root.role != ShareRole::Source);
    for name in writable.map(|(name, _)| name.clone()) {
        let roots = config.roots.clone();
        let look = bounded(WHAT, deadline, move || {
            let share = roots.open_writable(&name)?;
            let found = trix_storage::stage::stages(share.dir())?;
            Ok((share, found))
        });
        let Some((share, found)) = look.await else { continue };
        let tasks: Vec<TaskId> =
            found.iter().filter_map(|s| Some(s.attempt_of(cluster)?.task)).collect();
        if tasks.is_empty() {
            continue;
        }
        let Some(ended) = step(WHAT, leader.ended_tasks(&tasks).await)? else { continue };
        if ended.is_empty() {
            continue;
        }
        let over =
            move |s: &StageEntry| s.attempt_of(cluster).is_some_and(|a| ended.contains(&a.task));
        let sweep = move || trix_storage::sweep_stages(share.dir(), over);
        if let Some(removed) = bounded("removing stages", deadline, sweep).await {
            tracing::info!(?removed, "removed stages of jobs that are over");
        }
    }
    Ok(())
}

/// Runs something that may hang on a share. `None` when it failed or did not come back,
/// which is logged here: the share's state is the workers' matter.
async fn bounded<T: Send + 'static>(
    what: &'static str,
    deadline: Duration,
    work: impl FnOnce() -> trix_storage::Result<T> + Send + 'static,
) -> Option<T> {
    let (send, receive) = tokio::sync::oneshot::channel();
    // Not the runtime's pool: a thread that hangs there would keep the process from ending.
    std::thread::spawn(move || send.send(work()));
    match tokio::time::timeout(deadline, receive).await {
        Ok(Ok(Ok(v))) => Some(v),
        Ok(Ok(Err(e))) => {
            tracing::warn!(error = &e as &dyn std::error::Error, "{what}");
            None
        }
        Ok(Err(_)) => {
            tracing::error!("{what}: the thread panicked");
            None
        }
        Err(_) => {
            tracing::warn!(?deadline, "{what}: the share does not answer");
            None
        }
    }
}
