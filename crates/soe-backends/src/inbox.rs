//! The durable inbox of a tree: what any process may ask of it, whoever runs it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::state::Batch;
use crate::{Definitions, ExecutionId, Limits, Timestamp};

/// A message for a tree. It is taken by whoever runs the tree, exactly once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id, chosen by the sender: a message is stored once under an id.
    pub id: Arc<str>,
    /// When it was sent.
    pub at: Timestamp,
    /// The execution that it is about.
    pub execution: ExecutionId,
    /// What is asked for.
    pub request: Request,
}

/// What a message asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Broadcast these signals.
    Signal(Batch),
    /// Cancel the execution and all below it.
    Cancel,
    /// Go on with what has failed, under these limits if there are any.
    Resume {
        /// The limits of the tree from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limits: Option<Arc<Limits>>,
    },
    /// Replace identities and context schema of the tree.
    Define(Arc<Definitions>),
}

/// A message as it stands in an inbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Posted {
    /// Its place in the inbox, from 1: messages are taken in this order.
    pub seq: u64,
    /// The message.
    pub message: Message,
}

/// What became of a message that was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Post {
    /// It is stored, at this place.
    Stored(u64),
    /// A message of its id is stored already, at this place; or was taken, if there is none of it.
    Duplicate(u64),
    /// There is no such tree.
    NoSuchTree,
}

/// What a tree must be like for it to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Its version.
    pub version: u64,
    /// The fence of its owner: 0 if it has none.
    pub fence: u64,
}

/// What became of a tree that was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deletion {
    /// It is deleted.
    Deleted,
    /// There is no such tree.
    NoSuchTree,
    /// It isn't as the guard says any more, or a message waits in its inbox. It stays as it is.
    Changed,
}

/// How many ids of messages that were taken are remembered.
const REMEMBERED: usize = 1_000;

/// An inbox, for stores that keep whole ones: messages that were not taken, and the ids of those that were taken last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Inbox {
    last: u64,
    waiting: VecDeque<Posted>,
    taken: VecDeque<(Arc<str>, u64)>,
    /// The places of both.
    #[serde(skip_serializing)]
    known: HashMap<Arc<str>, u64>,
}

#[derive(Deserialize)]
struct Stored {
    last: u64,
    waiting: VecDeque<Posted>,
    taken: VecDeque<(Arc<str>, u64)>,
}

impl From<Stored> for Inbox {
    fn from(stored: Stored) -> Self {
        let Stored { last, waiting, taken } = stored;
        let of_waiting = waiting.iter().map(|posted| (posted.message.id.clone(), posted.seq));
        let known = taken.iter().cloned().chain(of_waiting).collect();
        Self {
            last,
            waiting,
            taken,
            known,
        }
    }
}

impl Inbox {
    /// The message as it will stand here.
    ///
    /// # Errors
    /// The place that it has already, or had when it was taken.
    pub fn place(&self, message: &Message) -> Result<Posted, u64> {
        match self.known.get(&message.id) {
            Some(seq) => Err(*seq),
            None => Ok(Posted {
                seq: self.last + 1,
                message: message.clone(),
            }),
        }
    }

    /// Puts in what got its [place](Inbox::place).
    pub fn put(&mut self, posted: Posted) {
        self.last = self.last.max(posted.seq);
        self.known.insert(posted.message.id.clone(), posted.seq);
        self.waiting.push_back(posted);
    }

    /// Takes out the messages up to that place.
    pub fn take(&mut self, until: u64) {
        self.last = self.last.max(until);
        while self.waiting.front().is_some_and(|posted| posted.seq <= until) {
            let taken = self.waiting.pop_front().map(|posted| (posted.message.id, posted.seq));
            self.taken.extend(taken);
        }
        while self.taken.len() > REMEMBERED {
            let forgotten = self.taken.pop_front();
            forgotten.map(|(id, _)| self.known.remove(&id));
        }
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// At most `limit` messages that come after place `after`.
    pub fn after(&self, after: u64, limit: usize) -> Vec<Posted> {
        let wanted = self.waiting.iter().filter(|posted| posted.seq > after);
        wanted.take(limit).cloned().collect()
    }
}
