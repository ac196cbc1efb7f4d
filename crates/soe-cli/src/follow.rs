//! Follows a tree until it rests or somebody interrupts.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use soe_backends::{EventKind, ExecutionId, TreeState};
use soe_core::runtime::{Engine, EngineErrorKind, EventStream, StreamItem, TokenStream, Tokens};

use crate::interrupt::Interrupts;
use crate::log::Log;

/// How often the line about what takes long is renewed.
const TICK: Duration = Duration::from_millis(500);

/// How long to wait for events that are stored and not shown yet.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// How often a tree is taken up whose process has ended while it was followed.
const TAKE_OVERS: u32 = 5;

/// How long before a tree is looked at again that another process has taken.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows one tree.
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
    /// The tree as it is now.
    pub(crate) tree: Arc<TreeState>,
    /// The exit code of an interruption.
    pub(crate) interrupted: Option<u8>,
}

impl Follower<'_> {
    /// Shows what happens, until all of the tree rests, it has failed or is cancelled, or the command is interrupted.
    pub(crate) async fn follow(mut self, root: &ExecutionId, mut events: EventStream) -> anyhow::Result<End> {
        let engine = self.engine;
        let mut ended = pin!(rest(engine, root));
        let mut ticks = tokio::time::interval(TICK);
        let interrupted = loop {
            tokio::select! {
                biased;
                code = self.interrupts.first() => break Some(code),
                Some(item) = events.next() => self.show(root, item).await?,
                Some(tokens) = next(&mut self.tokens) => self.log.tokens(tokens)?,
                result = &mut ended => {
                    self.log.clear();
                    result?;
                    break None;
                }
                _ = ticks.tick() => self.log.tick(),
            }
        };
        if let Some(code) = interrupted {
            return self.interrupted(root, code, events).await;
        }
        let tree = self.engine.tree(root).await?;
        self.show_said()?;
        self.show_rest(&tree, &mut events).await?;
        Ok(End {
            tree,
            interrupted: None,
        })
    }

    async fn show(&mut self, root: &ExecutionId, item: StreamItem) -> anyhow::Result<()> {
        self.show_said()?;
        if let StreamItem::Event(event) = &item
            && !matches!(event.kind, EventKind::ChildStarted { .. })
            && self.log.wants_names()
            && let Ok(tree) = self.engine.tree(root).await
        {
            let registry = self.engine.workflows(root).await.ok();
            self.log.know(tree, registry);
        }
        self.log.item(item)
    }

    /// Shows what LLMs have said by now: before the event that says that a reply is complete.
    fn show_said(&mut self) -> anyhow::Result<()> {
        while let Some(Some(tokens)) = next(&mut self.tokens).now_or_never() {
            self.log.tokens(tokens)?;
        }
        Ok(())
    }

    async fn interrupted(mut self, root: &ExecutionId, code: u8, mut events: EventStream) -> anyhow::Result<End> {
        let what = if self.is_stored { "stopping" } else { "cancelling" };
        self.log
            .note(&format!("interrupted: {what} {root} (again to stop at once)"));
        if self.is_stored {
            self.engine.shutdown(Duration::ZERO).await;
        } else {
            self.engine.cancel(root).await?;
        }
        let tree = self.engine.tree(root).await?;
        self.show_rest(&tree, &mut events).await?;
        Ok(End {
            tree,
            interrupted: Some(code),
        })
    }

    /// Shows the events up to a state.
    async fn show_rest(&mut self, tree: &TreeState, events: &mut EventStream) -> anyhow::Result<()> {
        while self.log.next() < tree.next_event {
            match tokio::time::timeout(LAST_EVENTS, events.next()).await {
                Ok(Some(item)) => self.show(&tree.root, item).await?,
                _ => break,
            }
        }
        self.log.end();
        Ok(())
    }
}

/// Waits until a tree rests or has ended, whoever runs it. If its process ends before, this one takes it up.
///
/// # Errors
/// The store fails, or nobody can go on with it.
pub(crate) async fn rest(engine: &Engine, root: &ExecutionId) -> anyhow::Result<()> {
    let mut tries = 0;
    loop {
        let error = match engine.wait_tree(root).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        match error.kind() {
            EngineErrorKind::Failed(_) | EngineErrorKind::Ended(_) => return Ok(()),
            EngineErrorKind::LostRace | EngineErrorKind::Elsewhere { .. } => tokio::time::sleep(PAUSE).await,
            EngineErrorKind::NotActive if tries < TAKE_OVERS => {
                tries += 1;
                match engine.resume(root).await {
                    Ok(_) => {}
                    Err(lost) if *lost.kind() == EngineErrorKind::LostRace => tokio::time::sleep(PAUSE).await,
                    Err(error) => return Err(error.into()),
                }
            }
            _ => return Err(error.into()),
        }
    }
}

/// What LLMs say next; never comes if it isn't to be shown.
async fn next(tokens: &mut Option<TokenStream>) -> Option<Tokens> {
    match tokens {
        Some(tokens) => tokens.next().await,
        None => std::future::pending().await,
    }
}
