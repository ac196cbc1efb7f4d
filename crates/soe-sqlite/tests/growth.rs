//! What long executions cost: each commit the same, and a load no more than the state is long.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::path::Path;

use soe_backends::{Change, ContextBackend, ExecutionState, Progress, Run, stored};
use soe_sqlite::{Durability, SqliteStore};
use support::{commit, consistent, id, number};

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
    let whole = stored::write_state(&state).unwrap().len() as i64;
    let newest = "(SELECT max(place) FROM checkpoints)";
    let folded = number(
        &path,
        &format!("SELECT sum(length(changes)) FROM commits WHERE place > {newest}"),
    );
    assert!(
        folded <= 2 * whole + 32_768,
        "a load folds {folded} bytes to a state of {whole}"
    );
    let count = number(&path, &format!("SELECT count(*) FROM commits WHERE place > {newest}"));
    assert!(count < 5_000, "a load folds {count} of 10,000 commits");
    let checkpoints = number(&path, "SELECT sum(length(state)) FROM checkpoints");
    let commits = number(&path, "SELECT sum(length(changes)) FROM commits");
    assert!(
        checkpoints <= commits,
        "{checkpoints} bytes of checkpoints for {commits} of commits"
    );

    // Any earlier version, near a checkpoint or not.
    for version in [1, 2, 500, 4_999, 9_998] {
        let then = store.load_at(&one, version).await.unwrap().unwrap();
        assert_eq!(then.version, version);
        assert_eq!(then.context.history("version").unwrap().len() as u64, version);
        assert_eq!(then.next_event, version);
    }
    store.close().await;
}

/// A state whose snapshots are long, however little each commit adds: checkpoints must not outgrow the commits.
#[tokio::test]
async fn runs_in_flight_don_t_make_checkpoints_outgrow_the_commits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let one = id("one");
    let store = relaxed(&path).await;
    let mut expected: Option<ExecutionState> = None;
    for version in 1..=800 {
        let mut commit = commit(&one, version, 0);
        commit.changes.push(Change::Dispatched(
            Run {
                number: version,
                node: format!("node_{version}").into(),
                workflow: "w".into(),
                registry: soe_backends::RegistryId::from_digest([1; 32]),
                snapshot: version,
                started_at: commit.at,
                progress: Progress::Custom,
            }
            .into(),
        ));
        match &mut expected {
            Some(state) => state.apply(&commit).unwrap(),
            None => expected = Some(ExecutionState::create(&commit).unwrap()),
        }
        store.commit(vec![commit], None).await.unwrap();
    }
    store.close().await;
    let checkpoints = number(&path, "SELECT coalesce(sum(length(state)), 0) FROM checkpoints");
    let commits = number(&path, "SELECT sum(length(changes)) FROM commits");
    assert!(
        checkpoints <= commits,
        "{checkpoints} bytes of checkpoints for {commits} of commits"
    );
    let store = relaxed(&path).await;
    assert_eq!(store.load(&one).await.unwrap(), expected);
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
