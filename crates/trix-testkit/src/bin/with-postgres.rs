//! Runs a command with `TRIX_TEST_DATABASE_URL` set to a throw-away PostgreSQL:
//! `with-postgres cargo nextest run`.

use std::process::{Command, ExitCode};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let Some(program) = args.next() else {
        anyhow::bail!("usage: with-postgres PROGRAM [ARGUMENT…]");
    };
    let code = trix_testkit::pg::with_postgres(Command::new(program).args(args)).await?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
