//! Several who use one file at a time, and what a crash leaves.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use soe_backends::{
    BackendErrorKind, Change, Commit, ContextBackend, Deletion, ExecutionChange, Guard, ListQuery, Message, Owner,
    Post, Request, Status, Timestamp,
};
use soe_sqlite::{Durability, SqliteStore};
use support::{commit, consistent, id, number};

const PATH: &str = "SOE_SQLITE_TEST_PATH";

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_of_one_file_share_executions_and_conflict_on_the_same_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (left, right) = tokio::join!(SqliteStore::open(&path), SqliteStore::open(&path));
    let (left, right) = (left.unwrap(), right.unwrap());
    let (one, two, both) = (id("one"), id("two"), id("both"));
    let write = |store: SqliteStore, own: soe_backends::ExecutionId| async move {
        for version in 1..=50 {
            store.commit(vec![commit(&own, version, 0)], None).await.unwrap();
        }
    };
    tokio::join!(write(left.clone(), one.clone()), write(right.clone(), two.clone()));
    for store in [&left, &right] {
        assert_eq!(consistent(store, &one).await, 50);
        assert_eq!(consistent(store, &two).await, 50);
    }
    let mut version = 0;
    while version < 50 {
        version += 1;
        let (a, b) = tokio::join!(
            left.commit(vec![commit(&both, version, 0)], None),
            right.commit(vec![commit(&both, version, 0)], None)
        );
        let conflict = [a, b].into_iter().filter_map(Result::err).collect::<Vec<_>>();
        assert_eq!(conflict.len(), 1, "of two commits of the same version one is stored");
        assert_eq!(conflict[0].kind(), BackendErrorKind::Conflict);
    }
    for store in [&left, &right] {
        assert_eq!(consistent(store, &both).await, 50);
    }
}

#[tokio::test]
async fn what_one_deleted_and_created_anew_is_not_what_the_other_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let left = SqliteStore::open(&path).await.unwrap();
    let right = SqliteStore::open(&path).await.unwrap();
    let one = id("one");
    left.commit(vec![commit(&one, 1, 0), commit(&one, 2, 0)], None)
        .await
        .unwrap();
    assert_eq!(consistent(&right, &one).await, 2);
    let guard = Guard { version: 2, fence: 0 };
    left.backends().delete(&one, guard).await.unwrap();
    assert!(right.load(&one).await.unwrap().is_none());
    left.commit(vec![commit(&one, 1, 7), commit(&one, 2, 0)], None)
        .await
        .unwrap();
    let state = right.load(&one).await.unwrap().unwrap();
    let root = state.root_state().unwrap();
    assert!(
        root.context.history("padding").is_some(),
        "it has the version that was there before"
    );
    right.commit(vec![commit(&one, 3, 0)], None).await.unwrap();
    assert_eq!(consistent(&left, &one).await, 3);
}

/// What isn't cached is stored all the same, and listed with its status.
#[tokio::test]
async fn a_tree_that_nobody_loaded_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let one = id("one");
    let store = SqliteStore::open(&path).await.unwrap();
    store.commit(vec![commit(&one, 1, 0)], None).await.unwrap();
    store.close().await;
    let store = SqliteStore::open(&path).await.unwrap();
    let mut second = commit(&one, 2, 0);
    let failed = ExecutionChange::Status {
        status: Status::Failed,
        at: Timestamp::from_micros(5),
        failure: None,
    };
    second.changes.push(Change::In {
        execution: 0,
        change: failed,
    });
    store.commit(vec![second], None).await.unwrap();
    store.commit(vec![commit(&one, 3, 0)], None).await.unwrap();
    let page = store.list(&ListQuery::default()).await.unwrap();
    let state = store.load(&one).await.unwrap().unwrap();
    assert_eq!(page.executions, [state.summary().unwrap()]);
    assert_eq!(state.status(0), Some(Status::Failed));
    assert_eq!(consistent(&store, &one).await, 3);
    let (three, four) = (commit(&one, 3, 0), commit(&one, 4, 0));
    let late = store.commit(vec![three, four], None).await.unwrap_err();
    assert_eq!(late.kind(), BackendErrorKind::Conflict);
}

/// Several commits of one tree may be on their way: they are stored in the order in which they were handed over.
#[tokio::test]
async fn a_commit_may_be_handed_over_before_the_one_before_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("a.db")).await.unwrap();
    let one = id("one");
    let commits = (1..=50).map(|version| store.commit(vec![commit(&one, version, 2_000)], None));
    for stored in futures::future::join_all(commits).await {
        stored.unwrap();
    }
    assert_eq!(consistent(&store, &one).await, 50);
}

fn message(text: &str) -> Message {
    Message {
        id: text.into(),
        at: Timestamp::from_micros(7),
        execution: id("one"),
        request: Request::Signal([text.into()].into()),
    }
}

fn taken(tree: &soe_backends::ExecutionId, version: u64, seq: u64) -> Commit {
    let mut commit = commit(tree, version, 0);
    commit.changes.push(Change::Taken(seq));
    commit
}

#[tokio::test]
async fn any_process_posts_and_the_owner_takes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (owner, other) = (
        SqliteStore::open(&path).await.unwrap(),
        SqliteStore::open(&path).await.unwrap(),
    );
    let one = id("one");
    assert_eq!(other.post(&one, &message("a")).await.unwrap(), Post::NoSuchTree);
    owner.commit(vec![commit(&one, 1, 0)], None).await.unwrap();
    assert_eq!(other.post(&one, &message("a")).await.unwrap(), Post::Stored(1));
    assert_eq!(owner.post(&one, &message("b")).await.unwrap(), Post::Stored(2));
    assert_eq!(other.post(&one, &message("a")).await.unwrap(), Post::Duplicate(1));
    let waiting = owner.inbox(&one, 0, 10).await.unwrap();
    let ids: Vec<_> = waiting
        .iter()
        .map(|posted| (posted.seq, posted.message.id.as_ref()))
        .collect();
    assert_eq!(ids, [(1, "a"), (2, "b")]);
    assert_eq!(owner.inbox(&one, 1, 10).await.unwrap().len(), 1);
    let guard = |version| Guard { version, fence: 0 };
    assert_eq!(owner.delete(&one, guard(1)).await.unwrap(), Deletion::Changed);
    owner.commit(vec![taken(&one, 2, 2)], None).await.unwrap();
    assert!(other.inbox(&one, 0, 10).await.unwrap().is_empty());
    assert_eq!(other.post(&one, &message("b")).await.unwrap(), Post::Duplicate(2));
    assert_eq!(other.post(&one, &message("c")).await.unwrap(), Post::Stored(3));
    owner.commit(vec![taken(&one, 3, 3)], None).await.unwrap();
    for seq in 4..1_010 {
        let posted = other.post(&one, &message(&seq.to_string())).await.unwrap();
        assert_eq!(posted, Post::Stored(seq));
    }
    owner.commit(vec![taken(&one, 4, 1_009)], None).await.unwrap();
    assert_eq!(number(&path, "SELECT count(*) FROM inbox"), 1_000);
    assert_eq!(
        other.post(&one, &message("1009")).await.unwrap(),
        Post::Duplicate(1_009)
    );
    assert_eq!(owner.delete(&one, guard(3)).await.unwrap(), Deletion::Changed);
    assert_eq!(owner.delete(&one, guard(4)).await.unwrap(), Deletion::Deleted);
    assert_eq!(number(&path, "SELECT count(*) FROM inbox"), 0);
}

/// Who has lost a tree to another can't write to it, even under the right version.
#[tokio::test]
async fn a_commit_under_another_fence_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (left, right) = (
        SqliteStore::open(&path).await.unwrap(),
        SqliteStore::open(&path).await.unwrap(),
    );
    let one = id("one");
    left.commit(vec![commit(&one, 1, 0)], None).await.unwrap();
    let mut owned = commit(&one, 2, 0);
    owned.changes.push(Change::Owned(Owner {
        process: "right".into(),
        fence: 1,
    }));
    right.commit(vec![owned], None).await.unwrap();
    let late = left.commit(vec![commit(&one, 3, 0)], None).await.unwrap_err();
    assert_eq!(late.kind(), BackendErrorKind::Conflict);
    let mut third = commit(&one, 3, 0);
    third.fence = 1;
    right.commit(vec![third.clone()], None).await.unwrap();
    assert_eq!(left.commits(&one, 3, 9).await.unwrap(), [third]);
    let guard = |fence| Guard { version: 3, fence };
    assert_eq!(left.delete(&one, guard(0)).await.unwrap(), Deletion::Changed);
    assert_eq!(left.delete(&one, guard(1)).await.unwrap(), Deletion::Deleted);
    assert_eq!(left.delete(&one, guard(1)).await.unwrap(), Deletion::NoSuchTree);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_file_and_log_in_the_middle_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = SqliteStore::builder(&path)
        .durability(Durability::Relaxed)
        .open()
        .await
        .unwrap();
    let one = id("one");
    for version in 1..=100 {
        store.commit(vec![commit(&one, version, 0)], None).await.unwrap();
        if version % 25 == 0 {
            // As after a power cut: the log may also end in the middle of a transaction.
            for cut in [0, 10, 5000] {
                let copy = folder.path().join(format!("copy-{version}-{cut}.db"));
                let log = fs::read(folder.path().join("a.db-wal")).unwrap();
                fs::copy(&path, &copy).unwrap();
                fs::write(copy.with_extension("db-wal"), &log[..log.len() - cut.min(log.len())]).unwrap();
                let copied = SqliteStore::open(&copy).await.unwrap();
                let found = consistent(&copied, &one).await;
                assert!(
                    found <= version && (cut > 0 || found == version),
                    "{found} of {version}"
                );
                copied.commit(vec![commit(&one, found + 1, 0)], None).await.unwrap();
                copied.close().await;
                assert_eq!(integrity(&copy), 1);
            }
        }
    }
}

fn integrity(path: &std::path::Path) -> i64 {
    number(
        path,
        "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'",
    )
}

/// Not a test by itself: commits until it is killed.
#[tokio::test]
async fn child_that_is_killed() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let store = SqliteStore::open(path).await.unwrap();
    let one = id("one");
    let mut version = store.load(&one).await.unwrap().map_or(0, |state| state.version);
    loop {
        version += 1;
        store.commit(vec![commit(&one, version, 300)], None).await.unwrap();
        // Only after it is acknowledged.
        println_flushed(version);
    }
}

#[expect(clippy::print_stdout, reason = "it tells its parent what it was told")]
fn println_flushed(version: u64) {
    use std::io::Write as _;
    println!("acknowledged {version}");
    std::io::stdout().flush().unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    use std::io::{BufRead as _, BufReader};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut last = 0;
    for round in 1..=3_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture"])
            .env(PATH, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let deadline = Instant::now() + Duration::from_secs(30);
        while last < round * 40 && Instant::now() < deadline {
            let line = lines.next().unwrap().unwrap();
            if let Some((_, version)) = line.split_once("acknowledged ") {
                last = version.parse().unwrap();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for version in lines
            .map_while(Result::ok)
            .filter_map(|line| line.split_once("acknowledged ")?.1.parse().ok())
        {
            last = version;
        }
        let store = SqliteStore::open(&path).await.unwrap();
        let found = consistent(&store, &id("one")).await;
        assert!(
            found == last || found == last + 1,
            "{last} was acknowledged, {found} is there"
        );
        store.close().await;
        assert_eq!(integrity(&path), 1);
        last = found;
    }
}
