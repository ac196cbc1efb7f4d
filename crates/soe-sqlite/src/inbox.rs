//! Inboxes: messages that wait for whoever runs a tree, and the ids of those that were taken last.

use rusqlite::{Connection, OptionalExtension as _, params};
use soe_backends::{ExecutionId, Message, Post, Posted, stored};

use crate::commits::Row;
use crate::error::{Failure, Place};
use crate::schema::{number_of, place, place_up_to};

/// How many ids of messages that were taken are remembered.
const REMEMBERED: u64 = 1_000;

/// Puts a message at the end, unless one of its id is there. Nothing of the tree's row is changed.
pub(crate) fn post(db: &Connection, tree: &ExecutionId, id: &str, message: &str) -> Result<Post, Failure> {
    let Some(row) = Row::of_state(db, tree.as_str())? else {
        return Ok(Post::NoSuchTree);
    };
    let known: Option<i64> = db
        .prepare_cached("SELECT place FROM inbox WHERE tree = ?1 AND id = ?2")?
        .query_row(params![row.key, id], |row| row.get(0))
        .optional()?;
    if let Some(place) = known {
        return Ok(Post::Duplicate(number_of(place)));
    }
    let seq = last(db, row.key)?.max(row.inbox) + 1;
    let sql = "INSERT INTO inbox (place, tree, id, message) VALUES (?1, ?2, ?3, ?4)";
    db.prepare_cached(sql)?
        .execute(params![place(row.key, seq)?, row.key, id, message])?;
    Ok(Post::Stored(seq))
}

/// The number of the last message that is there; 0 if there is none.
fn last(db: &Connection, key: i64) -> rusqlite::Result<u64> {
    let sql = "SELECT max(place) FROM inbox WHERE place BETWEEN ?1 AND ?2";
    let places = [place_up_to(key, 0), place_up_to(key, u64::MAX)];
    let last: Option<i64> = db.prepare_cached(sql)?.query_row(places, |row| row.get(0))?;
    Ok(last.map_or(0, number_of))
}

/// Messages that come after a place and were not taken, in order.
pub(crate) fn waiting(
    db: &Connection,
    at: &Place,
    tree: &ExecutionId,
    after: u64,
    limit: usize,
) -> Result<Vec<Posted>, Failure> {
    let Some(row) = Row::of_state(db, tree.as_str())? else {
        return Ok(Vec::new());
    };
    let after = after.max(row.inbox);
    if after >= u64::from(u32::MAX) {
        return Ok(Vec::new());
    }
    let sql = "SELECT place, message FROM inbox WHERE place BETWEEN ?1 AND ?2 AND message IS NOT NULL ORDER BY place
        LIMIT ?3";
    let mut select = db.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = select.query([place_up_to(row.key, after + 1), place_up_to(row.key, u64::MAX), limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let seq = number_of(row.get(0)?);
        let message: Result<Message, _> = stored::read(row.get_ref(1)?.as_bytes().unwrap_or_default());
        let damaged = |error| at.damaged(&format!("message {seq}"), error).execution(tree);
        found.push(Posted {
            seq,
            message: message.map_err(damaged)?,
        });
    }
    Ok(found)
}

/// The trees that have messages which were not taken.
pub(crate) fn trees(db: &Connection, at: &Place, limit: usize) -> Result<Vec<ExecutionId>, Failure> {
    let sql = "SELECT DISTINCT trees.id FROM inbox INDEXED BY inbox_waiting JOIN trees ON trees.key = inbox.tree
        WHERE inbox.message IS NOT NULL LIMIT ?1";
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        found.push(ExecutionId::new(&id).map_err(|error| at.damaged("the name of a tree", error))?);
    }
    Ok(found)
}

/// Whether a message wasn't taken.
pub(crate) fn is_waiting(db: &Connection, row: &Row) -> rusqlite::Result<bool> {
    Ok(last(db, row.key)? > row.inbox)
}

/// Takes the messages up to one, out of those after another.
pub(crate) fn take(db: &Connection, key: i64, before: u64, until: u64) -> Result<(), Failure> {
    if until <= before {
        return Ok(());
    }
    let sql = "UPDATE inbox SET message = NULL WHERE place BETWEEN ?1 AND ?2";
    db.prepare_cached(sql)?
        .execute([place_up_to(key, before + 1), place_up_to(key, until)])?;
    if let Some(forgotten) = until.checked_sub(REMEMBERED).filter(|forgotten| *forgotten > 0) {
        let places = [place_up_to(key, 0), place_up_to(key, forgotten)];
        db.prepare_cached("DELETE FROM inbox WHERE place BETWEEN ?1 AND ?2")?
            .execute(places)?;
    }
    Ok(())
}
