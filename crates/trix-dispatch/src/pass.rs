//! One pass over the truth: which steps it has, and in which order. **It does no input
//! or output**, so that the simulator of trix-chaos runs the very same code.

use std::collections::VecDeque;

use trix_db::leader::JobToPlan;

/// Jobs planned in one pass; the rest follow in the next, which begins at once.
pub const PLANS: u32 = 8;

/// Every so many passes all open tasks are looked at: this costs time with their number,
/// and nobody waits for it, because results make tasks ready and claims find cache hits.
const SURVEY_EVERY: u64 = 10;

/// One thing to ask of the database.
#[derive(Debug)]
pub enum Step {
    /// Mark workers that are silent for too long.
    MarkLost,
    /// Look for jobs without a plan 1, at most so many; answered by [`Pass::found`].
    JobsToPlan(u32),
    /// Plan a job, or fail it with the reason; answered by [`Pass::planned`].
    Plan(Box<JobToPlan>),
    /// End cancelled jobs of which nothing runs.
    FinishCancels,
    /// Park and unpark tasks of jobs that stopped or went on, and let delayed ones go.
    Tend,
    /// Reserve workers for tasks that smaller ones would pass by for ever.
    Reserve,
    /// Cordon nodes that fail where others do not.
    JudgeNodes,
    /// Raise the band of what waited long.
    Age,
    /// End tasks whose outputs another job made.
    CacheHits,
    /// Write why tasks wait.
    BlockReasons,
    /// Count dependencies anew.
    Repair,
}

/// A pass under way. Take [`Pass::next`] until it gives nothing.
#[derive(Debug)]
pub struct Pass {
    steps: VecDeque<Step>,
    found: usize,
    planned: usize,
}

impl Pass {
    /// Pass number `n` of this lead, from 0.
    pub fn new(n: u64) -> Pass {
        let mut steps = VecDeque::from([
            Step::MarkLost,
            Step::JobsToPlan(PLANS),
            Step::FinishCancels,
            Step::Tend,
            Step::Reserve,
            Step::JudgeNodes,
        ]);
        if n.is_multiple_of(SURVEY_EVERY) {
            steps.extend([Step::Age, Step::CacheHits, Step::BlockReasons, Step::Repair]);
        }
        Pass { steps, found: 0, planned: 0 }
    }

    /// The next step, if there is one.
    #[allow(clippy::should_implement_trait)] // Not an iterator: answers come in between.
    pub fn next(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Jobs that wait for a plan: each is planned before anything else is done.
    pub fn found(&mut self, jobs: Vec<JobToPlan>) {
        self.found = jobs.len();
        for job in jobs.into_iter().rev() {
            self.steps.push_front(Step::Plan(Box::new(job)));
        }
    }

    /// A job was planned, or was failed because it could not be.
    pub fn planned(&mut self) {
        self.planned += 1;
    }

    /// True when work was left undone, so that the next pass begins at once. A batch that
    /// failed as a whole would otherwise spin.
    pub fn again(&self) -> bool {
        self.found == PLANS as usize && self.planned > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(n: i64) -> JobToPlan {
        serde_json::from_value(serde_json::json!({
            "job": n, "title": "t", "request": {}, "profile": "p", "profile_body": "",
            "engine": "e", "tasks": [],
        }))
        .unwrap()
    }

    fn names(pass: &mut Pass, jobs: Vec<JobToPlan>) -> Vec<String> {
        let mut names = Vec::new();
        let mut jobs = Some(jobs);
        while let Some(step) = pass.next() {
            if let Step::JobsToPlan(_) = step {
                pass.found(jobs.take().unwrap());
            }
            names.push(match step {
                Step::Plan(job) => format!("Plan {}", job.job),
                step => format!("{step:?}"),
            });
        }
        names
    }

    #[test]
    fn silent_workers_come_first_and_jobs_are_planned_as_soon_as_they_are_found() {
        let seen = names(&mut Pass::new(1), vec![job(1), job(2)]);
        assert_eq!(
            seen,
            [
                "MarkLost",
                "JobsToPlan(8)",
                "Plan 1",
                "Plan 2",
                "FinishCancels",
                "Tend",
                "Reserve",
                "JudgeNodes",
            ]
        );
    }

    #[test]
    fn every_tenth_pass_surveys_all_tasks() {
        let surveys = |n| names(&mut Pass::new(n), vec![]).contains(&"Repair".to_owned());
        assert!(surveys(0) && !surveys(1) && !surveys(9) && surveys(10));
    }

    #[test]
    fn a_full_batch_goes_on_at_once_unless_all_of_it_failed() {
        let full = || (0..PLANS as i64).map(job).collect();
        let mut pass = Pass::new(1);
        names(&mut pass, full());
        assert!(!pass.again());
        pass.planned();
        assert!(pass.again());
    }
}
