//! Stores of their own that are late: what they are owed is in the tree, and they get all of it, once and in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use indexmap::IndexMap;
use soe_backends::*;
use soe_core::runtime::{Engine, EngineErrorKind, StreamItem};

use crate::common::*;

/// A store of telemetry and identities that can be out of order, or wait for the test before it takes events.
#[derive(Default)]
struct Late {
    inner: MemoryStore,
    fails: AtomicBool,
    gate: std::sync::Mutex<Option<Gate>>,
}

impl Late {
    fn check(&self) -> Result<(), BackendError> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(BackendError::new(BackendErrorKind::Unavailable, "not now")),
            false => Ok(()),
        }
    }

    fn set(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }
}

#[async_trait]
impl TelemetryBackend for Late {
    async fn append_events(&self, tree: &ExecutionId, events: &[Event]) -> Result<(), BackendError> {
        self.check()?;
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.pass().await;
        }
        self.inner.append_events(tree, events).await
    }

    async fn events(&self, tree: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Event>, BackendError> {
        self.inner.events(tree, from, limit).await
    }

    async fn delete_events(&self, tree: &ExecutionId) -> Result<(), BackendError> {
        self.inner.delete_events(tree).await
    }
}

#[async_trait]
impl IdentityBackend for Late {
    async fn identities(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Arc<str>>, BackendError> {
        self.inner.identities(main).await
    }

    async fn put_identities(
        &self,
        main: &ExecutionId,
        identities: &IndexMap<Arc<str>, Arc<str>>,
    ) -> Result<(), BackendError> {
        self.check()?;
        self.inner.put_identities(main, identities).await
    }

    async fn delete_identities(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.inner.delete_identities(main).await
    }
}

/// States and workflows in one store, telemetry in another.
fn telemetry_apart(states: &Arc<MemoryStore>, late: &Arc<Late>) -> Backends {
    Backends::builder(states.clone(), states.clone())
        .telemetry(late.clone())
        .build()
}

fn engine_on(backends: Backends, gate: &Gate) -> Engine {
    builder().backends(backends).tool(gate.tool("work")).build().unwrap()
}

const TREE: &str = "
flow:
  Go: {node_type: child, event_triggers: [START], child_workflow_name: work, child_initial_signals: [GO], signals_to_parent: [DONE]}
  End: {node_type: router, event_triggers: [DONE], event_emissions: [{signal_name: ENDED}]}
work:
  Work: {node_type: tool, event_triggers: [GO], tool_name: work, output_field: result, event_emissions: [{signal_name: DONE}]}
";

/// Every event of the tree is stored once, in order.
async fn check_complete(engine: &Engine) {
    let tree = engine.tree(&id("x")).await.unwrap();
    let events = engine.tree_telemetry(&id("x"), 0, 10_000).await.unwrap();
    let numbers = events.iter().map(|event| event.seq);
    assert!(numbers.eq(0..tree.next_event), "{events:?} of {}", tree.next_event);
    assert!(tree.owed.is_empty() && !tree.is_unsettled());
}

#[tokio::test]
async fn telemetry_that_is_late_stops_nothing_and_is_given_later() {
    let (states, late, gate) = (Arc::default(), Arc::new(Late::default()), Gate::new());
    late.set(true);
    let engine = engine_on(telemetry_apart(&states, &late), &gate);
    gate.open(1);
    soon(engine.orchestrate(start(TREE).id(id("x")))).await.unwrap();
    assert_eq!(count(&engine.context(&id("x")).await.unwrap(), "ENDED"), 1);
    let tree = engine.tree(&id("x")).await.unwrap();
    assert_eq!(tree.owed.events.len() as u64, tree.next_event);
    let unsettled = ListQuery {
        unsettled: true,
        ..ListQuery::default()
    };
    assert_eq!(engine.list(&unsettled).await.unwrap().executions.len(), 1);
    let error = engine.delete(&id("x")).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Active);
    assert!(format!("{error:#}").contains("recover it first"), "{error:#}");

    late.set(false);
    assert_eq!(engine.recover().await.unwrap().taken_up, 1);
    soon(engine.wait(&id("x"))).await.unwrap();
    check_complete(&engine).await;
    engine.delete(&id("x")).await.unwrap();
}

#[tokio::test]
async fn what_an_ended_process_owed_comes_before_what_the_next_one_makes() {
    let (states, late) = (Arc::default(), Arc::new(Late::default()));
    let gates = [Gate::new(), Gate::new()];
    late.set(true);
    let [one, two] = [0, 1].map(|i| engine_on(telemetry_apart(&states, &late), &gates[i]));
    one.start(start(TREE).id(id("x"))).await.unwrap();
    soon(gates[0].called()).await;
    soon(one.shutdown(Duration::ZERO)).await;
    late.set(false);
    assert_eq!(two.recover().await.unwrap().taken_up, 1);
    soon(gates[1].called()).await;
    gates[1].open(1);
    soon(two.wait(&id("x"))).await.unwrap();
    check_complete(&two).await;
}

#[tokio::test]
async fn definitions_that_are_late_come_before_anything_is_done_with_them() {
    let (states, late, gate) = (Arc::new(MemoryStore::new()), Arc::new(Late::default()), Gate::new());
    late.set(true);
    let backends = Backends::builder(states.clone(), states.clone()).identities(late.clone());
    let backends = backends.schemas(states.clone()).build();
    let engine = engine_on(backends, &gate);
    let yaml = format!(
        "workflows:\n{}\nidentities: {{ada: You count.}}",
        TREE.trim_start().replace('\n', "\n  ").replacen("flow", "  flow", 1)
    );
    let started = engine.start(start(&yaml).id(id("x"))).await;
    let waited = match started {
        Ok(execution) => soon(execution.wait()).await.map(drop),
        Err(error) => Err(error),
    };
    let error = waited.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Backend, "{error:#}");
    assert!(gate.keys.lock().unwrap().is_empty());
    assert!(engine.tree(&id("x")).await.unwrap().owed.definitions);

    late.set(false);
    gate.open(1);
    soon(engine.resume(&id("x")).await.unwrap().wait()).await.unwrap();
    assert_eq!(late.identities(&id("x")).await.unwrap().len(), 1);
    assert!(engine.tree(&id("x")).await.unwrap().owed.is_empty());
}

#[tokio::test]
async fn a_subscriber_that_comes_before_a_store_of_its_own_has_an_event_sees_it() {
    let (states, late, gate) = (Arc::default(), Arc::new(Late::default()), Gate::new());
    let engine = engine_on(telemetry_apart(&states, &late), &gate);
    let (first, storing) = (engine.all_events(), Gate::new());
    *late.gate.lock().unwrap() = Some(storing.clone());
    let running = tokio::spawn({
        let engine = engine.clone();
        async move { engine.orchestrate(start(ROUTER).id(id("x"))).await }
    });
    // It is committed and published, and on its way to the telemetry.
    soon(storing.called()).await;
    let mut events = engine.events(&id("x"));
    assert!(futures::poll!(events.next()).is_pending());
    storing.open(100);
    soon(running).await.unwrap().unwrap();
    let mut next = 0;
    loop {
        match soon(events.next()).await.unwrap() {
            StreamItem::Event(event) => {
                assert_eq!(event.seq, next);
                next += 1;
                if matches!(event.kind, EventKind::ExecutionRested {}) {
                    break;
                }
            }
            item => panic!("{item:?}"),
        }
    }
    drop(first);
}
