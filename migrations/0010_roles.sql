-- Who may call what. All functions that programs call run with the owner's rights and
-- a fixed search path, so that a program needs no right on any table to write: a stolen
-- worker's login can beat and claim as that worker, and nothing else.

do $$
declare f record;
begin
    for f in select p.oid::regprocedure as name, p.proname from pg_proc p
            where p.pronamespace = 'public'::regnamespace
                and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e') loop
        execute format('revoke execute on function %s from public', f.name);
        if f.proname like '%\_v1' then
            execute format('alter function %s security definer set search_path = public, pg_temp', f.name);
        end if;
    end loop;
end $$;

-- Queues go from empty to full faster than statistics follow: a plan made over an empty
-- table reads a full one from end to end for every result (seen: 5 ms for one look at
-- 3,000 artifacts). What runs for every task therefore goes by its indexes and nested
-- loops only; the leader's surveys over all open tasks choose their plans freely.
do $$
declare f record; s text;
begin
    for f in select p.oid::regprocedure as name from pg_proc p
            where p.pronamespace = 'public'::regnamespace and p.proname in ('sync_v1', 'supersede_v1',
                'leave_v1', 'prepare_v1', 'begin_move_v1', 'published_v1', 'conflict_v1',
                'mark_lost_v1', 'forget_artifact_v1') loop
        foreach s in array array['seqscan', 'hashjoin', 'mergejoin', 'material'] loop
            execute format('alter function %s set enable_%s = off', f.name, s);
        end loop;
    end loop;
end $$;

-- Roles belong to the whole server: they may exist from another database, and the
-- owner of this one may lack the right to make them. Then all programs connect as the
-- owner, which works, and protects less.
do $$
declare r text; f record;
begin
    foreach r in array array['trix_api', 'trix_worker', 'trix_dispatcher'] loop
        if not exists (select from pg_roles where rolname = r) then
            begin
                execute format('create role %I nologin', r);
            exception
                when insufficient_privilege then
                    raise notice 'role % was not made: the right to make roles is missing', r;
                    continue;
                when duplicate_object or unique_violation then null;
            end;
        end if;
        execute format('grant usage on schema public to %I', r);
    end loop;
    for f in select p.oid::regprocedure as name, p.proname as fn, case
                when p.proname in ('register_v1', 'sync_v1', 'supersede_v1', 'leave_v1', 'prepare_v1',
                    'begin_move_v1', 'published_v1', 'conflict_v1') then array['trix_worker']
                when p.proname in ('takeover_v1', 'tick_v1', 'mark_lost_v1', 'jobs_to_plan_v1',
                    'append_plan_v1', 'fail_job_v1', 'cache_hits_v1', 'repair_v1', 'finish_cancels_v1',
                    'block_reasons_v1', 'retire_v1', 'forget_artifact_v1') then array['trix_dispatcher']
                when p.proname in ('sequence_events_v1', 'emit_v1') then array['trix_api', 'trix_dispatcher']
                else array['trix_api'] end as roles
            from pg_proc p
            where p.pronamespace = 'public'::regnamespace
                and (p.proname like '%\_v1' or p.proname in ('principal_json', 'profile_json', 'artifact_pinned')) loop
        foreach r in array f.roles loop
            if exists (select from pg_roles where rolname = r) then
                execute format('grant execute on function %s to %I', f.name, r);
            end if;
        end loop;
    end loop;
    foreach r in array array['trix_api', 'trix_dispatcher'] loop
        if exists (select from pg_roles where rolname = r) then
            execute format('grant select on all tables in schema public to %I', r);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'trix_dispatcher') then
        grant execute on function artifact_pinned(bytea) to trix_dispatcher;
    end if;
end $$;
