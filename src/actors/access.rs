//! How long an answer of `Auth` counts that allowed something lasting, such as a subscription.
//!
//! Keeps: what was allowed is checked again once answers may have changed ([`Connections::access_changed`]), and when
//! the answer expires; because of expiry, at most once a second. Leaves out: who asks (`session/again`, `changes`).
//!
//! [`Connections::access_changed`]: super::connections::Connections::access_changed

use std::time::{Duration, Instant};

/// The shortest time that an answer counts, unless answers have changed: an expiry in the past does not cause a busy
/// loop.
const COUNTS_AT_LEAST: Duration = Duration::from_secs(1);

/// Something is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    /// How often answers had changed before this one was requested.
    changes: u64,
    until: Option<Instant>,
}

impl Allowed {
    /// It was requested after this many `changes`, and answered at `now`; if `until` is set, it counts until then.
    pub(crate) fn new(changes: u64, now: Instant, until: Option<Instant>) -> Self {
        Self { changes, until: until.map(|until| until.max(now + COUNTS_AT_LEAST)) }
    }

    /// Whether it counts at `now`, after this many `changes`.
    pub(crate) fn counts(&self, changes: u64, now: Instant) -> bool {
        self.changes >= changes && self.until.is_none_or(|until| now < until)
    }

    /// When it has to be checked again in any case.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_until_its_end_or_the_next_change() {
        #[expect(clippy::disallowed_methods, reason = "some time to begin with")]
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let allowed = Allowed::new(7, now, Some(now + 3 * second));
        assert!(allowed.counts(7, now + 2 * second) && !allowed.counts(7, now + 3 * second));
        assert!(!allowed.counts(8, now));
        assert!(Allowed::new(7, now, None).counts(7, now + 1_000 * second));
        let over = Allowed::new(7, now, Some(now));
        assert!(over.counts(7, now + second / 2) && !over.counts(7, now + second));
    }
}
