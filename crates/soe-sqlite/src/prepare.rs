//! What of a commit can be done before it is the writer's turn: writing the JSON.

use std::ops::Range;
use std::sync::Arc;

use soe_backends::stored::unfit;
use soe_backends::{
    ApplyError, BackendError, Commit, Event, EventKind, ExecutionId, RegistryId, Timestamp, TreeState, Turn,
};

use crate::json::{Buffers, Json};
use crate::store::Inner;

/// Commits of one tree, ready to be stored.
pub(crate) struct Prepared {
    pub(crate) tree: ExecutionId,
    pub(crate) commits: Vec<Commit>,
    /// The state that they make, if whoever made them has it.
    pub(crate) after: Option<Arc<TreeState>>,
    pub(crate) json: Json,
    /// The changes of each of the commits.
    pub(crate) changes: Vec<Range<usize>>,
    pub(crate) events: NewEvents,
    pub(crate) registries: Vec<(RegistryId, Range<usize>)>,
    /// Identities and schemas that replace those of the tree.
    pub(crate) definitions: Option<[Range<usize>; 2]>,
}

impl Prepared {
    /// Prepares commits, at least one.
    pub(crate) fn new(
        inner: &Inner,
        mut commits: Vec<Commit>,
        after: Option<Arc<TreeState>>,
    ) -> Result<Self, BackendError> {
        let tree = commits[0].tree.clone();
        if let Some(other) = commits.iter().find(|commit| commit.tree != tree) {
            return Err(unfit(&tree, ApplyError::Tree(other.tree.clone())));
        }
        let last = commits.last().map_or(0, |commit| commit.version);
        let mut json = inner.buffers.json();
        let changes = commits
            .iter()
            .map(|commit| json.write(&commit.changes))
            .collect::<Result<_, _>>()?;
        let mut registries = Vec::new();
        let mut definitions = None;
        for commit in &mut commits {
            for registry in commit.registries.drain(..) {
                if !inner.registries().contains(&registry.id) {
                    registries.push((registry.id.clone(), json.write(&registry.workflows)?));
                }
            }
            if let Some(given) = commit.definitions.take() {
                definitions = Some([json.write(&given.identities)?, json.write(&given.context_schema)?]);
            }
        }
        let events = commits.iter().flat_map(|commit| &commit.events);
        let events = NewEvents::new(&inner.buffers, &tree, events)?;
        Ok(Self {
            tree,
            commits,
            after: after.filter(|after| after.version == last),
            json,
            changes,
            events,
            registries,
            definitions,
        })
    }

    /// The bytes by which they lengthen what has to be folded.
    pub(crate) fn bytes(&self) -> u64 {
        self.changes.iter().map(|changes| changes.len() as u64).sum()
    }

    pub(crate) fn last_version(&self) -> u64 {
        self.commits.last().map_or(0, |commit| commit.version)
    }

    /// The turns that they bring, with the versions and times of the commits.
    pub(crate) fn turns(&self) -> impl Iterator<Item = (&Commit, &[Turn])> {
        let with_turns = self.commits.iter().filter(|commit| !commit.turns.is_empty());
        with_turns.map(|commit| (commit, commit.turns.as_slice()))
    }
}

/// Events that are to be stored: a list of number, microseconds, path of the execution and event, half as long as with names.
pub(crate) struct NewEvents {
    pub(crate) json: Json,
    /// Their numbers, and the list of those that were not stored before.
    pub(crate) numbers: Vec<u64>,
    pub(crate) list: Range<usize>,
}

impl NewEvents {
    pub(crate) fn new<'a>(
        buffers: &Buffers,
        tree: &ExecutionId,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Result<Self, BackendError> {
        let mut json = buffers.json();
        let mut numbers = Vec::new();
        let mut compact = Vec::new();
        for event in events {
            numbers.push(event.seq);
            compact.push((
                event.seq,
                event.time.as_micros(),
                path(tree, &event.execution),
                &event.kind,
            ));
        }
        let list = match compact.is_empty() {
            true => 0..0,
            false => json.write(&compact)?,
        };
        Ok(Self { json, numbers, list })
    }

    /// The number after the last one, if there is one.
    pub(crate) fn next(&self) -> Option<u64> {
        self.numbers.last().map(|last| last.saturating_add(1))
    }
}

/// An execution as rows of events name it: by its path below the root. One that isn't named after the root has a slash in front.
fn path<'a>(tree: &ExecutionId, execution: &'a ExecutionId) -> std::borrow::Cow<'a, str> {
    match execution.path_below(tree) {
        Some(path) => path.into(),
        None if execution == tree => "".into(),
        None => format!("/{execution}").into(),
    }
}

/// An event as it is read from a row.
pub(crate) type Stored = (u64, u64, String, EventKind);

/// The event of a row; `None` if it names no execution.
pub(crate) fn event(tree: &ExecutionId, (seq, micros, path, kind): Stored) -> Option<Event> {
    let execution = match path.strip_prefix('/') {
        _ if path.is_empty() => tree.clone(),
        Some(other) => ExecutionId::new(other).ok()?,
        None => ExecutionId::new(format!("{tree}.{path}")).ok()?,
    };
    Some(Event {
        seq,
        time: Timestamp::from_micros(micros),
        execution,
        kind,
    })
}
