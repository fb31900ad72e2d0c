//! Chores with a name and a pace of their own: retention and the cache.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use trix_db::DbError;
use trix_db::leader::Leader;
use trix_model::Key;
use trix_storage::Cache;

use crate::DispatchConfig;
use crate::reconcile::step;

/// Objects in one look for what to prune.
const PRUNE_BATCH: u32 = 500;

/// An object that the database does not know may be the output of an attempt whose
/// result is on its way, also through an outbox: it stays for so long.
const STRAY_AGE: Duration = Duration::from_secs(24 * 3600);

/// What is done now and then.
pub(crate) struct Chores<'a> {
    config: &'a DispatchConfig,
    retire: Due,
    prune: Due,
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
        Chores { config, retire, prune }
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
        Ok(())
    }
}

/// Removes what no unfinished task needs, least recently used first, until the cache
/// holds no more than it may.
async fn prune(config: &DispatchConfig, leader: &Leader) -> Result<(), DbError> {
    let (roots, name, limit) = (config.roots.clone(), config.cache.clone(), config.cache_limit);
    let deadline = config.db.times().mount_deadline;
    // A dead share may hang for ever: the thread is then given up, and the leader goes on.
    let look = bounded(deadline, move || -> trix_storage::Result<_> {
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
            if bounded(deadline, move || cache.remove(&key)).await.is_none() {
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

/// Runs something that may hang on a share. `None` when it failed or did not come back,
/// which is logged here: the share's state is the workers' matter.
async fn bounded<T: Send + 'static>(
    deadline: Duration,
    work: impl FnOnce() -> trix_storage::Result<T> + Send + 'static,
) -> Option<T> {
    let (send, receive) = tokio::sync::oneshot::channel();
    // Not the runtime's pool: a thread that hangs there would keep the process from ending.
    std::thread::spawn(move || send.send(work()));
    match tokio::time::timeout(deadline, receive).await {
        Ok(Ok(Ok(v))) => Some(v),
        Ok(Ok(Err(e))) => {
            tracing::warn!(error = &e as &dyn std::error::Error, "looking after the cache");
            None
        }
        Ok(Err(_)) => {
            tracing::error!("looking after the cache: the thread panicked");
            None
        }
        Err(_) => {
            tracing::warn!(?deadline, "looking after the cache: its share does not answer");
            None
        }
    }
}
