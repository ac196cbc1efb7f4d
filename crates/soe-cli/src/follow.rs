//! Follows an execution until it ends or somebody interrupts.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use soe_backends::{ExecutionId, ExecutionState};
use soe_core::runtime::{Engine, EngineErrorKind, EventStream};

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
}

/// Where it ended.
pub(crate) struct End {
    /// The execution as it is now; `None` after a second interruption, which waits for nothing.
    pub(crate) state: Option<ExecutionState>,
    /// The exit code of an interruption.
    pub(crate) interrupted: Option<u8>,
}

impl Follower<'_> {
    /// Shows what happens, until the execution rests, has failed or is cancelled, or the command is interrupted.
    pub(crate) async fn follow(self, id: &ExecutionId, mut events: EventStream) -> anyhow::Result<End> {
        let mut ended = pin!(self.engine.wait(id));
        let mut ticks = tokio::time::interval(TICK);
        let interrupted = loop {
            tokio::select! {
                biased;
                code = self.interrupts.next() => break Some(code),
                Some(item) = events.next() => self.log.item(item)?,
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
            show_rest(self.log, &state, &mut events).await?;
            return Ok(End {
                state: Some(state),
                interrupted: None,
            });
        };
        self.interrupted(id, code, events).await
    }

    async fn interrupted(self, id: &ExecutionId, code: u8, mut events: EventStream) -> anyhow::Result<End> {
        let Self {
            engine,
            log,
            interrupts,
            is_stored,
        } = self;
        log.note(match is_stored {
            true => "interrupted: stopping (again to stop at once)",
            false => "interrupted: cancelling (again to stop at once)",
        });
        let stopped = async {
            if is_stored {
                engine.shutdown(Duration::ZERO).await;
            } else {
                engine.cancel(id).await?;
            }
            let state = engine.state(id).await?;
            show_rest(log, &state, &mut events).await?;
            anyhow::Ok(state)
        };
        let state = tokio::select! {
            state = stopped => Some(state?),
            _ = interrupts.next() => None,
        };
        Ok(End {
            state,
            interrupted: Some(code),
        })
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
    Ok(())
}
