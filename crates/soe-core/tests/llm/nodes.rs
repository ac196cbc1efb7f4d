//! The llm node.

use serde_json::json;
use soe_core::llm::{LlmErrorKind, llm_fn};
use soe_core::runtime::{Engine, EngineErrorKind};
use soe_core::testing::{MockLlm, any, node};

use crate::common::*;

#[tokio::test]
async fn a_prompt_is_rendered_asked_and_its_output_written() {
    let llm = MockLlm::new();
    llm.on(node("N")).output("Bonjour").usage(12, 3);
    let done = run_with(
        &llm,
        llm_node(
            ", prompt: 'Greet {{ context.name }}', output_field: greeting, event_emissions: [{signal_name: DONE}]",
        )
        .field("name", "Ada"),
    )
    .await;
    done.result.as_ref().unwrap();
    assert_eq!(done.signals(), "START DONE");
    assert_eq!(done.value("greeting"), json!("Bonjour"));
    assert_eq!(done.counters(), [1, 0, 0, 15]);
    let request = &llm.requests()[0];
    let asked = asked(request);
    assert_eq!(asked["prompt"], "Greet Ada");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(asked["context"].as_str().unwrap()).unwrap(),
        json!({"name": "Ada"})
    );
    assert_eq!(asked["conversation_history"], "");
    assert_eq!(asked.as_object().unwrap().len(), 3);
    assert_eq!(request.key, format!("{}:1/1", done.id));
    assert_eq!(request.config["output_field"].as_str(), Some("greeting"));
}

#[tokio::test]
async fn without_output_field_nothing_is_written() {
    let llm = MockLlm::new();
    llm.on(any()).text(r#"{"output": "thought"}"#);
    let done = run_with(
        &llm,
        llm_node(", prompt: think, event_emissions: [{signal_name: DONE}]"),
    )
    .await;
    assert_eq!((done.signals().as_str(), done.context.fields.len()), ("START DONE", 0));
}

#[tokio::test]
async fn a_closure_is_a_caller_and_named_llms_are_chosen_by_node() {
    let engine = Engine::builder()
        .llm(llm_fn(|prompt, config| async move {
            assert!(prompt.contains("what") && config.contains_key("prompt"));
            Ok(r#"{"answer": "slow"}"#)
        }))
        .named_llm("fast", llm_fn(|_, _| async { Ok(r#"{"answer": "fast"}"#.to_owned()) }))
        .build()
        .unwrap();
    let done = run(engine.clone(), llm_node(", prompt: what, output_field: answer")).await;
    assert_eq!(done.value("answer"), "slow");
    let done = run(
        engine.clone(),
        llm_node(", prompt: what, output_field: answer, llm: fast"),
    )
    .await;
    assert_eq!(done.value("answer"), "fast");
    let refused = engine.start(llm_node(", prompt: what, llm: other")).await.unwrap_err();
    assert_eq!(*refused.kind(), EngineErrorKind::Refused);
    assert!(
        refused
            .to_string()
            .contains("node 'N' asks LLM 'other', which is not registered (there are: fast)"),
        "{refused}"
    );
}

#[tokio::test]
async fn without_an_llm_nothing_starts() {
    let engine = Engine::builder().build().unwrap();
    let refused = engine.start(llm_node(", prompt: what")).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("asks the default LLM, and none is registered"),
        "{refused}"
    );
}

const CHOICE: &str = ", prompt: judge, output_field: verdict, event_emissions: [{signal_name: GOOD, condition: it is good}, \
                      {signal_name: BAD, condition: it is bad}, {signal_name: LATER}]";

#[tokio::test]
async fn an_llm_chooses_none_one_or_many_signals() {
    for (chosen, signals) in [
        (vec![], "START"),
        (vec!["BAD"], "START BAD"),
        (vec!["LATER", "GOOD"], "START LATER GOOD"),
    ] {
        let llm = MockLlm::new();
        llm.on(any()).output("ok").signals(chosen);
        let done = run_with(&llm, llm_node(CHOICE)).await;
        assert_eq!((done.signals().as_str(), done.value("verdict")), (signals, json!("ok")));
        assert!(
            llm.requests()[0].text.contains("it is bad"),
            "the choices are described"
        );
    }
}

#[tokio::test]
async fn a_signal_that_is_no_choice_is_asked_again() {
    let llm = MockLlm::new();
    llm.on(any())
        .text(r#"{"verdict": 1, "selected_signals": ["UGLY"]}"#)
        .text(r#"{"verdict": 1, "selected_signals": ["GOOD"]}"#);
    let done = run_with(&llm, llm_node(CHOICE)).await;
    assert_eq!((done.signals().as_str(), done.counters()), ("START GOOD", [2, 0, 1, 0]));
    assert!(llm.requests()[1].text.contains("UGLY"));
}

#[tokio::test]
async fn templates_decide_on_the_new_output() {
    let emissions = ", event_emissions: [{signal_name: HIGH, condition: '{{ context.score > 5 }}'}, \
                     {signal_name: LOW, condition: '{{ context.score <= 5 }}'}, {signal_name: ALWAYS}]";
    let llm = MockLlm::new();
    llm.on(any()).output(7);
    let done = run_with(
        &llm,
        llm_node(&format!(", prompt: rate, output_field: score{emissions}")),
    )
    .await;
    assert_eq!(done.signals(), "START HIGH ALWAYS");
    assert!(!llm.requests()[0].text.contains("selected_signals"));
}

#[tokio::test]
async fn invalid_replies_are_asked_again_with_what_is_wrong() {
    let llm = MockLlm::new();
    llm.on(any())
        .text("no JSON here")
        .text(r#"{"other": 1}"#)
        .output("third time")
        .usage(5, 5);
    let done = run_with(
        &llm,
        llm_node(", prompt: p, output_field: x, event_emissions: [{signal_name: DONE}]"),
    )
    .await;
    assert_eq!(
        (done.signals().as_str(), done.value("x")),
        ("START DONE", json!("third time"))
    );
    assert_eq!(done.counters(), [3, 0, 2, 10]);
    let requests = llm.requests();
    assert!(
        requests[1].text.starts_with(&requests[0].text),
        "what was asked is repeated"
    );
    assert!(requests[1].text.contains("no JSON here"));
    assert!(
        requests[2].text.contains("no JSON here") && requests[2].text.contains(r#"\"other\""#)
            || requests[2].text.contains(r#""other""#)
    );
    assert_ne!(requests[0].key, requests[1].key);
    let errors = done.named("node_error");
    assert_eq!(
        errors.iter().map(|e| e["retry_attempt"].clone()).collect::<Vec<_>>(),
        [json!(2), json!(3)]
    );
}

#[tokio::test]
async fn after_its_retries_a_node_fails_or_emits_its_failure_signal() {
    for (retries, calls) in [("", 4), (", retries: 0", 1), (", retries: 1", 2)] {
        let llm = MockLlm::new();
        llm.on(any()).text("nonsense");
        let failed = run_with(&llm, llm_node(&format!(", prompt: p, output_field: x{retries}"))).await;
        assert_eq!(failed.counters(), [calls, 0, calls, 0]);
        let failure = failed.failure();
        assert!(
            failure.starts_with(&format!("node 'N': no valid reply in {calls} attempts; the last: ")),
            "{failure}"
        );
        let signal = ", llm_failure_signal: SORRY, event_emissions: [{signal_name: DONE}]";
        let handled = run_with(
            &llm,
            llm_node(&format!(", prompt: p, output_field: x{retries}{signal}")),
        )
        .await;
        handled.result.as_ref().unwrap();
        assert_eq!(
            (handled.signals().as_str(), handled.context.fields.len()),
            ("START SORRY", 0)
        );
    }
}

#[tokio::test]
async fn an_error_of_the_caller_fails_the_node_at_once() {
    let llm = MockLlm::new();
    llm.on(any()).error(LlmErrorKind::Unauthorized, "the key is refused");
    let failed = run_with(&llm, llm_node(", prompt: p")).await;
    assert_eq!(failed.counters(), [1, 0, 1, 0]);
    assert_eq!(failed.failure(), "node 'N': the key is refused");
    let source = std::error::Error::source(failed.result.as_ref().unwrap_err()).unwrap();
    assert_eq!(source.to_string(), "the key is refused");
    let handled = run_with(&llm, llm_node(", prompt: p, llm_failure_signal: SORRY")).await;
    assert_eq!(handled.signals(), "START SORRY");
}

#[tokio::test]
async fn a_panic_of_the_caller_is_its_nodes_failure() {
    let panics = llm_fn(|_, _| async {
        if true {
            panic!("oh");
        }
        Ok("")
    });
    let engine = Engine::builder().llm(panics).build().unwrap();
    let failed = run(engine, llm_node(", prompt: p")).await;
    assert_eq!(failed.failure(), "node 'N': the LLM caller panicked: oh");
}

#[tokio::test]
async fn fields_that_are_missing_or_empty_leave_a_warning_once() {
    let llm = MockLlm::new();
    llm.on(any()).text("?").output("x");
    let flow = llm_node(
        ", prompt: '{{ context.gone }} {{ context.nothing }} {{ context.empty }} {{ context.here }}', output_field: x",
    );
    let done = run_with(&llm, flow.field("nothing", ()).field("empty", "").field("here", 1)).await;
    let warnings = done.warnings();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for field in ["gone", "nothing", "empty"] {
        assert!(warnings.iter().any(|warning| warning.contains(field)), "{warnings:?}");
    }
}

#[tokio::test]
async fn a_prompt_that_cannot_be_rendered_is_sent_as_it_is_written() {
    let llm = MockLlm::new();
    llm.on(any()).output("x");
    let done = run_with(
        &llm,
        llm_node(", prompt: 'sum {{ context.n / 0 }}', output_field: x").field("n", 1),
    )
    .await;
    assert_eq!(asked(&llm.requests()[0])["prompt"], "sum {{ context.n / 0 }}");
    assert!(
        done.warnings()[0].contains("the prompt is sent unrendered"),
        "{:?}",
        done.warnings()
    );
}

#[tokio::test]
async fn a_prompt_reads_the_context_of_its_dispatch_own_request_counted() {
    let llm = MockLlm::new();
    llm.on(any()).text("?").output("x");
    run_with(
        &llm,
        llm_node(", prompt: 'calls {{ context.__operational__.llm_calls }}', output_field: x"),
    )
    .await;
    let prompts: Vec<_> = llm
        .requests()
        .iter()
        .map(|request| asked(request)["prompt"].clone())
        .collect();
    assert_eq!(prompts, ["calls 1", "calls 1"]);
}

const SCHEMA: &str = "
context_schema:
  person:
    type: object
    properties:
      name: string
      age: {type: integer, required: false}
      tags: {type: list, items: string, default: []}
  note: text
workflows:
  flow:
    N: {node_type: llm, event_triggers: [START], prompt: p, output_field: FIELD, event_emissions: [{signal_name: DONE}]}
";

#[tokio::test]
async fn a_context_schema_is_checked_and_lossless_changes_are_made() {
    let llm = MockLlm::new();
    llm.on(any())
        .text(r#"{"name": "Ada", "age": true}"#)
        .text(r#"Here: {"name": "Ada", "age": "36", "extra": [1]}"#);
    let done = run_with(&llm, start(&SCHEMA.replace("FIELD", "person"))).await;
    assert_eq!(
        done.value("person"),
        json!({"name": "Ada", "age": 36, "tags": [], "extra": [1]})
    );
    assert_eq!(done.counters(), [2, 0, 1, 0]);
    assert!(llm.requests()[1].text.contains("age"));
    assert_eq!(done.warnings(), Vec::<String>::new());
    let schema = llm.requests()[0].schema.clone().unwrap();
    assert_eq!(schema["properties"]["name"]["type"], "string", "unwrapped: {schema}");
}

#[tokio::test]
async fn plain_text_is_a_string_and_a_field_without_schema_is_warned_about() {
    let llm = MockLlm::new();
    llm.on(any()).text("just {this}");
    let done = run_with(&llm, start(&SCHEMA.replace("FIELD", "note"))).await;
    assert_eq!((done.value("note"), done.counters()[0]), (json!("just {this}"), 1));

    let llm = MockLlm::new();
    llm.on(any()).output(1);
    let done = run_with(&llm, start(&SCHEMA.replace("FIELD", "other"))).await;
    assert_eq!(done.value("other"), 1);
    assert!(
        done.warnings()[0].contains("'other' has no context schema"),
        "{:?}",
        done.warnings()
    );
}

#[tokio::test]
async fn a_caller_with_structured_output_is_not_told_the_schema() {
    let llm = MockLlm::new().with_structured_output();
    llm.on(any()).output("x");
    run_with(&llm, llm_node(", prompt: p, output_field: x")).await;
    let request = &llm.requests()[0];
    assert!(request.schema.is_some());
    assert!(!request.text.contains("properties"), "{}", request.text);
}
