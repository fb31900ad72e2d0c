//! Until trix-db has these itself: answers put together from what it has.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use trix_db::access::{Role, TokenRow};
use trix_db::jobs::{JobFilter, JobRow, PublicationRow, Submit, Submitted, TaskCounts};
use trix_db::{Db, DbError};
use trix_model::state::{JobState, TaskState};
use trix_model::{Epoch, JobId, Progress, TaskId};

pub struct Overview {
    pub incarnation: uuid::Uuid,
    pub schema_version: i64,
    pub leader: Option<LeaderRow>,
    pub event_head: i64,
    pub jobs: BTreeMap<String, i64>,
    pub tasks: BTreeMap<String, i64>,
    pub workers: BTreeMap<String, i64>,
}

pub struct LeaderRow {
    pub epoch: i64,
    pub holder: String,
    pub since: Option<OffsetDateTime>,
    pub up_ms: i64,
    pub alive: bool,
}

pub struct RunningJob {
    pub job: JobId,
    pub counts: TaskCounts,
    pub attempts: Vec<RunningAttempt>,
}

pub struct RunningAttempt {
    pub task: TaskId,
    pub epoch: Epoch,
    pub progress: Progress,
}

pub trait Wanted {
    async fn overview(&self) -> Result<Overview, DbError>;
    async fn all_tokens(&self) -> Result<Vec<(TokenRow, Role)>, DbError>;
    async fn publication(&self, id: i64) -> Result<Option<PublicationRow>, DbError>;
    async fn running(&self) -> Result<Vec<RunningJob>, DbError>;
    async fn submitted(&self, asked: &Submit) -> Result<Option<Submitted>, DbError>;
}

async fn all_jobs(db: &Db, states: Vec<JobState>) -> Result<Vec<JobRow>, DbError> {
    let mut all: Vec<JobRow> = Vec::new();
    loop {
        let before = all.last().map(|j| j.id);
        let page =
            db.jobs(&JobFilter { before, states: states.clone(), title: None, limit: 500 }).await?;
        let last = page.len() < 500;
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}

impl Wanted for Db {
    async fn overview(&self) -> Result<Overview, DbError> {
        let head = self.event_head().await?;
        let (mut jobs, mut tasks, mut workers) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for j in all_jobs(self, Vec::new()).await? {
            *jobs.entry(j.state.to_string()).or_default() += 1;
            let c = j.counts;
            for (state, n) in [
                ("waiting", c.waiting),
                ("ready", c.ready),
                ("running", c.running),
                ("done", c.done),
                ("failed", c.failed),
                ("cancelled", c.cancelled),
            ] {
                *tasks.entry(state.to_owned()).or_default() += i64::from(n);
            }
        }
        for w in self.workers(true).await? {
            *workers.entry(w.state.to_string()).or_default() += 1;
        }
        Ok(Overview {
            incarnation: head.incarnation,
            schema_version: 0,
            leader: None,
            event_head: head.head,
            jobs,
            tasks,
            workers,
        })
    }

    async fn all_tokens(&self) -> Result<Vec<(TokenRow, Role)>, DbError> {
        let mut all = Vec::new();
        for p in self.principals().await? {
            all.extend(self.tokens(p.id).await?.into_iter().map(|t| (t, p.role)));
        }
        all.sort_by_key(|(t, _)| std::cmp::Reverse(t.id));
        Ok(all)
    }

    async fn publication(&self, id: i64) -> Result<Option<PublicationRow>, DbError> {
        for j in all_jobs(self, Vec::new()).await? {
            if let Some(p) = self.publications(j.id).await?.into_iter().find(|p| p.id == id) {
                return Ok(Some(p));
            }
        }
        Ok(None)
    }

    async fn running(&self) -> Result<Vec<RunningJob>, DbError> {
        let states = vec![JobState::Inspecting, JobState::Running, JobState::Cancelling];
        let mut out = Vec::new();
        for j in all_jobs(self, states).await? {
            let tasks = self.tasks(j.id).await?;
            let attempts: Vec<_> = tasks
                .into_iter()
                .filter(|t| t.state == TaskState::Running)
                .map(|t| RunningAttempt {
                    task: t.id,
                    epoch: t.epoch,
                    progress: t.progress.unwrap_or_default(),
                })
                .collect();
            if !attempts.is_empty() {
                out.push(RunningJob { job: j.id, counts: j.counts, attempts });
            }
        }
        Ok(out)
    }

    async fn submitted(&self, asked: &Submit) -> Result<Option<Submitted>, DbError> {
        // A submit under a profile that cannot exist makes no job: it finds the one
        // with the key, or fails.
        match self.submit(&Submit { profile: -1, ..asked.clone() }).await {
            Ok(found) => Ok(Some(found)),
            Err(DbError::Sql { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
