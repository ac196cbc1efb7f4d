//! Changes that nobody thought up, but that fit: for sequences of commits by chance.

use std::sync::Arc;

use super::fixture::{at, child_of, field, frame, registry, run, time};
use crate::state::Batch;
use crate::{
    Accepted, Answer, Change, Definitions, Delivery, DialogueStep, Entry, ExecutionChange, ExecutionState, Failure,
    Frame, Limits, Owed, Owner, Progress, Run, Spawn, Spawning, Status, Stopped, Then, TreeState, TreeTotals, Usage,
    Value, WorkChange, WorkflowEdit, WorkflowVersion,
};

/// Numbers by chance: the same each time.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The lower bits of such numbers are the worse ones.
        self.0.rotate_left(32)
    }
}

/// Changes that fit a state, by numbers: the same ones for the same state and numbers. Each of them fits what those before it
/// make of the state.
pub fn changes(state: &TreeState, picks: impl IntoIterator<Item = u64>) -> Vec<Change> {
    let (mut state, mut all) = (state.clone(), Vec::new());
    for pick in picks {
        for change in some(&state, pick) {
            // What doesn't fit is left out; the state is as it was then.
            let mut after = state.clone();
            if after.change(&change, time(0)).is_ok() {
                state = after;
                all.push(change);
            }
        }
    }
    all
}

fn some(state: &TreeState, pick: u64) -> Vec<Change> {
    let count = state.executions.len().max(1) as u64;
    let (kind, pick) = (pick % 32, pick / 32);
    let (number, pick) = (pick % count, pick / count % 1_000_000);
    let Some(execution) = state.get(number) else {
        return Vec::new();
    };
    let one = match kind {
        0..=3 => return dispatch(execution, pick),
        4..=7 => pick_run(execution, pick).map(|run| at(number, ExecutionChange::Finished { run })),
        8..=10 => Some(child(state, execution, pick)),
        11..=13 => Some(append(number, pick)),
        14 | 15 => of_run(execution, pick).map(|change| at(number, change)),
        16..=22 => Some(at(number, of_execution(execution, kind, pick))),
        23..=26 => Some(Change::Work(Box::new(of_work(state, number, pick)))),
        _ => Some(of_tree(state, kind, pick)),
    };
    one.into_iter().collect()
}

/// Up to three runs, and the context that they read.
fn dispatch(execution: &ExecutionState, pick: u64) -> Vec<Change> {
    let first = execution.next_run;
    let begun = |number: u64| Run {
        progress: match (number + pick) % 5 {
            0 => Progress::Tool { attempt: 1 },
            1 => Progress::Custom,
            2 => Progress::Llm(Box::default()),
            3 => Progress::Agent(Box::default()),
            _ => Progress::Child(Spawning::default()),
        },
        ..(*run(number, first)).clone()
    };
    let dispatched = (first..=first + pick % 3).map(|number| match pick % 16 {
        0 => ExecutionChange::Restarted(Arc::new(begun(number))),
        _ => ExecutionChange::Dispatched(Arc::new(begun(number))),
    });
    let snapshot = ExecutionChange::Snapshot { run: first };
    let all = dispatched.chain([snapshot]);
    all.map(|change| at(execution.number, change)).collect()
}

fn pick_run(execution: &ExecutionState, pick: u64) -> Option<u64> {
    let runs = execution.runs.len().max(1) as u64;
    execution.runs.keys().nth((pick % runs) as usize)
}

fn child(state: &TreeState, parent: &ExecutionState, pick: u64) -> Change {
    let run = 1 + pick % 3;
    let of_run = parent.children.as_ref().and_then(|children| children.by_run.get(run));
    let place = of_run.map_or(0, |of_run| of_run.len() as u64);
    let number = state.executions.len() as u64;
    child_of(&state.root, (parent.number, &parent.id), run, place, number)
}

fn append(execution: u64, pick: u64) -> Change {
    let value = match pick % 4 {
        0 => Value::from(pick),
        1 => Value::from(format!("text {pick} ü")),
        2 => Value::list([Value::from(pick), Value::Null]),
        _ => Value::map([("a", Value::from(pick)), ("b", Value::from(0.1))]),
    };
    let change = ExecutionChange::Appended {
        field: ["a", "b", "c", "result"][(pick / 4 % 4) as usize].into(),
        size: value.size(),
        value,
        delivered: pick.is_multiple_of(3),
    };
    at(execution, change)
}

/// A step of a run in flight.
fn of_run(execution: &ExecutionState, pick: u64) -> Option<ExecutionChange> {
    let run = pick_run(execution, pick / 8)?;
    let step = match pick % 8 {
        0 => {
            let progress = Progress::Tool {
                attempt: 2 + (pick % 5) as u32,
            };
            return Some(ExecutionChange::Progressed { run, progress });
        }
        1 => {
            return Some(ExecutionChange::Answered(Arc::new(Answer {
                execution: (pick.is_multiple_of(3)).then(|| execution.id.clone()),
                run,
                index: (pick.is_multiple_of(2)).then_some(3),
                value: Value::from(pick),
            })));
        }
        2 | 3 => DialogueStep::Asked,
        4 | 5 => DialogueStep::Replied {
            usage: Some(Usage {
                prompt_tokens: pick,
                completion_tokens: 1,
            }),
        },
        6 => DialogueStep::Failure,
        _ => DialogueStep::Entry(Entry::Failed {
            index: 7,
            tool: "search".into(),
            error: "no".into(),
        }),
    };
    Some(ExecutionChange::Dialogue { run, step })
}

fn of_execution(execution: &ExecutionState, kind: u64, pick: u64) -> ExecutionChange {
    const STATUSES: [Status; 4] = [Status::Running, Status::Rested, Status::Failed, Status::Cancelled];
    match kind {
        16 | 17 => {
            let status = STATUSES[(pick % 4) as usize];
            ExecutionChange::Status {
                status,
                at: time(pick % 100),
                failure: (status == Status::Failed).then(|| {
                    Arc::new(Failure {
                        message: "it broke".to_owned(),
                        node: Some("node".into()),
                        limit: None,
                    })
                }),
            }
        }
        18 => ExecutionChange::Broadcast(batch(pick)),
        19 => ExecutionChange::Routed { node: "route".into() },
        20 => match pick % 3 {
            0 => ExecutionChange::Error,
            1 => ExecutionChange::ToolCalled,
            _ => ExecutionChange::Used(TreeTotals {
                llm_calls: pick,
                tokens: pick,
                ..TreeTotals::default()
            }),
        },
        21 => match pick % 3 {
            0 => ExecutionChange::Sent,
            1 => ExecutionChange::Stopped((pick.is_multiple_of(2)).then(|| Arc::new(stopped(execution.number, pick)))),
            _ => {
                let (_, history) = field("a", [Value::Null, Value::from(pick)]);
                ExecutionChange::Replaced {
                    field: "a".into(),
                    history,
                    before: 0,
                    size: 60,
                }
            }
        },
        _ => ExecutionChange::Registry(Box::new(WorkflowVersion {
            number: execution.workflow_version() + 1,
            registry: registry((pick % 5) as u8),
            at: time(pick % 100),
            edit: WorkflowEdit::Reverted { to: 0 },
            by: None,
        })),
    }
}

fn stopped(execution: u64, pick: u64) -> Stopped {
    let signals = batch(pick);
    Stopped {
        stack: vec![frame(1)],
        deliveries: Vec::new(),
        accepted: vec![Accepted { execution, signals }],
    }
}

fn batch(pick: u64) -> Batch {
    let all = ["A", "B", "C ü"].map(Arc::from);
    all[(pick % 3) as usize..].into()
}

fn of_work(state: &TreeState, execution: u64, pick: u64) -> WorkChange {
    let old = &state.work;
    let delivery = Arc::new(Delivery {
        child: execution,
        signals: (pick.is_multiple_of(2)).then(|| batch(pick)),
        updates: vec![("result".into(), Value::from(pick))],
        ..Delivery::default()
    });
    let top = Frame {
        execution,
        then: match pick % 3 {
            0 => None,
            1 => Some(Box::new(Then::Deliver(batch(pick)))),
            _ => Some(Box::new(Then::Spawn { run: pick % 7 })),
        },
        ..frame((pick % 5) as usize)
    };
    let signals = batch(pick);
    WorkChange {
        kept: old.stack.len().saturating_sub((pick % 3) as usize),
        frames: vec![top; (pick / 3 % 3) as usize],
        delivered: old.deliveries.len().min((pick / 9 % 3) as usize),
        deliveries: vec![delivery; (pick / 27 % 3) as usize],
        spawns: (pick.is_multiple_of(2)).then(|| vec![Spawn { execution, run: pick }]),
        taken: old.accepted.len().min((pick / 81 % 3) as usize),
        accepted: vec![Accepted { execution, signals }; (pick / 243 % 2) as usize],
    }
}

fn of_tree(state: &TreeState, kind: u64, pick: u64) -> Change {
    match kind {
        27 => Change::Limits(Arc::new(Limits {
            runs: pick,
            llm_calls: Some(pick),
            ..Limits::default()
        })),
        28 => Change::Defined(Arc::new(Definitions {
            identities: [("helper".into(), format!("prompt {pick}").into())].into(),
            context_schema: [("b".into(), Value::from(pick)), ("a".into(), Value::Null)].into(),
        })),
        29 => Change::Owned(Owner {
            process: format!("process-{}", pick % 3).into(),
            fence: state.fence() + 1,
        }),
        30 => Change::Owed(Box::new(Owed {
            definitions: pick.is_multiple_of(2),
            turns: vec![super::conversations::turn("owed", Some(&format!("owed/{pick}")))],
            events: vec![super::fixture::event(&state.root, pick)],
        })),
        _ => Change::Paid {
            definitions: pick.is_multiple_of(2),
            turns: (pick % 3) as usize,
            events: (pick % 2) as usize,
        },
    }
}
