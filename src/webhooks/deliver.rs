//! Delivers a store's entries, and says what a failure means for the group.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::header::RETRY_AFTER;
use sha2::{Digest, Sha256};

use super::Webhook;
use super::answer::Answer;
use super::body::body;
use crate::model::StoreId;
use crate::processing::compaction::EventPattern;
use crate::processing::{BatchOutcome, CommittedEntry, EntryHandler, Failure};

/// How much of an answer is read, which has no meaning; if there is more, the connection is not used again.
const ANSWER_BYTES_MAX: usize = 16 * 1_024;

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
        let gone = self.gone.load(Ordering::Relaxed);
        loop {
            let failure = match self.send(store, entries, gone).await {
                Answer::Taken => return BatchOutcome::done(entries.len()),
                // The answer does not say which one it is about.
                Answer::Refused(_) if entries.len() > 1 => {
                    entries = &entries[..entries.len() / 2];
                    continue;
                }
                Answer::Refused(why) => Failure::failed(why),
                Answer::Gone => {
                    self.gone.fetch_add(1, Ordering::Relaxed);
                    Failure::pause("it answered 410 Gone")
                }
                Answer::Failed(why, None) => Failure::retry(why),
                Answer::Failed(why, Some(wait)) => Failure::retry_after(wait, why),
            };
            return BatchOutcome::failed(0, failure);
        }
    }

    /// One request, unless another one was told that nothing more should be sent; there were `gone` of those before.
    async fn send(&self, store: &StoreId, entries: &[CommittedEntry], gone: u64) -> Answer {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        if self.gone.load(Ordering::Relaxed) != gone {
            return Answer::Gone;
        }
        let id = self.message_id(store, entries);
        let message = (&*id, Bytes::from(body(store, entries)));
        let now = now();
        match self.post.send(message, now, self.timeout, ANSWER_BYTES_MAX).await {
            Ok(answer) => {
                let retry_after = answer.headers.get(RETRY_AFTER);
                Answer::of(answer.status, retry_after.and_then(|text| text.to_str().ok()), now)
            }
            Err(error) => Answer::Failed(error.to_string(), None),
        }
    }

    /// The same whenever the same entries are sent, so that a receiver can recognize repeats.
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
}

#[expect(clippy::disallowed_methods, reason = "receivers compare it with their own clocks")]
fn now() -> SystemTime {
    SystemTime::now()
}
