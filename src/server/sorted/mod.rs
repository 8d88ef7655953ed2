//! Stores in the order of a figure: the first ones of all that there are, for lists that show no more.
//!
//! Keeps: no store is opened; memory is bounded by what is shown and by the open stores. What only open stores have (a
//! rate, subscribers, handlers that are behind) is in memory and always of this moment; `scan` says what the rest costs.

mod first;
mod rates;
mod scan;

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Deserialize;

use self::first::First;
use self::rates::Rates;
use self::scan::Scans;
use super::admin_search::Text;
use super::handle::Server;
use crate::model::{Sequence, StoreId};
use crate::storage::StorageError;

/// What stores are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Order {
    Name,
    Entries,
    Size,
    /// Entries a second, of stores that are open.
    Rate,
    Subscribers,
    /// How many entries handlers are behind.
    Lag,
}

/// Which stores, and in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) order: Order,
    pub(super) ascending: bool,
    /// Only stores with this text in their name. Capitals do not matter.
    pub(super) search: Option<String>,
    pub(super) most: usize,
}

/// The first ones.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) stores: Vec<StoreId>,
    /// Whether others match as well.
    pub(super) has_more: bool,
    /// If there was not enough time for all stores: the order is that of so many, the first by name.
    pub(super) looked_at: Option<u64>,
}

/// What is remembered between requests. Bounded.
#[derive(Default)]
pub(super) struct Sorting {
    rates: Rates,
    scans: Scans,
}

/// Finds the first stores, and measures the rates of those that are open.
pub(super) async fn sorted(server: &Server, wanted: &Wanted) -> Result<Found, StorageError> {
    let sorting = &server.inner().looking.sorting;
    sorting.rates.measure(&server.inner().shared.stores).await;
    let figures = figures(server, wanted.order);
    if !wanted.order.is_of_open_stores() || wanted.ascending {
        return sorting.scans.first(server, wanted, &figures).await;
    }
    let text = wanted.search.as_deref().map(Text::new);
    let mut first = First::new(wanted.most);
    for (store, figure) in &figures {
        if text.as_ref().is_none_or(|text| text.is_in(store.as_str())) {
            first.offer((Reverse(*figure), store));
        }
    }
    let has_more = first.has_dropped();
    let first = first.into_sorted().into_iter();
    let mut stores: Vec<StoreId> = first.map(|(_, store)| store.clone()).collect();
    if has_more {
        return Ok(Found { stores, has_more, looked_at: None });
    }
    // All others have zero.
    let by_name = Wanted { order: Order::Name, ascending: true, ..wanted.clone() };
    let others = sorting.scans.first(server, &by_name, &HashMap::new()).await?;
    stores.extend(others.stores.into_iter().filter(|store| !figures.contains_key(store)));
    let has_more = others.has_more || stores.len() > wanted.most;
    stores.truncate(wanted.most);
    Ok(Found { stores, has_more, looked_at: others.looked_at })
}

impl Order {
    /// Whether only stores that are open have more than zero.
    const fn is_of_open_stores(self) -> bool {
        matches!(self, Self::Rate | Self::Subscribers | Self::Lag)
    }
}

/// The figures that are in memory, where they are not zero, of stores with entries.
fn figures(server: &Server, order: Order) -> HashMap<StoreId, u64> {
    let feeds = server.inner().shared.stores.open_feeds();
    let feeds = feeds.filter(|feed| feed.head() > Sequence::ZERO);
    let mut figures: HashMap<StoreId, u64> = match order {
        Order::Name | Order::Entries | Order::Size => HashMap::new(),
        Order::Rate => feeds.map(|feed| (feed.store().clone(), feed.rate_millis())).collect(),
        Order::Subscribers => {
            let count = |count: usize| count as u64;
            feeds.map(|feed| (feed.store().clone(), count(feed.subscriber_count()))).collect()
        }
        Order::Lag => {
            let statuses = server.processor().map(|processor| processor.statuses());
            let statuses = statuses.into_iter().flatten();
            statuses.map(|(store, status)| (store, status.lag())).collect()
        }
    };
    figures.retain(|_, figure| *figure > 0);
    figures
}
