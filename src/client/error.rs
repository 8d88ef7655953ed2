//! What can go wrong for a client.

use crate::model::{PublicKey, RemoteId};
pub use crate::protocol::rpc::ErrorCode;

/// The first connection could not be made. Only the handshake was sent, so trying again is safe.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is not a WebSocket URL (`ws://` or `wss://`), or a header of the options is not valid.
    #[error("cannot connect to {url:?}: {reason}")]
    InvalidOptions {
        /// The URL as given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The server cannot be reached, its certificate is not trusted, or it refused the WebSocket.
    #[error("cannot connect: {0}")]
    Unreachable(#[from] Box<tokio_tungstenite::tungstenite::Error>),
    /// The connection was made, but its first message was not a `Hello`.
    #[error("the server does not speak this protocol: {0}")]
    NotHello(String),
    /// No `Hello` within [`Options::connect_timeout`](super::Options::connect_timeout).
    #[error("the server did not answer in time")]
    TimedOut,
}

/// Why the head of a store could not be determined.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// There was no connection, or it was lost.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused to say.
    #[error(transparent)]
    Refused(#[from] RemoteError),
    /// The protocol has no such request.
    #[error("the RPC protocol does not say how far a store is")]
    NotSaid,
}

/// A write or a stream failed. Other writes and streams of the same client are not affected, unless the variant says
/// so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The server refused the request.
    #[error("{request_tag} was refused: {code}: {message}")]
    Rejected {
        /// The kind of refusal.
        code: ErrorCode,
        /// The request: `WriteEntries` or `RequestChanges`; in the RPC protocol `WriteEntries`, `Changes`, or
        /// `Authenticate` if the public key was not proved.
        request_tag: String,
        /// What the server said.
        message: String,
    },
    /// The batch, encoded, is above [`Options::message_bytes_max`](super::Options::message_bytes_max); it was not sent.
    #[error("the batch takes {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// Its size as a message.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The client has no identity with this public key among its
    /// [`RpcOptions::identities`](super::RpcOptions::identities); nothing was sent.
    #[error("there is no identity for public key {0:?}")]
    NoIdentity(PublicKey),
    /// The key already has a live stream in this client. A connection holds one subscription per key; a second stream
    /// takes a second client.
    #[error("public key {0:?} has a stream in this client already")]
    AlreadyStreaming(PublicKey),
    /// The connection was lost after the write was sent and before it was answered, and the options say not to resend
    /// it.
    #[error("the connection was lost before the write was answered")]
    Unanswered,
    /// The server closed the connection because of something it was sent, while the write was unanswered; sending the
    /// write again would end the same way.
    #[error("the server closed the connection: close code {code}: {reason}")]
    BrokenOff {
        /// The close code of the WebSocket.
        code: u16,
        /// The reason given with it.
        reason: String,
    },
    /// The server gave up on the request instead of answering it, as it does with what no ordinary client sends; only
    /// in the RPC protocol. The request may have been carried out.
    #[error("the server failed: {0}")]
    Crashed(String),
    /// The server sent something that is not a valid answer.
    #[error("the server gave an invalid answer: {0}")]
    WrongAnswer(String),
    /// After a reconnect, another server answered. Its sequences mean something else, so the client has ended, with all
    /// its writes and streams.
    #[error("the server is another one: {found} instead of {expected}")]
    OtherServer {
        /// The server of the first connection.
        expected: RemoteId,
        /// The server that answers now.
        found: RemoteId,
    },
    /// The client was closed before this was sent.
    #[error("the client is closed")]
    Closed,
}

impl RemoteError {
    /// Whether it is known that this request did not store the entries. If not, they may be stored, now or later;
    /// writing entries with the same ids again is safe, and its answer tells.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Rejected { code, message, .. } => {
                let stored_nothing = |word| message.starts_with(word);
                !matches!(code, ErrorCode::InternalServerError)
                    || ["quota: ", "busy: "].into_iter().any(stored_nothing)
            }
            Self::TooLarge { .. }
            | Self::NoIdentity(_)
            | Self::AlreadyStreaming(_)
            | Self::Closed => true,
            Self::Unanswered
            | Self::BrokenOff { .. }
            | Self::Crashed(_)
            | Self::WrongAnswer(_)
            | Self::OtherServer { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_a_quota_or_for_now_stores_nothing() {
        let rejected = |message: &str| RemoteError::Rejected {
            code: ErrorCode::InternalServerError,
            request_tag: "WriteEntries".to_owned(),
            message: message.to_owned(),
        };
        assert!(rejected("quota: the public key may write 20 bytes in all, and has").is_definite());
        assert!(rejected("busy: there is no space").is_definite());
        assert!(!rejected("may or may not be stored, write it again: quota: oh").is_definite());
    }
}
