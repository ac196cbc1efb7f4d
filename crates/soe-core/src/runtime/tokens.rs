//! Text of LLMs as it arrives: for those who look on. It is not stored.

use std::sync::Arc;

use soe_backends::{ExecutionId, RunId};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::llm::TokenSink;

/// How many pieces of text a slow reader may be behind. More is lost to that reader, who is told so: an LLM is not slowed.
const BUFFER: usize = 1024;

/// A piece of a reply, as it arrives from an LLM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenPiece {
    /// The run that asked.
    pub run: RunId,
    /// Its node.
    pub node: Arc<str>,
    /// The request's number in the run, from 1.
    pub call: u32,
    /// The text.
    pub text: Arc<str>,
}

/// What a reader of [`TokenStream`] gets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tokens {
    /// A piece of text.
    Piece(TokenPiece),
    /// The reader was too slow: so many pieces are lost to it. What is stored has the whole text.
    Missed(u64),
}

/// Text of LLMs as it arrives, from the moment at which the stream was made. For showing it: nothing of it is stored, and
/// what the LLM says in a reply that is asked again comes here too.
#[derive(Debug)]
pub struct TokenStream {
    receiver: broadcast::Receiver<TokenPiece>,
    execution: Option<ExecutionId>,
}

impl TokenStream {
    /// The next piece; `None` when the engine is gone.
    ///
    /// Cancel safety: nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Tokens> {
        loop {
            match self.receiver.recv().await {
                Ok(piece)
                    if self
                        .execution
                        .as_ref()
                        .is_none_or(|wanted| *wanted == piece.run.execution) =>
                {
                    return Some(Tokens::Piece(piece));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => return Some(Tokens::Missed(missed)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Where text comes from.
pub(super) struct Source {
    pub(super) run: RunId,
    pub(super) node: Arc<str>,
    pub(super) call: u32,
}

/// Everybody who looks on.
pub(super) struct Onlookers(broadcast::Sender<TokenPiece>);

impl Default for Onlookers {
    fn default() -> Self {
        Self(broadcast::Sender::new(BUFFER))
    }
}

impl Onlookers {
    pub(super) fn stream(&self, execution: Option<ExecutionId>) -> TokenStream {
        TokenStream {
            receiver: self.0.subscribe(),
            execution,
        }
    }

    /// Where a request's text goes; nowhere if nobody looks on now.
    pub(super) fn sink(&self, source: Source) -> TokenSink {
        if self.0.receiver_count() == 0 {
            return TokenSink::default();
        }
        let sender = self.0.clone();
        TokenSink::new(move |text| {
            // Those who looked on may be gone by now.
            let _ = sender.send(TokenPiece {
                run: source.run.clone(),
                node: source.node.clone(),
                call: source.call,
                text: text.into(),
            });
        })
    }
}
