//! Following what happens: bounded streams that never block the engine.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};

use futures::Stream;
use soe_backends::{Event, ExecutionId, TelemetryBackend};
use tokio::sync::broadcast;

use super::inbox::LOOK;
use super::shared::Shared;

/// What a subscriber may be behind. One that falls further back reads on from the telemetry store, or is told what it missed
/// where there is none.
const CAPACITY: usize = 256;

/// Events of stored telemetry are read in pages of this size.
const PAGE: usize = 256;

/// What a stream of events gives.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StreamItem {
    /// An event.
    Event(Event),
    /// The reader was too slow: so many events are left out here.
    Missed(u64),
}

/// A stream of events. Reading slowly never holds the engine up; dropping it is safe.
#[must_use = "streams do nothing unless they are polled"]
pub struct EventStream {
    items: Pin<Box<dyn Stream<Item = StreamItem> + Send>>,
}

impl Stream for EventStream {
    type Item = StreamItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<StreamItem>> {
        self.items.as_mut().poll_next(cx)
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

/// Who follows what.
#[derive(Default)]
pub(super) struct Subscribers {
    /// So that publishing costs nothing while nobody listens.
    count: AtomicUsize,
    channels: Mutex<Channels>,
}

/// What goes to subscribers.
#[derive(Clone)]
enum Published {
    Event(Event),
    /// Something was stored that nobody seemed to want to hear of: whoever does reads it there.
    InStore,
}

#[derive(Default)]
struct Channels {
    closed: bool,
    all: Option<broadcast::Sender<Published>>,
    trees: HashMap<ExecutionId, broadcast::Sender<Published>>,
}

impl Subscribers {
    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody listens to anything.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Passes events on to those who listen.
    pub(super) fn publish(&self, tree: &ExecutionId, events: impl IntoIterator<Item = Event>) {
        let channels = self.channels();
        let one = channels.trees.get(tree);
        for event in events {
            if let Some(all) = &channels.all {
                // No receiver is no error: they come and go.
                let _ = all.send(Published::Event(event.clone()));
            }
            if let Some(one) = one {
                let _ = one.send(Published::Event(event));
            }
        }
    }

    /// Tells those who follow a tree to read on in the store.
    pub(super) fn point_to_store(&self, tree: &ExecutionId) {
        if let Some(one) = self.channels().trees.get(tree) {
            let _ = one.send(Published::InStore);
        }
    }

    /// Ends all streams.
    pub(super) fn close(&self) {
        let mut channels = self.channels();
        channels.closed = true;
        channels.all = None;
        channels.trees.clear();
    }

    fn subscribe(&self, tree: Option<&ExecutionId>) -> broadcast::Receiver<Published> {
        let mut channels = self.channels();
        if channels.closed {
            return broadcast::channel(1).1;
        }
        self.count.fetch_add(1, Ordering::AcqRel);
        let new = || broadcast::channel(CAPACITY).0;
        match tree {
            Some(tree) => channels.trees.entry(tree.clone()).or_insert_with(new).subscribe(),
            None => channels.all.get_or_insert_with(new).subscribe(),
        }
    }

    fn unsubscribe(&self, tree: Option<&ExecutionId>) {
        let mut channels = self.channels();
        if channels.closed {
            return;
        }
        self.count.fetch_sub(1, Ordering::AcqRel);
        let Some(tree) = tree else { return };
        if channels
            .trees
            .get(tree)
            .is_some_and(|sender| sender.receiver_count() == 0)
        {
            channels.trees.remove(tree);
        }
    }
}

/// A place among the subscribers, given back when it is dropped.
struct Subscription {
    shared: Arc<Shared>,
    tree: Option<ExecutionId>,
    receiver: Option<broadcast::Receiver<Published>>,
}

impl Subscription {
    fn new(shared: Arc<Shared>, tree: Option<ExecutionId>) -> Self {
        let receiver = Some(shared.subscribers.subscribe(tree.as_ref()));
        Self { shared, tree, receiver }
    }

    /// What happens next; `None` at the end.
    async fn next(&mut self) -> Option<Next> {
        match self.receiver.as_mut()?.recv().await {
            Ok(Published::Event(event)) => Some(Next::Event(event)),
            Ok(Published::InStore) => Some(Next::InStore),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Next::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

enum Next {
    Event(Event),
    InStore,
    /// So many were overwritten before they were read.
    Missed(u64),
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.receiver = None;
        self.shared.subscribers.unsubscribe(self.tree.as_ref());
    }
}

impl EventStream {
    /// What happens from now on, in all executions.
    pub(super) fn all(shared: Arc<Shared>) -> Self {
        let subscription = Subscription::new(shared, None);
        let items = futures::stream::unfold(subscription, |mut subscription| async move {
            loop {
                let item = match subscription.next().await? {
                    Next::Event(event) => StreamItem::Event(event),
                    Next::Missed(missed) => StreamItem::Missed(missed),
                    Next::InStore => continue,
                };
                return Some((item, subscription));
            }
        });
        Self { items: Box::pin(items) }
    }

    /// What has happened in a tree and what happens in it, without gaps where telemetry is stored; of one execution only, if one is
    /// named. A tree that another process runs is followed by what that one stores.
    pub(super) fn tree(shared: Arc<Shared>, tree: ExecutionId, execution: Option<ExecutionId>, from: u64) -> Self {
        let telemetry = shared.backends.telemetry().cloned();
        let follower = Follower {
            subscription: Subscription::new(shared.clone(), Some(tree.clone())),
            shared,
            catching_up: telemetry.is_some(),
            next: telemetry.as_ref().map(|_| from),
            from,
            telemetry,
            tree,
            execution,
            ready: VecDeque::new(),
        };
        let items = futures::stream::unfold(follower, |mut follower| async move {
            let item = follower.next().await?;
            Some((item, follower))
        });
        Self { items: Box::pin(items) }
    }
}

struct Follower {
    shared: Arc<Shared>,
    subscription: Subscription,
    telemetry: Option<Arc<dyn TelemetryBackend>>,
    tree: ExecutionId,
    /// The one whose events are wanted; `None` for those of all executions.
    execution: Option<ExecutionId>,
    /// Earlier events are not wanted.
    from: u64,
    /// The number of the event that comes next, once it is known.
    next: Option<u64>,
    /// Whether stored events are to be read before live ones.
    catching_up: bool,
    ready: VecDeque<StreamItem>,
}

impl Follower {
    async fn next(&mut self) -> Option<StreamItem> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            if self.catching_up {
                self.catch_up().await;
                continue;
            }
            let next = tokio::select! {
                biased;
                next = self.subscription.next() => next?,
                // What another process stores is published nowhere here.
                () = tokio::time::sleep(LOOK), if self.is_elsewhere() => Next::InStore,
            };
            match next {
                // Without a store, the next event's number tells how many are missing.
                Next::Missed(_) | Next::InStore => self.catching_up = self.telemetry.is_some(),
                Next::Event(event) => {
                    // What is missing may have reached the store after this looked there.
                    self.catching_up = self.telemetry.is_some() && self.next.is_some_and(|next| event.seq > next);
                    while self.catching_up {
                        self.catch_up().await;
                    }
                    self.take(event);
                }
            }
        }
    }

    /// Whether no coordinator of this process publishes what happens.
    fn is_elsewhere(&self) -> bool {
        self.telemetry.is_some() && self.shared.lease.is_some() && !self.shared.active().contains_key(&self.tree)
    }

    /// Reads a page of stored events; the last page ends the catching up.
    async fn catch_up(&mut self) {
        let from = self.next.unwrap_or(0);
        let Some(telemetry) = &self.telemetry else { return };
        let page = telemetry.events(&self.tree, from, PAGE).await.unwrap_or_else(|error| {
            tracing::warn!(%error, tree = %self.tree, "stored events can't be read; a subscriber misses some");
            Vec::new()
        });
        self.catching_up = page.len() == PAGE;
        page.into_iter().for_each(|event| self.take(event));
    }

    /// Queues an event unless the reader had it, with the number of those that are missing before it.
    fn take(&mut self, event: Event) {
        let seq = event.seq;
        let next = self.next.unwrap_or(seq);
        if seq < next || seq < self.from {
            return;
        }
        if seq > next {
            self.ready.push_back(StreamItem::Missed(seq - next));
        }
        self.next = Some(seq + 1);
        if self
            .execution
            .as_ref()
            .is_none_or(|execution| *execution == event.execution)
        {
            self.ready.push_back(StreamItem::Event(event));
        }
    }
}
