//! Time travel: earlier versions, and forks of them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use soe_backends::*;
use soe_core::config::Config;
use soe_core::llm::{LlmErrorKind, LlmRequest, Stage};
use soe_core::machine::{self, Machine};
use soe_core::runtime::{Engine, EngineError, EngineErrorKind, Fork, Orchestration};
use soe_core::testing::{MockLlm, node};
use soe_core::tools::{ToolContext, ToolError, raw_tool};
use soe_sqlite::SqliteStore;

/// Tools in parallel and their join, an LLM with an identity, an agent, a child.
const FLOW: &str = "
identities: {poet: You are a poet.}
context_schema: {poem: {type: string}, plan: {type: string}}
workflows:
  flow:
    A: {node_type: tool, event_triggers: [START], tool_name: double, parameters: {n: 1}, output_field: parts, event_emissions: [{signal_name: PART}]}
    B: {node_type: tool, event_triggers: [START], tool_name: double, parameters: {n: 2}, output_field: parts, event_emissions: [{signal_name: PART}]}
    C: {node_type: tool, event_triggers: [START], tool_name: double, parameters: {n: 3}, output_field: parts, event_emissions: [{signal_name: PART}]}
    Join: {node_type: router, event_triggers: [PART], event_emissions: [{signal_name: JOINED, condition: '{{ context.parts | history | length == 3 }}'}]}
    Write: {node_type: llm, event_triggers: [JOINED], identity: poet, prompt: 'On {{ context.topic }}', output_field: poem, event_emissions: [{signal_name: WRITTEN}]}
    Plan: {node_type: agent, event_triggers: [WRITTEN], identity: poet, prompt: plan, tools: [double], output_field: plan, event_emissions: [{signal_name: PLANNED}]}
    Delegate:
      node_type: child
      event_triggers: [PLANNED]
      child_workflow_name: checker
      child_initial_signals: [GO]
      input_fields: [poem]
      signals_to_parent: [CHECKED]
      context_updates_to_parent: [verdict]
      event_emissions: [{signal_name: DELEGATED}]
    End: {node_type: router, event_triggers: [CHECKED], event_emissions: [{signal_name: DONE}]}
    Again: {node_type: tool, event_triggers: [AGAIN], tool_name: double, parameters: {n: '{{ context.bonus }}'}, output_field: again}
  checker:
    Check: {node_type: tool, event_triggers: [GO], tool_name: double, parameters: {n: 21}, output_field: verdict, event_emissions: [{signal_name: CHECKED}]}
";

/// The system prompt, question and answer, and what the agent's tool gave.
const TURNS: usize = 4;

struct Lab {
    engine: Engine,
    store: SqliteStore,
    llm: MockLlm,
}

async fn lab() -> Lab {
    let store = SqliteStore::open_in_memory().await.unwrap();
    let llm = MockLlm::new();
    llm.on(node("Write")).output("Roses.");
    let is_done = |request: &LlmRequest| request.text().contains("[Tool: double]");
    let asks = node("Plan").stage(Stage::Router);
    llm.on(asks.clone().and_when("it has called", is_done)).finish();
    llm.on(asks).call_tool("double").arguments(json!({"n": 5}));
    llm.on(node("Plan").stage(Stage::Parameter)).arguments(json!({"n": 5}));
    llm.on(node("Plan").stage(Stage::Response)).output("ready");
    let engine = engine_on(store.backends(), &llm);
    Lab { engine, store, llm }
}

fn engine_on(backends: Backends, llm: &MockLlm) -> Engine {
    let double = |arguments: serde_json::Value, _: ToolContext| async move {
        match arguments["n"].as_i64() {
            Some(n) => Ok(json!(n * 2)),
            None => Err(ToolError::new("no number")),
        }
    };
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let builder = Engine::builder().backends(backends).llm(llm.clone());
    builder
        .tool(raw_tool("double", "", double).schema(schema))
        .build()
        .unwrap()
}

fn flow(schedule: Schedule) -> Orchestration {
    let config = Config::from_yaml(FLOW).unwrap_or_else(|error| panic!("{error}"));
    let orchestration = Orchestration::new(config, "flow").signal("START");
    orchestration.field("topic", "love").schedule(schedule)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("it hangs")
}

/// Fields, signals, runs by node, errors.
type CameTo = (BTreeMap<String, Vec<String>>, Vec<String>, BTreeMap<String, u64>, u64);

/// What an execution has come to, whatever the order in which what ran in parallel was done.
fn come_to(state: &ExecutionState) -> CameTo {
    let fields = state.context.fields.iter();
    let sorted = |history: &History| {
        let mut values: Vec<_> = history.iter().map(ToString::to_string).collect();
        values.sort_unstable();
        values
    };
    let operational = &state.context.operational;
    let mut signals: Vec<_> = operational.signals.iter().map(ToString::to_string).collect();
    signals.sort_unstable();
    (
        fields
            .map(|(name, history)| (name.to_string(), sorted(history)))
            .collect(),
        signals,
        operational
            .nodes
            .iter()
            .map(|(node, runs)| (node.to_string(), *runs))
            .collect(),
        operational.errors,
    )
}

async fn told(engine: &Engine, execution: &ExecutionId) -> Vec<(String, String)> {
    let turns = engine.conversation(execution).await.unwrap().turns().await.unwrap();
    turns
        .iter()
        .map(|turn| (turn.role.to_string(), turn.content.to_string()))
        .collect()
}

async fn forks_at_every_version(schedule: Schedule) {
    let Lab { engine, .. } = lab().await;
    let source = soon(engine.orchestrate(flow(schedule))).await.unwrap().execution;
    let end = engine.tree(&source).await.unwrap();
    assert!(root_of(&end).context.operational.signals.contains("DONE"));
    let conversation = told(&engine, &source).await;
    assert_eq!(conversation.len(), TURNS, "{conversation:?}");
    assert!(end.version > 10, "only {}", end.version);
    for version in 1..=end.version {
        let tree = engine.tree_at(&source, version).await.unwrap();
        assert_eq!(tree.version, version);
        let fork = engine.fork(&source, Fork::at(version)).await.unwrap();
        let first = engine.tree_at(fork.id(), 1).await.unwrap();
        assert_eq!(first.executions.len(), tree.executions.len(), "at {version}");
        for (of_fork, state) in first.executions.values().zip(tree.executions.values()) {
            let of_both = [of_fork, state].map(|state| &state.context);
            assert_eq!(of_both[0].fields, of_both[1].fields, "at {version}");
            let [counts, wanted] = of_both.map(|context| &context.operational);
            assert_eq!(counts.signals.len(), wanted.signals.len());
            assert_eq!(counts.nodes, wanted.nodes);
            assert_eq!(of_fork.main_execution_id(), fork.id());
        }
        soon(fork.wait()).await.unwrap();
        let ended = engine.tree(fork.id()).await.unwrap();
        assert_eq!(ended.executions.len(), 2, "forked at {version}");
        for number in 0..2 {
            let [of_fork, of_source] = [&ended, &end].map(|tree| come_to(tree.get(number).unwrap()));
            assert_eq!(of_fork, of_source, "execution {number}, forked at {version}");
        }
        assert_eq!(told(&engine, fork.id()).await, conversation, "forked at {version}");
        assert_eq!(
            root_of(&ended).context.operational.tool_calls,
            root_of(&end).context.operational.tool_calls
        );
    }
}

fn root_of(tree: &TreeState) -> &ExecutionState {
    tree.root_state().unwrap()
}

#[tokio::test]
async fn a_fork_of_any_version_comes_to_what_its_source_came_to() {
    forks_at_every_version(Schedule::Concurrent).await;
}

#[tokio::test]
async fn so_does_one_that_runs_one_node_at_a_time() {
    forks_at_every_version(Schedule::DepthFirst).await;
}

#[tokio::test]
async fn a_fork_of_a_resting_execution_rests_with_all_that_it_had() {
    let Lab { engine, store, .. } = lab().await;
    let source = soon(engine.orchestrate(flow(Schedule::Concurrent)))
        .await
        .unwrap()
        .execution;
    let before = engine.state(&source).await.unwrap();
    let fork = Fork::latest().id(id("copy")).field("bonus", 8).field("topic", "war");
    let fork = engine.fork(&source, fork).await.unwrap();
    assert_eq!(fork.status().await.unwrap().status, Status::Rested);
    let state = engine.state(fork.id()).await.unwrap();
    assert_eq!(state.context.history("topic").unwrap().len(), 2);
    assert_eq!(state.context.operational.tree.children, 1);
    let of_its_own = Operational {
        main_execution_id: Some(id("copy")),
        tree: state.context.operational.tree,
        ..before.context.operational.clone()
    };
    assert_eq!(state.context.operational, of_its_own);
    assert_eq!((state.active_us, state.next_run), (before.active_us, before.next_run));
    let definitions = engine.definitions(fork.id()).await.unwrap();
    assert_eq!(definitions.main_execution_id(), fork.id());
    assert_eq!(
        definitions.identities().await.unwrap()["poet"].as_ref(),
        "You are a poet."
    );
    assert_eq!(definitions.context_schema().await.unwrap().len(), 2);
    assert_eq!(engine.state(&source).await.unwrap(), before, "the source isn't changed");
    let tree = engine.tree(fork.id()).await.unwrap();
    let names: Vec<_> = tree.executions.values().map(|state| state.id.to_string()).collect();
    assert!(names.len() == 2 && names[1].starts_with("copy."), "{names:?}");

    // Nothing depends on the source.
    engine.delete(&source).await.unwrap();
    fork.signal(["AGAIN"]).await.unwrap();
    soon(fork.wait()).await.unwrap();
    assert_eq!(fork.context().await.unwrap().value("again"), Some(&16.into()));
    assert_eq!(told(&engine, fork.id()).await.len(), TURNS);

    // It can be forked in its turn, and read by another process.
    let second = engine.fork(fork.id(), Fork::at(1)).await.unwrap();
    assert_eq!(told(&engine, second.id()).await.len(), TURNS);
    let elsewhere = engine_on(store.backends(), &MockLlm::new());
    assert_eq!(
        elsewhere.state(second.id()).await.unwrap(),
        engine.state(second.id()).await.unwrap()
    );
    let events = engine.telemetry(second.id(), 0, 10).await.unwrap();
    assert!(matches!(
        &events[0].kind,
        EventKind::ExecutionForked { source_execution_id, version: 1 } if source_execution_id == fork.id()
    ));
}

#[tokio::test]
async fn what_a_tree_shared_is_what_it_shared_then() {
    let Lab { engine, .. } = lab().await;
    let source = soon(engine.orchestrate(flow(Schedule::Concurrent)))
        .await
        .unwrap()
        .execution;
    let rested = engine.tree(&source).await.unwrap().version;
    // Later than its last commit, whatever the clock's resolution.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let definitions = engine.definitions(&source).await.unwrap();
    let other = [("poet".into(), "You are a critic.".into())].into();
    definitions.replace_identities(&other).await.unwrap();
    definitions.replace_context_schema(&Default::default()).await.unwrap();
    let conversation = engine.conversation(&source).await.unwrap();
    let turns = conversation.turns().await.unwrap();
    conversation.replace(&turns[..1]).await.unwrap();
    // No commit has come since: the version says what was, and the present what is.
    let latest = engine.fork(&source, Fork::latest()).await.unwrap();
    assert_eq!(told(&engine, latest.id()).await.len(), 1);
    tokio::time::sleep(Duration::from_millis(2)).await;
    engine.broadcast_signals(&source, ["NOTHING"]).await.unwrap();
    soon(engine.wait(&source)).await.unwrap();

    let then = engine.fork(&source, Fork::at(rested)).await.unwrap();
    assert_eq!(told(&engine, then.id()).await.len(), TURNS);
    let shared = engine.definitions(then.id()).await.unwrap();
    assert_eq!(shared.identities().await.unwrap()["poet"].as_ref(), "You are a poet.");
    assert_eq!(shared.context_schema().await.unwrap().len(), 2);
    let last = engine.tree(&source).await.unwrap().version;
    let now = engine.fork(&source, Fork::at(last)).await.unwrap();
    assert_eq!(told(&engine, now.id()).await.len(), 1);
    let shared = engine.definitions(now.id()).await.unwrap();
    assert_eq!(shared.identities().await.unwrap()["poet"].as_ref(), "You are a critic.");
    assert!(shared.context_schema().await.unwrap().is_empty());
    let begin = engine.fork(&source, Fork::at(1)).await.unwrap();
    soon(begin.wait()).await.unwrap();
}

#[tokio::test]
async fn what_a_source_failed_with_is_tried_again() {
    let Lab { engine, llm, .. } = lab().await;
    let refuses =
        "flow: {N: {node_type: llm, event_triggers: [START], prompt: '{{ context.n }}', output_field: o, retries: 0}}";
    llm.on(node("N").prompt_contains("1"))
        .error(LlmErrorKind::Refused, "no");
    llm.on(node("N").prompt_contains("2")).output("yes");
    let config = Config::from_yaml(refuses).unwrap();
    let failing = Orchestration::new(config, "flow").signal("START").field("n", 1);
    let source = engine.start(failing).await.unwrap();
    soon(source.wait()).await.unwrap_err();
    let same = engine.fork(source.id(), Fork::latest()).await.unwrap();
    soon(same.wait()).await.unwrap_err();
    let other = engine.fork(source.id(), Fork::latest().field("n", 2)).await.unwrap();
    soon(other.wait()).await.unwrap();
    assert_eq!(other.context().await.unwrap().value("o"), Some(&"yes".into()));
    assert_eq!(source.status().await.unwrap().status, Status::Failed);
    engine.cancel(source.id()).await.unwrap();
    let cancelled = engine.fork(source.id(), Fork::latest()).await.unwrap();
    assert_eq!(cancelled.status().await.unwrap().status, Status::Rested);
}

/// The machine's state is what stores make of its commit, and the same fork is the same commit.
#[tokio::test]
async fn a_fork_is_what_its_first_commit_makes() {
    let Lab { engine, .. } = lab().await;
    let config = Config::from_yaml(FLOW).unwrap();
    for schedule in [Schedule::Concurrent, Schedule::DepthFirst] {
        let source = soon(engine.orchestrate(flow(schedule))).await.unwrap().execution;
        let end = engine.tree(&source).await.unwrap();
        for version in 1..=end.version {
            let fork = machine::Fork {
                id: id("fork"),
                source: engine.tree_at(&source, version).await.unwrap(),
                turns: Vec::new(),
                registries: vec![config.registry().clone()],
                fields: vec![("topic".into(), History::from_iter([Value::from("war")]))],
                limits: None,
            };
            let at = Timestamp::from_micros(1);
            let (machine, step) = Machine::fork(at, fork.clone(), machine::Specs::default()).unwrap();
            let commit = step.commit.unwrap();
            assert_eq!(TreeState::create(&commit).unwrap(), *machine.state(), "at {version}");
            let json = serde_json::to_string(&commit).unwrap();
            assert_eq!(serde_json::from_str::<Commit>(&json).unwrap(), commit);
            let again = Machine::fork(at, fork.clone(), machine::Specs::default()).unwrap();
            assert_eq!(again.1.commit.as_ref(), Some(&commit));
            let missing = machine::Fork {
                registries: Vec::new(),
                ..fork
            };
            let error = Machine::fork(at, missing, machine::Specs::default()).unwrap_err();
            assert!(matches!(error, machine::MachineError::MissingRegistry(_)), "{error}");
        }
    }
}

#[tokio::test]
async fn what_a_run_that_begins_anew_has_said_is_not_said_twice() {
    let Lab { engine, .. } = lab().await;
    let config = Config::from_yaml(FLOW).unwrap();
    let source = soon(engine.orchestrate(flow(Schedule::Concurrent)))
        .await
        .unwrap()
        .execution;
    let last = engine.tree(&source).await.unwrap().version;
    let mut told = 0;
    for version in 1..=last {
        let tree = engine.tree_at(&source, version).await.unwrap();
        let Some(run) = root_of(&tree)
            .runs
            .values()
            .find(|run| run.progress.dialogue().is_some())
        else {
            continue;
        };
        let turn = Turn {
            role: "tool".into(),
            tool_name: Some("double".into()),
            content: "10".into(),
            key: Some(format!("{source}:{}/0", run.number).into()),
        };
        let turns_with = |fields: Vec<(std::sync::Arc<str>, History)>| {
            let fork = machine::Fork {
                id: id("fork"),
                source: tree.clone(),
                turns: vec![turn.clone()],
                registries: vec![config.registry().clone()],
                fields,
                limits: None,
            };
            let (_, step) = Machine::fork(Timestamp::from_micros(1), fork, machine::Specs::default()).unwrap();
            step.commit.unwrap().turns.len()
        };
        assert_eq!(turns_with(Vec::new()), 1, "it goes on where it was");
        assert_eq!(
            turns_with(vec![("topic".into(), History::from_iter([Value::from("war")]))]),
            0
        );
        told += 1;
    }
    assert!(told > 3, "{told}");
}

#[tokio::test]
async fn the_rest_of_a_cascade_goes_on() {
    let Lab { engine, .. } = lab().await;
    let cascade = "flow: {Loop: {node_type: router, event_triggers: [START, MORE], event_emissions: [
        {signal_name: MORE, condition: '{{ context.__operational__.nodes.Loop < 3500 }}'},
        {signal_name: DONE, condition: '{{ context.__operational__.nodes.Loop >= 3500 }}'}]}}";
    let config = Config::from_yaml(cascade).unwrap();
    let source = Orchestration::new(config, "flow").signal("START");
    let source = soon(engine.orchestrate(source)).await.unwrap().execution;
    let end = engine.tree(&source).await.unwrap();
    assert!(end.version > 3, "it was cut into {} commits", end.version);
    for version in 1..=end.version {
        let fork = engine.fork(&source, Fork::at(version)).await.unwrap();
        soon(fork.wait()).await.unwrap();
        assert_eq!(
            come_to(&engine.state(fork.id()).await.unwrap()),
            come_to(root_of(&end)),
            "forked at {version}"
        );
    }
}

#[tokio::test]
async fn a_child_is_forked_with_its_tree_only() {
    let Lab { engine, .. } = lab().await;
    let source = soon(engine.orchestrate(flow(Schedule::Concurrent)))
        .await
        .unwrap()
        .execution;
    let child = engine.tree(&source).await.unwrap().get(1).unwrap().id.clone();
    let error = engine.fork(&child, Fork::latest()).await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::NotRoot { root: source.clone() });
    // What a child began with can be had for a tree of its own.
    let checker = Config::from_yaml(FLOW).unwrap();
    let alone = Orchestration::new(checker, "checker")
        .signal("GO")
        .inherit_context_from(child);
    let alone = soon(engine.orchestrate(alone)).await.unwrap().execution;
    assert_eq!(engine.history(&alone, "verdict").await.unwrap().len(), 2);
}

#[tokio::test]
async fn history_is_read_page_by_page_and_folds_to_each_state() {
    let Lab { engine, .. } = lab().await;
    let source = soon(engine.orchestrate(flow(Schedule::Concurrent)))
        .await
        .unwrap()
        .execution;
    let mut commits = Vec::new();
    loop {
        let from = commits.last().map_or(0, |commit: &Commit| commit.version + 1);
        let page = engine.commits(&source, from, 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        commits.extend(page);
    }
    let mut state = TreeState::create(&commits[0]).unwrap();
    for commit in &commits[1..] {
        state.apply(commit).unwrap();
        assert_eq!(*engine.tree_at(&source, commit.version).await.unwrap(), state);
        let context = engine.context_at(&source, commit.version).await.unwrap();
        assert_eq!(context, root_of(&state).context);
    }
    assert_eq!(state, *engine.tree(&source).await.unwrap());
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let Lab { engine, llm, .. } = lab().await;
    let source = soon(engine.orchestrate(flow(Schedule::Concurrent)))
        .await
        .unwrap()
        .execution;
    let last = engine.tree(&source).await.unwrap().version;
    for version in [0, last + 1, u64::MAX] {
        let error = engine.tree_at(&source, version).await.unwrap_err();
        assert_eq!(*error.kind(), EngineErrorKind::NoSuchVersion { version, last });
        assert!(
            error.to_string().contains(&format!("versions are 1 to {last}")),
            "{error}"
        );
        assert!(engine.fork(&source, Fork::at(version)).await.is_err());
    }
    let nobody = id("nobody");
    for error in [
        engine.tree_at(&nobody, 1).await.unwrap_err(),
        engine.commits(&nobody, 0, 1).await.unwrap_err(),
        engine.fork(&nobody, Fork::latest()).await.unwrap_err(),
    ] {
        assert_eq!(*error.kind(), EngineErrorKind::NotFound);
    }
    let refused = |error: EngineError| assert_eq!(*error.kind(), EngineErrorKind::Refused, "{error}");
    refused(
        engine
            .fork(&source, Fork::at(1).field("__operational__", 1))
            .await
            .unwrap_err(),
    );
    refused(engine.fork(&source, Fork::at(1).id(id("x.1.0"))).await.unwrap_err());
    let taken = engine.fork(&source, Fork::at(1).id(source.clone())).await.unwrap_err();
    assert_eq!(*taken.kind(), EngineErrorKind::AlreadyExists);
    let small = Limits {
        context_bytes: 10,
        ..Limits::default()
    };
    refused(
        engine
            .fork(&source, Fork::at(1).field("n", "12345678901").limits(small))
            .await
            .unwrap_err(),
    );

    let folder = tempfile::tempdir().unwrap();
    for backends in [Backends::memory(), Backends::file(folder.path()).unwrap()] {
        let engine = engine_on(backends, &llm);
        let source = soon(engine.orchestrate(flow(Schedule::Concurrent)))
            .await
            .unwrap()
            .execution;
        let last = engine.tree(&source).await.unwrap().version;
        for error in [
            engine.commits(&source, 0, 1).await.unwrap_err(),
            engine.tree_at(&source, 1).await.unwrap_err(),
            engine.fork(&source, Fork::at(1)).await.unwrap_err(),
        ] {
            assert_eq!(*error.kind(), EngineErrorKind::Unsupported);
            assert!(format!("{error:#}").contains("SQLite"), "{error:#}");
        }
        // The present can be had, and forked, everywhere.
        engine.tree_at(&source, last).await.unwrap();
        let fork = engine.fork(&source, Fork::at(last).field("bonus", 1)).await.unwrap();
        fork.signal(["AGAIN"]).await.unwrap();
        soon(fork.wait()).await.unwrap();
        assert_eq!(fork.context().await.unwrap().value("again"), Some(&2.into()));
        assert_eq!(told(&engine, fork.id()).await, told(&engine, &source).await);
    }
}

#[tokio::test]
async fn a_fork_survives_its_process() {
    let Lab { engine, store, llm } = lab().await;
    let never = |_: serde_json::Value, _: ToolContext| std::future::pending::<Result<serde_json::Value, ToolError>>();
    let hanging = Engine::builder().backends(store.backends()).llm(llm.clone());
    let hanging = hanging.tool(raw_tool("double", "", never)).build().unwrap();
    let source = soon(engine.orchestrate(flow(Schedule::Concurrent)))
        .await
        .unwrap()
        .execution;
    let fork = hanging.fork(&source, Fork::at(1)).await.unwrap();
    hanging.shutdown(Duration::ZERO).await;
    let recovered = engine.recover().await.unwrap();
    assert_eq!(recovered.taken_up, 1, "{recovered:?}");
    soon(engine.wait(fork.id())).await.unwrap();
    let (ended, end) = (
        engine.state(fork.id()).await.unwrap(),
        engine.state(&source).await.unwrap(),
    );
    assert_eq!(come_to(&ended), come_to(&end));
}

fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}
