//! The file store when something goes wrong: damaged files, no room, killed and competing processes.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "helpers of tests are tests too"
)]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use soe_backends::{
    BackendError, BackendErrorKind, Backends, Change, Commit, ContextBackend, Durability, Event, EventKind,
    ExecutionId, FileStore, Genesis, Limits, ListQuery, RegistryId, Schedule, TelemetryBackend, Timestamp, Value,
};

fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}

fn event(seq: u64) -> Event {
    Event {
        seq,
        time: Timestamp::from_micros(seq),
        kind: EventKind::ExecutionRested {},
    }
}

/// The commit of an execution that appends its version to a field and leaves one event.
fn commit(execution: &ExecutionId, version: u64, padding: usize) -> Commit {
    let genesis = Genesis {
        workflow: "w".into(),
        registry: RegistryId::from_digest([1; 32]),
        main_execution_id: execution.clone(),
        parent: None,
        schedule: Schedule::Concurrent,
        limits: Limits::default().into(),
        fields: Vec::new(),
        context_bytes: 0,
        forked: None,
    };
    let mut changes = Vec::new();
    if version == 1 {
        changes.push(Change::Created(Box::new(genesis)));
    }
    changes.push(Change::Appended {
        field: "version".into(),
        value: Value::from(version),
        size: 24,
    });
    if padding > 0 {
        changes.push(Change::Appended {
            field: "padding".into(),
            value: "x".repeat(padding).into(),
            size: 0,
        });
    }
    Commit {
        execution: execution.clone(),
        version,
        at: Timestamp::from_micros(version),
        changes,
        registry: None,
        definitions: None,
        turns: None,
        events: vec![event(version - 1)],
    }
}

/// The state must be whole: as many values as commits, and all events.
async fn consistent(store: &FileStore, execution: &ExecutionId) -> u64 {
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

fn says(error: &BackendError, kind: BackendErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "'{error}' doesn't say '{part}'");
    }
}

async fn with_one(folder: &Path) -> (FileStore, ExecutionId) {
    let store = FileStore::open(folder).unwrap();
    store.commit(vec![commit(&id("one"), 1, 0)]).await.unwrap();
    (store, id("one"))
}

#[tokio::test]
async fn a_damaged_file_is_reported_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    store.commit(vec![commit(&id("two"), 1, 0)]).await.unwrap();
    let path = folder.path().join("contexts/one.json");
    let whole = fs::read(&path).unwrap();
    let deep = "[".repeat(100_000);
    let others = String::from_utf8(whole.clone()).unwrap().replace("\"one\"", "\"two\"");
    for (content, why) in [
        (&whole[..whole.len() / 2], "EOF"),
        (&b""[..], "EOF"),
        (b"{}", "__operational__"),
        (b"\0\0\0\0", "expected value"),
        (deep.as_bytes(), "too deep"),
        (others.as_bytes(), "holds execution two"),
    ] {
        fs::write(&path, content).unwrap();
        let error = store.load(&one).await.unwrap_err();
        says(
            &error,
            BackendErrorKind::Corrupt,
            &["execution one", "one.json", why, "restore it"],
        );
        let error = store.commit(vec![commit(&one, 2, 0)]).await.unwrap_err();
        says(&error, BackendErrorKind::Corrupt, &["one.json"]);
        assert_eq!(fs::read(&path).unwrap(), content, "a damaged file was changed");
    }
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = store.list(&ListQuery::default()).await.unwrap_err();
    says(&error, BackendErrorKind::Corrupt, &["one.json"]);
    assert_eq!(consistent(&store, &id("two")).await, 1);
    assert!(store.delete(&one).await.unwrap(), "a damaged execution can be deleted");
    assert_eq!(store.list(&ListQuery::default()).await.unwrap().executions.len(), 1);
}

#[tokio::test]
async fn a_newer_format_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    let path = folder.path().join("contexts/one.json");
    let content = fs::read_to_string(&path).unwrap();
    let newer = content.replace("\"format\": 1", "\"format\": 2");
    for content in [
        newer.clone(),
        newer.replace("\"signals\": []", "\"signals\": {\"packed\": true}"),
    ] {
        fs::write(&path, content).unwrap();
        let error = store.load(&one).await.unwrap_err();
        says(
            &error,
            BackendErrorKind::Corrupt,
            &["one.json", "later version", "format 2"],
        );
        let error = store.list(&ListQuery::default()).await.unwrap_err();
        says(&error, BackendErrorKind::Corrupt, &["format 2"]);
    }
    fs::write(folder.path().join("store.json"), r#"{"format": 7}"#).unwrap();
    let error = FileStore::open(folder.path()).unwrap_err();
    says(&error, BackendErrorKind::Corrupt, &["store.json", "format 7"]);
}

#[tokio::test]
async fn something_in_the_place_of_a_folder_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    let contexts = folder.path().join("contexts");
    let aside = folder.path().join("aside");
    fs::rename(&contexts, &aside).unwrap();
    fs::write(&contexts, "not a folder").unwrap();
    let error = store.commit(vec![commit(&one, 2, 0)]).await.unwrap_err();
    says(&error, BackendErrorKind::Unavailable, &["contexts", "in the place of"]);
    let error = FileStore::open(folder.path()).unwrap_err();
    says(&error, BackendErrorKind::Unavailable, &["contexts"]);
    fs::remove_file(&contexts).unwrap();
    fs::rename(&aside, &contexts).unwrap();
    store.commit(vec![commit(&one, 2, 0)]).await.unwrap();
    assert_eq!(consistent(&store, &one).await, 2);
}

#[cfg(unix)]
#[tokio::test]
async fn a_read_only_folder_is_reported() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    let contexts = folder.path().join("contexts");
    fs::set_permissions(&contexts, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(contexts.join("probe"), "").is_ok() {
        eprintln!("SKIPPED: this user can write read-only folders");
        return;
    }
    let error = store.commit(vec![commit(&one, 2, 0)]).await.unwrap_err();
    says(&error, BackendErrorKind::Unavailable, &["contexts", "write access"]);
    assert_eq!(consistent(&store, &one).await, 1);
    fs::set_permissions(&contexts, fs::Permissions::from_mode(0o755)).unwrap();
    store.commit(vec![commit(&one, 2, 0)]).await.unwrap();
}

#[tokio::test]
async fn a_torn_line_is_ignored_and_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    store.commit(vec![commit(&one, 2, 0)]).await.unwrap();
    let path = folder.path().join("telemetry/one.jsonl");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    // Longer than what is read of the end at first.
    file.write_all(format!("{{\"seq\":2,\"time\":\"{}", "x".repeat(10_000)).as_bytes())
        .unwrap();
    assert_eq!(consistent(&store, &one).await, 2);
    store.commit(vec![commit(&one, 3, 0)]).await.unwrap();
    assert_eq!(consistent(&store, &one).await, 3);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);

    fs::write(&path, "half a li").unwrap();
    store.append_events(&one, &[event(0), event(1)]).await.unwrap();
    assert_eq!(store.events(&one, 0, 2).await.unwrap(), [event(0), event(1)]);
    fs::write(&path, "no json\n").unwrap();
    let error = store.events(&one, 0, 9).await.unwrap_err();
    says(&error, BackendErrorKind::Corrupt, &["one.jsonl", "line 1"]);
}

#[tokio::test]
async fn events_of_a_writer_that_died_after_its_commit_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    store.commit(vec![commit(&one, 2, 0)]).await.unwrap();
    let path = folder.path().join("telemetry/one.jsonl");
    let lines = fs::read_to_string(&path).unwrap();
    let first = lines.find('\n').unwrap() + 1;
    fs::write(&path, &lines[..first]).unwrap();
    // Another process finds the last event in the context file only.
    let store = FileStore::open(folder.path()).unwrap();
    assert_eq!(consistent(&store, &one).await, 2);
    assert_eq!(store.events(&one, 1, 1).await.unwrap(), [event(1)]);
    store.commit(vec![commit(&one, 3, 0)]).await.unwrap();
    assert_eq!(consistent(&store, &one).await, 3);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn what_crashed_writers_left_behind_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (_, one) = with_one(folder.path()).await;
    let left = [
        "contexts/.one.json.tmp",
        "identities/.one.yaml.tmp",
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
    store.commit(vec![commit(&one, 2, 0)]).await.unwrap();
    assert!(!folder.path().join(left[0]).exists());
    assert_eq!(consistent(&store, &one).await, 2);
}

#[tokio::test]
async fn a_value_too_deep_to_be_read_back_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = with_one(folder.path()).await;
    let nested = |depth| (0..depth).fold(Value::Null, |inner, _| Value::list([inner]));
    let mut deep = commit(&one, 2, 0);
    deep.changes.push(Change::Appended {
        field: "deep".into(),
        value: nested(300),
        size: 0,
    });
    let error = store.commit(vec![deep]).await.unwrap_err();
    says(&error, BackendErrorKind::Unsupported, &["deeper"]);
    let mut deep = commit(&one, 2, 0);
    deep.changes.push(Change::Appended {
        field: "deep".into(),
        value: nested(200),
        size: 0,
    });
    store.commit(vec![deep]).await.unwrap();
    assert_eq!(consistent(&FileStore::open(folder.path()).unwrap(), &one).await, 2);
}

#[test]
fn without_a_runtime_it_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let backends = Backends::file(folder.path()).unwrap();
    let error = futures::executor::block_on(backends.context().load(&id("one"))).unwrap_err();
    says(&error, BackendErrorKind::Unsupported, &["Tokio"]);
}

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
        match store.commit(vec![commit(&one, version + 1, 500)]).await {
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
        store.commit(vec![commit(&one, found + 1, 0)]).await.unwrap();
        version = consistent(&store, &one).await;
    }
}

/// Not a test by itself: writes more than the limit that its parent set allows.
#[tokio::test]
async fn child_without_room() {
    let Some(folder) = child_folder() else { return };
    let store = FileStore::open(&folder).unwrap();
    let one = id("one");
    let error = store.commit(vec![commit(&one, 2, 1_000_000)]).await.unwrap_err();
    says(&error, BackendErrorKind::Unavailable, &["contexts", "limits the size"]);
    assert!(!folder.join("contexts/.one.json.tmp").exists());
    assert_eq!(consistent(&store, &one).await, 1);
    store.commit(vec![commit(&one, 2, 0)]).await.unwrap();
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
                store.commit(vec![commit(&one, version, 0)]).await.unwrap();
            }
        })
    };
    // A cache of its own, as another process has.
    let store = FileStore::open(folder.path()).unwrap();
    while !writer.is_finished() {
        let before = store.load(&one).await.unwrap().unwrap().next_event;
        let events = store.events(&one, 0, usize::MAX).await.unwrap();
        assert!(
            events.iter().map(|event| event.seq).eq(0..events.len() as u64),
            "{events:?}"
        );
        assert!(events.len() as u64 >= before);
    }
    writer.await.unwrap();
    assert_eq!(consistent(&store, &one).await, 299);
}
