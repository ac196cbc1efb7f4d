//! The `soe` command: validates and runs workflows, and goes on with stored ones.

mod args;
mod awaited;
mod cancel;
mod events;
mod expect;
mod follow;
mod fork;
mod gc;
mod going_on;
mod history;
mod inherit;
mod interrupt;
mod limits;
mod list;
mod llm;
mod log;
mod outcome;
mod output;
mod owner;
mod problems;
mod refusal;
mod resume;
mod run;
mod session;
mod signal;
mod store;
mod stored;
mod suitable;
mod summary;
mod tools;
mod validate;
mod waits;
mod workflows;

use std::io::{stderr, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};

/// Something is wrong with the command line that its parser couldn't know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Colours or not.
#[derive(Clone, Copy, Debug)]
struct Colors {
    stdout: bool,
    stderr: bool,
}

/// How much of what happens is shown.
#[derive(Clone, Copy, Debug)]
struct Shown {
    /// More than errors of the engine can come out on stderr.
    traces: bool,
    /// What happens in children is shown however many there are.
    all: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let colors = Colors {
        stdout: cli.color.applies_to(&stdout()),
        stderr: cli.color.applies_to(&stderr()),
    };
    match execute(cli, colors) {
        Ok(code) => ExitCode::from(code),
        Err(error) => match error.downcast_ref::<Usage>() {
            Some(Usage(message)) => Cli::command()
                .error(clap::error::ErrorKind::ValueValidation, message)
                .exit(),
            None => {
                output::print_error(colors.stderr, &error);
                ExitCode::FAILURE
            }
        },
    }
}

/// Gives the exit code.
fn execute(cli: Cli, colors: Colors) -> anyhow::Result<u8> {
    let shown = Shown {
        traces: start_tracing(cli.verbose, colors.stderr),
        all: cli.verbose > 0,
    };
    let command = match cli.command {
        Command::Validate(args) => return validate::validate(&args, colors),
        command => command,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the async runtime can't be started")?;
    let result = runtime.block_on(async {
        let result = match command {
            Command::Validate(_) => Ok(0),
            Command::Run(args) => run::run(*args, colors, shown).await,
            Command::Signal(args) => signal::signal(*args, colors, shown).await,
            Command::Show(args) => stored::show(args, colors).await,
            Command::List(args) => list::list(args, colors).await,
            Command::Resume(args) => resume::resume(*args, colors, shown).await,
            Command::Cancel(args) => cancel::cancel(args, colors).await,
            Command::Events(args) => events::events(args, colors).await,
            Command::History(args) => history::history(args, colors).await,
            Command::Fork(args) => fork::fork(*args, colors, shown).await,
            Command::Gc(args) => gc::gc(args, colors).await,
        };
        store::close().await;
        result
    });
    // Drops what still runs, which kills its processes; a store that hangs can't keep the command from ending.
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

/// Says whether more than errors can come out on stderr.
fn start_tracing(verbose: u8, color: bool) -> bool {
    let level = match verbose {
        0 => "error",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let from_env = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let traces = verbose > 0 || from_env.is_some();
    let filter = EnvFilter::new(from_env.as_deref().unwrap_or(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(color)
        .init();
    traces
}
