//! The binary that people and services start. It links no codec.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use trix_cli::config::{self, Config};
use trix_cli::{handover, service};

/// trix: media ingest and production.
#[derive(Debug, Parser)]
#[command(name = "trix", version, about, long_about = None)]
struct Cli {
    /// Configuration file; see `trix config` for all settings.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run api, dispatcher and one worker on this machine.
    Up(Up),
    /// Run the api role alone.
    Api(Role),
    /// Run the dispatcher role alone.
    Dispatcher(Role),
    /// Run the worker role alone.
    Worker(Role),
    /// Mount shares anew for this machine's worker; runs as root (see `trix config`, [mounts]).
    MountHelper,
    /// Bring the database's schema up to date.
    Migrate(Role),
    /// Look after the database itself.
    #[command(subcommand)]
    Db(DbCommand),
    #[command(flatten)]
    Operate(service::operate::Operate),
    /// Ingest files from a source share.
    Ingest(service::ingest::Ingest),
    /// Say whether the service answers (exit code 0 when it is ready).
    Ready,
    /// Look at all that this node needs, and say what would mend it (exit code 1 if it must be).
    Doctor {
        /// Print what was found as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a one-time link to log in with; run it on the service's machine.
    LoginLink {
        /// Whose link; the first administrator's when left out.
        name: Option<String>,
    },
    /// Let a node in, and print the token for its state folder (file node-token).
    Enrol {
        /// The node's name.
        node: String,
    },
    /// Print the default configuration, which documents every setting.
    Config,
    /// Encode a file by a profile into a folder, or to one file.
    #[command(disable_help_flag = true)]
    Encode(Rest),
    /// Say what a file is.
    #[command(disable_help_flag = true)]
    Probe(Rest),
    /// Show what `encode` would do, without doing it.
    #[command(disable_help_flag = true)]
    Plan(Rest),
    /// Decode a file completely and say whether it is whole.
    #[command(disable_help_flag = true)]
    Verify(Rest),
    /// Print the engine id: what decides the bytes that this build makes.
    EngineId(Rest),
}

#[derive(Debug, Subcommand)]
enum DbCommand {
    /// Make a database that was restored from a backup, or a replica that lagged, another
    /// cluster whose numbers go on beyond all that were given. Stop all services before.
    Adopt(Role),
}

#[derive(Debug, Args)]
struct Up {
    /// Use this PostgreSQL server instead of a private one.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

#[derive(Debug, Args)]
struct Role {
    /// URL of the PostgreSQL server; else `database.url` of the configuration.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

/// Arguments that `trix-media` reads.
#[derive(Debug, Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<String>,
}

fn main() -> ExitCode {
    // Before anything else is parsed, so that `trix encode --help` is trix-media's help.
    let first = std::env::args().nth(1);
    if first.as_deref().is_some_and(|a| handover::MEDIA_COMMANDS.contains(&a)) {
        return report(Err(handover::become_media(std::env::args_os().skip(1))));
    }
    // The worker's own child: it has no configuration and says nothing to people.
    if first.as_deref() == Some(service::up::PROBE_COMMAND) {
        return trix_worker::probe_main();
    }
    report(run(Cli::parse()))
}

fn run(cli: Cli) -> anyhow::Result<()> {
    if let Command::Config = cli.command {
        print!("{}", config::DEFAULT_FILE);
        return Ok(());
    }
    let mut config = Config::load(cli.config.as_deref())?;
    if let Command::MountHelper = cli.command {
        return service::up::mount_helper(&config);
    }
    if let Command::Up(Up { database_url: Some(url) })
    | Command::Api(Role { database_url: Some(url) })
    | Command::Dispatcher(Role { database_url: Some(url) })
    | Command::Worker(Role { database_url: Some(url) })
    | Command::Migrate(Role { database_url: Some(url) })
    | Command::Db(DbCommand::Adopt(Role { database_url: Some(url) })) = &cli.command
    {
        config.database.url.clone_from(url);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Up(_) => service::up::up(&config).await,
            Command::Api(_) => service::up::role(&config, service::up::RoleName::Api).await,
            Command::Dispatcher(_) => {
                service::up::role(&config, service::up::RoleName::Dispatcher).await
            }
            Command::Worker(_) => service::up::role(&config, service::up::RoleName::Worker).await,
            Command::Migrate(_) => service::up::migrate(&config).await,
            Command::Db(DbCommand::Adopt(_)) => service::up::adopt(&config).await,
            Command::Operate(command) => service::operate::operate(&config, command).await,
            Command::Ingest(arguments) => service::ingest::ingest(&config, arguments).await,
            Command::Ready => service::client::ready(&config).await,
            Command::Doctor { json } => {
                service::doctor::doctor(&config, cli.config.as_deref(), json).await
            }
            Command::LoginLink { name } => service::up::login_link(&config, name.as_deref()).await,
            Command::Enrol { node } => service::up::enrol(&config, &node).await,
            Command::Config
            | Command::MountHelper
            | Command::Encode(_)
            | Command::Probe(_)
            | Command::Plan(_)
            | Command::Verify(_)
            | Command::EngineId(_) => unreachable!("handled before the runtime starts"),
        }
    })
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trix: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Cli;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exactly_one_thing_is_paused_and_a_reason_is_required() {
        let parses = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        for good in [
            "trix pause 12",
            "trix pause --kind mux --reason why",
            "trix pause --all --reason why --json",
            "trix resume --node a",
            "trix explain 12",
            "trix explain task 34 --bundle",
            "trix priority 12 9",
            "trix db adopt --database-url postgresql://x/y",
        ] {
            assert!(parses(good), "{good}");
        }
        for bad in [
            "trix pause",
            "trix pause --all",
            "trix pause 12 --reason why",
            "trix pause 12 --all --reason why",
            "trix pause --kind mux --node a --reason why",
            "trix resume",
            "trix explain",
            "trix priority 12 10",
        ] {
            assert!(!parses(bad), "{bad}");
        }
    }
}
