//! What trees shared at an earlier time.

use rusqlite::{Connection, OptionalExtension as _, named_params};
use soe_backends::{Definitions, ExecutionId, TreeShared};

use crate::error::{Failure, Place};
use crate::schema::{place, place_up_to};
use crate::trees;

/// Written when the commit `:place` at `:at` was made: by that execution itself (whose places begin at `:first`) until then;
/// by others not later.
const WRITTEN: &str = "CASE WHEN place BETWEEN :first AND :last THEN place <= :place ELSE at <= :at END";

/// What the tree of an execution shared when its commit `version` was made; `None` if there is no such commit.
pub(crate) fn shared(
    db: &Connection,
    at: &Place,
    execution: &ExecutionId,
    version: u64,
) -> Result<Option<TreeShared>, Failure> {
    let sql = "SELECT key, main FROM executions WHERE id = ?1 AND version >= ?2";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let version_is_there = crate::schema::integer(version);
    let found: Option<(i64, String)> = db
        .prepare_cached(sql)?
        .query_row(rusqlite::params![execution.as_str(), version_is_there], read)
        .optional()?;
    let Some((key, main)) = found else { return Ok(None) };
    let place = place(key, version)?;
    let time = db
        .prepare_cached("SELECT at FROM commits WHERE place = ?1")?
        .query_row([place], |row| row.get::<_, i64>(0))
        .optional()?;
    let Some(time) = time else { return Ok(None) };
    let parameters = named_params! {
        ":main": main,
        ":place": place,
        ":first": place_up_to(key, 0),
        ":last": place_up_to(key, u64::MAX),
        ":at": time,
    };
    let sql = format!(
        "SELECT role, tool_name, content, key FROM turns
         WHERE main = :main AND (until IS NULL OR until > :at) AND {WRITTEN} ORDER BY number"
    );
    let mut select = db.prepare_cached(&sql)?;
    let turns = select.query_map(parameters, trees::turn)?.collect::<Result<_, _>>()?;
    let sql = format!(
        "SELECT identities, schemas FROM definitions WHERE main = :main AND {WRITTEN} ORDER BY number DESC LIMIT 1"
    );
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let found: Option<(String, String)> = db.prepare_cached(&sql)?.query_row(parameters, read).optional()?;
    let definitions = match found {
        Some((identities, schemas)) => Definitions {
            identities: trees::read_identities(at, execution, &identities)?,
            context_schema: trees::read_schemas(at, execution, &schemas)?,
        },
        None => Definitions::default(),
    };
    Ok(Some(TreeShared { definitions, turns }))
}

/// Forgets the past of the tree with this root; what it shares now stays.
pub(crate) fn forget(db: &Connection, main: &str) -> Result<(), Failure> {
    db.prepare_cached("DELETE FROM turns WHERE main = ?1 AND until IS NOT NULL")?
        .execute([main])?;
    let sql = "DELETE FROM definitions WHERE main = ?1 AND (identities = '{}' AND schemas = '{}'
        OR number < (SELECT max(number) FROM definitions WHERE main = ?1))";
    db.prepare_cached(sql)?.execute([main])?;
    Ok(())
}
