//! What the random schedules would seldom show, or could not tell apart.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::super::entries::Entries;
use super::super::error::{ErrorCode, RemoteError};
use super::super::queue::{Queue, Taken};
use super::{Command, Core, Fault, Incoming, Outgoing, Pending, Policy};
use crate::model::{Batch, EntryId, EntryRef, PublicKey, Sequence};
use crate::protocol::msgpack::{
    Response, decode_response, encode_changes_header, encode_remote_entries,
};

type Answer = oneshot::Receiver<Result<Vec<Sequence>, RemoteError>>;

const POLICY: Policy =
    Policy { resend_writes: true, held_bytes_max: 1 << 20, acks_follow_the_feed: true };

fn connected() -> Core {
    let mut core = Core::new(POLICY);
    core.connected();
    core
}

fn key() -> PublicKey {
    PublicKey::new("a").expect("a key")
}

fn seq(n: u64) -> Sequence {
    Sequence::new(n).expect("a sequence")
}

fn entry<'a>(n: u64) -> EntryRef<'a> {
    let id = EntryId::from_bytes(u128::from(n).to_be_bytes());
    EntryRef { id, event: "E", primary_key: "", payload: b"" }
}

/// A write of the entry that is to become number `n`.
fn write(core: &mut Core, n: u64) -> Answer {
    let batch = Arc::new(Batch::from_entries([entry(n)]));
    let (reply, answer) = oneshot::channel();
    core.command(Command::Write(Pending { key: key(), batch, reply, permit: None }));
    answer
}

fn open(core: &mut Core, stream: u64, start: u64, entries_max: usize) -> Arc<Queue> {
    let queue = Queue::new(entries_max, 1 << 20);
    let open = Arc::clone(&queue);
    core.command(Command::Open { key: key(), stream, start: seq(start), queue: open });
    queue
}

fn sent(core: &mut Core) -> Vec<Outgoing> {
    std::iter::from_fn(|| core.next_outgoing()).collect()
}

fn changes(sequences: &[u64]) -> Incoming {
    let entries = sequences.iter().map(|n| (seq(*n), entry(*n)));
    let encoded = encode_remote_entries(entries);
    let mut out = BytesMut::new();
    encode_changes_header(&mut out, &key(), encoded.len());
    out.extend_from_slice(encoded.bytes());
    match decode_response(&out.freeze()) {
        Ok(Response::Changes(view)) => {
            Incoming::Fed { key: key(), entries: Entries::Msgpack(view) }
        }
        other => panic!("no changes: {other:?}"),
    }
}

fn ack(id: u64, sequence: u64) -> Incoming {
    Incoming::Acked { id, sequences: vec![seq(sequence)] }
}

fn rejected() -> RemoteError {
    RemoteError::Rejected {
        code: ErrorCode::Unauthorized,
        request_tag: "what was asked".to_owned(),
        message: "no".to_owned(),
    }
}

fn feed_failed() -> Incoming {
    Incoming::FeedFailed { key: key(), error: rejected() }
}

fn take(queue: &Queue) -> Option<Taken> {
    match queue.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(taken) => Some(taken),
        Poll::Pending => None,
    }
}

/// Everything the stream has, without telling the core that there is space again.
fn got(queue: &Queue) -> Vec<u64> {
    let pages = std::iter::from_fn(|| match take(queue) {
        Some(Taken::Page { page, .. }) => Some(page),
        _ => None,
    });
    let sequence = |(sequence, _): (Sequence, EntryRef<'_>)| sequence.get();
    pages.flat_map(|page| page.iter().map(sequence).collect::<Vec<_>>()).collect()
}

#[test]
fn an_ack_behind_compacted_entries_is_delivered_although_nothing_is_fed() {
    let mut core = connected();
    let queue = open(&mut core, 1, 1, 100);
    let mut answer = write(&mut core, 9);
    sent(&mut core);
    core.receive(ack(1, 9)).expect("an ack");
    assert_eq!(answer.try_recv(), Ok(Ok(vec![seq(9)])));
    assert_eq!(got(&queue), [0; 0], "1 to 8 may still come");
    for _ in 0..8 {
        core.tick();
        assert_eq!(sent(&mut core), []);
    }
    core.tick();
    let ping = Outgoing::Ping { id: 1 };
    assert_eq!(sent(&mut core), [Outgoing::StopChanges { key: key() }, ping]);
    core.receive(Incoming::Pong { id: 1 }).expect("a pong");
    assert_eq!(sent(&mut core), [Outgoing::RequestChanges { key: key(), start: seq(1) }]);
    core.receive(changes(&[9])).expect("changes");
    assert_eq!(got(&queue), [9]);
    assert!(!core.wants_tick());
}

/// Effect's server acknowledges a write at once, while earlier entries of others still wait for their turn in the feed.
#[test]
fn an_ack_that_overtakes_the_feed_waits_for_what_is_before_it() {
    let mut core = Core::new(Policy { acks_follow_the_feed: false, ..POLICY });
    core.connected();
    let queue = open(&mut core, 1, 1, 100);
    let mut answer = write(&mut core, 3);
    sent(&mut core);
    core.receive(changes(&[1])).expect("changes");
    core.receive(ack(1, 3)).expect("an ack");
    assert_eq!(answer.try_recv(), Ok(Ok(vec![seq(3)])));
    assert_eq!(got(&queue), [1]);
    core.receive(changes(&[2])).expect("changes");
    assert_eq!(got(&queue), [2, 3]);
}

/// There was nothing between them: it was compacted, or withheld from this client.
#[test]
fn an_ack_behind_a_gap_that_stays_is_delivered_by_a_new_subscription() {
    let mut core = Core::new(Policy { acks_follow_the_feed: false, ..POLICY });
    core.connected();
    let queue = open(&mut core, 1, 1, 100);
    let _answer = write(&mut core, 3);
    sent(&mut core);
    core.receive(changes(&[1])).expect("changes");
    core.receive(ack(1, 3)).expect("an ack");
    assert_eq!(got(&queue), [1]);
    core.tick();
    assert_eq!(sent(&mut core), []);
    core.tick();
    let ping = Outgoing::Ping { id: 1 };
    assert_eq!(sent(&mut core), [Outgoing::StopChanges { key: key() }, ping]);
    core.receive(Incoming::Pong { id: 1 }).expect("a pong");
    assert_eq!(sent(&mut core), [Outgoing::RequestChanges { key: key(), start: seq(2) }]);
    core.receive(changes(&[3])).expect("changes");
    assert_eq!(got(&queue), [3]);
}

#[test]
fn own_writes_do_not_fill_a_stream_that_is_not_polled() {
    let mut core = connected();
    let queue = open(&mut core, 1, 1, 2);
    let answers: Vec<_> = (1..=5).map(|n| write(&mut core, n)).collect();
    sent(&mut core);
    for n in 1..=5 {
        core.receive(ack(n, n)).expect("an ack");
    }
    assert!(answers.into_iter().all(|mut answer| answer.try_recv().is_ok()));
    assert_eq!(got(&queue), [1, 2]);
    core.receive(Incoming::Pong { id: 1 }).expect("a pong");
    core.command(Command::Resume { key: key(), stream: 1 });
    let request = Outgoing::RequestChanges { key: key(), start: seq(3) };
    assert_eq!(sent(&mut core).last(), Some(&request));
}

#[test]
fn a_full_stream_is_resumed_once_half_of_it_is_taken() {
    let mut core = connected();
    let queue = open(&mut core, 1, 1, 4);
    for n in 1..=4 {
        core.receive(changes(&[n])).expect("changes");
    }
    let resumes = std::iter::from_fn(|| match take(&queue) {
        Some(Taken::Page { resume, .. }) => Some(resume),
        _ => None,
    });
    assert!(resumes.eq([false, true, false, false]));
}

#[test]
fn what_was_sent_for_an_earlier_stream_is_not_taken_for_the_new_one() {
    let mut core = connected();
    open(&mut core, 1, 50, 100);
    core.command(Command::Drop { key: key(), stream: 1 });
    let queue = open(&mut core, 2, 1, 100);
    core.receive(changes(&[50, 51])).expect("changes");
    core.receive(feed_failed()).expect("a refusal");
    core.receive(Incoming::Pong { id: 1 }).expect("a pong");
    let request = Outgoing::RequestChanges { key: key(), start: seq(1) };
    assert_eq!(sent(&mut core).last(), Some(&request));
    core.receive(changes(&[1])).expect("changes");
    assert_eq!(got(&queue), [1]);
}

#[test]
fn a_refused_write_fails_alone() {
    let mut core = connected();
    let queue = open(&mut core, 1, 1, 100);
    let (mut first, mut second) = (write(&mut core, 1), write(&mut core, 1));
    sent(&mut core);
    core.receive(Incoming::WriteFailed { id: 1, error: rejected() }).expect("a refusal");
    assert_eq!(first.try_recv(), Ok(Err(rejected())));
    core.receive(ack(2, 1)).expect("an ack");
    assert_eq!(second.try_recv(), Ok(Ok(vec![seq(1)])));
    assert_eq!(got(&queue), [1]);
}

#[test]
fn a_refused_subscription_fails_its_stream_behind_what_it_has() {
    let mut core = connected();
    let queue = open(&mut core, 1, 1, 100);
    let mut answer = write(&mut core, 2);
    sent(&mut core);
    core.receive(changes(&[1])).expect("changes");
    core.receive(feed_failed()).expect("a refusal");
    assert_eq!(got(&queue), [1]);
    open(&mut core, 2, 1, 100);
    assert_eq!(sent(&mut core).len(), 1, "the key can be streamed again");
    core.receive(ack(1, 2)).expect("an ack");
    assert!(answer.try_recv().is_ok_and(|answer| answer.is_ok()));
}

#[test]
fn a_second_stream_of_a_key_is_refused_and_the_first_lives_on() {
    let mut core = connected();
    let first = open(&mut core, 1, 1, 100);
    let second = open(&mut core, 2, 1, 100);
    let Some(Taken::Failed(error)) = take(&second) else { panic!("it did not fail") };
    assert_eq!(error, RemoteError::AlreadyStreaming(key()));
    core.command(Command::Drop { key: key(), stream: 2 });
    core.receive(changes(&[1])).expect("changes");
    assert_eq!(got(&first), [1]);
}

#[test]
fn pongs_are_checked() {
    let mut core = connected();
    core.heartbeat().expect("nothing is missing yet");
    core.receive(Incoming::Pong { id: 1 }).expect("the pong");
    let wrong = Fault::WrongPong { expected: None, found: 1 };
    assert_eq!(core.receive(Incoming::Pong { id: 1 }), Err(wrong));
    core.heartbeat().expect("the first was answered");
    let wrong = Fault::WrongPong { expected: Some(2), found: 7 };
    assert_eq!(core.receive(Incoming::Pong { id: 7 }), Err(wrong));
    core.disconnected(None);
    core.connected();
    core.heartbeat().expect("a new connection");
    assert_eq!(core.heartbeat(), Err(Fault::PongMissing));
}

#[test]
fn without_resending_a_write_that_was_sent_fails_and_others_wait() {
    let mut core = Core::new(Policy { resend_writes: false, ..POLICY });
    core.connected();
    let mut first = write(&mut core, 1);
    sent(&mut core);
    let mut second = write(&mut core, 2);
    core.disconnected(None);
    assert_eq!(first.try_recv(), Ok(Err(RemoteError::Unanswered)));
    assert_eq!(second.try_recv(), Err(TryRecvError::Empty));
    core.connected();
    assert!(matches!(sent(&mut core)[..], [Outgoing::Write { id: 2, .. }]));
}

#[test]
fn a_write_that_broke_the_connection_is_not_sent_again() {
    let mut core = connected();
    let mut answer = write(&mut core, 1);
    sent(&mut core);
    let error = RemoteError::BrokenOff { code: 1_009, reason: "too large".to_owned() };
    core.disconnected(Some(&error));
    assert_eq!(answer.try_recv(), Ok(Err(error)));
}

#[test]
fn a_write_given_up_before_it_was_sent_is_not_sent() {
    let mut core = connected();
    drop(write(&mut core, 1));
    let mut answer = write(&mut core, 2);
    assert!(matches!(sent(&mut core)[..], [Outgoing::Write { id: 2, .. }]));
    core.disconnected(None);
    core.end(None);
    assert_eq!(answer.try_recv(), Ok(Err(RemoteError::Unanswered)));
}

#[test]
fn a_closed_client_refuses_and_says_which_writes_were_never_sent() {
    let mut core = connected();
    let mut first = write(&mut core, 1);
    sent(&mut core);
    let mut second = write(&mut core, 2);
    core.command(Command::Close);
    assert_eq!(write(&mut core, 3).try_recv(), Ok(Err(RemoteError::Closed)));
    core.end(None);
    assert_eq!(first.try_recv(), Ok(Err(RemoteError::Unanswered)));
    assert_eq!(second.try_recv(), Ok(Err(RemoteError::Closed)));
}

#[test]
fn an_ack_with_the_wrong_number_of_sequences_is_no_answer() {
    let mut core = connected();
    let mut answer = write(&mut core, 1);
    sent(&mut core);
    core.receive(Incoming::Acked { id: 1, sequences: Vec::new() }).expect("a message");
    assert!(matches!(answer.try_recv(), Ok(Err(RemoteError::WrongAnswer(_)))));
}
