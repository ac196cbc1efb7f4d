//! What the files of the file store look like.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod file_support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use file_support::*;
use soe_backends::{
    Backends, Commit, Deletion, ExecutionChange, ExecutionId, ListQuery, Origin, Progress, RegistryDocument,
    RegistryId, Run, Timestamp, TreeState, Value,
};

fn registry() -> RegistryDocument {
    let node = Value::map([
        ("node_type", Value::from("tool")),
        ("event_triggers", Value::from(vec!["START"])),
    ]);
    let workflows = Value::map([("w", Value::map([("work", node)]))]);
    RegistryDocument {
        id: RegistryId::from_digest([0xab; 32]),
        workflows,
    }
}

fn run() -> ExecutionChange {
    ExecutionChange::Dispatched(Arc::new(Run {
        number: 1,
        node: "work".into(),
        workflow: "w".into(),
        registry: registry().id,
        snapshot: 1,
        started_at: Timestamp::from_micros(2),
        progress: Progress::Tool { attempt: 1 },
    }))
}

/// A tree with a child and everything that a store takes.
fn sample(tree: &ExecutionId) -> Vec<Commit> {
    let mut genesis = created(
        registry().id,
        vec![("topic".into(), [Value::from("Grüße")].into_iter().collect())],
    );
    if let soe_backends::Change::Created(genesis) = &mut genesis {
        genesis.root.id = tree.clone();
    }
    let child = soe_backends::Genesis {
        id: tree.child(tree, 1, 0, 1),
        origin: Some((
            Arc::new(Origin {
                parent: 0,
                run: 1,
                node: "work".into(),
                failure_signal: None,
            }),
            0,
        )),
        workflow: "w".into(),
        registry: registry().id,
        parent: None,
        fields: Vec::new(),
        context_bytes: 0,
    };
    let first = Commit {
        registries: vec![registry().into()],
        definitions: Some(Arc::new(soe_backends::Definitions {
            identities: [("helper".into(), "You help.\nAlways.".into())].into(),
            context_schema: [("topic".into(), Value::map([("type", Value::from("string"))]))].into(),
        })),
        events: vec![event(tree, 0), event(tree, 1)],
        ..bare(tree, 1, vec![genesis])
    };
    let second = Commit {
        turns: vec![turn()],
        events: vec![event(tree, 2)],
        ..bare(
            tree,
            2,
            vec![
                within(0, run()),
                within(0, ExecutionChange::Snapshot { run: 1 }),
                appended("topic", 0.1),
                appended("found", Value::list([Value::Null, Value::from(u64::MAX)])),
                soe_backends::Change::Started(Box::new(child)),
            ],
        )
    };
    vec![first, second]
}

async fn write_sample(folder: &Path, tree: &ExecutionId) -> (Backends, TreeState) {
    let backends = Backends::file(folder).unwrap();
    let commits = sample(tree);
    let mut state = TreeState::create(&commits[0]).unwrap();
    commits[1..].iter().for_each(|commit| state.apply(commit).unwrap());
    for commit in commits {
        backends.commit(vec![commit], None).await.unwrap();
    }
    (backends, state)
}

async fn is_sample(backends: &Backends, expected: &TreeState) {
    let tree = &expected.root;
    let state = backends.context().load(tree).await.unwrap().unwrap();
    assert_eq!(*state, *expected);
    let page = backends.context().list(&ListQuery::default()).await.unwrap();
    assert_eq!(page.executions, [state.summary().unwrap()]);
    let stored = backends.workflows().registry(&registry().id).await.unwrap().unwrap();
    assert_eq!(*stored, registry());
    assert_eq!(backends.conversations().unwrap().turns(tree).await.unwrap(), [turn()]);
    let events = backends.telemetry().unwrap().events(tree, 0, 10).await.unwrap();
    assert_eq!(events, [event(tree, 0), event(tree, 1), event(tree, 2)]);
    let identities = backends.identities().unwrap().identities(tree).await.unwrap();
    assert_eq!(identities["helper"].as_ref(), "You help.\nAlways.");
    let schemas = backends.schemas().unwrap().schemas(tree).await.unwrap();
    assert_eq!(schemas["topic"].get("type"), Some(&Value::from("string")));
}

#[tokio::test]
async fn a_person_finds_fields_first_and_bookkeeping_last() {
    let folder = tempfile::tempdir().unwrap();
    let (backends, expected) = write_sample(folder.path(), &id("sample")).await;
    is_sample(&backends, &expected).await;
    is_sample(&Backends::file(folder.path()).unwrap(), &expected).await;
    let read = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
    let context: serde_json::Value = serde_json::from_str(&read("contexts/sample.json")).unwrap();
    let names: Vec<_> = context.as_object().unwrap().keys().collect();
    assert_eq!(names, ["topic", "found", "__operational__", "__engine__"]);
    assert_eq!(context["topic"], serde_json::json!(["Grüße", 0.1]));
    assert_eq!(context["__engine__"]["runs"]["1"]["node"], "work");
    assert!(read("contexts/sample.json").starts_with("{\n  \"topic\": [\n    \"Grüße\""));
    assert!(read("contexts/sample.1.0.json").contains("\"id\": \"sample.1.0\""));
    assert_eq!(read("workflows/sample_current.txt"), "w");
    let stored = read(&format!("workflows/registries/{}.json", registry().id));
    assert_eq!(read("workflows/sample_workflows.json"), stored);
    assert_eq!(read("workflows/sample.1.0_workflows.json"), stored);
    assert_eq!(read("telemetry/sample.jsonl").lines().count(), 3);
    assert!(read("telemetry/sample.jsonl").starts_with(r#"{"seq":0,"#));
    assert_eq!(read("identities/sample.yaml"), "helper: |-\n  You help.\n  Always.\n");
    assert_eq!(read("schemas/sample.yaml"), "topic:\n  type: string\n");
    assert!(read("conversations/sample.json").contains("\"content\": \"Hi\""));
    assert!(read("trees/sample.head").contains("\"status\":\"prepared\""));
}

#[tokio::test]
async fn what_a_person_does_to_the_files_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (backends, expected) = write_sample(folder.path(), &id("sample")).await;
    for name in ["contexts", "conversations", "schemas", "identities"] {
        for entry in fs::read_dir(folder.path().join(name)).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    fs::write(folder.path().join("trees/sample.head"), "{}").unwrap();
    is_sample(&backends, &expected).await;
    is_sample(&Backends::file(folder.path()).unwrap(), &expected).await;
    assert!(
        folder.path().join("contexts/sample.1.0.json").exists(),
        "they are made again"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_registry_is_stored_once_for_all_executions() {
    use std::os::unix::fs::MetadataExt as _;

    let folder = tempfile::tempdir().unwrap();
    let (backends, one) = write_sample(folder.path(), &id("one")).await;
    write_sample(folder.path(), &id("two")).await;
    let stored = folder
        .path()
        .join(format!("workflows/registries/{}.json", registry().id));
    assert_eq!(fs::metadata(&stored).unwrap().nlink(), 5);
    assert_eq!(
        backends.delete(&one.root, guard(&one)).await.unwrap(),
        Deletion::Deleted
    );
    assert_eq!(fs::metadata(&stored).unwrap().nlink(), 3);
}

#[tokio::test]
async fn nothing_is_left_of_a_deleted_tree() {
    let folder = tempfile::tempdir().unwrap();
    let (backends, expected) = write_sample(folder.path(), &id("sample")).await;
    backends.delete(&expected.root, guard(&expected)).await.unwrap();
    is_empty(folder.path());
}
