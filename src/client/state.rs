//! Whether a client has a connection, for programs that show it to people.

use std::sync::Arc;

use tokio::sync::watch;

/// Whether a client has a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// There is a connection.
    Connected,
    /// There is none, and the client is trying to reconnect.
    Lost {
        /// How it was lost, or why the last attempt failed.
        reason: Arc<str>,
    },
}

/// Where the driver reports it.
#[derive(Debug)]
pub(super) struct State(watch::Sender<ConnectionState>);

impl State {
    pub(super) fn connected() -> (Self, watch::Receiver<ConnectionState>) {
        let (sender, receiver) = watch::channel(ConnectionState::Connected);
        (Self(sender), receiver)
    }

    pub(super) fn is_connected(&self) {
        self.set(ConnectionState::Connected);
    }

    pub(super) fn is_lost(&self, reason: &str) {
        self.set(ConnectionState::Lost { reason: reason.into() });
    }

    fn set(&self, state: ConnectionState) {
        self.0.send_if_modified(|before| {
            let changed = *before != state;
            *before = state;
            changed
        });
    }
}
