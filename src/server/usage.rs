//! What keys have written in total, and how much keys and stores may use.

use super::access::to_its_end;
use super::handle::Server;
use crate::actors::audit::{self, By};
use crate::model::{PublicKey, Quotas};
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
}
