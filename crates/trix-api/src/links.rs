//! One-time links: the set-up link of the first start, and log-in links that the
//! owner of the state folder asks for.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use trix_db::{Db, DbError};

/// How long a link is good for.
pub const LINK_LASTS: Duration = Duration::from_secs(24 * 3600);
/// The file in the state folder that holds the newest link.
pub const FIRST_LOGIN: &str = "first-login";

/// Why no link was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The database.
    #[error("making a log-in link")]
    Db(#[from] DbError),
    /// No such account.
    #[error("there is no account {name:?}; there are: {known}")]
    NoAccount {
        /// The name that was asked for.
        name: String,
        /// The accounts that exist.
        known: String,
    },
    /// The file cannot be written.
    #[error("writing {path}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Makes a one-time link and gives its address below `base` (an origin such as
/// `http://127.0.0.1:9001`).
///
/// With a name it signs that account in. Without one it is the set-up link while
/// there is no administrator, and afterwards signs the first administrator in.
pub async fn login_link(db: &Db, name: Option<&str>, base: &str) -> Result<String, LinkError> {
    let principals = || async {
        let mut all = db.principals().await?;
        all.retain(|p| !p.disabled);
        all.sort_by_key(|p| p.id);
        Ok::<_, DbError>(all)
    };
    let secret = match name {
        Some(name) => {
            let all = principals().await?;
            let Some(p) = all.iter().find(|p| p.name == name) else {
                let known: Vec<_> = all.iter().map(|p| p.name.as_str()).collect();
                let known = known.join(", ");
                return Err(LinkError::NoAccount { name: name.to_owned(), known });
            };
            db.create_link(Some(p.id), LINK_LASTS).await?
        }
        None => match set_up_link(db).await? {
            Some(secret) => secret,
            None => {
                let all = principals().await?;
                let admin = all.iter().find(|p| p.role == trix_db::access::Role::Admin);
                db.create_link(admin.map(|p| p.id), LINK_LASTS).await?
            }
        },
    };
    Ok(address(base, &secret.secret))
}

/// Makes the set-up link if there is no administrator yet, and writes it to
/// `<state>/first-login`, readable by its owner only.
pub async fn first_login(
    db: &Db,
    state_dir: &Path,
    base: &str,
) -> Result<Option<String>, LinkError> {
    let Some(secret) = set_up_link(db).await? else { return Ok(None) };
    let link = address(base, &secret.secret);
    write_first_login(state_dir, &link)?;
    Ok(Some(link))
}

/// Writes a link to `<state>/first-login` (mode 0600).
pub fn write_first_login(state_dir: &Path, link: &str) -> Result<(), LinkError> {
    let path = state_dir.join(FIRST_LOGIN);
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        // An earlier file keeps its mode when it is opened.
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        writeln!(file, "{link}")
    };
    write().map_err(|source| LinkError::File { path: path.clone(), source })
}

async fn set_up_link(db: &Db) -> Result<Option<trix_db::access::Secret>, DbError> {
    match db.create_link(None, LINK_LASTS).await {
        Ok(secret) => Ok(Some(secret)),
        Err(DbError::Conflict { code, .. }) if code == "already_set_up" => Ok(None),
        Err(e) => Err(e),
    }
}

/// The secret stands behind `#`, so that it reaches no server's or proxy's log.
fn address(base: &str, secret: &str) -> String {
    format!("{}/interface/login#token={secret}", base.trim_end_matches('/'))
}
