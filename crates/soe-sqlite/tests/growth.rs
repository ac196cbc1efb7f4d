//! What large trees and long ones cost: each commit the same, and a load no more than the state is long.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use soe_backends::{
    Change, Commit, ContextBackend, ExecutionChange, Genesis, Origin, Status, Timestamp, TreeState, Value, stored,
};
use soe_sqlite::{Durability, SqliteStore};
use support::{append, bare, commit, consistent, created, id, number};

async fn relaxed(path: &Path) -> SqliteStore {
    SqliteStore::builder(path)
        .durability(Durability::Relaxed)
        .open()
        .await
        .unwrap()
}

/// The size of the write-ahead log in a copy of the database to which `commits` are stored one after the other: all pages
/// that they write.
async fn pages_written(store: &SqliteStore, path: &Path, from: u64, to: u64) -> u64 {
    store.close().await;
    assert!(!path.with_extension("db-wal").exists(), "the log begins anew");
    let store = relaxed(path).await;
    store.load(&id("one")).await.unwrap();
    for version in from..to {
        store.commit(vec![commit(&id("one"), version, 0)], None).await.unwrap();
    }
    let written = std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
    store.close().await;
    written
}

#[tokio::test]
async fn the_last_of_10_000_commits_write_no_more_than_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let one = id("one");
    let store = relaxed(&path).await;
    store.commit(vec![commit(&one, 1, 0)], None).await.unwrap();
    let first = pages_written(&store, &path, 2, 102).await;
    let store = relaxed(&path).await;
    for version in 102..9_900 {
        store.commit(vec![commit(&one, version, 0)], None).await.unwrap();
    }
    let last = pages_written(&store, &path, 9_900, 10_000).await;
    assert!(
        last <= first * 3 / 2,
        "the first 100 commits wrote {first} bytes, the last 100 {last}"
    );

    let store = relaxed(&path).await;
    let state = store.load(&one).await.unwrap().unwrap();
    assert_eq!(consistent(&store, &one).await, 9_999);
    let whole = stored::write_tree(&state).unwrap().len() as i64;
    let newest = "(SELECT max(place) FROM heads)";
    let folded = number(
        &path,
        &format!("SELECT sum(length(changes)) FROM log WHERE place > {newest}"),
    );
    assert!(
        folded <= 2 * whole + 131_072,
        "a load folds {folded} bytes to a state of {whole}"
    );
    let count = number(&path, &format!("SELECT count(*) FROM log WHERE place > {newest}"));
    assert!(count < 5_000, "a load folds {count} of 10,000 commits");
    let states = number(&path, "SELECT sum(length(state)) FROM states");
    let commits = number(&path, "SELECT sum(length(changes)) FROM log");
    assert!(states <= commits, "{states} bytes of states for {commits} of commits");

    // Any earlier version, near a written state or not.
    for version in [1, 2, 500, 4_999, 9_998] {
        let then = store.load_at(&one, version).await.unwrap().unwrap();
        assert_eq!(then.version, version);
        let values = then.root_state().unwrap().context.history("version").unwrap().len();
        assert_eq!(values as u64, version);
        assert_eq!(then.next_event, version);
    }
    store.close().await;
}

/// A tree of a root and so many children that run, made in commits of 500.
async fn tree_of(store: &SqliteStore, children: u64) -> Arc<TreeState> {
    let one = id("one");
    let origin = Arc::new(Origin {
        parent: 0,
        run: 1,
        node: "fan".into(),
        failure_signal: None,
    });
    let started = |number: u64| {
        let place = number - 1;
        let genesis = Genesis {
            origin: Some((origin.clone(), place)),
            fields: vec![("item".into(), [Value::from(place)].into_iter().collect())],
            ..support::genesis(&one.child(&one, 1, place, number))
        };
        [Change::Started(Box::new(genesis)), status(number, Status::Running)]
    };
    let mut first = bare(&one, 1, vec![created(&one), status(0, Status::Running)]);
    let mut state = TreeState::create(&first).unwrap();
    store.commit(vec![first], Some(Arc::new(state.clone()))).await.unwrap();
    let numbers: Vec<u64> = (1..=children).collect();
    for chunk in numbers.chunks(500) {
        first = bare(
            &one,
            state.version + 1,
            chunk.iter().flat_map(|number| started(*number)).collect(),
        );
        state.apply(&first).unwrap();
        store.commit(vec![first], Some(Arc::new(state.clone()))).await.unwrap();
    }
    Arc::new(state)
}

fn status(execution: u64, status: Status) -> Change {
    let at = Timestamp::from_micros(9);
    let failure = None;
    let change = ExecutionChange::Status { status, at, failure };
    Change::In { execution, change }
}

/// The commit by which a child is over and its result is the parent's.
fn over(state: &TreeState, child: u64) -> Commit {
    let text = format!("the result of child {child:0>6}");
    let changes = vec![
        append(child, "result", text.as_str().into()),
        status(child, Status::Rested),
        append(0, "result", text.as_str().into()),
    ];
    bare(&id("one"), state.version + 1, changes)
}

/// The bytes that 200 commits write: of content, and of pages. They are far enough from the next writing of states.
async fn cost_of_200(children: u64) -> (i64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = relaxed(&path).await;
    let state = tree_of(&store, children).await;
    store.close().await;
    let store = relaxed(&path).await;
    let due = "UPDATE trees SET due = log + 1000000";
    Connection::open(&path).unwrap().execute(due, []).unwrap();
    let content = "SELECT (SELECT sum(length(changes)) FROM log) + (SELECT sum(length(events)) FROM telemetry)
        + (SELECT coalesce(sum(length(state)), 0) FROM states) + (SELECT coalesce(sum(length(head)), 0) FROM heads)";
    let before = number(&path, content);
    let log = path.with_extension("db-wal");
    let pages = std::fs::metadata(&log).unwrap().len();
    let mut state = state.as_ref().clone();
    for child in 0..200 {
        // All over the tree.
        let commit = over(&state, 1 + child * (children / 200));
        state.apply(&commit).unwrap();
        store.commit(vec![commit], Some(Arc::new(state.clone()))).await.unwrap();
    }
    let pages = std::fs::metadata(&log).unwrap().len() - pages;
    let content = number(&path, content) - before;
    store.close().await;
    let store = relaxed(&path).await;
    assert_eq!(*store.load(&id("one")).await.unwrap().unwrap(), state);
    store.close().await;
    (content, pages)
}

#[tokio::test]
async fn a_commit_in_a_tree_of_100_000_children_writes_what_it_writes_in_one_of_1_000() {
    let (small, small_pages) = cost_of_200(1_000).await;
    let (large, large_pages) = cost_of_200(100_000).await;
    let close = |small: f64, large: f64| (large / small - 1.0).abs() <= 0.1;
    assert!(close(small as f64, large as f64), "{small} bytes and {large}");
    assert!(
        close(small_pages as f64, large_pages as f64),
        "{small_pages} bytes of pages and {large_pages}"
    );
}

/// However often each child changes: what is written beside the commits stays in proportion to them, and any version can be
/// loaded.
#[tokio::test]
async fn states_are_written_in_proportion_to_the_commits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = relaxed(&path).await;
    let mut state = tree_of(&store, 2_000).await.as_ref().clone();
    let mut then = Vec::new();
    for round in 0..3_000_u64 {
        let child = 1 + round * 7 % 2_000;
        let changes = vec![append(child, "n", round.into()), append(0, "n", round.into())];
        let commit = bare(&id("one"), state.version + 1, changes);
        state.apply(&commit).unwrap();
        store.commit(vec![commit], Some(Arc::new(state.clone()))).await.unwrap();
        if round % 500 == 250 {
            then.push(state.clone());
        }
    }
    store.close().await;
    let written = number(
        &path,
        "SELECT (SELECT sum(length(state)) FROM states) + (SELECT sum(length(head)) FROM heads)",
    );
    let commits = number(&path, "SELECT sum(length(changes)) FROM log");
    assert!(number(&path, "SELECT count(*) FROM heads") >= 2);
    assert!(
        written <= 4 * commits,
        "{written} bytes of states for {commits} of commits"
    );
    let store = relaxed(&path).await;
    assert_eq!(*store.load(&id("one")).await.unwrap().unwrap(), state);
    for then in then {
        assert_eq!(*store.load_at(&id("one"), then.version).await.unwrap().unwrap(), then);
    }
    // What a process doesn't know it reads from the commits.
    let commit = bare(
        &id("one"),
        state.version + 1,
        vec![append(3, "n", "x".repeat(1 << 20).into())],
    );
    state.apply(&commit).unwrap();
    store.commit(vec![commit], None).await.unwrap();
    store.close().await;
    assert_eq!(
        number(&path, "SELECT max(place) & 4294967295 FROM heads") as u64,
        state.version
    );
    let store = relaxed(&path).await;
    assert_eq!(*store.load(&id("one")).await.unwrap().unwrap(), state);
}

/// Many commits at once, so that the log is moved into the file beside them.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_starts_anew_while_commits_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = relaxed(&path).await;
    let write = |number: u64| {
        let store = store.clone();
        tokio::spawn(async move {
            let own = id(&format!("execution-{number}"));
            for version in 1..=150 {
                store.commit(vec![commit(&own, version, 3_000)], None).await.unwrap();
            }
        })
    };
    let tasks: Vec<_> = (0..32).map(write).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let log = std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
    let file = std::fs::metadata(&path).unwrap().len();
    assert!(log < 48 << 20, "the log has {log} bytes, the file {file}");
    assert!(file > 8 << 20, "the log has {log} bytes, the file {file}");
    store.close().await;
    let store = relaxed(&path).await;
    for number in 0..32 {
        assert_eq!(consistent(&store, &id(&format!("execution-{number}"))).await, 150);
    }
}
