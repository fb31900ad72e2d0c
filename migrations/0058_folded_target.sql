-- Two targets that a file system takes for one are one, and the second is refused before
-- anything is encoded for it. The worker and the dispatcher fold the target as the names are
-- folded (trix_model::path::fold): the database's lower() knows case, and no composed letters.

alter table publication add column folded_target text;
update publication set folded_target = lower(target);
create index publication_folded on publication (share, folded_target);

create or replace function prepare_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    t task;
    p publication;
    m constant jsonb := a->'manifest';
    h constant bytea := sha256(convert_to((a->'manifest')::text, 'UTF8'));
    taken text;
begin
    t := fenced(a);
    select * into p from publication where id = t.publication_id for no key update;
    if p.state in ('prepared', 'moving', 'published') then
        if p.manifest_hash <> h then
            raise exception 'manifest_changed' using errcode = 'TX409', detail = format(
                'version %s of %s:%s was prepared with other files', p.version, p.share, p.target);
        end if;
        update publication set mover_epoch = t.epoch where id = p.id and task_id = t.id;
        return publication_json(p);
    end if;
    -- This attempt met a conflict and is ending. What still comes is an earlier call of it
    -- that ran late: a version that it prepared now would be finished by nobody.
    if p.state = 'conflict' and p.task_id = t.id and p.mover_epoch = t.epoch then
        raise exception 'refused' using errcode = 'TX403', detail = format(
            'attempt %s-%s met a conflict at %s:%s', t.id, t.epoch, p.share, p.target);
    end if;

    perform pg_advisory_xact_lock(hashtextextended(m->>'share' || ':' || (m->>'target'), 0));
    select * into p from publication
    where share = m->>'share' and target = m->>'target' and current and manifest_hash = h;
    if found then
        update task set publication_id = p.id where id = t.id;
        return publication_json(p);
    end if;
    select * into p from publication
    where share = m->>'share' and target = m->>'target' and state in ('prepared', 'moving');
    if found then
        raise exception 'refused' using errcode = 'TX403', detail = format(
            'version %s of %s:%s is being published by task %s', p.version, p.share, p.target, p.task_id);
    end if;

    insert into publication (share, target, folded_target, version, task_id, epoch, mover_epoch,
        manifest, manifest_hash)
    select m->>'share', m->>'target', coalesce(a->>'folded_target', lower(m->>'target')),
        coalesce(max(o.version), 0) + 1, t.id, t.epoch, t.epoch, m, h
    from publication o where o.share = m->>'share' and o.target = m->>'target'
    returning * into p;
    with named as (
        select f, format('%sv%s/', case m->>'target' when '' then '' else m->>'target' || '/' end,
            p.version) as folder, a->'folded'->>(n::integer - 1) as folded,
            format('%sv%s/', case m->>'target' when '' then '' else p.folded_target || '/' end,
                p.version) as beneath
        from jsonb_array_elements(m->'files') with ordinality x(f, n)
    ), added as (
        insert into publication_file (publication_id, share, path, folded_path, size, sha256)
        select p.id, p.share, folder || (f->>'name'), beneath || folded,
            (f->>'size')::numeric, decode(f->>'sha256', 'hex')
        from named
        on conflict (share, folded_path) do nothing returning path
    )
    select string_agg(folder || (f->>'name'), ', ') into taken
    from named where folder || (f->>'name') not in (select path from added);
    if taken is not null then
        raise exception 'name_taken' using errcode = 'TX409', detail = format(
            'on share %s these names are taken, or differ only in case or in the form of a letter: %s',
            p.share, taken);
    end if;
    update task set publication_id = p.id where id = t.id;
    perform emit('publication.state', t.job_id, t.id, jsonb_build_object('publication', p.id,
        'share', p.share, 'target', p.target, 'version', p.version, 'from', null, 'to', p.state));
    return publication_json(p);
end $$;

create or replace function append_plan_v1(a jsonb) returns jsonb language plpgsql as $$
declare
    j job;
    taken text;
begin
    perform leads((a->>'epoch')::bigint);
    perform 1 from task where job_id = (a->>'job')::bigint order by id for no key update;
    select * into j from job where id = (a->>'job')::bigint for no key update;
    if not found then
        raise exception 'not_found' using errcode = 'TX404',
            detail = format('there is no job %s', a->>'job');
    end if;
    if j.planned or j.state not in ('accepted', 'inspecting', 'running') or exists (
            select from task where job_id = j.id and state not in ('done', 'skipped')) then
        return 'false';
    end if;
    select format('%s:%s', p.share, p.target) into taken
    from jsonb_array_elements(coalesce(a->'targets', '[]')) x
    join publication p on p.share = x->>'share' and p.folded_target = x->>'folded'
        and p.target <> x->>'target' and p.state in ('prepared', 'moving', 'published')
    limit 1;
    if taken is not null then
        raise exception 'name_taken' using errcode = 'TX409', detail = format(
            'a title lies under %s already, which some file systems take for the same name', taken);
    end if;
    update job set planned = true, engine = a->>'engine' where id = j.id;
    perform append_tasks(j.id, 1::smallint, a->'tasks');
    -- A retried job runs already.
    if j.state <> 'running' then perform move_job(j.id, 'planned'); end if;
    perform finish_job(j.id);
    return 'true';
end $$;

select secure_functions('{}', array['prepare_v1'], array['append_plan_v1']);
