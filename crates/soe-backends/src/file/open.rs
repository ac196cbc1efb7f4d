//! Trees as this process knows them, and the way to all of them: under the tree's lock, through its journal.

use std::path::Path;
use std::sync::Arc;

use super::cache::Cached;
use super::disk::{self, Lock, Staged};
use super::journal::{Journal, Mark};
use super::people::Changed;
use super::tree::{Record, Tree};
use super::{Inner, head};
use crate::stored::unfit;
use crate::{BackendError, Durability, ExecutionId, TreeState};

/// What this process knows of a tree: as much as its journal said at `journal.mark`.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) journal: Option<Journal>,
    pub(super) tree: Tree,
    pub(super) shown: Shown,
}

/// How far the files for people follow.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// They say what the tree is.
    pub(super) all: bool,
    /// The length of the telemetry file, as it was left.
    pub(super) telemetry: u64,
    /// So many of the events behind what is kept are in it.
    pub(super) lines: usize,
}

/// A tree whose lock is held.
pub(super) struct Open<'a> {
    inner: &'a Inner,
    pub(super) id: &'a ExecutionId,
    pub(super) entry: Entry,
    /// What is known doesn't fit what is stored: it must be read again.
    broken: bool,
}

impl Inner {
    /// Does something with a tree while nobody else does. One that doesn't exist is empty.
    pub(super) fn with<T>(
        &self,
        id: &ExecutionId,
        work: impl FnOnce(&mut Open<'_>) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let _lock = self.lock_converted(id)?;
        let entry = self.known(id)?;
        let mut open = Open {
            inner: self,
            id,
            entry,
            broken: false,
        };
        let result = work(&mut open);
        if open.entry.journal.is_some() && !open.broken {
            self.cache.put(id, open.entry);
        }
        result
    }

    /// The lock of a tree that doesn't have the form of before.
    fn lock_converted(&self, id: &ExecutionId) -> Result<Lock, BackendError> {
        loop {
            let lock = Lock::take(&self.layout.lock(id))?;
            if !self.is_old(id)? {
                return Ok(lock);
            }
            drop(lock);
            self.convert(id)?;
        }
    }

    /// What is stored of a tree. The caller holds its lock.
    fn known(&self, id: &ExecutionId) -> Result<Entry, BackendError> {
        let path = self.layout.journal(id);
        let cached = self.cache.take(id);
        let Some((mut journal, file)) = Journal::open(&path)? else {
            return Ok(Entry::default());
        };
        let mut entry = match cached {
            Some(cached) if cached.token() == Some(&journal.mark.token) => cached,
            _ => Entry::default(),
        };
        let before = entry.journal.as_ref().map(|journal| journal.mark.clone());
        if let Some(known) = entry.journal.take() {
            journal = known;
        }
        journal.read(file, |content| entry.tree.replay(content, &path))?;
        let is_new = before.as_ref() != Some(&journal.mark);
        let mark = journal.mark.clone();
        entry.journal = Some(journal);
        if is_new {
            self.look_at_shown(id, &mark, &mut entry);
        }
        Ok(entry)
    }

    /// Who wrote the last record may have died before the files for people followed.
    fn look_at_shown(&self, id: &ExecutionId, mark: &Mark, entry: &mut Entry) {
        let head = head::read(&self.layout.head(id)).ok().flatten();
        match head.filter(|head| head.is_of(mark)) {
            Some(head) => {
                entry.shown = Shown {
                    all: true,
                    telemetry: head.telemetry,
                    lines: entry.tree.events.pending.len(),
                };
            }
            None => {
                entry.shown = Shown::default();
                self.follow_up(id, entry, &Changed::EVERYTHING);
            }
        }
    }

    /// What follows a record that is stored: the files for people, a new base if it is worth it, and what a list says. What
    /// fails here is tried again with the next record; nothing is lost, since nothing of it counts.
    fn follow_up(&self, id: &ExecutionId, entry: &mut Entry, changed: &Changed) {
        let changed = if entry.shown.all { changed } else { &Changed::EVERYTHING };
        let shown = self.show(id, entry, changed);
        entry.shown.all = shown.is_ok();
        let is_long = entry.journal.as_ref().is_some_and(Journal::is_long);
        if is_long && self.cut(id, entry).is_err() {
            entry.journal.iter_mut().for_each(Journal::put_off);
        }
        if entry.shown.all {
            let written = head::write(&self.layout.head(id), entry);
            entry.shown.all = written.is_ok();
        }
    }

    /// Replaces the journal by its base.
    pub(super) fn cut(&self, id: &ExecutionId, entry: &mut Entry) -> Result<(), BackendError> {
        self.keep_events(id, entry)?;
        let base = entry.tree.base()?;
        let journal = Journal::write(self.layout.journal(id), self.cache.token(), &base, self.durability)?;
        entry.journal = Some(journal);
        Ok(())
    }
}

impl Open<'_> {
    pub(super) fn tree(&self) -> &Tree {
        &self.entry.tree
    }

    /// Stores a record and what follows from it; `after` is the state that its commits make.
    pub(super) fn write(
        &mut self,
        record: Record,
        after: Option<Arc<TreeState>>,
        changed: &Changed,
    ) -> Result<(), BackendError> {
        let (inner, line) = (self.inner, record.line()?);
        match &mut self.entry.journal {
            Some(journal) => journal.append(&line, inner.durability)?,
            journal @ None => {
                let path = inner.layout.journal(self.id);
                *journal = Some(Journal::write(path, inner.cache.token(), &[line], inner.durability)?);
            }
        }
        if let Err(error) = self.entry.tree.apply(record, after) {
            self.broken = true;
            return Err(unfit(self.id, error));
        }
        inner.follow_up(self.id, &mut self.entry, changed);
        Ok(())
    }

    /// Removes what was there for people of a tree that is deleted, and the journal if nothing is left of it.
    pub(super) fn sweep(&mut self) -> Result<(), BackendError> {
        if let Some(deleted) = self.entry.tree.deleted.clone() {
            self.inner.remove_shown(self.id, &deleted, self.entry.tree.converted)?;
            self.entry.tree.deleted = None;
            self.entry.tree.converted = false;
            if !self.tree().is_empty() {
                self.inner.cut(self.id, &mut self.entry)?;
                self.inner.follow_up(self.id, &mut self.entry, &Changed::NOTHING);
            }
        }
        if self.tree().is_empty() && self.entry.journal.take().is_some() {
            Staged::remove(self.inner.layout.head(self.id)).publish(Durability::Relaxed)?;
            Staged::remove(self.inner.layout.journal(self.id)).publish(self.inner.durability)?;
        }
        Ok(())
    }
}

impl Cached for Entry {
    fn token(&self) -> Option<&String> {
        self.journal.as_ref().map(|journal| &journal.mark.token)
    }

    fn size(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.mark.length)
    }
}

/// Removes a file, and makes that durable.
pub(super) fn remove(path: &Path, durability: Durability) -> Result<(), BackendError> {
    Staged::remove(path.to_owned()).publish(durability)?;
    match durability {
        // Whoever removed it may have died before that was durable.
        Durability::Full => disk::sync_folder(path),
        Durability::Relaxed => Ok(()),
    }
}
