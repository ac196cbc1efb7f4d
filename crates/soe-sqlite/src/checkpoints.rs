//! Checkpoints: states that are stored whole, so that loading one folds few commits.
//!
//! One is made when the commits since the last one are as long as the state. So all of them together are no longer than all
//! commits, and what is read to load a state is no longer than twice the state (or 16 KB). Making one costs no commit
//! anything but its turn: the JSON is written by a reader's thread.

use std::sync::Arc;

use rusqlite::{Connection, params};
use soe_backends::{ExecutionId, ExecutionState, stored};

use crate::commits::{LEAST_LOG, Row, Stored};
use crate::error::Failure;
use crate::schema::{integer, place};
use crate::states;
use crate::store::Inner;

/// Has a checkpoint made if it is time for one. `state` is the one that was stored, if it is known.
pub(crate) fn consider(inner: &Arc<Inner>, execution: &ExecutionId, stored: &Stored, state: Option<&ExecutionState>) {
    if stored.log < stored.due || !inner.checkpoints().insert(execution.clone()) {
        return;
    }
    let making = Making {
        inner: inner.clone(),
        execution: execution.clone(),
    };
    let (epoch, version, log) = (stored.epoch, stored.version, stored.log);
    let state = state.cloned();
    inner.later(move |db| {
        let Some(json) = written(db, &making, version, state) else {
            return;
        };
        let inner = making.inner.clone();
        inner.write_later(move |db| put(db, &making.execution, epoch, version, log, &json));
    });
}

/// Says, when it goes, that the checkpoint is made, or that none will be.
struct Making {
    inner: Arc<Inner>,
    execution: ExecutionId,
}

impl Drop for Making {
    fn drop(&mut self) {
        self.inner.checkpoints().remove(&self.execution);
    }
}

/// The JSON of the state. `None` if it can't be had: then the commits are still there to be folded.
fn written(db: &Connection, making: &Making, version: u64, state: Option<ExecutionState>) -> Option<String> {
    let state = match state {
        Some(state) => state,
        None => {
            let _snapshot = db.unchecked_transaction().ok()?;
            let row = Row::of(db, making.execution.as_str()).ok()??;
            states::fold(db, &making.inner.place, &making.execution, row.key, version).ok()?
        }
    };
    stored::write_state(&state).ok()
}

/// Stores a checkpoint, if it is not longer than what it spares. If it is, it is tried again when there is more to spare.
fn put(
    db: &Connection,
    execution: &ExecutionId,
    epoch: i64,
    version: u64,
    log: u64,
    json: &str,
) -> Result<(), Failure> {
    let row = Row::of(db, execution.as_str())?;
    // Another process, or this one, may have been faster.
    let Some(row) = row.filter(|row| row.epoch == epoch && row.version >= version && row.covered < log) else {
        return Ok(());
    };
    let size = json.len() as u64;
    let pays = size <= log - row.covered;
    if pays {
        let sql = "INSERT INTO checkpoints (place, state) VALUES (?1, ?2) ON CONFLICT (place) DO NOTHING";
        db.prepare_cached(sql)?
            .execute(params![place(row.key, version)?, json])?;
    }
    let covered = if pays { log } else { row.covered };
    let due = covered + size.max(LEAST_LOG);
    let sql = "UPDATE executions SET covered = ?2, due = ?3 WHERE key = ?1";
    db.prepare_cached(sql)?
        .execute(params![row.key, integer(covered), integer(due)])?;
    Ok(())
}
