//! Which server a command talks to, as whom, and in which protocol: the arguments that `write` and `tail` share.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::error::ErrorKind;
use eventlog_server::client::{self, EventLogRemote, Options, RpcOptions};
use eventlog_server::model::{PublicKey, Sequence, StoreId};

use super::address::{DEFAULT, ServerUrl};
use super::connect::{HeadFault, Unconnected, connect, head};
use super::identity::{IdentityError, load_or_create};
use super::trust::{CaError, ConnectionArgs};
use crate::config::Token;

/// The protocol of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    /// The msgpack protocol, at /eventlog
    Msgpack,
    /// The RPC protocol of Effect 4.1's event log, at /rpc: the key is proved with --identity, and payloads are
    /// `SchemaBinary`
    Rpc,
}

#[derive(Debug, clap::Args)]
pub(super) struct Peer {
    /// The server
    #[arg(long, env = "EVENTLOG_URL", default_value = DEFAULT, hide_env_values = true)]
    url: ServerUrl,
    /// The public key; the server's registry decides which store it has
    #[arg(long)]
    key: PublicKey,
    /// The protocol [default: rpc if the address ends in /rpc, else msgpack]
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// With rpc: the file with the key's identity, created at its first use
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The token of the caller, sent as `Authorization: Bearer TOKEN`; better set in the environment
    #[arg(long, env = "EVENTLOG_TOKEN", hide_env_values = true)]
    token: Option<Token>,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// With rpc: require this store, by name [default: the one that the key has]
    #[arg(long, value_name = "NAME")]
    store: Option<StoreId>,
}

/// There is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    /// The server cannot be reached.
    #[error(transparent)]
    Unconnected(#[from] Unconnected),
    /// The server did not say how far the store is.
    #[error(transparent)]
    Head(#[from] HeadFault),
    /// The trusted certificates could not be read.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The key cannot be authenticated.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Peer {
    /// The server at `url`, whose path selects the protocol, with this key.
    pub(super) const fn new(
        url: ServerUrl,
        key: PublicKey,
        identity: Option<PathBuf>,
        token: Option<Token>,
        connection: ConnectionArgs,
    ) -> Self {
        Self { url, key, protocol: None, identity, token, connection, store: None }
    }

    pub(super) const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The chosen protocol, or else the one of the address.
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol.unwrap_or(self.url.protocol())
    }

    /// Connects once. If the connection is lost later, it is opened again automatically. Ends the process if the
    /// arguments contradict each other.
    pub(super) async fn connect(&self) -> Result<EventLogRemote, PeerError> {
        Ok(connect(&self.url.of(self.protocol()), self.options()?).await?)
    }

    /// How far the key's store is.
    pub(super) async fn head(&self) -> Result<Sequence, PeerError> {
        Ok(head(&self.url.of(self.protocol()), self.options()?, &self.key).await?)
    }

    fn options(&self) -> Result<Options, PeerError> {
        let mut headers = self.connection.headers();
        if let Some(token) = &self.token {
            headers.push(("authorization".to_owned(), format!("Bearer {}", token.as_str())));
        }
        let trusted_certificates =
            if self.url.is_secure() { self.connection.certificates()? } else { Vec::new() };
        let shown = if self.url.is_secure() { self.connection.shown()? } else { None };
        let certificate = shown.map(|shown| shown.of_client()).transpose()?;
        let protocol = self.spoken()?;
        Ok(Options { protocol, headers, trusted_certificates, certificate, ..Options::default() })
    }

    fn spoken(&self) -> Result<client::Protocol, PeerError> {
        match (self.protocol(), &self.identity, &self.store) {
            (Protocol::Msgpack, None, None) => Ok(client::Protocol::Msgpack),
            (Protocol::Msgpack, ..) => wrong(
                ErrorKind::ArgumentConflict,
                "--identity and --store need --protocol rpc: the msgpack protocol has no proofs",
            ),
            (Protocol::Rpc, None, _) => wrong(
                ErrorKind::MissingRequiredArgument,
                "--protocol rpc needs --identity FILE to prove the key; the file is created if it does not \
                 exist",
            ),
            (Protocol::Rpc, Some(file), store) => {
                let identities = vec![load_or_create(file, &self.key)?];
                Ok(client::Protocol::Rpc(RpcOptions { identities, store: store.clone() }))
            }
        }
    }
}

/// The command line is wrong in a way that its definition cannot express.
pub(super) fn wrong(kind: ErrorKind, message: &str) -> ! {
    clap::Error::raw(kind, format!("{message}\n")).exit()
}
