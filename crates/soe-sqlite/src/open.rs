//! Opening a database: its connections and their settings.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use soe_backends::{BackendError, BackendErrorKind, Durability};
use tokio::sync::{mpsc, oneshot};

use crate::error::Place;
use crate::readers::{self, Readers};
use crate::store::SqliteStore;
use crate::{schema, writer};

/// Reads of so many callers are answered at the same time.
const READERS: usize = 4;

/// So many requests wait for the writer; who comes later waits to be let in.
const WAITING: usize = 1024;

/// A write-ahead log that has grown beyond this, for a long reader say, is cut when it starts anew.
const WAL_KEPT: u64 = 64 * 1024 * 1024;

/// How a store is opened: see [`SqliteStore::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    path: Option<PathBuf>,
    durability: Durability,
    busy_timeout: Duration,
    max_bytes: Option<u64>,
}

/// What a store talks to.
pub(crate) struct Opened {
    pub(crate) place: Place,
    pub(crate) writer: mpsc::Sender<writer::Message>,
    /// A database in memory belongs to one connection: its reads are the writer's too.
    pub(crate) readers: Option<Readers>,
}

impl Builder {
    pub(crate) fn file(path: &Path) -> Self {
        Self {
            path: Some(path.to_owned()),
            durability: Durability::Full,
            busy_timeout: Duration::from_secs(5),
            max_bytes: None,
        }
    }

    pub(crate) fn memory() -> Self {
        Self {
            path: None,
            ..Self::file(Path::new(""))
        }
    }

    /// What an acknowledged write survives: by default [`Durability::Full`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long a write waits while another process writes: by default 5 seconds.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// The most bytes that the file may have: a write that would need more is refused as if the disk were full. By default
    /// only the disk limits it. The write-ahead log beside the file isn't counted.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Opens the database; makes the file if it is missing, but not its folder.
    ///
    /// # Errors
    /// [`Unavailable`](BackendErrorKind::Unavailable) if it can't be opened, written or locked;
    /// [`Corrupt`](BackendErrorKind::Corrupt) if it is no database, another program's, or a later version's.
    pub async fn open(self) -> Result<SqliteStore, BackendError> {
        let (ready, opened) = oneshot::channel();
        let spawned = thread::Builder::new()
            .name("soe-sqlite-writer".to_owned())
            .spawn(move || self.run(ready));
        if let Err(error) = spawned {
            return Err(BackendError::new(BackendErrorKind::Unavailable, "can't start a thread").because(error));
        }
        let stopped =
            |error| BackendError::new(BackendErrorKind::Other, "opening the database panicked").because(error);
        opened.await.map_err(stopped)?.map(SqliteStore::new)
    }

    /// Opens everything, says so, and becomes the writer.
    fn run(self, ready: oneshot::Sender<Result<Opened, BackendError>>) {
        let path = self.path.as_deref();
        let place = path.map_or_else(Place::memory, Place::file);
        let (db, readers) = match self.connect(&place) {
            Ok(connections) => connections,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let (sender, inbox) = mpsc::channel(WAITING);
        let opened = Opened {
            place: place.clone(),
            writer: sender,
            readers: readers.clone(),
        };
        // If nobody waits any more, the inbox is closed, and the writer ends at once.
        let _ = ready.send(Ok(opened));
        writer::serve(db, inbox, readers, &place);
    }

    fn connect(&self, place: &Place) -> Result<(Connection, Option<Readers>), BackendError> {
        let failed = |error| place.failed("open", error);
        let Some(path) = &self.path else {
            let mut db = Connection::open_in_memory().map_err(failed)?;
            self.limit(&db).map_err(failed)?;
            schema::migrate(&mut db, place)?;
            return Ok((db, None));
        };
        // An absolute path can't be taken for a URI.
        let path = std::path::absolute(path).map_err(|error| {
            let message = format!("'{}' is no path", path.display());
            BackendError::new(BackendErrorKind::Unavailable, message).because(error)
        })?;
        let mut db = self.connection(&path).map_err(failed)?;
        schema::check(&db, place)?;
        if db.is_readonly("main").map_err(failed)? {
            let message = format!(
                "can't open {}: the file is read-only; the user that the program runs as needs write access to it",
                path.display()
            );
            return Err(BackendError::new(BackendErrorKind::Unavailable, message));
        }
        self.use_wal(&db, place)?;
        self.limit(&db).map_err(failed)?;
        schema::migrate(&mut db, place)?;
        let readers: Result<Vec<_>, _> = (0..READERS).map(|_| self.reader(&path)).collect();
        let readers = readers::start(readers.map_err(failed)?)?;
        Ok((db, Some(readers)))
    }

    fn connection(&self, path: &Path) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(self.busy_timeout)?;
        db.set_prepared_statement_cache_capacity(64);
        db.pragma_update(None, "trusted_schema", false)?;
        db.pragma_update(None, "temp_store", "memory")?;
        Ok(db)
    }

    fn reader(&self, path: &Path) -> rusqlite::Result<Connection> {
        let db = self.connection(path)?;
        db.pragma_update(None, "query_only", true)?;
        Ok(db)
    }

    /// The settings of the writer.
    fn limit(&self, db: &Connection) -> rusqlite::Result<()> {
        let synchronous = match self.durability {
            Durability::Relaxed => "normal",
            _ => "full",
        };
        db.pragma_update(None, "synchronous", synchronous)?;
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "cache_size", -16_384)?;
        // The writer moves the log into the file itself, when commits don't wait for it.
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        db.pragma_update(None, "journal_size_limit", schema::integer(WAL_KEPT))?;
        if let Some(bytes) = self.max_bytes {
            let page: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
            let pages = schema::integer(bytes) / page.max(1);
            db.pragma_update_and_check(None, "max_page_count", pages.max(1), |_| Ok(()))?;
        }
        Ok(())
    }

    fn use_wal(&self, db: &Connection, place: &Place) -> Result<(), BackendError> {
        let start = Instant::now();
        loop {
            let mode: rusqlite::Result<String> =
                db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0));
            match mode {
                Ok(mode) if mode == "wal" => return Ok(()),
                Ok(_) => {
                    let message = "the file system doesn't allow a write-ahead log: a local disk is needed";
                    return Err(BackendError::new(BackendErrorKind::Unsupported, message));
                }
                // SQLite doesn't wait here by itself.
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && start.elapsed() < self.busy_timeout =>
                {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(place.failed("open", error)),
            }
        }
    }
}
