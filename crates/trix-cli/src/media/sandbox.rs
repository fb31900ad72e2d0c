//! `trix-media sandbox`: what a slot's box enforces on this machine.

use std::sync::Arc;

use anyhow::Context;
use trix_slot::{Groups, Launcher, Missing, Policy};

/// Starts a slot as a worker of this user would, without a job, and prints its report.
pub fn run() -> anyhow::Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    let launcher = Launcher::new(program).with_groups(Arc::new(Groups::find()));
    let (_, boxed) = launcher.trial(trix_slot::slot_user())?;
    let landlock = match boxed.landlock {
        Some(abi) => format!("Landlock {abi}"),
        None => "no Landlock".to_owned(),
    };
    println!("A slot runs as user {}; {landlock}.", boxed.uid);
    for measure in &boxed.enforced {
        println!("enforced  {measure}");
    }
    for partly in &boxed.partly {
        println!("partly    {}", told(partly));
    }
    for missing in &boxed.missing {
        println!("missing   {}", told(missing));
    }
    match Policy::Strict.objection(&boxed) {
        None => println!("worker.sandbox = \"strict\" works here."),
        Some(objection) => println!("worker.sandbox = \"strict\" does not work here: {objection}"),
    }
    Ok(())
}

fn told(lacking: &Missing) -> String {
    match lacking.errno {
        Some(errno) => format!("{lacking} [errno {errno}]"),
        None => lacking.to_string(),
    }
}
