//! The heart: a pure, synchronous state machine. It takes the state of an execution and one [`Input`], and gives the
//! changes to that state (a [`Commit`]) and the [`Effect`]s to carry out. It does no I/O, reads no clock, draws no random
//! number: times and ids come in.
//!
//! Everything that happens to an execution happens here in one total order, each event completely before the next:
//!
//! * A completion is one event: what the node wrote, its counters, its emission conditions, the broadcast of what it emits,
//!   and the whole cascade of routers that follows.
//! * Routers are evaluated on the live state, depth-first, in the order of the file.
//! * Runs are dispatched on the context as of the end of the event; their effects are performed by the driver, in parallel.
//!
//! So a join condition over a count becomes true in exactly one evaluation, whatever the timing.

mod builtin;
mod cascade;
mod effect;
mod family;
mod fork;
mod input;
mod nodes;
mod resume;
mod transaction;
mod versions;

use std::sync::Arc;

use soe_backends::{
    ApplyError, Batch, Commit, Definitions, ExecutionId, ExecutionState, Frame, Genesis, History, Limits, ParentInfo,
    RegistryDocument, RegistryId, Schedule, Status, Timestamp, Value,
};

use crate::config::{Node, Registry};
use crate::llm::LlmSpecs;
use crate::policy::Policy;
use crate::tools::ToolSpecs;
use cascade::Cursor;
use transaction::Transaction;

#[cfg(feature = "runtime")]
pub(crate) use nodes::could_be_a_childs;

pub use builtin::{BuiltinCall, BuiltinRequest};
pub use effect::{Descend, Effect, LlmCall, NodeRun, Spawn, ToolCall};
pub use fork::Fork;
pub use input::{AnswerContent, Denial, Heard, Input, LlmAnswer, Outcome, ToolFailure};

/// An execution, ready to take inputs.
///
/// Its state is that of the last commit it returned: when a commit can't be stored, the machine is of no use any more.
#[derive(Debug)]
pub struct Machine {
    state: ExecutionState,
    /// The current registry first, then those that runs in flight or frames are pinned to.
    registries: Vec<Arc<Registry>>,
    specs: Specs,
    /// So many of the turns in the state are in their store.
    turns_stored: usize,
    /// Whether the effects of its runs in flight are under way: not yet, if it was loaded.
    under_way: bool,
    /// The cascade in progress: `state.stack` with its listeners looked up.
    stack: Vec<Cursor>,
    /// So many cursors are as they were in the last commit.
    stack_kept: usize,
}

/// So many batches from outside may wait for a run in flight: they are part of the state, and are stored with it.
const MAX_PENDING: usize = 10_000;

/// What an engine has plugged in, as far as the machine has to know.
#[derive(Clone, Debug, Default)]
pub struct Specs {
    /// The tools, built-in ones included.
    pub tools: ToolSpecs,
    /// The LLMs.
    pub llms: LlmSpecs,
    /// Whether turns of conversations go to a store of their own, after the commit. Otherwise they ride in it.
    pub turns_follow: bool,
    /// The node types of the application.
    pub node_types: Arc<[Arc<str>]>,
    /// What workflows may do to themselves.
    pub policy: Policy,
    /// The name under which the engine's process keeps its lease; `None` if it keeps none.
    pub process: Option<Arc<str>>,
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

/// How an execution begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its id.
    pub id: ExecutionId,
    /// The root of its tree; `None` if it is the root itself.
    pub main_execution_id: Option<ExecutionId>,
    /// Its parent, if it is a child.
    pub parent: Option<Arc<ParentInfo>>,
    /// Its workflows.
    pub registry: Arc<Registry>,
    /// The name of the workflow that it runs.
    pub workflow: Arc<str>,
    /// The histories that it starts with. Names that begin with `__` are refused.
    pub fields: Vec<(Arc<str>, History)>,
    /// Identities and context schema, stored for its tree.
    pub definitions: Definitions,
    /// The order in which it runs its nodes.
    pub schedule: Schedule,
    /// What its tree may use.
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
    /// Batches from outside wait for a depth-first execution's run in flight, and more are not taken.
    #[error("{MAX_PENDING} batches of signals wait already; send more when they have been handled")]
    TooManyPending,
    /// The execution takes no signals any more.
    #[error("the execution is {0} and takes no signals")]
    NotAccepting(Status),
    /// A message came from an execution that is no child of this one.
    #[error("execution {0} is no child of this one")]
    NotAChild(ExecutionId),
    /// A message of a child came before one that it has sent earlier.
    #[error("message {number} of child execution {child} came before its message {expected}")]
    OutOfOrder {
        /// The child.
        child: ExecutionId,
        /// The message that came.
        number: u64,
        /// The one that should have.
        expected: u64,
    },
    /// The execution's workflows have no such version, or it is not kept any more.
    #[error("there is no version {0} of its workflows")]
    UnknownVersion(u64),
    /// A registry that the state refers to was not given.
    #[error("registry {0} is needed to go on with the execution")]
    MissingRegistry(RegistryId),
    /// The machine contradicted itself: a defect of the engine. The execution must be loaded again.
    #[error("the engine contradicted itself; load the execution again")]
    Broken(#[from] ApplyError),
}

fn listed(workflows: &[Arc<str>]) -> String {
    match workflows {
        [] => "are no workflows".to_owned(),
        [only] => format!("is only '{only}'"),
        many => format!("are '{}'", many.join("', '")),
    }
}

impl Machine {
    /// Creates an execution, and starts it if it has first signals. The step's commit is its first.
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
        let signals = if start.signals.is_empty() {
            None
        } else {
            Some(check_signals(start.signals)?)
        };
        let genesis = Genesis {
            workflow: start.workflow.clone(),
            registry: start.registry.id.clone(),
            main_execution_id: start.main_execution_id.unwrap_or_else(|| start.id.clone()),
            parent: start.parent,
            schedule: start.schedule,
            limits: start.limits,
            fields: start.fields,
            context_bytes,
            forked: None,
        };
        let document = RegistryDocument {
            id: start.registry.id.clone(),
            workflows: start.registry.document.clone(),
        };
        let state = ExecutionState::genesis(start.id, &genesis, at);
        let mut machine = Self::of(state, vec![start.registry], specs.into());

        let mut transaction = Transaction::begin(&mut machine, at);
        transaction.created(genesis);
        transaction.begin_events(start.workflow, start.inherited);
        if let Some(signals) = signals {
            transaction.broadcast(signals)?;
        }
        let mut step = transaction.end()?;
        if let Some(commit) = &mut step.commit {
            commit.registry = Some(Arc::new(document));
            let defined = start.definitions != Definitions::default();
            commit.definitions = defined.then(|| Box::new(start.definitions));
        }
        Ok((machine, step))
    }

    /// Takes up a stored execution. `registries` are the current one and those that its runs and its stack refer to:
    /// [`Machine::needed_registries`].
    ///
    /// # Errors
    /// [`MachineError::MissingRegistry`] if one was not given.
    pub fn load(
        state: ExecutionState,
        registries: Vec<Arc<Registry>>,
        specs: impl Into<Specs>,
    ) -> Result<Self, MachineError> {
        let mut machine = Self::of(state, registries, specs.into());
        machine.under_way = false;
        for id in Self::needed_registries(&machine.state) {
            machine.registry(&id).ok_or(MachineError::MissingRegistry(id))?;
        }
        machine.look_up_stack()?;
        Ok(machine)
    }

    /// Looks up what the cascade that is in the state has still to do.
    fn look_up_stack(&mut self) -> Result<(), ApplyError> {
        let cursors = self.state.stack.iter().map(|frame| self.cursor(frame));
        self.stack = cursors.collect::<Option<_>>().ok_or(ApplyError::Mismatch(
            "its stack refers to a workflow that the registry doesn't have",
        ))?;
        self.stack_kept = self.stack.len();
        Ok(())
    }

    fn of(state: ExecutionState, registries: Vec<Arc<Registry>>, specs: Specs) -> Self {
        Self {
            state,
            registries,
            specs,
            turns_stored: 0,
            under_way: true,
            stack: Vec::new(),
            stack_kept: 0,
        }
    }

    /// The registries that are needed to go on with an execution, the current one first.
    pub fn needed_registries(state: &ExecutionState) -> Vec<RegistryId> {
        let mut needed = vec![state.registry.clone()];
        let pinned = state
            .runs
            .values()
            .map(|run| &run.registry)
            .chain(state.stack.iter().map(|frame| &frame.registry));
        for id in pinned {
            if !needed.contains(id) {
                needed.push(id.clone());
            }
        }
        needed
    }

    /// The state as of the last commit.
    pub fn state(&self) -> &ExecutionState {
        &self.state
    }

    /// The driver has put so many more turns of [`Effect::StoreTurns`] into their store. The next commit forgets them.
    pub fn turns_stored(&mut self, count: usize) {
        self.turns_stored += count;
    }

    /// Takes one input, completely.
    ///
    /// # Errors
    /// The input is refused: the state is as before. [`MachineError::Broken`] is a defect: the machine is of no use any more.
    pub fn step(&mut self, at: Timestamp, input: Input) -> Result<Step, MachineError> {
        let mut transaction = Transaction::begin(self, at);
        match input {
            Input::Broadcast(signals) => {
                let signals = check_signals(signals)?;
                if !transaction.state().status.accepts_signals() {
                    return Err(MachineError::NotAccepting(transaction.state().status));
                }
                if transaction.state().pending.len() >= MAX_PENDING {
                    return Err(MachineError::TooManyPending);
                }
                transaction.accept(signals)?;
            }
            Input::Completed { run, attempt, outcome } => transaction.complete(run, attempt, outcome)?,
            Input::Granted { run, call, denied } => transaction.granted(run, call, denied)?,
            Input::Asked { run, call } => transaction.custom_asked(run, call)?,
            Input::Replied { run, call, usage } => transaction.custom_replied(run, call, usage)?,
            Input::Builtin(call) => transaction.builtin(&call)?,
            Input::Revert { to, registry } => transaction.revert(to, registry)?,
            Input::FromChild { child, message } => {
                if transaction.child(&child).is_none() {
                    return Err(MachineError::NotAChild(child));
                }
                transaction.receive(child, message)?;
            }
            Input::Acknowledged { number } => transaction.acknowledged(number)?,
            Input::Suspend => transaction.suspend()?,
            Input::Resume { limits, parent } => {
                if transaction.state().status == Status::Cancelled && parent.is_none() {
                    return Err(MachineError::NotAccepting(Status::Cancelled));
                }
                transaction.resume(limits, parent)?;
            }
            Input::Settled => transaction.settled()?,
            Input::Continue => transaction.cascade()?,
            Input::Recover if transaction.machine.under_way => {}
            Input::Recover => transaction.recover()?,
            Input::LimitExceeded { limit, message } => transaction.fail_for_limit(limit, message)?,
            Input::Cancel => transaction.cancel()?,
        }
        Ok(transaction.end()?)
    }

    fn registry(&self, id: &RegistryId) -> Option<&Arc<Registry>> {
        self.registries.iter().find(|registry| registry.id == *id)
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
        let workflow = self.registry(&frame.registry)?.workflows.get(&self.state.workflow);
        let listeners = workflow
            .map(|workflow| workflow.listeners(&frame.signals))
            .unwrap_or_default();
        Some(Cursor {
            signals: frame.signals.clone(),
            registry: frame.registry.clone(),
            listeners,
            next: frame.next,
            then: frame.then.clone(),
        })
    }
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
