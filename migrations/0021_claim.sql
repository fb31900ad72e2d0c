-- The queue: fair ranks, and a claim whose work grows with the shapes that fit and the
-- number of tasks wanted, not with the number of tasks that are ready.

-- Those of the tasks that make something, and all of it exists.
create or replace function cached_of(ids bigint[]) returns bigint[] language sql stable as $$
    select coalesce(array_agg(x.task_id order by x.task_id), '{}') from (
        select o.task_id from output o left join artifact a on a.key = o.key
        where o.task_id = any(ids)
        group by o.task_id having count(*) = count(a.key)) x
$$;

create or replace function settle(tasks bigint[]) returns integer language plpgsql as $$
declare
    ids bigint[];
    cached bigint[];
    freed bigint[];
    t task;
    hits integer := 0;
begin
    while cardinality(tasks) > 0 loop
        freed := '{}';
        select coalesce(array_agg(x.id), '{}') into ids from (
            select id from task where id = any(tasks) and state in ('waiting', 'ready') and needed
            order by id for no key update) x;
        cached := cached_of(ids);
        for t in select * from task where id = any(cached) order by id loop
            freed := freed || end_cached(t);
            hits := hits + 1;
        end loop;
        perform move_tasks(array(select id from task where id = any(ids) and state = 'waiting'
            and deps_left = 0 order by id), 'deps_done');
        tasks := freed;
    end loop;
    return hits;
end $$;

-- Where in virtual time the work of a job's next plan begins. Weighted fair queueing: a
-- task's rank is the virtual time at which it would be through if its principal had its
-- share of the fleet all along, so the lowest rank goes first. Work of one principal is
-- lined up end to end, which makes its jobs run in their order; one that was idle begins
-- at the present and saves up nothing. Intakes form a line of their own beside the
-- planned work: else a hundred submitted titles would all be inspected before the first
-- is encoded. The lines are read from the principal's open jobs, so there is no row that
-- all submits wait for; two at the same moment may begin alike, and one of them is a
-- little lucky.
create function rank_base(j job) returns bigint language sql stable as $$
    select greatest((select vtime from fair), j.rank_end, coalesce((
        select max(o.rank_end) from job o
        where o.principal_id = j.principal_id and o.planned = j.planned and o.id <> j.id
            and o.state not in ('succeeded', 'failed', 'cancelled')), 0))
$$;

-- The tasks of a plan with their shapes. Thousands of tasks need alike, so each shape is made
-- once, and materialized: a composite that is not is made anew for each of its columns.
create function with_shapes(j bigint, tasks jsonb)
returns table (n bigint, x jsonb, shares text[], caps text[], s shape) language sql stable as $$
    with wanted as materialized (
        select e.n, e.x, e.x->>'kind' as kind, job.engine,
            array(select jsonb_array_elements_text(e.x->'shares')) as shares,
            array(select jsonb_array_elements_text(coalesce(e.x->'caps', '[]'))) as caps,
            coalesce(e.x#>>'{spec,source,location}', '') as source,
            (e.x#>>'{cost,mcpu}')::bigint as mcpu, coalesce((e.x#>>'{cost,gpu}')::bigint, 0) as gpu,
            (e.x#>>'{cost,ram}')::bigint as ram, (e.x#>>'{cost,scratch}')::bigint as scratch
        from job, jsonb_array_elements(tasks) with ordinality e(x, n)
        where job.id = j
    ), alike as materialized (
        select distinct kind, engine, shares, caps, source, mcpu, gpu, ram, scratch from wanted
    ), shaped as materialized (
        select a.*, shape_of(kind, engine, caps, shares, source, mcpu, gpu, ram, scratch) as s from alike a
    )
    select w.n, w.x, w.shares, w.caps, a.s
    from wanted w join shaped a using (kind, engine, shares, caps, source, mcpu, gpu, ram, scratch)
$$;

-- Writes the tasks of a plan, readies those that wait for nothing, and resolves what
-- the cache has already. The job's row is locked by the caller.
create or replace function append_tasks(j bigint, plan smallint, tasks jsonb) returns void
language plpgsql as $$
declare
    ids bigint[];
    low bigint;
    high bigint;
    missing text;
    cached bigint[];
    base bigint;
    weight bigint;
begin
    insert into shape (engine, kind, caps, reads, writes, mcpu, gpu, ram, scratch)
    select distinct (s).engine, (s).kind, (s).caps, (s).reads, (s).writes, (s).mcpu, (s).gpu,
        (s).ram, (s).scratch
    from with_shapes(j, tasks) order by 1, 2, 3, 4, 5, 6, 7, 8, 9
    on conflict do nothing;
    -- Ids rise in the order of the plan, so the n-th of them is the plan's n-th task.
    with added as (
        insert into task (job_id, name, plan, kind, spec, engine, band, need_mcpu, need_ram,
            need_scratch, need_gpu, need_caps, need_shares, est_ms, source_key, shape)
        select j, x->>'name', append_tasks.plan, x->>'kind', x->'spec', job.engine, job.band,
            (w.s).mcpu, (x#>>'{cost,ram}')::bigint, (x#>>'{cost,scratch}')::bigint, (w.s).gpu,
            w.caps, w.shares, (x#>>'{cost,estimate_ms}')::bigint,
            x#>>'{spec,source,location}', o.id
        from job, with_shapes(j, tasks) w join shape o on
            (o.engine, o.kind, o.caps, o.reads, o.writes, o.mcpu, o.gpu, o.ram, o.scratch)
            = ((w.s).engine, (w.s).kind, (w.s).caps, (w.s).reads, (w.s).writes, (w.s).mcpu,
                (w.s).gpu, (w.s).ram, (w.s).scratch)
        where job.id = j order by n
        returning id
    )
    select array_agg(id order by id) into ids from added;
    if ids is null then return; end if;
    low := ids[1];
    high := ids[cardinality(ids)];
    perform attempt_partitions(low, high);

    -- Tasks of plan 0 that these need must not change while they are counted.
    perform 1 from task t where t.job_id = j and t.plan < append_tasks.plan
        order by t.id for no key update;
    -- The document is read once for all three tables.
    with planned as materialized (
        select ids[n] as id, x->'needs' as needs, x->'outputs' as outputs, x->'inputs' as inputs
        from jsonb_array_elements(tasks) with ordinality e(x, n)
    ), dep as materialized (
        select p.id, d.name, o.id as needs_id
        from planned p cross join lateral jsonb_array_elements_text(p.needs) d(name)
        left join task o on o.job_id = j and o.name = d.name
    ), added_deps as (
        insert into task_dep (task_id, needs_id)
        select distinct id, needs_id from dep where needs_id is not null
    ), added_outputs as (
        insert into output (task_id, n, name, key)
        select p.id, o.n, o.x->>'name', decode(o.x->>'key', 'hex')
        from planned p, jsonb_array_elements(p.outputs) with ordinality o(x, n)
    ), added_inputs as (
        insert into task_input (task_id, key)
        select distinct p.id, decode(i, 'hex')
        from planned p, jsonb_array_elements_text(p.inputs) i
    )
    select string_agg(format('%s (of %s)', d.name, t.name), ', ') into missing
    from dep d join task t on t.id = d.id where d.needs_id is null;
    if missing is not null then
        raise exception 'plan_invalid' using errcode = 'TX409',
            detail = 'the plan needs tasks that it does not have: ' || missing;
    end if;

    -- Who makes what is read: another task of the job, or nobody could.
    select string_agg(distinct t.name, ', ') into missing
    from (
        select i.key, min(i.task_id) as one, max(i.task_id) as other
        from task_input i where i.task_id between low and high group by i.key
    ) i join task t on t.id in (i.one, i.other)
    where not exists (
        select from output o join task m on m.id = o.task_id
        where o.key = i.key and m.job_id = j and m.id <> t.id);
    if missing is not null then
        raise exception 'plan_invalid' using errcode = 'TX409',
            detail = 'tasks read artifacts that no task of the job makes: ' || missing;
    end if;

    cached := cached_of(array(select t.id from task t where t.job_id = j and t.id between low and high));
    select rank_base(o), p.weight into base, weight
    from job o join principal p on p.id = o.principal_id where o.id = j;
    -- What is needed: everything without a dependant, and, backwards, all that a task
    -- needs which is not in the cache. The rest is not run, and takes no place in line.
    with recursive there as materialized (
        select unnest(cached) as id
    ), wanted(id) as (
        select t.id from task t where t.job_id = j and t.id between low and high
            and not exists (select from task_dep d where d.needs_id = t.id)
        union
        select d.needs_id from wanted w join task_dep d on d.task_id = w.id
        where w.id not in (select id from there)
    ), counted as materialized (
        select e.task_id, count(*) filter (where n.state not in ('done', 'skipped')) as left
        from task_dep e join task n on n.id = e.needs_id
        where e.task_id between low and high group by e.task_id
    ), placed as materialized (
        select t.id, t.id in (select id from wanted) as needed,
            base + (sum(case when t.id in (select id from wanted) and t.id not in (select id from there)
                then t.est_ms else 0 end) over (order by t.id) * 100 / weight)::bigint as rank
        from task t where t.job_id = j and t.id between low and high
    )
    update task t set deps_left = coalesce(c.left, 0), needed = p.needed, rank = p.rank
    from placed p left join counted c on c.task_id = p.id
    where t.id = p.id;
    update job set rank_end = (select max(t.rank) from task t
        where t.job_id = j and t.id between low and high) where id = j;

    perform settle(array(select t.id from task t where t.job_id = j and t.id between low and high
        order by t.id));
end $$;

-- Takes the slots that an attempt needs on shares with a limit, or none. Gives null, or
-- the slot that is missing. Skip locked: a slot that another claim is looking at is as
-- good as taken, and nobody waits.
create function take_slots(t task, s shape) returns text language plpgsql as $$
declare
    need record;
    slot integer;
begin
    for need in
        select x.share, x.mode, null::integer as n from (
            select unnest(s.reads) as share, 'read' as mode
            union all select unnest(s.writes), 'write') x
        where exists (select from share_slot o where o.share = x.share and o.mode = x.mode)
        order by 1, 2
    loop
        select n into slot from share_slot o
        where o.share = need.share and o.mode = need.mode and o.task_id is null
        order by n limit 1 for update skip locked;
        if not found then
            update share_slot set task_id = null, epoch = null where task_id = t.id;
            return format('slots:%s:%s', need.share, need.mode);
        end if;
        update share_slot o set task_id = t.id, epoch = t.epoch + 1
        where o.share = need.share and o.mode = need.mode and o.n = slot;
    end loop;
    return null;
end $$;

-- True when the worker could run the task with nothing else on it. Room is not asked for.
create function could_run(w worker, t task) returns boolean language sql stable as $$
    select w.state = 'active' and n.state = 'ok'
        and (engine_needed(t.kind, t.engine) in ('', w.engine))
        and t.need_shares <@ w.shares_ok and t.need_caps <@ n.caps and t.need_gpu <= n.gpu
        and t.need_mcpu <= w.cap_mcpu and t.need_ram <= w.cap_ram and t.need_scratch <= w.cap_scratch
        and not exists (select from hold h where h.scope = 'node' and h.name = n.name)
    from node n where n.id = w.node_id
$$;

-- How long an attempt takes: the estimate is for one core.
create function wall_ms(est_ms bigint, mcpu bigint) returns bigint language sql immutable as $$
    select est_ms * 1000 / greatest(mcpu, 1)
$$;

-- The first tasks of each shape that a worker may take, best first: what is reserved for
-- it, then by band, then what reads a source that the machine has in memory, then by rank.
-- Locality thus reorders no more than the first few of each shape, so that it never keeps
-- anything waiting for long.
create function peek(w worker, n node, l leader, mcpu bigint, ram bigint, scratch bigint, gpu bigint,
    few integer) returns table (id bigint, whole boolean) language sql stable as $$
    with recursive live(shape) as (
        (select t.shape from task t where t.state = 'ready' and t.deps_left = 0
            and t.held_by is null and not t.parked and t.not_before_up_ms = 0
            order by t.shape limit 1)
        union all
        -- From one shape to the next by the index: a descent a shape.
        select (select t.shape from task t where t.state = 'ready' and t.deps_left = 0
            and t.held_by is null and not t.parked and t.not_before_up_ms = 0
            and t.shape > live.shape order by t.shape limit 1)
        from live where live.shape is not null
    ), full_up as materialized (
        select o.share, o.mode from share_slot o group by o.share, o.mode
        having bool_and(o.task_id is not null)
    ), fitting as materialized (
        select s.* from live join shape s on s.id = live.shape
        where s.engine in ('', w.engine) and s.reads <@ w.shares_ok and s.writes <@ w.shares_ok
            and s.caps <@ n.caps and s.gpu <= peek.gpu and s.mcpu <= peek.mcpu
            and s.ram <= peek.ram and s.scratch <= peek.scratch
            and not exists (select from hold h where h.scope = 'kind' and h.name = s.kind)
            and not exists (select from full_up f where f.mode = 'read' and f.share = any(s.reads)
                or f.mode = 'write' and f.share = any(s.writes))
    ), first as materialized (
        select c.*, count(*) over (partition by f.id) >= few as whole
        from fitting f cross join lateral (
            select t.id, t.band, t.rank, t.source_key, t.need_ram, t.need_scratch, t.need_mcpu, t.est_ms
            from task t
            where t.shape = f.id and t.state = 'ready' and t.deps_left = 0
                and t.held_by is null and not t.parked and t.not_before_up_ms = 0
                -- A publication that was prepared is finished whatever became of the job.
                and (t.roll_forward or hands_out((select j.state from job j where j.id = t.job_id)))
                -- A node where it failed is avoided as long as another one could take it.
                and not (w.node_id = any(t.avoid_nodes) and exists (
                    select from worker o where o.state = 'active'
                        and not (o.node_id = any(t.avoid_nodes))
                        and l.up_ms - o.pong_up_ms < (l.times->>'suspect_ms')::bigint
                        and could_run(o, t)))
            order by t.band desc, t.rank, t.id limit few) c
    )
    select f.id, bool_or(f.whole) over ()
    from first f
    where f.need_ram <= peek.ram and f.need_scratch <= peek.scratch
        and (w.reserved_task is null or f.id = w.reserved_task
            or l.up_ms + wall_ms(f.est_ms, f.need_mcpu) <= w.backfill_until_up_ms)
    order by f.id is not distinct from w.reserved_task desc, f.band desc,
        coalesce(f.source_key = any(w.hot), false) desc, f.rank, f.id
$$;

-- Claims up to want tasks that fit, best first.
create or replace function claim(w worker, want integer) returns void language plpgsql as $$
declare
    c record;
    t task;
    l leader;
    n node;
    mcpu bigint; ram bigint; scratch bigint; gpu bigint;
    few integer := greatest(4 * want, 64);
    lost_keys bytea[];
    slot text;
    -- Whether to look again: something changed, or was passed over that others behind it
    -- need not be.
    changed boolean;
    passed integer;
    more boolean;
begin
    select * into l from leader;
    select * into n from node where id = w.node_id;
    if exists (select from hold where scope = 'all' or scope = 'node' and name = n.name) then
        return;
    end if;
    -- Delays that are over.
    update task set not_before_up_ms = 0 where id in (
        select d.id from task d where d.state = 'ready' and d.not_before_up_ms > 0
            and d.not_before_up_ms <= l.up_ms
        order by d.not_before_up_ms limit 256 for no key update skip locked);
    -- The worker's word counts as far as its capacity and what it runs allow.
    select least(w.free_mcpu, w.cap_mcpu - coalesce(sum(r.need_mcpu), 0)),
        least(w.free_ram, w.cap_ram - coalesce(sum(r.need_ram), 0)),
        least(w.free_scratch, w.cap_scratch - coalesce(sum(r.need_scratch), 0)),
        n.gpu - coalesce(sum(r.need_gpu), 0)
    into mcpu, ram, scratch, gpu
    from attempt at join task r on r.id = at.task_id
    where at.worker_id = w.id and at.state = 'running';

    loop
        changed := false;
        passed := 0;
        more := false;
        for c in select * from peek(w, n, l, mcpu, ram, scratch, gpu, few) loop
            exit when want <= 0;
            more := c.whole;
            -- Another claim may have it, and what was done for an earlier one of these may
            -- have changed it.
            select * into t from task where id = c.id and state = 'ready' and deps_left = 0
                and held_by is null and not_before_up_ms = 0 for no key update skip locked;
            if not found then
                passed := passed + 1;
                continue;
            end if;
            if is_cached(t.id) then
                perform settle(array[t.id]);
                perform finish_job(t.job_id);
                changed := true;
                continue;
            end if;
            -- A roll-forward may find all that it needs in its stage.
            select array_agg(i.key) into lost_keys from task_input i
            where i.task_id = t.id and not t.roll_forward and not exists (select from artifact f where f.key = i.key);
            if lost_keys is not null then
                perform lose_artifacts(t.id, lost_keys, clock_timestamp());
                changed := true;
                continue;
            end if;
            continue when t.need_mcpu > mcpu or t.need_ram > ram or t.need_scratch > scratch
                or t.need_gpu > gpu;
            -- Another task with the same key runs: its result will do for this one.
            if twin_runs(t.id) then
                passed := passed + 1;
                continue;
            end if;
            slot := take_slots(t, s) from shape s where s.id = t.shape;
            if slot is not null then
                update task set block_reason = slot
                where id = t.id and block_reason is distinct from slot;
                passed := passed + 1;
                continue;
            end if;
            update task set epoch = epoch + 1,
                first_try_up_ms = coalesce(first_try_up_ms, l.up_ms)
            where id = t.id;
            insert into attempt (task_id, epoch, worker_id, node_id)
            values (t.id, t.epoch + 1, w.id, w.node_id);
            perform move_task(t.id, 'claim', jsonb_build_object('worker', w.id, 'node', n.name));
            if (select state from job where id = t.job_id) = 'accepted' then
                -- Of two first claims the second finds the job started.
                perform 1 from job where id = t.job_id for no key update;
                if (select state from job where id = t.job_id) = 'accepted' then
                    perform move_job(t.job_id, 'start');
                end if;
            end if;
            mcpu := mcpu - t.need_mcpu;
            ram := ram - t.need_ram;
            scratch := scratch - t.need_scratch;
            gpu := gpu - t.need_gpu;
            want := want - 1;
            if t.id = w.reserved_task then
                w.reserved_task := null;
                update worker set reserved_task = null, backfill_until_up_ms = null where id = w.id;
            end if;
            if t.source_key is not null and t.source_key <> all(w.hot) then
                w.hot := (w.hot || t.source_key)[greatest(1, cardinality(w.hot) - 14):];
                update worker set hot = w.hot where id = w.id;
            end if;
        end loop;
        exit when want <= 0;
        if not changed then
            -- All of what was looked at may be in others' hands while more of it waits.
            exit when passed = 0 or not more or few >= 4096;
            few := few * 8;
        end if;
    end loop;

    -- Noted to ten minutes, and skipped where another claim is at it.
    with used as (
        select f.key from artifact f where f.last_used < now() - interval '10 minutes'
            and f.key in (select i.key from task_input i join attempt at on at.task_id = i.task_id
                where at.worker_id = w.id and at.state = 'running')
        for no key update skip locked
    )
    update artifact f set last_used = now() from used where f.key = used.key;
end $$;
