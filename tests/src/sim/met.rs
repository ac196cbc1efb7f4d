//! What happened in an interleaving: whether the simulation gets everywhere.

use std::collections::{BTreeMap, BTreeSet};

use soe_backends::{Change, Commit, DialogueStep, Entry, EventKind, Status};
use soe_core::machine::Input;

use super::plan::Move;
use super::run::Sim;

/// Errors by how they begin: with a failure signal, and without.
const ERRORS: &[(&str, [&str; 2])] = &[
    (
        "limit llm_calls exceeded",
        ["denied with a signal", "denied and failed"],
    ),
    (
        "limit tokens exceeded",
        ["no tokens with a signal", "no tokens and failed"],
    ),
    (
        "no valid reply",
        ["never valid with a signal", "never valid and failed"],
    ),
    (
        "it calls tools in its last turn",
        ["too many turns with a signal", "too many turns and failed"],
    ),
    (
        "request ",
        ["caller's error with a signal", "caller's error and failed"],
    ),
    ("the reply is not valid", ["asked again"; 2]),
    ("there is no tool", ["unknown tool"; 2]),
    ("tool '", ["tool's error"; 2]),
];

/// What happened in an interleaving, as far as it has to do with LLMs.
pub fn met(sim: &Sim<'_>) -> BTreeSet<&'static str> {
    let mut met = BTreeSet::new();
    let mut waiting = BTreeMap::new();
    for commit in &sim.commits {
        waits(commit, &mut waiting);
        let recovers = matches!(
            commit.changes[..],
            [Change::Status {
                status: Status::Running,
                ..
            }]
        );
        if recovers {
            met.extend(waiting.values());
        }
        met.extend(commit.turns.iter().map(|_| "turns"));
        errors(commit, &mut met);
    }
    met.extend(sim.moves.iter().filter_map(|each| match each {
        Move::Input(_, Input::Asked { .. }) => Some("a custom node asks"),
        Move::Input(_, Input::Replied { .. }) => Some("a custom node is answered"),
        _ => None,
    }));
    met
}

/// What would be lost in a crash, by run.
fn waits(commit: &Commit, waiting: &mut BTreeMap<u64, &'static str>) {
    for change in &commit.changes {
        match change {
            Change::Finished { run } => {
                waiting.remove(run);
            }
            Change::Dialogue { run, step } => {
                let now = match step {
                    DialogueStep::Waits => "a crash before a grant",
                    DialogueStep::Asked => "a crash before a reply",
                    DialogueStep::Entry(Entry::Called { .. }) => "a crash before a tool's answer",
                    _ => continue,
                };
                waiting.insert(*run, now);
            }
            _ => {}
        }
    }
}

fn errors(commit: &Commit, met: &mut BTreeSet<&'static str>) {
    let fails = |change: &Change| {
        matches!(
            change,
            Change::Status {
                status: Status::Failed,
                ..
            }
        )
    };
    let failed = usize::from(commit.changes.iter().any(fails));
    for event in &commit.events {
        let EventKind::NodeError {
            error, retry_attempt, ..
        } = &event.kind
        else {
            continue;
        };
        let known = ERRORS.iter().find(|(start, _)| error.starts_with(start));
        met.extend(known.map(|(_, names)| names[failed]));
        if error.contains("calls of tools failed") {
            met.insert(["too many errors with a signal", "too many errors and failed"][failed]);
        }
        met.extend(retry_attempt.map(|_| "retry"));
    }
}
