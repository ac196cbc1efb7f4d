//! An endpoint with OpenAI's chat completions, as small as can be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What it answers: a status, and a reply or an error's text.
pub(crate) type Answer = fn(&Asked) -> (u16, String);

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) authorization: Option<String>,
    pub(crate) body: Value,
}

/// Answers until the test is over.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Endpoint {
    /// An endpoint that answers in this way.
    pub(crate) fn answering(answer: Answer) -> Self {
        Self::start(move |stream, asked| reply(stream, asked, answer(asked)))
    }

    /// An endpoint that takes requests and never answers.
    pub(crate) fn hanging() -> Self {
        let held = Mutex::new(Vec::new());
        Self::start(move |stream, _| held.lock().unwrap().push(stream))
    }

    fn start(handle: impl Fn(TcpStream, &Asked) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let keeps = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                // A client that is killed says nothing more.
                let Some(request) = read(&stream) else { continue };
                keeps.lock().unwrap().push(request.clone());
                handle(stream, &request);
            }
        });
        Self { url, asked }
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let (mut authorization, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            match line.trim_end() {
                "" => break,
                _ => continue,
            }
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value.to_owned()),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).ok()?;
    Some(Asked { authorization, body })
}

fn reply(mut stream: TcpStream, asked: &Asked, (status, text): (u16, String)) {
    let usage = json!({"prompt_tokens": 120, "completion_tokens": 4, "total_tokens": 124});
    let (kind, body) = match (status, asked.body["stream"] == true) {
        (200, true) => {
            let chunk = |delta: Value, finish: Value| {
                let chunk = json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
                format!("data: {chunk}\n\n")
            };
            let letters: Vec<char> = text.chars().collect();
            let pieces = letters.chunks(3).map(|piece| piece.iter().collect::<String>());
            let mut body: String = pieces
                .map(|piece| chunk(json!({"content": piece}), Value::Null))
                .collect();
            body += &chunk(json!({}), json!("stop"));
            body += &format!("data: {}\n\ndata: [DONE]\n\n", json!({"choices": [], "usage": usage}));
            ("text/event-stream", body)
        }
        (200, false) => {
            let message = json!({"role": "assistant", "content": text});
            let choices = json!([{"index": 0, "message": message, "finish_reason": "stop"}]);
            (
                "application/json",
                json!({"choices": choices, "usage": usage}).to_string(),
            )
        }
        _ => ("application/json", json!({"error": {"message": text}}).to_string()),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // The client may be gone.
    let _ = stream.write_all((head + &body).as_bytes());
}
