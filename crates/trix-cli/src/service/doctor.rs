//! `trix doctor`: looks at everything that this node needs, and says what would mend it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde::Serialize;
use trix_db::{Db, jobs::NodeRow};
use trix_model::state::{NodeState, WorkerState};
use trix_model::with_causes;
use trix_slot::{Launcher, Policy};
use trix_storage::{Expect, Share, ShareRole, ShareState};

use super::up;
use crate::config::{self, Config};
use crate::handover::media_binary;

/// A share that has not answered by then hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Less than this share of a file system free is worth a word.
const LOW_PERCENT: u64 = 5;

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    verdict: Verdict,
    /// What was looked at.
    what: String,
    /// How it is.
    how: String,
    /// What would mend it; empty if nothing has to be.
    mend: String,
}

/// All that was found, in the order in which a start needs it.
#[derive(Debug, Default)]
struct Report(Vec<Finding>);

impl Report {
    fn ok(&mut self, what: impl Into<String>, how: impl Into<String>) {
        self.add(Verdict::Ok, what, how, "");
    }

    fn warn(&mut self, what: impl Into<String>, how: impl Into<String>, mend: &str) {
        self.add(Verdict::Warn, what, how, mend);
    }

    fn fail(&mut self, what: impl Into<String>, how: impl Into<String>, mend: &str) {
        self.add(Verdict::Fail, what, how, mend);
    }

    fn add(
        &mut self,
        verdict: Verdict,
        what: impl Into<String>,
        how: impl Into<String>,
        mend: &str,
    ) {
        let (what, how, mend) = (what.into(), how.into(), mend.to_owned());
        self.0.push(Finding { verdict, what, how, mend });
    }

    fn worst(&self) -> Verdict {
        self.0.iter().map(|f| f.verdict).max().unwrap_or(Verdict::Ok)
    }

    /// A line each, and what to do beneath it.
    fn text(&self) -> String {
        let width = self.0.iter().map(|f| f.what.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for Finding { verdict, what, how, mend } in &self.0 {
            let word = match verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{word}  {what:width$}  {how}");
            if !mend.is_empty() {
                let _ = writeln!(text, "      {:width$}  → {mend}", "");
            }
        }
        text
    }
}

/// Prints what was found; exit code 1 when something is not as it must be.
pub async fn doctor(config: &Config, explicit: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let mut report = Report::default();
    match config::file_to_read(explicit)? {
        Some(path) => report.ok("configuration", path.display().to_string()),
        None => report.ok("configuration", "no file: the defaults and the environment"),
    }
    database(config, &mut report).await;
    slots(config, &mut report);
    for share in &config.shares {
        look_at_share(share, &mut report);
    }
    if config.shares.is_empty() {
        report.warn("shares", "none is configured", "name them as [[share]] (see trix config)");
    } else if !config.shares.iter().any(|s| s.name == config.cache.share) {
        let how = format!("no [[share]] is named {}", config.cache.share);
        report.fail("cache", how, "add it with role = \"cache\"");
    }
    if let Some(socket) = up::mount_socket(config)
        && let Err(e) = std::os::unix::net::UnixStream::connect(socket)
    {
        report.fail(
            "mount helper",
            format!("{}: {e}", socket.display()),
            "start trix mount-helper",
        );
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&report.0)?);
    } else {
        print!("{}", report.text());
    }
    if report.worst() == Verdict::Fail {
        anyhow::bail!("something is not as it must be");
    }
    Ok(())
}

async fn database(config: &Config, report: &mut Report) {
    let what = "database";
    let url = match up::database_url(config) {
        Ok(url) => url,
        Err(e) => return report.fail(what, format!("{e:#}"), "start trix up, or set database.url"),
    };
    let db = match Db::open(&url, up::times(config)) {
        Ok(db) => db,
        Err(e) => return report.fail(what, e.to_string(), "correct database.url"),
    };
    let overview = match db.overview().await {
        Ok(overview) => overview,
        Err(e) => {
            let mend = if e.is_unavailable() { "start the server" } else { "run trix migrate" };
            return report.fail(what, with_causes(&e), mend);
        }
    };
    let (has, wants) = (overview.schema_version, Db::newest_schema());
    match has.cmp(&wants) {
        std::cmp::Ordering::Equal => report.ok(what, format!("answers; schema {has}")),
        std::cmp::Ordering::Less => {
            let how = format!("its schema is {has}, this program wants {wants}");
            report.fail(what, how, "run trix migrate");
        }
        std::cmp::Ordering::Greater => {
            let how = format!("its schema is {has}, this program is older and knows {wants}");
            report.warn(what, how, "update this node");
        }
    }
    match overview.leader.filter(|l| l.alive) {
        Some(leader) => report.ok("dispatcher", format!("{} leads", leader.holder)),
        None => report.fail("dispatcher", "nobody leads", "start trix dispatcher or trix up"),
    }
    match db.nodes().await {
        Ok(nodes) => this_node(config, &nodes, &db, report).await,
        Err(e) => report.fail("nodes", with_causes(&e), ""),
    }
}

async fn this_node(config: &Config, nodes: &[NodeRow], db: &Db, report: &mut Report) {
    let name = config.node_name();
    let what = format!("node {name}");
    let Some(node) = nodes.iter().find(|n| n.name == name) else {
        return report.warn(what, "is not enrolled", "start its worker, or run trix enrol");
    };
    let alive = (node.worker.as_ref())
        .is_some_and(|w| matches!(w.state, WorkerState::Active | WorkerState::Draining));
    if !alive {
        return report.warn(what, "its worker does not run", "start trix worker or trix up");
    }
    match db.explain_node(&name).await {
        Ok(facts) if facts.state == NodeState::Ok => report.ok(what, "its worker runs"),
        Ok(facts) => {
            let why = facts.cordon_reason.unwrap_or_default();
            let how = format!("is {}: {why}", facts.state);
            report.warn(what, how, &format!("trix explain node {name}"));
        }
        Err(e) => report.fail(what, with_causes(&e), ""),
    }
}

/// The program that parses media, its box, and whether this machine computes as it should.
fn slots(config: &Config, report: &mut Report) {
    let what = "slots";
    let launcher = match media_binary().and_then(|path| Ok(std::fs::canonicalize(path)?)) {
        Ok(path) => Launcher::new(path),
        Err(e) => return report.fail(what, format!("{e:#}"), "install trix-media beside trix"),
    };
    let user = trix_slot::slot_user();
    match launcher.trial(user) {
        Ok((hello, boxed)) => {
            report.ok(what, hello.engine);
            match config.worker.sandbox.objection(&boxed) {
                Some(objection) => {
                    report.fail(
                        "sandbox",
                        objection,
                        "worker.sandbox = \"best-effort\", or a newer kernel",
                    );
                }
                None => match Policy::Strict.objection(&boxed) {
                    None => report.ok("sandbox", format!("{} measures", boxed.enforced.len())),
                    Some(weaker) => {
                        report.warn("sandbox", weaker, "docs/sandbox.md says what each part is for")
                    }
                },
            }
        }
        Err(e) => return report.fail(what, with_causes(&e), ""),
    }
    match launcher.self_test(user) {
        Ok(answer) if answer.is_right() => report.ok("self-test", "gives the known answer"),
        Ok(_) => report.fail(
            "self-test",
            "this machine does not give the known answer",
            "test its memory and take it out of service",
        ),
        Err(e) => report.fail("self-test", with_causes(&e), ""),
    }
}

fn look_at_share(share: &config::Share, report: &mut Report) {
    let what = format!("share {}", share.name);
    let (tell, told) = channel();
    let (name, root) = (share.name.clone(), share.root.clone());
    let reading = share.role == ShareRole::Source;
    let looker = std::thread::Builder::new().name("doctor".into()).spawn(move || {
        let looked = Share::open(name, &root).and_then(|share| {
            let probe = share.probe(&Expect::default());
            Ok((probe, if reading { None } else { share.marker()? }))
        });
        // Whoever asked may have given up.
        let _ = tell.send(looked);
    });
    if let Err(e) = looker {
        return report.fail(what, format!("starting a thread: {e}"), "");
    }
    let root = share.root.display();
    let mount = "mount it; then look at trix explain node";
    match told.recv_timeout(PATIENCE) {
        Err(_) => report.fail(what, format!("{root} does not answer"), mount),
        Ok(Err(e)) => report.fail(what, e.with_causes(), mount),
        Ok(Ok((probe, _))) if probe.state != ShareState::Ok => {
            report.fail(what, format!("{root}: {}", probe.reason), mount);
        }
        Ok(Ok((probe, marker))) => {
            let mut how = format!("{root}");
            if let Some(mount) = &probe.mount {
                let _ = write!(how, ", {} of {}", mount.fs_type, mount.source);
            }
            let space = probe.space.filter(|s| s.total > 0);
            let low = space.is_some_and(|s| s.free.saturating_mul(100) / s.total < LOW_PERCENT);
            if !reading && marker.is_none() {
                let mend = "it gets its .trix-share when a worker first uses it: is it mounted?";
                report.warn(what, format!("{how}: was never used"), mend);
            } else if !reading && low {
                let free = space.map_or(0, |s| s.free >> 30);
                report.warn(what, format!("{how}: {free} GiB are free"), "make room");
            } else {
                report.ok(what, how);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_each_with_what_would_mend_it_beneath() {
        let mut report = Report::default();
        report.ok("database", "answers");
        report.fail("share in", "does not answer", "mount it");
        assert_eq!(
            report.text(),
            "ok    database  answers\n\
             FAIL  share in  does not answer\n\
             \u{20}               → mount it\n"
        );
        assert_eq!(report.worst(), Verdict::Fail);
    }
}
