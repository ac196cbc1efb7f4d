//! What the checks are written with.

use std::error::Error as _;
use std::sync::Arc;

use super::{Finding, Outcome, ensure};
use crate::{
    BackendError, BackendErrorKind, Backends, Change, Commit, EditedBy, Event, EventKind, ExecutionId, ExecutionState,
    Frame, Genesis, History, Limits, ParentInfo, Progress, RegistryDocument, RegistryId, Run, Schedule, Timestamp,
    Value, WorkflowEdit, WorkflowVersion,
};

/// Turns an error of a store into a violation.
pub(super) trait Must<T> {
    fn must(self, what: &str) -> Result<T, Finding>;
}

impl<T> Must<T> for Result<T, BackendError> {
    fn must(self, what: &str) -> Result<T, Finding> {
        self.map_err(|error| Finding::Violated(format!("{what} failed: {}", explain(&error))))
    }
}

fn explain(error: &BackendError) -> String {
    match error.source() {
        Some(source) => format!("{error} ({:?}; because: {source})", error.kind()),
        None => format!("{error} ({:?})", error.kind()),
    }
}

/// The conflict that a commit must end in.
pub(super) fn must_conflict(result: Result<(), BackendError>, id: &ExecutionId, what: &str) -> Outcome {
    match result {
        Ok(()) => Err(Finding::Violated(format!("{what} was stored"))),
        Err(error) => {
            let kind = error.kind();
            ensure!(
                kind == BackendErrorKind::Conflict,
                "{what} is no conflict, but: {}",
                explain(&error)
            );
            ensure!(
                error.about() == Some(id),
                "the conflict of {what} doesn't say which execution it is about"
            );
            Ok(())
        }
    }
}

pub(super) fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).expect("the suite uses valid ids only")
}

pub(super) fn time(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_001 + seconds * 1_000_000)
}

pub(super) fn registry(number: u8) -> RegistryId {
    RegistryId::from_digest([number; 32])
}

/// A version of an execution's workflows that a node made.
pub(super) fn version(registry: &RegistryId) -> Box<WorkflowVersion> {
    Box::new(WorkflowVersion {
        number: 1,
        registry: registry.clone(),
        at: time(5),
        edit: WorkflowEdit::Changed {
            workflow_name: "main_workflow".into(),
            changed_node: Some("nöde".into()),
        },
        by: Some(EditedBy {
            node_name: "changer".into(),
            run: 3,
            tool_name: "soe_inject_node".into(),
        }),
    })
}

pub(super) fn document(number: u8) -> RegistryDocument {
    let node = Value::map([
        ("node_type", Value::from("router")),
        ("number", Value::from(u32::from(number))),
    ]);
    let workflow = Value::map([("zeta", node.clone()), ("alpha", node)]);
    RegistryDocument {
        id: registry(number),
        workflows: Value::map([("main_workflow", workflow)]),
    }
}

pub(super) fn genesis(main: &ExecutionId) -> Genesis {
    Genesis {
        workflow: "main_workflow".into(),
        registry: registry(1),
        main_execution_id: main.clone(),
        parent: None,
        schedule: Schedule::Concurrent,
        limits: Arc::new(Limits::default()),
        fields: Vec::new(),
        context_bytes: 0,
        forked: None,
    }
}

pub(super) fn created(main: &ExecutionId) -> Change {
    Change::Created(Box::new(genesis(main)))
}

/// The creation of a child.
pub(super) fn child_of(parent: &ExecutionId, main: &ExecutionId) -> Change {
    let info = ParentInfo {
        parent_execution_id: parent.clone(),
        main_execution_id: main.clone(),
        signals_to_parent: vec!["DONE".into()],
        context_updates_to_parent: vec!["result".into()],
        depth: 1,
    };
    Change::Created(Box::new(Genesis {
        parent: Some(Arc::new(info)),
        ..genesis(main)
    }))
}

pub(super) fn appended(field: &str, value: impl Into<Value>) -> Change {
    let value = value.into();
    Change::Appended {
        field: field.into(),
        size: value.size(),
        value,
    }
}

pub(super) fn field(name: &str, values: impl IntoIterator<Item = Value>) -> (Arc<str>, History) {
    (name.into(), values.into_iter().collect())
}

pub(super) fn broadcast(signals: &[&str]) -> Change {
    Change::Broadcast(signals.iter().map(|signal| Arc::from(*signal)).collect())
}

pub(super) fn frame(next: usize) -> Frame {
    Frame {
        signals: [Arc::from("A"), Arc::from("B")].into(),
        registry: registry(2),
        next,
        then: None,
    }
}

/// The dispatch of run `number` in the commit that makes `version`.
pub(super) fn dispatched(number: u64, version: u64) -> Change {
    Change::Dispatched(Arc::new(Run {
        number,
        node: format!("node_{}", number % 3).into(),
        workflow: "main_workflow".into(),
        registry: registry(1),
        snapshot: version,
        started_at: time(version),
        progress: if number.is_multiple_of(2) {
            Progress::Custom
        } else {
            Progress::Tool { attempt: 1 }
        },
    }))
}

pub(super) fn event(seq: u64) -> Event {
    let kind = match seq % 3 {
        0 => EventKind::SignalsBroadcast {
            signals: [Arc::from("START")].into(),
        },
        1 => EventKind::ContextUpdated {
            field: format!("field_{seq}").into(),
            length: seq,
        },
        _ => EventKind::ContextWarning {
            node_name: "join".into(),
            message: "line one\nline two \u{0} ü 🦀".into(),
        },
    };
    Event {
        seq,
        time: time(seq),
        kind,
    }
}

/// Writes one execution through a store and keeps what its state has to be.
pub(super) struct Writer<'a> {
    backends: &'a Backends,
    pub(super) id: ExecutionId,
    pub(super) state: Option<ExecutionState>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(backends: &'a Backends, execution: &str) -> Self {
        Self {
            backends,
            id: id(execution),
            state: None,
        }
    }

    /// A writer of an execution that was created.
    pub(super) async fn create(backends: &'a Backends, execution: &str) -> Result<Self, Finding> {
        let mut writer = Self::new(backends, execution);
        let creation = created(&writer.id);
        writer.commit(vec![creation]).await?;
        Ok(writer)
    }

    pub(super) fn version(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.version)
    }

    /// The commit after the last one.
    pub(super) fn next(&self, changes: Vec<Change>) -> Commit {
        commit(&self.id, self.version() + 1, changes)
    }

    pub(super) async fn commit(&mut self, changes: Vec<Change>) -> Outcome {
        let commit = self.next(changes);
        self.store(vec![commit]).await
    }

    pub(super) async fn store(&mut self, commits: Vec<Commit>) -> Outcome {
        self.backends.commit(commits.clone()).await.must("storing a commit")?;
        self.fold(&commits)
    }

    /// Takes note of commits that were stored.
    pub(super) fn fold(&mut self, commits: &[Commit]) -> Outcome {
        for commit in commits {
            let result = match &mut self.state {
                Some(state) => state.apply(commit),
                None => ExecutionState::create(commit).map(|state| self.state = Some(state)),
            };
            ensure!(result.is_ok(), "the store took a commit that doesn't fit: {commit:?}");
        }
        Ok(())
    }

    /// The stored state must be the fold of what was stored.
    pub(super) async fn verify(&self, when: &str) -> Outcome {
        let loaded = self.backends.context().load(&self.id).await.must("loading a state")?;
        same_state(&self.id, loaded.as_ref(), self.state.as_ref(), when)
    }
}

pub(super) fn commit(id: &ExecutionId, version: u64, changes: Vec<Change>) -> Commit {
    Commit {
        execution: id.clone(),
        version,
        at: time(version),
        changes,
        registry: None,
        definitions: None,
        turns: None,
        events: Vec::new(),
    }
}

pub(super) fn same_state(
    id: &ExecutionId,
    loaded: Option<&ExecutionState>,
    expected: Option<&ExecutionState>,
    when: &str,
) -> Outcome {
    let (loaded, expected) = match (loaded, expected) {
        (None, None) => return Ok(()),
        (None, Some(_)) => return Err(Finding::Violated(format!("{when}, execution {id} is missing"))),
        (Some(_), None) => return Err(Finding::Violated(format!("{when}, execution {id} exists"))),
        (Some(loaded), Some(expected)) => (loaded, expected),
    };
    // Equality of objects doesn't see their order, the JSON text does.
    let (loaded_json, expected_json) = (json(loaded), json(expected));
    ensure!(
        loaded == expected && loaded_json == expected_json,
        "{when}, the state of {id} differs: {}",
        difference(&loaded_json, &expected_json)
    );
    Ok(())
}

pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| format!("not JSON: {error}"))
}

/// The surroundings of the first difference.
pub(super) fn difference(found: &str, expected: &str) -> String {
    let at = found.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| text.chars().skip(at.saturating_sub(40)).take(120).collect::<String>();
    format!("…{} instead of …{}", around(found), around(expected))
}
