//! Large writes that wait, are refused, or take long to check, on the binary. See `large` for those that are stored.

use eventlog_server::model::Entry;
use eventlog_server::model::limits::CHUNK_BYTES;
use eventlog_server::protocol::rpc::{Call, ErrorCode, Part, RequestId, encode_write_entries};

use super::logged::Logged;
use crate::support::rpc::{DEFAULT, Heard, RpcSocket, acks, framed_entry};
use crate::support::{batch, entry, http, server};

/// Alice and Bob share a store, and may write events `E` and no others.
fn configuration(spill_bytes_max: &str, limits: &str) -> String {
    let key = |name: &str| {
        format!(
            "[[assign]]\npublic_key = {name:?}\nstore_id = \"team\"\n\
             [[auth.grant]]\npublic_key = {name:?}\nread = true\nwrite = true\nevents = [\"E\", \"\"]\n"
        )
    };
    let (alice, bob) = (key("alice"), key("bob"));
    format!(
        "spill_bytes_max = {spill_bytes_max:?}\n[auth]\nmode = \"grants\"\nbind = \"first-use\"\n{alice}{bob}[limits]\n{limits}\n"
    )
}

/// What exceeds this goes to disk.
const SMALL: &str = "message_bytes_max = 600_000\nbatch_entries_max = 100";

async fn client(server: &Logged, name: &str) -> RpcSocket {
    RpcSocket::authenticated(&server.url().replace("/eventlog", "/rpc"), &[name]).await
}

fn entries(count: usize, bytes: usize) -> Vec<Entry> {
    (0..count).map(|n| framed_entry("E", &n.to_string(), &vec![7; bytes])).collect()
}

fn data(name: &str, entries: &[Entry]) -> Vec<u8> {
    encode_write_entries(name, DEFAULT, &batch(entries))
}

async fn send(client: &mut RpcSocket, set: i64, index: usize, data: &[u8]) -> RequestId {
    let (total, part) = (data.len().div_ceil(CHUNK_BYTES), data.chunks(CHUNK_BYTES).nth(index));
    let (index, total, data) = (index as u64, total as u64, part.expect("a part"));
    client.call(&Call::WriteChunked(Part { id: set, index, total, data })).await
}

/// Sends the parts from `first` on, each when the previous one is answered.
async fn send_from(client: &mut RpcSocket, set: i64, first: usize, data: &[u8]) -> RequestId {
    let last = data.len().div_ceil(CHUNK_BYTES) - 1;
    for index in first..last {
        let part = send(client, set, index, data).await;
        assert_eq!(client.acked(&part).await, Ok(vec![]));
    }
    send(client, set, last, data).await
}

async fn metrics(server: &Logged) -> String {
    http::get(server.serve().address().parse().expect("an address"), "/metrics").await
}

#[tokio::test]
async fn a_second_set_of_a_key_waits_for_the_first_and_holds_up_nobody_else() {
    let server = Logged::start(&configuration("20MiB", SMALL));
    let [mut one, mut other] = [client(&server, "alice").await, client(&server, "alice").await];
    let mut bob = client(&server, "bob").await;
    let (written, of_bob) = (entries(3, 500_000), entries(3, 500_000));
    let (of_alice, data_of_bob) = (data("alice", &written), data("bob", &of_bob));
    let first = send(&mut one, 0, 0, &of_alice).await;
    assert_eq!(one.acked(&first).await, Ok(vec![]));
    let waiting = send(&mut other, 0, 0, &of_alice).await;
    let address = server.serve().address().parse().expect("an address");
    server::comes_to(address, "eventlog_spill_sets_waiting", 1).await;
    other.nothing_comes().await;
    // There is room, and a different key gets it.
    let last = send_from(&mut bob, 0, 0, &data_of_bob).await;
    assert_eq!(bob.acked(&last).await, Ok(acks(&of_bob, &[1, 2, 3])));
    other.nothing_comes().await;
    let last = send_from(&mut one, 0, 1, &of_alice).await;
    assert_eq!(one.acked(&last).await, Ok(acks(&written, &[4, 5, 6])));
    assert_eq!(other.acked(&waiting).await, Ok(vec![]));
    let last = send_from(&mut other, 0, 1, &of_alice).await;
    assert_eq!(other.acked(&last).await, Ok(acks(&written, &[4, 5, 6])));
}

#[tokio::test]
async fn a_set_above_all_the_room_is_refused_until_the_setting_that_is_named_is_raised() {
    let mut server = Logged::start(&configuration("1MiB", SMALL));
    let written = entries(3, 500_000);
    let data = data("alice", &written);
    let named = "takes 1536000 bytes of disk, at most 1048576 are allowed (spill_bytes_max)";
    // As a client does it that was refused.
    for sequence in 1..=3 {
        let mut client = client(&server, "alice").await;
        let part = send(&mut client, 0, 0, &data).await;
        let refused = client.refused(&part).await;
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
        assert!(refused.message.ends_with(named), "{}", refused.message);
        let one = entries(1, 1);
        assert_eq!(client.write("alice", &one).await, Ok(acks(&one, &[sequence])));
    }
    server.comes_to_log(named);
    let log = server.log();
    let warned = log.lines().filter(|line| line.contains("WARN") && line.contains(named));
    assert_eq!(warned.count(), 1, "once, however often it is sent\n{log}");
    server.configure(&configuration("2MiB", SMALL));
    server.restart();
    let mut client = client(&server, "alice").await;
    let last = send_from(&mut client, 0, 0, &data).await;
    assert_eq!(client.acked(&last).await, Ok(acks(&written, &[4, 5, 6])));
}

#[tokio::test]
async fn a_bad_last_entry_has_nothing_stored_of_a_large_write() {
    let server = Logged::start(&configuration("20MiB", SMALL));
    let mut client = client(&server, "alice").await;
    let good = entries(1_000, 1_000);
    for (set, (bad, code, what)) in (0..).zip([
        (framed_entry("Secret", "", b""), ErrorCode::Unauthorized, "forbidden: "),
        (framed_entry("", "", b""), ErrorCode::InvalidRequest, "entry 999"),
        (entry("E", "", b"no frame"), ErrorCode::InvalidRequest, "entry 999"),
    ]) {
        let mut written = good.clone();
        let id = bad.id.to_string();
        written[999] = bad;
        let last = send_from(&mut client, set, 0, &data("alice", &written)).await;
        let refused = client.refused(&last).await;
        assert_eq!(refused.code, code, "{}", refused.message);
        let said = &refused.message;
        assert!(said.contains(what) && said.contains(&id), "{said}");
        let metrics = metrics(&server).await;
        assert!(metrics.contains("\neventlog_entries_committed_total 0\n"), "{metrics}");
    }
    let last = send_from(&mut client, 9, 0, &data("alice", &good)).await;
    let sequences: Vec<u64> = (1..=1_000).collect();
    assert_eq!(client.acked(&last).await, Ok(acks(&good, &sequences)));
}

/// A stock client that gets no `Pong` for five seconds reconnects, and sends all of it again.
#[tokio::test]
async fn pings_are_answered_while_a_large_write_is_decoded() {
    // In memory: there is no other work than to decode it and to ask whether it is allowed.
    let server = Logged::start(&configuration("20MiB", "batch_entries_max = 1_000"));
    let mut client = client(&server, "alice").await;
    let one = entries(1, 1);
    assert_eq!(client.write("alice", &one).await, Ok(acks(&one, &[1])));
    let mut written = entries(100_000, 10);
    written.push(framed_entry("Secret", "", b""));
    let last = send_from(&mut client, 0, 0, &data("alice", &written)).await;
    let mut pongs = 0;
    let refused = loop {
        client.ping().await;
        match client.next().await {
            Heard::Pong => pongs += 1,
            Heard::Refused(id, refused) if id == last => break refused,
            other => panic!("expected a pong or the refusal, got {other:?}"),
        }
    };
    assert!(refused.message.starts_with("forbidden: "), "{}", refused.message);
    // A session that decodes answers none; hundreds are usual.
    assert!(pongs >= 10, "{pongs} pongs while it was decoded");
    assert!(matches!(client.next().await, Heard::Pong));
    let one = entries(1, 1);
    assert_eq!(client.write("alice", &one).await, Ok(acks(&one, &[2])));
}
