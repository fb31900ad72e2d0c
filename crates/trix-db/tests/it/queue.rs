//! The order of the queue: shapes, fair shares, ageing, reservations, slots, locality.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use trix_db::access::Role;
use trix_db::{Claim, Outcome, WorkerStore};
use trix_model::state::TaskState;
use trix_model::{JobId, TaskId};
use trix_plan::task::{Cost, Plan, TaskSpec};

use crate::support::*;

/// One intake of a given size.
fn sized(film: &str, cost: Cost) -> Plan {
    let mut plan = plan0(film);
    plan.tasks[0].cost = cost;
    plan
}

fn cost(mcpu: u32, estimate_ms: u64) -> Cost {
    Cost { mcpu, ram: 1 << 20, scratch: 1 << 20, estimate_ms }
}

/// Jobs in the order in which a worker with one core gets them.
async fn order(a: &Fake, n: usize) -> Vec<JobId> {
    let mut jobs = vec![];
    for _ in 0..n {
        let c = a.claim(1).await.remove(0);
        jobs.push(c.job);
        a.end(c.attempt, ok(&c)).await;
    }
    jobs
}

/// 100,000 ready tasks of one job in 40 shapes, of which half fit an ordinary worker.
const FILL: &str = "
    with j as (select job.id, job.engine, task.spec from job join task on task.job_id = job.id
        order by job.id limit 1), filled as (
        insert into task (job_id, name, plan, kind, spec, engine, state, band, rank, need_mcpu,
            need_ram, need_scratch, need_shares, est_ms)
        select j.id, 'filled/' || i, 0,
            case i % 2 when 0 then 'encode_chunk' else 'encode_audio' end, j.spec, j.engine, 'ready',
            (i * 7) % 10, (i * 7919) % 100003, case i % 4 when 3 then 64000 else 1000 end,
            (1 << 20) * (1 + i % 5), 1 << 20,
            case i % 3 when 0 then array['in'] when 1 then array['in', 'out'] else array['far'] end,
            1000
        from j, generate_series(1, 100000) i
        returning id)
    select to_jsonb(count(*)) from filled";

#[tokio::test]
async fn a_claim_over_100000_ready_tasks_reads_only_the_first_of_each_fitting_shape() {
    let w = World::new().await;
    w.submit("film", plan0("film")).await;
    assert_eq!(value(w.test.url(), FILL).await, 100_000);
    let shapes = value(w.test.url(), "select to_jsonb(count(*)) from shape").await;
    assert!(shapes.as_u64().unwrap() > 40, "{shapes}");
    let a = w.worker("a").await;

    let mut c = PgConnection::connect(w.test.url()).await.unwrap();
    let mut tx = c.begin().await.unwrap();
    let request = sqlx::types::Json(a.request(4));
    let reply: sqlx::types::Json<trix_db::SyncReply> =
        sqlx::query_scalar("select sync_v1($1)").bind(request).fetch_one(&mut *tx).await.unwrap();
    let trix_db::SyncReply::Accepted(reply) = reply.0 else { panic!() };
    assert_eq!(reply.claims.len(), 4);
    // What this transaction read of the tasks: whole scans, and rows fetched by an index.
    let (scans, fetched): (i64, i64) = sqlx::query_as(
        "select seq_scan, idx_tup_fetch from pg_stat_xact_user_tables where relname = 'task'",
    )
    .fetch_one(&mut *tx)
    .await
    .unwrap();
    println!("a claim of 4 among 100,000 fetched {fetched} rows");
    assert_eq!(scans, 0, "the tasks were read from end to end");
    // At most 64 of each shape, and a few looks at what was claimed.
    assert!(fetched < 3000, "{fetched} rows were fetched");
    tx.rollback().await.unwrap();

    // And it is the best of all that fits.
    let best = value(
        w.test.url(),
        "select jsonb_agg(id order by band desc, rank, id) from (select * from task
         where state = 'ready' and need_mcpu = 1000 and not 'far' = any(need_shares)
         order by band desc, rank, id limit 4) x",
    )
    .await;
    let mut got: Vec<i64> = a.claim(4).await.iter().map(|c| c.attempt.task.0).collect();
    let mut best: Vec<i64> = serde_json::from_value(best).unwrap();
    got.sort_unstable();
    best.sort_unstable();
    assert_eq!(got, best);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_is_claimed_twice_by_many_that_want_the_same() {
    let w = World::new().await;
    w.submit("film", plan0("film")).await;
    value(w.test.url(), FILL).await;
    let mut clients = vec![];
    for n in 0..8 {
        let worker = w.worker_with(&format!("n{n}"), 32_000).await;
        clients.push(tokio::spawn(async move { worker.claim(20).await }));
    }
    let mut all: Vec<TaskId> = vec![];
    for c in clients {
        let claims = c.await.unwrap();
        assert_eq!(claims.len(), 20, "there was enough for all");
        all.extend(claims.iter().map(|c| c.attempt.task));
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 160);
}

#[tokio::test]
async fn a_fitting_task_is_found_behind_any_number_that_do_not_fit() {
    let w = World::new().await;
    for i in 0..100 {
        w.submit(&format!("big{i}"), sized(&format!("big{i}"), cost(8000, 1000))).await;
    }
    let small = w.submit("small", sized("small", cost(500, 1000))).await;
    let a = w.worker("a").await;
    assert_eq!(a.claim(1).await[0].job, small);
}

#[tokio::test]
async fn sizes_are_rounded_down_so_that_every_fitting_task_is_let_through() {
    let w = World::new().await;
    let wrong = value(
        w.test.url(),
        "select to_jsonb(count(*)) from (
            select n, size_floor(n) as f from generate_series(0, 5000) n
            union all select (1::bigint << k) + d, size_floor((1::bigint << k) + d)
                from generate_series(12, 60) k, generate_series(-1, 1) d) x
         where f > n or n > 0 and f::numeric * 9 < n::numeric * 8",
    )
    .await;
    assert_eq!(wrong, 0);
}

#[tokio::test]
async fn principals_share_the_fleet_by_their_weights() {
    let mut w = World::new().await;
    let berta = w.db.create_principal("berta", Role::Operator, None).await.unwrap().id;
    w.db.set_weight(berta, 300).await.unwrap();
    let anna = w.principal;
    let mut of_anna = vec![];
    for i in 0..12 {
        of_anna.push(w.submit(&format!("a{i}"), sized(&format!("a{i}"), cost(1000, 60_000))).await);
    }
    w.principal = berta;
    for i in 0..12 {
        w.submit(&format!("b{i}"), sized(&format!("b{i}"), cost(1000, 60_000))).await;
    }
    w.principal = anna;
    let a = w.worker("a").await;
    let first = order(&a, 8).await;
    let annas = first.iter().filter(|j| of_anna.contains(j)).count();
    assert_eq!(annas, 2, "three of four go to who has three times the weight: {first:?}");
    // And each one's own jobs go in their order.
    let mine: Vec<_> = first.into_iter().filter(|j| of_anna.contains(j)).collect();
    assert_eq!(mine, of_anna[..2]);
}

#[tokio::test]
async fn who_was_idle_begins_at_the_present_and_saves_nothing_up() {
    let mut w = World::new().await;
    let a = w.worker("a").await;
    let berta = w.db.create_principal("berta", Role::Operator, None).await.unwrap().id;
    let anna = w.principal;
    let mut of_anna = vec![];
    for i in 0..12 {
        of_anna.push(w.submit(&format!("a{i}"), sized(&format!("a{i}"), cost(1000, 60_000))).await);
    }
    order(&a, 5).await;
    let running = a.claim(1).await.remove(0);
    w.leader.tend().await.unwrap();
    // Berta comes when half of Anna's work is done: from now on they take turns.
    w.principal = berta;
    for i in 0..6 {
        w.submit(&format!("b{i}"), sized(&format!("b{i}"), cost(1000, 60_000))).await;
    }
    w.principal = anna;
    a.end(running.attempt, ok(&running)).await;
    let next = order(&a, 6).await;
    let annas = next.iter().filter(|j| of_anna.contains(j)).count();
    assert_eq!(annas, 3, "{next:?}");
}

#[tokio::test]
async fn what_waits_long_goes_up_by_a_band_until_it_is_first() {
    let mut w = World::new().await;
    let old = w.submit("old", plan0("old")).await;
    w.db.set_band(old, 1).await.unwrap();
    let ageing = w.db.times().ageing;
    let band = |t: TaskId| {
        let db = w.db.clone();
        async move { db.explain_task(t).await.unwrap().band }
    };
    let task = w.task(old, "intake").await.id;
    assert_eq!(w.leader.age().await.unwrap(), 0, "it has not waited yet");
    for expected in 2..=9u8 {
        // Ticks of the gap's length would be many: the clock is set instead.
        raise_clock(&w, ageing).await;
        assert_eq!(w.leader.age().await.unwrap(), 1);
        assert_eq!(w.leader.age().await.unwrap(), 0, "one step a wait");
        assert_eq!(band(task).await, expected);
    }
    raise_clock(&w, ageing).await;
    assert_eq!(w.leader.age().await.unwrap(), 0, "9 is the highest");
    let urgent = w.submit("urgent", plan0("urgent")).await;
    w.db.set_band(urgent, 9).await.unwrap();
    let a = w.worker("a").await;
    assert_eq!(order(&a, 2).await, [old, urgent], "its rank is the older one");
    w.advance(Duration::from_millis(1)).await;
}

async fn raise_clock(w: &World, by: Duration) {
    let mut c = PgConnection::connect(w.test.url()).await.unwrap();
    sqlx::query("update leader set up_ms = up_ms + $1")
        .bind(by.as_millis() as i64)
        .execute(&mut c)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_change_of_priority_counts_for_what_is_queued_and_lets_what_runs_end() {
    let w = World::new().await;
    let a = w.worker_with("a", 1000).await;
    let low = w.planned("low", &a, plan1("low")).await;
    let running = a.claim(1).await.remove(0);
    assert_eq!((running.job, running.name.as_str()), (low, "encode/0000"));
    let high = w.submit("high", plan0("high")).await;
    w.db.set_band(high, 8).await.unwrap();
    // Pre-emption is at the chunk's edge: the running chunk goes on to its end, and the
    // next one waits until nothing higher is ready.
    assert!(a.beat().await.cancels.is_empty());
    a.end(running.attempt, ok(&running)).await;
    let next = a.claim(1).await.remove(0);
    assert_eq!(next.job, high);
    w.db.set_band(high, 1).await.unwrap();
    a.end(next.attempt, ok(&next)).await;
    assert_eq!(a.claim(1).await[0].job, low);
}

#[tokio::test]
async fn a_task_that_needs_a_whole_node_gets_it_among_endless_small_ones() {
    let mut w = World::new().await;
    let a = w.worker("a").await;
    let mut small = 0;
    // Chunks of a second, of which there is always one more.
    let mut held: Vec<Claim> = vec![];
    for _ in 0..8 {
        small += 1;
        w.submit(&format!("s{small}"), sized(&format!("s{small}"), cost(1000, 1000))).await;
    }
    held.extend(a.claim(4).await);
    assert_eq!(held.len(), 4);
    let whole = w.submit("whole", sized("whole", cost(4000, 60_000))).await;
    w.db.set_band(whole, 6).await.unwrap();
    let big = w.task(whole, "intake").await.id;

    let mut started_after = 0;
    let mut reserved = false;
    loop {
        // One of them ends, and a new one comes.
        let done = held.remove(0);
        let mut r = a.request(4);
        r.results = vec![result(done.attempt, ok(&done))];
        r.progress = held.iter().map(|c| progress(c.attempt)).collect();
        small += 1;
        w.submit(&format!("s{small}"), sized(&format!("s{small}"), cost(1000, 1000))).await;
        held.extend(a.sync(r).await.claims);
        if held.iter().any(|c| c.job == whole) {
            break;
        }
        started_after += 1;
        assert!(started_after < 40, "the large task starves");
        w.advance(Duration::from_millis(200)).await;
        reserved |= w.leader.reserve().await.unwrap() == 1;
        if reserved && started_after > 3 {
            let e = w.db.explain_task(big).await.unwrap();
            assert_eq!(e.reserved_on, Some(a.me.worker));
        }
        if held.is_empty() {
            break;
        }
    }
    if !held.iter().any(|c| c.job == whole) {
        held = a.claim(4).await;
    }
    assert!(reserved, "it would have starved without a reservation");
    assert_eq!(held.iter().map(|c| c.job).collect::<Vec<_>>(), [whole]);
    // It runs, so nothing is reserved any more, and what ends makes room for all.
    assert_eq!(w.leader.reserve().await.unwrap(), 0);
    assert_eq!(w.db.explain_task(big).await.unwrap().reserved_on, None);
    a.end(held[0].attempt, ok(&held[0])).await;
    assert_eq!(a.claim(4).await.len(), 4);
}

#[tokio::test]
async fn only_what_is_over_in_time_slips_in_before_a_reservation() {
    let mut w = World::new().await;
    let a = w.worker("a").await;
    w.submit("running", sized("running", cost(3000, 60_000))).await;
    let running = a.claim(1).await.remove(0);
    let whole = w.submit("whole", sized("whole", cost(4000, 1000))).await;
    w.advance(w.db.times().reserve).await;
    assert_eq!(w.leader.reserve().await.unwrap(), 1);
    let long = w.submit("long", sized("long", cost(1000, 3_600_000))).await;
    let short = w.submit("short", sized("short", cost(1000, 1000))).await;
    let claims = a.sync(holding(&a, &[&running], 4)).await.claims;
    assert_eq!(claims.iter().map(|c| c.job).collect::<Vec<_>>(), [short]);
    assert!(a.sync(holding(&a, &[&running, &claims[0]], 4)).await.claims.is_empty());
    let e = w.db.explain_task(w.task(long, "intake").await.id).await.unwrap();
    assert!(e.unmet().contains(&"reserved"), "{:?}", e.workers);

    // A job that is cancelled needs no reservation, and the others go on.
    w.db.cancel(whole).await.unwrap();
    assert_eq!(w.leader.reserve().await.unwrap(), 0);
    a.end(claims[0].attempt, ok(&claims[0])).await;
    let claims = a.sync(holding(&a, &[&running], 4)).await.claims;
    assert_eq!(claims.iter().map(|c| c.job).collect::<Vec<_>>(), [long]);
}

/// A sync of a worker that runs `claims`.
fn holding(a: &Fake, claims: &[&Claim], want: u32) -> trix_db::SyncRequest {
    let mut r = a.request(want);
    r.progress = claims.iter().map(|c| progress(c.attempt)).collect();
    for p in &mut r.progress {
        p.progress.done = 0;
    }
    r
}

#[tokio::test]
async fn a_reservation_falls_with_its_worker() {
    let mut w = World::new().await;
    let a = w.worker("a").await;
    w.submit("running", sized("running", cost(3000, 60_000))).await;
    a.claim(1).await;
    w.submit("whole", sized("whole", cost(4000, 1000))).await;
    w.advance(w.db.times().reserve).await;
    assert_eq!(w.leader.reserve().await.unwrap(), 1);
    w.db.leave(a.me.clone()).await.unwrap();
    assert_eq!(w.leader.reserve().await.unwrap(), 0);
    let b = w.worker("b").await;
    assert!(!b.claim(1).await.is_empty());
}

#[tokio::test]
async fn a_share_is_read_and_written_by_no_more_than_its_slots() {
    let w = World::new().await;
    for (name, role) in [("in", "source"), ("archive", "output")] {
        put_share(&w, name, role).await;
    }
    w.db.set_slots("in", Some(2), None).await.unwrap();
    let mut jobs = vec![];
    for i in 0..4 {
        jobs.push(w.submit(&format!("f{i}"), plan0(&format!("f{i}"))).await);
    }
    let a = w.worker("a").await;
    let claims = a.claim(4).await;
    assert_eq!(claims.len(), 2, "four would fit");
    let slots = w.db.slots().await.unwrap();
    assert_eq!((slots[0].share.as_str(), slots[0].total, slots[0].taken), ("in", 2, 2));
    w.leader.block_reasons().await.unwrap();
    let waiting = w.task(jobs[3], "intake").await;
    assert_eq!(waiting.block_reason.as_deref(), Some("slots:in:read"));
    // Any end of an attempt frees its slot: a success, a failure, a lost worker.
    a.end(claims[0].attempt, ok(&claims[0])).await;
    assert_eq!(w.db.slots().await.unwrap()[0].taken, 1);
    a.end(claims[1].attempt, Outcome::Released).await;
    assert_eq!(w.db.slots().await.unwrap()[0].taken, 0);
    assert_eq!(a.claim(4).await.len(), 2);
    w.db.leave(a.me.clone()).await.unwrap();
    assert_eq!(w.db.slots().await.unwrap()[0].taken, 0);

    // Both modes at once, and the narrower one counts.
    w.db.set_slots("archive", None, Some(1)).await.unwrap();
    let b = w.worker("b").await;
    assert_eq!(b.claim(4).await.len(), 1);
    w.db.set_slots("archive", None, None).await.unwrap();
    w.db.set_slots("in", None, None).await.unwrap();
    assert!(w.db.slots().await.unwrap().is_empty());
    assert!(w.db.set_slots("in", Some(0), None).await.is_err());
    assert!(w.db.set_slots("nowhere", Some(1), None).await.is_err());
}

#[tokio::test]
async fn a_lowered_limit_takes_effect_as_slots_get_free() {
    let w = World::new().await;
    put_share(&w, "in", "source").await;
    w.db.set_slots("in", Some(3), None).await.unwrap();
    for i in 0..6 {
        w.submit(&format!("f{i}"), plan0(&format!("f{i}"))).await;
    }
    let a = w.worker("a").await;
    let claims = a.claim(4).await;
    assert_eq!(claims.len(), 3);
    w.db.set_slots("in", Some(1), None).await.unwrap();
    a.end(claims[2].attempt, ok(&claims[2])).await;
    w.leader.tend().await.unwrap();
    let taken = w.db.slots().await.unwrap()[0].clone();
    assert_eq!((taken.total, taken.taken), (2, 2), "the one beyond that is still in use stays");
    a.end(claims[1].attempt, ok(&claims[1])).await;
    w.leader.tend().await.unwrap();
    let taken = w.db.slots().await.unwrap()[0].clone();
    assert_eq!((taken.total, taken.taken), (1, 1));
    let r = holding(&a, &[&claims[0]], 4);
    assert!(a.sync(r).await.claims.is_empty());
}

async fn put_share(w: &World, name: &str, role: &str) {
    let mut c = PgConnection::connect(w.test.url()).await.unwrap();
    sqlx::query("insert into share (name, role, kind) values ($1, $2, 'ext4')")
        .bind(name)
        .bind(role)
        .execute(&mut c)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_worker_prefers_the_source_that_it_has_read_within_a_band() {
    let w = World::new().await;
    let (a, b) = (w.worker_with("a", 1000).await, w.worker_with("b", 1000).await);
    // Two films, each inspected by another node.
    let one = w.submit("one", plan0("one")).await;
    let c = a.claim(1).await.remove(0);
    a.end(c.attempt, ok(&c)).await;
    let two = w.submit("two", plan0("two")).await;
    let c = b.claim(1).await.remove(0);
    assert_eq!(c.job, two);
    b.end(c.attempt, ok(&c)).await;
    assert!(w.leader.append_plan(one, &plan1("one")).await.unwrap());
    assert!(w.leader.append_plan(two, &plan1("two")).await.unwrap());
    // Film one is first in rank, and yet b takes the film that it knows.
    let first = b.claim(1).await.remove(0);
    assert_eq!(first.job, two);
    assert_eq!(a.claim(1).await[0].job, one);
    b.end(first.attempt, ok(&first)).await;
    // But a higher band goes before any locality.
    w.db.set_band(one, 6).await.unwrap();
    assert_eq!(b.claim(1).await[0].job, one);
}

#[tokio::test]
async fn tasks_of_a_paused_job_leave_the_queue_and_come_back_at_once() {
    let w = World::new().await;
    let a = w.worker("a").await;
    let job = w.planned("film", &a, plan1("film")).await;
    w.db.pause(job).await.unwrap();
    assert_eq!(w.leader.tend().await.unwrap(), 2);
    assert_eq!(w.leader.tend().await.unwrap(), 0, "once is enough");
    let queued = "select to_jsonb(count(*)) from task where state = 'ready' and not parked";
    assert_eq!(value(w.test.url(), queued).await, 0);
    w.db.resume(job).await.unwrap();
    assert_eq!(value(w.test.url(), queued).await, 2);
    assert_eq!(a.claim(4).await.len(), 2);
}

/// One claim by name among what the worker has.
fn named<'a>(claims: &'a [Claim], name: &str) -> &'a Claim {
    claims.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no {name} among the claims"))
}

#[tokio::test]
async fn a_task_that_ends_while_it_is_parked_is_queued_when_it_must_run_again() {
    let w = World::new().await;
    let a = w.worker("a").await;
    // Two files of one chunk each, so that one is made while the other's chunk is.
    let mut plan = plan1("film");
    plan.tasks.truncate(3);
    let mut other = plan.tasks[2].clone();
    for (mux, n) in [(&mut plan.tasks[2], 0), (&mut other, 1)] {
        let TaskSpec::Mux(spec) = &mut mux.spec else { panic!("{:?}", mux.spec) };
        spec.video.as_mut().unwrap().chunks = vec![key(&format!("c{n} film"))];
        mux.needs = vec![format!("encode/000{n}")];
    }
    (other.name, other.outputs[0].key) = ("mux/s".into(), key("file s film"));
    plan.tasks.push(other);
    let job = w.planned("film", &a, plan).await;
    let chunks = a.claim(2).await;
    a.end(named(&chunks, "encode/0000").attempt, ok(named(&chunks, "encode/0000"))).await;
    let mux = named(&a.claim(1).await, "mux/r").attempt;

    // The job stops; what runs of it finds the index gone, so intake is to run again.
    w.db.pause(job).await.unwrap();
    let gone = |what: &str| Outcome::MissingInputs(vec![key(what)]);
    a.end(named(&chunks, "encode/0001").attempt, gone("index film")).await;
    assert_eq!(w.leader.tend().await.unwrap(), 2, "intake and the chunk");
    // Another job makes the index meanwhile, and what still runs has it looked up.
    w.submit("again", plan0("film")).await;
    let intake = a.claim(1).await.into_iter().find(|c| c.name == "intake").unwrap();
    a.end(intake.attempt, ok(&intake)).await;
    a.end(mux, gone("c0 film")).await;
    assert_eq!(w.task(job, "intake").await.state, TaskState::Done);

    // The job goes on, and the index is lost once more.
    w.db.resume(job).await.unwrap();
    let chunks = a.claim(2).await;
    a.end(named(&chunks, "encode/0000").attempt, gone("index film")).await;
    assert_eq!(names(&a.claim(4).await), ["intake", "encode/0001"]);
}

#[tokio::test]
async fn a_task_goes_only_where_its_capabilities_and_graphics_are() {
    let w = World::new().await;
    let job = w.submit("film", plan0("film")).await;
    let sql = "update task set need_caps = array['hdr_screen'], need_gpu = 500";
    execute(w.test.url(), sql).await.unwrap();
    let a = w.worker("a").await;
    assert!(a.claim(1).await.is_empty());
    w.leader.block_reasons().await.unwrap();
    assert_eq!(w.task(job, "intake").await.block_reason.as_deref(), Some("caps"));
    w.db.set_node_traits("a", &["hdr_screen"], 400).await.unwrap();
    assert!(a.claim(1).await.is_empty());
    w.leader.block_reasons().await.unwrap();
    assert_eq!(w.task(job, "intake").await.block_reason.as_deref(), Some("gpu"));
    w.db.set_node_traits("a", &["hdr_screen", "other"], 500).await.unwrap();
    let claims = a.claim(1).await;
    assert_eq!(claims.len(), 1);
    // What runs has the processor: a second one waits.
    w.submit("two", plan0("two")).await;
    execute(w.test.url(), "update task set need_gpu = 1 where state = 'ready'").await.unwrap();
    assert!(a.sync(holding(&a, &[&claims[0]], 1)).await.claims.is_empty());
}
