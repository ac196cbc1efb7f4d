//! The file store when processes compete, are killed, or have no room.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod file_support;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use file_support::*;
use soe_backends::{BackendErrorKind, Change, ContextBackend, Durability, FileStore, Post, Posted};

// Other processes: this binary runs itself, with the name of a test below and the folder in the environment.

const FOLDER: &str = "SOE_TEST_FOLDER";

fn child_folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(FOLDER, folder);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Commits to one execution as long as there is time, whoever else does.
async fn write_for(folder: &Path, time: Duration) -> u64 {
    let store = FileStore::open_with(folder, Durability::Relaxed).unwrap();
    let (one, start) = (id("one"), Instant::now());
    let mut won = 0;
    while start.elapsed() < time {
        let version = store.load(&one).await.unwrap().unwrap().version;
        match store.commit(vec![commit(&one, version + 1, 500)], None).await {
            Ok(()) => won += 1,
            Err(error) => assert_eq!(error.kind(), BackendErrorKind::Conflict, "{error}"),
        }
    }
    won
}

/// Not a test by itself: what the child processes of the tests below do.
#[tokio::test]
async fn child_writer() {
    if let Some(folder) = child_folder() {
        let won = write_for(&folder, Duration::from_secs(2)).await;
        fs::write(folder.join(format!("won-{}", std::process::id())), won.to_string()).unwrap();
    }
}

#[tokio::test]
async fn two_processes_don_t_overwrite_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    let mut other = child("child_writer", folder.path()).spawn().unwrap();
    let mut won = write_for(folder.path(), Duration::from_secs(2)).await;
    assert!(won > 0);
    assert!(other.wait().unwrap().success());
    let theirs = fs::read_to_string(folder.path().join(format!("won-{}", other.id()))).unwrap();
    won += theirs.parse::<u64>().unwrap();
    // Every commit that was acknowledged is there, and no other.
    assert_eq!(consistent(&store, &one).await, won + 1);
}

#[tokio::test]
async fn a_killed_writer_leaves_a_whole_state() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    let mut version = 1;
    for round in 0..8_u64 {
        let mut writer = child("child_writer", folder.path()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while store.load(&one).await.unwrap().unwrap().version == version && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_micros(700 * round)).await;
        writer.kill().unwrap();
        writer.wait().unwrap();
        let store = FileStore::open_with(folder.path(), Durability::Relaxed).unwrap();
        let found = consistent(&store, &one).await;
        assert!(found > version, "the writer wrote nothing");
        store.commit(vec![commit(&one, found + 1, 0)], None).await.unwrap();
        version = consistent(&store, &one).await;
    }
}

/// Not a test by itself: writes more than the limit that its parent set allows.
#[tokio::test]
async fn child_without_room() {
    let Some(folder) = child_folder() else { return };
    let store = FileStore::open(&folder).unwrap();
    let one = id("one");
    let error = store.commit(vec![commit(&one, 2, 1_000_000)], None).await.unwrap_err();
    says(&error, BackendErrorKind::Unavailable, &["trees", "limits the size"]);
    assert_eq!(consistent(&store, &one).await, 1);
    store.commit(vec![commit(&one, 2, 0)], None).await.unwrap();
    assert_eq!(consistent(&store, &one).await, 2);
}

#[cfg(unix)]
#[tokio::test]
async fn without_room_the_state_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    // The shell limits the size of files, and keeps the signal that comes with it from killing the child.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact child_without_room --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(consistent(&store, &one).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_beside_a_writer_see_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (_, one) = with_one(folder.path()).await;
    let writer = {
        let (store, one) = (
            FileStore::open_with(folder.path(), Durability::Relaxed).unwrap(),
            one.clone(),
        );
        tokio::spawn(async move {
            for version in 2..300 {
                store.commit(vec![commit(&one, version, 0)], None).await.unwrap();
            }
        })
    };
    // A cache of its own, as another process has.
    let store = FileStore::open(folder.path()).unwrap();
    while !writer.is_finished() {
        consistent(&store, &one).await;
    }
    writer.await.unwrap();
    assert_eq!(consistent(&store, &one).await, 299);
}

/// The child that posts: `SOE_TEST_SENDER` tells as whom.
#[tokio::test]
async fn child_poster() {
    let (Some(folder), Ok(sender)) = (child_folder(), std::env::var(SENDER)) else {
        return;
    };
    let store = FileStore::open_with(&folder, Durability::Relaxed).unwrap();
    post(&store, &sender, 250).await;
}

const SENDER: &str = "SOE_TEST_SENDER";

/// Posts messages, each twice.
async fn post(store: &FileStore, sender: &str, count: usize) {
    let one = id("one");
    for number in 0..count {
        let message = message(&one, &format!("{sender}-{number}"));
        let Post::Stored(seq) = store.post(&one, &message).await.unwrap() else {
            panic!("it is new")
        };
        assert_eq!(store.post(&one, &message).await.unwrap(), Post::Duplicate(seq));
    }
}

/// Takes all messages, a few a commit, until there are so many.
async fn take(store: &FileStore, count: usize) -> Vec<Posted> {
    let (one, mut taken) = (id("one"), Vec::<Posted>::new());
    while taken.len() < count {
        let state = store.load(&one).await.unwrap().unwrap();
        let found = store.inbox(&one, state.inbox, 7).await.unwrap();
        let Some(last) = found.last() else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let mut commit = commit(&one, state.version + 1, 0);
        commit.changes.push(Change::Taken(last.seq));
        store.commit(vec![commit], None).await.unwrap();
        taken.extend(found);
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_many_senders_are_taken_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (_, one) = with_one(folder.path()).await;
    let store = FileStore::open_with(folder.path(), Durability::Relaxed).unwrap();
    let processes = ["a", "b"].map(|sender| {
        child("child_poster", folder.path())
            .env(SENDER, sender)
            .spawn()
            .unwrap()
    });
    let threads = ["c", "d"].map(|sender| {
        let store = store.clone();
        tokio::spawn(async move { post(&store, sender, 250).await })
    });
    let taken = take(&store, 1000).await;
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    for thread in threads {
        thread.await.unwrap();
    }
    assert!(taken.iter().map(|posted| posted.seq).eq(1..=1000));
    let mut next: HashMap<String, usize> = HashMap::new();
    for posted in &taken {
        let (sender, number) = posted.message.id.split_once('-').unwrap();
        let next = next.entry(sender.to_owned()).or_default();
        assert_eq!(number.parse(), Ok(*next), "of sender {sender}");
        *next += 1;
    }
    assert_eq!(store.inbox(&one, 0, 9).await.unwrap(), []);
    assert!(store.waiting(9).await.unwrap().is_empty());
    consistent(&FileStore::open(folder.path()).unwrap(), &one).await;
}

/// What says that a message waits is there before the message, and may be there without one.
#[tokio::test]
async fn a_message_that_waits_is_never_overlooked() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    assert!(store.waiting(9).await.unwrap().is_empty());
    let waits = folder.path().join("inboxes/one");
    fs::write(&waits, "").unwrap();
    assert_eq!(store.waiting(9).await.unwrap(), std::slice::from_ref(&one));
    assert_eq!(store.inbox(&one, 0, 9).await.unwrap(), []);
    assert!(!waits.exists(), "who looks knows better");
    let first = message(&one, "1");
    assert_eq!(store.post(&one, &first).await.unwrap(), Post::Stored(1));
    assert_eq!(store.post(&id("none"), &first).await.unwrap(), Post::NoSuchTree);
    let store = FileStore::open(folder.path()).unwrap();
    assert_eq!(store.waiting(9).await.unwrap(), std::slice::from_ref(&one));
    let mut taking = commit(&one, 2, 0);
    taking.changes.push(Change::Taken(1));
    store.commit(vec![taking], None).await.unwrap();
    assert_eq!(store.post(&one, &first).await.unwrap(), Post::Duplicate(1));
    assert!(store.waiting(9).await.unwrap().is_empty());
}
