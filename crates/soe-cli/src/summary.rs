//! What is said of a tree when it has come to rest, for people.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use soe_backends::{ExecutionState, Status, TreeState};

use crate::awaited::Awaited;
use crate::outcome::{Failed, Outcome};
use crate::output::{self, ERROR, GOOD, WARNING, paint, safe, seconds};
use crate::waits::{Waiting, Waits};

/// The most children that are named in a line.
const MOST_NAMES: usize = 5;

/// The most lines about children that have failed.
const MOST_FAILED: usize = 10;

/// `p is rested: 17 node runs, ...`
pub(crate) fn how_it_ended(outcome: &Outcome, state: &ExecutionState, tree: &TreeState, color: bool) -> String {
    let Some(root) = tree.root_state() else {
        return String::new();
    };
    let mut text = String::new();
    if state.number != 0 {
        text.push_str(&format!("{} is {}\n", state.id, status(outcome.status, color)));
    }
    let (used, failed) = (&tree.used, outcome.failed.len());
    let cost = [(used.llm_calls, "LLM call"), (used.tokens, "token")];
    let mut counts = vec![output::count(used.runs, "node run")];
    counts.extend(
        cost.iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| output::count(*count, what)),
    );
    counts.push(output::count(used.tool_calls, "tool call"));
    counts.push(output::count(outcome.errors, "error"));
    if used.children > 0 {
        let failed = if failed > 0 {
            format!(" ({failed} failed)")
        } else {
            String::new()
        };
        let children = match used.children {
            1 => "1 child".to_owned(),
            children => format!("{children} children"),
        };
        counts.push(children + &failed);
    }
    text.push_str(&format!(
        "{} is {}: {}, {} from first to last\n",
        tree.root,
        status(root.status, color),
        counts.join(", "),
        seconds(tree.updated_at.since(root.created_at))
    ));
    text
}

fn status(status: Status, color: bool) -> String {
    let style = match status {
        Status::Failed | Status::Suspended => ERROR,
        Status::Cancelled | Status::Running => WARNING,
        _ => GOOD,
    };
    paint(color, style, status)
}

/// A line for each child that has failed; of many the first.
pub(crate) fn failed_children(failed: &[Failed], color: bool) -> String {
    let mut text = String::new();
    for child in failed.iter().take(MOST_FAILED) {
        let (word, node) = (paint(color, ERROR, "failed"), safe(&child.node));
        let why = child
            .failure
            .as_ref()
            .map_or_else(String::new, |failure| failure.to_string());
        text.push_str(&format!(
            "{word}: {} ({node}): {}\n",
            child.execution,
            output::headline(&why)
        ));
    }
    if failed.len() > MOST_FAILED {
        text.push_str(&format!("  and {} more\n", failed.len() - MOST_FAILED));
    }
    text
}

/// How what is advised is said: a command with these arguments.
pub(crate) type Command<'c> = &'c dyn Fn(&str, &[&str]) -> String;

/// What to send to an execution, and to those below it, so that they go on, and how.
pub(crate) fn next_steps(
    outcome: &Outcome,
    awaited: &Awaited,
    waits: &Waits,
    store: Option<&Path>,
    command: Command<'_>,
) -> String {
    let mut text = String::new();
    let mut first: Option<(&str, &str)> = None;
    if !awaited.needed.is_empty() {
        text.push_str(&format!("Nothing in the workflow sends {}.", names(&awaited.needed)));
        first = awaited
            .needed
            .first()
            .map(|signal| (outcome.execution.as_str(), signal.as_ref()));
    }
    if !awaited.possible.is_empty() {
        let space = if text.is_empty() { "" } else { " " };
        text.push_str(&format!("{space}It also listens to {}.", names(&awaited.possible)));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let others = waits
        .waiting
        .iter()
        .filter(|waiting| waiting.execution != outcome.execution);
    let mut groups = BTreeMap::<_, Vec<&Waiting>>::new();
    for waiting in others {
        groups
            .entry((&waiting.workflow, waiting.signals.as_slice()))
            .or_default()
            .push(waiting);
    }
    for ((workflow, signals), group) in groups {
        text.push_str(&waiting_line(workflow, signals, &group));
        first = first.or_else(|| Some((group.first()?.execution.as_str(), signals.first()?.as_ref())));
    }
    let Some((execution, signal)) = first else {
        return text;
    };
    match store {
        Some(_) => format!(
            "{} To go on:\n  {}\n",
            text.trim_end(),
            command("signal", &[execution, signal])
        ),
        None => format!(
            "{} With --store, the execution is kept, and `soe signal` goes on with it.\n",
            text.trim_end()
        ),
    }
}

/// `p.1.0, p.1.1 and 3 more (workflow kid) wait for APPROVED.`
fn waiting_line(workflow: &str, signals: &[Arc<str>], group: &[&Waiting]) -> String {
    let ids: Vec<&str> = group
        .iter()
        .take(MOST_NAMES)
        .map(|waiting| waiting.execution.as_str())
        .collect();
    let more = match group.len().saturating_sub(MOST_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let verb = if group.len() == 1 { "waits" } else { "wait" };
    format!(
        "{}{more} (workflow {}) {verb} for {}.\n",
        ids.join(", "),
        safe(workflow),
        names(signals)
    )
}

pub(crate) fn names(signals: &[Arc<str>]) -> String {
    let names: Vec<String> = signals.iter().map(|name| safe(name).into_owned()).collect();
    output::alternatives(&names)
}
