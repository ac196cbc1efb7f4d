//! A clock that tests move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use soe_backends::Timestamp;

/// A clock that stands still until a test moves it. Cheap to clone; clones are the same clock.
///
/// ```
/// use std::time::Duration;
///
/// use soe_core::testing::TestClock;
///
/// let clock = TestClock::default();
/// let now = clock.source();               // for EngineBuilder::clock
/// clock.advance(Duration::from_secs(90));
/// assert_eq!(now().to_string(), "2001-09-09T01:48:10.000000Z");
/// ```
#[derive(Clone, Debug)]
pub struct TestClock {
    micros: Arc<AtomicU64>,
    step: u64,
}

impl TestClock {
    /// A clock that stands at `time`.
    pub fn at(time: Timestamp) -> Self {
        Self {
            micros: Arc::new(AtomicU64::new(time.as_micros())),
            step: 0,
        }
    }

    /// The same clock, but [`TestClock::now`] of this handle moves it by `step` afterwards: then no two times are equal, and
    /// their order tells the order of events.
    #[must_use]
    pub fn with_step(mut self, step: Duration) -> Self {
        self.step = micros(step);
        self
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.add(self.step))
    }

    /// Moves the clock.
    pub fn advance(&self, by: Duration) {
        self.add(micros(by));
    }

    /// The clock as a function, as `EngineBuilder::clock` takes it.
    pub fn source(&self) -> impl Fn() -> Timestamp + Send + Sync + 'static {
        let clock = self.clone();
        move || clock.now()
    }

    /// Moves the clock; gives the time before.
    fn add(&self, by: u64) -> u64 {
        let moved = |time: u64| Some(time.saturating_add(by));
        let before = self.micros.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
        before.unwrap_or_else(|time| time)
    }
}

/// A clock that stands at 1,000,000,000 seconds after the Unix epoch, in September 2001.
impl Default for TestClock {
    fn default() -> Self {
        Self::at(Timestamp::from_micros(1_000_000_000_000_000))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_test_moves_it() {
        let clock = TestClock::at(Timestamp::from_micros(5));
        let now = clock.source();
        assert_eq!((now(), now()), (Timestamp::from_micros(5), Timestamp::from_micros(5)));
        clock.advance(Duration::from_micros(3));
        assert_eq!(now(), Timestamp::from_micros(8));
        clock.advance(Duration::MAX);
        assert_eq!(now(), Timestamp::from_micros(u64::MAX));
    }

    #[test]
    fn with_a_step_no_two_times_are_equal() {
        let clock = TestClock::at(Timestamp::from_micros(5)).with_step(Duration::from_micros(2));
        assert_eq!((clock.now().as_micros(), clock.now().as_micros()), (5, 7));
    }
}
