//! What happened to a handler: counted, logged, and kept as a dead letter if it failed for good.

use std::any::Any;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::failure::{Failure, Retry, Then};
use super::group::Group;
use super::handlers::HandlerError;
use super::processor::Processor;
use crate::model::{Entry, EntryId, RemoteEntry, StoreId};
use crate::services::journal::layout::{self, Letter};
use crate::services::journal::{JournalChanges, journal_origin};

/// Most bytes of an event or an error in a dead letter.
const TEXT_BYTES_MAX: usize = 1_000;

/// The result of a handler; the outer error is the panic message.
pub(super) type Handled = Result<Result<(), HandlerError>, Box<dyn Any + Send>>;

/// The outcome of an entry.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    Undecodable(String),
    Failed(String),
    Panicked(String),
    Retry(Retry, String),
    Pause(String),
}

impl Outcome {
    pub(super) fn of(handled: Handled) -> Self {
        match handled {
            Ok(Ok(())) => Self::Done,
            Ok(Err(error @ HandlerError::Undecodable(_))) => Self::Undecodable(error.to_string()),
            Ok(Err(HandlerError::Failed(failure))) => Self::of_failure(&failure),
            Err(panic) => Self::Panicked(format!("the handler panicked: {}", text(&*panic))),
        }
    }

    pub(super) fn of_failure(failure: &Failure) -> Self {
        let what = format!("the handler failed: {}", failure.message);
        match failure.then {
            Then::Pass => Self::Failed(what),
            Then::Again(retry) => Self::Retry(retry, what),
            Then::Pause => Self::Pause(what),
        }
    }
}

/// What the group does next.
pub(super) enum Next {
    /// Continue with the next entry.
    Pass,
    /// The same entry again, after this time.
    Again(Duration),
    /// The same entry again, once there is space for dead letters.
    Full,
    /// The same entry again, once the group is resumed; it has to pause.
    Pause,
}

impl Processor {
    /// Counts, logs and keeps what happened to `entry`, which was tried `tries` times before.
    pub(super) fn settle(
        &self,
        group: &Group,
        store: &StoreId,
        entry: &RemoteEntry,
        outcome: Outcome,
        tries: u32,
        changes: &mut JournalChanges,
    ) -> Next {
        let stats = &self.stats;
        let (counter, what) = match outcome {
            Outcome::Done => {
                stats.handled.fetch_add(1, Relaxed);
                return Next::Pass;
            }
            Outcome::Retry(retry, what) if tries + 1 < group.options.tries_max => {
                stats.retried.fetch_add(1, Relaxed);
                let delay = retry.delay(tries + 1);
                log::warn!(
                    store:%, group:% = group.name, entry:% = entry.entry.id, error = "retry";
                    "{}: {what}; retry in {delay:?}", Subject(group, store, entry)
                );
                return Next::Again(delay);
            }
            Outcome::Pause(what) => {
                let subject = Subject(group, store, entry);
                log::error!(
                    store:%, group:% = group.name, entry:% = entry.entry.id, error = "pause";
                    "{subject}: {what}; the group pauses until it is resumed"
                );
                return Next::Pause;
            }
            Outcome::Undecodable(what) => (&stats.undecodable, what),
            Outcome::Failed(what) | Outcome::Retry(_, what) => (&stats.failed, what),
            Outcome::Panicked(what) => (&stats.panicked, what),
        };
        let kept = keep(group, store, entry, &what, changes);
        let subject = Subject(group, store, entry);
        match kept {
            Kept::Yes if group.is_full() => log::error!(
                store:%, group:% = group.name, entry:% = entry.entry.id, error = "dead-letters";
                "{subject}: {what}; the group has as many dead letters as it keeps: it pauses in all stores \
                 until some are retried or dismissed"
            ),
            Kept::Yes => log::error!(
                store:%, group:% = group.name, entry:% = entry.entry.id, error = "failed";
                "{subject}: {what}"
            ),
            Kept::Full => {
                log::error!(
                    store:%, group:% = group.name, entry:% = entry.entry.id, error = "dead-letters";
                    "{subject}: {what}; the group pauses because it has as many dead letters as it keeps"
                );
                return Next::Full;
            }
        }
        counter.fetch_add(1, Relaxed);
        Next::Pass
    }
}

enum Kept {
    Yes,
    Full,
}

fn keep(
    group: &Group,
    store: &StoreId,
    entry: &RemoteEntry,
    what: &str,
    changes: &mut JournalChanges,
) -> Kept {
    let room = |letters| (letters < group.options.letters_max).then_some(letters + 1);
    if group.letters.fetch_update(Relaxed, Relaxed, room).is_err() {
        return Kept::Full;
    }
    let key = layout::letter(&group.name, journal_origin(store), entry.remote_sequence);
    changes.set(&key, &layout::letter_value(&letter(store, entry, what)));
    Kept::Yes
}

pub(super) fn letter(store: &StoreId, entry: &RemoteEntry, error: &str) -> Letter {
    let cut = |text: &str| -> String {
        text.char_indices().take_while(|(at, _)| *at < TEXT_BYTES_MAX).map(|(_, c)| c).collect()
    };
    Letter {
        // The clock that ids use.
        unix_millis: EntryId::now().created_at_millis(),
        id: entry.entry.id,
        store: store.as_str().to_owned(),
        event: cut(&entry.entry.event),
        error: cut(error),
    }
}

/// A group and an entry, for the log.
struct Subject<'a>(&'a Group, &'a StoreId, &'a RemoteEntry);

impl std::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(group, store, RemoteEntry { remote_sequence, entry: Entry { id, event, .. } }) =
            self;
        // No more of it than a line can hold: a client chose it.
        write!(
            f,
            "store {store}, group {}: entry {id} ({event:.200}, {remote_sequence})",
            group.name
        )
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
