//! Who may do what: principals, tokens, sessions, one-time links, audit.
//!
//! Secrets are handed out once and stored as sha256; a secret has 256 random bits.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::serde::rfc3339;
use trix_model::Digest;

use crate::error::DbError;
use crate::handle::Db;
use crate::sql;

/// What a principal may do; deny by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Submits, cancels, retries.
    Operator,
    /// Everything.
    Admin,
    /// A program that submits and looks.
    Service,
}

/// A user or a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Its id.
    pub id: i64,
    /// Its name, unique.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// True when it must not come in.
    pub disabled: bool,
}

/// A token of a program, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenRow {
    /// Its id.
    pub id: i64,
    /// Whose it is.
    pub principal: i64,
    /// What it is for.
    pub label: String,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ends.
    #[serde(with = "rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was revoked.
    #[serde(with = "rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was last used, to the minute.
    #[serde(with = "rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
}

/// A session of a person, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionRow {
    /// Its id.
    pub id: i64,
    /// Browser as it names itself.
    pub agent: String,
    /// Address it was opened from.
    pub ip: String,
    /// When it was opened.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ends.
    #[serde(with = "rfc3339")]
    pub expires_at: OffsetDateTime,
    /// When it was last used, to the minute.
    #[serde(with = "rfc3339")]
    pub last_seen: OffsetDateTime,
}

/// What a one-time link is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Who is let in; `None` for the set-up link, whose bearer makes the first administrator.
    pub principal: Option<Principal>,
}

/// A new secret with its row's id.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Id of the token, session or node that it belongs to.
    pub id: i64,
    /// The secret; shown once.
    pub secret: String,
}

/// Who makes a change, for its row in the audit trail; what is changed the database
/// knows itself. See [`Db::audited`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Who; `None` for somebody who signs in by this very call.
    pub principal: Option<i64>,
    /// From which address.
    pub ip: String,
    /// What: `job.cancel`.
    pub action: String,
}

/// One mutating call, as the audit trail has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Who; `None` before log-in.
    pub principal: Option<i64>,
    /// From which address.
    pub ip: String,
    /// What: `job.cancel`.
    pub action: String,
    /// On what: `job/17`.
    pub object: String,
    /// More, free form.
    #[serde(default)]
    pub detail: serde_json::Value,
}

/// A row of the audit trail.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditRow {
    /// Number in the chain, without holes.
    pub seq: i64,
    /// When.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    /// What.
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// sha256 over the object's row before; `None` when there was none.
    pub before: Option<Digest>,
    /// The same after.
    pub after: Option<Digest>,
}

/// A token with what its bearer may do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenWithRole {
    /// The token.
    #[serde(flatten)]
    pub token: TokenRow,
    /// What it may do.
    pub role: Role,
}

/// How somebody shows who they are; see [`Db::sign_in`].
#[derive(Clone, Copy, Debug)]
pub enum SignIn<'a> {
    /// The caller has checked the password of this principal.
    Password(i64),
    /// A one-time link, which is used up.
    Link(&'a str),
    /// The set-up link with name and password hash of the first administrator.
    SetUp {
        /// The link's secret.
        link: &'a str,
        /// Name of the new account.
        name: &'a str,
        /// Its hash (argon2id in PHC form).
        password_hash: &'a str,
    },
}

/// What has to be known to log a person in by password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PasswordEntry {
    /// Whose it is.
    pub principal: Principal,
    /// The hash as it was stored (argon2id in PHC form).
    pub hash: String,
}

/// A session that was checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckedSession {
    /// Its id.
    pub id: i64,
    /// Whose it is.
    pub principal: Principal,
    /// When it ends.
    #[serde(with = "rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// 256 random bits as 43 letters of base64url.
pub(crate) fn new_secret() -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: [u8; 32] = rand::random();
    let mut out = String::with_capacity(43);
    for chunk in bits.chunks(3) {
        let word =
            chunk.iter().enumerate().fold(0u32, |w, (i, b)| w | u32::from(*b) << (16 - 8 * i));
        for i in 0..=chunk.len() {
            out.push(LETTERS[(word >> (18 - 6 * i)) as usize & 63] as char);
        }
    }
    out
}

fn denied_if_none<T>(found: Option<T>, statement: &sql::Statement) -> Result<T, DbError> {
    found.ok_or_else(|| DbError::Denied {
        operation: statement.operation,
        message: "it is unknown, used, revoked or expired".into(),
    })
}

impl Db {
    /// Makes a principal. `password_hash` is what the caller made of the password
    /// (argon2id); programs have none. A taken name is refused with `name_taken`.
    pub async fn create_principal(
        &self,
        name: &str,
        role: Role,
        password_hash: Option<&str>,
    ) -> Result<Principal, DbError> {
        let args = json!({ "name": name, "role": role, "password_hash": password_hash });
        self.one(&sql::PRINCIPAL_CREATE, &args).await
    }

    /// All principals.
    pub async fn principals(&self) -> Result<Vec<Principal>, DbError> {
        self.all(&sql::PRINCIPALS, &Value::Null).await
    }

    /// Changes what is given. Disabling ends the principal's sessions; its tokens stop working.
    pub async fn update_principal(
        &self,
        principal: i64,
        role: Option<Role>,
        password_hash: Option<&str>,
        disabled: Option<bool>,
    ) -> Result<Principal, DbError> {
        let args = json!({
            "principal": principal, "role": role,
            "password_hash": password_hash, "disabled": disabled,
        });
        self.one(&sql::PRINCIPAL_UPDATE, &args).await
    }

    /// The stored password hash of an enabled principal.
    pub async fn password_entry(&self, name: &str) -> Result<Option<PasswordEntry>, DbError> {
        self.optional(&sql::PASSWORD, &json!({ "name": name })).await
    }

    /// Makes a token for a program.
    pub async fn create_token(
        &self,
        principal: i64,
        label: &str,
        expires_at: Option<OffsetDateTime>,
    ) -> Result<Secret, DbError> {
        let secret = new_secret();
        let expires_at = expires_at.map(|t| t.unix_timestamp());
        let args = json!({
            "principal": principal, "label": label, "secret": secret, "expires_at": expires_at,
        });
        Ok(Secret { id: self.one(&sql::TOKEN_CREATE, &args).await?, secret })
    }

    /// Whose token it is; [`DbError::Denied`] when it is good for nothing.
    pub async fn check_token(&self, secret: &str) -> Result<Principal, DbError> {
        let found = self.one(&sql::TOKEN_CHECK, &json!({ "secret": secret })).await?;
        denied_if_none(found, &sql::TOKEN_CHECK)
    }

    /// The tokens of a principal.
    pub async fn tokens(&self, principal: i64) -> Result<Vec<TokenRow>, DbError> {
        self.all(&sql::TOKENS, &json!({ "principal": principal })).await
    }

    /// All tokens, newest first.
    pub async fn all_tokens(&self) -> Result<Vec<TokenWithRole>, DbError> {
        self.all(&sql::TOKENS_OF_ALL, &Value::Null).await
    }

    /// Makes an account for a program, with its token. A taken name is refused with
    /// `name_taken`.
    pub async fn create_program(
        &self,
        name: &str,
        role: Role,
        expires_at: Option<OffsetDateTime>,
    ) -> Result<Secret, DbError> {
        #[derive(Deserialize)]
        struct Made {
            token: i64,
        }
        let secret = new_secret();
        let expires_at = expires_at.map(|t| t.unix_timestamp());
        let args =
            json!({ "name": name, "role": role, "secret": secret, "expires_at": expires_at });
        let made: Made = self.one(&sql::PROGRAM_CREATE, &args).await?;
        Ok(Secret { id: made.token, secret })
    }

    /// Revokes any token; for those who may.
    pub async fn revoke_any_token(&self, token: i64) -> Result<(), DbError> {
        self.exec(&sql::TOKEN_REVOKE, &json!({ "token": token })).await
    }

    /// Revokes a token of a principal.
    pub async fn revoke_token(&self, principal: i64, token: i64) -> Result<(), DbError> {
        self.exec(&sql::TOKEN_REVOKE, &json!({ "principal": principal, "token": token })).await
    }

    /// Opens a session of a person.
    pub async fn create_session(
        &self,
        principal: i64,
        agent: &str,
        ip: &str,
        lasts: std::time::Duration,
    ) -> Result<Secret, DbError> {
        let secret = new_secret();
        let args = json!({
            "principal": principal, "agent": agent, "ip": ip,
            "secret": secret, "seconds": lasts.as_secs(),
        });
        Ok(Secret { id: self.one(&sql::SESSION_CREATE, &args).await?, secret })
    }

    /// Opens a session of somebody who shows who they are, all in one change: a link
    /// is used up only by a session that exists, and the set-up link makes the first
    /// administrator with it. [`DbError::Denied`] when the link is good for nothing.
    pub async fn sign_in(
        &self,
        how: SignIn<'_>,
        agent: &str,
        ip: &str,
        lasts: std::time::Duration,
    ) -> Result<(Principal, Secret), DbError> {
        #[derive(Deserialize)]
        struct Made {
            session: i64,
            principal: Principal,
        }
        let secret = new_secret();
        let mut args =
            json!({ "agent": agent, "ip": ip, "secret": secret, "seconds": lasts.as_secs() });
        match how {
            SignIn::Password(principal) => args["principal"] = json!(principal),
            SignIn::Link(link) => args["link"] = json!(link),
            SignIn::SetUp { link, name, password_hash } => {
                args["link"] = json!(link);
                args["name"] = json!(name);
                args["password_hash"] = json!(password_hash);
            }
        }
        let made: Made = self.one(&sql::SIGN_IN, &args).await?;
        Ok((made.principal, Secret { id: made.session, secret }))
    }

    /// Whose session it is; [`DbError::Denied`] when it is good for nothing.
    pub async fn check_session(&self, secret: &str) -> Result<CheckedSession, DbError> {
        let found = self.one(&sql::SESSION_CHECK, &json!({ "secret": secret })).await?;
        denied_if_none(found, &sql::SESSION_CHECK)
    }

    /// The open sessions of a principal.
    pub async fn sessions(&self, principal: i64) -> Result<Vec<SessionRow>, DbError> {
        self.all(&sql::SESSIONS, &json!({ "principal": principal })).await
    }

    /// Ends a session of a principal.
    pub async fn end_session(&self, principal: i64, session: i64) -> Result<(), DbError> {
        self.exec(&sql::SESSION_END, &json!({ "principal": principal, "session": session })).await
    }

    /// Makes a one-time link: for `principal`, or the set-up link when `None`. A
    /// set-up link is refused with `already_set_up` when an administrator exists;
    /// a new one replaces the earlier one.
    pub async fn create_link(
        &self,
        principal: Option<i64>,
        lasts: std::time::Duration,
    ) -> Result<Secret, DbError> {
        let secret = new_secret();
        let args = json!({ "principal": principal, "secret": secret, "seconds": lasts.as_secs() });
        Ok(Secret { id: self.one(&sql::LINK_CREATE, &args).await?, secret })
    }

    /// What a one-time link is good for, without using it up.
    pub async fn peek_link(&self, secret: &str) -> Result<Link, DbError> {
        let found = self.one(&sql::LINK_PEEK, &json!({ "secret": secret })).await?;
        denied_if_none(found, &sql::LINK_PEEK)
    }

    /// Uses a one-time link up. For a set-up link `admin` names the first
    /// administrator, who is made in the same transaction.
    pub async fn use_link(
        &self,
        secret: &str,
        admin: Option<(&str, &str)>,
    ) -> Result<Principal, DbError> {
        let args = json!({
            "secret": secret,
            "name": admin.map(|a| a.0), "password_hash": admin.map(|a| a.1),
        });
        let found = self.one(&sql::LINK_USE, &args).await?;
        denied_if_none(found, &sql::LINK_USE)
    }

    /// Appends one row to the audit trail and gives its number.
    pub async fn audit(&self, entry: &AuditEntry) -> Result<i64, DbError> {
        self.one(&sql::AUDIT, entry).await
    }

    /// The audit trail, newest first; `before` is the cursor of the next page.
    pub async fn audit_trail(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, DbError> {
        self.all(&sql::AUDIT_READ, &json!({ "before": before, "limit": limit })).await
    }

    /// Checks the hash chain of the audit trail: the first row that does not fit, if any.
    pub async fn audit_verify(&self) -> Result<Option<i64>, DbError> {
        self.one(&sql::AUDIT_VERIFY, &Value::Null).await
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_secret_has_43_letters_and_differs_from_the_next() {
        let (a, b) = (super::new_secret(), super::new_secret());
        assert_eq!(a.len(), 43);
        assert_ne!(a, b);
    }
}
