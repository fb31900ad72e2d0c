//! After a run: what must hold of the database, the folders and the journals.
//!
//! Each function looks at one invariant (reliability.md 3.17) and gives what breaks it, in
//! words that name it. They look at a healed and quiet site.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use sha2::Digest as _;
use trix_db::{Db, ProtocolTimes};
use trix_model::Digest;
use trix_storage::publish::MANIFEST;

use crate::check;

use super::client::{Consumed, Journal, Submitted};
use super::golden;
use super::restore::{Files, Lost};
use super::site::Site;

/// Everything at once.
pub async fn all(
    site: &Site,
    journal: &Journal,
    consumed: &[Consumed],
    lost_histories: &[Lost],
) -> Result<Vec<String>> {
    let mut wrong = journal.wrong();
    let mut left = Files::new();
    for lost in lost_histories {
        // What an earlier restore left is what a later one found, or it is told elsewhere.
        lost.known(site)?.into_iter().for_each(|(file, digest)| {
            left.entry(file).or_insert(digest);
        });
    }
    wrong.extend(lost(site, journal).await?);
    wrong.extend(queries(site).await?);
    wrong.extend(marks(site).await?);
    wrong.extend(folders(site, &left).await?);
    let (different, golden) = contents(site, journal).await?;
    wrong.extend(different);
    wrong.extend(sources(site, journal)?);
    wrong.extend(events(site, consumed).await?);
    wrong.extend(checker(site, journal, consumed, golden, left).await?);
    Ok(wrong)
}

/// The checker of installations over the same site. It was written by other hands than the
/// queries here, over a model of the tables: what one overlooks the other may see.
async fn checker(
    site: &Site,
    journal: &Journal,
    consumed: &[Consumed],
    golden: BTreeMap<String, Digest>,
    left: Files,
) -> Result<Vec<String>> {
    let answered = journal
        .submits()
        .into_iter()
        .filter_map(|s| Some(check::install::Submitted { key: s.key, job: s.job? }));
    let numbers = |c: &Consumed| c.seen.range(c.whole_from() + 1..).map(|(seq, _)| *seq).collect();
    let left = left.into_iter().map(|((share, path), sha256)| (format!("{share}:{path}"), sha256));
    let journals = check::Journals {
        submits: Some(answered.collect()),
        consumers: Some(consumed.iter().map(numbers).collect()),
        golden: Some(golden),
        left_by_restores: left.collect(),
        at_rest: true,
        ..check::Journals::default()
    };
    let shares: Vec<check::Mounted> = ["archive", "output", "preview"]
        .map(|name| check::Mounted { name: name.to_owned(), root: site.share(name) })
        .into();
    // Times of people, not of machines: the whole history is read at once.
    let db = Db::open(site.url(), ProtocolTimes::default())?;
    let report = check::check(&db, &shares, &journals).await?;
    Ok(report.violations.iter().map(|v| format!("{v} (checker)")).collect())
}

/// I1 and I2: every submit that was answered is a job, one job a key, and is over.
async fn lost(site: &Site, journal: &Journal) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let rows = site.rows("select id, submit_key, state, failure from job").await?;
    let mut by_key: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for row in &rows {
        by_key.entry(row["submit_key"].as_str().unwrap_or_default()).or_default().push(row);
    }
    for submit in journal.submits() {
        let found = by_key.get(submit.key.as_str()).map_or(&[][..], Vec::as_slice);
        match (found, submit.job) {
            ([], Some(job)) => wrong.push(format!("I1: job {job} was accepted and is lost")),
            ([], None) => wrong.push(format!("I1: key {} was never accepted", submit.key)),
            ([row], job) => {
                if job.is_some_and(|job| row["id"] != job) {
                    wrong.push(format!("I2: key {} is job {}, not {job:?}", submit.key, row["id"]));
                }
                if row["state"] != "succeeded" {
                    let (state, why) = (&row["state"], &row["failure"]);
                    wrong.push(format!("I1: job {} is {state}: {why}", row["id"]));
                }
            }
            (several, _) => {
                wrong.push(format!("I2: key {} made {} jobs", submit.key, several.len()));
            }
        }
    }
    Ok(wrong)
}

/// What one query can say. A row is a violation.
async fn queries(site: &Site) -> Result<Vec<String>> {
    const CHECKS: [(&str, &str, &str); 11] = [
        (
            "I3",
            "more than one running attempt",
            "select task_id, count(*) from attempt where state = 'running' group by 1 having count(*) > 1",
        ),
        (
            "I3",
            "a running attempt of another epoch than its task's",
            "select t.id, t.epoch, a.epoch as running from attempt a join task t on t.id = a.task_id \
             where a.state = 'running' and (t.state <> 'running' or a.epoch <> t.epoch)",
        ),
        (
            "I4",
            "attempts with holes",
            // Adoption leaps over 2³² of them.
            "select t.id, t.epoch, count(a.epoch), max(a.epoch) from task t \
             left join attempt a on a.task_id = t.id group by t.id \
             having (t.epoch - count(a.epoch)) % 4294967296 <> 0 \
                or (t.epoch - coalesce(max(a.epoch), 0)) % 4294967296 <> 0 \
                or (t.epoch - count(a.epoch)) / 4294967296 \
                    > (select count(*) from event_log where kind = 'adopted')",
        ),
        (
            "I5",
            "done without the one success, or success without done",
            "select t.id, t.name, t.state, t.cache_hit, t.epoch from task t where \
             (select count(*) from attempt a where a.task_id = t.id and a.state = 'succeeded' \
              and not a.result_lost) + (t.cache_hit and t.state = 'done')::int \
             <> (t.state = 'done')::int",
        ),
        (
            "I6",
            "a success behind the end of its worker",
            "select a.task_id, a.epoch, a.worker_id from attempt a \
             join event_log d on d.task_id = a.task_id and d.kind = 'task.state' \
               and d.body->>'to' = 'done' and d.body->>'from' = 'running' \
               and (d.body->>'epoch')::bigint = a.epoch \
             join event_log w on w.kind in ('worker.lost', 'worker.gone') \
               and (w.body->>'worker')::bigint = a.worker_id \
             where a.state = 'succeeded' and d.seq > w.seq",
        ),
        (
            "I7",
            "versions with holes, or several current ones",
            "select share, target, count(*), max(version), count(*) filter (where current) as current \
             from publication group by 1, 2 \
             having max(version) <> count(*) or count(*) filter (where current) > 1",
        ),
        (
            "I12",
            "event numbers with holes",
            "select h.head, (select count(*) from event_log) as events, \
             (select count(*) from event_in) as waiting from event_head h \
             where h.head <> (select count(*) \
                     + 4294967296 * count(*) filter (where kind = 'adopted') from event_log) \
               or exists (select from event_in) or h.oldest <> 1",
        ),
        (
            "I15",
            "an attempt that runs where nobody is, or at all",
            "select a.task_id, a.epoch, a.worker_id, w.state from attempt a \
             join worker w on w.id = a.worker_id where a.state = 'running'",
        ),
        (
            "I15",
            "a publication under way",
            "select id, share, target, version, state from publication \
             where state in ('prepared', 'moving') or state = 'conflict' \
               and not exists (select from event_log where kind = 'adopted')",
        ),
        (
            "I17",
            "a task that failed for transient reasons",
            "select id, name, state, failure from task \
             where state = 'failed' and failure->>'class' = 'transient'",
        ),
        (
            "I10",
            "a second digest under one key",
            "select task_id, body from event_log where kind = 'artifact.differs'",
        ),
    ];
    let mut wrong = Vec::new();
    for (invariant, what, query) in CHECKS {
        for row in site.rows(query).await? {
            wrong.push(format!("{invariant}: {what}: {row}"));
        }
    }
    Ok(wrong)
}

/// I18 and I19: leaders in order, and nobody marked who was not silent for long enough.
async fn marks(site: &Site) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let takeovers = site
        .rows("select seq, body from event_log where kind = 'leader.takeover' order by seq")
        .await?;
    let epochs: Vec<i64> =
        takeovers.iter().filter_map(|row| row["body"]["epoch"].as_i64()).collect();
    if !epochs.is_sorted_by(|a, b| a < b) {
        wrong.push(format!("I18: leaders' epochs do not rise: {epochs:?}"));
    }
    let mut leader = 0;
    let lost = "select kind, body from event_log \
        where kind in ('leader.takeover', 'worker.lost') order by seq";
    let limit = site.times().lost.as_millis() as i64;
    for row in site.rows(lost).await? {
        let epoch = row["body"]["epoch"].as_i64().context("an event without epoch")?;
        if row["kind"] == "leader.takeover" {
            leader = epoch;
            continue;
        }
        if epoch != leader {
            wrong.push(format!("I18: leader {epoch} marked under leader {leader}: {row}"));
        }
        if row["body"]["silent_ms"].as_i64().is_none_or(|silent| silent <= limit) {
            wrong.push(format!("I19: marked before {limit} ms: {}", row["body"]));
        }
    }
    Ok(wrong)
}

/// I8, I9 and I16: the folders hold what the database says, nothing else, and no debris. Of
/// what lost histories `left` they hold the very same as before.
async fn folders(site: &Site, left: &Files) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    // A conflict has stopped before what was there, and shows nothing of its own.
    let query = "select f.share, f.path, f.size, encode(f.sha256, 'hex') as sha256, p.state, \
        p.target, p.version from publication_file f join publication p on p.id = f.publication_id \
        where p.state <> 'conflict'";
    let mut expected: BTreeMap<(String, String), Value> = BTreeMap::new();
    let mut manifests = BTreeSet::new();
    for row in site.rows(query).await? {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let key = (text("share"), text("path"));
        let folder = format!("{}/v{}", text("target"), row["version"]);
        manifests.insert((text("share"), format!("{folder}/{MANIFEST}")));
        if let Some(other) = expected.insert(key.clone(), row.clone()) {
            wrong.push(format!("I8: {}:{} belongs to two: {other} {row}", key.0, key.1));
        }
    }
    for share in ["archive", "output", "preview"] {
        let root = site.share(share);
        for path in files(&root) {
            if path == ".trix-share" || path.starts_with(".trix/") {
                continue;
            }
            let key = (share.to_owned(), path.clone());
            if manifests.remove(&key) {
                continue;
            }
            match expected.remove(&key) {
                // That it is unchanged was looked at when it was noted.
                None if left.contains_key(&key) => {}
                None => wrong.push(format!("I8: {share}:{path} is visible and unknown")),
                Some(row) => {
                    let bytes = std::fs::read(root.join(&path))?;
                    let found = Digest(sha2::Sha256::digest(&bytes).into()).to_string();
                    if row["sha256"] != found || row["size"] != bytes.len() {
                        wrong.push(format!("I8: {share}:{path} holds {found}, not {row}"));
                    }
                }
            }
        }
        let stages = std::fs::read_dir(root.join(".trix/stage")).into_iter().flatten().flatten();
        for stage in stages {
            wrong.push(format!("I16: a stage is left: {}", stage.path().display()));
        }
    }
    for ((share, path), _) in expected {
        wrong.push(format!("I8: {share}:{path} is published and not there"));
    }
    for (share, path) in manifests {
        wrong.push(format!("I9: {share}:{path} is not there"));
    }
    let cache = site.share("cache");
    let stages = std::fs::read_dir(cache.join(".trix/stage")).into_iter().flatten().flatten();
    wrong.extend(stages.map(|s| format!("I16: a stage is left: {}", s.path().display())));
    Ok(wrong)
}

/// I10: every job that succeeded has published what a fault-free run publishes.
/// Gives these files by share and path, too.
async fn contents(
    site: &Site,
    journal: &Journal,
) -> Result<(Vec<String>, BTreeMap<String, Digest>)> {
    let (mut wrong, mut golden) = (Vec::new(), BTreeMap::new());
    // A publication may be another job's: the same files are not published twice.
    let query = "select t.job_id, p.share, p.target, p.version, p.state, \
        (select jsonb_object_agg(f.path, encode(f.sha256, 'hex')) from publication_file f \
         where f.publication_id = p.id) as files \
        from task t join publication p on p.id = t.publication_id";
    let mut published: BTreeMap<i64, Vec<Value>> = BTreeMap::new();
    for row in site.rows(query).await? {
        published.entry(row["job_id"].as_i64().unwrap_or_default()).or_default().push(row);
    }
    for submit in journal.submits() {
        let Some(job) = submit.job else { continue };
        let found = published.remove(&job).unwrap_or_default();
        wrong.extend(compare(job, &submit, &found, &mut golden)?);
    }
    Ok((wrong, golden))
}

fn compare(
    job: i64,
    submit: &Submitted,
    found: &[Value],
    golden: &mut BTreeMap<String, Digest>,
) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for ((share, target), files) in golden::publications(submit)? {
        let rows: Vec<_> =
            found.iter().filter(|row| row["share"] == share && row["target"] == target).collect();
        let [row] = rows.as_slice() else {
            wrong.push(format!(
                "I10: job {job} has {} publications of {share}:{target}",
                rows.len()
            ));
            continue;
        };
        let folder = format!("{target}/v{}/", row["version"]);
        let there: BTreeMap<String, String> = (row["files"].as_object().into_iter().flatten())
            .filter_map(|(path, sha256)| {
                Some((path.strip_prefix(&folder)?.to_owned(), sha256.as_str()?.to_owned()))
            })
            .collect();
        golden.extend(
            files.iter().map(|(name, sha256)| (format!("{share}:{folder}{name}"), *sha256)),
        );
        let wanted: BTreeMap<String, String> =
            files.into_iter().map(|(name, sha256)| (name, sha256.to_string())).collect();
        if there != wanted {
            wrong.push(format!(
                "I10: job {job} published {share}:{folder} with {there:?} instead of {wanted:?}"
            ));
        }
    }
    Ok(wrong)
}

/// I11: the sources are as they were delivered.
fn sources(site: &Site, journal: &Journal) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let root = site.share("incoming");
    let mut delivered = BTreeSet::new();
    for submit in journal.submits() {
        let name = submit.source.location.path.to_string();
        let path = root.join(&name);
        let meta = std::fs::metadata(&path).with_context(|| format!("looking at {name}"))?;
        let since = meta.modified()?.duration_since(std::time::UNIX_EPOCH)?;
        if std::fs::read(&path)? != submit.film.bytes()
            || since.as_nanos() != submit.source.mtime_ns as u128
        {
            wrong.push(format!("I11: the source {name} has changed"));
        }
        delivered.insert(name);
    }
    for path in files(&root) {
        if !delivered.contains(&path) {
            wrong.push(format!("I11: {path} lies on the source share"));
        }
    }
    Ok(wrong)
}

/// I13: every consumer saw every number that it was not told to skip.
async fn events(site: &Site, consumed: &[Consumed]) -> Result<Vec<String>> {
    const LEAP: i64 = 1 << 32;
    let head = site.number("select head from event_head").await?;
    let restores = site.number("select count(*) from event_log where kind = 'adopted'").await?;
    let mut wrong = Vec::new();
    for (n, consumer) in consumed.iter().enumerate() {
        // Nothing is retired in a run this short: only a restore sends to a snapshot, and it
        // must. More than one of them is no fault: each lets the client read the lists anew.
        let leaps = |seq: i64| seq.max(0) / LEAP;
        let crossed: i64 =
            consumer.snapshots.iter().map(|(before, after)| leaps(*after) - leaps(*before)).sum();
        if crossed != restores || restores == 0 && !consumer.snapshots.is_empty() {
            wrong.push(format!("I13: consumer {n} lost its place: {:?}", consumer.snapshots));
        }
        let missing: Vec<i64> = (consumer.whole_from() + 1..=head)
            .filter(|seq| !consumer.seen.contains_key(seq))
            .take(5)
            .collect();
        if !missing.is_empty() {
            wrong.push(format!("I13: consumer {n} never saw {missing:?} of {head}"));
        }
    }
    Ok(wrong)
}

/// All files beneath a folder, relative to it.
pub fn files(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                open.push(path);
            } else if let Ok(relative) = path.strip_prefix(folder) {
                all.push(relative.display().to_string());
            }
        }
    }
    all.sort();
    all
}
