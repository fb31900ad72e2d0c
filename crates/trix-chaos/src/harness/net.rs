//! Networks of one's own: every worker and dispatcher in a network namespace, joined by
//! a veth to the one where PostgreSQL listens, and packet filters between them.
//!
//! The harness itself runs in namespaces of its own ([`enter`]): what it makes vanishes
//! with its last process, whatever ends it, and the machine's own network is not touched.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where PostgreSQL listens, in the harness's own namespace.
pub const SERVER: &str = "10.213.0.1";

/// Set in a harness that has namespaces of its own.
const INSIDE: &str = "TRIX_CHAOS_INSIDE";

/// How a link is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// Nothing gets through.
    Drop,
    /// Nothing gets to the server; what it says arrives.
    ToServer,
    /// Nothing comes from the server; it hears everything.
    FromServer,
    /// Connections are refused and torn.
    Reset,
    /// Three packets of ten are lost, both ways.
    Loss,
}

impl Cut {
    /// Every way.
    pub const ALL: &[Cut] = &[Cut::Drop, Cut::ToServer, Cut::FromServer, Cut::Reset, Cut::Loss];

    /// In one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cut::Drop => "drop",
            Cut::ToServer => "drop to server",
            Cut::FromServer => "drop from server",
            Cut::Reset => "reset",
            Cut::Loss => "loss 30 %",
        }
    }
}

/// True when this process may make networks: it is in a namespace of its own.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Becomes the same command in namespaces of its own (network, processes, mounts). Returns
/// only when that cannot be had, with the reason.
pub fn enter() -> String {
    let wanted = ["ip", "nft", "nsenter", "unshare"];
    if let Some(missing) = wanted.iter().find(|tool| !super::has_tool(tool)) {
        return format!("{missing} is not installed");
    }
    if !rustix::process::geteuid().is_root() {
        return "network namespaces for servers of several users need root".to_owned();
    }
    let namespaces = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let possible = Command::new("unshare")
        .args(namespaces)
        .args(["ip", "link", "set", "lo", "up"])
        .stderr(Stdio::null())
        .status();
    if !possible.is_ok_and(|status| status.success()) {
        return "this machine refuses new namespaces".to_owned();
    }
    let Ok(own) = std::env::current_exe() else { return "this program has no path".to_owned() };
    // The shell is the namespace's first process: it reaps what others leave behind.
    let error = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-c", "\"$0\" \"$@\"; exit $?"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    format!("starting unshare: {error}")
}

/// The namespaces of one site and the state of their links.
pub struct Net {
    ends: BTreeMap<String, End>,
    cuts: BTreeMap<String, Cut>,
    /// No packet reaches PostgreSQL, from anybody.
    server_cut: bool,
}

/// A namespace, kept by a process that does nothing else.
struct End {
    keeper: Child,
    n: usize,
}

impl Drop for End {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to end.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

impl Net {
    /// An address for the server, and no ends yet.
    pub fn new() -> Result<Net> {
        ip("link set lo up")?;
        // It is there already when a site was here before.
        ip(&format!("addr replace {SERVER}/32 dev lo"))?;
        let net = Net { ends: BTreeMap::new(), cuts: BTreeMap::new(), server_cut: false };
        net.apply()?;
        Ok(net)
    }

    /// Makes a namespace with a link to the server.
    pub fn add(&mut self, name: &str) -> Result<()> {
        let n = self.ends.len() + 1;
        let keeper = Command::new("unshare")
            .args(["--net", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .context("starting unshare")?;
        let pid = keeper.id();
        let end = End { keeper, n };
        // The keeper has its namespace some moments after it was started.
        let own = std::fs::read_link("/proc/self/ns/net").context("reading the own namespace")?;
        let theirs = format!("/proc/{pid}/ns/net");
        let begun = std::time::Instant::now();
        while std::fs::read_link(&theirs).is_ok_and(|ns| ns == own) {
            if begun.elapsed() > std::time::Duration::from_secs(10) {
                bail!("unshare made no network namespace");
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let (link, address) = (link(n), address(n));
        // The kernel takes an earlier site's link away some time after its namespace is gone.
        // Mostly there is none, and if one stays, adding the new one fails in the next line.
        let _ = ip(&format!("link del {link}"));
        ip(&format!("link add {link} type veth peer name eth0 netns {pid}"))?;
        ip(&format!("addr add {SERVER} peer {address} dev {link}"))?;
        ip(&format!("link set {link} up"))?;
        for command in [
            "link set lo up".to_owned(),
            format!("addr add {address} peer {SERVER} dev eth0"),
            "link set eth0 up".to_owned(),
        ] {
            tool("nsenter", &[&format!("--net={theirs}"), "ip"], &command)?;
        }
        self.ends.insert(name.to_owned(), end);
        Ok(())
    }

    /// The namespace of an end, for `nsenter --net=`.
    pub fn namespace(&self, name: &str) -> Option<String> {
        self.ends.get(name).map(|end| format!("/proc/{}/ns/net", end.keeper.id()))
    }

    /// Breaks the link of an end.
    pub fn cut(&mut self, name: &str, cut: Cut) -> Result<()> {
        self.cuts.insert(name.to_owned(), cut);
        self.apply()
    }

    /// Breaks the way of everybody to the server, or mends it.
    pub fn cut_server(&mut self, cut: bool) -> Result<()> {
        self.server_cut = cut;
        self.apply()
    }

    /// Mends the link of an end.
    pub fn heal(&mut self, name: &str) -> Result<()> {
        self.cuts.remove(name);
        self.apply()
    }

    /// Mends everything.
    pub fn heal_all(&mut self) -> Result<()> {
        self.cuts.clear();
        self.server_cut = false;
        self.apply()
    }

    /// Lays the whole set of rules anew, as one transaction of the kernel's.
    fn apply(&self) -> Result<()> {
        let (mut to, mut from) = (String::new(), String::new());
        if self.server_cut {
            to += "tcp dport 5432 drop\n";
            from += "tcp sport 5432 drop\n";
        }
        for (name, cut) in &self.cuts {
            let Some(end) = self.ends.get(name) else { bail!("there is no end {name}") };
            let link = link(end.n);
            let verdict = match cut {
                Cut::Drop | Cut::ToServer | Cut::FromServer => "drop",
                Cut::Reset => "meta l4proto tcp reject with tcp reset",
                Cut::Loss => "numgen random mod 100 < 30 drop",
            };
            if *cut != Cut::FromServer {
                to += &format!("iifname \"{link}\" {verdict}\n");
            }
            if *cut != Cut::ToServer {
                from += &format!("oifname \"{link}\" {verdict}\n");
            }
        }
        let rules = format!(
            "table inet trix_chaos\ndelete table inet trix_chaos\ntable inet trix_chaos {{\n\
             chain to_server {{ type filter hook input priority 0;\n{to}}}\n\
             chain from_server {{ type filter hook output priority 0;\n{from}}}\n}}\n"
        );
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("starting nft")?;
        nft.stdin.take().context("nft has no input")?.write_all(rules.as_bytes())?;
        let status = nft.wait()?;
        if !status.success() {
            bail!("nft refused:\n{rules}");
        }
        Ok(())
    }
}

fn link(n: usize) -> String {
    format!("end{n}")
}

fn address(n: usize) -> String {
    format!("10.213.1.{n}")
}

fn ip(arguments: &str) -> Result<()> {
    tool("ip", &[], arguments)
}

fn tool(program: &str, first: &[&str], arguments: &str) -> Result<()> {
    let out = Command::new(program)
        .args(first)
        .args(arguments.split_whitespace())
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !out.status.success() {
        bail!("{program} {arguments}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
