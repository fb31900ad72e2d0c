-- Hints. Whoever waits for something is told at once that it is there; a hint may be late,
-- doubled or lost, and polling stays. They are triggers, so that no function that readies
-- tasks, now or later, can forget them.
--
-- trix_work goes to workers: {"ready": N} when about N tasks became ready, {"cancel": [W…]}
-- when workers W run attempts of a job that is being cancelled (null: anyone may).
-- trix_lead goes to dispatchers: there may be something to plan or to end.

-- A commit with a hint waits for the others with one, so none is sent when no worker has
-- room, and for many tasks in one transaction only at powers of two: a plan of 4,000 tasks
-- sends 12. The worker that syncs just now claims in this same transaction, and is told by
-- its last_seen.
create function hint_ready() returns trigger language plpgsql as $$
declare
    n constant bigint := coalesce(nullif(current_setting('trix.readied', true), ''), '0')::bigint + 1;
begin
    perform set_config('trix.readied', n::text, true);
    if n & (n - 1) = 0 and exists (
            select from worker where state = 'active' and free_mcpu > 0 and last_seen <> now()) then
        perform pg_notify('trix_work', jsonb_build_object('ready', n)::text);
    end if;
    return null;
end $$;
create trigger task_readied after update on task for each row
    when (new.state = 'ready' and new.deps_left = 0 and new.held_by is null
        and (old.state <> 'ready' or old.deps_left > 0 or old.held_by is not null))
    execute function hint_ready();

create function hint_resumed() returns trigger language plpgsql as $$
declare n bigint;
begin
    select count(*) into n from task where job_id = new.id and state = 'ready';
    if n > 0 then perform pg_notify('trix_work', jsonb_build_object('ready', n)::text); end if;
    return null;
end $$;
create trigger job_resumed after update of state on job for each row
    when (old.state = 'paused' and new.state = 'running')
    execute function hint_resumed();

-- A notification holds less than 8000 bytes.
create function hint_cancel() returns trigger language plpgsql as $$
declare workers jsonb;
begin
    select jsonb_agg(distinct at.worker_id) into workers
    from task t join attempt at on at.task_id = t.id and at.epoch = t.epoch and at.state = 'running'
    where t.job_id = new.id and t.state = 'running';
    if workers is not null then
        perform pg_notify('trix_work', jsonb_build_object('cancel',
            case when jsonb_array_length(workers) <= 300 then workers end)::text);
    end if;
    return null;
end $$;
create trigger job_cancelling after update of state on job for each row
    when (new.state = 'cancelling' and old.state <> 'cancelling')
    execute function hint_cancel();

create function hint_lead() returns trigger language plpgsql as $$
begin
    perform pg_notify('trix_lead', '');
    return null;
end $$;
create trigger event_for_the_leader after insert on event_in for each row
    when (new.kind in ('job.accepted', 'job.inspected', 'job.cancelling'))
    execute function hint_lead();

select secure_functions('{}', '{}', '{}');
