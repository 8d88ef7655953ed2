//! Writes that come in parts, each a request of its own.

use eventlog_server::model::Limits;
use eventlog_server::protocol::rpc::{Call, ErrorCode, Part, RequestId, encode_write_entries};

use crate::support::batch;
use crate::support::rpc::{DEFAULT, Heard, RpcSocket, acks, framed_entry, identity};
use crate::support::server::TestServer;

const TEAM: [(&str, &str); 2] = [("alice", "team"), ("bob", "team")];

fn data(entries: &[eventlog_server::model::Entry]) -> Vec<u8> {
    encode_write_entries("alice", DEFAULT, &batch(entries))
}

#[tokio::test]
async fn the_completing_part_is_acknowledged_in_whatever_order_they_come() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let entries =
        [framed_entry("E", "1", &vec![7; 900_000]), framed_entry("E", "2", &vec![8; 900_000])];
    let data = data(&entries);
    let small = [framed_entry("E", "3", b"")];
    let mut sent = Vec::new();
    // Two sets at once, and a part that comes twice.
    for (set, index) in [(4, 3), (4, 0), (-5, 1), (4, 2), (4, 0)] {
        let (data, total) = if set == 4 { (&data, 4) } else { (&self::data(&small), 2) };
        sent.push(client.send_part(set, (index, total), data).await);
    }
    for part in &sent {
        assert_eq!(client.acked(part).await, Ok(vec![]));
    }
    let last = client.send_part(4, (1, 4), &data).await;
    assert_eq!(client.acked(&last).await, Ok(acks(&entries, &[1, 2])));
    let last = client.send_part(-5, (0, 2), &self::data(&small)).await;
    assert_eq!(client.acked(&last).await, Ok(acks(&small, &[3])));
}

/// Effect's own server discards them and still answers success for the rest: a write is lost, and nobody knows.
#[tokio::test]
async fn unfinished_sets_survive_another_authenticate() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let entries = [framed_entry("E", "1", &[7; 1_000])];
    let data = data(&entries);
    let part = client.send_part(0, (0, 2), &data).await;
    assert_eq!(client.acked(&part).await, Ok(vec![]));
    client.authenticate(&identity("alice")).await.expect("authenticated");
    client.authenticate(&identity("bob")).await.expect("authenticated");
    let part = client.send_part(0, (1, 2), &data).await;
    assert_eq!(client.acked(&part).await, Ok(acks(&entries, &[1])));
}

/// The success of a part says nothing about the write; the answer to the last part does, even if that is refused.
#[tokio::test]
async fn the_completing_part_says_what_became_of_the_write() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let good = [framed_entry("E", "1", b"abc")];
    for (whose, code) in [
        (encode_write_entries("bob", DEFAULT, &batch(&good)), ErrorCode::Forbidden),
        (encode_write_entries("alice", "elsewhere", &batch(&good)), ErrorCode::NotFound),
        (
            encode_write_entries("alice", DEFAULT, &batch(&[framed_entry("", "", b"")])),
            ErrorCode::InvalidRequest,
        ),
        (vec![1; 40], ErrorCode::InvalidRequest),
    ] {
        let first = client.send_part(0, (0, 2), &whose).await;
        assert_eq!(client.acked(&first).await, Ok(vec![]));
        let last = client.send_part(0, (1, 2), &whose).await;
        assert_eq!(client.refused(&last).await.code, code);
    }
    // The set was discarded with it.
    let data = data(&good);
    for (index, expected) in [(1, vec![]), (0, acks(&good, &[1]))] {
        let part = client.send_part(0, (index, 2), &data).await;
        assert_eq!(client.acked(&part).await, Ok(expected));
    }
}

#[tokio::test]
async fn a_total_that_is_absurd_or_changes_is_refused_and_so_is_the_rest_of_its_set() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let send = |id, index, total| Call::WriteChunked(Part { id, index, total, data: b"x" });
    let absurd = client.call(&send(1, 0, 1 << 40)).await;
    assert_eq!(client.refused(&absurd).await.code, ErrorCode::InvalidRequest);
    let begun = client.call(&send(2, 0, 3)).await;
    assert_eq!(client.acked(&begun).await, Ok(vec![]));
    let changed = client.call(&send(2, 1, 4)).await;
    assert_eq!(client.refused(&changed).await.code, ErrorCode::InvalidRequest);
    // If these were accepted, the client would think that the write is stored.
    for index in [1, 2] {
        let late = client.call(&send(2, index, 3)).await;
        assert_eq!(client.refused(&late).await.code, ErrorCode::InvalidRequest);
    }
    // From its beginning on it is another write.
    let entries = [framed_entry("E", "1", b"abc")];
    for (index, expected) in [(0, vec![]), (1, acks(&entries, &[1]))] {
        let part = client.send_part(2, (index, 2), &data(&entries)).await;
        assert_eq!(client.acked(&part).await, Ok(expected));
    }
    // A part beyond its total is a payload that cannot be decoded: here part 2, counting from 0, of 2.
    let id = RequestId::from_number(4_000);
    let mut beyond = send(3, 1, 2).encode(&id).to_vec();
    let place = [2, 2, 4];
    let at = beyond.windows(3).position(|bytes| bytes == place).expect("index and total");
    beyond[at + 1] = 4;
    client.send(&beyond).await;
    assert!(matches!(client.next().await, Heard::Died(died, _) if died == id));
}

/// If it were only ignored, the client would believe that the acknowledged parts are stored.
#[tokio::test]
async fn a_set_that_stays_unfinished_ends_the_connection() {
    let chunk_set_age_max = std::time::Duration::from_millis(200);
    let limits = Limits { chunk_set_age_max, ..Limits::default() };
    let server = TestServer::with_limits(limits, &TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let part = client.send_part(0, (0, 2), b"xy").await;
    assert_eq!(client.acked(&part).await, Ok(vec![]));
    assert_eq!(client.socket.close_code().await, Some(1002));
}

/// On a slow line a part takes longer than the period over which a set is checked. What counts is that bytes arrive.
#[tokio::test]
async fn a_set_whose_parts_come_slowly_is_no_broken_one() {
    let second = std::time::Duration::from_secs(1);
    let limits = Limits { chunk_set_age_max: second, ..Limits::default() };
    let server = TestServer::with_limits(limits, &TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let entries = [framed_entry("E", "1", &vec![7; 40_000])];
    let data = data(&entries);
    let half = data.len() / 2 + 1;
    let part = |index: usize| Part {
        id: 0,
        index: index as u64,
        total: 2,
        data: &data[index * half..data.len().min((index + 1) * half)],
    };
    let first = client.call(&Call::WriteChunked(part(0))).await;
    assert_eq!(client.acked(&first).await, Ok(vec![]));
    let id = RequestId::from_number(7_000);
    let second_part = Call::WriteChunked(part(1)).encode(&id);
    // About 5 KB a second, for four of them.
    for some in second_part.chunks(second_part.len() / 16 + 1) {
        client.send(some).await;
        tokio::time::sleep(second / 4).await;
    }
    assert_eq!(client.acked(&id).await, Ok(acks(&entries, &[1])));
}

/// Everything that a client has not sent yet comes in one write: up to 32 MiB it is accepted, and delivered to others
/// in pages that they can read.
#[tokio::test]
async fn a_write_of_25_megabytes_is_taken_and_delivered() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let entries: Vec<_> =
        (0..25).map(|n| framed_entry("E", &n.to_string(), &vec![n; 1_000_000])).collect();
    let data = data(&entries);
    let total = data.len().div_ceil(512_000) as u64;
    for index in 0..total - 1 {
        let part = client.send_part(0, (index, total), &data).await;
        assert_eq!(client.acked(&part).await, Ok(vec![]));
    }
    let last = client.send_part(0, (total - 1, total), &data).await;
    let sequences: Vec<u64> = (1..=25).collect();
    assert_eq!(client.acked(&last).await, Ok(acks(&entries, &sequences)));
    let mut reader = RpcSocket::authenticated(&server.rpc_url(), &["bob"]).await;
    let feed = reader.subscribe("bob", DEFAULT, 0).await;
    let expected: Vec<_> = sequences.into_iter().zip(entries).collect();
    assert!(reader.next_entries(&feed, 25).await == expected);
}
