//! What is stored about an append beside its entries: who wrote them, and which of its sequences have none.
//!
//! Keeps: what was written is read, and nothing else is taken for it. One value for each append, as a table of our own holds it
//! (`<prefix>_appends`), since the tables of entries are Effect's.
//!
//! ```text
//! run        uvarint count, kind, and of a client its public key with its length before it
//! kind       0 a client, 1 the server, 2 the server, and no handlers run, 3 no entries
//! ```

use crate::model::varint::{read_uvarint, write_uvarint};
use crate::model::{Origin, PublicKey, Segment, Sequence};

const CLIENT: u8 = 0;
const SERVER: u8 = 1;
const SERVER_WITHOUT_HANDLERS: u8 = 2;
const NO_ENTRIES: u8 = 3;

/// Consecutive sequences of which the same is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: Sequence,
    pub(super) last: Sequence,
    /// Who wrote the entries; `None` if there are none.
    pub(super) origin: Option<Origin>,
}

/// The runs of `segments`, which follow each other.
pub(super) fn encode<'a>(segments: impl Iterator<Item = &'a Segment>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut open: Option<(u64, Option<Origin>)> = None;
    let mut add = |count: u64, origin: Option<&Origin>, bytes: &mut Vec<u8>| match &mut open {
        Some((counted, same)) if same.as_ref() == origin => *counted += count,
        _ => {
            if let Some((count, origin)) = open.replace((count, origin.cloned())) {
                write_run(bytes, count, origin.as_ref());
            }
        }
    };
    for segment in segments {
        if segment.is_gap() {
            add(segment.span(), None, &mut bytes);
        }
        for run in segment.origins() {
            add(run.count.into(), Some(&run.origin), &mut bytes);
        }
    }
    if let Some((count, origin)) = open {
        write_run(&mut bytes, count, origin.as_ref());
    }
    bytes
}

fn write_run(bytes: &mut Vec<u8>, count: u64, origin: Option<&Origin>) {
    write_uvarint(bytes, count);
    match origin {
        Some(Origin::Client(key)) => {
            bytes.push(CLIENT);
            write_uvarint(bytes, key.as_str().len() as u64);
            bytes.extend_from_slice(key.as_str().as_bytes());
        }
        Some(Origin::Server { run_handlers: true }) => bytes.push(SERVER),
        Some(Origin::Server { run_handlers: false }) => bytes.push(SERVER_WITHOUT_HANDLERS),
        None => bytes.push(NO_ENTRIES),
    }
}

/// The runs from `first` on; `None` if `bytes` are not what [`encode`] writes.
pub(super) fn decode(first: Sequence, bytes: &[u8]) -> Option<Vec<Run>> {
    let (mut rest, mut next, mut runs) = (bytes, first, Vec::new());
    while !rest.is_empty() {
        let count = read_uvarint(&mut rest).filter(|count| *count > 0)?;
        let (kind, behind) = rest.split_first()?;
        rest = behind;
        let origin = match *kind {
            CLIENT => {
                let len = usize::try_from(read_uvarint(&mut rest)?).ok()?;
                let (key, behind) = rest.split_at_checked(len)?;
                rest = behind;
                let key = std::str::from_utf8(key).ok()?;
                Some(Origin::Client(PublicKey::new(key).ok()?))
            }
            SERVER => Some(Origin::Server { run_handlers: true }),
            SERVER_WITHOUT_HANDLERS => Some(Origin::Server { run_handlers: false }),
            NO_ENTRIES => None,
            _ => return None,
        };
        let last = next.plus(count - 1);
        runs.push(Run { first: next, last, origin });
        next = last.next();
    }
    Some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Batch, EntryId, EntryRef, SegmentBuilder};

    fn segments() -> Vec<Segment> {
        let origins = [
            Origin::Client(PublicKey::new("\0ä").expect("a key")),
            Origin::Client(PublicKey::new("\0ä").expect("a key")),
            Origin::Server { run_handlers: true },
            Origin::Server { run_handlers: false },
        ];
        let mut builder = SegmentBuilder::new(Sequence::FIRST.plus(4));
        for origin in &origins {
            let entry = EntryRef {
                id: EntryId::now(),
                event: "E",
                primary_key: "",
                payload: &vec![7; 70_000],
            };
            builder.push(Batch::from_entries([entry]).record(0).expect("a slot"), origin);
        }
        let mut all = builder.finish();
        all.extend(Segment::gap(Sequence::FIRST.plus(8), 3));
        all
    }

    #[test]
    fn runs_come_back_joined() {
        let first = Sequence::FIRST.plus(4);
        let runs = decode(first, &encode(segments().iter())).expect("runs");
        let read: Vec<_> = runs.iter().map(|run| (run.first.get(), run.last.get())).collect();
        assert_eq!(read, [(5, 6), (7, 7), (8, 8), (9, 11)]);
        let handlers: Vec<_> =
            runs.iter().map(|run| run.origin.as_ref().map(Origin::runs_handlers)).collect();
        assert_eq!(handlers, [Some(true), Some(true), Some(false), None]);
        assert_eq!(decode(first, &[]), Some(Vec::new()));
    }

    #[test]
    fn what_is_cut_short_or_of_no_kind_is_refused() {
        let whole = encode(segments().iter());
        for len in 1..whole.len() {
            let cut = decode(Sequence::FIRST, &whole[..len]);
            assert!(cut.is_none_or(|runs| runs.len() < 4), "{len}");
        }
        assert_eq!(decode(Sequence::FIRST, &[1, 9]), None);
        assert_eq!(decode(Sequence::FIRST, &[0, 1]), None);
    }
}
