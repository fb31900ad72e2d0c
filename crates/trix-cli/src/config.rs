//! The node's configuration: the default file is the documentation.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use trix_model::ShareName;
use trix_storage::share::ShareRole;

/// The shipped file with every setting, its default and its reason.
pub const DEFAULT_FILE: &str = include_str!("../trix.toml");

/// Everything that a node can be told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This machine.
    pub node: Node,
    /// The database.
    pub database: Database,
    /// The api role.
    pub api: Api,
    /// The worker role.
    pub worker: Worker,
    /// The cache share.
    pub cache: Cache,
    /// The mount helper.
    pub mounts: Mounts,
    /// Protocol times.
    pub times: Times,
    /// Roots of shares on this machine.
    #[serde(default, rename = "share")]
    pub shares: Vec<Share>,
}

/// `[node]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Name; empty = host name.
    pub name: String,
    /// State folder; empty = the default place.
    pub state: PathBuf,
}

/// `[database]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// URL; empty = private server.
    pub url: String,
}

/// `[api]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Address and port.
    pub listen: std::net::SocketAddr,
    /// Further origins that browsers may come from.
    pub origins: Vec<String>,
    /// Sessions over plain http from other machines.
    pub insecure_http: bool,
}

/// `[worker]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Thousandths of cores; 0 = all.
    pub mcpu: u32,
    /// MiB; 0 = three quarters.
    pub ram_mib: u64,
    /// Seconds for a drain.
    pub drain_s: u64,
    /// What the box of a slot must enforce.
    pub sandbox: trix_slot::Policy,
}

/// `[cache]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Name of the share.
    pub share: ShareName,
    /// Size in GiB.
    pub max_gib: u64,
}

/// `[mounts]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mounts {
    /// Socket of the mount helper; empty = there is none.
    pub socket: PathBuf,
    /// The user who may ask it, beside root.
    pub uid: u32,
    /// The table that says what is mounted where.
    pub fstab: PathBuf,
}

/// `[times]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// Factor on all protocol times.
    pub scale: f64,
}

/// `[[share]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Logical name.
    pub name: ShareName,
    /// What it is for.
    pub role: ShareRole,
    /// Where it is on this machine.
    pub root: PathBuf,
    /// Its root is a mount point of fstab, which the mount helper may mount anew.
    #[serde(default)]
    pub remount: bool,
}

impl Config {
    /// Reads the defaults, then the first file found, then variables.
    pub fn load(explicit: Option<&Path>) -> anyhow::Result<Config> {
        let mut table: toml::Table =
            toml::from_str(DEFAULT_FILE).context("reading the built-in defaults")?;
        if let Some(path) = file_to_read(explicit)? {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("reading the configuration {}", path.display()))?;
            let own: toml::Table = toml::from_str(&text)
                .with_context(|| format!("parsing the configuration {}", path.display()))?;
            overlay(&mut table, own);
        }
        overlay_variables(&mut table, std::env::vars())?;
        let config: Config =
            table.try_into().context("the configuration (see trix.toml for all keys)")?;
        if !(config.times.scale > 0.0 && config.times.scale.is_finite()) {
            bail!("times.scale is {}; allowed: a number above 0", config.times.scale);
        }
        Ok(config)
    }

    /// The node's name.
    pub fn node_name(&self) -> String {
        if !self.node.name.is_empty() {
            return self.node.name.clone();
        }
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        if !self.node.state.as_os_str().is_empty() {
            return self.node.state.clone();
        }
        if rustix::process::geteuid().is_root() {
            return PathBuf::from("/var/lib/trix");
        }
        xdg("XDG_STATE_HOME", ".local/state").join("trix")
    }
}

/// `$VARIABLE`, else `$HOME/fallback`.
pub fn xdg(variable: &str, fallback: &str) -> PathBuf {
    match std::env::var_os(variable).filter(|v| !v.is_empty()) {
        Some(v) => PathBuf::from(v),
        None => {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(fallback)
        }
    }
}

/// The file that is named, else the first of the usual ones that exists.
pub fn file_to_read(explicit: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = explicit {
        if !path.exists() {
            bail!("the configuration {} does not exist", path.display());
        }
        return Ok(Some(path.to_owned()));
    }
    let usual = [
        PathBuf::from("/etc/trix/trix.toml"),
        xdg("XDG_CONFIG_HOME", ".config").join("trix/trix.toml"),
    ];
    Ok(usual.into_iter().find(|p| p.exists()))
}

/// Values of `own` replace those of `base`, table by table.
fn overlay(base: &mut toml::Table, own: toml::Table) {
    for (key, value) in own {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(b)), toml::Value::Table(o)) => overlay(b, o),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn overlay_variables(
    table: &mut toml::Table,
    variables: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<()> {
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix("TRIX_CONF_") else { continue };
        let lower = rest.to_ascii_lowercase();
        let Some((section, key)) = lower.split_once("__") else {
            bail!("{name}: the form is TRIX_CONF_<SECTION>__<KEY>");
        };
        let known = table.get_mut(section).and_then(|s| s.as_table_mut());
        let Some(slot) = known.and_then(|s| s.get_mut(key)) else {
            bail!("{name}: there is no setting {section}.{key} (see trix.toml for all)");
        };
        // The default's type decides how the text is read.
        *slot = match slot {
            toml::Value::String(_) => toml::Value::String(value),
            _ => toml::from_str::<toml::Table>(&format!("v = {value}"))
                .ok()
                .and_then(|mut t| t.remove("v"))
                .with_context(|| format!("{name}: {value:?} is no value for {section}.{key}"))?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> toml::Table {
        toml::from_str(DEFAULT_FILE).unwrap()
    }

    #[test]
    fn the_shipped_file_is_a_valid_configuration() {
        let c: Config = table().try_into().unwrap();
        assert_eq!(c.api.listen.port(), 9001);
        assert!(c.shares.is_empty());
        assert_eq!(c.worker.sandbox, trix_slot::Policy::BestEffort);
    }

    #[test]
    fn variables_override_and_unknown_ones_are_refused() {
        let mut t = table();
        let var = |k: &str, v: &str| std::iter::once((k.to_owned(), v.to_owned()));
        overlay_variables(&mut t, var("TRIX_CONF_API__LISTEN", "127.0.0.1:1")).unwrap();
        overlay_variables(&mut t, var("TRIX_CONF_WORKER__MCPU", "1500")).unwrap();
        overlay_variables(&mut t, var("TRIX_CONF_WORKER__SANDBOX", "strict")).unwrap();
        overlay_variables(&mut t, var("TRIX_TEST_MEDIA", "ignored")).unwrap();
        let c: Config = t.clone().try_into().unwrap();
        assert_eq!(c.worker.sandbox, trix_slot::Policy::Strict);
        assert_eq!((c.api.listen.port(), c.worker.mcpu), (1, 1500));
        let e = overlay_variables(&mut t, var("TRIX_CONF_API__LISTN", "x")).unwrap_err();
        assert!(e.to_string().contains("api.listn"), "{e}");
        t.insert("nonsense".into(), 1.into());
        assert!(t.try_into::<Config>().is_err());
    }
}
