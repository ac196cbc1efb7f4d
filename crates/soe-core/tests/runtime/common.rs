//! What the driver's tests have in common: small workflows, tools that wait for the test, a store that fails on demand.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use soe_backends::*;
use soe_core::config::Config;
use soe_core::runtime::{Engine, EngineBuilder, EngineError, EngineErrorKind, Orchestration};
use soe_core::tools::{ToolContext, ToolDefinition, raw_tool};
use tokio::sync::Semaphore;

/// A router that ends at once.
pub(crate) const ROUTER: &str =
    "flow: {Start: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: DONE}]}}";

/// One tool node that runs `work` on START and emits DONE.
pub(crate) const WORK: &str = "
flow:
  Work:
    node_type: tool
    event_triggers: [START]
    tool_name: work
    output_field: result
    event_emissions: [{signal_name: DONE}]
";

pub(crate) fn config(yaml: &str) -> Arc<Config> {
    Arc::new(Config::from_yaml(yaml).unwrap())
}

pub(crate) fn start(yaml: &str) -> Orchestration {
    Orchestration::new(config(yaml), "flow").signal("START")
}

pub(crate) fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}

/// Routers and custom nodes: one node of type `kind` on START, with more configuration.
pub(crate) fn one_node(kind: &str, more: &str) -> Orchestration {
    start(&format!(
        "flow: {{N: {{node_type: {kind}, event_triggers: [START]{more}}}}}"
    ))
}

pub(crate) fn builder() -> EngineBuilder {
    Engine::builder()
}

pub(crate) fn engine_with(tool: ToolDefinition) -> Engine {
    builder().tool(tool).build().unwrap()
}

/// A tool that waits until the test lets it go on, and knows how often it was called.
#[derive(Clone)]
pub(crate) struct Gate {
    started: Arc<Semaphore>,
    open: Arc<Semaphore>,
    pub(crate) keys: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            started: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
            keys: Arc::default(),
        }
    }

    pub(crate) fn tool(&self, name: &str) -> ToolDefinition {
        let this = self.clone();
        raw_tool(name, "", move |_: Value, context: ToolContext| {
            let this = this.clone();
            async move {
                this.keys.lock().unwrap().push(context.idempotency_key());
                this.started.add_permits(1);
                this.open.acquire().await?.forget();
                Ok(json!("done"))
            }
        })
    }

    /// Waits at the gate, as a call does.
    pub(crate) async fn pass(&self) {
        self.started.add_permits(1);
        self.open.acquire().await.unwrap().forget();
    }

    /// Waits for a call to begin.
    pub(crate) async fn called(&self) {
        self.started.acquire().await.unwrap().forget();
    }

    pub(crate) fn open(&self, calls: usize) {
        self.open.add_permits(calls);
    }
}

pub(crate) fn kind(error: &EngineError) -> &EngineErrorKind {
    error.kind()
}

pub(crate) fn signals(context: &Context) -> Vec<String> {
    context.operational.signals.iter().map(|s| s.to_string()).collect()
}

pub(crate) fn count(context: &Context, signal: &str) -> usize {
    signals(context).iter().filter(|s| *s == signal).count()
}

/// Fails the test instead of hanging. For tests on real time.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, future).await.expect("it hangs")
}

/// A small generator of numbers, the same in each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What a [`FaultyStore`] does to its next commits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Fails before anything is stored.
    Before,
    /// Stores, and fails all the same.
    After,
    /// Says that somebody else was faster.
    Conflict,
    Panic,
    /// Never answers.
    Hang,
}

/// A memory store for states (and everything else) that fails on demand.
pub(crate) struct FaultyStore {
    pub(crate) inner: Arc<MemoryStore>,
    pub(crate) delay: Mutex<Duration>,
    pub(crate) commits: AtomicUsize,
    fault: Mutex<Option<(usize, Fault)>>,
    pub(crate) load_fails: Mutex<bool>,
    /// So many trees can still be deleted.
    pub(crate) deletes: Mutex<usize>,
    /// Deletions wait for the test.
    pub(crate) deleting: Mutex<Option<Gate>>,
    pub(crate) leases: AtomicBool,
}

impl FaultyStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::new(MemoryStore::new()),
            delay: Mutex::default(),
            commits: AtomicUsize::new(0),
            fault: Mutex::default(),
            load_fails: Mutex::default(),
            deletes: Mutex::new(usize::MAX),
            deleting: Mutex::default(),
            leases: AtomicBool::new(false),
        })
    }

    /// The commit after `commits` more meets the fault, once.
    pub(crate) fn fail_after(&self, commits: usize, fault: Fault) {
        *self.fault.lock().unwrap() = Some((commits, fault));
    }

    pub(crate) fn backends(self: &Arc<Self>) -> Backends {
        Backends::builder(self.clone(), self.inner.clone())
            .telemetry(self.inner.clone())
            .build()
    }

    fn next_fault(&self) -> Option<Fault> {
        let mut fault = self.fault.lock().unwrap();
        match &mut *fault {
            Some((0, _)) => fault.take().map(|(_, fault)| fault),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }
}

fn down() -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable, "the disk is on fire")
}

#[async_trait]
impl ContextBackend for FaultyStore {
    async fn commit(&self, commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match self.next_fault() {
            None => self.inner.commit(commits, after).await,
            Some(Fault::Before) => Err(down()),
            Some(Fault::Conflict) => Err(BackendError::new(
                BackendErrorKind::Conflict,
                "the tree is at another version",
            )),
            Some(Fault::After) => {
                self.inner.commit(commits, after).await?;
                Err(down())
            }
            Some(Fault::Panic) => panic!("a defect in the store"),
            Some(Fault::Hang) => std::future::pending().await,
        }
    }

    async fn load(&self, tree: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError> {
        let fails = *self.load_fails.lock().unwrap();
        if fails {
            Err(down())
        } else {
            self.inner.load(tree).await
        }
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        self.inner.list(query).await
    }

    async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        let gate = self.deleting.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.pass().await;
        }
        let left = self.deletes.lock().unwrap().checked_sub(1).ok_or_else(down)?;
        *self.deletes.lock().unwrap() = left;
        ContextBackend::delete(self.inner.as_ref(), tree, guard).await
    }

    async fn post(&self, tree: &ExecutionId, message: &Message) -> Result<Post, BackendError> {
        self.inner.post(tree, message).await
    }

    async fn inbox(&self, tree: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError> {
        self.inner.inbox(tree, after, limit).await
    }

    async fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError> {
        self.inner.waiting(limit).await
    }

    fn keeps_leases(&self) -> bool {
        self.leases.load(Ordering::SeqCst)
    }

    async fn heartbeat(&self, owner: &str, until: Timestamp) -> Result<(), BackendError> {
        self.inner.heartbeat(owner, until).await
    }

    async fn lease(&self, owner: &str) -> Result<Option<Timestamp>, BackendError> {
        self.inner.lease(owner).await
    }

    async fn release(&self, owner: &str) -> Result<(), BackendError> {
        self.inner.release(owner).await
    }
}

/// The executions of a tree, as a list says of each.
pub(crate) async fn executions_of(engine: &Engine, root: &ExecutionId) -> Vec<ExecutionSummary> {
    let tree = engine.tree(root).await.unwrap();
    tree.executions
        .keys()
        .filter_map(|number| tree.summary_of(number))
        .collect()
}
