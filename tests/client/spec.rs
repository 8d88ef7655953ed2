//! The specification's "Remote client tests", under its names.

use std::sync::Arc;

use eventlog_server::client::{ErrorCode, Options, RemoteError};
use eventlog_server::model::{Batch, Entry, Limits, PublicKey, Sequence};
use eventlog_server::protocol::msgpack::{Request, decode_request};
use eventlog_server::server::Server;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::services::{Auth, AuthError, AuthReason, Claim};
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::{BOTH, Speaks, connect_to, entries, hasty, next, numbered, take};
use crate::support::fake::FakeServer;
use crate::support::server::TestServer;
use crate::support::{entry, framed, key};

/// Refuses all requests with the key `mallory`.
struct NotMallory;

impl NotMallory {
    fn check<'a>(key: &PublicKey) -> BoxFuture<'a, Result<(), AuthError>> {
        let refused = AuthError {
            reason: AuthReason::Forbidden,
            key: key.clone(),
            message: "mallory stays outside".into(),
        };
        ready(if key.as_str() == "mallory" { Err(refused) } else { Ok(()) }).boxed()
    }
}

impl Auth for NotMallory {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        _entries: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        Self::check(claim.key)
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        Self::check(claim.key)
    }
}

async fn without_mallory() -> TestServer {
    let storage = Arc::new(MemoryStorage::new());
    let builder = Server::builder(storage, Arc::new(MemoryRegistry::new()), Arc::new(NotMallory));
    TestServer::start(builder, &[("mallory", "team"), ("alice", "team")]).await
}

impl Speaks {
    /// The tag of a refused subscription.
    fn changes_tag(self) -> &'static str {
        match self {
            Self::Msgpack => "RequestChanges",
            Self::Rpc => "Changes",
        }
    }

    fn unknown_store_code(self) -> ErrorCode {
        match self {
            Self::Msgpack => ErrorCode::InvalidRequest,
            Self::Rpc => ErrorCode::NotFound,
        }
    }
}

/// What a refusal must contain: its code, its tag, and words in its message.
fn assert_rejected(error: &RemoteError, code: ErrorCode, tag: &str, words: &str) {
    let RemoteError::Rejected { code: found, request_tag, message } = error else {
        panic!("not a refusal: {error}");
    };
    assert_eq!((*found, request_tag.as_str()), (code, tag));
    assert!(message.contains(words), "{message:?} does not say {words:?}");
    assert!(error.is_definite());
}

#[tokio::test]
async fn from_socket_unencrypted_uses_the_unencrypted_codec_path() {
    let server = FakeServer::bind().await;
    let (remote, mut connection) = connect_to(&server, hasty()).await;
    assert_eq!(remote.id(), server.remote_id);
    let (alice, note) = (key("alice"), entry("Note", "n1", b"plain text"));
    let mut changes = remote.changes(&alice, Sequence::FIRST);
    let written = remote.write(&alice, note.clone());
    let served = async {
        assert_eq!(connection.next_subscription().await, 1);
        let frame = connection.next_frame().await;
        assert!(frame.windows(10).any(|bytes| bytes == b"plain text"), "{frame:?}");
        let request = decode_request(&frame, &Limits::default()).expect("a request");
        let Request::Write(write) = request else { panic!("not a write: {request:?}") };
        assert_eq!((write.public_key, write.batch), (key("alice"), Batch::from(note.clone())));
        connection.ack(write.id, &[1]).await;
        connection.changes(&alice, &[(2, note.clone())]).await;
    };
    let (sequences, ()) = tokio::join!(written, served);
    assert_eq!(sequences, Ok(vec![Sequence::FIRST]));
    assert_eq!(take(&mut changes, 2).await, [(1, note.clone()), (2, note)]);
}

#[tokio::test]
async fn error_unencrypted_fails_pending_writes_with_event_log_remote_error() {
    for speaks in BOTH {
        let server = without_mallory().await;
        let remote = speaks.connect(&server).await;
        let (mallory, alice) = (key("mallory"), key("alice"));
        let (refused, accepted) = tokio::join!(
            remote.write(&mallory, entries(2)),
            remote.write(&alice, entries(2)), // in flight at the same time, and none the worse
        );
        let refused = refused.expect_err("a refusal");
        assert_rejected(&refused, ErrorCode::Unauthorized, "WriteEntries", "mallory stays outside");
        assert_eq!(accepted.expect("an ack").len(), 2);
    }
}

#[tokio::test]
async fn rejected_read_subscriptions_surface_an_event_log_remote_error() {
    for speaks in BOTH {
        let server = without_mallory().await;
        let remote = speaks.connect(&server).await;
        let (mallory, alice) = (key("mallory"), key("alice"));
        let mut outside = remote.changes(&mallory, Sequence::ZERO);
        let mut inside = remote.changes(&alice, Sequence::ZERO);
        let refused = next(&mut outside).await.expect("an item").expect_err("a refusal");
        assert_rejected(
            &refused,
            ErrorCode::Unauthorized,
            speaks.changes_tag(),
            "mallory stays outside",
        );
        assert_eq!(next(&mut outside).await, None, "it has ended");
        let written = entries(1);
        remote.write(&alice, written.clone()).await.expect("an ack");
        assert_eq!(take(&mut inside, 1).await, numbered(1, &written));
    }
}

#[tokio::test]
async fn store_resolution_failures_surface_as_the_expected_unencrypted_protocol_error() {
    for speaks in BOTH {
        let server = TestServer::with_keys(&[]).await;
        let remote = speaks.connect(&server).await;
        let nobody = key("nobody");
        let write = remote.write(&nobody, entries(1)).await.expect_err("a refusal");
        assert_rejected(&write, speaks.unknown_store_code(), "WriteEntries", "nobody");
        let mut changes = remote.changes(&nobody, Sequence::ZERO);
        let read = next(&mut changes).await.expect("an item").expect_err("a refusal");
        assert_rejected(&read, speaks.unknown_store_code(), speaks.changes_tag(), "nobody");
    }
}

#[tokio::test]
async fn chunked_unencrypted_messages_round_trip_correctly() {
    for speaks in BOTH {
        let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
        let (alice, bob) = (speaks.connect(&server).await, speaks.connect(&server).await);
        // A message of many parts, made of small entries; and one entry that alone exceeds the chunk size.
        let small: Vec<Entry> = (0..3_000_u16)
            .map(|n| entry("Note", "n", &framed(&n.to_be_bytes().repeat(250))))
            .collect();
        let large = entry("Note", "n", &framed(&vec![7; 1_300_000]));
        alice.write(&key("alice"), small.clone()).await.expect("an ack");
        let sequence = alice.write(&key("alice"), large.clone()).await.expect("an ack");
        assert_eq!(sequence[0].get(), 3_001);
        let mut changes = bob.changes(&key("bob"), Sequence::ZERO);
        let mut expected = numbered(1, &small);
        expected.push((3_001, large));
        assert!(take(&mut changes, 3_001).await == expected);
    }
}

#[tokio::test]
async fn a_batch_above_the_message_limit_is_refused_before_it_is_sent() {
    for speaks in BOTH {
        let server = TestServer::with_keys(&[("alice", "team")]).await;
        let options = Options { message_bytes_max: 600_000, ..speaks.options() };
        let remote = speaks.connect_with(&server, options).await;
        let large = entry("Note", "n", &framed(&vec![7; 600_000]));
        let refused = remote.write(&key("alice"), large).await.expect_err("a refusal");
        assert!(matches!(refused, RemoteError::TooLarge { bytes_max: 600_000, .. }), "{refused}");
        assert!(remote.write(&key("alice"), entries(1)).await.is_ok());
    }
}
