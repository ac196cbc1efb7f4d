//! Joins that may fire more than once, or never.
//!
//! A condition that counts is evaluated exactly once at each count if it is evaluated in the event that changes the count:
//! at the completion of the node that writes (or emits) what is counted, or by a router that this completion reaches
//! through routers alone. Behind any other node, several writes may have happened before the condition is looked at.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use super::signals::{SignalGraph, When, as_child};
use super::source::Source;
use super::terms::{Term, counted_terms};
use crate::config::codes::{INEXACT_JOIN, JOINS_NOT_CHECKED};
use crate::config::diagnostic::{Diagnostic, Problems};
use crate::config::{Condition, Node, NodeKind};

/// How many steps through graphs the search may take, over all workflows: each join may search its whole workflow.
pub(super) struct Budget(Option<usize>);

impl Default for Budget {
    fn default() -> Self {
        Self(Some(3_000_000))
    }
}

impl Budget {
    fn spend(&mut self, steps: usize) {
        self.0 = self.0.and_then(|left| left.checked_sub(steps));
    }

    /// Says so if not all joins were looked at.
    pub(super) fn report(&self, problems: &mut Problems) {
        if self.0.is_none() {
            let message = "there are too many joins to check that each fires exactly once";
            problems.push(Diagnostic::new(JOINS_NOT_CHECKED, message));
        }
    }
}

/// Warns about the conditions that count something behind a node that awaits.
pub(super) fn check(
    workflow: &str,
    graph: &SignalGraph<'_>,
    source: Source<'_>,
    budget: &mut Budget,
    problems: &mut Problems,
) {
    let mut joins = graph.nodes.iter().enumerate().flat_map(|(node, join)| {
        join.emissions
            .iter()
            .enumerate()
            .filter_map(move |(i, emission)| match &emission.condition {
                Condition::Jinja(template) => Some((node, i, counted_terms(template.source()))),
                _ => None,
            })
    });
    let mut joins = joins.by_ref().filter(|(_, _, terms)| !terms.is_empty()).peekable();
    if joins.peek().is_none() {
        return;
    }
    let mut search = Search::new(graph, budget);
    for (join, emission, terms) in joins {
        for (term, writer, between) in search.inexact(join, &terms) {
            let what = match term {
                Term::Field(field) => format!("'{field}', which node '{writer}' writes"),
                Term::Signal(signal) => format!("the signal '{signal}', which node '{writer}' emits"),
            };
            let message = format!(
                "this may pass more than once or never: it counts {what}, but node '{between}' runs between that and this condition"
            );
            let help =
                format!("let a router evaluate it on a signal of '{writer}', with nothing but routers in between");
            let problem = Diagnostic::new(INEXACT_JOIN, message).help(help);
            let name = &graph.nodes[join].name;
            problems.push(source.at_emission(workflow, name, emission, "condition", problem));
        }
        if search.budget.0.is_none() {
            return;
        }
    }
}

/// A place where something that is counted changes: the node that changes it, and the signals of the same event.
struct Origin<'t> {
    term: &'t Term,
    node: usize,
    signals: Vec<usize>,
}

struct Search<'g, 'w, 'b> {
    graph: &'g SignalGraph<'w>,
    budget: &'b mut Budget,
    writers: HashMap<&'w str, Vec<usize>>,
    emitters: Vec<Vec<usize>>,
    /// The search in which a signal was seen last.
    seen: Vec<usize>,
    searches: usize,
}

impl<'g, 'w, 'b> Search<'g, 'w, 'b> {
    fn new(graph: &'g SignalGraph<'w>, budget: &'b mut Budget) -> Self {
        let mut writers: HashMap<&'w str, Vec<usize>> = HashMap::new();
        let mut emitters = vec![Vec::new(); graph.signals.len()];
        for (i, node) in graph.nodes.iter().copied().enumerate() {
            for field in written_fields(node) {
                writers.entry(field).or_default().push(i);
            }
            for output in &graph.outputs[i] {
                emitters[output.signal].push(i);
            }
        }
        Self {
            graph,
            budget,
            writers,
            emitters,
            seen: vec![0; graph.signals.len()],
            searches: 0,
        }
    }

    /// What a join counts without being in time: the term, who changes it, and who runs in between.
    fn inexact<'t>(&mut self, join: usize, terms: &'t [Term]) -> Vec<(&'t Term, &'w str, &'w str)> {
        let mut origins = Vec::new();
        for term in terms {
            origins.append(&mut self.origins(term));
        }
        let mut exact = HashSet::new();
        let mut late = Vec::new();
        for origin in origins {
            let graph = self.graph;
            let in_time = origin.node == join
                || self
                    .path(&origin.signals, join, &|node| !is_router(graph, node))
                    .is_some();
            // A join that isn't a router is itself what awaits, whatever leads to it.
            if in_time && (origin.node == join || is_router(graph, join)) {
                exact.insert(origin.node);
            } else {
                late.push(origin);
            }
        }
        let mut found: IndexMap<&Term, (&str, &str)> = IndexMap::new();
        for origin in late {
            // What always comes before something that is counted in time is in time too, and so are the items of a fan-out.
            let graph = self.graph;
            let blocked = |node: usize| node != join && (exact.contains(&node) || fans_out(graph, node, origin.term));
            let Some(between) = self.path(&origin.signals, join, &blocked) else {
                continue;
            };
            if exact.contains(&origin.node) || terms.len() == 1 && self.is_retry(join, origin.node) {
                continue;
            }
            let name = |node: usize| self.graph.nodes[node].name.as_ref();
            let names = (name(origin.node), name(between.unwrap_or(join)));
            found.entry(origin.term).or_insert(names);
        }
        found
            .into_iter()
            .map(|(term, (writer, between))| (term, writer, between))
            .collect()
    }

    /// Who changes what is counted; nothing if that is more than the budget allows.
    fn origins<'t>(&mut self, term: &'t Term) -> Vec<Origin<'t>> {
        self.budget.spend(self.size_of_origins(term));
        if self.budget.0.is_none() {
            return Vec::new();
        }
        let signals_of = |node: usize| {
            let is_child = as_child(self.graph.nodes[node]).is_some();
            let counts = move |when: When| match when {
                When::Always | When::Sometimes => !is_child,
                When::Delivered => is_child,
                When::Failure => false,
            };
            let outputs = self.graph.outputs[node].iter();
            outputs.filter(|o| counts(o.when)).map(|o| o.signal).collect()
        };
        match term {
            Term::Field(field) => {
                let writers = self.writers.get(field.as_str()).into_iter().flatten();
                let origin = |&node: &usize| Origin {
                    term,
                    node,
                    signals: signals_of(node),
                };
                writers.map(origin).collect()
            }
            Term::Signal(signal) => {
                let Some(number) = self.graph.number(signal) else {
                    return Vec::new();
                };
                let origin = |&node: &usize| Origin {
                    term,
                    node,
                    signals: vec![number],
                };
                self.emitters[number].iter().map(origin).collect()
            }
        }
    }

    fn size_of_origins(&self, term: &Term) -> usize {
        match term {
            Term::Field(field) => {
                let writers = self.writers.get(field.as_str()).into_iter().flatten();
                writers.map(|&node| 1 + self.graph.outputs[node].len()).sum()
            }
            Term::Signal(signal) => self
                .graph
                .number(signal)
                .map_or(0, |number| self.emitters[number].len()),
        }
    }

    /// A count to a limit in a loop that leads back to the writer: one run after the other, so nothing is missed.
    fn is_retry(&mut self, join: usize, writer: usize) -> bool {
        let signals: Vec<_> = self.graph.outputs[join].iter().map(|o| o.signal).collect();
        join == writer || self.path(&signals, writer, &|_| false).is_some()
    }

    /// Whether signals lead to the node `goal` without passing through a blocked node; if so, the first node on the way
    /// that is no router, if there is one.
    fn path(&mut self, signals: &[usize], goal: usize, blocked: &dyn Fn(usize) -> bool) -> Option<Option<usize>> {
        self.searches += 1;
        let mut queue: Vec<(usize, Option<usize>)> = signals.iter().map(|&signal| (signal, None)).collect();
        let mut next = 0;
        while let Some(&(signal, awaited)) = queue.get(next) {
            next += 1;
            if std::mem::replace(&mut self.seen[signal], self.searches) == self.searches {
                continue;
            }
            let listeners = &self.graph.listeners[signal];
            self.budget.spend(1 + listeners.len());
            self.budget.0?;
            for &node in listeners {
                if node == goal {
                    return Some(awaited);
                }
                if !blocked(node) {
                    let awaited = awaited.or((!is_router(self.graph, node)).then_some(node));
                    self.budget.spend(self.graph.outputs[node].len());
                    queue.extend(self.graph.outputs[node].iter().map(|output| (output.signal, awaited)));
                }
            }
        }
        None
    }
}

fn is_router(graph: &SignalGraph<'_>, node: usize) -> bool {
    matches!(graph.nodes[node].kind, NodeKind::Router)
}

/// Whether the node starts a child for each of what is counted: all of it is there before the first of them tells anything.
fn fans_out(graph: &SignalGraph<'_>, node: usize, term: &Term) -> bool {
    let fan_out = as_child(graph.nodes[node]).and_then(|child| child.fan_out.as_ref());
    matches!((fan_out, term), (Some(fan_out), Term::Field(counted)) if *fan_out.field == **counted)
}

/// The context fields that a node, or a child of it, writes.
fn written_fields(node: &Node) -> Vec<&str> {
    match &node.kind {
        NodeKind::Tool(tool) => tool.output_field.as_deref().into_iter().collect(),
        NodeKind::Llm(llm) => llm.output_field.as_deref().into_iter().collect(),
        NodeKind::Agent(agent) => agent.llm.output_field.as_deref().into_iter().collect(),
        NodeKind::Child(child) => child.context_updates_to_parent.iter().map(AsRef::as_ref).collect(),
        NodeKind::Router | NodeKind::Custom(_) => Vec::new(),
    }
}
