//! Changes that are made in the order in which they were requested.
//!
//! Keeps: a change begins when the earlier ones have ended, even if their callers are gone. On connections of their own
//! they would overtake each other.

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// See the module's description.
#[derive(Default)]
pub(crate) struct Order(Mutex<Option<oneshot::Receiver<()>>>);

/// The turn of one change, which ends when this is dropped.
pub(crate) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    _ends: oneshot::Sender<()>,
}

impl Order {
    /// A turn after all that were taken before.
    pub(crate) fn take(&self) -> Turn {
        let (ends, ended) = oneshot::channel();
        let before = self.0.lock().replace(ended);
        Turn { before, _ends: ends }
    }
}

impl Turn {
    /// Waits for its turn.
    pub(crate) async fn come(&mut self) {
        if let Some(before) = &mut self.before {
            // An error means that the earlier turn has ended.
            let _ = before.await;
            self.before = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_turn_comes_when_the_one_before_has_ended() {
        let order = Order::default();
        let (mut first, mut second, mut third) = (order.take(), order.take(), order.take());
        assert!(first.come().now_or_never().is_some());
        assert!(second.come().now_or_never().is_none());
        drop(first);
        assert!(second.come().now_or_never().is_some());
        assert!(third.come().now_or_never().is_none());
        drop(second);
        assert!(third.come().now_or_never().is_some());
    }
}
