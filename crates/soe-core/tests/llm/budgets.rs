//! Limits on requests and tokens, and how they are counted.

use std::time::Duration;

use serde_json::json;
use soe_backends::Limits;
use soe_core::llm::{LlmRequest, Stage};
use soe_core::nodes::{NodeError, NodeInput, NodeOutput};
use soe_core::testing::{MockLlm, any, stage};

use crate::common::*;

fn calls(llm_calls: u64) -> Limits {
    Limits {
        llm_calls: Some(llm_calls),
        ..Limits::default()
    }
}

fn tokens(tokens: u64) -> Limits {
    Limits {
        tokens: Some(tokens),
        ..Limits::default()
    }
}

/// An llm node that asks again and again.
const LOOP: &str = "
flow:
  N:
    node_type: llm
    event_triggers: [START, AGAIN]
    prompt: p
    output_field: x
    llm_failure_signal: ENOUGH
    event_emissions: [{signal_name: AGAIN}]
";

#[tokio::test]
async fn a_runaway_loop_stops_before_the_request_that_would_exceed_the_limit() {
    let llm = MockLlm::new();
    llm.on(any()).output("x").usage(10, 0);
    let done = run_with(&llm, start(LOOP).limits(calls(5))).await;
    done.result.as_ref().unwrap();
    assert_eq!((llm.calls(), done.counters()), (5, [5, 0, 0, 50]));
    assert!(done.signals().ends_with("AGAIN ENOUGH"));
    let error = done.named("node_error")[0]["error"].clone();
    assert_eq!(error, "limit llm_calls exceeded: all 5 requests to LLMs were made");
    let done = run_with(&llm, start(LOOP).limits(tokens(25))).await;
    assert_eq!(done.counters(), [3, 0, 0, 30], "the third overshoots, and is the last");
}

#[tokio::test]
async fn without_a_failure_signal_a_denied_request_fails_the_execution_and_names_the_limit() {
    let llm = MockLlm::new();
    llm.on(any()).text("invalid");
    let failed = run_with(&llm, llm_node(", prompt: p, output_field: x").limits(calls(2))).await;
    assert_eq!(
        failed.failure(),
        "node 'N': limit llm_calls exceeded: all 2 requests to LLMs were made"
    );
    let state = failed.engine.state(&failed.id).await.unwrap();
    assert_eq!(state.failure.clone().unwrap().limit.as_deref(), Some("llm_calls"));
    assert_eq!(llm.calls(), 2, "retries are requests");
}

#[tokio::test(start_paused = true)]
async fn many_nodes_that_ask_at_once_never_exceed_the_limit_together() {
    let mut yaml = "flow:\n".to_owned();
    for n in 0..40 {
        yaml += &format!(
            "  N{n}: {{node_type: llm, event_triggers: [START], prompt: p, output_field: x, llm_failure_signal: NO, \
             event_emissions: [{{signal_name: YES}}]}}\n"
        );
    }
    let llm = MockLlm::new();
    llm.on(any()).output(1).after(Duration::from_millis(50));
    let done = run_with(&llm, start(&yaml).limits(calls(15))).await;
    assert_eq!((llm.calls(), done.counters()), (15, [15, 0, 0, 0]));
    let signals = done.signals();
    assert_eq!(
        (signals.matches("YES").count(), signals.matches("NO").count()),
        (15, 25)
    );
}

#[tokio::test]
async fn an_agents_requests_count_one_by_one() {
    let llm = MockLlm::new();
    llm.on(stage(Stage::Router)).call_tool("echo");
    llm.on(stage(Stage::Parameter)).arguments(json!({"text": "x"}));
    let failed = run_with(&llm, agent(", tools: [echo]").limits(calls(5))).await;
    assert_eq!((llm.calls(), failed.counters()), (5, [5, 2, 0, 0]));
    assert!(failed.failure().contains("limit llm_calls exceeded"));
}

#[tokio::test]
async fn templates_read_what_was_used() {
    let yaml = "
flow:
  N: {node_type: llm, event_triggers: [START, AGAIN], prompt: p, output_field: x, event_emissions: [{signal_name: CHECK}]}
  Guard:
    node_type: router
    event_triggers: [CHECK]
    event_emissions:
      - {signal_name: AGAIN, condition: '{{ context.__operational__.llm_calls < 3 }}'}
      - signal_name: DONE
        condition: >-
          {{ context.__operational__.tree.tokens == 21 and context.__operational__.tokens == 21
             and context.__operational__.tree.llm_calls == 3 and context.__operational__.node_tokens.N == 21 }}
";
    let llm = MockLlm::new();
    llm.on(any()).output("x").usage(5, 2);
    let done = run_with(&llm, start(yaml)).await;
    assert_eq!(done.signals(), "START CHECK AGAIN CHECK AGAIN CHECK DONE");
}

#[tokio::test]
async fn custom_nodes_ask_under_the_same_limits() {
    async fn ask(input: NodeInput) -> Result<NodeOutput, NodeError> {
        let first = input.call_llm("one?").await?;
        let request = LlmRequest::new("two?").with_schema(json!({"type": "string"}));
        let second = input.call_llm(request).await;
        let error = second.map_or_else(|error| error.to_string(), |reply| reply.text);
        Ok(NodeOutput::new().write("first", first.text).write("second", error))
    }
    let llm = MockLlm::new();
    llm.on(any()).text("yes").usage(3, 1);
    let flow = "flow: {N: {node_type: ask, event_triggers: [START], event_emissions: [{signal_name: DONE}]}}";
    let engine = || builder(&llm).node_type("ask", ask).build().unwrap();
    let done = run(engine(), start(flow)).await;
    assert_eq!((done.value("second"), done.counters()), (json!("yes"), [2, 0, 0, 8]));
    assert_eq!(llm.requests()[1].key, format!("{}:1/2", done.id));
    assert_eq!(done.named("llm_call").len(), 2);
    let done = run(engine(), start(flow).limits(calls(1))).await;
    assert_eq!((done.value("first"), done.counters()), (json!("yes"), [1, 0, 0, 4]));
    let denied = done.value("second");
    assert!(
        denied.as_str().unwrap().contains("limit llm_calls exceeded"),
        "{denied}"
    );
    assert_eq!(done.signals(), "START DONE");
}
