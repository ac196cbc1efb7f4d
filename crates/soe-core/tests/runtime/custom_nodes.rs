//! Node types of the application, run by the engine.

use serde_json::json;
use soe_core::nodes::{NodeError, NodeInput, NodeOutput};
use soe_core::runtime::{BuildError, EngineErrorKind};
use soe_core::tools::{NoArguments, tool_fn};

use crate::common::*;

#[tokio::test]
async fn a_node_reads_its_snapshot_and_its_writes_are_one_event() {
    let gate = Gate::new();
    let slow = |input: NodeInput| async move {
        let seen = input.value("x").and_then(|x| x.as_i64()).unwrap_or(-1);
        let result = input.call_tool("wait", json!({})).await?;
        assert_eq!(input.value("x").and_then(|x| x.as_i64()), Some(seen), "a snapshot");
        Ok(NodeOutput::new()
            .write("seen", seen)
            .write("tool", result)
            .emit("EXPLICIT"))
    };
    let set = |_: NodeInput| async { Ok(NodeOutput::new().write("x", 2)) };
    let engine = builder()
        .tool(gate.tool("wait"))
        .node_type("slow", slow)
        .node_type("set", set)
        .build()
        .unwrap();
    let flow = start(
        "
flow:
  Slow: {node_type: slow, event_triggers: [START], event_emissions: [{signal_name: CONFIGURED}]}
  Set: {node_type: set, event_triggers: [START], event_emissions: [{signal_name: WRITTEN}]}
",
    );
    let execution = engine.start(flow.field("x", 1)).await.unwrap();
    gate.called().await;
    let written = async {
        while count(&execution.context().await.unwrap(), "WRITTEN") == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(written).await;
    gate.open(1);
    execution.wait().await.unwrap();
    let context = execution.context().await.unwrap();
    assert_eq!(context.value("seen").unwrap().as_i64(), Some(1));
    assert_eq!(context.value("tool").unwrap().as_str(), Some("done"));
    assert_eq!(signals(&context), ["START", "WRITTEN", "EXPLICIT"]);
    assert!(
        gate.keys.lock().unwrap()[0].ends_with(":1.0"),
        "the run, and the call's index"
    );
}

#[tokio::test]
async fn failures_emit_the_configured_signal_or_fail_the_execution() {
    let fails = |_: NodeInput| async { Err::<NodeOutput, _>(NodeError::new("no")) };
    let engine = builder().node_type("fails", fails).build().unwrap();
    let handled = engine
        .orchestrate(one_node("fails", ", failure_signal: BROKEN"))
        .await
        .unwrap();
    let context = engine.context(&handled.execution).await.unwrap();
    assert_eq!(signals(&context), ["START", "BROKEN"]);
    assert_eq!(context.operational.errors, 1);
    let error = engine.orchestrate(one_node("fails", "")).await.unwrap_err();
    assert!(matches!(kind(&error), EngineErrorKind::Failed(failure) if failure.message == "no"));
}

#[tokio::test]
async fn reserved_fields_and_nameless_signals_are_refused() {
    let engine = builder()
        .node_type("writes", |_| async {
            Ok(NodeOutput::new().write("ok", 1).write("__x", 1))
        })
        .node_type("emits", |_| async { Ok(NodeOutput::new().emit("")) })
        .build()
        .unwrap();
    for (node, text) in [("writes", "__x"), ("emits", "empty name")] {
        let error = engine.orchestrate(one_node(node, "")).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        let context = engine.context(error.execution().unwrap()).await.unwrap();
        assert!(context.history("ok").is_none(), "all of it or nothing");
    }
}

#[tokio::test]
async fn what_cannot_be_registered_is_the_builders_error() {
    let tool = || tool_fn("t", "", |_: NoArguments, _| async { Ok(1) });
    let error = builder().tool(tool()).tool(tool()).build().unwrap_err();
    assert!(matches!(error, BuildError::Tool(_)));
    let error = builder()
        .node_type("router", |_| async { Ok(NodeOutput::new()) })
        .build()
        .unwrap_err();
    assert!(matches!(error, BuildError::NodeType(_)));
    assert!(matches!(
        builder().max_tasks(0).build().unwrap_err(),
        BuildError::NoTasks
    ));
}
