//! Every statement that this crate runs, in one place.
//!
//! A statement takes one jsonb parameter and gives rows of one jsonb column. What
//! changes anything is a function of `migrations/`; what only reads stands here.
//! A test prepares all of them against the migrated schema, which is why no
//! `.sqlx` folder and no database at build time are needed.

/// One statement.
pub struct Statement {
    /// What it is for, in words; errors begin with it.
    pub operation: &'static str,
    /// The SQL.
    pub text: &'static str,
}

macro_rules! statements {
    ($($name:ident $operation:literal $text:literal;)*) => {
        $(pub const $name: Statement = Statement { operation: $operation, text: $text };)*
        /// All statements.
        #[cfg(test)]
        pub const ALL: &[Statement] = &[$($name),*];
    };
}

statements! {
PING "looking at the database" "select to_jsonb(1) from (select $1::jsonb) a";

// The worker's functions.
REGISTER "registering a worker" "select register_v1($1)";
SYNC "syncing a worker" "select sync_v1($1)";
SUPERSEDE "superseding a worker" "select supersede_v1($1)";
LEAVE "ending a worker" "select leave_v1($1)";
PREPARE "preparing a publication" "select prepare_v1($1)";
BEGIN_MOVE "beginning to publish" "select begin_move_v1($1)";
PUBLISHED "recording a publication" "select published_v1($1)";
CONFLICT "recording a publication's conflict" "select conflict_v1($1)";

// Jobs.
SUBMIT "submitting a job" "select submit_v1($1)";
CANCEL "cancelling a job" "select cancel_v1($1)";
RETRY "retrying a job" "select retry_v1($1)";
PAUSE "pausing a job" "select pause_v1($1)";
RESUME "resuming a job" "select resume_v1($1)";
SET_BAND "changing a job's priority" "select set_band_v1($1)";
// For each state the newest, by the index over both; then the newest of them.
JOBS "listing jobs" "
    select to_jsonb(v) || jsonb_build_object('preview',
        (select max(p.publication) from job_preview p where p.job = v.id))
    from (
        select j.id from unnest(case jsonb_array_length($1->'states')
            when 0 then array['accepted', 'inspecting', 'running', 'waiting_gate', 'paused',
                'succeeded', 'failed', 'cancelling', 'cancelled']
            else array(select jsonb_array_elements_text($1->'states')) end) s(state)
        cross join lateral (
            select j.id from job j
            where j.state = s.state and j.id < coalesce(($1->>'before')::bigint, 9223372036854775807)
            order by j.id desc limit least(greatest(($1->>'limit')::int, 1), 501)) j
        order by j.id desc limit least(greatest(($1->>'limit')::int, 1), 501)) picked
    join job_view v on v.id = picked.id
    order by v.id desc";
JOBS_WITH_TEXT "searching jobs" "
    with asked as materialized (
        select '%' || replace(replace(replace(lower($1->>'text'), '\\', '\\\\'), '%', '\\%'),
                '_', '\\_') || '%' as pattern,
            coalesce(($1->>'before')::bigint, 9223372036854775807) as before,
            array(select jsonb_array_elements_text($1->'states')) as states,
            least(greatest(($1->>'limit')::int, 1), 501) as n
    ), found as (
        (select j.id from asked a, title t join job j on j.title_id = t.id
            where lower(t.name) like a.pattern and j.id < a.before
                and (a.states = '{}' or j.state = any(a.states))
            order by j.id desc limit (select n from asked))
        union
        (select j.id from asked a, job j
            where lower(j.sources->>0) like a.pattern and j.id < a.before
                and (a.states = '{}' or j.state = any(a.states))
            order by j.id desc limit (select n from asked))
        order by id desc limit (select n from asked)
    )
    select to_jsonb(v) || jsonb_build_object('preview',
        (select max(p.publication) from job_preview p where p.job = v.id))
    from found f join job_view v on v.id = f.id
    order by v.id desc";
JOB "reading a job" "
    select to_jsonb(v) || jsonb_build_object('preview',
        (select max(p.publication) from job_preview p where p.job = v.id))
    from job_view v where v.id = ($1->>'job')::bigint";
JOB_COUNTS "counting jobs" "
    select coalesce(jsonb_object_agg(c.state, c.n), '{}')
    from (select j.state, count(*) as n from (select $1::jsonb) a, job j group by j.state) c";
SUBMITTED "looking for an earlier submit" "
    select jsonb_build_object('job', j.id, 'same', j.request_hash = decode($1->>'request_hash', 'hex'))
    from job j
    where j.principal_id = ($1->>'principal')::bigint and j.submit_key = $1->>'key'";
RUNNING "reading what runs" "select to_jsonb(v) from (select $1::jsonb) a, running_view v order by v.job";
TASKS "listing a job's tasks" "
    select to_jsonb(v) from task_view v where v.job = ($1->>'job')::bigint order by v.id";
ATTEMPTS "listing a job's attempts" "
    select to_jsonb(v) - 'job' from attempt_view v where v.job = ($1->>'job')::bigint
    order by v.task, v.epoch";
LOG "reading an attempt's log" "
    select to_jsonb(l.lines) from attempt_log l
    where l.task_id = ($1->>'task')::bigint and l.epoch = ($1->>'epoch')::bigint";
FINDINGS "listing a job's findings" "
    select f.body || jsonb_build_object('task', t.name)
    from finding f join task t on t.id = f.task_id
    where f.job_id = ($1->>'job')::bigint order by f.id";
PUBLICATIONS "listing a job's publications" "
    select jsonb_build_object('id', p.id, 'task', t.id, 'version', p.version, 'state', p.state,
        'current', p.current, 'manifest', p.manifest, 'receipt', p.receipt,
        'published_at', p.published_at)
    from task t join publication p on p.id = t.publication_id
    where t.job_id = ($1->>'job')::bigint order by t.id";
PUBLICATION "reading a publication" "
    select jsonb_build_object('id', p.id, 'task', p.task_id, 'version', p.version, 'state', p.state,
        'current', p.current, 'manifest', p.manifest, 'receipt', p.receipt,
        'published_at', p.published_at)
    from publication p where p.id = ($1->>'publication')::bigint";
TASK_DETAIL "reading a task's result" "
    select coalesce(t.detail, 'null'::jsonb) from task t
    where t.job_id = ($1->>'job')::bigint and t.name = $1->>'name'";
ARTIFACTS "looking up artifacts" "
    select jsonb_build_object('key', encode(a.key, 'hex'), 'digest', encode(a.digest, 'hex'),
        'size', a.size)
    from jsonb_array_elements_text($1->'keys') k join artifact a on a.key = decode(k, 'hex')";

// Access.
PRINCIPAL_CREATE "creating a principal" "select create_principal_v1($1)";
PRINCIPALS "listing principals" "
    select principal_json(p) from principal p where kind <> 'node' order by p.id";
PRINCIPAL_UPDATE "changing a principal" "select update_principal_v1($1)";
PASSWORD "reading a password's hash" "
    select jsonb_build_object('principal', principal_json(p), 'hash', p.password_hash)
    from principal p where p.name = $1->>'name' and p.disabled_at is null
      and p.password_hash is not null";
TOKEN_CREATE "creating a token" "select create_token_v1($1)";
TOKEN_CHECK "checking a token" "select check_token_v1($1)";
TOKENS "listing tokens" "
    select to_jsonb(t) - 'hash' - 'principal_id' || jsonb_build_object('principal', t.principal_id)
    from token t
    where t.principal_id = ($1->>'principal')::bigint order by t.id";
TOKENS_OF_ALL "listing all tokens" "
    select to_jsonb(t) - 'hash' - 'principal_id'
        || jsonb_build_object('principal', t.principal_id, 'role', p.role)
    from (select $1::jsonb) a, token t join principal p on p.id = t.principal_id order by t.id desc";
PROGRAM_CREATE "creating a program's account" "select create_program_v1($1)";
SIGN_IN "signing in" "select sign_in_v1($1)";
TOKEN_REVOKE "revoking a token" "select revoke_token_v1($1)";
SESSION_CREATE "opening a session" "select create_session_v1($1)";
SESSION_CHECK "checking a session" "select check_session_v1($1)";
SESSIONS "listing sessions" "
    select to_jsonb(s) - 'hash' - 'principal_id' from session s
    where s.principal_id = ($1->>'principal')::bigint and s.expires_at > now() order by s.id";
SESSION_END "ending a session" "select end_session_v1($1)";
LINK_CREATE "creating a one-time link" "select create_link_v1($1)";
LINK_PEEK "looking at a one-time link" "select peek_link_v1($1)";
LINK_USE "using a one-time link" "select use_link_v1($1)";
AUDIT "writing the audit trail" "select audit_v1($1)";
AUDIT_READ "reading the audit trail" "
    select jsonb_build_object('seq', a.seq, 'at', a.at, 'principal', a.principal_id, 'ip', a.ip,
        'action', a.action, 'object', a.object, 'detail', a.detail,
        'before', encode(a.before_hash, 'hex'), 'after', encode(a.after_hash, 'hex'))
    from audit a where a.seq < coalesce(($1->>'before')::bigint, 9223372036854775807)
    order by a.seq desc limit least(greatest(($1->>'limit')::int, 1), 500)";
AUDIT_VERIFY "checking the audit trail" "select audit_verify_v1() from (select $1::jsonb) a";

// Catalogue.
SHARE_PUT "storing a share" "select put_share_v1($1)";
SHARES "listing shares" "
    select jsonb_build_object('name', s.name, 'role', s.role, 'kind', s.kind, 'marker', s.marker,
        'ok_on', coalesce((select jsonb_agg(distinct n.name) from worker w join node n on n.id = w.node_id
            where w.state in ('active', 'draining') and s.name = any(w.shares_ok)), '[]'))
    from (select $1::jsonb) a, share s order by s.name";
PROFILE_PUT "storing a profile" "select put_profile_v1($1)";
PROFILES "listing profiles" "
    select profile_json(p) from profile p
    where ($1->>'name' is null and p.current) or p.name = $1->>'name' order by p.name, p.version desc";
PROFILE "reading a profile" "
    select profile_json(p) from profile p where p.id = ($1->>'id')::bigint";
NODE_ENROL "enrolling a node" "select enrol_node_v1($1)";
NODES "listing nodes" "
    select jsonb_build_object('id', n.id, 'name', n.name, 'state', n.state,
        'cordon_reason', n.cordon_reason, 'cordoned_by', n.cordoned_by, 'worker', (
        select to_jsonb(v) from worker_view v
        where v.id = (select max(w.id) from worker w where w.node_id = n.id)))
    from (select $1::jsonb) a, node n order by n.name";
WORKERS "listing workers" "
    select to_jsonb(v) from worker_view v
    where ($1->>'all')::boolean or v.state in ('active', 'draining') order by v.id";
DRAIN "draining a worker" "select drain_v1($1)";

// Events.
EVENTS "reading events" "
    select jsonb_build_object('seq', e.seq, 'at', e.at, 'job', e.job_id, 'task', e.task_id,
        'kind', e.kind, 'body', e.body)
    from event_log e
    where e.seq > ($1->>'after')::bigint
      and ($1->>'job' is null or e.job_id = ($1->>'job')::bigint)
    order by e.seq limit least(greatest(($1->>'limit')::int, 1), 5000)";
EVENT_HEAD "reading the head of the event log" "
    select jsonb_build_object('incarnation', c.incarnation, 'head', h.head, 'oldest', h.oldest)
    from (select $1::jsonb) a, cluster c, event_head h";
CLUSTER_ID "reading the cluster's id" "select to_jsonb(c.id) from (select $1::jsonb) a, cluster c";
SEQUENCE "numbering events" "select sequence_events_v1($1)";
EMIT "writing an event" "select emit_v1($1)";

// The whole. Whoever leads holds the seat's lock; a killed or cut-off session frees it.
OVERVIEW "looking at the whole" "
    select jsonb_build_object(
        'incarnation', c.incarnation,
        'schema_version', (select max(version) from _sqlx_migrations where success),
        'event_head', h.head,
        'leader', case when l.epoch > 0 then jsonb_build_object('epoch', l.epoch,
            'holder', l.holder, 'since', l.since, 'up_ms', l.up_ms, 'alive', exists (
                select from pg_locks k where k.locktype = 'advisory' and k.granted and k.objsubid = 1
                    and k.database = (select oid from pg_database where datname = current_database())
                    and (k.classid::bigint << 32 | k.objid::bigint) = hashtext('trix leader')::bigint)) end,
        'jobs', (select coalesce(jsonb_object_agg(x.state, x.n), '{}')
            from (select state, count(*) as n from job group by state) x),
        'tasks', (select coalesce(jsonb_object_agg(x.state, x.n), '{}')
            from (select t.state, count(*) as n from job j join task t on t.job_id = j.id
                where j.state not in ('succeeded', 'failed', 'cancelled') and t.needed
                group by t.state) x),
        'workers', (select coalesce(jsonb_object_agg(x.state, x.n), '{}')
            from (select state, count(*) as n from worker group by state) x))
    from (select $1::jsonb) a, cluster c, event_head h, leader l";

// The leader's functions.
LEAD_LOCK "trying to lead" "
    select to_jsonb(pg_try_advisory_lock(hashtext('trix leader'))) from (select $1::jsonb) a";
LEADER_PING "looking whether the leader ticks" "
    select to_jsonb(l.ping_seq) from (select $1::jsonb) a, leader l";
TAKEOVER "taking the lead" "select takeover_v1($1)";
TICK "ticking" "select tick_v1($1)";
MARK_LOST "marking lost workers" "select mark_lost_v1($1)";
TO_PLAN "looking for jobs to plan" "select jobs_to_plan_v1($1)";
APPEND_PLAN "appending a plan" "select append_plan_v1($1)";
FAIL_JOB "failing a job" "select fail_job_v1($1)";
CACHE_HITS "resolving cache hits" "select cache_hits_v1($1)";
REPAIR "repairing readiness" "select repair_v1($1)";
FINISH_CANCELS "finishing cancelled jobs" "select finish_cancels_v1($1)";
EXPLAIN_BLOCKS "saying why tasks wait" "select block_reasons_v1($1)";
RETIRE "dropping what is older than its retention" "select retire_v1($1)";
PRUNABLE "looking for artifacts to prune" "
    select jsonb_build_object('key', encode(a.key, 'hex'), 'digest', encode(a.digest, 'hex'), 'size', a.size)
    from artifact a where not artifact_pinned(a.key)
    order by a.last_used limit ($1->>'limit')::int";
ENDED_TASKS "asking which tasks are over for good" "
    select to_jsonb(k.id) from (select x::bigint as id
        from jsonb_array_elements_text($1->'tasks') x) k
    left join task t on t.id = k.id left join job j on j.id = t.job_id
    where t.id is null or j.state in ('succeeded', 'cancelled')";
FORGET "forgetting an artifact" "select forget_artifact_v1($1)";

// The fleet and its operators.
TEND "tending the queue" "select tend_v1($1)";
AGE "raising what waited long" "select age_v1($1)";
RESERVE "reserving workers for large tasks" "select reserve_v1($1)";
JUDGE_NODES "judging nodes" "select judge_nodes_v1($1)";
SELF_TEST "telling the result of a self-test" "select self_test_v1($1)";
HOLD "stopping work" "select hold_v1($1)";
LIFT "letting work go on" "select lift_v1($1)";
HOLDS "listing what is stopped" "
    select to_jsonb(h) from (select $1::jsonb) a, hold h order by h.at, h.scope, h.name";
CORDON "cordoning a node" "select cordon_v1($1)";
UNCORDON "uncordoning a node" "select uncordon_v1($1)";
DRAIN_NODE "draining a node" "select drain_node_v1($1)";
UNDRAIN_NODE "undraining a node" "select undrain_node_v1($1)";
SET_SLOTS "limiting a share" "select set_slots_v1($1)";
SLOTS "listing the limits of shares" "
    select jsonb_build_object('share', o.share, 'mode', o.mode, 'total', count(*),
        'taken', count(o.task_id))
    from (select $1::jsonb) a, share_slot o group by o.share, o.mode order by o.share, o.mode";
SET_TRAITS "setting a node's traits" "select set_node_traits_v1($1)";
SET_WEIGHT "setting a principal's weight" "select set_weight_v1($1)";
ACCOUNTS "listing accounts" "
    select principal_json(p) || jsonb_build_object('weight', p.weight, 'open_jobs',
        (select count(*) from job j where j.principal_id = p.id
            and j.state not in ('succeeded', 'failed', 'cancelled')))
    from (select $1::jsonb) a, principal p where p.kind <> 'node' order by p.name";
ADOPT "adopting a restored database" "select adopt_v1($1)";
RETRACT "retracting a publication" "select retract_v1($1)";
RETRACTED "recording a retraction" "select retracted_v1($1)";
EXPLAIN_TASK "explaining a task" "select explain_task_v1($1)";
EXPLAIN_JOB "explaining a job" "select explain_job_v1($1)";
EXPLAIN_NODE "explaining a node" "select explain_node_v1($1)";
QUARANTINE_BUNDLE "collecting what is known of a task" "select quarantine_bundle_v1($1)";

// The tables as they are, for the checker. Keys and digests are written in hexadecimal.
RAW_LEADER "reading the leader's row" "
    select to_jsonb(l) from (select $1::jsonb) a, leader l";
RAW_HEAD "reading the head of the log" "
    select jsonb_build_array(h.head, h.oldest) from (select $1::jsonb) a, event_head h";
RAW_NODES "reading the nodes" "
    select to_jsonb(n) - 'token_hash' from (select $1::jsonb) a, node n order by n.id";
RAW_WORKERS "reading the workers" "
    select to_jsonb(w) - 'token_hash' from (select $1::jsonb) a, worker w order by w.id";
RAW_JOBS "reading the jobs" "
    select to_jsonb(j) - 'request' - 'sources'
        || jsonb_build_object('request_hash', encode(j.request_hash, 'hex'))
    from (select $1::jsonb) a, job j order by j.id";
RAW_TASKS "reading the tasks" "
    select to_jsonb(t) - 'spec' - 'detail' from (select $1::jsonb) a, task t order by t.id";
RAW_DEPS "reading the dependencies" "
    select to_jsonb(d) from (select $1::jsonb) a, task_dep d order by d.task_id, d.needs_id";
RAW_OUTPUTS "reading the outputs" "
    select to_jsonb(o) || jsonb_build_object('key', encode(o.key, 'hex'))
    from (select $1::jsonb) a, output o order by o.task_id, o.n";
RAW_INPUTS "reading the inputs" "
    select jsonb_build_object('task_id', i.task_id, 'key', encode(i.key, 'hex'))
    from (select $1::jsonb) a, task_input i order by i.task_id, i.key";
RAW_ATTEMPTS "reading the attempts" "
    select to_jsonb(x) - 'result' - 'usage' from (select $1::jsonb) a, attempt x
    order by x.task_id, x.epoch";
RAW_ARTIFACTS "reading the artifacts" "
    select jsonb_build_object('key', encode(f.key, 'hex'), 'digest', encode(f.digest, 'hex'),
        'size', f.size)
    from (select $1::jsonb) a, artifact f order by f.key";
RAW_PUBLICATIONS "reading the publications" "
    select to_jsonb(p) - 'manifest_hash' - 'receipt'
    from (select $1::jsonb) a, publication p order by p.id";
RAW_FILES "reading the published files" "
    select to_jsonb(f) || jsonb_build_object('sha256', encode(f.sha256, 'hex'))
    from (select $1::jsonb) a, publication_file f order by f.publication_id, f.path";
RAW_EVENTS "reading events without a number" "
    select to_jsonb(e) - 'id' - 'at' from (select $1::jsonb) a, event_in e order by e.id";
}

/// What is read after this is one moment.
pub const ONE_MOMENT: &str = "set transaction isolation level repeatable read read only";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_statement_fits_the_migrated_schema() {
        use sqlx::postgres::PgTypeInfo;
        use sqlx::{Connection, Executor, SqlSafeStr};
        let db = trix_testkit::pg::TestDb::new().await.unwrap();
        let mut c = sqlx::PgConnection::connect(db.url()).await.unwrap();
        for s in ALL {
            let one = [PgTypeInfo::with_name("jsonb")];
            let prepared = c.prepare_with(s.text.into_sql_str(), &one).await;
            let prepared = prepared.unwrap_or_else(|e| panic!("{}: {e}", s.operation));
            let columns = sqlx::Statement::columns(&prepared);
            assert_eq!(columns.len(), 1, "{}", s.operation);
            assert_eq!(
                sqlx::TypeInfo::name(sqlx::Column::type_info(&columns[0])),
                "JSONB",
                "{}",
                s.operation
            );
        }
    }
}
