//! Children in numbers and shapes that nobody meant, and ends that come at the wrong time.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use soe_backends::{ExecutionId, Limits, Status, Value};
use soe_core::config::Config;
use soe_core::nodes::{NodeError, NodeInput, NodeOutput};
use soe_core::runtime::{Engine, EngineErrorKind, Orchestration};
use soe_core::tools::{ToolContext, raw_tool};

use crate::common::*;

/// One child for each item; each of them tells the parent what it got.
const FAN: &str = "
flow:
  Fan:
    node_type: child
    event_triggers: [START]
    child_workflow_name: worker
    child_initial_signals: [GO]
    fan_out_field: items
    child_input_field: item
    signals_to_parent: [WORKED]
    context_updates_to_parent: [result]
  Fail: {node_type: boom, event_triggers: [FAIL]}
worker:
  Work:
    node_type: tool
    event_triggers: [GO]
    tool_name: work
    parameters: {item: '{{ context.item }}'}
    output_field: result
    event_emissions: [{signal_name: WORKED}]
";

/// `work` gives the length of its item, after so many milliseconds at most; `boom` fails.
fn workers(delay: u64) -> Engine {
    let work = raw_tool("work", "", move |arguments: Json, _: ToolContext| async move {
        let length = arguments["item"].as_str().map_or(0, str::len);
        if delay > 0 {
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..delay * 1_000))).await;
        }
        Ok(json!(length))
    });
    let boom = |_: NodeInput| async { Err::<NodeOutput, _>(NodeError::new("enough")) };
    Engine::builder().tool(work).node_type("boom", boom).build().unwrap()
}

fn list(count: usize) -> Value {
    Value::list((0..count).map(|number| Value::from(number as u64)))
}

async fn limited(engine: &Engine, orchestration: Orchestration) -> (String, ExecutionId) {
    let error = soon(engine.orchestrate(orchestration)).await.unwrap_err();
    assert!(matches!(error.kind(), EngineErrorKind::Failed(_)), "{error}");
    (error.to_string(), error.execution().unwrap().clone())
}

async fn created(engine: &Engine, root: &ExecutionId) -> usize {
    engine.tree(root).await.unwrap().executions.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_over_nothing_and_over_a_text() {
    let engine = workers(0);
    for (orchestration, children) in [
        (start(FAN), 0),
        (start(FAN).field("items", Value::list([])), 0),
        (start(FAN).field("items", Value::from(json!({}))), 1),
        (start(FAN).field("items", "a text, not a list"), 1),
    ] {
        let execution = soon(engine.orchestrate(orchestration)).await.unwrap().execution;
        let context = engine.context(&execution).await.unwrap();
        assert_eq!(context.operational.tree.children, children);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_over_a_million_items_creates_none_of_them() {
    let engine = workers(0);
    let begun = Instant::now();
    let (error, root) = limited(&engine, start(FAN).field("items", list(1_000_000))).await;
    assert!(error.contains("limit children exceeded"), "{error}");
    assert!(
        error.contains("'Fan'") && error.contains("1000000, 100000 are allowed"),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(created(&engine, &root).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_over_items_of_a_megabyte() {
    let engine = workers(0);
    let items = Value::list((0..40).map(|_| Value::from("x".repeat(1 << 20))));
    let execution = soon(engine.orchestrate(start(FAN).field("items", items)))
        .await
        .unwrap();
    let lengths = engine.history(&execution.execution, "result").await.unwrap();
    assert_eq!(lengths.len(), 40);
    assert!(lengths.iter().all(|length| *length == Value::from(1_u64 << 20)));
}

#[tokio::test(flavor = "multi_thread")]
async fn fan_outs_in_fan_outs_share_the_limit_of_their_tree() {
    let yaml = "
flow:
  Fan: &fan
    node_type: child
    event_triggers: [START]
    child_workflow_name: middle
    child_initial_signals: [START]
    fan_out_field: items
    child_input_field: item
    input_fields: [items]
middle:
  Fan: {<<: *fan, child_workflow_name: leaf, child_input_field: one}
leaf:
  Work: {node_type: tool, event_triggers: [START], tool_name: work}
";
    let engine = workers(1);
    let limits = Limits {
        children: 500,
        ..Limits::default()
    };
    // Forty at first, each of them forty more: none knows how many the others have.
    let orchestration = start(yaml).field("items", list(40)).limits(limits.clone());
    let (error, root) = limited(&engine, orchestration).await;
    assert!(error.contains("limit children exceeded"), "{error}");
    soon(engine.shutdown(Duration::from_secs(60))).await;
    let executions = created(&engine, &root).await;
    assert!(executions <= 501, "{executions} executions");

    let engine = workers(1);
    let allowed = start(yaml).field("items", list(21)).limits(limits);
    let root = soon(engine.orchestrate(allowed)).await.unwrap().execution;
    assert_eq!(created(&engine, &root).await, 1 + 21 + 21 * 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_of_itself_without_an_end() {
    let yaml = "
flow:
  Again:
    node_type: child
    event_triggers: [START]
    child_workflow_name: flow
    child_initial_signals: [START]
";
    let engine = workers(0);
    let (error, root) = limited(&engine, start(yaml)).await;
    assert!(
        error.contains("limit depth exceeded: node 'Again' would start a child of depth 129"),
        "{error}"
    );
    assert!(
        error.len() < 20_000,
        "it names 128 executions, each once: {} bytes",
        error.len()
    );
    assert_eq!(created(&engine, &root).await, 129);
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_signal_while_and_after_their_parent_fails() {
    for round in 0..20 {
        let engine = workers(4);
        let execution = engine.start(start(FAN).field("items", list(60))).await.unwrap();
        tokio::time::sleep(Duration::from_micros(round * 250)).await;
        soon(execution.signal(["FAIL"])).await.unwrap();
        let error = soon(execution.wait()).await.unwrap_err();
        assert!(error.to_string().contains("enough"), "{error}");
        soon(engine.shutdown(Duration::from_secs(60))).await;

        let tree = engine.tree(execution.id()).await.unwrap();
        let parent = tree.root_state().unwrap();
        assert_eq!(parent.status, Status::Failed);
        let applied = parent.context.history("result").map_or(0, |history| history.len());
        // What a child has done is applied, or kept for when the parent is resumed: once.
        let kept = parent.stopped.iter().flat_map(|stopped| &stopped.deliveries).count();
        let children = tree.executions.values().filter(|state| state.number > 0);
        let done = children
            .filter(|child| child.context.history("result").is_some())
            .count();
        assert_eq!(applied + kept, done);
        if round == 0 {
            soon(resumed(execution.id(), &engine)).await;
        }
    }
}

/// Goes on under an engine whose `boom` doesn't fail, until all have told what they have to tell.
async fn resumed(root: &ExecutionId, stopped: &Engine) {
    let length = raw_tool("work", "", |_: Json, _: ToolContext| async { Ok(json!(0)) });
    let builder = Engine::builder().backends(stopped.backends().clone()).tool(length);
    let quiet = |_: NodeInput| async { Ok(NodeOutput::new()) };
    let engine = builder.node_type("boom", quiet).build().unwrap();
    engine.resume(root).await.unwrap().wait().await.unwrap();
    assert_eq!(engine.history(root, "result").await.unwrap().len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_that_is_removed_before_its_children_start() {
    let yaml = "
flow:
  Remove:
    node_type: tool
    event_triggers: [START]
    tool_name: soe_remove_workflow
    parameters: {workflow_name: worker}
    event_emissions: [{signal_name: REMOVED}]
  Early: &child
    node_type: child
    event_triggers: [START]
    child_workflow_name: worker
    child_initial_signals: [GO]
    signals_to_parent: [WORKED]
  Late: {<<: *child, event_triggers: [REMOVED, START_LATE]}
worker:
  Work: {node_type: tool, event_triggers: [GO], tool_name: work, event_emissions: [{signal_name: WORKED}]}
";
    let engine = workers(2);
    // The one that began with the workflow has it; the one that comes later fails, with its name.
    let (error, root) = limited(&engine, start(yaml)).await;
    assert!(
        error.contains("node 'Late'") && error.contains("workflow 'worker' not found"),
        "{error}"
    );
    let root = engine.state(&root).await.unwrap();
    assert_eq!(root.context.operational.nodes.get("Early"), Some(&1));
    assert_eq!(root.workflow_versions().len(), 2);
}

#[tokio::test]
async fn what_is_injected_and_is_no_yaml() {
    let yaml = "
flow:
  Inject:
    node_type: tool
    event_triggers: [START]
    tool_name: soe_inject_workflow
    context_parameter_field: arguments
    output_field: result
    tools: [work]
  Node:
    node_type: tool
    event_triggers: [NODE]
    tool_name: soe_inject_node
    context_parameter_field: arguments
    output_field: result
";
    let engine = workers(0);
    for text in [
        "",
        "   ",
        "[",
        "{a: {b: [}",
        "a: b: c",
        "\u{0}\u{1}\u{2}",
        "%PDF-1.7 \u{feff}",
        "- a\n- b",
        "just words",
        "17",
        "null",
        "--- a\n--- b",
        "&a [*a]",
        "{\"node_type\": ",
        &"[".repeat(20_000),
        &"a: ".repeat(5_000),
    ] {
        let arguments = json!({
            "workflow_name": "flow", "workflow_data": text, "node_name": "New", "node_config_data": text,
        });
        for (signal, drop) in [
            ("START", ["node_name", "node_config_data"].as_slice()),
            ("NODE", &["workflow_data"]),
        ] {
            let mut arguments = arguments.clone();
            drop.iter().for_each(|name| drop_entry(&mut arguments, name));
            let config = Config::from_yaml(yaml).unwrap();
            let orchestration = Orchestration::new(config, "flow").signal(signal);
            let orchestration = orchestration.field("arguments", Value::from(arguments));
            let execution = soon(engine.orchestrate(orchestration)).await.unwrap().execution;
            let told = last(&engine.execution(execution.clone()), "result").await;
            let told = told.as_str().unwrap_or_else(|| panic!("{text:?}: {told:?}")).to_owned();
            assert!(!told.is_empty() && told.len() < 20_000, "{text:?}: {told}");
            assert_eq!(engine.workflow_versions(&execution).await.unwrap().len(), 1, "{text:?}");
        }
    }
}

fn drop_entry(object: &mut Json, name: &str) {
    object.as_object_mut().unwrap().remove(name);
}
