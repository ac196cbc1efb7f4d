//! What the tests share.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses its part of it, and helpers of tests are tests too"
)]

use std::path::Path;

use rusqlite::Connection;
use soe_backends::{
    BackendError, BackendErrorKind, Change, Commit, ContextBackend, Event, EventKind, ExecutionChange, ExecutionId,
    Genesis, Limits, RegistryId, Schedule, TelemetryBackend, Timestamp, TreeGenesis, Value,
};
use soe_sqlite::SqliteStore;

pub fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}

pub fn event(execution: &ExecutionId, seq: u64) -> Event {
    Event {
        seq,
        time: Timestamp::from_micros(1_700_000_000_000_000 + seq),
        execution: execution.clone(),
        kind: EventKind::ContextUpdated {
            field: "version".into(),
            length: seq,
        },
    }
}

pub fn genesis(id: &ExecutionId) -> Genesis {
    Genesis {
        id: id.clone(),
        origin: None,
        workflow: "w".into(),
        registry: RegistryId::from_digest([1; 32]),
        parent: None,
        fields: Vec::new(),
        context_bytes: 0,
    }
}

pub fn created(id: &ExecutionId) -> Change {
    Change::Created(Box::new(TreeGenesis {
        schedule: Schedule::Concurrent,
        limits: Limits::default().into(),
        definitions: Default::default(),
        root: genesis(id),
    }))
}

pub fn append(execution: u64, field: &str, value: Value) -> Change {
    let change = ExecutionChange::Appended {
        field: field.into(),
        size: value.size(),
        value,
        delivered: false,
    };
    Change::In { execution, change }
}

/// A commit of a tree, with one event.
pub fn bare(tree: &ExecutionId, version: u64, changes: Vec<Change>) -> Commit {
    Commit {
        tree: tree.clone(),
        version,
        fence: 0,
        at: Timestamp::from_micros(1_700_000_000_000_000 + version),
        changes,
        registries: Vec::new(),
        definitions: None,
        turns: Vec::new(),
        events: vec![event(tree, version - 1)],
    }
}

/// The commit of a tree that appends its version to a field of the root and leaves one event.
pub fn commit(tree: &ExecutionId, version: u64, padding: usize) -> Commit {
    let mut changes = Vec::new();
    if version == 1 {
        changes.push(created(tree));
    }
    changes.push(append(0, "version", Value::from(version)));
    if padding > 0 {
        changes.push(append(0, "padding", "x".repeat(padding).into()));
    }
    bare(tree, version, changes)
}

/// The state must be whole: as many values as commits, and all events.
pub async fn consistent(store: &SqliteStore, tree: &ExecutionId) -> u64 {
    let state = store.load(tree).await.unwrap().unwrap();
    let root = state.root_state().unwrap();
    let values: Vec<_> = root
        .context
        .history("version")
        .unwrap()
        .iter()
        .filter_map(Value::as_i64)
        .collect();
    assert_eq!(values, (1..=state.version as i64).collect::<Vec<_>>());
    let events = store.events(tree, 0, usize::MAX).await.unwrap();
    let numbers: Vec<_> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (0..state.version).collect::<Vec<_>>());
    state.version
}

pub fn says(error: &BackendError, kind: BackendErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "'{error}' doesn't say '{part}'");
    }
}

/// A number out of the database itself.
pub fn number(path: &Path, sql: &str) -> i64 {
    let db = Connection::open(path).unwrap();
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}
