//! `soe history`

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use soe_backends::{Change, Commit, DialogueStep, Entry, Event, ExecutionId, Timestamp};

use crate::output::{self, FAINT, paint, safe};
use crate::{Colors, stored};

/// So many commits are read at a time.
const PAGE: usize = 200;

/// The most of a value that is shown.
const MAX_VALUE: usize = 60;

#[derive(Debug, Args)]
pub(crate) struct History {
    /// The execution's id
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
    let mut nodes = Nodes::default();
    // Of a version that isn't there, nothing is in flight.
    if let Ok(before) = engine.state_at(&args.id, from - 1).await {
        nodes.0 = before.runs.values().map(|run| (run.number, run.node.clone())).collect();
    }
    // Asked at least once: what can't be had is said even if nothing is wanted.
    loop {
        let page = engine.commits(&args.id, from, left.min(PAGE)).await?;
        for commit in &page {
            let summary = nodes.summary(commit);
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
        left -= page.len();
        match page.last() {
            Some(last) if left > 0 => from = last.version + 1,
            _ => return Ok(0),
        }
    }
}

/// The nodes of runs, by number.
#[derive(Default)]
struct Nodes(HashMap<u64, Arc<str>>);

impl Nodes {
    /// What a commit has changed, in order and in few words. What only the engine needs to know is left out.
    fn summary(&mut self, commit: &Commit) -> Vec<String> {
        commit
            .changes
            .iter()
            .filter_map(|change| self.of_change(change))
            .collect()
    }

    fn of_change(&mut self, change: &Change) -> Option<String> {
        Some(match change {
            Change::Created(genesis) => match &genesis.forked {
                Some(forked) => format!("forked from {} at version {}", forked.source, forked.version),
                None => format!("created with workflow {}", safe(&genesis.workflow)),
            },
            Change::Status { status, failure, .. } => match failure {
                Some(failure) => format!("{status}: {}", output::headline(&failure.to_string())),
                None => status.to_string(),
            },
            Change::Broadcast(signals) => format!("signal {}", names(signals)),
            Change::Accepted(signals) => format!("accepted {}", names(signals)),
            Change::Routed { node } => format!("{} routed", safe(node)),
            Change::Dispatched(run) => {
                self.0.insert(run.number, run.node.clone());
                format!("{} begins", self.node(run.number))
            }
            Change::Restarted(run) => {
                self.0.insert(run.number, run.node.clone());
                format!("{} begins again", self.node(run.number))
            }
            Change::Finished { run } => format!("{} ends", self.node(*run)),
            Change::Dialogue { run, step } => format!("{} {}", self.node(*run), of_step(step)?),
            Change::Appended { field, value, .. } => {
                format!("{} = {}", safe(field), output::brief(&value.to_string(), MAX_VALUE))
            }
            Change::Replaced { field, history, .. } => {
                format!(
                    "{} is a copy of {}",
                    safe(field),
                    output::count(history.len() as u64, "value")
                )
            }
            Change::Error => "an attempt failed".to_owned(),
            Change::Children(started) => {
                let count = output::count(started.children.len() as u64, "execution");
                format!("{} starts {count}", self.node(started.run))
            }
            Change::Told(_) => "tells its parent".to_owned(),
            Change::Received { child, message } => format!("message {} of {child}", message.number),
            Change::Registry(version) => format!("version {} of the workflows", version.number),
            Change::Limits(_) => "other limits".to_owned(),
            Change::Revived { child } => format!("{child} is resumed"),
            _ => return None,
        })
    }

    fn node(&self, run: u64) -> String {
        match self.0.get(&run) {
            Some(node) => format!("{} (run {run})", safe(node)),
            None => format!("run {run}"),
        }
    }
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
