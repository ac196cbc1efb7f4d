//! What the checks are written with.

use std::error::Error as _;
use std::sync::Arc;

use super::compare::same_state;
use super::{Finding, Outcome, ensure};
use crate::{
    BackendError, BackendErrorKind, Backends, Change, Commit, Deletion, EditedBy, Event, EventKind, ExecutionChange,
    ExecutionId, Frame, Genesis, Guard, History, Limits, Origin, Owner, ParentInfo, Progress, RegistryDocument,
    RegistryId, Run, Schedule, Status, Timestamp, TreeGenesis, TreeState, Value, WorkChange, WorkflowEdit,
    WorkflowVersion,
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
                "the conflict of {what} doesn't say which tree it is about"
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
pub(super) fn version(registry: &RegistryId) -> Change {
    at(
        0,
        ExecutionChange::Registry(Box::new(WorkflowVersion {
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
        })),
    )
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

pub(super) fn genesis(root: &ExecutionId) -> TreeGenesis {
    TreeGenesis {
        schedule: Schedule::Concurrent,
        limits: Arc::new(Limits::default()),
        definitions: Arc::default(),
        root: Genesis {
            id: root.clone(),
            origin: None,
            workflow: "main_workflow".into(),
            registry: registry(1),
            parent: None,
            fields: Vec::new(),
            context_bytes: 0,
        },
    }
}

pub(super) fn created(root: &ExecutionId) -> Change {
    Change::Created(Box::new(genesis(root)))
}

/// The creation of a child of execution `parent` of a tree; it gets `number` as its own.
pub(super) fn child_of(root: &ExecutionId, parent: (u64, &ExecutionId), run: u64, place: u64, number: u64) -> Change {
    let (of, above) = parent;
    let info = ParentInfo {
        parent_execution_id: above.clone(),
        main_execution_id: root.clone(),
        signals_to_parent: vec!["DONE".into()],
        context_updates_to_parent: vec!["result".into()],
        depth: 1,
    };
    let origin = Origin {
        parent: of,
        run,
        node: "fan \u{1f600}".into(),
        failure_signal: run.is_multiple_of(2).then(|| "LOST".into()),
    };
    Change::Started(Box::new(Genesis {
        id: above.child(root, run, place, number),
        origin: Some((Arc::new(origin), place)),
        workflow: "part".into(),
        parent: Some(Arc::new(info)),
        ..genesis(root).root
    }))
}

/// The creation of child `number` of a root: the children of its first run have the places 0, 1, 2 ...
pub(super) fn started(root: &ExecutionId, number: u64) -> Change {
    child_of(root, (0, root), 1, number - 1, number)
}

/// Something that changes in an execution.
pub(super) fn at(execution: u64, change: ExecutionChange) -> Change {
    Change::In { execution, change }
}

/// The same change in another execution.
pub(super) fn of(execution: u64, change: Change) -> Change {
    match change {
        Change::In { change, .. } => at(execution, change),
        other => other,
    }
}

pub(super) fn appended(field: &str, value: impl Into<Value>) -> Change {
    let value = value.into();
    at(
        0,
        ExecutionChange::Appended {
            field: field.into(),
            size: value.size(),
            value,
            delivered: false,
        },
    )
}

pub(super) fn field(name: &str, values: impl IntoIterator<Item = Value>) -> (Arc<str>, History) {
    (name.into(), values.into_iter().collect())
}

pub(super) fn broadcast(signals: &[&str]) -> Change {
    let signals = signals.iter().map(|signal| Arc::from(*signal)).collect();
    at(0, ExecutionChange::Broadcast(signals))
}

pub(super) fn status(status: Status, seconds: u64) -> Change {
    let at_time = time(seconds);
    at(
        0,
        ExecutionChange::Status {
            status,
            at: at_time,
            failure: None,
        },
    )
}

pub(super) fn finished(run: u64) -> Change {
    at(0, ExecutionChange::Finished { run })
}

pub(super) fn frame(next: usize) -> Frame {
    Frame {
        execution: 0,
        signals: [Arc::from("A"), Arc::from("B")].into(),
        registry: registry(2),
        next,
        then: None,
    }
}

/// The work list with nothing of the stack kept, and nothing else changed.
pub(super) fn work(frames: Vec<Frame>) -> WorkChange {
    WorkChange {
        kept: 0,
        frames,
        delivered: 0,
        deliveries: Vec::new(),
        spawns: None,
        taken: 0,
        accepted: Vec::new(),
    }
}

pub(super) fn stack(frames: Vec<Frame>) -> Change {
    Change::Work(Box::new(work(frames)))
}

/// The dispatch of a run, on the context that is kept for run `snapshot`.
pub(super) fn dispatched(number: u64, snapshot: u64) -> Change {
    at(0, ExecutionChange::Dispatched(run(number, snapshot)))
}

pub(super) fn run(number: u64, snapshot: u64) -> Arc<Run> {
    Arc::new(Run {
        number,
        node: format!("node_{}", number % 3).into(),
        workflow: "main_workflow".into(),
        registry: registry(1),
        snapshot,
        started_at: time(number),
        progress: match number.is_multiple_of(2) {
            true => Progress::Custom,
            false => Progress::Tool { attempt: 1 },
        },
    })
}

/// The context is kept for the runs from this one on.
pub(super) fn snapshot(run: u64) -> Change {
    at(0, ExecutionChange::Snapshot { run })
}

pub(super) fn owned(process: &str, fence: u64) -> Change {
    Change::Owned(Owner {
        process: process.into(),
        fence,
    })
}

/// An event of a tree; each fourth is of a child.
pub(super) fn event(tree: &ExecutionId, seq: u64) -> Event {
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
        execution: match seq % 4 {
            3 => tree.child(tree, 1, seq, seq + 1),
            _ => tree.clone(),
        },
        kind,
    }
}

pub(super) fn events(tree: &ExecutionId, numbers: std::ops::Range<u64>) -> Vec<Event> {
    numbers.map(|seq| event(tree, seq)).collect()
}

pub(super) fn guard(state: &TreeState) -> Guard {
    Guard {
        version: state.version,
        fence: state.fence(),
    }
}

/// Writes one tree through a store and keeps what its state has to be.
pub(super) struct Writer<'a> {
    backends: &'a Backends,
    pub(super) id: ExecutionId,
    pub(super) state: Option<TreeState>,
    /// Whether the state after them goes with commits; `None` for every other time.
    pub(super) gives_after: Option<bool>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(backends: &'a Backends, tree: &str) -> Self {
        Self {
            backends,
            id: id(tree),
            state: None,
            gives_after: None,
        }
    }

    /// A writer of a tree that was created.
    pub(super) async fn create(backends: &'a Backends, tree: &str) -> Result<Self, Finding> {
        let mut writer = Self::new(backends, tree);
        let creation = created(&writer.id);
        writer.commit(vec![creation]).await?;
        Ok(writer)
    }

    /// A writer of a tree whose root has so many children.
    pub(super) async fn with_children(backends: &'a Backends, tree: &str, children: u64) -> Result<Self, Finding> {
        let mut writer = Self::create(backends, tree).await?;
        let root = writer.id.clone();
        writer
            .commit((1..=children).map(|number| started(&root, number)).collect())
            .await?;
        Ok(writer)
    }

    pub(super) fn version(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.version)
    }

    /// The commit after the last one.
    pub(super) fn next(&self, changes: Vec<Change>) -> Commit {
        Commit {
            fence: self.state.as_ref().map_or(0, TreeState::fence),
            ..commit(&self.id, self.version() + 1, changes)
        }
    }

    pub(super) async fn commit(&mut self, changes: Vec<Change>) -> Outcome {
        let commit = self.next(changes);
        self.store(vec![commit]).await
    }

    pub(super) async fn store(&mut self, commits: Vec<Commit>) -> Outcome {
        let gives_after = self.gives_after.unwrap_or(self.version().is_multiple_of(2));
        self.fold(&commits)?;
        let after = self.state.clone().filter(|_| gives_after).map(Arc::new);
        self.backends.commit(commits, after).await.must("storing a commit")
    }

    /// Takes note of commits that are stored.
    pub(super) fn fold(&mut self, commits: &[Commit]) -> Outcome {
        for commit in commits {
            let result = match &mut self.state {
                Some(state) => state.apply(commit),
                None => TreeState::create(commit).map(|state| self.state = Some(state)),
            };
            ensure!(
                result.is_ok(),
                "the suite made a commit that doesn't fit: {result:?}, {commit:?}"
            );
        }
        Ok(())
    }

    /// The stored state must be the fold of what was stored.
    pub(super) async fn verify(&self, when: &str) -> Outcome {
        let loaded = self.backends.context().load(&self.id).await.must("loading a state")?;
        same_state(&self.id, loaded.as_deref(), self.state.as_ref(), when)
    }

    /// Deletes the tree, as it has to be.
    pub(super) async fn delete(&self) -> Outcome {
        let Some(state) = &self.state else { return Ok(()) };
        let deletion = self.backends.delete(&self.id, guard(state)).await.must("deleting")?;
        ensure!(deletion == Deletion::Deleted, "deleting {} gives {deletion:?}", self.id);
        Ok(())
    }
}

pub(super) fn commit(tree: &ExecutionId, version: u64, changes: Vec<Change>) -> Commit {
    Commit {
        tree: tree.clone(),
        version,
        fence: 0,
        at: time(version),
        changes,
        registries: Vec::new(),
        definitions: None,
        turns: Vec::new(),
        events: Vec::new(),
    }
}
