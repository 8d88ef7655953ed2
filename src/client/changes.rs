//! The streams that a client hands out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream};
use tokio::sync::mpsc;

use super::core::Command;
use super::error::RemoteError;
use super::page::Page;
use super::queue::{Queue, Taken};
use crate::model::{PublicKey, RemoteEntry};

/// The entries of a feed, many at a time: see [`EventLogRemote::pages`](super::EventLogRemote::pages).
///
/// Ends after an error, and when the client is closed. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Pages {
    key: PublicKey,
    id: u64,
    queue: Arc<Queue>,
    commands: mpsc::UnboundedSender<Command>,
    ended: bool,
}

impl Pages {
    pub(super) const fn new(
        key: PublicKey,
        id: u64,
        queue: Arc<Queue>,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        Self { key, id, queue, commands, ended: false }
    }

    fn tell(&self, command: Command) {
        // If the connection's task is gone, the queue says so.
        drop(self.commands.send(command));
    }
}

impl Stream for Pages {
    type Item = Result<Page, RemoteError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.queue.poll(cx)) {
            Taken::Page { page, resume } => {
                if resume {
                    self.tell(Command::Resume { key: self.key.clone(), stream: self.id });
                }
                Some(Ok(page))
            }
            Taken::Failed(error) => {
                self.ended = true;
                Some(Err(error))
            }
            Taken::Ended => {
                self.ended = true;
                None
            }
        })
    }
}

impl FusedStream for Pages {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.tell(Command::Drop { key: self.key.clone(), stream: self.id });
    }
}

/// The entries of a feed, one at a time: see [`EventLogRemote::changes`](super::EventLogRemote::changes).
///
/// Ends after an error, and when the client is closed. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Changes {
    pages: Pages,
    entries: VecDeque<RemoteEntry>,
}

impl Changes {
    pub(super) const fn new(pages: Pages) -> Self {
        Self { pages, entries: VecDeque::new() }
    }
}

impl Stream for Changes {
    type Item = Result<RemoteEntry, RemoteError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(entry) = self.entries.pop_front() {
                return Poll::Ready(Some(Ok(entry)));
            }
            match ready!(Pin::new(&mut self.pages).poll_next(cx)) {
                Some(Ok(page)) => self.entries = page.to_entries().into(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl FusedStream for Changes {
    fn is_terminated(&self) -> bool {
        self.entries.is_empty() && self.pages.is_terminated()
    }
}
