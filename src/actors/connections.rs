//! Every live connection of a server: how many there are, and how to reach them all.
//!
//! Keeps: at most the configured number at once. Used for what concerns all of them, and is rare: a removed key,
//! changed rights, a shutdown, the watchdog's round.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::inbox::{Inbox, Notice};
use crate::model::PublicKey;

/// Ends the socket of a connection from outside its session, which may not be running; `false` if it could not.
pub(crate) type Sever = Box<dyn Fn() -> bool + Send + Sync>;

struct Connection {
    inbox: Arc<Inbox>,
    sever: Option<Sever>,
}

/// All live connections.
pub(crate) struct Connections {
    live: Mutex<Live>,
    count_max: usize,
    /// How often answers of `Auth` have changed.
    access_changes: AtomicU64,
    /// For readers in this process, which are no connections.
    news: watch::Sender<()>,
}

#[derive(Default)]
struct Live {
    next: u64,
    shutdown: bool,
    by_number: HashMap<u64, Connection>,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the server has as many connections as it may have")]
    Full,
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl Connections {
    pub(crate) fn new(count_max: usize) -> Self {
        let (live, access_changes) = (Mutex::default(), AtomicU64::new(0));
        Self { live, count_max, access_changes, news: watch::Sender::new(()) }
    }

    /// Takes a connection in, until the seat is dropped.
    pub(crate) fn enter(
        self: &Arc<Self>,
        inbox: Arc<Inbox>,
        sever: Option<Sever>,
    ) -> Result<Seat, Refused> {
        let mut live = self.live.lock();
        if live.shutdown {
            return Err(Refused::ShuttingDown);
        }
        if live.by_number.len() >= self.count_max {
            return Err(Refused::Full);
        }
        let number = live.next;
        live.next += 1;
        live.by_number.insert(number, Connection { inbox, sever });
        Ok(Seat { connections: self.clone(), number })
    }

    pub(crate) fn count(&self) -> usize {
        self.live.lock().by_number.len()
    }

    /// Tells every connection that `key` has no store any more.
    pub(crate) fn key_removed(&self, key: &PublicKey) {
        self.tell_all(|| Notice::KeyRemoved(key.clone()));
    }

    /// Answers of `Auth` may be others from now on: has every connection ask again.
    pub(crate) fn access_changed(&self) {
        // First: whoever hears of it, or asks from now on, sees it.
        self.access_changes.fetch_add(1, Ordering::Release);
        self.news.send_replace(());
        self.live.lock().by_number.values().for_each(|connection| connection.inbox.wake());
    }

    /// How often answers have changed; to be taken before something is asked.
    pub(crate) fn access_changes(&self) -> u64 {
        self.access_changes.load(Ordering::Acquire)
    }

    /// Takes no further connections, and tells all to finish.
    pub(crate) fn shut_down(&self) {
        self.live.lock().shutdown = true;
        self.tell_all(|| Notice::Shutdown);
    }

    /// Tells of removed keys, of answers that may be others, and of a shutdown, from now on.
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

    /// Severs every connection whose session has been due for longer than `millis_max`; tells how many.
    pub(crate) fn sever_stalled(&self, millis_max: u64) -> usize {
        let live = self.live.lock();
        let stalled = live.by_number.values().filter(|c| c.inbox.overdue_millis() > millis_max);
        stalled.filter_map(|connection| connection.sever.as_ref()).filter(|sever| sever()).count()
    }
}

/// A connection's seat among the live ones.
pub(crate) struct Seat {
    connections: Arc<Connections>,
    number: u64,
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
        let Ok(seat) = connections.enter(inbox.clone(), None) else { panic!("no seat") };
        assert_eq!(connections.enter(inbox.clone(), None).err(), Some(Refused::Full));
        drop(seat);
        assert!(connections.enter(inbox.clone(), None).is_ok());
        connections.shut_down();
        assert_eq!(connections.enter(inbox, None).err(), Some(Refused::ShuttingDown));
    }
}
