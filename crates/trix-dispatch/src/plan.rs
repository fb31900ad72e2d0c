//! From a job whose intake is done to its plan 1. Pure but for its types.

use trix_db::leader::JobToPlan;
use trix_model::Failure;
use trix_plan::task::{IntakeResult, Plan, TaskSpec};
use trix_plan::{Delivery, Profile, planner};

/// Plan 1 of a job.
pub fn plan(job: &JobToPlan) -> Result<Plan, Failure> {
    let profile = Profile::parse(&job.profile_body)?;
    let intake = job.tasks.iter().find_map(|t| match &t.task.spec {
        TaskSpec::Intake(spec) => Some((t, spec)),
        _ => None,
    });
    let (done, spec) =
        intake.ok_or_else(|| Failure::bug(format!("job {} has no intake", job.job)))?;
    let result: IntakeResult = serde_json::from_value(done.detail.clone()).map_err(|e| {
        Failure::bug(format!("reading the intake's result of job {}: {e}", job.job))
    })?;
    let plan =
        planner::plan1(&profile, &result, &spec.source, &job.engine, &job.title, Delivery::Shares)?;
    let plan0 = Plan {
        version: plan.version,
        engine: job.engine.clone(),
        tasks: job.tasks.iter().map(|t| t.task.clone()).collect(),
        results: Vec::new(),
    };
    trix_plan::validate(&[&plan0, &plan])
        .map_err(|e| Failure::bug(format!("the plan of job {} is no plan: {e}", job.job)))?;
    Ok(plan)
}
