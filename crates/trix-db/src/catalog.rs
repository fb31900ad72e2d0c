//! What is known beside jobs: shares and profiles.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::serde::rfc3339;
use trix_model::{Digest, ShareName};

use crate::access::Secret;
use crate::error::DbError;
use crate::handle::Db;
use crate::sql;

/// What a share is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareRole {
    /// Rights-holders deliver there; never written.
    Source,
    /// Archive and production files are published there.
    Output,
    /// Posters, thumbnails and proxies.
    Preview,
    /// Artifacts.
    Cache,
}

/// A logical share. Its root and mount unit stand in each node's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareRow {
    /// Its name.
    pub name: ShareName,
    /// What it is for.
    pub role: ShareRole,
    /// File-system type: `local`, `cifs`, `nfs`, `sshfs`.
    pub kind: String,
    /// Content of the marker file `.trix-share`, if it has one.
    #[serde(default)]
    pub marker: Option<uuid::Uuid>,
    /// Nodes whose worker says that the share is ok there.
    #[serde(default)]
    pub ok_on: Vec<String>,
}

/// One version of a profile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProfileRow {
    /// Id of this version.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Number of the version within the name, from 1.
    pub version: u32,
    /// BLAKE3 or sha256 of the text, as given.
    pub hash: Digest,
    /// The TOML text.
    pub body: String,
    /// True for those that ship with trix.
    pub shipped: bool,
    /// True for the version that a submit by name takes.
    pub current: bool,
    /// When it was stored.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
}

impl Db {
    /// Makes a share or changes its kind and marker. Another role for a known
    /// name is refused with `share_role`.
    pub async fn put_share(&self, share: &ShareRow) -> Result<(), DbError> {
        self.exec(&sql::SHARE_PUT, share).await
    }

    /// All shares.
    pub async fn shares(&self) -> Result<Vec<ShareRow>, DbError> {
        self.all(&sql::SHARES, &Value::Null).await
    }

    /// Stores a profile's text and makes it the current version of its name. A
    /// text that is known already (same name, same hash) keeps its version.
    pub async fn put_profile(
        &self,
        name: &str,
        hash: Digest,
        body: &str,
        shipped: bool,
    ) -> Result<ProfileRow, DbError> {
        let args = json!({ "name": name, "hash": hash, "body": body, "shipped": shipped });
        self.one(&sql::PROFILE_PUT, &args).await
    }

    /// The current version of every profile.
    pub async fn profiles(&self) -> Result<Vec<ProfileRow>, DbError> {
        self.all(&sql::PROFILES, &json!({ "name": null })).await
    }

    /// All versions of a profile, newest first.
    pub async fn profile_versions(&self, name: &str) -> Result<Vec<ProfileRow>, DbError> {
        self.all(&sql::PROFILES, &json!({ "name": name })).await
    }

    /// One version of a profile.
    pub async fn profile(&self, id: i64) -> Result<Option<ProfileRow>, DbError> {
        self.optional(&sql::PROFILE, &json!({ "id": id })).await
    }

    /// Enrols a node, or gives a known one a new secret (the old one stops
    /// working for new registrations).
    pub async fn enrol_node(&self, name: &str) -> Result<Secret, DbError> {
        let secret = crate::access::new_secret();
        let id = self.one(&sql::NODE_ENROL, &json!({ "name": name, "secret": secret })).await?;
        Ok(Secret { id, secret })
    }
}
