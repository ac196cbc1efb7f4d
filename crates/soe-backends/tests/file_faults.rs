//! The file store when something goes wrong with its files.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod file_support;

use std::fs;
use std::path::Path;
use std::process::Command;

use file_support::*;
use soe_backends::{
    BackendErrorKind, Backends, ContextBackend, Deletion, FileStore, Guard, ListQuery, Post, TelemetryBackend, Value,
};

const ANY: Guard = Guard { version: 0, fence: 0 };

#[tokio::test]
async fn a_damaged_journal_is_reported_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    store.commit(vec![commit(&one, 2, 0)], None).await.unwrap();
    store.commit(vec![commit(&id("two"), 1, 0)], None).await.unwrap();
    let path = folder.path().join("trees/one.journal");
    let whole = fs::read(&path).unwrap();
    // A byte of what is followed by something whole; of the first line; the first record not whole.
    let flipped = |place: usize| {
        let mut content = whole.clone();
        content[place] ^= 1;
        content
    };
    let newer = String::from_utf8(whole.clone())
        .unwrap()
        .replacen("soe-tree 2", "soe-tree 3", 1);
    for (content, why) in [
        (flipped(200), "not as it was written"),
        (flipped(3), "begin"),
        (whole[..200].to_vec(), "not whole"),
        (Vec::new(), "begin"),
        (b"\0\0\0\0\n".to_vec(), "begin"),
        (newer.into_bytes(), "later version"),
    ] {
        fs::write(&path, &content).unwrap();
        let store = FileStore::open(folder.path()).unwrap();
        let error = store.load(&one).await.unwrap_err();
        says(
            &error,
            BackendErrorKind::Corrupt,
            &["execution one", "one.journal", why],
        );
        let error = store.commit(vec![commit(&one, 3, 0)], None).await.unwrap_err();
        says(&error, BackendErrorKind::Corrupt, &["one.journal"]);
        let error = store.post(&one, &message(&one, "1")).await.unwrap_err();
        says(&error, BackendErrorKind::Corrupt, &["one.journal"]);
        assert_eq!(fs::read(&path).unwrap(), content, "a damaged file was changed");
        // It doesn't keep the others from being listed.
        // (What a list says stands beside the journal: where that is as it was written, a list doesn't read more.)
        let _ = fs::remove_file(folder.path().join("trees/one.head"));
        let page = store.list(&ListQuery::default()).await.unwrap();
        assert_eq!((page.executions.len(), page.damaged.len()), (1, 1));
        assert!(
            page.damaged[0].tree == "one" && page.damaged[0].problem.contains(why),
            "{page:?}"
        );
    }
    assert_eq!(consistent(&store, &id("two")).await, 1);
    let error = store.delete(&one, Guard { version: 1, fence: 0 }).await.unwrap_err();
    says(&error, BackendErrorKind::Corrupt, &["one.journal"]);
    assert_eq!(store.delete(&one, ANY).await.unwrap(), Deletion::Deleted);
    let page = store.list(&ListQuery::default()).await.unwrap();
    assert_eq!((page.executions.len(), page.damaged.len()), (1, 0));
    assert_eq!(
        store.delete(&id("two"), ANY).await.unwrap(),
        Deletion::Changed,
        "what can be read has a version"
    );
}

#[tokio::test]
async fn a_newer_store_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    with_one(folder.path()).await;
    fs::write(folder.path().join("store.json"), r#"{"format": 7}"#).unwrap();
    let error = FileStore::open(folder.path()).unwrap_err();
    says(&error, BackendErrorKind::Corrupt, &["store.json", "format 7"]);
}

#[tokio::test]
async fn something_in_the_place_of_a_folder_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    let trees = folder.path().join("trees");
    let aside = folder.path().join("aside");
    fs::rename(&trees, &aside).unwrap();
    fs::write(&trees, "not a folder").unwrap();
    let error = store.commit(vec![commit(&one, 2, 0)], None).await.unwrap_err();
    says(&error, BackendErrorKind::Unavailable, &["trees", "in the place of"]);
    let error = FileStore::open(folder.path()).unwrap_err();
    says(&error, BackendErrorKind::Unavailable, &["trees"]);
    fs::remove_file(&trees).unwrap();
    fs::rename(&aside, &trees).unwrap();
    store.commit(vec![commit(&one, 2, 0)], None).await.unwrap();
    assert_eq!(consistent(&store, &one).await, 2);
}

/// What only people read may fail.
#[tokio::test]
async fn files_for_people_that_can_t_be_written_hold_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    let shown = folder.path().join("contexts/one.json");
    fs::remove_file(&shown).unwrap();
    fs::create_dir_all(shown.join("in the way")).unwrap();
    for version in 2..40 {
        store.commit(vec![commit(&one, version, 10_000)], None).await.unwrap();
    }
    assert_eq!(consistent(&store, &one).await, 39);
    assert_eq!(
        store.list(&ListQuery::default()).await.unwrap().executions[0].version,
        39
    );
    fs::remove_dir_all(&shown).unwrap();
    store.commit(vec![commit(&one, 40, 0)], None).await.unwrap();
    assert_eq!(consistent(&FileStore::open(folder.path()).unwrap(), &one).await, 40);
    assert!(fs::read_to_string(&shown).unwrap().contains("40"));
}

/// A link to a file without end, a pipe that nobody writes to, a file with a length that no machine has room for.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn only_regular_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    let put = |path: &Path, what: &str| {
        let _ = fs::remove_file(path);
        match what {
            "link" => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
            "pipe" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            _ => fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
        }
    };
    for what in ["link", "pipe", "length"] {
        // Under the names of what counts: the tree is damaged.
        for name in ["trees/bad.journal", "contexts/old.json"] {
            put(&folder.path().join(name), what);
        }
        let page = store.list(&ListQuery::default()).await.unwrap();
        let damaged: Vec<_> = page.damaged.iter().map(|damaged| damaged.tree.as_str()).collect();
        assert_eq!((page.executions.len(), damaged), (1, vec!["bad", "old"]), "{what}");
        for tree in ["bad", "old"] {
            let error = store.load(&id(tree)).await.unwrap_err();
            says(&error, BackendErrorKind::Corrupt, &[tree]);
            assert_eq!(store.delete(&id(tree), ANY).await.unwrap(), Deletion::Deleted, "{what}");
        }
        // Under the names of what doesn't: they are put right.
        for name in ["contexts/one.json", "trees/one.head", "workflows/one_current.txt"] {
            put(&folder.path().join(name), what);
        }
        let version = consistent(&FileStore::open(folder.path()).unwrap(), &one).await + 1;
        store.commit(vec![commit(&one, version, 0)], None).await.unwrap();
        assert_eq!(consistent(&store, &one).await, version, "{what}");
        assert!(
            fs::symlink_metadata(folder.path().join("contexts/one.json"))
                .unwrap()
                .is_file()
        );
        // What is written beside is not written through.
        put(&folder.path().join("trees/.one.head.tmp"), what);
        store.commit(vec![commit(&one, version + 1, 0)], None).await.unwrap();
        let lock = folder.path().join("owners/me.json");
        put(&lock, what);
        let error = store.lease("me").await.unwrap_err();
        says(&error, BackendErrorKind::Corrupt, &["me.json"]);
    }
    assert_eq!(store.list(&ListQuery::default()).await.unwrap().damaged, []);
}

#[cfg(unix)]
#[tokio::test]
async fn a_read_only_folder_is_reported() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    let contexts = folder.path().join("trees");
    fs::set_permissions(&contexts, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(contexts.join("probe"), "").is_ok() {
        eprintln!("SKIPPED: this user can write read-only folders");
        return;
    }
    let error = store.commit(vec![commit(&one, 2, 0)], None).await.unwrap_err();
    says(&error, BackendErrorKind::Unavailable, &["trees", "write access"]);
    assert_eq!(consistent(&store, &one).await, 1);
    fs::set_permissions(&contexts, fs::Permissions::from_mode(0o755)).unwrap();
    store.commit(vec![commit(&one, 2, 0)], None).await.unwrap();
}

#[tokio::test]
async fn telemetry_that_was_not_synced_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    store.commit(vec![commit(&one, 2, 0)], None).await.unwrap();
    let path = folder.path().join("telemetry/one.jsonl");
    let lines = fs::read_to_string(&path).unwrap();
    for (content, version) in [
        (&lines[..lines.len() / 2], 3),
        ("", 4),
        ("half a li", 5),
        ("no json\n", 6),
    ] {
        fs::write(&path, content).unwrap();
        // What was not synced is in the journal too.
        assert_eq!(consistent(&store, &one).await, version - 1);
        assert_eq!(
            consistent(&FileStore::open(folder.path()).unwrap(), &one).await,
            version - 1
        );
        store.commit(vec![commit(&one, version, 0)], None).await.unwrap();
        assert_eq!(consistent(&store, &one).await, version);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), version as usize);
    }
    store
        .append_events(&one, &[event(&one, 3), event(&one, 6)])
        .await
        .unwrap();
    assert_eq!(
        store.events(&one, 5, 9).await.unwrap(),
        [event(&one, 5), event(&one, 6)]
    );
}

#[tokio::test]
async fn telemetry_that_somebody_removes_is_gone_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    // So much that the journal gets a new base.
    for version in 2..20 {
        store.commit(vec![commit(&one, version, 10_000)], None).await.unwrap();
    }
    assert_eq!(consistent(&store, &one).await, 19);
    let path = folder.path().join("telemetry/one.jsonl");
    let lines = fs::read_to_string(&path).unwrap();
    fs::write(&path, &lines[..lines.len() / 4]).unwrap();
    let error = store.events(&one, 0, 99).await.unwrap_err();
    says(&error, BackendErrorKind::Corrupt, &["one.jsonl", "bytes"]);
    fs::remove_file(&path).unwrap();
    for version in 20..22 {
        store.commit(vec![commit(&one, version, 0)], None).await.unwrap();
        for store in [&store, &FileStore::open(folder.path()).unwrap()] {
            let events = store.events(&one, 0, 99).await.unwrap();
            assert!(
                events.iter().map(|event| event.seq).eq(events[0].seq..version),
                "{events:?}"
            );
            assert_eq!(store.load(&one).await.unwrap().unwrap().version, version);
        }
    }
}

/// A crash right after the mark, and before each of the files is removed.
#[tokio::test]
async fn a_half_deleted_tree_is_never_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    let files = ["contexts/one.json", "workflows/one_current.txt", "trees/one.journal"];
    let whole = files.map(|file| fs::read(folder.path().join(file)).unwrap());
    let guard = Guard { version: 1, fence: 0 };
    assert_eq!(
        store.delete(&one, Guard { version: 1, fence: 1 }).await.unwrap(),
        Deletion::Changed
    );
    assert_eq!(store.delete(&one, guard).await.unwrap(), Deletion::Deleted);
    // What stands in the journal now: the base of what is left, the events. The mark alone is behind the first base.
    let mark = b"\"deleted\"";
    let record = record(mark);
    for removed in 0..3 {
        for (file, content) in files.iter().zip(&whole).skip(removed) {
            fs::write(folder.path().join(file), content).unwrap();
        }
        let journal = [&whole[2][..], &record].concat();
        fs::write(folder.path().join(files[2]), journal).unwrap();
        let store = FileStore::open(folder.path()).unwrap();
        assert_eq!(store.list(&ListQuery::default()).await.unwrap(), Default::default());
        assert_eq!(store.load(&one).await.unwrap(), None);
        assert_eq!(store.post(&one, &message(&one, "1")).await.unwrap(), Post::NoSuchTree);
        assert_eq!(store.delete(&one, guard).await.unwrap(), Deletion::NoSuchTree);
        assert!(
            files[..2].iter().all(|file| !folder.path().join(file).exists()),
            "deleting it again finishes"
        );
        assert_eq!(
            store.events(&one, 0, 9).await.unwrap().len(),
            1,
            "they are deleted apart"
        );
    }
    store.delete_events(&one).await.unwrap();
    assert_eq!(fs::read_dir(folder.path().join("trees")).unwrap().count(), 0);
    store.commit(vec![commit(&one, 1, 0)], None).await.unwrap();
    assert_eq!(consistent(&store, &one).await, 1);
}

/// A record as journals have it.
fn record(content: &[u8]) -> Vec<u8> {
    let checksum = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut record = format!("{:08x} {checksum:016x} ", content.len()).into_bytes();
    record.extend_from_slice(content);
    record.push(b'\n');
    record
}

#[tokio::test]
async fn what_crashed_writers_left_behind_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (_, one) = with_one(folder.path()).await;
    let left = [
        "contexts/.one.json.tmp",
        "trees/.one.journal.tmp",
        "workflows/.one_current.txt.tmp",
    ];
    for path in left {
        fs::write(folder.path().join(path), "half").unwrap();
    }
    let store = FileStore::open(folder.path()).unwrap();
    for path in left {
        assert!(!folder.path().join(path).exists(), "{path}");
    }
    fs::write(folder.path().join(left[0]), "half").unwrap();
    store.commit(vec![commit(&one, 2, 0)], None).await.unwrap();
    assert!(!folder.path().join(left[0]).exists());
    assert_eq!(consistent(&store, &one).await, 2);
}

#[tokio::test]
async fn a_value_too_deep_to_be_read_back_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    let nested = |depth| (0..depth).fold(Value::Null, |inner, _| Value::list([inner]));
    let mut deep = commit(&one, 2, 0);
    deep.changes.push(appended("deep", nested(300)));
    let error = store.commit(vec![deep], None).await.unwrap_err();
    says(&error, BackendErrorKind::Unsupported, &["deeper"]);
    let mut deep = commit(&one, 2, 0);
    deep.changes.push(appended("deep", nested(200)));
    store.commit(vec![deep], None).await.unwrap();
    assert_eq!(consistent(&FileStore::open(folder.path()).unwrap(), &one).await, 2);
}

#[test]
fn without_a_runtime_it_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let backends = Backends::file(folder.path()).unwrap();
    let error = futures::executor::block_on(backends.context().load(&id("one"))).unwrap_err();
    says(&error, BackendErrorKind::Unsupported, &["Tokio"]);
}
