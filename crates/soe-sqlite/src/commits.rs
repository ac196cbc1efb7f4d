//! Storing commits: adding rows, and changing the one of their execution.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension as _, named_params, params};
use soe_backends::{BackendError, Commit, Status};

use crate::cache::Known;
use crate::error::Failure;
use crate::prepare::{Created, Prepared, prepare};
use crate::schema::{integer, place};
use crate::store::Inner;
use crate::{checkpoints, telemetry, trees};

/// No checkpoint is made for fewer bytes of commits.
pub(crate) const LEAST_LOG: u64 = 16 * 1024;

/// So many registries are remembered as stored.
const REGISTRIES: usize = 4096;

/// What of an execution's row writers need.
pub(crate) struct Row {
    pub(crate) key: i64,
    pub(crate) epoch: i64,
    /// 0: there are events only.
    pub(crate) version: u64,
    pub(crate) next_event: u64,
    status: String,
    log: u64,
    pub(crate) covered: u64,
    due: u64,
}

/// What was stored, and whether it is time for a checkpoint.
pub(crate) struct Stored {
    pub(crate) epoch: i64,
    pub(crate) version: u64,
    /// The bytes of all commits up to this version.
    pub(crate) log: u64,
    /// A checkpoint is due when there are so many.
    pub(crate) due: u64,
}

impl Row {
    pub(crate) fn of(db: &Connection, execution: &str) -> rusqlite::Result<Option<Self>> {
        let sql = "SELECT key, epoch, version, next_event, status, log, covered, due FROM executions WHERE id = ?1";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Self {
                key: row.get(0)?,
                epoch: row.get(1)?,
                version: unsigned(row, 2)?,
                next_event: unsigned(row, 3)?,
                status: row.get(4)?,
                log: unsigned(row, 5)?,
                covered: unsigned(row, 6)?,
                due: unsigned(row, 7)?,
            })
        };
        db.prepare_cached(sql)?.query_row([execution], read).optional()
    }
}

pub(crate) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// Stores commits of one execution, all or none.
pub(crate) async fn commit(inner: &Arc<Inner>, commits: Vec<Commit>) -> Result<(), BackendError> {
    let (mut prepared, state) = prepare(inner, commits)?;
    let execution = prepared.execution.clone();
    let is_new = prepared.summary.created.is_some();
    let registries: Vec<_> = prepared.registries.iter().map(|(id, _)| id.clone()).collect();
    let stored = inner.write(move |db| store(db, &mut prepared)).await?;
    remember(inner, registries);
    checkpoints::consider(inner, &execution, &stored, state.as_ref().map(|(_, state)| state));
    if let Some((epoch, state)) = state
        && (epoch == stored.epoch || is_new)
    {
        let epoch = stored.epoch;
        inner.cache.put(Known { epoch, state });
    }
    Ok(())
}

/// Notes that registries are stored.
pub(crate) fn remember(inner: &Inner, registries: impl IntoIterator<Item = soe_backends::RegistryId>) {
    let mut known = inner.registries();
    if known.len() > REGISTRIES {
        known.clear();
    }
    known.extend(registries);
}

fn store(db: &Connection, new: &mut Prepared) -> Result<Stored, Failure> {
    let row = Row::of(db, new.execution.as_str())?;
    let version = row.as_ref().map(|row| row.version).filter(|version| *version > 0);
    new.check(version)?;
    let next_event = row.as_ref().map_or(0, |row| row.next_event);
    new.events.skip(next_event)?;
    let next_event = new.events.next().unwrap_or(next_event);
    place(0, new.last_version())?;
    place(0, next_event)?;
    // Nothing is refused from here on: what follows is stored, or fails together with all of the transaction.
    let (key, stored) = match (&new.summary.created, row) {
        (Some(created), bare) => create(db, new, created, bare, next_event)?,
        (None, Some(row)) => update(db, new, row, next_event)?,
        (None, None) => return Err(BackendError::conflict(&new.execution, 0, None).into()),
    };
    add_rows(db, key, new)?;
    trees::put_sections(db, key, new)?;
    Ok(stored)
}

fn create(
    db: &Connection,
    new: &Prepared,
    created: &Created,
    bare: Option<Row>,
    next_event: u64,
) -> Result<(i64, Stored), Failure> {
    // What an execution begins with is no reason for a checkpoint: that would be as long.
    let stored = Stored {
        epoch: random(),
        version: new.last_version(),
        log: new.bytes(),
        due: new.bytes() + LEAST_LOG,
    };
    // An execution of which only events are left has a row already: it keeps its key.
    let sql = "INSERT OR REPLACE INTO executions (key, id, epoch, version, main, workflow, status, descending, created_at,
            updated_at, next_event, log, covered, due)
        VALUES (:key, :id, :epoch, :version, :main, :workflow, :status, :descending, :created, :updated, :next_event, :log,
            0, :due)";
    db.prepare_cached(sql)?.execute(named_params! {
        ":key": bare.map(|row| row.key),
        ":id": new.execution.as_str(),
        ":epoch": stored.epoch,
        ":version": integer(stored.version),
        ":main": created.main.as_str(),
        ":workflow": created.workflow,
        ":status": new.summary.status.unwrap_or(Status::Prepared).as_str(),
        // It may fail in the commit that creates it, with children registered already.
        ":descending": new.summary.descending.unwrap_or(false),
        ":created": integer(created.at.as_micros()),
        ":updated": integer(new.summary.updated_at.as_micros()),
        ":next_event": integer(next_event),
        ":log": integer(stored.log),
        ":due": integer(stored.due),
    })?;
    Ok((db.last_insert_rowid(), stored))
}

/// std seeds its hashers at random: no need for a crate to get 64 random bits.
fn random() -> i64 {
    RandomState::new().hash_one(SystemTime::now()).cast_signed()
}

fn update(db: &Connection, new: &Prepared, row: Row, next_event: u64) -> Result<(i64, Stored), Failure> {
    let stored = Stored {
        epoch: row.epoch,
        version: new.last_version(),
        log: row.log.saturating_add(new.bytes()),
        due: row.due,
    };
    let (version, log) = (integer(stored.version), integer(stored.log));
    let (updated, next) = (integer(new.summary.updated_at.as_micros()), integer(next_event));
    // Setting the status to what it is would write to its index all the same.
    match new
        .summary
        .status
        .map(Status::as_str)
        .filter(|status| *status != row.status)
    {
        None => {
            let sql = "UPDATE executions SET version = ?2, updated_at = ?3, next_event = ?4, log = ?5 WHERE key = ?1";
            db.prepare_cached(sql)?
                .execute(params![row.key, version, updated, next, log])?;
        }
        Some(status) => {
            let sql = "UPDATE executions SET version = ?2, updated_at = ?3, next_event = ?4, log = ?5, status = ?6
                WHERE key = ?1";
            db.prepare_cached(sql)?
                .execute(params![row.key, version, updated, next, log, status])?;
        }
    }
    if let Some(descending) = new.summary.descending {
        let sql = "UPDATE executions SET descending = ?2 WHERE key = ?1";
        db.prepare_cached(sql)?.execute(params![row.key, descending])?;
    }
    Ok((row.key, stored))
}

fn add_rows(db: &Connection, key: i64, new: &Prepared) -> Result<(), Failure> {
    let sql = "INSERT INTO commits (place, at, first_event, events, changes) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut insert = db.prepare_cached(sql)?;
    for row in &new.rows {
        insert.execute(params![
            place(key, row.version)?,
            integer(row.at.as_micros()),
            integer(row.first_event),
            integer(row.events as u64),
            row.changes,
        ])?;
    }
    telemetry::insert(db, key, &new.events)
}

/// Adds the row of an execution that has events only. Gives its key.
pub(crate) fn add_bare(db: &Connection, execution: &str) -> rusqlite::Result<i64> {
    let sql =
        "INSERT INTO executions (id, epoch, version, main, workflow, status, created_at, updated_at, next_event, log,
            covered, due)
        VALUES (?1, 0, 0, '', '', '', 0, 0, 0, 0, 0, 0) RETURNING key";
    db.prepare_cached(sql)?.query_row([execution], |row| row.get(0))
}
