//! Signals that nobody sends or hears, and nodes that nothing leads to.

use std::collections::HashSet;
use std::sync::Arc;

use indexmap::IndexMap;

use super::signals::{SignalGraph, as_child};
use super::source::Source;
use super::terms::asked_signals;
use crate::config::codes::{UNHEARD_EMISSION, UNREACHABLE_NODE, UNSENT_SIGNAL, UNSENT_TRIGGER};
use crate::config::diagnostic::{Diagnostic, Problems};
use crate::config::read::similar_signals;
use crate::config::{ChildNode, Condition, ValidateOptions, Workflow};

/// Pairs of signals that are compared in one workflow; suggestions beyond that aren't worth their time.
const MAX_COMPARISONS: usize = 200_000;

/// The signal that executions start with by custom.
const START: &str = "START";

/// Checks the workflow `name`, which `starters` start as a child.
pub(super) fn check(
    name: &str,
    graph: &SignalGraph<'_>,
    starters: &[&ChildNode],
    workflows: &IndexMap<Arc<str>, Arc<Workflow>>,
    options: &ValidateOptions,
    source: Source<'_>,
    problems: &mut Problems,
) {
    let mut check = Check {
        name,
        graph,
        source,
        emitted: graph.emitted(),
        from_parents: starters
            .iter()
            .flat_map(|c| &c.initial_signals)
            .map(AsRef::as_ref)
            .collect(),
        to_parents: starters
            .iter()
            .flat_map(|c| &c.signals_to_parent)
            .map(AsRef::as_ref)
            .collect(),
        options,
        comparisons: MAX_COMPARISONS,
        problems,
    };
    let unsent = check.triggers();
    check.emissions();
    check.asked_signals();
    check.child_signals(workflows);
    check.reachability(&unsent);
}

struct Check<'a, 'w> {
    name: &'a str,
    graph: &'a SignalGraph<'w>,
    source: Source<'a>,
    emitted: Vec<bool>,
    from_parents: HashSet<&'a str>,
    to_parents: HashSet<&'a str>,
    options: &'a ValidateOptions,
    comparisons: usize,
    problems: &'a mut Problems,
}

impl Check<'_, '_> {
    /// Warns about triggers that nothing sends; gives their signals.
    ///
    /// Signals can come from outside, so unless the caller says which do, a trigger is only suspicious if it looks like a
    /// slip in the name of a signal that is emitted.
    fn triggers(&mut self) -> Vec<bool> {
        let graph = self.graph;
        let emitted: Vec<&str> = signals_where(graph, |i| self.emitted[i]);
        let mut unsent = vec![false; graph.signals.len()];
        for node in &graph.nodes {
            for (i, trigger) in node.triggers.iter().enumerate() {
                let Some(signal) = graph.number(trigger) else {
                    continue;
                };
                if unsent[signal] || self.emitted[signal] || self.is_sent(trigger) {
                    continue;
                }
                let similar = self.similar(trigger, &emitted);
                if similar.is_none() && self.options.sent_signals.is_none() {
                    continue;
                }
                unsent[signal] = true;
                let message = format!("nothing sends the signal '{trigger}'");
                let mut problem = Diagnostic::new(UNSENT_TRIGGER, message);
                if let Some(similar) = similar {
                    problem = problem.help(format!("did you mean '{similar}', which is emitted?"));
                }
                let problem = self.source.at_item(self.name, &node.name, "event_triggers", i, problem);
                self.problems.push(problem);
            }
        }
        unsent
    }

    /// Warns about emissions that nobody hears. Workflows end with signals that nobody listens for, so one is only
    /// suspicious if it looks like a slip in the name of a trigger.
    fn emissions(&mut self) {
        let graph = self.graph;
        let heard: Vec<&str> = signals_where(graph, |i| !graph.listeners[i].is_empty());
        for node in &graph.nodes {
            for (i, emission) in node.emissions.iter().enumerate() {
                let signal = &emission.signal;
                let is_heard = graph.number(signal).is_some_and(|i| !graph.listeners[i].is_empty());
                if is_heard || self.to_parents.contains(signal.as_ref()) {
                    continue;
                }
                if let Some(similar) = self.similar(signal, &heard) {
                    let message = format!("no node listens for the signal '{signal}'");
                    let help = format!("did you mean '{similar}', which has listeners?");
                    let problem = Diagnostic::new(UNHEARD_EMISSION, message).help(help);
                    let problem = self
                        .source
                        .at_emission(self.name, &node.name, i, "signal_name", problem);
                    self.problems.push(problem);
                }
            }
        }
    }

    /// Warns about conditions that ask for a signal that nothing sends, as a trigger is warned about.
    fn asked_signals(&mut self) {
        let graph = self.graph;
        let known: Vec<&str> = signals_where(graph, |_| true);
        for node in &graph.nodes {
            for (i, emission) in node.emissions.iter().enumerate() {
                let Condition::Jinja(template) = &emission.condition else {
                    continue;
                };
                for signal in asked_signals(template.source()) {
                    if graph.number(&signal).is_some() || self.is_sent(&signal) {
                        continue;
                    }
                    let similar = self.similar(&signal, &known);
                    if similar.is_none() && self.options.sent_signals.is_none() {
                        continue;
                    }
                    let message = format!("the condition asks for the signal '{signal}', which nothing sends");
                    let mut problem = Diagnostic::new(UNSENT_SIGNAL, message);
                    if let Some(similar) = similar {
                        problem = problem.help(format!("did you mean '{similar}'?"));
                    }
                    let problem = self.source.at_emission(self.name, &node.name, i, "condition", problem);
                    self.problems.push(problem);
                }
            }
        }
    }

    /// Warns about children that are started with a signal that no node of theirs listens for.
    fn child_signals(&mut self, workflows: &IndexMap<Arc<str>, Arc<Workflow>>) {
        for node in &self.graph.nodes {
            let Some(child) = as_child(node) else { continue };
            let Some(workflow) = workflows.get(&child.workflow) else {
                continue;
            };
            for (i, signal) in child.initial_signals.iter().enumerate() {
                if workflow.listeners(std::slice::from_ref(signal)).is_empty() {
                    let message = format!(
                        "no node of workflow '{}' listens for the signal '{signal}'",
                        child.workflow
                    );
                    let problem = Diagnostic::new(UNHEARD_EMISSION, message);
                    let problem = self
                        .source
                        .at_item(self.name, &node.name, "child_initial_signals", i, problem);
                    self.problems.push(problem);
                }
            }
        }
    }

    /// Warns about nodes that no signal from outside leads to.
    fn reachability(&mut self, unsent: &[bool]) {
        let graph = self.graph;
        let entries = self.entries();
        if entries.is_empty() && self.options.sent_signals.is_none() {
            return;
        }
        let mut reached_signals = vec![false; graph.signals.len()];
        let mut reached_nodes = vec![false; graph.nodes.len()];
        let mut stack = entries;
        while let Some(signal) = stack.pop() {
            if std::mem::replace(&mut reached_signals[signal], true) {
                continue;
            }
            for &node in &graph.listeners[signal] {
                if !std::mem::replace(&mut reached_nodes[node], true) {
                    stack.extend(graph.outputs[node].iter().map(|output| output.signal));
                }
            }
        }
        for (node, reached) in graph.nodes.iter().zip(reached_nodes) {
            let is_unsent = |signal: &Arc<str>| graph.number(signal).is_some_and(|i| unsent[i]);
            if reached || !node.triggers.is_empty() && node.triggers.iter().all(is_unsent) {
                continue;
            }
            let message = match node.triggers.as_slice() {
                [] => "the node can never run: it has no triggers".to_owned(),
                triggers => format!(
                    "the node can never run: no signal from outside leads to '{}'",
                    triggers.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("', '")
                ),
            };
            let problem = Diagnostic::new(UNREACHABLE_NODE, message);
            let problem = self.source.at_node(self.name, &node.name, problem);
            self.problems.push(problem);
        }
    }

    /// The signals that can come from outside. If the caller doesn't say: those that the workflow listens for and doesn't
    /// emit, `START`, and those that a parent starts it with.
    fn entries(&self) -> Vec<usize> {
        let is_entry = |(i, signal): (usize, &&str)| {
            let external = self.options.sent_signals.is_none() && (!self.emitted[i] || *signal == START);
            (external && !self.graph.listeners[i].is_empty() || self.is_sent(signal)).then_some(i)
        };
        self.graph.signals.iter().enumerate().filter_map(is_entry).collect()
    }

    fn is_sent(&self, signal: &str) -> bool {
        let by_caller = self
            .options
            .sent_signals
            .as_ref()
            .is_some_and(|sent| sent.contains(signal));
        by_caller || self.from_parents.contains(signal)
    }

    fn similar<'s>(&mut self, signal: &str, candidates: &[&'s str]) -> Option<&'s str> {
        self.comparisons = self.comparisons.checked_sub(candidates.len())?;
        similar_signals(signal, candidates.iter().copied())
    }
}

fn signals_where<'w>(graph: &SignalGraph<'w>, holds: impl Fn(usize) -> bool) -> Vec<&'w str> {
    let signals = graph.signals.iter().enumerate();
    signals.filter(|(i, _)| holds(*i)).map(|(_, signal)| *signal).collect()
}
