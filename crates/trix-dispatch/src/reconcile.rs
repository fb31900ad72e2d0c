//! One pass after the other over the truth.

use std::time::Instant;

use tokio::sync::Notify;
use trix_db::DbError;
use trix_db::leader::{JobToPlan, Leader};
use trix_model::Failure;

use crate::pass::{Pass, Step};
use crate::{DispatchConfig, chores, plan};

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
async fn once(leader: &Leader, n: u64) -> Result<bool, DbError> {
    let mut pass = Pass::new(n);
    while let Some(next) = pass.next() {
        match next {
            Step::MarkLost => mark_lost(leader).await?,
            Step::JobsToPlan(limit) => {
                let jobs = step("looking for jobs to plan", leader.jobs_to_plan(limit).await)?;
                pass.found(jobs.unwrap_or_default());
            }
            Step::Plan(job) => {
                if step("planning a job", plan_job(leader, *job).await)?.is_some() {
                    pass.planned();
                }
            }
            Step::FinishCancels => {
                step("finishing cancelled jobs", leader.finish_cancels().await)?;
            }
            Step::Tend => {
                step("tending the queue", leader.tend().await)?;
            }
            Step::Reserve => {
                step("reserving workers for large tasks", leader.reserve().await)?;
            }
            Step::JudgeNodes => judge_nodes(leader).await?,
            Step::Age => {
                step("raising what waited long", leader.age().await)?;
            }
            Step::CacheHits => {
                step("resolving cache hits", leader.cache_hits().await)?;
            }
            Step::BlockReasons => {
                step("saying why tasks wait", leader.block_reasons().await)?;
            }
            Step::Repair => {
                let repaired = step("repairing readiness", leader.repair().await)?;
                let repaired = repaired.unwrap_or_default();
                if repaired != Default::default() {
                    // The functions keep these right; mending is not supposed to find anything.
                    tracing::error!(?repaired, "readiness was wrong and has been repaired");
                }
            }
        }
    }
    Ok(pass.again())
}

async fn mark_lost(leader: &Leader) -> Result<(), DbError> {
    for lost in step("marking lost workers", leader.mark_lost().await)?.unwrap_or_default() {
        tracing::warn!(
            worker = lost.worker.0,
            node = lost.node,
            silent_ms = lost.silent_ms,
            attempts = lost.attempts,
            "a worker was silent for too long; its tasks go to others"
        );
    }
    Ok(())
}

async fn judge_nodes(leader: &Leader) -> Result<(), DbError> {
    let judged = step("judging nodes", leader.judge_nodes().await)?.unwrap_or_default();
    for node in judged.cordoned {
        tracing::warn!(node, "fails where others do not: it gets no more work");
    }
    for kind in judged.held {
        tracing::error!(kind, "fails on more nodes than can be ill: its tasks are stopped");
    }
    Ok(())
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
            Err(DbError::Conflict { code, message, .. }) if code == "name_taken" => {
                Failure::request("name_taken", message)
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
