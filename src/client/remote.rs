//! The handle that programs hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::changes::{Changes, Pages};
use super::core::{Command, Core, Pending, Policy};
use super::driver::Driver;
use super::error::{ConnectError, RemoteError};
use super::options::{Options, Protocol};
use super::queue::Queue;
use super::socket::Target;
use super::state::{ConnectionState, State};
use crate::model::{Batch, PublicKey, RemoteId, Sequence};

/// Writes in flight are counted in pieces of this size; each counts as at least one.
const PERMIT_BYTES: usize = 1_024;

/// A client of one server. Cheap to clone; clones share the connection.
///
/// The connection ends when the last clone and the last stream are dropped, or with [`EventLogRemote::close`].
#[derive(Clone, Debug)]
pub struct EventLogRemote {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

#[derive(Debug)]
struct Shared {
    id: RemoteId,
    in_flight: Arc<Semaphore>,
    in_flight_max: u32,
    read_ahead_entries: usize,
    read_ahead_bytes: usize,
    streams: AtomicU64,
    state: watch::Receiver<ConnectionState>,
}

impl EventLogRemote {
    /// Connects to `url`, such as `ws://127.0.0.1:7420/eventlog`, or `…/rpc` for [`Protocol::Rpc`], and waits for the
    /// server's `Hello`.
    ///
    /// This one attempt is not repeated. Must be called within a tokio runtime, which then runs the connection.
    /// Dropping the future ends the attempt.
    pub async fn connect(url: &str, options: Options) -> Result<Self, ConnectError> {
        let (read_ahead_entries, read_ahead_bytes) =
            (options.read_ahead_entries.max(1), options.read_ahead_bytes.max(1));
        let in_flight_max = permits(options.write_bytes_in_flight_max);
        let policy = Policy {
            resend_writes: options.resend_writes,
            held_bytes_max: read_ahead_bytes,
            acks_follow_the_feed: matches!(options.protocol, Protocol::Msgpack),
        };
        let target = Target::new(url, options)?;
        let (link, id) = target.connect().await?;
        let (commands, received) = mpsc::unbounded_channel();
        let (said, state) = State::connected();
        let driver = Driver::new(target, id, Core::new(policy), said, received);
        tokio::spawn(driver.run(link));
        let in_flight = Arc::new(Semaphore::new(in_flight_max as usize));
        let streams = AtomicU64::new(0);
        let shared = Shared {
            id,
            in_flight,
            in_flight_max,
            read_ahead_entries,
            read_ahead_bytes,
            streams,
            state,
        };
        Ok(Self { shared: Arc::new(shared), commands })
    }

    /// The server's own id, from its `Hello`. It stays the same for the life of the client.
    pub fn id(&self) -> RemoteId {
        self.shared.id
    }

    /// Whether there is a connection, from now on. You do not need this to reconnect: the client does that itself. It
    /// ends with the client.
    pub fn connection_state(&self) -> watch::Receiver<ConnectionState> {
        self.shared.state.clone()
    }

    /// Appends `entries` to the store of `key` as one batch, and returns the sequence of each, in the order of the
    /// entries: an entry that the store already had gets the sequence that it has there.
    ///
    /// Any number of writes can be in progress at once; they are sent in the order in which they are first polled.
    /// Waits while [`Options::write_bytes_in_flight_max`] is used up. If the future is dropped before the write is
    /// sent, it is not sent; after that, dropping does not undo it.
    ///
    /// # Errors
    /// The batch was refused as a whole, or its fate is unknown: [`RemoteError::is_definite`] tells.
    pub async fn write(
        &self,
        key: &PublicKey,
        entries: impl Into<Batch>,
    ) -> Result<Vec<Sequence>, RemoteError> {
        let batch: Batch = entries.into();
        let permits = permits(batch.bytes()).min(self.shared.in_flight_max);
        let in_flight = Arc::clone(&self.shared.in_flight);
        // The semaphore is never closed.
        let permit = in_flight.acquire_many_owned(permits).await.ok();
        let (reply, answer) = oneshot::channel();
        let write = Pending { key: key.clone(), batch: Arc::new(batch), reply, permit };
        self.commands.send(Command::Write(write)).map_err(|_| RemoteError::Closed)?;
        // Every write that was handed over is answered, unless the runtime is shut down.
        answer.await.unwrap_or(Err(RemoteError::Unanswered))
    }

    /// Follows the feed of the store of `key`, from `start` on, and everything that is appended later: see the
    /// [module](super) for what it promises.
    ///
    /// In a client, a key has one stream at a time: while it lives, a second one fails with
    /// [`RemoteError::AlreadyStreaming`]. For more, connect more clients.
    pub fn changes(&self, key: &PublicKey, start: Sequence) -> Changes {
        Changes::new(self.pages(key, start))
    }

    /// Like [`EventLogRemote::changes`], but with entries as they arrive, many at a time, and without copying them: for
    /// readers of millions.
    pub fn pages(&self, key: &PublicKey, start: Sequence) -> Pages {
        let shared = &self.shared;
        let stream = shared.streams.fetch_add(1, Ordering::Relaxed);
        let queue = Queue::new(shared.read_ahead_entries, shared.read_ahead_bytes);
        let (key, open) = (key.clone(), Arc::clone(&queue));
        let command = Command::Open { key: key.clone(), stream, start, queue: open };
        if self.commands.send(command).is_err() {
            queue.end(Some(RemoteError::Closed));
        }
        Pages::new(key, stream, queue, self.commands.clone())
    }

    /// Ends the client with all its clones: waits until everything written so far is answered, then closes the
    /// connection. Later writes fail with [`RemoteError::Closed`]; streams end after what they have received.
    ///
    /// Does not reconnect: writes that are unanswered when the connection is lost, or that already have no connection,
    /// fail.
    pub async fn close(&self) {
        // If that fails, it is already closed.
        drop(self.commands.send(Command::Close));
        self.commands.closed().await;
    }
}

/// How many pieces `bytes` take, at least one.
fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX).clamp(1, 1 << 28)
}
