use std::fs;
use std::time::Duration;

use serde_json::json;
use soe_backends::{Map, Value};
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::llm::{LlmErrorKind, Message, Stage, TokenSink, ToolOffer, ToolRequest};
use crate::testing::{Answer, MockLlm, Recorder, any, node};

fn request(node: &str, text: &str) -> LlmRequest {
    let config = [
        ("model".into(), Value::from("m1")),
        ("api_key".into(), Value::from("secret")),
    ];
    LlmRequest::new(text)
        .by(node, Stage::Llm)
        .with_config(Arc::new(config.into_iter().collect()))
        .with_schema(json!({"type": "object", "properties": {"output": {"type": "string"}}, "required": ["output"]}))
}

/// Records these requests, one after the other; gives the file's text.
async fn recorded(llm: &MockLlm, requests: Vec<LlmRequest>) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("talk.jsonl");
    let recorder = Recorder::create(&path, llm.clone()).unwrap();
    for request in requests {
        let _ = recorder.call(request).await;
    }
    fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn a_recording_is_replayed_in_any_order() {
    let llm = MockLlm::new().with_structured_output();
    llm.on(node("A")).output("first").usage(3, 4).output("second");
    llm.on(node("B")).error(LlmErrorKind::RateLimited, "slow down");
    let requests = vec![request("A", "same"), request("A", "same"), request("B", "b")];
    let text = recorded(&llm, requests).await;
    assert_eq!(text.lines().count(), 4);
    assert!(
        !text.contains("secret"),
        "fields that are not selected stay out: {text}"
    );

    let player = Player::parse(&text).unwrap();
    assert_eq!(player.capabilities(), llm.capabilities());
    assert_eq!(player.unused().len(), 3);
    let mut late = request("B", "b");
    late.key = "another:1/1".to_owned();
    let error = player.call(late).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (LlmErrorKind::RateLimited, "slow down")
    );
    let first = player.call(request("A", "same")).await.unwrap();
    assert_eq!(
        (first.text.as_str(), first.usage.unwrap().total()),
        (r#"{"output":"first"}"#, 7)
    );
    assert_eq!(
        player.call(request("A", "same")).await.unwrap().text,
        r#"{"output":"second"}"#
    );
    player.assert_finished();

    let again = player.call(request("A", "same")).await.unwrap_err().to_string();
    assert!(
        again.ends_with("it is equal to exchange 1, which is used already"),
        "{again}"
    );
}

#[tokio::test]
async fn a_request_that_differs_is_shown_beside_the_nearest() {
    let llm = MockLlm::new();
    llm.on(any()).text("x");
    let requests = vec![request("A", "something else"), request("A", "one\ntwo three\nfour")];
    let player = Player::parse(&recorded(&llm, requests).await).unwrap();
    let error = async |request| player.call(request).await.unwrap_err().to_string();

    let text = error(request("A", "one\ntwo 3\nfour")).await;
    let expected = "the recording has no reply for the request of node 'A', stage llm\n  \
        the nearest exchange, number 2, differs in its text:\n    \
        @@ line 2, character 5 @@\n      one\n    - two three\n    + two 3\n    (- as recorded, + as asked)";
    assert_eq!(text, expected);

    let same = || request("A", "one\ntwo three\nfour");
    let schema = error(same().with_schema(json!({"type": "string"}))).await;
    assert!(
        schema.contains("number 2, differs in its schema:") && schema.contains("+   \"type\": \"string\""),
        "{schema}"
    );
    let mut tools = same();
    let parameters = Arc::new(json!({}));
    tools.tools = Arc::new([ToolOffer {
        name: "t".into(),
        description: "".into(),
        parameters,
    }]);
    assert!(error(tools).await.contains("differs in its tools:"));
    let config = Map::from_iter([("model".into(), Value::from("m2"))]);
    let config = error(same().with_config(Arc::new(config))).await;
    assert!(
        config.contains("differs in its configuration:") && config.contains("+   \"model\": \"m2\""),
        "{config}"
    );
    let node = error(request("B", "x")).await;
    assert!(
        node.ends_with("it has none of that node and stage\n  it has 2 of node 'A', stage llm"),
        "{node}"
    );
    assert_eq!(player.unused().len(), 2, "none of them was used");
}

#[tokio::test]
#[should_panic(expected = "number 2: node 'B', stage llm: what is left")]
async fn what_was_not_asked_for_is_named() {
    let llm = MockLlm::new();
    llm.on(any()).text("x");
    let player = Player::parse(&recorded(&llm, vec![request("A", "a"), request("B", "what is\nleft")]).await).unwrap();
    player.call(request("A", "a")).await.unwrap();
    player.assert_finished();
}

#[tokio::test]
async fn ids_of_tool_calls_are_not_compared() {
    let turn = |id: &str| {
        let mut turn = request("Agent", "task");
        let call = ToolRequest {
            id: id.to_owned(),
            name: "search".to_owned(),
            arguments: "{}".to_owned(),
        };
        turn.messages.push(Message::Assistant {
            content: "".into(),
            tool_calls: vec![call],
        });
        turn.messages.push(Message::Tool {
            id: id.to_owned(),
            name: "search".into(),
            content: "found".into(),
        });
        turn
    };
    let llm = MockLlm::new();
    llm.on(any()).text("x");
    let player = Player::parse(&recorded(&llm, vec![turn("run-1:1/1")]).await).unwrap();
    assert_eq!(player.call(turn("run-2:1/1")).await.unwrap().text, "x");
}

#[tokio::test(start_paused = true)]
async fn calls_side_by_side_are_recorded_in_order_of_completion() {
    let llm = MockLlm::new();
    llm.on(any()).with(|request| {
        let n = request.text().parse::<u64>().unwrap_or_default();
        Answer::text(format!("reply {n}")).after(Duration::from_secs(10 - n))
    });
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("talk.jsonl");
    let recorder = Recorder::create(&path, llm).unwrap();
    let calls = (0..10).map(|n| recorder.call(request("A", &n.to_string())));
    futures::future::join_all(calls).await;

    let text = fs::read_to_string(&path).unwrap();
    let numbers = |line: &str| serde_json::from_str::<Exchange>(line).unwrap().number;
    let in_file: Vec<u64> = text.lines().skip(1).map(numbers).collect();
    assert_eq!(in_file, (1..=10).rev().collect::<Vec<_>>());

    let player = Player::open(&path).unwrap().with_latency();
    let began = Instant::now();
    let pieces = Arc::new(Mutex::new(String::new()));
    let mut streamed = request("A", "3");
    streamed.tokens = TokenSink::new({
        let pieces = pieces.clone();
        move |text| pieces.lock().unwrap().push_str(text)
    });
    assert_eq!(player.call(streamed).await.unwrap().text, "reply 3");
    assert_eq!(pieces.lock().unwrap().as_str(), "reply 3");
    assert_eq!(began.elapsed(), Duration::from_secs(7));
}

#[tokio::test]
async fn other_fields_of_the_configuration_can_be_selected() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("talk.jsonl");
    let llm = MockLlm::new();
    llm.on(any()).text("x");
    let recorder = Recorder::create_with_config(&path, llm, ["style"]).unwrap();
    let styled = |style: &str, model: &str| {
        let config = [
            ("style".into(), Value::from(style)),
            ("model".into(), Value::from(model)),
        ];
        LlmRequest::new("t").with_config(Arc::new(config.into_iter().collect()))
    };
    recorder.call(styled("terse", "m1")).await.unwrap();
    let player = Player::open(&path).unwrap();
    assert!(player.call(styled("verbose", "m1")).await.is_err());
    assert!(player.call(styled("terse", "m2")).await.is_ok());
}

#[test]
fn files_that_are_no_recordings_are_refused() {
    let error = |text: &str| Player::parse(text).unwrap_err().to_string();
    assert!(error("").contains("its first line is no JSON"));
    assert!(error("[]").contains("its first line has no \"format\""));
    assert!(error(r#"{"format": "soe-llm-recording", "version": 2}"#).contains("of version 2"));
    assert!(error(r#"{"format": "soe-llm-recording", "version": 1}"#).contains("missing field"));
    let header = serde_json::to_string(&Header::new(Capabilities::default(), Vec::new())).unwrap();
    assert!(Player::parse(&header).unwrap().unused().is_empty());
    let exchange = r#"{"number": 1, "node": "A", "stage": "llm", "messages": []}"#;
    assert!(
        error(&format!("{header}\n\n{exchange}")).contains("line 3 of the recording is no exchange: it needs either")
    );
    assert!(error(&format!("{header}\n{{\n")).contains("line 2 of the recording is no exchange"));
    let kind = exchange.replace("[]", r#"[], "error": {"kind": "odd", "message": ""}"#);
    assert!(error(&format!("{header}\n{kind}")).contains("'odd' is no kind of LLM error"));

    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("no").join("file");
    assert!(
        Player::open(&missing)
            .unwrap_err()
            .to_string()
            .contains("can't be read")
    );
    assert!(
        Recorder::create(&missing, MockLlm::new())
            .unwrap_err()
            .to_string()
            .contains("can't be written")
    );
}

#[tokio::test]
async fn a_last_line_that_was_cut_off_is_left_out() {
    let llm = MockLlm::new();
    llm.on(any()).text("größer");
    let text = recorded(&llm, vec![request("A", "a"), request("B", "b")]).await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("talk.jsonl");
    let whole = text.trim_end().rfind('\n').unwrap() + 1;
    for end in whole..text.len() {
        // Anywhere, also within a character.
        fs::write(&path, &text.as_bytes()[..end]).unwrap();
        let player = Player::open(&path).unwrap();
        // Only the line break is missing in the end.
        let exchanges = if end == text.len() - 1 { 2 } else { 1 };
        assert_eq!(player.unused().len(), exchanges, "{end}");
        assert_eq!(player.call(request("A", "a")).await.unwrap().text, "größer");
    }
    // What is wrong in another way is still an error.
    for (damage, message) in [("{\"number\": x", "line 3"), ("{}", "line 3"), ("{\n", "line 3")] {
        let error = Player::parse(&(text[..whole].to_owned() + damage))
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
    }
    fs::write(&path, b"\xff\n").unwrap();
    assert!(Player::open(&path).unwrap_err().to_string().contains("can't be read"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_recording_that_can_not_be_written_is_an_error_of_the_call() {
    // A device that takes nothing.
    let error = Recorder::create("/dev/full", MockLlm::new()).unwrap_err();
    assert!(error.to_string().contains("/dev/full"), "{error}");
}
