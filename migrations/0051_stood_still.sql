-- A leader that stands still (a stopped process, a machine that hangs) keeps its session and
-- so the lock, for as long as its kernel answers keepalives. Whoever watched the ping stand
-- still may take over without the lock: safety is the epoch's alone. `still` is the ping
-- that was seen; when it has moved on, by a tick or by another takeover, nothing happens.
create or replace function takeover_v1(a jsonb) returns jsonb language plpgsql as $$
declare l leader;
begin
    update leader set epoch = epoch + 1, holder = a->>'holder', since = now(),
        ping_seq = ping_seq + 1, times = a->'times',
        grace_until_up_ms = greatest(grace_until_up_ms, up_ms + (a->>'grace_ms')::bigint)
    where a->>'still' is null or ping_seq = (a->>'still')::bigint
    returning * into l;
    if not found then return 'null'::jsonb; end if;
    perform emit('leader.takeover', null, null,
        jsonb_build_object('epoch', l.epoch, 'holder', l.holder, 'up_ms', l.up_ms));
    return to_jsonb(l.epoch);
end $$;

-- Until the first takeover the row tells the defaults, as it does of the older times.
update leader set times = jsonb_build_object('ageing_ms', 1800000, 'reserve_ms', 10000,
    'suspicion_ms', 600000) || times;

select secure_functions('{}', '{}', array['takeover_v1']);
