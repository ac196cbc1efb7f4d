//! 18 A workflow that extends itself.

use serde_json::{Value, json};
use soe_backends::EventKind;
use soe_core::policy::Policy;
use soe_core::runtime::{Engine, EngineBuilder};
use soe_core::testing::{MockLlm, node};

use super::{Done, has_line, is_mocked, run};
use crate::support::stdout;

#[path = "../../../18-self-extending/tools.rs"]
mod tools;

const PROGRAM: &str = env!("CARGO_BIN_EXE_18-self-extending");
const WORKFLOW: &str = include_str!("../../../18-self-extending/workflow.yaml");

fn builder(llm: &MockLlm) -> EngineBuilder {
    let builder = tools::tools().into_iter().fold(Engine::builder(), EngineBuilder::tool);
    let policy = Policy::default()
        .only(["soe_explore_docs", "soe_inject_node"])
        .max_changes(5);
    builder.llm(llm.clone()).policy(policy)
}

/// An agent that injects these nodes, each as `Added`, and finishes.
fn injects(nodes: &[Value]) -> MockLlm {
    let llm = MockLlm::new();
    let mut rule = llm.on(node("Extend"));
    for node in nodes {
        let arguments = json!({"workflow_name": "desk", "node_name": "Added", "node_config_data": node});
        rule = rule.call_tool("soe_inject_node").arguments(arguments);
    }
    rule.finish().output("done");
    llm
}

fn uses(tool: &str) -> Value {
    json!({
        "node_type": "tool", "event_triggers": ["FETCHED"], "tool_name": tool,
        "parameters": {"text": "{{ context.article }}"}, "output_field": "words",
        "event_emissions": [{"signal_name": "ADDED_RAN"}]
    })
}

async fn extend(llm: &MockLlm) -> Done {
    let done = run(builder(llm), WORKFLOW, json!({"task": "count"})).await;
    done.result.as_ref().unwrap();
    done
}

impl Done {
    /// Why something was refused, and how often the workflow was changed.
    async fn changes(&self) -> (Vec<String>, usize) {
        let (mut refused, mut changed) = (Vec::new(), 0);
        for event in self.engine.telemetry(&self.id, 0, 10_000).await.unwrap() {
            match event.kind {
                EventKind::PolicyDenied { reason, .. } => refused.push(reason.to_string()),
                EventKind::WorkflowChanged(_) => changed += 1,
                _ => {}
            }
        }
        (refused, changed)
    }
}

#[test]
fn the_program_is_refused_once_and_then_works_without_its_agent() {
    let printed = stdout(PROGRAM, &[]);
    is_mocked(&printed);
    has_line(
        &printed,
        "  refused: node 'Publish' uses tool 'publish', which the node that injects it may not use: its author can grant it under 'tools'; it may use: \
         soe_explore_docs, soe_inject_node, count_words",
    );
    assert_eq!(printed.matches("  the workflow is changed").count(), 1, "{printed}");
    assert!(!printed.contains("PUBLISHED"), "{printed}");
    has_line(
        &printed,
        "signals: START EXTENDED FETCHED MEASURED NEXT FETCHED MEASURED NEXT FETCHED MEASURED",
    );
    // Two requests for each of four calls, one to finish, one for the report; none for the articles.
    assert!(printed.contains("10 requests to the LLM"), "{printed}");
}

#[test]
fn what_was_recorded_can_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("desk.jsonl");
    let path = path.to_str().unwrap();
    let recorded = stdout(PROGRAM, &["--record", path]);
    let replayed = stdout(PROGRAM, &["--replay", path]);
    has_line(&replayed, &format!("LLM: replayed from {path}"));
    let after_first_line = |printed: &str| printed.split_once('\n').unwrap().1.to_owned();
    assert_eq!(after_first_line(&recorded), after_first_line(&replayed));
}

#[tokio::test]
async fn what_is_granted_can_be_injected_and_is_used() {
    let done = extend(&injects(&[uses("count_words")])).await;
    assert_eq!(done.signals(), "START EXTENDED FETCHED ADDED_RAN");
    assert_eq!((done.value("words"), done.changes().await), (json!(8), (Vec::new(), 1)));
    done.engine.broadcast_signals(&done.id, ["NEXT"]).await.unwrap();
    done.engine.wait(&done.id).await.unwrap();
    let context = done.engine.context(&done.id).await.unwrap();
    assert_eq!(context.operational.nodes.get("Added"), Some(&2));
    assert_eq!(context.operational.llm_calls, done.counts()[0]);
}

#[tokio::test]
async fn no_injection_leads_to_a_tool_that_was_not_granted() {
    let agent = json!({
        "node_type": "agent", "event_triggers": ["FETCHED"], "prompt": "Publish it.", "tools": ["count_words", "publish"]
    });
    let mut granting = uses("count_words");
    granting["tools"] = json!(["publish"]);
    for forbidden in [uses("publish"), uses("next_article"), agent, granting] {
        let llm = injects(std::slice::from_ref(&forbidden));
        let done = extend(&llm).await;
        assert_eq!(done.signals(), "START EXTENDED FETCHED", "{forbidden}");
        let (refused, changed) = done.changes().await;
        assert_eq!((refused.len(), changed), (1, 0), "{forbidden}");
        let told = &llm.requests().pop().unwrap().text;
        assert!(told.contains("which the node that injects it may not use"), "{told}");
    }
}

#[tokio::test]
async fn what_is_not_valid_is_not_injected_and_the_changes_are_counted() {
    let llm = injects(&[json!({"node_type": "tool", "event_triggers": ["FETCHED"]})]);
    let done = extend(&llm).await;
    assert_eq!(
        (done.signals().as_str(), done.changes().await),
        ("START EXTENDED FETCHED", (Vec::new(), 0))
    );
    assert!(llm.requests().pop().unwrap().text.contains("tool_name"));

    let mut node = uses("count_words");
    let many = (0..6).map(|number| {
        node["output_field"] = json!(format!("words_{number}"));
        node.clone()
    });
    let many: Vec<Value> = many.collect();
    let (refused, changed) = extend(&injects(&many)).await.changes().await;
    assert_eq!((refused.len(), changed), (1, 5), "{refused:?}");
}

#[tokio::test]
async fn who_insists_is_given_up() {
    let done = extend(&injects(&[
        uses("publish"),
        uses("publish"),
        uses("publish"),
        uses("publish"),
    ]))
    .await;
    assert_eq!(done.signals(), "START GAVE_UP");
    assert_eq!(done.changes().await.1, 0);
}
