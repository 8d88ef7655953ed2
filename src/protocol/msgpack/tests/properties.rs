//! Properties of the codec: what is written is read back, in whatever form it is written; bad bytes end in an error.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::read::Reader;
use super::super::*;
use super::forms::{Form, request_in_form};
use crate::model::{
    Batch, Entry, EntryId, Limits, Origin, PublicKey, RemoteId, SegmentBuilder, Sequence,
};

fn natural() -> impl Strategy<Value = u64> {
    // Around every border between two forms of a number, and anywhere.
    let borders = vec![0, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 1 << 32];
    prop_oneof![prop::sample::select(borders), 0..=Sequence::MAX.get(), Just(Sequence::MAX.get())]
}

fn sequence() -> impl Strategy<Value = Sequence> {
    natural().prop_map(|value| Sequence::new(value).expect("in range"))
}

fn key() -> impl Strategy<Value = PublicKey> {
    "\\PC{1,40}".prop_map(|text| PublicKey::new(text).expect("short enough"))
}

fn entry() -> impl Strategy<Value = Entry> {
    let payload = prop_oneof![9 => vec(any::<u8>(), 0..50), 3 => vec(any::<u8>(), 200..300), 1 => Just(vec![7; 70_000])];
    (any::<[u8; 16]>(), "\\PC{1,40}", "\\PC{0,300}", payload).prop_map(
        |(id, event, primary_key, payload)| Entry {
            id: EntryId::from_bytes(id),
            event,
            primary_key,
            payload: payload.into(),
        },
    )
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    prop_oneof![9 => vec(entry(), 0..5), 1 => vec(entry(), 14..20)]
}

fn batch() -> impl Strategy<Value = Batch> {
    entries().prop_map(|entries| Batch::from_entries(entries.iter().map(Entry::as_ref)))
}

fn write() -> impl Strategy<Value = Request> {
    (key(), natural(), batch())
        .prop_map(|(public_key, id, batch)| Request::Write(WriteRequest { public_key, id, batch }))
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        write(),
        (key(), sequence(), any::<(bool, bool)>()).prop_map(|(public_key, start, (ack, marks))| {
            Request::RequestChanges { public_key, start, ack, marks }
        }),
        key().prop_map(|public_key| Request::StopChanges { public_key }),
        (natural(), natural(), natural(), vec(any::<u8>(), 0..300)).prop_map(
            |(id, index, total, data)| Request::Chunk { id, index, total, data: data.into() }
        ),
        natural().prop_map(|id| Request::Ping { id }),
    ]
}

fn encode(request: &Request) -> Bytes {
    let mut out = BytesMut::new();
    match request {
        Request::Write(WriteRequest { public_key, id, batch }) => {
            encode_write(&mut out, public_key, *id, batch);
        }
        Request::RequestChanges { public_key, start, ack: false, marks: false } => {
            encode_request_changes(&mut out, public_key, *start);
        }
        Request::RequestChanges { public_key, start, ack: true, marks: false } => {
            encode_request_changes_with_ack(&mut out, public_key, *start);
        }
        Request::RequestChanges { public_key, start, ack, marks } => {
            encode_request_changes_with(&mut out, public_key, *start, *ack, *marks);
        }
        Request::StopChanges { public_key } => encode_stop_changes(&mut out, public_key),
        Request::Chunk { id, index, total, data } => {
            encode_chunk(&mut out, *id, *index, *total, data);
        }
        Request::Ping { id } => encode_ping(&mut out, *id),
    }
    out.freeze()
}

/// A `Changes` message and what it carries.
fn changes() -> impl Strategy<Value = (PublicKey, Sequence, Vec<Entry>, Bytes)> {
    (key(), sequence(), vec(entry(), 1..5)).prop_map(|(key, first, entries)| {
        // The entries after the first need sequences too.
        let first = first.min(Sequence::new(Sequence::MAX.get() - 10).expect("in range"));
        let batch = Batch::from_entries(entries.iter().map(Entry::as_ref));
        let mut builder = SegmentBuilder::new(first);
        for slot in 0..batch.len() {
            let record = batch.record(slot).expect("a slot");
            builder.push(record, &Origin::Client(key.clone()));
        }
        let mut out = BytesMut::new();
        encode_changes_header(&mut out, &key, entries.len());
        for segment in builder.finish() {
            out.put_slice(encode_entries(&segment).bytes());
        }
        (key, first, entries, out.freeze())
    })
}

fn response() -> impl Strategy<Value = (Response, Bytes)> {
    let changes = changes().prop_map(|(.., frame)| {
        let response = decode_response(&frame).expect("written by the encoder");
        (response, frame)
    });
    prop_oneof![small_response(), changes]
}

fn small_response() -> impl Strategy<Value = (Response, Bytes)> {
    let written = |encode: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        encode(&mut out);
        out.freeze()
    };
    let error = (
        "\\PC{0,40}",
        prop::option::of(natural()),
        prop::option::of("\\PC{0,40}"),
        prop::sample::select(ErrorCode::ALL.to_vec()),
        "\\PC{0,300}",
    );
    prop_oneof![
        any::<[u8; 16]>().prop_map(move |id| {
            let remote_id = RemoteId::from_bytes(id);
            (Response::Hello { remote_id }, written(&|out| encode_hello(out, &remote_id)))
        }),
        (natural(), vec(sequence(), 0..40)).prop_map(move |(id, sequences)| {
            let frame = written(&|out| encode_ack(out, id, sequences.iter().copied()));
            (Response::Ack { id, sequences }, frame)
        }),
        natural()
            .prop_map(move |id| { (Response::Pong { id }, written(&|out| encode_pong(out, id))) }),
        error.prop_map(move |(request_tag, id, public_key, code, message)| {
            let frame = written(&|out| {
                encode_error(out, &request_tag, id, public_key.as_deref(), code, &message);
            });
            (Response::Error { request_tag, id, public_key, code, message }, frame)
        }),
    ]
}

/// Bytes that are often valid msgpack for a while.
fn likely_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        any::<u8>(),
        0x80..=0xa4_u8,
        0xc0..=0xdf_u8,
        prop::sample::select(vec![0_u8, 1, 2]),
    ];
    vec(byte, 0..60)
}

#[derive(Clone, Debug)]
enum Damage {
    Set(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => any::<usize>().prop_map(Damage::Cut),
        1 => (any::<usize>(), vec(any::<u8>(), 1..6)).prop_map(|(at, new)| Damage::Insert(at, new)),
        1 => (any::<usize>(), 1..6_usize).prop_map(|(at, len)| Damage::Remove(at, len)),
    ];
    vec(one, 1..4)
}

fn damaged(frame: &[u8], damage: &[Damage]) -> Bytes {
    let mut bytes = frame.to_vec();
    for damage in damage {
        let len = bytes.len();
        match damage {
            Damage::Set(at, byte) if len > 0 => bytes[at % len] = *byte,
            Damage::Set(..) => {}
            Damage::Cut(at) => bytes.truncate(at % (len + 1)),
            Damage::Insert(at, new) => {
                let at = at % (len + 1);
                bytes.splice(at..at, new.iter().copied());
            }
            Damage::Remove(at, count) => {
                let at = at % (len + 1);
                bytes.drain(at..len.min(at + count));
            }
        }
    }
    bytes.into()
}

/// Decoding ends, and its result can be written and read again.
fn check_any_request(bytes: &Bytes) -> Result<(), TestCaseError> {
    match decode_request(bytes, &Limits::default()) {
        Ok(request) => {
            let again = decode_request(&encode(&request), &Limits::default());
            prop_assert_eq!(again, Ok(request));
        }
        Err(error) => prop_assert!(!error.to_string().is_empty()),
    }
    Ok(())
}

fn check_any_response(bytes: &Bytes) -> Result<(), TestCaseError> {
    if let Ok(Response::Changes(changes)) = decode_response(bytes) {
        prop_assert_eq!(changes.iter().count(), changes.len());
    }
    Ok(())
}

proptest! {
    #[test]
    fn requests_round_trip(request in request()) {
        prop_assert_eq!(decode_request(&encode(&request), &Limits::default()), Ok(request));
    }

    #[test]
    fn responses_round_trip((response, frame) in response()) {
        prop_assert_eq!(decode_response(&frame), Ok(response));
    }

    #[test]
    fn changes_carry_their_entries((key, first, entries, frame) in changes()) {
        let Ok(Response::Changes(changes)) = decode_response(&frame) else { panic!() };
        prop_assert_eq!(changes.public_key(), &key);
        prop_assert_eq!(changes.len(), entries.len());
        for (n, (sequence, entry)) in changes.iter().enumerate() {
            prop_assert_eq!(sequence, first.plus(n as u64));
            prop_assert_eq!(entry, entries[n].as_ref());
        }
    }

    #[test]
    fn the_form_of_a_request_does_not_matter(request in request(), form in any::<Form>()) {
        let frame = request_in_form(&request, form);
        prop_assert_eq!(decode_request(&frame, &Limits::default()), Ok(request));
    }

    #[test]
    fn a_batch_is_taken_up_to_its_limit(batch in batch(), entries_max in 0..6_usize) {
        let limits = Limits { batch_entries_max: entries_max, ..Limits::default() };
        let fits = batch.len() <= entries_max;
        let public_key = PublicKey::new("pk").expect("a key");
        let request = Request::Write(WriteRequest { public_key, id: 7, batch });
        match decode_request(&encode(&request), &limits) {
            Ok(decoded) => prop_assert!(fits && decoded == request),
            Err(DecodeError::Invalid(refusal)) => {
                prop_assert!(!fits);
                prop_assert_eq!((refusal.id, refusal.public_key), (Some(7), Some("pk".to_owned())));
            }
            Err(DecodeError::Malformed(malformed)) => prop_assert!(false, "{}", malformed),
        }
    }

    #[test]
    fn any_bytes_end_in_a_value_or_an_error(bytes in prop_oneof![any::<Vec<u8>>(), likely_bytes()]) {
        let bytes = Bytes::from(bytes);
        check_any_request(&bytes)?;
        check_any_response(&bytes)?;
    }

    #[test]
    fn damaged_requests_end_in_a_value_or_an_error(request in request(), damage in damage()) {
        check_any_request(&damaged(&encode(&request), &damage))?;
    }

    #[test]
    fn damaged_responses_end_in_a_value_or_an_error((_, frame) in response(), damage in damage()) {
        check_any_response(&damaged(&frame, &damage))?;
    }

    #[test]
    fn a_request_that_is_cut_short_is_malformed(request in request(), at in any::<prop::sample::Index>()) {
        let frame = encode(&request);
        let cut = frame.slice(..at.index(frame.len()));
        let decoded = decode_request(&cut, &Limits::default());
        prop_assert_eq!(decoded, Err(DecodeError::Malformed(Malformed::Truncated)));
    }

    /// Another implementation decides what a value is and where it ends.
    #[test]
    fn values_end_where_others_say_they_end(bytes in likely_bytes()) {
        let mut reader = Reader::new(&bytes);
        let ours = reader.skip().ok().map(|()| bytes.len() - reader.rest().len());
        let mut others = rmp_serde::Deserializer::new(std::io::Cursor::new(&bytes));
        let theirs = <serde::de::IgnoredAny as serde::Deserialize<'_>>::deserialize(&mut others);
        let theirs = theirs.ok().map(|_| others.position() as usize);
        prop_assert_eq!(ours, theirs);
    }
}
