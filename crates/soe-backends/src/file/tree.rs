//! What the journal of a tree holds, and what is made of it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::disk::{damaged, parse};
use super::journal::Line;
use crate::inbox::Inbox;
use crate::stored::{self, applied};
use crate::{ApplyError, BackendError, Commit, Event, Posted, TreeState, Turn, Value};

/// What was done to a tree.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    /// What a base has beside the state of the tree, which is the record before it.
    Rest(Box<Rest>),
    /// A batch of commits, without the registries: those are in files of their own.
    Commits(Vec<Commit>),
    /// A message was put into the inbox.
    Posted(Posted),
    /// The identities were replaced.
    Identities(IndexMap<Arc<str>, Arc<str>>),
    /// The schemas were replaced.
    Schemas(IndexMap<Arc<str>, Value>),
    /// Turns were appended.
    Turns(Vec<Turn>),
    /// The turns were replaced.
    AllTurns(Vec<Turn>),
    /// Events were appended.
    Events(Vec<Event>),
    /// The events were deleted.
    NoEvents,
    /// The state and the inbox were deleted.
    Deleted,
}

/// What a base has beside the state.
#[derive(Serialize, Deserialize)]
pub(super) struct Rest {
    inbox: Inbox,
    identities: IndexMap<Arc<str>, Arc<str>>,
    schemas: IndexMap<Arc<str>, Value>,
    turns: Vec<Turn>,
    kept: u64,
    next_event: u64,
    deleted: bool,
    converted: bool,
}

/// All that counts of a tree.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) state: Option<Arc<TreeState>>,
    /// What was deleted, as long as files for people may be there of it.
    pub(super) deleted: Option<Arc<TreeState>>,
    pub(super) inbox: Inbox,
    pub(super) identities: IndexMap<Arc<str>, Arc<str>>,
    pub(super) schemas: IndexMap<Arc<str>, Value>,
    pub(super) turns: Vec<Turn>,
    /// The keys among `turns`, so that an append doesn't scan them.
    keys: HashSet<Arc<str>>,
    pub(super) events: Events,
    /// Whether it had the form of before: files of executions that it doesn't name may be there.
    pub(super) converted: bool,
}

/// The events of a tree.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// So much of the telemetry file is synced: the older events. What stands behind it is there for people.
    pub(super) kept: u64,
    /// The number after the last event.
    pub(super) next: u64,
    /// The events that come after what is synced.
    pub(super) pending: Vec<Event>,
}

/// The record of a state begins with this; all others are JSON.
const STATE: u8 = b'T';

impl Record {
    pub(super) fn line(&self) -> Result<Line, BackendError> {
        Line::new(&stored::write(self)?)
    }
}

impl Tree {
    /// A tree that had the form of before.
    pub(super) fn converted(state: TreeState) -> Self {
        Self {
            state: Some(Arc::new(state)),
            converted: true,
            ..Self::default()
        }
    }

    /// Reads a record, and applies it.
    pub(super) fn replay(&mut self, content: &[u8], path: &Path) -> Result<(), BackendError> {
        if let Some((&STATE, state)) = content.split_first() {
            let state = stored::read_tree(state);
            let state = state.map_err(|error| damaged(path, &error.to_string()).because(error))?;
            self.state = Some(Arc::new(state));
            return Ok(());
        }
        let applied = self.apply(parse(content, path)?, None);
        applied.map_err(|error| damaged(path, &error.to_string()).because(error))
    }

    /// Applies a record; `after` is the state that its commits make, where that is known. After an error the tree must not be
    /// used any more.
    pub(super) fn apply(&mut self, record: Record, after: Option<Arc<TreeState>>) -> Result<(), ApplyError> {
        match record {
            Record::Commits(commits) => self.commit(commits, after)?,
            Record::Posted(posted) => self.inbox.put(posted),
            Record::Identities(identities) => self.identities = identities,
            Record::Schemas(schemas) => self.schemas = schemas,
            Record::Turns(turns) => self.append_turns(turns),
            Record::AllTurns(turns) => {
                self.turns.clear();
                self.keys.clear();
                self.append_turns(turns);
            }
            Record::Events(events) => self.events.append(events),
            Record::NoEvents => self.events = Events::default(),
            Record::Deleted => {
                self.deleted = self.state.take();
                self.inbox = Inbox::default();
            }
            Record::Rest(rest) => self.restore(*rest),
        }
        Ok(())
    }

    fn commit(&mut self, mut commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), ApplyError> {
        let state = match (after, self.state.take()) {
            (Some(after), _) => after,
            (None, Some(before)) => {
                let mut state = Arc::unwrap_or_clone(before);
                commits.iter().try_for_each(|commit| state.apply(commit))?;
                Arc::new(state)
            }
            (None, None) => Arc::new(applied(None, &commits)?),
        };
        self.inbox.take(state.inbox);
        self.state = Some(state);
        for commit in &mut commits {
            if commit.version == 1 {
                // What was left of another tree of its name is no part of this one.
                let first = commit.events.first().map(|event| event.seq);
                if first.is_some_and(|first| first < self.events.next) {
                    self.events = Events::default();
                }
                self.deleted = None;
            }
            if let Some(definitions) = commit.definitions.take() {
                self.identities.clone_from(&definitions.identities);
                self.schemas.clone_from(&definitions.context_schema);
            }
            self.append_turns(std::mem::take(&mut commit.turns));
            self.events.append(std::mem::take(&mut commit.events));
        }
        Ok(())
    }

    fn append_turns(&mut self, turns: Vec<Turn>) {
        for turn in turns {
            if turn.key.as_ref().is_none_or(|key| self.keys.insert(key.clone())) {
                self.turns.push(turn);
            }
        }
    }

    /// Of `turns` those that an append would add.
    pub(super) fn new_turns(&self, turns: &[Turn]) -> Vec<Turn> {
        let is_new = |turn: &&Turn| turn.key.as_ref().is_none_or(|key| !self.keys.contains(key));
        turns.iter().filter(is_new).cloned().collect()
    }

    fn restore(&mut self, rest: Rest) {
        self.inbox = rest.inbox;
        self.identities = rest.identities;
        self.schemas = rest.schemas;
        self.append_turns(rest.turns);
        self.events = Events {
            kept: rest.kept,
            next: rest.next_event,
            pending: Vec::new(),
        };
        self.converted = rest.converted;
        if rest.deleted {
            self.deleted = self.state.take();
        }
    }

    /// The base that says the same as all records so far. All events must be in what is kept.
    pub(super) fn base(&self) -> Result<Vec<Line>, BackendError> {
        let mut lines = Vec::new();
        if let Some(state) = self.state.as_ref().or(self.deleted.as_ref()) {
            lines.push(Line::new(&format!(
                "{}{}",
                char::from(STATE),
                stored::write_tree(state)?
            ))?);
        }
        let rest = Rest {
            inbox: self.inbox.clone(),
            identities: self.identities.clone(),
            schemas: self.schemas.clone(),
            turns: self.turns.clone(),
            kept: self.events.kept,
            next_event: self.events.next,
            deleted: self.deleted.is_some(),
            converted: self.converted,
        };
        lines.push(Record::Rest(Box::new(rest)).line()?);
        Ok(lines)
    }

    /// Whether nothing is left of it.
    pub(super) fn is_empty(&self) -> bool {
        let has_state = self.state.is_some() || self.deleted.is_some();
        let has_definitions = !self.identities.is_empty() || !self.schemas.is_empty();
        !has_state && !has_definitions && self.turns.is_empty() && self.events.next == 0
    }
}

impl Events {
    /// Appends what is new.
    fn append(&mut self, events: Vec<Event>) {
        for event in events {
            if event.seq >= self.next {
                self.next = event.seq + 1;
                self.pending.push(event);
            }
        }
    }
}
