//! The command line.

mod control;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::Value;
use soe_backends::{ExecutionId, Schedule, Status, Timestamp};

use crate::expect::Expectations;
use crate::llm::{Choice, parse_choice};
use crate::output::ColorChoice;
use crate::{fork::Fork, gc::Gc, history::History};

pub(crate) use control::{Cancel, Events, Resume};

/// Validates and runs SOE workflows.
#[derive(Debug, Parser)]
#[command(name = "soe", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Says more about what the engine does, on stderr; twice for details, three times for everything. RUST_LOG overrides it
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks workflow files and tools files, and says everything that is wrong or looks wrong
    Validate(Validate),
    /// Runs a workflow, shows what happens, and prints the final context
    Run(Box<Run>),
    /// Sends signals to a stored execution and follows it until it rests
    Signal(Box<SendSignal>),
    /// Shows a stored execution: where it stands, and its context
    Show(Show),
    /// Lists the stored executions, newest first
    List(List),
    /// Goes on with what was interrupted, or with an execution that has failed
    Resume(Box<Resume>),
    /// Cancels a stored execution for good, with what is below it
    Cancel(Cancel),
    /// Shows what has happened in a stored execution
    Events(Events),
    /// Shows what each commit of a stored execution has changed
    History(History),
    /// Starts an execution that goes on with a copy of a stored one, as that is or was
    Fork(Box<Fork>),
    /// Deletes the trees of executions that have failed or were cancelled, and are old enough
    Gc(Gc),
}

#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// Workflow files; `tools.yaml` and `*.tools.yaml` are checked as tools files; `-` is stdin
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) tools: Tools,

    /// A signal that is sent from outside, such as START: with it, triggers that nothing sends get a warning
    #[arg(short, long = "signal", value_name = "SIGNAL", value_parser = non_empty)]
    pub(crate) signals: Vec<String>,

    /// Warnings are failures too
    #[arg(long)]
    pub(crate) strict: bool,

    /// Prints the problems as one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The workflow file; `-` is stdin. Not needed with --inherit-config
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// The workflow to run; not needed if there is only one, or for the one that an execution ran which it is inherited from
    #[arg(short, long, value_name = "NAME")]
    pub(crate) workflow: Option<String>,

    /// A signal to start with, START if none is given; several make one batch
    #[arg(short, long = "signal", value_name = "SIGNAL", value_parser = non_empty)]
    pub(crate) signals: Vec<String>,

    /// The initial context: a JSON object, `@FILE` for one in a file, `@-` for stdin
    #[arg(short, long, value_name = "JSON|@FILE")]
    pub(crate) context: Option<String>,

    /// Appends a value to a field of the initial context: JSON if it is JSON, else text
    #[arg(long, value_name = "FIELD=VALUE", value_parser = field)]
    pub(crate) set: Vec<(String, Value)>,

    /// Keeps the execution, so that `soe signal` can go on with it: as files in a folder, or in an SQLite database if the path
    /// ends in `.db` or `.sqlite`
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<PathBuf>,

    /// The order in which nodes run
    #[arg(long, value_name = "ORDER", default_value = "concurrent")]
    pub(crate) schedule: ScheduleChoice,

    /// The execution's id; without it, one is made
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<ExecutionId>,

    /// A limit, such as `runs=1000` or `active_time=30s`. There are broadcasts, runs, children, depth, context_bytes,
    /// value_bytes, llm_calls, tokens and active_time
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) limits: Vec<(String, String)>,

    #[command(flatten)]
    pub(crate) inherit: Inherit,

    #[command(flatten)]
    pub(crate) tools: Tools,

    #[command(flatten)]
    pub(crate) expectations: Expectations,

    #[command(flatten)]
    pub(crate) format: Format,

    // Last: its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) llm: LlmOptions,
}

/// What is taken of stored executions.
#[derive(Debug, Args)]
pub(crate) struct Inherit {
    /// Copies workflows, identities and context schema of a stored execution, as they are now; what the file has of these is
    /// taken from there
    #[arg(
        id = "inherit_config",
        long = "inherit-config",
        value_name = "ID",
        requires = "store"
    )]
    pub(crate) config: Option<ExecutionId>,

    /// Copies the context of a stored execution, every field with its history; --context and --set append to it
    #[arg(
        id = "inherit_context",
        long = "inherit-context",
        value_name = "ID",
        requires = "store"
    )]
    pub(crate) context: Option<ExecutionId>,
}

#[derive(Debug, Args)]
pub(crate) struct SendSignal {
    /// The execution's id
    #[arg(value_name = "ID")]
    pub(crate) id: ExecutionId,

    /// The signals, sent as one batch
    #[arg(required = true, value_name = "SIGNAL", value_parser = non_empty)]
    pub(crate) signals: Vec<String>,

    /// The folder or database that the execution is stored in
    #[arg(long, value_name = "STORE")]
    pub(crate) store: PathBuf,

    /// A file of tools, as the workflow was run with
    #[arg(long = "tools", value_name = "FILE")]
    pub(crate) tools: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) expectations: Expectations,

    #[command(flatten)]
    pub(crate) format: Format,

    // Last: its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) llm: LlmOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The execution's id
    #[arg(value_name = "ID")]
    pub(crate) id: ExecutionId,

    /// The folder or database that it is stored in
    #[arg(long, value_name = "STORE")]
    pub(crate) store: PathBuf,

    /// Shows the execution as this commit made it: a number of `soe history`
    #[arg(long, value_name = "VERSION")]
    pub(crate) at: Option<u64>,

    /// Shows every value that a field had, not only the current one
    #[arg(long)]
    pub(crate) history: bool,

    /// Prints one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The folder or database that the executions are stored in
    #[arg(long, value_name = "STORE")]
    pub(crate) store: PathBuf,

    /// Only those of this status
    #[arg(long, value_name = "STATUS", value_parser = status)]
    pub(crate) status: Option<Status>,

    /// Only those that run this workflow
    #[arg(long, value_name = "WORKFLOW")]
    pub(crate) workflow: Option<String>,

    /// Only those that were created since then: a time such as 2026-05-04T09:00:00Z, or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) since: Option<Timestamp>,

    /// List roots, each with the number of executions below it. This is the default
    #[arg(long, conflicts_with = "tree")]
    pub(crate) roots: bool,

    /// List the executions of the tree of this execution: the root, and all that is below it
    #[arg(long, value_name = "ID")]
    pub(crate) tree: Option<ExecutionId>,

    /// At most this many
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) limit: Option<usize>,

    /// Prints one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which tools there are.
#[derive(Debug, Args)]
pub(crate) struct Tools {
    /// A file of tools; without it, `tools.yaml` beside the workflow file, if there is one
    #[arg(id = "tools", long = "tools", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// Which LLMs there are, and how they are reached.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "LLMs")]
pub(crate) struct LlmOptions {
    /// The LLM that nodes ask: `openai`, `mock:FILE`, `record:FILE` or `replay:FILE`. With `NAME=` before it, the LLM of
    /// nodes that name it in their field `llm`
    #[arg(id = "llm", long = "llm", value_name = "[NAME=]LLM", value_parser = parse_choice)]
    pub(crate) choices: Vec<Choice>,

    /// The endpoint of `openai` and `record`, such as http://localhost:11434/v1; without it, OpenAI's own
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,

    /// The model of nodes that name none, for `openai` and `record`
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,

    /// How long a request may take, with its retries, for `openai` and `record`, such as `90s`; 10 minutes if it isn't said
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) llm_timeout: Option<Duration>,

    /// The environment variable that holds the key, for `openai` and `record`; OPENAI_API_KEY if none is given
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) key_env: Option<String>,

    /// The endpoint's LLM calls tools by itself, for `openai` and `record`
    #[arg(long)]
    pub(crate) native_tools: bool,

    /// The endpoint makes replies keep to a JSON Schema, for `openai` and `record`
    #[arg(long)]
    pub(crate) structured_output: bool,
}

/// How an execution is shown.
#[derive(Debug, Args)]
pub(crate) struct Format {
    /// Prints one JSON object a line: the events, then the result
    #[arg(long)]
    pub(crate) json: bool,

    /// Shows the result only, not what happens
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Shows what LLMs say as it arrives; on a terminal it is shown anyway
    #[arg(long, overrides_with = "no_stream", conflicts_with = "quiet")]
    pub(crate) stream: bool,

    /// Doesn't show what LLMs say as it arrives
    #[arg(long, overrides_with = "stream")]
    pub(crate) no_stream: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ScheduleChoice {
    /// Everything that can run at the same time does
    Concurrent,
    /// One node at a time, in the same order each time
    DepthFirst,
}

impl From<ScheduleChoice> for Schedule {
    fn from(choice: ScheduleChoice) -> Self {
        match choice {
            ScheduleChoice::Concurrent => Schedule::Concurrent,
            ScheduleChoice::DepthFirst => Schedule::DepthFirst,
        }
    }
}

pub(crate) fn non_empty(text: &str) -> Result<String, String> {
    match text.is_empty() {
        true => Err("a signal has a name".into()),
        false => Ok(text.to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number from 1 on is expected".into()),
        Ok(number) => Ok(number),
    }
}

pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a name, '=' and a value are expected".into()),
    }
}

pub(crate) fn field(text: &str) -> Result<(String, Value), String> {
    let (name, value) = pair(text)?;
    let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
    Ok((name, value))
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("a duration such as 90s or 2m is expected".into()),
    }
}

/// A time, or how long ago it was.
fn time(text: &str) -> Result<Timestamp, String> {
    let ago = humantime::parse_duration(text).ok();
    let time = match ago {
        Some(ago) => SystemTime::now().checked_sub(ago),
        None => humantime::parse_rfc3339_weak(text).ok(),
    };
    let time = time.map(Timestamp::from);
    time.ok_or_else(|| "a time such as 2026-05-04T09:00:00Z, or an age such as 2h, is expected".into())
}

fn status(text: &str) -> Result<Status, String> {
    serde_json::from_value(Value::String(text.to_owned()))
        .map_err(|_| "one of prepared, running, rested, failed, suspended, cancelled is expected".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_all_limits() {
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").unwrap();
        let help = run.render_long_help().to_string();
        let limits = serde_json::to_value(soe_backends::Limits::default()).unwrap();
        for name in limits.as_object().unwrap().keys() {
            assert!(help.contains(name), "{name} is not in\n{help}");
        }
    }

    #[test]
    fn values_of_fields_are_json_or_text() {
        assert_eq!(field("n=5"), Ok(("n".into(), json!(5))));
        assert_eq!(field("name=Ada"), Ok(("name".into(), json!("Ada"))));
        assert_eq!(field("zip=\"007\""), Ok(("zip".into(), json!("007"))));
        assert_eq!(field("query=a=b"), Ok(("query".into(), json!("a=b"))));
        assert_eq!(field("empty="), Ok(("empty".into(), json!(""))));
        assert!(field("n").is_err() && field("=1").is_err());
    }
}
