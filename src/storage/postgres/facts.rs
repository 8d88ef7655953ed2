//! What is stored about an append besides its entries: who wrote them, and which of its sequences have none.
//!
//! Keeps: only what was written is read, and nothing else is mistaken for it. There is one value for each append in a table of our own
//! (`<prefix>_appends`), since the tables of entries are Effect's.
//!
//! ```text
//! run        uvarint count, kind, and of a client its public key with its length before it
//! kind       0 a client, 1 the server, 2 the server, and no handlers run, 3 no entries, 4 entries that were erased, 5 entries that
//!            somebody else wrote, Effect's server, some of which were erased since
//! ```

use crate::model::varint::{read_uvarint, write_uvarint};
use crate::model::{Origin, PublicKey, Segment, Sequence};

const CLIENT: u8 = 0;
const SERVER: u8 = 1;
const SERVER_WITHOUT_HANDLERS: u8 = 2;
const NO_ENTRIES: u8 = 3;
const ERASED: u8 = 4;
const FOREIGN: u8 = 5;

/// Consecutive sequences with the same facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: Sequence,
    pub(super) last: Sequence,
    pub(super) what: What,
}

/// What is known about sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// They have entries, written by this origin.
    Written(Origin),
    /// They have entries that somebody else wrote, unchanged.
    Foreign,
    /// They had entries. Their rows have only the ids.
    Erased,
    /// They have no entries.
    Gap,
}

/// Writes runs, and joins equal ones that follow each other.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
    open: Option<(u64, What)>,
}

impl Encoder {
    pub(super) fn add(&mut self, count: u64, what: What) {
        match &mut self.open {
            Some((counted, same)) if *same == what => *counted += count,
            open => {
                if let Some((count, what)) = open.replace((count, what)) {
                    write_run(&mut self.bytes, count, &what);
                }
            }
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if let Some((count, what)) = self.open {
            write_run(&mut self.bytes, count, &what);
        }
        self.bytes
    }
}

/// The runs of `segments`, which follow each other.
pub(super) fn encode<'a>(segments: impl Iterator<Item = &'a Segment>) -> Vec<u8> {
    let mut encoder = Encoder::default();
    for segment in segments {
        if segment.is_gap() {
            encoder.add(segment.span(), What::Gap);
        }
        for run in segment.origins() {
            encoder.add(run.count.into(), What::Written(run.origin.clone()));
        }
    }
    encoder.finish()
}

fn write_run(bytes: &mut Vec<u8>, count: u64, what: &What) {
    write_uvarint(bytes, count);
    match what {
        What::Written(Origin::Client(key)) => {
            bytes.push(CLIENT);
            write_uvarint(bytes, key.as_str().len() as u64);
            bytes.extend_from_slice(key.as_str().as_bytes());
        }
        What::Written(Origin::Server { run_handlers: true }) => bytes.push(SERVER),
        What::Written(Origin::Server { run_handlers: false }) => {
            bytes.push(SERVER_WITHOUT_HANDLERS);
        }
        What::Gap => bytes.push(NO_ENTRIES),
        What::Erased => bytes.push(ERASED),
        What::Foreign => bytes.push(FOREIGN),
    }
}

/// The runs from `first` on. `None` if `bytes` are not the output of [`encode`].
pub(super) fn decode(first: Sequence, bytes: &[u8]) -> Option<Vec<Run>> {
    let (mut rest, mut next, mut runs) = (bytes, first, Vec::new());
    while !rest.is_empty() {
        let count = read_uvarint(&mut rest).filter(|count| *count > 0)?;
        let (kind, behind) = rest.split_first()?;
        rest = behind;
        let what = match *kind {
            CLIENT => {
                let len = usize::try_from(read_uvarint(&mut rest)?).ok()?;
                let (key, behind) = rest.split_at_checked(len)?;
                rest = behind;
                let key = std::str::from_utf8(key).ok()?;
                What::Written(Origin::Client(PublicKey::new(key).ok()?))
            }
            SERVER => What::Written(Origin::Server { run_handlers: true }),
            SERVER_WITHOUT_HANDLERS => What::Written(Origin::Server { run_handlers: false }),
            NO_ENTRIES => What::Gap,
            ERASED => What::Erased,
            FOREIGN => What::Foreign,
            _ => return None,
        };
        let last = next.plus(count - 1);
        runs.push(Run { first: next, last, what });
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
        let handlers = runs.iter().map(|run| match &run.what {
            What::Written(origin) => Some(origin.runs_handlers()),
            _ => None,
        });
        assert_eq!(handlers.collect::<Vec<_>>(), [Some(true), Some(true), Some(false), None]);
        assert_eq!(decode(first, &[]), Some(Vec::new()));
    }

    #[test]
    fn what_was_erased_and_what_others_wrote_come_back() {
        let mut encoder = Encoder::default();
        let all = [(2, What::Foreign), (1, What::Erased), (1, What::Erased), (3, What::Foreign)];
        all.into_iter().for_each(|(count, what)| encoder.add(count, what));
        let bytes = encoder.finish();
        assert_eq!(bytes, [2, FOREIGN, 2, ERASED, 3, FOREIGN]);
        let runs = decode(Sequence::FIRST, &bytes).expect("runs");
        let read: Vec<_> = runs.into_iter().map(|run| (run.last.get(), run.what)).collect();
        assert_eq!(read, [(2, What::Foreign), (4, What::Erased), (7, What::Foreign)]);
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
