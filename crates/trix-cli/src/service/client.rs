//! The REST client that commands of this machine use.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::config::Config;

/// File in the state folder that holds the token of this machine's commands (mode 0600).
pub const CLI_TOKEN: &str = "cli-token";

/// A client of the service on this machine.
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    /// Reads the token that the api role laid into the state folder.
    pub fn new(config: &Config) -> anyhow::Result<Client> {
        let path = token_path(config);
        let token = std::fs::read_to_string(&path).with_context(|| {
            format!("reading {}; the service writes it at its first start", path.display())
        })?;
        Ok(Client { http: http()?, base: base(config), token: token.trim().to_owned() })
    }

    /// Calls what changes something and repeats harmlessly, so that it needs no key.
    pub async fn change(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(method, path, Some((body, "cli"))).await
    }

    /// Calls `method` on a path below `/api/v1`, with a body and an idempotency key where given.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&Value, &str)>,
    ) -> anyhow::Result<Value> {
        let what = format!("{method} {path}");
        let mut request = self
            .http
            .request(method, format!("{}/api/v1{path}", self.base))
            .bearer_auth(&self.token);
        if let Some((body, key)) = body {
            request = request.header("idempotency-key", key).json(body);
        }
        let answer = request.send().await.with_context(|| format!("{what} at {}", self.base))?;
        let status = answer.status();
        let text = answer.text().await.with_context(|| what.clone())?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if !status.is_success() {
            bail!("{what}: {}", problem(status, &value));
        }
        Ok(value)
    }
}

/// `trix ready`: that a job submitted now would be taken. The database answers, the shipped
/// profiles are stored, and a worker has registered.
pub async fn ready(config: &Config) -> anyhow::Result<()> {
    let base = base(config);
    let answer = http()?
        .get(format!("{base}/readyz"))
        .send()
        .await
        .with_context(|| format!("asking {base}"))?;
    let status = answer.status();
    if !status.is_success() {
        bail!("{base} is not ready: {}", answer.text().await?);
    }
    let client = Client::new(config)?;
    let profiles = client.call(Method::GET, "/profiles", None).await?;
    for (name, _) in trix_plan::Profile::shipped() {
        if !items(&profiles).any(|p| p["name"] == *name) {
            bail!("{base} is not ready: profile {name} is not stored yet");
        }
    }
    let nodes = client.call(Method::GET, "/nodes", None).await?;
    if !items(&nodes).any(|n| n["worker"]["state"] == "active") {
        bail!("{base} is not ready: no worker has registered");
    }
    Ok(())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    name.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Where the token lies.
pub fn token_path(config: &Config) -> PathBuf {
    config.state().join(CLI_TOKEN)
}

/// The service's address as this machine reaches it.
pub fn base(config: &Config) -> String {
    format!("http://{}", config.api.listen)
}

fn http() -> anyhow::Result<reqwest::Client> {
    // The api answers within ten seconds whatever is away.
    Ok(reqwest::Client::builder().timeout(Duration::from_secs(15)).no_proxy().build()?)
}

/// An RFC 9457 problem in one line.
fn problem(status: StatusCode, value: &Value) -> String {
    let part = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (title, detail, code) = (part("title"), part("detail"), part("code"));
    let mut text = if detail.is_empty() { title } else { detail };
    if text.is_empty() {
        text = value.to_string();
    }
    if !code.is_empty() {
        text = format!("{text} ({code})");
    }
    format!("{} {text}", status.as_u16())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(super::segment("node-1.a"), "node-1.a");
        assert_eq!(super::segment("a/b?c ü"), "a%2Fb%3Fc%20%C3%BC");
    }
}
