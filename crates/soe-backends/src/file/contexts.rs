//! What the store of states does, by the journals of the trees.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::sync::Arc;

use super::disk::{self, Lock, Staged, failed};
use super::layout::{INBOXES, JOURNAL, TREES, id_of_stem, stem_of};
use super::people::Changed;
use super::tree::Record;
use super::{Inner, head};
use crate::stored::{applied, check_versions, unfit, version_of};
use crate::{
    BackendError, BackendErrorKind, Commit, Damaged, Deletion, Durability, ExecutionId, ExecutionSummary, Guard,
    ListPage, ListQuery, Message, Post, Posted, TreeState,
};

/// The guard of a tree that can't be read, so nobody knows its version: no other has version 0.
const UNREADABLE: Guard = Guard { version: 0, fence: 0 };

impl Inner {
    pub(super) fn commit(
        &self,
        id: &ExecutionId,
        mut commits: Vec<Commit>,
        after: Option<Arc<TreeState>>,
    ) -> Result<(), BackendError> {
        self.with(id, |open| {
            let before = open.tree().state.as_deref();
            check_versions(&commits, before.map(version_of))?;
            let after = match after {
                Some(after) => after,
                None => Arc::new(applied(before, &commits).map_err(|error| unfit(id, error))?),
            };
            // Nothing that is committed may refer to something missing.
            for registry in commits.iter_mut().flat_map(|commit| commit.registries.drain(..)) {
                self.put_registry(&registry)?;
            }
            let changed = Changed::by(&commits, before);
            if open.tree().deleted.is_some() {
                open.sweep()?;
            }
            let waited = !open.tree().inbox.is_empty();
            open.write(Record::Commits(commits), Some(after), &changed)?;
            if waited && open.tree().inbox.is_empty() {
                self.nothing_waits(id);
            }
            Ok(())
        })
    }

    pub(super) fn load(&self, id: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError> {
        self.with(id, |open| Ok(open.tree().state.clone()))
    }

    pub(super) fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        let known: HashSet<ExecutionId> = self.ids(TREES, JOURNAL)?.into_iter().collect();
        let is_new = |id: &ExecutionId| known.contains(id) || known.contains(&id.root());
        let mut old = self.ids("contexts", ".json")?;
        old.retain(|id| !is_new(id));
        let (mut all, mut damaged) = (Vec::new(), Vec::new());
        for id in known.iter().chain(&old) {
            match self.summary(id) {
                Ok(summary) => all.extend(summary),
                Err(error) => damaged.push(Damaged {
                    tree: id.to_string(),
                    problem: error.to_string(),
                }),
            }
        }
        let mut page = ListPage::select(all, query);
        if query.after.is_none() {
            damaged.sort_unstable_by(|a, b| a.tree.cmp(&b.tree));
            page.damaged = damaged;
        }
        Ok(page)
    }

    /// The ids after which files in a folder are named that end in `suffix`.
    pub(super) fn ids(&self, folder: &str, suffix: &str) -> Result<Vec<ExecutionId>, BackendError> {
        let folder = self.layout.root.join(folder);
        let listing = |error| failed("list", &folder, error);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&folder).map_err(listing)? {
            let name = entry.map_err(listing)?.file_name();
            ids.extend(stem_of(&name, suffix).and_then(id_of_stem));
        }
        Ok(ids)
    }

    fn summary(&self, id: &ExecutionId) -> Result<Option<ExecutionSummary>, BackendError> {
        match head::read_present(&self.layout.head(id), &self.layout.journal(id))? {
            Some(head) => Ok(head.summary),
            None => self.with(id, |open| {
                Ok(open.tree().state.as_ref().and_then(|state| state.summary()))
            }),
        }
    }

    /// The mark comes first: what is marked is deleted, whatever files of it are there yet.
    pub(super) fn delete(&self, id: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        let deleted = self.with(id, |open| {
            let tree = open.tree();
            let found = match &tree.state {
                None => Deletion::NoSuchTree,
                Some(state) if version_of(state) != (guard.version, guard.fence) || !tree.inbox.is_empty() => {
                    return Ok(Deletion::Changed);
                }
                Some(_) => {
                    open.write(Record::Deleted, None, &Changed::NOTHING)?;
                    self.nothing_waits(id);
                    Deletion::Deleted
                }
            };
            open.sweep()?;
            Ok(found)
        });
        match deleted {
            Err(error) if error.kind() == BackendErrorKind::Corrupt && guard == UNREADABLE => self.delete_damaged(id),
            other => other,
        }
    }

    fn delete_damaged(&self, id: &ExecutionId) -> Result<Deletion, BackendError> {
        let _lock = Lock::take(&self.layout.lock(id))?;
        for execution in self.old_executions(id)? {
            Staged::remove(self.layout.context(&execution)).publish(Durability::Relaxed)?;
        }
        self.nothing_waits(id);
        Staged::remove(self.layout.head(id)).publish(Durability::Relaxed)?;
        Staged::remove(self.layout.context(id)).publish(self.durability)?;
        Staged::remove(self.layout.journal(id)).publish(self.durability)?;
        Ok(Deletion::Deleted)
    }

    pub(super) fn post(&self, id: &ExecutionId, message: &Message) -> Result<Post, BackendError> {
        self.with(id, |open| {
            if open.tree().state.is_none() {
                return Ok(Post::NoSuchTree);
            }
            match open.tree().inbox.place(message) {
                Err(seq) => Ok(Post::Duplicate(seq)),
                Ok(posted) => {
                    let seq = posted.seq;
                    self.something_waits(id)?;
                    open.write(Record::Posted(posted), None, &Changed::NOTHING)?;
                    Ok(Post::Stored(seq))
                }
            }
        })
    }

    pub(super) fn inbox(&self, id: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError> {
        self.with(id, |open| {
            let inbox = &open.tree().inbox;
            if inbox.is_empty() {
                self.nothing_waits(id);
            }
            Ok(inbox.after(after, limit))
        })
    }

    pub(super) fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError> {
        let mut waiting = self.ids(INBOXES, "")?;
        waiting.truncate(limit);
        Ok(waiting)
    }

    /// Says that a message waits, before it does: so none is overlooked.
    fn something_waits(&self, id: &ExecutionId) -> Result<(), BackendError> {
        let path = self.layout.waiting(id);
        match File::create_new(&path) {
            Ok(_) if self.durability == Durability::Full => disk::sync_folder(&path),
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed("write", &path, error)),
            _ => Ok(()),
        }
    }

    /// Where that fails, somebody looks at the inbox once more in vain.
    fn nothing_waits(&self, id: &ExecutionId) {
        let _ = fs::remove_file(self.layout.waiting(id));
    }
}
