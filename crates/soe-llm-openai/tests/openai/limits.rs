//! Servers that take too long, or send too much.

use std::time::Duration;

use futures::future::select_all;
use serde_json::json;
use soe_core::llm::{LlmCaller, LlmError, LlmErrorKind, LlmRequest};
use soe_llm_openai::{OpenAi, OpenAiError, Problem};
use tokio::net::TcpStream;
use tokio::time::{Instant, advance};

use crate::support::{
    Act, Raw, builder, chunk, chunk_bytes, events, failure, head, hold_the_clock, last_piece, piece, streamed,
};

fn problem(error: &LlmError) -> &Problem {
    error
        .downcast_ref::<OpenAiError>()
        .expect("an error of this crate")
        .problem()
}

/// The error of a call to a server that stops sending, after it has got as far as `progress`. No real time passes.
async fn given_up(caller: OpenAi, request: LlmRequest, progress: impl Fn() -> bool) -> LlmError {
    outcome(async move { failure(&caller, request).await }, progress).await
}

/// What comes of a call to a server that stops sending.
async fn outcome<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static, progress: impl Fn() -> bool) -> T {
    let _held = hold_the_clock();
    let call = tokio::spawn(call);
    while !progress() {
        tokio::task::yield_now().await;
    }
    while !call.is_finished() {
        // What was sent has to arrive before the time is over.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        advance(Duration::from_secs(1)).await;
    }
    call.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_left() {
    let json = || head("application/json");
    for script in [
        vec![Act::Hang],
        vec![json(), Act::Hang],
        vec![json(), chunk("{\"choices\""), Act::Hang],
    ] {
        let server = Raw::start(vec![script]).await;
        let caller = builder(&server.url).timeout(Duration::from_secs(77)).build().unwrap();
        let error = given_up(caller, LlmRequest::new("hello"), || server.requests() > 0).await;
        assert_eq!(error.kind(), LlmErrorKind::Timeout);
        let text = error.to_string();
        assert!(
            text.ends_with("/v1/chat/completions: no complete reply within 77s"),
            "{text}"
        );
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_hangs_is_left_however_much_it_has_sent() {
    let script = vec![head("text/event-stream"), chunk(events(&[piece("half")])), Act::Hang];
    let server = Raw::start(vec![script]).await;
    let (request, seen) = streamed();
    let caller = builder(&server.url).build().unwrap();
    let error = given_up(caller, request, || !seen.lock().unwrap().is_empty()).await;
    assert_eq!(error.kind(), LlmErrorKind::Timeout);
    assert_eq!(*seen.lock().unwrap(), ["half"]);
    assert_eq!(server.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_complete_stream_that_hangs_is_not_waited_for() {
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}});
    let finished = [piece("all"), last_piece()];
    for (last, total) in [(": still here\n\n".to_owned(), None), (events(&[usage]), Some(10))] {
        let script = vec![
            head("text/event-stream"),
            chunk(events(&finished)),
            chunk(last),
            Act::Hang,
        ];
        let server = Raw::start(vec![script]).await;
        let (request, seen) = streamed();
        let caller = builder(&server.url).build().unwrap();
        let began = Instant::now();
        let reply = outcome(async move { caller.call(request).await.unwrap() }, || {
            !seen.lock().unwrap().is_empty()
        })
        .await;
        assert_eq!(
            (reply.text.as_str(), reply.usage.map(|usage| usage.total())),
            ("all", total)
        );
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_even_if_its_message_never_ends() {
    let refusal = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 99\r\n\r\nbad".to_vec();
    let server = Raw::start(vec![vec![Act::Send(refusal), Act::Hang]]).await;
    let caller = builder(&server.url).build().unwrap();
    let error = given_up(caller, LlmRequest::new("hello"), || server.requests() > 0).await;
    assert_eq!(error.kind(), LlmErrorKind::Unauthorized);
    assert!(error.to_string().contains("status 401 Unauthorized"), "{error}");
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

// A host that swallows packets can't be had offline. On Linux, one whose queue of connections is full does the same.
#[cfg(target_os = "linux")]
#[tokio::test(start_paused = true)]
async fn connecting_has_a_time_of_its_own() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting: Vec<_> = (0..8).map(|_| Box::pin(TcpStream::connect(address))).collect();
    // The queue holds two.
    let (_first, _, rest) = select_all(waiting.drain(..)).await;
    let (_second, _, _rest) = select_all(rest).await;
    let caller = builder(&format!("http://{address}")).retries(0).build().unwrap();
    let error = given_up(caller, LlmRequest::new("hello"), || true).await;
    assert_eq!(error.kind(), LlmErrorKind::Timeout);
    assert!(error.to_string().ends_with("no connection in time"), "{error:#}");
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
