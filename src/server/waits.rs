//! How long the server has waited for a client of HTTP, in one direction.
//!
//! Keeps: over each period of waiting enough bytes have to move. What the system's buffers took at once earns no time for
//! later. Leaves out: what happens when the time is up (`talk`).

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The waiting of one connection.
pub(super) struct Waits {
    period: Duration,
    /// The bytes that have to move in a period.
    enough: u64,
    /// Since when it waits now.
    since: Option<Instant>,
    /// How long it waited before, in this period.
    before: Duration,
    /// The bytes that have moved in it.
    bytes: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Waits {
    pub(super) fn new(period: Duration, rate: usize) -> Self {
        let enough = period.as_millis().saturating_mul(rate as u128) / 1_000;
        let enough = u64::try_from(enough).unwrap_or(u64::MAX).max(1);
        Self { period, enough, since: None, before: Duration::ZERO, bytes: 0, timer: None }
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    pub(super) const fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// Some bytes moved.
    pub(super) fn moves(&mut self, now: Instant, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(since) = self.since.take() {
            self.before += now.saturating_duration_since(since);
        }
        if self.bytes >= self.enough {
            (self.bytes, self.before) = (0, Duration::ZERO);
        }
    }

    /// There is nothing to wait for any more.
    pub(super) fn over(&mut self) {
        (self.since, self.bytes, self.before) = (None, 0, Duration::ZERO);
        self.timer = None;
    }

    /// When the time is up.
    pub(super) fn until(&self) -> Option<Instant> {
        self.since?.checked_add(self.period.saturating_sub(self.before))
    }

    /// Whether it is that time. The task is woken then.
    pub(super) fn is_over(&mut self, until: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let Some(until) = until else {
            self.timer = None;
            return false;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_counts_and_enough_bytes_earn_another_period() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut waits = Waits::new(Duration::from_secs(10), 1_000);
        assert_eq!(waits.until(), None);
        waits.begin(began);
        waits.begin(after(1));
        assert_eq!(waits.until(), Some(after(10)));
        waits.moves(after(4), 3_000);
        // Then the server is busy for a while.
        waits.begin(after(104));
        assert_eq!(waits.until(), Some(after(104 + 10 - 4)));
        waits.moves(after(109), 6_999);
        waits.begin(after(200));
        assert_eq!(waits.until(), Some(after(201)));
        // Enough, and much more, which earns no more than one period.
        waits.moves(after(200), 1_000_000);
        waits.begin(after(300));
        assert_eq!(waits.until(), Some(after(310)));
        waits.over();
        assert_eq!(waits.until(), None);
    }
}
