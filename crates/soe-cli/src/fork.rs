//! `soe fork`

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use serde_json::Value;
use soe_backends::{ExecutionId, Limits, TreeState};
use soe_core::runtime::{self, Engine};

use crate::args::{Format, LlmOptions, field, pair};
use crate::expect::Expectations;
use crate::going_on::GoingOn;
use crate::limits::limits;
use crate::refusal::refuse_as_json;
use crate::run::context;
use crate::{Colors, Shown, owner};

#[derive(Debug, Args)]
pub(crate) struct Fork {
    /// The root of the tree that is forked, with all that is below it; it isn't changed
    #[arg(value_name = "ID")]
    source: ExecutionId,

    /// Goes on from this version, a number of `soe history`; without it, from the present one
    #[arg(long, value_name = "VERSION")]
    at: Option<u64>,

    /// The database that the execution is stored in, or a folder, which keeps the present version only
    #[arg(long, value_name = "STORE")]
    store: PathBuf,

    /// Appends to fields of the context: a JSON object, `@FILE` for one in a file, `@-` for stdin
    #[arg(short, long, value_name = "JSON|@FILE")]
    context: Option<String>,

    /// Appends a value to a field of the context: JSON if it is JSON, else text
    #[arg(long, visible_alias = "field", value_name = "FIELD=VALUE", value_parser = field)]
    set: Vec<(String, Value)>,

    /// The fork's id; without it, one is made
    #[arg(long, value_name = "NEW")]
    id: Option<ExecutionId>,

    /// A limit of the fork, such as `runs=1000`, instead of that of its source
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = pair)]
    limits: Vec<(String, String)>,

    /// A file of tools, as the workflow was run with
    #[arg(long = "tools", value_name = "FILE")]
    tools: Vec<PathBuf>,

    #[command(flatten)]
    expectations: Expectations,

    #[command(flatten)]
    format: Format,

    // Last: its heading holds for all that follows.
    #[command(flatten)]
    llm: LlmOptions,
}

/// Starts a fork, and follows it until it rests. Gives the exit code.
pub(crate) async fn fork(args: Fork, colors: Colors, shown: Shown) -> anyhow::Result<u8> {
    let json = args.format.json;
    refuse_as_json(json, start(args, colors, shown).await)
}

async fn start(args: Fork, colors: Colors, shown: Shown) -> anyhow::Result<u8> {
    // What is wrong with the command line is its own fault, whatever is in the store.
    limits(Limits::default(), &args.limits)?;
    let fields = context(args.context.as_deref())?;
    let read = GoingOn::read(args.store, &args.tools, args.llm, args.format, colors).await?;
    let Some(going_on) = read else {
        return Ok(1);
    };
    let tree = source(&going_on.reader, &args.source, args.at, args.id.as_ref()).await?;
    going_on.check(&tree, None).await?;
    let mut fork = match args.at {
        Some(version) => runtime::Fork::at(version),
        None => runtime::Fork::latest(),
    };
    fork = fork.context(fields);
    for (field, value) in args.set {
        fork = fork.field(field, value);
    }
    if !args.limits.is_empty() {
        fork = fork.limits(limits(Limits::clone(&tree.limits), &args.limits)?);
    }
    if let Some(id) = args.id {
        fork = fork.id(id);
    }
    let mut session = going_on.session().await?;
    session.expectations = args.expectations;
    let log = session.log(shown, 0);
    let (tokens, engine) = (session.tokens(), session.engine.clone());
    let execution = owner::retried(async || engine.fork(&args.source, fork.clone()).await).await?;
    let events = execution.tree_events();
    session.follow(execution.id(), events, tokens, log).await
}

/// The tree that the fork goes on with, if it can have it.
async fn source(
    reader: &Engine,
    id: &ExecutionId,
    at: Option<u64>,
    fork: Option<&ExecutionId>,
) -> anyhow::Result<Arc<TreeState>> {
    if !id.is_root() {
        let root = id.root();
        reader.status(id).await?;
        bail!("a fork copies a whole tree: name its root, {root}");
    }
    let tree = match at {
        Some(version) => reader.tree_at(id, version).await?,
        None => reader.tree(id).await?,
    };
    match fork {
        // Before a recording is begun: it replaces the one before.
        Some(id) if reader.status(id).await.is_ok() => bail!("there is an execution of that id already: {id}"),
        _ => Ok(tree),
    }
}
