//! Profile + description + findings → plan.
//!
//! **trix-plan opens no file, knows no clock, and runs no C.** A plan is a
//! graph of pure tasks whose outputs are named by keys before anything runs.
//!
//! The way in:
//!
//! ```text
//! Profile::parse(toml_text) -> Result<Profile, ProfileError>      profile.rs (all problems at once, for a 422)
//! Profile::shipped(name) / Profile::SHIPPED                       embedded profiles
//! Profile::single(&SingleFile) -> Result<Profile, ProfileError>   the command line form, one file
//! profile.version() -> Digest                                     content hash
//! plan0(&SourceRef, &[Sidecar], &Profile, engine) -> Plan         intake
//! plan1(&Profile, &IntakeResult, &SourceRef, engine, title, Delivery) -> Result<Plan, PlanError>
//! estimate(&Plan) -> Estimate;  explain(&Profile, &IntakeResult, &Plan) -> String
//! diff(&Plan, &Plan) -> Diff;   validate(&[&Plan]) -> Result<(), GraphError>
//! PlanError / ProfileError -> trix_model::Failure by From
//! ```

pub mod encoder;
pub mod task;
