//! `EventLogRemote`, against the real server, a fake one, and a bad network.

mod chaos;
mod example;
mod memory;
mod reconnect;
mod rpc;
mod spec;
mod streams;
pub mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use eventlog_server::client::{
    Changes, EventLogRemote, Identity, Options, Protocol, RemoteError, RpcOptions,
};
use eventlog_server::model::{Entry, RemoteEntry};
use futures_util::StreamExt;

use crate::support::fake::{FakeConnection, FakeServer};
use crate::support::server::TestServer;
use crate::support::{entry, framed, key};

/// Longer than anything takes that is going to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reconnects soon after a lost connection.
fn hasty() -> Options {
    Options { reconnect_delay_max: Duration::from_millis(100), ..Options::default() }
}

/// A protocol that clients speak. The promises hold in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Msgpack,
    Rpc,
}

const BOTH: [Speaks; 2] = [Speaks::Msgpack, Speaks::Rpc];

impl Speaks {
    /// Hasty, and with an identity for every name that the tests use.
    fn options(self) -> Options {
        let names = ["alice", "bob", "mallory", "nobody"];
        let protocol = match self {
            Self::Msgpack => Protocol::Msgpack,
            Self::Rpc => {
                let identities = names.map(identity).into();
                Protocol::Rpc(RpcOptions { identities, store: None })
            }
        };
        Options { protocol, ..hasty() }
    }

    fn url(self, addr: SocketAddr) -> String {
        match self {
            Self::Msgpack => format!("ws://{addr}/eventlog"),
            Self::Rpc => format!("ws://{addr}/rpc"),
        }
    }

    async fn connect(self, server: &TestServer) -> EventLogRemote {
        self.connect_with(server, self.options()).await
    }

    async fn connect_with(self, server: &TestServer, options: Options) -> EventLogRemote {
        EventLogRemote::connect(&self.url(server.addr), options).await.expect("a connection")
    }
}

/// The same one at every call.
fn identity(name: &str) -> Identity {
    let mut signing_key = [0; 32];
    signing_key[..name.len()].copy_from_slice(name.as_bytes());
    Identity::from_signing_key(key(name), &signing_key)
}

async fn connect(url: &str) -> EventLogRemote {
    EventLogRemote::connect(url, hasty()).await.expect("a connection")
}

/// A client of a fake server, and the server's end of its connection.
async fn connect_to(server: &FakeServer, options: Options) -> (EventLogRemote, FakeConnection) {
    let url = server.url();
    let (remote, connection) =
        tokio::join!(EventLogRemote::connect(&url, options), server.accept());
    (remote.expect("a connection"), connection)
}

/// The next item of a stream, in time.
async fn next(changes: &mut Changes) -> Option<Result<RemoteEntry, RemoteError>> {
    tokio::time::timeout(PATIENCE, changes.next()).await.expect("an item in time")
}

/// The next `count` entries, with their sequences.
async fn take(changes: &mut Changes, count: usize) -> Vec<(u64, Entry)> {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        let change = next(changes).await.expect("the stream goes on").expect("an entry");
        taken.push((change.remote_sequence.get(), change.entry));
    }
    taken
}

/// This many fresh entries, which clients of either protocol may write.
fn entries(count: usize) -> Vec<Entry> {
    (0..count).map(|n| entry("Note", "key", &framed(&n.to_be_bytes()))).collect()
}

/// With the sequences from `first` on.
fn numbered(first: u64, entries: &[Entry]) -> Vec<(u64, Entry)> {
    (first..).zip(entries.iter().cloned()).collect()
}
