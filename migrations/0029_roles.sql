-- Who may call what of 0020 to 0026. A function that was replaced has lost its settings, so
-- all are set again.
select secure_functions(
    array['cordon_v1', 'uncordon_v1', 'drain_node_v1', 'undrain_node_v1', 'hold_v1', 'lift_v1',
        'set_slots_v1', 'set_node_traits_v1', 'set_weight_v1', 'retract_v1', 'explain_task_v1',
        'explain_job_v1', 'explain_node_v1', 'quarantine_bundle_v1'],
    array['retracted_v1', 'self_test_v1'],
    array['tend_v1', 'age_v1', 'reserve_v1', 'judge_nodes_v1', 'block_reasons_v1']);

-- See 0010: what runs for every task goes by its indexes only. A switched-off way counts as
-- immensely expensive where there is no other (a table of one row has no index), and what is
-- expensive is compiled first: seen 313 ms of compiling for an update of one row, at every
-- sync. So nothing here is compiled. Nor may the claim read all of a shape's tasks by a
-- bitmap and sort them: in the order of the index the first few are all that it reads (seen:
-- 50,000 rows and 340 ms for four claims among 100,000 ready tasks, 17 ms without).
do $$
declare f record; s text;
begin
    for f in select p.oid::regprocedure as name from pg_proc p
            where p.pronamespace = 'public'::regnamespace and p.proname like '%\_v1' loop
        execute format('alter function %s set jit = off', f.name);
    end loop;
    foreach s in array array['seqscan', 'hashjoin', 'mergejoin', 'material'] loop
        execute format('alter function retracted_v1(jsonb) set enable_%s = off', s);
    end loop;
    alter function sync_v1(jsonb) set enable_bitmapscan = off;
end $$;
