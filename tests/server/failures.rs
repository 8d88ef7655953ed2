//! Every row of the protocol's table of failures: the answer is as documented, and the server stays up.

use eventlog_server::protocol::msgpack::ErrorCode;

use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

async fn server() -> TestServer {
    TestServer::with_keys(&[("alice", "team")]).await
}

/// The connection continues: a write is acknowledged.
async fn still_works(client: &mut Socket) {
    client.write(&key("alice"), 77, &batch(&[entry("E", "", b"")])).await;
    let (id, sequences) = client.next_ack().await;
    assert_eq!((id, sequences.len()), (77, 1));
}

#[tokio::test]
async fn a_bad_value_is_refused_and_the_connection_stays() {
    let server = server().await;
    let mut client = Socket::connect(&server.url()).await;
    let good = entry("E", "k", b"");
    let mut unnamed = good.clone();
    unnamed.event.clear();
    client.write(&key("alice"), 5, &batch(&[good.clone(), unnamed])).await;
    let refusal = client.next_refusal().await;
    assert_eq!(refusal.code, ErrorCode::InvalidRequest);
    assert_eq!((refusal.id, refusal.public_key.as_deref()), (Some(5), Some("alice")));
    assert!(refusal.message.contains("entry 1"), "{}", refusal.message);
    still_works(&mut client).await;
    let mut reader = Socket::connect(&server.url()).await;
    reader.subscribe(&key("alice"), 0).await;
    assert_eq!(reader.next_entries(1).await.len(), 1, "the whole batch was refused");
}

#[tokio::test]
async fn a_sequence_that_is_no_natural_number_is_refused_and_the_connection_stays() {
    let server = server().await;
    let mut client = Socket::connect(&server.url()).await;
    let start = |number: &[u8]| {
        let head = b"\x83\xa4_tag\xaeRequestChanges\xa9publicKey\xa5alice\xadstartSequence";
        [head, number].concat()
    };
    let negative: &[u8] = b"\xff";
    let fraction: &[u8] = b"\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00";
    let above: &[u8] = b"\xcb\x43\x40\x00\x00\x00\x00\x00\x00";
    for number in [negative, fraction, above, b"\xa1x"] {
        client.send_bytes(&start(number)).await;
        let refusal = client.next_refusal().await;
        assert_eq!(refusal.code, ErrorCode::InvalidRequest);
        assert_eq!(refusal.request_tag, "RequestChanges");
        assert_eq!(refusal.public_key.as_deref(), Some("alice"));
    }
    still_works(&mut client).await;
}

#[tokio::test]
async fn what_means_nothing_closes_its_connection_alone() {
    let server = server().await;
    let mut bystander = Socket::connect(&server.url()).await;
    let chunk = |id: u8, index: u8, total: u8, data: &[u8]| {
        let head = [b"\x84\xa4_tag\xaeChunkedMessage\xa2id", &[id][..], b"\xa4part\x92"].concat();
        [&head[..], &[index, total], b"\xa4data\xc4", &[data.len() as u8], data].concat()
    };
    let cases: [(&[&[u8]], u16); 6] = [
        (&[b"\xc1"], 1007),
        (&[b"\x81\xa4_tag\xa4What"], 1007),
        (&[b"\x80"], 1007),
        (&[b"\x82\xa4_tag\xa4Ping\xa2id\x01\x00"], 1007),
        (&[&chunk(1, 0, 2, b"ab"), &chunk(1, 1, 3, b"cd")], 1002),
        (&[&chunk(1, 2, 2, b"ab")], 1002),
    ];
    for (messages, code) in cases {
        let mut client = Socket::connect(&server.url()).await;
        for message in messages {
            client.send_bytes(message).await;
        }
        assert_eq!(client.close_code().await, Some(code), "{messages:?}");
    }
    still_works(&mut bystander).await;
}

#[tokio::test]
async fn a_text_frame_is_closed_with_1003() {
    let server = server().await;
    let mut client = Socket::connect(&server.url()).await;
    client.send_text("hello").await;
    assert_eq!(client.close_code().await, Some(1003));
}

#[tokio::test]
async fn a_frame_above_the_limit_is_closed_with_1009() {
    let server = server().await;
    let mut client = Socket::connect(&server.url()).await;
    client.send_too_much(&vec![0; 1_100_000]).await;
    assert_eq!(client.close_code().await, Some(1009));
}

#[tokio::test]
async fn a_chunk_set_that_is_not_finished_in_time_is_closed() {
    let limits = eventlog_server::model::Limits {
        chunk_set_age_max: std::time::Duration::from_millis(200),
        ..Default::default()
    };
    let server = TestServer::with_limits(limits, &[("alice", "team")]).await;
    let mut client = Socket::connect(&server.url()).await;
    client
        .send_bytes(
            b"\x84\xa4_tag\xaeChunkedMessage\xa2id\x01\xa4part\x92\x00\x02\xa4data\xc4\x01x",
        )
        .await;
    assert_eq!(client.close_code().await, Some(1002));
}

/// A page of another site cannot open a WebSocket from a visitor's browser.
#[tokio::test]
async fn a_foreign_origin_is_refused() {
    let server = server().await;
    let status = Socket::refused_status(&server.url(), &[("Origin", "https://evil.example")]).await;
    assert_eq!(status, 403);
    let own = format!("http://{}", server.addr);
    Socket::connect_with(&server.url(), &[("Origin", &own)]).await;
}
