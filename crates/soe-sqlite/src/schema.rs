//! The tables, and how databases of earlier versions get them.

use rusqlite::{Connection, Transaction, TransactionBehavior};
use soe_backends::{BackendError, BackendErrorKind};

use crate::convert;
use crate::error::{Failure, Place};

/// Marks the file as ours: "SOEw".
const APPLICATION: i64 = 0x534f_4577;

/// What makes the schema of version n + 1 out of that of version n. Released steps never change.
const STEPS: [&str; 3] = [
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
];

/// The version from which on there are trees. What is in a database of an earlier one is converted.
const TREES: usize = 3;

/// Trees and their commits, events or messages share one integer as key, so that a table needs no index beside itself.
const NUMBER_BITS: u32 = 32;

/// The key of row `number` of a tree, in the tables `log`, `heads`, `telemetry` and `inbox`.
pub(crate) fn place(tree: i64, number: u64) -> Result<i64, BackendError> {
    match u32::try_from(number) {
        Ok(number) => Ok(tree << NUMBER_BITS | i64::from(number)),
        Err(error) => {
            let message = "a tree in SQLite can't have more than 4,294,967,295 commits, events or messages";
            Err(BackendError::new(BackendErrorKind::Unsupported, message).because(error))
        }
    }
}

/// As [`place`], or the last place of the tree if there is no such number.
pub(crate) fn place_up_to(tree: i64, number: u64) -> i64 {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    tree << NUMBER_BITS | i64::from(number)
}

/// The number that is part of a key.
pub(crate) fn number_of(place: i64) -> u64 {
    u64::from(place as u32)
}

/// Times and sizes as SQLite keeps them.
pub(crate) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Whether the database is new, ours, and of a version that can be read. Changes nothing.
pub(crate) fn check(db: &Connection, place: &Place) -> Result<(), BackendError> {
    let failed = |error| place.failed("open", error);
    let application = pragma(db, "application_id").map_err(failed)?;
    let version = version(db).map_err(failed)?;
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if application == 0 && version == 0 && tables == 0 {
        return Ok(());
    }
    if application != APPLICATION {
        return Err(place.foreign("is the database of another program; choose another file"));
    }
    check_version(version, place)
}

fn check_version(version: i64, place: &Place) -> Result<(), BackendError> {
    if version <= STEPS.len() as i64 {
        return Ok(());
    }
    let why = format!(
        "was written by a later version: it has format {version}, this version reads up to {}; use that version",
        STEPS.len()
    );
    Err(place.foreign(&why))
}

/// Brings the database to the present version, in one transaction.
pub(crate) fn migrate(db: &mut Connection, place: &Place) -> Result<(), BackendError> {
    take_steps(db, place).map_err(|failure| place.failed("prepare", failure))
}

fn take_steps(db: &mut Connection, place: &Place) -> Result<(), Failure> {
    let present = STEPS.len() as i64;
    if version(db)? == present {
        return Ok(());
    }
    let transaction = Transaction::new(db, TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    let version = version(&transaction)?;
    check_version(version, place)?;
    let done = usize::try_from(version).unwrap_or(0);
    for step in &STEPS[done..] {
        transaction.execute_batch(step)?;
    }
    if done < TREES {
        convert::all(&transaction, place)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", present)?;
    transaction.commit()?;
    Ok(())
}

fn version(db: &Connection) -> rusqlite::Result<i64> {
    pragma(db, "user_version")
}

fn pragma(db: &Connection, name: &str) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, name, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_trees_share_survives_the_later_steps() {
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch(STEPS[0]).unwrap();
        db.execute_batch(
            r#"INSERT INTO trees VALUES ('tree', '{"poet": "You rhyme."}', '{}');
            INSERT INTO turns (main, key, role, content) VALUES ('tree', 'tree:1/0', 'user', 'Hi');"#,
        )
        .unwrap();
        db.pragma_update(None, "application_id", APPLICATION).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        let place = Place::memory();
        migrate(&mut db, &place).unwrap();
        assert_eq!(version(&db).unwrap(), STEPS.len() as i64);
        let tree = soe_backends::ExecutionId::new("tree").unwrap();
        let identities = crate::trees::identities(&db, &place, &tree).unwrap();
        assert_eq!(identities["poet"].as_ref(), "You rhyme.");
        let turns = crate::trees::turns(&db, &tree).unwrap();
        crate::trees::append_turns(&db, &tree, &turns).unwrap();
        assert_eq!(
            crate::trees::turns(&db, &tree).unwrap(),
            turns,
            "its key keeps a turn from being doubled"
        );
    }

    #[test]
    fn keys_of_a_tree_lie_together() {
        let last = i64::from(i32::MAX);
        assert_eq!(place(1, 0).unwrap(), 1 << 32);
        assert_eq!(place(last, u64::from(u32::MAX)).unwrap(), i64::MAX);
        assert_eq!(number_of(place(last, 77).unwrap()), 77);
        assert_eq!(number_of(place_up_to(3, u64::MAX)), u64::from(u32::MAX));
        assert!(place(1, 1 << 32).is_err());
    }
}
