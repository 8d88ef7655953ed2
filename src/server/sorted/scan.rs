//! Looks at all stores, open or not, to find the first ones in an order.
//!
//! Keeps: one look at a time, which opens no store, remembers no more stores than were asked for, and ends in bounded
//! time; its result is used again for twenty times as long as it took, so that looks never take more than a twentieth
//! of the time, whoever watches.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::first::First;
use super::{Found, Order, Wanted};
use crate::model::StoreId;
use crate::server::admin::PAGE_MAX;
use crate::server::admin_search::Text;
use crate::server::admin_stores::read_storage;
use crate::server::handle::Server;
use crate::storage::{StorageError, StoreSize};

/// A look ends after this long. The stores behind are then not in the order.
const LONGEST: Duration = Duration::from_secs(10);

/// How many times longer than it took a result is used.
const USED_TIMES: u32 = 20;

/// How many results are kept.
const KEPT_MAX: usize = 8;

struct Kept {
    wanted: Wanted,
    at: Instant,
    took: Duration,
    found: Found,
}

/// The latest results.
#[derive(Default)]
pub(super) struct Scans(Mutex<Vec<Kept>>);

impl Scans {
    /// The first stores in this order. `figures` are those that memory has; stores that are not among them have zero.
    ///
    /// If the future is dropped, the look ends.
    pub(super) async fn first(
        &self,
        server: &Server,
        wanted: &Wanted,
        figures: &HashMap<StoreId, u64>,
    ) -> Result<Found, StorageError> {
        // Held meanwhile: whoever wants the same waits, and gets the same.
        let mut kept = self.0.lock().await;
        kept.retain(|one| one.at.elapsed() < one.took * USED_TIMES);
        if let Some(one) = kept.iter().find(|one| one.wanted == *wanted) {
            return Ok(one.found.clone());
        }
        let begun = Instant::now();
        let found = scan(server, wanted, figures).await?;
        if kept.len() == KEPT_MAX {
            kept.remove(0);
        }
        let (at, took) = (Instant::now(), begun.elapsed());
        kept.push(Kept { wanted: wanted.clone(), at, took, found: found.clone() });
        Ok(found)
    }
}

/// Names are compared if figures are equal; in a descending order of names, `Reverse` comes first.
type Ranked = (u64, Option<Reverse<StoreId>>, StoreId);

fn ranked(wanted: &Wanted, figure: u64, store: StoreId) -> Ranked {
    match (wanted.order, wanted.ascending) {
        (Order::Name, true) => (0, None, store),
        (Order::Name, false) => (0, Some(Reverse(store.clone())), store),
        (_, true) => (figure, None, store),
        (_, false) => (!figure, None, store),
    }
}

async fn scan(
    server: &Server,
    wanted: &Wanted,
    figures: &HashMap<StoreId, u64>,
) -> Result<Found, StorageError> {
    let text = wanted.search.as_deref().map(Text::new);
    let figure = |store: &StoreId, size: &StoreSize| match wanted.order {
        Order::Name => 0,
        Order::Entries => size.entries,
        Order::Size => size.bytes,
        Order::Rate | Order::Subscribers | Order::Lag => figures.get(store).copied().unwrap_or(0),
    };
    let by_name = wanted.order == Order::Name && wanted.ascending;
    let (mut first, mut after, mut looked_at) = (First::new(wanted.most), None, 0);
    let begun = Instant::now();
    let is_whole = loop {
        let from = after.clone();
        let page = read_storage(server, move |storage| storage.stores(from.as_ref(), PAGE_MAX));
        let page = page.await?;
        let Some((last, _)) = page.last() else { break true };
        after = Some(last.clone());
        looked_at += page.len() as u64;
        for (store, size) in page {
            if text.as_ref().is_none_or(|text| text.is_in(store.as_str())) {
                let figure = figure(&store, &size);
                first.offer(ranked(wanted, figure, store));
            }
        }
        // In this order, the first ones come first.
        if by_name && first.has_dropped() {
            break true;
        }
        if begun.elapsed() > LONGEST {
            break false;
        }
        // Others are served meanwhile.
        tokio::task::yield_now().await;
    };
    let has_more = first.has_dropped();
    let stores = first.into_sorted().into_iter().map(|(_, _, store)| store).collect();
    Ok(Found { stores, has_more, looked_at: (!is_whole).then_some(looked_at) })
}
