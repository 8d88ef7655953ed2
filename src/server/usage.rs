//! What keys have written in all, and how much keys and stores may use.

use super::access::to_its_end;
use super::handle::Server;
use crate::actors::audit::{self, By};
use crate::model::{PublicKey, Quotas};
use crate::services::RecordsUnavailable;

impl Server {
    /// How many bytes of entries `key` has written, counted while quotas say how many any key may (`bytes_stored`); also of what was
    /// erased since. Without such a quota nothing is counted.
    pub fn usage(&self, key: &PublicKey) -> u64 {
        self.inner().shared.quotas.usage.of(key)
    }

    /// Has `key` begin again with nothing written, durably; tells what it had.
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
            audit::note(&by, format_args!("action=reset_usage key={key:?} bytes={before}"));
            Ok(before)
        })
        .await
    }

    /// How much keys and stores may use from now on, in place of [`Builder::quotas`](super::Builder::quotas). What is used stays used. A key
    /// or store without a quota before begins with what is asked for from now on.
    pub fn set_quotas(&self, quotas: Quotas) {
        self.inner().shared.quotas.set(quotas, tokio::time::Instant::now().into_std());
    }
}
