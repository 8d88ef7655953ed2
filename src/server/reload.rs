//! Reading the configuration again.
//!
//! Keeps: one reload at a time, each with a line in the log. Leaves out: which settings there are (whoever started the
//! server knows).

use std::sync::Arc;

use super::admin_tokens::{AdminToken, AdminTokens};
use super::handle::Server;
use crate::actors::audit::{self, By};
use crate::services::origin_policy::OriginPolicy;

/// The result of reading the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reloaded {
    /// Changed settings that are in effect from now on.
    pub applied: Vec<String>,
    /// Changed settings that take effect after a restart.
    pub needs_restart: Vec<String>,
}

/// The configuration was not applied; everything is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// There is no configuration to read.
    #[error("the server was started without a configuration file")]
    NoConfiguration,
    /// It is wrong.
    #[error("nothing has changed: {0}")]
    Wrong(String),
}

/// Reads it, all or nothing. May block on disk.
pub(super) type Reload = Arc<dyn Fn(&Server) -> Result<Reloaded, ReloadError> + Send + Sync>;

impl Server {
    /// Reads the configuration again, as [`Builder::reload`](super::Builder::reload) says. If the future is dropped,
    /// the reload continues.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.reload_by(By::Process).await
    }

    pub(super) async fn reload_by(&self, by: By) -> Result<Reloaded, ReloadError> {
        let reload = self.inner().reload.clone().ok_or(ReloadError::NoConfiguration)?;
        let server = self.clone();
        let reloaded = tokio::task::spawn_blocking(move || {
            let _turn = server.inner().reloading.lock();
            let reloaded = reload(&server)?;
            let Reloaded { applied, needs_restart } = &reloaded;
            let (applied, rest) = (applied.join(","), needs_restart.join(","));
            audit::note(
                &by,
                format_args!("action=reload applied={applied:?} needs_restart={rest:?}"),
            );
            Ok(reloaded)
        });
        reloaded.await.unwrap_or_else(|panicked| Err(ReloadError::Wrong(panicked.to_string())))
    }

    /// Replaces the tokens of the admin API, instead of [`Builder::admin_tokens`](super::Builder::admin_tokens). A
    /// server that started without tokens has no admin API, whatever is set here.
    pub fn set_admin_tokens(&self, tokens: Vec<AdminToken>) {
        *self.inner().admin_tokens.write() = AdminTokens(tokens);
    }

    /// Sets which web pages may open a WebSocket from now on, instead of [`Builder::origins`](super::Builder::origins).
    pub fn set_origins(&self, origins: OriginPolicy) {
        *self.inner().origins.write() = origins;
    }
}
