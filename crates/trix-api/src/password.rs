//! Passwords: argon2id in PHC form, and a brake against guessing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::{self, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::problem::Problem;

/// Each computation takes 19 MiB and a core for some time, so few run at once.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// Window in which failures are counted.
const WINDOW: Duration = Duration::from_secs(300);
/// Failures in the window for one account from one address.
const PER_ACCOUNT_AND_ADDRESS: u32 = 10;
/// Failures in the window from one address.
const PER_ADDRESS: u32 = 30;
/// Failures in the window for one account, from wherever. It is high, because
/// who reaches it locks the account's owner out for some minutes.
const PER_ACCOUNT: u32 = 200;
/// Entries kept at most; beyond, the oldest go.
const ENTRIES: usize = 10_000;

/// Hashes a new password.
pub async fn hash(password: String) -> Result<String, Problem> {
    run(move || Argon2::default().hash_password(password.as_bytes()).map(|h| h.to_string()))
        .await?
        .map_err(|e| Problem::internal("hashing a password", &e))
}

/// True if `password` belongs to `stored`. Without a stored hash the same time is
/// spent, so that the answer's time does not tell which accounts exist.
pub async fn verify(password: String, stored: Option<String>) -> Result<bool, Problem> {
    run(move || {
        let known = stored.is_some();
        let stored = match stored {
            Some(s) => s,
            None => Argon2::default().hash_password(b"nobody")?.to_string(),
        };
        match Argon2::default().verify_password(password.as_bytes(), stored.as_str()) {
            Ok(()) => Ok(known),
            Err(password_hash::Error::PasswordInvalid) => Ok(false),
            Err(e) => Err(e),
        }
    })
    .await?
    .map_err(|e| Problem::internal("checking a password", &e))
}

async fn run<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let permit = AT_ONCE.acquire().await;
    let result = tokio::task::spawn_blocking(f).await;
    drop(permit);
    result.map_err(|e| Problem::internal("computing with a password", &e))
}

/// Counts failed log-ins.
#[derive(Debug, Default)]
pub struct Brake {
    failures: Mutex<HashMap<String, (Instant, u32)>>,
}

impl Brake {
    /// Refuses with 429 who failed too often lately.
    pub fn check(&self, account: &str, address: &str) -> Result<(), Problem> {
        let failures = self.lock();
        for (key, limit) in keys(account, address) {
            if let Some((since, count)) = failures.get(&key)
                && *count >= limit
                && since.elapsed() < WINDOW
            {
                let left = (WINDOW - since.elapsed()).as_secs() + 1;
                let mut p = Problem::new(
                    axum::http::StatusCode::TOO_MANY_REQUESTS,
                    "too_many_failures",
                    "too many failed log-ins; try again later",
                );
                p.class = "transient".to_owned();
                p.retry_after_s = Some(left);
                return Err(p);
            }
        }
        Ok(())
    }

    /// Counts a failure.
    pub fn failed(&self, account: &str, address: &str) {
        let mut failures = self.lock();
        if failures.len() >= ENTRIES {
            failures.retain(|_, (since, _)| since.elapsed() < WINDOW);
        }
        if failures.len() >= ENTRIES {
            failures.clear();
        }
        for (key, _) in keys(account, address) {
            let entry = failures.entry(key).or_insert((Instant::now(), 0));
            if entry.0.elapsed() >= WINDOW {
                *entry = (Instant::now(), 0);
            }
            entry.1 += 1;
        }
    }

    /// Forgets the failures of an account from an address that got in.
    pub fn succeeded(&self, account: &str, address: &str) {
        self.lock().remove(&keys(account, address)[0].0);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, u32)>> {
        self.failures.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn keys(account: &str, address: &str) -> [(String, u32); 3] {
    // Long names would make the map large.
    let account: String = account.chars().take(64).collect();
    [
        (format!("{address} {account}"), PER_ACCOUNT_AND_ADDRESS),
        (format!("{address} "), PER_ADDRESS),
        (format!(" {account}"), PER_ACCOUNT),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let stored = hash("correct horse".into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert!(verify("correct horse".into(), Some(stored.clone())).await.unwrap());
        assert!(!verify("wrong horse".into(), Some(stored)).await.unwrap());
        assert!(!verify("nobody".into(), None).await.unwrap());
    }

    #[test]
    fn guessing_is_stopped_for_the_address_that_guesses() {
        let brake = Brake::default();
        for _ in 0..PER_ACCOUNT_AND_ADDRESS {
            assert!(brake.check("ann", "10.0.0.1").is_ok());
            brake.failed("ann", "10.0.0.1");
        }
        let refused = brake.check("ann", "10.0.0.1").unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (429, "too_many_failures"));
        assert!(refused.retry_after_s.is_some());
        assert!(brake.check("ann", "10.0.0.2").is_ok(), "the owner still gets in from elsewhere");
        assert!(brake.check("ben", "10.0.0.1").is_ok());
    }
}
