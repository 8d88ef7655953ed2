//! Streams: their own writes, their ends, and what happens when nobody polls them.

use eventlog_server::client::{Options, RemoteError};
use eventlog_server::model::{Entry, Sequence};
use eventlog_server::protocol::msgpack::Request;
use futures_util::StreamExt;
use futures_util::future::join_all;

use super::{BOTH, connect_to, entries, hasty, next, numbered, take};
use crate::support::fake::FakeServer;
use crate::support::key;
use crate::support::server::TestServer;

#[tokio::test]
async fn a_stream_has_the_clients_own_writes_among_those_of_others() {
    for speaks in BOTH {
        let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
        let (alice, bob) = (speaks.connect(&server).await, speaks.connect(&server).await);
        let mut changes = alice.changes(&key("alice"), Sequence::ZERO);
        let writes = (0..200).map(|n| {
            let (remote, key) =
                if n % 3 == 0 { (&bob, key("bob")) } else { (&alice, key("alice")) };
            async move {
                let entries = entries(1 + n % 4);
                let sequences = remote.write(&key, entries.clone()).await.expect("an ack");
                sequences.iter().map(|s| s.get()).zip(entries).collect::<Vec<_>>()
            }
        });
        let mut written: Vec<(u64, Entry)> = join_all(writes).await.into_iter().flatten().collect();
        written.sort_by_key(|(sequence, _)| *sequence);
        assert!(written.iter().map(|(sequence, _)| *sequence).eq(1..=written.len() as u64));
        assert_eq!(take(&mut changes, written.len()).await, written);
    }
}

#[tokio::test]
async fn two_keys_of_one_store_in_one_client_both_have_everything() {
    for speaks in BOTH {
        let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
        let remote = speaks.connect(&server).await;
        let mut streams = [
            remote.changes(&key("alice"), Sequence::ZERO),
            remote.changes(&key("bob"), Sequence::FIRST),
        ];
        let (mut all, mut sequence) = (Vec::new(), 1);
        for n in 0..50 {
            let written = entries(1 + n % 3);
            let key = key(if n % 2 == 0 { "alice" } else { "bob" });
            remote.write(&key, written.clone()).await.expect("an ack");
            all.extend(numbered(sequence, &written));
            sequence += written.len() as u64;
        }
        for stream in &mut streams {
            assert_eq!(take(stream, all.len()).await, all);
        }
    }
}

#[tokio::test]
async fn a_duplicate_is_acknowledged_with_its_sequence_and_streamed_once() {
    for speaks in BOTH {
        let server = TestServer::with_keys(&[("alice", "team")]).await;
        let remote = speaks.connect(&server).await;
        let (alice, first, second) = (key("alice"), entries(3), entries(1));
        let mut changes = remote.changes(&alice, Sequence::ZERO);
        let sequences = remote.write(&alice, first.clone()).await.expect("an ack");
        let again = remote.write(&alice, [&first[1..], &second[..], &second[..]].concat());
        let again: Vec<u64> = again.await.expect("an ack").iter().map(|s| s.get()).collect();
        assert_eq!(sequences.len(), 3);
        assert_eq!(again, [2, 3, 4, 4]);
        assert_eq!(take(&mut changes, 4).await, numbered(1, &[first, second].concat()));
    }
}

#[tokio::test]
async fn a_stream_can_start_anywhere() {
    for speaks in BOTH {
        let server = TestServer::with_keys(&[("alice", "team")]).await;
        let remote = speaks.connect(&server).await;
        let (alice, written) = (key("alice"), entries(10));
        remote.write(&alice, written.clone()).await.expect("an ack");
        for start in [0, 1, 4, 10] {
            let first = start.max(1);
            let sequence = Sequence::new(start).expect("a sequence");
            let mut changes = remote.changes(&alice, sequence);
            let rest = numbered(first, &written[first as usize - 1..]);
            assert_eq!(take(&mut changes, rest.len()).await, rest, "from {start}");
        }
    }
}

#[tokio::test]
async fn a_second_stream_of_a_key_is_refused_until_the_first_is_dropped() {
    for speaks in BOTH {
        let server = TestServer::with_keys(&[("alice", "team")]).await;
        let remote = speaks.connect(&server).await;
        let (alice, written) = (key("alice"), entries(2));
        let mut first = remote.changes(&alice, Sequence::ZERO);
        let mut second = remote.changes(&alice, Sequence::ZERO);
        let error = next(&mut second).await.expect("an item").expect_err("a refusal");
        assert_eq!(error, RemoteError::AlreadyStreaming(alice.clone()));
        drop(second);
        remote.write(&alice, written.clone()).await.expect("an ack");
        assert_eq!(take(&mut first, 2).await, numbered(1, &written));
        drop(first);
        let mut third = remote.changes(&alice, Sequence::ZERO);
        assert_eq!(take(&mut third, 2).await, numbered(1, &written));
    }
}

#[tokio::test]
async fn dropping_a_stream_stops_the_changes() {
    let server = FakeServer::bind().await;
    let (remote, mut connection) = connect_to(&server, hasty()).await;
    let changes = remote.changes(&key("alice"), Sequence::ZERO);
    assert_eq!(connection.next_subscription().await, 1);
    drop(changes);
    let request = connection.next().await;
    assert_eq!(request, Request::StopChanges { public_key: key("alice") });
    let ping = connection.next_ping().await;
    connection.pong(ping).await;
    drop(remote);
    connection.ended().await;
}

#[tokio::test]
async fn a_stream_that_is_not_polled_holds_up_nobody_and_loses_nothing() {
    for speaks in BOTH {
        let server = TestServer::with_keys(&[("alice", "team"), ("bob", "den")]).await;
        let options = Options { read_ahead_entries: 50, ..speaks.options() };
        let reader = speaks.connect_with(&server, options).await;
        let mut idle = reader.changes(&key("alice"), Sequence::ZERO);
        let mut busy = reader.changes(&key("bob"), Sequence::ZERO);
        let writer = speaks.connect(&server).await;
        let (mut many, mut few) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            let (to_alice, to_bob) = (entries(40), entries(1));
            // The reader's own writes count as well: half of the entries are its own.
            let remote = if many.len() % 80 == 0 { &writer } else { &reader };
            remote.write(&key("alice"), to_alice.clone()).await.expect("an ack");
            reader.write(&key("bob"), to_bob.clone()).await.expect("an ack");
            few.extend(numbered(few.len() as u64 + 1, &to_bob));
            many.extend(numbered(many.len() as u64 + 1, &to_alice));
            assert_eq!(take(&mut busy, 1).await, few[few.len() - 1..]);
        }
        assert!(take(&mut idle, many.len()).await == many);
    }
}

#[tokio::test]
async fn a_full_stream_asks_the_server_to_stop_and_goes_on_where_it_stood() {
    let server = FakeServer::bind().await;
    let options = Options { read_ahead_entries: 3, ..hasty() };
    let (remote, mut connection) = connect_to(&server, options).await;
    let (alice, all) = (key("alice"), numbered(1, &entries(9)));
    let mut changes = remote.changes(&alice, Sequence::ZERO);
    assert_eq!(connection.next_subscription().await, 1);
    connection.changes(&alice, &all[..2]).await;
    connection.changes(&alice, &all[2..4]).await;
    let request = connection.next().await;
    assert_eq!(request, Request::StopChanges { public_key: alice.clone() });
    // It was in flight; it comes again.
    connection.changes(&alice, &all[4..6]).await;
    let ping = connection.next_ping().await;
    connection.pong(ping).await;
    assert_eq!(take(&mut changes, 4).await, all[..4]);
    assert_eq!(connection.next_subscription().await, 5);
    connection.changes(&alice, &all[4..]).await;
    assert_eq!(take(&mut changes, 5).await, all[4..]);
}

#[tokio::test]
async fn closing_answers_what_was_written_and_ends_the_streams() {
    for speaks in BOTH {
        let server = TestServer::with_keys(&[("alice", "team")]).await;
        let remote = speaks.connect(&server).await;
        let (alice, written) = (key("alice"), entries(5));
        let mut changes = remote.changes(&alice, Sequence::ZERO);
        let (sequences, ()) = tokio::join!(remote.write(&alice, written.clone()), remote.close());
        assert_eq!(sequences.expect("an ack").len(), 5);
        assert_eq!(take(&mut changes, 5).await, numbered(1, &written));
        assert_eq!(next(&mut changes).await, None);
        assert_eq!(remote.write(&alice, entries(1)).await, Err(RemoteError::Closed));
        let mut late = remote.changes(&alice, Sequence::ZERO);
        assert_eq!(next(&mut late).await, Some(Err(RemoteError::Closed)));
        remote.close().await;
    }
}

#[tokio::test]
async fn pages_have_what_changes_have() {
    for speaks in BOTH {
        let server = TestServer::with_keys(&[("alice", "team")]).await;
        let (remote, writer) = (speaks.connect(&server).await, speaks.connect(&server).await);
        let (alice, written) = (key("alice"), entries(5_000));
        writer.write(&alice, written.clone()).await.expect("an ack");
        let mut pages = remote.pages(&alice, Sequence::ZERO);
        let mut read = Vec::new();
        while read.len() < written.len() {
            let page = pages.next().await.expect("a page").expect("a page");
            assert_eq!(page.len(), page.to_entries().len());
            assert_eq!(page.iter().last().map(|(sequence, _)| sequence), Some(page.last()));
            read.extend(page.iter().map(|(sequence, entry)| (sequence.get(), entry.to_entry())));
        }
        assert!(read == numbered(1, &written));
    }
}
