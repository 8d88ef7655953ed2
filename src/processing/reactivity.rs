//! Tells in-process observers that something they show has changed.
//!
//! Keeps: an observer is told about every invalidation, or how many it missed, and first of all that it has to look,
//! because nothing is known about earlier changes, in this process or a previous one; it never blocks an invalidation.
//! Leaves out: what changed (observers read it again), and when something counts as changed (`replay`).

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use parking_lot::Mutex;

use crate::model::StoreId;

/// Most invalidations that are kept for an observer that does not take them.
pub const OBSERVER_QUEUE_MAX: usize = 1_024;

/// Most bytes of primary keys in them: each may be as long as a message.
const OBSERVER_KEY_BYTES_MAX: usize = 1 << 20;

/// Where observers of invalidations subscribe. Clones share the observers.
#[derive(Clone, Default)]
pub struct Reactivity {
    topics: Arc<Mutex<Topics>>,
}

#[derive(Default)]
struct Topics {
    // Queues are locked after this, never before.
    observers: HashMap<Topic, Vec<Arc<Mutex<Queue>>>>,
    closed: bool,
}

/// A key, alone or with a primary key.
type Topic = (Arc<str>, Option<Arc<str>>);

struct Queue {
    items: VecDeque<Observed>,
    /// The bytes of the primary keys in `items`.
    key_bytes: usize,
    waker: Option<Waker>,
    closed: bool,
}

/// Something that observers may show has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invalidation {
    /// The store of the event that changed it.
    pub store: StoreId,
    /// The key that the event's group invalidates.
    pub key: Arc<str>,
    /// The primary key of the event.
    pub primary_key: Arc<str>,
}

/// What an observer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Look, whatever was shown before: from here on, all changes are reported. Comes first, and once; a restarted
    /// process does not remember what it reported before.
    Look,
    /// Something changed.
    Invalidated(Invalidation),
    /// This many invalidations at this point were not kept, because the observer was slow.
    Missed(u64),
}

impl Reactivity {
    /// Observes every invalidation of `key`, in all stores, from now on; the stream begins with [`Observed::Look`].
    pub fn observe(&self, key: impl Into<Arc<str>>) -> Observer {
        self.subscribe((key.into(), None))
    }

    /// Like [`Reactivity::observe`], for the invalidations of one primary key.
    pub fn observe_one(
        &self,
        key: impl Into<Arc<str>>,
        primary_key: impl Into<Arc<str>>,
    ) -> Observer {
        self.subscribe((key.into(), Some(primary_key.into())))
    }

    fn subscribe(&self, topic: Topic) -> Observer {
        let mut topics = self.topics.lock();
        let closed = topics.closed;
        let items = VecDeque::from([Observed::Look]);
        let queue = Arc::new(Mutex::new(Queue { items, key_bytes: 0, waker: None, closed }));
        topics.observers.entry(topic.clone()).or_default().push(Arc::clone(&queue));
        Observer { topic, queue, topics: Arc::clone(&self.topics) }
    }

    /// Tells all observers of one of `keys`, alone or with `primary_key`.
    pub(super) fn invalidate(&self, store: &StoreId, keys: &[Arc<str>], primary_key: &str) {
        let topics = self.topics.lock();
        if topics.observers.is_empty() {
            return;
        }
        let primary_key: Arc<str> = primary_key.into();
        for key in keys {
            let (store, primary_key) = (store.clone(), Arc::clone(&primary_key));
            let one = (Arc::clone(key), Some(Arc::clone(&primary_key)));
            let invalidation = Invalidation { store, key: Arc::clone(key), primary_key };
            for topic in [(Arc::clone(key), None), one] {
                for queue in topics.observers.get(&topic).into_iter().flatten() {
                    queue.lock().push(invalidation.clone());
                }
            }
        }
    }

    /// Whether anybody observes anything.
    pub(super) fn has_observers(&self) -> bool {
        !self.topics.lock().observers.is_empty()
    }

    /// Tells everyone that something may have changed, without saying what.
    pub(super) fn miss(&self) {
        for queue in self.topics.lock().observers.values().flatten() {
            queue.lock().miss();
        }
    }

    /// Ends the streams of all observers, once they have taken what is kept for them.
    pub(super) fn close(&self) {
        let mut topics = self.topics.lock();
        topics.closed = true;
        for queue in topics.observers.values().flatten() {
            queue.lock().close();
        }
    }
}

impl Queue {
    fn push(&mut self, invalidation: Invalidation) {
        let has_looked = self.items.front() != Some(&Observed::Look);
        let fits = self.key_bytes < OBSERVER_KEY_BYTES_MAX;
        if fits && self.items.len() < OBSERVER_QUEUE_MAX + usize::from(!has_looked) {
            self.key_bytes += invalidation.primary_key.len();
            self.items.push_back(Observed::Invalidated(invalidation));
            self.wake();
        } else {
            self.miss();
        }
    }

    fn miss(&mut self) {
        if let Some(Observed::Missed(count)) = self.items.back_mut() {
            *count += 1;
        } else {
            self.items.push_back(Observed::Missed(1));
        }
        self.wake();
    }

    fn close(&mut self) {
        self.closed = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The invalidations of one topic, as a stream. Ends when the server stops; dropping it ends the subscription.
pub struct Observer {
    topic: Topic,
    queue: Arc<Mutex<Queue>>,
    topics: Arc<Mutex<Topics>>,
}

impl Stream for Observer {
    type Item = Observed;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Observed>> {
        let mut queue = self.queue.lock();
        if let Some(observed) = queue.items.pop_front() {
            if let Observed::Invalidated(one) = &observed {
                queue.key_bytes -= one.primary_key.len();
            }
            return Poll::Ready(Some(observed));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Entry::Occupied(mut observers) =
            self.topics.lock().observers.entry(self.topic.clone())
        {
            observers.get_mut().retain(|queue| !Arc::ptr_eq(queue, &self.queue));
            if observers.get().is_empty() {
                observers.remove();
            }
        }
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Reactivity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactivity").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn store() -> StoreId {
        StoreId::new("s").expect("a store id")
    }

    fn invalidate(reactivity: &Reactivity, keys: &[&str], primary_key: &str) {
        let keys: Vec<Arc<str>> = keys.iter().map(|key| Arc::from(*key)).collect();
        reactivity.invalidate(&store(), &keys, primary_key);
    }

    fn taken(observer: &mut Observer) -> Vec<String> {
        let mut taken = Vec::new();
        while let Some(Some(observed)) = observer.next().now_or_never() {
            taken.push(match observed {
                Observed::Look => "look".to_owned(),
                Observed::Invalidated(one) => format!("{} {}", one.key, one.primary_key),
                Observed::Missed(count) => format!("missed {count}"),
            });
        }
        taken
    }

    #[test]
    fn observers_are_told_of_their_topic_alone() {
        let reactivity = Reactivity::default();
        let mut all = reactivity.observe("todos");
        let mut one = reactivity.observe_one("todos", "1");
        invalidate(&reactivity, &["todos", "counts"], "1");
        invalidate(&reactivity, &["todos"], "2");
        assert_eq!(taken(&mut all), ["look", "todos 1", "todos 2"]);
        assert_eq!(taken(&mut one), ["look", "todos 1"]);
        // An observer that comes later has to look, and is not told about what it sees then.
        let mut late = reactivity.observe("todos");
        assert_eq!(taken(&mut late), ["look"]);
        invalidate(&reactivity, &["todos"], "3");
        assert_eq!(
            (taken(&mut late), taken(&mut all)),
            (vec!["todos 3".to_owned()], vec!["todos 3".to_owned()])
        );
    }

    #[test]
    fn a_slow_observer_is_told_how_many_it_missed_and_where() {
        let reactivity = Reactivity::default();
        let mut slow = reactivity.observe("k");
        let mut quick = reactivity.observe("k");
        let mut seen_by_quick = 0;
        for n in 0..OBSERVER_QUEUE_MAX + 5 {
            invalidate(&reactivity, &["k"], &n.to_string());
            seen_by_quick += taken(&mut quick).len();
        }
        assert_eq!(seen_by_quick, 1 + OBSERVER_QUEUE_MAX + 5);
        let mut seen = taken(&mut slow);
        assert_eq!(seen.remove(0), "look");
        assert_eq!(seen.len(), OBSERVER_QUEUE_MAX + 1);
        assert_eq!(seen[OBSERVER_QUEUE_MAX - 1], format!("k {}", OBSERVER_QUEUE_MAX - 1));
        assert_eq!(seen[OBSERVER_QUEUE_MAX], "missed 5");
        invalidate(&reactivity, &["k"], "after");
        assert_eq!(taken(&mut slow), ["k after"]);
    }

    #[test]
    fn a_slow_observer_does_not_hold_long_primary_keys() {
        let reactivity = Reactivity::default();
        let mut slow = reactivity.observe("k");
        let long = "k".repeat(OBSERVER_KEY_BYTES_MAX / 4);
        (0..20).for_each(|_| invalidate(&reactivity, &["k"], &long));
        let seen = taken(&mut slow);
        assert_eq!((seen.len(), &*seen[5]), (6, "missed 16"));
        invalidate(&reactivity, &["k"], "after");
        assert_eq!(taken(&mut slow), ["k after"]);
    }

    #[test]
    fn a_dropped_observer_leaves_nothing_behind() {
        let reactivity = Reactivity::default();
        let (first, second) = (reactivity.observe("k"), reactivity.observe("k"));
        drop(first);
        assert_eq!(reactivity.topics.lock().observers.len(), 1);
        drop(second);
        assert!(reactivity.topics.lock().observers.is_empty());
    }

    #[tokio::test]
    async fn an_observer_that_waits_is_woken_and_ends_with_the_server() {
        let reactivity = Reactivity::default();
        let observer = reactivity.observe("k");
        let waiting = tokio::spawn(observer.collect::<Vec<_>>());
        tokio::task::yield_now().await;
        invalidate(&reactivity, &["k"], "1");
        tokio::task::yield_now().await;
        reactivity.close();
        assert_eq!(waiting.await.expect("no panic").len(), 2);
        assert_eq!(reactivity.observe("k").collect::<Vec<_>>().await, [Observed::Look]);
    }
}
