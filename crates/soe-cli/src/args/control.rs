//! What goes on with stored executions, ends them, and looks at what happened in them.

use std::path::PathBuf;

use clap::Args;
use soe_backends::ExecutionId;

use crate::expect::Expectations;

use super::{Format, LlmOptions, pair};

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The execution's id: one that has failed, or was interrupted. Without it, everything that was interrupted
    #[arg(value_name = "ID")]
    pub(crate) id: Option<ExecutionId>,

    /// The folder or database that the executions are stored in
    #[arg(long, value_name = "STORE")]
    pub(crate) store: PathBuf,

    /// Another limit from now on, such as `runs=1000`; as for `soe run`
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = pair, requires = "id")]
    pub(crate) limits: Vec<(String, String)>,

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
pub(crate) struct Cancel {
    /// The execution's id
    #[arg(value_name = "ID")]
    pub(crate) id: ExecutionId,

    /// The folder or database that it is stored in
    #[arg(long, value_name = "STORE")]
    pub(crate) store: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// The execution's id
    #[arg(value_name = "ID")]
    pub(crate) id: ExecutionId,

    /// The folder or database that it is stored in
    #[arg(long, value_name = "STORE")]
    pub(crate) store: PathBuf,

    /// The number of the first event that is shown
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) from: u64,

    /// Reads on until the execution ends, whichever process runs it
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Prints one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}
