//! Built-in tools against the policy: each attempt ends in a refusal that its caller sees.

use serde_json::Value as Json;
use serde_json::json;
use soe_backends::*;
use soe_core::llm::llm_fn;
use soe_core::policy::Policy;
use soe_core::runtime::EngineErrorKind;

use crate::builtins::*;
use crate::builtins_agent::{AGENT, saying};
use crate::common::*;

#[tokio::test]
async fn an_injected_node_reaches_no_tool_that_its_injector_may_not_use() {
    let engine = tools().build().unwrap();
    let denied = async |config: Json| {
        let (result, execution) = called(&engine, "soe_inject_node", inject(config.clone())).await;
        let text = result
            .as_str()
            .unwrap_or_else(|| panic!("{config} was injected"))
            .to_owned();
        assert!(text.contains("the policy of this engine doesn't allow it"), "{text}");
        assert_eq!(events(&engine, &execution, "policy_denied").await.len(), 1);
        assert_eq!(engine.state(&execution).await.unwrap().workflow_changes, 0);
    };
    denied(node("launch")).await;
    denied(node("soe_get_workflows")).await;
    let mut grants = node("soe_inject_node");
    grants["tools"] = json!(["launch"]);
    denied(grants).await;
    let agent = json!({"node_type": "agent", "event_triggers": ["X"], "prompt": "p", "tools": ["echo", "launch"]});
    let with_llm = tools().llm(llm_fn(|_, _| async { Ok(String::new()) })).build().unwrap();
    let (result, _) = called(&with_llm, "soe_inject_node", inject(agent.clone())).await;
    assert!(result.as_str().unwrap().contains("uses tool 'launch'"), "{result}");
    let trusting = tools()
        .llm(llm_fn(|_, _| async { Ok(String::new()) }))
        .policy(Policy::open());
    let (result, _) = called(&trusting.build().unwrap(), "soe_inject_node", inject(agent)).await;
    assert_eq!(result["injected"], json!(true));
}

#[tokio::test]
async fn nor_by_a_workflow_that_it_starts_or_a_node_type_of_the_application() {
    let secret = "\nsecret:\n  Launch: {node_type: tool, event_triggers: [GO], tool_name: launch}\nway:\n  On: {node_type: \
                  child, event_triggers: [GO], child_workflow_name: secret, child_initial_signals: [GO]}";
    let engine = tools()
        .node_type("powerful", |_: soe_core::nodes::NodeInput| async {
            Ok(soe_core::nodes::NodeOutput::new())
        })
        .build()
        .unwrap();
    let child = json!({
        "node_type": "child", "event_triggers": ["START_DONE"], "child_workflow_name": "way",
        "child_initial_signals": ["GO"],
    });
    let flow = start(&format!("flow:\n{}{secret}", call("START", "soe_inject_node")));
    let (result, execution) = called_in(&engine, "inject", inject(child), flow).await;
    assert!(result.as_str().unwrap().contains("uses tool 'launch'"), "{result}");
    assert_eq!(events(&engine, &execution, "policy_denied").await.len(), 1);

    let custom = json!({"node_type": "powerful", "event_triggers": ["START_DONE"]});
    let (result, _) = called(&engine, "soe_inject_node", inject(custom)).await;
    assert!(result.as_str().unwrap().contains("which can use any tool"), "{result}");
    let data = json!({"workflow_name": "other", "workflow_data": {"New": node("launch")}});
    let (result, _) = called(&engine, "soe_inject_workflow", data).await;
    assert!(result.as_str().unwrap().contains("uses tool 'launch'"), "{result}");
}

#[tokio::test]
async fn changes_are_limited_in_number_and_size() {
    let engine = tools()
        .policy(Policy::default().max_changes(2).max_injected_bytes(500))
        .build()
        .unwrap();
    let mut large = node("echo");
    large["note"] = json!("x".repeat(600));
    let (result, _) = called(&engine, "soe_inject_node", inject(large)).await;
    assert!(
        result.as_str().unwrap().contains("500 may be injected at a time"),
        "{result}"
    );

    // A node that gets one more signal with each round: after two, it is denied, and its failure emits nothing.
    let yaml = "
flow:
  START:
    node_type: tool
    event_triggers: [START]
    tool_name: soe_add_signal
    parameters:
      workflow_name: flow
      node_name: START
      signal_name: 'MORE_{{ context.START_result | accumulated | length }}'
    output_field: START_result
    event_emissions:
      - {signal_name: START, condition: '{{ context.START_result | accumulated | length < 4 }}'}
";
    let finished = soon(engine.orchestrate(start(yaml))).await.unwrap();
    assert_eq!(engine.state(&finished.execution).await.unwrap().workflow_changes, 2);
    assert_eq!(events(&engine, &finished.execution, "policy_denied").await.len(), 1);
}

#[tokio::test]
async fn a_closed_policy_has_no_tool_that_changes_anything() {
    let engine = saying(&[]).policy(Policy::closed()).build().unwrap();
    let error = engine.orchestrate(start(AGENT)).await.unwrap_err();
    assert!(matches!(kind(&error), EngineErrorKind::Refused), "{error}");
    assert!(error.to_string().contains("soe_inject_node"), "{error}");
}

#[tokio::test]
async fn an_injected_loop_and_a_template_bomb_end_at_their_limits() {
    let engine = tools().build().unwrap();
    let limits = Limits {
        broadcasts: 500,
        ..Limits::default()
    };
    let endless = json!({
        "node_type": "router", "event_triggers": ["START_DONE"], "event_emissions": [{"signal_name": "START_DONE"}],
    });
    let flow = start(&format!("flow:\n{}", call("START", "soe_inject_node"))).limits(limits);
    let error = soon(engine.orchestrate(flow.field("START", Value::from(inject(endless)))))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("limit broadcasts exceeded"), "{error}");

    let bomb = json!({
        "node_type": "router", "event_triggers": ["START_DONE"],
        "event_emissions": [{"signal_name": "BANG", "condition": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"}],
    });
    let (result, execution) = called(&engine, "soe_inject_node", inject(bomb)).await;
    assert_eq!(result["injected"], json!(true));
    assert_eq!(
        signals(&engine.context(&execution).await.unwrap()),
        ["START", "START_DONE"]
    );
    assert_eq!(events(&engine, &execution, "context_warning").await.len(), 1);
}
