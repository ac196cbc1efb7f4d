//! A database of each format version stays readable for ever.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, params};
use soe_backends::{
    Backends, Change, Commit, Definitions, Event, EventKind, ExecutionId, ExecutionState, Frame, Genesis, Limits,
    ListQuery, Progress, RegistryDocument, RegistryId, Run, Schedule, Status, Timestamp, TreeTurns, Turn, Value,
    stored,
};
use soe_sqlite::SqliteStore;

fn id() -> ExecutionId {
    ExecutionId::new("sample").unwrap()
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_750_000_000_000_000 + seconds * 1_000_000)
}

fn registry() -> RegistryDocument {
    RegistryDocument {
        id: RegistryId::from_digest([0xcd; 32]),
        workflows: Value::map([("main_workflow", Value::map([("work", Value::from("a tool"))]))]),
    }
}

fn run(number: u64, version: u64) -> Change {
    Change::Dispatched(Arc::new(Run {
        number,
        node: "work".into(),
        workflow: "main_workflow".into(),
        registry: registry().id,
        snapshot: version,
        started_at: time(version),
        progress: Progress::Tool { attempt: 1 },
    }))
}

fn appended(value: impl Into<Value>) -> Change {
    let value = value.into();
    Change::Appended {
        field: "found".into(),
        size: value.size(),
        value,
    }
}

fn turn() -> Turn {
    Turn {
        role: "user".into(),
        tool_name: None,
        content: "Hi".into(),
        key: Some("sample:1/0".into()),
    }
}

/// The commits of the sample, in order. What they make must stay readable for ever: never change them, add others.
fn sample() -> Vec<Commit> {
    let commit = |version, changes| Commit {
        execution: id(),
        version,
        at: time(version),
        changes,
        registry: None,
        definitions: None,
        turns: None,
        events: vec![Event {
            seq: version - 1,
            time: time(version),
            kind: EventKind::SignalsBroadcast {
                signals: ["START".into()].into(),
            },
        }],
    };
    let genesis = Genesis {
        workflow: "main_workflow".into(),
        registry: registry().id,
        main_execution_id: id(),
        parent: None,
        schedule: Schedule::Concurrent,
        limits: Limits::default().into(),
        fields: vec![("topic".into(), [Value::from("Grüße")].into_iter().collect())],
        context_bytes: 32,
        forked: None,
    };
    let status = Change::Status {
        status: Status::Running,
        at: time(1),
        failure: None,
    };
    let mut first = commit(1, vec![Change::Created(Box::new(genesis)), status]);
    first.registry = Some(registry().into());
    first.definitions = Some(Box::new(Definitions {
        identities: [("helper".into(), "You help.".into())].into(),
        context_schema: [("topic".into(), Value::map([("type", Value::from("string"))]))].into(),
    }));
    first.turns = Some(Box::new(TreeTurns {
        main: id(),
        turns: vec![turn()],
    }));
    let signals: soe_backends::Batch = ["START".into()].into();
    let frame = Frame {
        signals: signals.clone(),
        registry: registry().id,
        next: 1,
        then: None,
    };
    let stack = Change::Stack {
        kept: 0,
        frames: vec![frame],
    };
    vec![
        first,
        commit(2, vec![Change::Broadcast(signals.clone()), run(1, 2), run(2, 2)]),
        commit(3, vec![appended(0.1), appended(u64::MAX)]),
        commit(
            4,
            vec![Change::Finished { run: 1 }, Change::Accepted(signals), stack, run(3, 4)],
        ),
    ]
}

/// The state after so many of the sample's commits.
fn state(commits: usize) -> ExecutionState {
    let sample = sample();
    let mut state = ExecutionState::create(&sample[0]).unwrap();
    sample[1..commits]
        .iter()
        .for_each(|commit| state.apply(commit).unwrap());
    state
}

async fn write_sample(path: &Path) {
    let _ = std::fs::remove_file(path);
    let store = SqliteStore::open(path).await.unwrap();
    for commit in sample() {
        store.backends().commit(vec![commit]).await.unwrap();
    }
    store.backends().context().heartbeat("engine", time(9)).await.unwrap();
    store.close().await;
    // A checkpoint, as a longer execution has; and small pages, for a small file.
    let db = Connection::open(path).unwrap();
    let json = stored::write_state(&state(3)).unwrap();
    db.execute(
        "INSERT INTO checkpoints (place, state) VALUES ((1 << 32) + 3, ?1)",
        params![json],
    )
    .unwrap();
    db.execute_batch("PRAGMA journal_mode = delete; PRAGMA page_size = 512; VACUUM")
        .unwrap();
}

async fn is_sample(backends: &Backends) {
    let context = backends.context();
    assert_eq!(context.load(&id()).await.unwrap().unwrap(), state(4));
    for commits in 1..=4 {
        let then = context.load_at(&id(), commits as u64).await.unwrap().unwrap();
        assert_eq!(then, state(commits), "at version {commits}");
    }
    let mut commits = sample();
    (commits[0].registry, commits[0].definitions, commits[0].turns) = (None, None, None);
    assert_eq!(context.commits(&id(), 1, 10).await.unwrap(), commits);
    let page = context.list(&ListQuery::default()).await.unwrap();
    assert_eq!(page.executions, [state(4).summary()]);
    assert_eq!(context.lease("engine").await.unwrap(), Some(time(9)));
    let stored = backends.workflows().registry(&registry().id).await.unwrap().unwrap();
    assert_eq!(*stored, registry());
    assert_eq!(backends.conversations().unwrap().turns(&id()).await.unwrap(), [turn()]);
    let identities = backends.identities().unwrap().identities(&id()).await.unwrap();
    assert_eq!(identities["helper"].as_ref(), "You help.");
    let schemas = backends.schemas().unwrap().schemas(&id()).await.unwrap();
    assert_eq!(schemas["topic"].get("type"), Some(&Value::from("string")));
    let events = backends.telemetry().unwrap().events(&id(), 0, 10).await.unwrap();
    assert_eq!(events.len(), 4);
}

/// `SOE_WRITE_SAMPLE=1` writes the sample anew. Only for a format that was never released.
#[tokio::test]
async fn format_1_is_readable() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1.db");
    if std::env::var_os("SOE_WRITE_SAMPLE").is_some() {
        write_sample(&kept).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.db");
    std::fs::copy(&kept, &path).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    is_sample(&store.backends()).await;
    let mut next = sample().remove(2);
    next.version = 5;
    store.backends().commit(vec![next]).await.unwrap();
    store.close().await;
}
