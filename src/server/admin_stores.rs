//! The part of the admin API that shows stores and what they hold.

use actix_web::HttpResponse;
use actix_web::web::{self, Query, ServiceConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::admin::{self, Answer, Failure, PageOf, name};
use super::admin_operations::AdminEndpoint;
use super::admin_path::Path;
use super::admin_search::{Text, choose};
use super::handle::Server;
use super::sorted::{Found, Order, Wanted, sorted};
use crate::model::{Sequence, StoreId};
use crate::storage::{Storage, StorageError, StoreSize};

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/stores").get(list).done());
}

/// Mounted after everything below a store: a name may have slashes.
pub(super) fn configure_one(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/stores/{store:.+}").get(show).done());
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StoreStatus {
    store_id: StoreId,
    /// The last sequence.
    head: u64,
    /// The last sequence that was trimmed; absent if none was.
    #[serde(skip_serializing_if = "is_zero")]
    trimmed: u64,
    /// How many entries are kept: the number of sequences after the trimmed ones, minus those in gaps.
    entries: u64,
    bytes: u64,
    /// The hash over the entries; absent where the storage keeps none.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    subscribers: usize,
    /// The last entry that handlers were run on; absent without handlers.
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_position: Option<u64>,
    /// In a sorted list, for stores that are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    entries_per_second: Option<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The size of a store, and the hash over it.
struct Measured {
    size: StoreSize,
    hash: Option<String>,
}

impl Measured {
    fn read(
        storage: &dyn Storage,
        store: &StoreId,
        mut size: StoreSize,
    ) -> Result<Self, StorageError> {
        let hash = storage.hash(store)?.map(|(last, hash)| {
            // There may be more than a moment ago.
            size.head = last;
            hash
        });
        Ok(Self { size, hash })
    }
}

/// Selects stores.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoresOf {
    after: Option<String>,
    limit: Option<usize>,
    /// Only open stores: those with recent writes, and those that somebody follows.
    #[serde(default)]
    open: bool,
    /// Only stores with this text in their name. Capitals do not matter.
    search: Option<String>,
    /// The first stores in this order, instead of a page of all by name.
    sort: Option<Order>,
    /// The smallest first.
    #[serde(default)]
    ascending: bool,
}

async fn list(server: web::Data<Server>, Query(asked): Query<StoresOf>) -> Answer {
    let StoresOf { after, limit, open, search, sort, ascending } = asked;
    let page = PageOf::new(after, limit);
    if let Some(order) = sort {
        if open || page.after().is_some() {
            let why = "open and after choose pages by name; a list with sort has the first ones";
            return Err(Failure::Invalid(why.to_owned()));
        }
        let wanted = Wanted { order, ascending, search, most: page.count() };
        return list_sorted(&server, &wanted).await;
    }
    let after = page.after().map(name::<StoreId>).transpose()?;
    let text = search.as_deref().map(Text::new);
    let is_wanted = text.map(|text| move |(store, _): &(StoreId, _)| text.is_in(store.as_str()));
    let list = async |after: Option<StoreId>, count| Ok(sizes(&server, open, after, count).await?);
    let (found, last) = choose(&page, after, is_wanted, list, |(store, _)| store.clone()).await?;
    let measured = read_storage(&server, move |storage| {
        let measured = |(store, size)| Ok((Measured::read(storage, &store, size)?, store));
        found.into_iter().map(measured).collect::<Result<Vec<_>, StorageError>>()
    });
    let mut statuses = Vec::new();
    for (sized, store) in measured.await? {
        statuses.push(read_status(&server, store, sized).await?);
    }
    Ok(admin::page("stores", &statuses, last.map(|store| store.to_string())))
}

/// The first stores in an order, with the rates of those that are open.
async fn list_sorted(server: &Server, wanted: &Wanted) -> Answer {
    let Found { stores, has_more, looked_at } = sorted(server, wanted).await?;
    let measured = read_storage(server, move |storage| {
        let size =
            |store: StoreId| Ok((Measured { size: storage.size(&store)?, hash: None }, store));
        stores.into_iter().map(size).collect::<Result<Vec<_>, StorageError>>()
    });
    let mut statuses = Vec::new();
    for (sized, store) in measured.await? {
        let rate = server.inner().shared.stores.rate_millis(&store);
        let mut status = read_status(server, store, sized).await?;
        status.entries_per_second = rate.map(|millis| millis as f64 / 1_000.0);
        statuses.push(status);
    }
    let mut answer = json!({ "stores": statuses, "more": has_more });
    if let Some(looked_at) = looked_at {
        answer["lookedAt"] = looked_at.into();
    }
    Ok(HttpResponse::Ok().json(answer))
}

/// At most `count` stores after this one, with their sizes.
async fn sizes(
    server: &Server,
    open: bool,
    after: Option<StoreId>,
    count: usize,
) -> Result<Vec<(StoreId, StoreSize)>, StorageError> {
    let named = open.then(|| server.inner().shared.stores.open_after(after.as_ref(), count));
    read_storage(server, move |storage| match named {
        None => storage.stores(after.as_ref(), count),
        Some(named) => {
            named.into_iter().map(|store| Ok((store.clone(), storage.size(&store)?))).collect()
        }
    })
    .await
}

async fn show(server: web::Data<Server>, store: Path<String>) -> Answer {
    let store: StoreId = name(&store)?;
    let asked = store.clone();
    let sized = read_storage(&server, move |storage| {
        Measured::read(storage, &asked, storage.size(&asked)?)
    });
    let sized = sized.await?;
    if sized.size.entries == 0 && sized.size.trimmed == Sequence::ZERO {
        return Err(Failure::NoSuchStore(store));
    }
    Ok(HttpResponse::Ok().json(read_status(&server, store, sized).await?))
}

pub(super) async fn read_storage<T: Send + 'static>(
    server: &Server,
    read: impl FnOnce(&dyn Storage) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let storage = server.inner().storage.clone();
    web::block(move || read(&*storage)).await.map_err(StorageError::unavailable)?
}

async fn read_status(
    server: &Server,
    store_id: StoreId,
    Measured { size: StoreSize { head, trimmed, entries, bytes }, hash }: Measured,
) -> Result<StoreStatus, Failure> {
    let status = server.replay_status(&store_id).await.map_err(StorageError::unavailable)?;
    let replay_position = status.map(|status| status.position.get());
    let subscribers = server.inner().shared.stores.subscribers(&store_id);
    let (head, trimmed) = (head.get(), trimmed.get());
    Ok(StoreStatus {
        store_id,
        head,
        trimmed,
        entries,
        bytes,
        hash,
        subscribers,
        replay_position,
        entries_per_second: None,
    })
}
