//! Child executions: what goes down to them, and what comes back.

use std::collections::BTreeSet;

use serde_json::json;
use soe_backends::*;
use soe_core::config::Config;
use soe_core::runtime::{Engine, EngineErrorKind, Orchestration};
use soe_core::tools::{NoArguments, ToolContext, ToolError, raw_tool, tool_fn};

use crate::common::*;

pub(crate) fn engine() -> Engine {
    let double = raw_tool(
        "double",
        "",
        |arguments: serde_json::Value, _: ToolContext| async move {
            Ok(json!(arguments["n"].as_i64().unwrap_or_default() * 2))
        },
    );
    let fail = tool_fn("fail", "", |_: NoArguments, _| async {
        Err::<(), _>(ToolError::new("no"))
    });
    builder().tool(double).tool(fail).build().unwrap()
}

pub(crate) fn parent(yaml: &str) -> Orchestration {
    let config = Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
    Orchestration::new(config, "parent").signal("START")
}

pub(crate) async fn done(engine: &Engine, orchestration: Orchestration) -> std::sync::Arc<Context> {
    let finished = soon(engine.orchestrate(orchestration)).await.unwrap();
    engine.context(&finished.execution).await.unwrap()
}

const ONE: &str = "
parent:
  Delegate:
    node_type: child
    event_triggers: [START]
    child_workflow_name: worker
    child_initial_signals: [GO]
    input_fields: [n, missing]
    signals_to_parent: [WORKED]
    context_updates_to_parent: [result]
    event_emissions: [{signal_name: STARTED}]
  After:
    node_type: router
    event_triggers: [WORKED]
    event_emissions: [{signal_name: DONE, condition: '{{ context.result == 14 }}'}]
worker:
  Work:
    node_type: tool
    event_triggers: [GO]
    tool_name: double
    parameters: {n: '{{ context.n }}'}
    output_field: result
    event_emissions: [{signal_name: WORKED}]
";

#[tokio::test]
async fn a_childs_signal_and_result_arrive_together() {
    let engine = engine();
    let execution = engine
        .start(parent(ONE).field("n", 6).field("n", 7).field("secret", 1))
        .await
        .unwrap();
    soon(execution.wait()).await.unwrap();
    let context = execution.context().await.unwrap();
    assert_eq!(signals(&context), ["START", "STARTED", "WORKED", "DONE"]);
    assert_eq!(context.history("result").unwrap().len(), 1);
    assert_eq!(
        (context.operational.tree.children, context.operational.tree.tool_calls),
        (1, 1)
    );
    assert_eq!(context.operational.tool_calls, 0, "the parent itself called none");

    let tree = engine.tree(execution.id()).await.unwrap();
    assert_eq!(tree.status(1), Some(Status::Rested));
    let child = engine.state(&tree.get(1).unwrap().id).await.unwrap();
    assert_eq!(child.main_execution_id(), execution.id());
    let own = &child.context;
    assert_eq!(
        own.history("n").unwrap().iter().collect::<Vec<_>>(),
        [&Value::from(7)],
        "the current value only"
    );
    assert!(own.history("secret").is_none() && own.history("missing").is_none());
    let info = own.parent.as_ref().unwrap();
    assert_eq!((&info.parent_execution_id, info.depth), (execution.id(), 1));
    assert_eq!(
        own.operational
            .signals
            .iter()
            .map(|s| s.to_string())
            .collect::<Vec<_>>(),
        ["GO", "WORKED"]
    );
    assert_eq!(tree.executions.len(), 2);
    let listed = engine.list(&ListQuery::default()).await.unwrap().executions;
    assert_eq!((listed.len(), listed[0].children), (1, 1), "a list has the roots");
}

const FAN: &str = "
parent:
  Fan:
    node_type: child
    event_triggers: [START]
    child_workflow_name: worker
    child_initial_signals: [GO]
    fan_out_field: items
    child_input_field: item
    signals_to_parent: [WORKED]
    context_updates_to_parent: [result]
    event_emissions: [{signal_name: STARTED}]
  Join:
    node_type: router
    event_triggers: [WORKED]
    event_emissions:
      - signal_name: ALL
        condition: '{{ context.result | accumulated | length == context.items | accumulated | length }}'
worker:
  Work:
    node_type: tool
    event_triggers: [GO]
    tool_name: double
    parameters: {n: '{{ context.item }}'}
    output_field: result
    event_emissions: [{signal_name: WORKED}]
";

fn items(count: i64) -> Value {
    Value::list((0..count).map(Value::from))
}

#[tokio::test]
async fn a_fan_out_joins_exactly_once() {
    let engine = engine();
    for count in [1, 2, 7, 200] {
        let context = done(&engine, parent(FAN).field("items", items(count))).await;
        let results: BTreeSet<i64> = context
            .history("result")
            .unwrap()
            .iter()
            .filter_map(Value::as_i64)
            .collect();
        assert_eq!(results, (0..count).map(|n| n * 2).collect());
        let all = signals(&context);
        assert_eq!(all.iter().filter(|s| *s == "ALL").count(), 1, "{count} items");
        assert_eq!(all.iter().filter(|s| *s == "WORKED").count() as i64, count);
        assert_eq!(context.operational.tree.children as i64, count);
    }
}

#[tokio::test]
async fn a_fan_out_is_over_the_values_of_a_field_or_its_one_list_and_over_nothing_it_starts_none() {
    let engine = engine();
    let started = async |orchestration| done(&engine, orchestration).await.operational.tree.children;
    assert_eq!(
        started(parent(FAN).field("items", 1).field("items", 2).field("items", 3)).await,
        3
    );
    assert_eq!(started(parent(FAN).field("items", "a text")).await, 1);
    assert_eq!(started(parent(FAN).field("items", items(0))).await, 0);
    let context = done(&engine, parent(FAN)).await;
    assert_eq!(
        (context.operational.tree.children, signals(&context)),
        (0, vec!["START".into(), "STARTED".into()])
    );
}

#[tokio::test]
async fn children_nest_and_share_the_limit_of_depth() {
    let yaml = "
parent:
  Down:
    node_type: child
    event_triggers: [START]
    child_workflow_name: parent
    child_initial_signals: [START]
    input_fields: [levels]
    signals_to_parent: [BOTTOM]
    event_emissions: [{signal_name: WENT_DOWN}]
  Up: {node_type: router, event_triggers: [BOTTOM], event_emissions: [{signal_name: REACHED}]}
";
    let limits = Limits {
        depth: 3,
        ..Limits::default()
    };
    let engine = engine();
    let execution = engine.start(parent(yaml).limits(limits)).await.unwrap();
    let error = soon(execution.wait()).await.unwrap_err();
    let EngineErrorKind::Failed(failure) = error.kind() else {
        panic!("{error}")
    };
    assert!(failure.message.contains("limit depth exceeded"), "{failure}");
    assert_eq!(engine.tree(execution.id()).await.unwrap().executions.len(), 4);
}

#[tokio::test]
async fn a_hundred_levels_work() {
    let yaml = "
parent:
  Down:
    node_type: child
    event_triggers: [START]
    child_workflow_name: parent
    child_initial_signals: [START]
    input_fields: [x]
    signals_to_parent: [BOTTOM]
    context_updates_to_parent: [x]
  Stop: {node_type: tool, event_triggers: [START], tool_name: double, parameters: {n: 1}, output_field: x}
";
    // Each level goes one deeper until the limit says that it is enough.
    let limits = Limits {
        depth: 100,
        ..Limits::default()
    };
    let engine = engine();
    let execution = engine.start(parent(yaml).limits(limits)).await.unwrap();
    let error = soon(execution.wait()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("limit depth exceeded: node 'Down' would start a child of depth 101"),
        "{error}"
    );
}

#[tokio::test]
async fn depth_first_a_child_runs_within_its_node() {
    let yaml = "
parent:
  Fan:
    node_type: child
    event_triggers: [START]
    child_workflow_name: worker
    child_initial_signals: [GO]
    fan_out_field: items
    child_input_field: item
    signals_to_parent: [STEP, WORKED]
    context_updates_to_parent: [result]
    event_emissions: [{signal_name: STARTED}]
  On: {node_type: tool, event_triggers: [STEP], tool_name: double, parameters: {n: 1}, event_emissions: [{signal_name: SEEN}]}
  Later: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: LATER}]}
worker:
  Begin: {node_type: router, event_triggers: [GO], event_emissions: [{signal_name: STEP}]}
  Work:
    node_type: tool
    event_triggers: [STEP]
    tool_name: double
    parameters: {n: '{{ context.item }}'}
    output_field: result
    event_emissions: [{signal_name: WORKED}]
";
    let engine = engine();
    let flow = parent(yaml).field("items", items(2)).schedule(Schedule::DepthFirst);
    let context = done(&engine, flow).await;
    // The child's own listeners of STEP first: so WORKED arrives before STEP, and each is dealt with before the child goes on.
    assert_eq!(
        signals(&context),
        [
            "START", "WORKED", "STEP", "SEEN", "WORKED", "STEP", "SEEN", "STARTED", "LATER"
        ]
    );
}

#[tokio::test]
async fn the_tree_shares_its_limit_of_children() {
    let limits = Limits {
        children: 5,
        ..Limits::default()
    };
    let engine = engine();
    let execution = engine
        .start(parent(FAN).field("items", items(6)).limits(limits))
        .await
        .unwrap();
    let error = soon(execution.wait()).await.unwrap_err();
    assert!(error.to_string().contains("limit children exceeded"), "{error}");
}

/// Takes up what a failure of the store has left behind, until the root has come to an end.
async fn taken_up(engine: &Engine, root: &ExecutionId) -> std::sync::Arc<TreeState> {
    loop {
        // It fails when the failure of the store is still to come, or comes.
        let _ = engine.resume(root).await;
        let _ = engine.wait(root).await;
        let tree = engine.tree(root).await.unwrap();
        if !tree.is_unsettled() {
            return tree;
        }
    }
}

#[tokio::test]
async fn children_that_are_created_again_after_a_failure_of_the_store_count_once() {
    let mut recovered = 0;
    for commits in (0..200).step_by(13) {
        for fault in [Fault::Before, Fault::After] {
            let store = FaultyStore::new();
            let double = raw_tool("double", "", |_: serde_json::Value, _: ToolContext| async {
                Ok(json!(2))
            });
            let engine = builder().tool(double).backends(store.backends()).build().unwrap();
            let limits = Limits {
                children: 70,
                ..Limits::default()
            };
            let orchestration = parent(FAN).field("items", items(70)).limits(limits);
            let execution = engine.prepare(orchestration).await.unwrap();
            store.fail_after(commits, fault);
            let started = execution.signal(["START"]).await;
            if started.is_err() && fault == Fault::Before {
                continue;
            }
            let tree = soon(taken_up(&engine, execution.id())).await;
            let root = tree.root_state().unwrap();
            // A failure of the store is nobody's failure: the tree goes on where it was.
            assert_eq!(
                (root.status, &root.failure),
                (Status::Rested, &None),
                "{commits} {fault:?}"
            );
            assert_eq!(tree.used.children, 70, "{commits} {fault:?}");
            recovered += 1;
        }
    }
    assert!(recovered > 5, "{recovered}");
}

#[tokio::test]
async fn what_a_child_needs_is_checked_before_anything_starts() {
    let engine = engine();
    let below = "
  Delegate: {node_type: child, event_triggers: [GO], child_workflow_name: last, child_initial_signals: [GO]}
last:
  Work: {node_type: tool, event_triggers: [GO], tool_name: unknown}
";
    for yaml in [
        ONE.replace("tool_name: double", "tool_name: unknown"),
        format!("{ONE}{}", below.trim_start_matches('\n')),
    ] {
        let error = engine.start(parent(&yaml).field("n", 1)).await.unwrap_err();
        assert_eq!(*error.kind(), EngineErrorKind::Refused);
        assert!(error.to_string().contains("uses tool 'unknown'"), "{error}");
    }
    assert!(engine.list(&ListQuery::default()).await.unwrap().executions.is_empty());
}

#[tokio::test]
async fn a_deleted_tree_leaves_no_children_to_the_next_one_of_its_name() {
    let engine = engine();
    let x = ExecutionId::new("x").unwrap();
    for (n, result) in [(7, 14), (8, 16)] {
        soon(engine.orchestrate(parent(ONE).id(x.clone()).field("n", n)))
            .await
            .unwrap();
        assert_eq!(engine.context(&x).await.unwrap().value("result"), Some(&result.into()));
        engine.delete(&x).await.unwrap();
        assert!(engine.list(&ListQuery::default()).await.unwrap().executions.is_empty());
    }
}
