-- The state machines. The pure tables of trix-model are the specification; a test
-- runs every pair through these functions and compares. Nothing else in the schema
-- writes a state of a task, a job or a publication.

create function task_after(state text, event text) returns text
language sql immutable parallel safe as $$
    select case event
        when 'deps_done' then case when state = 'waiting' then 'ready' end
        when 'cache_hit' then case when state in ('waiting', 'ready') then 'done' end
        when 'claim' then case when state = 'ready' then 'running' end
        when 'succeed' then case when state = 'running' then 'done' end
        when 'requeue' then case when state = 'running' then 'ready' end
        when 'fail' then case when state = 'running' then 'failed' end
        when 'quarantine' then case when state = 'running' then 'quarantined' end
        when 'skip' then case when state = 'waiting' then 'skipped' end
        when 'cancel' then case when state in ('waiting', 'ready', 'running', 'failed', 'quarantined')
            then 'cancelled' end
        when 'retry' then case when state in ('failed', 'quarantined') then 'ready' end
        when 'artifact_lost' then case when state = 'done' then 'ready' end
    end
$$;

create function job_after(state text, event text) returns text
language sql immutable parallel safe as $$
    select case event
        when 'start' then case when state = 'accepted' then 'inspecting' end
        when 'planned' then case when state in ('accepted', 'inspecting') then 'running' end
        when 'gate_reached' then case when state = 'running' then 'waiting_gate' end
        when 'gate_passed' then case when state = 'waiting_gate' then 'running' end
        when 'pause' then case when state = 'running' then 'paused' end
        when 'resume' then case when state = 'paused' then 'running' end
        when 'all_done' then case when state = 'running' then 'succeeded' end
        when 'task_failed' then case when state in ('accepted', 'inspecting', 'running',
            'waiting_gate', 'paused') then 'failed' end
        when 'cancel' then case when state in ('accepted', 'inspecting', 'running',
            'waiting_gate', 'paused', 'failed') then 'cancelling' end
        when 'drained' then case when state = 'cancelling' then 'cancelled' end
        when 'retry' then case when state = 'failed' then 'running' end
    end
$$;

create function publication_after(state text, event text) returns text
language sql immutable parallel safe as $$
    select case event
        when 'move' then case when state = 'prepared' then 'moving' end
        when 'publish' then case when state = 'moving' then 'published' end
        when 'clash' then case when state in ('prepared', 'moving') then 'conflict' end
        when 'retract' then case when state = 'published' then 'retracted' end
    end
$$;

create function illegal(what text, id bigint, state text, event text) returns void
language plpgsql as $$
begin
    raise exception 'illegal_transition' using errcode = 'TX409',
        detail = format('%s %s is %s: %s is not possible', what, id, state, event);
end $$;

-- The one place where a task changes its state. more goes into the event.
create function move_task(id bigint, event text, more jsonb default '{}') returns task
language plpgsql as $$
declare t task; old text;
begin
    select * into t from task where task.id = move_task.id for no key update;
    old := t.state;
    if task_after(old, event) is null then
        perform illegal('task', move_task.id, old, event);
    end if;
    update task set state = task_after(old, event),
        ended_at = case when task_after(old, event) in ('done', 'failed', 'cancelled', 'skipped')
            then now() end,
        block_reason = null
    where task.id = move_task.id returning * into t;
    perform emit('task.state', t.job_id, t.id, jsonb_build_object('name', t.name,
        'kind', t.kind, 'from', old, 'to', t.state, 'epoch', t.epoch) || more);
    return t;
end $$;

-- The one place where a job changes its state.
create function move_job(id bigint, event text, more jsonb default '{}') returns job
language plpgsql as $$
declare j job; old text;
begin
    select * into j from job where job.id = move_job.id for no key update;
    old := j.state;
    if job_after(old, event) is null then
        perform illegal('job', move_job.id, old, event);
    end if;
    update job set state = job_after(old, event),
        started_at = case when event = 'start' then now() else started_at end,
        ended_at = case when job_after(old, event) in ('succeeded', 'failed', 'cancelled')
            then now() end
    where job.id = move_job.id returning * into j;
    perform emit('job.state', j.id, null,
        jsonb_build_object('from', old, 'to', j.state, 'event', event) || more);
    return j;
end $$;

-- The one place where a publication changes its state.
create function move_publication(id bigint, event text, more jsonb default '{}') returns publication
language plpgsql as $$
declare p publication; old text;
begin
    select * into p from publication where publication.id = move_publication.id for no key update;
    old := p.state;
    if publication_after(old, event) is null then
        perform illegal('publication', move_publication.id, old, event);
    end if;
    update publication set state = publication_after(old, event)
    where publication.id = move_publication.id returning * into p;
    perform emit('publication.state', (select job_id from task where task.id = p.task_id), p.task_id,
        jsonb_build_object('publication', p.id, 'share', p.share, 'target', p.target,
            'version', p.version, 'from', old, 'to', p.state) || more);
    return p;
end $$;

-- True when all that a task makes exists; a task that makes nothing is never cached.
create function is_cached(t bigint) returns boolean language sql stable as $$
    select exists (select from output o where o.task_id = t)
        and not exists (select from output o where o.task_id = t
            and not exists (select from artifact a where a.key = o.key))
$$;

-- True while a file in the cache must stay: an unfinished task reads it, or a plan 1
-- is still to be made over it.
create function artifact_pinned(k bytea) returns boolean language sql stable as $$
    select exists (
        select from task_input i join task t on t.id = i.task_id join job j on j.id = t.job_id
        where i.key = k and t.state in ('waiting', 'ready', 'running') and t.needed
            and j.state not in ('succeeded', 'failed', 'cancelled'))
    or exists (
        select from output o join task t on t.id = o.task_id join job j on j.id = t.job_id
        where o.key = k and not j.planned
            and j.state not in ('succeeded', 'failed', 'cancelled'))
$$;

-- Ends a job when nothing is left to do. The job's row is the lock: of two last tasks
-- that end at the same time the second sees the first.
create function finish_job(j bigint) returns boolean language plpgsql as $$
declare r job; t bigint;
begin
    select * into r from job where id = j for no key update;
    if r.state = 'cancelling' then
        if exists (select from task where job_id = j and state not in ('done', 'skipped')
                and (state = 'running' or state = 'ready' and roll_forward)) then
            return false;
        end if;
        perform move_job(j, 'drained');
        return true;
    end if;
    if not r.planned and r.state in ('accepted', 'inspecting', 'running')
            and not exists (select from task where job_id = j and state not in ('done', 'skipped')) then
        perform emit('job.inspected', j, null, '{}');
        return false;
    end if;
    if r.state <> 'running' or not r.planned or exists (select from task where job_id = j and needed
            and state not in ('done', 'skipped')) then
        return false;
    end if;
    for t in select id from task where job_id = j and state = 'waiting' order by id loop
        perform move_task(t, 'skip');
    end loop;
    perform move_job(j, 'all_done');
    return true;
end $$;

-- What follows when tasks may have become ready: those whose outputs all exist are
-- done at once, which may free others, and so on; the rest may be claimed.
-- Gives the number of cache hits.
create function settle(tasks bigint[]) returns integer language plpgsql as $$
declare
    t task;
    freed bigint[];
    hits integer := 0;
begin
    while cardinality(tasks) > 0 loop
        freed := '{}';
        for t in select * from task where id = any(tasks) and state in ('waiting', 'ready')
                and needed order by id for no key update loop
            if is_cached(t.id) then
                freed := freed || end_cached(t);
                hits := hits + 1;
            elsif t.state = 'waiting' and t.deps_left = 0 then
                perform move_task(t.id, 'deps_done');
            end if;
        end loop;
        tasks := freed;
    end loop;
    return hits;
end $$;

-- Ends a task as found in the cache. Gives the dependants that may be ready now.
create function end_cached(t task) returns bigint[] language plpgsql as $$
declare d jsonb;
begin
    -- Key share: whoever forgets the artifact waits for this transaction, and then
    -- sees who needs it.
    perform 1 from artifact a where a.key in (select o.key from output o where o.task_id = t.id)
        order by a.key for key share;
    select a.detail into d from output o join artifact a on a.key = o.key
    where o.task_id = t.id order by o.n limit 1;
    perform move_task(t.id, 'cache_hit', '{"cache_hit": true}');
    update task set cache_hit = true, detail = d where id = t.id;
    return task_done(t.id);
end $$;

-- What follows when a task is done: its dependants wait for one less, and what it
-- learnt about the source is kept. Gives the dependants that wait for nothing more.
create function task_done(t bigint) returns bigint[] language plpgsql as $$
declare
    r task;
    freed bigint[];
begin
    select * into r from task where id = t;
    perform 1 from task where id in (select task_id from task_dep where needs_id = t)
        order by id for no key update;
    with d as (
        update task set deps_left = deps_left - 1
        where id in (select task_id from task_dep where needs_id = t)
        returning id, deps_left, state
    )
    select coalesce(array_agg(id order by id) filter (where deps_left = 0 and state in ('waiting', 'ready')), '{}')
    into freed from d;
    delete from finding where task_id = t;
    insert into finding (job_id, task_id, body)
    select r.job_id, t, f from jsonb_array_elements(
        case when jsonb_typeof(r.detail->'findings') = 'array' then r.detail->'findings' else '[]' end) f;
    if r.kind = 'intake' and r.detail ? 'hashes' then
        insert into source_file (title_id, location, size, mtime_ns, sha256, media)
        select j.title_id, r.spec#>>'{source,location}', (r.spec#>>'{source,size}')::numeric,
            (r.spec#>>'{source,mtime_ns}')::bigint, decode(r.detail#>>'{hashes,sha256}', 'hex'),
            r.detail->'media'
        from job j where j.id = r.job_id
        on conflict (location, size, mtime_ns) do update
            set sha256 = excluded.sha256, media = excluded.media, seen_at = now();
    end if;
    return freed;
end $$;

-- A task is needed again: so is everything before it that is not done.
create function require(t bigint) returns void language plpgsql as $$
declare ids bigint[];
begin
    with recursive before(id) as (
        select t
        union
        select n.id from before b join task_dep d on d.task_id = b.id join task n on n.id = d.needs_id
        where n.state not in ('done', 'skipped')
    )
    select array_agg(id order by id) into ids from before;
    perform 1 from task where id = any(ids) order by id for no key update;
    update task set needed = true where id = any(ids) and not needed;
    perform settle(ids);
end $$;

-- Artifacts are gone while the task wants them: whoever of its job makes them runs
-- again, and the task waits for it. before is when the reader looked: an artifact that
-- was committed later is not the one that it missed.
create function lose_artifacts(t bigint, keys bytea[], before timestamptz) returns void
language plpgsql as $$
declare
    r task;
    k bytea;
    p task;
    producer bigint;
begin
    select * into r from task where id = t;
    for k in select distinct i.key from task_input i where i.task_id = t and i.key = any(keys)
            order by 1 loop
        perform 1 from artifact a where a.key = k and a.created_at > before;
        continue when found;
        select o.task_id into producer from output o join task m on m.id = o.task_id
        where o.key = k and m.job_id = r.job_id and m.id <> t order by m.id limit 1;
        if not found then
            raise exception 'plan_invalid' using errcode = 'TX409', detail = format(
                'task %s reads artifact %s, which no task of its job makes', t, encode(k, 'hex'));
        end if;
        delete from artifact a where a.key = k;
        if found then
            perform emit('artifact.lost', r.job_id, producer, jsonb_build_object('key', encode(k, 'hex')));
        end if;
        -- The dependant must wait, whether the plan had an edge or not.
        select * into p from task where id = producer for no key update;
        insert into task_dep (task_id, needs_id) values (t, producer) on conflict do nothing;
        if found and p.state not in ('done', 'skipped') then
            update task set deps_left = deps_left + 1 where id = t;
        end if;
        if p.state = 'done' then
            perform move_task(producer, 'artifact_lost', jsonb_build_object('key', encode(k, 'hex')));
            update attempt set result_lost = true where task_id = producer and state = 'succeeded';
            update task set cache_hit = false, needed = true, roll_forward = false
            where id = producer;
            update task set deps_left = deps_left + 1
            where id in (select task_id from task_dep where needs_id = producer);
            -- Before it runs, what it needs in turn must be there.
            update task set deps_left = (select count(*) from task_dep d join task n on n.id = d.needs_id
                where d.task_id = producer and n.state not in ('done', 'skipped'))
            where id = producer;
        end if;
        perform require(producer);
    end loop;
end $$;

-- Last 200 lines.
create function append_log(t bigint, e bigint, more jsonb) returns void language plpgsql as $$
declare fresh text[];
begin
    if coalesce(jsonb_array_length(more), 0) = 0 then return; end if;
    -- A line is bounded too: a library may print anything.
    select array_agg(left(l, 2000) order by n) into fresh
    from jsonb_array_elements_text(more) with ordinality x(l, n);
    insert into attempt_log as g (task_id, epoch, lines)
    values (t, e, fresh[greatest(1, cardinality(fresh) - 199):])
    on conflict (task_id, epoch) do update
    set lines = (g.lines || excluded.lines)[greatest(1, cardinality(g.lines) + cardinality(excluded.lines) - 199):];
end $$;

-- Writes the tasks of a plan, readies those that wait for nothing, and resolves what
-- the cache has already. The job's row is locked by the caller.
create function append_tasks(j bigint, plan smallint, tasks jsonb) returns void
language plpgsql as $$
declare
    low bigint;
    high bigint;
    missing text;
begin
    with added as (
        insert into task (job_id, name, plan, kind, spec, engine, band, need_mcpu, need_ram,
            need_scratch, need_shares, est_ms)
        select j, x->>'name', append_tasks.plan, x->>'kind', x->'spec', job.engine, job.band,
            (x#>>'{cost,mcpu}')::bigint, (x#>>'{cost,ram}')::bigint,
            (x#>>'{cost,scratch}')::bigint,
            array(select jsonb_array_elements_text(x->'shares')),
            (x#>>'{cost,estimate_ms}')::bigint
        from jsonb_array_elements(tasks) with ordinality e(x, n), job
        where job.id = j order by n
        returning id
    )
    select min(id), max(id) into low, high from added;
    if low is null then return; end if;
    perform attempt_partitions(low, high);

    select string_agg(format('%s (of %s)', d, x->>'name'), ', ') into missing
    from jsonb_array_elements(tasks) x, jsonb_array_elements_text(x->'needs') d
    where not exists (select from task t where t.job_id = j and t.name = d);
    if missing is not null then
        raise exception 'plan_invalid' using errcode = 'TX409',
            detail = 'the plan needs tasks that it does not have: ' || missing;
    end if;
    -- Tasks of plan 0 that these need must not change while they are counted.
    perform 1 from task t where t.job_id = j and t.plan < append_tasks.plan
        order by t.id for no key update;
    insert into task_dep (task_id, needs_id)
    select distinct t.id, n.id
    from jsonb_array_elements(tasks) x
    join task t on t.job_id = j and t.name = x->>'name',
    jsonb_array_elements_text(x->'needs') d
    join task n on n.job_id = j and n.name = d;
    insert into output (task_id, n, name, key)
    select t.id, o.n, o.x->>'name', decode(o.x->>'key', 'hex')
    from jsonb_array_elements(tasks) x
    join task t on t.job_id = j and t.name = x->>'name',
    jsonb_array_elements(x->'outputs') with ordinality o(x, n);
    insert into task_input (task_id, key)
    select distinct t.id, decode(i, 'hex')
    from jsonb_array_elements(tasks) x
    join task t on t.job_id = j and t.name = x->>'name',
    jsonb_array_elements_text(x->'inputs') i;

    select string_agg(distinct t.name, ', ') into missing
    from task t join task_input i on i.task_id = t.id
    where t.job_id = j and t.id between low and high and not exists (
        select from output o join task m on m.id = o.task_id
        where o.key = i.key and m.job_id = j and m.id <> t.id);
    if missing is not null then
        raise exception 'plan_invalid' using errcode = 'TX409',
            detail = 'tasks read artifacts that no task of the job makes: ' || missing;
    end if;

    update task t set deps_left = d.left
    from (select e.task_id, count(*) filter (where n.state not in ('done', 'skipped')) as left
        from task_dep e join task n on n.id = e.needs_id
        where e.task_id between low and high group by e.task_id) d
    where d.task_id = t.id and t.job_id = j;

    -- What is needed: everything without a dependant, and, backwards, all that a task
    -- needs which is not in the cache. The rest is not run.
    with recursive cached as materialized (
        select t.id from task t where t.job_id = j and t.id between low and high and is_cached(t.id)
    ), wanted(id) as (
        select t.id from task t where t.job_id = j and t.id between low and high
            and not exists (select from task_dep d where d.needs_id = t.id)
        union
        select d.needs_id from wanted w join task_dep d on d.task_id = w.id
        where w.id not in (select id from cached)
    )
    update task t set needed = false
    where t.job_id = j and t.id between low and high and t.id not in (select id from wanted);

    perform settle(array(select t.id from task t where t.job_id = j and t.id between low and high
        order by t.id));
end $$;
