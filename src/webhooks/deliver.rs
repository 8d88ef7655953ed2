//! Delivers a store's entries: until they are taken, or will not be.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};

use super::Webhook;
use super::answer::Answer;
use super::body::body;
use super::send::Message;
use super::sign::signatures;
use crate::model::StoreId;
use crate::processing::compaction::EventPattern;
use crate::processing::{BatchOutcome, CommittedEntry, EntryHandler};

/// After a failure, the next try comes after this,
const DELAY_MIN: Duration = Duration::from_secs(1);
/// and each further one after twice as long, up to this.
const DELAY_MAX: Duration = Duration::from_secs(5 * 60);

impl EntryHandler for Webhook {
    fn wants(&self, store: &StoreId, event: &str) -> bool {
        let any = |patterns: &[EventPattern], text| patterns.iter().any(|it| it.matches(text));
        any(&self.stores, store.as_str()) && any(&self.events, event)
    }

    fn entries_max(&self) -> usize {
        self.entries_max
    }

    fn handle<'a>(
        &'a self,
        store: &'a StoreId,
        entries: &'a [CommittedEntry],
    ) -> BoxFuture<'a, BatchOutcome> {
        Box::pin(self.deliver(store, entries))
    }
}

impl Webhook {
    async fn deliver(&self, store: &StoreId, mut entries: &[CommittedEntry]) -> BatchOutcome {
        let mut failures = 0;
        loop {
            match self.send(store, entries).await {
                Answer::Taken => {
                    if failures > 0 {
                        log::info!("webhook {}, store {store}: it goes on", self.name);
                    }
                    return BatchOutcome::done(entries.len());
                }
                Answer::Refused(why) if entries.len() == 1 => return BatchOutcome::failed(0, why),
                // The answer does not say which one it is about.
                Answer::Refused(_) => entries = &entries[..entries.len() / 2],
                Answer::Gone => self.rest().await,
                Answer::Failed(why, wait) => {
                    let delay = delay(failures, wait);
                    failures += 1;
                    self.warn(store, failures, &why, delay);
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    /// One request.
    async fn send(&self, store: &StoreId, entries: &[CommittedEntry]) -> Answer {
        // Never closed.
        let _permit = self.permits.acquire().await;
        if self.gone.load(Ordering::Relaxed) {
            return Answer::Gone;
        }
        let id = self.message_id(store, entries);
        let body = body(store, entries);
        let now = now();
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
        let signatures = signatures(&self.secrets, &id, &seconds, &body);
        let body = Bytes::from(body);
        self.sender.send(Message { id, timestamp: seconds, signatures, body }, now).await
    }

    /// The same whenever the same entries are sent, so that a receiver can tell that it has had them.
    fn message_id(&self, store: &StoreId, entries: &[CommittedEntry]) -> String {
        let mut hash = Sha256::new();
        for part in [self.name.as_bytes(), store.as_str().as_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        for CommittedEntry { entry, .. } in entries {
            hash.update(entry.remote_sequence.get().to_be_bytes());
            hash.update(entry.entry.id.as_bytes());
        }
        let digest = hash.finalize();
        let hex = digest[..16].iter().map(|byte| format!("{byte:02x}"));
        hex.fold("msg_".to_owned(), |id, byte| id + &byte)
    }

    /// Until the process ends.
    async fn rest(&self) {
        if !self.gone.swap(true, Ordering::Relaxed) {
            let name = &self.name;
            log::error!(
                "webhook {name}: it answered 410 Gone, so nothing is sent any more before the next start"
            );
        }
        std::future::pending::<()>().await;
    }

    /// The first failure, and then fewer and fewer.
    fn warn(&self, store: &StoreId, failures: u32, why: &str, delay: Duration) {
        if failures.is_power_of_two() {
            let name = &self.name;
            log::warn!(
                "webhook {name}, store {store}: {why} (failure {failures} in a row); the next try comes in {delay:.1?}"
            );
        }
    }
}

/// How long to wait after so many failures before the last one, or at least as long as the receiver asks for. Up to a fourth
/// more, so that not all stores come back at once.
fn delay(failures: u32, asked: Option<Duration>) -> Duration {
    let delay = DELAY_MIN.saturating_mul(1 << failures.min(16)).min(DELAY_MAX);
    let delay = delay.max(asked.unwrap_or_default());
    let [random, ..] = uuid::Uuid::new_v4().into_bytes();
    delay + delay / 4 * u32::from(random) / 256
}

#[expect(clippy::disallowed_methods, reason = "receivers compare it with their own clocks")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound_unless_more_is_asked_for() {
        let within = |delay: Duration, least: u64| {
            let least = Duration::from_secs(least);
            assert!(delay >= least && delay <= least * 5 / 4, "{delay:?} for {least:?}");
        };
        for (failures, seconds) in [(0, 1), (1, 2), (5, 32), (8, 256), (9, 300), (u32::MAX, 300)] {
            within(delay(failures, None), seconds);
        }
        within(delay(0, Some(Duration::from_secs(90))), 90);
        within(delay(9, Some(Duration::from_secs(90))), 300);
    }
}
