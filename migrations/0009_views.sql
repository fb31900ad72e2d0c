-- What the api shows. Columns are named as trix-db's structs name them.

create view job_view as
select j.id, ti.name as title, p.name as profile, p.id as profile_id, j.state, j.band,
    pr.name as principal, j.sources, j.engine, j.planned, j.created_at, j.started_at, j.ended_at,
    j.failure, c.counts
from job j
join title ti on ti.id = j.title_id
join profile p on p.id = j.profile_id
join principal pr on pr.id = j.principal_id
cross join lateral (
    -- What nobody needs, because its consumers were in the cache, is not counted.
    select jsonb_build_object(
        'total', count(*),
        'waiting', count(*) filter (where t.state = 'waiting'),
        'ready', count(*) filter (where t.state = 'ready'),
        'running', count(*) filter (where t.state = 'running'),
        'done', count(*) filter (where t.state in ('done', 'skipped')),
        'cached', count(*) filter (where t.state = 'done' and t.cache_hit),
        'failed', count(*) filter (where t.state in ('failed', 'quarantined')),
        'cancelled', count(*) filter (where t.state = 'cancelled'),
        'estimate_ms', coalesce(sum(t.est_ms), 0),
        'done_ms', coalesce(sum(case
            when t.state in ('done', 'skipped') then t.est_ms
            when t.state = 'running' and (ap.progress->>'total')::numeric > 0 then
                floor(t.est_ms * least(1, (ap.progress->>'done')::numeric
                    / (ap.progress->>'total')::numeric))::bigint
            else 0 end), 0)) as counts
    from task t
    left join attempt_progress ap on ap.task_id = t.id and ap.epoch = t.epoch
    where t.job_id = j.id and t.needed
) c;

create view task_view as
select t.id, t.job_id as job, t.name, t.kind, t.state, t.needed, t.epoch, t.deps_left, t.cache_hit,
    t.roll_forward, t.block_reason,
    case when t.state = 'ready' then greatest(0, t.not_before_up_ms - l.up_ms) else 0 end as delay_ms,
    t.est_ms as estimate_ms, t.failure,
    case when t.state = 'running' then ap.progress end as progress,
    (select coalesce(jsonb_agg(n.name order by n.id), '[]')
        from task_dep d join task n on n.id = d.needs_id where d.task_id = t.id) as needs,
    at.started_at, t.ended_at, no.name as node
from task t
cross join leader l
left join attempt at on at.task_id = t.id and at.epoch = t.epoch
left join node no on no.id = at.node_id
left join attempt_progress ap on ap.task_id = t.id and ap.epoch = t.epoch;

create view attempt_view as
select t.job_id as job, at.task_id as task, t.name, at.epoch, at.state, n.name as node,
    at.worker_id as worker, at.failure, at.result_lost, at.started_at, at.ended_at, at.usage,
    case when at.state = 'running' then ap.progress end as progress
from attempt at
join task t on t.id = at.task_id
join node n on n.id = at.node_id
left join attempt_progress ap on ap.task_id = at.task_id and ap.epoch = at.epoch;

create view worker_view as
select w.id, n.name as node, w.state,
    -- A computed view of a living worker, never stored.
    w.state in ('active', 'draining')
        and l.up_ms - w.pong_up_ms > (l.times->>'suspect_ms')::bigint as suspect,
    l.up_ms - w.pong_up_ms as age_ms, w.version, w.engine, w.pid,
    jsonb_build_object('mcpu', w.cap_mcpu, 'ram', w.cap_ram, 'scratch', w.cap_scratch) as capacity,
    jsonb_build_object('mcpu', w.free_mcpu, 'ram', w.free_ram, 'scratch', w.free_scratch) as free,
    w.shares_ok,
    (select count(*) from attempt at where at.worker_id = w.id and at.state = 'running') as running,
    w.started_at, w.last_seen
from worker w join node n on n.id = w.node_id cross join leader l;
