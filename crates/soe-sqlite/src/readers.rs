//! The threads that read, each on a connection of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rusqlite::Connection;
use soe_backends::{BackendError, BackendErrorKind};
use tokio::sync::{mpsc, oneshot};

/// So many reads wait for a thread.
const WAITING: usize = 256;

/// What a thread does for somebody.
pub(crate) type Job = Box<dyn FnOnce(&Connection) + Send>;

enum Message {
    Job(Job),
    /// Close the connection, then say so.
    Close(oneshot::Sender<()>),
}

/// The way to the threads. They end when nobody has it any more.
#[derive(Clone)]
pub(crate) struct Readers {
    sender: mpsc::Sender<Message>,
    threads: usize,
}

/// Starts a thread for each connection.
pub(crate) fn start(connections: Vec<Connection>) -> Result<Readers, BackendError> {
    let (sender, inbox) = mpsc::channel(WAITING);
    let inbox = Arc::new(Mutex::new(inbox));
    let threads = connections.len();
    for db in connections {
        let inbox = inbox.clone();
        thread::Builder::new()
            .name("soe-sqlite-reader".to_owned())
            .spawn(move || serve(db, &inbox))
            .map_err(|error| BackendError::new(BackendErrorKind::Unavailable, "can't start a thread").because(error))?;
    }
    Ok(Readers { sender, threads })
}

impl Readers {
    /// Has `job` done as soon as a thread is free. Without one, the job is dropped.
    pub(crate) async fn send(&self, job: Job) {
        let _ = self.sender.send(Message::Job(job)).await;
    }

    /// Has `job` done unless too much waits already; says whether it will be.
    pub(crate) fn try_send(&self, job: Job) -> bool {
        self.sender.try_send(Message::Job(job)).is_ok()
    }

    /// Returns when all that was sent before is done and all connections are closed.
    pub(crate) async fn close(&self) {
        let mut closed = Vec::new();
        for _ in 0..self.threads {
            let (done, is_done) = oneshot::channel();
            if self.sender.send(Message::Close(done)).await.is_ok() {
                closed.push(is_done);
            }
        }
        for is_done in closed {
            let _ = is_done.await;
        }
    }
}

fn serve(db: Connection, inbox: &Mutex<mpsc::Receiver<Message>>) {
    loop {
        // One thread waits for the next job, the others wait for their turn to wait.
        let message = inbox.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        match message {
            Some(Message::Job(job)) => job(&db),
            Some(Message::Close(done)) => {
                drop(db);
                let _ = done.send(());
                return;
            }
            None => return,
        }
    }
}
