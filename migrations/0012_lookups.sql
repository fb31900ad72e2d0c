-- What the api looks up often has an index.

-- Lists by state, newest first, and counts by state from the index alone.
create index job_state on job (state, id);
-- A job's publications, among its thousands of tasks.
create index task_publication on task (job_id) where publication_id is not null;

-- Text search looks for a part of the title or of the source's path. The extension stands
-- beside PostgreSQL in every distribution and needs no superuser; where it is missing the
-- search still answers, by reading.
do $$
begin
    create extension if not exists pg_trgm;
    create index title_search on title using gin (lower(name) gin_trgm_ops);
    create index job_search on job using gin (lower(sources->>0) gin_trgm_ops);
exception when others then
    raise notice 'text search has no index: %', sqlerrm;
end $$;

-- Where a job's poster is: what it published for the interface, or found to be published.
create view job_preview as
select t.job_id as job, p.id as publication
from task t join publication p on p.id = t.publication_id
where p.state = 'published' and p.manifest->>'role' = 'preview';

-- What runs, for those who watch it: jobs with the progress of their running attempts.
create view running_view as
select at.job as job, v.counts, at.attempts
from (
    select t.job_id as job, jsonb_agg(jsonb_build_object('task', x.task_id, 'epoch', x.epoch,
        'progress', ap.progress) order by x.task_id) as attempts
    from attempt x
    join task t on t.id = x.task_id
    left join attempt_progress ap on ap.task_id = x.task_id and ap.epoch = x.epoch
    where x.state = 'running'
    group by t.job_id) at
join job_view v on v.id = at.job;

-- A job begins with its first task, also if the cache had all that it makes.
create or replace function move_job(id bigint, event text, more jsonb default '{}') returns job
language plpgsql as $$
declare j job; old text;
begin
    select * into j from job where job.id = move_job.id for no key update;
    old := j.state;
    if job_after(old, event) is null then
        perform illegal('job', move_job.id, old, event);
    end if;
    update job set state = job_after(old, event),
        started_at = case when job_after(old, event) in ('inspecting', 'running', 'succeeded')
            then coalesce(started_at, now()) else started_at end,
        ended_at = case when job_after(old, event) in ('succeeded', 'failed', 'cancelled')
            then now() end
    where job.id = move_job.id returning * into j;
    perform emit('job.state', j.id, null,
        jsonb_build_object('from', old, 'to', j.state, 'event', event) || more);
    return j;
end $$;

select secure_functions('{}', '{}', '{}');
