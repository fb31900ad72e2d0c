//! Ids. They are decimal integers everywhere: in the database, the API and logs.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(s: &str) -> Result<$name, Self::Err> {
                s.parse().map($name)
            }
        }
    };
}

id!(
    /// One title under one version of one profile.
    JobId
);
id!(
    /// One node of a plan's graph.
    TaskId
);
id!(
    /// A machine.
    NodeId
);
id!(
    /// One incarnation of a node's worker process; never reused.
    WorkerId
);
id!(
    /// Counts the claims of a task; only ever rises.
    Epoch
);

/// One try at a task. It is the fence: every write about a running task names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The task that is tried.
    pub task: TaskId,
    /// Which try it is.
    pub epoch: Epoch,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.task, self.epoch)
    }
}
