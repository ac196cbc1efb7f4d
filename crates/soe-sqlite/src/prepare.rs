//! What of a commit can be done before it is the writer's turn: checking it against the state, and writing the JSON.

use soe_backends::stored::{self, check_versions, unfit};
use soe_backends::{
    ApplyError, BackendError, Change, Commit, Event, ExecutionId, ExecutionState, RegistryId, Status, Timestamp,
    TreeTurns,
};

use crate::cache::Known;
use crate::store::Inner;

/// Commits of one execution, ready to be stored.
pub(crate) struct Prepared {
    pub(crate) execution: ExecutionId,
    pub(crate) rows: Vec<CommitRow>,
    pub(crate) events: NewEvents,
    pub(crate) summary: Summary,
    pub(crate) registries: Vec<(RegistryId, String)>,
    /// Identities and schemas that replace those of the tree, with the commits that bring them.
    pub(crate) definitions: Vec<(Brought, [String; 2])>,
    pub(crate) turns: Vec<(Brought, TreeTurns)>,
    /// The version that the commits were computed from; `None` if they can't have been computed from any.
    base: Option<u64>,
}

/// By which of the commits, and when.
#[derive(Clone, Copy)]
pub(crate) struct Brought {
    pub(crate) version: u64,
    pub(crate) at: Timestamp,
}

/// A row of the table `commits`.
pub(crate) struct CommitRow {
    pub(crate) version: u64,
    pub(crate) at: Timestamp,
    pub(crate) first_event: u64,
    pub(crate) events: usize,
    pub(crate) changes: String,
}

/// Events that are to be stored, and their JSON: a list of number, microseconds and event, half as long as with names.
pub(crate) struct NewEvents {
    pub(crate) events: Vec<Event>,
    pub(crate) json: String,
}

/// What the commits change in the row of their execution.
pub(crate) struct Summary {
    /// `None` if it stays.
    pub(crate) status: Option<Status>,
    /// Whether it has still to go down to its children what became of the execution; `None` if that stays.
    pub(crate) descending: Option<bool>,
    pub(crate) updated_at: Timestamp,
    /// What is set once, when the execution is created.
    pub(crate) created: Option<Created>,
}

pub(crate) struct Created {
    pub(crate) main: ExecutionId,
    pub(crate) workflow: String,
    pub(crate) at: Timestamp,
}

impl Prepared {
    /// Whether the commits were computed from the version that is stored.
    pub(crate) fn check(&self, stored: Option<u64>) -> Result<(), BackendError> {
        let creates = self.summary.created.is_some();
        match self.base {
            Some(base) if base == stored.unwrap_or(0) && creates == stored.is_none() => Ok(()),
            base => Err(BackendError::conflict(&self.execution, base.unwrap_or(0), stored)),
        }
    }

    /// The bytes by which they lengthen what has to be folded.
    pub(crate) fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.changes.len() as u64).sum()
    }

    pub(crate) fn last_version(&self) -> u64 {
        self.rows.last().map_or(0, |row| row.version)
    }
}

/// Prepares commits, at least one, and gives the state after them with its epoch, if the state before is cached (0 for one that
/// they create).
///
/// A commit whose execution isn't cached is checked by its version alone: loading a large state for each small commit would
/// cost more than it is worth.
pub(crate) fn prepare(
    inner: &Inner,
    commits: Vec<Commit>,
) -> Result<(Prepared, Option<(i64, ExecutionState)>), BackendError> {
    let execution = commits[0].execution.clone();
    let state = after(inner, &execution, &commits)?;
    let summary = summary(&commits, state.as_ref().map(|(_, state)| state));
    let prepared = write(inner, execution, commits, summary)?;
    Ok((prepared, state))
}

/// The state after the commits, if it is known.
fn after(
    inner: &Inner,
    execution: &ExecutionId,
    commits: &[Commit],
) -> Result<Option<(i64, ExecutionState)>, BackendError> {
    let unfit = |error| unfit(execution, error);
    if check_versions(commits, None).is_ok() {
        let mut state = ExecutionState::create(&commits[0]).map_err(unfit)?;
        apply(&mut state, &commits[1..]).map_err(unfit)?;
        return Ok(Some((0, state)));
    }
    if let Some(known) = inner.cache.take(execution) {
        return follow(inner, known, commits).map_err(unfit);
    }
    commits
        .iter()
        .try_for_each(|commit| belongs(commit, execution))
        .map_err(unfit)?;
    Ok(None)
}

/// What can be said of a commit without the state.
fn belongs(commit: &Commit, execution: &ExecutionId) -> Result<(), ApplyError> {
    if commit.execution != *execution {
        return Err(ApplyError::Execution(commit.execution.clone()));
    }
    let creates_late = commit
        .changes
        .iter()
        .skip(1)
        .any(|change| matches!(change, Change::Created(_)));
    if creates_late {
        return Err(ApplyError::Mismatch("it exists already"));
    }
    Ok(())
}

fn follow(inner: &Inner, known: Known, commits: &[Commit]) -> Result<Option<(i64, ExecutionState)>, ApplyError> {
    if check_versions(commits, Some(known.state.version)).is_err() {
        // Whether it's the commits that are late or the cache, the row will tell.
        inner.cache.put(known);
        return Ok(None);
    }
    if let Err(error) = known.state.fits(commits) {
        inner.cache.put(known);
        return Err(error);
    }
    let Known { epoch, mut state } = known;
    apply(&mut state, commits)?;
    Ok(Some((epoch, state)))
}

fn apply(state: &mut ExecutionState, commits: &[Commit]) -> Result<(), ApplyError> {
    commits.iter().try_for_each(|commit| state.apply(commit))
}

fn summary(commits: &[Commit], state: Option<&ExecutionState>) -> Summary {
    let changes = commits.iter().flat_map(|commit| &commit.changes);
    let mut statuses = changes.filter_map(|change| match change {
        Change::Status { status, .. } => Some(*status),
        _ => None,
    });
    let changes = commits.iter().flat_map(|commit| &commit.changes);
    let mut descending = changes.filter_map(|change| match change {
        Change::Descending(descending) => Some(*descending),
        _ => None,
    });
    let genesis = commits[0].changes.first().and_then(|change| match change {
        Change::Created(genesis) => Some(genesis),
        _ => None,
    });
    Summary {
        status: state.map(|state| state.status).or_else(|| statuses.next_back()),
        descending: descending.next_back(),
        updated_at: commits.last().map_or(Timestamp::default(), |commit| commit.at),
        created: genesis.map(|genesis| Created {
            main: genesis.main_execution_id.clone(),
            workflow: genesis.workflow.as_ref().to_owned(),
            at: commits[0].at,
        }),
    }
}

fn write(
    inner: &Inner,
    execution: ExecutionId,
    commits: Vec<Commit>,
    summary: Summary,
) -> Result<Prepared, BackendError> {
    let consecutive = commits
        .windows(2)
        .all(|pair| pair[0].version.checked_add(1) == Some(pair[1].version));
    let base = commits[0].version.checked_sub(1).filter(|_| consecutive);
    let mut prepared = Prepared {
        execution,
        rows: Vec::with_capacity(commits.len()),
        events: NewEvents::new(Vec::new())?,
        summary,
        registries: Vec::new(),
        definitions: Vec::new(),
        turns: Vec::new(),
        base,
    };
    let mut events = Vec::new();
    for mut commit in commits {
        let brought = Brought {
            version: commit.version,
            at: commit.at,
        };
        prepared.rows.push(CommitRow {
            version: commit.version,
            at: commit.at,
            first_event: commit.events.first().map_or(0, |event| event.seq),
            events: commit.events.len(),
            changes: stored::write(&commit.changes)?,
        });
        events.append(&mut commit.events);
        if let Some(registry) = commit.registry
            && !inner.registries().contains(&registry.id)
        {
            prepared
                .registries
                .push((registry.id.clone(), stored::write(&registry.workflows)?));
        }
        if let Some(definitions) = commit.definitions {
            let [identities, schemas] = [
                stored::write(&definitions.identities)?,
                stored::write(&definitions.context_schema)?,
            ];
            prepared.definitions.push((brought, [identities, schemas]));
        }
        prepared.turns.extend(commit.turns.map(|turns| (brought, *turns)));
    }
    prepared.events = NewEvents::new(events)?;
    Ok(prepared)
}

impl NewEvents {
    pub(crate) fn new(events: Vec<Event>) -> Result<Self, BackendError> {
        let json = if events.is_empty() {
            String::new()
        } else {
            let compact = events
                .iter()
                .map(|event| (event.seq, event.time.as_micros(), &event.kind));
            stored::write(&compact.collect::<Vec<_>>())?
        };
        Ok(Self { events, json })
    }

    /// Leaves out those before number `next`: they are stored already.
    pub(crate) fn skip(&mut self, next: u64) -> Result<(), BackendError> {
        if self.events.iter().any(|event| event.seq < next) {
            let events = std::mem::take(&mut self.events);
            *self = Self::new(events.into_iter().filter(|event| event.seq >= next).collect())?;
        }
        Ok(())
    }

    /// The number after the last one, if there is one.
    pub(crate) fn next(&self) -> Option<u64> {
        self.events.last().map(|event| event.seq.saturating_add(1))
    }
}
