//! What an entry must satisfy to get into a store, whoever wrote it.
//!
//! Decoders check the form of a message and limit its cost; whether its values may be stored is checked here. For a
//! client that happens only after it was found to be allowed to write, and where (`actors::session`).

use crate::model::{Batch, EntryId, Limits, RecordSizes};

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
    #[error("entry {slot} ({id}): {fault}")]
    Entry {
        /// Its slot.
        slot: usize,
        /// Its id.
        id: EntryId,
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
    /// The entry is too large.
    #[error("the entry has {bytes} bytes, at most {bytes_max} are allowed (entry_bytes_max)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

/// Checks a whole batch that no decoder has seen against the limits; the first fault refuses all of it.
pub(crate) fn validate(batch: &Batch, limits: &Limits) -> Result<(), InvalidBatch> {
    let (entries, entries_max) = (batch.len(), limits.batch_entries_max);
    if entries > entries_max {
        return Err(InvalidBatch::TooManyEntries { entries, entries_max });
    }
    let (bytes, bytes_max) = (batch.bytes(), limits.message_bytes_max);
    if bytes > bytes_max {
        return Err(InvalidBatch::TooManyBytes { bytes, bytes_max });
    }
    validate_entries(batch, limits)
}

/// Checks the entries of a batch that its decoder has limited as a whole.
pub(crate) fn validate_entries(batch: &Batch, limits: &Limits) -> Result<(), InvalidBatch> {
    batch.sizes().try_for_each(|(slot, sizes)| {
        let invalid = |fault| InvalidBatch::Entry { slot, id: sizes.id, fault };
        validate_sizes(sizes, limits).map_err(invalid)
    })
}

/// Checks one entry against the limits.
fn validate_sizes(sizes: RecordSizes, limits: &Limits) -> Result<(), EntryFault> {
    let RecordSizes { id: _, event, primary_key, record } = sizes;
    if event == 0 {
        return Err(EntryFault::EventEmpty);
    }
    let (bytes, bytes_max) = (event, limits.event_bytes_max);
    if bytes > bytes_max {
        return Err(EntryFault::EventTooLong { bytes, bytes_max });
    }
    let (bytes, bytes_max) = (primary_key, limits.primary_key_bytes_max);
    if bytes > bytes_max {
        return Err(EntryFault::PrimaryKeyTooLong { bytes, bytes_max });
    }
    let (bytes, bytes_max) = (record, limits.entry_bytes());
    if bytes > bytes_max {
        return Err(EntryFault::TooLarge { bytes, bytes_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EntryId, EntryRef};

    fn entry<'a>(event: &'a str, primary_key: &'a str) -> EntryRef<'a> {
        EntryRef { id: EntryId::now(), event, primary_key, payload: b"" }
    }

    #[test]
    fn one_bad_entry_refuses_the_batch_and_is_named() {
        let limits =
            Limits { event_bytes_max: 1_024, primary_key_bytes_max: 4_096, ..Limits::default() };
        let bad = entry("", "k");
        let batch = Batch::from_entries([entry("E", ""), bad]);
        let invalid = InvalidBatch::Entry { slot: 1, id: bad.id, fault: EntryFault::EventEmpty };
        assert_eq!(validate(&batch, &limits), Err(invalid));
        let long = "k".repeat(limits.primary_key_bytes_max + 1);
        let error = validate(&Batch::from_entries([entry("E", &long)]), &limits);
        let fault = "the primary key is 4097 bytes long, at most 4096 are allowed";
        assert!(error.is_err_and(|error| error.to_string().ends_with(fault)));
        let long = "e".repeat(limits.event_bytes_max + 1);
        assert!(validate(&Batch::from_entries([entry(&long, "")]), &limits).is_err());
        let (payload, limits) = ([0; 40], Limits { entry_bytes_max: 59, ..Limits::default() });
        let large = |len| EntryRef { payload: &payload[..len], ..entry("E", "") };
        assert_eq!(validate(&Batch::from_entries([large(39)]), &limits), Ok(()));
        let error = validate(&Batch::from_entries([entry("E", ""), large(40)]), &limits);
        let fault = "the entry has 60 bytes, at most 59 are allowed (entry_bytes_max)";
        let error = error.expect_err("refused").to_string();
        assert!(error.starts_with("entry 1 (") && error.ends_with(fault), "{error}");
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
