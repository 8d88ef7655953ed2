//! Writes that are not answered yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Outgoing;
use crate::client::error::RemoteError;
use crate::model::{Batch, PublicKey, Sequence};

/// Where the answer of a write goes.
pub(crate) type Reply = oneshot::Sender<Result<Vec<Sequence>, RemoteError>>;

/// A write that is not answered yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) key: PublicKey,
    pub(crate) batch: Arc<Batch>,
    pub(crate) reply: Reply,
    /// Its share of what may be in flight: released when this is dropped.
    #[expect(dead_code)]
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

impl Pending {
    /// Answers a write that was not sent.
    pub(super) fn refuse(self, error: RemoteError) {
        // A caller who dropped the future does not want to know.
        drop(self.reply.send(Err(error)));
    }
}

/// All unanswered writes, by their ids.
#[derive(Debug, Default)]
pub(super) struct Writes {
    unanswered: BTreeMap<u64, Unanswered>,
    last_id: u64,
}

#[derive(Debug)]
struct Unanswered {
    write: Pending,
    /// Whether it was sent on the current connection, or, while there is none, on the last one.
    sent: bool,
    /// Whether it was ever sent.
    ever_sent: bool,
}

impl Writes {
    pub(super) fn is_empty(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Adds a write, to be sent with the next id.
    pub(super) fn add(&mut self, write: Pending) -> Outgoing {
        self.last_id += 1;
        let outgoing = outgoing(self.last_id, &write);
        self.unanswered.insert(self.last_id, Unanswered { write, sent: false, ever_sent: false });
        outgoing
    }

    pub(super) fn get(&self, id: u64) -> Option<&Pending> {
        self.unanswered.get(&id).map(|unanswered| &unanswered.write)
    }

    /// Write `id` is about to be sent. `false` means that it must not be sent, because nobody waits for it any more.
    pub(super) fn mark_sent(&mut self, id: u64) -> bool {
        let Some(unanswered) = self.unanswered.get_mut(&id) else { return false };
        if unanswered.write.reply.is_closed() {
            self.unanswered.remove(&id);
            return false;
        }
        unanswered.sent = true;
        unanswered.ever_sent = true;
        true
    }

    /// The writes with `key` that are in flight.
    pub(super) fn sent_with(&self, key: &PublicKey) -> BTreeSet<u64> {
        let sent = self.unanswered.iter().filter(|(_, unanswered)| unanswered.sent);
        sent.filter(|(_, unanswered)| unanswered.write.key == *key).map(|(id, _)| *id).collect()
    }

    /// Everything, to send it on a new connection.
    pub(super) fn resend(&mut self) -> impl Iterator<Item = Outgoing> {
        self.unanswered.iter_mut().map(|(id, unanswered)| {
            unanswered.sent = false;
            outgoing(*id, &unanswered.write)
        })
    }

    /// Answers write `id`, and returns its key; `None` if it is not in flight.
    pub(super) fn answer(
        &mut self,
        id: u64,
        answer: Result<Vec<Sequence>, RemoteError>,
    ) -> Option<PublicKey> {
        let Pending { key, reply, .. } = self.unanswered.remove(&id)?.write;
        // A caller who dropped the future does not want to know.
        drop(reply.send(answer));
        Some(key)
    }

    /// The connection of the sent writes is gone, and they are not to be sent again.
    pub(super) fn fail_sent(&mut self, error: &RemoteError) {
        let is_sent = |(id, unanswered): (&u64, &Unanswered)| unanswered.sent.then_some(*id);
        let sent: Vec<u64> = self.unanswered.iter().filter_map(is_sent).collect();
        for id in sent {
            self.answer(id, Err(error.clone()));
        }
    }

    /// No write will be sent any more. Without an `error`, a write that may have been received is reported as
    /// unanswered.
    pub(super) fn fail_all(&mut self, error: Option<&RemoteError>) {
        while let Some((_, Unanswered { write, ever_sent, .. })) = self.unanswered.pop_first() {
            let closed = if ever_sent { RemoteError::Unanswered } else { RemoteError::Closed };
            drop(write.reply.send(Err(error.cloned().unwrap_or(closed))));
        }
    }
}

fn outgoing(id: u64, write: &Pending) -> Outgoing {
    Outgoing::Write { key: write.key.clone(), id, batch: Arc::clone(&write.batch) }
}
