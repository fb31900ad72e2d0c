-- Why something waits or failed: facts, which trix turns into sentences.

-- What of a worker a task cannot do with, in words; empty when it could be claimed there
-- now. What changes by itself (room) comes last.
create function misses(w worker, t task, l leader) returns text[] language sql stable as $$
    select array_remove(array[
        case when w.state = 'draining' then 'draining' end,
        case when n.state <> 'ok' then n.state end,
        case when exists (select from hold h where h.scope = 'node' and h.name = n.name) then 'paused' end,
        case when l.up_ms - w.pong_up_ms > (l.times->>'suspect_ms')::bigint then 'silent' end,
        case when engine_needed(t.kind, t.engine) not in ('', w.engine) then 'engine' end,
        case when not t.need_caps <@ n.caps then 'caps' end,
        case when t.need_gpu > n.gpu then 'gpu' end,
        case when t.need_mcpu > w.cap_mcpu then 'mcpu' end,
        case when t.need_ram > w.cap_ram then 'ram' end,
        case when t.need_scratch > w.cap_scratch then 'scratch' end,
        case when n.id = any(t.avoid_nodes) then 'avoided' end,
        case when w.reserved_task is not null and w.reserved_task <> t.id
            and l.up_ms + wall_ms(t.est_ms, t.need_mcpu) > w.backfill_until_up_ms then 'reserved' end,
        case when r.mcpu < t.need_mcpu or r.ram < t.need_ram or r.scratch < t.need_scratch
            or r.gpu < t.need_gpu then 'busy' end], null)
        || array(select 'share:' || x from unnest(t.need_shares) x where x <> all(w.shares_ok) order by x)
    from node n, room(w) r where n.id = w.node_id
$$;

create function leads_now() returns boolean language sql stable as $$
    select exists (select from pg_locks where locktype = 'advisory' and granted
        and database = (select oid from pg_database where datname = current_database())
        and ((classid::bigint << 32) | objid::bigint) = hashtext('trix leader')::bigint)
$$;

create function explain_task_v1(a jsonb) returns jsonb language plpgsql stable as $$
declare t task; j job; l leader; s shape;
begin
    select * into t from task where id = (a->>'task')::bigint;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no task %s', a->>'task');
    end if;
    select * into j from job where id = t.job_id;
    select * into l from leader;
    select * into s from shape where id = t.shape;
    return jsonb_build_object(
        'task', t.id, 'name', t.name, 'kind', t.kind, 'job', j.id, 'state', t.state,
        'job_state', j.state, 'needed', t.needed, 'epoch', t.epoch, 'roll_forward', t.roll_forward,
        'band', t.band, 'rank', t.rank,
        'block_reason', t.block_reason,
        'waits_for', (select coalesce(jsonb_agg(jsonb_build_object('task', n.id, 'name', n.name,
                'state', n.state) order by n.id), '[]')
            from task_dep d join task n on n.id = d.needs_id
            where d.task_id = t.id and n.state not in ('done', 'skipped')),
        'delay_ms', case when t.state = 'ready' then greatest(0, t.not_before_up_ms - l.up_ms) else 0 end,
        'waited_ms', case when t.state = 'ready' then l.up_ms - t.ready_up_ms else 0 end,
        'held_by', t.held_by,
        'holds', (select coalesce(jsonb_agg(to_jsonb(h) - 'at' order by h.scope), '[]') from hold h
            where h.scope = 'all' or h.scope = 'kind' and h.name = t.kind),
        'ahead', case when t.state = 'ready' then (select count(*) from (select from task o
            where o.state = 'ready' and o.deps_left = 0 and o.held_by is null and not o.parked
                and o.not_before_up_ms = 0 and o.shape = t.shape
                and (-o.band, o.rank, o.id) < (-t.band, t.rank, t.id) limit 1000) x) else 0 end,
        'needs', jsonb_build_object('engine', engine_needed(t.kind, t.engine), 'mcpu', t.need_mcpu,
            'ram', t.need_ram, 'scratch', t.need_scratch, 'gpu', t.need_gpu, 'caps', t.need_caps,
            'shares', t.need_shares),
        'slots', (select coalesce(jsonb_agg(jsonb_build_object('share', o.share, 'mode', o.mode,
                'total', o.total, 'taken', o.taken) order by o.share, o.mode), '[]')
            from (select x.share, x.mode, count(*) as total, count(x.task_id) as taken
                from share_slot x where x.mode = 'read' and x.share = any(s.reads)
                    or x.mode = 'write' and x.share = any(s.writes)
                group by x.share, x.mode) o),
        'twin', (select min(r.id) from output o join output p on p.key = o.key and p.task_id <> o.task_id
            join task r on r.id = p.task_id where o.task_id = t.id and r.state = 'running'),
        'reserved_on', (select min(w.id) from worker w where w.reserved_task = t.id and w.state = 'active'),
        'workers', (select coalesce(jsonb_agg(jsonb_build_object('worker', w.id, 'node', n.name,
                'cordon_reason', n.cordon_reason, 'misses', misses(w, t, l)) order by w.id), '[]')
            from worker w join node n on n.id = w.node_id where w.state in ('active', 'draining')),
        'leader', leads_now(),
        'failure', t.failure,
        'attempts', (select coalesce(jsonb_agg(jsonb_build_object('epoch', x.epoch, 'state', x.state,
                'node', x.name, 'failure', x.failure) order by x.epoch), '[]')
            from (select at.epoch, at.state, at.failure, n.name from attempt at
                join node n on n.id = at.node_id where at.task_id = t.id
                order by at.epoch desc limit 10) x));
end $$;

-- The root cause of a job's failure is what failed first: later failures may follow from it.
create function explain_job_v1(a jsonb) returns jsonb language plpgsql stable as $$
declare j job;
begin
    select * into j from job where id = (a->>'job')::bigint;
    if not found then perform no_job((a->>'job')::bigint); end if;
    return jsonb_build_object(
        'job', j.id, 'state', j.state, 'planned', j.planned, 'band', j.band, 'failure', j.failure,
        'tasks', (select coalesce(jsonb_object_agg(x.state, x.n), '{}') from (
            select t.state, count(*) as n from task t where t.job_id = j.id and t.needed group by t.state) x),
        'blocked', (select coalesce(jsonb_agg(jsonb_build_object('reason', x.block_reason, 'tasks', x.n,
                'first', x.first) order by x.n desc, x.first), '[]')
            from (select t.block_reason, count(*) as n, min(t.id) as first from task t
                where t.job_id = j.id and t.state = 'ready' group by t.block_reason) x),
        'root', (select jsonb_build_object('task', t.id, 'name', t.name, 'state', t.state,
                'epoch', at.epoch, 'node', n.name, 'failure', coalesce(at.failure, t.failure))
            from task t left join attempt at on at.task_id = t.id and at.epoch = t.epoch
            left join node n on n.id = at.node_id
            where t.job_id = j.id and t.state in ('failed', 'quarantined')
            order by coalesce(at.ended_at, t.ended_at), t.id limit 1),
        'retrying', (select coalesce(jsonb_agg(jsonb_build_object('task', t.id, 'name', t.name,
                'failure', t.failure) order by t.id), '[]')
            from (select * from task o where o.job_id = j.id and o.state = 'ready'
                and o.failure is not null order by o.id limit 20) t),
        'holds', (select coalesce(jsonb_agg(to_jsonb(h) - 'at' order by h.scope, h.name), '[]') from hold h
            where h.scope = 'all' or h.scope = 'kind' and exists (select from task t
                where t.job_id = j.id and t.state = 'ready' and t.kind = h.name)),
        'workers', (select count(*) from worker where state = 'active'),
        'leader', leads_now());
end $$;

create function explain_node_v1(a jsonb) returns jsonb language plpgsql stable as $$
declare n node; w worker; l leader;
begin
    select * into n from node where name = a->>'node';
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no node %s', a->>'node');
    end if;
    select * into l from leader;
    select * into w from worker where node_id = n.id order by id desc limit 1;
    return jsonb_build_object(
        'node', n.name, 'state', n.state, 'cordon_reason', n.cordon_reason, 'cordoned_by', n.cordoned_by,
        'self_tests', n.self_tests, 'caps', n.caps, 'gpu', n.gpu,
        'holds', (select coalesce(jsonb_agg(to_jsonb(h) - 'at' order by h.scope), '[]') from hold h
            where h.scope = 'all' or h.scope = 'node' and h.name = n.name),
        'worker', case when w.id is not null then jsonb_build_object('id', w.id, 'state', w.state,
            'age_ms', l.up_ms - w.pong_up_ms,
            'suspect', w.state in ('active', 'draining')
                and l.up_ms - w.pong_up_ms > (l.times->>'suspect_ms')::bigint,
            'engine', w.engine, 'shares_ok', w.shares_ok,
            'shares_missing', (select coalesce(jsonb_agg(s.name order by s.name), '[]') from share s
                where s.name <> all(w.shares_ok)),
            'free', (select jsonb_build_object('mcpu', r.mcpu, 'ram', r.ram, 'scratch', r.scratch,
                'gpu', r.gpu) from room(w) r),
            'running', (select count(*) from attempt at where at.worker_id = w.id and at.state = 'running'),
            'reserved_task', w.reserved_task,
            'backfill_ms', greatest(0, w.backfill_until_up_ms - l.up_ms)) end,
        'record', (select jsonb_build_object('ended', count(*), 'suspect', count(r.suspicion),
                'tasks', count(distinct r.task_id) filter (where r.suspicion is not null))
            from node_record r where r.node_id = n.id),
        'leader', leads_now());
end $$;

-- All that a person needs to look into a task that was quarantined.
create function quarantine_bundle_v1(a jsonb) returns jsonb language plpgsql stable as $$
declare t task;
begin
    select * into t from task where id = (a->>'task')::bigint;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no task %s', a->>'task');
    end if;
    return jsonb_build_object(
        'task', t.id, 'name', t.name, 'kind', t.kind, 'job', t.job_id, 'state', t.state,
        'engine', t.engine, 'spec', t.spec, 'fail_counts', t.fail_counts,
        'needs', jsonb_build_object('mcpu', t.need_mcpu, 'ram', t.need_ram, 'scratch', t.need_scratch),
        'source', (select jsonb_build_object('location', f.location, 'size', f.size,
                'mtime_ns', f.mtime_ns, 'sha256', encode(f.sha256, 'hex'))
            from source_file f where f.location = t.source_key
                and f.size = (t.spec#>>'{source,size}')::numeric
                and f.mtime_ns = (t.spec#>>'{source,mtime_ns}')::bigint),
        'attempts', (select coalesce(jsonb_agg(jsonb_build_object('epoch', at.epoch, 'state', at.state,
                'node', n.name, 'worker', at.worker_id, 'version', w.version, 'failure', at.failure,
                'usage', at.usage, 'started_at', at.started_at, 'ended_at', at.ended_at,
                'log', coalesce(to_jsonb(g.lines), '[]')) order by at.epoch), '[]')
            from attempt at join node n on n.id = at.node_id join worker w on w.id = at.worker_id
            left join attempt_log g on g.task_id = at.task_id and g.epoch = at.epoch
            where at.task_id = t.id));
end $$;
