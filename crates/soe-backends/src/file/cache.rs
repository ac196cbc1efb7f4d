//! The last states that this process read or wrote, so that a commit doesn't parse the file it replaces.
//!
//! A cached state is used only if the file is still the one that it was read from or written to: see [`Stamp`].

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::format::Stored;
use crate::{ExecutionId, RegistryId};

/// The most states that are kept.
const MAX_ENTRIES: usize = 1024;

/// The most bytes of context values that are kept. (They are shared with the engine, as long as it has them too.)
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Longer than the end of a context file from its token on.
const TAIL: u64 = 96;

/// Tells one content of a context file from every other: its end contains a token that is written once. Length and time
/// tell that somebody edited the file by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    tail: Vec<u8>,
}

impl Stamp {
    /// The stamp of an open file; afterwards the file is read from its beginning.
    pub(super) fn of(file: &mut File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        file.seek(SeekFrom::Start(metadata.len().saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        file.by_ref().take(TAIL).read_to_end(&mut tail)?;
        file.rewind()?;
        Ok(Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            tail,
        })
    }
}

/// A state, and what this process knows about the files around it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) stored: Arc<Stored>,
    /// The events in the outbox are in the telemetry file.
    pub(super) settled: bool,
    /// The registry and workflow that the files for people show.
    pub(super) shown: Option<(RegistryId, Arc<str>)>,
}

#[derive(Debug)]
struct Entry {
    known: Known,
    stamp: Stamp,
    used: u64,
}

#[derive(Debug, Default)]
struct Entries {
    map: HashMap<ExecutionId, Entry>,
    bytes: u64,
    clock: u64,
}

#[derive(Debug)]
pub(super) struct Cache {
    entries: Mutex<Entries>,
    process: u64,
    counter: AtomicU64,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            entries: Mutex::default(),
            // std seeds its hashers at random: no need for a crate to get 64 random bits.
            process: RandomState::new().hash_one((std::process::id(), SystemTime::now())),
            counter: AtomicU64::new(0),
        }
    }

    /// A token that no other content has, of this process or another.
    pub(super) fn token(&self) -> String {
        format!(
            "{:016x}-{:x}",
            self.process,
            self.counter.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// The state whose file has `stamp`.
    pub(super) fn get(&self, id: &ExecutionId, stamp: &Stamp) -> Option<Known> {
        let mut entries = self.lock();
        entries.clock += 1;
        let now = entries.clock;
        let entry = entries.map.get_mut(id)?;
        entry.used = now;
        (entry.stamp == *stamp).then(|| entry.known.clone())
    }

    pub(super) fn put(&self, id: &ExecutionId, stamp: Stamp, known: Known) {
        let mut entries = self.lock();
        entries.remove(id);
        entries.clock += 1;
        let entry = Entry {
            stamp,
            used: entries.clock,
            known,
        };
        entries.bytes += entry.bytes();
        entries.map.insert(id.clone(), entry);
        while entries.map.len() > MAX_ENTRIES || (entries.bytes > MAX_BYTES && entries.map.len() > 1) {
            let oldest = entries.map.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
                break;
            };
            entries.remove(&oldest);
        }
    }

    pub(super) fn remove(&self, id: &ExecutionId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn bytes(&self) -> u64 {
        self.known.stored.state.context_bytes
    }
}

impl Entries {
    fn remove(&mut self, id: &ExecutionId) {
        if let Some(entry) = self.map.remove(id) {
            self.bytes = self.bytes.saturating_sub(entry.bytes());
        }
    }
}
