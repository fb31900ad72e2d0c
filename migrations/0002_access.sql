-- Who may do what. Secrets are stored as sha256: they have 256 random bits, so
-- nothing slower is needed. Passwords are hashed by the api (argon2id).

create table principal (
    id bigint generated always as identity primary key,
    kind text not null check (kind in ('user', 'service', 'node')),
    name text not null unique check (name <> ''),
    role text not null check (role in ('viewer', 'operator', 'admin', 'service')),
    password_hash text,
    disabled_at timestamptz,
    created_at timestamptz not null default now()
);

create table token (
    id bigint generated always as identity primary key,
    principal_id bigint not null references principal,
    hash bytea not null unique,
    label text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
);

create table session (
    id bigint generated always as identity primary key,
    principal_id bigint not null references principal,
    hash bytea not null unique,
    agent text not null,
    ip text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    last_seen timestamptz not null default now()
);
create index session_principal on session (principal_id);

-- One-time links. Without a principal it is the set-up link, whose bearer makes the
-- first administrator.
create table login_link (
    id bigint generated always as identity primary key,
    principal_id bigint references principal,
    hash bytea not null unique,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at timestamptz
);

create function secret_hash(secret text) returns bytea language sql immutable strict as $$
    select sha256(convert_to(secret, 'UTF8'))
$$;

create function principal_json(p principal) returns jsonb language sql stable as $$
    select jsonb_build_object('id', p.id, 'name', p.name, 'role', p.role,
        'disabled', p.disabled_at is not null)
$$;

create function create_principal_v1(a jsonb) returns jsonb language plpgsql as $$
declare p principal;
begin
    insert into principal (kind, name, role, password_hash)
    values (case when a->>'role' = 'service' then 'service' else 'user' end,
        a->>'name', a->>'role', a->>'password_hash')
    on conflict (name) do nothing returning * into p;
    if not found then
        raise exception 'name_taken' using errcode = 'TX409',
            detail = format('there is a principal named %s already', a->>'name');
    end if;
    perform emit('principal.created', null, null, principal_json(p));
    return principal_json(p);
end $$;

create function update_principal_v1(a jsonb) returns jsonb language plpgsql as $$
declare p principal;
begin
    update principal set
        role = coalesce(a->>'role', role),
        password_hash = coalesce(a->>'password_hash', password_hash),
        disabled_at = case (a->>'disabled')::boolean
            when true then coalesce(disabled_at, now()) when false then null else disabled_at end
    where id = (a->>'principal')::bigint returning * into p;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no principal %s', a->>'principal');
    end if;
    -- Nobody may lock everybody out.
    if not exists (select from principal where role = 'admin' and disabled_at is null) then
        raise exception 'last_admin' using errcode = 'TX409',
            detail = 'at least one enabled administrator must remain';
    end if;
    if p.disabled_at is not null then
        delete from session where principal_id = p.id;
    end if;
    return principal_json(p);
end $$;

create function create_token_v1(a jsonb) returns jsonb language plpgsql as $$
declare t bigint;
begin
    insert into token (principal_id, hash, label, expires_at)
    select p.id, secret_hash(a->>'secret'), a->>'label', to_timestamp((a->>'expires_at')::bigint)
    from principal p where p.id = (a->>'principal')::bigint and p.disabled_at is null
    returning id into t;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no enabled principal %s', a->>'principal');
    end if;
    return to_jsonb(t);
end $$;

-- The use is noted to the minute, so that a busy program does not write a row a call.
create function check_token_v1(a jsonb) returns jsonb language plpgsql as $$
declare p principal; t token;
begin
    select * into t from token where hash = secret_hash(a->>'secret')
        and revoked_at is null and (expires_at is null or expires_at > now());
    if not found then return 'null'; end if;
    select * into p from principal where id = t.principal_id and disabled_at is null;
    if not found then return 'null'; end if;
    update token set last_used_at = now() where id = t.id
        and (last_used_at is null or last_used_at < now() - interval '1 minute');
    return principal_json(p);
end $$;

create function revoke_token_v1(a jsonb) returns jsonb language plpgsql as $$
begin
    update token set revoked_at = coalesce(revoked_at, now())
    where id = (a->>'token')::bigint and principal_id = (a->>'principal')::bigint;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('principal %s has no token %s', a->>'principal', a->>'token');
    end if;
    return 'null';
end $$;

create function create_session_v1(a jsonb) returns jsonb language plpgsql as $$
declare s bigint;
begin
    insert into session (principal_id, hash, agent, ip, expires_at)
    select p.id, secret_hash(a->>'secret'), a->>'agent', a->>'ip',
        now() + make_interval(secs => (a->>'seconds')::double precision)
    from principal p where p.id = (a->>'principal')::bigint and p.disabled_at is null
    returning id into s;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no enabled principal %s', a->>'principal');
    end if;
    return to_jsonb(s);
end $$;

create function check_session_v1(a jsonb) returns jsonb language plpgsql as $$
declare s session; p principal;
begin
    select * into s from session where hash = secret_hash(a->>'secret') and expires_at > now();
    if not found then return 'null'; end if;
    select * into p from principal where id = s.principal_id and disabled_at is null;
    if not found then return 'null'; end if;
    update session set last_seen = now()
    where id = s.id and last_seen < now() - interval '1 minute';
    return jsonb_build_object('id', s.id, 'principal', principal_json(p),
        'expires_at', s.expires_at);
end $$;

create function end_session_v1(a jsonb) returns jsonb language plpgsql as $$
begin
    delete from session
    where id = (a->>'session')::bigint and principal_id = (a->>'principal')::bigint;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('principal %s has no session %s', a->>'principal', a->>'session');
    end if;
    return 'null';
end $$;

create function admin_exists() returns boolean language sql stable as $$
    select exists (select from principal where role = 'admin')
$$;

create function create_link_v1(a jsonb) returns jsonb language plpgsql as $$
declare l bigint; p constant bigint := (a->>'principal')::bigint;
begin
    if p is null then
        if admin_exists() then
            raise exception 'already_set_up' using errcode = 'TX409',
                detail = 'there is an administrator; make a link for a name instead';
        end if;
        delete from login_link where principal_id is null and used_at is null;
    elsif not exists (select from principal where id = p and disabled_at is null) then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no enabled principal %s', p);
    end if;
    insert into login_link (principal_id, hash, expires_at)
    values (p, secret_hash(a->>'secret'),
        now() + make_interval(secs => (a->>'seconds')::double precision))
    returning id into l;
    return to_jsonb(l);
end $$;

create function peek_link_v1(a jsonb) returns jsonb language plpgsql stable as $$
declare l login_link; p principal;
begin
    select * into l from login_link
    where hash = secret_hash(a->>'secret') and used_at is null and expires_at > now();
    if not found then return 'null'; end if;
    if l.principal_id is null then
        if admin_exists() then return 'null'; end if;
        return '{"principal": null}';
    end if;
    select * into p from principal where id = l.principal_id and disabled_at is null;
    if not found then return 'null'; end if;
    return jsonb_build_object('principal', principal_json(p));
end $$;

create function use_link_v1(a jsonb) returns jsonb language plpgsql as $$
declare l login_link; p principal;
begin
    -- The update is the lock: of two bearers of one link the second finds it used.
    update login_link set used_at = now()
    where hash = secret_hash(a->>'secret') and used_at is null and expires_at > now()
    returning * into l;
    if not found then return 'null'; end if;
    if l.principal_id is null then
        if admin_exists() or a->>'name' is null then
            raise exception 'already_set_up' using errcode = 'TX409',
                detail = 'a set-up link makes the first administrator, and needs a name';
        end if;
        return create_principal_v1(jsonb_build_object('name', a->>'name', 'role', 'admin',
            'password_hash', a->>'password_hash'));
    end if;
    select * into p from principal where id = l.principal_id and disabled_at is null;
    if not found then return 'null'; end if;
    return principal_json(p);
end $$;

-- The audit trail: append only, and each row's hash covers the one before it.
create table audit (
    seq bigint primary key,
    at timestamptz not null,
    principal_id bigint,
    ip text not null,
    action text not null,
    object text not null,
    detail jsonb not null,
    prev_hash bytea not null,
    hash bytea not null
);
create table audit_head (
    only_row boolean primary key default true check (only_row),
    seq bigint not null default 0,
    hash bytea not null default '\x'
);
insert into audit_head default values;

create function audit_is_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'the audit trail is append only';
end $$;
create trigger audit_append_only before update or delete or truncate on audit
    for each statement execute function audit_is_append_only();

create function audit_hash(a audit) returns bytea language sql stable as $$
    select sha256(a.prev_hash || convert_to(jsonb_build_array(a.seq,
        extract(epoch from a.at), a.principal_id, a.ip, a.action, a.object, a.detail)::text, 'UTF8'))
$$;

create function audit_v1(a jsonb) returns jsonb language plpgsql as $$
declare h audit_head; r audit;
begin
    select * into h from audit_head for update;
    r := row(h.seq + 1, clock_timestamp(), (a->>'principal')::bigint, a->>'ip', a->>'action',
        a->>'object', coalesce(a->'detail', 'null'), h.hash, '\x'::bytea);
    r.hash := audit_hash(r);
    insert into audit select r.*;
    update audit_head set seq = r.seq, hash = r.hash;
    return to_jsonb(r.seq);
end $$;

-- The first row that does not fit the chain; null when all do.
create function audit_verify_v1() returns jsonb language sql stable as $$
    select coalesce((select to_jsonb(min(bad)) from (
        select x.seq as bad from (
            select a.*, lag(a.hash, 1, '\x'::bytea) over (order by a.seq) as expected,
                lag(a.seq, 1, 0::bigint) over (order by a.seq) as before
            from audit a) x
        where x.prev_hash <> x.expected or x.seq <> x.before + 1
        union all
        select a.seq from audit a where a.hash <> audit_hash(a)
        union all
        select h.seq from audit_head h
        where h.seq <> coalesce((select max(seq) from audit), 0)) b), 'null')
$$;
