//! Many strangers at once against the real binary: what each kind of them costs it, and that everybody else is served.
//!
//! `EVENTLOG_TEST_STRANGERS=10000` is the long form; `docs/STRANGERS.md` has its figures.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use eventlog_server::protocol::msgpack::encode_chunk;
use eventlog_server::protocol::rpc::{Call, RequestId};
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::logged::{ADMIN, Logged};
use super::process::Serve;
use crate::support::http;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// What any kind of them may cost, beyond the memory of the kernel.
const BYTES_MAX: u64 = 64 * 1_024 * 1_024;
/// So many come from each address, which has no more ports for them.
const AN_ADDRESS: usize = 2_500;
/// So long they stay when all are there, and until somebody else has written so often.
const STAY: Duration = Duration::from_secs(3);
const WRITES: usize = 10;
/// Longer than that takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a stranger sends: the first once, the second again and again.
type Script = (Vec<u8>, Vec<u8>);

fn count() -> usize {
    let count = std::env::var("EVENTLOG_TEST_STRANGERS").ok();
    count.map_or(500, |count| count.parse().expect("a number"))
}

/// The request for a WebSocket, with so many bytes of a header that means nothing.
fn upgrade(path: &str, besides: usize) -> Vec<u8> {
    let text = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-besides: {}\r\n\r\n",
        "x".repeat(besides)
    );
    text.into_bytes()
}

/// A masked frame; the mask is all zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Behind the handshake at `path`.
fn after(path: &str, first: &[u8]) -> Vec<u8> {
    [upgrade(path, 10), first.to_vec()].concat()
}

fn part(index: u64) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode_chunk(&mut bytes, 1, index, 32, &vec![1; 500_000]);
    frame(0x82, &bytes)
}

fn rpc(call: &Call<'_>) -> Vec<u8> {
    frame(0x82, &call.encode(&RequestId::from_number(1)))
}

/// The kinds of strangers.
fn kinds() -> Vec<(&'static str, Script)> {
    let hello = rpc(&Call::Hello);
    let unfinished = frame(0x82, &vec![1; 1_000_000]);
    let chunks = (0..31).flat_map(part).collect::<Vec<_>>();
    // An RPC frame of 15 MiB, in messages of 64 KiB.
    let rpc_frame =
        [frame(0x82, &[0x80, 0x80, 0xc0, 0x07]), frame(0x82, &vec![1; 65_000]).repeat(200)];
    vec![
        ("silent after they connected", (Vec::new(), Vec::new())),
        ("half a request line", (b"GET /event".to_vec(), Vec::new())),
        ("slow headers", ([b"GET / HTTP/1.1\r\nx: ", &[b'x'; 16_000][..]].concat(), b"x".to_vec())),
        ("silent behind a long handshake", (upgrade("/eventlog", 15_000), Vec::new())),
        ("a frame that does not end", (after("/eventlog", &unfinished[..900_000]), Vec::new())),
        (
            "fragments that do not end",
            (after("/eventlog", &frame(0x02, &vec![1; 65_000])), frame(0x00, &vec![1; 65_000])),
        ),
        ("chunk sets that do not end", (after("/eventlog", &chunks), Vec::new())),
        ("RPC frames that do not end", (after("/rpc", &rpc_frame.concat()), Vec::new())),
        ("pings", (upgrade("/eventlog", 10), frame(0x89, &[1; 100]).repeat(50))),
        ("empty fragments", (after("/eventlog", &frame(0x02, b"")), frame(0x00, b"").repeat(500))),
        ("Hello again and again", (upgrade("/rpc", 10), hello.repeat(50))),
        (
            "handshakes that are refused",
            (Vec::new(), b"GET /eventlog HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ),
    ]
}

/// A connection from another address than those who are no strangers.
async fn connect(to: SocketAddr, number: usize) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    // The kernel's memory is not what is measured.
    socket.set_send_buffer_size(16 * 1_024).ok()?;
    let from = Ipv4Addr::new(127, 0, 0, 2 + (number / AN_ADDRESS) as u8);
    socket.bind((from, 0).into()).ok()?;
    timeout(Duration::from_secs(20), socket.connect(to)).await.ok()?.ok()
}

/// Sends what it sends until the server ends the connection or `over` is set.
async fn stranger(
    to: SocketAddr,
    number: usize,
    script: Arc<Script>,
    (over, tried): (Arc<AtomicBool>, Arc<AtomicUsize>),
) {
    let stream = connect(to, number).await;
    tried.fetch_add(1, Ordering::Relaxed);
    let Some(stream) = stream else { return };
    let (mut read, mut write) = stream.into_split();
    let sends = async {
        write.write_all(&script.0).await?;
        while !over.load(Ordering::Relaxed) {
            write.write_all(&script.1).await?;
            sleep(Duration::from_millis(20)).await;
        }
        Ok::<(), std::io::Error>(())
    };
    let reads = async {
        let mut buffer = vec![0; 4_096];
        while read.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    let ends = async {
        while !over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        _ = sends => {}
        () = reads => {}
        () = ends => {}
    }
}

/// Writes over a connection that was there before, and over new ones, until `over` is set, and counts; how long each took that the first one made.
async fn healthy(url: String, over: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> Vec<Duration> {
    let mut known = Socket::connect(&url).await;
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let (id, began) = (took.len() as u64, Instant::now());
        known.write(&key("alice"), id, &batch(&[entry("E", "", b"known")])).await;
        assert_eq!(known.next_ack().await.0, id);
        took.push(began.elapsed());
        let mut new = Socket::connect(&url).await;
        new.write(&key("bob"), 7, &batch(&[entry("E", "", b"new")])).await;
        assert_eq!(new.next_ack().await.0, 7);
        count.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(20)).await;
    }
    took.sort();
    took
}

/// What one kind costs, in bytes, and how long writes took before and meanwhile.
async fn cost(script: Script, server: &Serve) -> (u64, [Vec<Duration>; 2]) {
    let to: SocketAddr = server.address().parse().expect("an address");
    let (over, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (tried, written) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let warm = Arc::new(AtomicBool::new(false));
    let warming = tokio::spawn(healthy(server.url.clone(), warm.clone(), Arc::default()));
    sleep(Duration::from_secs(1)).await;
    warm.store(true, Ordering::Relaxed);
    let calm = warming.await.expect("served");
    let before = server.resident_bytes();
    let served = tokio::spawn(healthy(server.url.clone(), over.clone(), written.clone()));
    let mut strangers = JoinSet::new();
    let script = Arc::new(script);
    for number in 0..count() {
        strangers.spawn(stranger(to, number, script.clone(), (over.clone(), tried.clone())));
    }
    let (began, mut all_there) = (Instant::now(), Instant::now());
    while all_there.elapsed() < STAY || written.load(Ordering::Relaxed) < WRITES {
        assert!(began.elapsed() < PATIENCE, "{written:?} writes");
        if tried.load(Ordering::Relaxed) < count() {
            all_there = Instant::now();
        }
        peak.fetch_max(server.resident_bytes(), Ordering::Relaxed);
        sleep(Duration::from_millis(20)).await;
    }
    over.store(true, Ordering::Relaxed);
    let meanwhile = served.await.expect("nobody healthy is cut");
    while strangers.join_next().await.is_some() {}
    (peak.load(Ordering::Relaxed).saturating_sub(before), [calm, meanwhile])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_of_any_kind_cost_little_and_others_are_served() {
    let only = std::env::var("EVENTLOG_TEST_STRANGERS_KIND").ok();
    for (name, script) in kinds() {
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let directory = tempdir().expect("a directory");
        let server = Serve::dev(directory.path());
        let (bytes, took) = Box::pin(cost(script, &server)).await;
        let mib = bytes / 1_024 / 1_024;
        let p99 = took.map(|took| (took[took.len() * 99 / 100], took.len()));
        eprintln!(
            "{} strangers, {name}: {mib} MiB; p99 and writes, calm and meanwhile: {p99:?}",
            count()
        );
        assert!(bytes < BYTES_MAX, "{name}: {mib} MiB");
    }
}

/// A request of theirs has no bound of 32 KiB, whoever else waits.
#[tokio::test]
async fn an_administrator_sends_as_much_as_it_takes() {
    let server = Logged::start(&format!("admin.token = {ADMIN:?}\nauth.mode = \"allow-all\""));
    let entry = format!(r#"{{"event":"E","primaryKey":"","payload":"{}"}}"#, "AAAA".repeat(250));
    let body = format!(r#"{{"runHandlers":false,"entries":[{}]}}"#, vec![entry; 1_000].join(","));
    let address = server.serve().address().parse().expect("an address");
    let headers = format!("authorization: Bearer {ADMIN}\r\ncontent-type: application/json\r\n");
    let line = "POST /admin/stores/s/entries";
    let answer = http::request(address, line, &headers, &body).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let strangers = http::request(address, line, "content-type: application/json\r\n", "").await;
    assert!(strangers.starts_with("HTTP/1.1 401 "), "{strangers}");
}
