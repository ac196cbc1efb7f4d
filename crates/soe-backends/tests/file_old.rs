//! Trees that format 1 of the file store wrote.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod file_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use file_support::*;
use soe_backends::{Backends, Deletion, Event, EventKind, Guard, ListQuery, Post, Status, TreeState, Value};

/// A copy of what format 1 stored.
fn stored(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(
        &PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name),
        folder.path(),
    );
    folder
}

fn value(tree: &TreeState, number: u64, field: &str) -> Value {
    let history = tree.get(number).unwrap().context.history(field).unwrap();
    history.iter().last().unwrap().clone()
}

#[tokio::test]
async fn what_format_1_stored_is_found_again() {
    let folder = stored("format-1");
    let backends = Backends::file(folder.path()).unwrap();
    let tree = id("sample");
    let state = backends.context().load(&tree).await.unwrap().unwrap();
    let root = state.root_state().unwrap();
    assert_eq!((state.version, root.status, state.next_event), (5, Status::Running, 3));
    assert_eq!(root.runs.keys().collect::<Vec<_>>(), [2, 3]);
    assert_eq!(value(&state, 0, "topic"), Value::from(0.1));
    assert_eq!(
        root.snapshot(root.runs.get(2).unwrap())
            .unwrap()
            .history("topic")
            .unwrap()
            .len(),
        1
    );
    assert_eq!(state.definitions.identities["helper"].as_ref(), "You help.\nAlways.");
    assert_eq!(backends.conversations().unwrap().turns(&tree).await.unwrap(), [turn()]);
    let events = backends.telemetry().unwrap().events(&tree, 0, 10).await.unwrap();
    let kinds: Vec<_> = events.iter().map(|event| (event.seq, event.kind.name())).collect();
    assert_eq!(
        kinds,
        [
            (0, "orchestration_start"),
            (1, "signals_broadcast"),
            (2, "node_finished")
        ]
    );
    backends
        .commit(vec![bare(&tree, 6, vec![appended("topic", 1)])], None)
        .await
        .unwrap();
    assert_eq!(
        backends.delete(&tree, Guard { version: 6, fence: 0 }).await.unwrap(),
        Deletion::Deleted
    );
    is_empty(folder.path());
}

/// The events of the executions of a tree, as format 1 stored them.
fn old_events(folder: &Path, names: &[&str]) -> usize {
    let of = |name: &&str| {
        let lines = fs::read_to_string(folder.join(format!("telemetry/{name}.jsonl"))).unwrap();
        lines.lines().count()
    };
    names.iter().map(of).sum()
}

async fn load(backends: &Backends, tree: &str) -> Arc<TreeState> {
    backends.context().load(&id(tree)).await.unwrap().unwrap()
}

async fn events(backends: &Backends, tree: &str) -> Vec<Event> {
    backends.telemetry().unwrap().events(&id(tree), 0, 1000).await.unwrap()
}

#[tokio::test]
async fn trees_of_format_1_go_on() {
    let folder = stored("file-1");
    let count = old_events(folder.path(), &["waiting", "waiting.1.0", "waiting.1.1"]);
    let backends = Backends::file(folder.path()).unwrap();

    let rested = load(&backends, "rested").await;
    assert_eq!(rested.status(0), Some(Status::Rested));
    assert_eq!(value(&rested, 0, "said"), Value::from("hello you"));

    let failed = load(&backends, "failed").await;
    let failure = failed.root_state().unwrap().failure.clone().unwrap();
    assert_eq!(
        (failed.status(0), failure.limit.as_deref()),
        (Some(Status::Failed), Some("runs"))
    );

    let waiting = load(&backends, "waiting").await;
    assert_eq!((waiting.executions.len(), waiting.status(0)), (3, Some(Status::Rested)));
    assert!(waiting.find(&id("waiting.1.1")).is_some());
    assert_eq!(
        waiting.root_state().unwrap().context.history("result").unwrap().len(),
        2
    );
    let found = events(&backends, "waiting").await;
    assert_eq!(found.len(), count);
    assert_eq!(waiting.next_event, count as u64);
    assert!(found.iter().map(|event| event.seq).eq(0..count as u64));
    assert!(found.iter().any(|event| event.execution == id("waiting.1.0")));
    assert!(matches!(found[0].kind, EventKind::OrchestrationStart { .. }));

    let killed = load(&backends, "killed").await;
    assert_eq!(
        (killed.status(0), killed.status(1)),
        (Some(Status::Running), Some(Status::Running))
    );
    assert_eq!(killed.get(1).unwrap().runs.len(), 1);
    assert_eq!(killed.fence(), 2, "above the fence of those that ran it");
}

#[tokio::test]
async fn a_list_converts_what_it_finds() {
    let folder = stored("file-1");
    let backends = Backends::file(folder.path()).unwrap();
    let page = backends.context().list(&ListQuery::default()).await.unwrap();
    assert_eq!(page.damaged, []);
    let mut found: Vec<_> = page.executions.iter().map(|tree| tree.id.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, ["failed", "killed", "rested", "waiting"]);
    let marker = fs::read_to_string(folder.path().join("store.json")).unwrap();
    assert!(
        marker.contains("\"format\": 2"),
        "the version before refuses it: {marker}"
    );
    for entry in fs::read_dir(folder.path().join("contexts")).unwrap() {
        let shown = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(
            shown.contains("\"format\": 2"),
            "the version before refuses it: {shown}"
        );
    }
    for tree in page.executions {
        let state = load(&backends, tree.id.as_str()).await;
        backends.delete(&tree.id, guard(&state)).await.unwrap();
    }
    is_empty(folder.path());
}

/// A crash right after the journal was made: all files of the form of before are there.
#[tokio::test]
async fn a_conversion_that_was_cut_short_is_finished() {
    let folder = stored("file-1");
    let backends = Backends::file(folder.path()).unwrap();
    let before = (load(&backends, "waiting").await, events(&backends, "waiting").await);
    drop(backends);
    for name in ["contexts", "telemetry"] {
        copy(&stored("file-1").path().join(name), &folder.path().join(name));
    }
    fs::remove_file(folder.path().join("trees/waiting.head")).unwrap();
    let backends = Backends::file(folder.path()).unwrap();
    let after = (load(&backends, "waiting").await, events(&backends, "waiting").await);
    assert_eq!(after, before);
    backends.delete(&id("waiting"), guard(&after.0)).await.unwrap();
    drop(backends);
    let backends = Backends::file(folder.path()).unwrap();
    assert_eq!(backends.context().load(&id("waiting")).await.unwrap(), None);
    assert!(!folder.path().join("contexts/waiting.json").exists());
    let post = backends
        .context()
        .post(&id("waiting"), &message(&id("waiting"), "1"))
        .await;
    assert_eq!(post.unwrap(), Post::NoSuchTree);
}

/// What can't be converted stays as it is, and is named.
#[tokio::test]
async fn a_tree_of_format_1_that_can_t_be_read_is_left_alone() {
    let folder = stored("file-1");
    let child = folder.path().join("contexts/waiting.1.0.json");
    let whole = fs::read(&child).unwrap();
    fs::write(&child, &whole[..whole.len() / 2]).unwrap();
    let backends = Backends::file(folder.path()).unwrap();
    let error = backends.context().load(&id("waiting")).await.unwrap_err();
    assert!(error.to_string().contains("waiting.1.0.json"), "{error}");
    let page = backends.context().list(&ListQuery::default()).await.unwrap();
    assert_eq!((page.executions.len(), page.damaged.len()), (3, 2), "{page:?}");
    fs::write(&child, whole).unwrap();
    assert_eq!(load(&backends, "waiting").await.executions.len(), 3);
}
