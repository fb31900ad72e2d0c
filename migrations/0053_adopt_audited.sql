-- Adoption leaves its marks: a row in the audit trail, and the ends of the workers that the
-- backup knew as events, like every other end. The numbers of publications go on beyond
-- those that were given, too: whoever noted one before the restore must not retract
-- another publication by it.
create or replace function adopt_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    leap constant bigint := 4294967296;
    -- People read the numbers of jobs and publications: a smaller leap, still more than a
    -- backup can miss.
    small_leap constant bigint := 1000000;
    l leader;
    w worker;
    c cluster;
    stale uuid;
    old_head bigint;
    before bytea;
    n integer;
    orphans integer := 0;
begin
    update leader set epoch = epoch + leap, holder = '', ping_seq = ping_seq + 1,
        grace_until_up_ms = greatest(grace_until_up_ms, up_ms + (times->>'lost_ms')::bigint)
    returning * into l;
    for w in select * from worker where state in ('active', 'draining') order by id for update loop
        update worker set state = 'gone', ended_at = now(), reserved_task = null,
            backfill_until_up_ms = null where id = w.id;
        -- Released: it did not die over its tasks.
        n := orphan_attempts(w, 'released', 'the database was restored');
        perform emit('worker.gone', null, null, jsonb_build_object('worker', w.id, 'attempts', n));
        orphans := orphans + n;
    end loop;
    update task set epoch = epoch + leap;
    perform setval(pg_get_serial_sequence('task', 'id'),
        nextval(pg_get_serial_sequence('task', 'id')) + leap);
    perform setval(pg_get_serial_sequence('worker', 'id'),
        nextval(pg_get_serial_sequence('worker', 'id')) + leap);
    perform setval(pg_get_serial_sequence('job', 'id'),
        nextval(pg_get_serial_sequence('job', 'id')) + small_leap);
    perform setval(pg_get_serial_sequence('publication', 'id'),
        nextval(pg_get_serial_sequence('publication', 'id')) + small_leap);
    select o.incarnation, sha256(convert_to(to_jsonb(o)::text, 'UTF8')) into stale, before
    from cluster o;
    update cluster set incarnation = gen_random_uuid() returning * into c;
    perform emit('adopted', null, null, jsonb_build_object('incarnation', c.incarnation,
        'leader_epoch', l.epoch, 'attempts', orphans));
    -- The next number begins a partition of its own.
    select head into old_head from event_head for update;
    update event_head set head = old_head + leap, partitioned_to = old_head + leap + 1;
    -- The owner of the database calls this, whom the service does not know: no principal,
    -- no address. Rows of the trail from behind the backup are lost with the rest; this one
    -- says where it was cut.
    perform write_audit(jsonb_build_object('ip', '', 'action', 'database.adopt', 'detail',
            jsonb_build_object('incarnation', c.incarnation, 'before', stale,
                'events_to', old_head, 'attempts', orphans)),
        'cluster/' || c.id, before, sha256(convert_to(to_jsonb(c)::text, 'UTF8')));
    return to_jsonb(c.incarnation);
end $$;

select secure_functions('{}', '{}', '{}');
