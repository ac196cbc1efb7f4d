//! `soe show` and `soe list`

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use soe_backends::{ChildStatus, ExecutionId, ExecutionState, Failure, ListPage, ListQuery, Status};
use soe_core::runtime::Engine;

use crate::args::{List, Show};
use crate::llm::LlmUsage;
use crate::output::{self, ERROR, FAINT, GOOD, WARNING, paint, safe};
use crate::{Colors, store};

/// How an execution ended, or where it stands: the last line of `--json`.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) execution: ExecutionId,
    pub(crate) workflow: Arc<str>,
    pub(crate) status: Status,
    pub(crate) failure: Option<Failure>,
    /// Signals that were never sent and that nothing in the workflow sends.
    pub(crate) waits_for: Vec<Arc<str>>,
    pub(crate) signals: Vec<Arc<str>>,
    pub(crate) llm_calls: u64,
    /// Tokens that LLMs took, as the endpoints report them; `usage` has them apart.
    pub(crate) tokens: u64,
    pub(crate) usage: LlmUsage,
    pub(crate) tool_calls: u64,
    pub(crate) errors: u64,
    /// The fields with their current values.
    pub(crate) context: Map<String, Value>,
}

impl Outcome {
    pub(crate) fn new(state: &ExecutionState, waits_for: Vec<Arc<str>>, usage: LlmUsage) -> Self {
        let operational = &state.context.operational;
        Self {
            execution: state.id.clone(),
            workflow: state.workflow.clone(),
            status: state.status,
            failure: state.failure.clone(),
            waits_for,
            signals: operational.signals.iter().cloned().collect(),
            llm_calls: operational.llm_calls,
            tokens: operational.tokens,
            usage,
            tool_calls: operational.tool_calls,
            errors: operational.errors,
            context: current_values(state),
        }
    }
}

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
    /// Its children, as far as they have told where they stand.
    children: Vec<Below<'s>>,
    signals: Vec<&'s str>,
    llm_calls: u64,
    tokens: u64,
    tool_calls: u64,
    errors: u64,
    context: Map<String, Value>,
}

/// A child of a stored execution.
#[derive(Serialize)]
struct Below<'s> {
    execution: &'s ExecutionId,
    node: &'s str,
    status: ChildStatus,
}

/// Shows a stored execution. Gives the exit code.
pub(crate) async fn show(args: Show, colors: Colors) -> anyhow::Result<u8> {
    let engine = open(&args.store).await?;
    let state = match args.at {
        Some(version) => engine.state_at(&args.id, version).await?,
        None => engine.state(&args.id).await?,
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
        version: state.version,
        status: state.status,
        failure: state.failure.as_ref(),
        created_at: state.created_at.to_string(),
        updated_at: state.updated_at.to_string(),
        running: state.runs.values().map(|run| run.node.as_ref()).collect(),
        children: children(&state),
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

/// Lists the stored executions. Gives the exit code.
pub(crate) async fn list(args: List, colors: Colors) -> anyhow::Result<u8> {
    let engine = open(&args.store).await?;
    let mut query = ListQuery {
        status: args.status,
        main_execution_id: args.tree,
        ..ListQuery::default()
    };
    let mut first = true;
    let mut left = args.limit.unwrap_or(usize::MAX);
    loop {
        query.limit = left.min(ListPage::DEFAULT_LIMIT);
        let page = engine.list(&query).await?;
        if std::mem::take(&mut first) && !args.json && !page.executions.is_empty() {
            let head = format!("{:<36}  {:<9}  {:<27}  WORKFLOW", "ID", "STATUS", "CHANGED");
            output::print(&format!("{}\n", paint(colors.stdout, FAINT, head)))?;
        }
        for execution in &page.executions {
            let line = match args.json {
                true => output::json_line(execution)?,
                false => {
                    let status = paint(
                        colors.stdout,
                        style(execution.status),
                        format_args!("{:<9}", execution.status.as_str()),
                    );
                    let changed = execution.updated_at;
                    format!(
                        "{:<36}  {status}  {changed}  {}\n",
                        execution.id.as_str(),
                        safe(&execution.workflow)
                    )
                }
            };
            output::print(&line)?;
        }
        left -= page.executions.len().min(left);
        match page.next {
            Some(next) if left > 0 => query.after = Some(next),
            _ => return Ok(0),
        }
    }
}

/// An engine that looks into a store.
pub(crate) async fn open(store: &Path) -> anyhow::Result<Engine> {
    store::check(store)?;
    Ok(Engine::builder().backends(store::open(store).await?).build()?)
}

fn children(state: &ExecutionState) -> Vec<Below<'_>> {
    let children = state.family.iter().flat_map(|family| &family.children);
    children
        .map(|(execution, child)| Below {
            execution,
            node: &child.node,
            status: child.status,
        })
        .collect()
}

fn current_values(state: &ExecutionState) -> Map<String, Value> {
    let fields = state.context.fields.iter();
    let current =
        |(name, history): (&Arc<str>, &soe_backends::History)| Some((name.to_string(), history.last()?.to_json()));
    fields.filter_map(current).collect()
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
        let active = shown
            .children
            .iter()
            .filter(|child| child.status == ChildStatus::Active);
        let all = shown.children.len();
        lines.push(("children", format!("{all}, {} of them active", active.count())));
    }
    let lines = lines
        .into_iter()
        .map(|(name, text)| format!("{}  {text}\n", paint(color, FAINT, format_args!("{name:<9}"))));
    Ok(lines.collect::<String>() + &output::json_pretty(&shown.context)?)
}

fn style(status: Status) -> anstyle::Style {
    match status {
        Status::Failed | Status::Suspended => ERROR,
        Status::Running | Status::Cancelled => WARNING,
        _ => GOOD,
    }
}
