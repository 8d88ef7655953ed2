//! Permissions that change while the server runs: different answers of `Auth`, and revocations.
//!
//! Keeps: what was allowed and is still going on is checked again, on every connection; whoever is revoked is gone
//! within a second, even if the client does not read. Leaves out: the answers (`Auth`), and how sessions ask
//! (`actors::session::again`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::handle::Server;
use crate::actors::audit::{self, By};
use crate::services::RecordsUnavailable;
use crate::services::revocations::{Revocation, Revoked};

/// How long sessions have to say goodbye to a revoked client. Then the socket is severed: either the client does not
/// read, or its work in progress takes too long.
const GOODBYE: Duration = Duration::from_millis(600);

/// How many times severing is tried. A process without a free file descriptor cannot sever.
const SEVERED_AT_MOST: usize = 20;

/// A revocation was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// It cannot be stored.
    #[error("{0}")]
    Invalid(&'static str),
    /// The storage of revocations does not answer. The revocation may have been made.
    #[error(transparent)]
    Unavailable(#[from] RecordsUnavailable),
}

impl Server {
    /// Says that the answers of [`Auth`](crate::services::Auth) may have changed: every live subscription, and every
    /// request that waits for an answer, is checked again. Whoever is refused then gets a refusal, and nothing further.
    pub fn access_changed(&self) {
        self.inner().shared.connections.access_changed();
    }

    /// Shuts somebody out, durably. Replaces an earlier revocation of the same name. From now on all their requests are
    /// refused, and what they have open ends within a second. Writes in progress are acknowledged or refused. If the
    /// future is dropped, the revocation continues anyway.
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), RevokeError> {
        self.revoke_by(By::Process, revocation).await
    }

    pub(super) async fn revoke_by(
        &self,
        by: By,
        revocation: Revocation,
    ) -> Result<(), RevokeError> {
        revocation.check().map_err(RevokeError::Invalid)?;
        let server = self.clone();
        to_its_end(async move {
            let (what, until) = (revocation.revoked.clone(), revocation.until);
            let reason = revocation.reason.clone().unwrap_or_default();
            let added = server.inner().shared.revocations.add(revocation).await;
            // Even if that failed: the revocation may have been made.
            server.access_changed();
            server.sever_revoked_soon();
            added?;
            let (what, until) = (Field(&what), Until(until));
            audit::note(&by, format_args!("action=revoke {what} until={until} reason={reason:?}"));
            Ok(())
        })
        .await
    }

    /// Lets somebody in again, durably; returns the revocation that was lifted. `id` is what [`Revoked::id`] returns.
    /// If the future is dropped, lifting continues anyway.
    pub async fn lift(&self, id: &str) -> Result<Option<Revocation>, RecordsUnavailable> {
        self.lift_by(By::Process, id).await
    }

    pub(super) async fn lift_by(
        &self,
        by: By,
        id: &str,
    ) -> Result<Option<Revocation>, RecordsUnavailable> {
        let (server, id) = (self.clone(), id.to_owned());
        to_its_end(async move {
            let lifted = server.inner().shared.revocations.lift(&id).await?;
            if let Some(lifted) = &lifted {
                audit::note(&by, format_args!("action=lift {}", Field(&lifted.revoked)));
            }
            Ok(lifted.map(|lifted| Revocation::clone(&lifted)))
        })
        .await
    }

    /// At most `count` of the current revocations that come after the one named `after`, ordered by name.
    pub async fn revocations(
        &self,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<Arc<Revocation>>, RecordsUnavailable> {
        self.inner().shared.revocations.page(after, count).await
    }

    /// Severs the sockets of all who are revoked and still connected a moment from now.
    pub(super) fn sever_revoked_soon(&self) {
        // One round covers all that were revoked by then.
        if self.inner().severing.begin() {
            let server = self.clone();
            // Only a thread that has stopped refuses this.
            self.inner().registry_thread.arbiters()[0].spawn(async move {
                for _ in 0..SEVERED_AT_MOST {
                    tokio::time::sleep(GOODBYE).await;
                    server.inner().severing.end();
                    let shared = &server.inner().shared;
                    if shared.connections.sever_revoked(&shared.revocations) == 0 {
                        return;
                    }
                }
            });
        }
    }
}

/// Whether a round is scheduled that severs whoever is revoked.
#[derive(Default)]
pub(super) struct Severing(AtomicBool);

impl Severing {
    fn begin(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    fn end(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Carries out `change` completely, even if the caller stops waiting: what it changes in memory then matches what it
/// changed on disk.
pub(super) async fn to_its_end<T, E>(
    change: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<RecordsUnavailable> + Send + 'static,
{
    let done = tokio::spawn(change).await;
    done.unwrap_or_else(|gone| Err(RecordsUnavailable::new(gone).into()))
}

/// The revoked party, in a line of the log.
struct Field<'a>(&'a Revoked);

impl std::fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Revoked::PublicKey(key) => write!(f, "key={}", key.in_log()),
            Revoked::Subject(subject) => write!(f, "subject={subject:?}"),
            Revoked::TokenId(token_id) => write!(f, "token_id={token_id:?}"),
        }
    }
}

struct Until(Option<SystemTime>);

impl std::fmt::Display for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.map(|until| until.duration_since(UNIX_EPOCH).unwrap_or_default()) {
            Some(until) => write!(f, "{}", until.as_secs()),
            None => f.write_str("none"),
        }
    }
}
