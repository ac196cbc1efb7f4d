//! Events: what was stored together is one row.

use std::ops::Range;

use rusqlite::{Connection, params};
use soe_backends::{Event, ExecutionId, stored};

use crate::commits::{Row, add_bare};
use crate::error::{Failure, Place};
use crate::prepare::{self, NewEvents};
use crate::schema::{integer, number_of, place, place_up_to};

pub(crate) fn insert(db: &Connection, key: i64, new: &NewEvents) -> Result<(), Failure> {
    if let Some(first) = new.numbers.first() {
        let sql = "INSERT INTO telemetry (place, events) VALUES (?1, ?2)";
        db.prepare_cached(sql)?
            .execute(params![place(key, *first)?, new.json.get(&new.list)])?;
    }
    Ok(())
}

/// The number of the first event that isn't stored.
pub(crate) fn next(db: &Connection, tree: &ExecutionId) -> Result<u64, Failure> {
    Ok(Row::of(db, tree.as_str())?.map_or(0, |row| row.next_event))
}

/// Appends events, whether their tree's state is stored here or not.
pub(crate) fn append(db: &Connection, tree: &ExecutionId, new: &NewEvents) -> Result<(), Failure> {
    let Some(next) = new.next() else { return Ok(()) };
    place(0, next)?;
    let key = match Row::of(db, tree.as_str())? {
        Some(row) => row.key,
        None => add_bare(db, tree.as_str())?,
    };
    insert(db, key, new)?;
    set_next(db, key, next)?;
    Ok(())
}

/// At most `limit` events with numbers of a range.
pub(crate) fn read(
    db: &Connection,
    at: &Place,
    tree: &ExecutionId,
    numbers: Range<u64>,
    limit: usize,
) -> Result<Vec<Event>, Failure> {
    let mut found = Vec::new();
    let Some(row) = Row::of(db, tree.as_str())? else {
        return Ok(found);
    };
    // The first of them may be in the middle of a row.
    let sql = "SELECT place, events FROM telemetry WHERE place BETWEEN
        coalesce((SELECT max(place) FROM telemetry WHERE place BETWEEN ?1 AND ?2), ?1) AND ?3 ORDER BY place";
    let mut select = db.prepare_cached(sql)?;
    let last = place_up_to(row.key, numbers.end.saturating_sub(1));
    let mut rows = select.query([place_up_to(row.key, 0), place_up_to(row.key, numbers.start), last])?;
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        let what = format!("the row of event {}", number_of(row.get(0)?));
        let json = row.get_ref(1)?.as_bytes().unwrap_or_default();
        let events: Vec<prepare::Stored> =
            stored::read(json).map_err(|error| at.damaged(&what, error).execution(tree))?;
        let wanted = events.into_iter().filter(|(seq, ..)| numbers.contains(seq));
        for event in wanted.take(limit - found.len()) {
            let event = prepare::event(tree, event);
            found.push(event.ok_or_else(|| at.damaged(&what, "it names no execution").execution(tree))?);
        }
    }
    Ok(found)
}

/// Deletes all events of a tree.
pub(crate) fn delete(db: &Connection, tree: &ExecutionId) -> Result<(), Failure> {
    let Some(row) = Row::of(db, tree.as_str())? else {
        return Ok(());
    };
    let sql = "DELETE FROM telemetry WHERE place BETWEEN ?1 AND ?2";
    db.prepare_cached(sql)?
        .execute([place_up_to(row.key, 0), place_up_to(row.key, u64::MAX)])?;
    if row.version == 0 {
        db.prepare_cached("DELETE FROM trees WHERE key = ?1")?
            .execute([row.key])?;
    } else {
        set_next(db, row.key, 0)?;
    }
    Ok(())
}

pub(crate) fn set_next(db: &Connection, key: i64, next: u64) -> rusqlite::Result<usize> {
    let sql = "UPDATE trees SET next_event = ?2 WHERE key = ?1";
    db.prepare_cached(sql)?.execute(params![key, integer(next)])
}
