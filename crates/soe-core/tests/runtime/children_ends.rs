//! Child executions: who ends, rests and wakes when.

use soe_backends::*;

use crate::children::{done, engine, parent};
use crate::common::*;

#[tokio::test]
async fn a_failed_child_fails_its_parent_or_is_a_signal() {
    let yaml = "
parent:
  Try:
    node_type: child
    event_triggers: [START]
    child_workflow_name: broken
    child_initial_signals: [GO]
    event_emissions: [{signal_name: STARTED}]
  Handled: {node_type: router, event_triggers: [CHILD_FAILED], event_emissions: [{signal_name: GOING_ON}]}
broken:
  Bad: {node_type: boom, event_triggers: [GO]}
";
    let boom = |_: soe_core::nodes::NodeInput| async {
        Err::<soe_core::nodes::NodeOutput, _>(soe_core::nodes::NodeError::new("it broke"))
    };
    let engine = builder().node_type("boom", boom).build().unwrap();
    let execution = engine.start(parent(yaml)).await.unwrap();
    let error = soon(execution.wait()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("node 'Try': child execution") && text.contains("node 'Bad': it broke"),
        "{text}"
    );

    let handled = yaml.replace(
        "    event_emissions: [{signal_name: STARTED}]",
        "    child_failure_signal: CHILD_FAILED",
    );
    let context = done(&engine, parent(&handled)).await;
    assert_eq!(signals(&context), ["START", "CHILD_FAILED", "GOING_ON"]);
    assert_eq!(context.operational.errors, 1);
}

#[tokio::test]
async fn cancelling_and_failing_go_down_the_tree() {
    let yaml = "
parent:
  Down:
    node_type: child
    event_triggers: [START]
    child_workflow_name: middle
    child_initial_signals: [GO]
  Fail: {node_type: boom, event_triggers: [FAIL]}
middle:
  Down:
    node_type: child
    event_triggers: [GO]
    child_workflow_name: leaf
    child_initial_signals: [GO]
leaf:
  Wait: {node_type: tool, event_triggers: [GO], tool_name: wait}
";
    for (end, expected) in [("cancel", Status::Cancelled), ("fail", Status::Suspended)] {
        let gate = Gate::new();
        let boom = |_: soe_core::nodes::NodeInput| async {
            Err::<soe_core::nodes::NodeOutput, _>(soe_core::nodes::NodeError::new("enough"))
        };
        let engine = builder()
            .tool(gate.tool("wait"))
            .node_type("boom", boom)
            .build()
            .unwrap();
        let execution = engine.start(parent(yaml)).await.unwrap();
        soon(gate.called()).await;
        match end {
            "cancel" => execution.cancel().await.unwrap(),
            _ => execution.signal(["FAIL"]).await.unwrap(),
        }
        soon(execution.wait()).await.unwrap_err();
        // An end is one mark: it holds for all below from the same commit on.
        let statuses: Vec<Status> = executions_of(&engine, execution.id())
            .await
            .iter()
            .map(|one| one.status)
            .collect();
        assert_eq!(statuses[1..], [expected; 2]);
        assert_eq!(engine.shutdown(std::time::Duration::from_secs(10)).await.stopped, []);
    }
}

#[tokio::test]
async fn a_parent_rests_when_its_children_rest_and_wakes_with_them() {
    let yaml = "
parent:
  Down:
    node_type: child
    event_triggers: [START]
    child_workflow_name: child
    child_initial_signals: [GO]
    signals_to_parent: [NEWS]
    context_updates_to_parent: [x]
child:
  Work: {node_type: tool, event_triggers: [GO, AGAIN], tool_name: double, parameters: {n: 3}, output_field: x}
  Tell: {node_type: router, event_triggers: [SAY], event_emissions: [{signal_name: NEWS}]}
";
    let engine = engine();
    let execution = engine.start(parent(yaml)).await.unwrap();
    soon(execution.wait()).await.unwrap();
    let context = execution.context().await.unwrap();
    assert_eq!(
        context.history("x").unwrap().len(),
        1,
        "told when the child rested, without a signal"
    );
    let child = engine.tree(execution.id()).await.unwrap().get(1).unwrap().id.clone();
    engine.broadcast_signals(&child, ["AGAIN"]).await.unwrap();
    soon(engine.wait(&child)).await.unwrap();
    engine.broadcast_signals(&child, ["SAY"]).await.unwrap();
    soon(execution.wait()).await.unwrap();
    let context = execution.context().await.unwrap();
    assert_eq!(count(&context, "NEWS"), 1);
    assert_eq!(context.history("x").unwrap().len(), 2, "each value once");
    soon(execution.wait()).await.unwrap();
    assert_eq!(engine.status(execution.id()).await.unwrap().status, Status::Rested);
}
