-- A task that leaves the queue is parked no more. What a stopped job has ready is parked, and
-- comes back when the job goes on; but a parked task may end while its job is stopped, when
-- another attempt of the job goes on and finds in the cache what the task makes. It was then
-- done and still parked, was left out when the job went on, and when its artifact was lost
-- later it stood ready outside of the queue, where no worker looks. So the mark goes with the
-- state that it belongs to.

create or replace function move_task(id bigint, event text, more jsonb default '{}') returns task
language plpgsql as $$
declare t task; old text; new text; up bigint;
begin
    select * into t from task where task.id = move_task.id for no key update;
    old := t.state;
    new := task_after(old, event);
    if new is null then
        perform illegal('task', move_task.id, old, event);
    end if;
    if new = 'ready' or old = 'running' then
        select up_ms into up from leader;
    end if;
    update task set state = task_after(old, event),
        ended_at = case when new in ('done', 'failed', 'cancelled', 'skipped') then now() end,
        ready_up_ms = case when new = 'ready' then up else ready_up_ms end,
        aged_up_ms = case when new = 'ready' then up else aged_up_ms end,
        parked = false,
        block_reason = null
    where task.id = move_task.id returning * into t;
    if old = 'running' then
        perform attempts_over(array[t.id], up);
    end if;
    perform emit('task.state', t.job_id, t.id, jsonb_build_object('name', t.name,
        'kind', t.kind, 'from', old, 'to', t.state, 'epoch', t.epoch) || more);
    return t;
end $$;

-- The same for many at once: all are moved, or none is.
create or replace function move_tasks(ids bigint[], event text, more jsonb default '{}') returns void
language plpgsql as $$
declare bad task; up bigint; ran bigint[];
begin
    perform 1 from task where id = any(ids) order by id for no key update;
    select * into bad from task where id = any(ids) and task_after(state, event) is null
        order by id limit 1;
    if found then
        perform illegal('task', bad.id, bad.state, event);
    end if;
    select up_ms into up from leader;
    ran := array(select id from task where id = any(ids) and state = 'running');
    with old as materialized (
        select id, state, task_after(state, event) as becomes from task where id = any(ids)
    ), moved as (
        update task t set state = task_after(old.state, event),
            ended_at = case when old.becomes in ('done', 'failed', 'cancelled', 'skipped')
                then now() end,
            ready_up_ms = case when old.becomes = 'ready' then up else ready_up_ms end,
            aged_up_ms = case when old.becomes = 'ready' then up else aged_up_ms end,
            parked = false,
            block_reason = null
        from old where t.id = old.id
        returning t.id, t.job_id, t.name, t.kind, old.state as was, t.state, t.epoch
    )
    insert into event_in (job_id, task_id, kind, body)
    select m.job_id, m.id, 'task.state', jsonb_build_object('name', m.name, 'kind', m.kind,
        'from', m.was, 'to', m.state, 'epoch', m.epoch) || more
    from moved m order by m.id;
    if cardinality(ran) > 0 then perform attempts_over(ran, up); end if;
end $$;

update task set parked = false where parked and state <> 'ready';

select secure_functions('{}', '{}', '{}');
