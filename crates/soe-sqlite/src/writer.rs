//! The thread that writes: it takes all that waits, stores it in one transaction, and syncs once for all of it.

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rusqlite::Connection;
use rusqlite::hooks::Wal;
use soe_backends::BackendError;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Failure, Place, copy};
use crate::readers::Readers;

/// So many requests are stored in one transaction at most.
const GROUP: usize = 256;

/// The write-ahead log is moved into the file when it has grown by so many pages.
const WAL_PAGES: u32 = 4000;

/// What the writer is asked for.
pub(crate) enum Message {
    Work(Box<dyn Work>),
    /// Do what was asked for before, close the connection, then say so.
    Close(oneshot::Sender<()>),
}

/// Something to be done in a transaction, perhaps with others.
pub(crate) trait Work: Send {
    /// Does it. If the transaction can't be committed it is done again, in another one. An error means that something may
    /// have been written; what is refused before that is an answer like others.
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()>;

    /// Tells whoever asked: what was done, or why the transaction failed.
    fn answer(self: Box<Self>, committed: Result<(), BackendError>);
}

/// Work by a closure that may be called several times.
struct Job<F, T> {
    work: F,
    done: Option<Result<T, BackendError>>,
    reply: oneshot::Sender<Result<T, BackendError>>,
}

impl<F, T> Work for Job<F, T>
where
    F: FnMut(&Connection) -> Result<T, Failure> + Send,
    T: Send,
{
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.done = Some(match (self.work)(db) {
            Ok(value) => Ok(value),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Sql(error)) => return Err(error),
        });
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), BackendError>) {
        let result = match (committed, self.done) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(done)) => done,
            (Ok(()), None) => return,
        };
        // Whoever asked may have gone: what was done stays done.
        let _ = self.reply.send(result);
    }
}

/// A message with work for the writer, and where its answer arrives.
pub(crate) fn work<F, T>(work: F) -> (Message, oneshot::Receiver<Result<T, BackendError>>)
where
    F: FnMut(&Connection) -> Result<T, Failure> + Send + 'static,
    T: Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let job = Job {
        work,
        done: None,
        reply,
    };
    (Message::Work(Box::new(job)), answer)
}

/// Stores what comes in, until nobody can send anything any more.
pub(crate) fn serve(db: Connection, mut inbox: mpsc::Receiver<Message>, readers: Option<Readers>, place: &Place) {
    db.wal_hook(Some(note_pages));
    let mut backfill = Backfill::default();
    let (mut messages, mut closing) = (Vec::new(), Vec::new());
    while inbox.blocking_recv_many(&mut messages, GROUP) > 0 {
        let mut group = Vec::with_capacity(messages.len());
        for message in messages.drain(..) {
            match message {
                Message::Work(work) => group.push(work),
                Message::Close(done) => {
                    // What waits is still done; then the inbox is empty for good.
                    inbox.close();
                    closing.push(done);
                }
            }
        }
        store(&db, group, place);
        if let Some(readers) = &readers {
            backfill.go_on(&db, readers);
        }
    }
    drop(db);
    for done in closing {
        let _ = done.send(());
    }
}

/// Stores all of `group` in one transaction. If that fails, each by itself: one that can't be stored doesn't touch others.
fn store(db: &Connection, mut group: Vec<Box<dyn Work>>, place: &Place) {
    match attempt(db, &mut group) {
        Ok(()) => group.into_iter().for_each(|work| work.answer(Ok(()))),
        Err(Failed { begun: true, .. }) if group.len() > 1 => {
            for mut work in group {
                let committed = attempt(db, std::slice::from_mut(&mut work));
                work.answer(committed.map_err(|failed| place.failed("write to", failed.error)));
            }
        }
        Err(failed) => {
            for work in group {
                work.answer(Err(place.failed("write to", copy(&failed.error))));
            }
        }
    }
}

struct Failed {
    /// Whether the transaction had begun. If not, trying again at once is of no use.
    begun: bool,
    error: rusqlite::Error,
}

fn attempt(db: &Connection, group: &mut [Box<dyn Work>]) -> Result<(), Failed> {
    if group.is_empty() {
        return Ok(());
    }
    let execute = |sql| db.prepare_cached(sql)?.execute([]);
    execute("BEGIN IMMEDIATE").map_err(|error| Failed { begun: false, error })?;
    let done = group
        .iter_mut()
        .try_for_each(|work| work.run(db))
        .and_then(|()| execute("COMMIT").map(drop));
    done.map_err(|error| {
        // SQLite may have rolled back by itself.
        if !db.is_autocommit() {
            let _ = execute("ROLLBACK");
        }
        Failed { begun: true, error }
    })
}

thread_local! {
    /// The pages in the write-ahead log after the last commit of this thread's connection.
    static PAGES: Cell<u32> = const { Cell::new(0) };
}

fn note_pages(_: &Wal, pages: c_int) -> rusqlite::Result<()> {
    PAGES.set(u32::try_from(pages).unwrap_or(0));
    Ok(())
}

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;

/// Moving the write-ahead log into the file. A reader's thread does most of it, beside commits. Then the log can start anew,
/// but only at a moment when all of it is moved: so the writer moves the few pages that have come meanwhile.
#[derive(Default)]
struct Backfill {
    stage: Arc<AtomicU8>,
    /// The next one is due at so many pages, beyond the first: more if readers kept the log from starting anew.
    after: u32,
}

impl Backfill {
    fn go_on(&mut self, db: &Connection, readers: &Readers) {
        let pages = PAGES.get();
        self.after = if pages < WAL_PAGES { 0 } else { self.after };
        match self.stage.load(Ordering::Acquire) {
            IDLE if pages >= self.after + WAL_PAGES => {
                let stage = self.stage.clone();
                stage.store(RUNNING, Ordering::Release);
                let job = move |db: &Connection| {
                    backfill(db);
                    stage.store(DONE, Ordering::Release);
                };
                if !readers.try_send(Box::new(job)) {
                    self.stage.store(IDLE, Ordering::Release);
                }
            }
            DONE => {
                backfill(db);
                self.after = pages;
                self.stage.store(IDLE, Ordering::Release);
            }
            // Commits are faster than the disk, or no reader has come to it yet: they wait, rather than have the log grow.
            RUNNING if pages >= self.after + 2 * WAL_PAGES => {
                let _ = db.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()));
                self.after = pages;
            }
            _ => {}
        }
    }
}

/// What fails here fails again, and is told, when a commit needs the room.
fn backfill(db: &Connection) {
    let _ = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
}
