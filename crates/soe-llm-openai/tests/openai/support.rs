//! Servers to call, and what the tests call them with.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use soe_core::llm::{LlmCaller, LlmError, LlmReply, LlmRequest, TokenSink};
use soe_llm_openai::{OpenAi, OpenAiBuilder, OpenAiError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

pub(crate) const KEY: &str = "sk-test-0123456789";

/// A builder for a server of a test: quick retries, and no proxies from the environment.
pub(crate) fn builder(url: &str) -> OpenAiBuilder {
    OpenAi::builder()
        .base_url(format!("{url}/v1"))
        .key(KEY)
        .model("m")
        .retry_delay(Duration::from_millis(1), Duration::from_millis(2))
        .proxies(false)
}

/// A server that always answers like this.
pub(crate) async fn server(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    server
}

pub(crate) fn ok(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

/// A completion of this text.
pub(crate) fn completion(text: &str) -> Value {
    json!({
        "id": "c", "object": "chat.completion", "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13},
    })
}

pub(crate) async fn ask(caller: &OpenAi) -> Result<LlmReply, LlmError> {
    caller.call(LlmRequest::new("hello")).await
}

/// The error of a call that must fail; whatever it is, it doesn't show the key.
pub(crate) async fn failure(caller: &OpenAi, request: LlmRequest) -> LlmError {
    let error = caller.call(request).await.expect_err("an error");
    let texts = format!("{error} {error:#} {error:?} {caller:?}");
    assert!(!texts.contains(KEY), "{texts}");
    assert!(error.is::<OpenAiError>());
    error
}

/// The body of the only request that the server got.
pub(crate) async fn sent(server: &MockServer) -> Value {
    let requests = server.received_requests().await.expect("requests are recorded");
    assert_eq!(requests.len(), 1);
    requests[0].body_json().expect("a JSON body")
}

pub(crate) async fn count(server: &MockServer) -> usize {
    server.received_requests().await.expect("requests are recorded").len()
}

/// A request whose text is wanted as it arrives, and what arrived.
pub(crate) fn streamed() -> (LlmRequest, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut request = LlmRequest::new("hello");
    let sink = seen.clone();
    request.tokens = TokenSink::new(move |text| sink.lock().unwrap().push(text.to_owned()));
    (request, seen)
}

pub(crate) fn piece(text: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
}

pub(crate) fn last_piece() -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
}

/// Events as they are sent.
pub(crate) fn events(pieces: &[Value]) -> String {
    pieces.iter().map(|piece| format!("data: {piece}\n\n")).collect()
}

pub(crate) fn stream(text: impl Into<String>) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(text.into(), "text/event-stream")
}

/// Keeps the stopped clock from running on while a test waits for a socket: it doesn't as long as a blocking task runs.
pub(crate) fn hold_the_clock() -> oneshot::Sender<()> {
    let (release, released) = oneshot::channel();
    tokio::task::spawn_blocking(move || released.blocking_recv());
    release
}

/// What a [`Raw`] server does with a connection, after it has read the request.
#[derive(Clone)]
pub(crate) enum Act {
    Send(Vec<u8>),
    /// The same bytes until nobody takes them any more.
    SendForever(Vec<u8>),
    /// Nothing, until the other side is gone.
    Hang,
}

/// A server that sends bytes as it is told, right or wrong, and closes the connection.
pub(crate) struct Raw {
    pub(crate) url: String,
    requests: Arc<AtomicUsize>,
    closed: Arc<Notify>,
}

impl Raw {
    /// A server that plays the scripts, one for each request, the last one again and again.
    pub(crate) async fn start(scripts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let closed = Arc::new(Notify::new());
        let (counter, closing) = (requests.clone(), closed.clone());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let script = scripts[number.min(scripts.len() - 1)].clone();
                let closing = closing.clone();
                tokio::spawn(async move {
                    if read_request(&mut socket).await {
                        play(script, &mut socket).await;
                    }
                    closing.notify_one();
                });
            }
        });
        Self { url, requests, closed }
    }

    /// Waits until a connection is over.
    pub(crate) async fn hung_up(&self) {
        self.closed.notified().await;
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Reads a request with its body; whether there was one.
async fn read_request(socket: &mut TcpStream) -> bool {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap_or("0");
            if body.len() >= length.parse::<usize>().unwrap() {
                return true;
            }
        }
        let mut buffer = [0; 4096];
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return false,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

async fn play(script: Vec<Act>, socket: &mut TcpStream) {
    for act in script {
        match act {
            Act::Send(bytes) => {
                let _ = socket.write_all(&bytes).await;
                let _ = socket.flush().await;
            }
            Act::SendForever(bytes) => while socket.write_all(&bytes).await.is_ok() {},
            Act::Hang => while !matches!(socket.read(&mut [0; 64]).await, Ok(0) | Err(_)) {},
        }
    }
}

/// The head of a chunked response.
pub(crate) fn head(content_type: &str) -> Act {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n");
    Act::Send(head.into_bytes())
}

/// One chunk of a chunked response.
pub(crate) fn chunk(bytes: impl AsRef<[u8]>) -> Act {
    Act::Send(chunk_bytes(bytes))
}

pub(crate) fn chunk_bytes(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// The end of a chunked response.
pub(crate) fn end() -> Act {
    Act::Send(b"0\r\n\r\n".to_vec())
}
