//! Versions of an execution's workflows: listed, read, and gone back to.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::json;
use soe_backends::*;
use soe_core::policy::Policy;
use soe_core::runtime::{Engine, EngineErrorKind};

use crate::builtins::{call, called, events, inject, node, tools};
use crate::common::*;

/// An execution with one change: a node that echoes on START_DONE was injected.
async fn changed(engine: &Engine) -> ExecutionId {
    let (_, execution) = called(engine, "soe_inject_node", inject(node("echo"))).await;
    execution
}

fn numbers(versions: &[Arc<WorkflowVersion>]) -> Vec<u64> {
    versions.iter().map(|version| version.number).collect()
}

#[tokio::test]
async fn versions_are_listed_and_read_also_without_telemetry() {
    let store = Arc::new(MemoryStore::new());
    let bare = Backends::builder(store.clone(), store).build();
    let engine = tools().backends(bare).build().unwrap();
    let untouched = soon(engine.orchestrate(start(ROUTER))).await.unwrap().execution;
    let [only] = &engine.workflow_versions(&untouched).await.unwrap()[..] else {
        panic!("one version")
    };
    assert_eq!(
        (only.number, &only.edit, &only.by),
        (0, &WorkflowEdit::Started {}, &None)
    );

    let execution = changed(&engine).await;
    let versions = engine.workflow_versions(&execution).await.unwrap();
    assert_eq!(numbers(&versions), [0, 1]);
    let by = versions[1].by.as_ref().unwrap();
    assert_eq!(
        (by.node_name.as_ref(), by.tool_name.as_ref()),
        ("START", "soe_inject_node")
    );
    assert!(versions[1].at >= versions[0].at);
    let edit = WorkflowEdit::Changed {
        workflow_name: "flow".into(),
        changed_node: Some("New".into()),
    };
    assert_eq!(versions[1].edit, edit);
    let nodes = async |version: u64| {
        let workflows = engine.workflows_at(&execution, version).await.unwrap();
        workflows.workflows["flow"].nodes.len()
    };
    assert_eq!((nodes(0).await, nodes(1).await), (1, 2));
    assert_eq!(engine.workflows(&execution).await.unwrap().id, versions[1].registry);
    let error = engine.workflows_at(&execution, 2).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Refused);
    assert!(error.to_string().contains("there is no version 2"), "{error}");
    let nobody = engine.workflow_versions(&id("nobody")).await.unwrap_err();
    assert_eq!(*nobody.kind(), EngineErrorKind::NotFound);
}

#[tokio::test]
async fn a_resting_execution_goes_back_and_forth() {
    let engine = tools().policy(Policy::default().max_changes(1)).build().unwrap();
    let execution = changed(&engine).await;
    let injected = |context: &Context| count(context, "INJECTED_DONE");
    for (version, expected) in [(0, 1), (1, 2), (0, 2)] {
        soon(engine.revert_workflows(&execution, version)).await.unwrap();
        assert_eq!(engine.status(&execution).await.unwrap().status, Status::Rested);
        soon(engine.broadcast_signals(&execution, ["START_DONE"]))
            .await
            .unwrap();
        soon(engine.wait(&execution)).await.unwrap();
        assert_eq!(injected(&engine.context(&execution).await.unwrap()), expected);
    }
    let state = engine.state(&execution).await.unwrap();
    assert_eq!(numbers(&state.workflow_versions()), [0, 1, 2, 3, 4]);
    assert_eq!(state.workflow_changes, 1, "the policy counts what nodes do");
    let versions = state.workflow_versions();
    assert_eq!(versions[4].edit, WorkflowEdit::Reverted { to: 0 });
    assert_eq!((&versions[4].registry, &versions[4].by), (&versions[0].registry, &None));
    let changes = events(&engine, &execution, "workflow_changed").await;
    let EventKind::WorkflowChanged(last) = &changes[3] else {
        panic!("{changes:?}")
    };
    assert_eq!((last.version, &last.edit), (4, &WorkflowEdit::Reverted { to: 0 }));
    assert_eq!(
        (&last.replaces, &last.registry),
        (&versions[3].registry, &versions[0].registry)
    );

    // To what it is already: nothing changes.
    let before = engine.tree(&execution).await.unwrap().version;
    soon(engine.revert_workflows(&execution, 2)).await.unwrap();
    assert_eq!(engine.tree(&execution).await.unwrap().version, before);
}

#[tokio::test]
async fn a_running_execution_goes_back_and_its_runs_end_as_they_began() {
    let gate = Gate::new();
    let engine = tools().tool(gate.tool("work")).build().unwrap();
    let flow = format!("{WORK}{}", call("EDIT", "soe_inject_node"));
    let mut replaced = node("echo");
    replaced["event_triggers"] = json!(["START"]);
    let edit = json!({"workflow_name": "flow", "node_name": "Work", "node_config_data": replaced});
    let execution = engine
        .start(start(&flow).field("EDIT", Value::from(edit)))
        .await
        .unwrap();
    gate.called().await;
    soon(execution.signal(["EDIT"])).await.unwrap();
    while execution.context().await.unwrap().value("EDIT_result").is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(engine.workflow_versions(execution.id()).await.unwrap().len(), 2);
    soon(engine.revert_workflows(execution.id(), 0)).await.unwrap();
    soon(execution.signal(["START"])).await.unwrap();
    gate.called().await;
    gate.open(2);
    soon(execution.wait()).await.unwrap();
    let context = execution.context().await.unwrap();
    assert_eq!((count(&context, "DONE"), count(&context, "INJECTED_DONE")), (2, 0));
}

#[tokio::test]
async fn a_failed_execution_goes_back_and_stays_failed() {
    let boom = |_: soe_core::nodes::NodeInput| async {
        Err::<soe_core::nodes::NodeOutput, _>(soe_core::nodes::NodeError::new("enough"))
    };
    let engine = tools().node_type("boom", boom).build().unwrap();
    let flow = format!(
        "flow:\n{}  Fail: {{node_type: boom, event_triggers: [START_DONE]}}\n",
        call("START", "soe_inject_node")
    );
    let mut replaced = node("echo");
    replaced["event_triggers"] = json!(["LATER"]);
    let execution = engine
        .start(start(&flow).field("START", Value::from(inject(replaced))))
        .await
        .unwrap();
    soon(execution.wait()).await.unwrap_err();
    soon(engine.revert_workflows(execution.id(), 0)).await.unwrap();
    let state = engine.state(execution.id()).await.unwrap();
    let versions = state.workflow_versions();
    assert_eq!((state.status, numbers(&versions)), (Status::Failed, vec![0, 1, 2]));
    assert_eq!(state.registry, versions[0].registry);
}

#[tokio::test]
async fn what_cannot_be_gone_back_to_changes_nothing() {
    let store = FaultyStore::new();
    let engine = tools().backends(store.backends()).build().unwrap();
    let execution = changed(&engine).await;
    let before = engine.state(&execution).await.unwrap();
    let error = soon(engine.revert_workflows(&execution, 7)).await.unwrap_err();
    assert!(error.to_string().contains("there is no version 7"), "{error}");

    // An engine without what the old workflow needs.
    let poorer = builder()
        .policy(Policy::closed())
        .backends(store.backends())
        .build()
        .unwrap();
    let error = soon(poorer.revert_workflows(&execution, 0)).await.unwrap_err();
    assert!(
        error.to_string().contains("'soe_inject_node', which is not registered"),
        "{error}"
    );

    // A store that fails.
    store.fail_after(0, Fault::Before);
    let error = soon(engine.revert_workflows(&execution, 0)).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Backend);
    assert_eq!(engine.state(&execution).await.unwrap(), before);

    soon(engine.cancel(&execution)).await.unwrap();
    let error = soon(engine.revert_workflows(&execution, 0)).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::NotAccepting(Status::Cancelled));
}

#[tokio::test]
async fn changes_and_returns_at_once_are_each_there_as_a_whole() {
    let engine = tools().build().unwrap();
    let execution = changed(&engine).await;
    let returns = (0..20).map(|number| engine.revert_workflows(&execution, number % 2));
    for result in soon(futures::future::join_all(returns)).await {
        result.unwrap();
    }
    let versions = engine.workflow_versions(&execution).await.unwrap();
    assert_eq!(numbers(&versions), (0..versions.len() as u64).collect::<Vec<_>>());
    for pair in versions.windows(2) {
        assert_ne!(pair[0].registry, pair[1].registry, "what changes nothing is no version");
    }
}

/// A store of workflows that keeps what executions are said to use.
struct Showing {
    inner: MemoryStore,
    current: Mutex<Vec<(ExecutionId, RegistryId, String)>>,
    fails: bool,
}

#[async_trait]
impl WorkflowBackend for Showing {
    async fn put_registry(&self, registry: &RegistryDocument) -> Result<(), BackendError> {
        self.inner.put_registry(registry).await
    }

    async fn registry(&self, id: &RegistryId) -> Result<Option<Arc<RegistryDocument>>, BackendError> {
        self.inner.registry(id).await
    }

    async fn set_current(&self, id: &ExecutionId, registry: &RegistryId, name: &str) -> Result<(), BackendError> {
        let mut current = self.current.lock().unwrap();
        if self.fails && !current.is_empty() {
            return Err(BackendError::new(BackendErrorKind::Unavailable, "no paper"));
        }
        current.push((id.clone(), registry.clone(), name.to_owned()));
        Ok(())
    }

    async fn delete_current(&self, _: &ExecutionId) -> Result<(), BackendError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_separate_store_of_workflows_is_told_which_are_in_use() {
    for fails in [false, true] {
        let showing = Arc::new(Showing {
            inner: MemoryStore::new(),
            current: Mutex::default(),
            fails,
        });
        let backends = Backends::builder(Arc::new(MemoryStore::new()), showing.clone()).build();
        let engine = tools().backends(backends).build().unwrap();
        let execution = changed(&engine).await;
        soon(engine.revert_workflows(&execution, 0)).await.unwrap();
        let versions = engine.workflow_versions(&execution).await.unwrap();
        let all = versions
            .iter()
            .map(|version| (execution.clone(), version.registry.clone(), "flow".to_owned()));
        // What people are shown stops no execution.
        let expected: Vec<_> = all.take(if fails { 1 } else { 3 }).collect();
        assert_eq!(*showing.current.lock().unwrap(), expected);
    }
}
