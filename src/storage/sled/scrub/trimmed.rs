//! Finds the trimmed entries of a primary key whose content the archive or the commit log still has.
//!
//! Nothing else has it: once an entry is trimmed, the store shows it no more, and the tree keeps its id alone.

use std::collections::BTreeMap;

use super::frames::{Frames, while_files_change};
use crate::model::{EntryId, Sequence, StoreId};
use crate::storage::sled::files::Files;
use crate::storage::sled::options::{DatabaseOptions, OpenFailure};
use crate::storage::sled::record::{Record, records};

/// The entries of `store` up to `last` with this primary key that were not erased. Fails if a file of the archive cannot be read.
/// Takes some 40 bytes of memory for each. Blocks until all of it was read.
pub(in crate::storage::sled) fn trimmed_of_key(
    (files, options): (&Files, &DatabaseOptions),
    store: &StoreId,
    last: Sequence,
    primary_key: &str,
) -> Result<Vec<(Sequence, EntryId)>, OpenFailure> {
    while_files_change(|| {
        let (mut ordinal, mut found) = (None, BTreeMap::new());
        let frames = Frames::of(files, options)?;
        frames.check()?;
        frames.each(&mut |frame| {
            for record in records(frame.body) {
                match record? {
                    Record::Store { ordinal: of, name } if name == *store => ordinal = Some(of),
                    Record::Entries { ordinal: of, segment }
                        if ordinal == Some(of) && segment.first() <= last && !segment.is_gap() =>
                    {
                        let entries = segment.iter().filter(|(at, entry)| {
                            *at <= last
                                && entry.primary_key == primary_key
                                && !entry.event.is_empty()
                        });
                        found.extend(entries.map(|(at, entry)| (at, entry.id)));
                    }
                    Record::Erase { ordinal: of, sequences } if ordinal == Some(of) => {
                        for at in sequences {
                            found.remove(&at);
                        }
                    }
                    _ => {}
                }
            }
            Ok(())
        })?;
        Ok(found.into_iter().collect())
    })
}
