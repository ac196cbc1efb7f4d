//! The signals that a workflow listens to and that nothing in it sends: somebody has to.

use std::collections::HashSet;
use std::sync::Arc;

use soe_backends::ExecutionState;
use soe_core::config::{NodeKind, Workflow};
use soe_core::tools::ToolSpecs;

/// Signals that have never been sent to an execution and that no node of its workflow can send.
#[derive(Clone, Debug, Default)]
pub(crate) struct Awaited {
    /// Those without which it doesn't go on, in the order of the file.
    pub(crate) needed: Vec<Arc<str>>,
    /// Those that it would hear too: whether it still waits for them can't be known.
    pub(crate) possible: Vec<Arc<str>>,
}

impl Awaited {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<str>> {
        self.needed.iter().chain(&self.possible)
    }
}

/// What a workflow hears from outside only.
pub(crate) struct Listening {
    workflow: Arc<Workflow>,
    /// What its nodes and the engine send.
    sent: HashSet<Arc<str>>,
    /// Failure signals of tools are not known: those that are named like one are taken for one.
    guesses: bool,
    /// Something else is listened to.
    is_open: bool,
}

impl Listening {
    /// `tools` is `None` where it isn't known which tools there are.
    pub(crate) fn of(workflow: &Arc<Workflow>, tools: Option<&ToolSpecs>) -> Self {
        let mut this = Self {
            sent: sent_by_nodes(workflow, tools),
            workflow: workflow.clone(),
            guesses: tools.is_none(),
            is_open: false,
        };
        this.is_open = triggers(workflow).iter().any(|trigger| this.is_from_outside(trigger));
        this
    }

    fn is_from_outside(&self, signal: &Arc<str>) -> bool {
        let is_failure = || {
            let name = signal.to_ascii_uppercase();
            name.contains("FAIL") || name.contains("ERROR")
        };
        !(self.sent.contains(signal) || self.guesses && is_failure())
    }

    /// What somebody else has to send to an execution of the workflow, or can.
    pub(crate) fn awaited(&self, state: &ExecutionState) -> Awaited {
        let mut awaited = Awaited::default();
        if !self.is_open {
            return awaited;
        }
        let operational = &state.context.operational;
        let open = |trigger: &&Arc<str>| self.is_from_outside(trigger) && !operational.signals.contains(trigger);
        let has_run = |name: &Arc<str>| operational.nodes.get(name).is_some();
        let (run, waiting): (Vec<_>, Vec<_>) = self.workflow.nodes.values().partition(|node| has_run(&node.name));
        for trigger in waiting.iter().flat_map(|node| &node.triggers).filter(open) {
            if !awaited.needed.contains(trigger) {
                awaited.needed.push(trigger.clone());
            }
        }
        for trigger in run.iter().flat_map(|node| &node.triggers).filter(open) {
            if !awaited.all().any(|known| known == trigger) {
                awaited.possible.push(trigger.clone());
            }
        }
        if self.is_answered(state) {
            // What is left may be what was not chosen.
            awaited.possible.splice(0..0, std::mem::take(&mut awaited.needed));
        }
        awaited
    }

    /// Whether somebody has answered since it was started, or it has told its parent what came of it.
    fn is_answered(&self, state: &ExecutionState) -> bool {
        let signals = &state.context.operational.signals;
        let parent = state.context.parent.as_ref();
        let has_told = parent.is_some_and(|parent| parent.signals_to_parent.iter().any(|told| signals.contains(told)));
        let heard = |signal: &Arc<str>| self.workflow.nodes.values().any(|node| node.triggers.contains(signal));
        has_told
            || signals
                .iter()
                .skip(1)
                .any(|signal| self.is_from_outside(signal) && heard(signal))
    }
}

/// Every signal that a node listens to, in the order of the file.
pub(crate) fn triggers(workflow: &Workflow) -> Vec<Arc<str>> {
    let mut triggers: Vec<Arc<str>> = Vec::new();
    for trigger in workflow.nodes.values().flat_map(|node| &node.triggers) {
        if !triggers.contains(trigger) {
            triggers.push(trigger.clone());
        }
    }
    triggers
}

fn sent_by_nodes(workflow: &Workflow, tools: Option<&ToolSpecs>) -> HashSet<Arc<str>> {
    let mut sent = HashSet::new();
    let of_tool = |tool: &Arc<str>| tools.and_then(|tools| tools.get(tool))?.failure_signal.clone();
    for node in workflow.nodes.values() {
        sent.extend(node.emissions.iter().map(|emission| emission.signal.clone()));
        match &node.kind {
            NodeKind::Tool(tool) => sent.extend(of_tool(&tool.tool)),
            NodeKind::Llm(llm) => sent.extend(llm.failure_signal.clone()),
            NodeKind::Agent(agent) => sent.extend(agent.llm.failure_signal.clone()),
            NodeKind::Child(child) => {
                sent.extend(child.signals_to_parent.iter().cloned());
                sent.extend(child.failure_signal.clone());
            }
            NodeKind::Router | NodeKind::Custom(_) => {}
        }
    }
    sent
}
