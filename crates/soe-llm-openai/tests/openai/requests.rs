//! What is sent.

use std::sync::Arc;

use serde_json::{Value, json};
use soe_core::llm::{LlmCaller, LlmErrorKind, LlmRequest, Message, ToolOffer, ToolRequest};
use soe_llm_openai::{BuildError, OpenAi};
use wiremock::MockServer;
use wiremock::matchers::{body_json, header, method, path, query_param};
use wiremock::{Mock, ResponseTemplate};

use crate::support::{KEY, ask, builder, completion, failure, ok, sent, server};

fn config(json: Value) -> Arc<soe_backends::Map> {
    match soe_backends::Value::from(json) {
        soe_backends::Value::Map(map) => map,
        _ => panic!("a configuration is an object"),
    }
}

fn offer(name: &str) -> ToolOffer {
    ToolOffer {
        name: name.into(),
        description: format!("what {name} does").into(),
        parameters: Arc::new(json!({"type": "object", "properties": {"x": {"type": "integer"}}})),
    }
}

#[tokio::test]
async fn a_request_is_the_least_that_an_endpoint_needs() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/chat/completions"))
        .and(header("authorization", format!("Bearer {KEY}").as_str()))
        .and(header("content-type", "application/json"))
        .and(body_json(
            json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]}),
        ))
        .respond_with(ok(completion("hi")))
        .mount(&server)
        .await;
    let reply = ask(&builder(&server.uri()).build().unwrap()).await.unwrap();
    assert_eq!(reply.text, "hi");
    let usage = reply.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (11, 2));
}

#[tokio::test]
async fn an_azure_endpoint_has_its_own_path_query_and_header() {
    let server = MockServer::start().await;
    Mock::given(path("/openai/deployments/gpt/chat/completions"))
        .and(query_param("api-version", "2024-10-21"))
        .and(header("api-key", KEY))
        .and(header("x-team", "blue"))
        .respond_with(ok(completion("hi")))
        .mount(&server)
        .await;
    let caller = OpenAi::builder()
        .base_url(format!("{}/openai/deployments/gpt", server.uri()))
        .query("api-version", "2024-10-21")
        .key(KEY)
        .key_header("api-key")
        .header("x-team", "blue")
        .model("gpt")
        .proxies(false)
        .build()
        .unwrap();
    assert_eq!(ask(&caller).await.unwrap().text, "hi");
    let requests = server.received_requests().await.unwrap();
    assert!(!requests[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_local_endpoint_needs_no_key() {
    let server = server(ok(completion("hi"))).await;
    let caller = OpenAi::builder()
        .base_url(server.uri())
        .model("m")
        .proxies(false)
        .build()
        .unwrap();
    ask(&caller).await.unwrap();
    let requests = server.received_requests().await.unwrap();
    assert!(!requests[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn the_nodes_fields_go_before_the_callers_and_the_engines_fields_stay_here() {
    let server = server(ok(completion("hi"))).await;
    let caller = builder(&server.uri())
        .option("temperature", 1.0)
        .option("user", "u")
        .build()
        .unwrap();
    let node = json!({
        "node_type": "llm", "event_triggers": ["START"], "prompt": "p", "output_field": "o", "retries": 2, "llm": "x",
        "model": "other", "temperature": 0.5, "max_tokens": 100, "top_p": 1, "seed": 3, "stop": "END",
        "llm_options": {"top_k": 5},
    });
    caller
        .call(LlmRequest::new("hello").with_config(config(node)))
        .await
        .unwrap();
    assert_eq!(
        sent(&server).await,
        json!({
            "model": "other", "temperature": 0.5, "user": "u", "max_tokens": 100, "top_p": 1, "seed": 3, "stop": "END",
            "top_k": 5, "messages": [{"role": "user", "content": "hello"}],
        })
    );
}

#[tokio::test]
async fn wrong_fields_and_missing_models_are_told_before_anything_is_sent() {
    let server = server(ok(completion("hi"))).await;
    let caller = builder(&server.uri()).model("").build().unwrap();
    let ask = |node: Value| {
        let request = LlmRequest::new("hello").with_config(config(node));
        failure(&caller, request.by("Ask", Default::default()))
    };
    let error = ask(json!({})).await;
    assert_eq!(
        error.to_string(),
        "node 'Ask' has no field `model`, and the caller has no model of its own"
    );
    assert_eq!(error.kind(), LlmErrorKind::Other);
    let error = ask(json!({"model": "m", "top_p": "all"})).await;
    assert_eq!(
        error.to_string(),
        "node 'Ask': `top_p` must be a number, and is the string \"all\""
    );
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn conversations_and_tools_are_sent_with_names_that_endpoints_accept() {
    let body = json!({"choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
        "role": "assistant", "content": null, "tool_calls": [
            {"id": "c2", "type": "function", "function": {"name": "crm_find", "arguments": "{\"x\": 2}"}},
        ],
    }}]});
    let server = server(ok(body)).await;
    let caller = builder(&server.uri()).native_tools(true).build().unwrap();
    assert!(caller.capabilities().tool_calls);
    let mut request = LlmRequest::new("task");
    request.tools = [offer("crm.find"), offer("plain")].into();
    let call = |arguments: &str| ToolRequest {
        id: "c1".into(),
        name: "crm.find".into(),
        arguments: arguments.into(),
    };
    request.messages.extend([
        Message::Assistant {
            content: "".into(),
            tool_calls: vec![call("{\"x\": 1}"), call("")],
        },
        Message::Tool {
            id: "c1".into(),
            name: "crm.find".into(),
            content: "found".into(),
        },
        Message::Assistant {
            content: "hm".into(),
            tool_calls: vec![],
        },
    ]);
    let reply = caller.call(request).await.unwrap();
    let again = ToolRequest {
        id: "c2".into(),
        ..call("{\"x\": 2}")
    };
    assert_eq!((reply.text.as_str(), reply.tool_calls), ("", vec![again]));
    let wire = |arguments: &str| json!({"id": "c1", "type": "function", "function": {"name": "crm_find", "arguments": arguments}});
    let function = |name: &str, meant: &str| {
        let parameters = json!({"type": "object", "properties": {"x": {"type": "integer"}}});
        let description = format!("what {meant} does");
        json!({"type": "function", "function": {"name": name, "description": description, "parameters": parameters}})
    };
    assert_eq!(
        sent(&server).await,
        json!({
            "model": "m",
            "messages": [
                {"role": "user", "content": "task"},
                {"role": "assistant", "content": null, "tool_calls": [wire("{\"x\": 1}"), wire("{}")]},
                {"role": "tool", "tool_call_id": "c1", "content": "found"},
                {"role": "assistant", "content": "hm"},
            ],
            "tools": [function("crm_find", "crm.find"), function("plain", "plain")],
        })
    );
}

#[tokio::test]
async fn schemas_are_sent_only_where_the_endpoint_keeps_to_them() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let request = || LlmRequest::new("hello").with_schema(schema.clone());
    let plain = server(ok(completion("{}"))).await;
    let caller = builder(&plain.uri()).build().unwrap();
    assert_eq!(
        caller.capabilities(),
        soe_core::llm::Capabilities::default().streaming(true)
    );
    caller.call(request()).await.unwrap();
    assert!(sent(&plain).await.get("response_format").is_none());

    let strict = server(ok(completion("{\"a\": \"b\"}"))).await;
    let caller = builder(&strict.uri()).structured_output(true).build().unwrap();
    assert!(caller.capabilities().structured_output);
    assert_eq!(caller.call(request()).await.unwrap().text, "{\"a\": \"b\"}");
    assert_eq!(
        sent(&strict).await["response_format"],
        json!({"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": false}})
    );
}

#[tokio::test]
async fn a_reply_that_is_no_object_travels_in_one() {
    let server = server(ok(completion("{\"value\": [1, 2]}"))).await;
    let caller = builder(&server.uri()).structured_output(true).build().unwrap();
    let request = LlmRequest::new("hello").with_schema(json!({"type": "array", "items": {"type": "integer"}}));
    assert_eq!(caller.call(request).await.unwrap().text, "[1,2]");
    assert_eq!(
        sent(&server).await["response_format"]["json_schema"]["schema"],
        json!({
            "type": "object",
            "properties": {"value": {"type": "array", "items": {"type": "integer"}}},
            "required": ["value"],
            "additionalProperties": false,
        })
    );
}

#[tokio::test]
async fn a_node_can_choose_the_format_of_its_reply_itself() {
    let server = server(ok(completion("[1]"))).await;
    let caller = builder(&server.uri()).structured_output(true).build().unwrap();
    let node = config(json!({"llm_options": {"response_format": {"type": "text"}}}));
    let request = LlmRequest::new("hello")
        .with_schema(json!({"type": "array"}))
        .with_config(node);
    assert_eq!(caller.call(request).await.unwrap().text, "[1]");
    assert_eq!(sent(&server).await["response_format"], json!({"type": "text"}));
}

#[tokio::test]
async fn the_key_is_not_taken_to_where_a_redirect_leads() {
    let other = server(ok(completion("hi"))).await;
    let location = format!("{}/v1/chat/completions?token=abc", other.uri());
    let first = server(ResponseTemplate::new(307).insert_header("location", location.as_str())).await;
    let error = failure(&builder(&first.uri()).build().unwrap(), LlmRequest::new("hello")).await;
    let text = error.to_string();
    assert!(
        text.contains("status 307") && text.contains(&format!("redirects to {}", other.uri())),
        "{text}"
    );
    assert!(!text.contains("abc"), "{text}");
    assert!(other.received_requests().await.unwrap().is_empty());
}

#[test]
fn settings_that_make_no_sense_are_told() {
    let message = |builder: soe_llm_openai::OpenAiBuilder| builder.build().unwrap_err().to_string();
    let error = OpenAi::builder().key(format!("{KEY}\n")).build().unwrap_err();
    assert!(
        matches!(error, BuildError::InvalidKey { position: 19, .. }),
        "{error:?}"
    );
    assert!(!format!("{error} {error:?}").contains(KEY));
    assert_eq!(
        message(OpenAi::builder().key_from_env("SOE_TEST_NO_SUCH_VARIABLE")),
        "the environment variable SOE_TEST_NO_SUCH_VARIABLE should hold the key of the LLM endpoint: it is not set"
    );
    assert_eq!(
        message(OpenAi::builder().option("stream", true)),
        "the setting `option` can't be 'stream': the caller sets it"
    );
    assert_eq!(
        message(OpenAi::builder().requests_per_minute(0)),
        "the setting `requests_per_minute` must be more than nothing"
    );
    assert_eq!(
        message(OpenAi::builder().key_header("api-key")),
        "the setting `key_header` has no key to send"
    );
    let odd = OpenAi::builder().header("x-odd", "line\nbreak-secret");
    assert_eq!(
        message(odd),
        "the header 'x-odd' has a name or a value that can't be sent"
    );
    assert!(message(OpenAi::builder().base_url("localhost:1")).starts_with("the base URL can't be used"));
}

#[test]
fn the_environment_is_read_when_the_caller_is_built() {
    // PATH is in every environment, and can be sent as a key.
    let caller = OpenAi::builder()
        .base_url("http://localhost/v1")
        .key_from_env("PATH")
        .build()
        .unwrap();
    assert!(!format!("{caller:?}").contains(&std::env::var("PATH").unwrap()));
}

#[test]
fn debug_texts_hold_no_secrets() {
    let builder = OpenAi::builder()
        .base_url("http://x.example/v1?key=abcdef")
        .key(KEY)
        .header("x-key", "ghijkl");
    let texts = format!("{builder:?}") + &format!("{:?}", builder.build().unwrap());
    for secret in [KEY, "abcdef", "ghijkl"] {
        assert!(!texts.contains(secret), "{texts}");
    }
}
