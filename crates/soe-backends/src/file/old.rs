//! Trees in the form of before: each execution had its state in `contexts/ID.json`, and its own telemetry. A tree is converted
//! when it is first used. Its new journal makes it so, in one step: before that the form of before is whole.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::disk::{self, Lock, damaged};
use super::journal::Journal;
use super::open::{Entry, Shown, remove};
use super::people::{Changed, ENGINE, OPERATIONAL, PARENT};
use super::tree::{Record, Tree};
use super::trees::read_yaml;
use super::{Inner, head};
use crate::{
    BackendError, Definitions, Durability, Event, EventKind, ExecutionId, Timestamp, TreeState, Turn, convert,
};

/// The format that is converted.
const FORMAT: u64 = 1;

/// What tells whose file it is, in which form.
#[derive(Deserialize)]
struct Probe {
    #[serde(rename = "__operational__")]
    operational: Main,
    #[serde(rename = "__engine__")]
    engine: Format,
}

#[derive(Deserialize)]
struct Main {
    main_execution_id: Option<ExecutionId>,
}

#[derive(Deserialize)]
struct Format {
    format: u64,
    #[serde(default)]
    id: Option<ExecutionId>,
}

impl Probe {
    /// Whether it is the state of an execution of that tree, in the form of before.
    fn is_of(&self, tree: &ExecutionId) -> bool {
        let main = self.operational.main_execution_id.as_ref().or(self.engine.id.as_ref());
        self.engine.format == FORMAT && main == Some(tree)
    }
}

/// An execution in the form of before.
struct Old {
    id: ExecutionId,
    /// Its state, as [`convert::tree`] takes it.
    state: Json,
    events: Vec<(Timestamp, EventKind)>,
}

impl Inner {
    /// Whether a tree has the form of before.
    pub(super) fn is_old(&self, tree: &ExecutionId) -> Result<bool, BackendError> {
        if self.layout.journal(tree).symlink_metadata().is_ok() {
            return Ok(false);
        }
        let path = self.layout.context(tree);
        match disk::read(&path)? {
            Some(content) => disk::parse(&content, &path).map(|probe: Probe| probe.is_of(tree)),
            None => Ok(false),
        }
    }

    /// Converts a tree that has the form of before.
    pub(super) fn convert(&self, tree: &ExecutionId) -> Result<(), BackendError> {
        // Whoever still uses the form of before locks executions.
        let locks = self.layout.all_locks().map(|path| Lock::take(&path));
        let _locks: Vec<Lock> = locks.collect::<Result<_, _>>()?;
        if !self.is_old(tree)? {
            return Ok(());
        }
        let old = self.read_old(tree)?;
        let names: Vec<ExecutionId> = old.iter().map(|old| old.id.clone()).collect();
        let path = self.layout.context(tree);
        let wrong = |error: convert::ConvertError| damaged(&path, &error.to_string()).because(error);
        let (states, events) = old.into_iter().map(|old| (old.state, (old.id, old.events))).unzip();
        let mut state = convert::tree(states).map_err(wrong)?;
        let events = convert::events(events, state.next_event);
        let shared = self.read_shared(tree, &mut state)?;
        let mut entry = self.write_converted(tree, state, shared, events)?;
        self.follow(tree, &mut entry, &names)
    }

    /// What the tree shared: identities and schemas get into its state.
    fn read_shared(&self, tree: &ExecutionId, state: &mut TreeState) -> Result<Vec<Record>, BackendError> {
        let identities = read_yaml(&self.layout.identities(tree))?;
        let schemas = read_yaml(&self.layout.schemas(tree))?;
        let path = self.layout.conversation(tree);
        let turns: Option<Vec<Turn>> = match disk::read(&path)? {
            Some(content) => Some(disk::parse(&content, &path)?),
            None => None,
        };
        state.definitions = Definitions {
            identities: identities.clone(),
            context_schema: schemas.clone(),
        }
        .into();
        let records = [Record::Identities(identities), Record::Schemas(schemas)];
        Ok(records.into_iter().chain(turns.map(Record::AllTurns)).collect())
    }

    fn write_converted(
        &self,
        tree: &ExecutionId,
        state: TreeState,
        shared: Vec<Record>,
        events: Vec<Event>,
    ) -> Result<Entry, BackendError> {
        let path = self.layout.journal(tree);
        let mut converted = Tree::converted(state);
        let wrong = |error: crate::ApplyError| damaged(&path, &error.to_string()).because(error);
        for record in shared {
            converted.apply(record, None).map_err(wrong)?;
        }
        let mut base = converted.base()?;
        let events = Record::Events(events);
        base.push(events.line()?);
        converted.apply(events, None).map_err(wrong)?;
        Ok(Entry {
            journal: Some(Journal::write(path, self.cache.token(), &base, self.durability)?),
            tree: converted,
            shown: Shown::default(),
        })
    }

    /// The files follow: none of the form of before is left.
    fn follow(&self, tree: &ExecutionId, entry: &mut Entry, old: &[ExecutionId]) -> Result<(), BackendError> {
        let state = entry.tree.state.clone();
        self.show(tree, entry, &Changed::EVERYTHING)?;
        for id in old {
            if state.as_ref().is_none_or(|state| state.find(id).is_none()) {
                self.remove_execution(id)?;
            }
            if id != tree {
                remove(&self.layout.telemetry(id), Durability::Relaxed)?;
            }
        }
        head::write(&self.layout.head(tree), entry)
    }

    /// All executions of a tree in the form of before.
    fn read_old(&self, tree: &ExecutionId) -> Result<Vec<Old>, BackendError> {
        let mut found = Vec::new();
        for id in self.named_after(tree)? {
            let path = self.layout.context(&id);
            let Some(content) = disk::read(&path)? else { continue };
            let probe: Probe = disk::parse(&content, &path)?;
            if probe.is_of(tree) {
                let (state, outbox) = old_state(disk::parse(&content, &path)?, &path)?;
                let events = old_events(&self.layout.telemetry(&id), outbox)?;
                found.push(Old { id, state, events });
            }
        }
        Ok(found)
    }

    /// The executions of a tree that have the form of before, as far as they can be read.
    pub(super) fn old_executions(&self, tree: &ExecutionId) -> Result<Vec<ExecutionId>, BackendError> {
        let mut named = self.named_after(tree)?;
        named.retain(|id| {
            let path = self.layout.context(id);
            let content = disk::read(&path).ok().flatten();
            content.is_some_and(|content| disk::parse(&content, &path).is_ok_and(|probe: Probe| probe.is_of(tree)))
        });
        Ok(named)
    }

    /// The executions that are named as if they were of that tree.
    fn named_after(&self, tree: &ExecutionId) -> Result<Vec<ExecutionId>, BackendError> {
        let ids = self.ids("contexts", ".json")?.into_iter();
        Ok(ids.filter(|id| id == tree || id.path_below(tree).is_some()).collect())
    }
}

/// Puts the parts of a state together as [`convert::tree`] takes them; then its last events, which may not be in the telemetry
/// file yet.
fn old_state(mut document: Map<String, Json>, path: &Path) -> Result<(Json, Vec<Json>), BackendError> {
    let mut take = |name: &str| document.shift_remove(name).unwrap_or_default();
    let (operational, parent, engine) = (take(OPERATIONAL), take(PARENT), take(ENGINE));
    let Json::Object(mut state) = engine else {
        return Err(damaged(path, "it has no state"));
    };
    let mut context = json!({"operational": operational, "fields": document});
    if !parent.is_null() {
        context["parent"] = parent;
    }
    let snapshots = state.shift_remove("snapshots").unwrap_or_default();
    let outbox = state.shift_remove("outbox").unwrap_or_default();
    state.shift_remove("token");
    state.insert("context".to_owned(), context);
    let outbox = match outbox {
        Json::Array(events) => events,
        _ => Vec::new(),
    };
    Ok((json!({"state": state, "snapshots": snapshots}), outbox))
}

/// The events in a telemetry file, and those of `outbox` that come after them.
fn old_events(path: &Path, outbox: Vec<Json>) -> Result<Vec<(Timestamp, EventKind)>, BackendError> {
    let content = disk::read(path)?.unwrap_or_default();
    let lines = content
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"));
    let lines = lines.map(|line| disk::parse::<Json>(line, path));
    let (mut events, mut next) = (Vec::new(), 0);
    for event in lines.chain(outbox.into_iter().map(Ok)) {
        let mut event = event?;
        let seq = event["seq"].as_u64().unwrap_or_default();
        if seq < next {
            continue;
        }
        next = seq + 1;
        let time = serde_json::from_value(event["time"].take());
        let kind = convert::event_kind(json!({"event": event["event"].take(), "data": event["data"].take()}));
        let wrong = |error: serde_json::Error| damaged(path, &format!("event {seq}: {error}")).because(error);
        if let Some(kind) = kind.map_err(wrong)? {
            events.push((time.map_err(wrong)?, kind));
        }
    }
    Ok(events)
}
