-- What the leading dispatcher calls. Each function looks at the leader's epoch with
-- FOR SHARE: an overtaken leader stops here, and a takeover waits until it is through.

create function leads(e bigint) returns leader language plpgsql as $$
declare l leader;
begin
    select * into l from leader where epoch = e for share;
    if not found then
        raise exception 'not_leader' using errcode = 'TX410',
            detail = format('epoch %s is over', e);
    end if;
    return l;
end $$;

create function takeover_v1(a jsonb) returns jsonb language plpgsql as $$
declare l leader;
begin
    update leader set epoch = epoch + 1, holder = a->>'holder', since = now(),
        ping_seq = ping_seq + 1, times = a->'times',
        grace_until_up_ms = greatest(grace_until_up_ms, up_ms + (a->>'grace_ms')::bigint)
    returning * into l;
    perform emit('leader.takeover', null, null,
        jsonb_build_object('epoch', l.epoch, 'holder', l.holder, 'up_ms', l.up_ms));
    return to_jsonb(l.epoch);
end $$;

create function tick_v1(a jsonb) returns jsonb language plpgsql as $$
declare l leader;
begin
    update leader set up_ms = up_ms + (a->>'up')::bigint, ping_seq = ping_seq + 1,
        grace_until_up_ms = greatest(grace_until_up_ms, up_ms + coalesce((a->>'grace_ms')::bigint, 0))
    where epoch = (a->>'epoch')::bigint returning * into l;
    if not found then
        raise exception 'not_leader' using errcode = 'TX410',
            detail = format('epoch %s is over', a->>'epoch');
    end if;
    return jsonb_build_object('up_ms', l.up_ms, 'ping_seq', l.ping_seq,
        'grace_until_up_ms', l.grace_until_up_ms);
end $$;

-- A worker whose sync is just running holds its row: it is skipped, because it lives.
create function mark_lost_v1(a jsonb) returns setof jsonb language plpgsql as $$
declare l leader; w worker; n integer; node_name text;
begin
    l := leads((a->>'epoch')::bigint);
    if l.up_ms <= l.grace_until_up_ms then return; end if;
    for w in select * from worker where state in ('active', 'draining')
            and l.up_ms - pong_up_ms > (l.times->>'lost_ms')::bigint
            order by id for update skip locked loop
        update worker set state = 'lost', ended_at = now() where id = w.id;
        n := orphan_attempts(w, 'lost', format('worker %s was silent for %s ms', w.id,
            l.up_ms - w.pong_up_ms));
        select name into node_name from node where id = w.node_id;
        perform emit('worker.lost', null, null, jsonb_build_object('worker', w.id,
            'node', node_name, 'silent_ms', l.up_ms - w.pong_up_ms, 'epoch', l.epoch,
            'attempts', n));
        return next jsonb_build_object('worker', w.id, 'node', node_name,
            'silent_ms', l.up_ms - w.pong_up_ms, 'attempts', n);
    end loop;
end $$;

create function jobs_to_plan_v1(a jsonb) returns setof jsonb language plpgsql as $$
begin
    perform leads((a->>'epoch')::bigint);
    return query
        select jsonb_build_object('job', j.id, 'title', ti.name, 'request', j.request,
            'profile', p.name, 'profile_body', p.body, 'engine', j.engine,
            'tasks', (select jsonb_agg(jsonb_build_object('name', t.name, 'spec', t.spec,
                    'needs', (select coalesce(jsonb_agg(n.name order by n.id), '[]')
                        from task_dep d join task n on n.id = d.needs_id where d.task_id = t.id),
                    'outputs', (select coalesce(jsonb_agg(jsonb_build_object('name', o.name,
                            'key', encode(o.key, 'hex')) order by o.n), '[]')
                        from output o where o.task_id = t.id),
                    'cost', jsonb_build_object('mcpu', t.need_mcpu, 'ram', t.need_ram,
                        'scratch', t.need_scratch, 'estimate_ms', t.est_ms),
                    'cache_hit', t.cache_hit, 'detail', t.detail) order by t.id)
                from task t where t.job_id = j.id))
        from job j join title ti on ti.id = j.title_id join profile p on p.id = j.profile_id
        where not j.planned and j.state in ('accepted', 'inspecting', 'running')
            and not exists (select from task t where t.job_id = j.id
                and t.state not in ('done', 'skipped'))
        order by j.band desc, j.id limit (a->>'limit')::integer;
end $$;

create function append_plan_v1(a jsonb) returns jsonb language plpgsql as $$
declare j job;
begin
    perform leads((a->>'epoch')::bigint);
    perform 1 from task where job_id = (a->>'job')::bigint order by id for no key update;
    select * into j from job where id = (a->>'job')::bigint for no key update;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no job %s', a->>'job');
    end if;
    if j.planned or j.state not in ('accepted', 'inspecting', 'running') or exists (
            select from task where job_id = j.id and state not in ('done', 'skipped')) then
        return 'false';
    end if;
    update job set planned = true, engine = a->>'engine' where id = j.id;
    perform append_tasks(j.id, 1::smallint, a->'tasks');
    -- A retried job runs already.
    if j.state <> 'running' then perform move_job(j.id, 'planned'); end if;
    perform finish_job(j.id);
    return 'true';
end $$;

create function fail_job_v1(a jsonb) returns jsonb language plpgsql as $$
declare j job;
begin
    perform leads((a->>'epoch')::bigint);
    select * into j from job where id = (a->>'job')::bigint for no key update;
    if job_after(j.state, 'task_failed') is null then return 'null'; end if;
    update job set failure = a->'failure' where id = j.id;
    perform move_job(j.id, 'task_failed', jsonb_build_object('class', a#>'{failure,class}',
        'code', a#>'{failure,code}', 'message', a#>'{failure,message}'));
    return 'null';
end $$;

-- A claim resolves these too; this is for tasks that no worker asks for.
create function cache_hits_v1(a jsonb) returns jsonb language plpgsql as $$
declare ids bigint[]; n integer;
begin
    perform leads((a->>'epoch')::bigint);
    select coalesce(array_agg(id order by id), '{}') into ids from (
        select t.id from task t join job j on j.id = t.job_id
        where t.state in ('waiting', 'ready') and t.needed
            and j.state in ('accepted', 'inspecting', 'running', 'waiting_gate')
            and is_cached(t.id)
        order by t.id limit 500) x;
    n := settle(ids);
    perform finish_job(x.job_id) from (
        select distinct job_id from task where id = any(ids) order by 1) x;
    return to_jsonb(n);
end $$;

-- Counts anew what the functions above keep counted. Finding anything is a mistake of
-- ours, which is why it is mended and reported. The look takes no locks; only jobs that
-- look wrong are looked at again with them.
create function repair_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    counts integer := 0;
    readied integer := 0;
    finished integer := 0;
    j bigint;
    t record;
begin
    perform leads((a->>'epoch')::bigint);
    for j in select distinct m.job_id from miscounted(null) m order by 1 loop
        perform 1 from task where job_id = j order by id for no key update;
        for t in select * from miscounted(j) order by id loop
            if t.want <> t.deps_left then
                update task set deps_left = t.want where id = t.id;
                counts := counts + 1;
            end if;
            if t.state = 'waiting' and t.needed and t.want = 0 then
                perform settle(array[t.id]);
                readied := readied + 1;
            end if;
        end loop;
    end loop;
    for j in select o.id from job o where o.state = 'running' and o.planned and not exists (
            select from task x where x.job_id = o.id and x.needed
                and x.state not in ('done', 'skipped')) order by 1 loop
        if finish_job(j) then finished := finished + 1; end if;
    end loop;
    return jsonb_build_object('counts', counts, 'readied', readied, 'finished', finished);
end $$;

-- Tasks of open jobs, or of one job, whose count of open dependencies is wrong or that
-- wait for nothing.
create function miscounted(j bigint)
returns table (id bigint, job_id bigint, state text, needed boolean, deps_left integer, want integer)
language sql stable as $$
    with open as materialized (
        select o.id from job o where o.state not in ('succeeded', 'failed', 'cancelled')
            and (j is null or o.id = j)
    ), counted as materialized (
        select d.task_id, count(*) filter (where n.state not in ('done', 'skipped'))::integer as want
        from open join task n on n.job_id = open.id join task_dep d on d.needs_id = n.id
        group by d.task_id
    )
    select t.id, t.job_id, t.state, t.needed, t.deps_left, coalesce(c.want, 0)
    from open join task t on t.job_id = open.id left join counted c on c.task_id = t.id
    where t.state in ('waiting', 'ready') and (t.deps_left <> coalesce(c.want, 0)
        or t.state = 'waiting' and t.needed and coalesce(c.want, 0) = 0)
$$;

create function finish_cancels_v1(a jsonb) returns jsonb language plpgsql as $$
declare j bigint; n integer := 0;
begin
    perform leads((a->>'epoch')::bigint);
    for j in select id from job where state = 'cancelling' order by id loop
        if finish_job(j) then n := n + 1; end if;
    end loop;
    return to_jsonb(n);
end $$;

create function block_reasons_v1(a jsonb) returns jsonb language plpgsql as $$
declare l leader; n integer;
begin
    l := leads((a->>'epoch')::bigint);
    with live as materialized (
        select * from worker where state = 'active'
    ), reason as materialized (
        select t.id, case
            when j.state = 'paused' then 'paused'
            when t.held_by is not null then 'held'
            when t.not_before_up_ms > l.up_ms then 'delayed'
            when not exists (select from live) then 'no_worker'
            when not exists (select from live w where w.engine = t.engine
                or t.kind in ('publish', 'copy')) then 'engine'
            when not exists (select from live w where t.need_shares <@ w.shares_ok) then
                'share:' || coalesce((select s from unnest(t.need_shares) s where not exists (
                    select from live w where s = any(w.shares_ok)) limit 1), t.need_shares[1])
            when not exists (select from live w where t.need_mcpu <= w.cap_mcpu
                and t.need_ram <= w.cap_ram and t.need_scratch <= w.cap_scratch) then 'resources'
            end as why
        from task t join job j on j.id = t.job_id
        where t.state = 'ready' and t.deps_left = 0
            and j.state in ('accepted', 'inspecting', 'running', 'waiting_gate', 'paused')
    ), locked as (
        select t.id from task t join reason r on r.id = t.id
        where t.block_reason is distinct from r.why and t.state = 'ready'
        order by t.id for no key update of t skip locked
    ), changed as (
        update task t set block_reason = r.why from reason r, locked k
        where t.id = r.id and t.id = k.id returning t.id
    )
    select count(*) into n from changed;
    return to_jsonb(n);
end $$;

-- Forgets an artifact, so that its file may be removed. The row's lock comes first and
-- the look at who needs it after: a cache hit holds the row until its tasks are visible.
create function forget_artifact_v1(a jsonb) returns jsonb language plpgsql as $$
declare k constant bytea := decode(a->>'key', 'hex');
begin
    perform leads((a->>'epoch')::bigint);
    perform 1 from artifact where key = k for update;
    if not found then
        -- A file without a row: a stray, unless an attempt is about to report it.
        return to_jsonb(not exists (select from output o join task t on t.id = o.task_id
            where o.key = k and t.state = 'running'));
    end if;
    if artifact_pinned(k) then return 'false'; end if;
    delete from artifact where key = k;
    return 'true';
end $$;

-- Drops whole partitions whose youngest row is older than its retention. Times here
-- are wall time: they are about people, not about the protocol.
create function retire_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    part record;
    events integer := 0;
    attempts integer := 0;
    n integer;
    old boolean;
    low bigint;
begin
    perform leads((a->>'epoch')::bigint);
    for part in select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
            where i.inhparent = 'event_log'::regclass
            order by substring(c.relname from '\d+$')::bigint loop
        -- The sequencer fills the last one, and makes the one after it.
        execute format('select exists (select from %I) and not exists (select from %I where at >= now() - make_interval(secs => $1))',
            part.name, part.name) into old using (a->>'events_s')::double precision;
        exit when not old or (select partitioned_to from event_head)
            - substring(part.name from '\d+$')::bigint <= 1000000;
        perform 1 from event_head for update;
        execute format('select max(seq) + 1 from %I', part.name) into low;
        execute format('drop table %I', part.name);
        update event_head set oldest = low;
        events := events + 1;
    end loop;
    for part in select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
            where i.inhparent = 'attempt'::regclass
            order by substring(c.relname from '\d+$')::bigint loop
        low := substring(part.name from '\d+$')::bigint * 1000000;
        -- Ids beyond must exist already, else the partition is still being filled.
        exit when not exists (select from task where id >= low + 1000000) or exists (
            select from task t join job j on j.id = t.job_id
            where t.id >= low and t.id < low + 1000000
                and (j.ended_at is null
                    or j.ended_at >= now() - make_interval(secs => (a->>'attempts_s')::double precision)));
        execute format('drop table %I', part.name);
        delete from attempt_log where task_id >= low and task_id < low + 1000000;
        attempts := attempts + 1;
    end loop;
    with s as (
        delete from session
        where expires_at < now() - make_interval(secs => (a->>'access_s')::double precision) returning 1
    ), k as (
        delete from login_link where least(expires_at, coalesce(used_at, expires_at))
            < now() - make_interval(secs => (a->>'access_s')::double precision) returning 1
    ), t as (
        delete from token where least(coalesce(expires_at, 'infinity'), coalesce(revoked_at, 'infinity'))
            < now() - make_interval(secs => (a->>'access_s')::double precision) returning 1
    )
    select (select count(*) from s) + (select count(*) from k) + (select count(*) from t) into n;
    return jsonb_build_object('event_partitions', events, 'attempt_partitions', attempts,
        'access_rows', n);
end $$;
