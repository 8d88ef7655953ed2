//! Rewrites a frame of the log, or a part of a base, without what is erased.
//!
//! Keeps: positions, ids, and the resulting hash of each store. A frame that loses entries gets the digests of all its entries instead of
//! the salt, so that nobody can guess the content of an erased one and check the guess. Leaves out: where frames are stored (`archive`).

use super::gone::Gone;
use crate::storage::archive::Kind;
use crate::storage::commit_log::Position;
use crate::storage::sled::record::{BadRecord, Record, RecordWriter, records};
use crate::storage::sled::value::Malformed;
use crate::storage::witness::{EntryDigest, FrameSalt, digests_of};

/// The body without what is `gone`. `None` if it contains none of that. For a base, `position` is the last frame that it includes.
pub(in crate::storage::sled) fn without(
    gone: &Gone,
    (kind, position): (Kind, Position),
    body: &[u8],
) -> Result<Option<Vec<u8>>, BadRecord> {
    let found = Found::look(gone, position, body)?;
    if !(found.entries || found.values) {
        return Ok(None);
    }
    // In a base, the hashes are known and salts are not needed.
    let is_digested = found.entries && kind == Kind::Log;
    let mut written = Vec::with_capacity(body.len());
    let (mut writer, mut salt) = (RecordWriter::default(), FrameSalt::default());
    let mut digested: Option<Vec<EntryDigest>> = None;
    for record in records(body) {
        let mut out = |part: &[u8]| written.extend_from_slice(part);
        match record? {
            Record::Salt(of_frame) => {
                salt = of_frame;
                if !is_digested {
                    writer.salt(&salt, out);
                }
            }
            Record::Digests { digests, .. } => digested = Some(digests),
            Record::Entries { ordinal, segment } => {
                let before = digested.take();
                if before.is_some() || is_digested && !segment.is_gap() {
                    let salted = || digests_of(&segment, salt.append(ordinal, segment.first()));
                    let malformed = |_| BadRecord::Malformed(Malformed("of entries"));
                    let digests = before.map_or_else(salted, Ok).map_err(malformed)?;
                    writer.digests(ordinal, &digests, &mut out);
                }
                let erased = segment.erasing(&gone.of(ordinal, &segment));
                writer.entries(ordinal, erased.as_ref().unwrap_or(&segment), out);
            }
            Record::Change { table, key, value } => {
                if value.is_none() || !gone.has_value(position, table, key) {
                    writer.change(table, key, value, out);
                }
            }
            Record::Store { ordinal, name } => writer.store(ordinal, &name, out),
            Record::Hash { ordinal, hash } => writer.hash(ordinal, hash, out),
            Record::Trim { ordinal, last } => writer.trim(ordinal, last, out),
            Record::Time(time_ms) => writer.time(time_ms, out),
            Record::Erase { ordinal, sequences } => writer.erase(ordinal, &sequences, out),
        }
    }
    Ok(Some(written))
}

/// What a frame contains of it.
struct Found {
    /// Content of erased entries.
    entries: bool,
    /// Values in tables.
    values: bool,
}

impl Found {
    fn look(gone: &Gone, position: Position, body: &[u8]) -> Result<Self, BadRecord> {
        let mut found = Self { entries: false, values: false };
        for record in records(body) {
            match record? {
                Record::Entries { ordinal, segment } => {
                    found.entries =
                        found.entries || segment.erasing(&gone.of(ordinal, &segment)).is_some();
                }
                Record::Change { table, key, value: Some(_) } => {
                    found.values = found.values || gone.has_value(position, table, key);
                }
                Record::Change { .. }
                | Record::Store { .. }
                | Record::Salt(_)
                | Record::Hash { .. }
                | Record::Trim { .. }
                | Record::Time(_)
                | Record::Erase { .. }
                | Record::Digests { .. } => {}
            }
        }
        Ok(found)
    }
}
