//! Where the answer of a write goes, and the guarantee that there is one.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::inbox::{Inbox, Notice};
use super::permit::Permit;
use super::session::refusal::Refusal;
use super::trace::Trace;
use crate::core::store::Acked;

/// A write was not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum WriteFailure {
    /// It did not happen.
    #[error("not stored: {0}")]
    Definite(Arc<str>),
    /// It may have happened; writing the same entries again finds out.
    #[error("may or may not be stored, write it again: {0}")]
    Indefinite(Arc<str>),
    /// It did not happen, because the store may not hold more.
    #[error(
        "quota: the store of the public key may hold {bytes_max} bytes, and does; try again when it has space"
    )]
    Full {
        /// How much it may hold.
        bytes_max: u64,
    },
    /// It did not happen, because it is not allowed any more.
    #[error(transparent)]
    Refused(Box<Refusal>),
}

/// Where the answer of one write goes. If it is dropped without an answer (because its actor panicked), it answers
/// [`WriteFailure::Indefinite`].
#[derive(Debug)]
pub(crate) struct Reply {
    to: Option<To>,
    /// When the write was sent.
    began: Instant,
    trace: Trace,
    /// `None` if nobody can change meanwhile what was allowed, or nothing had to be.
    permit: Option<Box<Permit>>,
}

#[derive(Debug)]
enum To {
    Session { inbox: Arc<Inbox>, write: u64 },
    Caller(oneshot::Sender<Result<Acked, WriteFailure>>),
}

impl Reply {
    /// The answer to write number `write` of the session with this inbox.
    pub(crate) fn session(inbox: Arc<Inbox>, write: u64) -> Self {
        Self::new(To::Session { inbox, write })
    }

    /// The answer for code in this process.
    pub(crate) fn caller(sender: oneshot::Sender<Result<Acked, WriteFailure>>) -> Self {
        Self::new(To::Caller(sender))
    }

    fn new(to: To) -> Self {
        Self { to: Some(to), began: Instant::now(), trace: Trace::default(), permit: None }
    }

    /// The same answer, of a write with this trace.
    pub(crate) fn with_trace(mut self, trace: Trace) -> Self {
        self.trace = trace;
        self
    }

    /// The same answer, of a write that was allowed with this.
    pub(crate) fn with_permit(mut self, permit: Option<Permit>) -> Self {
        self.permit = permit.map(Box::new);
        self
    }

    /// What the write was allowed with, if that can change.
    pub(crate) fn permit(&self) -> Option<&Permit> {
        self.permit.as_deref()
    }

    /// See [`Reply::permit`].
    pub(crate) fn permit_mut(&mut self) -> Option<&mut Permit> {
        self.permit.as_deref_mut()
    }

    /// The trace of the write, if it is traced.
    pub(crate) fn traced(&self) -> Option<Trace> {
        self.trace.is_traced().then(|| self.trace.clone())
    }

    /// Since when the write has waited for its answer.
    pub(crate) const fn began(&self) -> Instant {
        self.began
    }

    /// Answers. Returns the inbox to wake once the feed shows what was committed.
    pub(crate) fn answer(mut self, result: Result<Acked, WriteFailure>) -> Option<Arc<Inbox>> {
        self.to.take().and_then(|to| to.answer(result))
    }

    /// Answers with a failure, at once.
    pub(crate) fn fail(self, failure: WriteFailure) {
        if let Some(inbox) = self.answer(Err(failure)) {
            inbox.wake();
        }
    }
}

impl To {
    fn answer(self, result: Result<Acked, WriteFailure>) -> Option<Arc<Inbox>> {
        match self {
            Self::Session { inbox, write } => {
                inbox.push(Notice::Answered { write, result });
                Some(inbox)
            }
            Self::Caller(sender) => {
                // A caller that is gone needs no answer.
                let _ = sender.send(result);
                None
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            let failure = WriteFailure::Indefinite("the store stopped before it answered".into());
            if let Some(inbox) = to.answer(Err(failure)) {
                inbox.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_is_dropped_still_answers() {
        let (sender, mut receiver) = oneshot::channel();
        drop(Reply::caller(sender));
        let answer = receiver.try_recv().expect("an answer");
        assert!(matches!(answer, Err(WriteFailure::Indefinite(_))));
    }
}
