//! Severs connections that take no bytes, from outside their sessions; and ends those that stop sending what they
//! began.
//!
//! A session whose client does not read is not polled: no timer of its own would fire. `TCP_USER_TIMEOUT` (see
//! `socket`) closes connections that acknowledge nothing at all; these rounds catch those that take a byte now and
//! then. The rounds also release what is no longer of use.

use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::ArbiterHandle;
use tokio::time::Instant;

use crate::actors::budget::Budget;
use crate::actors::connections::Connections;
use crate::actors::limits::LiveLimits;
use crate::actors::metrics::Metrics;
use crate::actors::resolved::Resolved;

/// Starts the rounds; they end with the server.
pub(super) fn start(
    connections: &Arc<Connections>,
    budget: &Arc<Budget>,
    resolved: &Arc<Resolved>,
    (metrics, limits): (&Arc<Metrics>, &Arc<LiveLimits>),
    thread: &ArbiterHandle,
) {
    let watched = (Arc::downgrade(connections), Arc::downgrade(budget), Arc::downgrade(resolved));
    let rounds = rounds(watched, metrics.clone(), limits.clone());
    // Only a thread that has stopped refuses this.
    thread.spawn(rounds);
}

async fn rounds(
    (connections, budget, resolved): (Weak<Connections>, Weak<Budget>, Weak<Resolved>),
    metrics: Arc<Metrics>,
    limits: Arc<LiveLimits>,
) {
    loop {
        let stall_timeout = limits.get().stall_timeout;
        let millis_max = stall_timeout.as_millis() as u64;
        let pause = (stall_timeout / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
        tokio::time::sleep(pause).await;
        let (Some(connections), Some(budget)) = (connections.upgrade(), budget.upgrade()) else {
            return;
        };
        budget.round();
        if let Some(resolved) = resolved.upgrade() {
            resolved.release(Instant::now().into_std());
        }
        let severed = connections.sever_stalled(millis_max);
        if severed > 0 {
            log::warn!("{severed} stalled connections closed");
            metrics.connections_stalled.inc_by(severed as u64);
        }
    }
}
