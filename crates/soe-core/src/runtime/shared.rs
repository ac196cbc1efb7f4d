//! What all parts of an engine share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use soe_backends::{Backends, ExecutionId, ExecutionState, Limits, Status, Timestamp, Told, TreeTotals, Usage, Value};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::budget::{Budget, Budgets};
use super::events::Subscribers;
use super::lease::Lease;
use super::registries::Registries;
use super::tokens::Onlookers;
use super::{EngineError, EngineErrorKind};
use crate::config::Registry;
use crate::llm::Llms;
use crate::machine::{BuiltinCall, Denial, Input, Outcome, Specs, ToolFailure};
use crate::nodes::NodeTypes;
use crate::policy::Policy;
use crate::tools::{ToolRegistry, builtin};

pub(super) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What an engine was built with.
pub(super) struct Settings {
    pub(super) backends: Backends,
    pub(super) tools: ToolRegistry,
    pub(super) nodes: NodeTypes,
    pub(super) llms: Llms,
    pub(super) limits: Arc<Limits>,
    pub(super) max_tasks: Option<usize>,
    pub(super) max_llm_calls: Option<usize>,
    pub(super) clock: Clock,
    pub(super) policy: Policy,
    pub(super) lease: Duration,
}

pub(super) struct Shared {
    pub(super) backends: Backends,
    pub(super) tools: ToolRegistry,
    pub(super) specs: Specs,
    pub(super) nodes: NodeTypes,
    pub(super) llms: Llms,
    /// Those who look on while LLMs reply.
    pub(super) tokens: Onlookers,
    pub(super) limits: Arc<Limits>,
    pub(super) clock: Clock,
    pub(super) permits: Permits,
    /// The lease on what it runs; `None` if the store keeps none.
    pub(super) lease: Option<Lease>,
    /// How many batches of signals sent by nodes may still be on their way.
    pub(super) signals: Arc<Semaphore>,
    pub(super) registries: Registries,
    pub(super) subscribers: Subscribers,
    /// What each tree has used that has an active execution.
    budgets: Mutex<Budgets>,
    /// The executions that have a coordinator. The lock is held for a look-up, never across an await.
    active: Mutex<HashMap<ExecutionId, Active>>,
    /// Says how many coordinators there are, for those who wait for the last to end.
    pub(super) active_count: watch::Sender<usize>,
    /// Set while the lock on `active` is held, so that no execution is claimed afterwards.
    pub(super) closing: AtomicBool,
    /// The tasks that perform something, for those who wait for the last to end.
    pub(super) tasks: TaskTracker,
    /// Cancelled when the engine stops what didn't end by itself.
    pub(super) stop: CancellationToken,
}

/// Permits belong to single calls, never to executions: a limit delays, and can't block what holds another.
pub(super) struct Permits {
    pub(super) tasks: Option<Arc<Semaphore>>,
    pub(super) llm_calls: Option<Arc<Semaphore>>,
    pub(super) default_llm: Option<Arc<Semaphore>>,
    pub(super) llms: HashMap<Arc<str>, Arc<Semaphore>>,
    pub(super) tools: HashMap<Arc<str>, Arc<Semaphore>>,
}

/// How others reach the coordinator of an execution.
#[derive(Clone)]
pub(super) struct Active {
    pub(super) mailbox: mpsc::Sender<Box<Message>>,
    pub(super) control: mpsc::Sender<Box<Control>>,
    pub(super) progress: watch::Receiver<Progress>,
}

/// Where the answer to a caller goes. Dropped without an answer, it tells that the message was never read.
pub(super) type Reply = oneshot::Sender<Result<(), EngineError>>;

/// Where a built-in tool's answer goes.
pub(super) type Answer = oneshot::Sender<Result<BuiltinResult, EngineError>>;

/// What a built-in tool returns.
pub(super) type BuiltinResult = Result<Value, ToolFailure>;

/// What comes to a coordinator in the order of arrival.
pub(super) enum Message {
    Broadcast {
        signals: Vec<Arc<str>>,
        reply: Reply,
    },
    Completed {
        run: u64,
        attempt: u32,
        outcome: Outcome,
        cause: Option<Cause>,
    },
    /// A message of a child; answered when it is dealt with.
    FromChild {
        child: ExecutionId,
        message: Arc<Told>,
        reply: Reply,
    },
    /// The parent has dealt with the messages up to this number.
    Acknowledged {
        number: u64,
    },
    /// What became of the execution has gone down to the children.
    Descended {
        /// To all of them.
        reached: bool,
    },
    /// A built-in tool is called.
    Builtin {
        call: Box<BuiltinCall>,
        reply: Answer,
    },
    /// The application goes back to an earlier version of the workflows.
    Revert {
        to: u64,
        registry: Arc<Registry>,
        reply: Reply,
    },
    /// A limit of the tree is used up.
    Exceeded(Denial),
    /// The answer to a reservation.
    Granted {
        run: u64,
        call: u32,
        denied: Option<Denial>,
    },
    /// A custom node wants to make a request to an LLM.
    Asked {
        run: u64,
        call: u32,
        reply: Reply,
    },
    /// That request was answered.
    Replied {
        run: u64,
        call: u32,
        usage: Option<Usage>,
    },
}

/// What comes to a coordinator in between.
pub(super) struct Control {
    /// To cancel it, to suspend it, to have it go on.
    pub(super) input: Input,
    pub(super) reply: Reply,
}

/// The application's own error behind a failure.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Where an execution stands, for those who wait for it.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    Running,
    Ended(Result<Finished, EngineError>),
}

/// An execution that has come to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// Its id.
    pub execution: ExecutionId,
    /// [`Status::Rested`], or [`Status::Prepared`] for one that was never started.
    pub status: Status,
}

impl Shared {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        let (own, plugged_in) = (builtin::specs(&settings.policy), settings.tools.specs());
        let leases = settings.backends.context().keeps_leases();
        let lease = leases.then(|| Lease::new(settings.lease));
        let specs = Specs {
            tools: plugged_in.iter().chain(own.iter()).cloned().collect(),
            llms: settings.llms.specs(),
            turns_follow: settings.backends.conversations().is_some() && !settings.backends.sections().turns,
            node_types: settings.nodes.names().cloned().collect(),
            policy: settings.policy,
            process: lease.as_ref().map(|lease| lease.process.clone()),
        };
        let semaphore = |limit: usize| Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS)));
        let limited = |spec: &Arc<crate::tools::ToolSpec>| {
            let limit = spec.max_concurrency?;
            Some((spec.name.clone(), semaphore(limit)))
        };
        let limit_of = |name: Option<&str>| specs.llms.get(name)?.max_concurrency.map(semaphore);
        let named = specs.llms.names();
        let permits = Permits {
            tasks: settings.max_tasks.map(semaphore),
            llm_calls: settings.max_llm_calls.map(semaphore),
            default_llm: limit_of(None),
            llms: named
                .filter_map(|name| Some((name.clone(), limit_of(Some(name))?)))
                .collect(),
            tools: specs.tools.iter().filter_map(limited).collect(),
        };
        Arc::new(Self {
            permits,
            lease,
            backends: settings.backends,
            tools: settings.tools,
            specs,
            nodes: settings.nodes,
            llms: settings.llms,
            tokens: Onlookers::default(),
            limits: settings.limits,
            clock: settings.clock,
            signals: Arc::new(Semaphore::new(super::signals::IN_FLIGHT)),
            registries: Registries::default(),
            subscribers: Subscribers::default(),
            budgets: Mutex::default(),
            active: Mutex::default(),
            active_count: watch::Sender::new(0),
            closing: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(super) fn active(&self) -> MutexGuard<'_, HashMap<ExecutionId, Active>> {
        // Nothing panics while it is held: entries are only inserted, read and removed.
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the tree of `main` has used; `known` is what one of its executions knows of it, where nobody knows more.
    pub(super) fn budget(&self, main: &ExecutionId, known: TreeTotals) -> Arc<Budget> {
        self.budgets().of(main, known)
    }

    pub(super) fn budgets(&self) -> MutexGuard<'_, Budgets> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// The engine is being shut down.
    pub(super) fn check_open(&self) -> Result<(), EngineError> {
        match self.closing.load(Ordering::Acquire) {
            true => Err(EngineError::new(EngineErrorKind::ShutDown)),
            false => Ok(()),
        }
    }
}

/// What waiting for an execution in this state gives, `cause` being the application's error behind a failure.
pub(super) fn ended(state: &ExecutionState, cause: Option<Cause>) -> Result<Finished, EngineError> {
    let kind = match (state.status, &state.failure) {
        (status @ (Status::Rested | Status::Prepared), _) => {
            return Ok(Finished {
                execution: state.id.clone(),
                status,
            });
        }
        (Status::Running, _) => EngineErrorKind::NotActive,
        (Status::Failed, Some(failure)) => EngineErrorKind::Failed(failure.clone()),
        (status, _) => EngineErrorKind::Ended(status),
    };
    let error = match cause {
        Some(cause) => EngineError::because(kind, cause),
        None => EngineError::new(kind),
    };
    Err(error.of(&state.id))
}
