//! States: the newest checkpoint, and the commits after it.

use rusqlite::{Connection, OptionalExtension as _};
use soe_backends::{Change, Commit, Event, EventKind, ExecutionId, ExecutionState, Timestamp, stored};

use crate::cache::Known;
use crate::commits::{Row, unsigned};
use crate::error::{Failure, Place};
use crate::schema::{number_of, place_up_to};
use crate::store::Inner;
use crate::{past, telemetry};

/// The state as it is now (`version` is `None`) or as a commit made it; `None` if there is no such commit.
pub(crate) fn load(
    db: &Connection,
    inner: &Inner,
    execution: &ExecutionId,
    version: Option<u64>,
) -> Result<Option<ExecutionState>, Failure> {
    let Some(row) = Row::of(db, execution.as_str())?.filter(|row| row.version > 0) else {
        return Ok(None);
    };
    let version = version.unwrap_or(row.version);
    if version == 0 || version > row.version {
        return Ok(None);
    }
    let history = History {
        db,
        at: &inner.place,
        execution,
        key: row.key,
    };
    if version < row.version {
        return history.fold(version).map(Some);
    }
    if let Some(state) = inner.cache.get(execution, row.epoch, version) {
        return Ok(Some(state));
    }
    let state = history.fold(version)?;
    inner.cache.put(Known {
        epoch: row.epoch,
        state: state.clone(),
    });
    Ok(Some(state))
}

/// The commits and checkpoints of an execution.
pub(crate) struct History<'a> {
    pub(crate) db: &'a Connection,
    pub(crate) at: &'a Place,
    pub(crate) execution: &'a ExecutionId,
    pub(crate) key: i64,
}

impl History<'_> {
    /// The state that the commits up to `version` make.
    pub(crate) fn fold(&self, version: u64) -> Result<ExecutionState, Failure> {
        let mut state = self.checkpoint(version)?;
        let from = state.as_ref().map_or(0, |state| state.version) + 1;
        self.each(from, version, usize::MAX, |row| {
            let commit = row.counted();
            let folded = match &mut state {
                Some(state) => state.apply(&commit),
                None => ExecutionState::create(&commit).map(|created| state = Some(created)),
            };
            folded.map_err(|error| self.damaged(&format!("commit {}", commit.version), error))
        })?;
        match state {
            Some(state) if state.version == version && state.id == *self.execution => Ok(state),
            _ => Err(self.damaged("the history", "commits are missing")),
        }
    }

    /// The newest checkpoint that isn't after `version`.
    fn checkpoint(&self, version: u64) -> Result<Option<ExecutionState>, Failure> {
        let sql = "SELECT place, state FROM checkpoints WHERE place BETWEEN ?1 AND ?2 ORDER BY place DESC LIMIT 1";
        let read = |row: &rusqlite::Row<'_>| {
            let state = stored::read_state(row.get_ref(1)?.as_bytes().unwrap_or_default());
            Ok((number_of(row.get(0)?), state))
        };
        let found = self
            .db
            .prepare_cached(sql)?
            .query_row([place_up_to(self.key, 0), place_up_to(self.key, version)], read)
            .optional()?;
        let Some((version, state)) = found else {
            return Ok(None);
        };
        let what = format!("the checkpoint at version {version}");
        let state = state.map_err(|error| self.damaged(&what, error))?;
        if state.version == version {
            Ok(Some(state))
        } else {
            Err(self.damaged(&what, "it is one of another version"))
        }
    }

    /// Reads the commits from one version to another, at most `limit`.
    fn each(
        &self,
        from: u64,
        to: u64,
        limit: usize,
        mut take: impl FnMut(Bare) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if from > u64::from(u32::MAX) {
            return Ok(());
        }
        let sql = "SELECT place, at, first_event, events, changes FROM commits WHERE place BETWEEN ?1 AND ?2
            ORDER BY place LIMIT ?3";
        let mut select = self.db.prepare_cached(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = select.query([place_up_to(self.key, from), place_up_to(self.key, to), limit])?;
        while let Some(row) = rows.next()? {
            let version = number_of(row.get(0)?);
            let changes: Vec<Change> = stored::read(row.get_ref(4)?.as_bytes().unwrap_or_default())
                .map_err(|error| self.damaged(&format!("commit {version}"), error))?;
            let commit = Commit {
                execution: self.execution.clone(),
                version,
                at: Timestamp::from_micros(unsigned(row, 1)?),
                changes,
                registry: None,
                definitions: None,
                turns: None,
                events: Vec::new(),
            };
            take(Bare {
                commit,
                first_event: unsigned(row, 2)?,
                events: unsigned(row, 3)?,
            })?;
        }
        Ok(())
    }

    fn damaged(&self, what: &str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
        self.at.damaged(what, why).execution(self.execution).into()
    }
}

/// A row of the table `commits`, without its events.
struct Bare {
    commit: Commit,
    first_event: u64,
    events: u64,
}

impl Bare {
    /// The commit with as many events as it had: for the fold their number is all that counts, and they may be deleted.
    fn counted(mut self) -> Commit {
        let event = |seq| Event {
            seq,
            time: self.commit.at,
            kind: EventKind::ExecutionRested {},
        };
        self.commit.events = (0..self.events)
            .map(|n| event(self.first_event.saturating_add(n)))
            .collect();
        self.commit
    }
}

/// The commits from one version on, at most `limit`, with those of their events that are there.
pub(crate) fn commits(
    db: &Connection,
    at: &Place,
    execution: &ExecutionId,
    from: u64,
    limit: usize,
) -> Result<Vec<Commit>, Failure> {
    let mut bare = Vec::new();
    if let Some(row) = Row::of(db, execution.as_str())? {
        let history = History {
            db,
            at,
            execution,
            key: row.key,
        };
        history.each(from, u64::MAX, limit, |row| {
            bare.push(row);
            Ok(())
        })?;
    }
    let numbers = |row: &Bare| row.first_event..row.first_event.saturating_add(row.events);
    let with_events = || bare.iter().filter(|row| row.events > 0).map(numbers);
    let all = match (with_events().next(), with_events().next_back()) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => 0..0,
    };
    let mut events = telemetry::read(db, at, execution, all, usize::MAX)?
        .into_iter()
        .peekable();
    let fill = |mut row: Bare| {
        let numbers = numbers(&row);
        while let Some(event) = events.next_if(|event| event.seq < numbers.end) {
            if numbers.contains(&event.seq) {
                row.commit.events.push(event);
            }
        }
        row.commit
    };
    Ok(bare.into_iter().map(fill).collect())
}

/// Deletes a state with all its commits and checkpoints; events stay. Says whether there was one.
pub(crate) fn delete(db: &Connection, execution: &ExecutionId) -> Result<bool, Failure> {
    let Some(row) = Row::of(db, execution.as_str())?.filter(|row| row.version > 0) else {
        return Ok(false);
    };
    let places = [place_up_to(row.key, 0), place_up_to(row.key, u64::MAX)];
    for sql in [
        "DELETE FROM commits WHERE place BETWEEN ?1 AND ?2",
        "DELETE FROM checkpoints WHERE place BETWEEN ?1 AND ?2",
    ] {
        db.prepare_cached(sql)?.execute(places)?;
    }
    past::forget(db, execution.as_str())?;
    let sql = if row.next_event == 0 {
        "DELETE FROM executions WHERE key = ?1"
    } else {
        "UPDATE executions SET version = 0, main = '', workflow = '', status = '' WHERE key = ?1"
    };
    db.prepare_cached(sql)?.execute([row.key])?;
    Ok(true)
}
