//! What keys have written in total, and how much keys and stores may use.

use super::access::to_its_end;
use super::handle::Server;
use crate::actors::audit::{self, By};
use crate::model::{Limits, PublicKey, Quotas};
use crate::services::RecordsUnavailable;

impl Server {
    /// How many bytes of entries `key` has written, including those erased since. Bytes are counted only while a quota
    /// limits what a key may write in total (`bytes_stored`).
    pub fn usage(&self, key: &PublicKey) -> u64 {
        self.inner().shared.quotas.usage.of(key)
    }

    /// Resets what `key` has written to zero, durably; returns the previous count.
    pub async fn reset_usage(&self, key: &PublicKey) -> Result<u64, RecordsUnavailable> {
        self.reset_usage_by(By::Process, key).await
    }

    pub(super) async fn reset_usage_by(
        &self,
        by: By,
        key: &PublicKey,
    ) -> Result<u64, RecordsUnavailable> {
        let (server, key) = (self.clone(), key.clone());
        to_its_end(async move {
            let before = server.inner().shared.quotas.usage.reset(&key).await?;
            let key = key.in_log();
            audit::note(&by, format_args!("action=reset_usage key={key} bytes={before}"));
            Ok(before)
        })
        .await
    }

    /// Sets how much keys and stores may use from now on, instead of [`Builder::quotas`](super::Builder::quotas). What
    /// is used stays used. A key or store that had no quota before starts counting from now on.
    pub fn set_quotas(&self, quotas: Quotas) {
        self.inner().shared.quotas.set(quotas, tokio::time::Instant::now().into_std());
    }

    /// Sets what clients may make the server hold from now on, instead of [`Builder::limits`](super::Builder::limits).
    ///
    /// Who is connected stays, also above a limit that is lower now. Open connections keep the sizes of frames,
    /// messages and chunk sets and the interval of pings with which they began, and stores that are open keep `recent_bytes_max`; for everything
    /// else the new limits count from the next request on. Three limits cannot change: `keep_alive`,
    /// `compaction_bytes_max` and `compaction_bucket_bytes_max`. Bodies of requests to the admin API may be as large as
    /// at the start.
    pub fn set_limits(&self, limits: Limits) {
        let shared = &self.inner().shared;
        shared.connections.set_count_max(limits.connections_max);
        shared.strangers.set(limits.strangers_max);
        shared.token_holders.set(limits.admin_connections_max);
        shared.resolved.set_age_max(limits.registry_answer_age_max);
        shared.new_keys.set(limits.keys_max, limits.newcomers_per_minute);
        shared.new_identities.set(limits.identities_max, limits.newcomers_per_minute);
        shared.budget.set(&limits);
        shared.limits.set(limits);
        // Makes sessions take the new ones.
        shared.connections.access_changed();
    }
}
