//! `contexts/ID.json`: the state of each execution. Replacing this file is the point at which a commit has happened.

use std::fs;
use std::sync::Arc;

use super::Inner;
use super::cache::{Known, Stamp};
use super::disk::{self, Lock, Staged, failed};
use super::format::{self, Stored};
use super::layout::id_of_stem;
use crate::stored::{check_versions, unfit};
use crate::{
    ApplyError, BackendError, BackendErrorKind, Commit, Event, ExecutionId, ExecutionState, ExecutionSummary, ListPage,
    ListQuery,
};

impl Inner {
    pub(super) fn commit(&self, mut commits: Vec<Commit>) -> Result<(), BackendError> {
        let Some(first) = commits.first() else { return Ok(()) };
        let id = first.execution.clone();
        let _lock = Lock::take(&self.layout.lock(&id))?;
        let known = self.known(&id)?;
        check_versions(&commits, known.as_ref().map(|known| known.stored.state.version))?;
        if let Some(known) = &known {
            self.settle(&id, known)?;
        }
        let state = fold(known.as_ref().map(|known| &known.stored.state), &commits).map_err(|e| unfit(&id, e))?;
        let outbox: Vec<Event> = commits
            .iter_mut()
            .flat_map(|commit| std::mem::take(&mut commit.events))
            .collect();
        let shown = known.and_then(|known| known.shown);

        // Whatever is likely to fail (the disk is full) comes before the first change that can be seen.
        let context = self.stage_context(&state, &outbox)?;
        let definitions = commits
            .iter_mut()
            .filter_map(|commit| commit.definitions.take())
            .next_back();
        let definitions = definitions
            .map(|definitions| self.stage_definitions(&id, &definitions))
            .transpose()?;
        for registry in commits.iter().filter_map(|commit| commit.registry.as_ref()) {
            self.put_registry(registry)?;
        }
        for staged in definitions.into_iter().flatten() {
            staged.publish(self.durability)?;
        }
        self.publish_context(&id, context)?;
        self.follow_up(&id, Stored { state, outbox }, shown);
        Ok(())
    }

    pub(super) fn load(&self, id: &ExecutionId) -> Result<Option<ExecutionState>, BackendError> {
        Ok(self.known(id)?.map(|known| known.stored.state.clone()))
    }

    pub(super) fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        let folder = self.layout.root.join("contexts");
        let entries = fs::read_dir(&folder).map_err(|error| failed("list", &folder, error))?;
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed("list", &folder, error))?;
            let name = entry.file_name();
            let id = name
                .to_str()
                .and_then(|name| name.strip_suffix(".json"))
                .and_then(id_of_stem);
            if let Some(id) = id {
                all.extend(self.summary(&id)?);
            }
        }
        Ok(ListPage::select(all, query))
    }

    /// Deletes the state; its last events stay, as those before do.
    pub(super) fn delete(&self, id: &ExecutionId) -> Result<bool, BackendError> {
        let _lock = Lock::take(&self.layout.lock(id))?;
        let path = self.layout.context(id);
        // A damaged file can be deleted too: then nothing is known of its last events.
        match self.known(id) {
            Ok(None) => return Ok(false),
            Ok(Some(known)) => self.settle(id, &known)?,
            Err(error) if error.kind() == BackendErrorKind::Corrupt => {}
            Err(error) => return Err(error),
        }
        self.cache.remove(id);
        Staged::remove(path).publish(self.durability)?;
        Ok(true)
    }

    /// The state as its file says, and what this process knows besides; `None` if there is no file.
    pub(super) fn known(&self, id: &ExecutionId) -> Result<Option<Known>, BackendError> {
        let path = self.layout.context(id);
        let Some(mut file) = disk::open(&path)? else {
            return Ok(None);
        };
        let stamp = Stamp::of(&mut file).map_err(|error| failed("read", &path, error))?;
        if let Some(known) = self.cache.get(id, &stamp) {
            return Ok(Some(known));
        }
        let content = disk::read_all(file, &path)?;
        let known = Known {
            stored: Arc::new(format::decode(&content, &path, id)?),
            settled: false,
            shown: None,
        };
        self.cache.put(id, stamp, known.clone());
        Ok(Some(known))
    }

    /// Removes the events from the outbox of a state. The caller holds the lock.
    pub(super) fn clear_outbox(&self, id: &ExecutionId) -> Result<(), BackendError> {
        match self.known(id)? {
            Some(known) if !known.stored.outbox.is_empty() => {
                let context = self.stage_context(&known.stored.state, &[])?;
                self.publish_context(id, context)
            }
            _ => Ok(()),
        }
    }

    fn summary(&self, id: &ExecutionId) -> Result<Option<ExecutionSummary>, BackendError> {
        let path = self.layout.context(id);
        let Some(mut file) = disk::open(&path)? else {
            return Ok(None);
        };
        let stamp = Stamp::of(&mut file).map_err(|error| failed("read", &path, error))?;
        if let Some(known) = self.cache.get(id, &stamp) {
            return Ok(Some(known.stored.state.summary()));
        }
        let content = disk::read_all(file, &path)?;
        format::decode_summary(&content, &path).map(Some)
    }

    fn stage_context(&self, state: &ExecutionState, outbox: &[Event]) -> Result<Staged, BackendError> {
        let content = format::encode(state, outbox, &self.cache.token())?;
        Staged::replace(self.layout.context(&state.id), &content, self.durability)
    }

    fn publish_context(&self, id: &ExecutionId, context: Staged) -> Result<(), BackendError> {
        self.cache.remove(id);
        context.publish(self.durability)
    }

    /// What follows a commit that has happened. What fails here is not lost, and done before the next commit.
    fn follow_up(&self, id: &ExecutionId, stored: Stored, shown: Option<(crate::RegistryId, Arc<str>)>) {
        let current = (stored.state.registry.clone(), stored.state.workflow.clone());
        let is_shown = shown.as_ref() == Some(&current) || self.show(id, &current.0, &current.1).is_ok();
        let known = Known {
            settled: self.append_new(id, &stored.outbox).is_ok(),
            shown: is_shown.then_some(current),
            stored: Arc::new(stored),
        };
        let stamp = fs::File::open(self.layout.context(id)).and_then(|mut file| Stamp::of(&mut file));
        if let Ok(stamp) = stamp {
            self.cache.put(id, stamp, known);
        }
    }

    /// Sees to it that the events in the outbox are in the telemetry file, before the outbox is replaced. The caller holds
    /// the lock.
    pub(super) fn settle(&self, id: &ExecutionId, known: &Known) -> Result<(), BackendError> {
        if known.settled {
            return Ok(());
        }
        self.append_new(id, &known.stored.outbox)
    }
}

fn fold(stored: Option<&ExecutionState>, commits: &[Commit]) -> Result<ExecutionState, ApplyError> {
    let (mut state, rest) = match (stored, commits.split_first()) {
        (Some(state), _) => (state.clone(), commits),
        (None, Some((first, rest))) => (ExecutionState::create(first)?, rest),
        (None, None) => return Err(ApplyError::NotCreated),
    };
    rest.iter().try_for_each(|commit| state.apply(commit))?;
    Ok(state)
}
