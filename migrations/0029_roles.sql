-- Who may call what of 0020 to 0026. A function that was replaced has lost its settings, so
-- all are set again.
select secure_functions(
    array['cordon_v1', 'uncordon_v1', 'drain_node_v1', 'undrain_node_v1', 'hold_v1', 'lift_v1',
        'set_slots_v1', 'set_node_traits_v1', 'set_weight_v1', 'retract_v1', 'explain_task_v1',
        'explain_job_v1', 'explain_node_v1', 'quarantine_bundle_v1'],
    array['retracted_v1', 'self_test_v1'],
    array['tend_v1', 'age_v1', 'reserve_v1', 'judge_nodes_v1', 'block_reasons_v1']);

-- See 0010: what runs for every task goes by its indexes only.
do $$
declare s text;
begin
    foreach s in array array['seqscan', 'hashjoin', 'mergejoin', 'material'] loop
        execute format('alter function retracted_v1(jsonb) set enable_%s = off', s);
    end loop;
end $$;
