//! `soe history`

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use soe_backends::{
    Change, Commit, DialogueStep, Entry, Event, EventKind, ExecutionChange, ExecutionId, Timestamp, TreeState,
};

use crate::output::{self, FAINT, paint, safe};
use crate::{Colors, stored};

/// So many commits are read at a time.
const PAGE: usize = 200;

/// The most of a value that is shown.
const MAX_VALUE: usize = 60;

#[derive(Debug, Args)]
pub(crate) struct History {
    /// The root of a tree, or an execution in it: then only what changed that one is shown
    #[arg(value_name = "ID")]
    id: ExecutionId,

    /// The database that the execution is stored in; a folder of files keeps no history
    #[arg(long, value_name = "STORE")]
    store: PathBuf,

    /// Begins with this version
    #[arg(long, value_name = "VERSION", default_value_t = 1)]
    from: u64,

    /// At most so many commits
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
}

/// A commit, for `--json`.
#[derive(Serialize)]
struct Line<'c> {
    version: u64,
    at: Timestamp,
    summary: &'c [String],
    changes: &'c [Change],
    events: &'c [Event],
}

/// Shows what each commit of an execution has changed. Gives the exit code.
pub(crate) async fn history(args: History, colors: Colors) -> anyhow::Result<u8> {
    let engine = stored::open(&args.store).await?;
    let (mut from, mut left) = (args.from.max(1), args.limit.unwrap_or(usize::MAX));
    let tree = engine.tree(&args.id).await?;
    let only = match args.id.is_root() {
        true => None,
        // One that isn't there is an error in the engine's words.
        false => Some(engine.state(&args.id).await?.number),
    };
    let mut nodes = Nodes::of(tree, only);
    // Of a version that isn't there, nothing is in flight.
    if let Ok(before) = engine.tree_at(&args.id, from - 1).await {
        nodes.begin_with(&before);
    }
    // Asked at least once: what can't be had is said even if nothing is wanted.
    loop {
        let page = engine.commits(&args.id, from, PAGE.min(left.max(1))).await?;
        for commit in &page {
            if left == 0 {
                break;
            }
            let summary = nodes.summary(commit);
            if only.is_some_and(|only| !is_about(commit, only)) {
                continue;
            }
            left -= 1;
            let line = match args.json {
                true => output::json_line(&Line {
                    version: commit.version,
                    at: commit.at,
                    summary: &summary,
                    changes: &commit.changes,
                    events: &commit.events,
                })?,
                false => {
                    let head = format_args!("{:>6}  {}", commit.version, commit.at);
                    format!("{}  {}\n", paint(colors.stdout, FAINT, head), summary.join("; "))
                }
            };
            output::print(&line)?;
        }
        match page.last() {
            Some(last) if left > 0 => from = last.version + 1,
            _ => return Ok(0),
        }
    }
}

/// Whether a commit changes an execution.
fn is_about(commit: &Commit, only: u64) -> bool {
    commit
        .changes
        .iter()
        .any(|change| matches!(change, Change::In { execution, .. } if *execution == only))
}

/// The names of executions and of the nodes of runs, by number.
struct Nodes {
    tree: Arc<TreeState>,
    /// The execution whose changes are shown; `None` for those of the whole tree.
    only: Option<u64>,
    runs: HashMap<(u64, u64), Arc<str>>,
}

impl Nodes {
    fn of(tree: Arc<TreeState>, only: Option<u64>) -> Self {
        let runs = HashMap::new();
        Self { tree, only, runs }
    }

    /// What was in flight.
    fn begin_with(&mut self, tree: &TreeState) {
        let of = |state: &Arc<soe_backends::ExecutionState>| {
            let number = state.number;
            let runs = state
                .runs
                .values()
                .map(move |run| ((number, run.number), run.node.clone()));
            runs.collect::<Vec<_>>()
        };
        self.runs.extend(tree.executions.values().flat_map(of));
    }

    /// What a commit has changed, in order and in few words. What only the engine needs to know is left out.
    fn summary(&mut self, commit: &Commit) -> Vec<String> {
        let mut lines: Vec<String> = commit.events.iter().filter_map(forked).collect();
        let mut before = self.only.unwrap_or(0);
        for change in &commit.changes {
            let (number, text) = match change {
                Change::In { execution, change } => (*execution, self.in_execution(*execution, change)),
                other => (before, of_tree(other)),
            };
            if self.only.is_some_and(|only| only != number) {
                continue;
            }
            let Some(text) = text else { continue };
            // Whose it is is said where it is another's than that before.
            let label = if number == before {
                None
            } else {
                Some(self.name(number))
            };
            before = number;
            lines.push(match label {
                Some(label) => format!("{label} {text}"),
                None => text,
            });
        }
        lines
    }

    /// `[1.0]`; of the root, `[root]`.
    fn name(&self, number: u64) -> String {
        let id = self.tree.get(number).map(|state| &state.id);
        let path = id.and_then(|id| id.path_below(&self.tree.root));
        format!("[{}]", path.unwrap_or("root"))
    }

    fn in_execution(&mut self, number: u64, change: &ExecutionChange) -> Option<String> {
        Some(match change {
            ExecutionChange::Status { status, failure, .. } => match failure {
                Some(failure) => format!("{status}: {}", output::headline(&failure.to_string())),
                None => status.to_string(),
            },
            ExecutionChange::Broadcast(signals) => format!("signal {}", names(signals)),
            ExecutionChange::Routed { node } => format!("{} routed", safe(node)),
            ExecutionChange::Dispatched(run) => {
                self.runs.insert((number, run.number), run.node.clone());
                format!("{} begins", self.node(number, run.number))
            }
            ExecutionChange::Restarted(run) => {
                self.runs.insert((number, run.number), run.node.clone());
                format!("{} begins again", self.node(number, run.number))
            }
            ExecutionChange::Finished { run } => format!("{} ends", self.node(number, *run)),
            ExecutionChange::Dialogue { run, step } => format!("{} {}", self.node(number, *run), of_step(step)?),
            ExecutionChange::Appended { field, value, .. } => {
                format!("{} = {}", safe(field), output::brief(&value.to_string(), MAX_VALUE))
            }
            ExecutionChange::Replaced { field, history, .. } => {
                let values = output::count(history.len() as u64, "value");
                format!("{} is a copy of {values}", safe(field))
            }
            ExecutionChange::Error => "an attempt failed".to_owned(),
            ExecutionChange::Registry(version) => format!("version {} of the workflows", version.number),
            _ => return None,
        })
    }

    fn node(&self, number: u64, run: u64) -> String {
        match self.runs.get(&(number, run)) {
            Some(node) => format!("{} (run {run})", safe(node)),
            None => format!("run {run}"),
        }
    }
}

/// What a tree was forked from.
fn forked(event: &Event) -> Option<String> {
    match &event.kind {
        EventKind::ExecutionForked {
            source_execution_id,
            version,
        } => Some(format!("forked from {source_execution_id} at version {version}")),
        _ => None,
    }
}

/// A change of the tree itself.
fn of_tree(change: &Change) -> Option<String> {
    Some(match change {
        Change::Created(genesis) => format!("created with workflow {}", safe(&genesis.root.workflow)),
        Change::Started(genesis) => format!("starts {}", genesis.id),
        Change::Limits(_) => "other limits".to_owned(),
        Change::Defined(_) => "other identities or another context schema".to_owned(),
        Change::Taken(_) => "a message of the inbox is taken".to_owned(),
        _ => return None,
    })
}

fn of_step(step: &DialogueStep) -> Option<String> {
    Some(match step {
        DialogueStep::Asked => "asks".to_owned(),
        DialogueStep::Replied { .. } => "is answered".to_owned(),
        DialogueStep::Rejected(_) => "has no valid reply".to_owned(),
        DialogueStep::Entry(Entry::Called { tool, .. }) => format!("calls {}", safe(tool)),
        DialogueStep::Entry(Entry::Answered { tool, .. }) => format!("has the result of {}", safe(tool)),
        DialogueStep::Entry(Entry::Failed { tool, .. }) => format!("has an error of {}", safe(tool)),
        _ => return None,
    })
}

fn names(signals: &[Arc<str>]) -> String {
    let names: Vec<_> = signals.iter().map(|name| safe(name)).collect();
    names.join(", ")
}
