//! The conformance suite on the file store; what its files look like; that format 1 stays readable.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "helpers of tests are tests too"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use async_trait::async_trait;
use soe_backends::conformance::{self, Factory, Task};
use soe_backends::{
    Backends, Change, Commit, Durability, Event, EventKind, ExecutionId, ExecutionState, FileStore, Genesis, Limits,
    ListQuery, Progress, RegistryDocument, RegistryId, Run, Schedule, Status, Timestamp, Turn, Value,
};
use tempfile::TempDir;

/// Folders that live as long as the factory; the last one made is the one to be re-opened.
struct Folders(Mutex<Vec<TempDir>>, Durability);

impl Folders {
    fn new(durability: Durability) -> Self {
        Self(Mutex::default(), durability)
    }

    fn open(&self, folder: &Path) -> Backends {
        Backends::single(FileStore::open_with(folder, self.1).unwrap().into())
    }
}

#[async_trait]
impl Factory for Folders {
    async fn fresh(&self) -> Backends {
        let folder = tempfile::tempdir().unwrap();
        let backends = self.open(folder.path());
        self.0.lock().unwrap().push(folder);
        backends
    }

    async fn reopen(&self, backends: Backends) -> Option<Backends> {
        drop(backends);
        let folder = self.0.lock().unwrap().last().unwrap().path().to_owned();
        Some(self.open(&folder))
    }

    async fn concurrently(&self, tasks: Vec<Task>) {
        let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_store_conforms() {
    let report = conformance::run_all(&Folders::new(Durability::Relaxed)).await;
    let skipped: Vec<_> = report.skipped.iter().map(|(check, _)| *check).collect();
    let expected = [
        "conversations::committed",
        "history::commits",
        "history::states",
        "history::gone",
        "history::survives",
        "forks::shared",
    ];
    assert_eq!(
        skipped, expected,
        "turns follow their commits, and old commits aren't kept: {report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synced_store_survives_reopening_and_races() {
    let factory = Folders::new(Durability::Full);
    for check in conformance::checks() {
        if check.name.starts_with("reopen") || check.name.starts_with("concurrency") {
            check
                .run(&factory)
                .await
                .unwrap_or_else(|finding| panic!("{}: {finding:?}", check.name));
        }
    }
}

fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_750_000_000_000_000 + seconds * 1_000_000)
}

fn appended(field: &str, value: impl Into<Value>) -> Change {
    let value = value.into();
    Change::Appended {
        field: field.into(),
        size: value.size(),
        value,
    }
}

fn run(number: u64, version: u64, progress: Progress) -> Change {
    Change::Dispatched(std::sync::Arc::new(Run {
        number,
        node: "work".into(),
        workflow: "main_workflow".into(),
        registry: registry().id,
        snapshot: version,
        started_at: time(version),
        progress,
    }))
}

fn registry() -> RegistryDocument {
    let node = Value::map([
        ("node_type", Value::from("tool")),
        ("event_triggers", Value::from(vec!["START"])),
    ]);
    let workflows = Value::map([("main_workflow", Value::map([("work", node)]))]);
    RegistryDocument {
        id: RegistryId::from_digest([0xab; 32]),
        workflows,
    }
}

fn event(seq: u64, kind: EventKind) -> Event {
    Event {
        seq,
        time: time(seq),
        kind,
    }
}

/// The commits of the sample store, in order. What they make must stay readable for ever: never change them, add others.
fn sample() -> Vec<Commit> {
    let main = id("sample");
    let genesis = Genesis {
        workflow: "main_workflow".into(),
        registry: registry().id,
        main_execution_id: main.clone(),
        parent: None,
        schedule: Schedule::Concurrent,
        limits: Limits {
            llm_calls: Some(50),
            ..Limits::default()
        }
        .into(),
        fields: vec![("topic".into(), [Value::from("Grüße")].into_iter().collect())],
        context_bytes: 32,
        forked: None,
    };
    let commit = |version, changes, events| Commit {
        execution: main.clone(),
        version,
        at: time(version),
        changes,
        registry: None,
        definitions: None,
        turns: None,
        events,
    };
    let signals = ["START".into()];
    let mut first = commit(
        1,
        vec![
            Change::Created(Box::new(genesis)),
            Change::Status {
                status: Status::Running,
                at: time(1),
                failure: None,
            },
        ],
        vec![event(
            0,
            EventKind::OrchestrationStart {
                workflow_name: "main_workflow".into(),
            },
        )],
    );
    first.registry = Some(registry().into());
    first.definitions = Some(Box::new(soe_backends::Definitions {
        identities: [("helper".into(), "You help.\nAlways.".into())].into(),
        context_schema: [("topic".into(), Value::map([("type", Value::from("string"))]))].into(),
    }));
    vec![
        first,
        commit(
            2,
            vec![
                Change::Broadcast(signals.clone().into()),
                run(1, 2, Progress::Tool { attempt: 1 }),
                run(2, 2, Progress::Custom),
            ],
            vec![event(
                1,
                EventKind::SignalsBroadcast {
                    signals: signals.clone().into(),
                },
            )],
        ),
        commit(
            3,
            vec![
                appended("topic", 0.1),
                appended("found", Value::list([Value::Null, Value::from(u64::MAX)])),
            ],
            Vec::new(),
        ),
        commit(
            4,
            vec![
                Change::Finished { run: 1 },
                Change::Error,
                Change::Accepted(signals.clone().into()),
                Change::Stack {
                    kept: 0,
                    frames: vec![soe_backends::Frame {
                        signals: signals.into(),
                        registry: registry().id,
                        next: 1,
                        then: None,
                    }],
                },
                run(3, 4, Progress::Tool { attempt: 1 }),
            ],
            vec![event(
                2,
                EventKind::NodeFinished {
                    node_name: "work".into(),
                    run: 1,
                    duration_us: 12,
                    tokens: None,
                },
            )],
        ),
    ]
}

fn sample_state() -> ExecutionState {
    let commits = sample();
    let mut state = ExecutionState::create(&commits[0]).unwrap();
    commits[1..].iter().for_each(|commit| state.apply(commit).unwrap());
    state
}

fn turn() -> Turn {
    Turn {
        role: "user".into(),
        tool_name: None,
        content: "Hi".into(),
        key: Some("1.0".into()),
    }
}

async fn write_sample(folder: &Path) -> Backends {
    let backends = Backends::file(folder).unwrap();
    for commit in sample() {
        backends.commit(vec![commit]).await.unwrap();
    }
    backends
        .conversations()
        .unwrap()
        .append_turns(&id("sample"), &[turn()])
        .await
        .unwrap();
    backends
}

async fn is_sample(backends: &Backends, expected: &ExecutionState) {
    let sample = id("sample");
    let state = backends.context().load(&sample).await.unwrap().unwrap();
    assert_eq!(state, *expected);
    let page = backends.context().list(&ListQuery::default()).await.unwrap();
    assert_eq!(page.executions, [state.summary()]);
    assert_eq!(
        *backends.workflows().registry(&registry().id).await.unwrap().unwrap(),
        registry()
    );
    assert_eq!(
        backends.conversations().unwrap().turns(&sample).await.unwrap(),
        [turn()]
    );
    let events = backends.telemetry().unwrap().events(&sample, 0, 10).await.unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [0, 1, 2]);
    let identities = backends.identities().unwrap().identities(&sample).await.unwrap();
    assert_eq!(identities["helper"].as_ref(), "You help.\nAlways.");
    let schemas = backends.schemas().unwrap().schemas(&sample).await.unwrap();
    assert_eq!(schemas["topic"].get("type"), Some(&Value::from("string")));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// `SOE_WRITE_SAMPLE=1` writes the sample anew. Only for a format that was never released.
#[tokio::test]
async fn format_1_is_readable() {
    let stored = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1");
    if std::env::var_os("SOE_WRITE_SAMPLE").is_some() {
        write_sample(&stored).await;
        fs::remove_dir_all(stored.join("locks")).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&stored, folder.path());
    let backends = Backends::file(folder.path()).unwrap();
    // When it was written, totals of the tree weren't counted.
    let mut expected = sample_state();
    let forget_totals = |context: &mut std::sync::Arc<soe_backends::Context>| {
        std::sync::Arc::make_mut(context).operational.tree = Default::default();
    };
    forget_totals(&mut expected.context);
    expected.snapshots.values_mut().for_each(forget_totals);
    is_sample(&backends, &expected).await;
    let mut next = sample().remove(2);
    next.version = 5;
    backends.commit(vec![next]).await.unwrap();
}

#[tokio::test]
async fn a_person_finds_fields_first_and_bookkeeping_last() {
    let folder = tempfile::tempdir().unwrap();
    let backends = write_sample(folder.path()).await;
    is_sample(&backends, &sample_state()).await;
    let read = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
    let context: serde_json::Value = serde_json::from_str(&read("contexts/sample.json")).unwrap();
    let names: Vec<_> = context.as_object().unwrap().keys().collect();
    assert_eq!(names, ["topic", "found", "__operational__", "__engine__"]);
    assert_eq!(context["topic"], serde_json::json!(["Grüße", 0.1]));
    // A snapshot that the present histories begin with takes no values of its own.
    assert_eq!(
        context["__engine__"]["snapshots"][0]["fields"],
        serde_json::json!({"topic": 1})
    );
    assert!(read("contexts/sample.json").starts_with("{\n  \"topic\": [\n    \"Grüße\""));
    assert_eq!(read("workflows/sample_current.txt"), "main_workflow");
    assert_eq!(
        read("workflows/sample_workflows.json"),
        read(&format!("workflows/registries/{}.json", registry().id))
    );
    assert_eq!(read("telemetry/sample.jsonl").lines().count(), 3);
    assert!(read("telemetry/sample.jsonl").starts_with(r#"{"seq":0,"#));
    assert_eq!(read("identities/sample.yaml"), "helper: |-\n  You help.\n  Always.\n");
    assert_eq!(read("schemas/sample.yaml"), "topic:\n  type: string\n");
    assert!(read("conversations/sample.json").contains("\"content\": \"Hi\""));
}

#[cfg(unix)]
#[tokio::test]
async fn a_registry_is_stored_once_for_all_executions() {
    use std::os::unix::fs::MetadataExt as _;

    let folder = tempfile::tempdir().unwrap();
    let backends = write_sample(folder.path()).await;
    for number in 0..3 {
        let execution = id(&format!("child-{number}"));
        let mut commit = sample().remove(0);
        commit.execution = execution.clone();
        backends.commit(vec![commit]).await.unwrap();
    }
    let stored = folder
        .path()
        .join(format!("workflows/registries/{}.json", registry().id));
    assert_eq!(fs::metadata(&stored).unwrap().nlink(), 5);
    let state = backends.context().load(&id("child-1")).await.unwrap().unwrap();
    backends.delete(&state).await.unwrap();
    assert_eq!(fs::metadata(&stored).unwrap().nlink(), 4);
}

#[tokio::test]
async fn nothing_is_left_of_a_deleted_execution() {
    let folder = tempfile::tempdir().unwrap();
    let backends = write_sample(folder.path()).await;
    backends.delete(&sample_state()).await.unwrap();
    for name in ["contexts", "telemetry", "conversations", "schemas", "identities"] {
        assert_eq!(fs::read_dir(folder.path().join(name)).unwrap().count(), 0, "{name}");
    }
    assert_eq!(
        fs::read_dir(folder.path().join("workflows")).unwrap().count(),
        1,
        "the registries"
    );
}
