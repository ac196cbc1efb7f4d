use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::llm::{LlmErrorKind, TokenSink, ToolRequest};
use crate::testing::{any, node, stage, when};

fn request(node: &str, stage: Stage, text: &str) -> LlmRequest {
    LlmRequest::new(text).by(node, stage)
}

async fn texts(llm: &MockLlm, node: &str, stages: &[Stage]) -> Vec<String> {
    let mut texts = Vec::new();
    for stage in stages {
        texts.push(match llm.call(request(node, *stage, "")).await {
            Ok(reply) => reply.text,
            Err(error) => format!("error: {error}"),
        });
    }
    texts
}

#[tokio::test]
async fn the_first_rule_that_matches_and_is_not_used_up_answers() {
    let llm = MockLlm::new();
    llm.on(node("A").prompt_contains("two")).text("a two").once();
    llm.on(node("A")).text("a");
    llm.on(stage(Stage::Router)).finish();
    llm.on(when("is long", |request| request.text().len() > 10))
        .text("long");
    llm.on(any()).text("any");
    let ask = async |node: &str, stage, text: &str| llm.call(request(node, stage, text)).await.unwrap().text;
    assert_eq!(ask("A", Stage::Llm, "one").await, "a");
    assert_eq!(ask("A", Stage::Llm, "one two").await, "a two");
    assert_eq!(ask("A", Stage::Llm, "one two").await, "a");
    assert_eq!(ask("B", Stage::Router, "").await, r#"{"action":"finish"}"#);
    assert_eq!(ask("B", Stage::Llm, "a long text").await, "long");
    assert_eq!(ask("B", Stage::Llm, "").await, "any");
    assert_eq!(llm.calls(), 6);
    llm.assert_all_used();
}

#[tokio::test]
async fn answers_come_in_sequence_and_the_last_is_repeated() {
    let llm = MockLlm::new();
    llm.on(any())
        .text("1")
        .text("2")
        .error(LlmErrorKind::Timeout, "late")
        .then("4")
        .times(5);
    let got = texts(&llm, "N", &[Stage::Llm; 6]).await;
    assert_eq!(got[..5], ["1", "2", "error: late", "4", "4"]);
    assert!(
        got[5].contains("any request (") && got[5].contains("used up: it answers 5 requests"),
        "{}",
        got[5]
    );
}

#[tokio::test]
async fn outputs_are_fitted_to_the_schema() {
    let llm = MockLlm::new();
    llm.on(any())
        .output("short")
        .output("short")
        .signals(["A"])
        .output(5)
        .signals(["A"]);
    let one = |names: &[&str]| {
        let properties: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        json!({"type": "object", "properties": properties, "required": [names[0]]})
    };
    let with = |schema| request("N", Stage::Llm, "").with_schema(schema);
    assert_eq!(
        llm.call(with(one(&["output"]))).await.unwrap().text,
        r#"{"output":"short"}"#
    );
    let selected = llm
        .call(with(one(&["summary", "selected_signals"])))
        .await
        .unwrap()
        .text;
    assert_eq!(selected, r#"{"summary":"short","selected_signals":["A"]}"#);
    let error = llm.call(with(one(&["output"]))).await.unwrap_err().to_string();
    assert!(
        error.contains("rule 1 of the mock LLM, any request (") && error.contains("selects signals"),
        "{error}"
    );
}

#[tokio::test]
async fn one_script_of_an_agent_works_with_and_without_native_tool_calls() {
    let script = |llm: &MockLlm| {
        llm.on(node("Agent"))
            .call_tool("search")
            .arguments(json!({"q": "cats"}))
            .call_tool("now")
            .finish()
            .output("found");
    };
    let llm = MockLlm::new();
    script(&llm);
    let stages = [
        Stage::Router,
        Stage::Parameter,
        Stage::Router,
        Stage::Router,
        Stage::Response,
    ];
    let call = |name: &str| json!({"action": "call_tool", "tool_name": name}).to_string();
    let (search, now) = (call("search"), call("now"));
    let expected = [&search, r#"{"q":"cats"}"#, &now, r#"{"action":"finish"}"#, "found"];
    assert_eq!(texts(&llm, "Agent", &stages).await, expected);
    llm.assert_all_used();

    let llm = MockLlm::new().with_native_tools();
    assert!(llm.capabilities().tool_calls);
    script(&llm);
    let turn = async || llm.call(request("Agent", Stage::Turn, "")).await.unwrap();
    let wanted = |name: &str, arguments: &str| {
        vec![ToolRequest {
            id: String::new(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        }]
    };
    assert_eq!(turn().await.tool_calls, wanted("search", r#"{"q":"cats"}"#));
    assert_eq!(turn().await.tool_calls, wanted("now", "{}"));
    assert_eq!(turn().await.text, "found");
    llm.assert_all_used();
}

#[tokio::test]
async fn a_tool_call_whose_arguments_are_not_asked_for_is_over() {
    let llm = MockLlm::new();
    llm.on(any())
        .call_tool("unknown")
        .arguments(json!({}))
        .call_tool("known")
        .arguments(json!([1]))
        .finish();
    let stages = [Stage::Router, Stage::Router, Stage::Parameter, Stage::Router];
    let got = texts(&llm, "Agent", &stages).await;
    assert!(got[0].contains("unknown") && got[1].contains("known") && !got[1].contains("unknown"));
    assert_eq!(got[2..], ["[1]", r#"{"action":"finish"}"#]);
}

#[tokio::test]
async fn answers_that_do_not_suit_the_stage_are_errors_that_name_the_rule() {
    let llm = MockLlm::new();
    llm.on(node("call")).call_tool("search");
    llm.on(node("finish")).finish();
    llm.on(node("none"));
    llm.on(node("broken"))
        .json(std::collections::HashMap::from([((1, 2), 3)]));
    let error = async |node: &str, stage| llm.call(request(node, stage, "")).await.unwrap_err().to_string();
    let call = error("call", Stage::Response).await;
    assert!(call.starts_with("rule 1 of the mock LLM, node 'call' ("), "{call}");
    assert!(call.contains("mock_tests.rs:"), "{call}");
    assert!(
        call.ends_with("a call of the tool 'search' does not answer a request of stage response"),
        "{call}"
    );
    assert!(error("finish", Stage::Turn).await.contains("no output follows"));
    assert!(
        error("finish", Stage::Llm)
            .await
            .contains("'finish' does not answer a request of stage llm")
    );
    assert!(error("none", Stage::Llm).await.contains("the rule has no answer"));
    assert!(error("broken", Stage::Llm).await.contains("can't be written as JSON"));
}

#[tokio::test]
async fn a_request_without_an_answer_says_what_was_asked_and_what_the_rules_are() {
    let llm = MockLlm::new();
    llm.on(node("Other")).text("x");
    llm.on(node("Judge").prompt_contains("draft 2")).text("x");
    llm.on(node("Judge").stage(Stage::Response)).text("x");
    llm.on(any()).text("x").times(0);
    let asked = request("Judge", Stage::Llm, "is draft 1\ngood?").with_schema(json!({"type": "number"}));
    let error = llm.call(asked).await.unwrap_err();
    let unscripted = error.downcast_ref::<UnscriptedRequest>().unwrap();
    assert_eq!((unscripted.node.as_ref(), unscripted.rules.len()), ("Judge", 4));
    let text = error.to_string();
    for part in [
        "answers the request of node 'Judge', stage llm\n",
        "it asks: is draft 1 good?\n",
        "schema: {\"type\":\"number\"}\n",
        ": another node\n",
        "2. node 'Judge', prompt contains \"draft 2\" (",
        ": the text doesn't contain \"draft 2\"\n",
        ": another stage\n",
        "used up: it answers 0 requests",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(
        MockLlm::new()
            .call(request("N", Stage::Llm, ""))
            .await
            .unwrap_err()
            .to_string()
            .contains("has no rules")
    );
}

#[tokio::test(start_paused = true)]
async fn latency_is_of_tokio_s_time_and_calls_wait_side_by_side() {
    let llm = MockLlm::new();
    llm.on(node("slow"))
        .after(Duration::from_secs(60))
        .text("s")
        .error(LlmErrorKind::Timeout, "late");
    llm.on(any()).text("f");
    let began = Instant::now();
    let slow = tokio::spawn({
        let llm = llm.clone();
        async move { llm.call(request("slow", Stage::Llm, "")).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(texts(&llm, "fast", &[Stage::Llm]).await, ["f"]);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(llm.requests_of("slow")[0].reply.is_none(), "it is in flight");
    slow.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(60));
    assert_eq!(texts(&llm, "slow", &[Stage::Llm]).await, ["error: late"]);
    assert_eq!(began.elapsed(), Duration::from_secs(120), "errors take their time too");
}

#[tokio::test(start_paused = true)]
async fn text_is_streamed_in_pieces_over_the_latency() {
    let llm = MockLlm::new();
    llm.on(any())
        .text("häuser")
        .in_pieces_of(4)
        .after(Duration::from_secs(2))
        .text("whole");
    let began = Instant::now();
    let pieces = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let pieces = pieces.clone();
        TokenSink::new(move |text| {
            pieces
                .lock()
                .unwrap()
                .push((text.to_owned(), began.elapsed().as_secs()))
        })
    };
    for _ in 0..2 {
        let mut request = request("N", Stage::Llm, "");
        request.tokens = sink.clone();
        llm.call(request).await.unwrap();
    }
    let expected = [("häus", 1), ("er", 2), ("whole", 2)].map(|(text, at)| (text.to_owned(), at));
    assert_eq!(*pieces.lock().unwrap(), expected);
}

#[tokio::test]
async fn requests_are_kept_with_what_came_of_them() {
    let llm = MockLlm::new();
    llm.on(node("A"))
        .with(|request| Answer::output(request.text().len()).usage(1, 2));
    llm.on(node("B")).error(LlmErrorKind::Refused, "no");
    texts(&llm, "A", &[Stage::Llm]).await;
    texts(&llm, "B", &[Stage::Response]).await;
    let requests = llm.requests();
    assert_eq!(requests[0].reply.as_ref().unwrap().text, "0");
    assert_eq!(requests[0].reply.as_ref().unwrap().usage.unwrap().total(), 3);
    assert_eq!((requests[1].node.as_ref(), requests[1].stage), ("B", Stage::Response));
    let error = requests[1].error.as_ref().unwrap();
    assert_eq!((error.kind, error.message.as_str()), (LlmErrorKind::Refused, "no"));
}

#[tokio::test]
#[should_panic(expected = "2 of its 3 answers never given")]
async fn answers_that_were_never_given_are_named() {
    let llm = MockLlm::new();
    llm.on(any()).text("1").text("2").text("3");
    texts(&llm, "A", &[Stage::Llm]).await;
    llm.assert_all_used();
}

#[test]
#[should_panic(expected = "rule 1, node 'A' (")]
fn rules_that_were_never_used_are_named() {
    let llm = MockLlm::new();
    llm.on(node("A")).text("1");
    llm.assert_all_used();
}

#[tokio::test]
async fn conditions_may_ask_the_mock() {
    let llm = MockLlm::new();
    let other = llm.clone();
    llm.on(when("it is the second call", move |_| other.calls() == 2))
        .text("second");
    llm.on(any()).text("first");
    assert_eq!(texts(&llm, "A", &[Stage::Llm, Stage::Llm]).await, ["first", "second"]);
}

#[tokio::test(start_paused = true)]
async fn many_pieces_take_no_longer_than_the_latency() {
    let llm = MockLlm::new();
    llm.on(any())
        .text("x".repeat(500))
        .in_pieces_of(1)
        .after(Duration::from_millis(50));
    let began = Instant::now();
    let mut asked = request("N", Stage::Llm, "");
    asked.tokens = TokenSink::new(|_| ());
    llm.call(asked).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_never_come() {
    let llm = MockLlm::new();
    llm.on(any()).text("late").in_pieces_of(1).after(Duration::MAX);
    let mut asked = request("N", Stage::Llm, "");
    asked.tokens = TokenSink::new(|_| ());
    let day = Duration::from_secs(86_400);
    assert!(tokio::time::timeout(day, llm.call(asked)).await.is_err());
    assert!(
        tokio::time::timeout(day, llm.call(request("N", Stage::Llm, "")))
            .await
            .is_err()
    );
}
