//! What all parts of an engine share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use soe_backends::{Backends, Definitions, ExecutionId, Limits, Sections, Status, Timestamp, TreeState, Usage, Value};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::events::Subscribers;
use super::lease::Lease;
use super::registries::Registries;
use super::tokens::Onlookers;
use super::{EngineError, EngineErrorKind};
use crate::config::Registry;
use crate::llm::Llms;
use crate::machine::{BuiltinCall, Outcome, Specs, ToolFailure};
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
    /// The trees that have a coordinator, by their roots. The lock is held for a look-up, never across an await.
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

/// How others reach the coordinator of a tree.
#[derive(Clone)]
pub(super) struct Active {
    pub(super) mailbox: mpsc::Sender<Box<Message>>,
    pub(super) control: mpsc::Sender<Box<Control>>,
    pub(super) progress: watch::Receiver<Progress>,
}

/// Where the answer to a caller goes. Dropped without an answer, it tells that the message was never read.
pub(super) type Reply<T = ()> = oneshot::Sender<Result<T, EngineError>>;

/// Where a built-in tool's answer goes.
pub(super) type Answer = Reply<BuiltinResult>;

/// What a built-in tool returns.
pub(super) type BuiltinResult = Result<Value, ToolFailure>;

/// What comes to a coordinator in the order of arrival.
pub(super) enum Message {
    /// Signals from outside.
    Signal {
        execution: ExecutionId,
        signals: Vec<Arc<str>>,
        reply: Reply,
    },
    Completed {
        execution: u64,
        run: u64,
        attempt: u32,
        outcome: Outcome,
        cause: Option<Cause>,
    },
    /// The next child of a run is due.
    Due { execution: u64, run: u64 },
    /// A built-in tool is called.
    Builtin {
        execution: ExecutionId,
        call: Box<BuiltinCall>,
        reply: Answer,
    },
    /// The application goes back to an earlier version of the workflows.
    Revert {
        execution: ExecutionId,
        to: u64,
        registry: Arc<Registry>,
        reply: Reply,
    },
    /// The application replaces identities and context schema.
    Define {
        definitions: Arc<Definitions>,
        reply: Reply,
    },
    /// A custom node wants to make a request to an LLM.
    Asked {
        execution: u64,
        run: u64,
        call: u32,
        reply: Reply,
    },
    /// That request was answered.
    Replied {
        execution: u64,
        run: u64,
        call: u32,
        usage: Option<Usage>,
    },
    /// Somebody waits until an execution and all below it are at rest.
    Wait {
        execution: ExecutionId,
        reply: Reply<Finished>,
    },
    /// There is something in the inbox.
    Inbox,
}

/// What comes to a coordinator in between.
pub(super) struct Control {
    pub(super) execution: ExecutionId,
    pub(super) order: Order,
    pub(super) reply: Reply,
}

/// An order that goes before everything else.
#[derive(Clone)]
pub(super) enum Order {
    /// Go on with what is stored.
    Recover,
    /// Cancel an execution.
    Cancel,
    /// Go on with an execution that has failed.
    Resume(Option<Arc<Limits>>),
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
            sections: sections_of(&settings.backends),
            node_types: settings.nodes.names().cloned().collect(),
            policy: settings.policy,
            pace: Default::default(),
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

    /// # Errors
    /// The engine is being shut down.
    pub(super) fn check_open(&self) -> Result<(), EngineError> {
        match self.closing.load(Ordering::Acquire) {
            true => Err(EngineError::new(EngineErrorKind::ShutDown)),
            false => Ok(()),
        }
    }
}

/// What waiting for an execution gives as it stands now, `cause` being the application's error behind a failure.
pub(super) fn ended(tree: &TreeState, number: u64, cause: Option<Cause>) -> Result<Finished, EngineError> {
    let Some((state, status)) = tree.get(number).zip(tree.status(number)) else {
        return Err(EngineError::new(EngineErrorKind::NotFound));
    };
    let kind = match (status, &state.failure) {
        (Status::Rested | Status::Prepared, _) => {
            return Ok(Finished {
                execution: state.id.clone(),
                status,
            });
        }
        (Status::Running, _) => EngineErrorKind::NotActive,
        (Status::Failed, Some(failure)) => EngineErrorKind::Failed(failure.as_ref().clone()),
        (status, _) => EngineErrorKind::Ended(status),
    };
    let error = match cause {
        Some(cause) => EngineError::because(kind, cause),
        None => EngineError::new(kind),
    };
    Err(error.of(&state.id))
}

/// What is stored with a commit. What no store takes at all is owed to nobody.
fn sections_of(backends: &Backends) -> Sections {
    let sections = backends.sections();
    Sections {
        registry: sections.registry,
        definitions: sections.definitions || (backends.identities().is_none() && backends.schemas().is_none()),
        turns: sections.turns || backends.conversations().is_none(),
        events: sections.events || backends.telemetry().is_none(),
    }
}
