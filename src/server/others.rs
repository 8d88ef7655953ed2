//! What other servers on the same storage change of keys, revocations and grants.
//!
//! Keeps: a key that lost its store, or whoever was revoked, at one server is gone at this one as well, as soon as that is heard of.
//! Leaves out: how it is heard of (`storage`).

use std::time::Duration;

use super::handle::Server;
use crate::model::PublicKey;
use crate::services::RecordsUnavailable;
use crate::storage::KeysChanged;

/// So often it is looked whether records are read.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long to wait until records that could not be read are tried again.
const AGAIN: Duration = Duration::from_millis(200);

impl Server {
    /// Carries out here what is changed elsewhere, for as long as the server lives.
    pub(super) fn following_others(self) -> Self {
        let Some(mut changes) = self.inner().storage.changes() else { return self };
        let server = self.clone();
        // Refused only by a thread that has stopped.
        self.inner().registry_thread.arbiters()[0].spawn(async move {
            while let Some(KeysChanged { keys, taken_in }) = changes.recv().await {
                server.take_in(keys).await;
                drop(taken_in);
            }
        });
        self
    }

    /// Resolves once it is known who is revoked, and who was granted something while a server ran. Until then connections are refused with 503;
    /// records in memory or on this machine's disk are known at the start.
    pub async fn records_are_read(&self) {
        let inner = self.inner();
        let grants = || inner.grants.as_ref().is_none_or(|grants| grants.kept.is_read());
        while !(inner.shared.revocations.kept.is_read() && grants()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn take_in(&self, keys: Option<Vec<PublicKey>>) {
        let shared = &self.inner().shared;
        shared.resolved.key_removed();
        let keys =
            keys.unwrap_or_else(|| shared.connections.subscribed_keys().into_iter().collect());
        keys.iter().for_each(|key| shared.connections.key_removed(key));
        while let Err(error) = self.read_records_again().await {
            log::warn!("changes of another server cannot be read yet: {error}");
            tokio::time::sleep(AGAIN).await;
        }
        self.access_changed();
        self.sever_revoked_soon();
    }

    async fn read_records_again(&self) -> Result<(), RecordsUnavailable> {
        self.inner().shared.revocations.kept.read_again(|_, _| {}).await?;
        match &self.inner().grants {
            Some(grants) => grants.read_again().await,
            None => Ok(()),
        }
    }
}
