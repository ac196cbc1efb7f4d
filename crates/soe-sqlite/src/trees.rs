//! What isn't of the state of a tree: registries, identities, context schemas, conversation histories, leases.

use std::sync::Arc;
use std::time::SystemTime;

use indexmap::IndexMap;
use rusqlite::{Connection, OptionalExtension as _, ToSql, params};
use soe_backends::{ExecutionId, RegistryDocument, RegistryId, Timestamp, Turn, Value, stored};

use crate::error::{Failure, Place};
use crate::prepare::Prepared;
use crate::schema::{integer, place};

/// A column of the table `shared`.
#[derive(Clone, Copy)]
pub(crate) enum Shared {
    Identities,
    Schemas,
}

/// When something was written, and by which commit, if one did.
#[derive(Clone, Copy)]
struct Written {
    at: Timestamp,
    place: Option<i64>,
}

impl Written {
    /// By the application.
    fn now() -> Self {
        Self {
            at: SystemTime::now().into(),
            place: None,
        }
    }
}

/// What commits of the tree with this key bring for the other stores.
pub(crate) fn put_sections(db: &Connection, key: i64, new: &Prepared) -> Result<(), Failure> {
    for (id, workflows) in &new.registries {
        put_registry(db, id, &new.json.get(workflows))?;
    }
    if let Some([identities, schemas]) = &new.definitions {
        put_definitions(db, &new.tree, &new.json.get(identities), &new.json.get(schemas))?;
    }
    for (commit, turns) in new.turns() {
        let written = Written {
            at: commit.at,
            place: Some(place(key, commit.version)?),
        };
        insert_turns(db, &new.tree, turns, written)?;
    }
    Ok(())
}

pub(crate) fn put_registry(db: &Connection, id: &RegistryId, workflows: &dyn ToSql) -> Result<(), Failure> {
    let sql = "INSERT INTO registries (id, workflows) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING";
    db.prepare_cached(sql)?.execute(params![id.to_string(), workflows])?;
    Ok(())
}

pub(crate) fn registry(db: &Connection, at: &Place, id: &RegistryId) -> Result<Option<Arc<RegistryDocument>>, Failure> {
    let sql = "SELECT workflows FROM registries WHERE id = ?1";
    let found: Option<String> = text(db, sql, &id.to_string())?;
    let Some(json) = found else { return Ok(None) };
    let workflows = stored::read(json.as_bytes()).map_err(|error| at.damaged(&format!("registry {id}"), error))?;
    let id = id.clone();
    Ok(Some(Arc::new(RegistryDocument { id, workflows })))
}

const EMPTY: &str = "{}";

fn put_definitions(
    db: &Connection,
    main: &ExecutionId,
    identities: &dyn ToSql,
    schemas: &dyn ToSql,
) -> Result<(), Failure> {
    let sql = "INSERT INTO shared (main, identities, schemas) VALUES (?1, ?2, ?3)
        ON CONFLICT (main) DO UPDATE SET identities = excluded.identities, schemas = excluded.schemas";
    db.prepare_cached(sql)?
        .execute(params![main.as_str(), identities, schemas])?;
    db.prepare_cached("DELETE FROM shared WHERE main = ?1 AND identities = '{}' AND schemas = '{}'")?
        .execute([main.as_str()])?;
    Ok(())
}

/// Replaces one kind of what a tree shares.
pub(crate) fn put_shared(db: &Connection, main: &ExecutionId, kind: Shared, json: &str) -> Result<(), Failure> {
    let [mut identities, mut schemas] = definitions(db, main)?;
    match kind {
        Shared::Identities => json.clone_into(&mut identities),
        Shared::Schemas => json.clone_into(&mut schemas),
    }
    put_definitions(db, main, &identities, &schemas)
}

fn definitions(db: &Connection, main: &ExecutionId) -> rusqlite::Result<[String; 2]> {
    let sql = "SELECT identities, schemas FROM shared WHERE main = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?]);
    let found = db.prepare_cached(sql)?.query_row([main.as_str()], read).optional()?;
    Ok(found.unwrap_or_else(|| [EMPTY.to_owned(), EMPTY.to_owned()]))
}

pub(crate) fn identities(
    db: &Connection,
    at: &Place,
    main: &ExecutionId,
) -> Result<IndexMap<Arc<str>, Arc<str>>, Failure> {
    let [json, _] = definitions(db, main)?;
    let damaged = |error| at.damaged("the identities", error).execution(main);
    Ok(stored::read(json.as_bytes()).map_err(damaged)?)
}

pub(crate) fn schemas(db: &Connection, at: &Place, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Value>, Failure> {
    let [_, json] = definitions(db, main)?;
    let damaged = |error| at.damaged("the context schemas", error).execution(main);
    Ok(stored::read(json.as_bytes()).map_err(damaged)?)
}

pub(crate) fn turns(db: &Connection, main: &ExecutionId) -> Result<Vec<Turn>, Failure> {
    let sql = "SELECT role, tool_name, content, key FROM turns WHERE main = ?1 AND until IS NULL ORDER BY number";
    let mut select = db.prepare_cached(sql)?;
    let turns = select.query_map([main.as_str()], turn)?.collect::<Result<_, _>>()?;
    Ok(turns)
}

pub(crate) fn turn(row: &rusqlite::Row<'_>) -> rusqlite::Result<Turn> {
    Ok(Turn {
        role: row.get(0)?,
        tool_name: row.get(1)?,
        content: row.get(2)?,
        key: row.get(3)?,
    })
}

pub(crate) fn append_turns(db: &Connection, main: &ExecutionId, turns: &[Turn]) -> Result<(), Failure> {
    insert_turns(db, main, turns, Written::now())
}

fn insert_turns(db: &Connection, main: &ExecutionId, turns: &[Turn], written: Written) -> Result<(), Failure> {
    let sql = "INSERT INTO turns (main, key, role, tool_name, content, at, place) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        ON CONFLICT (main, key) WHERE key IS NOT NULL AND until IS NULL DO NOTHING";
    let mut insert = db.prepare_cached(sql)?;
    for turn in turns {
        insert.execute(params![
            main.as_str(),
            turn.key,
            turn.role,
            turn.tool_name,
            turn.content,
            integer(written.at.as_micros()),
            written.place,
        ])?;
    }
    Ok(())
}

/// What is replaced is kept as the past.
pub(crate) fn replace_turns(db: &Connection, main: &ExecutionId, turns: &[Turn]) -> Result<(), Failure> {
    let written = Written::now();
    let until = integer(written.at.as_micros());
    db.prepare_cached("UPDATE turns SET until = ?2 WHERE main = ?1 AND until IS NULL")?
        .execute(params![main.as_str(), until])?;
    insert_turns(db, main, turns, written)
}

/// What is deleted is gone, its past too.
pub(crate) fn delete_turns(db: &Connection, main: &ExecutionId) -> Result<(), Failure> {
    db.prepare_cached("DELETE FROM turns WHERE main = ?1")?
        .execute([main.as_str()])?;
    Ok(())
}

pub(crate) fn heartbeat(db: &Connection, owner: &str, until: Timestamp) -> Result<(), Failure> {
    let sql =
        "INSERT INTO leases (owner, until) VALUES (?1, ?2) ON CONFLICT (owner) DO UPDATE SET until = excluded.until";
    db.prepare_cached(sql)?
        .execute(params![owner, integer(until.as_micros())])?;
    Ok(())
}

pub(crate) fn lease(db: &Connection, owner: &str) -> Result<Option<Timestamp>, Failure> {
    let sql = "SELECT until FROM leases WHERE owner = ?1";
    let read = |row: &rusqlite::Row<'_>| crate::commits::unsigned(row, 0);
    let until = db.prepare_cached(sql)?.query_row([owner], read).optional()?;
    Ok(until.map(Timestamp::from_micros))
}

pub(crate) fn release(db: &Connection, owner: &str) -> Result<(), Failure> {
    db.prepare_cached("DELETE FROM leases WHERE owner = ?1")?
        .execute([owner])?;
    Ok(())
}

fn text(db: &Connection, sql: &str, key: &str) -> rusqlite::Result<Option<String>> {
    db.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()
}
