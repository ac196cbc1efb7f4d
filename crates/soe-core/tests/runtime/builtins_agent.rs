//! Built-in tools in the hands of agents, and calls that come at once or again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use soe_backends::*;
use soe_core::llm::llm_fn;
use soe_core::policy::Policy;
use soe_core::runtime::EngineBuilder;

use crate::builtins::*;
use crate::common::*;

/// An LLM that says these things, one after the other.
pub(crate) fn saying(replies: &[Json]) -> EngineBuilder {
    let replies: VecDeque<String> = replies.iter().map(Json::to_string).collect();
    let replies = Arc::new(Mutex::new(replies));
    tools().llm(llm_fn(move |_, _| {
        let reply = replies
            .lock()
            .unwrap()
            .pop_front()
            .expect("it asks more than was expected");
        async move { Ok(reply) }
    }))
}

pub(crate) const AGENT: &str = "
flow:
  Think:
    node_type: agent
    event_triggers: [START]
    prompt: Extend yourself.
    tools: [soe_inject_node, soe_update_context, soe_get_context, echo]
    output_field: answer
    retries: 3
    event_emissions: [{signal_name: START_DONE}]
";

#[tokio::test]
async fn an_agent_changes_its_workflow_and_reads_its_own_writes() {
    let choose = |tool: &str| json!({"action": "call_tool", "tool_name": tool});
    let engine = saying(&[
        choose("soe_update_context"),
        json!({"updates": {"n": 4}}),
        choose("soe_get_context"),
        json!({"field": "n"}),
        choose("soe_inject_node"),
        inject(node("launch")),
        choose("soe_inject_node"),
        inject(node("echo")),
        json!({"action": "finish"}),
        json!({"answer": "done"}),
    ])
    .build()
    .unwrap();
    let finished = soon(engine.orchestrate(start(AGENT))).await.unwrap();
    let context = engine.context(&finished.execution).await.unwrap();
    assert_eq!(signals(&context), ["START", "START_DONE", "INJECTED_DONE"]);
    assert_eq!(
        context.operational.tool_calls, 5,
        "four by the agent, one by the new node"
    );
    let results = events(&engine, &finished.execution, "agent_tool_result").await;
    let read = results.iter().any(|kind| match kind {
        EventKind::AgentToolResult { result_preview, .. } => result_preview.as_ref() == r#"{"n":[4]}"#,
        _ => false,
    });
    assert!(read, "{results:?}");
    assert_eq!(events(&engine, &finished.execution, "policy_denied").await.len(), 1);
}

#[tokio::test]
async fn whichever_commit_fails_a_call_changes_what_it_changes_once() {
    for (commits, fault) in [
        (1, Fault::Before),
        (1, Fault::After),
        (2, Fault::Before),
        (2, Fault::After),
    ] {
        let store = FaultyStore::new();
        let engine = tools().backends(store.backends()).build().unwrap();
        store.fail_after(commits, fault);
        let flow = start(&format!("flow:\n{}", call("START", "soe_update_context")));
        let arguments = json!({"updates": {"n": 1}});
        let execution = engine.start(flow.field("START", Value::from(arguments))).await.unwrap();
        // An error, unless it is the last commit that was stored all the same.
        let stopped = soon(execution.wait()).await.is_err();
        assert_eq!(stopped, (commits, fault) != (2, Fault::After), "{commits} {fault:?}");
        soon(execution.signal(["GO_ON"])).await.unwrap();
        soon(execution.wait()).await.unwrap();
        let context = execution.context().await.unwrap();
        let lengths = ["n", "START_result"].map(|field| context.history(field).unwrap().len());
        assert_eq!(
            (lengths, count(&context, "START_DONE")),
            ([1, 1], 1),
            "{commits} {fault:?}"
        );
        assert_eq!(context.operational.tool_calls, 1);
    }
}

#[tokio::test]
async fn the_documentation_is_read_and_nothing_else() {
    let engine = tools().policy(Policy::closed()).build().unwrap();
    let (text, _) = called(
        &engine,
        "soe_explore_docs",
        json!({"path": "builtins.md", "action": "read"}),
    )
    .await;
    assert!(text.as_str().unwrap().starts_with("# Built-in tools"));
    let neighbour = json!({"path": "docs/../Cargo.toml", "action": "read"});
    let (refused, _) = called(&engine, "soe_explore_docs", neighbour).await;
    assert!(refused.as_str().unwrap().contains("there is no document"), "{refused}");
    let (unknown, _) = called(&engine, "soe_explore_docs", json!({"path": "/", "action": "write"})).await;
    assert!(unknown.as_str().unwrap().contains("soe_explore_docs"), "{unknown}");
}

#[tokio::test]
async fn two_nodes_inject_the_same_name_at_once_and_the_later_one_stays() {
    let engine = tools().build().unwrap();
    let yaml = format!(
        "flow:\n{}{}",
        call("START", "soe_inject_node"),
        call("B", "soe_inject_node").replace("[B]", "[START]")
    );
    let flow = start(&yaml).field("B", Value::from(inject(node("echo"))));
    let (_, execution) = called_in(&engine, "inject", inject(node("soe_inject_node")), flow).await;
    let state = engine.state(&execution).await.unwrap();
    assert_eq!(state.workflow_changes, 2);
    let changes = events(&engine, &execution, "workflow_changed").await;
    let [EventKind::WorkflowChanged(first), EventKind::WorkflowChanged(second)] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!((&second.replaces, &second.registry), (&first.registry, &state.registry));
    // Each is in the list as a whole, with its own configuration.
    let tools = [first, second].map(|change| change.by.as_ref().unwrap().node_name.clone());
    let injected = async |version: u64| {
        let workflows = engine.workflows_at(&execution, version).await.unwrap();
        workflows.document.to_json()["flow"]["New"]["tool_name"].clone()
    };
    let of = |caller: &str| if caller == "B" { "echo" } else { "soe_inject_node" };
    assert_eq!(
        [injected(1).await, injected(2).await],
        [json!(of(&tools[0])), json!(of(&tools[1]))]
    );
    assert_eq!(engine.workflow_versions(&execution).await.unwrap().len(), 3);
}
