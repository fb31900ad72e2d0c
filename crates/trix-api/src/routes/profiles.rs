//! Profiles: what is made of a source.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use trix_db::catalog::ProfileRow;
use trix_plan::ProfileError;
use utoipa::ToSchema;

use crate::auth::{Caller, Operator};
use crate::extract::{Body, Path};
use crate::problem::Problem;
use crate::state::App;

/// A profile in the list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProfileSummary {
    /// Name, what `profile` of a job takes.
    pub name: String,
    /// Number of its version, from 1.
    pub version: u32,
    /// One sentence: what it makes.
    pub description: String,
    /// BLAKE3 over what it means.
    pub hash: String,
    /// True for those that come with trix.
    pub shipped: bool,
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
    /// Dotted name of the key, e.g. `rendition[1].crf`.
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
pub async fn list(State(app): State<App>, _: Caller) -> Result<Json<ProfileList>, Problem> {
    let mut items: Vec<_> =
        app.db.profiles().await?.into_iter().map(ProfileSummary::from).collect();
    items.sort_by(|a: &ProfileSummary, b| a.name.cmp(&b.name));
    Ok(Json(ProfileList { items }))
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
pub async fn get(
    State(app): State<App>,
    _: Caller,
    Path(name): Path<String>,
) -> Result<Json<Profile>, Problem> {
    let all = app.db.profiles().await?;
    let row = all.into_iter().find(|p| p.name == name);
    let row = row.ok_or_else(|| Problem::not_found("profile", &name))?;
    Ok(Json(Profile::from(row)))
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
pub async fn validate(_: Caller, Body(wish): Body<ProfileText>) -> Json<Validation> {
    let errors = match trix_plan::Profile::parse(&wish.text) {
        Ok(_) => Vec::new(),
        Err(e) => faults(&e),
    };
    Json(Validation { valid: errors.is_empty(), errors })
}

/// Stores a profile; jobs that were submitted before keep their version. Operators only.
#[utoipa::path(
    put,
    path = "/profiles/{name}",
    operation_id = "put_profile",
    tag = "profiles",
    params(("name" = String, Path, description = "Name of the profile, as in its text")),
    request_body = ProfileText,
    responses(
        (status = 200, description = "The profile as it is stored.", body = Profile),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn put(
    State(app): State<App>,
    Operator(caller): Operator,
    Path(name): Path<String>,
    Body(wish): Body<ProfileText>,
) -> Result<Json<Profile>, Problem> {
    let profile = trix_plan::Profile::parse(&wish.text).map_err(|e| refused(&e))?;
    if profile.name != name {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_profile",
            format!("the profile's own name is {:?}", profile.name),
        )
        .about(name)
        .allowed(profile.name));
    }
    let db = app.db.audited(caller.audit("profile.put"));
    let row = db.put_profile(&name, profile.version(), &wish.text, false).await?;
    Ok(Json(Profile::from(row)))
}

/// A profile that is refused, with all its faults.
pub(crate) fn refused(e: &ProfileError) -> Problem {
    let mut p = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_profile", e.to_string());
    p.object.clone_from(&e.name);
    p.errors = faults(e);
    p
}

fn faults(e: &ProfileError) -> Vec<ProfileFault> {
    e.problems
        .iter()
        .map(|p| ProfileFault {
            key: p.key.clone(),
            value: (!p.value.is_empty()).then(|| p.value.clone()),
            allowed: Some(p.allowed.clone()),
            line: p.line,
            message: p.to_string(),
        })
        .collect()
}

impl From<ProfileRow> for ProfileSummary {
    fn from(row: ProfileRow) -> ProfileSummary {
        let (description, shares, faults) = match trix_plan::Profile::parse(&row.body) {
            Ok(p) => {
                let shares = p.shares().into_iter().map(|s| s.to_string()).collect();
                (p.description, shares, Vec::new())
            }
            // Stored by a version of the program that took it.
            Err(e) => (String::new(), Vec::new(), faults(&e)),
        };
        ProfileSummary {
            name: row.name,
            version: row.version,
            description,
            hash: row.hash.to_string(),
            shipped: row.shipped,
            shares,
            faults,
        }
    }
}

impl From<ProfileRow> for Profile {
    fn from(row: ProfileRow) -> Profile {
        let text = row.body.clone();
        Profile { summary: row.into(), text }
    }
}
