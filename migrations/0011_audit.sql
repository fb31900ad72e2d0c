-- Audit within the change. A function that changes something for a person or a program
-- takes a key audit {principal, ip, action} in its argument, and then writes the row of
-- the trail in its own transaction: who is told that a call was done finds exactly one
-- row, and no row tells of a change that was rolled back.
--
-- What counts as one call: a submit that repeats the key of an earlier one is the same
-- call, answered again, and has the row of the first. Every other call that is accepted
-- has a row of its own, also if nothing was left to change; its two hashes are then the
-- same. A call that is refused changes nothing and has none.

-- What the object's own row was before and after, as sha256 of its JSON: the trail shows
-- that a row was changed by nobody else in between, and holds no secret.
alter table audit add column before_hash bytea, add column after_hash bytea;

-- Rows from before these columns keep their hashes.
create or replace function audit_hash(a audit) returns bytea language sql stable as $$
    select sha256(a.prev_hash || convert_to((jsonb_build_array(a.seq,
        extract(epoch from a.at), a.principal_id, a.ip, a.action, a.object, a.detail)
        || case when a.before_hash is null and a.after_hash is null then '[]'
            else jsonb_build_array(encode(a.before_hash, 'hex'), encode(a.after_hash, 'hex')) end
        )::text, 'UTF8'))
$$;

-- Appends one row. The head's row is the lock, and comes after all others.
create function write_audit(entry jsonb, object text, before bytea, after bytea) returns bigint
language plpgsql as $$
declare h audit_head; r audit;
begin
    select * into h from audit_head for update;
    r.seq := h.seq + 1;
    r.at := clock_timestamp();
    r.principal_id := (entry->>'principal')::bigint;
    r.ip := entry->>'ip';
    r.action := entry->>'action';
    r.object := object;
    r.detail := coalesce(entry->'detail', 'null');
    r.before_hash := before;
    r.after_hash := after;
    r.prev_hash := h.hash;
    r.hash := audit_hash(r);
    insert into audit select r.*;
    update audit_head set seq = r.seq, hash = r.hash;
    return r.seq;
end $$;

create or replace function audit_v1(a jsonb) returns jsonb language sql as $$
    select to_jsonb(write_audit(a, a->>'object', null, null))
$$;

-- The hash of an object's row; null when there is none. Locks the row, in the order of
-- all locks, so that nothing changes it between the two looks.
create function object_hash(kind text, id text) returns bytea language plpgsql as $$
declare r jsonb;
begin
    if id is null then return null; end if;
    if kind = 'job' then
        perform 1 from task t where t.job_id = object_hash.id::bigint order by t.id for no key update;
        select to_jsonb(o) into r from job o where o.id = object_hash.id::bigint for no key update;
    elsif kind = 'profile' then
        select to_jsonb(o) into r from profile o where o.name = object_hash.id and o.current
            for no key update;
    elsif kind = 'share' then
        select to_jsonb(o) into r from share o where o.name = object_hash.id for no key update;
    elsif kind = 'node' then
        select to_jsonb(o) into r from node o where o.name = object_hash.id for no key update;
    elsif kind = 'worker' then
        -- Not what every beat writes.
        select jsonb_build_object('id', o.id, 'state', o.state) into r from worker o
        where o.id = object_hash.id::bigint for no key update;
    elsif kind in ('principal', 'token', 'session', 'login_link') then
        execute format('select to_jsonb(o) from %I o where o.id = $1 for no key update', kind)
            into r using object_hash.id::bigint;
    else
        raise exception 'objects of kind % are not audited', kind;
    end if;
    return sha256(convert_to(r::text, 'UTF8'));
end $$;

-- Runs a change with its row in the trail, if one is asked for. An object that is made by
-- the change has no id before; the answer tells it.
create function audited(change text, kind text, id text, a jsonb) returns jsonb
language plpgsql as $$
declare
    entry jsonb := nullif(a->'audit', 'null');
    before bytea;
    answer jsonb;
begin
    if entry is not null then before := object_hash(kind, id); end if;
    execute format('select %I($1)', change) into answer using a - 'audit';
    if entry is null or answer->'created' = 'false' then return answer; end if;
    id := coalesce(id, answer->>kind, answer->>'id', answer#>>'{}');
    -- Who signs in is known only afterwards.
    if entry->>'principal' is null then
        entry := entry || jsonb_build_object('principal', answer#>'{principal,id}');
    end if;
    perform write_audit(entry, kind || '/' || id, before, object_hash(kind, id));
    return answer;
end $$;

-- The changes keep their bodies under names without suffix, which no program may call.
alter function submit_v1(jsonb) rename to submit_job;
alter function cancel_v1(jsonb) rename to cancel_job;
alter function retry_v1(jsonb) rename to retry_job;
alter function pause_v1(jsonb) rename to pause_job;
alter function resume_v1(jsonb) rename to resume_job;
alter function set_band_v1(jsonb) rename to set_job_band;
alter function put_share_v1(jsonb) rename to put_share;
alter function put_profile_v1(jsonb) rename to put_profile;
alter function enrol_node_v1(jsonb) rename to enrol_node;
alter function drain_v1(jsonb) rename to drain_worker;
alter function create_principal_v1(jsonb) rename to create_principal;
alter function update_principal_v1(jsonb) rename to update_principal;
alter function create_token_v1(jsonb) rename to create_token;
alter function revoke_token_v1(jsonb) rename to revoke_token;
alter function create_session_v1(jsonb) rename to create_session;
alter function end_session_v1(jsonb) rename to end_session;
alter function create_link_v1(jsonb) rename to create_link;
alter function use_link_v1(jsonb) rename to use_link;

create function submit_v1(a jsonb) returns jsonb language sql as
    $$ select audited('submit_job', 'job', null, a) $$;
create function cancel_v1(a jsonb) returns jsonb language sql as
    $$ select audited('cancel_job', 'job', a->>'job', a) $$;
create function retry_v1(a jsonb) returns jsonb language sql as
    $$ select audited('retry_job', 'job', a->>'job', a) $$;
create function pause_v1(a jsonb) returns jsonb language sql as
    $$ select audited('pause_job', 'job', a->>'job', a) $$;
create function resume_v1(a jsonb) returns jsonb language sql as
    $$ select audited('resume_job', 'job', a->>'job', a) $$;
create function set_band_v1(a jsonb) returns jsonb language sql as
    $$ select audited('set_job_band', 'job', a->>'job', a) $$;
create function put_share_v1(a jsonb) returns jsonb language sql as
    $$ select audited('put_share', 'share', a->>'name', a) $$;
create function put_profile_v1(a jsonb) returns jsonb language sql as
    $$ select audited('put_profile', 'profile', a->>'name', a) $$;
create function enrol_node_v1(a jsonb) returns jsonb language sql as
    $$ select audited('enrol_node', 'node', a->>'name', a) $$;
create function drain_v1(a jsonb) returns jsonb language sql as
    $$ select audited('drain_worker', 'worker', a->>'worker', a) $$;
create function create_principal_v1(a jsonb) returns jsonb language sql as
    $$ select audited('create_principal', 'principal', null, a) $$;
create function update_principal_v1(a jsonb) returns jsonb language sql as
    $$ select audited('update_principal', 'principal', a->>'principal', a) $$;
create function create_token_v1(a jsonb) returns jsonb language sql as
    $$ select audited('create_token', 'token', null, a) $$;
create function revoke_token_v1(a jsonb) returns jsonb language sql as
    $$ select audited('revoke_token', 'token', a->>'token', a) $$;
create function create_session_v1(a jsonb) returns jsonb language sql as
    $$ select audited('create_session', 'session', null, a) $$;
create function end_session_v1(a jsonb) returns jsonb language sql as
    $$ select audited('end_session', 'session', a->>'session', a) $$;
create function create_link_v1(a jsonb) returns jsonb language sql as
    $$ select audited('create_link', 'login_link', null, a) $$;
create function use_link_v1(a jsonb) returns jsonb language sql as
    $$ select audited('use_link', 'principal', null, a) $$;

-- A token is revoked by its owner, or by whoever may revoke all: without a principal.
create or replace function revoke_token(a jsonb) returns jsonb language plpgsql as $$
begin
    update token set revoked_at = coalesce(revoked_at, now())
    where id = (a->>'token')::bigint
        and (a->>'principal' is null or principal_id = (a->>'principal')::bigint);
    if not found then
        raise exception 'not_found' using errcode = 'TX404', detail = case
            when a->>'principal' is null then format('there is no token %s', a->>'token')
            else format('principal %s has no token %s', a->>'principal', a->>'token') end;
    end if;
    return 'null';
end $$;

-- Signing in is one change: a link that was used up has opened a session.
create function sign_in(a jsonb) returns jsonb language plpgsql as $$
declare p jsonb; s jsonb;
begin
    if a->>'link' is not null then
        p := use_link(a || jsonb_build_object('secret', a->'link'));
    else
        select principal_json(o) into p from principal o
        where o.id = (a->>'principal')::bigint and o.disabled_at is null;
    end if;
    if coalesce(p, 'null') = 'null' then
        raise exception 'denied' using errcode = 'TX401',
            detail = 'it is unknown, used, revoked or expired';
    end if;
    s := create_session(a || jsonb_build_object('principal', p->'id'));
    return jsonb_build_object('session', s, 'principal', p);
end $$;
create function sign_in_v1(a jsonb) returns jsonb language sql as
    $$ select audited('sign_in', 'session', null, a) $$;

-- A program is a principal of its own with one token, so that idempotency keys and the
-- trail tell programs apart.
create function create_program(a jsonb) returns jsonb language plpgsql as $$
declare p jsonb;
begin
    p := create_principal(a);
    return jsonb_build_object('principal', p, 'token',
        create_token(a || jsonb_build_object('principal', p->'id', 'label', a->'name')));
end $$;
create function create_program_v1(a jsonb) returns jsonb language sql as
    $$ select audited('create_program', 'token', null, a) $$;

-- Who may call what, as 0010 has it; every migration that makes or replaces functions ends
-- with this, because a replaced function loses its settings. New functions are named with
-- the roles that may call them.
create function secure_functions(api text[], worker text[], dispatcher text[]) returns void
language plpgsql as $$
declare
    f record;
    r text;
    s text;
begin
    for f in select p.oid::regprocedure as name, p.proname from pg_proc p
            where p.pronamespace = 'public'::regnamespace and p.prokind = 'f'
                and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e') loop
        execute format('revoke execute on function %s from public', f.name);
        if f.proname like '%\_v1' then
            execute format('alter function %s security definer set search_path = public, pg_temp', f.name);
        else
            execute format('alter function %s security invoker', f.name);
            foreach r in array array['trix_api', 'trix_worker', 'trix_dispatcher'] loop
                continue when f.proname in ('principal_json', 'profile_json', 'artifact_pinned');
                if exists (select from pg_roles where rolname = r) then
                    execute format('revoke execute on function %s from %I', f.name, r);
                end if;
            end loop;
        end if;
        foreach r in array array['trix_api', 'trix_worker', 'trix_dispatcher'] loop
            if exists (select from pg_roles where rolname = r) and f.proname = any(case r
                    when 'trix_api' then api when 'trix_worker' then worker else dispatcher end) then
                execute format('grant execute on function %s to %I', f.name, r);
            end if;
        end loop;
        -- See 0010: what runs for every task goes by its indexes only.
        if f.proname in ('sync_v1', 'supersede_v1', 'leave_v1', 'prepare_v1', 'begin_move_v1',
                'published_v1', 'conflict_v1', 'mark_lost_v1', 'forget_artifact_v1') then
            foreach s in array array['seqscan', 'hashjoin', 'mergejoin', 'material'] loop
                execute format('alter function %s set enable_%s = off', f.name, s);
            end loop;
        end if;
    end loop;
    -- What only reads is asked for in plain statements.
    foreach r in array array['trix_api', 'trix_dispatcher'] loop
        if exists (select from pg_roles where rolname = r) then
            execute format('grant select on all tables in schema public to %I', r);
        end if;
    end loop;
end $$;

select secure_functions(
    array['submit_v1', 'cancel_v1', 'retry_v1', 'pause_v1', 'resume_v1', 'set_band_v1',
        'put_share_v1', 'put_profile_v1', 'enrol_node_v1', 'drain_v1', 'create_principal_v1',
        'update_principal_v1', 'create_token_v1', 'revoke_token_v1', 'create_session_v1',
        'end_session_v1', 'create_link_v1', 'use_link_v1', 'sign_in_v1', 'create_program_v1'],
    '{}', '{}');
