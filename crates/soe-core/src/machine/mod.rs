//! The heart: a pure, synchronous state machine. It takes the state of an execution tree and one [`Input`], and gives the
//! changes to that state (a [`Commit`]) and the [`Effect`]s to carry out. It does no I/O, reads no clock, draws no random
//! number: times and ids come in.
//!
//! Everything that happens in a tree happens here in one total order, each event completely before the next. Between executions
//! there are no messages: what a child has for its parent, and what follows from that, is part of the same event.
//!
//! # The order within an event
//!
//! | first | then | then |
//! |---|---|---|
//! | the execution in which it happened, with its whole cascade of routers | its deliveries to its parent, in their order, each with the parent's whole cascade; and so on upwards | children are created, each with its own cascade and deliveries |
//!
//! (In a depth-first tree a delivery is taken as soon as the child's own listeners are done, and a child is created as soon as its
//! node is visited: there it is the order of a synchronous recursion.) What is dispatched reads the context as it is when the
//! first two columns are empty. An event that takes more than 1,000 pure steps is cut into a chain of commits: the rest of the
//! work list is part of the state.
//!
//! So a join condition over a count becomes true in exactly one evaluation, whatever the timing, also over children.

mod builtin;
mod cascade;
mod deliver;
mod drain;
mod effect;
mod ends;
mod fork;
mod input;
mod needs;
mod nodes;
mod rest;
mod resume;
mod transaction;
mod versions;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use soe_backends::{
    ApplyError, Batch, Change, Commit, Definitions, ExecutionId, Frame, Genesis, History, Limits, Owed,
    RegistryDocument, RegistryId, Schedule, Sections, Status, Timestamp, TreeGenesis, TreeState, Value,
};

use crate::config::{Node, Registry};
use crate::llm::LlmSpecs;
use crate::policy::Policy;
use crate::tools::ToolSpecs;
use cascade::Cursor;
use transaction::Transaction;

pub use builtin::{BuiltinCall, BuiltinRequest};
pub use effect::{Effect, LlmCall, NodeRun, Target, ToolCall};
pub use fork::Fork;
pub use input::{AnswerContent, Denial, Input, LlmAnswer, Outcome, ToolFailure};

/// An execution tree, ready to take inputs.
///
/// Its state is that of the last commit it returned: when a commit can't be stored, the machine is of no use any more.
#[derive(Debug)]
pub struct Machine {
    state: TreeState,
    registries: HashMap<RegistryId, Arc<Registry>>,
    specs: Specs,
    /// Whether the effects of its runs in flight are under way: not yet, if it was loaded.
    under_way: bool,
    /// The stack of the work list with its listeners looked up.
    stack: Vec<Cursor>,
    /// How many cursors are as they were in the last commit.
    stack_kept: usize,
    /// In a depth-first tree, the runs that everything waits for: those in flight that start no children.
    awaited: BTreeSet<(u64, u64)>,
    /// What stores of their own were given since the last commit.
    paid: Owed,
}

/// How many batches from outside may wait: they are part of the state, and are stored with it.
const MAX_ACCEPTED: usize = 10_000;

/// What an engine has plugged in, as far as the machine has to know.
#[derive(Clone, Debug)]
pub struct Specs {
    /// The tools, built-in ones included.
    pub tools: ToolSpecs,
    /// The LLMs.
    pub llms: LlmSpecs,
    /// Which sections of a commit are stored with it. The others are owed to stores of their own.
    pub sections: Sections,
    /// The node types of the application.
    pub node_types: Arc<[Arc<str>]>,
    /// What workflows may do to themselves.
    pub policy: Policy,
    /// The name under which the engine's process keeps its lease; `None` if it keeps none.
    pub process: Option<Arc<str>>,
    /// How much of a long event goes into one commit.
    pub pace: Pace,
}

/// How much of a long event goes into one commit: then the driver gets its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Routers and children. Default 1,000.
    pub steps: usize,
    /// Children of one run. Default 256.
    pub children: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            steps: 1_000,
            children: 256,
        }
    }
}

impl Default for Specs {
    fn default() -> Self {
        Self {
            tools: ToolSpecs::default(),
            llms: LlmSpecs::default(),
            sections: Sections::ALL,
            node_types: Arc::default(),
            policy: Policy::default(),
            process: None,
            pace: Pace::default(),
        }
    }
}

impl From<ToolSpecs> for Specs {
    fn from(tools: ToolSpecs) -> Self {
        Self {
            tools,
            ..Self::default()
        }
    }
}

/// What one input leads to.
#[derive(Debug)]
#[must_use = "effects are performed after the commit is stored"]
pub struct Step {
    /// What changes; `None` if nothing does.
    pub commit: Option<Commit>,
    /// What is to be done once the commit is stored, in order.
    pub effects: Vec<Effect>,
}

/// How a tree begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// The id of its root.
    pub id: ExecutionId,
    /// Its workflows.
    pub registry: Arc<Registry>,
    /// The name of the workflow that it runs.
    pub workflow: Arc<str>,
    /// The histories that it starts with. Names that begin with `__` are refused.
    pub fields: Vec<(Arc<str>, History)>,
    /// Identities and context schema.
    pub definitions: Definitions,
    /// The order in which it runs its nodes.
    pub schedule: Schedule,
    /// What it may use.
    pub limits: Arc<Limits>,
    /// The first signals; none to prepare an execution without starting it.
    pub signals: Vec<Arc<str>>,
    /// Where what it starts with came from, for its events.
    pub inherited: Inherited,
}

/// What an execution has inherited of others. It is in its [`Start`] already: this only says where it came from.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    /// The execution that workflows, identities or context schema were copied from.
    pub config_from: Option<ExecutionId>,
    /// The execution that histories were copied from.
    pub context_from: Option<ExecutionId>,
    /// The fields that values were appended to which the execution was given besides.
    pub merged: Vec<Arc<str>>,
}

/// Why the machine didn't take an input. The state is as before, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The workflow isn't in the registry.
    #[error("workflow '{workflow}' not found in config; there {}", listed(.available))]
    UnknownWorkflow {
        /// The workflow that was asked for.
        workflow: Arc<str>,
        /// Those that there are.
        available: Vec<Arc<str>>,
    },
    /// A field of the initial context has a reserved name.
    #[error("context field '{0}' is reserved: names that begin with '__' belong to the engine")]
    ReservedField(Arc<str>),
    /// The initial context exceeds a limit.
    #[error("the initial context exceeds the limit {limit} of {allowed} bytes: {what} has {size}")]
    TooLarge {
        /// The limit's name in [`Limits`].
        limit: &'static str,
        /// The limit, in bytes.
        allowed: u64,
        /// What is too large.
        what: String,
        /// Its size, in bytes.
        size: u64,
    },
    /// A value of the initial context is nested too deep.
    #[error("a value of field '{0}' is nested deeper than {max} levels", max = Value::MAX_DEPTH)]
    TooDeep(Arc<str>),
    /// The batch is empty, or has an empty name in it.
    #[error("there must be at least one signal, and none with an empty name")]
    NoSignals,
    /// Batches from outside wait, and more are not taken.
    #[error("{MAX_ACCEPTED} batches of signals wait already; send more when they have been handled")]
    TooManyAccepted,
    /// The execution takes no signals any more.
    #[error("the execution is {0} and takes no signals")]
    NotAccepting(Status),
    /// The tree has no such execution.
    #[error("there is no such execution in this tree")]
    NoSuchExecution,
    /// An execution above the one that is to go on has ended: that one is to be resumed.
    #[error("execution {0}, which is above it, is {1}{help}", help = resume_help(.1))]
    EndedAbove(ExecutionId, Status),
    /// A limit doesn't allow it.
    #[error("{0}")]
    Denied(Denial),
    /// The execution's workflows have no such version, or it is not kept any more.
    #[error("there is no version {0} of its workflows")]
    UnknownVersion(u64),
    /// A registry that the state refers to was not given.
    #[error("registry {0} is needed to go on with the tree")]
    MissingRegistry(RegistryId),
    /// The machine contradicted itself: a defect of the engine. The tree must be loaded again.
    #[error("the engine contradicted itself; load the tree again")]
    Broken(#[from] ApplyError),
}

fn listed(workflows: &[Arc<str>]) -> String {
    match workflows {
        [] => "are no workflows".to_owned(),
        [only] => format!("is only '{only}'"),
        many => format!("are '{}'", many.join("', '")),
    }
}

fn resume_help(status: &Status) -> &'static str {
    match status {
        Status::Cancelled => "",
        _ => ": resume that one",
    }
}

impl Machine {
    /// Creates a tree, and starts its root if there are first signals. The step's commit is its first.
    ///
    /// # Errors
    /// The workflow doesn't exist, or the initial context is refused.
    pub fn start(at: Timestamp, start: Start, specs: impl Into<Specs>) -> Result<(Self, Step), MachineError> {
        if !start.registry.workflows.contains_key(&start.workflow) {
            let available = start.registry.workflows.keys().cloned().collect();
            return Err(MachineError::UnknownWorkflow {
                workflow: start.workflow,
                available,
            });
        }
        let context_bytes = check_fields(&start.fields, &start.limits)?;
        let signals = match start.signals.is_empty() {
            true => None,
            false => Some(check_signals(start.signals)?),
        };
        let definitions = Arc::new(start.definitions);
        let genesis = TreeGenesis {
            schedule: start.schedule,
            limits: start.limits,
            definitions: definitions.clone(),
            root: Genesis {
                id: start.id.clone(),
                origin: None,
                workflow: start.workflow.clone(),
                registry: start.registry.id.clone(),
                parent: None,
                fields: start.fields,
                context_bytes,
            },
        };
        let document = document_of(&start.registry);
        let state = TreeState::genesis(start.id, &genesis, at);
        let mut machine = Self::of(state, vec![start.registry], specs.into());

        let mut transaction = Transaction::begin(&mut machine, at);
        transaction.created(Change::Created(Box::new(genesis)));
        transaction.registries.push(document);
        if *definitions != Definitions::default() {
            transaction.definitions = Some(definitions);
        }
        transaction.begin_events(start.workflow, start.inherited);
        if let Some(signals) = signals {
            transaction.broadcast(signals)?;
            transaction.drain()?;
        }
        let step = transaction.end()?;
        Ok((machine, step))
    }

    /// Takes up a stored tree. `registries` are those that its executions, their runs and its work list refer to:
    /// [`TreeState::needed_registries`].
    ///
    /// # Errors
    /// [`MachineError::MissingRegistry`] if one was not given.
    pub fn load(
        state: TreeState,
        registries: Vec<Arc<Registry>>,
        specs: impl Into<Specs>,
    ) -> Result<Self, MachineError> {
        let mut machine = Self::of(state, registries, specs.into());
        machine.under_way = false;
        for id in machine.state.needed_registries() {
            machine.registry(&id).ok_or(MachineError::MissingRegistry(id))?;
        }
        machine.look_up_stack()?;
        Ok(machine)
    }

    /// Looks up the listeners of the work list's stack.
    fn look_up_stack(&mut self) -> Result<(), ApplyError> {
        let cursors = self.state.work.stack.iter().map(|frame| self.cursor(frame));
        self.stack = cursors.collect::<Option<_>>().ok_or(ApplyError::Mismatch(
            "its work list refers to a workflow that the registry doesn't have",
        ))?;
        self.stack_kept = self.stack.len();
        Ok(())
    }

    fn of(state: TreeState, registries: Vec<Arc<Registry>>, specs: Specs) -> Self {
        let registries = registries.into_iter().map(|registry| (registry.id.clone(), registry));
        Self {
            state,
            registries: registries.collect(),
            specs,
            under_way: true,
            stack: Vec::new(),
            stack_kept: 0,
            awaited: BTreeSet::new(),
            paid: Owed::default(),
        }
    }

    /// The state as of the last commit.
    pub fn state(&self) -> &TreeState {
        &self.state
    }

    /// Stores of their own were given what an [`Effect::Pay`] says. The next commit forgets it.
    pub fn paid(&mut self, owed: &Owed) {
        self.paid.definitions |= owed.definitions;
        self.paid.turns.extend_from_slice(&owed.turns);
        self.paid.events.extend_from_slice(&owed.events);
    }

    /// Whether an input can be taken now. Between the commits of a long event, what happens in an execution that has a part in it,
    /// or in one above it, has to wait; ends and signals don't. The driver gives it again after the next commit.
    pub fn can_take(&self, input: &Input) -> bool {
        match input.waits_for_chain() {
            Some(execution) => !self.has_part_in_chain(execution),
            None => true,
        }
    }

    /// Whether an execution, or one below it, is in the middle of an event.
    fn has_part_in_chain(&self, execution: u64) -> bool {
        if self.state.schedule == Schedule::DepthFirst {
            return false;
        }
        let within = |number| self.state.is_within(number, execution);
        let parent_of = |child: u64| self.state.get(child).and_then(|child| child.parent());
        let mut deliveries = self.state.work.deliveries.iter();
        self.stack.iter().any(|cursor| within(cursor.execution))
            || deliveries.any(|delivery| parent_of(delivery.child).is_some_and(within))
    }

    /// Takes one input, completely.
    ///
    /// # Errors
    /// The input is refused: the state is as before. [`MachineError::Broken`] is a defect: the machine is of no use any more.
    pub fn step(&mut self, at: Timestamp, input: Input) -> Result<Step, MachineError> {
        let mut transaction = Transaction::begin(self, at);
        transaction.take(input)?;
        Ok(transaction.end()?)
    }

    fn registry(&self, id: &RegistryId) -> Option<&Arc<Registry>> {
        self.registries.get(id)
    }

    /// Keeps a compiled registry at hand.
    fn keep(&mut self, registry: Arc<Registry>) {
        self.registries.insert(registry.id.clone(), registry);
    }

    /// The node that a run is pinned to.
    fn node(&self, registry: &RegistryId, workflow: &str, node: &str) -> Option<Arc<Node>> {
        self.registry(registry)?
            .workflows
            .get(workflow)?
            .nodes
            .get(node)
            .cloned()
    }

    fn cursor(&self, frame: &Frame) -> Option<Cursor> {
        // The workflow may have been removed.
        let execution = self.state.get(frame.execution)?;
        let workflow = self.registry(&frame.registry)?.workflows.get(&execution.workflow);
        let listeners = workflow
            .map(|workflow| workflow.listeners(&frame.signals))
            .unwrap_or_default();
        Some(Cursor {
            execution: frame.execution,
            signals: frame.signals.clone(),
            registry: frame.registry.clone(),
            listeners,
            next: frame.next,
            then: frame.then.clone(),
        })
    }
}

fn document_of(registry: &Registry) -> Arc<RegistryDocument> {
    Arc::new(RegistryDocument {
        id: registry.id.clone(),
        workflows: registry.document.clone(),
    })
}

fn check_signals(signals: Vec<Arc<str>>) -> Result<Batch, MachineError> {
    if signals.is_empty() || signals.iter().any(|signal| signal.is_empty()) {
        return Err(MachineError::NoSignals);
    }
    Ok(signals.into())
}

/// Checks an initial context; gives its size.
fn check_fields(fields: &[(Arc<str>, History)], limits: &Limits) -> Result<u64, MachineError> {
    let mut total = 0_u64;
    for (name, history) in fields {
        if name.starts_with("__") {
            return Err(MachineError::ReservedField(name.clone()));
        }
        for value in history.iter() {
            let Ok(size) = value.size_within(u64::MAX, Value::MAX_DEPTH) else {
                return Err(MachineError::TooDeep(name.clone()));
            };
            if size > limits.value_bytes {
                let what = format!("a value of field '{name}'");
                return Err(MachineError::TooLarge {
                    limit: "value_bytes",
                    allowed: limits.value_bytes,
                    what,
                    size,
                });
            }
            total = total.saturating_add(size);
        }
    }
    if total > limits.context_bytes {
        let (allowed, what) = (limits.context_bytes, "the whole context".to_owned());
        return Err(MachineError::TooLarge {
            limit: "context_bytes",
            allowed,
            what,
            size: total,
        });
    }
    Ok(total)
}
