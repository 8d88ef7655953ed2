//! Changes of keys, revocations and grants by other servers on the same storage, and by this one.
//!
//! Keeps: when a key loses its store or somebody is revoked at another server, their connections end here as well, as
//! soon as this server hears of it. Leaves out: how it hears of it (`storage`).

use std::time::Duration;

use super::handle::Server;
use crate::model::PublicKey;
use crate::services::RecordsUnavailable;
use crate::storage::KeysChanged;

/// How often to look whether records have been read.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long to wait before reading records again after a failure.
const AGAIN: Duration = Duration::from_millis(200);

impl Server {
    /// Applies here what others change, for as long as the server lives.
    pub(super) fn following_others(self) -> Self {
        let Some(mut changes) = self.inner().storage.changes() else { return self };
        let server = self.clone();
        // Only a thread that has stopped refuses this.
        self.inner().registry_thread.arbiters()[0].spawn(async move {
            while let Some(KeysChanged { keys, only_own_keys, taken_in }) = changes.recv().await {
                server.take_in(keys, only_own_keys).await;
                drop(taken_in);
            }
        });
        self
    }

    /// Closes all connections once the storage was given to another server.
    pub(super) fn leaving_with_storage(self) -> Self {
        let Some(lost) = self.inner().storage.lost() else { return self };
        let server = self.clone();
        // Only a thread that has stopped refuses this.
        self.inner().registry_thread.arbiters()[0].spawn(async move {
            lost.await;
            server.inner().shared.connections.lose();
        });
        self
    }

    /// Resolves once it is known who is revoked, and who was granted something at run time. Until then connections are
    /// refused with 503; records in memory or on the local disk are known at the start.
    pub async fn records_are_read(&self) {
        let inner = self.inner();
        let grants = || inner.grants.as_ref().is_none_or(|grants| grants.kept.is_read());
        while !(inner.shared.revocations.kept.is_read() && grants()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn take_in(&self, keys: Option<Vec<PublicKey>>, only_own_keys: bool) {
        let shared = &self.inner().shared;
        shared.resolved.key_removed();
        if only_own_keys {
            return;
        }
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
        self.inner().erasures.begun.read_again(|_, _| {}).await?;
        match &self.inner().grants {
            Some(grants) => grants.read_again().await,
            None => Ok(()),
        }
    }
}
