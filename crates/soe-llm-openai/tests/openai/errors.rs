//! Endpoints that refuse.

use serde_json::json;
use soe_core::llm::{LlmErrorKind, LlmRequest};
use soe_llm_openai::OpenAiError;
use wiremock::ResponseTemplate;

use crate::support::{KEY, builder, count, failure, server};

#[tokio::test]
async fn what_trying_again_wont_mend_is_not_tried_again() {
    for (status, kind) in [
        (400, LlmErrorKind::Refused),
        (401, LlmErrorKind::Unauthorized),
        (403, LlmErrorKind::Unauthorized),
        (404, LlmErrorKind::Refused),
        (422, LlmErrorKind::Refused),
        (501, LlmErrorKind::Other),
        (505, LlmErrorKind::Other),
    ] {
        let body = json!({"error": {"message": "no such thing", "type": "x", "code": "nope"}});
        let server = server(ResponseTemplate::new(status).set_body_json(body)).await;
        let error = failure(&builder(&server.uri()).build().unwrap(), LlmRequest::new("hello")).await;
        assert_eq!((error.kind(), count(&server).await), (kind, 1), "{status}");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("{}/v1/chat/completions: status {status}", server.uri())),
            "{text}"
        );
        assert!(text.ends_with(": no such thing (code: nope)"), "{text}");
        assert_eq!(error.downcast_ref::<OpenAiError>().unwrap().status(), Some(status));
    }
}

#[tokio::test]
async fn a_key_that_the_server_repeats_is_hidden_even_where_the_message_is_cut() {
    for filler in 480..500 {
        let body = json!({"error": {"message": format!("{}{KEY} is wrong, really {KEY}", "x".repeat(filler))}});
        let server = server(ResponseTemplate::new(401).set_body_json(body)).await;
        let error = failure(&builder(&server.uri()).build().unwrap(), LlmRequest::new("hello")).await;
        let text = error.to_string();
        assert!(!text.contains("sk-t") && text.contains("x["), "{text}");
    }
    let plain = format!("Authorization: Bearer {KEY}");
    let server = server(ResponseTemplate::new(401).set_body_string(plain)).await;
    let error = failure(&builder(&server.uri()).build().unwrap(), LlmRequest::new("hello")).await;
    assert!(
        error
            .to_string()
            .ends_with("status 401 Unauthorized: Authorization: Bearer [hidden]"),
        "{error}"
    );
}

#[tokio::test]
async fn pages_for_browsers_are_described() {
    let page = format!(
        "<html><head><title>502 Bad Gateway</title></head><body>{}</body>",
        "nginx ".repeat(1_000)
    );
    let answer = ResponseTemplate::new(502).set_body_raw(page, "text/html");
    let server = server(answer).await;
    let error = failure(
        &builder(&server.uri()).retries(0).build().unwrap(),
        LlmRequest::new("hello"),
    )
    .await;
    let text = error.to_string();
    assert!(
        text.ends_with("status 502 Bad Gateway: an HTML page titled '502 Bad Gateway'"),
        "{text}"
    );
}

#[tokio::test]
async fn the_query_is_not_shown() {
    let server = server(ResponseTemplate::new(403).set_body_string("the key query-secret is wrong")).await;
    let caller = builder(&server.uri()).query("key", "query-secret").build().unwrap();
    let text = format!("{:#}", failure(&caller, LlmRequest::new("hello")).await);
    assert!(
        text.ends_with("the key [hidden] is wrong") && !text.contains("query-secret"),
        "{text}"
    );
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told_without_the_query() {
    // Nothing listens there any more.
    let url = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let caller = builder(&url).query("key", "query-secret").retries(2).build().unwrap();
    let error = failure(&caller, LlmRequest::new("hello")).await;
    assert_eq!(error.kind(), LlmErrorKind::Connection);
    assert_eq!(
        error.to_string(),
        format!("{url}/v1/chat/completions: no connection (after 3 attempts)")
    );
    assert!(!format!("{error:#} {error:?}").contains("query-secret"));
}
