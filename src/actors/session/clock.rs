//! A session's time: milliseconds since it began, one timer, and its end if that is set from the beginning.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::Sleep;

pub(super) struct Clock {
    started: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), timer: None }
    }

    pub(super) fn now() -> Instant {
        Instant::now()
    }

    pub(super) fn now_millis(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Whether the time has passed that began at the first call with `after`; `after` is `None` while nothing is
    /// awaited. Wakes the task then.
    pub(super) fn is_due(&mut self, after: Option<Duration>, cx: &mut Context<'_>) -> bool {
        let Some(after) = after else {
            self.timer = None;
            return false;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
        let due = timer.as_mut().poll(cx) == Poll::Ready(());
        if due {
            self.timer = None;
        }
        due
    }
}

/// When a session that has sent nothing for a while has to send a ping.
pub(super) struct Pings {
    /// Zero: never.
    interval: Duration,
    sent: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pings {
    pub(super) fn every(interval: Duration) -> Self {
        Self { interval, sent: Instant::now(), timer: None }
    }

    /// Something was sent.
    pub(super) fn sent(&mut self) {
        self.sent = Instant::now();
    }

    /// Whether a ping is due. Wakes the task then. Sending something meanwhile does not move the timer.
    pub(super) fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        if self.interval.is_zero() {
            return false;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.interval)));
        let mut due = false;
        while timer.as_mut().poll(cx) == Poll::Ready(()) {
            let silent = self.sent.elapsed();
            due |= silent >= self.interval;
            if due {
                self.sent = Instant::now();
            }
            let left = if due { self.interval } else { self.interval.saturating_sub(silent) };
            timer.as_mut().reset(tokio::time::Instant::now() + left);
        }
        due
    }
}

/// When a session ends because its caller's proof expires.
pub(super) struct Expiry(Option<Pin<Box<Sleep>>>);

impl Expiry {
    pub(super) fn at(time: Option<SystemTime>) -> Self {
        let left = |time: SystemTime| time.duration_since(SystemTime::now()).unwrap_or_default();
        Self(time.map(|time| Box::pin(tokio::time::sleep(left(time)))))
    }

    /// Whether that time has come. Wakes the task then.
    pub(super) fn has_come(&mut self, cx: &mut Context<'_>) -> bool {
        self.0.as_mut().is_some_and(|timer| timer.as_mut().poll(cx) == Poll::Ready(()))
    }
}
