//! Writing the states of executions, so that loading a tree folds few commits.
//!
//! They are written when the commits since the last time are as long as what was written then (and at least 64 KiB), and only of
//! executions that have changed since: so what is written follows from the commits, however many executions a tree has, and
//! a load folds no more than the tree is long. It costs no commit anything but its turn: the JSON is written by a reader's
//! thread, and stored a piece at a time. The head comes last: until it is there, nobody takes notice of the rest.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};

use rusqlite::{Connection, params};
use soe_backends::{Change, Commit, ExecutionChange, ExecutionId, TreeState, stored};

use crate::commits::{Row, Stored};
use crate::error::Failure;
use crate::schema::{integer, place};
use crate::states::History;
use crate::store::Inner;

/// Nothing is written for fewer bytes of commits.
pub(crate) const LEAST_LOG: u64 = 64 * 1024;

/// So many bytes are stored in one transaction.
const PIECE: usize = 1024 * 1024;

/// Of so many trees it is known what has changed.
const TREES: usize = 4096;

/// What has changed in trees since their states were written, as far as this process knows.
#[derive(Default)]
pub(crate) struct Changed {
    trees: HashMap<ExecutionId, Executions>,
    /// Those whose states are being written.
    writing: BTreeSet<ExecutionId>,
}

#[derive(Default)]
struct Executions {
    epoch: i64,
    /// The version as of which the states are written, or being written.
    since: u64,
    /// Of how many commits since then this is: of all, unless others wrote some or these were noted in another order.
    commits: u64,
    numbers: BTreeSet<u64>,
}

/// The executions that commits change, of which `after` is the state.
pub(crate) fn touched(commits: &[Commit], after: &TreeState) -> BTreeSet<u64> {
    let mut numbers = BTreeSet::new();
    let parent = |number: u64| after.get(number).and_then(|state| state.parent());
    for change in commits.iter().flat_map(|commit| &commit.changes) {
        match change {
            Change::Created(_) | Change::Forked(_) => numbers.extend(after.executions.keys()),
            Change::Started(genesis) => {
                let Some((origin, place)) = &genesis.origin else {
                    continue;
                };
                let children = after.get(origin.parent).and_then(|state| state.children.as_ref());
                let of_run = children.and_then(|children| children.by_run.get(origin.run));
                numbers.extend(of_run.and_then(|of_run| of_run.get(*place)));
                numbers.insert(origin.parent);
            }
            Change::In { execution, change } => {
                numbers.insert(*execution);
                // The parent knows how many of its children run.
                if let ExecutionChange::Status { .. } = change {
                    numbers.extend(parent(*execution));
                }
            }
            _ => {}
        }
    }
    numbers
}

/// Notes what has changed, and has states written if it is time for it.
pub(crate) fn consider(inner: &Arc<Inner>, stored: Stored) {
    let tree = stored.state.root.clone();
    let is_due = stored.log >= stored.due;
    let known = {
        let mut changed = changed(inner);
        changed.note(&tree, &stored);
        if !is_due || !changed.writing.insert(tree.clone()) {
            return;
        }
        let next = Executions {
            epoch: stored.epoch,
            since: stored.state.version,
            ..Executions::default()
        };
        changed.trees.insert(tree.clone(), next)
    };
    let version = stored.state.version;
    let complete = known.filter(|known| known.since == stored.flushed && known.since + known.commits == version);
    let writing = Writing {
        inner: inner.clone(),
        tree,
        epoch: stored.epoch,
        flushed: stored.flushed,
        log: stored.log,
        state: stored.state,
        numbers: complete.map(|known| known.numbers),
    };
    inner.later(move |db| writing.write(db));
}

fn changed(inner: &Inner) -> MutexGuard<'_, Changed> {
    inner.changed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Changed {
    fn note(&mut self, tree: &ExecutionId, stored: &Stored) {
        if self.trees.len() > TREES {
            // It can be read from the commits.
            self.trees.clear();
        }
        let known = self.trees.entry(tree.clone()).or_default();
        // It is later where the states are just being written.
        if known.epoch != stored.epoch || known.since < stored.flushed {
            *known = Executions {
                epoch: stored.epoch,
                since: stored.flushed,
                ..Executions::default()
            };
        }
        if stored.state.version > known.since {
            known.commits += stored.commits;
            known.numbers.extend(&stored.touched);
        }
    }
}

/// The states of a tree that are to be written.
struct Writing {
    inner: Arc<Inner>,
    tree: ExecutionId,
    epoch: i64,
    flushed: u64,
    log: u64,
    state: Arc<TreeState>,
    /// The executions that have changed, if they are known.
    numbers: Option<BTreeSet<u64>>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        changed(&self.inner).writing.remove(&self.tree);
    }
}

impl Writing {
    /// What fails is tried again when there are more commits: they stay until the head is stored.
    fn write(mut self, db: &Connection) {
        let Some(numbers) = self.numbers.take().or_else(|| self.read_numbers(db)) else {
            return;
        };
        let (mut piece, mut bytes, mut all) = (Vec::new(), 0, 0);
        for number in numbers {
            let Some(execution) = self.state.get(number) else {
                continue;
            };
            let Ok(json) = stored::write_execution(execution) else {
                return;
            };
            bytes += json.len();
            all += json.len() as u64;
            piece.push((number, json));
            if bytes >= PIECE {
                // One at a time: commits of others come in between.
                if !self.put(std::mem::take(&mut piece), None) {
                    return;
                }
                bytes = 0;
            }
        }
        if let Ok(head) = stored::write_head(&self.state) {
            all += head.len() as u64;
            self.put(piece, Some((head, all)));
        }
    }

    /// The executions that commits have changed since the last time.
    fn read_numbers(&self, db: &Connection) -> Option<BTreeSet<u64>> {
        let _snapshot = db.unchecked_transaction().ok()?;
        let row = Row::of(db, self.tree.as_str())
            .ok()?
            .filter(|row| row.epoch == self.epoch)?;
        let history = History::of(db, &self.inner, &self.tree, row.key);
        let mut numbers = BTreeSet::new();
        let read = history.each(self.flushed + 1, self.state.version, usize::MAX, |commit, _| {
            numbers.extend(touched(&[commit], &self.state));
            Ok(())
        });
        read.ok().map(|()| numbers)
    }

    /// Says whether it is stored.
    fn put(&self, piece: Vec<(u64, String)>, head: Option<(String, u64)>) -> bool {
        let (tree, epoch, version, log) = (self.tree.clone(), self.epoch, self.state.version, self.log);
        let executions = self.state.executions.len() as u64;
        self.inner.write_blocking(move |db| {
            let row = Row::of(db, tree.as_str())?;
            // Another process, or this one, may have been faster.
            let Some(row) = row.filter(|row| row.epoch == epoch && row.version >= version && row.flushed < version)
            else {
                return Ok(());
            };
            put_states(db, row.key, version, &piece)?;
            if let Some((head, all)) = &head {
                put_head(db, row.key, version, executions, head)?;
                let due = log.saturating_add((*all).max(LEAST_LOG));
                db.prepare_cached("UPDATE trees SET flushed = ?2, due = ?3 WHERE key = ?1")?
                    .execute(params![row.key, integer(version), integer(due)])?;
            }
            Ok(())
        })
    }
}

/// Stores states of executions as of a version.
pub(crate) fn put_states(db: &Connection, key: i64, version: u64, states: &[(u64, String)]) -> Result<(), Failure> {
    let sql = "INSERT INTO states (tree, number, version, state) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (tree, number, version) DO NOTHING";
    let mut insert = db.prepare_cached(sql)?;
    for (number, json) in states {
        insert.execute(params![key, integer(*number), integer(version), json])?;
    }
    Ok(())
}

/// Stores what executions share as of a version: all their states must be there.
pub(crate) fn put_head(db: &Connection, key: i64, version: u64, executions: u64, head: &str) -> Result<(), Failure> {
    let sql = "INSERT INTO heads (place, executions, head) VALUES (?1, ?2, ?3) ON CONFLICT (place) DO NOTHING";
    db.prepare_cached(sql)?
        .execute(params![place(key, version)?, integer(executions), head])?;
    Ok(())
}
