//! What a stream has received and nobody has taken yet.
//!
//! Keeps: it reports once when it is full, and once when it has been emptied far enough. So the connection can end the
//! subscription for the time between, and nothing piles up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::error::RemoteError;
use super::page::Page;

/// Shared by the connection, which fills it, and the stream, which empties it.
#[derive(Debug)]
pub(super) struct Queue {
    /// Held for the moment of a push or a pop, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pages: VecDeque<Page>,
    entries: usize,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
    /// Reported as full, and not yet emptied far enough.
    paused: bool,
    ended: bool,
    error: Option<RemoteError>,
    waker: Option<Waker>,
}

/// What a stream gets when it asks.
#[derive(Debug)]
pub(super) enum Taken {
    Page {
        page: Page,
        /// The queue was full and no longer is: the subscription should continue.
        resume: bool,
    },
    Failed(RemoteError),
    Ended,
}

impl Queue {
    pub(super) fn new(entries_max: usize, bytes_max: usize) -> Arc<Self> {
        let state = State { entries_max, bytes_max, ..State::default() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Adds pages. `true` if the queue is full now and was not before.
    pub(super) fn push(&self, pages: impl IntoIterator<Item = Page>) -> bool {
        let mut state = self.state.lock();
        for page in pages {
            state.entries += page.len();
            state.bytes += page.bytes();
            state.pages.push_back(page);
        }
        let full = state.entries >= state.entries_max || state.bytes >= state.bytes_max;
        let filled = full && !state.paused;
        state.paused |= full;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        filled
    }

    /// Nothing comes any more: after what is there, the stream ends, with `error` if there is one.
    pub(super) fn end(&self, error: Option<RemoteError>) {
        let mut state = self.state.lock();
        if state.ended {
            return;
        }
        state.ended = true;
        state.error = error;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Taken> {
        let mut state = self.state.lock();
        if let Some(page) = state.pages.pop_front() {
            state.entries -= page.len();
            state.bytes -= page.bytes();
            let low = state.entries <= state.entries_max / 2 && state.bytes <= state.bytes_max / 2;
            let resume = state.paused && low;
            state.paused &= !resume;
            return Poll::Ready(Taken::Page { page, resume });
        }
        if let Some(error) = state.error.take() {
            return Poll::Ready(Taken::Failed(error));
        }
        if state.ended {
            return Poll::Ready(Taken::Ended);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
