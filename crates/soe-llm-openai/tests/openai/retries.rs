//! Failures that pass, and those that don't.

use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use soe_core::llm::{LlmErrorKind, LlmRequest};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{Act, Raw, ask, builder, completion, count, failure, ok, server};

/// A server that answers like this so many times, and then well.
async fn server_in_trouble(answer: ResponseTemplate, times: u64) -> MockServer {
    let server = MockServer::start().await;
    let trouble = Mock::given(method("POST")).respond_with(answer);
    trouble.up_to_n_times(times).mount(&server).await;
    Mock::given(method("POST"))
        .respond_with(ok(completion("hi")))
        .mount(&server)
        .await;
    server
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again() {
    for status in [408, 409, 429, 500, 502, 503, 504, 507, 520, 524, 529, 599] {
        let server = server_in_trouble(ResponseTemplate::new(status), 2).await;
        let reply = ask(&builder(&server.uri()).build().unwrap()).await.unwrap();
        assert_eq!((reply.text.as_str(), count(&server).await), ("hi", 3), "{status}");
    }
}

#[tokio::test]
async fn trouble_that_does_not_pass_ends_the_call() {
    for (status, kind) in [
        (429, LlmErrorKind::RateLimited),
        (500, LlmErrorKind::Other),
        (529, LlmErrorKind::Other),
    ] {
        let body = json!({"error": {"message": "overloaded"}});
        let server = server(ResponseTemplate::new(status).set_body_json(body)).await;
        let error = failure(
            &builder(&server.uri()).retries(3).build().unwrap(),
            LlmRequest::new("hello"),
        )
        .await;
        assert_eq!((error.kind(), count(&server).await), (kind, 4));
        assert!(
            error.to_string().ends_with(": overloaded (after 4 attempts)"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_endpoints_wish_is_waited() {
    let soon = SystemTime::now() + Duration::from_secs(20);
    let date = httpdate::fmt_http_date(soon);
    let later = httpdate::fmt_http_date(soon + Duration::from_secs(1));
    for (headers, least) in [
        (vec![("retry-after", "1")], 1_000),
        (vec![("retry-after", "30"), ("retry-after-ms", "150")], 150),
        (vec![("retry-after", later.as_str()), ("date", date.as_str())], 1_000),
    ] {
        let answer = headers
            .iter()
            .fold(ResponseTemplate::new(429), |answer, (name, value)| {
                answer.insert_header(*name, *value)
            });
        let server = server_in_trouble(answer, 1).await;
        let caller = builder(&server.uri()).build().unwrap();
        let start = Instant::now();
        assert_eq!(ask(&caller).await.unwrap().text, "hi");
        assert!(
            start.elapsed() >= Duration::from_millis(least),
            "{headers:?}: {:?}",
            start.elapsed()
        );
        assert_eq!(count(&server).await, 2);
    }
}

#[tokio::test]
async fn a_wish_that_is_too_long_ends_the_call_at_once() {
    let answer = ResponseTemplate::new(429).insert_header("retry-after", "3600");
    let server = server(answer).await;
    let caller = builder(&server.uri())
        .max_retry_wait(Duration::from_secs(60))
        .build()
        .unwrap();
    let error = failure(&caller, LlmRequest::new("hello")).await;
    assert_eq!((error.kind(), count(&server).await), (LlmErrorKind::RateLimited, 1));
    // Nor is there a wait that the call has no time for.
    let caller = builder(&server.uri())
        .max_retry_wait(Duration::MAX)
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    failure(&caller, LlmRequest::new("hello")).await;
    assert_eq!(count(&server).await, 2);
}

#[tokio::test]
async fn an_exhausted_quota_is_no_matter_of_time() {
    let body = json!({"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}});
    let server = server(ResponseTemplate::new(429).set_body_json(body)).await;
    let error = failure(&builder(&server.uri()).build().unwrap(), LlmRequest::new("hello")).await;
    assert_eq!((error.kind(), count(&server).await), (LlmErrorKind::RateLimited, 1));
}

#[tokio::test]
async fn trouble_reported_in_place_of_a_reply_is_trouble_too() {
    let body = json!({"error": {"message": "overloaded", "code": 503}});
    let server = server_in_trouble(ok(body), 1).await;
    assert_eq!(ask(&builder(&server.uri()).build().unwrap()).await.unwrap().text, "hi");
    assert_eq!(count(&server).await, 2);
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_again() {
    let body = completion("hi").to_string();
    let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let server = Raw::start(vec![vec![], vec![], vec![Act::Send(whole.into_bytes())]]).await;
    assert_eq!(ask(&builder(&server.url).build().unwrap()).await.unwrap().text, "hi");
    assert_eq!(server.requests(), 3);
}
