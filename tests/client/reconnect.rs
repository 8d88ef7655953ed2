//! Lost connections.

use std::time::Duration;

use eventlog_server::client::{self, ConnectError, EventLogRemote, Options, RemoteError};
use eventlog_server::model::{RemoteId, Sequence};
use eventlog_server::protocol::msgpack::{ErrorCode, encode_error};
use tokio_tungstenite::tungstenite::Message;

use super::{connect_to, entries, hasty, next, numbered, take};
use crate::support::fake::FakeServer;
use crate::support::key;

fn sequence(n: u64) -> Sequence {
    Sequence::new(n).expect("a sequence")
}

#[tokio::test]
async fn a_stream_goes_on_behind_what_it_has_delivered() {
    let server = FakeServer::bind().await;
    let (remote, mut first) = connect_to(&server, hasty()).await;
    let (alice, all) = (key("alice"), numbered(1, &entries(6)));
    let mut changes = remote.changes(&alice, Sequence::ZERO);
    assert_eq!(first.next_subscription().await, 1);
    first.changes(&alice, &all[..4]).await;
    assert_eq!(take(&mut changes, 4).await, all[..4]);
    drop(first);
    let mut second = server.accept().await;
    assert_eq!(second.next_subscription().await, 5);
    second.changes(&alice, &all[3..]).await;
    assert_eq!(take(&mut changes, 2).await, all[4..]);
}

/// The connection broke between commit and ack. The new one did not write the entry, so it is fed; the resent write is
/// acknowledged as a duplicate, and must not deliver the entry a second time.
#[tokio::test]
async fn a_write_whose_ack_was_lost_is_sent_again_and_streamed_once() {
    let server = FakeServer::bind().await;
    let (remote, mut first) = connect_to(&server, hasty()).await;
    let (alice, all) = (key("alice"), numbered(1, &entries(3)));
    let mut changes = remote.changes(&alice, Sequence::ZERO);
    assert_eq!(first.next_subscription().await, 1);
    let write = remote.write(&alice, all[0].1.clone());
    let served = async {
        let sent = first.next_write().await;
        drop(first);
        let mut second = server.accept().await;
        assert_eq!(second.next_subscription().await, 1);
        assert_eq!(second.next_write().await.batch, sent.batch);
        second.changes(&alice, &all[..2]).await;
        second.ack(sent.id, &[1]).await;
        second.changes(&alice, &all[2..]).await;
        second
    };
    let (sequences, _second) = tokio::join!(write, served);
    assert_eq!(sequences, Ok(vec![sequence(1)]));
    assert_eq!(take(&mut changes, 3).await, all);
}

#[tokio::test]
async fn without_resending_a_lost_answer_is_an_indefinite_failure() {
    let server = FakeServer::bind().await;
    let options = Options { resend_writes: false, ..hasty() };
    let (remote, mut first) = connect_to(&server, options).await;
    let alice = key("alice");
    let write = remote.write(&alice, entries(1));
    let served = async {
        first.next_write().await;
        drop(first);
    };
    let (answer, ()) = tokio::join!(write, served);
    let error = answer.expect_err("a failure");
    assert_eq!((&error, error.is_definite()), (&RemoteError::Unanswered, false));
    let mut second = server.accept().await;
    let write = remote.write(&alice, entries(1));
    let served = async {
        let write = second.next_write().await;
        second.ack(write.id, &[1]).await;
    };
    let (sequences, ()) = tokio::join!(write, served);
    assert_eq!(sequences, Ok(vec![sequence(1)]));
}

#[tokio::test]
async fn a_write_that_the_server_hangs_up_on_is_not_sent_for_ever() {
    let server = FakeServer::bind().await;
    let (remote, mut first) = connect_to(&server, hasty()).await;
    let alice = key("alice");
    let write = remote.write(&alice, entries(1));
    let served = async {
        first.next_write().await;
        first.close(1_009, "too large for me").await;
    };
    let (answer, ()) = tokio::join!(write, served);
    let expected = RemoteError::BrokenOff { code: 1_009, reason: "too large for me".to_owned() };
    assert_eq!(answer, Err(expected));
}

#[tokio::test]
async fn a_failed_disk_is_told_and_known_to_be_indefinite() {
    let server = FakeServer::bind().await;
    let (remote, mut connection) = connect_to(&server, hasty()).await;
    let alice = key("alice");
    let served = async {
        let write = connection.next_write().await;
        connection.refuse_write(&write, ErrorCode::InternalServerError, "disk failed").await;
    };
    let (answer, ()) = tokio::join!(remote.write(&alice, entries(1)), served);
    let error = answer.expect_err("a refusal");
    assert!(matches!(
        error,
        RemoteError::Rejected { code: client::ErrorCode::InternalServerError, .. }
    ));
    assert!(!error.is_definite());
}

#[tokio::test]
async fn an_answer_to_nothing_is_passed_over() {
    let server = FakeServer::bind().await;
    let (remote, mut connection) = connect_to(&server, hasty()).await;
    let alice = key("alice");
    connection.ack(77, &[1]).await;
    connection.changes(&alice, &numbered(1, &entries(1))).await;
    let code = ErrorCode::InvalidRequest;
    connection.send(|out| encode_error(out, "WriteEntries", Some(9), None, code, "what?")).await;
    connection.send(|out| encode_error(out, "Nonsense", None, None, code, "what?")).await;
    let served = async {
        let write = connection.next_write().await;
        connection.ack(write.id, &[1]).await;
    };
    let (answer, ()) = tokio::join!(remote.write(&alice, entries(1)), served);
    assert_eq!(answer, Ok(vec![sequence(1)]));
}

#[tokio::test]
async fn a_connection_whose_ping_is_answered_wrongly_or_not_at_all_is_given_up() {
    let server = FakeServer::bind().await;
    let options = Options { ping_interval: Duration::from_secs(1), ..hasty() };
    let (_remote, mut first) = connect_to(&server, options).await;
    let ping = first.next_ping().await;
    first.pong(ping).await;
    let ping = first.next_ping().await;
    first.pong(ping + 1).await;
    let mut second = server.accept().await;
    second.next_ping().await;
    first.ended().await;
    server.accept().await;
    second.ended().await;
}

#[tokio::test]
async fn nonsense_from_the_server_ends_the_connection_not_the_client() {
    let server = FakeServer::bind().await;
    let (remote, mut connection) = connect_to(&server, hasty()).await;
    let mut changes = remote.changes(&key("alice"), Sequence::ZERO);
    for nonsense in [Message::text("hello"), Message::binary(&b"\xc1"[..]), Message::Close(None)] {
        assert_eq!(connection.next_subscription().await, 1);
        futures_util::SinkExt::send(&mut connection.stream, nonsense).await.expect("sent");
        connection.ended().await;
        connection = server.accept().await;
    }
    assert_eq!(connection.next_subscription().await, 1);
    let all = numbered(1, &entries(1));
    connection.changes(&key("alice"), &all).await;
    assert_eq!(take(&mut changes, 1).await, all);
}

#[tokio::test]
async fn another_server_behind_the_same_address_ends_the_client() {
    let server = FakeServer::bind().await;
    let (remote, first) = connect_to(&server, hasty()).await;
    let mut changes = remote.changes(&key("alice"), Sequence::ZERO);
    drop(first);
    let other = RemoteId::random();
    let mut second = server.accept_silently().await;
    second.hello(&other).await;
    let expected = RemoteError::OtherServer { expected: server.remote_id, found: other };
    assert_eq!(next(&mut changes).await, Some(Err(expected)));
    assert_eq!(next(&mut changes).await, None);
    assert_eq!(remote.write(&key("alice"), entries(1)).await, Err(RemoteError::Closed));
}

#[tokio::test]
async fn a_client_without_a_connection_can_be_closed() {
    let server = FakeServer::bind().await;
    let (remote, mut first) = connect_to(&server, hasty()).await;
    let alice = key("alice");
    let served = async {
        first.next_write().await;
        // Nobody accepts the next connection's handshake.
        drop(first);
        remote.close().await;
    };
    let (answer, ()) = tokio::join!(remote.write(&alice, entries(1)), served);
    assert_eq!(answer, Err(RemoteError::Unanswered));
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_says_why() {
    async fn failing(url: &str, options: Options) -> ConnectError {
        EventLogRemote::connect(url, options).await.expect_err("no connection")
    }
    for url in ["", "no url", "http://127.0.0.1/eventlog", "ws://", "127.0.0.1:7420"] {
        let error = failing(url, Options::default()).await;
        assert!(matches!(error, ConnectError::InvalidOptions { .. }), "{url:?}: {error}");
    }
    let headers = vec![("no name".to_owned(), String::new())];
    let error = failing("ws://127.0.0.1/", Options { headers, ..Options::default() }).await;
    assert!(matches!(error, ConnectError::InvalidOptions { .. }), "{error}");

    let server = FakeServer::bind().await;
    let url = server.url();
    let impatient = Options { connect_timeout: Duration::from_secs(1), ..Options::default() };
    let (error, _silent) = tokio::join!(failing(&url, impatient), server.accept_silently());
    assert!(matches!(error, ConnectError::TimedOut), "{error}");
    let wrong = async {
        let mut connection = server.accept_silently().await;
        connection.pong(1).await;
        connection
    };
    let (error, _wrong) = tokio::join!(failing(&url, Options::default()), wrong);
    assert!(matches!(error, ConnectError::NotHello(_)), "{error}");
    drop(server);
    let error = failing(&url, Options::default()).await;
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
}
