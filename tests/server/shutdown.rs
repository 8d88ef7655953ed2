//! An orderly end.

use std::time::Duration;

use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};
use eventlog_server::protocol::msgpack::Response;
use eventlog_server::protocol::msgpack::decode_response;
use tokio_tungstenite::tungstenite::Message;

/// What was received is acknowledged, then the socket is closed with 1001.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_received_is_acknowledged_then_sockets_close_with_1001() {
    let mut server = TestServer::with_keys(&[("alice", "team")]).await;
    let mut idle = Socket::connect(&server.url()).await;
    let mut client = Socket::connect(&server.url()).await;
    for id in 0..50 {
        client.write(&key("alice"), id, &batch(&[entry("E", "", b"")])).await;
    }
    assert_eq!(client.next_ack().await.0, 0);
    let stopping = tokio::task::spawn_blocking(move || server.stop());
    let mut acked = 1;
    let code = loop {
        match client.next_message().await.expect("acks, then a close") {
            Message::Binary(bytes) => match decode_response(&bytes).expect("a response") {
                Response::Ack { id, .. } => {
                    assert_eq!(id, acked, "acks come in order");
                    acked += 1;
                }
                other => panic!("expected an ack, got {other:?}"),
            },
            Message::Close(frame) => break frame.map(|frame| u16::from(frame.code)),
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(code, Some(1001));
    assert_eq!(idle.close_code().await, Some(1001));
    tokio::time::timeout(Duration::from_secs(10), stopping)
        .await
        .expect("in time")
        .expect("stopped");
}
