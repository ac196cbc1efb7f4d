//! Whether a state is the one that the model expects, and consistent in itself.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use soe_backends::{Awaits, Context, Dialogue, EventKind, ExecutionState, Progress, Status, Value};

use super::flow::{Flow, Name};
use super::model::{InFlight, Model};
use super::talk::{Talk, Waits};

/// What every state fulfils, whatever happened.
pub(crate) fn consistent(state: &ExecutionState) -> Result<()> {
    let nodes: u64 = state.context.operational.nodes.iter().map(|(_, runs)| runs).sum();
    ensure!(
        nodes == state.runs_started,
        "the runs by node don't add up to {}",
        state.runs_started
    );
    let kept: BTreeSet<u64> = state.snapshots.keys().copied().collect();
    let needed: BTreeSet<u64> = state.runs.values().map(|run| run.snapshot).collect();
    ensure!(kept == needed, "snapshots {kept:?} are kept, {needed:?} are needed");
    ensure!(
        state.runs.keys().all(|run| *run < state.next_run),
        "a run has a number that comes yet"
    );
    ensure!(
        state.runs.iter().all(|(number, run)| *number == run.number),
        "a run is kept under another number"
    );
    let histories = state
        .context
        .fields
        .iter()
        .map(|(_, history)| history.iter().map(Value::size).sum::<u64>());
    ensure!(
        state.context_bytes == histories.sum::<u64>(),
        "the context's size is not the sum of its values'"
    );
    let idle = matches!(state.status, Status::Prepared | Status::Rested | Status::Cancelled);
    let nothing = state.runs.is_empty() && state.stack.is_empty() && state.pending.is_empty();
    ensure!(nothing || !idle, "something is left to do while it is {}", state.status);
    Ok(())
}

/// The state is exactly what the model expects. Snapshots are compared unless the machine paused.
pub(super) fn as_expected(model: &Model<'_>, state: &ExecutionState, flow: &Flow, snapshots: bool) -> Result<()> {
    ensure!(
        state.status == model.status,
        "it is {}, not {}",
        state.status,
        model.status
    );
    let limit = state.failure.as_ref().and_then(|failure| failure.limit.as_deref());
    ensure!(
        limit == model.exceeded,
        "limit {limit:?} was exceeded, not {:?}",
        model.exceeded
    );
    same_context(&state.context, &model.fields, &model.signals)?;
    let operational = &state.context.operational;
    ensure!(
        operational.nodes.iter().eq(&model.nodes),
        "runs by node: {:?}, not {:?}",
        operational.nodes,
        model.nodes
    );
    counters(model, state)?;
    ensure!(
        state.runs.keys().eq(model.in_flight.keys()),
        "in flight are {:?}, not {:?}",
        state.runs.keys(),
        model.in_flight.keys()
    );
    for (run, expected) in state.runs.values().zip(model.in_flight.values()) {
        let attempt = match run.progress {
            Progress::Tool { attempt } => attempt,
            _ => 1,
        };
        let node = &flow.nodes[expected.node].name;
        ensure!(
            run.node == *node && attempt == expected.attempt,
            "{run:?} should be {expected:?}"
        );
        match (run.progress.dialogue(), &expected.talk) {
            (None, None) => {}
            (Some(dialogue), Some(talk)) if same_talk(dialogue, talk) => {}
            _ => bail!("{run:#?} should be {expected:#?}"),
        }
        if snapshots {
            saw(&state.snapshots[&run.snapshot], expected)?;
        }
    }
    Ok(())
}

fn counters(model: &Model<'_>, state: &ExecutionState) -> Result<()> {
    let operational = &state.context.operational;
    let counted = [
        operational.tool_calls,
        operational.llm_calls,
        operational.tokens,
        operational.errors,
        state.broadcasts,
        state.runs_started,
        state.next_run - 1,
    ];
    let expected = [
        model.tool_calls,
        model.llm_calls,
        model.tokens,
        model.errors,
        model.broadcasts,
        model.runs,
        model.dispatched,
    ];
    ensure!(
        counted == expected,
        "tool calls, requests, tokens, errors, broadcasts, runs, dispatched: {counted:?}, not {expected:?}"
    );
    let tree = operational.tree;
    ensure!(
        [tree.tool_calls, tree.llm_calls, tree.tokens, tree.children]
            == [model.tool_calls, model.llm_calls, model.tokens, 0],
        "the tree's totals are {tree:?}"
    );
    ensure!(
        operational.node_tokens.iter().eq(&model.node_tokens),
        "tokens by node: {:?}, not {:?}",
        operational.node_tokens,
        model.node_tokens
    );
    Ok(())
}

fn same_talk(dialogue: &Dialogue, talk: &Talk) -> bool {
    let awaits = match dialogue.awaits {
        Awaits::Grant => Waits::Grant,
        Awaits::Reply => Waits::Reply,
        _ => Waits::Tools,
    };
    let counted = [dialogue.calls, dialogue.tool_calls, dialogue.turns, dialogue.failures];
    let question = &dialogue.question;
    (awaits, question.stage, &question.tool) == (talk.waits, talk.stage, &talk.tool)
        && counted == [talk.calls, talk.tool_calls, talk.turns, talk.failures]
        && (dialogue.rejected.len(), dialogue.tokens) == (talk.rejected as usize, talk.tokens)
        && dialogue.entries.len() == talk.entries
        && dialogue.open.keys().eq(talk.open.keys())
}

/// The context of a run is the one as of the event that dispatched it.
pub(super) fn saw(context: &Context, run: &InFlight) -> Result<()> {
    let (seen, expected) = (context.operational.llm_calls, run.seen.llm_calls);
    ensure!(seen == expected, "it sees {seen} requests, not {expected}");
    same_context(context, &run.seen.fields, &run.seen.signals)
}

fn same_context(context: &Context, fields: &indexmap::IndexMap<Name, Vec<Value>>, signals: &[Name]) -> Result<()> {
    let same_signals = context.operational.signals.iter().eq(signals);
    ensure!(
        same_signals,
        "signals: {:?}, not {signals:?}",
        context.operational.signals
    );
    let mut histories = context.fields.iter().zip(fields);
    let same = histories.all(|((name, history), (field, values))| name == field && history.iter().eq(values));
    ensure!(
        same && context.fields.len() == fields.len(),
        "fields: {:?}, not {fields:?}",
        context.fields
    );
    Ok(())
}

/// What events say, added up.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) events: u64,
    pub(super) signals: Vec<Name>,
    pub(super) executed: u64,
    /// The nodes of the runs 1, 2, ...
    pub(super) dispatched: Vec<Name>,
    pub(super) warnings: u64,
    pub(super) discarded: u64,
    pub(super) errors: u64,
    pub(super) llm_calls: u64,
    pub(super) replies: u64,
    pub(super) tokens: u64,
    pub(super) agent_calls: u64,
    pub(super) not_found: u64,
}

impl Told {
    /// Takes the events of a commit; their numbers must go on from the last.
    pub(super) fn take(&mut self, events: &[soe_backends::Event]) -> Result<()> {
        for event in events {
            ensure!(
                event.seq == self.events,
                "event {} has number {}",
                self.events,
                event.seq
            );
            self.events += 1;
            match &event.kind {
                EventKind::SignalsBroadcast { signals } => self.signals.extend(signals.iter().cloned()),
                EventKind::NodeExecution { node_name, run, .. } => {
                    self.executed += 1;
                    if let Some(run) = run {
                        self.dispatched.push(node_name.clone());
                        let expected = self.dispatched.len() as u64;
                        ensure!(*run == expected, "run {run} was dispatched, not {expected}");
                    }
                }
                EventKind::ContextWarning { .. } => self.warnings += 1,
                EventKind::CompletionDiscarded { .. } => self.discarded += 1,
                EventKind::NodeError { .. } => self.errors += 1,
                EventKind::LlmCall { .. } => self.llm_calls += 1,
                EventKind::LlmReply { usage, .. } => {
                    self.replies += 1;
                    self.tokens += usage.map_or(0, |usage| usage.total());
                }
                EventKind::AgentToolCall { .. } => self.agent_calls += 1,
                EventKind::AgentToolNotFound { .. } => self.not_found += 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// The events tell what the state has, and what the model expects.
    pub(super) fn agrees(
        &self,
        state: &ExecutionState,
        model: &Model<'_>,
        warnings: u64,
        discarded: u64,
    ) -> Result<()> {
        let operational = &state.context.operational;
        ensure!(
            self.events == state.next_event,
            "the next event is {}",
            state.next_event
        );
        ensure!(
            operational.signals.iter().eq(&self.signals),
            "the events tell of signals {:?}",
            self.signals
        );
        let told = [
            self.executed,
            self.dispatched.len() as u64,
            self.errors,
            self.llm_calls,
            self.tokens,
            self.replies,
            self.agent_calls,
            self.not_found,
            self.warnings,
            self.discarded,
        ];
        let kept = [
            state.runs_started,
            state.next_run - 1,
            operational.errors + model.gave_up,
            operational.llm_calls,
            operational.tokens,
            model.replies,
            model.agent_calls,
            model.not_found,
            warnings,
            discarded,
        ];
        ensure!(
            told == kept,
            "events: executed, dispatched, errors, requests, tokens, replies, agents' calls, unknown tools, warnings, \
             discarded: {told:?}, not {kept:?}"
        );
        Ok(())
    }
}
