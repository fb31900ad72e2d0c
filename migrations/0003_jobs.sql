-- Jobs, tasks, attempts, artifacts, publications.

create table profile (
    id bigint generated always as identity primary key,
    name text not null,
    version integer not null,
    hash bytea not null,
    body text not null,
    shipped boolean not null,
    current boolean not null,
    created_at timestamptz not null default now(),
    unique (name, version),
    unique (name, hash)
);
create unique index profile_current on profile (name) where current;

create function profile_json(p profile) returns jsonb language sql stable as $$
    select to_jsonb(p) || jsonb_build_object('hash', encode(p.hash, 'hex'))
$$;

create table title (
    id bigint generated always as identity primary key,
    name text not null unique,
    created_at timestamptz not null default now()
);

-- What intake learnt about a delivered file, by what identifies it before it is read.
create table source_file (
    id bigint generated always as identity primary key,
    title_id bigint not null references title,
    location text not null,
    size numeric not null,
    mtime_ns bigint not null,
    sha256 bytea not null,
    media jsonb not null,
    seen_at timestamptz not null default now(),
    unique (location, size, mtime_ns)
);

create table job (
    id bigint generated always as identity primary key,
    title_id bigint not null references title,
    profile_id bigint not null references profile,
    principal_id bigint not null references principal,
    submit_key text not null,
    request_hash bytea not null,
    request jsonb not null,
    sources jsonb not null,
    engine text not null,
    state text not null default 'accepted',
    band smallint not null default 5 check (band between 0 and 9),
    -- True once plan 1 was appended.
    planned boolean not null default false,
    failure jsonb,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    ended_at timestamptz,
    unique (principal_id, submit_key)
) with (fillfactor = 80);
create index job_open on job (id) where state not in ('succeeded', 'failed', 'cancelled');
create index job_title on job (title_id);

create table task (
    id bigint generated always as identity primary key,
    job_id bigint not null references job,
    name text not null,
    plan smallint not null,
    kind text not null,
    spec jsonb not null,
    engine text not null,
    state text not null default 'waiting',
    -- False while no unfinished task needs what it makes, because all its consumers
    -- were found in the cache. Such a task stays waiting and is skipped at the end.
    needed boolean not null default true,
    band smallint not null,
    rank bigint not null default 0,
    deps_left integer not null default 0,
    -- Three things that are columns of a ready task, not states of their own:
    -- a delay in database-up time, an operator's hold, a publication to finish.
    not_before_up_ms bigint not null default 0,
    held_by text,
    roll_forward boolean not null default false,
    epoch bigint not null default 0,
    need_mcpu bigint not null,
    need_ram bigint not null,
    need_scratch bigint not null,
    need_shares text[] not null,
    est_ms bigint not null,
    avoid_nodes bigint[] not null default '{}',
    fail_counts jsonb not null default '{}',
    first_try_up_ms bigint,
    block_reason text,
    cache_hit boolean not null default false,
    failure jsonb,
    detail jsonb,
    publication_id bigint,
    ended_at timestamptz,
    unique (job_id, name)
) with (fillfactor = 80);
create index task_ready on task (band desc, rank, id)
    where state = 'ready' and deps_left = 0 and held_by is null;
create index task_unfinished on task (job_id) where state not in ('done', 'skipped');

create table task_dep (
    task_id bigint not null references task,
    needs_id bigint not null references task,
    primary key (task_id, needs_id)
);
create index task_dep_needs on task_dep (needs_id);

-- Artifacts that a task reads; with this the cache knows what it must keep.
create table task_input (
    task_id bigint not null references task,
    key bytea not null,
    primary key (task_id, key)
);
create index task_input_key on task_input (key);

create table output (
    task_id bigint not null references task,
    n smallint not null,
    name text not null,
    key bytea not null,
    primary key (task_id, n)
);
create index output_key on output (key);

-- A result in the cache share, named by its key. The first that is committed wins.
-- detail is the result's kind-specific part, so that a cache hit has it too.
create table artifact (
    key bytea primary key,
    digest bytea not null,
    size numeric not null,
    detail jsonb,
    created_at timestamptz not null default clock_timestamp(),
    last_used timestamptz not null default now()
);
create index artifact_last_used on artifact (last_used);

-- One try at a task. Partitioned by task, so that old attempts are dropped, not deleted.
create table attempt (
    task_id bigint not null,
    epoch bigint not null,
    worker_id bigint not null,
    node_id bigint not null,
    state text not null default 'running'
        check (state in ('running', 'succeeded', 'failed', 'lost', 'cancelled')),
    result_lost boolean not null default false,
    failure jsonb,
    usage jsonb,
    result jsonb,
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    primary key (task_id, epoch)
) partition by range (task_id);
create unique index attempt_one_running on attempt (task_id) where state = 'running';
create unique index attempt_one_success on attempt (task_id)
    where state = 'succeeded' and not result_lost;
create index attempt_of_worker on attempt (worker_id) where state = 'running';

-- Makes the partition that tasks with the ids low to high fall into. Called with ids
-- that no other transaction can see yet, so no attempt can be missing its partition.
create function attempt_partitions(low bigint, high bigint) returns void language plpgsql as $$
declare
    size constant bigint := 1000000;
    n bigint;
begin
    for n in select generate_series(low / size, high / size) loop
        continue when to_regclass(format('attempt_%s', n)) is not null;
        perform pg_advisory_xact_lock(hashtext('trix attempt partitions'));
        continue when to_regclass(format('attempt_%s', n)) is not null;
        execute format('create table attempt_%s (like attempt including defaults including constraints)', n);
        execute format('alter table attempt attach partition attempt_%s for values from (%s) to (%s)',
            n, n * size, (n + 1) * size);
    end loop;
end $$;

-- Snapshots of running attempts. Lost at a crash of the server, and nobody minds.
create unlogged table attempt_progress (
    task_id bigint not null,
    epoch bigint not null,
    progress jsonb not null,
    at timestamptz not null default now(),
    primary key (task_id, epoch)
) with (fillfactor = 50);

-- The last 200 lines of an attempt.
create table attempt_log (
    task_id bigint not null,
    epoch bigint not null,
    lines text[] not null,
    primary key (task_id, epoch)
);

create table finding (
    id bigint generated always as identity primary key,
    job_id bigint not null references job,
    task_id bigint not null references task,
    body jsonb not null
);
create index finding_job on finding (job_id);
create index finding_task on finding (task_id);

-- A version of a target. Names are write-once: a new version is a new folder, and
-- which one counts is the column current, never an overwritten file.
create table publication (
    id bigint generated always as identity primary key,
    share text not null,
    target text not null,
    version integer not null,
    task_id bigint not null references task,
    epoch bigint not null,
    mover_epoch bigint not null,
    state text not null default 'prepared',
    current boolean not null default false,
    manifest jsonb not null,
    manifest_hash bytea not null,
    receipt jsonb,
    created_at timestamptz not null default now(),
    published_at timestamptz,
    unique (share, target, version)
);
create unique index publication_current on publication (share, target) where current;
create index publication_open on publication (share, target) where state in ('prepared', 'moving');
alter table task add foreign key (publication_id) references publication;

-- Two paths that differ only in case or in the composition of letters are one file
-- on many shares, so they must not both be published.
create table publication_file (
    publication_id bigint not null references publication,
    share text not null,
    path text not null,
    folded_path text not null,
    size numeric not null,
    sha256 bytea not null,
    unique (share, folded_path)
);
create index publication_file_of on publication_file (publication_id);
