-- The cluster: its identity, the leader's clock, nodes, workers, shares, events.
--
-- House rules, for all migrations:
-- * what programs call ends in _v1 and keeps working while the previous version of
--   a program runs; what only functions call has no suffix;
-- * a function called by a program takes one jsonb and gives one jsonb;
-- * errors for callers have the state TXnnn, a stable code as message and a sentence
--   as detail: TX401 denied, TX403 refused by the fence, TX404 not found,
--   TX409 conflict, TX410 not the leader any more;
-- * lock order: leader, worker, task and attempt (ascending id, dependants
--   included), job, artifact (ascending key), publication, event_in. Cascades may
--   leave that order; the server then ends one of two transactions as a deadlock,
--   and trix-db runs it again;
-- * read committed, every step its own statement, so that each sees what was
--   committed before it began.

create table cluster (
    only_row boolean primary key default true check (only_row),
    incarnation uuid not null default gen_random_uuid(),
    created_at timestamptz not null default now()
);
insert into cluster default values;

-- One row. up_ms counts the milliseconds during which the database was up; it is
-- advanced by the leader's ticks alone, and every age is a difference of two of its
-- values, so no clock jump, pause or outage makes anybody look old.
create table leader (
    only_row boolean primary key default true check (only_row),
    epoch bigint not null default 0,
    holder text not null default '',
    since timestamptz not null default now(),
    up_ms bigint not null default 0,
    ping_seq bigint not null default 0,
    grace_until_up_ms bigint not null default 0,
    -- The protocol's times in milliseconds, written by the leader at its takeover:
    -- the functions below must not believe a worker about them.
    times jsonb not null default '{"suspect_ms": 15000, "lost_ms": 30000,
        "backoff_min_ms": 5000, "backoff_max_ms": 300000, "transient_budget_ms": 86400000}'
) with (fillfactor = 50);
insert into leader default values;

create table node (
    id bigint generated always as identity primary key,
    name text not null unique,
    state text not null default 'ok' check (state in ('ok', 'cordoned', 'drained')),
    cordon_reason text,
    token_hash bytea not null,
    created_at timestamptz not null default now()
);

-- One incarnation of a node's worker process. Never reused: a restart, or being
-- marked lost, means a new row.
create table worker (
    id bigint generated always as identity primary key,
    node_id bigint not null references node,
    state text not null default 'active' check (state in ('active', 'draining', 'lost', 'gone')),
    token_hash bytea not null,
    boot_id text not null,
    pid bigint not null,
    version text not null,
    engine text not null,
    started_at timestamptz not null default now(),
    pong_seq bigint not null,
    pong_up_ms bigint not null,
    last_seen timestamptz not null default now(),
    cap_mcpu bigint not null,
    cap_ram bigint not null,
    cap_scratch bigint not null,
    free_mcpu bigint not null,
    free_ram bigint not null,
    free_scratch bigint not null,
    shares_ok text[] not null,
    ended_at timestamptz
) with (fillfactor = 50);
create index worker_live on worker (node_id) where state in ('active', 'draining');

-- A logical share. Where it is mounted stands in each node's configuration.
create table share (
    id bigint generated always as identity primary key,
    name text not null unique,
    role text not null check (role in ('source', 'output', 'preview', 'cache')),
    kind text not null,
    marker uuid,
    created_at timestamptz not null default now()
);

-- Events. A number that is taken before commit may become visible after a higher
-- one, and a reader that remembers the last number it saw would miss it for ever.
-- So writers insert into event_in inside their own transactions, and a sequencer
-- that holds the one row of event_head numbers what is committed: no holes, and a
-- cause always precedes its effect, because the effect took its id after it saw
-- the cause committed.
create table event_in (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    job_id bigint,
    task_id bigint,
    kind text not null,
    body jsonb not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

create table event_log (
    seq bigint not null,
    at timestamptz not null,
    job_id bigint,
    task_id bigint,
    kind text not null,
    body jsonb not null,
    primary key (seq)
) partition by range (seq);
create index event_log_job on event_log (job_id, seq);

create table event_head (
    only_row boolean primary key default true check (only_row),
    head bigint not null default 0,
    oldest bigint not null default 1,
    -- Numbers below this have a partition.
    partitioned_to bigint not null default 1
) with (fillfactor = 50);
insert into event_head default values;

create function emit(kind text, job bigint, task bigint, body jsonb) returns void
language sql as $$
    insert into event_in (job_id, task_id, kind, body) values (job, task, kind, body)
$$;

create function emit_v1(a jsonb) returns jsonb language plpgsql as $$
begin
    perform emit(a->>'kind', (a->>'job')::bigint, null, a->'body');
    return 'null';
end $$;

create function sequence_events_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    h event_head;
    n constant bigint := least(greatest((a->>'limit')::bigint, 1), 5000);
    size constant bigint := 1000000;
    taken bigint;
    wakes boolean;
    part text;
begin
    select * into h from event_head for update skip locked;
    if not found then
        select * into h from event_head;
        return jsonb_build_object('count', 0, 'head', h.head, 'wake', false);
    end if;
    -- Attaching an empty table takes a weaker lock than creating a partition in
    -- place: readers go on.
    while h.partitioned_to <= h.head + n loop
        part := format('event_log_%s', h.partitioned_to);
        execute format('create table %I (like event_log including defaults)', part);
        execute format('alter table event_log attach partition %I for values from (%s) to (%s)',
            part, h.partitioned_to, (h.partitioned_to / size + 1) * size);
        h.partitioned_to := (h.partitioned_to / size + 1) * size;
        update event_head set partitioned_to = h.partitioned_to;
    end loop;
    with taken_rows as (
        delete from event_in where id in (select id from event_in order by id limit n)
        returning *
    ), numbered as (
        insert into event_log (seq, at, job_id, task_id, kind, body)
        select h.head + row_number() over (order by id), at, job_id, task_id, kind, body
        from taken_rows
        returning kind
    )
    select count(*), coalesce(bool_or(kind in ('job.accepted', 'job.inspected', 'job.cancelling')), false)
    into taken, wakes from numbered;
    if taken > 0 then
        update event_head set head = head + taken;
        -- Only a hint; a reader polls as well.
        perform pg_notify('trix_events', (h.head + taken)::text);
    end if;
    return jsonb_build_object('count', taken, 'head', h.head + taken, 'wake', wakes);
end $$;
