//! Starts a program on a machine that lacks something: `without CALL,… PROGRAM ARGUMENT…`
//! answers ENOSYS to the named system calls, as an older kernel does, and becomes the
//! program. The tests put it between a worker and its slot.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(lacking), Some(program)) = (arguments.next(), arguments.next()) else {
        return Err("without CALL,… PROGRAM ARGUMENT…".into());
    };
    let calls: Vec<i64> = lacking.split(',').map(numbers).collect::<Result<Vec<_>, _>>()?.concat();
    let filter = SeccompFilter::new(
        calls.into_iter().map(|call| (call, Vec::new())).collect::<BTreeMap<_, _>>(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        std::env::consts::ARCH.try_into()?,
    )?;
    let filter: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&filter)?;
    Err(Command::new(program).args(arguments).exec().into())
}

fn numbers(name: &str) -> Result<Vec<i64>, String> {
    Ok(match name {
        "landlock" => vec![
            libc::SYS_landlock_create_ruleset,
            libc::SYS_landlock_add_rule,
            libc::SYS_landlock_restrict_self,
        ],
        "clone3" => vec![libc::SYS_clone3],
        "close_range" => vec![libc::SYS_close_range],
        "pidfd_open" => vec![libc::SYS_pidfd_open],
        "seccomp" => vec![libc::SYS_seccomp],
        "unshare" => vec![libc::SYS_unshare],
        other => return Err(format!("{other} cannot be taken away")),
    })
}
