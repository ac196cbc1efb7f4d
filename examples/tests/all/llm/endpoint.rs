//! `--llm openai`: the programs ask an endpoint.

use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

const VOTING: &str = env!("CARGO_BIN_EXE_11-voting");
const AGENT: &str = env!("CARGO_BIN_EXE_12-file-agent");

/// What the endpoint was asked: the request, and its header `authorization`.
type Asked = Arc<Mutex<Vec<(Value, Option<String>)>>>;

/// Starts an endpoint that answers each request with what `answer` makes of it, a message.
async fn endpoint(answer: fn(&Value) -> Value) -> (String, Asked) {
    let asked = Asked::default();
    let handler = move |State(asked): State<Asked>, headers: HeaderMap, Json(request): Json<Value>| async move {
        let key = headers.get("authorization").map(|key| key.to_str().unwrap().to_owned());
        let message = answer(&request);
        let reason = if message.get("tool_calls").is_some() {
            "tool_calls"
        } else {
            "stop"
        };
        asked.lock().unwrap().push((request, key));
        Json(json!({
            "id": "1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }))
    };
    let router = Router::new()
        .route("/v1/chat/completions", post(handler))
        .with_state(asked.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, asked)
}

/// Runs a program, with `--llm openai` if nothing else is said.
async fn ask(program: &'static str, key: Option<&'static str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    if !arguments.contains(&"--llm") {
        command.args(["--llm", "openai"]);
    }
    command.args(arguments);
    command.env_remove("OPENAI_API_KEY").env("NO_PROXY", "127.0.0.1");
    if let Some(key) = key {
        command.env("OPENAI_API_KEY", key);
    }
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn assistant(content: &Value) -> Value {
    json!({"role": "assistant", "content": content.to_string()})
}

#[tokio::test(flavor = "multi_thread")]
async fn each_voter_asks_its_own_model() {
    let (url, asked) = endpoint(|_| assistant(&json!({"keep": false, "reason": "no"}))).await;
    let output = ask(VOTING, Some("sk-secret"), &["--base-url", &url, "--model", "x,y,z"]).await;
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    super::has_line(&printed, &format!("LLM: x, y, z at {url}"));
    super::has_line(&printed, "signals: START VOTED VOTED VOTED TALLIED REJECT");
    assert!(
        printed.contains("3 requests to the LLM, 45 tokens") && !printed.contains("sk-secret"),
        "{printed}"
    );
    let asked = asked.lock().unwrap();
    let mut models: Vec<_> = asked
        .iter()
        .map(|(request, _)| request["model"].as_str().unwrap())
        .collect();
    models.sort_unstable();
    assert_eq!(models, ["x", "y", "z"]);
    assert!(asked.iter().all(|(_, key)| key.as_deref() == Some("Bearer sk-secret")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_calls_tools_natively_and_an_endpoint_of_ones_own_needs_no_key() {
    let (url, asked) = endpoint(|request| {
        if request["messages"].as_array().unwrap().len() > 1 {
            return assistant(&json!({"text": "Yes.", "sources": ["welcome.md"]}));
        }
        let call = json!({"name": "list_files", "arguments": "{}"});
        json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": call}]})
    })
    .await;
    let output = ask(AGENT, None, &["--base-url", &url, "--model", "m", "--native-tools"]).await;
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    super::has_line(&printed, "calls list_files {}");
    super::has_line(&printed, "all sources exist");
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert!(
        asked
            .iter()
            .all(|(request, key)| request["tools"].as_array().unwrap().len() == 3 && key.is_none())
    );
}

#[tokio::test]
async fn without_a_key_openai_is_not_asked() {
    let output = ask(VOTING, None, &[]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("OPENAI_API_KEY"), "{said}");
}

#[tokio::test]
async fn voters_without_an_endpoint_say_why_they_abstain() {
    // Nobody listens there.
    let output = ask(VOTING, None, &["--base-url", "http://127.0.0.1:9/v1", "--model", "m"]).await;
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = printed
        .lines()
        .filter(|line| line.starts_with("error: http://127.0.0.1:9/v1"));
    assert_eq!(errors.count(), 1, "{printed}");
}

#[tokio::test]
async fn the_mock_has_no_model() {
    let output = ask(VOTING, None, &["--llm", "mock", "--model", "m"]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("add --llm openai"), "{said}");
}
