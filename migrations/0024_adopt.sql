-- After a restore from a backup, or the promotion of a replica that lagged: numbers that
-- were given after the backup are known outside and must never be given again.

-- Makes this database another cluster. Workers see another incarnation at their next beat
-- and drop what they run, as if they were marked; epochs, event numbers and ids of what
-- the shares name go on far beyond anything that can have been given. An old leader's
-- epoch is over.
create function adopt_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    leap constant bigint := 4294967296;
    l leader;
    w worker;
    fresh uuid;
    orphans integer := 0;
begin
    update leader set epoch = epoch + leap, holder = '', ping_seq = ping_seq + 1,
        grace_until_up_ms = greatest(grace_until_up_ms, up_ms + (times->>'lost_ms')::bigint)
    returning * into l;
    for w in select * from worker where state in ('active', 'draining') order by id for update loop
        update worker set state = 'gone', ended_at = now(), reserved_task = null,
            backfill_until_up_ms = null where id = w.id;
        -- Released: it did not die over its tasks.
        orphans := orphans + orphan_attempts(w, 'released', 'the database was restored');
    end loop;
    update task set epoch = epoch + leap;
    perform setval(pg_get_serial_sequence('task', 'id'),
        nextval(pg_get_serial_sequence('task', 'id')) + leap);
    perform setval(pg_get_serial_sequence('worker', 'id'),
        nextval(pg_get_serial_sequence('worker', 'id')) + leap);
    -- People read the numbers of jobs: a smaller leap, still more than a backup can miss.
    perform setval(pg_get_serial_sequence('job', 'id'),
        nextval(pg_get_serial_sequence('job', 'id')) + 1000000);
    update cluster set incarnation = gen_random_uuid() returning incarnation into fresh;
    perform emit('adopted', null, null, jsonb_build_object('incarnation', fresh,
        'leader_epoch', l.epoch, 'attempts', orphans));
    -- The next number begins a partition of its own.
    update event_head set head = head + leap, partitioned_to = head + leap + 1;
    return to_jsonb(fresh);
end $$;
