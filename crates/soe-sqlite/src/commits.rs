//! Storing commits: adding rows, and changing the one of their tree.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension as _, named_params, params};
use soe_backends::stored::{applied, check_versions, unfit};
use soe_backends::{BackendError, Commit, RegistryId, Status, TreeState};

use crate::cache::Known;
use crate::error::Failure;
use crate::flush::{self, LEAST_LOG, touched};
use crate::prepare::{NewEvents, Prepared};
use crate::schema::{integer, place};
use crate::states::{self, History};
use crate::store::Inner;
use crate::{inbox, telemetry, trees};

/// So many registries are remembered as stored.
const REGISTRIES: usize = 4096;

/// What of a tree's row writers need.
pub(crate) struct Row {
    pub(crate) key: i64,
    pub(crate) epoch: i64,
    /// 0: there are events only.
    pub(crate) version: u64,
    pub(crate) fence: u64,
    pub(crate) next_event: u64,
    /// The last message that was taken.
    pub(crate) inbox: u64,
    status: String,
    owes: bool,
    /// The bytes of all commits.
    pub(crate) log: u64,
    /// The version as of which the states were written last.
    pub(crate) flushed: u64,
    pub(crate) due: u64,
}

/// What was stored.
pub(crate) struct Stored {
    pub(crate) epoch: i64,
    pub(crate) state: Arc<TreeState>,
    /// The bytes of all commits up to this version.
    pub(crate) log: u64,
    /// The executions that have changed.
    pub(crate) touched: BTreeSet<u64>,
    pub(crate) commits: u64,
    pub(crate) flushed: u64,
    pub(crate) due: u64,
}

impl Row {
    /// The row of a tree; it may have events only.
    pub(crate) fn of(db: &Connection, tree: &str) -> rusqlite::Result<Option<Self>> {
        let sql = "SELECT key, epoch, version, fence, next_event, inbox, status, owes, log, flushed, due FROM trees
            WHERE id = ?1";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Self {
                key: row.get(0)?,
                epoch: row.get(1)?,
                version: unsigned(row, 2)?,
                fence: unsigned(row, 3)?,
                next_event: unsigned(row, 4)?,
                inbox: unsigned(row, 5)?,
                status: row.get(6)?,
                owes: row.get(7)?,
                log: unsigned(row, 8)?,
                flushed: unsigned(row, 9)?,
                due: unsigned(row, 10)?,
            })
        };
        db.prepare_cached(sql)?.query_row([tree], read).optional()
    }

    /// The row of a tree that has a state.
    pub(crate) fn of_state(db: &Connection, tree: &str) -> rusqlite::Result<Option<Self>> {
        Ok(Self::of(db, tree)?.filter(|row| row.version > 0))
    }
}

pub(crate) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// Stores commits of one tree, all or none.
pub(crate) async fn commit(
    inner: &Arc<Inner>,
    commits: Vec<Commit>,
    after: Option<Arc<TreeState>>,
) -> Result<(), BackendError> {
    let mut prepared = Prepared::new(inner, commits, after)?;
    let registries: Vec<_> = prepared.registries.iter().map(|(id, _)| id.clone()).collect();
    let writer = inner.clone();
    let stored = inner.write(move |db| store(db, &writer, &mut prepared)).await?;
    remember(inner, registries);
    inner.cache.put(Known {
        epoch: stored.epoch,
        log: stored.log,
        state: stored.state.clone(),
    });
    flush::consider(inner, stored);
    Ok(())
}

/// Notes that registries are stored.
pub(crate) fn remember(inner: &Inner, registries: impl IntoIterator<Item = RegistryId>) {
    let mut registries = registries.into_iter().peekable();
    if registries.peek().is_none() {
        return;
    }
    let mut known = inner.registries();
    if known.len() > REGISTRIES {
        known.clear();
    }
    known.extend(registries);
}

fn store(db: &Connection, inner: &Inner, new: &mut Prepared) -> Result<Stored, Failure> {
    let row = Row::of(db, new.tree.as_str())?;
    let there = row.as_ref().filter(|row| row.version > 0);
    check_versions(&new.commits, there.map(|row| (row.version, row.fence)))?;
    if row.is_none() {
        states::check_damaged(db, inner, &new.tree)?;
    }
    let state = match &new.after {
        Some(after) => after.clone(),
        None => Arc::new(fold(db, inner, new, there)?),
    };
    let next_event = row.as_ref().map_or(0, |row| row.next_event);
    if new.events.numbers.iter().any(|number| *number < next_event) {
        let events = new.commits.iter().flat_map(|commit| &commit.events);
        let fresh = events.filter(|event| event.seq >= next_event);
        new.events = NewEvents::new(&inner.buffers, &new.tree, fresh)?;
    }
    let next_event = new.events.next().unwrap_or(next_event);
    place(0, new.last_version())?;
    place(0, next_event)?;
    // Nothing is refused from here on: what follows is stored, or fails together with all of the transaction.
    let touched = touched(&new.commits, &state);
    let (key, stored) = match row {
        Some(row) if row.version > 0 => update(db, new, &row, state, touched, next_event)?,
        bare => create(db, new, bare, state, touched, next_event)?,
    };
    add_rows(db, key, new)?;
    telemetry::insert(db, key, &new.events)?;
    trees::put_sections(db, key, new)?;
    Ok(stored)
}

/// The state after the commits, of what is stored.
fn fold(db: &Connection, inner: &Inner, new: &Prepared, row: Option<&Row>) -> Result<TreeState, Failure> {
    let before = match row {
        None => None,
        Some(row) => match inner.cache.get(&new.tree, row.epoch, row.version) {
            Some(state) => Some(state),
            None => Some(Arc::new(History::of(db, inner, &new.tree, row.key).fold(row.version)?)),
        },
    };
    let after = applied(before.as_deref(), &new.commits);
    Ok(after.map_err(|error| unfit(&new.tree, error))?)
}

/// std seeds its hashers at random: no need for a crate to get 64 random bits.
pub(crate) fn random() -> i64 {
    RandomState::new().hash_one(SystemTime::now()).cast_signed()
}

fn create(
    db: &Connection,
    new: &Prepared,
    bare: Option<Row>,
    state: Arc<TreeState>,
    touched: BTreeSet<u64>,
    next_event: u64,
) -> Result<(i64, Stored), Failure> {
    let stored = Stored {
        epoch: random(),
        touched,
        commits: new.commits.len() as u64,
        log: new.bytes(),
        flushed: 0,
        // What a tree begins with is no reason to write it once more.
        due: new.bytes() + LEAST_LOG,
        state,
    };
    let key = put_row(db, bare.map(|row| row.key), &stored, next_event)?;
    inbox::take(db, key, 0, stored.state.inbox)?;
    Ok((key, stored))
}

/// Adds the row of a tree that has a state, or changes one that had events only. Gives its key.
pub(crate) fn put_row(db: &Connection, bare: Option<i64>, stored: &Stored, next_event: u64) -> Result<i64, Failure> {
    let state = &stored.state;
    let root = state.root_state();
    let sql = match bare {
        Some(_) => {
            "UPDATE trees SET id = :id, epoch = :epoch, version = :version, fence = :fence, workflow = :workflow,
                status = :status, owes = :owes, children = :children, created_at = :created, updated_at = :updated,
                next_event = :next_event, inbox = :inbox, log = :log, flushed = :flushed, due = :due WHERE key = :key"
        }
        None => {
            "INSERT INTO trees (key, id, epoch, version, fence, workflow, status, owes, children, created_at, updated_at,
                next_event, inbox, log, flushed, due)
             VALUES (:key, :id, :epoch, :version, :fence, :workflow, :status, :owes, :children, :created, :updated,
                :next_event, :inbox, :log, :flushed, :due)"
        }
    };
    db.prepare_cached(sql)?.execute(named_params! {
        ":key": bare,
        ":id": state.root.as_str(),
        ":epoch": stored.epoch,
        ":version": integer(state.version),
        ":fence": integer(state.fence()),
        ":workflow": root.map_or("", |root| root.workflow.as_ref()),
        ":status": root.map_or(Status::Prepared, |root| root.status).as_str(),
        ":owes": !state.owed.is_empty(),
        ":children": integer(state.used.children),
        ":created": integer(root.map_or(state.updated_at, |root| root.created_at).as_micros()),
        ":updated": integer(state.updated_at.as_micros()),
        ":next_event": integer(next_event),
        ":inbox": integer(state.inbox),
        ":log": integer(stored.log),
        ":flushed": integer(stored.flushed),
        ":due": integer(stored.due),
    })?;
    Ok(bare.unwrap_or_else(|| db.last_insert_rowid()))
}

fn update(
    db: &Connection,
    new: &Prepared,
    row: &Row,
    state: Arc<TreeState>,
    touched: BTreeSet<u64>,
    next_event: u64,
) -> Result<(i64, Stored), Failure> {
    let log = row.log.saturating_add(new.bytes());
    let sql = "UPDATE trees SET version = ?2, fence = ?3, children = ?4, updated_at = ?5, next_event = ?6, inbox = ?7,
        log = ?8 WHERE key = ?1";
    db.prepare_cached(sql)?.execute(params![
        row.key,
        integer(state.version),
        integer(state.fence()),
        integer(state.used.children),
        integer(state.updated_at.as_micros()),
        integer(next_event),
        integer(state.inbox),
        integer(log),
    ])?;
    // Setting these to what they are would write to their indexes all the same.
    let status = state.root_state().map(|root| root.status.as_str());
    let owes = !state.owed.is_empty();
    if status.is_some_and(|status| status != row.status) || owes != row.owes {
        let sql = "UPDATE trees SET status = ?2, owes = ?3 WHERE key = ?1";
        db.prepare_cached(sql)?
            .execute(params![row.key, status.unwrap_or(&row.status), owes])?;
    }
    inbox::take(db, row.key, row.inbox, state.inbox)?;
    let stored = Stored {
        epoch: row.epoch,
        touched,
        commits: new.commits.len() as u64,
        log,
        flushed: row.flushed,
        due: row.due,
        state,
    };
    Ok((row.key, stored))
}

fn add_rows(db: &Connection, key: i64, new: &Prepared) -> Result<(), Failure> {
    let sql = "INSERT INTO log (place, at, fence, first_event, events, changes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = db.prepare_cached(sql)?;
    for (commit, changes) in new.commits.iter().zip(&new.changes) {
        insert.execute(params![
            place(key, commit.version)?,
            integer(commit.at.as_micros()),
            integer(commit.fence),
            integer(commit.events.first().map_or(0, |event| event.seq)),
            integer(commit.events.len() as u64),
            new.json.get(changes),
        ])?;
    }
    Ok(())
}

/// Adds the row of a tree that has events only. Gives its key.
pub(crate) fn add_bare(db: &Connection, tree: &str) -> rusqlite::Result<i64> {
    let sql =
        "INSERT INTO trees (id, epoch, version, fence, status, owes, children, created_at, updated_at, next_event,
            inbox, log, flushed, due)
        VALUES (?1, 0, 0, 0, '', 0, 0, 0, 0, 0, 0, 0, 0, 0) RETURNING key";
    db.prepare_cached(sql)?.query_row([tree], |row| row.get(0))
}
