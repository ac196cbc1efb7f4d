//! A database of each format version stays readable for ever.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::path::{Path, PathBuf};

use soe_backends::{
    Backends, Change, Commit, ContextBackend, EventKind, ExecutionChange, ExecutionId, ListQuery, Progress, RegistryId,
    Status, Timestamp, TreeState, Value, stored,
};
use soe_sqlite::SqliteStore;
use tempfile::TempDir;

fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}

/// The sample of a format, in a folder of its own.
fn sample(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.db");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::copy(kept, &path).unwrap();
    (folder, path)
}

/// One more value for the root.
fn next(state: &TreeState) -> Commit {
    let value = Value::from("more");
    let change = ExecutionChange::Appended {
        field: "found".into(),
        size: value.size(),
        value,
        delivered: false,
    };
    Commit {
        tree: state.root.clone(),
        version: state.version + 1,
        fence: state.fence(),
        at: state.updated_at,
        changes: vec![Change::In { execution: 0, change }],
        registries: Vec::new(),
        definitions: None,
        turns: Vec::new(),
        events: Vec::new(),
    }
}

async fn goes_on(backends: &Backends, tree: &str) {
    let state = backends.context().load(&id(tree)).await.unwrap().unwrap();
    let next = next(&state);
    backends.commit(vec![next.clone()], None).await.unwrap();
    let after = backends.context().load(&id(tree)).await.unwrap().unwrap();
    assert_eq!(after.version, state.version + 1);
    assert_eq!(backends.context().commits(&id(tree), 0, 9).await.unwrap(), [next]);
    let context = backends.context();
    assert_eq!(context.load_at(&id(tree), state.version).await.unwrap(), Some(state));
    assert_eq!(
        context.load_at(&id(tree), 1).await.unwrap(),
        None,
        "what was before its conversion is gone"
    );
}

/// An execution with a checkpoint, a cascade in progress, and what its tree shares.
#[tokio::test]
async fn format_1_is_readable() {
    let (_folder, path) = sample("format-1.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let backends = store.backends();
    let state = backends.context().load(&id("sample")).await.unwrap().unwrap();
    let root = state.root_state().unwrap();
    assert_eq!((root.status, state.version, state.next_event), (Status::Running, 5, 4));
    assert_eq!(root.runs.keys().collect::<Vec<_>>(), [2, 3]);
    assert_eq!(root.context.value("topic"), Some(&Value::from("Grüße")));
    let found: Vec<_> = root.context.history("found").unwrap().iter().cloned().collect();
    assert_eq!(found, [Value::from(0.1), Value::from(u64::MAX)]);
    // A run reads what was there when it was dispatched.
    let (second, third) = (root.runs.get(2).unwrap(), root.runs.get(3).unwrap());
    assert!(root.snapshot(second).unwrap().history("found").is_none());
    assert_eq!(root.snapshot(third).unwrap().history("found").unwrap().len(), 2);
    assert_eq!((state.work.stack.len(), state.work.accepted.len()), (1, 1));
    assert_eq!(state.definitions.identities["helper"].as_ref(), "You help.");
    let page = backends.context().list(&ListQuery::default()).await.unwrap();
    assert_eq!(page.executions, [state.summary().unwrap()]);
    let lease = backends.context().lease("engine").await.unwrap();
    assert_eq!(lease, Some(Timestamp::from_micros(1_750_000_009_000_000)));
    let registry = backends
        .workflows()
        .registry(&RegistryId::from_digest([0xcd; 32]))
        .await
        .unwrap();
    assert!(registry.is_some());
    let turns = backends.conversations().unwrap().turns(&id("sample")).await.unwrap();
    assert_eq!(turns[0].key.as_deref(), Some("sample:1/0"));
    let identities = backends.identities().unwrap().identities(&id("sample")).await.unwrap();
    assert_eq!(identities, state.definitions.identities);
    let schemas = backends.schemas().unwrap().schemas(&id("sample")).await.unwrap();
    assert_eq!(schemas["topic"].get("type"), Some(&Value::from("string")));
    let events = backends
        .telemetry()
        .unwrap()
        .events(&id("sample"), 0, 10)
        .await
        .unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [0, 1, 2, 3]);
    goes_on(&backends, "sample").await;
    store.close().await;
}

/// Trees that a process of format 2 has left: over, killed, failed, cancelled; depth-first with a child in the middle of its
/// work.
#[tokio::test]
async fn format_2_is_readable() {
    let (_folder, path) = sample("format-2.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let backends = store.backends();
    let page = backends.context().list(&ListQuery::default()).await.unwrap();
    assert!(page.damaged.is_empty(), "{:?}", page.damaged);
    let seen = |tree: &str| {
        let found = page.executions.iter().find(|found| found.id.as_str() == tree).unwrap();
        (found.status, found.children, found.unsettled)
    };
    assert_eq!(page.executions.len(), 5);
    assert_eq!(seen("rested"), (Status::Rested, 3, false));
    assert_eq!(seen("killed"), (Status::Running, 3, true));
    assert_eq!(seen("failed"), (Status::Failed, 3, false));
    assert_eq!(seen("deep"), (Status::Running, 3, true));
    assert_eq!(seen("cancelled"), (Status::Cancelled, 3, false));
    for found in &page.executions {
        let tree = backends.context().load(&found.id).await.unwrap().unwrap();
        assert_eq!(tree.summary().as_ref(), Some(found));
        for execution in tree.executions.values() {
            assert_eq!(tree.number_of(&execution.id), Some(execution.number));
            let running = execution.children.as_ref().map_or(0, |children| {
                let all = children.numbers().filter_map(|child| tree.get(child));
                all.filter(|child| child.status == Status::Running).count() as u64
            });
            assert_eq!(execution.active_children(), running, "{}", execution.id);
        }
        let events = backends
            .telemetry()
            .unwrap()
            .events(&found.id, 0, usize::MAX)
            .await
            .unwrap();
        assert!(
            events
                .windows(2)
                .all(|pair| pair[0].seq + 1 == pair[1].seq && pair[0].time <= pair[1].time)
        );
        assert_eq!(events.last().unwrap().seq + 1, tree.next_event);
        assert!(events.iter().all(|event| tree.find(&event.execution).is_some()));
        let begun = |kind: &EventKind| matches!(kind, EventKind::OrchestrationStart { .. });
        assert_eq!(events.iter().filter(|event| begun(&event.kind)).count(), 4);
        let json = stored::write_tree(&tree).unwrap();
        assert_eq!(stored::read_tree(json.as_bytes()).unwrap(), *tree);
        goes_on(&backends, found.id.as_str()).await;
    }
    store.close().await;
    // It is converted once.
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.list(&ListQuery::default()).await.unwrap().executions.len(), 5);
    store.close().await;
}

#[tokio::test]
async fn runs_in_flight_and_marks_of_format_2_are_kept() {
    let (_folder, path) = sample("format-2.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let load = async |tree: &str| store.load(&id(tree)).await.unwrap().unwrap();
    let runs = |tree: &TreeState| -> Vec<(String, u64)> {
        let all = tree.executions.values();
        let all = all.flat_map(|state| state.runs.keys().map(|run| (state.id.to_string(), run)));
        let mut all: Vec<_> = all.collect();
        all.sort();
        all
    };

    let killed = load("killed").await;
    assert_eq!(
        runs(&killed),
        [("killed.1.1".to_owned(), 1), ("killed.1.2".to_owned(), 1)]
    );
    let root = killed.root_state().unwrap();
    assert_eq!(root.active_children(), 2);
    assert_eq!(root.context.value("result"), Some(&Value::from("a done")));
    assert!(killed.work.is_empty(), "all was told");
    assert!(killed.fence() > 0 && killed.owner.as_ref().unwrap().process.as_ref() == "converted");

    let failed = load("failed").await;
    let own = |child: &str| failed.find(&id(child)).unwrap().status;
    let holds = |child: &str| failed.status(failed.number_of(&id(child)).unwrap());
    assert_eq!(
        (own("failed.1.0"), holds("failed.1.0")),
        (Status::Rested, Some(Status::Suspended))
    );
    assert_eq!(
        (own("failed.1.1"), holds("failed.1.1")),
        (Status::Running, Some(Status::Suspended))
    );
    assert_eq!(
        (own("failed.1.2"), holds("failed.1.2")),
        (Status::Failed, Some(Status::Failed))
    );
    assert!(
        failed
            .root_state()
            .unwrap()
            .failure
            .as_ref()
            .unwrap()
            .message
            .contains("depth")
    );
    let spawning = failed
        .find(&id("failed.1.2"))
        .unwrap()
        .runs
        .get(1)
        .unwrap()
        .progress
        .clone();
    assert!(matches!(spawning, Progress::Child(spawning) if spawning.total.is_none()));

    let deep = load("deep").await;
    assert_eq!(
        runs(&deep),
        [
            ("deep".to_owned(), 1),
            ("deep.1.0".to_owned(), 1),
            ("deep.1.0.1.1".to_owned(), 1)
        ]
    );
    let stack: Vec<_> = deep
        .work
        .stack
        .iter()
        .map(|frame| (frame.execution, frame.then.is_some()))
        .collect();
    assert_eq!(
        stack,
        [(0, true), (1, true)],
        "what creates children waits for them, the root below"
    );

    assert!(load("cancelled").await.work.is_empty());
    assert!(
        load("rested")
            .await
            .executions
            .values()
            .all(|state| state.status == Status::Rested)
    );
    store.close().await;
}

/// What can't be converted is named; what can be is.
#[tokio::test]
async fn a_damaged_tree_of_format_2_takes_nothing_down() {
    let (_folder, path) = sample("format-2.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(
        "DELETE FROM commits WHERE place = ((SELECT key FROM executions WHERE id = 'deep.1.0') << 32) + 2;
         UPDATE commits SET changes = 'nonsense' WHERE place = ((SELECT key FROM executions WHERE id = 'failed') << 32) + 1",
    )
    .unwrap();
    drop(db);
    let store = SqliteStore::open(&path).await.unwrap();
    let page = store.list(&ListQuery::default()).await.unwrap();
    assert_eq!(page.executions.len(), 3);
    let damaged: Vec<_> = page.damaged.iter().map(|damaged| damaged.tree.as_str()).collect();
    assert_eq!(damaged, ["deep", "failed"]);
    assert!(
        page.damaged[1].problem.contains("execution failed"),
        "{}",
        page.damaged[1].problem
    );
    let error = store.load(&id("deep")).await.unwrap_err();
    assert_eq!(error.kind(), soe_backends::BackendErrorKind::Corrupt, "{error}");
    let guard = soe_backends::Guard { version: 0, fence: 0 };
    assert_eq!(
        store.delete(&id("deep"), guard).await.unwrap(),
        soe_backends::Deletion::Deleted
    );
    assert_eq!(store.list(&ListQuery::default()).await.unwrap().damaged.len(), 1);
    store.close().await;
}
