//! A session's time: milliseconds since it began, one timer, and its end if that is set from the beginning.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::Sleep;

pub(crate) struct Clock {
    started: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), timer: None }
    }

    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    pub(crate) fn now_millis(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Whether the time has passed that began at the first call with `after`; `after` is `None` while nothing is
    /// awaited. Wakes the task then.
    pub(crate) fn is_due(&mut self, after: Option<Duration>, cx: &mut Context<'_>) -> bool {
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
pub(crate) struct Pings {
    /// Zero: never.
    interval: Duration,
    sent: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pings {
    pub(crate) fn every(interval: Duration) -> Self {
        Self { interval, sent: Instant::now(), timer: None }
    }

    /// Something was sent.
    pub(crate) fn sent(&mut self) {
        self.sent = Instant::now();
    }

    /// Whether a ping is due. Wakes the task then. Sending something meanwhile does not move the timer.
    pub(crate) fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
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
pub(crate) struct Expiry(Option<Pin<Box<Sleep>>>);

impl Expiry {
    pub(crate) fn at(time: Option<SystemTime>) -> Self {
        let left = |time: SystemTime| time.duration_since(SystemTime::now()).unwrap_or_default();
        Self(time.map(|time| Box::pin(tokio::time::sleep(left(time)))))
    }

    /// Whether that time has come. Wakes the task then.
    pub(crate) fn has_come(&mut self, cx: &mut Context<'_>) -> bool {
        self.0.as_mut().is_some_and(|timer| timer.as_mut().poll(cx) == Poll::Ready(()))
    }
}
