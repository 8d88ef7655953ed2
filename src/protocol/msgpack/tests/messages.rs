//! Every message reads back as what was written; every refusal says what is wrong and whose request it is.

use bytes::{BufMut, Bytes, BytesMut};

use super::super::write::{put_array_len, put_bytes, put_natural, put_text};
use super::super::*;
use crate::model::{
    Batch, EntryId, EntryRef, Limits, Origin, PublicKey, RemoteId, SegmentBuilder, Sequence,
};

fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    encode(&mut out);
    out.freeze()
}

fn key(text: &str) -> PublicKey {
    PublicKey::new(text).expect("a key")
}

fn entry<'a>(n: u8, event: &'a str, payload: &'a [u8]) -> EntryRef<'a> {
    EntryRef { id: EntryId::from_bytes([n; 16]), event, primary_key: "k", payload }
}

fn request(bytes: &[u8]) -> Result<Request, DecodeError> {
    decode_request(&Bytes::copy_from_slice(bytes), &Limits::default())
}

fn refusal(bytes: &[u8]) -> InvalidRequest {
    match request(bytes) {
        Err(DecodeError::Invalid(refusal)) => refusal,
        other => panic!("not a refusal: {other:?}"),
    }
}

fn malformed(bytes: &[u8]) -> Malformed {
    match request(bytes) {
        Err(DecodeError::Malformed(malformed)) => malformed,
        other => panic!("not malformed: {other:?}"),
    }
}

/// A write with these encoded entries.
fn write(count: u8, entries: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x84\xa4_tag\xacWriteEntries\xa7entries".to_vec();
    bytes.push(0x90 | count);
    bytes.extend_from_slice(entries);
    // The fields that identify the request come after the error.
    bytes.extend_from_slice(b"\xa2id\x07\xa9publicKey\xa2pk");
    bytes
}

const GOOD: &[u8] =
    b"\x84\xa2id\xc4\x10AAAAAAAAAAAAAAAA\xa5event\xa1E\xaaprimaryKey\xa0\xa7payload\xc4\x00";

#[test]
fn a_refusal_says_which_entry_is_wrong_and_how() {
    let bad: [(&[u8], &str); 7] = [
        (b"\x05", "it is a number instead of a map"),
        (b"\xc0", "it is nil instead of a map"),
        (b"\x80", "the id is missing"),
        (b"\x81\xa2id\xc4\x01A", "the id has 1 bytes instead of 16"),
        (b"\x81\xa2id\xa1A", "the id is text instead of bytes"),
        (
            b"\x84\xa2id\xc4\x10AAAAAAAAAAAAAAAA\xa5event\xa1E\xaaprimaryKey\xd4\0\0\xa7payload\xc4\0",
            "the primaryKey is missing",
        ),
        (
            b"\x84\xa2id\xc4\x10AAAAAAAAAAAAAAAA\xa5event\xa1E\xaaprimaryKey\xa0\xa7payload\xa0",
            "the payload is text instead of bytes",
        ),
    ];
    for (entry, reason) in bad {
        let refusal = refusal(&write(3, &[GOOD, entry, GOOD].concat()));
        assert_eq!(refusal.message, format!("entry 1: {reason}"));
        assert_eq!(refusal.request_tag, "WriteEntries");
        assert_eq!((refusal.id, refusal.public_key.as_deref()), (Some(7), Some("pk")));
    }
    assert!(request(&write(3, &[GOOD, GOOD, GOOD].concat())).is_ok());
}

#[test]
fn the_number_of_entries_is_bounded() {
    let limits = Limits { batch_entries_max: 2, ..Limits::default() };
    let refused = |entries: &[EntryRef<'_>]| {
        let batch = Batch::from_entries(entries.iter().copied());
        let bytes = encoded(|out| encode_write(out, &key("pk"), 9, &batch));
        match decode_request(&bytes, &limits) {
            Err(DecodeError::Invalid(refusal)) => Some(refusal.message),
            Ok(Request::Write(write)) if write.batch == batch => None,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&[entry(1, "E", b""), entry(2, "", b"")]), None);
    assert_eq!(
        refused(&[entry(1, "E", b""); 3]).as_deref(),
        Some("the batch has 3 entries, at most 2 are allowed")
    );
}

#[test]
fn what_cannot_be_read_is_malformed() {
    assert_eq!(malformed(b""), Malformed::Truncated);
    assert_eq!(malformed(b"\xc1"), Malformed::ReservedByte);
    assert_eq!(malformed(b"\x93"), Malformed::Truncated);
    assert_eq!(malformed(b"\x05"), Malformed::NotAMap("a number"));
    assert_eq!(malformed(b"\x80"), Malformed::NoTag);
    assert_eq!(malformed(b"\x81\xa4_tag\x05"), Malformed::NoTag);
    assert_eq!(malformed(b"\x81\xa4_tag\xa1X"), Malformed::UnknownTag("X".into()));
    assert_eq!(malformed(b"\x81\xa4_tag\xa1\xff"), Malformed::NoTag);
    assert_eq!(malformed(b"\x82\xa4_tag\xa4Ping\xa2id\x01\x00"), Malformed::TrailingBytes(1));
    // A count of four thousand million keys is not trusted, whether the map is read or skipped.
    assert_eq!(malformed(b"\xdf\xff\xff\xff\xff\xa1a\x01"), Malformed::Truncated);
    assert_eq!(malformed(b"\x82\xa1x\xdd\xff\xff\xff\xff\xa1y"), Malformed::Truncated);
    // Bad bytes after a bad value are still bad bytes.
    assert_eq!(malformed(b"\x82\xa4_tag\xa4Ping\xa2id\x92\xc1\x00"), Malformed::ReservedByte);
}

#[test]
fn nesting_is_passed_over_without_recursion() {
    let depth = 500_000;
    let mut bytes = b"\x83\xa5extra".to_vec();
    bytes.extend(std::iter::repeat_n(0x91, depth));
    bytes.push(0xc0);
    bytes.extend_from_slice(b"\xa4_tag\xa4Ping\xa2id\x01");
    assert_eq!(request(&bytes), Ok(Request::Ping { id: 1 }));
}

#[test]
fn keys_come_in_any_order_and_unknown_ones_are_ignored() {
    let bytes = b"\x86\x05\xa1x\x91\x01\x02\xadstartSequence\x05\xa9publicKey\xa2pk\
        \xa4more\x81\xa1a\xd4\x07\x01\xa4_tag\xaeRequestChanges";
    let start = Sequence::new(5).expect("a sequence");
    let (public_key, ack, marks) = (key("pk"), false, false);
    let expected = Request::RequestChanges { public_key, start, ack, marks };
    assert_eq!(request(bytes), Ok(expected));
}

#[test]
fn an_erased_entry_is_a_mark_in_its_place() {
    let mut out = BytesMut::new();
    let at = |n| Sequence::new(n).expect("a sequence");
    encode_changes_header(&mut out, &key("pk"), 3);
    encode_mark(&mut out, at(7));
    let entry =
        EntryRef { id: EntryId::from_bytes([7; 16]), event: "E", primary_key: "k", payload: b"p" };
    encode_remote_entry(&mut out, at(8), &entry);
    encode_mark(&mut out, at(9));
    assert!(out.ends_with(b"\x82\xaeremoteSequence\x09\xa6erased\xc3"));
    let Ok(Response::Changes(view)) = decode_response(&out.freeze()) else { panic!("no changes") };
    assert_eq!((view.len(), view.erased(), view.last()), (1, 2, at(9)));
    assert!(view.iter().eq([(at(8), entry)]));
    assert!(view.elements().eq([(at(7), None), (at(8), Some(entry)), (at(9), None)]));
}

#[test]
fn every_form_of_a_number_is_taken() {
    let ping = |number: &[u8]| {
        request(&[b"\x82\xa4_tag\xa4Ping\xa2id", number].concat()).map(|request| match request {
            Request::Ping { id } => id,
            other => panic!("{other:?}"),
        })
    };
    let good: [(&[u8], u64); 12] = [
        (b"\x07", 7),
        (b"\xcc\x07", 7),
        (b"\xcd\x01\x07", 263),
        (b"\xce\0\0\0\x07", 7),
        (b"\xcf\0\0\0\0\0\0\0\x07", 7),
        (b"\xd0\x07", 7),
        (b"\xd1\0\x07", 7),
        (b"\xd2\0\0\0\x07", 7),
        (b"\xd3\0\x1f\xff\xff\xff\xff\xff\xff", (1 << 53) - 1),
        (b"\xca\x40\xe0\0\0", 7),
        (b"\xcb\x43\x3f\xff\xff\xff\xff\xff\xff", (1 << 53) - 1),
        (b"\xcb\x80\0\0\0\0\0\0\0", 0),
    ];
    for (bytes, number) in good {
        assert_eq!(ping(bytes), Ok(number), "{bytes:x?}");
    }
    let bad: [&[u8]; 9] = [
        b"\xff",
        b"\xd0\x80",
        b"\xd3\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xcf\x00\x20\0\0\0\0\0\0",
        b"\xcb\x43\x40\0\0\0\0\0\0",
        b"\xcb\x3f\xf8\0\0\0\0\0\0",
        b"\xcb\x7f\xf8\0\0\0\0\0\0",
        b"\xcb\x7f\xf0\0\0\0\0\0\0",
        b"\xca\xbf\x80\0\0",
    ];
    for bytes in bad {
        let Err(DecodeError::Invalid(refusal)) = ping(bytes) else { panic!("{bytes:x?}") };
        assert_eq!((refusal.request_tag, refusal.id), ("Ping", None));
    }
}

#[test]
fn numbers_and_lengths_take_their_shortest_form() {
    let number = |value: u64| encoded(|out| put_natural(out, value)).to_vec();
    assert_eq!(number(0x7f), [0x7f]);
    assert_eq!(number(0x80), [0xcc, 0x80]);
    assert_eq!(number(0xff), [0xcc, 0xff]);
    assert_eq!(number(0x100), [0xcd, 1, 0]);
    assert_eq!(number(0xffff), [0xcd, 0xff, 0xff]);
    assert_eq!(number(0x1_0000), [0xce, 0, 1, 0, 0]);
    assert_eq!(number(0xffff_ffff), [0xce, 0xff, 0xff, 0xff, 0xff]);
    // 64-bit integers would reach JavaScript as a BigInt.
    assert_eq!(number(1 << 32), [0xcb, 0x41, 0xf0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(number((1 << 53) - 1), [0xcb, 0x43, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);

    let head = |bytes: Bytes, len: usize| bytes[..bytes.len() - len].to_vec();
    let text = |len: usize| head(encoded(|out| put_text(out, &"x".repeat(len))), len);
    assert_eq!([text(31), text(32), text(0xff)], [vec![0xbf], vec![0xd9, 32], vec![0xd9, 0xff]]);
    assert_eq!([text(0x100), text(0xffff)], [[0xda, 1, 0], [0xda, 0xff, 0xff]]);
    assert_eq!(text(0x1_0000), [0xdb, 0, 1, 0, 0]);
    let bytes = |len: usize| head(encoded(|out| put_bytes(out, &vec![0; len])), len);
    assert_eq!([bytes(0), bytes(0xff)], [[0xc4, 0], [0xc4, 0xff]]);
    assert_eq!([bytes(0x100), bytes(0xffff)], [[0xc5, 1, 0], [0xc5, 0xff, 0xff]]);
    assert_eq!(bytes(0x1_0000), [0xc6, 0, 1, 0, 0]);
    let array = |len: usize| encoded(|out| put_array_len(out, len)).to_vec();
    assert_eq!([array(15), array(16)], [vec![0x9f], vec![0xdc, 0, 16]]);
    assert_eq!([array(0xff), array(0x100)], [[0xdc, 0, 0xff], [0xdc, 1, 0]]);
    assert_eq!([array(0xffff), array(0x1_0000)], [vec![0xdc, 0xff, 0xff], vec![0xdd, 0, 1, 0, 0]]);
}

#[test]
fn optional_fields_are_absent_in_three_ways() {
    for absent in [&b""[..], b"\xa2id\xc0", b"\xa2id\xd4\0\0"] {
        let count = 4 + u8::from(!absent.is_empty());
        let mut bytes = BytesMut::new();
        bytes.put_u8(0x80 | count);
        bytes.put_slice(absent);
        bytes.put_slice(b"\xa4_tag\xa5Error\xaarequestTag\xa1X\xa4code");
        bytes.put_slice(b"\xacUnauthorized\xa7message\xa2no");
        let decoded = decode_response(&bytes.freeze());
        let expected = Response::Error {
            request_tag: "X".to_owned(),
            id: None,
            public_key: None,
            code: ErrorCode::Unauthorized,
            message: "no".to_owned(),
        };
        assert_eq!(decoded, Ok(expected));
    }
}

#[test]
fn a_segment_is_encoded_once_and_cut_anywhere() {
    let batch = Batch::from_entries((1..=5).map(|n| entry(n, "Event", &[9; 300])));
    let mut builder = SegmentBuilder::new(Sequence::new(u64::from(u32::MAX) - 1).expect("fits"));
    for slot in 0..batch.len() {
        builder.push(batch.record(slot).expect("a slot"), &Origin::Server { run_handlers: true });
    }
    let segment = builder.finish().remove(0);
    let entries = encode_entries(&segment);
    assert_eq!(entries, encode_remote_entries(segment.iter()));
    for start in 0..=5 {
        for end in start..=5 {
            let bytes = encoded(|out| {
                encode_changes_header(out, &key("pk"), end - start);
                out.put_slice(entries.elements(start..end));
            });
            let Ok(Response::Changes(changes)) = decode_response(&bytes) else { panic!() };
            assert_eq!(changes.public_key().as_str(), "pk");
            assert!(changes.iter().eq(segment.iter().skip(start).take(end - start)));
        }
    }
    assert_eq!(entries.elements(3..9), entries.elements(3..5));
    assert_eq!(entries.elements(7..9), b"");
}

#[test]
fn answers_read_back() {
    let remote_id = RemoteId::from_bytes([7; 16]);
    let bytes = encoded(|out| encode_hello(out, &remote_id));
    assert_eq!(decode_response(&bytes), Ok(Response::Hello { remote_id }));
    let sequences = vec![Sequence::FIRST, Sequence::MAX];
    let bytes = encoded(|out| encode_ack(out, 3, sequences.iter().copied()));
    assert_eq!(decode_response(&bytes), Ok(Response::Ack { id: 3, sequences }));
    for begins in [Sequence::FIRST, Sequence::FIRST.next()] {
        let bytes = encoded(|out| encode_subscribed(out, &key("pk"), Sequence::MAX, begins));
        let (public_key, head) = (key("pk"), Sequence::MAX);
        let expected = Response::Subscribed { public_key, head, begins };
        assert_eq!(decode_response(&bytes), Ok(expected));
    }
    let bytes = encoded(|out| encode_pong(out, 300));
    assert_eq!(decode_response(&bytes), Ok(Response::Pong { id: 300 }));
    let bytes = encoded(|out| {
        encode_error(out, "X", Some(3), Some("pk"), ErrorCode::InternalServerError, "later");
    });
    let expected = Response::Error {
        request_tag: "X".to_owned(),
        id: Some(3),
        public_key: Some("pk".to_owned()),
        code: ErrorCode::InternalServerError,
        message: "later".to_owned(),
    };
    assert_eq!(decode_response(&bytes), Ok(expected));
    let bytes = encoded(|out| encode_chunk(out, 1, 2, 3, b"data"));
    let data = Bytes::from_static(b"data");
    assert_eq!(
        decode_response(&bytes),
        Ok(Response::Chunk { id: 1, index: 2, total: 3, data: data.clone() })
    );
    assert_eq!(
        decode_request(&bytes, &Limits::default()),
        Ok(Request::Chunk { id: 1, index: 2, total: 3, data })
    );
}
