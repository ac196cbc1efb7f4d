//! The durable inbox of a tree: what any process may ask of it, whoever runs it.

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
