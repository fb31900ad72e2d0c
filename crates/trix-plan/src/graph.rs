//! Checks on the graph of tasks: what every consumer of a plan relies on.

use std::collections::{BTreeMap, BTreeSet};

use trix_model::{Failure, Key};

use crate::task::{Plan, PublishFrom, TaskSpec};

/// What is wrong with a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two tasks of one name.
    #[error("checking a plan: two tasks are called {0:?}")]
    Name(String),
    /// A task needs what is not there, or what comes after it (which would allow circles).
    #[error("checking a plan: task {task:?} needs {need:?}, which is not before it")]
    Need {
        /// Task.
        task: String,
        /// What it needs.
        need: String,
    },
    /// One output is made by two tasks.
    #[error("checking a plan: tasks {first:?} and {second:?} make the same output {key}")]
    Output {
        /// First task.
        first: String,
        /// Second task.
        second: String,
        /// Key.
        key: Key,
    },
    /// An input that no task makes, or whose maker is not needed.
    #[error("checking a plan: task {task:?} reads {key}, which no task that it needs makes")]
    Input {
        /// Task.
        task: String,
        /// Key.
        key: Key,
    },
    /// A file that nobody stages.
    #[error("checking a plan: task {task:?} publishes what {need:?} stages, but does not need it")]
    Staged {
        /// Task.
        task: String,
        /// Task that stages.
        need: String,
    },
    /// Plans of different engines.
    #[error("checking a plan: it is pinned to engine {first} and {second}")]
    Engine {
        /// One engine.
        first: String,
        /// The other.
        second: String,
    },
}

impl From<GraphError> for Failure {
    fn from(e: GraphError) -> Failure {
        Failure::bug(e.to_string())
    }
}

/// Checks the plans of one job, in order (plan 0, plan 1), as one graph.
///
/// Every task has a name of its own and needs only tasks before it, so there is
/// no circle. Every key has one maker, and whoever reads it needs the maker,
/// directly or through others.
pub fn validate(plans: &[&Plan]) -> Result<(), GraphError> {
    let mut engine: Option<&str> = None;
    // For each task all that it needs, also through others; and who makes each key.
    let mut before: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut makers: BTreeMap<Key, &str> = BTreeMap::new();
    for plan in plans {
        if let Some(first) = engine.replace(&plan.engine)
            && first != plan.engine
        {
            let (first, second) = (first.to_owned(), plan.engine.clone());
            return Err(GraphError::Engine { first, second });
        }
        for task in &plan.tasks {
            if before.contains_key(task.name.as_str()) {
                return Err(GraphError::Name(task.name.clone()));
            }
            let mut all: BTreeSet<&str> = BTreeSet::new();
            for need in &task.needs {
                let Some(theirs) = before.get(need.as_str()) else {
                    return Err(GraphError::Need { task: task.name.clone(), need: need.clone() });
                };
                all.extend(theirs);
                all.insert(need);
            }
            for key in task.spec.input_keys() {
                if !makers.get(&key).is_some_and(|maker| all.contains(maker)) {
                    return Err(GraphError::Input { task: task.name.clone(), key });
                }
            }
            if let TaskSpec::Publish(publish) = &task.spec {
                for file in &publish.files {
                    if let PublishFrom::Staged { task: need, .. } = &file.from
                        && !all.contains(need.as_str())
                    {
                        let (task, need) = (task.name.clone(), need.clone());
                        return Err(GraphError::Staged { task, need });
                    }
                }
            }
            for output in &task.outputs {
                if let Some(first) = makers.insert(output.key, &task.name) {
                    let (first, second) = (first.to_owned(), task.name.clone());
                    return Err(GraphError::Output { first, second, key: output.key });
                }
            }
            before.insert(&task.name, all);
        }
    }
    Ok(())
}
