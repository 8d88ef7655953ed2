//! How much useless input a connection may send: pings, empty messages, and before it is accepted, any requests.
//!
//! Keeps: any client can do now what it does once in a while, but none can do it endlessly. Leaves out: the clock.

/// How many at once.
const AT_ONCE: u64 = 1_000;
/// How many a second in the long run.
const A_SECOND: u64 = 10;

/// Each of this many bytes of messages permits one more: large writes come in many parts, each with an answer.
const BYTES_EACH: u64 = 64 * 1_024;

/// What is left of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// In thousandths, so that no time is lost by rounding.
    left: u64,
    at_millis: u64,
}

impl Patience {
    pub(crate) const fn new() -> Self {
        Self { left: AT_ONCE * 1_000, at_millis: 0 }
    }

    /// This many bytes of messages arrived.
    pub(crate) fn earn(&mut self, bytes: usize) {
        self.left =
            self.left.saturating_add(bytes as u64 * 1_000 / BYTES_EACH).min(AT_ONCE * 1_000);
    }

    /// Takes off `count`; `false` if not that much is left.
    pub(crate) fn spend(&mut self, now_millis: u64, count: u64) -> bool {
        let since = now_millis.saturating_sub(self.at_millis);
        self.at_millis = now_millis;
        self.left = self.left.saturating_add(since.saturating_mul(A_SECOND)).min(AT_ONCE * 1_000);
        match self.left.checked_sub(count.saturating_mul(1_000)) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_borne_and_a_flood_is_not() {
        let mut patience = Patience::new();
        assert!((0..1_000).all(|_| patience.spend(0, 1)));
        assert!(!patience.spend(0, 1));
        // A ping every 100 ms can go on forever.
        assert!((1..100_000).all(|at| patience.spend(at * 100, 1)));
        assert!(!patience.spend(100_000 * 100, 2_000));
        assert!(patience.spend(200_000 * 100, 1_000));
        // Parts of a large write, and their answers.
        assert!((0..10_000).all(|_| {
            patience.earn(512_000);
            patience.spend(200_000 * 100, 2)
        }));
    }
}
