//! Who may do what changes while the server runs.
//!
//! Keeps: what was allowed and goes on is asked about again, on every connection. Leaves out: the answers (`Auth`), and how
//! sessions ask (`actors::session::again`).

use super::handle::Server;

impl Server {
    /// What [`Auth`](crate::services::Auth) answers may be something else from now on: every live subscription, and every request
    /// whose answer is on its way, is asked about again. Who is refused then gets a refusal, and nothing further.
    pub fn access_changed(&self) {
        self.inner().shared.connections.access_changed();
    }
}
