//! Control groups: a memory limit and a limit on threads for each attempt, and the
//! kernel's own count of whom it killed for want of memory.
//!
//! The worker makes a group per attempt beneath its own and puts the slot into it before
//! it hands over the job. It writes the slot's number itself: a slot that did it would
//! need one more descriptor, and could leave it out.
//!
//! Groups belong to whoever manages the machine. They are used only where that one gave
//! ours away: on a machine of systemd's by `Delegate=yes` (version 2 needs
//! `DelegateSubgroup=` too, or a unit whose only process is the worker), elsewhere where
//! the folder can be written. Without them `RLIMIT_DATA` is what is left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::wire::{Boxed, Limits, Measure, Missing};

/// Threads and processes that a slot may have: far more than encoders start on the largest
/// machine, far fewer than would trouble it.
const THREADS: u64 = 4096;

/// Name of a slot's group: this, the worker's process id, and a number.
const PREFIX: &str = "trix-slot-";

/// The group that a worker of version 2 moves to, since a group with groups beneath it
/// that have limits may hold no process.
const LEAF: &str = "trix-worker";

/// Where groups for slots are made, a controller at a time.
#[derive(Debug)]
pub struct Groups {
    memory: Result<Parent, String>,
    threads: Result<Parent, String>,
    made: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parent {
    version: Version,
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The groups of one slot. Dropped, they are removed; the slot must be reaped by then.
#[derive(Debug)]
pub(crate) struct Group {
    folders: Vec<PathBuf>,
    memory: Option<Parent>,
    enforced: Vec<Measure>,
    missing: Vec<Missing>,
}

impl Groups {
    /// Looks for groups that this process may divide, and clears away what a killed worker
    /// left in them.
    pub fn find() -> Groups {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (own, mounts) = (read("/proc/self/cgroup"), read("/proc/self/mountinfo"));
        let find = |controller: &str| {
            let parent = locate(&own, &mounts, controller)?;
            if !given_to_us(&parent.folder) {
                return Err(format!(
                    "{} is the system manager's; Delegate=yes would give it away",
                    parent.folder.display()
                ));
            }
            prepare(&parent, controller)?;
            sweep(&parent.folder);
            Ok(parent)
        };
        Groups { memory: find("memory"), threads: find("pids"), made: AtomicU64::new(0) }
    }

    /// Why no slot will have a group of its own, for want of what; empty when all is there.
    pub fn missing(&self) -> Vec<Missing> {
        let told = |measure, parent: &Result<Parent, String>| {
            let reason = parent.as_ref().err()?.clone();
            Some(Missing { measure, reason, errno: None })
        };
        [told(Measure::MemoryGroup, &self.memory), told(Measure::ThreadGroup, &self.threads)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// True when there are memory groups.
    pub(crate) fn holds_memory(&self) -> bool {
        self.memory.is_ok()
    }

    /// Makes the groups of one slot and puts process `pid` into them. What fails is
    /// reported and does without.
    pub(crate) fn make(&self, pid: u32, limits: &Limits) -> Group {
        let name =
            format!("{PREFIX}{}-{}", std::process::id(), self.made.fetch_add(1, Ordering::Relaxed));
        let mut group = Group {
            folders: Vec::new(),
            memory: None,
            enforced: Vec::new(),
            missing: self.missing(),
        };
        let threads = THREADS.to_string();
        let memory = limits.memory.to_string();
        for (parent, measure, settings) in [
            (&self.memory, Measure::MemoryGroup, memory_settings(&self.memory, &memory)),
            (&self.threads, Measure::ThreadGroup, vec![("pids.max", &*threads, true)]),
        ] {
            let Ok(parent) = parent else { continue };
            let folder = parent.folder.join(&name);
            match group.enter(&folder, &settings, pid) {
                Ok(()) => {
                    group.enforced.push(measure);
                    if measure == Measure::MemoryGroup {
                        group.memory =
                            Some(Parent { version: parent.version, folder: folder.clone() });
                    }
                }
                Err(e) => group.missing.push(Missing {
                    measure,
                    reason: format!("{}: {e}", folder.display()),
                    errno: e.raw_os_error(),
                }),
            }
        }
        group
    }
}

/// Files, their values, and whether one that is absent is an error.
fn memory_settings<'a>(
    parent: &Result<Parent, String>,
    limit: &'a str,
) -> Vec<(&'static str, &'a str, bool)> {
    match parent.as_ref().map(|p| p.version) {
        // Swapping would only make a run-away slower to end.
        Ok(Version::Two) => vec![("memory.max", limit, true), ("memory.swap.max", "0", false)],
        // The second counts memory and swap together; kernels without it are usual.
        _ => vec![
            ("memory.limit_in_bytes", limit, true),
            ("memory.memsw.limit_in_bytes", limit, false),
        ],
    }
}

impl Group {
    fn enter(
        &mut self,
        folder: &Path,
        settings: &[(&str, &str, bool)],
        pid: u32,
    ) -> io::Result<()> {
        // Both controllers of version 2 are settings of one folder.
        if !self.folders.iter().any(|f| f == folder) {
            fs::create_dir(folder)?;
            self.folders.push(folder.to_owned());
        }
        for (file, value, needed) in settings {
            match write(&folder.join(file), value) {
                Err(e) if *needed || e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        write(&folder.join("cgroup.procs"), &pid.to_string())
    }

    /// Adds to what the slot says of its box what the worker put around it.
    pub(crate) fn tell(&self, boxed: &mut Boxed) {
        boxed.enforced.extend(&self.enforced);
        boxed.missing.extend(self.missing.iter().cloned());
    }

    /// Processes of the group that the kernel killed for want of memory, of its own or of
    /// the machine's; `None` when it does not tell.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        let memory = self.memory.as_ref()?;
        let file = match memory.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(memory.folder.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            // The kernel lets go of a dead process a little later than its parent does.
            for _ in 0..20 {
                match fs::remove_dir(folder) {
                    Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(error = %e, group = %folder.display(), "removing a group");
                        break;
                    }
                    _ => break,
                }
            }
        }
    }
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    // Never creates: these files are the kernel's.
    let mut file = fs::OpenOptions::new().write(true).open(file)?;
    io::Write::write_all(&mut file, value.as_bytes())
}

/// Our group of a controller, by the texts of `/proc/self/cgroup` and
/// `/proc/self/mountinfo`.
fn locate(own: &str, mounts: &str, controller: &str) -> Result<Parent, String> {
    let path_of = |wanted: &dyn Fn(&str) -> bool| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            wanted(controllers).then_some(fields.next()?)
        })
    };
    let has = |list: &str| list.split(',').any(|c| c == controller);
    // A controller is in one version or in the other, never in both.
    if let Some(path) = path_of(&has) {
        return match mounted(mounts, "cgroup", path, has) {
            Some(folder) => Ok(Parent { version: Version::One, folder }),
            None => Err(format!("the hierarchy of {controller} is not mounted here")),
        };
    }
    let folder = path_of(&|list| list.is_empty())
        .and_then(|path| mounted(mounts, "cgroup2", path, |_| true))
        .ok_or("no control groups are mounted here")?;
    let there = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    if !there.split_whitespace().any(|c| c == controller) {
        return Err(format!("{} has no controller {controller}", folder.display()));
    }
    Ok(Parent { version: Version::Two, folder })
}

/// Where group `path` of a hierarchy is in this mount namespace.
fn mounted(mounts: &str, kind: &str, path: &str, of: impl Fn(&str) -> bool) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        // proc(5): id, parent, device, root, mount point, options, ..., "-", type, source, options.
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        if after.next()? != kind || !of(after.nth(1)?) {
            return None;
        }
        let beneath = Path::new(path).strip_prefix(root).ok()?;
        Some(Path::new(point).join(beneath))
    })
}

/// True when nobody else manages this group's inside.
fn given_to_us(folder: &Path) -> bool {
    let writable = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok();
    let managed = Path::new("/run/systemd/system").is_dir();
    let marked = || {
        ["trusted.delegate", "user.delegate"].iter().any(|name| {
            let mut value = [0u8; 4];
            rustix::fs::getxattr(folder, *name, &mut value[..]).is_ok_and(|n| value[..n] == *b"1")
        })
    };
    // To root every group is writable; to another user only those that were given to it.
    writable && (!managed || !rustix::process::geteuid().is_root() || marked())
}

/// Version 2: lets groups beneath have the controller.
fn prepare(parent: &Parent, controller: &str) -> Result<(), String> {
    if parent.version == Version::One {
        return Ok(());
    }
    let text = |name: &str| fs::read_to_string(parent.folder.join(name));
    let wrong = |what: &str, e: io::Error| format!("{what} {}: {e}", parent.folder.display());
    let passed_on = text("cgroup.subtree_control").map_err(|e| wrong("reading", e))?;
    if passed_on.split_whitespace().any(|c| c == controller) {
        return Ok(());
    }
    // Only the root of all groups, which has no type, may hold processes beside groups.
    if parent.folder.join("cgroup.type").exists() {
        let own = std::process::id().to_string();
        let inside = text("cgroup.procs").map_err(|e| wrong("reading", e))?;
        if inside.lines().any(|pid| pid != own) {
            return Err(format!(
                "other processes are in {}; DelegateSubgroup= would part them",
                parent.folder.display()
            ));
        }
        if !inside.is_empty() {
            let leaf = parent.folder.join(LEAF);
            match fs::create_dir(&leaf) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(wrong("dividing", e));
                }
                _ => {}
            }
            write(&leaf.join("cgroup.procs"), &own).map_err(|e| wrong("dividing", e))?;
        }
    }
    write(&parent.folder.join("cgroup.subtree_control"), &format!("+{controller}"))
        .map_err(|e| wrong("dividing", e))
}

/// Removes groups of slots whose worker was killed; one that is in use refuses.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/pids rw shared:9 - cgroup cgroup rw,pids
32 25 0:28 /docker/x /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
33 25 0:29 / /nowhere/unified rw - cgroup2 cgroup2 rw,nsdelegate
";
    const OWN: &str = "9:memory:/service/one\n8:pids:/\n7:cpu,cpuacct:/docker/x/y\n0::/\n";

    #[test]
    fn a_group_of_version_1_is_found_through_the_mount_of_its_controller() {
        let folder = |controller| locate(OWN, MOUNTS, controller).map(|p| p.folder);
        let at = |path: &str| Ok(PathBuf::from(path));
        assert_eq!(folder("memory"), at("/sys/fs/cgroup/memory/service/one"));
        assert_eq!(folder("pids"), at("/sys/fs/cgroup/pids/"));
        assert_eq!(folder("cpuacct"), at("/sys/fs/cgroup/cpu/y"), "beneath the mount's root");
        assert!(folder("io").unwrap_err().contains("no controller io"));
        assert!(locate("", MOUNTS, "memory").unwrap_err().contains("no control groups"));
    }

    /// A folder that looks like a group of version 2. It shows which files are written with
    /// what; that the kernel takes them is not shown by it.
    fn fake(procs: &str) -> (tempfile::TempDir, Parent) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cgroup.controllers", "cpu memory pids\n"),
            ("cgroup.subtree_control", ""),
            ("cgroup.type", "domain\n"),
            ("cgroup.procs", procs),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let parent = Parent { version: Version::Two, folder: folder.path().to_owned() };
        (folder, parent)
    }

    #[test]
    fn a_group_of_version_2_is_found_by_its_controllers() {
        let (folder, parent) = fake("");
        let mounts = format!("33 25 0:29 / {} rw - cgroup2 cgroup2 rw\n", folder.path().display());
        assert_eq!(locate("0::/\n", &mounts, "memory"), Ok(parent));
        assert!(locate("0::/\n", &mounts, "hugetlb").is_err());
    }

    #[test]
    fn a_group_that_others_are_in_is_left_as_it_is() {
        let (folder, parent) = fake("1\n");
        let reason = prepare(&parent, "memory").unwrap_err();
        assert!(reason.contains("other processes"), "{reason}");
        let control = folder.path().join("cgroup.subtree_control");
        assert_eq!(fs::read_to_string(&control).unwrap(), "");
        let (folder, parent) = fake("");
        prepare(&parent, "memory").unwrap();
        let control = folder.path().join("cgroup.subtree_control");
        assert_eq!(fs::read_to_string(control).unwrap(), "+memory");
    }
}
