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
    BackendError, BackendErrorKind, Change, Commit, ContextBackend, Event, EventKind, ExecutionId, Genesis, Limits,
    RegistryId, Schedule, TelemetryBackend, Timestamp, Value,
};
use soe_sqlite::SqliteStore;

pub fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}

pub fn event(seq: u64) -> Event {
    Event {
        seq,
        time: Timestamp::from_micros(1_700_000_000_000_000 + seq),
        kind: EventKind::ContextUpdated {
            field: "version".into(),
            length: seq,
        },
    }
}

/// The commit of an execution that appends its version to a field and leaves one event.
pub fn commit(execution: &ExecutionId, version: u64, padding: usize) -> Commit {
    let mut changes = Vec::new();
    if version == 1 {
        changes.push(Change::Created(Box::new(Genesis {
            workflow: "w".into(),
            registry: RegistryId::from_digest([1; 32]),
            main_execution_id: execution.clone(),
            parent: None,
            schedule: Schedule::Concurrent,
            limits: Limits::default().into(),
            fields: Vec::new(),
            context_bytes: 0,
            forked: None,
        })));
    }
    let mut append = |field: &str, value: Value| {
        changes.push(Change::Appended {
            field: field.into(),
            size: value.size(),
            value,
        });
    };
    append("version", Value::from(version));
    if padding > 0 {
        append("padding", "x".repeat(padding).into());
    }
    Commit {
        execution: execution.clone(),
        version,
        at: Timestamp::from_micros(1_700_000_000_000_000 + version),
        changes,
        registry: None,
        definitions: None,
        turns: None,
        events: vec![event(version - 1)],
    }
}

/// The state must be whole: as many values as commits, and all events.
pub async fn consistent(store: &SqliteStore, execution: &ExecutionId) -> u64 {
    let state = store.load(execution).await.unwrap().unwrap();
    let values: Vec<_> = state
        .context
        .history("version")
        .unwrap()
        .iter()
        .filter_map(Value::as_i64)
        .collect();
    assert_eq!(values, (1..=state.version as i64).collect::<Vec<_>>());
    let events = store.events(execution, 0, usize::MAX).await.unwrap();
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
