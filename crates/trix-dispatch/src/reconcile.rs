//! One pass after the other over the truth.

use std::time::Instant;

use tokio::sync::Notify;
use trix_db::DbError;
use trix_db::leader::{JobToPlan, Leader};
use trix_model::Failure;

use crate::{DispatchConfig, chores, plan};

/// Jobs planned in one pass; the rest follow in the next, which begins at once.
const PLANS: u32 = 8;

/// Every so many passes all open tasks are looked at: this costs time with their number,
/// and nobody waits for it, because results make tasks ready and claims find cache hits.
const SURVEY_EVERY: u64 = 10;

/// Reconciles until the lead is lost; gives the error that says so.
pub(crate) async fn run(config: &DispatchConfig, leader: &Leader, hint: &Notify) -> DbError {
    let mut chores = chores::Chores::new(config);
    for pass in 0u64.. {
        let begun = Instant::now();
        let again = match once(leader, pass).await {
            Ok(again) => again,
            Err(e) => return e,
        };
        if let Err(e) = chores.run_due(leader).await {
            return e;
        }
        if again {
            continue;
        }
        let rest = config.db.times().reconcile.saturating_sub(begun.elapsed());
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = hint.notified() => {}
        }
    }
    unreachable!("passes do not run out")
}

/// One pass. True when it left work undone.
async fn once(leader: &Leader, pass: u64) -> Result<bool, DbError> {
    for lost in step("marking lost workers", leader.mark_lost().await)?.unwrap_or_default() {
        tracing::warn!(
            worker = lost.worker.0,
            node = lost.node,
            silent_ms = lost.silent_ms,
            attempts = lost.attempts,
            "a worker was silent for too long; its tasks go to others"
        );
    }
    let jobs = step("looking for jobs to plan", leader.jobs_to_plan(PLANS).await)?;
    let jobs = jobs.unwrap_or_default();
    let again = jobs.len() == PLANS as usize;
    let mut planned = 0;
    for job in jobs {
        if step("planning a job", plan_job(leader, job).await)?.is_some() {
            planned += 1;
        }
    }
    step("finishing cancelled jobs", leader.finish_cancels().await)?;
    step("tending the queue", leader.tend().await)?;
    step("reserving workers for large tasks", leader.reserve().await)?;
    let judged = step("judging nodes", leader.judge_nodes().await)?.unwrap_or_default();
    for node in judged.cordoned {
        tracing::warn!(node, "fails where others do not: it gets no more work");
    }
    for kind in judged.held {
        tracing::error!(kind, "fails on more nodes than can be ill: its tasks are stopped");
    }
    if pass.is_multiple_of(SURVEY_EVERY) {
        step("raising what waited long", leader.age().await)?;
        step("resolving cache hits", leader.cache_hits().await)?;
        step("saying why tasks wait", leader.block_reasons().await)?;
        let repaired = step("repairing readiness", leader.repair().await)?.unwrap_or_default();
        if repaired != Default::default() {
            // The functions keep these right; mending is not supposed to find anything.
            tracing::error!(?repaired, "readiness was wrong and has been repaired");
        }
    }
    // A batch that failed as a whole would otherwise spin.
    Ok(again && planned > 0)
}

/// Sorts the result of one step: a database that is away and a lost lead end the
/// pass; anything else is a mistake that must not keep the other steps from running.
pub(crate) fn step<T>(what: &'static str, r: Result<T, DbError>) -> Result<Option<T>, DbError> {
    match r {
        Ok(v) => Ok(Some(v)),
        Err(e) if e.is_unavailable() || matches!(e, DbError::NotLeader { .. }) => Err(e),
        Err(e) => {
            tracing::error!(error = &e as &dyn std::error::Error, "{what}");
            Ok(None)
        }
    }
}

/// Plans one job, or fails it with the reason.
async fn plan_job(leader: &Leader, job: JobToPlan) -> Result<(), DbError> {
    let id = job.job;
    // Planning a long film takes a while, and a panic in it must cost one job.
    let made = tokio::task::spawn_blocking(move || plan::plan(&job))
        .await
        .unwrap_or_else(|e| Err(Failure::bug(format!("planning job {id}: {e}"))));
    let failure = match made {
        Ok(made) => match leader.append_plan(id, &made).await {
            Ok(appended) => {
                if appended {
                    tracing::info!(job = id.0, tasks = made.tasks.len(), "planned");
                }
                return Ok(());
            }
            // The database found the plan to be no plan.
            Err(e @ DbError::Conflict { .. }) => Failure::bug(e.to_string()),
            Err(e) => return Err(e),
        },
        Err(failure) => failure,
    };
    tracing::warn!(job = id.0, code = failure.code, "{failure}");
    leader.fail_job(id, &failure).await
}
