//! `EventLogRemote`, against the real server, a fake one, and a bad network.

mod chaos;
mod example;
mod memory;
mod reconnect;
mod spec;
mod streams;
mod tls;

use std::time::Duration;

use eventlog_server::client::{Changes, EventLogRemote, Options, RemoteError};
use eventlog_server::model::{Entry, RemoteEntry};
use futures_util::StreamExt;

use crate::support::entry;
use crate::support::fake::{FakeConnection, FakeServer};

/// Longer than anything takes that is going to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Comes back soon after a lost connection.
fn hasty() -> Options {
    Options { reconnect_delay_max: Duration::from_millis(100), ..Options::default() }
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

/// That many fresh entries.
fn entries(count: usize) -> Vec<Entry> {
    (0..count).map(|n| entry("Note", "key", &n.to_be_bytes())).collect()
}

/// With the sequences from `first` on.
fn numbered(first: u64, entries: &[Entry]) -> Vec<(u64, Entry)> {
    (first..).zip(entries.iter().cloned()).collect()
}
