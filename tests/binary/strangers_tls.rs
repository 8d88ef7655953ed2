//! Many strangers at once on a port with TLS: those that complete the handshake, and those that do not.
//!
//! `EVENTLOG_TEST_STRANGERS=10000` is the long form; `strangers` has the tests without TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use eventlog_server::protocol::msgpack::encode_chunk;
use eventlog_server::protocol::rpc::{Call, RequestId};
use rustls::{ClientConfig, ClientConnection};
use tempfile::tempdir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::process::Serve;
use crate::support::certificates::Authority;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// What any kind of them may cost, not counting kernel memory.
const BYTES_MAX: u64 = 64 * 1_024 * 1_024;
/// How many come from each address, which has no more ports for them.
const AN_ADDRESS: usize = 2_500;
/// How long they stay once all are there and somebody else has written this often.
const STAY: Duration = Duration::from_secs(3);
const WRITES: usize = 10;
/// Longer than that takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a stranger sends: the first part once, the second again and again.
type Script = (Vec<u8>, Vec<u8>);

fn count() -> usize {
    let count = std::env::var("EVENTLOG_TEST_STRANGERS").ok();
    count.map_or(500, |count| count.parse().expect("a number"))
}

/// The request for a WebSocket, with this many bytes of a meaningless header.
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

/// After the handshake at `path`.
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

/// A connection from another address than the others use.
async fn connect(to: SocketAddr, number: usize) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    // Kernel memory is not what is measured.
    socket.set_send_buffer_size(16 * 1_024).ok()?;
    let from = Ipv4Addr::new(127, 0, 0, 2 + (number / AN_ADDRESS) as u8);
    socket.bind((from, 0).into()).ok()?;
    timeout(Duration::from_secs(20), socket.connect(to)).await.ok()?.ok()
}

/// The certificates that a client trusts, if it speaks TLS.
type Secure = Option<Arc<ClientConfig>>;

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// With TLS around it, if requested; `None` if that failed.
async fn encrypt(stream: TcpStream, secure: Secure) -> Option<Box<dyn Both>> {
    let Some(config) = secure else { return Some(Box::new(stream)) };
    let name = "localhost".try_into().expect("a name");
    let connecting = TlsConnector::from(config).connect(name, stream);
    let stream = timeout(Duration::from_secs(20), connecting).await.ok()?.ok()?;
    Some(Box::new(stream))
}

/// What strangers send on a port with TLS that do not complete the handshake.
fn half_open() -> Vec<(&'static str, Script)> {
    let config = Authority::new().trusted(None);
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(config, name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("written");
    // The first part of a handshake message of 60,000 bytes, in records of 16,000.
    let record = [&[22, 3, 1, 0x3e, 0x80][..], &[1, 0, 0xea, 0x60], &[0; 15_996]].concat();
    let more = [&[22, 3, 1, 0x3e, 0x80][..], &[0; 16_000]].concat();
    vec![
        ("half a ClientHello", (hello[..hello.len() / 2].to_vec(), Vec::new())),
        ("a ClientHello and silence", (hello.clone(), Vec::new())),
        ("a ClientHello byte by byte", (hello[..5].to_vec(), vec![hello[5]])),
        ("a ClientHello that does not end", (record, more)),
        ("records of nothing", (hello, [22, 3, 1, 0, 0].repeat(1_000))),
    ]
}

/// Sends its input until the server ends the connection or `over` is set.
async fn stranger(
    to: SocketAddr,
    number: usize,
    (script, secure): (Arc<Script>, Secure),
    (over, tried): (Arc<AtomicBool>, Arc<AtomicUsize>),
) {
    let stream = connect(to, number).await;
    let stream = match stream {
        Some(stream) => encrypt(stream, secure).await,
        None => None,
    };
    tried.fetch_add(1, Ordering::Relaxed);
    let Some(stream) = stream else { return };
    let (mut read, mut write) = tokio::io::split(stream);
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

async fn enter(url: &str, secure: &Secure) -> Socket {
    let Some(config) = secure else { return Socket::connect(url).await };
    let mut socket = Socket::try_connect_tls(url, config).await.expect("a connection");
    socket.next().await;
    socket
}

/// Writes over an existing connection, and over new ones, until `over` is set, and counts; returns how long each write
/// took on the first one.
async fn healthy(
    url: String,
    secure: Secure,
    over: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) -> Vec<Duration> {
    let mut known = enter(&url, &secure).await;
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let (id, began) = (took.len() as u64, Instant::now());
        known.write(&key("alice"), id, &batch(&[entry("E", "", b"known")])).await;
        assert_eq!(known.next_ack().await.0, id);
        took.push(began.elapsed());
        let mut new = enter(&url, &secure).await;
        new.write(&key("bob"), 7, &batch(&[entry("E", "", b"new")])).await;
        assert_eq!(new.next_ack().await.0, 7);
        count.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(20)).await;
    }
    took.sort();
    took
}

/// What one kind costs, in bytes, and how long writes took before and meanwhile.
async fn cost(
    script: Script,
    server: &Serve,
    secure: Secure,
    strangers_secure: Secure,
) -> (u64, [Vec<Duration>; 2]) {
    let to: SocketAddr = server.address().parse().expect("an address");
    let (over, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (tried, written) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let warm = Arc::new(AtomicBool::new(false));
    let warming =
        tokio::spawn(healthy(server.url.clone(), secure.clone(), warm.clone(), Arc::default()));
    sleep(Duration::from_secs(1)).await;
    warm.store(true, Ordering::Relaxed);
    let calm = warming.await.expect("served");
    let before = server.resident_bytes();
    let served = tokio::spawn(healthy(server.url.clone(), secure, over.clone(), written.clone()));
    let mut strangers = JoinSet::new();
    let script = Arc::new(script);
    for number in 0..count() {
        let what = (script.clone(), strangers_secure.clone());
        strangers.spawn(stranger(to, number, what, (over.clone(), tried.clone())));
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

/// Whether this kind should be tried.
fn is_asked_for(name: &str) -> bool {
    std::env::var("EVENTLOG_TEST_STRANGERS_KIND").map_or(true, |only| name.contains(&only))
}

fn judge(name: &str, (bytes, took): (u64, [Vec<Duration>; 2])) {
    let mib = bytes / 1_024 / 1_024;
    let p99 = took.map(|took| (took[took.len() * 99 / 100], took.len()));
    eprintln!(
        "{} strangers, {name}: {mib} MiB; p99 and writes, calm and meanwhile: {p99:?}",
        count()
    );
    assert!(bytes < BYTES_MAX, "{name}: {mib} MiB");
}

/// The same ones after the handshake, and those that do not complete it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_of_any_kind_cost_little_over_tls() {
    let authority = Authority::new();
    let secure = Some(authority.trusted(None));
    let behind = kinds().into_iter().map(|(name, script)| (name, script, secure.clone()));
    let before = half_open().into_iter().map(|(name, script)| (name, script, None));
    for (name, script, theirs) in behind.chain(before).filter(|(name, ..)| is_asked_for(name)) {
        let directory = tempdir().expect("a directory");
        let [certificate, key] = authority.sign().write(directory.path());
        let config = directory.path().join("eventlog.toml");
        let file = format!("[tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}");
        std::fs::write(&config, file).expect("written");
        let data = directory.path().join("data");
        let [config, data] = [&config, &data].map(|path| path.to_str().expect("UTF-8"));
        let server = Serve::start(&["--dev", "--config", config, "--data-dir", data], None);
        let cost = Box::pin(cost(script, &server, secure.clone(), theirs)).await;
        judge(&format!("over TLS, {name}"), cost);
    }
}
