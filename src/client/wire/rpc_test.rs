//! The wire, tested against the server's half of the same codecs.

use proptest::prelude::*;

use super::super::error::ErrorCode;
use super::*;
use crate::client::error::RemoteError;
use crate::model::{Batch, EntryId, EntryRef, PublicKey, RemoteId, Sequence, StoreId};
use crate::protocol::rpc::auth::Handshake;
use crate::protocol::rpc::{
    Answer, Call, EncodedRemoteEntries, Envelope, FrameReader, HelloResponse, Identity,
    ProtocolError, RequestId, WriteEntries, encode_acks, encode_changes,
};

const REMOTE: RemoteId = RemoteId::from_bytes([0xaa; 16]);
const CHALLENGE: [u8; 32] = [0xcc; 32];

/// What a client sent, as a server understands it.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Hello(RequestId),
    /// The signature was right.
    Authenticate(RequestId, PublicKey),
    /// The entries, by number.
    Write(RequestId, Vec<u64>),
    Part(RequestId, u64, u64),
    Changes(RequestId, String, String, u64),
    Ack(RequestId),
    Interrupt(RequestId),
    Ping,
}

/// A wire and the other end of its connection.
struct Link {
    wire: RpcWire,
    handshake: Handshake,
    /// What was answered to hellos.
    challenges: u8,
}

fn key(name: &str) -> PublicKey {
    PublicKey::new(name).expect("a key")
}

fn seq(n: u64) -> Sequence {
    Sequence::new(n).expect("a sequence")
}

fn id(n: u64) -> EntryId {
    EntryId::from_bytes(u128::from(n).to_be_bytes())
}

fn request(n: u64) -> RequestId {
    RequestId::from_number(n)
}

/// One complete frame.
const UNIT: &[u8] = &[1, 0x20];

fn entry(n: u64, payload: &[u8]) -> EntryRef<'_> {
    EntryRef { id: id(n), event: "E", primary_key: "", payload }
}

fn write(name: &str, write: u64, entries: &[u64]) -> Outgoing {
    let batch = Batch::from_entries(entries.iter().map(|n| entry(*n, UNIT)));
    Outgoing::Write { key: key(name), id: write, batch: batch.into() }
}

fn subscribe(name: &str, start: u64) -> Outgoing {
    Outgoing::RequestChanges { key: key(name), start: seq(start) }
}

fn stop(name: &str) -> Outgoing {
    Outgoing::StopChanges { key: key(name) }
}

fn wire(store: Option<&StoreId>) -> RpcWire {
    let identity = |name| (key(name), Identity::from_signing_key(key(name), &[7; 32]));
    RpcWire::new(2_000_000, store, Keyring::new(["alice", "bob"].map(identity).into()))
}

impl Link {
    /// The hello is not answered yet.
    fn silent(store: Option<&StoreId>) -> Self {
        Self { wire: wire(store), handshake: Handshake::default(), challenges: 0 }
    }

    /// Nothing is proved yet.
    fn greeted() -> Self {
        let mut link = Self::silent(None);
        assert_eq!(link.sent(), [Sent::Hello(request(0))]);
        let said = link.hello(0);
        assert!(matches!(said[..], [Incoming::Hello { remote_id: REMOTE }]), "{said:?}");
        link
    }

    /// Alice is proved; the next request has the number 2.
    fn proved() -> Self {
        let mut link = Self::greeted();
        link.wire.send(write("alice", 1, &[1]));
        link.sent();
        link.done(1);
        link.sent();
        link.answer(encode_acks(&request(2), [(id(1), seq(1))]));
        link
    }

    /// Everything that was sent since it was last asked.
    fn sent(&mut self) -> Vec<Sent> {
        let mut reader = FrameReader::new(usize::MAX);
        let mut all = Vec::new();
        while let Some(mut message) = self.wire.messages().pop_front() {
            let body = reader.next_body(&mut message).expect("a frame").expect("complete");
            assert!(message.is_empty());
            all.push(self.understand(&Envelope::decode(&body).expect("an envelope")));
        }
        all
    }

    fn understand(&mut self, envelope: &Envelope<'_>) -> Sent {
        let asked = match envelope {
            Envelope::Request(asked) => asked,
            Envelope::Ack(id) => return Sent::Ack(RequestId::from_ref(*id)),
            Envelope::Interrupt(id) => return Sent::Interrupt(RequestId::from_ref(*id)),
            Envelope::Ping => return Sent::Ping,
            other => panic!("no client sends {other:?}"),
        };
        let id = RequestId::from_ref(asked.id);
        match Call::decode(asked.tag, asked.payload).expect("a call") {
            Call::Hello => Sent::Hello(id),
            Call::Authenticate(claim) => {
                let verified = self.handshake.authenticate(0, REMOTE, &claim);
                Sent::Authenticate(id, verified.expect("a right signature").public_key().clone())
            }
            Call::WriteSingle { data } => {
                let write = WriteEntries::decode(data).expect("a write");
                let batch = write.batch(&Limits::default()).expect("a batch");
                let number = |id: EntryId| u128::from_be_bytes(*id.as_bytes()) as u64;
                Sent::Write(id, batch.ids().map(number).collect())
            }
            Call::WriteChunked(part) => Sent::Part(id, part.index, part.total),
            Call::Changes(changes) => {
                let (name, store) = (changes.public_key.to_owned(), changes.store_id.to_owned());
                Sent::Changes(id, name, store, changes.start_sequence.get())
            }
        }
    }

    /// The client's reaction to this.
    fn answer(&mut self, message: Bytes) -> Vec<Incoming> {
        self.wire.accept(message);
        self.said()
    }

    fn said(&mut self) -> Vec<Incoming> {
        std::iter::from_fn(|| self.wire.next_incoming().expect("it can be read")).collect()
    }

    fn hello(&mut self, n: u64) -> Vec<Incoming> {
        let fresh = CHALLENGE.map(|byte| byte ^ self.challenges);
        self.challenges += 1;
        let challenge = self.handshake.hello(0, || fresh);
        let (challenge, first_sequence) = (&challenge[..], Sequence::FIRST);
        let hello = HelloResponse { remote_id: REMOTE, challenge, first_sequence };
        self.answer(Answer::Hello(hello).encode(&request(n)))
    }

    fn done(&mut self, n: u64) -> Vec<Incoming> {
        self.answer(Answer::Done.encode(&request(n)))
    }

    fn refuse(&mut self, n: u64) -> Vec<Incoming> {
        let error = ProtocolError {
            request_tag: "WriteEntries",
            public_key: None,
            store_id: None,
            code: ErrorCode::Forbidden,
            message: "no",
        };
        self.answer(Answer::Failed(error).encode(&request(n)))
    }
}

fn rejected() -> RemoteError {
    RemoteError::Rejected {
        code: ErrorCode::Forbidden,
        request_tag: "WriteEntries".to_owned(),
        message: "no".to_owned(),
    }
}

/// The one write that failed, and why.
fn failed_write(said: &[Incoming]) -> (u64, &RemoteError) {
    match said {
        [Incoming::WriteFailed { id, error }] => (*id, error),
        other => panic!("expected a failed write: {other:?}"),
    }
}

fn failed_feed(said: &[Incoming]) -> (&str, &RemoteError) {
    match said {
        [Incoming::FeedFailed { key, error }] => (key.as_str(), error),
        other => panic!("expected a failed feed: {other:?}"),
    }
}

/// The one write that was acknowledged, with its sequences.
fn acked(said: &[Incoming]) -> (u64, Vec<u64>) {
    match said {
        [Incoming::Acked { id, sequences }] => (*id, sequences.iter().map(|s| s.get()).collect()),
        other => panic!("expected an ack: {other:?}"),
    }
}

/// The key and the sequences of everything that was fed.
fn fed(said: &[Incoming]) -> Vec<(&str, Vec<u64>)> {
    let mut all = Vec::new();
    for incoming in said {
        let Incoming::Fed { key, entries } = incoming else {
            panic!("expected entries: {incoming:?}")
        };
        let sequences = entries.iter().map(|(sequence, _)| sequence.get());
        all.push((key.as_str(), sequences.collect()));
    }
    all
}

/// The messages of request `n` with entries at these sequences.
fn changes(n: u64, sequences: &[u64], payload: &[u8]) -> Vec<Bytes> {
    let entries = sequences.iter().map(|n| (seq(*n), entry(*n, payload)));
    let encoded = EncodedRemoteEntries::new(entries);
    encode_changes(&request(n), &[encoded.run(Sequence::ZERO, Sequence::MAX)], 0)
}

#[test]
fn a_key_is_proved_before_anything_is_asked_for_it_and_once() {
    let mut link = Link::greeted();
    link.wire.send(subscribe("alice", 5));
    link.wire.send(write("alice", 1, &[1, 2]));
    assert_eq!(link.sent(), [Sent::Authenticate(request(1), key("alice"))]);
    assert!(link.done(1).is_empty());
    let changes = Sent::Changes(request(2), "alice".to_owned(), "default".to_owned(), 5);
    assert_eq!(link.sent(), [changes, Sent::Write(request(3), vec![1, 2])]);
    link.wire.send(write("alice", 2, &[3]));
    assert_eq!(link.sent(), [Sent::Write(request(4), vec![3])]);
}

#[test]
fn each_key_has_a_challenge_of_its_own() {
    let mut link = Link::greeted();
    link.wire.send(write("alice", 1, &[1]));
    link.wire.send(write("bob", 2, &[2]));
    assert_eq!(link.sent(), [Sent::Authenticate(request(1), key("alice"))]);
    link.done(1);
    assert_eq!(link.sent(), [Sent::Write(request(2), vec![1]), Sent::Hello(request(3))]);
    assert!(link.hello(3).is_empty(), "only the first hello is news");
    assert_eq!(link.sent(), [Sent::Authenticate(request(4), key("bob"))]);
    link.done(4);
    assert_eq!(link.sent(), [Sent::Write(request(5), vec![2])]);
}

#[test]
fn a_refused_proof_fails_what_waited_for_it_and_is_tried_again_later() {
    let mut link = Link::greeted();
    link.wire.send(write("alice", 1, &[1]));
    link.wire.send(write("bob", 2, &[2]));
    link.sent();
    assert_eq!(failed_write(&link.refuse(1)), (1, &rejected()));
    assert_eq!(link.sent(), [Sent::Hello(request(2))], "bob is not concerned");
    link.hello(2);
    assert_eq!(link.sent(), [Sent::Authenticate(request(3), key("bob"))]);
    link.done(3);
    link.sent();
    link.wire.send(subscribe("alice", 1));
    assert_eq!(link.sent(), [Sent::Hello(request(5))]);
    link.hello(5);
    assert_eq!(link.sent(), [Sent::Authenticate(request(6), key("alice"))]);
    assert_eq!(failed_feed(&link.refuse(6)), ("alice", &rejected()));
}

#[test]
fn a_key_without_identity_is_refused_right_here() {
    let mut link = Link::greeted();
    link.wire.send(write("carol", 1, &[1]));
    assert_eq!(failed_write(&link.said()), (1, &RemoteError::NoIdentity(key("carol"))));
    link.wire.send(subscribe("carol", 1));
    assert_eq!(failed_feed(&link.said()), ("carol", &RemoteError::NoIdentity(key("carol"))));
    assert_eq!(link.sent(), []);
}

#[test]
fn a_subscription_that_was_stopped_before_the_proof_is_not_asked_for() {
    let mut link = Link::greeted();
    link.wire.send(subscribe("alice", 1));
    link.wire.send(stop("alice"));
    link.wire.send(subscribe("bob", 1));
    link.wire.send(stop("bob"));
    assert_eq!(link.sent(), [Sent::Authenticate(request(1), key("alice"))]);
    link.done(1);
    assert_eq!(link.sent(), [], "bob need not be proved at all");
    link.wire.send(subscribe("alice", 3));
    assert_eq!(link.sent().len(), 1);
}

#[test]
fn the_store_is_named_in_every_request() {
    let team = StoreId::new("team").expect("a store");
    let mut link = Link::silent(Some(&team));
    link.sent();
    link.hello(0);
    link.wire.send(subscribe("alice", 1));
    link.sent();
    link.done(1);
    let changes = Sent::Changes(request(2), "alice".to_owned(), "team".to_owned(), 1);
    assert_eq!(link.sent(), [changes]);
}

#[test]
fn acks_become_one_sequence_a_slot() {
    let mut link = Link::proved();
    link.wire.send(write("alice", 7, &[1, 2, 1]));
    let acks = [(id(1), seq(4)), (id(2), seq(9)), (id(1), seq(4))];
    assert_eq!(acked(&link.answer(encode_acks(&request(3), acks))), (7, vec![4, 9, 4]));
    link.wire.send(write("alice", 8, &[]));
    assert_eq!(acked(&link.answer(encode_acks(&request(4), []))), (8, vec![]));
    link.wire.send(write("alice", 9, &[5, 6]));
    let swapped = [(id(6), seq(11)), (id(5), seq(10))];
    assert_eq!(acked(&link.answer(encode_acks(&request(5), swapped))), (9, vec![10, 11]));
}

#[test]
fn an_ack_that_leaves_an_entry_out_is_no_answer() {
    let mut link = Link::proved();
    for (number, acks) in [(3, vec![]), (4, vec![(id(1), seq(1))]), (5, vec![(id(3), seq(3))])] {
        link.wire.send(write("alice", number, &[1, 2]));
        let said = link.answer(encode_acks(&request(number), acks));
        let (failed, error) = failed_write(&said);
        assert!(failed == number && matches!(error, RemoteError::WrongAnswer(_)), "{error}");
        assert!(!error.is_definite());
    }
}

/// A write of three parts, which are the requests 3, 4 and 5.
fn chunked(link: &mut Link) {
    let payload = {
        // A frame of 1,200,000 bytes.
        let mut payload = vec![0; 1_200_000];
        payload[..4].copy_from_slice(&[0xfd, 0x9e, 0x49, 0x20]);
        payload
    };
    let batch = Batch::from_entries([entry(9, &payload)]);
    link.wire.send(Outgoing::Write { key: key("alice"), id: 5, batch: batch.into() });
    let parts = [3, 4, 5].map(|n| Sent::Part(request(n), n - 3, 3));
    assert_eq!(link.sent(), parts);
}

#[test]
fn a_large_write_goes_in_parts_and_whichever_completes_it_has_the_answer() {
    for last in [3, 4, 5] {
        let mut link = Link::proved();
        chunked(&mut link);
        for part in [3, 4, 5].into_iter().filter(|part| *part != last) {
            assert!(link.answer(encode_acks(&request(part), [])).is_empty());
        }
        let said = link.answer(encode_acks(&request(last), [(id(9), seq(2))]));
        assert_eq!(acked(&said), (5, vec![2]));
    }
}

#[test]
fn a_large_write_that_no_part_has_an_answer_for_failed() {
    let mut link = Link::proved();
    chunked(&mut link);
    link.answer(encode_acks(&request(3), []));
    link.answer(encode_acks(&request(4), []));
    let said = link.answer(encode_acks(&request(5), []));
    assert!(matches!(failed_write(&said), (5, RemoteError::WrongAnswer(_))));
}

#[test]
fn a_refused_part_refuses_the_write_once() {
    let mut link = Link::proved();
    chunked(&mut link);
    assert_eq!(failed_write(&link.refuse(3)), (5, &rejected()));
    assert!(link.refuse(4).is_empty());
    assert!(link.answer(encode_acks(&request(5), [])).is_empty());
}

#[test]
fn a_write_above_the_limit_is_not_sent() {
    let mut link = Link::proved();
    let payload = vec![0; 2_000_000];
    let batch = Batch::from_entries([entry(9, &payload)]);
    link.wire.send(Outgoing::Write { key: key("alice"), id: 5, batch: batch.into() });
    let said = link.said();
    let (_, error) = failed_write(&said);
    assert!(matches!(error, RemoteError::TooLarge { bytes_max: 2_000_000, .. }), "{error}");
    assert_eq!(link.sent(), []);
}

#[test]
fn what_is_fed_is_acknowledged_and_nothing_is_once_it_was_stopped() {
    let mut link = Link::proved();
    link.wire.send(subscribe("alice", 1));
    link.sent();
    let [first, second] = [&[1, 2][..], &[3]].map(|at| changes(3, at, UNIT).remove(0));
    assert_eq!(fed(&link.answer(first)), [("alice", vec![1, 2])]);
    assert_eq!(link.sent(), [Sent::Ack(request(3))]);
    link.wire.send(stop("alice"));
    assert_eq!(link.sent(), [Sent::Interrupt(request(3))]);
    assert!(link.answer(second).is_empty());
    assert!(link.refuse(3).is_empty());
    assert_eq!(link.sent(), []);
}

#[test]
fn a_feed_in_parts_is_put_together() {
    let mut link = Link::proved();
    link.wire.send(subscribe("alice", 1));
    link.sent();
    let payload = [vec![0xc1, 0xb8, 0x2], vec![0x20; 40_001]].concat();
    let sequences: Vec<u64> = (1..=30).collect();
    let mut messages = changes(3, &sequences, &payload);
    assert_eq!(messages.len(), 3);
    let last = messages.pop().expect("a last one");
    for message in messages {
        assert!(link.answer(message).is_empty());
    }
    assert_eq!(fed(&link.answer(last)), [("alice", sequences)]);
    assert_eq!(link.sent(), [0; 3].map(|_| Sent::Ack(request(3))));
}

#[test]
fn a_feed_that_cannot_be_read_fails_alone() {
    let mut link = Link::proved();
    link.wire.send(subscribe("alice", 1));
    link.wire.send(write("alice", 9, &[2]));
    link.sent();
    let values = Envelope::Chunk { id: request(3).as_ref(), values: &[2, 0x20, 0] }.encode();
    let said = link.answer(values);
    assert!(matches!(failed_feed(&said), ("alice", RemoteError::WrongAnswer(_))));
    assert_eq!(link.sent(), [Sent::Interrupt(request(3))]);
    assert_eq!(acked(&link.answer(encode_acks(&request(4), [(id(2), seq(2))]))).0, 9);
}

#[test]
fn a_feed_that_ends_has_failed() {
    let mut link = Link::proved();
    link.wire.send(subscribe("alice", 1));
    let said = link.done(3);
    assert!(matches!(failed_feed(&said), ("alice", RemoteError::WrongAnswer(_))));
}

#[test]
fn a_crashed_request_fails_and_an_interrupted_one_ends_the_connection() {
    let mut link = Link::proved();
    link.wire.send(write("alice", 9, &[2]));
    let said = link.answer(Answer::Died("oh").encode(&request(3)));
    let (_, error) = failed_write(&said);
    assert_eq!((error, error.is_definite()), (&RemoteError::Crashed("\"oh\"".to_owned()), false));
    link.wire.send(write("alice", 10, &[2]));
    // Effect's server does this with all requests when it shuts down.
    let exit = [5, 0x20, 1, 1, 1, 2];
    link.wire.accept(Envelope::Exit { id: request(4).as_ref(), exit: &exit }.encode());
    assert!(matches!(link.wire.next_incoming(), Err(WireError::Interrupted)));
    let mut link = Link::proved();
    link.wire.accept(Envelope::Defect(&[5, 0x20, b'"', b'o', b'h', b'"']).encode());
    assert!(matches!(link.wire.next_incoming(), Err(WireError::Defect(_))));
}

#[test]
fn pongs_answer_pings_in_order() {
    let mut link = Link::greeted();
    link.wire.send(Outgoing::Ping { id: 8 });
    link.wire.send(Outgoing::Ping { id: 9 });
    assert_eq!(link.sent(), [Sent::Ping, Sent::Ping]);
    for expected in [8, 9, 0] {
        let said = link.answer(Envelope::Pong.encode());
        assert!(matches!(said[..], [Incoming::Pong { id }] if id == expected), "{said:?}");
    }
}

proptest! {
    #[test]
    fn it_does_not_matter_in_which_messages_the_bytes_come(
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let mut link = Link::proved();
        link.wire.send(subscribe("alice", 1));
        link.wire.send(write("alice", 9, &[4]));
        let mut stream = changes(3, &[1, 2, 3], UNIT).concat();
        stream.extend_from_slice(&encode_acks(&request(4), [(id(4), seq(4))]));
        stream.extend_from_slice(&changes(3, &[5], UNIT).concat());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| Bytes::copy_from_slice(&stream[cut[0]..cut[1]]));
        let said: Vec<Incoming> = pieces.flat_map(|piece| link.answer(piece)).collect();
        prop_assert_eq!(fed(&said[..1]), [("alice", vec![1, 2, 3])]);
        prop_assert_eq!(acked(&said[1..2]), (9, vec![4]));
        prop_assert_eq!(fed(&said[2..]), [("alice", vec![5])]);
    }

    #[test]
    fn damaged_answers_are_understood_or_refused_but_never_panic(
        at: proptest::sample::Index, byte: u8, more: Vec<u8>,
    ) {
        let mut link = Link::proved();
        link.wire.send(subscribe("alice", 1));
        link.wire.send(write("alice", 9, &[4]));
        let mut stream = changes(3, &[1, 2, 3], UNIT).concat();
        stream.extend_from_slice(&encode_acks(&request(4), [(id(4), seq(4))]));
        let at = at.index(stream.len());
        stream[at] = byte;
        stream.extend_from_slice(&more);
        link.wire.accept(stream.into());
        while let Ok(Some(_)) = link.wire.next_incoming() {}
    }
}
