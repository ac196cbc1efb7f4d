use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::llm::{LlmCaller, LlmError, LlmErrorKind, LlmReply, LlmRequest, Stage};

async fn ask(mock: &MockLlm, node: &str, stage: Stage) -> Result<LlmReply, LlmError> {
    mock.call(LlmRequest::new("draft 2").by(node, stage)).await
}

fn problems(text: &str) -> Vec<String> {
    let error = MockLlm::from_yaml(text).unwrap_err();
    error.problems().iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn a_script_says_all_that_the_builder_can() {
    let text = r#"
- node: Summarise
  stage: llm
  output: short
  usage: {prompt_tokens: 7, completion_tokens: 2}
- node: Judge
  prompt_contains: [draft, "2"]
  latency: 50ms
  replies:
    - error: {kind: rate_limited, message: slow down}
    - {json: {score: 1}, latency: 2}
    - 0.9
- node: Agent
  times: 4
  replies:
    - {call_tool: search, arguments: {q: cats}}
    - finish: true
    - output: found
- text: 5
"#;
    let mock = MockLlm::from_yaml(text).unwrap();
    let reply = ask(&mock, "Summarise", Stage::Llm).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.usage.unwrap().total()), ("short", 9));

    let began = Instant::now();
    let error = ask(&mock, "Judge", Stage::Llm).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (LlmErrorKind::RateLimited, "slow down")
    );
    assert_eq!(began.elapsed(), Duration::from_millis(50));
    assert_eq!(ask(&mock, "Judge", Stage::Llm).await.unwrap().text, r#"{"score":1}"#);
    assert_eq!(began.elapsed(), Duration::from_millis(2050));
    assert_eq!(ask(&mock, "Judge", Stage::Llm).await.unwrap().text, "0.9");

    let mut replies = Vec::new();
    for stage in [
        Stage::Router,
        Stage::Parameter,
        Stage::Router,
        Stage::Response,
        Stage::Router,
    ] {
        replies.push(ask(&mock, "Agent", stage).await.unwrap().text);
    }
    let decision = json!({"action": "call_tool", "tool_name": "search"}).to_string();
    assert_eq!(
        replies,
        [
            decision.as_str(),
            r#"{"q":"cats"}"#,
            r#"{"action":"finish"}"#,
            "found",
            "5"
        ]
    );
    mock.assert_all_used();
}

#[tokio::test]
async fn capabilities_and_signals() {
    let text = "native_tools: true\nstructured_output: true\nrules:\n- {output: x, signals: [A, B]}\n";
    let mock = MockLlm::from_yaml(text).unwrap();
    let capabilities = mock.capabilities();
    assert!(capabilities.tool_calls && capabilities.structured_output && capabilities.streaming);
    let reply: Value = serde_json::from_str(&ask(&mock, "N", Stage::Llm).await.unwrap().text).unwrap();
    assert_eq!(reply, json!({"output": "x", "selected_signals": ["A", "B"]}));
}

#[test]
fn everything_that_is_wrong_is_reported_with_its_place() {
    let text = "
- node: [a]
  stage: routr
  times: 0
  output: 1
  text: x
- replies:
    - latency: soon
      text: x
    - {error: {kind: bad, what: 1}}
    - usage: {prompt_tokens: -1}
- 5
- {node: x, finish: false, signals: A}
- {output: .inf}
";
    assert_eq!(
        problems(text),
        [
            "line 2, column 9: rule 1, node: a text is expected, not a list",
            "line 3, column 10: rule 1, stage: 'routr' is no stage (llm, router, parameter, response, turn)",
            "line 4, column 10: rule 1, times: a whole number from 1 on is expected",
            "line 6, column 9: rule 1, text: the answer is 'output' already",
            "line 8, column 16: rule 2, replies[0].latency: a duration is expected (50ms, 1s 500ms, or a number of seconds; at most a day)",
            "line 10, column 27: rule 2, replies[1].error: unknown key 'what' (known keys: kind, message)",
            "line 10, column 22: rule 2, replies[1].error.kind: 'bad' is no kind of error (other, connection, timeout, rate_limited, unauthorized, refused, invalid_response)",
            "line 11, column 7: rule 2, replies[2]: there is no answer (one of output, text, json, call_tool, arguments, finish, error)",
            "line 11, column 30: rule 2, replies[2].usage.prompt_tokens: a whole number from 0 on is expected",
            "line 12, column 3: rule 3: a mapping is expected, not a number",
            "line 13, column 21: rule 4, finish: only true is possible",
            "line 13, column 37: rule 4, signals: a list of signals is expected",
            "line 14, column 12: rule 5: the number .inf is not finite",
        ]
    );
}

#[test]
fn what_is_no_list_of_rules_is_refused() {
    for text in ["", "5", "[]", "rules: {}", "native_tools: true"] {
        let problems = problems(text);
        assert!(
            problems[0].contains("a list of rules is expected"),
            "{text}: {problems:?}"
        );
    }
    assert!(
        problems("- {node: a, node: b, text: x}")[0].contains("line 1, column 13: the key 'node' is already at line 1")
    );
    assert!(problems("- [")[0].contains("invalid YAML"));
    assert!(problems("rule: []")[0].contains("unknown key 'rule' (did you mean 'rules'?)"));
}

#[test]
fn problems_are_counted_beyond_a_hundred() {
    let error = MockLlm::from_yaml(&"- 1\n".repeat(150)).unwrap_err();
    assert_eq!(error.problems().len(), 100);
    assert!(error.to_string().ends_with("and 50 more"));
}
