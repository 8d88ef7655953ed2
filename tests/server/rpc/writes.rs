//! Writes: acknowledged per entry, or refused with a helpful message.

use std::sync::Arc;

use eventlog_server::protocol::rpc::{
    Answer, Call, Envelope, ErrorCode, RequestId, encode_write_entries,
};
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::memory::MemoryStorage;
use eventlog_server::testing::fault::{FailedAppend, Faults, FaultyStorage};

use crate::support::auth::RejectAll;
use crate::support::rpc::{DEFAULT, Heard, RpcSocket, acks, framed_entry};
use crate::support::server::TestServer;
use crate::support::{batch, entry};

async fn alice() -> (TestServer, RpcSocket) {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    (server, client)
}

#[tokio::test]
async fn each_entry_is_acknowledged_in_the_order_of_the_request() {
    let (_server, mut client) = alice().await;
    let [one, two, three] = ["1", "2", "3"].map(|key| framed_entry("E", key, b"x"));
    // Ids do not ascend: sequences follow the request, and so do acknowledgements.
    let entries = [two.clone(), one.clone(), two.clone()];
    assert_eq!(client.write("alice", &entries).await, Ok(acks(&entries, &[1, 2, 1])));
    let again = [one, three, two];
    assert_eq!(client.write("alice", &again).await, Ok(acks(&again, &[2, 3, 1])));
    assert_eq!(client.write("alice", &[]).await, Ok(vec![]));
}

/// Requests are concurrent, and ids belong to the client: each comes back unchanged.
#[tokio::test]
async fn many_writes_at_once_are_answered_under_their_own_ids() {
    let (_server, mut client) = alice().await;
    let mut sent = Vec::new();
    for number in 0..200 {
        let entries = [framed_entry("E", &number.to_string(), b"")];
        sent.push((client.send_write("alice", DEFAULT, &batch(&entries)).await, entries));
    }
    for (sequence, (request, entries)) in (1..).zip(sent) {
        assert_eq!(client.acked(&request).await, Ok(acks(&entries, &[sequence])));
    }
}

#[tokio::test]
async fn frames_may_come_in_any_pieces() {
    let (_server, mut client) = alice().await;
    let entries = [framed_entry("E", "1", b"abc")];
    let data = encode_write_entries("alice", DEFAULT, &batch(&entries));
    let ids = [900, 901].map(RequestId::from_number);
    let frames = ids.each_ref().map(|id| Call::WriteSingle { data: &data }.encode(id));
    let stream = [&Envelope::Eof.encode()[..], &frames[0], &frames[1]].concat();
    // Byte by byte, with empty messages in between.
    for (at, byte) in stream.iter().enumerate() {
        client.send(&[*byte]).await;
        if at % 50 == 0 {
            client.send(&[]).await;
        }
    }
    for id in &ids {
        assert_eq!(client.acked(id).await, Ok(acks(&entries, &[1])));
    }
    // And all in one message; the ping does not have to wait for the disk.
    client.send(&[&frames[0][..], &frames[1], &Envelope::Ping.encode()].concat()).await;
    assert!(matches!(client.next().await, Heard::Pong));
    for id in &ids {
        assert_eq!(client.acked(id).await, Ok(acks(&entries, &[1])));
    }
}

/// A client repeats a refused write with everything else it has, forever: somebody has to be able to find the entry.
#[tokio::test]
async fn what_can_never_be_taken_names_its_entry_and_is_counted() {
    let (server, mut client) = alice().await;
    let good = framed_entry("E", "1", b"");
    let bad = [
        (framed_entry("", "1", b""), "the event is empty"),
        (entry("E", "1", b"no frame"), "the payload of entry 1"),
        (entry("E", "1", b""), "the payload of entry 1"),
        (entry("E", "1", b"\x01\x20\x01\x20"), "the payload of entry 1"),
    ];
    for (count, (bad, what)) in (1..).zip(bad) {
        let refused =
            client.write("alice", &[good.clone(), bad.clone()]).await.expect_err("refused");
        assert_eq!(
            (refused.code, &*refused.request_tag),
            (ErrorCode::InvalidRequest, "WriteEntries")
        );
        assert!(refused.message.contains(what), "{}", refused.message);
        assert!(refused.message.contains("entry 1 ("), "{}", refused.message);
        assert!(refused.message.contains(&bad.id.to_string()), "{}", refused.message);
        server.comes_to("eventlog_requests_refused_total", count).await;
    }
    // Nothing of them was stored.
    let entries = [good];
    assert_eq!(client.write("alice", &entries).await, Ok(acks(&entries, &[1])));
}

#[tokio::test]
async fn names_are_taken_up_to_what_a_message_carries() {
    let (server, mut client) = alice().await;
    let lengths = [0, 4_096, 4_097, 1 << 20, 15 << 20];
    let mut entries: Vec<_> =
        lengths.iter().map(|len| framed_entry("E", &"k".repeat(*len), b"")).collect();
    entries.push(framed_entry("E", "\0", b""));
    entries.push(framed_entry(&"e".repeat(1 << 20), "", b""));
    for (sequence, entry) in (1..).zip(&entries) {
        let entry = std::slice::from_ref(entry);
        assert_eq!(client.write("alice", entry).await, Ok(acks(entry, &[sequence])));
    }
    let mut reader = RpcSocket::authenticated(&server.rpc_url(), &["bob"]).await;
    let feed = reader.subscribe("bob", DEFAULT, 0).await;
    let read = reader.next_entries(&feed, entries.len()).await;
    assert!(read.into_iter().map(|(_, entry)| entry).eq(entries));
}

/// Half of a surrogate pair, as a careless encoder could write it.
#[tokio::test]
async fn text_that_is_not_utf8_is_refused_with_its_entry_and_the_connection_stays() {
    let (_server, mut client) = alice().await;
    let entries = [framed_entry("E", "good", b""), framed_entry("E", "half", b"")];
    let mut data = encode_write_entries("alice", DEFAULT, &batch(&entries));
    let at = data.windows(4).position(|text| text == b"half").expect("the key");
    data[at..at + 3].copy_from_slice(b"\xed\xa0\x80");
    let write = client.call(&Call::WriteSingle { data: &data }).await;
    let refused = client.refused(&write).await;
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    assert_eq!(refused.message, "entry 1: malformed: expected UTF-8");
    assert_eq!(client.write("alice", &entries).await, Ok(acks(&entries, &[1, 2])));
}

#[tokio::test]
async fn data_that_is_no_write_is_refused_and_not_a_crash() {
    let (_server, mut client) = alice().await;
    for data in [&b""[..], b"\x01\x20", b"\x01\x21", b"\x02\x20\x07", b"junk"] {
        let write = client.call(&Call::WriteSingle { data }).await;
        assert_eq!(client.refused(&write).await.code, ErrorCode::InvalidRequest, "{data:x?}");
    }
}

#[tokio::test]
async fn who_may_not_write_or_read_is_unauthorized() {
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let builder = Server::builder(storage, registry, Arc::new(RejectAll));
    let server = TestServer::start(builder, &[("alice", "team")]).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let refused = client.write("alice", &[framed_entry("E", "1", b"")]).await.expect_err("refused");
    assert_eq!(refused.code, ErrorCode::Unauthorized);
    let feed = client.subscribe("alice", DEFAULT, 0).await;
    assert_eq!(client.refused(&feed).await.code, ErrorCode::Unauthorized);
}

/// A success makes a client discard an entry: so there is none before the entry is known to be stored.
#[tokio::test]
async fn a_failed_append_is_a_typed_failure_and_the_retry_finds_out() {
    for how in [FailedAppend::IndefiniteStored, FailedAppend::IndefiniteLost] {
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::new()));
        let registry = Arc::new(MemoryRegistry::new());
        let builder = Server::builder(Arc::new(storage.clone()), registry, Arc::new(AllowAll));
        let server = TestServer::start(builder, &[("alice", "team")]).await;
        let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
        let entries = [framed_entry("E", "1", b"")];
        storage.set(Faults { append: Some((0, how)), ..Faults::default() });
        let refused = client.write("alice", &entries).await.expect_err("refused");
        assert_eq!(refused.code, ErrorCode::InternalServerError, "{how:?}");
        storage.set(Faults::default());
        loop {
            match client.write("alice", &entries).await {
                Ok(acked) => break assert_eq!(acked, acks(&entries, &[1]), "{how:?}"),
                Err(refused) => assert_eq!(refused.code, ErrorCode::InternalServerError),
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// The client has dropped the request. The write is stored as a whole anyway, and the connection continues.
#[tokio::test]
async fn an_interrupted_write_is_whole() {
    let (_server, mut client) = alice().await;
    let entries = [framed_entry("E", "1", b""), framed_entry("E", "2", b"")];
    let write = client.send_write("alice", DEFAULT, &batch(&entries)).await;
    client.interrupt(&write).await;
    assert_eq!(client.acked(&write).await, Ok(acks(&entries, &[1, 2])));
    client.interrupt(&write).await;
    client.interrupt(&RequestId::from_number(4_000)).await;
    client.nothing_comes().await;
}

/// Only servers send answers; a client that sends one gets no reply.
#[tokio::test]
async fn what_only_servers_say_is_passed_over() {
    let (_server, mut client) = alice().await;
    client.send(&Answer::Done.encode(&RequestId::from_number(7))).await;
    client.send(&Envelope::Pong.encode()).await;
    client.send(&Envelope::Eof.encode()).await;
    client.nothing_comes().await;
}
