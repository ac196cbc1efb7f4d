//! What happens in children: each line says in which, and of many only how far they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use soe_backends::{Event, EventKind, ExecutionId, Status, TreeState};

use crate::output::safe;

/// From this many children on, not everything that happens in each is shown.
const MANY: u64 = 20;

/// How often it is said how far they are.
const PAUSE: Duration = Duration::from_secs(1);

/// The children of a tree, as far as the log has seen them.
pub(super) struct Children {
    /// All that happens in them is shown, however many there are.
    all: bool,
    /// The nodes that have started them.
    nodes: HashMap<ExecutionId, Arc<str>>,
    started: u64,
    over: u64,
    /// What was said last, and when.
    said: Option<(u64, u64)>,
    at: Instant,
    wants_names: bool,
}

impl Children {
    pub(super) fn new(all: bool) -> Self {
        Self {
            all,
            nodes: HashMap::new(),
            started: 0,
            over: 0,
            said: None,
            at: Instant::now(),
            wants_names: false,
        }
    }

    pub(super) fn know(&mut self, tree: &TreeState) {
        self.wants_names = false;
        let (mut started, mut over) = (0, 0);
        for state in tree.executions.values() {
            let Some(origin) = &state.origin else { continue };
            self.nodes.insert(state.id.clone(), origin.node.clone());
            started += 1;
            over += u64::from(state.status != Status::Running);
        }
        if self.started < started {
            (self.started, self.over) = (started, over);
        }
    }

    pub(super) fn wants_names(&self) -> bool {
        self.wants_names
    }

    /// How the lines of an event begin, and whether it is shown.
    pub(super) fn take(&mut self, event: &Event) -> (String, bool) {
        if let EventKind::ChildStarted { node_name, child, .. } = &event.kind {
            self.nodes.insert(child.clone(), node_name.clone());
            self.started += 1;
        }
        if event.execution.is_root() {
            return (String::new(), !self.is_noise(&event.kind));
        }
        match event.kind {
            EventKind::ExecutionRested {}
            | EventKind::ExecutionFailed { .. }
            | EventKind::ExecutionCancelled { .. } => {
                self.over += 1;
            }
            EventKind::ExecutionResumed { .. } => self.over = self.over.saturating_sub(1),
            _ => {}
        }
        (self.label(&event.execution), !self.is_crowded() || matters(&event.kind))
    }

    fn is_crowded(&self) -> bool {
        !self.all && self.started > MANY
    }

    /// What a parent says of each of many children.
    fn is_noise(&self, kind: &EventKind) -> bool {
        let of_child = matches!(
            kind,
            EventKind::ChildStarted { .. } | EventKind::ContextUpdated { .. } | EventKind::SignalsBroadcast { .. }
        );
        let routes = matches!(kind, EventKind::NodeExecution { run: None, .. });
        self.is_crowded() && self.over < self.started && (of_child || routes)
    }

    /// `[1.3 Fan] `
    fn label(&mut self, execution: &ExecutionId) -> String {
        let root = execution.root();
        let path = execution.path_below(&root).unwrap_or_default();
        match self.nodes.get(execution) {
            Some(node) => format!("[{path} {}] ", safe(node)),
            None => {
                self.wants_names = true;
                format!("[{path}] ")
            }
        }
    }

    /// Whether there is something to say that was not said for a while.
    pub(super) fn is_due(&self) -> bool {
        self.is_crowded() && self.at.elapsed() >= PAUSE && self.said != Some((self.over, self.started))
    }

    /// How far they are, where not each is shown and it wasn't said.
    pub(super) fn progress(&mut self) -> Option<String> {
        let now = (self.over, self.started);
        if !self.is_crowded() || self.said == Some(now) {
            return None;
        }
        self.said = Some(now);
        self.at = Instant::now();
        Some(format!("{} of {} children are over", self.over, self.started))
    }
}

/// What is shown of a child however many there are.
fn matters(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::NodeError { .. }
            | EventKind::ContextWarning { .. }
            | EventKind::PolicyDenied { .. }
            | EventKind::ExecutionFailed { .. }
            | EventKind::ExecutionCancelled { .. }
            | EventKind::ChildFailed { .. }
            | EventKind::AgentToolNotFound { .. }
    )
}
