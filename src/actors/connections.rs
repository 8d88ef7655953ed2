//! Every live connection of a server: how many there are, and how to reach them.
//!
//! Keeps: at most the configured number at one time. Used for rare events that concern all of them: a removed key,
//! changed permissions, a shutdown, the watchdog's round.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::inbox::{Inbox, Notice};
use crate::model::{PublicKey, StoreId};
use crate::services::Caller;
use crate::services::revocations::Revocations;

/// Ends the socket of a connection from outside its session, which may not be running; `false` if it could not.
pub(crate) type Sever = Box<dyn Fn() -> bool + Send + Sync>;

struct Connection {
    inbox: Arc<Inbox>,
    sever: Option<Sever>,
    caller: Caller,
    since_millis: u64,
    traffic: Arc<Traffic>,
    followed: Vec<Followed>,
}

/// What a connection has read and sent so far, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// The total received and the additional bytes sent.
    pub(crate) fn is(&self, received: u64, sent: usize) {
        self.received.store(received, Ordering::Relaxed);
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
    }
}

/// A live subscription, seen from outside its session.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    pub(crate) key: PublicKey,
    /// Who the caller is with this key, unless the handshake already told.
    pub(crate) subject: Option<Arc<str>>,
    pub(crate) store: StoreId,
    pub(crate) since_millis: u64,
    /// The next sequence that it needs, as of the last time that its session ran.
    pub(crate) cursor: Arc<AtomicU64>,
}

/// A live connection, as it is shown.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) number: u64,
    pub(crate) caller: Caller,
    pub(crate) since_millis: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) followed: Vec<Followed>,
}

/// Most subscriptions in a list of connections, except that the last connection is listed as a whole.
const FOLLOWED_MAX: usize = 10_000;

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "people are told since when")]
pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Connection {
    fn sever(&self) -> bool {
        self.sever.as_ref().is_some_and(|sever| sever())
    }
}

/// All live connections.
pub(crate) struct Connections {
    live: Mutex<Live>,
    count_max: AtomicUsize,
    /// How often answers of `Auth` have changed.
    access_changes: AtomicU64,
    /// For readers in this process, which are not connections.
    news: watch::Sender<()>,
}

#[derive(Default)]
struct Live {
    next: u64,
    shutdown: bool,
    /// Why nobody can be served any more.
    lost: bool,
    by_number: HashMap<u64, Connection>,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the server has reached its limit of connections")]
    Full,
    #[error("the server has reached its limit of connections without a valid request")]
    Strangers,
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error(
        "the storage was given to another server while this one ran: start this node again, or connect to another one"
    )]
    Lost,
}

impl Connections {
    pub(crate) fn new(count_max: usize) -> Self {
        let (live, access_changes) = (Mutex::default(), AtomicU64::new(0));
        let count_max = AtomicUsize::new(count_max);
        Self { live, count_max, access_changes, news: watch::Sender::new(()) }
    }

    /// Another number counts from now on. If there are more, they stay.
    pub(crate) fn set_count_max(&self, count_max: usize) {
        self.count_max.store(count_max, Ordering::Relaxed);
    }

    /// Registers a connection, until the seat is dropped.
    pub(crate) fn enter(
        self: &Arc<Self>,
        inbox: Arc<Inbox>,
        caller: Caller,
        sever: Option<Sever>,
    ) -> Result<Seat, Refused> {
        let mut live = self.live.lock();
        if live.shutdown {
            return Err(Refused::ShuttingDown);
        }
        if live.lost {
            return Err(Refused::Lost);
        }
        if live.by_number.len() >= self.count_max.load(Ordering::Relaxed) {
            return Err(Refused::Full);
        }
        let number = live.next;
        live.next += 1;
        let traffic = Arc::new(Traffic::default());
        let connection = Connection {
            inbox,
            sever,
            caller,
            since_millis: now_millis(),
            traffic: traffic.clone(),
            followed: Vec::new(),
        };
        live.by_number.insert(number, connection);
        Ok(Seat { connections: self.clone(), number, traffic })
    }

    /// A number that no other connection has.
    pub(crate) fn next_number(&self) -> u64 {
        let mut live = self.live.lock();
        live.next += 1;
        live.next - 1
    }

    pub(crate) fn count(&self) -> usize {
        self.live.lock().by_number.len()
    }

    /// Tells every connection that `key` no longer has a store.
    pub(crate) fn key_removed(&self, key: &PublicKey) {
        self.tell_all(|| Notice::KeyRemoved(key.clone()));
    }

    /// The keys of all subscriptions.
    pub(crate) fn subscribed_keys(&self) -> HashSet<PublicKey> {
        let live = self.live.lock();
        let followed = live.by_number.values().flat_map(|connection| &connection.followed);
        followed.map(|followed| followed.key.clone()).collect()
    }

    /// Answers of `Auth` may be different from now on: makes every connection ask again.
    pub(crate) fn access_changed(&self) {
        // This comes first, so that whoever is told, or asks from now on, sees it.
        self.access_changes.fetch_add(1, Ordering::Release);
        self.news.send_replace(());
        self.live.lock().by_number.values().for_each(|connection| connection.inbox.wake());
    }

    /// How often answers have changed; read it before asking.
    pub(crate) fn access_changes(&self) -> u64 {
        self.access_changes.load(Ordering::Acquire)
    }

    /// Accepts no further connections, and tells all to finish.
    pub(crate) fn shut_down(&self) {
        self.live.lock().shutdown = true;
        self.tell_all(|| Notice::Shutdown);
    }

    /// Accepts no further connections, and closes all: nothing can be done with the storage any more.
    pub(crate) fn lose(&self) {
        self.live.lock().lost = true;
        self.tell_all(|| Notice::Lost);
    }

    /// Signals removed keys, possibly changed answers, and a shutdown, from now on.
    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.live.lock().shutdown
    }

    fn tell_all(&self, notice: impl Fn() -> Notice) {
        self.news.send_replace(());
        for connection in self.live.lock().by_number.values() {
            connection.inbox.push(notice());
            connection.inbox.wake();
        }
    }

    /// The connections after the one with number `after`, ordered by number: at most `count`, and fewer if they have
    /// many subscriptions.
    pub(crate) fn list(&self, after: Option<u64>, count: usize) -> Vec<Shown> {
        let live = self.live.lock();
        let is_behind = |number: &&u64| after.is_none_or(|after| **number > after);
        let mut numbers: Vec<u64> = live.by_number.keys().filter(is_behind).copied().collect();
        numbers.sort_unstable();
        let mut followed = 0;
        let wanted = numbers.into_iter().take(count).take_while(|number| {
            let fits = followed < FOLLOWED_MAX;
            followed += live.by_number.get(number).map_or(0, |one| one.followed.len());
            fits
        });
        let shown = wanted.filter_map(|number| {
            let connection = live.by_number.get(&number)?;
            Some(Shown {
                number,
                caller: connection.caller.clone(),
                since_millis: connection.since_millis,
                received: connection.traffic.received.load(Ordering::Relaxed),
                sent: connection.traffic.sent.load(Ordering::Relaxed),
                followed: connection.followed.clone(),
            })
        });
        shown.collect()
    }

    /// For each followed store, the next sequence that its slowest reader needs.
    pub(crate) fn slowest_cursors(&self) -> HashMap<StoreId, u64> {
        let mut slowest = HashMap::new();
        for followed in self.live.lock().by_number.values().flat_map(|one| &one.followed) {
            let cursor = followed.cursor.load(Ordering::Relaxed).max(1);
            match slowest.get_mut(&followed.store) {
                Some(least) => *least = cursor.min(*least),
                None => drop(slowest.insert(followed.store.clone(), cursor)),
            }
        }
        slowest
    }

    /// Makes the connection with this number finish and close; `false` if there is none.
    pub(crate) fn close(&self, number: u64) -> bool {
        let live = self.live.lock();
        let found = live.by_number.get(&number);
        found.inspect(|connection| {
            connection.inbox.push(Notice::Closed);
            connection.inbox.wake();
        });
        found.is_some()
    }

    /// Makes the connection with this number end its subscription with `key`; `false` if there is none.
    pub(crate) fn close_subscription(&self, number: u64, key: &PublicKey) -> bool {
        let live = self.live.lock();
        let found = live.by_number.get(&number);
        let found = found.filter(|one| one.followed.iter().any(|followed| followed.key == *key));
        found.inspect(|connection| {
            connection.inbox.push(Notice::SubscriptionClosed(key.clone()));
            connection.inbox.wake();
        });
        found.is_some()
    }

    /// Severs the connection with this number, if it still exists.
    pub(crate) fn sever(&self, number: u64) {
        self.live.lock().by_number.get(&number).map(Connection::sever);
    }

    /// Severs every connection whose session has been due for longer than `millis_max`; returns how many.
    pub(crate) fn sever_stalled(&self, millis_max: u64) -> usize {
        let live = self.live.lock();
        let stalled = live.by_number.values().filter(|c| c.inbox.overdue_millis() > millis_max);
        stalled.filter(|connection| connection.sever()).count()
    }

    /// Severs every connection of a revoked caller, and every one that has a subscription with a revoked key; returns
    /// how many there are.
    pub(crate) fn sever_revoked(&self, revocations: &Revocations) -> usize {
        if revocations.is_empty() {
            return 0;
        }
        let live = self.live.lock();
        let is_revoked = |connection: &&Connection| {
            revocations.check_caller(&connection.caller).is_err()
                || connection.followed.iter().any(|Followed { key, subject, .. }| {
                    let subject = subject.as_deref().map(|one| revocations.check_subject(one));
                    revocations.check_key(key).is_err() || matches!(subject, Some(Err(_)))
                })
        };
        live.by_number.values().filter(is_revoked).map(Connection::sever).count()
    }
}

/// A connection's seat among the live ones.
pub(crate) struct Seat {
    connections: Arc<Connections>,
    number: u64,
    traffic: Arc<Traffic>,
}

impl Seat {
    /// The connection has this subscription from now on.
    pub(crate) fn subscribed(&self, followed: Followed) {
        self.change(|connection| connection.followed.push(followed));
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// One subscription with `key` has ended.
    pub(crate) fn unsubscribed(&self, key: &PublicKey) {
        self.change(|connection| {
            let at = connection.followed.iter().position(|other| other.key == *key);
            at.map(|at| connection.followed.swap_remove(at));
        });
    }

    fn change(&self, change: impl FnOnce(&mut Connection)) {
        self.connections.live.lock().by_number.get_mut(&self.number).map(change);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.live.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_and_given_back() {
        let connections = Arc::new(Connections::new(1));
        let inbox = Arc::new(Inbox::new());
        let enter = || connections.enter(inbox.clone(), Caller::default(), None);
        let Ok(seat) = enter() else { panic!("no seat") };
        assert_eq!(enter().err(), Some(Refused::Full));
        drop(seat);
        assert!(enter().is_ok());
        connections.shut_down();
        assert_eq!(enter().err(), Some(Refused::ShuttingDown));
    }
}
