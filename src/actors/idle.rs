//! Asks the open stores now and then whether they are idle.
//!
//! Keeps: each store is asked about once in a period, and the threads that run stores get the questions spread over it. One
//! task asks all of them: a task and a timer for each would be a tenth of what a store takes in memory. Leaves out: when a
//! store is idle, and what it does then (`store`).

use std::sync::Weak;
use std::time::Duration;

use super::open::OpenStores;
use super::store::WeakStoreHandle;

/// How many times a store is asked in `store_idle_timeout`.
const ASKS: u32 = 4;
/// The least pause between questions.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Asks all that are open, again and again, until `stores` are gone.
pub(super) async fn ask_all(stores: Weak<OpenStores>) {
    let mut open: Vec<WeakStoreHandle> = Vec::new();
    loop {
        let Some(period) = stores.upgrade().map(|stores| {
            open.append(&mut stores.take_opened());
            stores.deps().limits.get().store_idle_timeout / ASKS
        }) else {
            return;
        };
        open = ask(open, period.max(Duration::from_millis(1))).await;
    }
}

/// Asks these within a period; returns those that are still open.
async fn ask(open: Vec<WeakStoreHandle>, period: Duration) -> Vec<WeakStoreHandle> {
    let pauses_max = (period.as_nanos() / PAUSE_MIN.as_nanos()).max(1) as usize;
    let at_once = open.len().div_ceil(pauses_max).max(1);
    let pauses = open.len().div_ceil(at_once).max(1);
    let mut left = Vec::new();
    let mut open = open.into_iter();
    for _ in 0..pauses {
        tokio::time::sleep(period / pauses as u32).await;
        for store in open.by_ref().take(at_once) {
            if let Some(asked) = store.upgrade() {
                asked.ask_whether_idle();
                left.push(store);
            }
        }
    }
    left
}
