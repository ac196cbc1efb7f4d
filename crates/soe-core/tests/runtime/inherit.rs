//! Executions that begin with the workflows, the definitions or the context of another.

use serde_json::{Value as Json, json};
use soe_backends::*;
use soe_core::runtime::{Engine, EngineErrorKind, Orchestration};

use crate::builtins::{call, called, events, inject, node, tools};
use crate::common::*;

const COMBINED: &str = "
workflows:
  flow: {Start: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: DONE}]}}
  other: {Start: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: OTHER}]}}
identities: {ada: You are Ada., ben: You are Ben.}
context_schema: {score: integer}
";

fn inheriting(source: &ExecutionId) -> Orchestration {
    Orchestration::without_config("flow")
        .signal("START")
        .inherit_config_from(source.clone())
}

async fn started(engine: &Engine, orchestration: Orchestration) -> ExecutionId {
    soon(engine.orchestrate(orchestration)).await.unwrap().execution
}

async fn definitions(engine: &Engine, execution: &ExecutionId) -> (Vec<String>, Vec<String>) {
    let definitions = engine.definitions(execution).await.unwrap();
    let texts = |keys: Vec<std::sync::Arc<str>>| keys.iter().map(|key| key.to_string()).collect();
    (
        texts(definitions.identities().await.unwrap().keys().cloned().collect()),
        texts(definitions.context_schema().await.unwrap().keys().cloned().collect()),
    )
}

async fn values(engine: &Engine, execution: &ExecutionId, field: &str) -> Vec<Json> {
    let history = engine.history(execution, field).await.unwrap();
    history.iter().map(Value::to_json).collect()
}

#[tokio::test]
async fn a_configuration_is_inherited_with_its_changes_and_is_a_copy() {
    let engine = tools().build().unwrap();
    let (_, source) = called(&engine, "soe_inject_node", inject(node("echo"))).await;
    let next = Orchestration::without_config("flow").signal("START_DONE");
    let next = started(&engine, next.inherit_config_from(source.clone())).await;
    let [old, new] = [&source, &next].map(|id| engine.workflows(id));
    assert_eq!(old.await.unwrap().id, new.await.unwrap().id);
    let state = engine.state(&next).await.unwrap();
    assert!(
        state.context.operational.signals.contains("INJECTED_DONE"),
        "the injected node ran"
    );
    assert_eq!(
        (state.workflow_changes, state.workflow_version()),
        (0, 0),
        "its own begin anew"
    );
    let told = events(&engine, &next, "config_inheritance_start").await;
    let source_execution_id = source.clone();
    assert_eq!(told, [EventKind::ConfigInheritanceStart { source_execution_id }]);
    assert_eq!(events(&engine, &next, "context_inheritance_start").await, []);

    engine.delete(&source).await.unwrap();
    soon(engine.broadcast_signals(&next, ["START_DONE"])).await.unwrap();
    soon(engine.wait(&next)).await.unwrap();
    let context = engine.context(&next).await.unwrap();
    assert_eq!(count(&context, "INJECTED_DONE"), 2);
}

#[tokio::test]
async fn a_given_configuration_takes_precedence_section_by_section() {
    let engine = builder().build().unwrap();
    let source = started(&engine, start(COMBINED)).await;
    let all = started(&engine, inheriting(&source)).await;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        definitions(&engine, &all).await,
        (names(&["ada", "ben"]), names(&["score"]))
    );

    let own = "
workflows: {flow: {Mine: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: MINE}]}}}
identities: {cyd: You are Cyd.}
";
    let mixed = started(&engine, start(own).inherit_config_from(source.clone())).await;
    assert_eq!(
        definitions(&engine, &mixed).await,
        (names(&["cyd"]), names(&["score"])),
        "a section is replaced as a whole"
    );
    let workflows = engine.workflows(&mixed).await.unwrap();
    assert_eq!(
        workflows.workflows.keys().map(AsRef::as_ref).collect::<Vec<_>>(),
        ["flow"]
    );
    assert_eq!(signals(&engine.context(&mixed).await.unwrap()), ["START", "MINE"]);

    // The section has to be there; an empty one gives no workflows.
    let schema_only = "{workflows: {}, context_schema: {name: text}}";
    let mixed = started(&engine, start(schema_only).inherit_config_from(source.clone())).await;
    assert_eq!(
        definitions(&engine, &mixed).await,
        (names(&["ada", "ben"]), names(&["name"]))
    );
    assert_eq!(signals(&engine.context(&mixed).await.unwrap()), ["START", "DONE"]);
}

#[tokio::test]
async fn a_childs_definitions_are_those_of_its_tree() {
    let engine = builder().build().unwrap();
    let yaml = "
workflows:
  flow: {Go: {node_type: child, event_triggers: [START], child_workflow_name: work, child_initial_signals: [START]}}
  work: {Work: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: WORKED}]}}
identities: {ada: You are Ada.}
";
    let root = started(&engine, start(yaml)).await;
    let child = engine.tree(&root).await.unwrap().get(1).unwrap().id.clone();
    let orchestration = Orchestration::without_config("work")
        .signal("START")
        .inherit_config_from(child.clone())
        .inherit_context_from(child);
    let next = started(&engine, orchestration).await;
    assert_eq!(definitions(&engine, &next).await.0, ["ada"]);
    let state = engine.state(&next).await.unwrap();
    assert!(state.context.parent.is_none() && state.main_execution_id() == &next);
}

#[tokio::test]
async fn a_context_is_inherited_with_its_histories_and_what_is_given_comes_after_it() {
    let engine = builder().build().unwrap();
    let source = started(&engine, start(ROUTER).field("a", 1).field("a", 2).field("b", "x")).await;
    let next = start(ROUTER)
        .inherit_context_from(source.clone())
        .field("a", 3)
        .field("c", true);
    let (next, tokens) = engine.start_streamed(next).await.unwrap();
    drop(tokens);
    soon(next.wait()).await.unwrap();
    let next = next.id().clone();
    assert_eq!(values(&engine, &next, "a").await, [json!(1), json!(2), json!(3)]);
    assert_eq!(values(&engine, &next, "b").await, [json!("x")]);
    assert_eq!(values(&engine, &next, "c").await, [json!(true)]);
    assert_eq!(
        signals(&engine.context(&next).await.unwrap()),
        ["START", "DONE"],
        "counters are fresh"
    );
    let stored = engine.telemetry(&next, 0, 3).await.unwrap();
    let (source_execution_id, fields) = (source.clone(), ["a".into(), "c".into()].into());
    assert_eq!(
        stored.into_iter().map(|event| event.kind).collect::<Vec<_>>(),
        [
            EventKind::OrchestrationStart {
                workflow_name: "flow".into()
            },
            EventKind::ContextInheritanceStart { source_execution_id },
            EventKind::ContextMerge { fields },
        ]
    );
    // It is a copy: the source has what it had.
    assert_eq!(values(&engine, &source, "a").await, [json!(1), json!(2)]);

    let prepared = engine
        .prepare(start(ROUTER).inherit_context_from(next.clone()))
        .await
        .unwrap();
    assert_eq!(values(&engine, prepared.id(), "a").await.len(), 3);
    assert_eq!(prepared.status().await.unwrap().status, Status::Prepared);
    assert_eq!(events(&engine, prepared.id(), "context_merge").await, []);
    // An import is given besides.
    let export = engine.export(&source).await.unwrap();
    let third = started(&engine, start(ROUTER).inherit_context_from(source).import(export)).await;
    assert_eq!(
        values(&engine, &third, "a").await,
        [json!(1), json!(2), json!(1), json!(2)]
    );
}

#[tokio::test]
async fn what_is_missing_is_named_and_nothing_is_started() {
    let engine = builder().build().unwrap();
    let neither = Orchestration::without_config("flow").signal("START").id(id("new"));
    let error = engine.orchestrate(neither.clone()).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Refused);
    assert!(
        error.to_string().contains("either a config or inherit_config_from"),
        "{error}"
    );
    for (orchestration, what) in [
        (
            neither.clone().inherit_config_from(id("nobody")),
            "configuration can't be inherited (inherit_config_from)",
        ),
        (
            start(ROUTER).id(id("new")).inherit_context_from(id("nobody")),
            "context can't be inherited (inherit_context_from)",
        ),
    ] {
        let error = engine.start(orchestration).await.unwrap_err();
        assert_eq!(*error.kind(), EngineErrorKind::NotFound);
        assert_eq!(error.execution(), Some(&id("nobody")));
        assert!(error.to_string().contains(what), "{error}");
    }
    let source = started(&engine, start(ROUTER)).await;
    let unknown = Orchestration::without_config("flaw")
        .signal("START")
        .inherit_config_from(source);
    let error = engine.start(unknown.id(id("new"))).await.unwrap_err();
    assert!(error.to_string().contains("workflow 'flaw' not found"), "{error}");
    assert!(engine.status(&id("new")).await.is_err());
}

#[tokio::test]
async fn inherited_workflows_and_contexts_meet_this_engines_tools_and_limits() {
    let store = FaultyStore::new();
    let engine = tools().backends(store.backends()).build().unwrap();
    let (_, source) = called(&engine, "soe_get_context", json!({})).await;
    let flow = format!("flow:\n{}", call("START", "echo"));
    let echo = started(
        &engine,
        start(&flow).field("START", Value::from(json!({"x": "y".repeat(1_000)}))),
    )
    .await;

    let poorer = builder().backends(store.backends()).build().unwrap();
    let error = poorer.start(inheriting(&echo)).await.unwrap_err();
    assert!(
        error.to_string().contains("uses tool 'echo', which is not registered"),
        "{error}"
    );
    let limits = |context_bytes, value_bytes| Limits {
        context_bytes,
        value_bytes,
        ..Limits::default()
    };
    for (limits, named) in [
        (limits(1_500, 100_000), "context_bytes"),
        (limits(100_000, 500), "value_bytes"),
    ] {
        let large = inheriting(&source).inherit_context_from(echo.clone()).limits(limits);
        let error = poorer.start(large).await.unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
    let error = poorer
        .start(start(ROUTER).inherit_context_from(echo).field("__x", 1))
        .await;
    assert!(error.unwrap_err().to_string().contains("reserved"));
}

#[tokio::test]
async fn ids_that_children_get_are_refused_for_roots() {
    let engine = builder().build().unwrap();
    for taken in ["x.1.0", "x.1.0.12.63", "2026.11.22", &format!("x.{}", "0af9".repeat(8))] {
        let error = engine.start(start(ROUTER).id(id(taken))).await.unwrap_err();
        assert_eq!(*error.kind(), EngineErrorKind::Refused);
        assert!(error.to_string().contains("ends like the id of a child"), "{error}");
    }
    for free in ["x", "x.1", "1.2", "x.1.b", "x.1.0-a", "v1.2.3-rc", &"0af9".repeat(8)] {
        soon(engine.orchestrate(start(ROUTER).id(id(free)))).await.unwrap();
    }
}
