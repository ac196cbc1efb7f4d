//! The HTTP service: the real program, over real HTTP.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const ARTICLE: &str = "Tea is best served hot";

/// A running service; it is killed when it is dropped.
struct Service {
    process: Child,
    stdout: BufReader<ChildStdout>,
    url: String,
    agent: ureq::Agent,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Service {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_06-axum-service"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("listening on ").unwrap().to_owned();
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = config.timeout_global(Some(Duration::from_secs(20))).build().into();
        Self {
            process,
            stdout,
            url,
            agent,
        }
    }

    fn with_store(folder: &Path, grace: &str) -> Self {
        Self::start(&["--store", folder.to_str().unwrap(), "--grace", grace])
    }

    fn get(&self, path: &str) -> (u16, Value) {
        answer(self.agent.get(format!("{}{path}", self.url)).call())
    }

    fn delete(&self, path: &str) -> (u16, Value) {
        answer(self.agent.delete(format!("{}{path}", self.url)).call())
    }

    fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let request = self.agent.post(format!("{}{path}", self.url));
        answer(request.header("content-type", "application/json").send(body))
    }

    /// Starts an execution, and gives its path.
    fn new_execution(&self, context: &Value) -> String {
        let body = json!({"workflow": "publishing", "context": context}).to_string();
        let (status, answer) = self.post("/executions", &body);
        assert_eq!(status, 201, "{answer}");
        format!("/executions/{}", answer["id"].as_str().unwrap())
    }

    fn wait_for(&self, execution: &str, status: &str) -> Value {
        let started = Instant::now();
        loop {
            let (_, shown) = self.get(execution);
            if shown["status"] == status {
                return shown;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "not {status}: {shown}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn follow(&self, execution: &str, last_id: Option<u64>) -> impl Iterator<Item = (u64, String, Value)> + use<> {
        let mut request = self.agent.get(format!("{}{execution}/events", self.url));
        if let Some(last) = last_id {
            request = request.header("last-event-id", last.to_string());
        }
        let response = request.call().unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events(BufReader::new(response.into_body().into_reader()))
    }

    #[cfg(unix)]
    fn terminate(&mut self) -> (String, Duration) {
        let started = Instant::now();
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).unwrap();
        assert!(self.process.wait().unwrap().success());
        (said, started.elapsed())
    }
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut response = response.unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap()
    };
    (response.status().as_u16(), body)
}

/// Server-sent events: id, name, data.
struct Events<R>(R);

impl<R: BufRead> Iterator for Events<R> {
    type Item = (u64, String, Value);

    fn next(&mut self) -> Option<Self::Item> {
        let (mut id, mut name, mut data) = (None, String::new(), Value::Null);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("id", value)) => id = value.parse().ok(),
                Some(("event", value)) => value.clone_into(&mut name),
                Some(("data", value)) => data = serde_json::from_str(value).unwrap(),
                _ if line.trim_end().is_empty() && id.is_some() => return Some((id.unwrap(), name, data)),
                _ => {}
            }
        }
    }
}

#[test]
fn an_execution_is_started_rests_and_goes_on() {
    let service = Service::start(&[]);
    assert_eq!(service.get("/health"), (200, json!({"status": "ok"})));
    let execution = service.new_execution(&json!({"text": ARTICLE}));

    let shown = service.wait_for(&execution, "rested");
    assert_eq!(shown["context"]["analysis"], json!({"words": 5, "longest": "served"}));
    assert_eq!(shown["signals"], json!(["START", "READY_FOR_REVIEW"]));

    let signals = r#"{"signals": ["APPROVED"]}"#;
    assert_eq!(
        service.post(&format!("{execution}/signals"), signals),
        (202, Value::Null)
    );
    let events = service.follow(&execution, None);
    let published = events
        .map(|(_, _, data)| data)
        .find(|data| data["data"]["signals"] == json!(["PUBLISHED"]));
    assert!(published.is_some());
    let shown = service.wait_for(&execution, "rested");
    assert!(
        shown["context"]["url"]
            .as_str()
            .unwrap()
            .starts_with("https://press.example/")
    );
}

#[test]
fn executions_are_listed_in_pages_and_deleted() {
    let service = Service::start(&[]);
    let paths: Vec<_> = (0..3)
        .map(|_| service.new_execution(&json!({"text": ARTICLE})))
        .collect();
    paths.iter().for_each(|path| drop(service.wait_for(path, "rested")));

    let (status, page) = service.get("/executions?status=rested&limit=2");
    assert_eq!(
        (status, page["executions"].as_array().unwrap().len()),
        (200, 2),
        "{page}"
    );
    let cursor: String = page["next"]
        .to_string()
        .bytes()
        .map(|byte| format!("%{byte:02x}"))
        .collect();
    let (_, rest) = service.get(&format!("/executions?status=rested&limit=2&after={cursor}"));
    assert_eq!(rest["executions"].as_array().unwrap().len(), 1, "{rest}");
    assert_eq!(service.get("/executions?status=failed").1["executions"], json!([]));

    assert_eq!(service.delete(&paths[0]).0, 204);
    assert_eq!(service.get(&paths[0]).0, 404);
}

#[test]
fn events_go_on_after_the_last_one_that_was_seen() {
    let service = Service::start(&[]);
    let execution = service.new_execution(&json!({"text": ARTICLE}));

    let first: Vec<_> = service.follow(&execution, None).take(3).collect();
    assert_eq!(first.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(first[0].1, "orchestration_start");

    // The client was gone; it comes back and says what it has seen. Nothing is missing, nothing is there twice.
    let mut rest = service.follow(&execution, Some(2));
    let mut seen = Vec::new();
    for (id, name, _) in rest.by_ref() {
        seen.push(id);
        if name == "execution_rested" {
            break;
        }
    }
    assert_eq!(seen, (3..3 + seen.len() as u64).collect::<Vec<_>>());

    // It still follows when the execution wakes.
    service.post(&format!("{execution}/signals"), r#"{"signals": ["APPROVED"]}"#);
    assert!(rest.any(|(_, name, data)| name == "signals_broadcast" && data["data"]["signals"] == json!(["PUBLISHED"])));
}

#[test]
fn errors_are_typed() {
    let service = Service::start(&[]);
    let code = |(status, body): (u16, Value)| (status, body["error"]["code"].as_str().unwrap_or_default().to_owned());
    let expect = |answer, status: u16, expected: &str| assert_eq!(code(answer), (status, expected.to_owned()));

    for path in [
        "/executions/nobody",
        "/executions/..%2Fetc",
        "/executions/nobody/events",
    ] {
        expect(service.get(path), 404, "not_found");
    }
    expect(
        service.post("/executions/nobody/signals", r#"{"signals": ["X"]}"#),
        404,
        "not_found",
    );
    expect(service.post("/executions/nobody/cancel", ""), 404, "not_found");
    expect(service.delete("/executions/nobody"), 404, "not_found");
    expect(service.get("/nothing"), 404, "no_route");

    expect(service.delete("/executions"), 405, "method");
    expect(service.post("/executions", "{"), 400, "bad_body");
    expect(
        service.post("/executions", r#"{"workflo": "publishing"}"#),
        422,
        "bad_body",
    );
    expect(
        service.post("/executions", r#"{"workflow": "unknown"}"#),
        422,
        "refused",
    );
    expect(
        service.post("/executions", r#"{"workflow": "publishing", "signals": []}"#),
        422,
        "refused",
    );
    expect(
        service.post(
            "/executions",
            r#"{"workflow": "publishing", "context": {"__operational__": 1}}"#,
        ),
        422,
        "refused",
    );
    let large = json!({"workflow": "publishing", "context": {"text": "x".repeat(300_000)}}).to_string();
    expect(service.post("/executions", &large), 413, "bad_body");
    expect(service.get("/executions?status=asleep"), 400, "bad_query");
    expect(service.get("/executions?after=x"), 400, "bad_query");

    let execution = service.new_execution(&json!({"text": ARTICLE, "millis": 60_000}));
    service.wait_for(&execution, "rested");
    expect(
        service.post(&format!("{execution}/signals"), r#"{"signals": []}"#),
        422,
        "refused",
    );
    service.post(&format!("{execution}/signals"), r#"{"signals": ["APPROVED"]}"#);
    expect(service.delete(&execution), 409, "running");
    assert_eq!(service.post(&format!("{execution}/cancel"), "").0, 204);
    service.wait_for(&execution, "cancelled");
    expect(
        service.post(&format!("{execution}/signals"), r#"{"signals": ["APPROVED"]}"#),
        409,
        "ended",
    );
    assert_eq!(service.delete(&execution).0, 204);
}

#[cfg(unix)]
#[test]
fn stopping_waits_for_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::with_store(folder.path(), "20");
    let execution = service.new_execution(&json!({"text": ARTICLE, "millis": 700}));
    service.wait_for(&execution, "rested");
    service.post(&format!("{execution}/signals"), r#"{"signals": ["APPROVED"]}"#);

    // A client that follows doesn't keep the service from stopping: its stream ends.
    let events = service.follow(&execution, None);
    let (said, took) = service.terminate();
    assert_eq!(said, "stopped; 0 execution(s) were still running\n");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(events.count() > 0);

    let again = Service::with_store(folder.path(), "0");
    let (_, shown) = again.get(&execution);
    assert_eq!(shown["status"], "rested");
    assert_eq!(shown["signals"].as_array().unwrap().last().unwrap(), "PUBLISHED");
}

#[cfg(unix)]
#[test]
fn what_is_stopped_in_the_middle_is_kept_and_can_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::with_store(folder.path(), "0");
    let execution = service.new_execution(&json!({"text": ARTICLE, "millis": 4_000}));
    service.wait_for(&execution, "rested");
    service.post(&format!("{execution}/signals"), r#"{"signals": ["APPROVED"]}"#);
    let (said, took) = service.terminate();
    assert_eq!(said, "stopped; 1 execution(s) were still running\n");
    assert!(took < Duration::from_millis(3_500), "{took:?}");

    // The next process takes it up with the next signal: the run that was in flight is made again.
    let again = Service::with_store(folder.path(), "0");
    assert_eq!(again.get(&execution).1["status"], "running");
    again.post(&format!("{execution}/signals"), r#"{"signals": ["WAKE_UP"]}"#);
    let shown = again.wait_for(&execution, "rested");
    assert_eq!(shown["signals"].as_array().unwrap().last().unwrap(), "PUBLISHED");
}
