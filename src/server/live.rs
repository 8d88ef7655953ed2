//! The newest entries of a store, for somebody who watches: as many as a person can see, however fast they come.
//!
//! Keeps: it reads at most [`ENTRIES_MAX`] entries in [`INTERVAL`], and says how many it passed over. Leaves out: the whole feed,
//! which subscriptions and the admin API's entries give.

use std::time::Duration;

use actix_web::web::{self, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::admin::{Answer, Failure, name};
use super::admin_operations::AdminEndpoint;
use super::handle::Server;
use super::{shown, sse};
use crate::actors::feed::{Lease, Pulled, read_blocking};
use crate::actors::store::StoreHandle;
use crate::model::{Segment, Sequence, StoreId};
use crate::storage::StorageError;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// So many entries are shown of what came in between.
const ENTRIES_MAX: u64 = 50;

/// So much of a payload.
const PAYLOAD_MAX: usize = 1_024;

/// So much is read at a look, in bytes.
const READ_MAX: usize = 256 << 10;

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/stores/{store:.+}/live").get(show).done());
}

async fn show(server: web::Data<Server>, request: HttpRequest, store: Path<String>) -> Answer {
    let store: StoreId = name(&store)?;
    if server.head(&store).await? == Sequence::ZERO {
        return Err(Failure::NoSuchStore(store));
    }
    let mut watching = Watching { server: Server::clone(&server), store, shown: None, open: None };
    if !sse::is_asked(&request) {
        let event = watching.look().await?.unwrap_or_default();
        return Ok(HttpResponse::Ok().json(event));
    }
    let events = stream::unfold(watching, |mut watching| async move {
        loop {
            if watching.server.inner().shared.connections.is_shut_down() {
                return None;
            }
            match watching.look().await {
                Ok(Some(event)) => return Some((event, watching)),
                Ok(None) => sleep(INTERVAL).await,
                // Who watches asks again, and is told why.
                Err(_) => return None,
            }
        }
    });
    // At most one look in each interval.
    let events = futures_util::StreamExt::then(events, |event| async {
        sleep(INTERVAL).await;
        event
    });
    sse::answer(&server, Box::pin(events))
}

/// Somebody who watches a store.
struct Watching {
    server: Server,
    store: StoreId,
    /// The last entry that was shown, or passed over.
    shown: Option<Sequence>,
    /// Keeps the store open meanwhile.
    open: Option<(StoreHandle, Lease)>,
}

impl Watching {
    /// What is new, if anything is.
    async fn look(&mut self) -> Result<Option<Value>, StorageError> {
        let feed = self.open().await?.feed.clone();
        let head = feed.head();
        if self.shown == Some(head) {
            return Ok(None);
        }
        let newest = head.get().saturating_sub(ENTRIES_MAX - 1);
        let next = self.shown.map_or(newest, |shown| newest.max(shown.get() + 1));
        let from = Sequence::new(next).unwrap_or(head).max(Sequence::FIRST);
        let segments: Vec<Segment> = match feed.pull(from, READ_MAX) {
            Pulled::Recent(found) => found.iter().map(|one| one.segment().clone()).collect(),
            Pulled::OnDisk(log) => read_blocking(log, from, READ_MAX).await?,
        };
        let mut entries = Vec::new();
        let mut last = from;
        for segment in &segments {
            for ((at, entry), origin) in segment.iter().zip(segment.origin_of_each()) {
                if (from..=head).contains(&at) {
                    entries.push(shown::entry(at, &entry, origin, PAYLOAD_MAX));
                    last = at;
                }
            }
        }
        // A gap has nothing to show.
        let last = if entries.is_empty() { head } else { last };
        let passed = self.shown.map_or(0, |shown| from.get().saturating_sub(shown.get() + 1));
        self.shown = Some(last);
        Ok(Some(json!({ "head": head.get(), "passedOver": passed, "entries": entries })))
    }

    async fn open(&mut self) -> Result<&StoreHandle, StorageError> {
        let open = match self.open.take().filter(|(store, _)| !store.feed.is_closed()) {
            Some(open) => open,
            None => self.open_again().await?,
        };
        Ok(&self.open.insert(open).0)
    }

    async fn open_again(&self) -> Result<(StoreHandle, Lease), StorageError> {
        loop {
            let store = self.server.inner().shared.stores.open(&self.store).await?;
            // Where it was closed just now, it is opened again.
            if let Ok(lease) = store.feed.lease() {
                return Ok((store, lease));
            }
        }
    }
}
