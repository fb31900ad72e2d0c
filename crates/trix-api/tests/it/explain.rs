//! Situations injected into the real database, and the sentence that the API says of each.

use reqwest::Method;
use serde_json::{Value, json};
use trix_db::leader::Seat;
use trix_db::operate::Scope;
use trix_model::{ErrorClass, ErrorOrigin, Failure, JobId};

use crate::harness::{As, Service, problem, until};
use crate::worker::{Running, Worker};

struct World {
    service: Service,
    admin: As,
}

impl World {
    async fn start() -> World {
        let service = Service::start().await;
        let admin = service.admin().await;
        service.deliver("film.mov", b"no film, but a file");
        until("the share is in order", async || {
            service.get("/api/v1/shares/in/entries", &admin).await.status() == 200
        })
        .await;
        World { service, admin }
    }

    async fn submit(&self, key: &str) -> i64 {
        self.submit_file(key, "film.mov").await
    }

    async fn submit_file(&self, key: &str, file: &str) -> i64 {
        let wish = json!({ "source": format!("in:{file}"), "profile": "h264-single" });
        let (status, job) = self.service.submit(&self.admin, key, &wish).await;
        assert_eq!(status.as_u16(), 201, "{job}");
        job["id"].as_i64().unwrap()
    }

    async fn task(&self, job: i64, name: &str) -> i64 {
        let tasks = self.service.db.tasks(JobId(job)).await.unwrap();
        tasks.into_iter().find(|t| t.name == name).expect("the task").id.0
    }

    async fn lead(&self) -> Seat {
        let seat = Seat::try_take(&self.service.db, "test", std::time::Duration::ZERO).await;
        seat.unwrap().expect("the seat is free")
    }

    /// What is said of `path` (`tasks/3`) by its code, in exact words.
    #[track_caller]
    fn says<'a>(
        &'a self,
        path: &'a str,
        code: &'a str,
        because: &'a str,
        mend: &'a str,
    ) -> impl Future<Output = Value> + 'a {
        let at = std::panic::Location::caller();
        async move {
            let said = self.service.read(&format!("/api/v1/{path}/explain"), &self.admin).await;
            let part = |key: &str| said[key].as_str().unwrap();
            assert_eq!(
                (part("code"), part("because"), part("mend")),
                (code, because, mend),
                "{at}: {said:#}"
            );
            said
        }
    }
}

#[tokio::test]
async fn each_constraint_of_a_ready_task_is_named() {
    let w = World::start().await;
    let db = &w.service.db;
    let job = w.submit("film").await;
    let id = w.task(job, "intake").await;
    let (path, of_job) = (format!("tasks/{id}"), format!("jobs/{job}"));
    let task = format!("Task {id} (intake)");
    let seat = w.lead().await;

    let start = "Start a worker on an enrolled node: trix worker.";
    let because = format!("{task} waits, because no worker is alive.");
    let said = w.says(&path, "no_worker", &because, start).await;
    assert_eq!((&said["state"], &said["facts"]["needed"]), (&json!("ready"), &json!(true)));
    let because =
        format!("Job {job} waits for task {id} (intake), which waits, because no worker is alive.");
    w.says(&of_job, "no_worker", &because, start).await;

    let a = Worker::join(db, "a").await;
    let because = format!("{task} can be claimed at once on node a.");
    let beat = "Nothing has to be done: the worker takes it at its next beat.";
    w.says(&path, "claimable", &because, beat).await;

    let share = |name: &'static str| move |s: &trix_model::ShareName| s.as_str() != name;
    a.sync(|r| r.shares_ok.retain(share("in"))).await;
    let because = format!("{task} waits, because share in is in order on no living worker.");
    let mend = "Bring share in back on a node; its worker notices that by itself.";
    w.says(&path, "share", &because, mend).await;

    a.sync(|r| r.engine = "other-engine".to_owned()).await;
    w.service.sql("update task set engine = 'test-engine'").await;
    let said = w.service.read(&format!("/api/v1/{path}/explain"), &w.admin).await;
    let engine = said["facts"]["needs"]["engine"].as_str().unwrap().to_owned();
    let because = format!(
        "{task} waits, because no living worker has engine {engine}, which it was planned for."
    );
    let mend = format!(
        "Start a worker of the version with engine {engine}, or cancel the job and submit it again."
    );
    w.says(&path, "engine", &because, &mend).await;
    a.sync(|_| {}).await;

    for (needs, code, because, mend) in [
        (
            "need_ram = 3::bigint << 40",
            "ram",
            "it needs 3072 GiB of memory, more than any living worker gives",
            "Start a worker that gives 3072 GiB of memory or more (worker.ram_mib).",
        ),
        (
            "need_mcpu = 64500",
            "mcpu",
            "it needs 64.5 cores, more than any living worker gives",
            "Start a worker that gives 64.5 cores or more (worker.mcpu).",
        ),
        (
            "need_scratch = 2::bigint << 40",
            "scratch",
            "it needs 2048 GiB of scratch, more than any living worker gives",
            "Start a worker that gives 2048 GiB of scratch or more, on a cache with that much room.",
        ),
        (
            "need_gpu = 1000",
            "gpu",
            "it needs 1 of a graphics processor, more than any node has",
            "Start a worker on a node with a graphics processor, and say so: trix traits NODE --gpu 1000.",
        ),
        (
            "need_caps = array['hdr']",
            "caps",
            "no living worker's node has the capability hdr",
            "Give a node that has it the name: trix traits NODE --cap hdr.",
        ),
        ("held_by = 'ann'", "held", "ann holds it", "Ask ann to let it go."),
    ] {
        w.service.sql(&format!("update task set {needs} where id = {id}")).await;
        let because = format!("{task} waits, because {because}.");
        w.says(&path, code, &because, mend).await;
        w.service
            .sql(
                "update task set need_ram = 1, need_mcpu = 1000, need_scratch = 1, need_gpu = 0,
                    need_caps = '{}', held_by = null",
            )
            .await;
    }

    let close = async |verb: &str, body: Value| {
        let path = format!("/api/v1/nodes/a/{verb}");
        assert_eq!(w.service.post(&path, &w.admin, &body).await.status(), 200, "{verb}");
    };
    close("cordon", json!({ "reason": "a new disk" })).await;
    let because =
        format!("{task} waits, because the only living worker's node a is cordoned: a new disk.");
    w.says(&path, "cordoned", &because, "Open it again: trix uncordon a.").await;
    let because = "Node a gets no work, because an operator cordoned it: a new disk.";
    w.says("nodes/a", "cordoned", because, "Open it: trix uncordon a.").await;
    close("uncordon", json!({})).await;

    for (put, code, because, mend) in [
        (
            "all",
            "paused_all",
            "everything is paused by ann: the cooling failed.",
            "Resume everything: trix resume --all.",
        ),
        (
            "kind/intake",
            "paused_kind",
            "tasks of kind intake are paused by ann: the cooling failed.",
            "Resume it: trix resume --kind intake.",
        ),
        (
            "node/a",
            "paused",
            "the only living worker's node a is paused.",
            "Resume it: trix resume --node a.",
        ),
    ] {
        let hold = |method| w.service.request(method, &format!("/api/v1/holds/{put}"), &w.admin);
        let body = json!({ "reason": "the cooling failed" });
        let answer = hold(Method::PUT).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let because = format!("{task} waits, because {because}");
        w.says(&path, code, &because, mend).await;
        let list = w.service.read("/api/v1/holds", &w.admin).await;
        assert_eq!(list["items"][0]["by"], "ann", "{list}");
        let lifted: Value = hold(Method::DELETE).send().await.unwrap().json().await.unwrap();
        assert_eq!(lifted["lifted"], true);
        let lifted: Value = hold(Method::DELETE).send().await.unwrap().json().await.unwrap();
        assert_eq!(lifted["lifted"], false);
    }

    // A share whose only slot another job's task took.
    w.service.sql("insert into share_slot (share, mode, n, task_id, epoch) values ('in', 'read', 1, 1, 1)").await;
    let because =
        format!("{task} waits, because the only slot for reading from share in is taken.");
    let mend = "Nothing has to be done; more at once: trix slots in --read 2.";
    w.says(&path, "slots", &because, mend).await;
    w.service.sql("delete from share_slot").await;

    // Another task takes nearly all that the worker has.
    w.service.sql("update task set need_mcpu = 40000").await;
    let claim = a.claim().await;
    assert_eq!(claim.attempt.task.0, id);
    // The same film for another job.
    let twin = w.task(w.submit("twin").await, "intake").await;
    let because =
        format!("Task {twin} (intake) waits, because task {id} makes the same right now.");
    let mend = "Nothing has to be done: its outputs are then taken from the cache.";
    w.says(&format!("tasks/{twin}"), "twin", &because, mend).await;
    w.service.deliver("other.mov", b"another film");
    let other = w.submit_file("other", "other.mov").await;
    let second = w.task(other, "intake").await;
    w.service.sql(&format!("update task set need_mcpu = 40000 where id = {second}")).await;
    let because = format!(
        "Task {second} (intake) waits, because the only living worker, on node a, is busy."
    );
    let mend =
        format!("Wait, start another worker, or raise its priority: trix priority {other} 9.");
    w.says(&format!("tasks/{second}"), "busy", &because, &mend).await;

    let because = format!("{task} runs on node a as try 1.");
    w.says(&path, "running", &because, "Nothing has to be done.").await;
    seat.leave().await.unwrap();
    let because =
        format!("{task} runs on node a, and no dispatcher leads that would notice its loss.");
    w.says(&path, "no_dispatcher", &because, "Start a dispatcher: trix dispatcher.").await;
    w.service.stop().await;
}

#[tokio::test]
async fn what_failed_names_its_root_cause_and_what_would_mend_it() {
    let w = World::start().await;
    let mut seat = w.lead().await;
    let a = Worker::join(&w.service.db, "a").await;
    let done = "Nothing has to be done.";

    let job = w.submit("damaged").await;
    let id = w.task(job, "intake").await;
    let claim = a.claim().await;
    a.fail(&claim, Failure::source("damaged", "no frame of in:film.mov can be decoded")).await;
    let because = format!(
        "Job {job} failed, because task {id} (intake) failed on node a at try 1: no frame of \
         in:film.mov can be decoded (damaged)."
    );
    let mend = "Have the file delivered anew and submit that; trying again gives the same.";
    w.says(&format!("jobs/{job}"), "damaged", &because, mend).await;
    let because = format!(
        "Task {id} (intake) failed on node a at try 1: no frame of in:film.mov can be decoded \
         (damaged)."
    );
    w.says(&format!("tasks/{id}"), "damaged", &because, mend).await;

    // A share that went away is tried again after a while.
    let job = w.submit("away").await;
    let id = w.task(job, "intake").await;
    let claim = a.claim().await;
    a.fail(&claim, Failure::share("share in did not answer")).await;
    w.service
        .sql(&format!(
            "update task set not_before_up_ms = (select up_ms + 30000 from leader) where id = {id}"
        ))
        .await;
    let because = format!(
        "Task {id} (intake) waits 30 s before its next try, because it failed on node a: share in \
         did not answer (share_unavailable)."
    );
    let mend = "Bring the share back; the next try comes by itself.";
    w.says(&format!("tasks/{id}"), "delayed", &because, mend).await;
    w.service.db.cancel(JobId(job)).await.unwrap();
    seat.leader().finish_cancels().await.unwrap();
    let because = format!("Job {job} was cancelled.");
    let mend = "Submit it again if it is wanted.";
    w.says(&format!("jobs/{job}"), "cancelled", &because, mend).await;

    // It kills its process on two nodes.
    let b = Worker::join(&w.service.db, "b").await;
    let job = w.submit("killer").await;
    let id = w.task(job, "intake").await;
    for worker in [&a, &b] {
        let claim = worker.claim().await;
        let message = "killed by signal 11 while reading";
        let failure = Failure::new(ErrorClass::Crash, ErrorOrigin::Engine, "signal", message);
        worker.fail(&claim, failure).await;
        w.service.sql("update task set not_before_up_ms = 0 where state = 'ready'").await;
    }
    let because = format!(
        "Task {id} (intake) is quarantined: its process died on a and b, the last time with killed \
         by signal 11 while reading (signal)."
    );
    let mend =
        format!("Look into its bundle (trix explain task {id} --bundle), then: trix retry {job}.");
    w.says(&format!("tasks/{id}"), "quarantined", &because, &mend).await;
    let bundle = w.service.read(&format!("/api/v1/tasks/{id}/bundle"), &w.admin).await;
    assert_eq!(bundle["spec"]["kind"], "intake");
    assert_eq!(bundle["attempts"].as_array().unwrap().len(), 2);
    let viewer = w.service.token(&w.admin, "looker", "viewer").await;
    let refused = w.service.get(&format!("/api/v1/tasks/{id}/bundle"), &viewer).await;
    assert_eq!(refused.status(), 403);

    // A silent worker is marked, and its node says so.
    a.sync(|_| {}).await;
    let lost = w.service.db.times().lost;
    for _ in 0..40 {
        seat.tick(lost / 10).await.unwrap();
        b.sync(|_| {}).await;
    }
    seat.leader().mark_lost().await.unwrap();
    let said = w.service.read("/api/v1/nodes/a/explain", &w.admin).await;
    assert_eq!(said["code"], "lost", "{said:#}");
    let said = w.service.read("/api/v1/nodes/b/explain", &w.admin).await;
    assert!(said["because"].as_str().unwrap().starts_with("Node b "), "{said:#}");
    assert_eq!(said["mend"], done, "{said:#}");
    seat.leave().await.unwrap();
    w.service.stop().await;
}

#[tokio::test]
async fn a_planned_job_tells_what_it_waits_for_and_who_paused_it() {
    let w = World::start().await;
    let job = w.submit("film").await;
    let running = Running::start(&w.service.db, job).await;
    let path = format!("jobs/{job}");
    let pause = |verb: &str| {
        w.service.request(Method::POST, &format!("/api/v1/jobs/{job}/{verb}"), &w.admin)
    };
    let answer: Value = pause("pause").json(&json!({})).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer, json!({ "job": job, "state": "paused" }));
    let mend = format!("Resume it: trix resume {job}.");
    w.says(&path, "paused", &format!("Job {job} is paused."), &mend).await;
    let (status, body) = problem(pause("pause").json(&json!({})).send().await.unwrap()).await;
    assert_eq!(status, 409, "{body}");
    pause("resume").json(&json!({})).send().await.unwrap().error_for_status().unwrap();

    let publication = running.publish().await;
    w.says(&path, "succeeded", &format!("Job {job} succeeded."), "Nothing has to be done.").await;
    let retract = || {
        let path = format!("/api/v1/publications/{publication}/retract");
        w.service.request(Method::POST, &path, &w.admin).json(&json!({}))
    };
    let first: Value = retract().send().await.unwrap().json().await.unwrap();
    assert_eq!(first["created"], true, "{first}");
    let again: Value = retract().send().await.unwrap().json().await.unwrap();
    assert_eq!((&again["created"], &again["job"]), (&json!(false), &first["job"]));
    w.service.stop().await;
}

#[tokio::test]
async fn verbs_are_for_operators_and_looking_is_for_all() {
    let w = World::start().await;
    let job = w.submit("film").await;
    let viewer = w.service.token(&w.admin, "looker", "viewer").await;
    for path in [format!("jobs/{job}/explain"), "holds".to_owned()] {
        w.service.read(&format!("/api/v1/{path}"), &viewer).await;
    }
    w.service.db.enrol_node("a").await.unwrap();
    let body = json!({ "reason": "because" });
    for (method, path) in [
        (Method::POST, format!("jobs/{job}/pause")),
        (Method::POST, format!("jobs/{job}/resume")),
        (Method::PUT, "holds/all".to_owned()),
        (Method::DELETE, "holds/all".to_owned()),
        (Method::PUT, "holds/node/a".to_owned()),
        (Method::POST, "nodes/a/cordon".to_owned()),
        (Method::POST, "nodes/a/drain".to_owned()),
        (Method::POST, "nodes/a/undrain".to_owned()),
        (Method::POST, "publications/1/retract".to_owned()),
    ] {
        let call = w.service.request(method, &format!("/api/v1/{path}"), &viewer).json(&body);
        let (status, body) = problem(call.send().await.unwrap()).await;
        assert_eq!((status, &body["code"]), (403, &json!("role_missing")), "{path}");
    }
    assert!(w.service.db.holds().await.unwrap().is_empty());
    w.service.db.hold(&Scope::All, "a test").await.unwrap();
    for path in ["jobs/999", "tasks/999", "nodes/none"] {
        let (status, body) =
            problem(w.service.get(&format!("/api/v1/{path}/explain"), &viewer).await).await;
        assert_eq!((status, &body["code"]), (404, &json!("not_found")), "{path}");
    }
    w.service.stop().await;
}
