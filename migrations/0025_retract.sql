-- Retracting a publication: a job with one task, which a worker runs over the share's
-- handle. The files go first and the state follows, as with publishing; the task is
-- repeated until both agree. Publishing the same again is a submit: it finds everything
-- in the cache, and makes a new version, because the retracted one is not current.

alter table publication add column retract_job bigint references job;

create function retract(a jsonb) returns jsonb language plpgsql as $$
declare
    p publication;
    old job;
    j job;
    n bigint;
begin
    select * into p from publication where id = (a->>'publication')::bigint for no key update;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no publication %s', a->>'publication');
    end if;
    select * into old from job where id = p.retract_job;
    if old.state not in ('failed', 'cancelled') then
        -- Under way, or done.
        return jsonb_build_object('job', old.id, 'created', false);
    end if;
    if publication_after(p.state, 'retract') is null then
        perform illegal('publication', p.id, p.state, 'retract');
    end if;
    select o.* into old from task t join job o on o.id = t.job_id where t.id = p.task_id;
    select count(*) into n from job o where o.principal_id = (a->>'principal')::bigint
        and o.submit_key like format('retract/%s/%%', p.id);
    insert into job (title_id, profile_id, principal_id, submit_key, request_hash, request, sources,
        engine, band)
    values (old.title_id, old.profile_id, (a->>'principal')::bigint, format('retract/%s/%s', p.id, n + 1),
        sha256(convert_to(format('retract/%s', p.id), 'UTF8')),
        jsonb_build_object('retract', p.id), old.sources, old.engine, 8)
    returning * into j;
    update publication set retract_job = j.id where id = p.id;
    perform emit('job.accepted', j.id, null, jsonb_build_object('retract', p.id));
    perform append_tasks(j.id, 0::smallint, jsonb_build_array(jsonb_build_object(
        'name', 'retract', 'kind', 'retract', 'needs', '[]'::jsonb, 'inputs', '[]'::jsonb,
        'outputs', '[]'::jsonb, 'shares', jsonb_build_array(p.share),
        'cost', '{"mcpu": 100, "ram": 16777216, "scratch": 0, "estimate_ms": 1000}'::jsonb,
        'spec', jsonb_build_object('kind', 'retract', 'publication', p.id, 'share', p.share,
            'target', p.target, 'version', p.version))));
    -- There is nothing to plan.
    update job set planned = true where id = j.id;
    perform move_job(j.id, 'planned');
    return jsonb_build_object('job', j.id, 'created', true);
end $$;

create function retract_v1(a jsonb) returns jsonb language sql as
    $$ select audited('retract', 'publication', a->>'publication', a) $$;

-- The folder is out of sight. Repeating it is harmless.
create function retracted_v1(a jsonb) returns jsonb language plpgsql as $$
declare t task; p publication;
begin
    t := fenced(a);
    if t.kind <> 'retract' then
        raise exception 'not_a_retract' using errcode = 'TX409',
            detail = format('task %s retracts nothing', t.id);
    end if;
    select * into p from publication where id = (t.spec->>'publication')::bigint for no key update;
    if p.state = 'retracted' then return 'null'; end if;
    perform move_publication(p.id, 'retract');
    update publication set current = false where id = p.id;
    return 'null';
end $$;
