//! The live streams over HTTP, seen from outside: who reads them, how far they are, and an end for them.
//!
//! Keeps: a stream is in the list from its request to its end; one that is closed ends within a second, also if its
//! client does not read. Leaves out: what is streamed (`following`, `newest`, `overview`), how many there may be (`sse`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use actix_web::{HttpMessage, HttpRequest};
use parking_lot::Mutex;

use super::handle::Server;
use super::sever::Severable;
use crate::actors::audit::By;
use crate::actors::connections::now_millis;
use crate::model::{Sequence, StoreId};

/// The open streams, by the numbers that they share with connections.
#[derive(Default)]
pub(super) struct Streams(Mutex<BTreeMap<u64, Arc<OpenStream>>>);

/// One of them.
pub(super) struct OpenStream {
    pub(super) path: String,
    pub(super) address: Option<IpAddr>,
    /// The name of the token that opened it.
    pub(super) token: Option<Arc<str>>,
    pub(super) since_millis: u64,
    /// Bytes that were handed over to the connection.
    pub(super) sent: AtomicU64,
    /// The store that it follows, if it is one of entries, and the next sequence that it needs.
    pub(super) follows: OnceLock<(StoreId, Cursor)>,
    is_closed: AtomicBool,
    severable: Option<Severable>,
}

/// The next sequence that a stream needs, published for those who look.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor(Arc<AtomicU64>);

impl Cursor {
    pub(super) fn is(&self, next: Sequence) {
        self.0.store(next.get(), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed).max(1)
    }
}

impl Streams {
    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// At most `count` of those with numbers after `after`, in order.
    pub(super) fn list(&self, after: Option<u64>, count: usize) -> Vec<(u64, Arc<OpenStream>)> {
        let from = after.map_or(0, |after| after.saturating_add(1));
        let live = self.0.lock();
        live.range(from..).take(count).map(|(number, open)| (*number, open.clone())).collect()
    }

    /// Makes the stream with this number end; `false` if there is none.
    pub(super) fn close(&self, number: u64) -> bool {
        let found = self.0.lock().get(&number).cloned();
        found.inspect(|open| open.is_closed.store(true, Ordering::Relaxed)).is_some()
    }

    /// Severs the connection of the stream with this number, if it is still there.
    pub(super) fn sever(&self, number: u64) {
        let found = self.0.lock().get(&number).cloned();
        if let Some(severable) = found.as_ref().and_then(|open| open.severable.as_ref()) {
            severable.sever();
        }
    }
}

/// A stream's entry in the list, until it is dropped.
pub(super) struct Listed {
    server: Server,
    number: u64,
    open: Arc<OpenStream>,
}

impl Listed {
    /// Adds the stream that answers this request.
    pub(super) fn of(server: &Server, request: &HttpRequest) -> Self {
        let (address, token) = match request.extensions().get::<By>() {
            Some(By::Admin { address, token }) => (*address, Some(token.clone())),
            Some(By::Process | By::Claim(_)) | None => (None, None),
        };
        let open = Arc::new(OpenStream {
            path: request.path().to_owned(),
            address,
            token,
            since_millis: now_millis(),
            sent: AtomicU64::new(0),
            follows: OnceLock::new(),
            is_closed: AtomicBool::new(false),
            severable: request.conn_data::<Severable>().cloned(),
        });
        let number = server.inner().shared.connections.next_number();
        server.inner().open_streams.0.lock().insert(number, open.clone());
        Self { server: server.clone(), number, open }
    }

    /// It follows this store; returns where to say how far it is.
    pub(super) fn follows(&self, store: &StoreId) -> Cursor {
        self.open.follows.get_or_init(|| (store.clone(), Cursor::default())).1.clone()
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.open.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether somebody has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.open.is_closed.load(Ordering::Relaxed)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.server.inner().open_streams.0.lock().remove(&self.number);
    }
}
