//! M8: artifacts vanish from the cache at random while their consumers are unfinished.

use std::time::Duration;

use anyhow::Result;

use super::super::audit::files;
use super::super::client::LoadOptions;
use super::super::report::Ended;
use super::super::site::SiteOptions;
use super::super::trial::{Order, Trial};

pub async fn run(order: Order) -> Result<Ended> {
    let mut trial =
        Trial::start("M8", order, SiteOptions::default(), LoadOptions::default(), 1).await?;
    while trial.goes_on() {
        trial.gap(Duration::from_millis(500)).await;
        vanish(&mut trial)?;
    }
    Ok(Ended::Ran(trial.finish().await?))
}

/// Removes one artifact, seldom all of them: a RAM disk that was lost.
pub fn vanish(trial: &mut Trial) -> Result<()> {
    let objects = trial.site.share("cache").join("objects");
    let all: Vec<String> = files(&objects).into_iter().filter(|f| !f.contains(".new")).collect();
    if all.is_empty() {
        return Ok(());
    }
    let gone = if trial.rng.one_in(30) { all } else { vec![trial.rng.pick(&all).clone()] };
    trial.say(|| format!("{} artifacts vanish", gone.len()));
    for file in gone {
        match std::fs::remove_file(objects.join(file)) {
            Ok(()) => trial.count("artifacts removed"),
            // Pruned, or on its way to another name.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
