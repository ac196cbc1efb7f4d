//! Databases of formats 1 and 2: each execution had commits and checkpoints of its own. Those of a tree become one.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value as Json;
use soe_backends::convert::{self, ConvertError, Execution};
use soe_backends::{Definitions, EventKind, ExecutionId, Timestamp, TreeState, stored};

use crate::commits::{Stored, add_bare, put_row, random, unsigned};
use crate::error::{Failure, Place};
use crate::flush::{LEAST_LOG, put_head, put_states};
use crate::json::Buffers;
use crate::prepare::NewEvents;
use crate::schema::{number_of, place_up_to};
use crate::{telemetry, trees};

/// Events are stored so many to a row.
const EVENTS: usize = 256;

/// An execution as its row said.
struct Old {
    key: i64,
    id: String,
    /// 0 if there are events only.
    version: u64,
    next_event: u64,
}

/// Why a tree is not converted.
enum Problem {
    /// It can't be read.
    Damage(String),
    Failure(Failure),
}

impl<E: Into<Failure>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::Failure(error.into())
    }
}

fn damage(error: impl std::fmt::Display) -> Problem {
    Problem::Damage(error.to_string())
}

/// Converts all that is there, a tree at a time. One that can't be converted is noted; then its old rows stay.
pub(crate) fn all(db: &Connection, at: &Place) -> Result<(), Failure> {
    let mut damaged = false;
    for (root, executions) in by_tree(db)? {
        db.execute_batch("SAVEPOINT tree")?;
        let problem = match tree(db, at, &root, &executions) {
            Ok(()) => None,
            Err(Problem::Failure(Failure::Sql(error))) => return Err(error.into()),
            Err(Problem::Failure(Failure::Refused(error))) => Some(error.to_string()),
            Err(Problem::Damage(problem)) => Some(problem),
        };
        if let Some(problem) = problem {
            damaged = true;
            db.execute_batch("ROLLBACK TO tree")?;
            db.prepare_cached("INSERT INTO damaged (id, problem) VALUES (?1, ?2)")?
                .execute([root, problem])?;
        }
        db.execute_batch("RELEASE tree")?;
    }
    if !damaged {
        // What refers to a table must not be open.
        db.flush_prepared_statement_cache();
        db.execute_batch(
            "DROP TABLE old_executions; DROP TABLE old_commits; DROP TABLE old_checkpoints; DROP TABLE old_events;",
        )?;
    }
    Ok(())
}

/// The executions by the roots of their trees.
fn by_tree(db: &Connection) -> Result<BTreeMap<String, Vec<Old>>, Failure> {
    let mut select = db.prepare("SELECT key, id, version, next_event, main FROM old_executions ORDER BY key")?;
    let read = |row: &rusqlite::Row<'_>| {
        let old = Old {
            key: row.get(0)?,
            id: row.get(1)?,
            version: unsigned(row, 2)?,
            next_event: unsigned(row, 3)?,
        };
        Ok((old, row.get::<_, String>(4)?))
    };
    let mut trees: BTreeMap<String, Vec<Old>> = BTreeMap::new();
    for row in select.query_map([], read)? {
        let (old, mut main) = row?;
        if main.is_empty() {
            // There are events only: its name says whose.
            main = ExecutionId::new(&old.id).map_or_else(|_| old.id.clone(), |id| id.root().to_string());
        }
        trees.entry(main).or_default().push(old);
    }
    Ok(trees)
}

fn tree(db: &Connection, at: &Place, root: &str, old: &[Old]) -> Result<(), Problem> {
    let root = ExecutionId::new(root).map_err(damage)?;
    let next_event = old.iter().map(|old| old.next_event).fold(0, u64::saturating_add);
    let with_state = old.iter().filter(|old| old.version > 0);
    let executions = with_state.map(|old| state(db, old)).collect::<Result<Vec<_>, _>>()?;
    let events = old.iter().map(|old| events(db, old)).collect::<Result<Vec<_>, _>>()?;
    let key = match executions.is_empty() {
        true => add_bare(db, root.as_str())?,
        false => {
            let mut state = convert::tree_of(executions).map_err(damage)?;
            if state.root != root {
                return Err(damage(format!("its root is execution {}", state.root)));
            }
            state.definitions = Arc::new(Definitions {
                identities: trees::identities(db, at, &root)?,
                context_schema: trees::schemas(db, at, &root)?,
            });
            state.next_event = next_event;
            put(db, state)?
        }
    };
    let events = convert::events(events, next_event);
    for events in events.chunks(EVENTS) {
        telemetry::insert(db, key, &NewEvents::new(&Buffers::default(), &root, events)?)?;
    }
    telemetry::set_next(db, key, next_event)?;
    Ok(())
}

/// Stores a tree as it is, without commits. Gives its key.
fn put(db: &Connection, state: TreeState) -> Result<i64, Problem> {
    let (head, version) = (stored::write_head(&state)?, state.version);
    let stored = Stored {
        epoch: random(),
        touched: Default::default(),
        commits: 0,
        log: 0,
        flushed: version,
        due: LEAST_LOG,
        state: Arc::new(state),
    };
    let state = &stored.state;
    let key = put_row(db, None, &stored, state.next_event)?;
    let mut bytes = head.len() as u64;
    for (number, execution) in state.executions.iter() {
        let json = stored::write_execution(execution)?;
        bytes += json.len() as u64;
        put_states(db, key, version, &[(number, json)])?;
    }
    put_head(db, key, version, state.executions.len() as u64, &head)?;
    db.prepare_cached("UPDATE trees SET due = ?2 WHERE key = ?1")?
        .execute(params![key, crate::schema::integer(bytes.max(LEAST_LOG))])?;
    Ok(key)
}

/// The state of an execution: its newest checkpoint, and the commits after it.
fn state(db: &Connection, old: &Old) -> Result<Execution, Problem> {
    let id = ExecutionId::new(&old.id).map_err(damage)?;
    let about = |error: ConvertError| damage(format!("execution {id}: {error}"));
    let sql = "SELECT place, state FROM old_checkpoints WHERE place BETWEEN ?1 AND ?2 ORDER BY place DESC LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| {
        let state = Execution::read(row.get_ref(1)?.as_bytes().unwrap_or_default());
        Ok((number_of(row.get(0)?), state))
    };
    let all = [place_up_to(old.key, 0), place_up_to(old.key, old.version)];
    let found = db.prepare_cached(sql)?.query_row(all, read).optional()?;
    let (from, mut state) = match found {
        Some((version, state)) => (version, Some(state.map_err(about)?)),
        None => (0, None),
    };
    let sql = "SELECT at, changes, events FROM old_commits WHERE place BETWEEN ?1 AND ?2 ORDER BY place";
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query([place_up_to(old.key, from + 1), place_up_to(old.key, old.version)])?;
    while let Some(row) = rows.next()? {
        let (at, events) = (Timestamp::from_micros(unsigned(row, 0)?), unsigned(row, 2)?);
        let changes = row.get_ref(1)?.as_bytes().unwrap_or_default();
        match &mut state {
            Some(state) => state.apply(at, changes, events).map_err(about)?,
            None => state = Some(Execution::create(&id, at, changes, events).map_err(about)?),
        }
    }
    match state {
        Some(state) if state.version() == old.version && *state.id() == id => Ok(state),
        _ => Err(damage(format!("commits of execution {id} are missing"))),
    }
}

type Events = Vec<(Timestamp, EventKind)>;

/// The events of an execution, oldest first.
fn events(db: &Connection, old: &Old) -> Result<(ExecutionId, Events), Problem> {
    let id = ExecutionId::new(&old.id).map_err(damage)?;
    let sql = "SELECT events FROM old_events WHERE place BETWEEN ?1 AND ?2 ORDER BY place";
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query([place_up_to(old.key, 0), place_up_to(old.key, u64::MAX)])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let json = row.get_ref(0)?.as_bytes().unwrap_or_default();
        let stored: Vec<(u64, u64, Json)> = stored::read(json).map_err(damage)?;
        for (_, micros, kind) in stored {
            if let Some(kind) = convert::event_kind(kind).map_err(damage)? {
                events.push((Timestamp::from_micros(micros), kind));
            }
        }
    }
    Ok((id, events))
}
