//! Manages the entries that were put aside because they are too large.

use std::sync::Arc;

use super::handle::Server;
use crate::actors::audit::{self, By};
use crate::actors::quarantine::Aside;
use crate::core::validate::{InvalidBatch, validate};
use crate::model::{Batch, Entry, Origin, Sequence};
use crate::processing::WriteError;
use crate::protocol::rpc::payload_is_complete_frame;
use crate::services::{QuarantineUnavailable, Quarantined};

/// Why a request to the quarantine failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuarantineError {
    /// The server was started without [`Builder::quarantine`](super::Builder::quarantine).
    #[error("this server has no quarantine")]
    None,
    /// There is no such entry.
    #[error("there is no entry {0} in quarantine")]
    NoSuchEntry(u64),
    /// It cannot be stored as it is.
    #[error("it cannot be stored: {0}")]
    Invalid(#[from] InvalidBatch),
    /// Its event tag or primary key is not UTF-8, or its payload would stop the clients that read it.
    #[error("it cannot be stored: {0}")]
    Unreadable(&'static str),
    /// It cannot be stored now.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The place where it is kept does not answer. What was to be removed may be removed.
    #[error(transparent)]
    Unavailable(#[from] QuarantineUnavailable),
}

/// The entries in quarantine of a [`Server`]: clients wrote them, they are larger than
/// [`entry_bytes_max`](crate::model::Limits::entry_bytes_max), and nobody receives them.
#[derive(Clone)]
pub struct InQuarantine {
    server: Server,
    aside: Arc<Aside>,
}

impl Server {
    /// The entries in quarantine; `None` without [`Builder::quarantine`](super::Builder::quarantine).
    pub fn quarantine(&self) -> Option<InQuarantine> {
        let aside = self.inner().shared.aside.clone()?;
        Some(InQuarantine { server: self.clone(), aside })
    }
}

impl InQuarantine {
    /// At most `count` entries whose numbers are greater than `after`, in the order in which they came.
    pub fn list(&self, after: u64, count: usize) -> Vec<Arc<Quarantined>> {
        self.aside.page(after, count)
    }

    /// Takes in what other processes have put aside and removed. The server does that every few seconds.
    pub(super) async fn look(&self) -> Result<(), QuarantineError> {
        self.aside.look().await?;
        Ok(())
    }

    /// The entry with this number.
    pub fn get(&self, number: u64) -> Result<Arc<Quarantined>, QuarantineError> {
        self.aside.get(number).ok_or(QuarantineError::NoSuchEntry(number))
    }

    /// Some bytes of the content of `entry` from `at` on, at least one and at most 48 KiB. The content is its event
    /// tag, its primary key and its payload, one after the other. `at` is below [`Quarantined::bytes`].
    pub async fn read(&self, entry: &Quarantined, at: u64) -> Result<Vec<u8>, QuarantineError> {
        Ok(self.aside.read(entry, at).await?)
    }

    /// Removes an entry, durably; returns it. If the future is dropped, the removal continues.
    pub async fn remove(&self, number: u64) -> Result<Arc<Quarantined>, QuarantineError> {
        self.remove_by(By::Process, number).await
    }

    pub(super) async fn remove_by(
        &self,
        by: By,
        number: u64,
    ) -> Result<Arc<Quarantined>, QuarantineError> {
        let aside = self.aside.clone();
        to_its_end(async move {
            let removed = aside.remove(number).await?;
            let removed = removed.ok_or(QuarantineError::NoSuchEntry(number))?;
            note(&by, "unquarantine", &removed, format_args!(""));
            Ok(removed)
        })
        .await
    }

    /// Stores an entry where its client wrote it to, in that client's name, and then removes it from quarantine;
    /// returns its sequence. It has to be within the limits by now. An entry that the store already has gets its
    /// existing sequence. If the future is dropped, the release continues.
    pub async fn release(&self, number: u64) -> Result<Sequence, QuarantineError> {
        self.release_by(By::Process, number).await
    }

    pub(super) async fn release_by(
        &self,
        by: By,
        number: u64,
    ) -> Result<Sequence, QuarantineError> {
        let this = self.clone();
        to_its_end(async move {
            let entry = this.get(number)?;
            let sequence = this.store(&entry).await?;
            // A crash in between leaves a copy; releasing it returns the same sequence.
            this.aside.remove(number).await?;
            note(&by, "release", &entry, format_args!(" sequence={sequence}"));
            Ok(sequence)
        })
        .await
    }

    async fn store(&self, quarantined: &Quarantined) -> Result<Sequence, QuarantineError> {
        let limits = self.server.inner().shared.limits.get();
        let content = self.content(quarantined, limits.entry_bytes()).await?;
        let lengths = (quarantined.event_bytes as usize, quarantined.primary_key_bytes as usize);
        let (event, rest) = content.split_at(lengths.0);
        let (primary_key, payload) = rest.split_at(lengths.1);
        let text = |bytes: &[u8]| {
            let unreadable = "its event tag or its primary key is not UTF-8";
            String::from_utf8(bytes.to_vec()).map_err(|_| QuarantineError::Unreadable(unreadable))
        };
        if !payload_is_complete_frame(payload) {
            let why = "its payload is not one complete SchemaBinary frame";
            return Err(QuarantineError::Unreadable(why));
        }
        let (event, primary_key) = (text(event)?, text(primary_key)?);
        let payload = payload.to_vec().into();
        let entry = Entry { id: quarantined.entry_id, event, primary_key, payload };
        let batch = Batch::from_entries([entry.as_ref()]);
        validate(&batch, &limits)?;
        let Quarantined { store_id, public_key, .. } = quarantined;
        let (stores, origin) =
            (&self.server.inner().shared.stores, Origin::Client(public_key.clone()));
        let written = stores.write_batch(store_id, (batch, origin), vec![entry], None).await?;
        Ok(written.sequence_numbers.first().copied().unwrap_or_default())
    }

    /// All of it, if it is at most `bytes_max` long.
    async fn content(
        &self,
        entry: &Quarantined,
        bytes_max: usize,
    ) -> Result<Vec<u8>, QuarantineError> {
        let bytes = usize::try_from(entry.bytes()).unwrap_or(usize::MAX);
        if bytes > bytes_max {
            let fault = crate::core::validate::EntryFault::TooLarge { bytes, bytes_max };
            return Err(InvalidBatch::Entry { slot: 0, id: entry.entry_id, fault }.into());
        }
        let mut content = Vec::with_capacity(bytes);
        while content.len() < bytes {
            content.extend(self.aside.read(entry, content.len() as u64).await?);
        }
        Ok(content)
    }
}

impl std::fmt::Debug for InQuarantine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InQuarantine")
    }
}

fn note(by: &By, action: &str, entry: &Quarantined, more: std::fmt::Arguments<'_>) {
    let Quarantined { number, public_key, store_id, entry_id, .. } = entry;
    let (bytes, key) = (entry.bytes(), public_key.in_log());
    let what = format_args!(
        "action={action} number={number} entry={entry_id} key={key} store={store_id:?} bytes={bytes}{more}"
    );
    audit::note(by, what);
}

/// Carries out `change` completely, even if the caller stops waiting.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, QuarantineError>> + Send + 'static,
) -> Result<T, QuarantineError> {
    let done = tokio::spawn(change).await;
    done.unwrap_or_else(|gone| Err(QuarantineUnavailable::new(gone).into()))
}
