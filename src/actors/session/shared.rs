//! What all sessions of a server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::actors::budget::Budget;
use crate::actors::complaints::Complaints;
use crate::actors::connections::Connections;
use crate::actors::crowd::Crowd;
use crate::actors::guesses::Guesses;
use crate::actors::limits::LiveLimits;
use crate::actors::metrics::Metrics;
use crate::actors::newcomers::Newcomers;
use crate::actors::quarantine::Aside;
use crate::actors::quotas::Quotas;
use crate::actors::reads::Reads;
use crate::actors::resolved::Resolved;
use crate::actors::session::ahead::Ahead;
use crate::actors::session::clock::Clock;
use crate::actors::spill::Spill;
use crate::actors::stores::Stores;
use crate::core::unread::Unreads;
use crate::model::{Limits, PublicKey, RemoteId, Sequence, StoreId};
use crate::processing::compaction::Compaction;
use crate::services::identities::{BindPolicy, Identities};
use crate::services::revocations::Revocations;
use crate::services::{Auth, StoreRegistry};

/// What all sessions of a server share.
pub(crate) struct Shared {
    pub(crate) remote_id: RemoteId,
    pub(crate) auth: Arc<dyn Auth>,
    pub(crate) identities: Arc<dyn Identities>,
    pub(crate) revocations: Revocations,
    /// Public keys that are new to the server, and signing keys that are new to those.
    pub(crate) new_keys: Arc<Newcomers>,
    pub(crate) new_identities: Newcomers,
    /// Recent wrong proofs.
    pub(crate) proofs: Arc<Guesses>,
    /// Asked whether a key has a store; `stores` says which one it is.
    pub(crate) registry: Arc<dyn StoreRegistry>,
    /// Who may bind a signing key to a public key that has none.
    pub(crate) bind_policy: BindPolicy,
    /// Whether a key that was once proved is accepted only with a proof.
    pub(crate) keeps_proof: bool,
    pub(crate) stores: Stores,
    /// A session has a copy of them, which is replaced when they change.
    pub(crate) limits: Arc<LiveLimits>,
    pub(crate) compaction: Compaction,
    pub(crate) connections: Arc<Connections>,
    pub(crate) complaints: Arc<Complaints>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) resolved: Arc<Resolved>,
    /// `None` if nothing is limited.
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) ahead: Ahead,
    /// Turns of large writes: each takes memory for a piece and for its acknowledgements.
    pub(crate) large_writes: Arc<Semaphore>,
    /// Where sets wait that are too large for memory, if there is such a place.
    pub(crate) spill: Option<Arc<Spill>>,
    /// Where entries go that are too large, if there is such a place.
    pub(crate) aside: Option<Arc<Aside>>,
    pub(crate) reads: Reads,
    /// How much incomplete input connections may hold.
    pub(crate) budget: Arc<Budget>,
    pub(crate) strangers: Arc<Crowd>,
    /// The connections over HTTP that have shown an admin token.
    pub(crate) token_holders: Arc<Crowd>,
    /// What answers over HTTP hold.
    pub(crate) unread: Mutex<Unreads>,
    /// Bytes of all unanswered writes.
    pub(crate) write_bytes_in_flight: Arc<AtomicUsize>,
}

impl Shared {
    /// See [`Ahead::look`].
    pub(crate) fn look_ahead(
        &self,
        whose: (Option<&PublicKey>, &StoreId),
        span: (Sequence, Sequence),
    ) {
        self.ahead.look(whose, span, (&self.metrics, Clock::now()));
    }

    /// Whether all connections together have as many writes in flight as allowed.
    pub(crate) fn is_full(&self, limits: &Limits) -> bool {
        let bytes = self.write_bytes_in_flight.load(Ordering::Relaxed);
        bytes >= limits.write_bytes_in_flight_total_max
    }
}
