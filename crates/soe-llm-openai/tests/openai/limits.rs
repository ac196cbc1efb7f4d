//! Servers that take too long, or send too much.

use std::time::Duration;

use soe_core::llm::{LlmCaller, LlmError, LlmErrorKind, LlmRequest};
use soe_llm_openai::{OpenAi, OpenAiError, Problem};

use crate::support::{Act, Raw, builder, chunk, chunk_bytes, events, failure, head, piece, streamed};

fn problem(error: &LlmError) -> &Problem {
    error
        .downcast_ref::<OpenAiError>()
        .expect("an error of this crate")
        .problem()
}

/// A caller with little time: what these servers send never ends, so the time is all that a test waits for.
fn hurried(server: &Raw) -> OpenAi {
    builder(&server.url)
        .timeout(Duration::from_millis(200))
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_server_that_hangs_is_left() {
    let json = || head("application/json");
    for script in [
        vec![Act::Hang],
        vec![json(), Act::Hang],
        vec![json(), chunk("{\"choices\""), Act::Hang],
    ] {
        let server = Raw::start(vec![script]).await;
        let error = failure(&hurried(&server), LlmRequest::new("hello")).await;
        assert_eq!(error.kind(), LlmErrorKind::Timeout);
        let text = error.to_string();
        assert!(
            text.ends_with("/v1/chat/completions: no complete reply within 200ms"),
            "{text}"
        );
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test]
async fn a_stream_that_hangs_is_left_however_much_it_has_sent() {
    let script = vec![head("text/event-stream"), chunk(events(&[piece("half")])), Act::Hang];
    let server = Raw::start(vec![script]).await;
    let (request, seen) = streamed();
    let error = failure(&hurried(&server), request).await;
    assert_eq!(error.kind(), LlmErrorKind::Timeout);
    assert_eq!(*seen.lock().unwrap(), ["half"]);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn an_error_whose_message_never_comes_counts_within_the_time() {
    let server = Raw::start(vec![vec![
        Act::Send(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 99\r\n\r\nbad".to_vec()),
        Act::Hang,
    ]])
    .await;
    assert_eq!(
        failure(&hurried(&server), LlmRequest::new("hello")).await.kind(),
        LlmErrorKind::Timeout
    );
}

#[tokio::test]
async fn a_reply_without_end_is_too_large() {
    for (content_type, bytes) in [
        ("application/json", " ".repeat(1_000)),
        ("text/event-stream", events(&[piece("more")])),
        ("text/event-stream", ": still here\n\n".to_owned()),
        ("text/event-stream", "data: a line without end".to_owned()),
    ] {
        let script = vec![head(content_type), Act::SendForever(chunk_bytes(bytes))];
        let server = Raw::start(vec![script]).await;
        let caller = builder(&server.url).max_response_bytes(100_000).build().unwrap();
        let (request, _seen) = streamed();
        let error = failure(&caller, request).await;
        assert_eq!(error.kind(), LlmErrorKind::InvalidResponse);
        assert!(
            matches!(problem(&error), Problem::TooLarge { limit: 100_000 }),
            "{error}"
        );
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test]
async fn an_error_message_without_end_is_cut() {
    let head = b"HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let script = vec![Act::Send(head), Act::SendForever(chunk_bytes("no, no, "))];
    let server = Raw::start(vec![script]).await;
    let error = failure(&builder(&server.url).build().unwrap(), LlmRequest::new("hello")).await;
    assert_eq!(error.kind(), LlmErrorKind::Refused);
    assert!(error.to_string().len() < 700, "{error}");
}

#[tokio::test]
async fn connecting_has_a_time_of_its_own() {
    // A host that swallows packets can't be had offline; one whose queue of connections is full is near enough on Linux.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await
    {
        waiting.push(stream);
        if waiting.len() > 1_000 {
            eprintln!("SKIPPED: this system takes any number of connections");
            return;
        }
    }
    let caller = builder(&format!("http://{address}"));
    let caller = caller
        .connect_timeout(Duration::from_millis(100))
        .retries(1)
        .build()
        .unwrap();
    let error = failure(&caller, LlmRequest::new("hello")).await;
    assert_eq!(error.kind(), LlmErrorKind::Timeout);
    assert!(
        error.to_string().ends_with("no connection in time (after 2 attempts)"),
        "{error:#}"
    );
}

#[tokio::test]
async fn a_dropped_call_closes_its_connection() {
    let script = vec![head("text/event-stream"), chunk(events(&[piece("half")])), Act::Hang];
    let server = Raw::start(vec![script]).await;
    let caller = builder(&server.url).build().unwrap();
    let (request, seen) = streamed();
    let call = tokio::spawn(async move { caller.call(request).await.map(drop).map_err(|error| error.kind()) });
    while seen.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    server.hung_up().await;
}
