//! The operator's commands: why something waits, and stopping, hurrying and taking back.
//!
//! Each asks the service's API with the token of this machine's commands. Exit code 0: done;
//! 1: not done, with the reason on standard error; 2: the command line is wrong.

use anyhow::{Context, bail};
use clap::{ArgGroup, Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, segment};
use crate::config::Config;

/// Print the answer as the service gives it.
#[derive(Debug, Args)]
pub struct Output {
    /// Print the service's answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Commands of an operator.
#[derive(Debug, Subcommand)]
pub enum Operate {
    /// Say why a job, a task or a node waits or failed, and what would mend it.
    Explain {
        /// `12` or `job 12`, `task 34`, `node NAME`.
        #[arg(required = true, num_args = 1..=2, value_name = "JOB|task TASK|node NODE")]
        what: Vec<String>,
        /// Of a task: all that is known of it (specification, attempts, logs), as JSON.
        #[arg(long)]
        bundle: bool,
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
    /// Hand out no more tasks of a job, of a kind, to a node, or none at all; what runs goes on.
    Pause {
        /// Which of these.
        #[command(flatten)]
        what: Stopped,
        /// Why; required but for a job.
        #[arg(long, value_name = "TEXT", required_unless_present = "job", conflicts_with = "job")]
        reason: Option<String>,
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
    /// Let go on what was paused.
    Resume {
        /// Which of these.
        #[command(flatten)]
        what: Stopped,
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
    /// List what is paused.
    Holds {
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
    /// Cancel a job.
    Cancel {
        /// Number of the job.
        job: i64,
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
    /// Try the failed tasks of a failed job again.
    Retry {
        /// Number of the job.
        job: i64,
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
    /// Change a job's priority.
    Priority {
        /// Number of the job.
        job: i64,
        /// 0 (last) to 9 (first).
        #[arg(value_parser = clap::value_parser!(u8).range(0..=9))]
        band: u8,
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
    /// Hand no more work to a node; what runs there goes on.
    Cordon(Close),
    /// Open a cordoned node.
    Uncordon(Open),
    /// Hand no more work to a node; its worker ends what runs and leaves.
    Drain(Close),
    /// Open a drained node; a worker that has not left stays.
    Undrain(Open),
    /// Say what a node has that not every node has.
    Traits {
        /// Name of the node.
        node: String,
        /// A capability that tasks may ask for; repeat it for more. All that are not named go.
        #[arg(long = "cap", value_name = "NAME")]
        caps: Vec<String>,
        /// Thousandths of graphics processors.
        #[arg(long, default_value_t = 0)]
        gpu: u32,
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
    /// Limit how many attempts use a share at once; no limit where none is given.
    Slots {
        /// Name of the share.
        share: String,
        /// Attempts that read it at once.
        #[arg(long, value_name = "N")]
        read: Option<u32>,
        /// Attempts that write to it at once.
        #[arg(long, value_name = "N")]
        write: Option<u32>,
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
    /// List accounts with their shares of the fleet.
    Accounts {
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
    /// Set an account's share of the fleet; twice the weight of another is twice its share.
    Weight {
        /// Name of the account.
        account: String,
        /// 100 is usual.
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        weight: u32,
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
    /// Take a publication back: a job moves its files out of sight.
    Retract {
        /// Number of the publication.
        publication: i64,
        /// How the answer is printed.
        #[command(flatten)]
        output: Output,
    },
}

/// What is paused or resumed: one of these.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("stopped").required(true).args(["job", "kind", "node", "all"]))]
pub struct Stopped {
    /// Number of a job.
    job: Option<i64>,
    /// Tasks of this kind.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Whatever this node would claim.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
}

/// A node that is closed.
#[derive(Debug, Args)]
pub struct Close {
    /// Name of the node.
    node: String,
    /// Why.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    output: Output,
}

/// A node that is opened.
#[derive(Debug, Args)]
pub struct Open {
    /// Name of the node.
    node: String,
    #[command(flatten)]
    output: Output,
}

impl Stopped {
    /// The path of a hold, and what it is called; `Err` with the number of a job.
    fn hold(&self) -> Result<(String, String), i64> {
        match (self.job, &self.kind, &self.node) {
            (Some(job), ..) => Err(job),
            (_, Some(kind), _) => {
                Ok((format!("/holds/kind/{}", segment(kind)), format!("tasks of kind {kind}")))
            }
            (.., Some(node)) => {
                Ok((format!("/holds/node/{}", segment(node)), format!("node {node}")))
            }
            _ => Ok(("/holds/all".to_owned(), "everything".to_owned())),
        }
    }
}

/// Runs a command.
pub async fn operate(config: &Config, command: Operate) -> anyhow::Result<()> {
    let client = Client::new(config)?;
    let (answer, line, output) = match command {
        Operate::Explain { what, bundle, output } => {
            return explain(&client, &what, bundle, &output).await;
        }
        Operate::Pause { what, reason, output } => match what.hold() {
            Err(job) => (
                client.change(Method::POST, &job_path(job, "pause"), &json!({})).await?,
                None,
                output,
            ),
            Ok((path, name)) => {
                let body = json!({ "reason": reason });
                let answer = client.change(Method::PUT, &path, &body).await?;
                (answer, Some(format!("{name}: paused")), output)
            }
        },
        Operate::Resume { what, output } => match what.hold() {
            Err(job) => (
                client.change(Method::POST, &job_path(job, "resume"), &json!({})).await?,
                None,
                output,
            ),
            Ok((path, name)) => {
                let answer = client.change(Method::DELETE, &path, &json!({})).await?;
                let lifted = answer["lifted"] == true;
                let line = if lifted { "resumed" } else { "was not paused" };
                (answer, Some(format!("{name}: {line}")), output)
            }
        },
        Operate::Holds { output } => {
            let answer = client.call(Method::GET, "/holds", None).await?;
            let line = holds(&answer);
            (answer, Some(line), output)
        }
        Operate::Cancel { job, output } => {
            (client.change(Method::POST, &job_path(job, "cancel"), &json!({})).await?, None, output)
        }
        Operate::Retry { job, output } => {
            (client.change(Method::POST, &job_path(job, "retry"), &json!({})).await?, None, output)
        }
        Operate::Priority { job, band, output } => {
            let body = json!({ "band": band });
            let answer = client.change(Method::PUT, &job_path(job, "priority"), &body).await?;
            (answer, Some(format!("job {job}: priority {band}")), output)
        }
        Operate::Cordon(c) => (close(&client, &c, "cordon").await?, None, c.output),
        Operate::Drain(c) => (close(&client, &c, "drain").await?, None, c.output),
        Operate::Uncordon(o) => (open(&client, &o, "uncordon").await?, None, o.output),
        Operate::Undrain(o) => (open(&client, &o, "undrain").await?, None, o.output),
        Operate::Traits { node, caps, gpu, output } => {
            let body = json!({ "caps": caps, "gpu": gpu });
            let answer = client.change(Method::PUT, &node_path(&node, "traits"), &body).await?;
            let line = format!("node {node}: capabilities {:?}, {gpu} thousandths of a GPU", caps);
            (answer, Some(line), output)
        }
        Operate::Slots { share, read, write, output } => {
            let body = json!({ "read": read, "write": write });
            let path = format!("/shares/{}/slots", segment(&share));
            let answer = client.change(Method::PUT, &path, &body).await?;
            let limit = |n: Option<u32>| n.map_or("no limit".to_owned(), |n| n.to_string());
            let line = format!("share {share}: read {}, write {}", limit(read), limit(write));
            (answer, Some(line), output)
        }
        Operate::Accounts { output } => {
            let answer = client.call(Method::GET, "/accounts", None).await?;
            let lines = accounts(&answer);
            (answer, Some(lines), output)
        }
        Operate::Weight { account, weight, output } => {
            let path = format!("/accounts/{}/weight", segment(&account));
            let answer = client.change(Method::PUT, &path, &json!({ "weight": weight })).await?;
            (answer, Some(format!("account {account}: weight {weight}")), output)
        }
        Operate::Retract { publication, output } => {
            let path = format!("/publications/{publication}/retract");
            let answer = client.change(Method::POST, &path, &json!({})).await?;
            let how = if answer["created"] == true { "takes" } else { "takes already" };
            let line = format!("job {} {how} publication {publication} back", answer["job"]);
            (answer, Some(line), output)
        }
    };
    match line {
        _ if output.json => println!("{answer:#}"),
        Some(line) => println!("{line}"),
        None => println!("{}", commanded(&answer)?),
    }
    Ok(())
}

async fn close(client: &Client, c: &Close, verb: &str) -> anyhow::Result<Value> {
    let body = json!({ "reason": c.reason });
    client.change(Method::POST, &node_path(&c.node, verb), &body).await
}

async fn open(client: &Client, o: &Open, verb: &str) -> anyhow::Result<Value> {
    client.change(Method::POST, &node_path(&o.node, verb), &json!({})).await
}

async fn explain(
    client: &Client,
    what: &[String],
    bundle: bool,
    output: &Output,
) -> anyhow::Result<()> {
    let subject = subject(what)?;
    if bundle {
        let Subject::Task(task) = subject else { bail!("--bundle is of a task") };
        let answer = client.call(Method::GET, &format!("/tasks/{task}/bundle"), None).await?;
        println!("{answer:#}");
        return Ok(());
    }
    let path = match &subject {
        Subject::Job(job) => job_path(*job, "explain"),
        Subject::Task(task) => format!("/tasks/{task}/explain"),
        Subject::Node(node) => node_path(node, "explain"),
    };
    let answer = client.call(Method::GET, &path, None).await?;
    if output.json {
        println!("{answer:#}");
        return Ok(());
    }
    let part = |key: &str| {
        answer[key].as_str().with_context(|| format!("the answer has no {key}: {answer}"))
    };
    println!("{}\n{}", part("because")?, part("mend")?);
    Ok(())
}

/// What is explained.
#[derive(Debug, PartialEq, Eq)]
enum Subject {
    Job(i64),
    Task(i64),
    Node(String),
}

fn subject(words: &[String]) -> anyhow::Result<Subject> {
    let number = |word: &str| {
        word.parse()
            .with_context(|| format!("{word:?} is no number; say 12, job 12, task 34 or node NAME"))
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(match words.as_slice() {
        ["job", id] | [id] => Subject::Job(number(id)?),
        ["task", id] => Subject::Task(number(id)?),
        ["node", name] => Subject::Node((*name).to_owned()),
        _ => {
            bail!("{:?} cannot be explained; say 12, job 12, task 34 or node NAME", words.join(" "))
        }
    })
}

/// "job 12: paused", "node a: drained".
fn commanded(answer: &Value) -> anyhow::Result<String> {
    let state =
        answer["state"].as_str().with_context(|| format!("the answer has no state: {answer}"))?;
    Ok(match (&answer["job"], answer["node"].as_str()) {
        (Value::Number(job), _) => format!("job {job}: {state}"),
        (_, Some(node)) => format!("node {node}: {state}"),
        _ => bail!("the answer names neither job nor node: {answer}"),
    })
}

fn holds(answer: &Value) -> String {
    let text = |h: &Value, key: &str| h[key].as_str().unwrap_or_default().to_owned();
    let lines: Vec<String> = answer["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|h| {
            let what = match h["scope"].as_str() {
                Some("all") | None => "everything".to_owned(),
                Some(scope) => format!("{scope} {}", text(h, "name")),
            };
            format!(
                "{what}  paused by {} at {}: {}",
                text(h, "by"),
                text(h, "at"),
                text(h, "reason")
            )
        })
        .collect();
    if lines.is_empty() { "nothing is paused".to_owned() } else { lines.join("\n") }
}

fn accounts(answer: &Value) -> String {
    let all = || answer["items"].as_array().into_iter().flatten();
    let name = |a: &Value| a["name"].as_str().unwrap_or_default().to_owned();
    let widest = all().map(|a| name(a).chars().count()).max().unwrap_or_default();
    all()
        .map(|a| {
            let role = a["role"].as_str().unwrap_or_default();
            let disabled = if a["disabled"] == true { "  disabled" } else { "" };
            format!(
                "{:widest$}  {role:8}  weight {}, {} open jobs{disabled}",
                name(a),
                a["weight"],
                a["open_jobs"]
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn job_path(job: i64, verb: &str) -> String {
    format!("/jobs/{job}/{verb}")
}

fn node_path(node: &str, verb: &str) -> String {
    format!("/nodes/{}/{verb}", segment(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> anyhow::Result<Subject> {
        subject(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_bare_number_is_a_job() {
        assert_eq!(of(&["12"]).unwrap(), Subject::Job(12));
        assert_eq!(of(&["job", "12"]).unwrap(), Subject::Job(12));
        assert_eq!(of(&["task", "34"]).unwrap(), Subject::Task(34));
        assert_eq!(of(&["node", "12"]).unwrap(), Subject::Node("12".into()));
        assert!(of(&["film"]).is_err() && of(&["node"]).is_err() && of(&["share", "in"]).is_err());
    }

    #[test]
    fn accounts_stand_in_columns() {
        let two = json!({ "items": [
            { "name": "ann", "role": "admin", "disabled": false, "weight": 300, "open_jobs": 2 },
            { "name": "delivery", "role": "service", "disabled": true, "weight": 100, "open_jobs": 0 },
        ]});
        let lines = "ann       admin     weight 300, 2 open jobs\n\
                     delivery  service   weight 100, 0 open jobs  disabled";
        assert_eq!(accounts(&two), lines);
    }

    #[test]
    fn what_is_paused_is_a_line_each() {
        let none = json!({ "items": [] });
        assert_eq!(holds(&none), "nothing is paused");
        let two = json!({ "items": [
            { "scope": "all", "name": null, "by": "ann", "at": "T1", "reason": "cooling" },
            { "scope": "kind", "name": "mux", "by": "leader", "at": "T2", "reason": "fails" },
        ]});
        let lines =
            "everything  paused by ann at T1: cooling\nkind mux  paused by leader at T2: fails";
        assert_eq!(holds(&two), lines);
    }
}
