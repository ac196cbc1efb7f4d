//! `soe show`

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use soe_backends::{ExecutionId, ExecutionState, Failure, Status, TreeState};
use soe_core::runtime::Engine;

use crate::args::Show;
use crate::outcome::current_values;
use crate::output::{self, ERROR, FAINT, GOOD, WARNING, paint, safe};
use crate::{Colors, store};

/// A stored execution, for `soe show --json`.
#[derive(Serialize)]
struct Shown<'s> {
    execution: &'s ExecutionId,
    workflow: &'s str,
    version: u64,
    status: Status,
    failure: Option<&'s Failure>,
    created_at: String,
    updated_at: String,
    running: Vec<&'s str>,
    children: Vec<Below>,
    signals: Vec<&'s str>,
    llm_calls: u64,
    tokens: u64,
    tool_calls: u64,
    errors: u64,
    context: Map<String, Value>,
}

/// A child of a stored execution.
#[derive(Serialize)]
struct Below {
    execution: ExecutionId,
    node: Arc<str>,
    status: Status,
}

/// Shows a stored execution. Gives the exit code.
pub(crate) async fn show(args: Show, colors: Colors) -> anyhow::Result<u8> {
    let engine = open(&args.store).await?;
    let tree = match args.at {
        Some(version) => engine.tree_at(&args.id, version).await?,
        None => engine.tree(&args.id).await?,
    };
    let Some(state) = tree.find(&args.id).cloned() else {
        anyhow::bail!(
            "execution {}: there is no such execution in this version of its tree",
            args.id
        );
    };
    let context = if args.history {
        histories(&state)
    } else {
        current_values(&state)
    };
    let operational = &state.context.operational;
    let shown = Shown {
        execution: &state.id,
        workflow: &state.workflow,
        version: tree.version,
        status: tree.status(state.number).unwrap_or(state.status),
        failure: state.failure.as_deref(),
        created_at: state.created_at.to_string(),
        updated_at: state.updated_at.to_string(),
        running: state.runs.values().map(|run| run.node.as_ref()).collect(),
        children: children(&tree, &state),
        signals: operational.signals.iter().map(AsRef::as_ref).collect(),
        llm_calls: operational.llm_calls,
        tokens: operational.tokens,
        tool_calls: operational.tool_calls,
        errors: operational.errors,
        context,
    };
    match args.json {
        true => output::print(&output::json_pretty(&shown)?)?,
        false => output::print(&as_text(&shown, colors.stdout)?)?,
    }
    Ok(0)
}

/// An engine that looks into a store.
pub(crate) async fn open(store: &Path) -> anyhow::Result<Engine> {
    store::check(store)?;
    Ok(Engine::builder().backends(store::open(store).await?).build()?)
}

/// The own children of an execution.
fn children(tree: &TreeState, state: &ExecutionState) -> Vec<Below> {
    let numbers = state.children.iter().flat_map(|children| children.numbers());
    let children = numbers.filter_map(|number| {
        let child = tree.get(number)?;
        Some(Below {
            execution: child.id.clone(),
            node: child.origin.as_ref()?.node.clone(),
            status: tree.status(number)?,
        })
    });
    children.collect()
}

fn histories(state: &ExecutionState) -> Map<String, Value> {
    let fields = state.context.fields.iter();
    let all = |(name, history): (&Arc<str>, &soe_backends::History)| {
        (
            name.to_string(),
            Value::Array(history.iter().map(soe_backends::Value::to_json).collect()),
        )
    };
    fields.map(all).collect()
}

fn as_text(shown: &Shown<'_>, color: bool) -> anyhow::Result<String> {
    let status = paint(color, style(shown.status), shown.status);
    let mut lines = vec![
        ("execution", shown.execution.to_string()),
        ("workflow", safe(shown.workflow).into_owned()),
        ("status", status),
        ("version", shown.version.to_string()),
        ("created", shown.created_at.clone()),
        ("changed", shown.updated_at.clone()),
        ("signals", safe(&shown.signals.join(", ")).into_owned()),
        (
            "calls",
            format!(
                "{} of tools, {} of LLMs ({}), {}",
                shown.tool_calls,
                shown.llm_calls,
                output::count(shown.tokens, "token"),
                output::count(shown.errors, "error")
            ),
        ),
    ];
    if let Some(failure) = shown.failure {
        lines.push(("failure", output::safe_lines(&failure.to_string())));
    }
    if !shown.running.is_empty() {
        lines.push(("in flight", safe(&shown.running.join(", ")).into_owned()));
    }
    if !shown.children.is_empty() {
        let active = shown.children.iter().filter(|child| child.status == Status::Running);
        let all = shown.children.len();
        lines.push(("children", format!("{all}, {} of them running", active.count())));
    }
    let lines = lines
        .into_iter()
        .map(|(name, text)| format!("{}  {text}\n", paint(color, FAINT, format_args!("{name:<9}"))));
    Ok(lines.collect::<String>() + &output::json_pretty(&shown.context)?)
}

pub(crate) fn style(status: Status) -> anstyle::Style {
    match status {
        Status::Failed | Status::Suspended => ERROR,
        Status::Running | Status::Cancelled => WARNING,
        _ => GOOD,
    }
}
