//! Events: what was stored together is one row.

use std::ops::Range;

use rusqlite::{Connection, params};
use soe_backends::{Event, EventKind, ExecutionId, Timestamp, stored};

use crate::commits::{Row, add_bare};
use crate::error::{Failure, Place};
use crate::prepare::NewEvents;
use crate::schema::{integer, number_of, place, place_up_to};

pub(crate) fn insert(db: &Connection, key: i64, new: &NewEvents) -> Result<(), Failure> {
    if let Some(first) = new.events.first() {
        let sql = "INSERT INTO events (place, events) VALUES (?1, ?2)";
        db.prepare_cached(sql)?
            .execute(params![place(key, first.seq)?, new.json])?;
    }
    Ok(())
}

/// Appends events, whether their execution's state is stored here or not.
pub(crate) fn append(db: &Connection, execution: &ExecutionId, new: &mut NewEvents) -> Result<(), Failure> {
    let row = Row::of(db, execution.as_str())?;
    new.skip(row.as_ref().map_or(0, |row| row.next_event))?;
    let Some(next) = new.next() else { return Ok(()) };
    place(0, next)?;
    let key = match row {
        Some(row) => row.key,
        None => add_bare(db, execution.as_str())?,
    };
    insert(db, key, new)?;
    set_next(db, key, next)?;
    Ok(())
}

/// At most `limit` events with numbers of a range.
pub(crate) fn read(
    db: &Connection,
    at: &Place,
    execution: &ExecutionId,
    numbers: Range<u64>,
    limit: usize,
) -> Result<Vec<Event>, Failure> {
    let mut found = Vec::new();
    let Some(row) = Row::of(db, execution.as_str())? else {
        return Ok(found);
    };
    // The first of them may be in the middle of a row.
    let sql = "SELECT place, events FROM events WHERE place BETWEEN
        coalesce((SELECT max(place) FROM events WHERE place BETWEEN ?1 AND ?2), ?1) AND ?3 ORDER BY place";
    let mut select = db.prepare_cached(sql)?;
    let last = place_up_to(row.key, numbers.end.saturating_sub(1));
    let mut rows = select.query([place_up_to(row.key, 0), place_up_to(row.key, numbers.start), last])?;
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        let json = row.get_ref(1)?.as_bytes().unwrap_or_default();
        let events: Vec<(u64, u64, EventKind)> = match stored::read(json) {
            Ok(events) => events,
            Err(error) => {
                let what = format!("the row of event {}", number_of(row.get(0)?));
                return Err(at.damaged(&what, error).execution(execution).into());
            }
        };
        let wanted = events.into_iter().filter(|(seq, ..)| numbers.contains(seq));
        let event = |(seq, micros, kind)| Event {
            seq,
            time: Timestamp::from_micros(micros),
            kind,
        };
        found.extend(wanted.take(limit - found.len()).map(event));
    }
    Ok(found)
}

/// Deletes all events of an execution.
pub(crate) fn delete(db: &Connection, execution: &ExecutionId) -> Result<(), Failure> {
    let Some(row) = Row::of(db, execution.as_str())? else {
        return Ok(());
    };
    let sql = "DELETE FROM events WHERE place BETWEEN ?1 AND ?2";
    db.prepare_cached(sql)?
        .execute([place_up_to(row.key, 0), place_up_to(row.key, u64::MAX)])?;
    if row.version == 0 {
        db.prepare_cached("DELETE FROM executions WHERE key = ?1")?
            .execute([row.key])?;
    } else {
        set_next(db, row.key, 0)?;
    }
    Ok(())
}

fn set_next(db: &Connection, key: i64, next: u64) -> rusqlite::Result<usize> {
    let sql = "UPDATE executions SET next_event = ?2 WHERE key = ?1";
    db.prepare_cached(sql)?.execute(params![key, integer(next)])
}
