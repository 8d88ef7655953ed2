//! Pages of a store's feed for somebody who looks: filtered, and with payloads as people read them.
//!
//! Keeps: a request reads so much at most, and says where to go on. Leaves out: what is live (`live`).

use actix_web::HttpResponse;
use actix_web::web::{self, Path, Query, ServiceConfig};
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::{Answer, Failure, name};
use super::admin_operations::AdminEndpoint;
use super::handle::Server;
use super::shown;
use crate::actors::feed::{Feed, Pulled, read_blocking};
use crate::model::{EntryId, EntryRef, Segment, Sequence, StoreId};
use crate::storage::StorageError;

/// So many entries are in a page unless the request says otherwise, and at most.
const ENTRIES: usize = 50;
const ENTRIES_MAX: usize = 500;

/// So much of each payload, in bytes, unless the request says otherwise, and at most.
const PAYLOAD: usize = 1_024;
const PAYLOAD_MAX: usize = 2 << 20;

/// A page ends when its payloads have so many bytes.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// A request reads so many bytes at most while it looks for what fits, so much at a time.
const SCAN_MAX: usize = 16 << 20;
const READ_BYTES: usize = 256 << 10;

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/stores/{store:.+}/feed").get(show).done());
}

/// What is looked for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    from: Option<u64>,
    limit: Option<usize>,
    id: Option<String>,
    event: Option<String>,
    primary_key: Option<String>,
    payload_max: Option<usize>,
}

impl Wanted {
    fn fits(&self, entry: &EntryRef<'_>, id: Option<EntryId>) -> bool {
        id.is_none_or(|id| entry.id == id)
            && self.event.as_ref().is_none_or(|event| entry.event == event)
            && self.primary_key.as_ref().is_none_or(|key| entry.primary_key == key)
    }
}

async fn show(
    server: web::Data<Server>,
    store: Path<String>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let store: StoreId = name(&store)?;
    let invalid = |error: &dyn std::fmt::Display| Failure::Invalid(error.to_string());
    let from = Sequence::new(wanted.from.unwrap_or(1)).map_err(|error| invalid(&error))?;
    let id = wanted.id.as_deref().map(str::parse::<EntryId>).transpose();
    let id = id.map_err(|error| invalid(&error))?;
    if server.head(&store).await? == Sequence::ZERO {
        return Err(Failure::NoSuchStore(store));
    }
    let feed = server.inner().shared.stores.open(&store).await?.feed.clone();
    let mut page = Page { next: from.max(Sequence::FIRST), entries: Vec::new(), bytes: 0 };
    let (head, mut scanned) = (feed.head(), 0);
    let is_done = |page: &Page| page.next > head || page.is_full(&wanted);
    while !is_done(&page) && scanned < SCAN_MAX {
        let segments = read(&feed, page.next).await?;
        if segments.is_empty() {
            let at = page.next;
            return Err(
                StorageError::corrupt(format!("store {store:?} has nothing at {at}")).into()
            );
        }
        for segment in segments {
            scanned += segment.records().len();
            page.take(&segment, head, &wanted, id);
            if is_done(&page) {
                break;
            }
        }
    }
    let mut answer = json!({ "head": head.get(), "entries": page.entries });
    if page.next <= head {
        answer["next"] = page.next.get().into();
    }
    Ok(HttpResponse::Ok().json(answer))
}

async fn read(feed: &Feed, from: Sequence) -> Result<Vec<Segment>, StorageError> {
    Ok(match feed.pull(from, READ_BYTES) {
        Pulled::Recent(found) => found.iter().map(|one| one.segment().clone()).collect(),
        Pulled::OnDisk(log) => read_blocking(log, from, READ_BYTES).await?,
    })
}

struct Page {
    /// What was not looked at yet.
    next: Sequence,
    entries: Vec<Value>,
    /// Of their payloads, as far as they are shown.
    bytes: usize,
}

impl Page {
    fn is_full(&self, wanted: &Wanted) -> bool {
        let count = wanted.limit.unwrap_or(ENTRIES).clamp(1, ENTRIES_MAX);
        self.entries.len() >= count || self.bytes >= PAGE_BYTES_MAX
    }

    /// Takes what fits of a segment.
    fn take(&mut self, segment: &Segment, head: Sequence, wanted: &Wanted, id: Option<EntryId>) {
        let most = wanted.payload_max.unwrap_or(PAYLOAD).min(PAYLOAD_MAX);
        for ((at, entry), origin) in segment.iter().zip(segment.origin_of_each()) {
            if at < self.next || at > head {
                continue;
            }
            if self.is_full(wanted) {
                return;
            }
            self.next = at.next();
            if wanted.fits(&entry, id) {
                self.bytes += entry.payload.len().min(most);
                self.entries.push(shown::entry(at, &entry, origin, most));
            }
        }
        // A gap has no entries.
        self.next = self.next.max(segment.last().next());
    }
}
