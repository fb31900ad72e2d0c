-- How the leader tends the queue and the fleet.

-- Takes out of the queue what paused and failed jobs hold, moves virtual time on, and
-- drops slots that a lowered limit left over. Gives the number of tasks taken out.
create function tend_v1(a jsonb) returns jsonb language plpgsql as $$
declare n integer := 0; m integer; j bigint;
begin
    perform leads((a->>'epoch')::bigint);
    -- The job first and then its tasks, against the order of locks: so both are skipped
    -- where they are in use, until the next pass. While the job is locked it cannot be
    -- resumed, which would leave tasks parked for good.
    for j in select o.id from job o where o.to_park and not hands_out(o.state)
            order by o.id limit 100 for no key update skip locked loop
        with locked as (
            select id from task where job_id = j and state = 'ready' and not parked and not roll_forward
            order by id for no key update skip locked
        )
        update task set parked = true from locked where task.id = locked.id;
        get diagnostics m = row_count;
        n := n + m;
        update job set to_park = false where id = j and not exists (select from task t
            where t.job_id = j and t.state = 'ready' and not t.parked and not t.roll_forward);
    end loop;
    -- What is served is the present. It never goes back: a job that is resumed after a
    -- long time is served soon, and nobody else's present changes.
    update fair set vtime = x.v from (
        select min(t.rank) as v from attempt at join task t on t.id = at.task_id
        where at.state = 'running') x
    where x.v > fair.vtime;
    delete from share_slot o using share s
    where s.name = o.share and o.task_id is null
        and o.n > case o.mode when 'read' then s.read_slots else s.write_slots end;
    return to_jsonb(n);
end $$;

-- Ageing: what has waited for so long in its class goes up by one, and so on up to the
-- highest, where its early rank puts it first. So nothing waits for ever behind a stream
-- of more urgent work: a task of band b is among the first of all after (9 - b) times the
-- ageing time. Time in which its job was paused or it was delayed does not count.
create function age_v1(a jsonb) returns jsonb language plpgsql as $$
declare l leader; n integer;
begin
    l := leads((a->>'epoch')::bigint);
    with old as (
        select id from task where state = 'ready' and deps_left = 0 and held_by is null
            and not parked and band < 9 and not_before_up_ms = 0
            and aged_up_ms <= l.up_ms - coalesce((l.times->>'ageing_ms')::bigint, 1800000)
        order by aged_up_ms limit 1000 for no key update skip locked
    )
    update task t set band = t.band + 1, aged_up_ms = l.up_ms from old where t.id = old.id;
    get diagnostics n = row_count;
    if n > 0 then
        perform emit('queue.aged', null, null, jsonb_build_object('tasks', n));
    end if;
    return to_jsonb(n);
end $$;

-- What a worker has left when only what the database gave it is counted.
create function room(w worker, out mcpu bigint, out ram bigint, out scratch bigint, out gpu bigint)
language sql stable as $$
    select w.cap_mcpu - coalesce(sum(r.need_mcpu), 0), w.cap_ram - coalesce(sum(r.need_ram), 0),
        w.cap_scratch - coalesce(sum(r.need_scratch), 0),
        (select n.gpu from node n where n.id = w.node_id) - coalesce(sum(r.need_gpu), 0)
    from attempt at join task r on r.id = at.task_id
    where at.worker_id = w.id and at.state = 'running'
$$;

-- In how many milliseconds enough of the worker is free for the task, by the estimates of
-- what runs there; 0 when it is now. An attempt that says how far it is is believed, for
-- others the clock counts: a clock that jumps makes the back-fill a little better or worse.
create function free_in_ms(w worker, t task) returns bigint language sql stable as $$
    with ends as (
        select at.task_id, r.need_mcpu, r.need_ram, r.need_scratch, r.need_gpu,
            greatest(0, case when (p.progress->>'total')::numeric > 0
                then wall_ms(r.est_ms, r.need_mcpu)
                    * (1 - least(1, (p.progress->>'done')::numeric / (p.progress->>'total')::numeric))
                else wall_ms(r.est_ms, r.need_mcpu)
                    - extract(epoch from clock_timestamp() - at.started_at) * 1000 end)::bigint as in_ms
        from attempt at join task r on r.id = at.task_id
        left join attempt_progress p on p.task_id = at.task_id and p.epoch = at.epoch
        where at.worker_id = w.id and at.state = 'running'
    ), freed as (
        select in_ms, sum(need_mcpu) over o as mcpu, sum(need_ram) over o as ram,
            sum(need_scratch) over o as scratch, sum(need_gpu) over o as gpu
        from ends window o as (order by in_ms, task_id)
        union all select 0, 0, 0, 0, 0
    )
    select min(f.in_ms) from freed f, room(w) x
    where x.mcpu + f.mcpu >= t.need_mcpu and x.ram + f.ram >= t.need_ram
        and x.scratch + f.scratch >= t.need_scratch and x.gpu + f.gpu >= t.need_gpu
$$;

-- Reservations: a task that no worker has room for, because smaller ones always take what
-- gets free, gets a worker to itself. Until enough of it is free, only such tasks slip in
-- there as are over by then. At most half of the workers are reserved.
create function reserve_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    l leader;
    w worker;
    t task;
    reserved integer := 0;
    live constant integer := (select count(*) from worker where state = 'active');
begin
    l := leads((a->>'epoch')::bigint);
    for w in select * from worker where reserved_task is not null and state in ('active', 'draining')
            order by id for no key update skip locked loop
        select * into t from task where id = w.reserved_task and state = 'ready' and deps_left = 0
            and held_by is null and not parked
            and (roll_forward or hands_out((select state from job where job.id = task.job_id)));
        if t.id is null or not could_run(w, t) then
            update worker set reserved_task = null, backfill_until_up_ms = null where id = w.id;
            perform emit('worker.unreserved', null, w.reserved_task, jsonb_build_object('worker', w.id));
        else
            update worker set backfill_until_up_ms = l.up_ms + coalesce(free_in_ms(w, t), 0)
            where id = w.id;
            reserved := reserved + 1;
        end if;
    end loop;

    for t in
        with recursive live(shape) as (
            (select q.shape from task q where q.state = 'ready' and q.deps_left = 0
                and q.held_by is null and not q.parked and q.not_before_up_ms = 0
                order by q.shape limit 1)
            union all
            select (select q.shape from task q where q.state = 'ready' and q.deps_left = 0
                and q.held_by is null and not q.parked and q.not_before_up_ms = 0
                and q.shape > live.shape order by q.shape limit 1)
            from live where live.shape is not null
        )
        select c.* from live join shape s on s.id = live.shape cross join lateral (
            select q.* from task q where q.shape = s.id and q.state = 'ready' and q.deps_left = 0
                and q.held_by is null and not q.parked and q.not_before_up_ms = 0
                and (q.roll_forward or hands_out((select j.state from job j where j.id = q.job_id)))
            order by q.band desc, q.rank, q.id limit 4) c
        where not exists (select from hold h where h.scope = 'all'
                or h.scope = 'kind' and h.name = s.kind)
            and l.up_ms - c.ready_up_ms >= coalesce((l.times->>'reserve_ms')::bigint, 10000)
            and not exists (select from worker o where o.reserved_task = c.id)
            -- Waiting for a slot, or for its twin: a worker of its own would not help.
            and coalesce(c.block_reason, '') not like 'slots:%' and not twin_runs(c.id)
        order by c.band desc, c.rank, c.id limit 16
    loop
        exit when reserved >= greatest(1, live / 2);
        -- Where it has room it is claimed by itself.
        continue when exists (select from worker o where o.state = 'active'
            and o.reserved_task is null and could_run(o, t) and free_in_ms(o, t) = 0);
        -- In a full fleet everything waits. Where each attempt that ends makes room enough, the
        -- order of the queue is all that is needed: only larger tasks can be passed by.
        continue when exists (
            select from worker o join attempt at on at.worker_id = o.id and at.state = 'running'
            join task r on r.id = at.task_id
            where o.state = 'active' and o.reserved_task is null and could_run(o, t)
            group by o.id
            having min(r.need_mcpu) >= t.need_mcpu and min(r.need_ram) >= t.need_ram
                and min(r.need_scratch) >= t.need_scratch and min(r.need_gpu) >= t.need_gpu);
        select o.* into w from worker o where o.state = 'active' and o.reserved_task is null
            and could_run(o, t)
        order by free_in_ms(o, t), o.id limit 1;
        continue when not found;
        update worker set reserved_task = t.id, backfill_until_up_ms = l.up_ms + free_in_ms(w, t)
        where id = w.id and state = 'active' and reserved_task is null;
        continue when not found;
        reserved := reserved + 1;
        perform emit('worker.reserved', t.job_id, t.id, jsonb_build_object('worker', w.id,
            'backfill_ms', free_in_ms(w, t)));
    end loop;
    return to_jsonb(reserved);
end $$;

-- What is held against each node that has a worker, from the records of the window:
-- a share counts only where others have it, because else it is the share's fault.
create function node_blame(since_up_ms bigint)
returns table (node_id bigint, ended bigint, suspect bigint, tasks bigint, last_ended bigint, last_suspect bigint)
language sql stable as $$
    with judged as materialized (
        select r.id, r.node_id, r.task_id, r.suspicion is not null and (
                r.suspicion not like 'share:%' or exists (
                    select from worker o where o.state = 'active' and o.node_id <> r.node_id
                        and substr(r.suspicion, 7) = any(o.shares_ok))) as bad
        from node_record r where r.up_ms >= since_up_ms
    ), numbered as (
        select j.*, row_number() over (partition by j.node_id order by j.id desc) as back from judged j
    )
    select n.id, count(b.id), count(b.id) filter (where b.bad),
        count(distinct b.task_id) filter (where b.bad),
        count(b.id) filter (where b.back <= 20), count(b.id) filter (where b.bad and b.back <= 20)
    from node n left join numbered b on b.node_id = n.id
    where n.state = 'cordoned' and n.cordoned_by = 'leader'
        or exists (select from worker w where w.node_id = n.id and w.state = 'active')
    group by n.id
$$;

-- How many nodes the leader may close: beyond that not the nodes are ill.
create function cordon_quota() returns bigint language sql stable as $$
    select greatest(1, floor(0.3 * count(*)))::bigint from node n
    where exists (select from worker w where w.node_id = n.id and w.state = 'active')
$$;

-- Closes nodes that fail where others do not: at least three tasks, or more than 30 % of
-- the last twenty attempts, while less than 5 % fail elsewhere. When more nodes look bad
-- than may be closed the work is at fault: then the kind of task is stopped instead, which
-- an operator lifts.
create function judge_nodes_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    l leader;
    since bigint;
    b record;
    n node;
    worst record;
    cordoned jsonb := '[]';
    held jsonb := '[]';
    closed integer;
    bad integer;
begin
    l := leads((a->>'epoch')::bigint);
    since := l.up_ms - coalesce((l.times->>'suspicion_ms')::bigint, 600000);
    delete from node_record where up_ms < since;
    select count(*) into closed from node where state = 'cordoned' and cordoned_by = 'leader';
    select count(*) into bad from node_blame(since) x join node o on o.id = x.node_id
    where o.state = 'ok' and (x.tasks >= 3 or x.last_ended >= 20 and x.last_suspect * 10 > x.last_ended * 3);
    if bad = 0 then
        return jsonb_build_object('cordoned', cordoned, 'held', held);
    end if;
    if closed + bad > cordon_quota() then
        select r.kind, count(*) as suspect into worst from node_record r
        where r.up_ms >= since and r.suspicion is not null and r.suspicion not like 'share:%'
            and not exists (select from hold h where h.scope = 'kind' and h.name = r.kind)
        group by r.kind having count(distinct r.task_id) >= 3
        order by count(*) desc, r.kind limit 1;
        if found then
            perform set_hold(jsonb_build_object('scope', 'kind', 'name', worst.kind, 'by', 'leader',
                'reason', format('%s attempts failed on %s nodes within %s s', worst.suspect,
                    closed + bad, (l.up_ms - since) / 1000)));
            perform emit('alarm', null, null, jsonb_build_object('code', 'systemic_failure',
                'kind', worst.kind, 'attempts', worst.suspect, 'nodes', closed + bad));
            held := held || to_jsonb(worst.kind);
        end if;
        return jsonb_build_object('cordoned', cordoned, 'held', held);
    end if;
    for b in
        select x.*, (select coalesce(sum(y.suspect), 0) from node_blame(since) y where y.node_id <> x.node_id) as theirs,
            (select coalesce(sum(y.ended), 0) from node_blame(since) y where y.node_id <> x.node_id) as all_theirs
        from node_blame(since) x
        where x.tasks >= 3 or x.last_ended >= 20 and x.last_suspect * 10 > x.last_ended * 3
        order by x.node_id
    loop
        -- Nobody else to compare with: it may as well be the work.
        continue when b.all_theirs = 0 or b.theirs * 20 >= b.all_theirs;
        select * into n from node where id = b.node_id for no key update;
        continue when n.state <> 'ok';
        perform move_node(n.id, 'cordon', format('%s of its last %s attempts failed, %s of %s elsewhere',
            b.suspect, b.ended, b.theirs, b.all_theirs), 'leader');
        cordoned := cordoned || to_jsonb(n.name);
    end loop;
    return jsonb_build_object('cordoned', cordoned, 'held', held);
end $$;

-- A worker tells what its known-answer self-test gave. The second that passes in a row
-- opens a node that the leader closed; one that fails closes it, because a machine that
-- makes other bytes than it should must not make any.
create function self_test_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    w worker;
    n node;
    passed constant boolean := a->>'digest' = a->>'expected';
begin
    w := living_worker(a);
    if w.id is null then
        raise exception 'refused' using errcode = 'TX403',
            detail = format('worker %s was marked', a->>'worker');
    end if;
    select * into n from node where id = w.node_id for no key update;
    update node set self_tests = case when passed then self_tests + 1 else 0 end,
        self_test_up_ms = (select up_ms from leader)
    where id = n.id returning * into n;
    perform emit('node.self_test', null, null, jsonb_build_object('node', n.name,
        'worker', w.id, 'passed', passed, 'digest', a->'digest'));
    if passed and n.state = 'cordoned' and n.cordoned_by = 'leader' and n.self_tests >= 2 then
        delete from node_record where node_id = n.id;
        n := move_node(n.id, 'uncordon');
    elsif not passed and n.state = 'ok' then
        -- The quota is for suspicion; this is proof, of at least this machine.
        n := move_node(n.id, 'cordon', 'its self-test gave other bytes', 'leader');
    end if;
    return to_jsonb(n.state);
end $$;

-- Writes why ready tasks are not claimed, in one word each. Looked at by what tasks need
-- and not by task.
create or replace function block_reasons_v1(a jsonb) returns jsonb language plpgsql as $$
declare l leader; n integer;
begin
    l := leads((a->>'epoch')::bigint);
    with live as materialized (
        select w.*, n.caps, n.gpu, n.state as node_state, exists (select from hold h
            where h.scope = 'node' and h.name = n.name) as node_held
        from worker w join node n on n.id = w.node_id where w.state = 'active'
    ), queue as materialized (
        select t.id, t.shape, t.need_mcpu, t.need_ram, t.need_scratch, t.kind, t.held_by,
            t.not_before_up_ms, t.block_reason, j.state as job_state
        from task t join job j on j.id = t.job_id
        where t.state = 'ready' and t.deps_left = 0
            and j.state in ('accepted', 'inspecting', 'running', 'waiting_gate', 'paused')
    ), needs as materialized (
        select distinct q.shape, q.need_mcpu, q.need_ram, q.need_scratch from queue q
    ), by_needs as materialized (
        select q.*, case
            when not exists (select from live) then 'no_worker'
            when not exists (select from live w where s.engine in ('', w.engine)) then 'engine'
            when not exists (select from live w where s.reads <@ w.shares_ok and s.writes <@ w.shares_ok) then
                'share:' || coalesce((select x from unnest(s.reads || s.writes) x where not exists (
                    select from live w where x = any(w.shares_ok)) order by 1 limit 1), (s.reads || s.writes)[1])
            when not exists (select from live w where s.caps <@ w.caps) then 'caps'
            when not exists (select from live w where s.gpu <= w.gpu) then 'gpu'
            when not exists (select from live w where q.need_mcpu <= w.cap_mcpu
                and q.need_ram <= w.cap_ram and q.need_scratch <= w.cap_scratch) then 'resources'
            when not exists (select from live w where w.node_state = 'ok' and not w.node_held
                and s.engine in ('', w.engine) and s.reads <@ w.shares_ok and s.writes <@ w.shares_ok
                and s.caps <@ w.caps and s.gpu <= w.gpu and q.need_mcpu <= w.cap_mcpu
                and q.need_ram <= w.cap_ram and q.need_scratch <= w.cap_scratch) then 'no_node'
            when exists (select from share_slot o where o.share = any(s.reads) and o.mode = 'read'
                    or o.share = any(s.writes) and o.mode = 'write'
                    group by o.share, o.mode having bool_and(o.task_id is not null)) then
                (select format('slots:%s:%s', o.share, o.mode) from share_slot o
                    where o.share = any(s.reads) and o.mode = 'read'
                        or o.share = any(s.writes) and o.mode = 'write'
                    group by o.share, o.mode having bool_and(o.task_id is not null) order by 1 limit 1)
            end as why
        from needs q join shape s on s.id = q.shape
    ), reason as materialized (
        select q.id, q.block_reason, case
            when q.job_state = 'paused' then 'paused'
            when exists (select from hold h where h.scope = 'all') then 'paused_all'
            when exists (select from hold h where h.scope = 'kind' and h.name = q.kind) then 'paused_kind'
            when q.held_by is not null then 'held'
            when q.not_before_up_ms > l.up_ms then 'delayed'
            else b.why end as why
        from queue q join by_needs b using (shape, need_mcpu, need_ram, need_scratch)
    ), locked as (
        select t.id from task t join reason r on r.id = t.id
        where t.block_reason is distinct from r.why and t.state = 'ready'
        order by t.id for no key update of t skip locked
    ), changed as (
        update task t set block_reason = r.why from reason r, locked k
        where t.id = r.id and t.id = k.id returning t.id
    )
    select count(*) into n from changed;
    return to_jsonb(n);
end $$;
