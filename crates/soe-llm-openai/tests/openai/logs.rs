//! What the application's subscriber gets to see.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::instrument::WithSubscriber;
use tracing_subscriber::fmt::MakeWriter;
use wiremock::ResponseTemplate;

use crate::support::{KEY, builder, failure, server};
use soe_core::llm::LlmRequest;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn retries_are_logged_without_bodies_and_keys() {
    let answer = ResponseTemplate::new(429).set_body_string(format!("the key {KEY} is busy"));
    let server = server(answer).await;
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let caller = builder(&server.uri())
        .query("key", "query-secret")
        .retries(2)
        .build()
        .unwrap();
    let request = LlmRequest::new("the prompt").by("Ask", Default::default());
    failure(&caller, request).with_subscriber(subscriber).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("a request failed in passing").count(), 2, "{text}");
    for shown in [
        "node=Ask",
        "status=429",
        "attempt=1",
        "attempt=2",
        "wait_ms=",
        "/v1/chat/completions",
    ] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    for hidden in [KEY, "query-secret", "is busy", "the prompt"] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
}
