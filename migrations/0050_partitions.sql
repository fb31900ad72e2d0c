-- The first submits of a fresh cluster may run side by side, and each of them wants the
-- first partition of attempts. The look behind the lock must then see what the holder
-- before committed. to_regclass does not: it answers from the session's cache of names,
-- which a wait for an advisory lock does not refresh, so it went on saying "none" and the
-- submit failed because the table was there. A query of the catalogue takes a snapshot of
-- its own.
create or replace function attempt_partitions(low bigint, high bigint) returns void language plpgsql as $$
declare
    size constant bigint := 1000000;
    n bigint;
begin
    for n in select generate_series(low / size, high / size) loop
        continue when to_regclass(format('attempt_%s', n)) is not null;
        perform pg_advisory_xact_lock(hashtext('trix attempt partitions'));
        continue when exists (select from pg_class c join pg_class p on p.relnamespace = c.relnamespace
            where p.oid = 'attempt'::regclass and c.relname = format('attempt_%s', n));
        execute format('create table attempt_%s (like attempt including defaults including constraints)', n);
        execute format('alter table attempt attach partition attempt_%s for values from (%s) to (%s)',
            n, n * size, (n + 1) * size);
    end loop;
end $$;
