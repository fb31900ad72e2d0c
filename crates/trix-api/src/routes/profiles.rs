//! Profiles: what is made of a source.

use crate::problem::Problem;
use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A profile in the list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProfileSummary {
    /// Name, what `profile` of a job takes.
    pub name: String,
    /// One sentence: what it makes.
    pub description: String,
    /// BLAKE3 of its text, the profile's version.
    pub hash: String,
    /// Shares that it publishes to.
    pub shares: Vec<String>,
    /// Why it cannot be used, if so.
    pub faults: Vec<ProfileFault>,
}

/// All profiles.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProfileList {
    /// By name.
    pub items: Vec<ProfileSummary>,
}

/// A profile with its text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Profile {
    /// What the list has.
    #[serde(flatten)]
    pub summary: ProfileSummary,
    /// The TOML file as it is.
    pub text: String,
}

/// A profile to check.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileText {
    /// TOML.
    pub text: String,
}

/// One fault of a profile.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProfileFault {
    /// Dotted name of the key, e.g. `rendition.1.crf`.
    pub key: String,
    /// The value that was refused; absent when the key itself is.
    pub value: Option<String>,
    /// What is allowed.
    pub allowed: Option<String>,
    /// Line in the text, from 1.
    pub line: Option<u32>,
    /// One sentence for a person.
    pub message: String,
}

/// Verdict on a profile.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Validation {
    /// True when nothing is wrong.
    pub valid: bool,
    /// What is wrong.
    pub errors: Vec<ProfileFault>,
}

/// All profiles.
#[utoipa::path(
    get,
    path = "/profiles",
    operation_id = "list_profiles",
    tag = "profiles",
    responses(
        (status = 200, description = "The profiles.", body = ProfileList),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn list() -> Result<Json<ProfileList>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// A profile with its text.
#[utoipa::path(
    get,
    path = "/profiles/{name}",
    operation_id = "get_profile",
    tag = "profiles",
    params(("name" = String, Path, description = "Name of the profile")),
    responses(
        (status = 200, description = "The profile.", body = Profile),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn get() -> Result<Json<Profile>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}

/// Checks a profile.
#[utoipa::path(
    post,
    path = "/profiles/validate",
    operation_id = "validate_profile",
    tag = "profiles",
    request_body = ProfileText,
    responses(
        (status = 200, description = "The verdict.", body = Validation),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn validate() -> Result<Json<Validation>, Problem> {
    Err(Problem::unavailable("starting", "handler follows", 1))
}
