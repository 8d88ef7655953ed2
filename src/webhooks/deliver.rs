//! Delivers a store's entries, and says what a failure means for the group.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

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
use crate::processing::{BatchOutcome, CommittedEntry, EntryHandler, Failure};

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

    /// One request, unless another one was told that nothing is to be sent any more, of which there were `gone` before.
    async fn send(&self, store: &StoreId, entries: &[CommittedEntry], gone: u64) -> Answer {
        // Never closed.
        let _permit = self.permits.acquire().await;
        if self.gone.load(Ordering::Relaxed) != gone {
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
}

#[expect(clippy::disallowed_methods, reason = "receivers compare it with their own clocks")]
fn now() -> SystemTime {
    SystemTime::now()
}
