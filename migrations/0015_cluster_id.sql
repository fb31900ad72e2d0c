-- The cluster has a name that stays: several clusters may use one output share, and a stage
-- there must tell whose it is. The incarnation does not do: it changes when a backup is
-- restored, and the stages from before are still this cluster's, to roll a publication
-- forward from and to sweep. A copy of a database that is to live beside its original gets
-- an id of its own: update cluster set id = gen_random_uuid().
alter table cluster add column id uuid not null default gen_random_uuid();

alter function register_v1(jsonb) rename to register_worker;
create function register_v1(a jsonb) returns jsonb language sql as $$
    select register_worker(a) || jsonb_build_object('cluster', (select id from cluster))
$$;

select secure_functions('{}', array['register_v1'], '{}');
