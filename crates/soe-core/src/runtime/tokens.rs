//! Text of LLMs as it arrives: for those who look on. It is not stored.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use soe_backends::{ExecutionId, RunId, Stage};
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
    /// What is asked for: an agent's decisions are no text for people.
    pub stage: Stage,
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
///
/// A stream of [`Tokens`] that ends when the engine is shut down.
#[must_use = "streams do nothing unless they are polled"]
pub struct TokenStream {
    items: Pin<Box<dyn Stream<Item = Tokens> + Send>>,
}

impl TokenStream {
    fn new(receiver: broadcast::Receiver<TokenPiece>, execution: Option<ExecutionId>) -> Self {
        let next = async |mut receiver: broadcast::Receiver<TokenPiece>| match receiver.recv().await {
            Ok(piece) => Some((Tokens::Piece(piece), receiver)),
            Err(RecvError::Lagged(missed)) => Some((Tokens::Missed(missed), receiver)),
            Err(RecvError::Closed) => None,
        };
        let wanted = move |tokens: &Tokens| {
            let is_wanted = match (tokens, &execution) {
                (Tokens::Piece(piece), Some(execution)) => piece.run.execution == *execution,
                _ => true,
            };
            std::future::ready(is_wanted)
        };
        Self {
            items: futures::stream::unfold(receiver, next).filter(wanted).boxed(),
        }
    }

    /// The next piece; `None` when the engine is shut down.
    ///
    /// Cancel safety: nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Tokens> {
        self.items.next().await
    }
}

impl Stream for TokenStream {
    type Item = Tokens;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Tokens>> {
        self.items.as_mut().poll_next(cx)
    }
}

impl std::fmt::Debug for TokenStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenStream").finish_non_exhaustive()
    }
}

/// Where text comes from.
pub(super) struct Source {
    pub(super) run: RunId,
    pub(super) node: Arc<str>,
    pub(super) call: u32,
    pub(super) stage: Stage,
}

/// Everybody who looks on; nobody any more once the engine is shut down.
pub(super) struct Onlookers(Mutex<Option<broadcast::Sender<TokenPiece>>>);

impl Default for Onlookers {
    fn default() -> Self {
        Self(Mutex::new(Some(broadcast::Sender::new(BUFFER))))
    }
}

impl Onlookers {
    fn sender(&self) -> Option<broadcast::Sender<TokenPiece>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn stream(&self, execution: Option<ExecutionId>) -> TokenStream {
        let receiver = match self.sender() {
            Some(sender) => sender.subscribe(),
            None => broadcast::Sender::new(1).subscribe(),
        };
        TokenStream::new(receiver, execution)
    }

    /// All streams end, when those who send are done.
    pub(super) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Where a request's text goes; nowhere if nobody looks on now.
    pub(super) fn sink(&self, source: Source) -> TokenSink {
        let Some(sender) = self.sender().filter(|sender| sender.receiver_count() > 0) else {
            return TokenSink::default();
        };
        TokenSink::new(move |text| {
            // Those who looked on may be gone by now.
            let _ = sender.send(TokenPiece {
                run: source.run.clone(),
                node: source.node.clone(),
                call: source.call,
                stage: source.stage,
                text: text.into(),
            });
        })
    }
}
