//! Properties: collections against the ones that they resemble, and states against what their commits say.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "helpers of tests are tests too"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use proptest::prelude::*;
use soe_backends::{
    Answer, Change, Commit, Context, DialogueStep, Entry, ExecutionId, ExecutionState, Genesis, Limits, OrderedMap,
    Progress, RegistryId, Run, Schedule, SignalLog, Stage, Timestamp, Usage, Value,
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

/// One change; numbers are relative to what is in flight, so that most changes fit, not all.
#[derive(Clone, Debug)]
enum Step {
    Dispatch { wrong: bool },
    Finish(usize),
    Progress(usize),
    Dialogue(usize),
    Answer(usize, bool),
    Append(Arc<str>, i64),
    Broadcast(Arc<str>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::bool::weighted(0.02).prop_map(|wrong| Step::Dispatch { wrong }),
        4 => (0..12_usize).prop_map(Step::Finish),
        1 => (0..8_usize).prop_map(Step::Progress),
        2 => (0..12_usize).prop_map(Step::Dialogue),
        2 => (0..12_usize, any::<bool>()).prop_map(|(n, foreign)| Step::Answer(n, foreign)),
        2 => (name(), any::<i64>()).prop_map(|(name, value)| Step::Append(name, value)),
        1 => name().prop_map(Step::Broadcast),
    ]
}

/// Batches of commits of changes.
fn batches() -> impl Strategy<Value = Vec<Vec<Vec<Step>>>> {
    let commit = prop::collection::vec(step(), 0..5);
    prop::collection::vec(prop::collection::vec(commit, 1..4), 0..12)
}

fn commit(version: u64, changes: Vec<Change>) -> Commit {
    Commit {
        execution: ExecutionId::new("a").unwrap(),
        version,
        at: Timestamp::from_micros(version),
        changes,
        registry: None,
        definitions: None,
        turns: None,
        events: Vec::new(),
    }
}

fn created() -> ExecutionState {
    let genesis = Genesis {
        workflow: "w".into(),
        registry: RegistryId::from_digest([1; 32]),
        main_execution_id: ExecutionId::new("a").unwrap(),
        parent: None,
        schedule: Schedule::Concurrent,
        limits: Limits::default().into(),
        fields: Vec::new(),
        context_bytes: 0,
        forked: None,
    };
    ExecutionState::create(&commit(1, vec![Change::Created(Box::new(genesis))])).unwrap()
}

/// The commit of `steps` after `version`; `next_run` and `in_flight` are what the commits before left.
fn make(version: u64, steps: Vec<Step>, next_run: &mut u64, in_flight: &mut Vec<u64>) -> Commit {
    let pick = |in_flight: &[u64], n: usize| in_flight.get(n % in_flight.len().max(1)).copied().unwrap_or(999);
    let mut changes = Vec::new();
    for step in steps {
        changes.push(match step {
            Step::Dispatch { wrong } => {
                let number = *next_run + u64::from(wrong);
                in_flight.push(number);
                *next_run += 1;
                let dispatch = match number % 4 {
                    0 => Change::Restarted,
                    _ => Change::Dispatched,
                };
                dispatch(std::sync::Arc::new(Run {
                    number,
                    node: "n".into(),
                    workflow: "w".into(),
                    registry: RegistryId::from_digest([1; 32]),
                    snapshot: version + 1,
                    started_at: Timestamp::from_micros(0),
                    progress: match number % 3 {
                        0 => Progress::Custom,
                        1 => Progress::Llm(Box::default()),
                        _ => Progress::Agent(Box::default()),
                    },
                }))
            }
            Step::Finish(_) if in_flight.is_empty() => Change::Error,
            // Beyond the tenth: one that is finished already, or never was.
            Step::Finish(n) if n >= 11 => Change::Finished { run: *next_run + 5 },
            Step::Finish(n) => {
                let run = pick(in_flight, n);
                in_flight.retain(|other| *other != run);
                Change::Finished { run }
            }
            Step::Progress(n) => Change::Progressed {
                run: pick(in_flight, n),
                progress: Progress::Tool { attempt: n as u32 },
            },
            Step::Dialogue(n) => Change::Dialogue {
                run: if n >= 11 { *next_run + 5 } else { pick(in_flight, n) },
                step: dialogue_step(n),
            },
            Step::Answer(n, foreign) => Change::Answered(Arc::new(Answer {
                execution: foreign.then(|| ExecutionId::new("b").unwrap()),
                run: if n >= 11 { *next_run + 5 } else { pick(in_flight, n) },
                index: (n % 2 == 0).then_some(3),
                value: Value::from(n as u64),
            })),
            Step::Append(field, value) => Change::Appended {
                field,
                value: value.into(),
                size: 24,
            },
            Step::Broadcast(signal) => Change::Broadcast([signal].into()),
        });
    }
    commit(version + 1, changes)
}

fn dialogue_step(n: usize) -> DialogueStep {
    match n % 4 {
        0 => DialogueStep::Asked,
        1 => DialogueStep::Replied {
            usage: Some(Usage {
                prompt_tokens: n as u64,
                completion_tokens: 1,
            }),
        },
        2 => DialogueStep::Entry(Entry::Failed {
            index: 7,
            tool: "t".into(),
            error: "no".into(),
        }),
        _ => DialogueStep::Question(Stage::Router.into()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn commits_fit_exactly_if_they_can_be_applied_and_snapshots_are_those_of_runs_in_flight(batches in batches()) {
        let mut state = created();
        let mut contexts = BTreeMap::new();
        for batch in batches {
            let (mut next_run, mut in_flight) = (state.next_run, state.runs.keys().copied().collect());
            let versions = state.version..;
            let commits: Vec<_> =
                batch.into_iter().zip(versions).map(|(steps, v)| make(v, steps, &mut next_run, &mut in_flight)).collect();
            let mut after = state.clone();
            let mut contexts_after = contexts.clone();
            let applied = commits.iter().try_for_each(|commit| {
                after.apply(commit)?;
                contexts_after.insert(after.version, after.context.clone());
                Ok(())
            });
            prop_assert_eq!(state.fits(&commits), applied.clone());
            if applied.is_err() {
                continue;
            }
            (state, contexts) = (after, contexts_after);
            let mut referred: Vec<_> = state.runs.values().map(|run| run.snapshot).collect();
            referred.dedup();
            prop_assert_eq!(state.snapshots.keys().copied().collect::<Vec<_>>(), referred);
            for (version, snapshot) in &state.snapshots {
                prop_assert_eq!(snapshot, &contexts[version]);
            }
        }
        let json = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<ExecutionState>(&json).unwrap(), state);
    }
}
