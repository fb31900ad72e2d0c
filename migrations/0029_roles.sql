-- Who may call what of 0020 to 0026, as in 0010. A function that was replaced has lost its
-- settings, so all are set again.
do $$
declare f record; r text;
begin
    for f in select p.oid::regprocedure as name, p.proname from pg_proc p
            where p.pronamespace = 'public'::regnamespace and p.prokind = 'f'
                and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e') loop
        execute format('revoke execute on function %s from public', f.name);
        if f.proname like '%\_v1' then
            execute format('alter function %s security definer set search_path = public, pg_temp', f.name);
        end if;
    end loop;
    for f in select p.oid::regprocedure as name, case
                when p.proname in ('retracted_v1', 'self_test_v1') then 'trix_worker'
                when p.proname in ('tend_v1', 'age_v1', 'reserve_v1', 'judge_nodes_v1', 'block_reasons_v1')
                    then 'trix_dispatcher'
                when p.proname in ('cordon_v1', 'uncordon_v1', 'drain_node_v1', 'undrain_node_v1',
                    'hold_v1', 'lift_v1', 'set_slots_v1', 'set_node_traits_v1', 'set_weight_v1',
                    'retract_v1', 'explain_task_v1', 'explain_job_v1', 'explain_node_v1',
                    'quarantine_bundle_v1') then 'trix_api' end as role
            from pg_proc p where p.pronamespace = 'public'::regnamespace loop
        if exists (select from pg_roles where rolname = f.role) then
            execute format('grant execute on function %s to %I', f.name, f.role);
        end if;
    end loop;
    foreach r in array array['trix_api', 'trix_dispatcher'] loop
        if exists (select from pg_roles where rolname = r) then
            execute format('grant select on all tables in schema public to %I', r);
        end if;
    end loop;
end $$;

-- See 0010: what runs for every task goes by its indexes only.
do $$
declare s text;
begin
    foreach s in array array['seqscan', 'hashjoin', 'mergejoin', 'material'] loop
        execute format('alter function retracted_v1(jsonb) set enable_%s = off', s);
    end loop;
end $$;
