//! Profile + description + findings → plan.
//!
//! **trix-plan opens no file, knows no clock, and runs no C.** A plan is a
//! graph of pure tasks whose outputs are named by keys before anything runs.
//!
//! In the data's order: a [`profile`] (read by `request`, its encoder
//! parameters checked by [`params`] and [`rules`]) and what intake found go through the
//! [`planner`], which lays the [`grid`] and takes the [`key`]s (over
//! [`canon`]ical JSON), into [`task`]s; [`graph`] checks them, [`estimate`],
//! [`explain`] and [`diff`] tell about them.
//!
//! ```text
//! Profile::parse(toml)          -> Result<Profile, ProfileError>   every mistake at once
//! Profile::shipped_text(name)   -> Option<&str>                    built-in profiles
//! Profile::single(&SingleFile)  -> Result<Profile, ProfileError>   the command line form
//! profile.version()             -> Digest                          content hash
//! plan0(&SourceRef, &[Sidecar], &Profile, engine, Delivery) -> Result<Plan, PlanError>
//! plan1(&Profile, &IntakeResult, &SourceRef, engine, title, Delivery) -> Result<Plan, PlanError>
//! validate(&[&Plan])            -> Result<(), GraphError>
//! ```

pub mod canon;
pub mod diff;
pub mod encoder;
pub mod estimate;
pub mod explain;
pub mod graph;
pub mod grid;
pub mod key;
pub mod params;
pub mod planner;
pub mod profile;
mod request;
pub mod rules;
mod stills;
pub mod task;

pub use diff::diff;
pub use estimate::estimate;
pub use explain::explain;
pub use graph::validate;
pub use planner::{Delivery, PlanError, plan0, plan1};
pub use profile::{Profile, ProfileError, SingleFile};
