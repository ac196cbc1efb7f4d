//! What comes back, right or wrong.

use serde_json::json;
use soe_core::llm::{LlmErrorKind, LlmRequest};
use soe_llm_openai::{OpenAiError, Problem};
use wiremock::ResponseTemplate;

use crate::support::{Act, KEY, Raw, ask, builder, chunk, completion, count, failure, head, ok, server};

async fn invalid(answer: ResponseTemplate) -> String {
    let server = server(answer).await;
    let error = failure(&builder(&server.uri()).build().unwrap(), LlmRequest::new("hello")).await;
    assert_eq!(error.kind(), LlmErrorKind::InvalidResponse);
    assert_eq!(count(&server).await, 1, "what can't be read is not asked for again");
    error.to_string()
}

#[tokio::test]
async fn what_is_no_completion_says_what_it_is() {
    let page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>secret page</body></html>";
    let html = invalid(ResponseTemplate::new(200).set_body_raw(page, "text/html")).await;
    assert!(
        html.ends_with("/v1/chat/completions: the reply is no chat completion: it is an HTML page titled 'Sign in'")
    );
    let json = invalid(ResponseTemplate::new(200).set_body_string("{\"choices\": [")).await;
    assert!(json.contains("it is no JSON: EOF while parsing"), "{json}");
    let empty = invalid(ok(json!({"choices": []}))).await;
    assert!(
        empty.ends_with("the reply is no chat completion: it has no `choices`"),
        "{empty}"
    );
    let other = invalid(ok(json!({"choices": KEY}))).await;
    assert!(
        other.contains("its JSON has another form: invalid type: string \"[hidden]\""),
        "{other}"
    );
    assert!(invalid(ResponseTemplate::new(200)).await.contains("it is no JSON"));
    let error = invalid(ok(json!({"error": {"message": format!("bad {KEY}")}}))).await;
    assert!(
        error.ends_with("the endpoint reported an error: bad [hidden]"),
        "{error}"
    );
}

#[tokio::test]
async fn what_has_no_text_says_why() {
    for (message, reason, kind, text) in [
        (
            json!({"content": ""}),
            "length",
            LlmErrorKind::InvalidResponse,
            "raise `max_tokens`",
        ),
        (
            json!({"content": null}),
            "content_filter",
            LlmErrorKind::Refused,
            "content filter withheld",
        ),
        (
            json!({"content": null, "refusal": "I won't."}),
            "stop",
            LlmErrorKind::Refused,
            "the LLM refused: I won't.",
        ),
    ] {
        let server = server(ok(json!({"choices": [{"message": message, "finish_reason": reason}]}))).await;
        let error = failure(&builder(&server.uri()).build().unwrap(), LlmRequest::new("hello")).await;
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_text_that_was_cut_off_is_still_a_text() {
    let body = json!({"choices": [{"message": {"content": "half a"}, "finish_reason": "length"}]});
    let server = server(ok(body)).await;
    let reply = ask(&builder(&server.uri()).build().unwrap()).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.usage), ("half a", None));
}

#[tokio::test]
async fn half_a_wrapped_reply_is_not_taken_for_the_reply() {
    let body = json!({"choices": [{"message": {"content": "{\"value\": \"half a sen"}, "finish_reason": "length"}]});
    let server = server(ok(body)).await;
    let caller = builder(&server.uri()).structured_output(true).build().unwrap();
    let error = failure(&caller, LlmRequest::new("hello").with_schema(json!({"type": "string"}))).await;
    assert_eq!((error.kind(), count(&server).await), (LlmErrorKind::InvalidResponse, 1));
    assert!(
        error
            .to_string()
            .ends_with("the reply was cut off at the limit on tokens: raise `max_tokens`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_body_that_ends_too_early_is_asked_for_again() {
    let body = completion("hi").to_string();
    let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let half = whole.as_bytes()[..whole.len() - 10].to_vec();
    let server = Raw::start(vec![vec![Act::Send(half)], vec![Act::Send(whole.into_bytes())]]).await;
    assert_eq!(ask(&builder(&server.url).build().unwrap()).await.unwrap().text, "hi");
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn what_is_no_http_breaks_the_connection() {
    for script in [
        vec![Act::Send(b"220 smtp.example ESMTP\r\n".to_vec())],
        vec![
            head("application/json"),
            Act::Send(b"this is no length of a chunk\r\n".to_vec()),
        ],
        vec![
            head("application/json"),
            chunk("{"),
            Act::Send(b"ffffffffffffffffff\r\n".to_vec()),
        ],
        vec![],
    ] {
        let server = Raw::start(vec![script]).await;
        let error = failure(
            &builder(&server.url).retries(1).build().unwrap(),
            LlmRequest::new("hello"),
        )
        .await;
        assert_eq!(error.kind(), LlmErrorKind::Connection, "{error:#}");
        let error = error.downcast_ref::<OpenAiError>().unwrap();
        assert!(matches!(error.problem(), Problem::Broken(Some(_))), "{error:?}");
        assert_eq!((error.attempts(), server.requests()), (2, 2));
    }
}
