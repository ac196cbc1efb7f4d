//! Limits on requests and tokens a minute.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Lets requests pass so that within any minute there are not more of them, and not more tokens, than allowed.
///
/// Who comes first passes first. A request that needs more tokens than a whole minute has waits for a minute of its own.
#[derive(Debug)]
pub(crate) struct Limiter {
    requests: Option<u64>,
    tokens: Option<u64>,
    // Held by the one that is next while it waits. The mutex is fair, and a dropped future leaves the queue.
    queue: tokio::sync::Mutex<()>,
    window: Mutex<Window>,
    changed: Notify,
}

const MINUTE: Duration = Duration::from_secs(60);

/// What passed within the last minute, oldest first. At most as many entries as the limits allow.
#[derive(Debug, Default)]
struct Window {
    passed: VecDeque<Passed>,
    tokens: u64,
    number: u64,
}

#[derive(Debug)]
struct Passed {
    number: u64,
    at: Instant,
    tokens: u64,
}

/// A request that may be sent. Dropping it keeps the estimate: the endpoint may have counted the request.
#[derive(Debug)]
#[must_use]
pub(crate) struct Pass {
    limiter: Arc<Limiter>,
    number: Option<u64>,
}

impl Limiter {
    pub(crate) fn new(requests: Option<u64>, tokens: Option<u64>) -> Self {
        Self {
            requests,
            tokens,
            queue: tokio::sync::Mutex::default(),
            window: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Waits until a request of about so many tokens may be sent, and counts it.
    pub(crate) async fn pass(self: &Arc<Self>, tokens: u64) -> Pass {
        let limiter = self.clone();
        if self.requests.is_none() && self.tokens.is_none() {
            return Pass { limiter, number: None };
        }
        let tokens = self.tokens.map_or(0, |limit| tokens.min(limit));
        let _turn = self.queue.lock().await;
        loop {
            match self.try_pass(tokens) {
                Ok(number) => {
                    return Pass {
                        limiter,
                        number: Some(number),
                    };
                }
                Err(wait) => {
                    tracing::debug!(wait_ms = wait.as_millis() as u64, "the rate limit makes a request wait");
                    // Either the time is over, or somebody used less than was thought.
                    let _ = timeout(wait, self.changed.notified()).await;
                }
            }
        }
    }

    /// Counts the request, or says when to look again.
    fn try_pass(&self, tokens: u64) -> Result<u64, Duration> {
        let now = Instant::now();
        let mut window = self.window();
        window.forget(now);
        let full = self.requests.is_some_and(|limit| window.passed.len() as u64 >= limit);
        let spent = self
            .tokens
            .is_some_and(|limit| window.tokens.saturating_add(tokens) > limit);
        match window.passed.front() {
            Some(oldest) if full || spent => Err((oldest.at + MINUTE).duration_since(now)),
            _ => Ok(window.count(now, tokens)),
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        // Nothing panics while it is held, so what it guards is whole.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn forget(&mut self, now: Instant) {
        while let Some(oldest) = self.passed.front().filter(|oldest| now >= oldest.at + MINUTE) {
            self.tokens = self.tokens.saturating_sub(oldest.tokens);
            self.passed.pop_front();
        }
    }

    fn count(&mut self, at: Instant, tokens: u64) -> u64 {
        self.number += 1;
        self.tokens = self.tokens.saturating_add(tokens);
        self.passed.push_back(Passed {
            number: self.number,
            at,
            tokens,
        });
        self.number
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.passed.binary_search_by_key(&number, |passed| passed.number).ok()
    }
}

impl Pass {
    /// Puts the tokens that a request took in place of the estimate.
    pub(crate) fn took(self, tokens: u64) {
        let mut window = self.limiter.window();
        if self.limiter.tokens.is_none() {
            return;
        }
        let Some(position) = self.number.and_then(|number| window.position(number)) else {
            return;
        };
        let estimate = std::mem::replace(&mut window.passed[position].tokens, tokens);
        window.tokens = window.tokens.saturating_sub(estimate).saturating_add(tokens);
        drop(window);
        self.limiter.changed.notify_one();
    }

    /// Takes a request back that never reached the endpoint.
    pub(crate) fn give_back(self) {
        let mut window = self.limiter.window();
        let Some(position) = self.number.and_then(|number| window.position(number)) else {
            return;
        };
        if let Some(passed) = window.passed.remove(position) {
            window.tokens = window.tokens.saturating_sub(passed.tokens);
        }
        drop(window);
        self.limiter.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn limiter(requests: u64, tokens: u64) -> Arc<Limiter> {
        let some = |limit| (limit > 0).then_some(limit);
        Arc::new(Limiter::new(some(requests), some(tokens)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_request_of_a_minute_waits_for_the_next() {
        let limiter = limiter(1, 0);
        let start = Instant::now();
        let _first = limiter.pass(0).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        let _second = limiter.pass(0).await;
        assert_eq!(start.elapsed(), MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_counted_as_estimated_until_the_usage_is_known() {
        let limiter = limiter(0, 100);
        let start = Instant::now();
        let first = limiter.pass(80).await;
        assert!(limiter.pass(30).now_or_never().is_none());
        first.took(70);
        let second = limiter.pass(30).now_or_never().unwrap();
        second.took(50);
        let _third = limiter.pass(1).await;
        assert_eq!(start.elapsed(), MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_larger_than_a_minute_has_one_for_itself() {
        let limiter = limiter(0, 100);
        let start = Instant::now();
        let _small = limiter.pass(1).await;
        let huge = limiter.pass(1_000).await;
        assert_eq!(start.elapsed(), MINUTE);
        huge.took(1_000);
        let _small = limiter.pass(1).await;
        assert_eq!(start.elapsed(), MINUTE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_first_passes_first_even_if_small() {
        let limiter = limiter(0, 100);
        let _all = limiter.pass(100).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let wait = |name: &'static str, tokens| {
            let (limiter, order) = (limiter.clone(), order.clone());
            async move {
                let _pass = limiter.pass(tokens).await;
                order.lock().unwrap().push(name);
            }
        };
        tokio::join!(wait("large", 90), wait("small", 1), wait("medium", 50));
        assert_eq!(*order.lock().unwrap(), ["large", "small", "medium"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_queue_takes_nothing_with_them() {
        let limiter = limiter(1, 0);
        let start = Instant::now();
        let _first = limiter.pass(0).await;
        let mut next = Box::pin(limiter.pass(0));
        let mut after = Box::pin(limiter.pass(0));
        assert!((&mut next).now_or_never().is_none() && (&mut after).now_or_never().is_none());
        drop(next);
        let _second = after.await;
        assert_eq!(start.elapsed(), MINUTE);
        let _third = limiter.pass(0).await;
        assert_eq!(start.elapsed(), MINUTE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_never_sent_is_given_back_to_whoever_waits() {
        let limiter = limiter(1, 10);
        let start = Instant::now();
        let first = limiter.pass(10).await;
        let (_second, ()) = tokio::join!(limiter.pass(10), async { first.give_back() });
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_has_more_than_its_limit() {
        let limiter = limiter(3, 0);
        let start = Instant::now();
        let mut times = Vec::new();
        for pause in [0, 50, 0, 20, 0, 0, 0, 70, 0] {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            let _pass = limiter.pass(0).await;
            times.push(start.elapsed());
        }
        assert!(times.windows(4).all(|four| four[3] - four[0] >= MINUTE), "{times:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_nothing_waits_and_nothing_is_kept() {
        let limiter = limiter(0, 0);
        for _ in 0..1_000 {
            limiter.pass(1_000_000).await.took(5);
        }
        assert!(limiter.window().passed.is_empty());
    }
}
