//! The feed of another server, as its clients see it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::error::ErrorKind;
use eventlog_server::client::{ConnectionState, EventLogRemote, RemoteError};
use eventlog_server::model::{PublicKey, Sequence, StoreId};
use futures_util::StreamExt;
use tokio::runtime::Runtime;

use super::writing::Writing;
use super::{At, ImportError};
use crate::cli::address::ServerUrl;
use crate::cli::connect::runtime;
use crate::cli::entry::parse_sequence;
use crate::cli::peer::{Peer, PeerError, Protocol, wrong};
use crate::cli::progress::{Progress, Unit};
use crate::cli::trust::ConnectionArgs;
use crate::config::Token;

#[derive(Debug, clap::Args)]
pub(super) struct FeedArgs {
    /// Import the feed of this other server: ws://HOST:PORT/eventlog or …/rpc, or wss:// for TLS
    #[arg(long, value_name = "URL", requires = "store", requires = "public_key")]
    from_url: Option<ServerUrl>,
    /// The public key that has the store on that server
    #[arg(long, value_name = "KEY", requires = "from_url")]
    public_key: Option<PublicKey>,
    /// For the RPC protocol: the file with the key's identity
    #[arg(long, value_name = "FILE", requires = "from_url")]
    identity: Option<PathBuf>,
    /// The token for that server; better set in the environment
    #[arg(long, value_name = "TOKEN", env = "EVENTLOG_TOKEN", hide_env_values = true)]
    from_token: Option<Token>,
    /// The first sequence to import
    #[arg(long, value_name = "SEQUENCE", requires = "from_url", default_value = "0", value_parser = parse_sequence)]
    from: Sequence,
    /// End after this many seconds without an entry, if the other server does not say where its feed ends
    #[arg(long, value_name = "SECONDS", requires = "from_url", default_value_t = 10)]
    idle: u64,
}

/// The other server does not send its feed.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum FeedError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] PeerError),
    /// The server refused the subscription, or ended it.
    #[error("the other server: {0}")]
    Remote(#[from] RemoteError),
    /// The feed ended.
    #[error("the other server ended its feed")]
    Ended,
    /// There is more, but it does not arrive.
    #[error("the connection to the other server was lost: {0}")]
    Lost(Arc<str>),
    /// The runtime cannot be started.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A feed that was started.
pub(super) struct Feed {
    runtime: Runtime,
    remote: EventLogRemote,
    key: PublicKey,
    store: StoreId,
    from: Sequence,
    /// Where it ends, if the server said so.
    head: Option<Sequence>,
    idle: Duration,
}

impl FeedArgs {
    /// Connects to the other server, if there is one, for the entries that go to `store`.
    pub(super) fn begin(
        &self,
        store: Option<&StoreId>,
        connection: ConnectionArgs,
    ) -> Result<Option<Feed>, FeedError> {
        let Some(url) = &self.from_url else { return Ok(None) };
        let (Some(key), Some(store)) = (&self.public_key, store) else {
            // The arguments require both.
            wrong(ErrorKind::MissingRequiredArgument, "--from-url needs --store and --public-key");
        };
        let peer = Peer::new(
            url.clone(),
            key.clone(),
            self.identity.clone(),
            self.from_token.clone(),
            connection,
        );
        let runtime = runtime()?;
        let says_head = peer.protocol() == Protocol::Msgpack;
        let (head, remote) = runtime.block_on(async {
            let head = if says_head { Some(peer.head().await?) } else { None };
            Ok::<_, FeedError>((head, peer.connect().await?))
        })?;
        let (key, store, from) = (key.clone(), store.clone(), self.from);
        let idle = Duration::from_secs(self.idle);
        Ok(Some(Feed { runtime, remote, key, store, from, head, idle }))
    }
}

impl Feed {
    /// Reads the feed to its end, one page at a time. The next page is requested when the previous one is written.
    pub(super) fn read(self, writing: &mut Writing<'_>) -> Result<(), ImportError> {
        let mut next = self.from.max(Sequence::FIRST);
        let total = self.head.map(|head| (head.get() + 1).saturating_sub(next.get()));
        let progress = Progress::start("import", Unit::Events, total);
        let mut pages = {
            let _runtime = self.runtime.enter();
            self.remote.pages(&self.key, self.from)
        };
        while self.head.is_none_or(|head| next <= head) {
            let next_page = async { tokio::time::timeout(self.idle, pages.next()).await };
            let Ok(page) = self.runtime.block_on(next_page) else {
                // The last entries may be left out on the server, so this is also an end.
                match &*self.remote.connection_state().borrow() {
                    ConnectionState::Connected => break,
                    ConnectionState::Lost { reason } => {
                        return Err(FeedError::Lost(reason.clone()).into());
                    }
                }
            };
            let page = page.ok_or(FeedError::Ended)?.map_err(FeedError::from)?;
            for (sequence, entry) in page.iter() {
                writing.push(&self.store, At::Sequence(sequence), entry.to_entry())?;
                // If sequences are missing, fewer entries are still to come.
                progress.add(sequence.next().since(next));
                next = sequence.next();
            }
        }
        self.runtime.block_on(self.remote.close());
        Ok(())
    }
}
