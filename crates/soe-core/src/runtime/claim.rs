//! Who runs a tree: at most one coordinator in the process, found by the root's id.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use soe_backends::ExecutionId;
use tokio::sync::{mpsc, watch};

use super::shared::{Active, Control, Message, Progress, Shared};
use super::{EngineError, EngineErrorKind};

/// How many messages may wait for a coordinator. It never waits for those who send, so a full mailbox only slows them.
const MAILBOX: usize = 256;

/// How many callers may wait to interrupt a coordinator.
const CONTROL: usize = 8;

/// A tree claimed by this engine: nobody else in the process runs it. Dropping it gives it back; callers whose
/// messages were not read yet notice, and try again.
pub(super) struct Claim {
    /// The root.
    pub(super) tree: ExecutionId,
    pub(super) mailbox: mpsc::Receiver<Box<Message>>,
    pub(super) control: mpsc::Receiver<Box<Control>>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) active: Active,
    pub(super) shared: Arc<Shared>,
    released: bool,
}

/// What comes of trying to claim a tree.
pub(super) enum Claiming {
    /// It is the caller's.
    Claimed(Claim),
    /// It is somebody else's; this is how to reach them.
    Taken(Active),
}

impl Claim {
    /// Claims a tree, unless it is claimed.
    ///
    /// # Errors
    /// It isn't, and the engine is being shut down: whoever counts the claims then must not miss one.
    pub(super) fn take(shared: &Arc<Shared>, tree: &ExecutionId) -> Result<Claiming, EngineError> {
        let mut active = shared.active();
        if let Some(existing) = active.get(tree) {
            return Ok(Claiming::Taken(existing.clone()));
        }
        if shared.closing.load(Ordering::Acquire) {
            return Err(EngineError::new(EngineErrorKind::ShutDown).of(tree));
        }
        // What waits is boxed: a channel begins with room for 32, and most trees get only a few.
        let (mailbox_sender, mailbox) = mpsc::channel(MAILBOX);
        let (control_sender, control) = mpsc::channel(CONTROL);
        let (progress, progress_receiver) = watch::channel(Progress::Running);
        let entry = Active {
            mailbox: mailbox_sender,
            control: control_sender,
            progress: progress_receiver,
        };
        active.insert(tree.clone(), entry.clone());
        shared.active_count.send_modify(|count| *count += 1);
        drop(active);
        Ok(Claiming::Claimed(Self {
            tree: tree.clone(),
            mailbox,
            control,
            progress,
            active: entry,
            shared: shared.clone(),
            released: false,
        }))
    }

    /// Gives the claim back, unless somebody has sent something meanwhile.
    pub(super) fn release_if_idle(&mut self) -> bool {
        self.release_unless(|this| !this.mailbox.is_empty() || !this.control.is_empty())
    }

    fn release(&mut self) {
        self.release_unless(|_| false);
    }

    fn release_unless(&mut self, wanted: impl FnOnce(&Self) -> bool) -> bool {
        if self.released {
            return true;
        }
        let shared = self.shared.clone();
        let mut active = shared.active();
        if wanted(self) {
            return false;
        }
        self.released = true;
        active.remove(&self.tree);
        drop(active);
        // What slips in until here is dropped unread with the claim; its sender notices.
        self.mailbox.close();
        self.control.close();
        shared.active_count.send_modify(|count| *count -= 1);
        true
    }

    /// Ends the claim of a tree that has come to rest or to an end.
    pub(super) fn end(mut self, progress: Progress) {
        self.release();
        // Nobody waiting is no error.
        let _ = self.progress.send(progress);
    }

    /// Ends the claim of a tree that can't be gone on with: everybody who waits gets the error.
    pub(super) fn refuse(mut self, queue: VecDeque<Message>, error: &EngineError) {
        self.release();
        let mut rest = queue;
        while let Ok(message) = self.mailbox.try_recv() {
            rest.push_back(*message);
        }
        for message in rest {
            message.refuse(error);
        }
        while let Ok(control) = self.control.try_recv() {
            let _ = control.reply.send(Err(error.clone()));
        }
        let _ = self.progress.send(Progress::Ended(Err(error.clone())));
    }
}

impl Message {
    /// Tells the sender that it isn't taken. A sender that went away needs no answer.
    fn refuse(self, error: &EngineError) {
        match self {
            Message::Builtin { reply, .. } => drop(reply.send(Err(error.clone()))),
            Message::Wait { reply, .. } => drop(reply.send(Err(error.clone()))),
            Message::Signal { reply, .. }
            | Message::Asked { reply, .. }
            | Message::Define { reply, .. }
            | Message::Revert { reply, .. } => drop(reply.send(Err(error.clone()))),
            Message::Completed { .. } | Message::Due { .. } | Message::Replied { .. } | Message::Inbox => {}
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}
