//! Landlock: which files a slot may reach by name.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

/// Everything that the crate knows is asked for; the kernel takes what it has.
const NEWEST: ABI = ABI::V10;

/// The interface from which on nothing that matters to a slot is lacking. What came
/// later (names of UNIX sockets, logging) is taken where it is, and covered by the
/// system-call filter where it is not.
const WHOLE: u32 = 6;

/// What each older interface lacks, by the one that brought it.
const BROUGHT: [(u32, &str); 5] = [
    (2, "links across directories"),
    (3, "truncation"),
    (4, "TCP"),
    (5, "device controls"),
    (6, "signals and abstract sockets"),
];

/// What Landlock came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// In force with everything a slot needs.
    Whole { abi: u32 },
    /// In force for files, with this lacking.
    Partly { abi: u32, lacks: String },
    /// Not in force.
    Missing { reason: String, errno: Option<i32> },
}

/// Denies every file but those beneath `stages`, where files may be made, read, written
/// and removed; denies TCP, and signals and abstract sockets of processes outside.
pub(super) fn restrict(stages: &[BorrowedFd<'_>]) -> Files {
    match enforce(stages) {
        Ok(status) => judge(&status),
        Err(e) => Files::Missing { reason: trix_model::with_causes(&e), errno: errno_of(&e) },
    }
}

fn enforce(stages: &[BorrowedFd<'_>]) -> Result<RestrictionStatus, RulesetError> {
    // No `Execute`, no node but files and folders, and no `Refer`: without it a file
    // cannot be linked or renamed from one folder into another.
    let beneath: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
        ReadFile | WriteFile | ReadDir | MakeReg | MakeDir | RemoveFile | RemoveDir | Truncate
    });
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for stage in stages {
        rules = rules.add_rule(PathBeneath::new(*stage, beneath))?;
    }
    rules.restrict_self()
}

fn judge(status: &RestrictionStatus) -> Files {
    let missing = |reason: &str, errno| Files::Missing { reason: reason.to_owned(), errno };
    let abi = match status.landlock {
        LandlockStatus::NotImplemented => {
            return missing("the kernel has no Landlock", Some(libc::ENOSYS));
        }
        LandlockStatus::NotEnabled => {
            return missing("Landlock is switched off at boot", Some(libc::EOPNOTSUPP));
        }
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            kernel_abi.map_or(effective_abi as u32, |abi| abi.unsigned_abs())
        }
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        return missing("the kernel took no rule", None);
    }
    let lacks: Vec<&str> =
        BROUGHT.iter().filter(|(since, _)| *since > abi).map(|(_, what)| *what).collect();
    if abi >= WHOLE {
        Files::Whole { abi }
    } else {
        Files::Partly { abi, lacks: format!("Landlock {abi} lacks {}", lacks.join(", ")) }
    }
}

fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(e) = cause {
        if let Some(io) = e.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        cause = e.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(landlock: LandlockStatus, ruleset: RulesetStatus) -> Files {
        // The type cannot be made from outside its crate but by asking for nothing.
        let mut status = none();
        status.landlock = landlock;
        status.ruleset = ruleset;
        judge(&status)
    }

    fn none() -> RestrictionStatus {
        // On a thread of its own: a restriction lasts as long as its thread.
        std::thread::spawn(|| {
            let rules = Ruleset::default().scope(Scope::Signal).unwrap().create().unwrap();
            rules.restrict_self().unwrap()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn an_old_interface_is_told_with_what_it_lacks() {
        let at = |abi| LandlockStatus::Available { effective_abi: abi, kernel_abi: None };
        let partly = || RulesetStatus::PartiallyEnforced;
        let Files::Partly { abi, lacks } = judged(at(ABI::V2), partly()) else { panic!() };
        assert_eq!(abi, 2);
        assert_eq!(
            lacks,
            "Landlock 2 lacks truncation, TCP, device controls, signals and abstract sockets"
        );
        assert_eq!(judged(at(ABI::V6), partly()), Files::Whole { abi: 6 });
        let newer = LandlockStatus::Available { effective_abi: ABI::V10, kernel_abi: Some(12) };
        assert_eq!(judged(newer, RulesetStatus::FullyEnforced), Files::Whole { abi: 12 });
    }

    #[test]
    fn a_kernel_without_it_is_told_with_its_errno() {
        let errno = |landlock| match judged(landlock, RulesetStatus::NotEnforced) {
            Files::Missing { errno, .. } => errno,
            other => panic!("{other:?}"),
        };
        assert_eq!(errno(LandlockStatus::NotImplemented), Some(libc::ENOSYS));
        assert_eq!(errno(LandlockStatus::NotEnabled), Some(libc::EOPNOTSUPP));
    }
}
