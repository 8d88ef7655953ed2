//! The body of a token holder's request. Routes look at it when it is whole, so until then it is input like an unfinished
//! message, and counts against the same budget.
//!
//! Keeps: more is read only while there is space for it; the connection waits for its turn like others. Leaves out: how
//! long a body may be (`admin`), and how slowly it may come (`talk`).

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::actors::budget::{Holding, SMALL_STRANGER_BYTES};
use crate::actors::session::shared::Shared;
use crate::core::strangers::Place;

/// The body that a connection sends now, if any.
pub(super) struct Body {
    shared: Arc<Shared>,
    place: Place,
    held: Option<Held>,
}

/// A body in the budget.
struct Held {
    holding: Holding,
    waker: Arc<AtomicWaker>,
}

impl Body {
    pub(super) const fn new(shared: Arc<Shared>, place: Place) -> Self {
        Self { shared, place, held: None }
    }

    /// Whether more may be read, with this many bytes held; if not, the task is woken when it may. `Ready(false)` if it
    /// comes too slowly.
    pub(super) fn poll_room(&mut self, bytes: usize, cx: &Context<'_>) -> Poll<bool> {
        let Self { shared, place, held } = self;
        let Held { holding, waker } = held.get_or_insert_with(|| {
            let waker = Arc::new(AtomicWaker::new());
            let woken = Arc::clone(&waker);
            let wake = move || woken.wake();
            let mut holding = shared.budget.holding(SMALL_STRANGER_BYTES, *place, wake);
            holding.accept();
            Held { holding, waker }
        });
        waker.register(cx.waker());
        if holding.overdue().is_some() {
            return Poll::Ready(false);
        }
        if holding.may_read(bytes) { Poll::Ready(true) } else { Poll::Pending }
    }

    /// So many bytes arrived, and so many are held now.
    pub(super) fn received(&mut self, bytes: usize, held: usize) {
        if let Some(body) = &mut self.held {
            body.holding.received(bytes);
            body.holding.hold(held, false);
        }
    }

    /// The client has to send more.
    pub(super) fn waits_for_client(&mut self, held: usize) {
        if let Some(body) = &mut self.held {
            body.holding.hold(held, true);
        }
    }

    /// It was answered, so it is no longer held.
    pub(super) fn over(&mut self) {
        self.held = None;
    }
}
