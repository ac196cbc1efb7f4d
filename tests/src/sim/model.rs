//! What should happen, told as simply as possible: a recursive interpreter over plain data.
//!
//! It shares nothing with the machine but the text of the contract: no stack, no commits, no snapshots that are shared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use soe_backends::{Schedule, Status, Value};
use soe_core::machine::Outcome;
use soe_core::nodes::{NodeOutput, Signals};

use super::flow::{Expr, Flow, Kind, Name, Node};
use super::outcome::outcome;
use super::talk::{Said, Talk};
use super::task::Task;

/// The expected state of an execution.
#[derive(Debug)]
pub struct Model<'f> {
    pub(super) flow: &'f Flow,
    pub(super) seed: u64,
    schedule: Schedule,
    /// Where it stands.
    pub status: Status,
    /// The limit that failed it.
    pub exceeded: Option<&'static str>,
    /// The histories, in the order in which the fields were first written.
    pub fields: IndexMap<Name, Vec<Value>>,
    /// The recorded signals.
    pub signals: Vec<Name>,
    /// The runs by node.
    pub nodes: IndexMap<Name, u64>,
    /// Runs of tool nodes, and calls by agents.
    pub tool_calls: u64,
    /// Calls of tools by agents.
    pub agent_calls: u64,
    /// Tools that agents wanted and don't have.
    pub not_found: u64,
    /// Requests to LLMs.
    pub llm_calls: u64,
    /// Answers to them.
    pub replies: u64,
    /// What they took.
    pub tokens: u64,
    /// The same by node.
    pub node_tokens: IndexMap<Name, u64>,
    /// The conversation history.
    pub said: Vec<Said>,
    /// What was performed.
    pub effects: u64,
    pub(super) effects_now: u64,
    /// Failed attempts.
    pub errors: u64,
    /// Nodes that gave up without another failed attempt: they leave an event, too.
    pub gave_up: u64,
    /// Batches.
    pub broadcasts: u64,
    /// All runs, routers included.
    pub runs: u64,
    /// Runs that await something, so far.
    pub dispatched: u64,
    /// Conditions that couldn't be evaluated.
    pub warnings: u64,
    /// Completions that nobody wanted.
    pub discarded: u64,
    /// What is in flight.
    pub in_flight: BTreeMap<u64, InFlight>,
    fresh: Vec<u64>,
}

/// A run in flight.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// The node's place in the file.
    pub node: usize,
    /// The attempt.
    pub attempt: u32,
    /// What it reads: the context after the event that dispatched it.
    pub seen: Arc<Seen>,
    /// What it has asked, if it asks an LLM.
    pub talk: Option<Talk>,
}

/// A copy of the context.
#[derive(Debug, Default)]
pub struct Seen {
    /// The histories.
    pub fields: IndexMap<Name, Vec<Value>>,
    /// The recorded signals.
    pub signals: Vec<Name>,
    /// The requests to LLMs.
    pub llm_calls: u64,
}

impl<'f> Model<'f> {
    /// An execution that was created with its initial context.
    pub fn new(flow: &'f Flow, seed: u64, schedule: Schedule) -> Self {
        Self {
            flow,
            seed,
            schedule,
            status: Status::Prepared,
            exceeded: None,
            fields: flow.fields.iter().cloned().collect(),
            signals: Vec::new(),
            nodes: IndexMap::new(),
            tool_calls: 0,
            agent_calls: 0,
            not_found: 0,
            llm_calls: 0,
            replies: 0,
            tokens: 0,
            node_tokens: IndexMap::new(),
            said: Vec::new(),
            effects: 0,
            effects_now: 0,
            errors: 0,
            gave_up: 0,
            broadcasts: 0,
            runs: 0,
            dispatched: 0,
            warnings: 0,
            discarded: 0,
            in_flight: BTreeMap::new(),
            fresh: Vec::new(),
        }
    }

    /// Signals from outside. False if they are refused.
    pub fn broadcast(&mut self, signals: &[Name]) -> bool {
        let takes = matches!(self.status, Status::Prepared | Status::Running | Status::Rested);
        if takes {
            self.status = Status::Running;
            self.emit(signals);
            self.end();
        }
        takes
    }

    /// An answer to what is in flight. False if it is discarded.
    pub fn complete(&mut self, task: Task) -> bool {
        let wanted = self.tasks_of(task.run()).contains(&task);
        if !wanted || self.status != Status::Running {
            self.discarded += 1;
            return false;
        }
        self.finish(task);
        self.end();
        true
    }

    /// What is in flight.
    pub fn tasks(&self) -> impl Iterator<Item = Task> {
        self.in_flight.keys().flat_map(|run| self.tasks_of(*run))
    }

    fn tasks_of(&self, number: u64) -> Vec<Task> {
        match self.in_flight.get(&number) {
            None => Vec::new(),
            Some(run) => match &run.talk {
                None => vec![Task::Attempt(number, run.attempt)],
                Some(talk) => talk.tasks(number),
            },
        }
    }

    /// It is taken up again: what was in flight is performed again, and warns again.
    pub fn recover(&mut self, lost: &BTreeSet<u64>) {
        // Where the model is ahead of the machine, only the requests count.
        let running = self.status == Status::Running;
        let ahead = |run: &&u64| !(running && self.in_flight.get(run).is_some_and(InFlight::awaits_reply));
        let ahead = lost.iter().filter(ahead).count() as u64;
        self.llm_calls += ahead;
        let limits = &self.flow.limits;
        if limits.llm_calls.is_some() || limits.tokens.is_some() {
            // To be allowed to make them again is an effect of its own.
            self.effects += ahead;
        }
        if self.status == Status::Running {
            let runs: Vec<u64> = self.in_flight.keys().copied().collect();
            for run in runs {
                if lost.contains(&run) {
                    self.ask_again(run);
                }
                self.warn_at_first_request(run);
            }
        }
    }

    /// A cancellation.
    pub fn cancel(&mut self) {
        self.status = Status::Cancelled;
        self.in_flight.clear();
    }

    /// The arguments of a run of a tool node, as far as the context decides them.
    pub fn arguments(&self, run: &InFlight) -> serde_json::Value {
        let Kind::Tool { parameters, .. } = &self.flow.nodes[run.node].kind else {
            return serde_json::Value::Null;
        };
        let length = |field: &Name| run.seen.fields.get(field).map_or(0, Vec::len);
        let value = |expr: &Expr| match expr {
            Expr::Last(field) => run
                .seen
                .fields
                .get(field)
                .and_then(|history| history.last())
                .map(Value::to_json),
            Expr::Count(field) => Some(length(field).into()),
            Expr::Signals => Some(run.seen.signals.len().into()),
            Expr::Literal(number) => Some((*number).into()),
        };
        let arguments = parameters
            .iter()
            .filter_map(|(name, expr)| Some((name.to_string(), value(expr)?)));
        serde_json::Value::Object(arguments.collect())
    }

    pub(super) fn emit(&mut self, signals: &[Name]) {
        if signals.is_empty() || self.status != Status::Running {
            return;
        }
        if self.broadcasts >= self.flow.limits.broadcasts {
            return self.exceed("broadcasts");
        }
        self.broadcasts += 1;
        self.signals.extend_from_slice(signals);
        let flow = self.flow;
        for (place, node) in flow.nodes.iter().enumerate() {
            if self.status == Status::Running && node.triggers.iter().any(|trigger| signals.contains(trigger)) {
                self.visit(place, node);
            }
        }
    }

    fn visit(&mut self, place: usize, node: &Node) {
        if self.runs >= self.flow.limits.runs {
            return self.exceed("runs");
        }
        self.runs += 1;
        *self.nodes.entry(node.name.clone()).or_default() += 1;
        if matches!(node.kind, Kind::Router) {
            let signals = self.passing(node, None);
            return self.emit(&signals);
        }
        self.dispatched += 1;
        self.tool_calls += u64::from(matches!(node.kind, Kind::Tool { .. }));
        let number = self.dispatched;
        self.fresh.push(number);
        let run = InFlight {
            node: place,
            attempt: 1,
            seen: Arc::default(),
            talk: match &node.kind {
                Kind::Llm(llm) => Some(Talk::new(llm)),
                _ => None,
            },
        };
        self.in_flight.insert(number, run);
        if self.schedule == Schedule::DepthFirst {
            self.snapshot();
            self.run_to_its_end(number);
        }
    }

    /// One node at a time: a run is over before anything else happens.
    fn run_to_its_end(&mut self, number: u64) {
        while self.status == Status::Running {
            let Some(task) = self.tasks_of(number).into_iter().next() else {
                return;
            };
            self.finish(task);
        }
    }

    fn finish(&mut self, task: Task) {
        match task {
            Task::Attempt(run, attempt) => self.finish_attempt(run, attempt),
            Task::Grant(run, call) => self.granted(run, call),
            Task::Reply(run, call) => self.replied(run, call),
            Task::Tool(run, index) => self.tool_answered(run, index),
        }
    }

    fn finish_attempt(&mut self, number: u64, attempt: u32) {
        let flow = self.flow;
        let node = &flow.nodes[self.in_flight[&number].node];
        match (&node.kind, outcome(flow, self.seed, node, number, attempt)) {
            (Kind::Tool { output, .. }, Outcome::Tool(Ok(value))) => {
                self.in_flight.remove(&number);
                self.write(output.as_ref(), &value);
                let signals = self.passing(node, Some(&value));
                self.emit(&signals);
            }
            (Kind::Tool { tool, output, .. }, Outcome::Tool(Err(failure))) => {
                self.errors += 1;
                let tool = flow.tool(tool);
                if failure.retryable && tool.is_some_and(|tool| attempt <= tool.max_retries) {
                    if let Some(run) = self.in_flight.get_mut(&number) {
                        run.attempt += 1;
                        self.effects_now += 1;
                    }
                    return;
                }
                self.in_flight.remove(&number);
                self.write(output.as_ref(), &Value::Text(failure.message));
                let signal = tool.and_then(|tool| tool.failure_signal.clone());
                self.emit(signal.as_slice());
            }
            (Kind::Custom(_), Outcome::Node(Ok(output))) => self.finish_custom(number, node, output),
            (Kind::Custom(custom), Outcome::Node(Err(_))) => {
                self.errors += 1;
                match &custom.failure_signal {
                    None => self.status = Status::Failed,
                    Some(signal) => {
                        self.in_flight.remove(&number);
                        self.emit(std::slice::from_ref(signal));
                    }
                }
            }
            _ => {}
        }
    }

    fn finish_custom(&mut self, number: u64, node: &Node, output: NodeOutput) {
        self.in_flight.remove(&number);
        let (writes, signals) = output.into_parts();
        for (field, value) in &writes {
            self.write(Some(field), value);
        }
        let signals = match signals {
            Signals::Explicit(signals) => signals,
            Signals::Configured => self.passing(node, None),
        };
        self.emit(&signals);
    }

    pub(super) fn write(&mut self, field: Option<&Name>, value: &Value) {
        if let Some(field) = field.filter(|_| !value.is_null()) {
            self.fields.entry(field.clone()).or_default().push(value.clone());
        }
    }

    fn exceed(&mut self, limit: &'static str) {
        self.exceeded = Some(limit);
        self.status = Status::Failed;
    }

    fn end(&mut self) {
        self.snapshot();
        let now = std::mem::take(&mut self.effects_now);
        // Where the schedule is depth-first, this is about many events; those before the last have performed theirs.
        if self.status == Status::Running || self.schedule == Schedule::DepthFirst {
            self.effects += now;
        }
        if self.status == Status::Running && self.in_flight.is_empty() {
            self.status = Status::Rested;
        }
    }

    /// Gives the runs that were just dispatched what they read.
    fn snapshot(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh.is_empty() {
            return;
        }
        // A failed execution starts nothing any more.
        let running = self.status == Status::Running;
        for number in fresh.iter().filter(|_| running) {
            match self.in_flight[number].talk {
                Some(_) => self.ask(*number),
                None => self.effects_now += 1,
            }
        }
        let seen = Arc::new(Seen {
            fields: self.fields.clone(),
            signals: self.signals.clone(),
            llm_calls: self.llm_calls,
        });
        for number in fresh {
            if let Some(run) = self.in_flight.get_mut(&number) {
                run.seen = seen.clone();
            }
            self.warn_at_first_request(number);
        }
    }
}
