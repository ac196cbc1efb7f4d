//! Built-in tools that reach beyond the execution which calls them: other tools, other contexts, what the tree shares.

use serde_json::{Value as Json, json};
use soe_backends::*;
use soe_core::policy::Policy;
use soe_core::runtime::{Engine, EngineBuilder};
use soe_core::tools::{ToolContext, ToolError, raw_tool};

use crate::common::*;

fn tools() -> EngineBuilder {
    let double = |arguments: Json, _: ToolContext| async move { Ok(json!(arguments["n"].as_i64().unwrap_or(0) * 2)) };
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let fail = |_: Json, _: ToolContext| async { Err::<Json, _>(ToolError::new("out of order")) };
    builder()
        .tool(raw_tool("double", "", double).schema(schema))
        .tool(raw_tool("fail", "", fail))
        .tool(raw_tool("launch", "", |_: Json, _: ToolContext| async {
            Ok(json!("launched"))
        }))
}

const CALL: &str = "
flow:
  Call:
    node_type: tool
    event_triggers: [START]
    tool_name: TOOL
    context_parameter_field: args
    output_field: out
    tools: [double, fail]
";

async fn called(engine: &Engine, tool: &str, arguments: Json) -> (Json, ExecutionId) {
    let flow = start(&CALL.replace("TOOL", tool)).field("args", Value::from(arguments));
    let finished = soon(engine.orchestrate(flow.field("shared", 1).field("shared", 2)))
        .await
        .unwrap();
    let context = engine.context(&finished.execution).await.unwrap();
    (context.value("out").unwrap().to_json(), finished.execution)
}

/// How often something was denied.
async fn denied(engine: &Engine, execution: &ExecutionId) -> usize {
    let events = engine.telemetry(execution, 0, 10_000).await.unwrap();
    events
        .iter()
        .filter(|event| event.kind.name() == "policy_denied")
        .count()
}

#[tokio::test]
async fn a_tool_is_called_by_its_name_and_counted() {
    let engine = tools().build().unwrap();
    for arguments in [json!({"n": 4}), json!("{\"n\": 4}")] {
        let (out, execution) = called(
            &engine,
            "soe_call_tool",
            json!({"tool_name": "double", "arguments": arguments}),
        )
        .await;
        assert_eq!(out, json!({"success": true, "tool_name": "double", "result": 8}));
        let context = engine.context(&execution).await.unwrap();
        assert_eq!(context.operational.tool_calls, 2, "the node's run, and the call");
    }
    let error = async |arguments: Json| {
        let (out, execution) = called(&engine, "soe_call_tool", arguments).await;
        assert_eq!(denied(&engine, &execution).await, 0);
        out["error"].as_str().unwrap_or_else(|| panic!("{out}")).to_owned()
    };
    let unknown = error(json!({"tool_name": "treble"})).await;
    assert_eq!(unknown, "there is no tool 'treble'; there are: double, fail");
    let wrong = error(json!({"tool_name": "double", "arguments": {"m": 1}})).await;
    assert!(wrong.contains("missing required parameter: n"), "{wrong}");
    assert!(
        error(json!({"tool_name": "double", "arguments": "{n"}))
            .await
            .contains("are no JSON")
    );
    assert_eq!(
        error(json!({"tool_name": "fail"})).await,
        "tool 'fail' failed: out of order"
    );
    assert!(
        error(json!({"tool_name": "soe_get_context"}))
            .await
            .contains("is built in")
    );
}

#[tokio::test]
async fn a_tool_that_the_node_may_not_use_is_not_called_by_its_name_either() {
    let engine = tools().build().unwrap();
    let launch = json!({"tool_name": "launch"});
    let (out, execution) = called(&engine, "soe_call_tool", launch.clone()).await;
    assert!(
        out.as_str().unwrap().contains("this node may not use tool 'launch'"),
        "{out}"
    );
    assert_eq!(denied(&engine, &execution).await, 1);
    assert_eq!(engine.context(&execution).await.unwrap().operational.tool_calls, 1);
    let trusting = tools().policy(Policy::default().escalation(true)).build().unwrap();
    let (out, _) = called(&trusting, "soe_call_tool", launch).await;
    assert_eq!(out["result"], "launched");
}

#[tokio::test]
async fn fields_are_copied_within_an_execution_and_replace_what_was_there() {
    let engine = tools().build().unwrap();
    let (out, execution) = called(&engine, "soe_copy_context", json!({"fields": {"shared": "args"}})).await;
    assert_eq!(
        out,
        json!({
            "status": "copied", "source_execution": execution.as_str(), "target_execution": execution.as_str(),
            "fields_copied": {"shared": "args"},
        })
    );
    let state = engine.state(&execution).await.unwrap();
    let args: Vec<Json> = state
        .context
        .history("args")
        .unwrap()
        .iter()
        .map(Value::to_json)
        .collect();
    assert_eq!(args, [json!(1), json!(2)]);
    let all: u64 = state
        .context
        .fields
        .iter()
        .flat_map(|(_, history)| history.iter())
        .map(Value::size)
        .sum();
    assert_eq!(state.context_bytes, all);
    let (out, _) = called(&engine, "soe_copy_context", json!({"fields": {"missing": "x"}})).await;
    assert!(
        out.as_str()
            .unwrap()
            .contains("has no field 'missing'; there are: args, shared"),
        "{out}"
    );
    let (out, _) = called(
        &engine,
        "soe_copy_context",
        json!({"fields": {"shared": "__operational__"}}),
    )
    .await;
    assert!(out.as_str().unwrap().contains("belong to the engine"), "{out}");
    let (out, _) = called(&engine, "soe_copy_context", json!({})).await;
    assert!(out.as_str().unwrap().contains("either 'fields'"), "{out}");
}

#[tokio::test]
async fn another_trees_context_is_out_of_reach_unless_the_policy_opens_it() {
    for (policy, open) in [(Policy::default(), false), (Policy::default().other_trees(true), true)] {
        let engine = tools().policy(policy).build().unwrap();
        let (_, secret) = called(&engine, "soe_get_context", json!({})).await;
        let read = json!({"source_execution_id": secret.as_str(), "fields": {"shared": "stolen"}});
        let write = json!({"target_execution_id": secret.as_str(), "fields": {"shared": "planted"}});
        for (arguments, field, on_target) in [(read, "stolen", false), (write, "planted", true)] {
            let (out, execution) = called(&engine, "soe_copy_context", arguments).await;
            assert_eq!(out["status"] == "copied", open, "{out}");
            assert_eq!(denied(&engine, &execution).await, usize::from(!open));
            let changed = if on_target { &secret } else { &execution };
            let context = engine.context(changed).await.unwrap();
            assert_eq!(context.history(field).map(History::len), open.then_some(2));
        }
        let (missing, _) = called(&engine, "soe_copy_context", json!({"source_execution_id": "no-such"})).await;
        let expected = if open {
            "there is no execution 'no-such'"
        } else {
            "is not in this execution's tree"
        };
        assert!(missing.as_str().unwrap().contains(expected), "{missing}");

        let (listed, own) = called(&engine, "soe_list_contexts", json!({})).await;
        let contexts = listed["contexts"].as_array().unwrap();
        assert_eq!(contexts.len() > 1, open);
        let current = contexts.iter().find(|context| context["is_current"] == true).unwrap();
        assert_eq!(
            (&current["execution_id"], &current["signals"]),
            (&json!(own.as_str()), &json!(["START"]))
        );
        assert_eq!(
            (&current["node_count"], &listed["current_execution_id"]),
            (&json!(1), &json!(own.as_str()))
        );
        let (others, _) = called(&engine, "soe_list_contexts", json!({"include_current": false})).await;
        assert_eq!(others["contexts"].as_array().unwrap().is_empty(), !open);
    }
}

#[tokio::test]
async fn a_child_copies_from_and_to_its_parent() {
    let yaml = "
flow:
  Down: {node_type: child, event_triggers: [START], child_workflow_name: down, child_initial_signals: [GO], input_fields: [up]}
  Work: {node_type: tool, event_triggers: [AGAIN], tool_name: double, parameters: {n: 1}}
down:
  Up:
    node_type: tool
    event_triggers: [GO]
    tool_name: soe_copy_context
    parameters: {target_execution_id: '{{ context.up }}', fields: {up: from_below}}
    output_field: out
    event_emissions: [{signal_name: NEXT}]
  Down:
    node_type: tool
    event_triggers: [NEXT]
    tool_name: soe_copy_context
    parameters: {source_execution_id: '{{ context.up }}', fields: {n: from_above}}
    output_field: out
";
    let engine = tools().build().unwrap();
    let flow = start(yaml).id(id("root")).field("up", "root").field("n", 5);
    soon(engine.orchestrate(flow)).await.unwrap();
    let root = engine.state(&id("root")).await.unwrap();
    assert_eq!(root.context.value("from_below"), Some(&Value::from("root")));
    let below = engine.context(&id("root.1.0")).await.unwrap();
    assert_eq!(below.value("from_above"), Some(&Value::from(5)));
}

#[tokio::test]
async fn identities_are_injected_shown_and_removed() {
    let engine = tools().build().unwrap();
    let poet = json!({"identity_name": "poet", "system_prompt": "You rhyme."});
    let (out, execution) = called(&engine, "soe_inject_identity", poet).await;
    assert_eq!(
        (&out["injected"], &out["identity_name"]),
        (&json!(true), &json!("poet"))
    );
    let shared = engine.definitions(&execution).await.unwrap();
    assert_eq!(shared.identities().await.unwrap()["poet"].as_ref(), "You rhyme.");

    let yaml = "
workflows:
  flow:
    Show: {node_type: tool, event_triggers: [START], tool_name: soe_get_identities, output_field: out,
           parameters: {identity_name: critic}, event_emissions: [{signal_name: SHOWN}]}
    Remove: {node_type: tool, event_triggers: [SHOWN], tool_name: soe_remove_identity, output_field: out,
             parameters: {identity_name: critic}, event_emissions: [{signal_name: REMOVED}]}
    List: {node_type: tool, event_triggers: [REMOVED], tool_name: soe_get_identities, output_field: out,
           parameters: {list_only: true}, event_emissions: [{signal_name: LISTED}]}
    Missing: {node_type: tool, event_triggers: [LISTED], tool_name: soe_remove_identity, output_field: out,
              parameters: {identity_name: critic}}
identities: {critic: You doubt., judge: You decide.}
";
    let finished = soon(engine.orchestrate(start(yaml))).await.unwrap();
    let context = engine.context(&finished.execution).await.unwrap();
    let out: Vec<Json> = context.history("out").unwrap().iter().map(Value::to_json).collect();
    assert_eq!(
        out[0],
        json!({"identity_name": "critic", "system_prompt": "You doubt."})
    );
    assert_eq!(
        (&out[1]["removed"], &out[2]),
        (&json!(true), &json!({"identity_names": ["judge"]}))
    );
    assert_eq!(out[3], "identity 'critic' not found; there are: judge");
}

#[tokio::test]
async fn many_children_define_at_once_and_nothing_is_lost() {
    let yaml = "
workflows:
  flow:
    Fan:
      node_type: child
      event_triggers: [START]
      child_workflow_name: define
      child_initial_signals: [GO]
      fan_out_field: names
      child_input_field: name
  define:
    Schema:
      node_type: tool
      event_triggers: [GO]
      tool_name: soe_inject_context_schema_field
      parameters: {field_name: '{{ context.name }}', field_definition: {type: integer, description: d}}
      output_field: out
context_schema: {first: string}
";
    let engine = tools().build().unwrap();
    let names = Value::list((0..40).map(|n| Value::from(format!("field_{n}"))));
    let finished = soon(engine.orchestrate(start(yaml).field("names", names)))
        .await
        .unwrap();
    let shared = engine.definitions(&finished.execution).await.unwrap();
    let schema = shared.context_schema().await.unwrap();
    assert_eq!(schema.len(), 41);
    assert_eq!(
        schema["field_7"].to_json(),
        json!({"type": "integer", "description": "d"})
    );
    let events = engine.tree_telemetry(&finished.execution, 0, 10_000).await.unwrap();
    let defined = events.iter().filter(|event| event.kind.name() == "definition_changed");
    let by: std::collections::BTreeSet<_> = defined.map(|event| &event.execution).collect();
    assert_eq!(by.len(), 40, "each in the execution whose node did it");
}

#[tokio::test]
async fn a_schema_field_is_checked_shown_and_removed() {
    let engine = tools().build().unwrap();
    let define = |definition: Json| json!({"field_name": "score", "field_definition": definition});
    for definition in [json!("integer"), json!("{type: integer}"), json!({"type": "integer"})] {
        let (out, _) = called(&engine, "soe_inject_context_schema_field", define(definition)).await;
        assert_eq!(out["injected"], json!(true), "{out}");
    }
    let (out, _) = called(&engine, "soe_inject_context_schema_field", define(json!("[1]"))).await;
    assert!(out.as_str().unwrap().contains("it is not valid"), "{out}");
    let (out, _) = called(&engine, "soe_get_context_schema", json!({"field_name": "score"})).await;
    assert_eq!(out, json!({"error": "Field 'score' not found", "available": []}));
    let (out, _) = called(
        &engine,
        "soe_remove_context_schema_field",
        json!({"field_name": "score"}),
    )
    .await;
    assert_eq!(out, "field 'score' has no schema; there are none");
    let closed = tools().policy(Policy::closed()).build().unwrap();
    let flow = start(&CALL.replace("TOOL", "soe_inject_identity"));
    assert!(closed.orchestrate(flow).await.is_err());
}
