//! A store that fails: callers hear of it, and a later signal takes the execution up again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use soe_backends::{
    BackendError, BackendErrorKind, Backends, Commit, ContextBackend, Deletion, Event, ExecutionId, Guard, ListPage,
    ListQuery, MemoryStore, Message, Post, Posted, Status, TelemetryBackend, Timestamp, TreeState,
};
use soe_core::runtime::{EngineError, EngineErrorKind};
use soe_core::tools::{NoArguments, ToolContext, raw_tool, tool_fn};

use crate::common::*;

fn store_error(error: &EngineError) -> BackendErrorKind {
    assert_eq!(kind(error), &EngineErrorKind::Backend, "{error}");
    let source = std::error::Error::source(error).expect("has a source");
    source.downcast_ref::<BackendError>().expect("of the store").kind()
}

/// Three tools one after the other.
const CHAIN: &str = "
flow:
  A: {node_type: tool, event_triggers: [START], tool_name: work, output_field: a, event_emissions: [{signal_name: ONE}]}
  B: {node_type: tool, event_triggers: [ONE], tool_name: work, output_field: b, event_emissions: [{signal_name: TWO}]}
  C: {node_type: tool, event_triggers: [TWO], tool_name: work, output_field: c, event_emissions: [{signal_name: DONE}]}
";

fn engine(store: &std::sync::Arc<FaultyStore>) -> soe_core::runtime::Engine {
    let tool = tool_fn("work", "", |_: NoArguments, _| async { Ok(json!(1)) });
    builder().backends(store.backends()).tool(tool).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn whichever_commit_fails_a_later_signal_completes_the_execution() {
    for fault in [Fault::Before, Fault::After, Fault::Panic] {
        // The first creates, three take results, the fifth says that the telemetry was given.
        for commit in 0..6 {
            let store = FaultyStore::new();
            let engine = engine(&store);
            store.fail_after(commit, fault);
            let name = id("x");
            let result = engine.orchestrate(start(CHAIN).id(name.clone())).await;
            if commit < 4 {
                let error = result.unwrap_err();
                match fault {
                    Fault::Panic => assert_eq!(kind(&error), &EngineErrorKind::Internal),
                    _ => assert_eq!(store_error(&error), BackendErrorKind::Unavailable),
                }
                assert_eq!(error.execution(), Some(&name));
            } else {
                result.unwrap();
            }
            let stored = store.inner.clone();
            if soe_backends::ContextBackend::load(stored.as_ref(), &name)
                .await
                .unwrap()
                .is_none()
            {
                assert!(commit == 0, "only the first commit creates");
                engine.orchestrate(start(CHAIN).id(name.clone())).await.unwrap();
            }
            // With the last, the fault is still to come: for this signal.
            let signalled = engine.broadcast_signals(&name, ["WAKE"]).await;
            if commit == 5 {
                assert!(signalled.is_err());
                engine.broadcast_signals(&name, ["WAKE"]).await.unwrap();
            } else {
                signalled.unwrap();
            }
            engine.wait(&name).await.unwrap();
            let context = engine.context(&name).await.unwrap();
            for signal in ["START", "ONE", "TWO", "DONE"] {
                assert_eq!(count(&context, signal), 1, "{fault:?} {commit} {signal}");
            }
            for field in ["a", "b", "c"] {
                assert_eq!(context.history(field).unwrap().len(), 1, "{fault:?} {commit} {field}");
            }
            assert!(engine.shutdown(Duration::from_secs(5)).await.stopped.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_execution_that_cannot_be_loaded_is_an_error_to_all_who_ask() {
    let store = FaultyStore::new();
    let engine = engine(&store);
    let finished = engine.orchestrate(start(CHAIN)).await.unwrap().execution;
    *store.load_fails.lock().unwrap() = true;
    for error in [
        engine.broadcast_signals(&finished, ["X"]).await.unwrap_err(),
        engine.cancel(&finished).await.unwrap_err(),
        engine.wait(&finished).await.unwrap_err(),
        engine.delete(&finished).await.unwrap_err(),
        engine.context(&finished).await.unwrap_err(),
    ] {
        assert_eq!(store_error(&error), BackendErrorKind::Unavailable);
        assert_eq!(error.execution(), Some(&finished));
    }
    *store.load_fails.lock().unwrap() = false;
    engine.broadcast_signals(&finished, ["X"]).await.unwrap();
    assert_eq!(engine.wait(&finished).await.unwrap().status, Status::Rested);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_store_is_answered_once_and_leaves_no_claim() {
    let store = FaultyStore::new();
    let engine = engine(&store);
    let name = engine.orchestrate(start(CHAIN)).await.unwrap().execution;
    let before = store.commits.load(Ordering::SeqCst);
    store.fail_after(0, Fault::Panic);
    let error = engine.broadcast_signals(&name, ["X"]).await.unwrap_err();
    assert_eq!(kind(&error), &EngineErrorKind::Internal, "{error}");
    assert_eq!(store.commits.load(Ordering::SeqCst), before + 1, "not sent again");
    engine.broadcast_signals(&name, ["Y"]).await.unwrap();
    engine.wait(&name).await.unwrap();
    assert_eq!(count(&engine.context(&name).await.unwrap(), "X"), 0);
    store.fail_after(0, Fault::Panic);
    assert_eq!(
        kind(&engine.cancel(&name).await.unwrap_err()),
        &EngineErrorKind::Internal
    );
    engine.cancel(&name).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_delays_and_messages_that_came_meanwhile_are_stored_together() {
    let store = FaultyStore::new();
    let engine = engine(&store);
    let execution = engine.start(start(ROUTER)).await.unwrap();
    execution.wait().await.unwrap();
    *store.delay.lock().unwrap() = Duration::from_secs(1);
    let before = store.commits.load(Ordering::SeqCst);
    let sent = (0..50).map(|i| {
        let execution = execution.clone();
        async move { execution.signal([format!("S{i}")]).await }
    });
    for result in futures::future::join_all(sent).await {
        result.unwrap();
    }
    assert!(store.commits.load(Ordering::SeqCst) - before <= 3);
    execution.wait().await.unwrap();
    assert_eq!(signals(&execution.context().await.unwrap()).len(), 52);
}

#[tokio::test]
async fn of_two_engines_on_one_store_the_loser_stops() {
    let backends = Backends::memory();
    let gates = [Gate::new(), Gate::new()];
    let [one, two] = [0, 1].map(|i| {
        let tool = gates[i].tool("work");
        // The second one is ahead of the time: for it, the lease of the first has ended.
        let clock = move || Timestamp::from_micros(i as u64 * 3_600_000_000);
        let builder = builder().backends(backends.clone()).clock(clock);
        builder.tool(tool).build().unwrap()
    });
    let execution = one.start(start(CHAIN).id(id("x"))).await.unwrap();
    gates[0].called().await;
    let waiting = tokio::spawn({
        let execution = execution.clone();
        async move { execution.wait().await }
    });
    tokio::task::yield_now().await;
    // The other one takes it over, and performs the run again.
    two.broadcast_signals(&id("x"), ["MINE"]).await.unwrap();
    gates[1].called().await;
    gates[0].open(3);
    gates[1].open(3);
    two.wait(&id("x")).await.unwrap();
    // Whoever waits for it at the loser's goes on waiting for what the other one makes of it.
    assert_eq!(soon(waiting).await.unwrap().unwrap().status, Status::Rested);
    assert_eq!(
        gates[0].keys.lock().unwrap().len(),
        1,
        "the loser performs nothing more"
    );
    let context = two.context(&id("x")).await.unwrap();
    assert_eq!(signals(&context), ["START", "MINE", "ONE", "TWO", "DONE"]);
}

/// Telemetry that nobody can write to.
struct NoTelemetry;

#[async_trait]
impl TelemetryBackend for NoTelemetry {
    async fn append_events(&self, _: &ExecutionId, _: &[Event]) -> Result<(), BackendError> {
        Err(BackendError::new(BackendErrorKind::Unavailable, "no room for events"))
    }

    async fn events(&self, _: &ExecutionId, _: u64, _: usize) -> Result<Vec<Event>, BackendError> {
        Ok(Vec::new())
    }

    async fn delete_events(&self, _: &ExecutionId) -> Result<(), BackendError> {
        Ok(())
    }
}

/// A store that takes no telemetry itself.
struct StateOnly(MemoryStore);

#[async_trait]
impl ContextBackend for StateOnly {
    async fn commit(&self, commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError> {
        self.0.commit(commits, after).await
    }

    async fn load(&self, tree: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError> {
        self.0.load(tree).await
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        self.0.list(query).await
    }

    async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        self.0.delete(tree, guard).await
    }

    async fn post(&self, tree: &ExecutionId, message: &Message) -> Result<Post, BackendError> {
        self.0.post(tree, message).await
    }

    async fn inbox(&self, tree: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError> {
        self.0.inbox(tree, after, limit).await
    }

    async fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError> {
        self.0.waiting(limit).await
    }
}

#[tokio::test]
async fn an_execution_goes_on_when_its_separate_telemetry_is_lost() {
    let workflows = Arc::new(MemoryStore::new());
    let backends = Backends::builder(Arc::new(StateOnly(MemoryStore::new())), workflows)
        .telemetry(Arc::new(NoTelemetry))
        .build();
    let tool = raw_tool("work", "", |_: Value, _: ToolContext| async move { Ok(json!(1)) });
    let engine = builder().backends(backends).tool(tool).build().unwrap();
    let finished = soon(engine.orchestrate(start(WORK))).await.unwrap();
    let context = engine.context(&finished.execution).await.unwrap();
    assert_eq!(signals(&context), ["START", "DONE"]);
}

/// A store that takes its time with leases.
struct SlowLeases {
    states: MemoryStore,
    /// Until a heartbeat is stored.
    heartbeat: Duration,
    /// Whether giving a lease up never ends.
    hangs: bool,
}

#[async_trait]
impl ContextBackend for SlowLeases {
    async fn commit(&self, commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError> {
        self.states.commit(commits, after).await
    }

    async fn load(&self, tree: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError> {
        self.states.load(tree).await
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        self.states.list(query).await
    }

    async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        self.states.delete(tree, guard).await
    }

    async fn post(&self, tree: &ExecutionId, message: &Message) -> Result<Post, BackendError> {
        self.states.post(tree, message).await
    }

    async fn inbox(&self, tree: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError> {
        self.states.inbox(tree, after, limit).await
    }

    async fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError> {
        self.states.waiting(limit).await
    }

    fn keeps_leases(&self) -> bool {
        true
    }

    async fn heartbeat(&self, owner: &str, until: Timestamp) -> Result<(), BackendError> {
        tokio::time::sleep(self.heartbeat).await;
        self.states.heartbeat(owner, until).await
    }

    async fn lease(&self, owner: &str) -> Result<Option<Timestamp>, BackendError> {
        self.states.lease(owner).await
    }

    async fn release(&self, owner: &str) -> Result<(), BackendError> {
        if self.hangs {
            std::future::pending().await
        }
        self.states.release(owner).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_given_up_for_good_and_holds_no_shutdown_up() {
    for hangs in [true, false] {
        let store = Arc::new(SlowLeases {
            states: MemoryStore::new(),
            heartbeat: Duration::from_secs(1),
            hangs,
        });
        let backends = Backends::builder(store.clone(), Arc::new(MemoryStore::new())).build();
        let engine = builder().backends(backends).build().unwrap();
        let finished = engine.orchestrate(start(ROUTER)).await.unwrap();
        let owner = engine
            .tree(&finished.execution)
            .await
            .unwrap()
            .owner
            .clone()
            .unwrap()
            .process;
        assert!(store.lease(&owner).await.unwrap().is_some());
        // In the middle of the next heartbeat.
        tokio::time::sleep(Duration::from_millis(10_500)).await;
        soon(engine.shutdown(Duration::ZERO)).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(store.lease(&owner).await.unwrap().is_some(), hangs);
    }
}
