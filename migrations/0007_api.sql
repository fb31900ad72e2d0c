-- What the api calls about jobs and the catalogue.

create function submit_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    j job;
    ti bigint;
    h constant bytea := decode(a->>'request_hash', 'hex');
begin
    insert into title (name) values (a->>'title') on conflict (name) do nothing;
    select id into ti from title where name = a->>'title';
    insert into job (title_id, profile_id, principal_id, submit_key, request_hash, request, sources,
        engine, band)
    values (ti, (a->>'profile')::bigint, (a->>'principal')::bigint, a->>'key', h, a->'request',
        a->'sources', a->>'engine', (a->>'band')::smallint)
    on conflict (principal_id, submit_key) do nothing
    returning * into j;
    if not found then
        select * into j from job
        where principal_id = (a->>'principal')::bigint and submit_key = a->>'key';
        if j.request_hash <> h then
            raise exception 'submit_key_reused' using errcode = 'TX409', detail = format(
                'the idempotency key was used for job %s with another request', j.id);
        end if;
        return jsonb_build_object('job', j.id, 'created', false);
    end if;
    perform emit('job.accepted', j.id, null, jsonb_build_object('title', a->>'title'));
    perform append_tasks(j.id, 0::smallint, a->'tasks');
    return jsonb_build_object('job', j.id, 'created', true);
end $$;

create function no_job(j bigint) returns void language plpgsql as $$
begin
    raise exception 'not_found' using errcode = 'TX404', detail = format('there is no job %s', j);
end $$;

-- Cancels: what does not run is cancelled now; what runs is killed by its worker; a
-- publication that was prepared is still finished.
create function cancel_v1(a jsonb) returns jsonb language plpgsql as $$
declare j job; t task;
begin
    perform 1 from task where job_id = (a->>'job')::bigint order by id for no key update;
    select * into j from job where id = (a->>'job')::bigint for no key update;
    if not found then perform no_job((a->>'job')::bigint); end if;
    if j.state in ('cancelling', 'cancelled') then return to_jsonb(j.state); end if;
    perform move_job(j.id, 'cancel');
    perform emit('job.cancelling', j.id, null, '{}');
    for t in select * from task where job_id = j.id and not roll_forward
            and state in ('waiting', 'ready', 'failed', 'quarantined') order by id loop
        perform move_task(t.id, 'cancel');
    end loop;
    perform finish_job(j.id);
    return (select to_jsonb(state) from job where id = j.id);
end $$;

-- Takes a failed job up again: what failed is ready, with a clean record.
create function retry_v1(a jsonb) returns jsonb language plpgsql as $$
declare j job; t task;
begin
    perform 1 from task where job_id = (a->>'job')::bigint order by id for no key update;
    select * into j from job where id = (a->>'job')::bigint for no key update;
    if not found then perform no_job((a->>'job')::bigint); end if;
    perform move_job(j.id, 'retry');
    update job set failure = null where id = j.id;
    for t in select * from task where job_id = j.id and state in ('failed', 'quarantined')
            order by id loop
        perform move_task(t.id, 'retry');
        update task set fail_counts = '{}', first_try_up_ms = null, not_before_up_ms = 0,
            avoid_nodes = '{}', failure = null,
            roll_forward = exists (select from publication p where p.id = t.publication_id
                and p.state in ('prepared', 'moving', 'published'))
        where id = t.id;
    end loop;
    -- Planning failed, not a task: the dispatcher looks again.
    perform finish_job(j.id);
    return (select to_jsonb(state) from job where id = j.id);
end $$;

create function pause_v1(a jsonb) returns jsonb language plpgsql as $$
begin
    if not exists (select from job where id = (a->>'job')::bigint) then
        perform no_job((a->>'job')::bigint);
    end if;
    return to_jsonb((move_job((a->>'job')::bigint, 'pause')).state);
end $$;

create function resume_v1(a jsonb) returns jsonb language plpgsql as $$
begin
    if not exists (select from job where id = (a->>'job')::bigint) then
        perform no_job((a->>'job')::bigint);
    end if;
    perform move_job((a->>'job')::bigint, 'resume');
    -- Its last task may have ended meanwhile.
    perform finish_job((a->>'job')::bigint);
    return (select to_jsonb(state) from job where id = (a->>'job')::bigint);
end $$;

create function set_band_v1(a jsonb) returns jsonb language plpgsql as $$
begin
    perform 1 from task where job_id = (a->>'job')::bigint order by id for no key update;
    update job set band = (a->>'band')::smallint where id = (a->>'job')::bigint;
    if not found then perform no_job((a->>'job')::bigint); end if;
    update task set band = (a->>'band')::smallint
    where job_id = (a->>'job')::bigint and state in ('waiting', 'ready', 'running');
    perform emit('job.band', (a->>'job')::bigint, null, jsonb_build_object('band', a->'band'));
    return 'null';
end $$;

create function put_share_v1(a jsonb) returns jsonb language plpgsql as $$
declare s share;
begin
    insert into share as o (name, role, kind, marker)
    values (a->>'name', a->>'role', a->>'kind', (a->>'marker')::uuid)
    on conflict (name) do update set kind = excluded.kind,
        marker = coalesce(excluded.marker, o.marker)
    where o.role = excluded.role
    returning * into s;
    if not found then
        raise exception 'share_role' using errcode = 'TX409', detail = format(
            'share %s exists with another role', a->>'name');
    end if;
    return 'null';
end $$;

create function put_profile_v1(a jsonb) returns jsonb language plpgsql as $$
declare p profile; h constant bytea := decode(a->>'hash', 'hex');
begin
    perform pg_advisory_xact_lock(hashtextextended('trix profile ' || (a->>'name'), 0));
    insert into profile (name, version, hash, body, shipped, current)
    select a->>'name', coalesce(max(version), 0) + 1, h, a->>'body', (a->>'shipped')::boolean, false
    from profile where name = a->>'name'
    on conflict (name, hash) do nothing;
    update profile set current = false where name = a->>'name' and current and hash <> h;
    update profile set current = true where name = a->>'name' and hash = h returning * into p;
    return profile_json(p);
end $$;

create function enrol_node_v1(a jsonb) returns jsonb language plpgsql as $$
declare n bigint;
begin
    insert into node (name, token_hash) values (a->>'name', secret_hash(a->>'secret'))
    on conflict (name) do update set token_hash = excluded.token_hash
    returning id into n;
    perform emit('node.enrolled', null, null, jsonb_build_object('node', a->>'name'));
    return to_jsonb(n);
end $$;

create function drain_v1(a jsonb) returns jsonb language plpgsql as $$
declare w worker;
begin
    select * into w from worker where id = (a->>'worker')::bigint for no key update;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no worker %s', a->>'worker');
    end if;
    if w.state = 'active' then
        update worker set state = 'draining' where id = w.id;
        perform emit('worker.draining', null, null, jsonb_build_object('worker', w.id));
    elsif w.state <> 'draining' then
        perform illegal('worker', w.id, w.state, 'drain');
    end if;
    return 'null';
end $$;
