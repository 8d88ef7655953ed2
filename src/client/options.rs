//! How a client behaves.

use std::time::Duration;

use crate::model::StoreId;
use crate::protocol::rpc::Identity;
use crate::tls::ClientCertificate;

/// How a client behaves. The defaults suit an application that syncs in the background.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which protocol the server speaks at the URL. Default: msgpack.
    pub protocol: Protocol,
    /// How long one attempt may take, from the first packet to the server's `Hello`. Default: 10 s.
    pub connect_timeout: Duration,
    /// Time between pings. A connection whose ping is not answered by the time of the next one is given up. Default: 10
    /// s.
    pub ping_interval: Duration,
    /// The longest wait before another attempt to reconnect. The first wait is at most 100 ms, each next one twice as
    /// long, and each is shortened by a random part of up to a half. Default: 5 s.
    pub reconnect_delay_max: Duration,
    /// Whether a write that was sent when its connection broke is resent on the next one; the server recognizes the
    /// entries that it has by their ids. Otherwise it fails with [`RemoteError::Unanswered`]. Default: true.
    ///
    /// [`RemoteError::Unanswered`]: super::RemoteError::Unanswered
    pub resend_writes: bool,
    /// A stream that holds this many entries that nobody has taken stops reading ahead. Default: 65,536.
    ///
    /// The message that reaches the number is still kept as a whole.
    pub read_ahead_entries: usize,
    /// A stream that holds this many bytes of messages that nobody has taken stops reading ahead. Default: 16 MiB.
    pub read_ahead_bytes: usize,
    /// How many bytes unanswered writes may hold, each counted as at least 1 KiB; further writes wait. A larger write
    /// waits until it is alone. Default: 16 MiB.
    pub write_bytes_in_flight_max: usize,
    /// Largest message, joined from its chunks, in either direction. Default: 16 MiB.
    pub message_bytes_max: usize,
    /// Headers of the WebSocket request, for servers behind authentication of their own: name and value. Default: none.
    pub headers: Vec<(String, String)>,
    /// Certificates (X.509, DER) of authorities to trust for `wss://`, besides those that browsers trust. Default:
    /// none.
    pub trusted_certificates: Vec<Vec<u8>>,
    /// What is shown to a server that asks for a certificate. Default: none.
    pub certificate: Option<ClientCertificate>,
}

impl Default for Options {
    fn default() -> Self {
        const MIB: usize = 1_024 * 1_024;
        Self {
            protocol: Protocol::Msgpack,
            connect_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(10),
            reconnect_delay_max: Duration::from_secs(5),
            resend_writes: true,
            read_ahead_entries: 65_536,
            read_ahead_bytes: 16 * MIB,
            write_bytes_in_flight_max: 16 * MIB,
            message_bytes_max: 16 * MIB,
            headers: Vec::new(),
            trusted_certificates: Vec::new(),
            certificate: None,
        }
    }
}

/// How a client and its server talk to each other. Everything else is the same with both.
#[derive(Clone, Debug, Default)]
pub enum Protocol {
    /// The protocol of `docs/PROTOCOL.md`, which this server speaks at `/eventlog`. A public key is what the client says
    /// it is.
    #[default]
    Msgpack,
    /// The protocol of Effect 4.1's event log, which this server speaks at `/rpc`, and Effect's own server wherever it
    /// is configured. Public keys are proved, and payloads are `SchemaBinary` frames.
    Rpc(RpcOptions),
}

/// What a client of the RPC protocol needs in addition.
#[derive(Clone, Debug, Default)]
pub struct RpcOptions {
    /// Who the client is: only these public keys can be used. Each is proved when it is first used on a connection.
    /// Default: none.
    pub identities: Vec<Identity>,
    /// The store that is named in every request; this server refuses one that is not the public key's. `None`: the name
    /// `default`, which means the public key's own store, whatever its name is. Default: `None`.
    pub store: Option<StoreId>,
}
