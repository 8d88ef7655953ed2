//! What the service manager is told (`sd_notify`): nothing if it did not ask.

use std::fmt::Display;

use sd_notify::NotifyState;

/// The port is open.
pub(super) fn ready(where_to: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(where_to)]);
}

/// The configuration is being read again. [`ready`] says that it is done.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => untold(&error),
    }
}

/// The server is stopping.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        untold(&error);
    }
}

/// If a service manager cannot be told, it treats the service like one that says nothing.
fn untold(error: &dyn Display) {
    log::warn!("cannot tell the service manager the server's state: {error}");
}
