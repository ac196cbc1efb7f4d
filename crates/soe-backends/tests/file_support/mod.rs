//! What the tests of the file store have in common.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses a part of it; helpers of tests are tests too"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use soe_backends::{
    BackendError, BackendErrorKind, Change, Commit, ContextBackend, Event, EventKind, ExecutionChange, ExecutionId,
    FileStore, Genesis, Guard, Limits, Message, RegistryId, Request, Schedule, Status, TelemetryBackend, Timestamp,
    TreeGenesis, TreeState, Turn, Value,
};

pub(crate) fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}

pub(crate) fn event(tree: &ExecutionId, seq: u64) -> Event {
    Event {
        seq,
        time: Timestamp::from_micros(seq),
        execution: tree.clone(),
        kind: EventKind::ExecutionRested {},
    }
}

pub(crate) fn within(execution: u64, change: ExecutionChange) -> Change {
    Change::In { execution, change }
}

pub(crate) fn appended(field: &str, value: impl Into<Value>) -> Change {
    let value = value.into();
    let change = ExecutionChange::Appended {
        field: field.into(),
        size: value.size(),
        value,
        delivered: false,
    };
    within(0, change)
}

pub(crate) fn created(registry: RegistryId, fields: Vec<(Arc<str>, soe_backends::History)>) -> Change {
    Change::Created(Box::new(TreeGenesis {
        schedule: Schedule::Concurrent,
        limits: Limits::default().into(),
        definitions: Arc::default(),
        root: Genesis {
            id: id("root"),
            origin: None,
            workflow: "w".into(),
            registry,
            parent: None,
            fields,
            context_bytes: 0,
        },
    }))
}

pub(crate) fn bare(tree: &ExecutionId, version: u64, changes: Vec<Change>) -> Commit {
    Commit {
        tree: tree.clone(),
        version,
        fence: 0,
        at: Timestamp::from_micros(version),
        changes,
        registries: Vec::new(),
        definitions: None,
        turns: Vec::new(),
        events: Vec::new(),
    }
}

/// The commit of a tree whose root appends its version to a field, and leaves one event.
pub(crate) fn commit(tree: &ExecutionId, version: u64, padding: usize) -> Commit {
    let mut changes = Vec::new();
    if version == 1 {
        let mut genesis = created(RegistryId::from_digest([1; 32]), Vec::new());
        if let Change::Created(genesis) = &mut genesis {
            genesis.root.id = tree.clone();
        }
        changes.push(genesis);
    }
    changes.push(appended("version", version));
    if padding > 0 {
        changes.push(appended("padding", "x".repeat(padding)));
    }
    Commit {
        events: vec![event(tree, version - 1)],
        ..bare(tree, version, changes)
    }
}

pub(crate) fn message(tree: &ExecutionId, id: &str) -> Message {
    Message {
        id: id.into(),
        at: Timestamp::from_micros(0),
        execution: tree.clone(),
        request: Request::Signal(["GO".into()].into()),
    }
}

/// The state must be whole: as many values as commits, and all events.
pub(crate) async fn consistent(store: &FileStore, tree: &ExecutionId) -> u64 {
    let state = store.load(tree).await.unwrap().unwrap();
    let root = state.root_state().unwrap();
    assert_eq!((&root.id, root.status), (tree, Status::Prepared));
    let history = root.context.history("version").unwrap();
    let values: Vec<_> = history.iter().filter_map(Value::as_i64).collect();
    assert_eq!(values, (1..=state.version as i64).collect::<Vec<_>>());
    let events = store.events(tree, 0, usize::MAX).await.unwrap();
    let numbers: Vec<_> = events.iter().map(|event| event.seq).collect();
    // The state comes first: another process may have gone on.
    assert!(numbers.len() as u64 >= state.version);
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    state.version
}

pub(crate) async fn with_one(folder: &Path) -> (FileStore, ExecutionId) {
    let store = FileStore::open(folder).unwrap();
    store.commit(vec![commit(&id("one"), 1, 0)], None).await.unwrap();
    (store, id("one"))
}

pub(crate) fn says(error: &BackendError, kind: BackendErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "'{error}' doesn't say '{part}'");
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
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

pub(crate) fn guard(state: &TreeState) -> Guard {
    Guard {
        version: state.version,
        fence: state.fence(),
    }
}

/// Of all trees nothing is left but registries and locks.
pub(crate) fn is_empty(folder: &Path) {
    for name in [
        "trees",
        "inboxes",
        "contexts",
        "telemetry",
        "conversations",
        "schemas",
        "identities",
    ] {
        let left: Vec<_> = fs::read_dir(folder.join(name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
    assert_eq!(
        fs::read_dir(folder.join("workflows")).unwrap().count(),
        1,
        "the registries"
    );
}

pub(crate) fn turn() -> Turn {
    Turn {
        role: "user".into(),
        tool_name: None,
        content: "Hi".into(),
        key: Some("1.0".into()),
    }
}
