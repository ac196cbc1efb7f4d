//! The conversation history of a tree at an earlier time.

use rusqlite::{Connection, OptionalExtension as _, named_params};
use soe_backends::{ExecutionId, Turn};

use crate::commits::Row;
use crate::error::Failure;
use crate::schema::{place, place_up_to};
use crate::trees;

/// The turns of a tree when its commit `version` was made; `None` if there is no such commit. What the tree itself has written
/// is told by the commits, what others have by the time.
pub(crate) fn turns(db: &Connection, tree: &ExecutionId, version: u64) -> Result<Option<Vec<Turn>>, Failure> {
    let Some(row) = Row::of_state(db, tree.as_str())?.filter(|row| row.version >= version) else {
        return Ok(None);
    };
    let place = place(row.key, version)?;
    let time: Option<i64> = db
        .prepare_cached("SELECT at FROM log WHERE place = ?1")?
        .query_row([place], |row| row.get(0))
        .optional()?;
    let Some(time) = time else { return Ok(None) };
    let sql = "SELECT role, tool_name, content, key FROM turns
        WHERE main = :main AND (until IS NULL OR until > :at)
            AND CASE WHEN place BETWEEN :first AND :last THEN place <= :place ELSE at <= :at END
        ORDER BY number";
    let parameters = named_params! {
        ":main": tree.as_str(),
        ":place": place,
        ":first": place_up_to(row.key, 0),
        ":last": place_up_to(row.key, u64::MAX),
        ":at": time,
    };
    let mut select = db.prepare_cached(sql)?;
    let turns = select.query_map(parameters, trees::turn)?.collect::<Result<_, _>>()?;
    Ok(Some(turns))
}

/// Forgets the past of a tree; its history as it is now stays.
pub(crate) fn forget(db: &Connection, tree: &str) -> Result<(), Failure> {
    db.prepare_cached("DELETE FROM turns WHERE main = ?1 AND until IS NOT NULL")?
        .execute([tree])?;
    // No commit that a tree of this name may have later has brought them.
    db.prepare_cached("UPDATE turns SET place = NULL WHERE main = ?1 AND place IS NOT NULL")?
        .execute([tree])?;
    Ok(())
}
