//! `trees/ID.head`: what a list says of a tree, and of which content of its journal that is said. Nothing of it counts: it is
//! written after all other files for people, so that who finds it as it should be knows that those are, too.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::disk::{self, Staged, failed};
use super::journal::{Journal, Line, Mark};
use super::open::Entry;
use crate::{BackendError, Durability, ExecutionSummary, stored};

/// What a list says of a tree.
#[derive(Serialize, Deserialize)]
pub(super) struct Head {
    /// `None` if only something else is left of it.
    #[serde(flatten)]
    pub(super) summary: Option<ExecutionSummary>,
    /// The length of the telemetry file.
    pub(super) telemetry: u64,
    /// The content of the journal: its token and length.
    journal: (String, u64),
}

impl Head {
    pub(super) fn is_of(&self, mark: &Mark) -> bool {
        (&self.journal.0, self.journal.1) == (&mark.token, mark.length)
    }
}

/// What stands there, of whatever content of the journal; `None` if nothing does, or half of something.
pub(super) fn read(path: &Path) -> Result<Option<Head>, BackendError> {
    let content = disk::read(path)?.and_then(|content| Line::content(&content));
    content.map(|content| disk::parse(&content, path)).transpose()
}

/// What stands there, if the journal has that content. Nobody need hold the lock: a journal that grows is another.
pub(super) fn read_present(path: &Path, journal: &Path) -> Result<Option<Head>, BackendError> {
    let head = read(path).unwrap_or_default();
    let mark = Journal::open(journal)?
        .map(|(journal, file)| journal.mark_at_end(&file))
        .transpose()?;
    Ok(head
        .zip(mark)
        .and_then(|(head, mark)| head.is_of(&mark).then_some(head)))
}

pub(super) fn write(path: &Path, entry: &Entry) -> Result<(), BackendError> {
    let Some(journal) = &entry.journal else { return Ok(()) };
    let head = Head {
        summary: entry.tree.state.as_ref().and_then(|state| state.summary()),
        telemetry: entry.shown.telemetry,
        journal: (journal.mark.token.clone(), journal.mark.length),
    };
    let line = Line::new(&stored::write(&head)?)?;
    match overwrite(path, line.bytes()) {
        Ok(()) => Ok(()),
        // Something else has its name.
        Err(_) => Staged::replace(path.to_owned(), &[line.bytes()], Durability::Relaxed)?.publish(Durability::Relaxed),
    }
}

/// Replacing a file makes some file systems write it to the disk at once, and that takes longer than all else.
fn overwrite(path: &Path, content: &[u8]) -> Result<(), BackendError> {
    let mut file = disk::open_to_change(path, true)?;
    let mut write = || {
        file.write_all(content)?;
        file.set_len(content.len() as u64)
    };
    write().map_err(|error| failed("write", path, error))
}
