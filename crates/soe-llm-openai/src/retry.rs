//! Whether a failed request is sent again, and when.

use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// How often, and how patiently. See [`crate::OpenAiBuilder::retries`] and its neighbours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy {
    /// How many times a request is sent again.
    pub(crate) count: u32,
    /// The wait before the first retry; it doubles with each one.
    pub(crate) first: Duration,
    /// The longest wait that doubling leads to. What the endpoint asks for may be longer.
    pub(crate) longest: Duration,
    /// All waits of a call together.
    pub(crate) total: Duration,
}

/// Whether a failure may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It won't.
    Never,
    /// It may, but not before this wait, if the endpoint asks for one.
    After(Option<Duration>),
}

/// The retries of one call.
#[derive(Debug)]
pub(crate) struct Retries {
    policy: RetryPolicy,
    done: u32,
    waited: Duration,
}

impl Retries {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            done: 0,
            waited: Duration::ZERO,
        }
    }

    /// How long to wait before the request is sent again, `None` if it isn't. `chance` is random, from 0 to 1.
    ///
    /// Without a wish of the endpoint it is between half of the doubled wait and all of it; with one it is up to a tenth
    /// more, so that not all who were sent away come back at once.
    pub(crate) fn next(&mut self, retry: Retry, chance: f64) -> Option<Duration> {
        let Retry::After(wished) = retry else { return None };
        // "At once" is no wish to be met by a server in trouble.
        let wished = wished.filter(|wished| !wished.is_zero());
        if self.done >= self.policy.count {
            return None;
        }
        let doubled = self
            .policy
            .first
            .saturating_mul(1 << self.done.min(30))
            .min(self.policy.longest);
        let left = self.policy.total.saturating_sub(self.waited);
        let wait = match wished {
            // What there is left is enough for the wish, even if not for all that chance adds to it.
            Some(wished) if wished <= left => stretched(wished, 1.0 + 0.1 * chance).min(left),
            Some(_) => return None,
            None => stretched(doubled, 0.5 + 0.5 * chance),
        };
        if wait > left {
            return None;
        }
        self.done += 1;
        self.waited += wait;
        Some(wait)
    }
}

fn stretched(wait: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(wait.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// Whether a status is one of those that pass: no time, a conflict, too many requests, and servers in trouble, unless they
/// don't know the method (501) or the version of HTTP (505).
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 409 | 429 | 500 | 502..=504 | 506..=599)
}

/// The wait that the endpoint asks for.
pub(crate) fn wished(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let seconds = |text: &str, scale: f64| {
        let number = text
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite() && *number >= 0.0)?;
        Some(Duration::try_from_secs_f64(number * scale).unwrap_or(Duration::MAX))
    };
    if let Some(wait) = text(HeaderName::from_static("retry-after-ms")).and_then(|text| seconds(text, 0.001)) {
        return Some(wait);
    }
    let after = text(RETRY_AFTER)?;
    seconds(after, 1.0).or_else(|| {
        let then = httpdate::parse_http_date(after).ok()?;
        // The server's own clock, if it says what it shows: ours may differ.
        let now = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
        Some(
            then.duration_since(now.unwrap_or_else(SystemTime::now))
                .unwrap_or_default(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        count: 5,
        first: Duration::from_secs(1),
        longest: Duration::from_secs(4),
        total: Duration::from_secs(60),
    };

    #[test]
    fn waits_double_up_to_the_longest_and_end_with_the_count() {
        let mut retries = Retries::new(POLICY);
        let waits: Vec<_> = std::iter::from_fn(|| retries.next(Retry::After(None), 1.0)).collect();
        assert_eq!(waits, [1, 2, 4, 4, 4].map(Duration::from_secs));
        let mut retries = Retries::new(POLICY);
        assert_eq!(retries.next(Retry::After(None), 0.0), Some(Duration::from_millis(500)));
        assert_eq!(
            retries.next(Retry::After(Some(Duration::ZERO)), 0.0),
            Some(Duration::from_secs(1))
        );
        assert_eq!(retries.next(Retry::Never, 0.0), None);
    }

    #[test]
    fn what_the_endpoint_asks_for_is_waited_or_the_call_ends() {
        let mut retries = Retries::new(POLICY);
        let wish = |seconds| Retry::After(Some(Duration::from_secs(seconds)));
        assert_eq!(retries.next(wish(20), 0.0), Some(Duration::from_secs(20)));
        assert_eq!(retries.next(wish(30), 1.0), Some(Duration::from_secs(33)));
        // 53 of 60 seconds are gone.
        assert_eq!(retries.next(wish(8), 0.0), None);
        assert_eq!(retries.next(wish(7), 1.0), Some(Duration::from_secs(7)));
        assert_eq!(retries.next(Retry::After(None), 0.0), None);
    }

    #[test]
    fn all_waits_together_are_bounded() {
        let mut retries = Retries::new(RetryPolicy {
            count: u32::MAX,
            first: Duration::from_secs(u64::MAX),
            longest: Duration::from_secs(7),
            total: Duration::from_secs(20),
        });
        let waits = std::iter::from_fn(|| retries.next(Retry::After(None), 1.0)).count();
        assert_eq!(waits, 2);
    }

    #[test]
    fn wishes_are_read_in_every_form() {
        let wish = |pairs: &[(&'static str, &str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            wished(&headers.collect())
        };
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(wish(&[("retry-after", "3")]), Some(Duration::from_secs(3)));
        assert_eq!(wish(&[("retry-after", "0.5")]), Some(Duration::from_millis(500)));
        assert_eq!(
            wish(&[("retry-after-ms", "20"), ("retry-after", "3")]),
            Some(Duration::from_millis(20))
        );
        assert_eq!(
            wish(&[("retry-after-ms", "x"), ("retry-after", "3")]),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            wish(&[date, ("retry-after", "Sun, 06 Nov 1994 08:50:00 GMT")]),
            Some(Duration::from_secs(23))
        );
        assert_eq!(
            wish(&[("retry-after", "Sun, 06 Nov 1994 08:50:00 GMT")]),
            Some(Duration::ZERO)
        );
        assert_eq!(wish(&[("retry-after", "1e300")]), Some(Duration::MAX));
        for odd in ["", "-1", "soon", "NaN", "inf"] {
            assert_eq!(wish(&[("retry-after", odd)]), None, "{odd}");
        }
    }
}
