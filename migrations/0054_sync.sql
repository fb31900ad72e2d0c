-- What a sync of a large fleet costs. `trix-chaos fleet` measures it.
--
-- A function in the language SQL that cannot be inlined is parsed and planned at every call
-- when PL/pgSQL calls it (until PostgreSQL 18). These four are called for every task that is
-- claimed or committed, and for every event; in PL/pgSQL their plans are kept.

create or replace function emit(kind text, job bigint, task bigint, body jsonb) returns void
language plpgsql as $$
begin
    insert into event_in (job_id, task_id, kind, body) values (job, task, emit.kind, emit.body);
end $$;

create or replace function names(a jsonb) returns text[] language plpgsql immutable as $$
begin
    return (select coalesce(array_agg(x), '{}') from jsonb_array_elements_text(a) x);
end $$;

create or replace function is_cached(t bigint) returns boolean language plpgsql stable as $$
begin
    return exists (select from output o where o.task_id = t)
        and not exists (select from output o where o.task_id = t
            and not exists (select from artifact a where a.key = o.key));
end $$;

create or replace function twin_runs(t bigint) returns boolean language plpgsql stable as $$
begin
    return exists (
        select from output o join output p on p.key = o.key and p.task_id <> o.task_id
        join task r on r.id = p.task_id
        where o.task_id = t and r.state = 'running');
end $$;

-- A plan that is kept may have been made over empty tables: these go by their indexes, as
-- what calls them does.
alter function is_cached(bigint) set enable_seqscan = off;
alter function twin_runs(bigint) set enable_seqscan = off;

-- Commits one result under the fence. Gives accepted, duplicate or refused. The task
-- and its dependants are locked by the caller.
create or replace function commit_result(w worker, r jsonb) returns text language plpgsql as $$
declare
    t task;
    tried attempt;
    outcome constant jsonb := r->'outcome';
    -- Strings for the outcomes without content, objects for the others.
    kind text := case jsonb_typeof(outcome) when 'string' then outcome#>>'{}'
        else (select k from jsonb_object_keys(outcome) k limit 1) end;
    trouble jsonb := outcome->'failed';
    done jsonb := outcome->'ok';
    ended text;
    wanted output;
    made jsonb;
begin
    select * into tried from attempt where task_id = (r->>'task')::bigint
        and epoch = (r->>'epoch')::bigint for no key update;
    if tried.task_id is null or tried.worker_id <> w.id or tried.state = 'lost' then
        perform emit('result.refused', (select job_id from task where id = tried.task_id), tried.task_id,
            jsonb_build_object('task', r->'task', 'epoch', r->'epoch', 'worker', w.id,
                'outcome', kind));
        return 'refused';
    end if;
    if tried.state <> 'running' then return 'duplicate'; end if;
    select * into t from task where id = tried.task_id for no key update;
    perform append_log(t.id, tried.epoch, r->'log');
    delete from attempt_progress where task_id = t.id and epoch = tried.epoch;

    if kind = 'ok' then
        -- Only keys of this task: a worker cannot register anything else.
        for wanted in select * from output x where x.task_id = t.id order by x.key loop
            select m into made from jsonb_array_elements(done->'outputs') m
            where m->>'key' = encode(wanted.key, 'hex') limit 1;
            continue when not found;
            insert into artifact (key, digest, size, detail)
            values (wanted.key, decode(made->>'digest', 'hex'), (made->>'size')::numeric,
                -- With one of the outputs only: it may be large. What was staged was
                -- staged for this job alone.
                case when wanted.n = 1 then nullif(done->'detail', 'null') - 'staged' end)
            on conflict (key) do nothing;
            continue when found;
            perform emit('artifact.differs', t.job_id, t.id, jsonb_build_object('name', wanted.name,
                'key', encode(wanted.key, 'hex'), 'kept', encode(f.digest, 'hex'),
                'dropped', made->'digest'))
            from artifact f where f.key = wanted.key and f.digest <> decode(made->>'digest', 'hex');
        end loop;
        if exists (select from output o where o.task_id = t.id
                and not exists (select from artifact f where f.key = o.key)) then
            if (t.fail_counts->>'lost_under_way')::bigint = tried.epoch then
                -- The cache had them when this attempt was claimed, so it was not told to make them.
                kind := 'outputs_lost';
                trouble := jsonb_build_object('class', 'transient', 'origin', 'share',
                    'code', 'artifact_missing', 'message', 'other artifacts of the task are gone');
            else
                kind := 'failed';
                trouble := jsonb_build_object('class', 'deterministic', 'origin', 'bug',
                    'code', 'outputs_missing', 'message', 'the attempt did not make all outputs');
            end if;
        end if;
    end if;

    ended := case
        when kind = 'ok' then 'succeeded'
        when kind = 'cancelled' then 'cancelled'
        else 'failed' end;
    if kind = 'missing_inputs' then
        trouble := jsonb_build_object('class', 'transient', 'origin', 'share',
            'code', 'artifact_missing', 'message', 'artifacts that the task reads are gone');
    elsif kind = 'released' then
        trouble := jsonb_build_object('class', 'transient', 'origin', 'node',
            'code', 'released', 'message', 'the worker ended');
    end if;
    update attempt set state = ended, ended_at = clock_timestamp(),
        usage = r->'usage', failure = trouble,
        result = case when kind = 'ok' then jsonb_build_object('outputs', done->'outputs') end
    where task_id = tried.task_id and epoch = tried.epoch;

    if kind = 'ok' then
        perform move_task(t.id, 'succeed', jsonb_build_object('worker', w.id));
        -- fail_counts stays: it is the history of the task until an operator retries.
        -- Most tasks have nothing to say beside their outputs, and a row that is written again
        -- for nothing is written to the log again with its whole document.
        update task set detail = nullif(done->'detail', 'null'), roll_forward = false,
            failure = null
        where id = t.id and (detail is distinct from nullif(done->'detail', 'null')
            or roll_forward or failure is not null);
        perform settle(task_done(t.id));
    elsif kind = 'failed' then
        perform judge(t, trouble, w.node_id);
    elsif kind = 'missing_inputs' then
        update task set fail_counts = fail_counts || jsonb_build_object('missing',
            coalesce((fail_counts->>'missing')::integer, 0) + 1) where id = t.id;
        if (select j.state from job j where j.id = t.job_id) in ('cancelling', 'cancelled') then
            -- Nobody makes them again for a cancelled job: what was begun stops here.
            perform move_publication(p.id, 'clash',
                '{"message": "cancelled, and its artifacts are gone"}')
            from publication p where p.id = t.publication_id and p.state in ('prepared', 'moving');
            perform give_back(t, 0, null, jsonb_build_object('code', 'artifact_missing'));
        else
            -- The third time the loss itself is the trouble: then it backs off, and its
            -- budget ends.
            if (t.fail_counts->>'missing')::integer >= 2 then
                perform judge(t, trouble, null);
            else
                perform give_back(t, 0, null, jsonb_build_object('code', 'artifact_missing'));
            end if;
            -- Whoever makes them may be under way, with others of its outputs only.
            update task m set fail_counts = m.fail_counts || jsonb_build_object('lost_under_way', m.epoch)
            where m.job_id = t.job_id and m.state = 'running' and exists (
                select from output o join jsonb_array_elements_text(outcome->'missing_inputs') k
                    on o.key = decode(k, 'hex')
                where o.task_id = m.id);
            perform lose_artifacts(t.id, array(select decode(k, 'hex')
                from jsonb_array_elements_text(outcome->'missing_inputs') k), tried.started_at);
        end if;
    else
        perform give_back(t, 0, null, jsonb_build_object('code', kind, 'worker', w.id));
    end if;
    perform finish_job(t.job_id);
    return 'accepted';
end $$;

-- The protocol: beat, then fenced results, then claim, in one transaction.
create or replace function sync_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    w worker;
    r jsonb;
    verdicts jsonb := '[]';
    want constant integer := least(coalesce((a->>'want')::integer, 0), 1024);
    results constant jsonb := coalesce(a->'results', '[]');
    -- What the worker has or has had. An object, because it is asked once for each attempt
    -- that runs: to read the two lists each time takes the square of their length.
    known constant jsonb := (
        select coalesce(jsonb_object_agg(format('%s-%s', x->>'task', x->>'epoch'), true), '{}')
        from jsonb_array_elements(coalesce(a->'progress', '[]') || results) x);
begin
    -- A mere beat may be lost with the server: the next one repeats it.
    if want = 0 and jsonb_array_length(results) = 0 then
        perform set_config('synchronous_commit', 'off', true);
    end if;

    update worker set pong_seq = l.ping_seq, pong_up_ms = l.up_ms, last_seen = now(),
        free_mcpu = (a#>>'{free,mcpu}')::bigint, free_ram = (a#>>'{free,ram}')::bigint,
        free_scratch = (a#>>'{free,scratch}')::bigint,
        shares_ok = names(a->'shares_ok'), engine = a->>'engine'
    from leader l
    where worker.id = (a->>'worker')::bigint and worker.state in ('active', 'draining')
        and worker.token_hash = secret_hash(a->>'token')
    returning worker.* into w;
    if not found then
        -- Raises if the secret is wrong; otherwise the worker was marked.
        if (living_worker(a)).id is not null then
            raise exception 'denied' using errcode = 'TX401', detail = 'the worker changed meanwhile';
        end if;
        for r in select x from jsonb_array_elements(results) x loop
            perform emit('result.refused', t.job_id, t.id, jsonb_build_object('task', r->'task',
                'epoch', r->'epoch', 'worker', a->'worker'))
            from (select (r->>'task')::bigint as id) i left join task t on t.id = i.id;
        end loop;
        return jsonb_build_object('state', 'marked', 'incarnation', (select incarnation from cluster));
    end if;

    -- Only what changed is written: a worker with many slots syncs far more often than one
    -- of them has news.
    insert into attempt_progress as p (task_id, epoch, progress)
    select at.task_id, at.epoch, x->'progress'
    from jsonb_array_elements(coalesce(a->'progress', '[]')) x
    join attempt at on at.task_id = (x->>'task')::bigint and at.epoch = (x->>'epoch')::bigint
        and at.worker_id = w.id and at.state = 'running'
    where not exists (select from attempt_progress o where o.task_id = at.task_id
        and o.epoch = at.epoch and o.progress = x->'progress')
    order by 1
    on conflict (task_id, epoch) do update set progress = excluded.progress, at = now();
    perform append_log(at.task_id, at.epoch, x->'lines')
    from jsonb_array_elements(coalesce(a->'progress', '[]')) x
    join attempt at on at.task_id = (x->>'task')::bigint and at.epoch = (x->>'epoch')::bigint
        and at.worker_id = w.id and at.state = 'running'
    where jsonb_array_length(coalesce(x->'lines', '[]')) > 0;

    if jsonb_array_length(results) > 0 then
        perform 1 from task where id in (
            select (x->>'task')::bigint from jsonb_array_elements(results) x
            union
            select d.task_id from jsonb_array_elements(results) x
            join task_dep d on d.needs_id = (x->>'task')::bigint)
        order by id for no key update;
        for r in select x from jsonb_array_elements(results) x order by (x->>'task')::bigint loop
            verdicts := verdicts || jsonb_build_object('task', r->'task', 'epoch', r->'epoch',
                'verdict', commit_result(w, r));
        end loop;
    end if;

    if want > 0 and w.state = 'active' and (select state from node where id = w.node_id) = 'ok' then
        perform claim(w, want);
    end if;

    return jsonb_build_object(
        'state', 'accepted',
        'incarnation', (select incarnation from cluster),
        'ping_seq', w.pong_seq,
        'workers', (select count(*) from worker where state in ('active', 'draining')),
        'drain', w.state = 'draining' or (select state from node where id = w.node_id) = 'drained',
        'running', (select coalesce(jsonb_agg(jsonb_build_object('task', task_id, 'epoch', epoch)
                order by task_id), '[]')
            from attempt where worker_id = w.id and state = 'running'),
        'cancels', (select coalesce(jsonb_agg(jsonb_build_object('task', at.task_id, 'epoch', at.epoch)
                order by at.task_id), '[]')
            from attempt at join task t on t.id = at.task_id join job j on j.id = t.job_id
            where at.worker_id = w.id and at.state = 'running' and j.state = 'cancelling'
                and not exists (select from publication p where p.id = t.publication_id
                    and p.state in ('prepared', 'moving', 'published'))),
        'claims', (select coalesce(jsonb_agg(claim_json(at.task_id) order by at.task_id), '[]')
            from attempt at where at.worker_id = w.id and at.state = 'running'
                and not known ? format('%s-%s', at.task_id, at.epoch)),
        'verdicts', verdicts);
end $$;

select secure_functions('{}', array['sync_v1'], '{}');
-- See 0029: a function that was replaced has lost these.
alter function sync_v1(jsonb) set jit = off;
alter function sync_v1(jsonb) set enable_bitmapscan = off;
