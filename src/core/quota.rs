//! How fast something may go: a token bucket, which fills at a rate and holds as many tokens as a burst has.
//!
//! Keeps: over any time, no more than the rate, the burst, and one batch. A batch of any size passes as soon as there
//! is one token, and what follows waits for as long as it takes to make up for it: so nothing is too large to pass at
//! all. What has to wait a little can take its tokens in advance, and goes ahead when its wait is over: so nobody who
//! waits is overtaken. Leaves out: clocks, who waits, who is refused.

use std::time::{Duration, Instant};

/// The longest time for which a single batch holds back what follows, however low the rate.
const DEBT_MAX: Duration = Duration::from_secs(3_600);

/// A number of tokens per time, and the burst that may come at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    tokens: u64,
    /// The time for that many tokens.
    nanos: u64,
    burst: Duration,
    /// How much of the burst may be missing while there is still a token.
    spare: Duration,
}

impl Rate {
    /// This many a second, and the tokens of the time `burst` at once.
    pub(crate) fn new(per_second: u64, burst: Duration) -> Self {
        Self::of(per_second, Duration::from_secs(1), burst)
    }

    /// This many a minute, all of which may come at once.
    pub(crate) fn per_minute(count: u64) -> Self {
        let minute = Duration::from_secs(60);
        Self::of(count, minute, minute)
    }

    fn of(tokens: u64, time: Duration, burst: Duration) -> Self {
        let mut rate =
            Self { tokens: tokens.max(1), nanos: time.as_nanos() as u64, burst, spare: burst };
        rate.spare = burst.saturating_sub(rate.time_of(1));
        rate
    }

    /// How many in that time.
    pub(crate) const fn tokens(&self) -> u64 {
        self.tokens
    }

    /// How long this many tokens take to arrive.
    fn time_of(&self, tokens: u64) -> Duration {
        // Beyond this, the debt is the longest in any case, or there are so many in that time that a fraction does not
        // matter.
        let nanos = match tokens.checked_mul(self.nanos) {
            Some(product) => product / self.tokens,
            None => (tokens / self.tokens).saturating_mul(self.nanos),
        };
        Duration::from_nanos(nanos).min(DEBT_MAX)
    }
}

/// What is left of a rate. It only remembers when it will be full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) const fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }

    /// How long it takes until there is a token; zero if there is one.
    pub(crate) fn wait(&self, rate: &Rate, now: Instant) -> Duration {
        let missing = self.full_at.saturating_duration_since(now);
        missing.saturating_sub(rate.spare)
    }

    /// Takes this many tokens, whether they are there or not.
    pub(crate) fn take(&mut self, rate: &Rate, tokens: u64, now: Instant) {
        let from = self.full_at.max(now);
        let most = now + rate.burst + DEBT_MAX;
        self.full_at = from.checked_add(rate.time_of(tokens)).unwrap_or(most).min(most);
    }

    /// Returns this many tokens, which were taken and not used.
    pub(crate) fn give_back(&mut self, rate: &Rate, tokens: u64) {
        self.full_at = self.full_at.checked_sub(rate.time_of(tokens)).unwrap_or(self.full_at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ten a second, twenty at once.
    fn ten() -> Rate {
        Rate::new(10, Duration::from_secs(2))
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "some time to begin with")]
        Instant::now()
    }

    /// How many single tokens it gives at once.
    fn at_hand(bucket: &mut Bucket, rate: &Rate, now: Instant) -> u64 {
        let mut count = 0;
        while bucket.wait(rate, now).is_zero() {
            bucket.take(rate, 1, now);
            count += 1;
        }
        count
    }

    #[test]
    fn a_burst_comes_at_once_and_then_the_rate() {
        let now = start();
        let mut bucket = Bucket::full(now);
        assert_eq!(at_hand(&mut bucket, &ten(), now), 20);
        assert_eq!(bucket.wait(&ten(), now), Duration::from_millis(100));
        let later = now + Duration::from_secs(1);
        assert_eq!(at_hand(&mut bucket, &ten(), later), 10);
        assert_eq!(at_hand(&mut bucket, &ten(), later + Duration::from_secs(60)), 20);
    }

    #[test]
    fn a_batch_above_the_burst_passes_and_is_made_up_for() {
        let now = start();
        let mut bucket = Bucket::full(now);
        bucket.take(&ten(), 1_000, now);
        // The burst is used up, plus 980.
        assert_eq!(bucket.wait(&ten(), now), Duration::from_millis(98_100));
        bucket.take(&ten(), u64::MAX, now);
        assert!(bucket.wait(&ten(), now) <= DEBT_MAX + ten().burst);
        let slow = Rate::new(1, Duration::from_millis(1));
        assert_eq!(at_hand(&mut Bucket::full(now), &slow, now), 1, "less than one token fits");
    }

    proptest! {
        /// A caller that takes whenever there is a token, at any times and in any amounts.
        #[test]
        fn no_more_than_rate_burst_and_one_batch(
            per_second in 1..1_000_u64,
            burst_millis in 0..5_000_u64,
            steps in prop::collection::vec((0..500_u64, 1..2_000_u64), 1..200),
        ) {
            let rate = Rate::new(per_second, Duration::from_millis(burst_millis));
            let began = start();
            let (mut now, mut bucket) = (began, Bucket::full(began));
            let (mut taken, mut largest) = (0, 0);
            for (millis, tokens) in steps {
                now += Duration::from_millis(millis);
                if bucket.wait(&rate, now).is_zero() {
                    bucket.take(&rate, tokens, now);
                    taken += tokens;
                    largest = largest.max(tokens);
                }
                let time = now - began + rate.burst;
                let most = u64::try_from(time.as_millis()).unwrap_or(u64::MAX) * per_second / 1_000;
                prop_assert!(taken <= most + largest + 1, "{taken} of {most} and {largest}");
            }
        }
    }
}
