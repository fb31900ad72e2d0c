//! `trix ingest`: submits files of a source share, and follows them if asked.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::up::roots;
use crate::config::Config;

/// Looks at a job so often while following it.
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `trix ingest`.
#[derive(Debug, Args)]
pub struct Ingest {
    /// The files: absolute or relative paths below a source share's root, or share:path.
    #[arg(required = true)]
    files: Vec<String>,
    /// Name of the profile.
    #[arg(long, default_value = "archive-and-ladder")]
    profile: String,
    /// Title; the file's name when left out. For one file only.
    #[arg(long)]
    title: Option<String>,
    /// Priority, 0 (last) to 9 (first).
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=9))]
    band: u8,
    /// Stay until all are published, with progress; fail when one fails.
    #[arg(long)]
    wait: bool,
}

/// Runs the command.
pub async fn ingest(config: &Config, arguments: Ingest) -> anyhow::Result<()> {
    if arguments.title.is_some() && arguments.files.len() > 1 {
        bail!("--title is for one file");
    }
    let client = Client::new(config)?;
    let mut jobs = Vec::new();
    for file in &arguments.files {
        let source = source(config, file)?;
        let mut body = json!({
            "source": source, "profile": arguments.profile, "band": arguments.band,
        });
        if let Some(title) = &arguments.title {
            body["title"] = json!(title);
        }
        // A new key each time: a person who types the command again means it again.
        let key = format!("cli-{}-{source}", std::process::id());
        let key = format!("{key}-{}", started_ns());
        let job = client
            .call(Method::POST, "/jobs", Some((&body, &key)))
            .await
            .with_context(|| format!("submitting {file}"))?;
        let id = job_id(&job)?;
        println!("job {id}  {source}");
        jobs.push(id);
    }
    if arguments.wait {
        follow(&client, &jobs).await?;
    }
    Ok(())
}

/// `share:path` as it is, a path by the longest root.
fn source(config: &Config, file: &str) -> anyhow::Result<String> {
    if file.parse::<trix_model::SharePath>().is_ok() && !std::path::Path::new(file).exists() {
        return Ok(file.to_owned());
    }
    let path: PathBuf = std::path::absolute(file).with_context(|| format!("resolving {file}"))?;
    Ok(roots(config).resolve_abs(&path)?.to_string())
}

fn job_id(job: &Value) -> anyhow::Result<i64> {
    job.get("id")
        .or_else(|| job.pointer("/job/id"))
        .and_then(Value::as_i64)
        .with_context(|| format!("the answer names no job: {job}"))
}

/// One line a job on a terminal, rewritten in place; elsewhere a line per change.
async fn follow(client: &Client, jobs: &[i64]) -> anyhow::Result<()> {
    let screen = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let mut shown: Vec<String> = vec![String::new(); jobs.len()];
    let mut drawn = false;
    loop {
        let mut lines = Vec::new();
        let mut ended = 0;
        let mut failed = Vec::new();
        for id in jobs {
            let detail = client.call(Method::GET, &format!("/jobs/{id}"), None).await?;
            let job = detail.get("job").unwrap_or(&detail);
            let state = text(job, "state");
            if matches!(state, "succeeded" | "failed" | "cancelled") {
                ended += 1;
            }
            if matches!(state, "failed" | "cancelled") {
                failed.push(*id);
            }
            lines.push(line(*id, job));
        }
        if screen {
            if drawn {
                print!("\x1b[{}A", jobs.len());
            }
            for l in &lines {
                println!("\x1b[2K{l}");
            }
            drawn = true;
        } else {
            for (old, new) in shown.iter().zip(&lines) {
                if old != new {
                    println!("{new}");
                }
            }
        }
        shown = lines;
        if ended == jobs.len() {
            if failed.is_empty() {
                return Ok(());
            }
            let names: Vec<_> = failed.iter().map(i64::to_string).collect();
            bail!("not published: job {}", names.join(", "));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn line(id: i64, job: &Value) -> String {
    const WIDTH: usize = 28;
    let planned = job.get("planned").and_then(Value::as_bool).unwrap_or(false);
    let fraction = job.get("fraction").and_then(Value::as_f64).unwrap_or(0.0).clamp(0.0, 1.0);
    let state = text(job, "state");
    let filled =
        if planned || state == "succeeded" { (fraction * WIDTH as f64) as usize } else { 0 };
    let bar = format!("{}{}", "█".repeat(filled), "░".repeat(WIDTH - filled));
    let number =
        |key: &str| job.pointer(&format!("/tasks/{key}")).and_then(Value::as_u64).unwrap_or(0);
    let mut line = format!(
        "job {id}  {bar} {:>3} %  {state}, {} of {} tasks  {}",
        (fraction * 100.0) as u32,
        number("done"),
        number("total"),
        text(job, "title"),
    );
    if let Some(failure) = job.get("failure").filter(|f| !f.is_null()) {
        line.push_str(&format!("\n  {} ({})", text(failure, "message"), text(failure, "code")));
    }
    line
}

/// Nanoseconds since 1970: makes idempotency keys of two runs differ.
fn started_ns() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos())
}
