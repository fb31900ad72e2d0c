-- What a worker calls. Every function checks the worker's secret: a stolen node
-- cannot speak for another one.

create function names(a jsonb) returns text[] language sql immutable as $$
    select coalesce(array_agg(x), '{}') from jsonb_array_elements_text(a) x
$$;

create function register_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    n node;
    l leader;
    w worker;
    secret constant text := replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
begin
    select * into n from node where name = a->>'node';
    if not found or n.token_hash <> secret_hash(a->>'node_token') then
        raise exception 'denied' using errcode = 'TX401',
            detail = format('node %s is not enrolled with this secret', a->>'node');
    end if;
    select * into l from leader;
    insert into worker (node_id, token_hash, boot_id, pid, version, engine, pong_seq, pong_up_ms,
        cap_mcpu, cap_ram, cap_scratch, free_mcpu, free_ram, free_scratch, shares_ok)
    values (n.id, secret_hash(secret), a->>'boot_id', (a->>'pid')::bigint, a->>'version',
        a->>'engine', l.ping_seq, l.up_ms,
        (a#>>'{capacity,mcpu}')::bigint, (a#>>'{capacity,ram}')::bigint,
        (a#>>'{capacity,scratch}')::bigint, (a#>>'{capacity,mcpu}')::bigint,
        (a#>>'{capacity,ram}')::bigint, (a#>>'{capacity,scratch}')::bigint,
        names(a->'shares_ok'))
    returning * into w;
    perform emit('worker.registered', null, null, jsonb_build_object('worker', w.id,
        'node', n.name, 'engine', w.engine, 'version', w.version, 'pid', w.pid));
    return jsonb_build_object('worker', w.id, 'token', secret, 'ping_seq', l.ping_seq,
        'incarnation', (select incarnation from cluster));
end $$;

-- The worker's row if it is alive and the secret is its own. Key share: it keeps the
-- row from being marked until this transaction ends, and does not stop a beat.
create function living_worker(a jsonb) returns worker language plpgsql as $$
declare w worker;
begin
    select * into w from worker where id = (a->>'worker')::bigint
        and state in ('active', 'draining') for key share;
    if w.id is not null then
        if w.token_hash <> secret_hash(a->>'token') then
            raise exception 'denied' using errcode = 'TX401',
                detail = format('this is not the secret of worker %s', w.id);
        end if;
        return w;
    end if;
    select * into w from worker where id = (a->>'worker')::bigint;
    if w.id is not null and w.token_hash <> secret_hash(a->>'token') then
        raise exception 'denied' using errcode = 'TX401',
            detail = format('this is not the secret of worker %s', w.id);
    end if;
    return null;
end $$;

-- The fence: the worker lives and the attempt is its own and still runs. Locks the task.
create function fenced(a jsonb) returns task language plpgsql as $$
declare w worker; t task;
begin
    w := living_worker(a);
    if w.id is null then
        raise exception 'refused' using errcode = 'TX403',
            detail = format('worker %s was marked', a->>'worker');
    end if;
    select * into t from task where id = (a->>'task')::bigint for no key update;
    perform 1 from attempt where task_id = t.id and epoch = (a->>'epoch')::bigint
        and worker_id = w.id and state = 'running';
    if not found or t.epoch <> (a->>'epoch')::bigint then
        raise exception 'refused' using errcode = 'TX403',
            detail = format('attempt %s-%s is not worker %s''s any more',
                a->>'task', a->>'epoch', w.id);
    end if;
    return t;
end $$;

-- Gives a running task back, or ends it with its job. The attempt is ended by the caller.
create function give_back(t task, delay_ms bigint, avoid bigint, why jsonb) returns void
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
        not_before_up_ms = (select up_ms from leader) + delay_ms,
        avoid_nodes = case when avoid is null or avoid = any(avoid_nodes) then avoid_nodes
            else avoid_nodes || avoid end
    where id = t.id;
end $$;

-- A task failed for good, and with it its job; what runs of the job goes on.
create function fail_task(t task, event text, failure jsonb, why jsonb) returns void
language plpgsql as $$
declare j job;
begin
    perform move_task(t.id, event, why);
    select * into j from job where id = t.job_id for no key update;
    if job_after(j.state, 'task_failed') is not null then
        update job set failure = fail_task.failure where id = j.id;
        perform move_job(j.id, 'task_failed', jsonb_build_object('task', t.name) || why);
    end if;
end $$;

-- What a failed attempt means for its task: the retry classes.
create function judge(t task, failure jsonb, node bigint) returns void language plpgsql as $$
declare
    l leader;
    class constant text := failure->>'class';
    code constant text := failure->>'code';
    counts jsonb := t.fail_counts;
    n integer;
    why constant jsonb := jsonb_build_object('class', class, 'code', code,
        'message', failure->>'message');
    largest worker;
    backoff bigint;
begin
    select * into l from leader;
    n := coalesce((counts->>class)::integer, 0) + 1;
    counts := counts || jsonb_build_object(class, n);
    if code = 'source_unstable' then
        counts := counts || jsonb_build_object(code, coalesce((counts->>code)::integer, 0) + 1);
    end if;
    update task set failure = judge.failure, fail_counts = counts where id = t.id;
    if (select state from job where id = t.job_id) in ('cancelling', 'cancelled') then
        perform give_back(t, 0, null, why);
        return;
    end if;

    -- First 5 s, then twice as long each time up to 5 min, with full jitter.
    backoff := (random() * least((l.times->>'backoff_max_ms')::double precision,
        (l.times->>'backoff_min_ms')::double precision * 2 ^ least(n - 1, 30)))::bigint;
    if class = 'transient' then
        if (counts->>'source_unstable')::integer > 1
                or l.up_ms - t.first_try_up_ms > (l.times->>'transient_budget_ms')::bigint then
            perform fail_task(t, 'fail', failure, why);
        else
            perform give_back(t, backoff, node, why);
        end if;
    elsif class = 'resource' then
        if n > 3 then
            perform fail_task(t, 'fail', failure, why);
            return;
        end if;
        if code in ('no_space', 'quota') then
            update task set need_scratch = least(greatest(need_scratch * 3 / 2, need_scratch + 1),
                greatest(need_scratch, (select max(cap_scratch) from worker where state = 'active')))
            where id = t.id;
        else
            update task set need_ram = least(greatest(need_ram * 3 / 2, need_ram + 1),
                greatest(need_ram, (select max(cap_ram) from worker where state = 'active')))
            where id = t.id;
            -- More memory is asked for, so there is nothing to wait for.
            backoff := 0;
        end if;
        perform give_back(t, backoff, null, why);
    elsif class = 'crash' then
        if n > 1 then
            perform fail_task(t, 'quarantine', failure, why);
        else
            perform give_back(t, 0, node, why);
        end if;
    else
        perform fail_task(t, 'fail', failure, why);
    end if;
end $$;

-- Takes the running attempts of a worker that is no more. Gives their number.
create function orphan_attempts(w worker, code text, message text) returns integer
language plpgsql as $$
declare
    t task;
    n integer := 0;
    f constant jsonb := jsonb_build_object('class', 'transient', 'origin', 'node',
        'code', code, 'message', message);
    why constant jsonb := jsonb_build_object('class', 'transient', 'code', code, 'worker', w.id);
begin
    for t in select * from task where id in
            (select task_id from attempt where worker_id = w.id and state = 'running')
            order by id for no key update loop
        update attempt set state = 'lost', failure = f, ended_at = clock_timestamp()
        where task_id = t.id and epoch = t.epoch and worker_id = w.id and state = 'running';
        continue when not found;
        n := n + 1;
        delete from attempt_progress where task_id = t.id and epoch = t.epoch;
        update task set failure = f where id = t.id;
        -- Three nodes that died over one task are no accident. Those that ended in order
        -- did not die.
        if (select count(distinct x.node_id) from attempt x where x.task_id = t.id
                and x.state = 'lost' and x.failure->>'code' <> 'released') >= 3
                and not exists (select from publication p where p.id = t.publication_id) then
            perform fail_task(t, 'quarantine', f || '{"code": "poison"}', why);
        else
            perform give_back(t, 0, w.node_id, why);
        end if;
    end loop;
    perform finish_job(j) from (select distinct job_id as j from task where id in
        (select task_id from attempt where worker_id = w.id and state = 'lost')
        and job_id in (select id from job where state = 'cancelling') order by 1) x;
    return n;
end $$;

create function supersede_v1(a jsonb) returns jsonb language plpgsql as $$
declare me worker; old worker; n integer;
begin
    me := living_worker(a);
    if me.id is null then
        raise exception 'refused' using errcode = 'TX403',
            detail = format('worker %s was marked', a->>'worker');
    end if;
    select * into old from worker where id = (a->>'old')::bigint and node_id = me.node_id
        and id < me.id and state in ('active', 'draining') for update;
    if not found then return '0'; end if;
    update worker set state = 'gone', ended_at = now() where id = old.id;
    n := orphan_attempts(old, 'superseded', format('worker %s took its place', me.id));
    perform emit('worker.gone', null, null,
        jsonb_build_object('worker', old.id, 'by', me.id, 'attempts', n));
    return to_jsonb(n);
end $$;

create function leave_v1(a jsonb) returns jsonb language plpgsql as $$
declare w worker; n integer;
begin
    if (living_worker(a)).id is null then return 'null'; end if;
    select * into w from worker where id = (a->>'worker')::bigint
        and state in ('active', 'draining') for update;
    if not found then return 'null'; end if;
    update worker set state = 'gone', ended_at = now() where id = w.id;
    n := orphan_attempts(w, 'released', 'the worker ended');
    perform emit('worker.gone', null, null, jsonb_build_object('worker', w.id, 'attempts', n));
    return 'null';
end $$;

-- Commits one result under the fence. Gives accepted, duplicate or refused. The task
-- and its dependants are locked by the caller.
create function commit_result(w worker, r jsonb) returns text language plpgsql as $$
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
        update task set detail = nullif(done->'detail', 'null'), roll_forward = false,
            failure = null where id = t.id;
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

create function publication_json(p publication) returns jsonb language sql stable as $$
    select jsonb_build_object('id', p.id, 'version', p.version, 'state', p.state,
        'manifest', p.manifest)
$$;

-- One attempt as the worker takes it.
create function claim_json(t bigint) returns jsonb language sql stable as $$
    select jsonb_build_object(
        'task', t.id, 'epoch', t.epoch, 'job', t.job_id, 'name', t.name, 'spec', t.spec,
        'cost', jsonb_build_object('mcpu', t.need_mcpu, 'ram', t.need_ram,
            'scratch', t.need_scratch, 'estimate_ms', t.est_ms),
        'outputs', o.outputs, 'missing', o.missing,
        'inputs', (select coalesce(jsonb_agg(jsonb_build_object('key', encode(f.key, 'hex'),
                'digest', encode(f.digest, 'hex'), 'size', f.size) order by f.key), '[]')
            from task_input i join artifact f on f.key = i.key where i.task_id = t.id),
        -- Only the tasks that the worker runs itself look at what others found.
        'needs', case when t.kind in ('publish', 'copy') then (
            select coalesce(jsonb_object_agg(n.name, n.detail - 'planning_index'), '{}')
            from task_dep d join task n on n.id = d.needs_id
            where d.task_id = t.id and n.detail is not null) else '{}' end,
        'roll_forward', case when t.roll_forward then
            (select publication_json(p) from publication p where p.id = t.publication_id) end)
    from task t, lateral (
        select coalesce(jsonb_agg(x.j order by x.n), '[]') as outputs,
            coalesce(jsonb_agg(x.j order by x.n) filter (where x.key is null), '[]') as missing
        from (select o.n, f.key, jsonb_build_object('name', o.name, 'key', encode(o.key, 'hex')) as j
            from output o left join artifact f on f.key = o.key where o.task_id = t.id) x) o
    where t.id = claim_json.t
$$;

-- True while another task makes one of the task's outputs.
create function twin_runs(t bigint) returns boolean language sql stable as $$
    select exists (
        select from output o join output p on p.key = o.key and p.task_id <> o.task_id
        join task r on r.id = p.task_id
        where o.task_id = t and r.state = 'running')
$$;

-- Claims up to want tasks that fit, best first.
create function claim(w worker, want integer) returns void language plpgsql as $$
declare
    t task;
    l leader;
    mcpu bigint; ram bigint; scratch bigint;
    lost_keys bytea[];
    found_cached boolean;
begin
    select * into l from leader;
    -- The worker's word counts as far as its capacity and what it runs allow.
    select least(w.free_mcpu, w.cap_mcpu - coalesce(sum(r.need_mcpu), 0)),
        least(w.free_ram, w.cap_ram - coalesce(sum(r.need_ram), 0)),
        least(w.free_scratch, w.cap_scratch - coalesce(sum(r.need_scratch), 0))
    into mcpu, ram, scratch
    from attempt at join task r on r.id = at.task_id
    where at.worker_id = w.id and at.state = 'running';

    loop
        found_cached := false;
        for t in
            select c.* from task c join job j on j.id = c.job_id
            where c.state = 'ready' and c.deps_left = 0 and c.held_by is null
                and (j.state in ('accepted', 'inspecting', 'running', 'waiting_gate')
                    -- A publication that was prepared is finished whatever became of the job.
                    or c.roll_forward)
                and (c.engine = w.engine or c.kind in ('publish', 'copy'))
                and c.not_before_up_ms <= l.up_ms
                and c.need_shares <@ w.shares_ok
                and c.need_mcpu <= mcpu and c.need_ram <= ram and c.need_scratch <= scratch
                -- A node where it failed is avoided as long as another one could take it.
                and not (w.node_id = any(c.avoid_nodes) and exists (
                    select from worker o where o.state = 'active'
                        and not (o.node_id = any(c.avoid_nodes))
                        and (o.engine = c.engine or c.kind in ('publish', 'copy'))
                        and c.need_shares <@ o.shares_ok
                        and c.need_mcpu <= o.cap_mcpu and c.need_ram <= o.cap_ram
                        and l.up_ms - o.pong_up_ms < (l.times->>'suspect_ms')::bigint))
                -- Another task with the same key runs: its result will do for this one.
                and not twin_runs(c.id)
            order by c.band desc, c.rank, c.id
            limit want
            for no key update of c skip locked
        loop
            exit when want <= 0;
            -- What was done for an earlier one of these rows may have changed this one.
            select * into t from task where id = t.id and state = 'ready' and deps_left = 0;
            continue when not found;
            if is_cached(t.id) then
                perform settle(array[t.id]);
                perform finish_job(t.job_id);
                found_cached := true;
                continue;
            end if;
            -- A roll-forward may find all that it needs in its stage.
            select array_agg(i.key) into lost_keys from task_input i
            where i.task_id = t.id and not t.roll_forward and not exists (select from artifact f where f.key = i.key);
            if lost_keys is not null then
                perform lose_artifacts(t.id, lost_keys, clock_timestamp());
                found_cached := true;
                continue;
            end if;
            continue when t.need_mcpu > mcpu or t.need_ram > ram or t.need_scratch > scratch
                or twin_runs(t.id);
            update task set epoch = epoch + 1,
                first_try_up_ms = coalesce(first_try_up_ms, l.up_ms)
            where id = t.id;
            insert into attempt (task_id, epoch, worker_id, node_id)
            values (t.id, t.epoch + 1, w.id, w.node_id);
            perform move_task(t.id, 'claim', jsonb_build_object('worker', w.id, 'node',
                (select name from node where id = w.node_id)));
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
            want := want - 1;
        end loop;
        exit when want <= 0 or not found_cached;
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

-- The protocol: beat, then fenced results, then claim, in one transaction.
create function sync_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    w worker;
    r jsonb;
    verdicts jsonb := '[]';
    want constant integer := least(coalesce((a->>'want')::integer, 0), 1024);
    results constant jsonb := coalesce(a->'results', '[]');
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

    insert into attempt_progress as p (task_id, epoch, progress)
    select at.task_id, at.epoch, x->'progress'
    from jsonb_array_elements(coalesce(a->'progress', '[]')) x
    join attempt at on at.task_id = (x->>'task')::bigint and at.epoch = (x->>'epoch')::bigint
        and at.worker_id = w.id and at.state = 'running'
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
                and not exists (select from jsonb_array_elements(
                        coalesce(a->'progress', '[]') || results) x
                    where (x->>'task')::bigint = at.task_id and (x->>'epoch')::bigint = at.epoch)),
        'verdicts', verdicts);
end $$;
