//! What a fault-free run publishes, computed without running anything: the plan of a
//! film is pure, and so is the content of every key.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use trix_model::Digest;
use trix_plan::task::{PublishFrom, TaskSpec};
use trix_plan::{Delivery, Profile, planner};
use trix_storage::fixity::Fixity;

use super::client::{Submitted, profile};
use super::slot::{ENGINE, golden_sha256};

/// What one publication must hold: sha256 by name beneath the version's folder.
pub type Files = BTreeMap<String, Digest>;

/// The publications of a job: files by (share, target).
pub fn publications(job: &Submitted) -> Result<BTreeMap<(String, String), Files>> {
    let profile = Profile::parse(&profile(&job.profile)).context("the harness's own profile")?;
    let mut fixity = Fixity::new();
    fixity.update(&job.film.bytes());
    let intake = job.film.intake(fixity.finish());
    let plan =
        planner::plan1(&profile, &intake, &job.source, ENGINE, &job.title, Delivery::Shares)?;
    let mut all = BTreeMap::new();
    for task in plan.tasks {
        let TaskSpec::Publish(publish) = task.spec else { continue };
        let files = publish.files.iter().map(|file| {
            let sha256 = match &file.from {
                PublishFrom::Artifact { key } => golden_sha256(key),
                PublishFrom::Staged { sha256, .. } => *sha256,
            };
            (file.name.to_string(), sha256)
        });
        all.insert((publish.share.to_string(), publish.target.to_string()), files.collect());
    }
    Ok(all)
}
