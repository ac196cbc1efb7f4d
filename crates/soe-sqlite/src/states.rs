//! States: the newest that was written, and the commits after it.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};
use soe_backends::{Change, Commit, Deletion, ExecutionId, Guard, Timestamp, TreeState, stored};

use crate::cache::Known;
use crate::commits::{Row, unsigned};
use crate::error::{Failure, Place};
use crate::schema::{integer, number_of, place_up_to};
use crate::store::Inner;
use crate::{inbox, past, telemetry};

/// The state as it is now (`version` is `None`) or as a commit made it; `None` if there is no such commit.
pub(crate) fn load(
    db: &Connection,
    inner: &Inner,
    tree: &ExecutionId,
    version: Option<u64>,
) -> Result<Option<Arc<TreeState>>, Failure> {
    let Some(row) = Row::of_state(db, tree.as_str())? else {
        check_damaged(db, inner, tree)?;
        return Ok(None);
    };
    let version = version.unwrap_or(row.version);
    if version == 0 || version > row.version {
        return Ok(None);
    }
    let history = History::of(db, inner, tree, row.key);
    if version < row.version {
        return match history.begins_at(version)? {
            true => Ok(Some(Arc::new(history.fold(version)?))),
            false => Ok(None),
        };
    }
    if let Some(state) = inner.cache.get(tree, row.epoch, version) {
        return Ok(Some(state));
    }
    let state = Arc::new(history.fold(version)?);
    inner.cache.put(Known {
        epoch: row.epoch,
        log: row.log,
        state: state.clone(),
    });
    Ok(Some(state))
}

/// Refuses a tree of an earlier format that could not be converted.
pub(crate) fn check_damaged(db: &Connection, inner: &Inner, tree: &ExecutionId) -> Result<(), Failure> {
    let problem: Option<String> = db
        .prepare_cached("SELECT problem FROM damaged WHERE id = ?1")?
        .query_row([tree.as_str()], |row| row.get(0))
        .optional()?;
    match problem {
        Some(problem) => Err(inner.place.damaged("the tree", problem).execution(tree).into()),
        None => Ok(()),
    }
}

/// The commits and written states of a tree.
pub(crate) struct History<'a> {
    pub(crate) db: &'a Connection,
    at: &'a Place,
    tree: &'a ExecutionId,
    key: i64,
}

impl<'a> History<'a> {
    pub(crate) fn of(db: &'a Connection, inner: &'a Inner, tree: &'a ExecutionId, key: i64) -> Self {
        Self {
            db,
            at: &inner.place,
            tree,
            key,
        }
    }

    /// Whether the state of that version can be made: the first that is kept isn't later.
    fn begins_at(&self, version: u64) -> Result<bool, Failure> {
        let sql = "SELECT EXISTS (SELECT 1 FROM log WHERE place BETWEEN ?1 AND ?2)
            OR EXISTS (SELECT 1 FROM heads WHERE place BETWEEN ?1 AND ?2)";
        let places = [place_up_to(self.key, 0), place_up_to(self.key, version)];
        Ok(self.db.prepare_cached(sql)?.query_row(places, |row| row.get(0))?)
    }

    /// The state that the commits up to `version` make.
    pub(crate) fn fold(&self, version: u64) -> Result<TreeState, Failure> {
        let mut state = self.written(version)?;
        let from = state.as_ref().map_or(0, |state| state.version) + 1;
        self.each(from, version, usize::MAX, |commit, events| {
            let what = format!("commit {}", commit.version);
            let folded = match &mut state {
                Some(state) => apply(state, &commit, events),
                None => TreeState::create(&commit).map(|mut created| {
                    created.next_event += events;
                    state = Some(created);
                }),
            };
            folded.map_err(|error| self.damaged(&what, error))
        })?;
        match state {
            Some(state) if state.version == version && state.root == *self.tree => Ok(state),
            _ => Err(self.damaged("the history", "commits are missing")),
        }
    }

    /// The newest state that was written and isn't after `version`.
    fn written(&self, version: u64) -> Result<Option<TreeState>, Failure> {
        let sql = "SELECT place, executions, head FROM heads WHERE place BETWEEN ?1 AND ?2 ORDER BY place DESC LIMIT 1";
        let read = |row: &rusqlite::Row<'_>| {
            let head = stored::read_head(row.get_ref(2)?.as_bytes().unwrap_or_default());
            Ok((number_of(row.get(0)?), unsigned(row, 1)?, head))
        };
        let places = [place_up_to(self.key, 0), place_up_to(self.key, version)];
        let found = self.db.prepare_cached(sql)?.query_row(places, read).optional()?;
        let Some((version, executions, head)) = found else {
            return Ok(None);
        };
        let what = format!("the state at version {version}");
        let mut state = head.map_err(|error| self.damaged(&what, error))?;
        if state.version != version {
            return Err(self.damaged(&what, "it is one of another version"));
        }
        let sql =
            "SELECT state FROM states WHERE tree = ?1 AND number = ?2 AND version <= ?3 ORDER BY version DESC LIMIT 1";
        let mut select = self.db.prepare_cached(sql)?;
        for number in 0..executions {
            let read =
                |row: &rusqlite::Row<'_>| Ok(stored::read_execution(row.get_ref(0)?.as_bytes().unwrap_or_default()));
            let found = select.query_row(params![self.key, integer(number), integer(version)], read);
            let what = || format!("the state of execution number {number} at version {version}");
            let execution = found
                .optional()?
                .ok_or_else(|| self.damaged(&what(), "it is missing"))?;
            let execution = execution.map_err(|error| self.damaged(&what(), error))?;
            state.executions.insert(number, Arc::new(execution));
        }
        Ok(Some(state))
    }

    /// Reads the commits from one version to another, at most `limit`, without their events; takes each with the number of
    /// those.
    pub(crate) fn each(
        &self,
        from: u64,
        to: u64,
        limit: usize,
        mut take: impl FnMut(Commit, u64) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.rows(from, to, limit, |commit, _, events| take(commit, events))
    }

    fn rows(
        &self,
        from: u64,
        to: u64,
        limit: usize,
        mut take: impl FnMut(Commit, u64, u64) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if from > u64::from(u32::MAX) {
            return Ok(());
        }
        let sql = "SELECT place, at, fence, first_event, events, changes FROM log WHERE place BETWEEN ?1 AND ?2
            ORDER BY place LIMIT ?3";
        let mut select = self.db.prepare_cached(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = select.query([place_up_to(self.key, from), place_up_to(self.key, to), limit])?;
        while let Some(row) = rows.next()? {
            let version = number_of(row.get(0)?);
            let changes: Vec<Change> = stored::read(row.get_ref(5)?.as_bytes().unwrap_or_default())
                .map_err(|error| self.damaged(&format!("commit {version}"), error))?;
            let commit = Commit {
                tree: self.tree.clone(),
                version,
                fence: unsigned(row, 2)?,
                at: Timestamp::from_micros(unsigned(row, 1)?),
                changes,
                registries: Vec::new(),
                definitions: None,
                turns: Vec::new(),
                events: Vec::new(),
            };
            take(commit, unsigned(row, 3)?, unsigned(row, 4)?)?;
        }
        Ok(())
    }

    fn damaged(&self, what: &str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
        self.at.damaged(what, why).execution(self.tree).into()
    }
}

/// Applies a commit without its events: for the state their number is all that counts, and they may be deleted.
fn apply(state: &mut TreeState, commit: &Commit, events: u64) -> Result<(), soe_backends::ApplyError> {
    state.apply(commit)?;
    state.next_event += events;
    Ok(())
}

/// The commits from one version on, at most `limit`, with those of their events that are there.
pub(crate) fn commits(
    db: &Connection,
    inner: &Inner,
    tree: &ExecutionId,
    from: u64,
    limit: usize,
) -> Result<Vec<Commit>, Failure> {
    let mut bare = Vec::new();
    if let Some(row) = Row::of_state(db, tree.as_str())? {
        let history = History::of(db, inner, tree, row.key);
        history.rows(from, u64::MAX, limit, |commit, first, events| {
            bare.push((commit, first..first.saturating_add(events)));
            Ok(())
        })?;
    }
    let with_events = || {
        bare.iter()
            .map(|(_, numbers)| numbers)
            .filter(|numbers| !numbers.is_empty())
    };
    let all = match (with_events().next(), with_events().next_back()) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => 0..0,
    };
    let events = telemetry::read(db, &inner.place, tree, all, usize::MAX)?;
    let mut events = events.into_iter().peekable();
    let mut commits = Vec::with_capacity(bare.len());
    for (mut commit, numbers) in bare {
        while let Some(event) = events.next_if(|event| event.seq < numbers.end) {
            if numbers.contains(&event.seq) {
                commit.events.push(event);
            }
        }
        commits.push(commit);
    }
    Ok(commits)
}

/// Deletes a state with all its commits and its inbox, if it is as `guard` says and no message waits; events stay.
pub(crate) fn delete(db: &Connection, tree: &ExecutionId, guard: Guard) -> Result<Deletion, Failure> {
    let Some(row) = Row::of_state(db, tree.as_str())? else {
        let damaged = db
            .prepare_cached("DELETE FROM damaged WHERE id = ?1")?
            .execute([tree.as_str()])?;
        return Ok(match damaged {
            0 => Deletion::NoSuchTree,
            _ => Deletion::Deleted,
        });
    };
    if (row.version, row.fence) != (guard.version, guard.fence) || inbox::is_waiting(db, &row)? {
        return Ok(Deletion::Changed);
    }
    let places = [place_up_to(row.key, 0), place_up_to(row.key, u64::MAX)];
    for sql in [
        "DELETE FROM log WHERE place BETWEEN ?1 AND ?2",
        "DELETE FROM heads WHERE place BETWEEN ?1 AND ?2",
        "DELETE FROM inbox WHERE place BETWEEN ?1 AND ?2",
    ] {
        db.prepare_cached(sql)?.execute(places)?;
    }
    db.prepare_cached("DELETE FROM states WHERE tree = ?1")?
        .execute([row.key])?;
    past::forget(db, tree.as_str())?;
    let sql = if row.next_event == 0 {
        "DELETE FROM trees WHERE key = ?1"
    } else {
        "UPDATE trees SET version = 0, fence = 0, workflow = NULL, status = '', owes = 0, inbox = 0 WHERE key = ?1"
    };
    db.prepare_cached(sql)?.execute([row.key])?;
    Ok(Deletion::Deleted)
}
