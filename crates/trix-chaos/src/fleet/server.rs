//! The server of a measurement: durable as in production, nobody else's, and watched from
//! outside.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;
use trix_db::events::SEQUENCER_BATCH;
use trix_db::{Db, ProtocolTimes};
use trix_testkit::pg::{TestCluster, TestDb};

/// Ticks of `/proc` a second: part of the interface to programs, the same on every kernel.
const TICKS: f64 = 100.0;

/// A private server.
pub struct Server {
    cluster: TestCluster,
}

/// How safe a commit is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Durability {
    /// The server's version.
    pub version: String,
    /// Whether commits are forced to the disk at all.
    pub fsync: String,
    /// Whether a commit waits for the disk.
    pub synchronous_commit: String,
    /// By what.
    pub wal_sync_method: String,
}

type Settings = (String, String, String, String);

/// What was counted up to a moment.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    at: Instant,
    commits: i64,
    wal_bytes: i64,
    server_s: f64,
    own_s: f64,
    busy_s: f64,
}

/// What lies between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Used {
    /// Seconds of the clock.
    pub wall_s: f64,
    /// Transactions that were committed in the database.
    pub commits: i64,
    /// Bytes of write-ahead log of the whole server.
    pub wal_bytes: i64,
    /// Seconds of CPU of the server's processes.
    pub server_cpu_s: f64,
    /// Seconds of CPU of this process and of those that it waited for.
    pub own_cpu_s: f64,
    /// What anybody else spent, as a share of what all cores can give.
    pub others: f64,
}

impl Server {
    /// Starts one.
    pub async fn start() -> Result<Server> {
        Ok(Server { cluster: TestCluster::start_durable().await? })
    }

    /// A fresh migrated database.
    pub async fn database(&self) -> Result<TestDb> {
        TestDb::on(&self.cluster.admin_url()).await
    }

    /// Address of a fresh empty database for somebody else's queue.
    pub async fn empty_database(&self, name: &str) -> Result<String> {
        let admin = self.cluster.admin_url();
        trix_db::cluster::ensure_database(&admin, name).await?;
        Ok(self.cluster.url_of(name))
    }

    /// Drops a database of [`Server::empty_database`].
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        let mut c = PgConnection::connect(&self.cluster.admin_url()).await?;
        let drop = sqlx::AssertSqlSafe(format!("drop database \"{name}\" with (force)"));
        sqlx::query(drop).execute(&mut c).await.context("dropping a database")?;
        Ok(c.close().await?)
    }

    /// Writes out what earlier work left, so that the next does not pay for it. The log of
    /// what follows has whole pages in it, as after every checkpoint.
    pub async fn checkpoint(&self) -> Result<()> {
        let mut c = PgConnection::connect(&self.cluster.admin_url()).await?;
        sqlx::query("checkpoint").execute(&mut c).await.context("a checkpoint")?;
        Ok(c.close().await?)
    }

    /// How safe its commits are.
    pub async fn durability(&self) -> Result<Durability> {
        let mut c = PgConnection::connect(&self.cluster.admin_url()).await?;
        let (version, fsync, synchronous_commit, wal_sync_method): Settings = sqlx::query_as(
            "select current_setting('server_version'), current_setting('fsync'),
                current_setting('synchronous_commit'), current_setting('wal_sync_method')",
        )
        .fetch_one(&mut c)
        .await
        .context("reading the server's settings")?;
        c.close().await?;
        Ok(Durability { version, fsync, synchronous_commit, wal_sync_method })
    }

    /// What was counted so far; commits are those of the database at `url`. Sessions at work
    /// tell their commits once a second, so a window should be much longer.
    pub async fn counters(&self, url: &str) -> Result<Counters> {
        let mut c = PgConnection::connect(url).await?;
        let (commits, wal_bytes): (i64, i64) = sqlx::query_as(
            "select xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint
            from pg_stat_database where datname = current_database()",
        )
        .fetch_one(&mut c)
        .await
        .context("reading the server's counters")?;
        c.close().await?;
        let mut ticks = 0;
        for pid in self.cluster.processes() {
            // A session may have ended since it was listed; its time is then in the server's.
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            ticks += stat.ok().and_then(|s| process_ticks(&s)).unwrap_or(0);
        }
        Ok(Counters {
            at: Instant::now(),
            commits,
            wal_bytes,
            server_s: ticks as f64 / TICKS,
            own_s: read_ticks("/proc/self/stat", process_ticks)?,
            busy_s: read_ticks("/proc/stat", machine_ticks)?,
        })
    }
}

impl Counters {
    /// What was used from here to `end`.
    pub fn until(&self, end: &Counters) -> Used {
        let wall_s = (end.at - self.at).as_secs_f64();
        let server_cpu_s = end.server_s - self.server_s;
        let own_cpu_s = end.own_s - self.own_s;
        let others_s = (end.busy_s - self.busy_s - server_cpu_s - own_cpu_s).max(0.0);
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Used {
            wall_s,
            commits: end.commits - self.commits,
            wal_bytes: end.wal_bytes - self.wal_bytes,
            server_cpu_s,
            own_cpu_s,
            others: others_s / (wall_s * cores as f64),
        }
    }
}

/// The protocol's times at a pace: so many times as fast as in production. A measurement
/// wants the figure, not a refusal: what must come back within a deadline keeps a long one.
pub fn paced(pace: f64) -> ProtocolTimes {
    let patience = Duration::from_secs(60);
    ProtocolTimes {
        connect: patience,
        statement: patience,
        answer: patience,
        ..ProtocolTimes::default().scaled(1.0 / pace)
    }
}

/// A handle with so many connections.
pub fn handle(test: &TestDb, times: ProtocolTimes, connections: u32) -> Result<Db> {
    Ok(Db::with_connections(test.url(), times, connections)?)
}

/// Lets the planner know what a bulk load left, as autovacuum would within a minute.
pub async fn analyze(url: &str) -> Result<()> {
    let mut c = PgConnection::connect(url).await?;
    sqlx::query("vacuum analyze").execute(&mut c).await.context("analysing the tables")?;
    Ok(c.close().await?)
}

/// Numbers events as a service does, until `stop` and nothing waits any more. Gives how many.
pub async fn number_events(db: Db, stop: CancellationToken) -> Result<u64> {
    let mut all = 0;
    loop {
        // Looked at before the call: what came before the end is numbered.
        let last = stop.is_cancelled();
        let count = db.sequence_events().await?.count;
        all += u64::from(count);
        if count == SEQUENCER_BATCH || last && count > 0 {
            continue;
        }
        if last {
            return Ok(all);
        }
        tokio::select! {
            () = tokio::time::sleep(db.times().event_poll) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Tasks that wait to be claimed.
pub async fn ready_tasks(url: &str) -> Result<i64> {
    let mut c = PgConnection::connect(url).await?;
    let n = sqlx::query_scalar("select count(*) from task where state = 'ready' and deps_left = 0")
        .fetch_one(&mut c)
        .await
        .context("counting ready tasks")?;
    c.close().await?;
    Ok(n)
}

fn read_ticks(path: &str, parse: fn(&str) -> Option<u64>) -> Result<f64> {
    let text = fs::read_to_string(Path::new(path)).with_context(|| format!("reading {path}"))?;
    let ticks = parse(&text).with_context(|| format!("{path} does not look as it should"))?;
    Ok(ticks as f64 / TICKS)
}

/// User and system time of a process and of its children that it waited for.
fn process_ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may hold spaces. Behind it: state, then fields 4 and on.
    let fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
    let times: Vec<u64> = fields.skip(11).take(4).map_while(|f| f.parse().ok()).collect();
    (times.len() == 4).then(|| times.iter().sum())
}

/// What all cores spent on anything since boot, stolen time included.
fn machine_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|l| l.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_ascii_whitespace().map_while(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are counted in user and nice.
    (fields.len() >= 8).then(|| [0, 1, 2, 5, 6, 7].iter().map(|n| fields[*n]).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_its_own_time_and_that_of_its_ended_children() {
        let stat = "812 (postgres: a) b) S 1 812 812 0 -1 4194560 97 5 0 0 11 22 33 44 20 0 1 0";
        assert_eq!(process_ticks(stat), Some(110));
        assert_eq!(process_ticks("812 (postgres) S 1 812"), None);
        assert_eq!(process_ticks(""), None);
    }

    #[test]
    fn the_machines_time_leaves_out_idle_and_waiting() {
        let stat = "cpu  1 2 4 1000 2000 8 16 32 5 6\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(machine_ticks(stat), Some(63));
        assert_eq!(machine_ticks("cpu0 1 2 3"), None);
    }

    #[test]
    fn own_time_can_be_read_and_the_machine_spent_no_less() {
        let own = read_ticks("/proc/self/stat", process_ticks).unwrap();
        assert!(read_ticks("/proc/stat", machine_ticks).unwrap() >= own);
    }

    #[test]
    fn used_is_the_difference_and_others_is_what_nobody_of_ours_spent() {
        let at = Instant::now();
        let begin =
            Counters { at, commits: 10, wal_bytes: 1000, server_s: 1.0, own_s: 2.0, busy_s: 100.0 };
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get()) as f64;
        let end = Counters {
            at: at + Duration::from_secs(10),
            commits: 110,
            wal_bytes: 5000,
            server_s: 4.0,
            own_s: 3.0,
            busy_s: 104.0 + cores,
        };
        let used = begin.until(&end);
        assert_eq!((used.wall_s, used.commits, used.wal_bytes), (10.0, 100, 4000));
        assert_eq!((used.server_cpu_s, used.own_cpu_s), (3.0, 1.0));
        assert!((used.others - 0.1).abs() < 1e-9, "{}", used.others);
    }
}
