//! Follows an execution until it ends or somebody interrupts.

use std::pin::pin;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use soe_backends::{ExecutionId, ExecutionState};
use soe_core::runtime::{Engine, EngineErrorKind, EventStream, TokenStream, Tokens};

use crate::interrupt::Interrupts;
use crate::log::Log;

/// How often the line about what takes long is renewed.
const TICK: Duration = Duration::from_millis(500);

/// How long to wait for events that are stored and not shown yet.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// Follows one execution.
pub(crate) struct Follower<'f> {
    pub(crate) engine: &'f Engine,
    pub(crate) log: &'f mut Log,
    pub(crate) interrupts: &'f mut Interrupts,
    /// Somebody else can go on with it: an interruption leaves it as it is, instead of cancelling it.
    pub(crate) is_stored: bool,
    /// What LLMs say, if it is to be shown.
    pub(crate) tokens: Option<TokenStream>,
}

/// Where it ended.
pub(crate) struct End {
    /// The execution as it is now.
    pub(crate) state: ExecutionState,
    /// The exit code of an interruption.
    pub(crate) interrupted: Option<u8>,
}

impl Follower<'_> {
    /// Shows what happens, until the execution rests, has failed or is cancelled, or the command is interrupted.
    pub(crate) async fn follow(mut self, id: &ExecutionId, mut events: EventStream) -> anyhow::Result<End> {
        let mut ended = pin!(self.engine.wait(id));
        let mut ticks = tokio::time::interval(TICK);
        let interrupted = loop {
            tokio::select! {
                biased;
                code = self.interrupts.first() => break Some(code),
                Some(item) = events.next() => {
                    self.show_said()?;
                    self.log.item(item)?;
                }
                Some(tokens) = next(&mut self.tokens) => self.log.tokens(tokens)?,
                result = &mut ended => {
                    self.log.clear();
                    match result {
                        Ok(_) => {}
                        Err(error) if matches!(error.kind(), EngineErrorKind::Failed(_) | EngineErrorKind::Ended(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                    break None;
                }
                _ = ticks.tick() => self.log.tick(),
            }
        };
        let Some(code) = interrupted else {
            let state = self.engine.state(id).await?;
            self.show_said()?;
            show_rest(self.log, &state, &mut events).await?;
            return Ok(End {
                state,
                interrupted: None,
            });
        };
        self.interrupted(id, code, events).await
    }

    /// Shows what LLMs have said by now: before the event that says that a reply is complete.
    fn show_said(&mut self) -> anyhow::Result<()> {
        while let Some(Some(tokens)) = next(&mut self.tokens).now_or_never() {
            self.log.tokens(tokens)?;
        }
        Ok(())
    }

    async fn interrupted(self, id: &ExecutionId, code: u8, mut events: EventStream) -> anyhow::Result<End> {
        let what = if self.is_stored { "stopping" } else { "cancelling" };
        self.log
            .note(&format!("interrupted: {what} {id} (again to stop at once)"));
        if self.is_stored {
            self.engine.shutdown(Duration::ZERO).await;
        } else {
            self.engine.cancel(id).await?;
        }
        let state = self.engine.state(id).await?;
        show_rest(self.log, &state, &mut events).await?;
        Ok(End {
            state,
            interrupted: Some(code),
        })
    }
}

/// What LLMs say next; never comes if it isn't to be shown.
async fn next(tokens: &mut Option<TokenStream>) -> Option<Tokens> {
    match tokens {
        Some(tokens) => tokens.next().await,
        None => std::future::pending().await,
    }
}

/// Shows the events up to a state.
async fn show_rest(log: &mut Log, state: &ExecutionState, events: &mut EventStream) -> anyhow::Result<()> {
    while log.next() < state.next_event {
        match tokio::time::timeout(LAST_EVENTS, events.next()).await {
            Ok(Some(item)) => log.item(item)?,
            _ => break,
        }
    }
    log.end();
    Ok(())
}
