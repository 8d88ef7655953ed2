//! Who wrote an entry.

use super::PublicKey;

/// Who wrote an entry. It is kept with the entry: handlers are told, and it decides whether they run at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A client, with this key.
    Client(PublicKey),
    /// The server's own code.
    Server {
        /// Whether handlers and reactivity run on it; `false` means that it is only transported.
        run_handlers: bool,
    },
}

impl Origin {
    /// Whether replay takes the entry through handlers.
    pub const fn runs_handlers(&self) -> bool {
        match self {
            Self::Client(_) => true,
            Self::Server { run_handlers } => *run_handlers,
        }
    }
}
