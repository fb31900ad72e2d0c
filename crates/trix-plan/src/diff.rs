//! What would be made anew if one plan took another's place.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trix_model::Key;

use crate::task::Plan;

/// The difference of two plans, by keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// Outputs that the new plan has and the old made already, wherever they stand.
    pub kept: Vec<OutputName>,
    /// Outputs that the new plan makes.
    pub made: Vec<OutputName>,
    /// Outputs of the old plan that the new one has no use for.
    pub dropped: Vec<OutputName>,
    /// Milliseconds of one core that the tasks with something to make take.
    pub core_ms: u64,
}

/// An output by its task's name and its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OutputName {
    /// Task.
    pub task: String,
    /// Output.
    pub output: String,
}

/// Compares an old plan with a new one.
pub fn diff(old: &Plan, new: &Plan) -> Diff {
    let had = outputs(old);
    let has = outputs(new);
    let mut diff = Diff::default();
    for (key, name) in &has {
        if had.contains_key(key) { &mut diff.kept } else { &mut diff.made }.push(name.clone());
    }
    diff.dropped =
        had.iter().filter(|(k, _)| !has.contains_key(k)).map(|(_, n)| n.clone()).collect();
    let tasks: BTreeSet<&str> = diff.made.iter().map(|n| n.task.as_str()).collect();
    let working = new.tasks.iter().filter(|t| tasks.contains(t.name.as_str()));
    diff.core_ms = working.map(|t| t.cost.estimate_ms).sum();
    diff.kept.sort();
    diff.made.sort();
    diff.dropped.sort();
    diff
}

fn outputs(plan: &Plan) -> BTreeMap<Key, OutputName> {
    plan.tasks
        .iter()
        .flat_map(|t| {
            t.outputs
                .iter()
                .map(|o| (o.key, OutputName { task: t.name.clone(), output: o.name.clone() }))
        })
        .collect()
}
