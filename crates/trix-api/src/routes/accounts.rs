//! Accounts and how they share the fleet.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Admin;
use crate::extract::{Body, Path};
use crate::problem::Problem;
use crate::routes::session::Role;
use crate::state::App;

/// Somebody who submits jobs: a person or a program.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// True when it cannot sign in any more.
    pub disabled: bool,
    /// Its share of the fleet while others have work of the same priority; 100 is usual.
    pub weight: u32,
    /// Jobs of it that are not over.
    pub open_jobs: u64,
}

/// All accounts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AccountList {
    /// By name.
    pub items: Vec<Account>,
}

/// An account's share of the fleet.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Weight {
    /// Twice the weight of another is twice its share.
    #[schema(minimum = 1, maximum = 10_000)]
    pub weight: u32,
}

/// Accounts with their shares of the fleet. Admins only.
#[utoipa::path(
    get,
    path = "/accounts",
    operation_id = "list_accounts",
    tag = "accounts",
    responses(
        (status = 200, description = "The accounts.", body = AccountList),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn list(State(app): State<App>, _: Admin) -> Result<Json<AccountList>, Problem> {
    let items = app.db.accounts().await?.into_iter().map(Account::from).collect();
    Ok(Json(AccountList { items }))
}

/// Sets an account's share of the fleet. It counts for what is planned from now on. Admins only.
#[utoipa::path(
    put,
    path = "/accounts/{name}/weight",
    operation_id = "set_weight",
    tag = "accounts",
    params(("name" = String, Path, description = "Name of the account")),
    request_body = Weight,
    responses(
        (status = 200, description = "It has this weight.", body = Weight),
        (status = "default", description = "Not done.", body = Problem, content_type = "application/problem+json")
    )
)]
pub async fn set_weight(
    State(app): State<App>,
    Admin(caller): Admin,
    Path(name): Path<String>,
    Body(wish): Body<Weight>,
) -> Result<Json<Weight>, Problem> {
    if !(1..=10_000).contains(&wish.weight) {
        let title = format!("a weight of {} is refused", wish.weight);
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_weight", title)
            .about("weight")
            .allowed("1 to 10000; 100 is usual"));
    }
    let known = app.db.principals().await?.into_iter().find(|p| p.name == name);
    let Some(account) = known else {
        let title = format!("there is no account {name}");
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", title).about(name));
    };
    let db = app.db.audited(caller.audit("account.weight"));
    db.set_weight(account.id, wish.weight).await?;
    Ok(Json(wish))
}

impl From<trix_db::operate::Account> for Account {
    fn from(a: trix_db::operate::Account) -> Account {
        Account {
            name: a.principal.name,
            role: a.principal.role.into(),
            disabled: a.principal.disabled,
            weight: a.weight,
            open_jobs: a.open_jobs,
        }
    }
}
