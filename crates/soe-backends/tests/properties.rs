//! Properties: collections against the ones that they resemble, and states against what their commits say.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "helpers of tests are tests too"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::executor::block_on;
use indexmap::IndexMap;
use proptest::prelude::*;
use soe_backends::conformance::arbitrary;
use soe_backends::{
    BackendErrorKind, Change, Commit, Context, ContextBackend, ExecutionId, Genesis, Limits, MemoryStore, OrderedMap,
    RegistryId, Schedule, SignalLog, Status, Timestamp, TreeGenesis, TreeState, Value, stored,
};

/// Few enough names that they repeat, many enough that a map is indexed.
fn name() -> impl Strategy<Value = Arc<str>> {
    (0..20_u8).prop_map(|n| Arc::from(format!("name-{n}")))
}

fn check_map(map: &OrderedMap<u64>, model: &IndexMap<Arc<str>, u64>) {
    assert_eq!(map.len(), model.len());
    assert_eq!(map.is_empty(), model.is_empty());
    assert!(map.iter().eq(model.iter()), "the order of insertion");
    for (position, (name, value)) in model.iter().enumerate() {
        assert_eq!(map.get(name), Some(value));
        assert_eq!(map.position(name), Some(position));
        assert_eq!(map.get_at(position), Some((name, value)));
    }
    assert_eq!(map.get("missing"), None);
    assert_eq!(map.get_at(model.len()), None);
}

proptest! {
    #[test]
    fn an_ordered_map_is_an_index_map_and_its_clones_stay(
        steps in prop::collection::vec((name(), any::<u64>(), any::<bool>()), 0..60),
    ) {
        let (mut map, mut model) = (OrderedMap::default(), IndexMap::new());
        let mut clones = Vec::new();
        for (name, value, insert) in steps {
            clones.push((map.clone(), model.clone()));
            if insert {
                map.insert(name.clone(), value);
                model.insert(name, value);
            } else {
                let entry = map.entry(&name);
                *entry = entry.wrapping_add(value);
                let entry = model.entry(name).or_default();
                *entry = entry.wrapping_add(value);
            }
        }
        check_map(&map, &model);
        clones.iter().for_each(|(map, model)| check_map(map, model));
        let json = serde_json::to_string(&map).unwrap();
        prop_assert_eq!(&json, &serde_json::to_string(&model).unwrap());
        prop_assert_eq!(serde_json::from_str::<OrderedMap<u64>>(&json).unwrap(), map);
    }

    #[test]
    fn a_signal_log_is_a_list_and_its_clones_stay(signals in prop::collection::vec(name(), 0..60)) {
        let mut log = SignalLog::default();
        let mut clones = Vec::new();
        for signal in &signals {
            clones.push(log.clone());
            log.push(signal.clone());
        }
        clones.push(log.clone());
        for (length, log) in clones.iter().enumerate() {
            let expected = &signals[..length];
            prop_assert_eq!(log.len(), length);
            prop_assert_eq!(log.is_empty(), length == 0);
            prop_assert!(log.iter().eq(expected.iter()));
            prop_assert_eq!(log.get(length), None);
            for number in 0..20 {
                let name = format!("name-{number}");
                prop_assert_eq!(log.contains(&name), expected.iter().any(|signal| **signal == *name));
            }
        }
        let json = serde_json::to_string(&log).unwrap();
        prop_assert_eq!(serde_json::from_str::<SignalLog>(&json).unwrap(), log);
    }

    #[test]
    fn a_held_context_is_not_touched_by_later_writes(writes in prop::collection::vec((name(), any::<i64>()), 0..60)) {
        let (mut context, mut held) = (Context::default(), Vec::new());
        let mut model: IndexMap<Arc<str>, Vec<Value>> = IndexMap::new();
        for (field, value) in writes {
            held.push((context.clone(), model.clone()));
            context.append(&field, value.into());
            model.entry(field).or_default().push(value.into());
        }
        held.push((context, model));
        for (context, model) in held {
            prop_assert_eq!(context.fields.len(), model.len());
            for ((name, history), (expected, values)) in context.fields.iter().zip(&model) {
                prop_assert_eq!(name, expected);
                prop_assert!(history.iter().eq(values.iter()));
                prop_assert_eq!(context.value(name), values.last());
            }
        }
    }
}

/// Commits, each of changes by numbers.
fn commits() -> impl Strategy<Value = Vec<Vec<u64>>> {
    prop::collection::vec(prop::collection::vec(any::<u64>(), 0..6), 0..25)
}

fn commit(state: Option<&TreeState>, changes: Vec<Change>) -> Commit {
    let version = state.map_or(0, |state| state.version) + 1;
    Commit {
        tree: ExecutionId::new("a").unwrap(),
        version,
        fence: state.map_or(0, TreeState::fence),
        at: Timestamp::from_micros(version),
        changes,
        registries: Vec::new(),
        definitions: None,
        turns: Vec::new(),
        events: Vec::new(),
    }
}

fn creation() -> Commit {
    let genesis = TreeGenesis {
        schedule: Schedule::Concurrent,
        limits: Limits::default().into(),
        definitions: Arc::default(),
        root: Genesis {
            id: ExecutionId::new("a").unwrap(),
            origin: None,
            workflow: "w".into(),
            registry: RegistryId::from_digest([1; 32]),
            parent: None,
            fields: Vec::new(),
            context_bytes: 0,
        },
    };
    commit(None, vec![Change::Created(Box::new(genesis))])
}

/// A state as text, whatever it shares with others.
fn text(state: &TreeState) -> String {
    stored::write_tree(state).unwrap()
}

/// What holds in every state.
fn check_state(state: &TreeState) {
    assert_eq!(state.used.children + 1, state.executions.len() as u64);
    for (number, execution) in state.executions.iter() {
        assert_eq!(
            (execution.number, state.number_of(&execution.id)),
            (number, Some(number))
        );
        let mut referred: Vec<_> = execution.runs.values().map(|run| run.snapshot).collect();
        referred.dedup();
        assert_eq!(
            execution.snapshots.keys().collect::<Vec<_>>(),
            referred,
            "snapshots are those of runs in flight"
        );
        let children = execution.children.iter().flat_map(|children| children.numbers());
        let running = children.filter(|child| state.get(*child).is_some_and(|child| child.status == Status::Running));
        assert_eq!(execution.active_children(), running.count() as u64);
        assert_eq!(
            state
                .subtree(number)
                .filter(|below| !state.is_within(below.number, number))
                .count(),
            0
        );
    }
}

/// Remembers the contexts that runs are dispatched on.
fn remember(contexts: &mut BTreeMap<(u64, u64), Arc<Context>>, before: &TreeState, after: &TreeState) {
    for (number, execution) in after.executions.iter() {
        for (run, context) in execution.snapshots.iter() {
            let known = before.get(number).is_some_and(|before| before.snapshots.contains(run));
            if known {
                assert_eq!(
                    context,
                    &contexts[&(number, run)],
                    "the snapshot of run {run} of execution {number} changed"
                );
            } else {
                contexts.insert((number, run), Arc::new((**context).clone()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn a_store_holds_the_fold_of_its_commits_and_clones_stay(commits in commits()) {
        let (given, left) = (MemoryStore::new(), MemoryStore::new());
        let first = creation();
        let mut state = TreeState::create(&first).unwrap();
        block_on(given.commit(vec![first.clone()], Some(Arc::new(state.clone())))).unwrap();
        block_on(left.commit(vec![first], None)).unwrap();
        let (mut held, mut contexts) = (Vec::new(), BTreeMap::new());
        for picks in commits {
            let next = commit(Some(&state), arbitrary::changes(&state, picks));
            held.push((state.clone(), text(&state)));
            let before = state.clone();
            state.apply(&next).unwrap();
            remember(&mut contexts, &before, &state);
            block_on(given.commit(vec![next.clone()], Some(Arc::new(state.clone())))).unwrap();
            block_on(left.commit(vec![next], None)).unwrap();
        }
        check_state(&state);
        for store in [given, left] {
            let loaded = block_on(store.load(&state.root)).unwrap().unwrap();
            prop_assert_eq!(&*loaded, &state);
            prop_assert_eq!(text(&loaded), text(&state));
        }
        for (state, before) in held {
            prop_assert_eq!(text(&state), before, "a clone that was held is touched by later commits");
        }
        let json = text(&state);
        let read = stored::read_tree(json.as_bytes()).unwrap();
        prop_assert_eq!(&read, &state);
        prop_assert_eq!(text(&read), json);
        let plain = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<TreeState>(&plain).unwrap(), state);
    }

    #[test]
    fn a_commit_survives_its_json(commits in commits()) {
        let mut state = TreeState::create(&creation()).unwrap();
        for picks in commits {
            let next = commit(Some(&state), arbitrary::changes(&state, picks));
            let json = stored::write(&next).unwrap();
            prop_assert_eq!(&stored::read::<Commit>(json.as_bytes()).unwrap(), &next);
            state.apply(&next).unwrap();
        }
    }

    #[test]
    fn what_does_not_fit_changes_nothing(commits in commits(), other in prop::collection::vec(any::<u64>(), 1..40)) {
        let store = MemoryStore::new();
        let first = creation();
        let mut state = TreeState::create(&first).unwrap();
        let mut foreign = state.clone();
        block_on(store.commit(vec![first], None)).unwrap();
        for picks in commits {
            // Changes of another tree that went its own way: some fit by chance, most don't.
            let changes = arbitrary::changes(&foreign, picks.iter().copied().chain(other.iter().copied()));
            changes.iter().for_each(|change| foreign.change(change, Timestamp::from_micros(1)).unwrap());
            let next = commit(Some(&state), changes);
            let mut after = state.clone();
            let applied = after.apply(&next);
            let stored = block_on(store.commit(vec![next], None));
            prop_assert_eq!(stored.as_ref().err().map(|error| error.kind()), applied.err().map(|_| BackendErrorKind::Corrupt));
            if stored.is_ok() {
                state = after;
            }
            let loaded = block_on(store.load(&state.root)).unwrap().unwrap();
            prop_assert_eq!(&*loaded, &state);
            let own = commit(Some(&state), arbitrary::changes(&state, picks));
            state.apply(&own).unwrap();
            block_on(store.commit(vec![own], None)).unwrap();
        }
    }
}
