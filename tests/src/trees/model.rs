//! What should happen in a tree, told as simply as possible: a recursive interpreter over plain data.
//!
//! It shares nothing with the machine but the text of the contract: no stack, no commits, no work list that is cut. Where the
//! machine makes a chain of commits, it is ahead.

use std::collections::{BTreeMap, VecDeque};

use indexmap::IndexMap;
use soe_backends::{Schedule, Status, TreeTotals, Used, Value};

use super::flow::{Child, Cond, Flow, Grove, Kind, Name, Node, ROOT};
use super::talk::Talk;

/// The expected state of a tree.
#[derive(Debug)]
pub struct Model<'g> {
    pub(super) grove: &'g Grove,
    pub(super) schedule: Schedule,
    /// Its executions, in the order of creation.
    pub execs: Vec<Exec<'g>>,
    /// What all of them have used.
    pub used: Used,
    /// What children have for their parents.
    pub(super) deliveries: VecDeque<Delivery>,
    /// What failed executions are told when they are resumed.
    pub(super) kept: Vec<Delivery>,
    pub(super) spawns: VecDeque<(usize, u64)>,
    pub(super) fresh: Vec<(usize, u64)>,
    /// In a depth-first tree: signals that wait, those that come after so many answers, and how many there were.
    pub(super) accepted: VecDeque<(usize, Vec<Name>)>,
    pub(super) later: BTreeMap<u64, Vec<(String, Vec<Name>)>>,
    pub(super) answers: u64,
    /// The executions that something of the recursion is about: they don't rest.
    pub(super) within: Vec<usize>,
    /// In a depth-first tree: whether what has failed is resumed at once.
    pub(super) resumes: bool,
}

/// The expected state of an execution.
#[derive(Debug)]
pub struct Exec<'g> {
    /// Its id.
    pub id: String,
    /// Its name by what started it.
    pub path: String,
    /// Its parent, with the node that started it.
    pub parent: Option<(usize, &'g Child)>,
    pub(super) flow: &'g Flow,
    /// Where it stands by itself.
    pub own: Status,
    /// The histories.
    pub fields: BTreeMap<Name, Vec<Value>>,
    /// The recorded signals.
    pub signals: Vec<Name>,
    /// The runs by node.
    pub nodes: IndexMap<Name, u64>,
    /// Runs in flight.
    pub runs: BTreeMap<u64, InFlight<'g>>,
    /// The number of the next run.
    pub next_run: u64,
    /// What it has used by itself; and failed attempts.
    pub own_use: (TreeTotals, u64),
    /// What it and those below it have used, as far as it knows.
    pub totals: TreeTotals,
    pub(super) sent: TreeTotals,
    /// What waits for the parent.
    pub unsent: Vec<(Name, Value)>,
}

/// A run in flight.
#[derive(Debug)]
pub struct InFlight<'g> {
    pub(super) node: &'g Node,
    /// Its name.
    pub name: String,
    /// What it reads, as far as it is told: the length of a field, and the number of signals.
    pub reads: (usize, usize),
    pub(super) given: Vec<(Name, Value)>,
    pub(super) failed: u32,
    /// Whether it has failed its execution, and was not tried again.
    pub(super) has_failed: bool,
    pub(super) how: How,
}

/// How far a run is.
#[derive(Debug)]
pub(super) enum How {
    /// A tool or custom node, in this attempt.
    Attempt(u32),
    /// It asks an LLM.
    Asks(Talk),
    /// It starts children: how many there will be, how many there are, and whether the next is not due yet.
    Starts {
        total: Option<u64>,
        created: u64,
        waits: bool,
    },
}

/// What is in flight for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// An attempt of a tool or custom node.
    Attempt(u64, u32),
    /// A request to an LLM.
    Reply(u64, u32),
    /// An attempt of an agent's call of a tool.
    Call(u64, u32, u32),
    /// The time until the next child.
    Due(u64),
}

impl Task {
    /// The run.
    pub fn run(self) -> u64 {
        let (Task::Attempt(run, _) | Task::Reply(run, _) | Task::Call(run, ..) | Task::Due(run)) = self;
        run
    }

    /// The same of another run.
    #[must_use]
    pub fn of(self, other: impl Fn(u64) -> u64) -> Self {
        match self {
            Task::Attempt(run, attempt) => Task::Attempt(other(run), attempt),
            Task::Reply(run, call) => Task::Reply(other(run), call),
            Task::Call(run, index, attempt) => Task::Call(other(run), index, attempt),
            Task::Due(run) => Task::Due(other(run)),
        }
    }
}

#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) child: usize,
    pub(super) signals: Vec<Name>,
    pub(super) values: Vec<(Name, Value)>,
    pub(super) used: TreeTotals,
    pub(super) failed: bool,
}

impl<'g> Model<'g> {
    /// A tree that was only created.
    pub fn new(grove: &'g Grove, schedule: Schedule) -> Self {
        let mut model = Self {
            grove,
            schedule,
            execs: Vec::new(),
            used: Used::default(),
            deliveries: VecDeque::new(),
            kept: Vec::new(),
            spawns: VecDeque::new(),
            fresh: Vec::new(),
            accepted: VecDeque::new(),
            later: BTreeMap::new(),
            answers: 0,
            within: Vec::new(),
            resumes: false,
        };
        let root = model.exec("x".into(), "x".into(), None, ROOT);
        model.execs[root].own = Status::Prepared;
        let fields = grove.fields.iter();
        model.execs[root].fields = fields
            .map(|(name, value)| (name.clone(), vec![value.clone()]))
            .collect();
        model
    }

    pub(super) fn exec(&mut self, id: String, path: String, parent: Option<(usize, &'g Child)>, of: &str) -> usize {
        self.execs.push(Exec {
            id,
            path,
            parent,
            flow: &self.grove.flows[of],
            own: Status::Running,
            fields: BTreeMap::new(),
            signals: Vec::new(),
            nodes: IndexMap::new(),
            runs: BTreeMap::new(),
            next_run: 1,
            own_use: Default::default(),
            totals: TreeTotals::default(),
            sent: TreeTotals::default(),
            unsent: Vec::new(),
        });
        self.execs.len() - 1
    }

    pub(super) fn depth_first(&self) -> bool {
        self.schedule == Schedule::DepthFirst
    }

    /// The executions from this one upwards.
    pub(super) fn upwards(&self, exec: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(exec), |exec| Some(self.execs[*exec].parent?.0))
    }

    /// Where an execution stands.
    pub fn status(&self, exec: usize) -> Status {
        let own = self.execs[exec].own;
        if matches!(own, Status::Failed | Status::Cancelled) {
            return own;
        }
        for above in self.upwards(exec).skip(1) {
            match self.execs[above].own {
                Status::Failed => return Status::Suspended,
                Status::Cancelled => return Status::Cancelled,
                _ => {}
            }
        }
        own
    }

    pub(super) fn is_running(&self, exec: usize) -> bool {
        self.status(exec) == Status::Running
    }

    pub(super) fn wake(&mut self, exec: usize) {
        let mut next = Some(exec);
        while let Some(exec) = next {
            let state = &mut self.execs[exec];
            if matches!(state.own, Status::Running | Status::Failed | Status::Cancelled) {
                return;
            }
            state.own = Status::Running;
            next = state.parent.map(|(parent, _)| parent);
        }
    }

    /// Broadcasts a batch within an event.
    pub(super) fn broadcast(&mut self, exec: usize, batch: &[Name]) {
        if batch.is_empty() || !self.is_running(exec) {
            return;
        }
        self.used.broadcasts += 1;
        let state = &mut self.execs[exec];
        state.signals.extend_from_slice(batch);
        let flow = state.flow;
        let up = state.parent.map_or(&[][..], |(_, child)| &child.signals);
        let passed: Vec<Name> = batch.iter().filter(|signal| up.contains(signal)).cloned().collect();
        // What a child has for its parent is said before what its listeners make of it, or after, where they end first.
        if !self.depth_first() {
            self.send(exec, &passed);
        }
        self.within.push(exec);
        for node in &flow.nodes {
            if node.listens(batch) && self.is_running(exec) {
                self.visit(exec, node);
            }
        }
        self.within.pop();
        if self.depth_first() && self.is_running(exec) {
            self.send(exec, &passed);
        }
    }

    fn send(&mut self, exec: usize, signals: &[Name]) {
        if !signals.is_empty() {
            self.tell(exec, signals.to_vec(), false);
        }
    }

    /// Tells the parent, with all that waits for it.
    pub(super) fn tell(&mut self, exec: usize, signals: Vec<Name>, failed: bool) {
        let state = &mut self.execs[exec];
        if state.parent.is_none() {
            return;
        }
        let used = state.totals.since(state.sent);
        state.sent = state.totals;
        let values = std::mem::take(&mut state.unsent);
        let delivery = Delivery {
            child: exec,
            signals,
            values,
            used,
            failed,
        };
        match self.depth_first() {
            true => self.deliver(delivery),
            false => self.deliveries.push_back(delivery),
        }
    }

    pub(super) fn deliver(&mut self, delivery: Delivery) {
        let Some((parent, child)) = self.execs[delivery.child].parent else {
            return;
        };
        match self.status(parent) {
            Status::Failed | Status::Suspended => return self.kept.push(delivery),
            Status::Cancelled => return,
            _ => {}
        }
        self.take_values(parent, delivery.used, delivery.values);
        if delivery.failed {
            self.wake(parent);
            self.execs[parent].own_use.1 += 1;
            match &child.failure {
                Some(signal) => self.broadcast(parent, std::slice::from_ref(signal)),
                None => self.fail(parent),
            }
        }
        if !delivery.signals.is_empty() {
            self.wake(parent);
            self.broadcast(parent, &delivery.signals);
        }
    }

    pub(super) fn take_values(&mut self, exec: usize, used: TreeTotals, values: Vec<(Name, Value)>) {
        let totals = &mut self.execs[exec].totals;
        totals.llm_calls += used.llm_calls;
        totals.tool_calls += used.tool_calls;
        totals.tokens += used.tokens;
        totals.children += used.children;
        for (field, value) in values {
            self.write(exec, Some(&field), value);
        }
    }

    pub(super) fn write(&mut self, exec: usize, field: Option<&Name>, value: Value) {
        let Some(field) = field else { return };
        let state = &mut self.execs[exec];
        if state.parent.is_some_and(|(_, child)| child.updates.contains(field)) {
            state.unsent.push((field.clone(), value.clone()));
        }
        state.fields.entry(field.clone()).or_default().push(value);
    }

    /// Fails an execution: what is below it stops.
    pub(super) fn fail(&mut self, exec: usize) {
        if !self.status(exec).accepts_signals() {
            return;
        }
        self.wake(exec);
        self.execs[exec].own = Status::Failed;
        self.stop(exec);
        self.tell(exec, Vec::new(), true);
    }

    pub(super) fn is_within(&self, exec: usize, above: usize) -> bool {
        self.upwards(exec).any(|each| each == above)
    }

    pub(super) fn stop(&mut self, exec: usize) {
        let spawns = std::mem::take(&mut self.spawns);
        self.spawns = spawns
            .into_iter()
            .filter(|(of, _)| !self.is_within(*of, exec))
            .collect();
        for delivery in std::mem::take(&mut self.deliveries) {
            let to = self.execs[delivery.child].parent.map_or(0, |(parent, _)| parent);
            match self.is_within(to, exec) {
                true => self.kept.push(delivery),
                false => self.deliveries.push_back(delivery),
            }
        }
    }

    /// The signals that a node emits now.
    pub(super) fn passing(&self, exec: usize, node: &Node) -> Vec<Name> {
        let state = &self.execs[exec];
        let length = |field: &Name| state.fields.get(field).map_or(0, Vec::len);
        let passes = |cond: &Cond| match cond {
            Cond::Always => true,
            Cond::Seen(signals) => signals.iter().all(|signal| state.signals.contains(signal)),
            Cond::Count(field, count) => length(field) == *count,
            Cond::Fewer(field, count) => length(field) < *count,
        };
        let passed = node.emits.iter().filter(|(_, cond)| passes(cond));
        passed.map(|(signal, _)| signal.clone()).collect()
    }

    fn visit(&mut self, exec: usize, node: &'g Node) {
        self.used.runs += 1;
        let state = &mut self.execs[exec];
        let before = state.nodes.entry(node.name.clone()).or_default();
        *before += 1;
        let name = format!("{}/{}{}", state.path, node.name, *before - 1);
        let how = match &node.kind {
            Kind::Router => {
                let signals = self.passing(exec, node);
                return self.broadcast(exec, &signals);
            }
            Kind::Tool { .. } | Kind::Custom { .. } => How::Attempt(1),
            Kind::Llm(_) => How::Asks(Talk::default()),
            Kind::Child(_) => How::Starts {
                total: None,
                created: 0,
                waits: false,
            },
        };
        if matches!(node.kind, Kind::Tool { .. }) {
            self.count_tool_call(exec);
        }
        let state = &mut self.execs[exec];
        let number = state.next_run;
        state.next_run += 1;
        let run = InFlight {
            node,
            name,
            reads: (0, 0),
            given: Vec::new(),
            failed: 0,
            has_failed: false,
            how,
        };
        state.runs.insert(number, run);
        self.fresh.push((exec, number));
        if self.depth_first() {
            self.begin_runs();
            self.run_to_its_end(exec, number);
        }
    }

    pub(super) fn count_tool_call(&mut self, exec: usize) {
        let state = &mut self.execs[exec];
        state.own_use.0.tool_calls += 1;
        state.totals.tool_calls += 1;
        self.used.tool_calls += 1;
    }
}
