//! How to reach an open store.
//!
//! Keeps: writes that are handed in arrive in the order of the calls, or are returned because the store was closed. Leaves out: opening
//! a store (`actors::stores`).

use std::borrow::Borrow;
use std::sync::{Arc, Weak};

use actix::prelude::*;

use super::{Append, StopIfIdle, StoreActor};
use crate::actors::feed::{Feed, FeedClosed};
use crate::actors::reply::Reply;
use crate::core::store::Write;
use crate::model::StoreId;

/// An open store: its actor, and its feed.
pub(crate) struct Opened {
    pub(crate) addr: Addr<StoreActor>,
    pub(crate) feed: Arc<Feed>,
}

/// How to reach an open store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StoreHandle(Arc<Opened>);

/// A [`StoreHandle`] that keeps nothing alive.
pub(crate) struct WeakStoreHandle(Weak<Opened>);

impl WeakStoreHandle {
    pub(crate) fn upgrade(&self) -> Option<StoreHandle> {
        self.0.upgrade().map(StoreHandle)
    }

    /// Whether it is this store, opened at the same time.
    pub(crate) fn is(&self, store: &StoreHandle) -> bool {
        self.0.as_ptr() == Arc::as_ptr(&store.0)
    }
}

impl std::ops::Deref for StoreHandle {
    type Target = Opened;

    fn deref(&self) -> &Opened {
        &self.0
    }
}

impl Borrow<StoreId> for StoreHandle {
    fn borrow(&self) -> &StoreId {
        self.feed.store()
    }
}

impl StoreHandle {
    pub(crate) fn new(addr: Addr<StoreActor>, feed: Arc<Feed>) -> Self {
        Self(Arc::new(Opened { addr, feed }))
    }

    pub(crate) fn downgrade(&self) -> WeakStoreHandle {
        WeakStoreHandle(Arc::downgrade(&self.0))
    }

    /// Whether both are the same store, opened at the same time.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it can be used; that may change at any time.
    pub(crate) fn is_open(&self) -> bool {
        self.addr.connected() && !self.feed.is_closed()
    }

    /// Closes the store if it has been idle for long enough. A store that has no space for the question is not idle.
    pub(crate) fn ask_whether_idle(&self) {
        // A sender of its own: a full mailbox parks it, and nobody else.
        let _ = self.addr.clone().try_send(StopIfIdle);
    }

    /// Sends writes to the store. If it was closed in the meantime they are returned, for [`Stores::append`].
    ///
    /// [`Stores::append`]: crate::actors::stores::Stores::append
    pub(crate) fn append(&self, writes: Vec<Write<Reply>>) -> Result<(), Vec<Write<Reply>>> {
        match self.feed.lease() {
            Ok(lease) => {
                // Bounded by what connections may have in flight. Lost only if the actor panics, and then the replies
                // answer by themselves.
                #[expect(
                    clippy::disallowed_methods,
                    reason = "its one place: the order of writes is that of calls"
                )]
                self.addr.do_send(Append { writes, lease });
                Ok(())
            }
            Err(FeedClosed) => Err(writes),
        }
    }
}
