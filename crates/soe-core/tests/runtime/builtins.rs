//! Built-in tools, from tool nodes and from agents.

use serde_json::{Value as Json, json};
use soe_backends::*;
use soe_core::policy::Policy;
use soe_core::runtime::{Engine, EngineBuilder, Orchestration};
use soe_core::tools::{ToolContext, raw_tool};

use crate::common::*;

/// A tool that returns its arguments, and one that nobody is meant to reach.
pub(crate) fn tools() -> EngineBuilder {
    let echo = |arguments: Json, _: ToolContext| async move { Ok(arguments) };
    let launch = |_: Json, _: ToolContext| async move { Ok(json!("launched")) };
    builder()
        .tool(raw_tool("echo", "", echo))
        .tool(raw_tool("launch", "", launch))
}

/// A node that calls the built-in tool `tool` on `trigger` with the arguments in the field `trigger`.
pub(crate) fn call(trigger: &str, tool: &str) -> String {
    format!(
        "  {trigger}: {{node_type: tool, event_triggers: [{trigger}], tool_name: {tool}, context_parameter_field: \
         {trigger}, output_field: {trigger}_result, event_emissions: [{{signal_name: {trigger}_DONE}}], tools: [echo]}}\n"
    )
}

/// One call of a built-in tool: what it returned, and the execution.
pub(crate) async fn called(engine: &Engine, tool: &str, arguments: Json) -> (Json, ExecutionId) {
    called_in(
        engine,
        tool,
        arguments,
        start(&format!("flow:\n{}", call("START", tool))),
    )
    .await
}

pub(crate) async fn called_in(
    engine: &Engine,
    tool: &str,
    arguments: Json,
    flow: Orchestration,
) -> (Json, ExecutionId) {
    let flow = flow.field("START", Value::from(arguments));
    let finished = soon(engine.orchestrate(flow)).await.unwrap();
    let context = engine.context(&finished.execution).await.unwrap();
    let result = context
        .value("START_result")
        .unwrap_or_else(|| panic!("{tool} returned nothing"));
    (result.to_json(), finished.execution)
}

pub(crate) async fn events(engine: &Engine, execution: &ExecutionId, name: &str) -> Vec<EventKind> {
    let events = engine.telemetry(execution, 0, 10_000).await.unwrap();
    events
        .into_iter()
        .map(|event| event.kind)
        .filter(|kind| kind.name() == name)
        .collect()
}

pub(crate) fn node(tool: &str) -> Json {
    json!({
        "node_type": "tool",
        "event_triggers": ["START_DONE"],
        "tool_name": tool,
        "output_field": "injected_result",
        "event_emissions": [{"signal_name": "INJECTED_DONE"}],
    })
}

pub(crate) fn inject(node: Json) -> Json {
    json!({"workflow_name": "flow", "node_name": "New", "node_config_data": node})
}

#[tokio::test]
async fn workflows_are_shown() {
    let engine = tools().build().unwrap();
    let (all, _) = called(&engine, "soe_get_workflows", json!({})).await;
    assert_eq!(all["flow"]["START"]["tool_name"], "soe_get_workflows");
    let (names, _) = called(&engine, "soe_get_workflows", json!({"list_only": true})).await;
    assert_eq!(names, json!({"workflow_names": ["flow"]}));
    let (one, _) = called(&engine, "soe_get_workflows", json!({"workflow_name": "flow"})).await;
    assert_eq!(
        (&one["workflow_name"], &one["nodes"]),
        (&json!("flow"), &json!(["START"]))
    );
    assert_eq!(one["node_configs"]["START"]["node_type"], "tool");
    let (none, _) = called(&engine, "soe_get_workflows", json!({"workflow_name": "flows"})).await;
    assert_eq!(none["available"], json!(["flow"]));
    assert!(none["error"].as_str().unwrap().contains("'flows' not found"));
}

#[tokio::test]
async fn tools_are_listed_as_the_policy_leaves_them() {
    let engine = tools()
        .policy(Policy::default().only(["soe_get_available_tools"]))
        .build()
        .unwrap();
    let (tools, _) = called(&engine, "soe_get_available_tools", json!({})).await;
    assert_eq!(
        tools,
        json!({"builtin_tools": ["soe_get_available_tools"], "user_tools": ["echo", "launch"]})
    );
    let flow = start(&format!("flow:\n{}", call("START", "soe_get_context")));
    let error = engine.orchestrate(flow).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("uses tool 'soe_get_context', which is not registered"),
        "{error}"
    );
    let misnamed = builder().policy(Policy::default().without(["soe_dance"])).build();
    assert!(misnamed.unwrap_err().to_string().contains("soe_dance"));
}

#[tokio::test]
async fn a_context_is_read_with_its_histories() {
    let engine = tools().build().unwrap();
    let flow = || {
        start(&format!("flow:\n{}", call("START", "soe_get_context")))
            .field("a", 1)
            .field("a", 2)
    };
    let (one, _) = called_in(&engine, "get", json!({"field": "a"}), flow()).await;
    assert_eq!(one, json!({"a": [1, 2]}));
    let (some, _) = called_in(&engine, "get", json!({"fields": ["a", "b"]}), flow()).await;
    assert_eq!(some, json!({"a": [1, 2], "b": []}));
    let (all, _) = called_in(&engine, "get", json!({}), flow()).await;
    assert_eq!(all, json!({"a": [1, 2], "START": [{}]}));
    let (refused, _) = called_in(&engine, "get", json!({"field": "__operational__"}), flow()).await;
    assert!(refused.as_str().unwrap().contains("belongs to the engine"), "{refused}");
}

#[tokio::test]
async fn a_context_is_written_but_not_what_is_the_engines() {
    let engine = tools().build().unwrap();
    let updates = json!({"updates": {"a": 1, "__operational__": {"llm_calls": 0}, "b": null, "c": [1, {"d": 2}]}});
    let (result, execution) = called(&engine, "soe_update_context", updates).await;
    assert_eq!(result["status"], "updated");
    assert_eq!(result["fields"], json!(["a", "c"]));
    assert_eq!(result["ignored"], json!(["__operational__", "b"]));
    let context = engine.context(&execution).await.unwrap();
    assert_eq!(context.value("c").unwrap().to_json(), json!([1, {"d": 2}]));
    assert!(context.value("b").is_none());
    let (nothing, _) = called(&engine, "soe_update_context", json!({"updates": {}})).await;
    assert_eq!(nothing["status"], "no updates provided");

    let state = engine.state(&execution).await.unwrap();
    assert!(state.answers.is_empty(), "the run is over");
}

#[tokio::test]
async fn of_updates_that_exceed_a_limit_nothing_is_written() {
    let engine = tools().build().unwrap();
    let nested = (0..110).fold(json!(1), |inner, _| json!([inner]));
    for (updates, context_bytes, told) in [
        (
            format!("{{a: 1, b: {nested}}}"),
            10_000_000,
            "nests deeper than 100 levels",
        ),
        (
            format!("{{a: 1, b: {}}}", "x".repeat(5_000)),
            6_000,
            "limit context_bytes",
        ),
    ] {
        let limits = Limits {
            context_bytes,
            ..Limits::default()
        };
        let flow = start(&format!("flow:\n{}", call("START", "soe_update_context"))).limits(limits);
        let flow = flow.field("START", Value::from(format!("updates: {updates}")));
        let finished = soon(engine.orchestrate(flow)).await.unwrap();
        let context = engine.context(&finished.execution).await.unwrap();
        let answer = context.value("START_result").unwrap().to_json();
        assert!(answer.as_str().unwrap_or_default().contains(told), "{answer}");
        assert!(context.value("a").is_none());
    }
}

#[tokio::test]
async fn an_injected_node_takes_part_from_the_next_signal_on() {
    let engine = tools().build().unwrap();
    for config in [node("echo"), json!(node("echo").to_string())] {
        let (result, execution) = called(&engine, "soe_inject_node", inject(config)).await;
        assert_eq!(
            (&result["injected"], &result["node_name"], &result["workflow_name"]),
            (&json!(true), &json!("New"), &json!("flow"))
        );
        let context = engine.context(&execution).await.unwrap();
        assert_eq!(signals(&context), ["START", "START_DONE", "INJECTED_DONE"]);
        let state = engine.state(&execution).await.unwrap();
        assert_eq!(state.workflow_changes, 1);
        let [EventKind::WorkflowChanged(change)] = &events(&engine, &execution, "workflow_changed").await[..] else {
            panic!("one change")
        };
        let by = change.by.as_ref().unwrap();
        assert_eq!(
            (by.node_name.as_ref(), by.run, by.tool_name.as_ref()),
            ("START", 1, "soe_inject_node")
        );
        let edit = WorkflowEdit::Changed {
            workflow_name: "flow".into(),
            changed_node: Some("New".into()),
        };
        assert_eq!((change.version, &change.edit), (1, &edit));
        assert_eq!(change.registry, state.registry);
        assert!(
            engine
                .backends()
                .workflows()
                .registry(&change.replaces)
                .await
                .unwrap()
                .is_some()
        );
        assert!(
            engine
                .backends()
                .workflows()
                .registry(&change.registry)
                .await
                .unwrap()
                .is_some()
        );
    }
}

#[tokio::test]
async fn what_is_injected_must_be_valid_and_nothing_of_it_is_taken_if_it_is_not() {
    let engine = tools().build().unwrap();
    let told = async |config: Json| {
        let (result, execution) = called(&engine, "soe_inject_node", inject(config)).await;
        assert_eq!(engine.state(&execution).await.unwrap().workflow_changes, 0);
        assert_eq!(events(&engine, &execution, "workflow_changed").await, []);
        result.as_str().unwrap_or_else(|| panic!("{result}")).to_owned()
    };
    assert!(told(json!("node_type: [")).await.contains("Invalid YAML"));
    assert!(
        told(json!({"node_type": "tool"}))
            .await
            .contains("'event_triggers' is required")
    );
    let mut misnamed = node("ecko");
    assert!(told(misnamed.clone()).await.contains("did you mean 'echo'?"));
    misnamed["tool_name"] = json!("echo");
    misnamed["output_field"] = json!("__operational__");
    assert!(told(misnamed).await.contains("__operational__"));
    let unknown = json!({"node_type": "telepathy", "event_triggers": ["X"]});
    assert!(told(unknown).await.contains("'telepathy', which is not registered"));
    let llm = json!({"node_type": "llm", "event_triggers": ["X"], "prompt": "hi"});
    assert!(told(llm).await.contains("there is none"));
    let elsewhere = json!({"workflow_name": "flaw", "node_name": "New", "node_config_data": node("echo")});
    let (result, _) = called(&engine, "soe_inject_node", elsewhere).await;
    assert_eq!(result, "workflow 'flaw' not found; there are: flow");
}

#[tokio::test]
async fn workflows_are_injected_run_and_removed() {
    let engine = tools().build().unwrap();
    let yaml = format!(
        "flow:\n{}  Start: {{node_type: child, event_triggers: [START_DONE], child_workflow_name: extra, \
         child_initial_signals: [GO], signals_to_parent: [EXTRA]}}\n{}extra:\n  X: {{node_type: router, event_triggers: \
         [GO], event_emissions: [{{signal_name: NEVER}}]}}",
        call("START", "soe_inject_workflow"),
        call("EXTRA", "soe_remove_workflow"),
    );
    let nodes = "extra:\n  Say: {node_type: router, event_triggers: [GO], event_emissions: [{signal_name: EXTRA}]}";
    let flow = start(&yaml).field("EXTRA", Value::from(json!({"workflow_name": "extra"})));
    let arguments = json!({"workflow_name": "extra", "workflow_data": nodes});
    let (result, execution) = called_in(&engine, "inject", arguments, flow).await;
    assert_eq!(result["message"], "workflow 'extra' is injected, with 1 node");
    let context = engine.context(&execution).await.unwrap();
    assert_eq!(count(&context, "EXTRA"), 1);
    assert_eq!(context.value("EXTRA_result").unwrap().to_json()["removed"], json!(true));
    let state = engine.state(&execution).await.unwrap();
    let registry = engine
        .backends()
        .workflows()
        .registry(&state.registry)
        .await
        .unwrap()
        .unwrap();
    assert!(registry.workflows.get("extra").is_none() && registry.workflows.get("flow").is_some());
}

#[tokio::test]
async fn a_node_can_remove_itself_and_the_workflow_that_runs() {
    let engine = tools().build().unwrap();
    let own = json!({"workflow_name": "flow", "node_name": "START"});
    let (result, execution) = called(&engine, "soe_remove_node", own).await;
    assert_eq!(result["removed"], json!(true));
    assert_eq!(
        signals(&engine.context(&execution).await.unwrap()),
        ["START", "START_DONE"]
    );
    soon(engine.broadcast_signals(&execution, ["START"])).await.unwrap();
    soon(engine.wait(&execution)).await.unwrap();
    assert_eq!(
        engine.tree(&execution).await.unwrap().used.runs,
        1,
        "nobody listens any more"
    );

    for schedule in [Schedule::Concurrent, Schedule::DepthFirst] {
        let flow = start(&format!("flow:\n{}", call("START", "soe_remove_workflow"))).schedule(schedule);
        let (result, execution) = called_in(&engine, "remove", json!({"workflow_name": "flow"}), flow).await;
        assert_eq!(result["removed"], json!(true));
        assert_eq!(
            signals(&engine.context(&execution).await.unwrap()),
            ["START", "START_DONE"]
        );
    }
    let (missing, _) = called(
        &engine,
        "soe_remove_node",
        json!({"workflow_name": "flow", "node_name": "No"}),
    )
    .await;
    assert_eq!(missing, "node 'No' not found in workflow 'flow'; there are: START");
}

#[tokio::test]
async fn a_batch_in_progress_goes_on_with_the_nodes_that_it_began_with() {
    let engine = tools().build().unwrap();
    let nodes = "
  Second: {node_type: tool, event_triggers: [START], tool_name: soe_get_available_tools, output_field: second, event_emissions: [{signal_name: OLD}]}
";
    let other = json!({"node_type": "tool", "event_triggers": ["START"], "tool_name": "soe_get_context",
        "event_emissions": [{"signal_name": "NEW"}]});
    let changes = [
        (
            "soe_remove_node",
            json!({"workflow_name": "flow", "node_name": "Second"}),
        ),
        ("soe_remove_workflow", json!({"workflow_name": "flow"})),
        (
            "soe_inject_node",
            json!({"workflow_name": "flow", "node_name": "Second", "node_config_data": other}),
        ),
    ];
    for (tool, arguments) in changes {
        let flow = format!("flow:\n{}{nodes}", call("START", tool));
        let flow = start(&flow).schedule(Schedule::DepthFirst);
        let (_, execution) = called_in(&engine, tool, arguments, flow).await;
        let context = engine.context(&execution).await.unwrap();
        assert!(context.value("second").is_some(), "{tool}");
        assert_eq!((count(&context, "OLD"), count(&context, "NEW")), (1, 0), "{tool}");
    }
}

#[tokio::test]
async fn signals_are_added_and_their_conditions_changed() {
    let engine = tools().build().unwrap();
    let add = |signal: &str, condition: &str| json!({"workflow_name": "flow", "node_name": "START", "signal_name": signal, "condition": condition});
    let (result, execution) = called(&engine, "soe_add_signal", add("MORE", "{{ context.x }}")).await;
    assert_eq!(result["status"], "added");
    soon(engine.broadcast_signals(&execution, ["START"])).await.unwrap();
    soon(engine.wait(&execution)).await.unwrap();
    let workflows = engine.state(&execution).await.unwrap().registry.clone();
    let document = engine
        .backends()
        .workflows()
        .registry(&workflows)
        .await
        .unwrap()
        .unwrap();
    let emissions = document.workflows.to_json()["flow"]["START"]["event_emissions"].clone();
    assert_eq!(
        emissions,
        json!([{"signal_name": "START_DONE"}, {"signal_name": "MORE", "condition": "{{ context.x }}"}])
    );
    let (result, _) = called(&engine, "soe_add_signal", add("START_DONE", "{{ false }}")).await;
    assert_eq!(result["status"], "updated");
    let (result, _) = called(&engine, "soe_add_signal", add("MORE", "{{ context.x")).await;
    assert!(result.as_str().unwrap().contains("it is not valid"), "{result}");
}
