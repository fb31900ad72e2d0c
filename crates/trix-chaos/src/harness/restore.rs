//! Backups of a site's database as an operator takes them, the loss of the database, its
//! restoration, and what must hold of the history that was lost with it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use sha2::Digest as _;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use trix_db::cluster::{Cluster, ClusterOptions, Stop, ensure_database, newest_binaries};
use trix_model::Digest;
use trix_storage::publish::MANIFEST;

use super::audit;
use super::site::{DATABASE, Site, done, fresh_server, listen};

/// How a backup is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server's files, copied while it runs (`pg_basebackup`).
    Base,
    /// What it would say (`pg_dump`, and `pg_dumpall` for its roles).
    Dump,
}

impl Kind {
    /// Every kind.
    pub const ALL: &[Kind] = &[Kind::Base, Kind::Dump];

    /// The program that takes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Base => "pg_basebackup",
            Kind::Dump => "pg_dump",
        }
    }
}

/// A backup in a folder of its own. It is restored once: its folder becomes the server's.
pub struct Backup {
    kind: Kind,
    n: usize,
    folder: PathBuf,
    binaries: PathBuf,
}

impl Backup {
    /// Takes a site's n-th backup while everything goes on.
    pub fn take(site: &Site, kind: Kind, n: usize) -> Result<Backup> {
        tokio::task::block_in_place(|| Backup::take_blocking(site, kind, n))
    }

    fn take_blocking(site: &Site, kind: Kind, n: usize) -> Result<Backup> {
        let folder = site.path().join(format!("backup-{n}"));
        std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let (binaries, _) = newest_binaries()?;
        let backup = Backup { kind, n, folder, binaries };
        let url = site.server(|cluster| cluster.url(DATABASE));
        match kind {
            Kind::Base => {
                // As the server's user, whose files these are.
                let owner = std::fs::metadata(site.path().join("pg/data"))?;
                chown(&backup.folder, Some(owner.uid()), Some(owner.gid()))?;
                let mut copy = backup.program("pg_basebackup");
                copy.uid(owner.uid()).gid(owner.gid()).arg("--pgdata").arg(backup.data());
                copy.args(["--dbname", &url, "--checkpoint", "fast", "--no-sync"]);
                done(copy)?;
            }
            Kind::Dump => {
                let mut roles = backup.program("pg_dumpall");
                roles.args(["--dbname", &url, "--globals-only", "--file"]).arg(backup.roles());
                done(roles)?;
                let mut dump = backup.program("pg_dump");
                dump.args(["--dbname", &url, "--format", "custom", "--file"]).arg(backup.dump());
                done(dump)?;
            }
        }
        Ok(backup)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command.current_dir("/");
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn roles(&self) -> PathBuf {
        self.folder.join("roles.sql")
    }

    fn dump(&self) -> PathBuf {
        self.folder.join("dump")
    }

    /// Starts a server on the backup, for nobody else, and adopts what it holds.
    async fn adopted(&self, site: &Site) -> Result<History> {
        let mut server = match self.kind {
            Kind::Base => {
                listen(&self.folder, false)?;
                Cluster::open(&self.folder, ClusterOptions { volatile: true })?
            }
            Kind::Dump => {
                tokio::task::block_in_place(|| fresh_server(&self.folder, site.options()))?
            }
        };
        tokio::task::block_in_place(|| server.start())?;
        let history = self.adopted_on(site, &server).await;
        tokio::task::block_in_place(|| server.stop(Stop::Fast))?;
        history
    }

    async fn adopted_on(&self, site: &Site, server: &Cluster) -> Result<History> {
        let url = server.url(DATABASE);
        if self.kind == Kind::Dump {
            let mut roles = self.program("psql");
            // The role that owns everything is there already, and psql goes on behind that.
            roles.args(["--no-psqlrc", "--quiet", "--dbname", &server.url("postgres"), "--file"]);
            roles.arg(self.roles());
            tokio::task::block_in_place(|| done(roles))?;
            ensure_database(&server.url("postgres"), DATABASE).await?;
            let mut fill = self.program("pg_restore");
            fill.args(["--exit-on-error", "--dbname", &url]).arg(self.dump());
            tokio::task::block_in_place(|| done(fill))?;
        }
        tokio::task::block_in_place(|| site.trix(&["db", "adopt", "--database-url", &url]))?;
        History::of(&url).await
    }
}

/// Destroys the database of a site and puts the backup in its place, adopted. Workers and
/// apis go on all the time: for them the database was away, and is another one now.
pub async fn restore(site: &Site, backup: Backup) -> Result<Lost> {
    site.server(|cluster| cluster.kill());
    let files = visible(site)?;
    let (pg, grave) = (site.path().join("pg"), site.path().join(format!("lost-{}", backup.n)));
    std::fs::create_dir(&grave).with_context(|| format!("making {}", grave.display()))?;
    std::fs::rename(pg.join("data"), grave.join("data")).context("taking the data away")?;

    let lost = post_mortem(&grave).await.context("looking at the lost database")?;
    let restored = backup.adopted(site).await.context("restoring")?;
    listen(&backup.folder, site.has_net())?;
    std::fs::rename(backup.data(), pg.join("data")).context("putting the backup in place")?;
    site.server_up()?;
    Ok(Lost::between(lost, &restored, files))
}

/// What the lost database held at its end. An operator would not know: the harness does, from
/// the files that it did not really destroy.
async fn post_mortem(grave: &Path) -> Result<History> {
    listen(grave, false)?;
    let mut server = Cluster::open(grave, ClusterOptions { volatile: true })?;
    tokio::task::block_in_place(|| server.start())?;
    let history = History::of(&server.url(DATABASE)).await;
    tokio::task::block_in_place(|| server.stop(Stop::Immediate))?;
    history
}

/// Numbers that a database has given: of what, and one or two of them.
type Numbers = BTreeSet<(String, i64, i64)>;

/// What is known outside by its number. Such a number must never be given twice.
const NUMBERS: &str = "select 'attempt' as what, task_id as n, epoch as m from attempt \
    union all select 'task', id, 0 from task \
    union all select 'job', id, 0 from job \
    union all select 'worker', id, 0 from worker \
    union all select 'publication', id, 0 from publication \
    union all select 'event', seq, 0 from event_log";

const VERSIONS: &str = "select p.share, p.target, p.version, p.state, \
    encode(p.manifest_hash, 'hex') as hash, \
    (select jsonb_object_agg(f.path, encode(f.sha256, 'hex')) from publication_file f \
        where f.publication_id = p.id) as files from publication p";

/// Share, target and version.
type Name = (String, String, i64);

/// One publication.
struct Version {
    state: String,
    hash: String,
    /// sha256 by path.
    files: BTreeMap<String, String>,
}

/// What a database held.
struct History {
    numbers: Numbers,
    versions: BTreeMap<Name, Version>,
}

impl History {
    async fn of(url: &str) -> Result<History> {
        let mut c = PgConnection::connect(url).await?;
        let numbers = numbers(&rows(&mut c, NUMBERS).await?);
        let versions = versions(&rows(&mut c, VERSIONS).await?);
        c.close().await?;
        Ok(History { numbers, versions })
    }
}

async fn rows(c: &mut PgConnection, query: &str) -> Result<Vec<Value>> {
    let query = format!("select to_jsonb(q) from ({query}) q");
    Ok(sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(c).await?)
}

fn text(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap_or_default().to_owned()
}

fn number(row: &Value, field: &str) -> i64 {
    row[field].as_i64().unwrap_or_default()
}

fn numbers(rows: &[Value]) -> Numbers {
    rows.iter().map(|row| (text(row, "what"), number(row, "n"), number(row, "m"))).collect()
}

fn versions(rows: &[Value]) -> BTreeMap<Name, Version> {
    let version = |row: &Value| {
        let name = (text(row, "share"), text(row, "target"), number(row, "version"));
        let files = (row["files"].as_object().into_iter().flatten())
            .map(|(path, sha256)| (path.clone(), sha256.as_str().unwrap_or_default().to_owned()));
        let files = files.collect();
        (name, Version { state: text(row, "state"), hash: text(row, "hash"), files })
    };
    rows.iter().map(version).collect()
}

/// Files by share and path, with the sha256 of each.
pub type Files = BTreeMap<(String, String), Digest>;

/// Every visible file of the destinations.
fn visible(site: &Site) -> Result<Files> {
    let mut all = Files::new();
    for share in ["archive", "output", "preview"] {
        let root = site.share(share);
        for path in audit::files(&root) {
            if path != ".trix-share" && !path.starts_with(".trix/") {
                let found = digest(&root.join(&path))?;
                all.insert((share.to_owned(), path), found);
            }
        }
    }
    Ok(all)
}

fn digest(path: &Path) -> Result<Digest> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(Digest(sha2::Sha256::digest(&bytes).into()))
}

/// The history that a restore has cut off, and what it left on the shares.
pub struct Lost {
    /// Numbers that it gave.
    numbers: Numbers,
    /// Versions that it published, with the hash of their manifests.
    versions: BTreeMap<Name, String>,
    /// Files that were visible when it ended.
    files: Files,
    /// Files of publications that were under way: whoever moves them needs no database for it.
    /// Without sha256, manifests.
    under_way: BTreeMap<(String, String), Option<String>>,
}

/// What became of lost versions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// The database knows them again: the same files, published.
    pub adopted: u64,
    /// It found them in the way of others, said so, and left them alone.
    pub flagged: u64,
}

impl Lost {
    fn between(lost: History, restored: &History, files: Files) -> Lost {
        let mut versions = BTreeMap::new();
        let mut under_way = BTreeMap::new();
        for (name, version) in lost.versions {
            let known = restored.versions.get(&name);
            match version.state.as_str() {
                "published" if known.is_none_or(|v| v.state != "published") => {
                    versions.insert(name, version.hash);
                }
                "prepared" | "moving" => {
                    let (share, target, n) = name;
                    let manifest = format!("{target}/v{n}/{MANIFEST}");
                    under_way.insert((share.clone(), manifest), None);
                    let files = version.files.into_iter();
                    under_way
                        .extend(files.map(|(path, sha256)| ((share.clone(), path), Some(sha256))));
                }
                _ => {}
            }
        }
        let numbers = lost.numbers.difference(&restored.numbers).cloned().collect();
        Lost { numbers, versions, files, under_way }
    }

    /// Versions that were lost.
    pub fn versions(&self) -> usize {
        self.versions.len()
    }

    /// Files that may be visible by the word of the lost database alone, as they must be.
    pub fn known(&self, site: &Site) -> Result<Files> {
        let mut all = self.files.clone();
        for ((share, path), sha256) in &self.under_way {
            let place = site.share(share).join(path);
            if !place.exists() {
                continue;
            }
            let found = digest(&place)?;
            if sha256.as_ref().is_none_or(|wanted| *wanted == found.to_string()) {
                all.entry((share.clone(), path.clone())).or_insert(found);
            }
        }
        Ok(all)
    }

    /// What must hold of it at the end, and what became of its versions.
    pub async fn wrong(&self, site: &Site) -> Result<(Vec<String>, Fate)> {
        let (mut wrong, mut fate) = (Vec::new(), Fate::default());
        let now = numbers(&site.rows(NUMBERS).await?);
        for (what, n, m) in self.numbers.intersection(&now) {
            wrong.push(format!("R9: {what} {n}-{m} was given before the restore, and again"));
        }
        for ((share, path), before) in &self.files {
            let place = site.share(share).join(path);
            let found = if place.exists() { Some(digest(&place)?) } else { None };
            if found != Some(*before) {
                wrong.push(format!("I8: {share}:{path} was {before} at the restore, is {found:?}"));
            }
        }
        let now = versions(&site.rows(VERSIONS).await?);
        for (name, hash) in &self.versions {
            match now.get(name) {
                Some(v) if v.state == "published" && v.hash == *hash => fate.adopted += 1,
                Some(v) if v.state == "conflict" => fate.flagged += 1,
                Some(v) => wrong.push(format!("R9: {name:?} is {} with other files", v.state)),
                None => wrong.push(format!("R9: {name:?} is neither adopted nor flagged")),
            }
        }
        Ok((wrong, fate))
    }
}
