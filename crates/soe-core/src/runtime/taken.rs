//! What a coordinator has taken from its mailbox and not stored yet.

use soe_backends::{Commit, ExecutionId};

use super::shared::{Answer, BuiltinResult, Reply};
use super::{EngineError, EngineErrorKind};
use crate::machine::{Effect, Step, ToolFailure};

/// Inputs that were taken and not stored yet, with those who wait to hear of them.
pub(super) struct Taken {
    pub(super) tree: ExecutionId,
    pub(super) commits: Vec<Commit>,
    pub(super) effects: Vec<Effect>,
    pub(super) replies: Vec<Reply>,
    /// Those who called built-in tools, with the results.
    pub(super) answers: Vec<(Answer, BuiltinResult)>,
    /// Inputs that the machine didn't take; why is only true once the commits before them are stored.
    pub(super) refused: Vec<(Reply, EngineError)>,
}

impl Taken {
    pub(super) fn new(tree: &ExecutionId) -> Self {
        Self {
            tree: tree.clone(),
            commits: Vec::new(),
            effects: Vec::new(),
            replies: Vec::new(),
            answers: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, step: Step, more: &mut bool) {
        self.commits.extend(step.commit);
        *more |= step.effects.iter().any(|effect| matches!(effect, Effect::Continue));
        self.effects.extend(step.effects);
    }

    /// It is stored.
    pub(super) fn answer(mut self) {
        // A caller that went away needs no answer; the same below.
        for reply in self.replies.drain(..) {
            let _ = reply.send(Ok(()));
        }
        for (reply, result) in self.answers.drain(..) {
            let _ = reply.send(Ok(result));
        }
        for (reply, error) in self.refused.drain(..) {
            let _ = reply.send(Err(error));
        }
    }

    /// It can't be stored.
    pub(super) fn fail(mut self, error: EngineError) -> EngineError {
        self.answer_all(&error);
        error
    }

    fn answer_all(&mut self, error: &EngineError) {
        let refused = self.refused.drain(..).map(|(reply, _)| reply);
        for reply in self.replies.drain(..).chain(refused) {
            let _ = reply.send(Err(error.clone()));
        }
        for (reply, _) in self.answers.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

impl Drop for Taken {
    /// Callers take a missing answer for a message that was never read, and send it again. One that was read, and was
    /// lost in a panic, must not be doubled.
    fn drop(&mut self) {
        if !self.replies.is_empty() || !self.refused.is_empty() || !self.answers.is_empty() {
            let message = "a panic ended what runs it; whether this was stored is not known";
            let error = EngineError::because(EngineErrorKind::Internal, message).of(&self.tree);
            self.answer_all(&error);
        }
    }
}

/// What the step says to the call of a built-in tool that it is about.
pub(super) fn answered(step: &mut Step) -> BuiltinResult {
    let answer = step
        .effects
        .iter()
        .position(|effect| matches!(effect, Effect::Answer { .. }));
    match answer.map(|position| step.effects.remove(position)) {
        Some(Effect::Answer { result }) => result,
        _ => Err(ToolFailure {
            message: "there was no answer".into(),
            retryable: false,
        }),
    }
}
