//! When something is wrong with the file: each error says what, where, and what helps.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use soe_backends::{BackendErrorKind, ContextBackend, Deletion, Guard, ListQuery};
use soe_sqlite::SqliteStore;
use support::{commit, consistent, id, says};

async fn refused(path: &Path, kind: BackendErrorKind, parts: &[&str]) {
    let error = SqliteStore::open(path).await.unwrap_err();
    says(&error, kind, &[parts, &[&path.display().to_string()]].concat());
}

#[tokio::test]
async fn a_file_that_is_no_database_of_ours_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let text = "name,amount\n".repeat(100);
    fs::write(&path, &text).unwrap();
    refused(&path, BackendErrorKind::Corrupt, &["no SQLite database"]).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    fs::remove_file(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE accounts (name TEXT)").unwrap();
    drop(db);
    let before = fs::read(&path).unwrap();
    refused(&path, BackendErrorKind::Corrupt, &["another program", "another file"]).await;
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing was put beside it"
    );
}

#[tokio::test]
async fn a_database_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 77)
        .unwrap();
    refused(
        &path,
        BackendErrorKind::Corrupt,
        &["later version", "format 77", "up to 3"],
    )
    .await;
}

#[tokio::test]
async fn places_where_no_file_can_be_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/a.db");
    refused(&missing, BackendErrorKind::Unavailable, &["folder doesn't exist"]).await;
    refused(folder.path(), BackendErrorKind::Unavailable, &["must be a file"]).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_read_only_file_is_reported() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    if fs::OpenOptions::new().append(true).open(&path).is_ok() {
        eprintln!("SKIPPED: this user can write read-only files");
        return;
    }
    refused(&path, BackendErrorKind::Unavailable, &["read-only", "write access"]).await;
}

#[tokio::test]
async fn damage_is_reported_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let (one, two) = (id("one"), id("two"));
    for version in 1..5 {
        store.commit(vec![commit(&one, version, 0)], None).await.unwrap();
        store.commit(vec![commit(&two, version, 0)], None).await.unwrap();
    }
    store.close().await;
    let db = Connection::open(&path).unwrap();
    let place = "(SELECT key << 32 FROM trees WHERE id = 'one')";
    let spoil = |what: &str, offset: u64| {
        db.execute(&format!("{what} WHERE place = {place} + {offset}"), [])
            .unwrap();
    };
    spoil("UPDATE log SET changes = '[{'", 3);
    let store = SqliteStore::open(&path).await.unwrap();
    let error = store.load(&one).await.unwrap_err();
    says(
        &error,
        BackendErrorKind::Corrupt,
        &["execution one", "commit 3", "a.db", "backup"],
    );
    assert_eq!(store.load_at(&one, 2).await.unwrap().unwrap().version, 2);
    spoil("DELETE FROM log", 4);
    spoil("UPDATE log SET changes = '[]'", 3);
    let error = store.load(&one).await.unwrap_err();
    says(
        &error,
        BackendErrorKind::Corrupt,
        &["execution one", "commits are missing"],
    );
    assert_eq!(consistent(&store, &two).await, 4);
    // A row that says nonsense doesn't keep the others from being listed.
    db.execute("UPDATE trees SET status = 'asleep' WHERE id = 'one'", [])
        .unwrap();
    let page = store.list(&ListQuery::default()).await.unwrap();
    assert_eq!((page.executions.len(), page.damaged.len()), (1, 1));
    assert_eq!(page.damaged[0].tree, "one");
    let guard = Guard { version: 4, fence: 0 };
    let deleted = store.delete(&one, guard).await.unwrap();
    assert_eq!(deleted, Deletion::Deleted, "a damaged tree can be deleted");
    assert_eq!(store.list(&ListQuery::default()).await.unwrap().damaged, []);
    store.close().await;
}

#[tokio::test]
async fn a_damaged_file_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let one = id("one");
    for version in 1..20 {
        store.commit(vec![commit(&one, version, 2000)], None).await.unwrap();
    }
    store.close().await;
    let mut content = fs::read(&path).unwrap();
    content[4096..].fill(0xaa);
    fs::write(&path, content).unwrap();
    let error = match SqliteStore::open(&path).await {
        Ok(store) => store.load(&one).await.unwrap_err(),
        Err(error) => error,
    };
    says(&error, BackendErrorKind::Corrupt, &["a.db", "backup"]);
}

#[tokio::test]
async fn a_lock_of_another_process_is_waited_for_and_then_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let builder = SqliteStore::builder(&path).busy_timeout(Duration::from_millis(300));
    let store = builder.open().await.unwrap();
    let one = id("one");
    store.commit(vec![commit(&one, 1, 0)], None).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.commit(vec![commit(&one, 2, 0)], None).await.unwrap_err();
    says(
        &error,
        BackendErrorKind::Unavailable,
        &["execution one", "locked by another process", "a.db"],
    );
    assert_eq!(consistent(&store, &one).await, 1, "reading needs no lock");

    let waiting = {
        let (store, one) = (store.clone(), one.clone());
        tokio::spawn(async move { store.commit(vec![commit(&one, 2, 0)], None).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    other.execute_batch("COMMIT").unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(consistent(&store, &one).await, 2);
}

#[tokio::test]
async fn without_room_the_state_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = SqliteStore::builder(&path).max_bytes(400_000).open().await.unwrap();
    let (one, two) = (id("one"), id("two"));
    store.commit(vec![commit(&one, 1, 0)], None).await.unwrap();
    store.commit(vec![commit(&two, 1, 0)], None).await.unwrap();
    // Together with one that has room: what can't be stored doesn't touch it.
    let (large, small) = tokio::join!(
        store.commit(vec![commit(&one, 2, 1_000_000)], None),
        store.commit(vec![commit(&two, 2, 0)], None)
    );
    says(
        &large.unwrap_err(),
        BackendErrorKind::Unavailable,
        &["execution one", "a.db", "full", "make room"],
    );
    small.unwrap();
    assert_eq!(consistent(&store, &one).await, 1);
    assert_eq!(consistent(&store, &two).await, 2);
    store.commit(vec![commit(&one, 2, 0)], None).await.unwrap();
    assert_eq!(consistent(&store, &one).await, 2);
    store.close().await;
    let store = SqliteStore::open(&path).await.unwrap();
    store.commit(vec![commit(&one, 3, 1_000_000)], None).await.unwrap();
    assert_eq!(consistent(&store, &one).await, 3);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let other = store.clone();
    store.commit(vec![commit(&id("one"), 1, 0)], None).await.unwrap();
    store.close().await;
    store.close().await;
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "the log is moved into the file"
    );
    let error = other.commit(vec![commit(&id("one"), 2, 0)], None).await.unwrap_err();
    says(&error, BackendErrorKind::Unavailable, &["a.db", "closed"]);
    says(
        &other.load(&id("one")).await.unwrap_err(),
        BackendErrorKind::Unavailable,
        &["closed"],
    );
}
