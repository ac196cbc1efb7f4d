//! Stores that fail and are slow at any call: what is gone on with ends as if nothing had happened.
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use soe_backends::conformance::faults::{Faults, faulty, faulty_separate};
use soe_backends::{Backends, ExecutionId, ExecutionState, Status, TreeState};
use soe_core::config::Config;
use soe_core::llm::{LlmRequest, Stage};
use soe_core::runtime::{Engine, Orchestration};
use soe_core::testing::{Answer, MockLlm, TestClock, any};
use soe_core::tools::{ToolContext, raw_tool};
use soe_sqlite::SqliteStore;
use tokio::time::timeout;

/// A loop, then branches with a join.
const BRANCHES: &str = r#"
flow:
  Step:
    node_type: tool
    event_triggers: [START, AGAIN]
    tool_name: work
    output_field: step
    event_emissions:
      - {signal_name: AGAIN, condition: "{{ context.step | history | length < 5 }}"}
      - {signal_name: BRANCH, condition: "{{ context.step | history | length == 5 }}"}
  A: {node_type: tool, event_triggers: [BRANCH], tool_name: work, output_field: branch, event_emissions: [{signal_name: BRANCHED}]}
  B: {node_type: tool, event_triggers: [BRANCH], tool_name: work, output_field: branch, event_emissions: [{signal_name: BRANCHED}]}
  C: {node_type: tool, event_triggers: [BRANCH], tool_name: work, output_field: branch, event_emissions: [{signal_name: BRANCHED}]}
  Join:
    node_type: router
    event_triggers: [BRANCHED]
    event_emissions: [{signal_name: JOINED, condition: "{{ context.branch | history | length == 3 }}"}]
  Last: {node_type: tool, event_triggers: [JOINED], tool_name: work, output_field: last, event_emissions: [{signal_name: DONE}]}
"#;

/// Children with a join; what they do has children of its own.
const CHILDREN: &str = r#"
workflows:
  flow:
    Each:
      node_type: child
      event_triggers: [START]
      child_workflow_name: part
      child_initial_signals: [GO]
      fan_out_field: items
      child_input_field: item
      signals_to_parent: [PART]
      context_updates_to_parent: [part]
    Join:
      node_type: router
      event_triggers: [PART]
      event_emissions: [{signal_name: JOINED, condition: "{{ context.part | history | length == 3 }}"}]
    Last: {node_type: tool, event_triggers: [JOINED], tool_name: work, output_field: last, event_emissions: [{signal_name: DONE}]}
  part:
    Work: {node_type: tool, event_triggers: [GO], tool_name: work, output_field: work, event_emissions: [{signal_name: WORKED}]}
    Below:
      node_type: child
      event_triggers: [WORKED]
      child_workflow_name: below
      child_initial_signals: [GO]
      signals_to_parent: [BELOW]
      context_updates_to_parent: [below]
    Done: {node_type: tool, event_triggers: [BELOW], tool_name: work, output_field: part, event_emissions: [{signal_name: PART}]}
  below:
    Work: {node_type: tool, event_triggers: [GO], tool_name: work, output_field: below, event_emissions: [{signal_name: BELOW}]}
"#;

/// An LLM and an agent with a conversation, an identity and a schema.
const TALK: &str = r#"
identities: {poet: You are a poet.}
context_schema: {poem: {type: string, description: A poem}}
workflows:
  flow:
    Write: {node_type: llm, event_triggers: [START], identity: poet, prompt: Write., output_field: poem, event_emissions: [{signal_name: WRITTEN}]}
    Look: {node_type: agent, event_triggers: [WRITTEN], identity: poet, prompt: Look., tools: [work], output_field: found, event_emissions: [{signal_name: FOUND}]}
    Judge: {node_type: llm, event_triggers: [FOUND], identity: poet, prompt: Judge., output_field: verdict, event_emissions: [{signal_name: DONE}]}
"#;

/// How a store is made, and how much the store itself takes into one transaction.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Memory,
    Sqlite,
}

/// What came of a tree of executions.
#[derive(Debug, PartialEq)]
struct Ending {
    /// By execution: status, values of fields and signals.
    executions: BTreeMap<String, Value>,
    /// The conversation's roles and texts.
    turns: Vec<(String, String)>,
    /// What tools have done, by the key that makes it idempotent.
    effects: BTreeSet<String>,
}

/// A tree of executions under test.
struct World {
    yaml: &'static str,
    /// Without faults.
    plain: Backends,
    effects: Arc<Mutex<BTreeSet<String>>>,
    clock: TestClock,
    root: ExecutionId,
}

impl World {
    fn new(yaml: &'static str, plain: Backends) -> Self {
        Self {
            yaml,
            plain,
            effects: Arc::default(),
            clock: TestClock::default().with_step(Duration::from_micros(1)),
            root: ExecutionId::new("x").unwrap(),
        }
    }

    fn engine(&self, backends: &Backends) -> Engine {
        let effects = self.effects.clone();
        let work = raw_tool("work", "", move |_: Value, context: ToolContext| {
            let effects = effects.clone();
            async move {
                effects.lock().unwrap().insert(context.idempotency_key());
                Ok(json!("worked ".repeat(1000)))
            }
        });
        let builder = Engine::builder().backends(backends.clone()).tool(work).llm(llm());
        builder.clock(self.clock.source()).build().unwrap()
    }

    fn orchestration(&self) -> Orchestration {
        let config = Arc::new(Config::from_yaml(self.yaml).unwrap());
        let orchestration = Orchestration::new(config, "flow").signal("START").id(self.root.clone());
        orchestration.field("items", json!([1, 2, 3]))
    }

    async fn tree(&self) -> Option<Arc<TreeState>> {
        self.plain.context().load(&self.root).await.unwrap()
    }

    /// Starts it, or goes on with it, until the whole tree rests.
    async fn complete(&self, backends: &Backends, patience: Duration) {
        let mut engine = self.engine(backends);
        for attempt in 1..500 {
            let tree = self.tree().await;
            let status = tree.as_ref().and_then(|tree| tree.status(0));
            if status == Some(Status::Rested) && tree.is_some_and(|tree| !tree.is_unsettled()) {
                engine.shutdown(patience).await;
                return;
            }
            let begun = match status {
                None => engine.start(self.orchestration()).await.map(drop),
                Some(status) if status == Status::Failed || attempt % 3 == 0 => {
                    engine.resume(&self.root).await.map(drop)
                }
                Some(_) => engine.recover().await.map(drop),
            };
            if begun.is_ok() {
                let _ = timeout(patience, engine.wait(&self.root)).await;
            }
            if attempt % 4 == 0 {
                // Another process, after a while: the lease of the one before may not have been given up.
                engine.shutdown(Duration::ZERO).await;
                self.clock.advance(Duration::from_secs(3600));
                engine = self.engine(backends);
            }
        }
        let left = self.tree().await.and_then(|tree| tree.summary());
        panic!("it doesn't come to rest: {left:?}");
    }

    async fn ending(&self) -> Ending {
        let turns = self.plain.conversations().unwrap().turns(&self.root).await.unwrap();
        let tree = self.tree().await.unwrap();
        Ending {
            executions: tree
                .executions
                .values()
                .map(|state| (state.id.to_string(), what_matters(state)))
                .collect(),
            turns: turns
                .iter()
                .map(|turn| (turn.role.to_string(), turn.content.to_string()))
                .collect(),
            effects: self.effects.lock().unwrap().clone(),
        }
    }
}

/// Without times and versions, and without counts of what is done again when it was interrupted.
fn what_matters(state: &Arc<ExecutionState>) -> Value {
    let fields = state.context.fields.iter();
    let fields: BTreeMap<&str, Vec<Value>> = fields
        .map(|(name, history)| {
            (
                name.as_ref(),
                history.iter().map(soe_backends::Value::to_json).collect(),
            )
        })
        .collect();
    let mut signals: Vec<&str> = state.context.operational.signals.iter().map(AsRef::as_ref).collect();
    // Branches end in any order.
    signals.sort_unstable();
    json!({"status": state.status, "fields": fields, "signals": signals, "runs": state.next_run})
}

/// Answers by what it is asked, so that a request that is repeated is answered alike.
fn llm() -> MockLlm {
    let llm = MockLlm::new();
    llm.on(any()).with(|request: &LlmRequest| match request.stage {
        Stage::Router if request.key.ends_with("/0") => Answer::call_tool("work"),
        Stage::Router => Answer::finish(),
        Stage::Parameter => Answer::arguments(json!({})),
        _ => Answer::output(format!("by {}", request.node)),
    });
    llm
}

async fn store(kind: Kind, folder: &std::path::Path) -> Backends {
    match kind {
        Kind::Memory => Backends::memory(),
        Kind::Sqlite => SqliteStore::open(folder.join("x.db")).await.unwrap().backends(),
    }
}

async fn survives(kind: Kind, seeds: std::ops::Range<u64>) {
    let (patience, delay) = match kind {
        // On paused time.
        Kind::Memory => (Duration::from_secs(3600), Duration::from_secs(60)),
        Kind::Sqlite => (Duration::from_millis(300), Duration::from_millis(2)),
    };
    let mut failed: BTreeMap<&str, usize> = BTreeMap::new();
    for yaml in [BRANCHES, CHILDREN, TALK] {
        let undisturbed = World::new(yaml, Backends::memory());
        undisturbed.complete(&undisturbed.plain, patience).await;
        let expected = undisturbed.ending().await;
        for seed in seeds.clone() {
            let folder = tempfile::tempdir().unwrap();
            let world = World::new(yaml, store(kind, folder.path()).await);
            let faults = Faults::new(seed)
                .one_in(2 + seed % 9)
                .at_most(25)
                .delays(delay, tokio::time::sleep);
            let faults = Arc::new(faults);
            let wrap = if seed % 2 == 0 { faulty } else { faulty_separate };
            world.complete(&wrap(&world.plain, &faults), patience).await;
            assert_eq!(
                world.ending().await,
                expected,
                "seed {seed}, {kind:?}: {:?}",
                faults.failed()
            );
            for (call, times) in faults.failed() {
                *failed.entry(call).or_default() += times;
            }
        }
    }
    // A few seeds don't meet those that are called once a tree.
    let rare = ["put_schemas", "put_identities", "append_turns", "turns"];
    let rare = rare.iter().filter(|_| kind == Kind::Memory);
    for call in ["commit", "load", "registry", "append_events", "inbox"]
        .iter()
        .chain(rare)
    {
        assert!(failed.contains_key(*call), "{call} never failed: {failed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_in_memory_the_end_is_the_same() {
    survives(Kind::Memory, 0..250).await;
}

#[tokio::test]
async fn whatever_fails_in_sqlite_the_end_is_the_same() {
    survives(Kind::Sqlite, 100..110).await;
}

/// As on a full disk: the file may not grow beyond a size, until there is more room.
#[tokio::test]
async fn what_finds_no_room_in_sqlite_goes_on_when_there_is_some() {
    let patience = Duration::from_secs(10);
    for yaml in [BRANCHES, CHILDREN] {
        let undisturbed = World::new(yaml, Backends::memory());
        undisturbed.complete(&undisturbed.plain, patience).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let mut stopped = 0;
        for kilobytes in (24..400).step_by(8) {
            let opened = SqliteStore::builder(&path).max_bytes(kilobytes * 1024).open().await;
            let Ok(store) = opened else { continue };
            let mut world = World::new(yaml, store.backends());
            world.effects = undisturbed.effects.clone();
            let engine = world.engine(&world.plain);
            let begun = match world.tree().await {
                None => engine.start(world.orchestration()).await.map(drop),
                Some(_) => engine.resume(&world.root).await.map(drop),
            };
            let ended = timeout(Duration::from_millis(200), engine.wait(&world.root)).await;
            let finished = begun.is_ok() && matches!(ended, Ok(Ok(_)));
            engine.shutdown(Duration::ZERO).await;
            store.close().await;
            if finished {
                break;
            }
            stopped += 1;
        }
        assert!(stopped > 1, "there was always room: {yaml}");
        let world = World {
            effects: undisturbed.effects.clone(),
            ..World::new(yaml, SqliteStore::open(&path).await.unwrap().backends())
        };
        world.complete(&world.plain, patience).await;
        assert_eq!(world.ending().await, undisturbed.ending().await);
    }
}
