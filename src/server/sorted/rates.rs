//! How many entries a second the open stores get, measured when somebody asks.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::actors::stores::Stores;

/// Measured again after this long.
const FRESH: Duration = Duration::from_secs(1);

/// Rates over a longer time say little about now.
const LONGEST: Duration = Duration::from_secs(15);

/// For how long rates are measured if nobody has asked lately.
const SHORTEST: Duration = Duration::from_millis(500);

/// When the heads of all open stores were looked at last. Each feed keeps what was seen of it.
#[derive(Default)]
pub(super) struct Rates(Mutex<Option<Instant>>);

impl Rates {
    /// Measures, unless that was done just now. All who ask share one measurement.
    pub(super) async fn measure(&self, stores: &Stores) {
        let mut last = self.0.lock().await;
        let mut since = last.map(|last| last.elapsed());
        if since.is_some_and(|since| since < FRESH) {
            return;
        }
        if since.is_none_or(|since| since > LONGEST) {
            let begun = Instant::now();
            stores.open_feeds().for_each(|feed| feed.measure(LONGEST));
            sleep(SHORTEST).await;
            since = Some(begun.elapsed());
        }
        let since = since.unwrap_or(SHORTEST);
        stores.open_feeds().for_each(|feed| feed.measure(since));
        *last = Some(Instant::now());
    }
}
