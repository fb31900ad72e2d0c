-- The operator's verbs beyond those about one job. Each repeats harmlessly, and is audited
-- as in 0011.

-- What else is changed by somebody. A hold has no id: its scope and name are one.
create or replace function object_hash(kind text, id text) returns bytea language plpgsql as $$
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
    elsif kind = 'hold' then
        select to_jsonb(o) into r from hold o where rtrim(o.scope || '/' || o.name, '/') = object_hash.id
            for no key update;
    elsif kind = 'worker' then
        -- Not what every beat writes.
        select jsonb_build_object('id', o.id, 'state', o.state) into r from worker o
        where o.id = object_hash.id::bigint for no key update;
    elsif kind in ('principal', 'token', 'session', 'login_link', 'publication') then
        execute format('select to_jsonb(o) from %I o where o.id = $1 for no key update', kind)
            into r using object_hash.id::bigint;
    else
        raise exception 'objects of kind % are not audited', kind;
    end if;
    return sha256(convert_to(r::text, 'UTF8'));
end $$;

create function node_after(state text, event text) returns text
language sql immutable parallel safe as $$
    select case event
        when 'cordon' then case when state = 'ok' then 'cordoned' end
        when 'uncordon' then case when state = 'cordoned' then 'ok' end
        when 'drain' then case when state in ('ok', 'cordoned') then 'drained' end
        when 'undrain' then case when state = 'drained' then 'ok' end
    end
$$;

-- The one place where a node changes its state.
create function move_node(id bigint, event text, reason text default null, by text default null)
returns node language plpgsql as $$
declare n node; old text;
begin
    select * into n from node where node.id = move_node.id for no key update;
    old := n.state;
    if node_after(old, event) is null then
        perform illegal('node', move_node.id, old, event);
    end if;
    update node set state = node_after(old, event),
        cordon_reason = case when node_after(old, event) <> 'ok' then reason end,
        cordoned_by = case when node_after(old, event) = 'cordoned' then move_node.by end,
        self_tests = 0
    where node.id = move_node.id returning * into n;
    perform emit('node.state', null, null, jsonb_build_object('node', n.name, 'from', old,
        'to', n.state, 'reason', reason, 'by', by));
    return n;
end $$;

create function node_named(name text) returns node language plpgsql as $$
declare n node;
begin
    select * into n from node where node.name = node_named.name for no key update;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no node %s', name);
    end if;
    return n;
end $$;

-- Claims nothing any more; what runs there goes on, and its worker stays. Until an
-- operator opens it again, also if the leader had closed it.
create function cordon(a jsonb) returns jsonb language plpgsql as $$
declare n node;
begin
    n := node_named(a->>'node');
    if n.state = 'ok' then
        n := move_node(n.id, 'cordon', a->>'reason', 'operator');
    elsif n.state = 'cordoned' then
        update node set cordoned_by = 'operator', cordon_reason = a->>'reason' where id = n.id;
    else
        perform illegal('node', n.id, n.state, 'cordon');
    end if;
    return to_jsonb(n.state);
end $$;

create function uncordon(a jsonb) returns jsonb language plpgsql as $$
declare n node;
begin
    n := node_named(a->>'node');
    if n.state <> 'ok' then n := move_node(n.id, 'uncordon'); end if;
    -- The leader judges by what happens from now on.
    delete from node_record where node_id = n.id;
    return to_jsonb(n.state);
end $$;

-- Claims nothing any more, ends what runs, and its worker leaves.
create function drain_node(a jsonb) returns jsonb language plpgsql as $$
declare n node;
begin
    n := node_named(a->>'node');
    if n.state <> 'drained' then n := move_node(n.id, 'drain', a->>'reason', 'operator'); end if;
    return to_jsonb(n.state);
end $$;

-- Takes the drain back, of the node and of its worker if that has not left yet.
create function undrain_node(a jsonb) returns jsonb language plpgsql as $$
declare n node; w bigint;
begin
    for w in select o.id from worker o join node m on m.id = o.node_id
            where m.name = a->>'node' and o.state = 'draining'
            order by o.id for no key update of o loop
        update worker set state = 'active' where id = w;
        perform emit('worker.active', null, null, jsonb_build_object('worker', w));
    end loop;
    n := node_named(a->>'node');
    if n.state = 'drained' then n := move_node(n.id, 'undrain'); end if;
    return to_jsonb(n.state);
end $$;

-- Stops the handing out of everything, of a kind of task, or to a node, until lifted.
create function set_hold(a jsonb) returns jsonb language plpgsql as $$
declare who constant text := coalesce(a->>'by', 'operator');
begin
    if a->>'scope' = 'node' then perform node_named(a->>'name'); end if;
    insert into hold (scope, name, reason, by)
    values (a->>'scope', coalesce(a->>'name', ''), coalesce(a->>'reason', ''), who)
    on conflict do nothing;
    if found then
        perform emit('hold.set', null, null, jsonb_build_object('scope', a->>'scope',
            'name', coalesce(a->>'name', ''), 'reason', coalesce(a->>'reason', ''), 'by', who));
    end if;
    return 'null';
end $$;

create function lift_hold(a jsonb) returns jsonb language plpgsql as $$
declare gone boolean;
begin
    delete from hold where scope = a->>'scope' and name = coalesce(a->>'name', '');
    gone := found;
    if gone then
        perform emit('hold.lifted', null, null, jsonb_build_object('scope', a->>'scope',
            'name', coalesce(a->>'name', '')));
        -- What made the leader stop a kind must not make it stop it again at once.
        delete from node_record where a->>'scope' = 'kind' and kind = a->>'name';
    end if;
    return to_jsonb(gone);
end $$;

-- How many attempts may read a share and write to it at once; null for as many as like.
-- Slots above a lowered limit go when they are free.
create function set_slots(a jsonb) returns jsonb language plpgsql as $$
declare m text; k integer;
begin
    if least((a->>'read')::integer, (a->>'write')::integer) < 1 then
        raise exception 'slots_invalid' using errcode = 'TX409',
            detail = 'a share has at least one slot, or no limit';
    end if;
    update share set read_slots = (a->>'read')::integer, write_slots = (a->>'write')::integer
    where name = a->>'share';
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no share %s', a->>'share');
    end if;
    foreach m in array array['read', 'write'] loop
        k := (a->>m)::integer;
        delete from share_slot where share = a->>'share' and mode = m
            and (k is null or n > k and task_id is null);
        insert into share_slot (share, mode, n)
        select a->>'share', m, i from generate_series(1, k) i on conflict do nothing;
    end loop;
    perform emit('share.slots', null, null, jsonb_build_object('share', a->'share',
        'read', a->'read', 'write', a->'write'));
    return 'null';
end $$;

-- What a node has that not every node has.
create function set_node_traits(a jsonb) returns jsonb language plpgsql as $$
declare n node;
begin
    n := node_named(a->>'node');
    update node set caps = names(a->'caps'), gpu = (a->>'gpu')::bigint where id = n.id;
    perform emit('node.traits', null, null,
        jsonb_build_object('node', n.name, 'caps', a->'caps', 'gpu', a->'gpu'));
    return 'null';
end $$;

-- A principal's share of the fleet, for what it submits from now on.
create function set_weight(a jsonb) returns jsonb language plpgsql as $$
begin
    update principal set weight = (a->>'weight')::integer where id = (a->>'principal')::bigint;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no principal %s', a->>'principal');
    end if;
    return 'null';
end $$;

create function cordon_v1(a jsonb) returns jsonb language sql as
    $$ select audited('cordon', 'node', a->>'node', a) $$;
create function uncordon_v1(a jsonb) returns jsonb language sql as
    $$ select audited('uncordon', 'node', a->>'node', a) $$;
create function drain_node_v1(a jsonb) returns jsonb language sql as
    $$ select audited('drain_node', 'node', a->>'node', a) $$;
create function undrain_node_v1(a jsonb) returns jsonb language sql as
    $$ select audited('undrain_node', 'node', a->>'node', a) $$;
-- The hold says who set it: whoever the trail names.
create function hold_v1(a jsonb) returns jsonb language sql as $$
    select audited('set_hold', 'hold', concat_ws('/', a->>'scope', a->>'name'),
        a || jsonb_build_object('by', (select p.name from principal p
            where p.id = (a#>>'{audit,principal}')::bigint)))
$$;
create function lift_v1(a jsonb) returns jsonb language sql as
    $$ select audited('lift_hold', 'hold', concat_ws('/', a->>'scope', a->>'name'), a) $$;
create function set_slots_v1(a jsonb) returns jsonb language sql as
    $$ select audited('set_slots', 'share', a->>'share', a) $$;
create function set_node_traits_v1(a jsonb) returns jsonb language sql as
    $$ select audited('set_node_traits', 'node', a->>'node', a) $$;
create function set_weight_v1(a jsonb) returns jsonb language sql as
    $$ select audited('set_weight', 'principal', a->>'principal', a) $$;
