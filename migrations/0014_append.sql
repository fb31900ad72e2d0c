-- A plan of thousands of tasks is appended in sets, not row by row.

-- move_task for many at once, whose rows the caller has locked. All are moved, or none is.
create function move_tasks(ids bigint[], event text, more jsonb default '{}') returns void
language plpgsql as $$
declare bad task;
begin
    select * into bad from task where id = any(ids) and task_after(state, event) is null
        order by id limit 1;
    if found then
        perform illegal('task', bad.id, bad.state, event);
    end if;
    with old as materialized (
        select id, state from task where id = any(ids)
    ), moved as (
        update task t set state = task_after(old.state, event),
            ended_at = case when task_after(old.state, event) in ('done', 'failed', 'cancelled', 'skipped')
                then now() end,
            block_reason = null
        from old where t.id = old.id
        returning t.id, t.job_id, t.name, t.kind, old.state as was, t.state, t.epoch
    )
    insert into event_in (job_id, task_id, kind, body)
    select m.job_id, m.id, 'task.state', jsonb_build_object('name', m.name, 'kind', m.kind,
        'from', m.was, 'to', m.state, 'epoch', m.epoch) || more
    from moved m order by m.id;
end $$;

-- Those of the tasks that make something, and all of it exists.
create function cached_of(ids bigint[]) returns bigint[] language sql stable as $$
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

create or replace function append_tasks(j bigint, plan smallint, tasks jsonb) returns void
language plpgsql as $$
declare
    ids bigint[];
    low bigint;
    high bigint;
    missing text;
    cached bigint[];
begin
    -- Ids rise in the order of the plan, so the n-th of them is the plan's n-th task.
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

    update task t set deps_left = d.left
    from (select e.task_id, count(*) filter (where n.state not in ('done', 'skipped')) as left
        from task_dep e join task n on n.id = e.needs_id
        where e.task_id between low and high group by e.task_id) d
    where d.task_id = t.id and t.job_id = j and t.deps_left <> d.left;

    -- What is needed: everything without a dependant, and, backwards, all that a task
    -- needs which is not in the cache. The rest is not run.
    cached := cached_of(array(select t.id from task t where t.job_id = j and t.id between low and high));
    if cardinality(cached) > 0 then
        with recursive wanted(id) as (
            select t.id from task t where t.job_id = j and t.id between low and high
                and not exists (select from task_dep d where d.needs_id = t.id)
            union
            select d.needs_id from wanted w join task_dep d on d.task_id = w.id
            where w.id not in (select unnest(cached))
        )
        update task t set needed = false
        where t.job_id = j and t.id between low and high and t.id not in (select id from wanted);
    end if;

    perform settle(array(select t.id from task t where t.job_id = j and t.id between low and high
        order by t.id));
end $$;

select secure_functions('{}', '{}', '{}');
