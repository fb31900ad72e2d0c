-- The fleet: what the claim, the operator and the leader need to know beyond 0001–0003.

-- A node's traits are the operator's word. Workers do not report them, so a stolen node
-- cannot attract work that was not meant for it.
alter table node add column caps text[] not null default '{}';
alter table node add column gpu bigint not null default 0 check (gpu >= 0);
-- Who closed the node: an operator opens it again by hand, the leader's cordon also
-- falls after two self-tests that passed.
alter table node add column cordoned_by text check (cordoned_by in ('operator', 'leader'));
alter table node add column self_tests integer not null default 0;
alter table node add column self_test_up_ms bigint;

-- A task that waits for a whole node gets it reserved: meanwhile only what is over
-- before backfill_until_up_ms slips in.
alter table worker add column reserved_task bigint;
alter table worker add column backfill_until_up_ms bigint;
-- Sources whose bytes this machine has read of late, the latest last.
alter table worker add column hot text[] not null default '{}';

-- Relative share of the fleet when several principals have work of one band.
alter table principal add column weight integer not null default 100
    check (weight between 1 and 10000);

-- rank_end: up to which virtual time the job's work is planned.
alter table job add column rank_end bigint not null default 0;
-- True until the leader has taken the tasks of a job that stopped out of the queue.
alter table job add column to_park boolean not null default false;
create index job_to_park on job (id) where to_park;
create index job_open_of on job (principal_id) where state not in ('succeeded', 'failed', 'cancelled');

-- Virtual time of the fair queue: the rank of what is being served.
create table fair (
    only_row boolean primary key default true check (only_row),
    vtime bigint not null default 0
) with (fillfactor = 50);
insert into fair default values;

-- What tasks need of a node, once for all tasks that need alike: a claim looks at the
-- few shapes that have ready tasks instead of at the tasks. Memory and scratch are
-- rounded down to an eighth of their power of two: rounding down lets every fitting
-- task through, the claim then compares the exact need; plain powers of two would let
-- through twice as much as fits, and the claim would look at rows in vain.
create table shape (
    id bigint generated always as identity primary key,
    -- Empty for tasks that run in the worker itself: any engine will do.
    engine text not null,
    kind text not null,
    caps text[] not null,
    reads text[] not null,
    writes text[] not null,
    mcpu bigint not null,
    gpu bigint not null,
    ram bigint not null,
    scratch bigint not null,
    unique (engine, kind, caps, reads, writes, mcpu, gpu, ram, scratch)
);

alter table task add column shape bigint;
alter table task add column need_gpu bigint not null default 0;
alter table task add column need_caps text[] not null default '{}';
alter table task add column source_key text;
-- True while the job hands nothing out. It keeps such tasks out of the claim's index
-- and decides nothing: the job's state does, and the leader sets this a little later.
alter table task add column parked boolean not null default false;
-- Since when the task waits to be claimed, and when ageing last raised its band, both
-- in database-up time.
alter table task add column ready_up_ms bigint not null default 0;
alter table task add column aged_up_ms bigint not null default 0;

create function size_floor(n bigint) returns bigint language sql immutable parallel safe as $$
    select case when n < 16 then n
        else n >> (length(ltrim(n::bit(64)::text, '0')) - 4) << (length(ltrim(n::bit(64)::text, '0')) - 4) end
$$;

create function engine_needed(kind text, engine text) returns text
language sql immutable parallel safe as $$
    select case when kind in ('publish', 'copy', 'retract') then '' else engine end
$$;

-- What a task needs, as a shape without an id. A source is on a share that is only read;
-- all other shares of a task are written to.
create function shape_of(kind text, engine text, caps text[], shares text[], source text,
    mcpu bigint, gpu bigint, ram bigint, scratch bigint) returns shape
language sql immutable parallel safe as $$
    select row(null, engine_needed(kind, engine), kind,
        array(select distinct c from unnest(caps) c order by 1),
        array(select distinct n from unnest(shares) n where n = split_part(source, ':', 1) order by 1),
        array(select distinct n from unnest(shares) n
            where n <> split_part(coalesce(source, ''), ':', 1) order by 1),
        mcpu, gpu, size_floor(ram), size_floor(scratch))::shape
$$;

create function set_shape() returns trigger language plpgsql as $$
declare s shape;
begin
    new.source_key := new.spec#>>'{source,location}';
    s := shape_of(new.kind, new.engine, new.need_caps, new.need_shares, new.source_key,
        new.need_mcpu, new.need_gpu, new.need_ram, new.need_scratch);
    for tries in 1..2 loop
        select id into new.shape from shape o
        where (o.engine, o.kind, o.caps, o.reads, o.writes, o.mcpu, o.gpu, o.ram, o.scratch)
            = (s.engine, s.kind, s.caps, s.reads, s.writes, s.mcpu, s.gpu, s.ram, s.scratch);
        exit when found;
        -- Another transaction may be at it: this waits for it, and the second look sees it.
        insert into shape (engine, kind, caps, reads, writes, mcpu, gpu, ram, scratch)
        values (s.engine, s.kind, s.caps, s.reads, s.writes, s.mcpu, s.gpu, s.ram, s.scratch)
        on conflict do nothing returning id into new.shape;
        exit when new.shape is not null;
    end loop;
    return new;
end $$;
-- Whole plans bring their shapes along; see append_tasks.
create trigger task_gets_shape before insert on task for each row
    when (new.shape is null) execute function set_shape();
create trigger task_changes_shape before update of need_mcpu, need_ram, need_scratch, need_gpu,
    need_caps, need_shares, engine, kind on task for each row execute function set_shape();
update task set need_mcpu = need_mcpu where state not in ('done', 'skipped', 'cancelled');

-- The queue. A delayed task is in the second index until its time has come.
update task set not_before_up_ms = 0 where state <> 'ready';
drop index task_ready;
create index task_queue on task (shape, band desc, rank, id)
    where state = 'ready' and deps_left = 0 and held_by is null and not parked and not_before_up_ms = 0;
create index task_delayed on task (not_before_up_ms) where state = 'ready' and not_before_up_ms > 0;
create index task_ageing on task (aged_up_ms)
    where state = 'ready' and deps_left = 0 and held_by is null and not parked and band < 9;
create index task_running on task (kind) where state = 'running';

-- What an operator or the leader stopped: everything, a task kind, or a node. What
-- runs goes on. A job is paused by its own state.
create table hold (
    scope text not null check (scope in ('all', 'kind', 'node')),
    name text not null,
    reason text not null,
    by text not null,
    at timestamptz not null default now(),
    primary key (scope, name),
    check ((scope = 'all') = (name = ''))
);

alter table share add column read_slots integer check (read_slots > 0);
alter table share add column write_slots integer check (write_slots > 0);

-- A semaphore a share: so many attempts may read it, so many write to it. A row a slot
-- and no counter, so that two claims never wait for one row. A share without rows of a
-- mode is not limited in it.
create table share_slot (
    share text not null references share (name),
    mode text not null check (mode in ('read', 'write')),
    n integer not null,
    task_id bigint,
    epoch bigint,
    primary key (share, mode, n)
);
create index share_slot_taken on share_slot (task_id) where task_id is not null;

-- How attempts ended on each node, for as long as the leader looks back. Unlogged: after
-- a crash of the server suspicion begins anew, which costs nothing but time.
create unlogged table node_record (
    id bigint generated always as identity primary key,
    node_id bigint not null,
    up_ms bigint not null,
    task_id bigint not null,
    kind text not null,
    -- What makes the node suspect; null when the attempt says nothing against it.
    suspicion text
);
create index node_record_of on node_record (node_id, id);

-- What an attempt's end says about its node. A lost worker is not counted here: it has
-- its own mark. A share that is away everywhere is no node's fault; which it is, the
-- leader finds out, so the share's name stays in the word.
create function suspicion(failure jsonb) returns text language sql immutable parallel safe as $$
    select case
        when failure is null then null
        when failure->>'code' in ('lost', 'superseded', 'released', 'artifact_missing',
            'database_unavailable', 'refused') then null
        when failure->>'class' = 'crash' then 'crash'
        when failure->>'code' in ('share_unavailable', 'share_gone') then
            'share:' || coalesce(failure->>'object', '')
        when failure->>'origin' = 'node' and failure->>'class' = 'transient' then 'node'
        when failure->>'code' in ('artifact_damaged', 'verify_mismatch') then 'damage'
    end
$$;

-- What follows when attempts of tasks are over, whichever way: their slots are free, and
-- their nodes have a record. Those of lost workers say nothing about what they ran.
create function attempts_over(ids bigint[], up bigint) returns void language plpgsql as $$
begin
    update share_slot set task_id = null, epoch = null where task_id = any(ids);
    insert into node_record (node_id, up_ms, task_id, kind, suspicion)
    select a.node_id, up, t.id, t.kind, suspicion(a.failure)
    from task t join attempt a on a.task_id = t.id and a.epoch = t.epoch
    where t.id = any(ids) and a.state <> 'lost';
end $$;

-- The one place where a task changes its state. more goes into the event.
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

-- Gives a running task back, or ends it with its job. The attempt is ended by the caller.
create or replace function give_back(t task, delay_ms bigint, avoid bigint, why jsonb) returns void
language plpgsql as $$
declare
    open_publication constant boolean := exists (select from publication p
        where p.id = t.publication_id and p.state in ('prepared', 'moving', 'published'));
begin
    if not open_publication
            and (select state from job where id = t.job_id) in ('cancelling', 'cancelled') then
        perform move_task(t.id, 'cancel', why);
        return;
    end if;
    perform move_task(t.id, 'requeue', why);
    -- A publication that was prepared is never run again, only finished.
    update task set roll_forward = open_publication,
        not_before_up_ms = case when delay_ms > 0
            then (select up_ms from leader) + delay_ms else 0 end,
        avoid_nodes = case when avoid is null or avoid = any(avoid_nodes) then avoid_nodes
            else avoid_nodes || avoid end
    where id = t.id;
end $$;

create function hands_out(job_state text) returns boolean language sql immutable parallel safe as $$
    select job_state in ('accepted', 'inspecting', 'running', 'waiting_gate')
$$;

-- A job that goes on takes its tasks back into the queue at once; taking them out can
-- wait for the leader. Time that a task was parked for does not age it.
create function job_stops() returns trigger language plpgsql as $$
begin
    new.to_park := not hands_out(new.state) and new.state not in ('succeeded', 'cancelled');
    return new;
end $$;
create trigger job_stops before update of state on job for each row
    when (hands_out(new.state) <> hands_out(old.state)) execute function job_stops();
create function job_goes_on() returns trigger language plpgsql as $$
begin
    update task set parked = false, aged_up_ms = (select up_ms from leader)
    where job_id = new.id and parked and state not in ('done', 'skipped');
    return null;
end $$;
create trigger job_goes_on after update of state on job for each row
    when (hands_out(new.state) and not hands_out(old.state)) execute function job_goes_on();
update job set to_park = true where state in ('paused', 'failed', 'cancelling');
