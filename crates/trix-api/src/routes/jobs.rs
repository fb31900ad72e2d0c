//! Jobs: submit, list, follow, cancel, retry.

use axum::Json;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::media::Media;
use crate::problem::Problem;
use crate::routes::publications::Publication;

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Written, nothing done yet.
    Accepted,
    /// Intake runs.
    Inspecting,
    /// Its tasks run.
    Running,
    /// A person has to decide.
    WaitingGate,
    /// Held by an operator.
    Paused,
    /// All done.
    Succeeded,
    /// A task failed for good.
    Failed,
    /// Cancel was asked for; something still runs.
    Cancelling,
    /// Cancelled; nothing runs.
    Cancelled,
}

/// State of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Needs other tasks first.
    Waiting,
    /// May be claimed.
    Ready,
    /// An attempt runs.
    Running,
    /// Its outputs exist.
    Done,
    /// Failed for good.
    Failed,
    /// Cancelled.
    Cancelled,
    /// It kills workers; only an operator re-queues it.
    Quarantined,
    /// Its branch was not taken.
    Skipped,
}

/// State of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Running.
    Running,
    /// Its result was committed.
    Succeeded,
    /// It failed.
    Failed,
    /// Its worker was marked lost.
    Lost,
    /// It was cancelled.
    Cancelled,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Network, database, share, lost worker: retried by itself.
    Transient,
    /// Memory, disk, limits: retried with more, or later.
    Resource,
    /// The same input gives the same error.
    Deterministic,
    /// The process died.
    Crash,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureOrigin {
    /// The file that was delivered.
    Source,
    /// What was asked for.
    Request,
    /// The machine.
    Node,
    /// A share.
    Share,
    /// Codecs and libraries.
    Engine,
    /// Our own mistake.
    Bug,
}

/// Why something failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Failed {
    /// Whether trying again can help.
    pub class: FailureClass,
    /// Whose fault it is; absent when it was not recorded.
    pub origin: Option<FailureOrigin>,
    /// Stable machine-readable code.
    pub code: String,
    /// One sentence for a person.
    pub message: String,
    /// What it is about.
    pub object: Option<String>,
}

/// How far a running attempt is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Progress {
    /// `read`, `decode`, `encode`, `mux`, `verify` or `copy`.
    pub phase: String,
    /// Units done: frames, samples or bytes.
    pub done: u64,
    /// Units in all; 0 when unknown.
    pub total: u64,
    /// Pictures that came out of encoders so far, over all renditions.
    pub frames: u64,
}

/// What is to be made of which source.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewJob {
    /// The source as `share:relative/path`.
    #[schema(example = "in:deliveries/film.mov")]
    pub source: String,
    /// Name of the profile.
    #[schema(example = "archive-and-ladder")]
    pub profile: String,
    /// Title; the file's name without suffix when absent.
    #[serde(default)]
    #[schema(max_length = 200)]
    pub title: Option<String>,
    /// Priority, 0 (last) to 9 (first); 5 when absent.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 9)]
    pub band: Option<u8>,
}

/// Which jobs.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct JobsQuery {
    /// States, separated by commas; all when absent.
    #[param(example = "running,failed")]
    pub state: Option<String>,
    /// Part of the title or the source's path.
    pub text: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// Jobs a page, 50 when absent.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u32>,
}

/// Tasks of a job by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct TaskCounts {
    /// All.
    pub total: u32,
    /// Need other tasks first.
    pub waiting: u32,
    /// May be claimed.
    pub ready: u32,
    /// Run.
    pub running: u32,
    /// Done, skipped ones included.
    pub done: u32,
    /// Of `done`, those that the cache had.
    pub cached: u32,
    /// Failed or quarantined.
    pub failed: u32,
    /// Cancelled.
    pub cancelled: u32,
}

/// A job in the list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Job {
    /// Number.
    pub id: i64,
    /// Title.
    pub title: String,
    /// The source as `share:relative/path`.
    pub source: String,
    /// Name of the profile.
    pub profile: String,
    /// State.
    pub state: JobState,
    /// Priority, 0 (last) to 9 (first).
    pub band: u8,
    /// Who submitted it.
    pub submitted_by: String,
    /// When it was submitted.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its first task began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// Engine whose bytes its plan promises.
    pub engine: String,
    /// Tasks by state. Until the source was inspected only intake is known.
    pub tasks: TaskCounts,
    /// Part of the work that is done, 0 to 1, weighed by estimated time; running attempts count in part.
    pub fraction: f64,
    /// True when the whole plan is known; before, `fraction` covers the inspection only.
    pub planned: bool,
    /// Why it failed.
    pub failure: Option<Failed>,
    /// Path on this server of its poster, once published.
    pub poster_url: Option<String>,
}

/// A page of jobs, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobList {
    /// The jobs.
    pub items: Vec<Job>,
    /// Cursor of the next page; absent on the last.
    pub next: Option<String>,
    /// All jobs by state, whatever was asked for.
    pub counts: BTreeMap<String, i64>,
}

/// One node of a job's plan.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Task {
    /// Number.
    pub id: i64,
    /// Name in the plan, e.g. `encode/0003`.
    pub name: String,
    /// `intake`, `encode_chunk`, `encode_audio`, `mux`, `verify`, `stills`, `copy` or `publish`.
    pub kind: String,
    /// State.
    pub state: TaskState,
    /// Names of the tasks that must be done first.
    pub needs: Vec<String>,
    /// Number of the newest attempt; 0 before the first.
    pub epoch: i64,
    /// True when it is done without an attempt, because the cache had all its outputs.
    pub cached: bool,
    /// True when a prepared publication waits to be finished.
    pub roll_forward: bool,
    /// Estimated milliseconds on one core.
    pub estimate_ms: u64,
    /// Progress of the running attempt.
    pub progress: Option<Progress>,
    /// Why it does not run, in words; absent when it runs or moves no more.
    pub waits_for: Option<String>,
    /// Why its last attempt failed.
    pub failure: Option<Failed>,
    /// Machine of the last attempt.
    pub node: Option<String>,
    /// When the last attempt began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it moved for the last time.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
}

/// One try at a task.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Attempt {
    /// The task.
    pub task: i64,
    /// The task's name.
    pub name: String,
    /// Which try, from 1.
    pub epoch: i64,
    /// State.
    pub state: AttemptState,
    /// Machine that ran it.
    pub node: String,
    /// Worker that ran it.
    pub worker: i64,
    /// When it was claimed.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// Why it failed.
    pub failure: Option<Failed>,
    /// True when it succeeded and its artifacts are gone since.
    pub result_lost: bool,
    /// How far it is, while it runs.
    pub progress: Option<Progress>,
    /// What it used, once it ended.
    pub usage: Option<Usage>,
}

/// What an attempt used of its machine.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Usage {
    /// Milliseconds of CPU.
    pub cpu_ms: u64,
    /// Milliseconds from start to end.
    pub wall_ms: u64,
    /// Highest resident memory in bytes.
    pub max_rss: u64,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Worth a look.
    Warning,
    /// Must not be published without a decision.
    Error,
}

/// One statement of quality control.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Finding {
    /// Name of the task that made it.
    pub task: String,
    /// Stable code.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// One sentence for a person.
    pub message: String,
    /// Stream that it is about.
    pub stream: Option<u32>,
    /// First frame on the output timeline.
    pub first_frame: Option<u64>,
    /// Last frame on the output timeline.
    pub last_frame: Option<u64>,
    /// What was measured.
    pub measured: Option<String>,
    /// What is allowed.
    pub allowed: Option<String>,
}

/// Checksums of a source.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Checksums {
    /// sha256 in hexadecimal.
    pub sha256: String,
    /// md5 in hexadecimal.
    pub md5: String,
    /// xxh3-128 in hexadecimal.
    pub xxh3: String,
    /// Bytes that were read.
    pub size: u64,
}

/// A job with all that belongs to it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobDetail {
    /// What the list has.
    pub job: Job,
    /// Its tasks in the plan's order.
    pub tasks: Vec<Task>,
    /// All attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// What intake and verification stated.
    pub findings: Vec<Finding>,
    /// What the source is; absent before inspection.
    pub media: Option<Media>,
    /// Checksums of the source; absent before inspection.
    pub checksums: Option<Checksums>,
    /// What was published.
    pub publications: Vec<Publication>,
    /// Number of the newest event that this answer includes.
    pub seq: i64,
}

/// The plan in words.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PlanText {
    /// The job.
    pub job: i64,
    /// Engine that the plan is pinned to.
    pub engine: String,
    /// What is made, from what and why, in words (several lines).
    pub text: String,
}

/// What became of a command.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Commanded {
    /// The job.
    pub job: i64,
    /// Its state now.
    pub state: JobState,
}

/// Jobs, newest first.
#[utoipa::path(
    get,
    path = "/jobs",
    operation_id = "list_jobs",
    tag = "jobs",
    params(JobsQuery),
    responses(
        (status = 200, description = "A page of jobs.", body = JobList),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn list() -> Result<Json<JobList>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// Submits a job. Operators only. The same key with the same body gives the same job.
#[utoipa::path(
    post,
    path = "/jobs",
    operation_id = "submit_job",
    tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 200 printable ASCII characters; required for tokens. The same key with another body is 409.")),
    request_body = NewJob,
    responses(
        (status = 201, description = "Made now.", body = Job),
        (status = 200, description = "Made by an earlier request with the same key.", body = Job),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn submit() -> Result<Json<Job>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// A job with all that belongs to it.
#[utoipa::path(
    get,
    path = "/jobs/{id}",
    operation_id = "get_job",
    tag = "jobs",
    params(("id" = i64, Path, description = "Number of the job")),
    responses(
        (status = 200, description = "The job.", body = JobDetail),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn get() -> Result<Json<JobDetail>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// The plan in words; 409 `not_inspected` before intake is done.
#[utoipa::path(
    get,
    path = "/jobs/{id}/plan",
    operation_id = "explain_job",
    tag = "jobs",
    params(("id" = i64, Path, description = "Number of the job")),
    responses(
        (status = 200, description = "The plan.", body = PlanText),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn plan() -> Result<Json<PlanText>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// Cancels a job. Operators only.
#[utoipa::path(
    post,
    path = "/jobs/{id}/cancel",
    operation_id = "cancel_job",
    tag = "jobs",
    params(("id" = i64, Path, description = "Number of the job")),
    responses(
        (status = 200, description = "Cancel was asked for.", body = Commanded),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn cancel() -> Result<Json<Commanded>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// Tries the failed tasks of a failed job again. Operators only.
#[utoipa::path(
    post,
    path = "/jobs/{id}/retry",
    operation_id = "retry_job",
    tag = "jobs",
    params(("id" = i64, Path, description = "Number of the job")),
    responses(
        (status = 200, description = "It runs again.", body = Commanded),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn retry() -> Result<Json<Commanded>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}
