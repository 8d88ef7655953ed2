//! What an entry must be to get into a store.
//!
//! The protocols refuse bad entries while they decode, by the same rules and limits; this is for entries that no
//! decoder has seen, those of the server's own code.

use crate::model::{Batch, EntryRef, Limits};

/// Why a batch is refused as a whole. Slots count from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// More entries than a batch may have.
    #[error("the batch has {entries} entries, at most {entries_max} are allowed")]
    TooManyEntries {
        /// How many it has.
        entries: usize,
        /// The limit.
        entries_max: usize,
    },
    /// More bytes than a message may have.
    #[error("the batch has {bytes} bytes, at most {bytes_max} are allowed")]
    TooManyBytes {
        /// How many it has.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// An entry breaks a rule.
    #[error("entry {slot}: {fault}")]
    Entry {
        /// Which entry.
        slot: usize,
        /// The rule.
        fault: EntryFault,
    },
}

/// A rule that an entry breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// The event tag is empty.
    #[error("the event is empty")]
    EventEmpty,
    /// The event tag is too long.
    #[error("the event is {bytes} bytes long, at most {bytes_max} are allowed")]
    EventTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The primary key is too long.
    #[error("the primary key is {bytes} bytes long, at most {bytes_max} are allowed")]
    PrimaryKeyTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

/// Checks a whole batch against the limits; the first fault refuses all of it.
pub(crate) fn validate(batch: &Batch, limits: &Limits) -> Result<(), InvalidBatch> {
    let (entries, entries_max) = (batch.len(), limits.batch_entries_max);
    if entries > entries_max {
        return Err(InvalidBatch::TooManyEntries { entries, entries_max });
    }
    let (bytes, bytes_max) = (batch.bytes(), limits.message_bytes_max);
    if bytes > bytes_max {
        return Err(InvalidBatch::TooManyBytes { bytes, bytes_max });
    }
    batch.iter().enumerate().try_for_each(|(slot, entry)| {
        validate_entry(&entry, limits).map_err(|fault| InvalidBatch::Entry { slot, fault })
    })
}

/// Checks one entry against the limits.
pub(crate) fn validate_entry(entry: &EntryRef<'_>, limits: &Limits) -> Result<(), EntryFault> {
    if entry.event.is_empty() {
        return Err(EntryFault::EventEmpty);
    }
    let (bytes, bytes_max) = (entry.event.len(), limits.event_bytes_max);
    if bytes > bytes_max {
        return Err(EntryFault::EventTooLong { bytes, bytes_max });
    }
    let (bytes, bytes_max) = (entry.primary_key.len(), limits.primary_key_bytes_max);
    if bytes > bytes_max {
        return Err(EntryFault::PrimaryKeyTooLong { bytes, bytes_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EntryId;

    fn entry<'a>(event: &'a str, primary_key: &'a str) -> EntryRef<'a> {
        EntryRef { id: EntryId::now(), event, primary_key, payload: b"" }
    }

    #[test]
    fn one_bad_entry_refuses_the_batch_and_is_named() {
        let limits = Limits::default();
        let batch = Batch::from_entries([entry("E", ""), entry("", "k")]);
        let fault = EntryFault::EventEmpty;
        assert_eq!(validate(&batch, &limits), Err(InvalidBatch::Entry { slot: 1, fault }));
        let long = "k".repeat(limits.primary_key_bytes_max + 1);
        let error = validate(&Batch::from_entries([entry("E", &long)]), &limits);
        assert!(
            error.is_err_and(|error| error.to_string().starts_with("entry 0: the primary key"))
        );
        let long = "e".repeat(limits.event_bytes_max + 1);
        assert!(validate(&Batch::from_entries([entry(&long, "")]), &limits).is_err());
    }

    #[test]
    fn a_batch_is_bounded_in_entries_and_bytes() {
        let limits = Limits { batch_entries_max: 1, message_bytes_max: 40, ..Limits::default() };
        let two = Batch::from_entries([entry("E", ""), entry("E", "")]);
        assert!(matches!(validate(&two, &limits), Err(InvalidBatch::TooManyEntries { .. })));
        let payload = [0; 40];
        let large = EntryRef { payload: &payload, ..entry("E", "") };
        let large = Batch::from_entries([large]);
        assert!(matches!(validate(&large, &limits), Err(InvalidBatch::TooManyBytes { .. })));
    }
}
