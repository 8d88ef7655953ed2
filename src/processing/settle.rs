//! What became of a handler: counted, and logged unless it succeeded.

use std::any::Any;
use std::sync::atomic::Ordering::Relaxed;

use super::handlers::HandlerError;
use super::processor::Processor;
use crate::model::{Entry, RemoteEntry, StoreId};

/// What a handler came to; the outer error is what it panicked with.
pub(super) type Handled = Result<Result<(), HandlerError>, Box<dyn Any + Send>>;

/// What became of an entry.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    Undecodable(String),
    Failed(String),
    Panicked(String),
}

impl Outcome {
    pub(super) fn of(handled: Handled) -> Self {
        match handled {
            Ok(Ok(())) => Self::Done,
            Ok(Err(error @ HandlerError::Undecodable(_))) => Self::Undecodable(error.to_string()),
            Ok(Err(error @ HandlerError::Failed(_))) => Self::Failed(error.to_string()),
            Err(panic) => Self::Panicked(format!("the handler panicked: {}", text(&*panic))),
        }
    }
}

impl Processor {
    /// Counts and logs what became of `entry`.
    pub(super) fn settle(&self, store: &StoreId, entry: &RemoteEntry, outcome: &Outcome) {
        let stats = &self.stats;
        let (counter, what) = match outcome {
            Outcome::Done => {
                stats.handled.fetch_add(1, Relaxed);
                return;
            }
            Outcome::Undecodable(what) => (&stats.undecodable, what),
            Outcome::Failed(what) => (&stats.failed, what),
            Outcome::Panicked(what) => (&stats.panicked, what),
        };
        counter.fetch_add(1, Relaxed);
        let Entry { id, event, .. } = &entry.entry;
        log::error!("store {store}: entry {id} ({event}, {}): {what}", entry.remote_sequence);
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
