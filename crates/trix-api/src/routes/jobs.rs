//! Jobs: submit, list, follow, cancel, retry.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use trix_db::DbError;
use trix_db::jobs::{AttemptRow, FindingRow, JobFilter, JobRow, Submit, TaskRow};
use trix_model::{Digest, Failure, JobId, SharePath, WorkerId, state};
use trix_plan::task::{IntakeResult, Sidecar, SourceRef};
use trix_plan::{Delivery, Profile};
use utoipa::{IntoParams, ToSchema};

use crate::auth::{Caller, Operator};
use crate::cursor;
use crate::extract::{Body, Path, Query};
use crate::media::Media;
use crate::problem::Problem;
use crate::routes::profiles;
use crate::routes::publications::{self, Publication};
use crate::routes::session::PrincipalKind;
use crate::routes::shares::{SOURCE_UNAVAILABLE, bad_path, require_source, sidecars_of};
use crate::state::App;

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
    /// Whose fault it is.
    pub origin: FailureOrigin,
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

/// How urgent a job is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Priority {
    /// 0 (last) to 9 (first).
    #[schema(minimum = 0, maximum = 9)]
    pub band: u8,
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
pub async fn list(
    State(app): State<App>,
    _: Caller,
    Query(query): Query<JobsQuery>,
) -> Result<Json<JobList>, Problem> {
    let limit = cursor::limit(query.limit, 50, 500)?;
    let words = query.state.as_deref().unwrap_or("").split(',').filter(|s| !s.is_empty());
    let states: Vec<state::JobState> = words
        .map(|word| {
            word.trim().parse().map_err(|_| {
                let all: Vec<_> = state::JobState::ALL.iter().map(|s| s.as_str()).collect();
                Problem::bad_request("bad_state", format!("{word:?} is no state of a job"))
                    .about(word)
                    .allowed(all.join(", "))
            })
        })
        .collect::<Result<_, _>>()?;
    let before = query.cursor.as_deref().map(cursor::decode::<i64>).transpose()?.map(JobId);
    // One more than is shown tells whether there is a next page.
    let filter =
        JobFilter { before, states, text: query.text.filter(|t| !t.is_empty()), limit: limit + 1 };
    let (rows, counts) = tokio::try_join!(app.db.jobs(&filter), app.db.job_counts())?;
    let mut items: Vec<Job> = rows.into_iter().map(Job::from).collect();
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = match items.last() {
        Some(last) if more => Some(cursor::encode(&last.id)?),
        _ => None,
    };
    Ok(Json(JobList { items, next, counts }))
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
pub async fn submit(
    State(app): State<App>,
    Operator(caller): Operator,
    headers: HeaderMap,
    Body(wish): Body<NewJob>,
) -> Result<(StatusCode, Json<Job>), Problem> {
    let key = idempotency_key(&headers, &caller)?;
    let request = serde_json::to_value(&wish)
        .map_err(|e| Problem::internal("reading the wish for a job", &e))?;
    let request_hash = Digest(*blake3::hash(request.to_string().as_bytes()).as_bytes());
    let source: SharePath = wish.source.parse().map_err(|e| bad_path(&wish.source, &e))?;
    if source.path.is_root() {
        return Err(Problem::bad_request("bad_path", "the source is a share, not a file on it")
            .about(&wish.source)
            .allowed("share:relative/path of a file"));
    }
    let title = title(&wish, &source)?;
    let band = wish.band.unwrap_or(5);
    check_band(band)?;
    // A repetition gets its answer even if the file or the profile is gone by now.
    let earlier = app.db.submitted(caller.id, &key, request_hash).await;
    if let Some(earlier) = earlier.map_err(|e| refusal(e, &key))? {
        return Ok((StatusCode::OK, Json(job_row(&app, earlier.job).await?.into())));
    }
    require_source(&app, &source.share)?;
    let (profile_id, profile) = profile(&app, &wish.profile).await?;
    let engine = engine(&app).await?;
    let (file, sidecars) = look(&app, &source).await?;
    let plan = trix_plan::plan0(&file, &sidecars, &profile, &engine, Delivery::Shares)
        .map_err(Failure::from)?;
    let submit = Submit {
        principal: caller.id,
        key,
        request_hash,
        request,
        title,
        profile: profile_id,
        sources: vec![source],
        band,
        plan,
    };
    let db = app.db.audited(caller.audit("job.submit"));
    let submitted = db.submit(&submit).await.map_err(|e| refusal(e, &submit.key))?;
    let job = job_row(&app, submitted.job).await?;
    tracing::info!(job = %job.id, title = job.title, created = submitted.created, "job submitted");
    let status = if submitted.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(job.into())))
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
pub async fn get(
    State(app): State<App>,
    _: Caller,
    Path(id): Path<i64>,
) -> Result<Json<JobDetail>, Problem> {
    let job = JobId(id);
    // Read before all else: what happens meanwhile comes again as an event.
    let seq = app.db.event_head().await?.head;
    let row = job_row(&app, job).await?;
    let (tasks, attempts, findings, publications, intake) = tokio::try_join!(
        app.db.tasks(job),
        app.db.attempts(job),
        app.db.findings(job),
        app.db.publications(job),
        app.db.task_detail(job, INTAKE),
    )?;
    // A page that cannot show what the source is still shows the rest.
    let intake = intake.filter(|v| !v.is_null()).and_then(|v| read_intake(v).ok());
    let names: BTreeMap<String, state::TaskState> =
        tasks.iter().map(|t| (t.name.clone(), t.state)).collect();
    Ok(Json(JobDetail {
        job: row.into(),
        tasks: tasks.into_iter().map(|t| task(t, &names)).collect(),
        attempts: attempts.into_iter().map(Attempt::from).collect(),
        findings: findings.into_iter().map(Finding::from).collect(),
        media: intake.as_ref().map(|i| Media::from(&i.media)),
        checksums: intake.as_ref().map(|i| Checksums {
            sha256: i.hashes.sha256.to_string(),
            md5: i.hashes.md5.to_string(),
            xxh3: i.hashes.xxh3.to_string(),
            size: i.hashes.size,
        }),
        publications: publications.into_iter().map(Publication::from).collect(),
        seq,
    }))
}

/// The plan in words; 409 `not_inspected` before intake is done.
#[utoipa::path(
    get,
    path = "/jobs/{id}/plan",
    operation_id = "get_plan",
    tag = "jobs",
    params(("id" = i64, Path, description = "Number of the job")),
    responses(
        (status = 200, description = "The plan.", body = PlanText),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn plan(
    State(app): State<App>,
    _: Caller,
    Path(id): Path<i64>,
) -> Result<Json<PlanText>, Problem> {
    let row = job_row(&app, JobId(id)).await?;
    let detail = app.db.task_detail(row.id, INTAKE).await?;
    let Some(detail) = detail.filter(|v| !v.is_null()) else {
        return Err(Problem::conflict(
            "not_inspected",
            "the source was not inspected yet, so there is nothing to plan from",
        )
        .about(id));
    };
    let intake = read_intake(detail)?;
    let stored = app.db.profile(row.profile_id).await?;
    let stored = stored.ok_or_else(|| Problem::not_found("profile", row.profile_id))?;
    let profile = Profile::parse(&stored.body).map_err(|e| profiles::refused(&e))?;
    let location = row.sources.first().cloned();
    let location = location.ok_or_else(|| Problem::not_found("source of job", id))?;
    // The plan is a pure function, so it is made again instead of being stored twice. Only
    // its keys depend on the source's time, and the explanation does not show them.
    let source = SourceRef { location, size: intake.hashes.size, mtime_ns: 0 };
    let (engine, title) = (row.engine.clone(), row.title.clone());
    let text = tokio::task::spawn_blocking(move || {
        let plan = trix_plan::plan1(&profile, &intake, &source, &engine, &title, Delivery::Shares)?;
        trix_plan::explain(&profile, &intake, &plan)
    })
    .await
    .map_err(|e| Problem::internal("explaining a plan", &e))?
    .map_err(Failure::from)?;
    Ok(Json(PlanText { job: id, engine: row.engine, text }))
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
pub async fn cancel(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(id): Path<i64>,
) -> Result<Json<Commanded>, Problem> {
    let state = app.db.audited(caller.audit("job.cancel")).cancel(JobId(id)).await?;
    tracing::info!(job = id, %state, "job cancel asked for");
    Ok(Json(Commanded { job: id, state: state.into() }))
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
pub async fn retry(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(id): Path<i64>,
) -> Result<Json<Commanded>, Problem> {
    let state = app.db.audited(caller.audit("job.retry")).retry(JobId(id)).await?;
    tracing::info!(job = id, %state, "job retry asked for");
    Ok(Json(Commanded { job: id, state: state.into() }))
}

/// Hands out no more tasks of a running job; what runs goes on. Operators only.
#[utoipa::path(
    post,
    path = "/jobs/{id}/pause",
    operation_id = "pause_job",
    tag = "jobs",
    params(("id" = i64, Path, description = "Number of the job")),
    responses(
        (status = 200, description = "It is paused.", body = Commanded),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn pause(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(id): Path<i64>,
) -> Result<Json<Commanded>, Problem> {
    let state = app.db.audited(caller.audit("job.pause")).pause(JobId(id)).await?;
    tracing::info!(job = id, %state, "job pause asked for");
    Ok(Json(Commanded { job: id, state: state.into() }))
}

/// Goes on with a paused job. Operators only.
#[utoipa::path(
    post,
    path = "/jobs/{id}/resume",
    operation_id = "resume_job",
    tag = "jobs",
    params(("id" = i64, Path, description = "Number of the job")),
    responses(
        (status = 200, description = "It runs again.", body = Commanded),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn resume(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(id): Path<i64>,
) -> Result<Json<Commanded>, Problem> {
    let state = app.db.audited(caller.audit("job.resume")).resume(JobId(id)).await?;
    tracing::info!(job = id, %state, "job resume asked for");
    Ok(Json(Commanded { job: id, state: state.into() }))
}

/// Changes a job's priority: of what is queued at once, of what runs from its next task on.
/// Operators only.
#[utoipa::path(
    put,
    path = "/jobs/{id}/priority",
    operation_id = "set_priority",
    tag = "jobs",
    params(("id" = i64, Path, description = "Number of the job")),
    request_body = Priority,
    responses(
        (status = 200, description = "It has that priority.", body = Priority),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn set_priority(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(id): Path<i64>,
    Body(priority): Body<Priority>,
) -> Result<Json<Priority>, Problem> {
    check_band(priority.band)?;
    app.db.audited(caller.audit("job.priority")).set_band(JobId(id), priority.band).await?;
    tracing::info!(job = id, band = priority.band, "job priority changed");
    Ok(Json(priority))
}

/// Name of the task that inspects the source.
const INTAKE: &str = "intake";
/// Longest title in characters.
const TITLE: usize = 200;

async fn job_row(app: &App, job: JobId) -> Result<JobRow, Problem> {
    app.db.job(job).await?.ok_or_else(|| Problem::not_found("job", job))
}

fn read_intake(detail: serde_json::Value) -> Result<IntakeResult, Problem> {
    serde_json::from_value(detail)
        .map_err(|e| Problem::internal("reading the result of an inspection", &e))
}

fn refusal(e: DbError, key: &str) -> Problem {
    match e {
        DbError::Conflict { code, .. } if code == "submit_key_reused" => {
            Problem::conflict("key_reused", "the idempotency key was used with another body")
                .about(key)
                .allowed("the same body, or a new key")
        }
        e => e.into(),
    }
}

/// Programs must say which requests are one; a browser that says nothing means a new one.
fn idempotency_key(headers: &HeaderMap, caller: &Caller) -> Result<String, Problem> {
    const ALLOWED: &str = "the header Idempotency-Key with 1 to 200 printable ASCII characters";
    let Some(value) = headers.get("idempotency-key") else {
        return match caller.kind {
            PrincipalKind::User => Ok(uuid::Uuid::new_v4().to_string()),
            PrincipalKind::Service => Err(Problem::bad_request(
                "idempotency_key_required",
                "a program says which of its requests are the same one",
            )
            .allowed(ALLOWED)),
        };
    };
    match value.to_str() {
        Ok(key)
            if (1..=200).contains(&key.len()) && key.bytes().all(|b| (32..127).contains(&b)) =>
        {
            Ok(key.to_owned())
        }
        _ => Err(Problem::bad_request("bad_idempotency_key", "the idempotency key is refused")
            .allowed(ALLOWED)),
    }
}

fn check_band(band: u8) -> Result<(), Problem> {
    if band <= 9 {
        return Ok(());
    }
    let title = format!("priority {band} is refused");
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_band", title)
        .about("band")
        .allowed("0 to 9"))
}

fn title(wish: &NewJob, source: &SharePath) -> Result<String, Problem> {
    let file = source.path.file_name();
    let given = wish.title.as_deref().map(str::trim);
    let title = match given {
        Some(title) => title,
        None => file.rsplit_once('.').map_or(file, |(stem, _)| stem),
    };
    let title = if title.is_empty() && given.is_none() { file } else { title };
    let length = title.chars().count();
    if (1..=TITLE).contains(&length) && !title.chars().any(char::is_control) {
        return Ok(title.to_owned());
    }
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_title", "the title is refused")
        .about("title")
        .allowed("1 to 200 characters without control characters"))
}

/// The current version of a profile, checked against the shares that exist.
async fn profile(app: &App, name: &str) -> Result<(i64, Profile), Problem> {
    let (all, shares) = tokio::try_join!(app.db.profiles(), app.db.shares())?;
    let Some(row) = all.iter().find(|p| p.name == name) else {
        let mut known: Vec<_> = all.iter().map(|p| p.name.as_str()).collect();
        known.sort_unstable();
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown_profile",
            format!("there is no profile {name:?}"),
        )
        .about(name)
        .allowed(known.join(", ")));
    };
    let profile = Profile::parse(&row.body).map_err(|e| profiles::refused(&e))?;
    for share in profile.shares() {
        use trix_db::catalog::ShareRole as R;
        let writable = |r: R| matches!(r, R::Output | R::Preview);
        if !shares.iter().any(|s| s.name == *share && writable(s.role)) {
            // One of this machine's that was never in order is not in the database yet.
            if let Some(watched) = app.shares.get(share) {
                watched.usable("share_unavailable")?;
            }
            let names = shares.iter().filter(|s| writable(s.role)).map(|s| s.name.as_str());
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unknown_share",
                format!("profile {name} publishes to share {share}, which is not there"),
            )
            .about(share)
            .allowed(names.collect::<Vec<_>>().join(", ")));
        }
    }
    Ok((row.id, profile))
}

/// The engine that the plan is pinned to: the one with the most cores behind it, of equal
/// ones the newest. One node with an engine of its own, which may leave as it came, must not
/// draw all new jobs to itself: without it nobody could run them.
async fn engine(app: &App) -> Result<String, Problem> {
    if let Some(engine) = &app.engine {
        return Ok(engine.clone());
    }
    let workers = app.db.workers(false).await?;
    let mut behind: BTreeMap<String, (u64, WorkerId)> = BTreeMap::new();
    for worker in workers.into_iter().filter(|w| w.state == state::WorkerState::Active) {
        let (cores, newest) = behind.entry(worker.engine).or_insert((0, worker.id));
        *cores += u64::from(worker.capacity.mcpu);
        *newest = worker.id.max(*newest);
    }
    let most = behind.into_iter().max_by_key(|(_, weight)| *weight);
    most.map(|(engine, _)| engine).ok_or_else(|| {
        Problem::unavailable("no_worker", "no worker is there whose engine the plan could take", 10)
    })
}

/// Size and time of the source, and the checksum files beside it.
async fn look(app: &App, source: &SharePath) -> Result<(SourceRef, Vec<Sidecar>), Problem> {
    let path = source.path.clone();
    let (file, beside) = app
        .shares
        .call(&source.share, SOURCE_UNAVAILABLE, move |share| {
            let file = share.source_ref(&path)?;
            let mut beside = share.list(&path.parent())?;
            beside.retain(|e| e.kind == trix_storage::dir::EntryKind::File && e.unusable.is_none());
            Ok((file, beside))
        })
        .await?;
    let names: Vec<String> = beside.iter().map(|e| e.name.clone()).collect();
    let folder = source.path.parent();
    let sidecars = sidecars_of(&names, source.path.file_name())
        .into_iter()
        .filter_map(|(algorithm, name)| {
            let entry = beside.iter().find(|e| e.name == name)?;
            let location = SharePath::new(source.share.clone(), folder.join(name).ok()?);
            Some(Sidecar { algorithm, location, size: entry.size, mtime_ns: entry.mtime_ns })
        })
        .collect();
    Ok((file, sidecars))
}

/// A task as the API shows it; `states` are those of the whole job by name.
fn task(t: TaskRow, states: &BTreeMap<String, state::TaskState>) -> Task {
    let waits_for = waits_for(&t, states);
    Task {
        id: t.id.0,
        name: t.name,
        kind: t.kind,
        state: t.state.into(),
        needs: t.needs,
        epoch: t.epoch.0,
        cached: t.cache_hit,
        roll_forward: t.roll_forward,
        estimate_ms: t.estimate_ms,
        progress: t.progress.map(Progress::from),
        waits_for,
        failure: t.failure.map(Failed::from),
        node: t.node,
        started_at: t.started_at,
        ended_at: t.ended_at,
    }
}

/// Why a task does not run, in a few words for a list: what the dispatcher noted last. The
/// whole sentence, and what would mend it, is the task's explanation.
fn waits_for(t: &TaskRow, states: &BTreeMap<String, state::TaskState>) -> Option<String> {
    use state::TaskState as S;
    match t.state {
        S::Waiting => {
            let settled = |name: &&String| matches!(states.get(*name), Some(S::Done | S::Skipped));
            let open: Vec<&String> = t.needs.iter().filter(|n| !settled(n)).collect();
            Some(match open.as_slice() {
                [] => "waits for the tasks that it needs".to_owned(),
                [one] => format!("waits for {one}"),
                [first, rest @ ..] => format!("waits for {first} and {} more", rest.len()),
            })
        }
        S::Ready => Some(match t.block_reason.as_deref() {
            _ if t.delay_ms > 0 => {
                format!("waits {} s before the next try", t.delay_ms.div_ceil(1000))
            }
            Some("no_worker") => "no worker is there".to_owned(),
            Some("engine") => "no worker has the engine that the job was planned for".to_owned(),
            Some("caps") => "no worker has the capabilities that it needs".to_owned(),
            Some("gpu") => "no worker has the graphics processor that it needs".to_owned(),
            Some("resources") => "no worker has enough cores, memory or scratch in all".to_owned(),
            Some("no_node") => "every node that could run it is closed or paused".to_owned(),
            Some("paused") => "the job is paused".to_owned(),
            Some("paused_all") => "everything is paused".to_owned(),
            Some("paused_kind") => "tasks of its kind are paused".to_owned(),
            Some("held") => "it is held".to_owned(),
            Some("delayed") => "waits before the next try".to_owned(),
            Some(reason) => match reason.split_once(':') {
                Some(("share", share)) => format!("share {share} is away on every worker"),
                Some(("slots", slots)) => {
                    let share = slots.split(':').next().unwrap_or(slots);
                    format!("all places on share {share} are taken")
                }
                _ => reason.to_owned(),
            },
            None => "waits for a free worker".to_owned(),
        }),
        _ => None,
    }
}

impl From<JobRow> for Job {
    fn from(j: JobRow) -> Job {
        let c = j.counts;
        let state: JobState = j.state.into();
        let fraction = match state {
            JobState::Succeeded => 1.0,
            _ => crate::tail::fraction(&c),
        };
        Job {
            id: j.id.0,
            title: j.title,
            source: j.sources.first().map(|s| s.to_string()).unwrap_or_default(),
            profile: j.profile,
            state,
            band: j.band,
            submitted_by: j.principal,
            created_at: j.created_at,
            started_at: j.started_at,
            ended_at: j.ended_at,
            engine: j.engine,
            tasks: TaskCounts {
                total: c.total,
                waiting: c.waiting,
                ready: c.ready,
                running: c.running,
                done: c.done,
                cached: c.cached,
                failed: c.failed,
                cancelled: c.cancelled,
            },
            fraction,
            planned: j.planned,
            failure: j.failure.map(Failed::from),
            poster_url: j.preview.map(|p| publications::url(p, "poster.jpg")),
        }
    }
}

impl From<AttemptRow> for Attempt {
    fn from(a: AttemptRow) -> Attempt {
        Attempt {
            task: a.task.0,
            name: a.name,
            epoch: a.epoch.0,
            state: a.state.into(),
            node: a.node,
            worker: a.worker.0,
            started_at: a.started_at,
            ended_at: a.ended_at,
            failure: a.failure.map(Failed::from),
            result_lost: a.result_lost,
            progress: a.progress.map(Progress::from),
            usage: a.usage.map(|u| Usage {
                cpu_ms: u.cpu_ms,
                wall_ms: u.wall_ms,
                max_rss: u.max_rss,
                read: u.read,
                written: u.written,
            }),
        }
    }
}

impl From<FindingRow> for Finding {
    fn from(f: FindingRow) -> Finding {
        use trix_model::Severity as S;
        let FindingRow { task, finding } = f;
        Finding {
            task,
            code: finding.code,
            severity: match finding.severity {
                S::Info => Severity::Info,
                S::Warning => Severity::Warning,
                S::Error => Severity::Error,
            },
            message: finding.message,
            stream: finding.stream,
            first_frame: finding.frames.map(|f| f.0),
            last_frame: finding.frames.map(|f| f.1),
            measured: finding.measured,
            allowed: finding.allowed,
        }
    }
}

impl From<Failure> for Failed {
    fn from(f: Failure) -> Failed {
        use trix_model::{ErrorClass as C, ErrorOrigin as O};
        Failed {
            class: match f.class {
                C::Transient => FailureClass::Transient,
                C::Resource => FailureClass::Resource,
                C::Deterministic => FailureClass::Deterministic,
                C::Crash => FailureClass::Crash,
            },
            origin: match f.origin {
                O::Source => FailureOrigin::Source,
                O::Request => FailureOrigin::Request,
                O::Node => FailureOrigin::Node,
                O::Share => FailureOrigin::Share,
                O::Engine => FailureOrigin::Engine,
                O::Bug => FailureOrigin::Bug,
            },
            code: f.code,
            message: f.message,
            object: (!f.object.is_empty()).then_some(f.object),
        }
    }
}

impl From<trix_model::Progress> for Progress {
    fn from(p: trix_model::Progress) -> Progress {
        Progress { phase: p.phase, done: p.done, total: p.total, frames: p.frames }
    }
}

impl From<state::JobState> for JobState {
    fn from(s: state::JobState) -> JobState {
        use state::JobState as S;
        match s {
            S::Accepted => JobState::Accepted,
            S::Inspecting => JobState::Inspecting,
            S::Running => JobState::Running,
            S::WaitingGate => JobState::WaitingGate,
            S::Paused => JobState::Paused,
            S::Succeeded => JobState::Succeeded,
            S::Failed => JobState::Failed,
            S::Cancelling => JobState::Cancelling,
            S::Cancelled => JobState::Cancelled,
        }
    }
}

impl From<state::TaskState> for TaskState {
    fn from(s: state::TaskState) -> TaskState {
        use state::TaskState as S;
        match s {
            S::Waiting => TaskState::Waiting,
            S::Ready => TaskState::Ready,
            S::Running => TaskState::Running,
            S::Done => TaskState::Done,
            S::Failed => TaskState::Failed,
            S::Cancelled => TaskState::Cancelled,
            S::Quarantined => TaskState::Quarantined,
            S::Skipped => TaskState::Skipped,
        }
    }
}

impl From<state::AttemptState> for AttemptState {
    fn from(s: state::AttemptState) -> AttemptState {
        use state::AttemptState as S;
        match s {
            S::Running => AttemptState::Running,
            S::Succeeded => AttemptState::Succeeded,
            S::Failed => AttemptState::Failed,
            S::Lost => AttemptState::Lost,
            S::Cancelled => AttemptState::Cancelled,
        }
    }
}
