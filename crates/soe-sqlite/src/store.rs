//! The handle on a store.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use soe_backends::{BackendError, Backends, RegistryId};
use tokio::sync::{mpsc, oneshot};

use crate::cache::Cache;
use crate::error::{Failure, Place};
use crate::flush::Changed;
use crate::json::Buffers;
use crate::open::{Builder, Opened};
use crate::readers::Readers;
use crate::writer::{self, Message};

/// All six stores in one SQLite file. Several processes can use one file. Cheap to clone; clones share everything.
///
/// The file is closed when [`SqliteStore::close`] is called, or soon after the last clone is dropped. What was acknowledged is
/// safe either way.
#[derive(Clone)]
pub struct SqliteStore(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) place: Place,
    pub(crate) cache: Cache,
    writer: mpsc::Sender<Message>,
    readers: Option<Readers>,
    /// Registries that are known to be stored: none is ever deleted.
    registries: Mutex<HashSet<RegistryId>>,
    pub(crate) changed: Mutex<Changed>,
    pub(crate) buffers: Buffers,
}

impl SqliteStore {
    /// Opens the database at `path` with [`Durability::Full`](soe_backends::Durability::Full).
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        Self::builder(path).open().await
    }

    /// How the database at `path` is to be opened.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::file(path.as_ref())
    }

    /// A database in memory, which is gone with the store. For tests of applications that look into their database.
    ///
    /// # Errors
    /// There is no memory, or no thread, for it.
    pub async fn open_in_memory() -> Result<Self, BackendError> {
        Builder::memory().open().await
    }

    /// The store as what an engine works with.
    pub fn backends(&self) -> Backends {
        Backends::single(Arc::new(self.clone()))
    }

    /// Does what was asked for before, then closes the file. Whatever is asked for later is an error.
    pub async fn close(&self) {
        // Readers first: what they do may end in a write.
        if let Some(readers) = &self.0.readers {
            readers.close().await;
        }
        let (done, is_done) = oneshot::channel();
        if self.0.writer.send(Message::Close(done)).await.is_ok() {
            let _ = is_done.await;
        }
    }

    pub(crate) fn new(opened: Opened) -> Self {
        Self(Arc::new(Inner {
            place: opened.place,
            cache: Cache::default(),
            writer: opened.writer,
            readers: opened.readers,
            registries: Mutex::default(),
            changed: Mutex::default(),
            buffers: Buffers::default(),
        }))
    }
}

impl Inner {
    /// Does work in a transaction and waits until it is committed. Dropping the future before it was handed over undoes it as
    /// a whole; later, it is done as a whole.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, BackendError> {
        let (message, answer) = writer::work(work);
        self.writer.send(message).await.map_err(|_| self.place.closed())?;
        answer.await.map_err(|_| self.place.closed())?
    }

    /// As [`Inner::write`], from a thread that may block. Says whether it is done.
    pub(crate) fn write_blocking(&self, work: impl FnMut(&Connection) -> Result<(), Failure> + Send + 'static) -> bool {
        let (message, answer) = writer::work(work);
        let sent = self.writer.blocking_send(message).is_ok();
        sent && matches!(answer.blocking_recv(), Ok(Ok(())))
    }

    /// Does work that only reads, on one snapshot of the database.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, BackendError> {
        let Some(readers) = &self.readers else {
            return self.write(work).await;
        };
        let (reply, answer) = oneshot::channel();
        let place = self.place.clone();
        let job = move |db: &Connection| {
            let result = db.unchecked_transaction().map_err(Failure::from);
            let result = result.and_then(|_snapshot| work(db));
            let _ = reply.send(result.map_err(|failure| place.failed("read", failure)));
        };
        readers.send(Box::new(job)).await;
        answer.await.map_err(|_| self.place.closed())?
    }

    /// Has a reader do something when it has time for it; says whether it will.
    pub(crate) fn later(&self, work: impl FnOnce(&Connection) + Send + 'static) -> bool {
        match &self.readers {
            Some(readers) => readers.try_send(Box::new(work)),
            None => false,
        }
    }

    pub(crate) fn registries(&self) -> MutexGuard<'_, HashSet<RegistryId>> {
        self.registries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("place", &self.0.place)
            .finish_non_exhaustive()
    }
}
