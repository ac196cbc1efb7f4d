//! Against a server that isn't ours: a LiteLLM proxy with completions that it makes up.
//!
//! `SOE_TEST_LITELLM` names the executable; `.ci/litellm` installs one and prints its path. Without it nothing is tested.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod proxy;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use soe_core::llm::{LlmCaller, LlmErrorKind, LlmRequest, TokenSink, ToolOffer};
use soe_llm_openai::{OpenAi, OpenAiBuilder, OpenAiError};

use crate::proxy::Proxy;

// One test, since the proxy takes many seconds to start.
#[tokio::test]
async fn litellm_is_understood() {
    let Some(executable) = std::env::var_os("SOE_TEST_LITELLM").filter(|path| !path.is_empty()) else {
        eprintln!("SKIPPED: SOE_TEST_LITELLM names no LiteLLM; `.ci/litellm` installs one and prints its path");
        return;
    };
    let proxy = Proxy::start(&executable).await;
    let model = |name: &str| builder(&proxy).model(name);
    chat(model("mock")).await;
    streamed_chat(model("mock")).await;
    wrapped_reply(model("mock-json")).await;
    offered_tools(model("mock")).await;
    called_tools(model("mock-tools")).await;
    unknown_model(model("no-such-model")).await;
    wrong_key(model("mock")).await;
    busy(model("mock-busy")).await;
}

fn builder(proxy: &Proxy) -> OpenAiBuilder {
    OpenAi::builder().base_url(proxy.url()).key(proxy::KEY).proxies(false)
}

async fn chat(caller: OpenAiBuilder) {
    let reply = caller.build().unwrap().call(LlmRequest::new("hello")).await.unwrap();
    assert_eq!(reply.text, "Grüße from the proxy 🦀");
    let usage = reply.usage.expect("usage");
    assert!(usage.prompt_tokens > 0 && usage.completion_tokens > 0, "{usage:?}");
}

async fn streamed_chat(caller: OpenAiBuilder) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let mut request = LlmRequest::new("hello");
    request.tokens = TokenSink::new(move |text| sink.lock().unwrap().push(text.to_owned()));
    let reply = caller.build().unwrap().call(request).await.unwrap();
    assert_eq!(reply.text, "Grüße from the proxy 🦀");
    let seen = seen.lock().unwrap();
    assert!(seen.len() > 1 && seen.concat() == reply.text, "{seen:?}");
    assert!(reply.usage.expect("usage, since it was asked for").total() > 0);
}

async fn wrapped_reply(caller: OpenAiBuilder) {
    let request = LlmRequest::new("hello").with_schema(json!({"type": "array", "items": {"type": "integer"}}));
    let reply = caller
        .structured_output(true)
        .build()
        .unwrap()
        .call(request)
        .await
        .unwrap();
    assert_eq!(reply.text, "[1,2]");
}

fn with_tool() -> LlmRequest {
    let mut request = LlmRequest::new("hello");
    let tool = ToolOffer {
        name: "crm.find".into(),
        description: "finds a customer".into(),
        parameters: Arc::new(json!({"type": "object", "properties": {"x": {"type": "integer"}}})),
    };
    request.tools = [tool].into();
    request
}

async fn offered_tools(caller: OpenAiBuilder) {
    let reply = caller
        .native_tools(true)
        .build()
        .unwrap()
        .call(with_tool())
        .await
        .unwrap();
    assert!(reply.tool_calls.is_empty() && !reply.text.is_empty());
}

// Streamed, the proxy leaves out the calls that it makes up.
async fn called_tools(caller: OpenAiBuilder) {
    let reply = caller
        .native_tools(true)
        .build()
        .unwrap()
        .call(with_tool())
        .await
        .unwrap();
    let calls: Vec<_> = reply
        .tool_calls
        .iter()
        .map(|call| (&*call.id, &*call.name, &*call.arguments))
        .collect();
    assert_eq!(calls, [("call_1", "crm.find", "{\"x\": 1}")]);
}

async fn unknown_model(caller: OpenAiBuilder) {
    let error = caller
        .build()
        .unwrap()
        .call(LlmRequest::new("hello"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), LlmErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("no-such-model"), "{error}");
}

async fn wrong_key(caller: OpenAiBuilder) {
    let error = caller
        .key("sk-some-wrong-key")
        .build()
        .unwrap()
        .call(LlmRequest::new("hello"))
        .await
        .unwrap_err();
    // Without a database, where it would look for other keys, the proxy says 400.
    assert!(
        matches!(error.kind(), LlmErrorKind::Refused | LlmErrorKind::Unauthorized),
        "{error}"
    );
    assert_eq!(error.downcast_ref::<OpenAiError>().unwrap().attempts(), 1);
    assert!(!format!("{error:#} {error:?}").contains("sk-some-wrong-key"), "{error}");
}

async fn busy(caller: OpenAiBuilder) {
    let delay = Duration::from_millis(1);
    let error = caller
        .retries(2)
        .retry_delay(delay, delay)
        .build()
        .unwrap()
        .call(LlmRequest::new("hello"))
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), LlmErrorKind::RateLimited, "{error}");
    assert_eq!(error.downcast_ref::<OpenAiError>().unwrap().attempts(), 3);
}
