//! Many strangers at once against the real binary: what each kind of them costs it, and that everybody else is served.
//!
//! The strangers are those of `bench fair`, which fails if anybody else is not served. `EVENTLOG_TEST_STRANGERS=10000`
//! is the long form; `docs/STRANGERS.md` has its figures.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventlog_server::model::Limits;
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::logged::{ADMIN, Logged};
use super::process::{Serve, command};
use crate::support::http;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// What any kind of them may cost, not counting kernel memory.
const BYTES_MAX: u64 = 64 * 1_024 * 1_024;

const KINDS: [&str; 16] = [
    "silent",
    "half-line",
    "slow-headers",
    "long-handshake",
    "frame",
    "fragments",
    "chunks",
    "rpc-frame",
    "pings",
    "empty-fragments",
    "hello",
    "wrong-proofs",
    "refused",
    "body",
    "unread",
    "long-request",
];

#[test]
fn strangers_of_any_kind_cost_little_and_others_are_served() {
    let count = std::env::var("EVENTLOG_TEST_STRANGERS").unwrap_or_else(|_| "500".to_owned());
    let only = std::env::var("EVENTLOG_TEST_STRANGERS_KIND").ok();
    for kind in KINDS.iter().filter(|kind| only.as_ref().is_none_or(|only| kind.contains(only))) {
        let strangers = ["--beside", "strangers", "--kind", kind, "--neighbours", &count];
        let time = ["--duration", "2", "--warm-up", "0.3", "--json"];
        let arguments = [&["bench", "fair"][..], &strangers, &time].concat();
        let ended = command(&arguments).output().expect("it runs");
        // Its faults are in the JSON.
        let [said, report] =
            [&ended.stderr, &ended.stdout].map(|text| String::from_utf8_lossy(text));
        assert!(ended.status.success(), "{kind}: {said} {report}");
        let figures: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
        let bytes = figures["cost_bytes"].as_u64().expect("what they cost");
        let p99 = |who: &str| figures[who]["latency"]["p99"].as_f64().expect("a time") * 1_000.0;
        eprintln!(
            "{count} strangers, {kind}: {} MiB; p99 alone {:.1} ms, beside them {:.1}; of newcomers {:.1} and {:.1}",
            bytes / 1_024 / 1_024,
            p99("alone"),
            p99("acknowledged"),
            p99("newcomers_alone"),
            p99("newcomers"),
        );
        assert!(bytes < BYTES_MAX, "{kind}: {bytes} bytes");
    }
}

/// The address of those who trickle.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
/// As many as there may be.
const TRICKLING: usize = 2_000;
/// Nobody younger is pushed out.
const YOUNG: Duration = Duration::from_secs(5);

/// Begins a frame and sends some of it now and then; returns how long the server let it.
async fn trickle(to: SocketAddr, over: Arc<AtomicBool>, there: Arc<Mutex<usize>>) -> Duration {
    let came = Instant::now();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((ELSEWHERE, 0).into()).expect("it is this machine");
    let mut stream = socket.connect(to).await.expect("a connection");
    let upgrade = "GET /eventlog HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.expect("sent");
    let mut answer = [0; 512];
    let read = stream.read(&mut answer).await.expect("an answer");
    assert!(answer[..read].starts_with(b"HTTP/1.1 101"));
    // Of 900,000 bytes.
    let header = [&[0x82, 0xff][..], &900_000_u64.to_be_bytes(), &[0; 4]].concat();
    stream.write_all(&header).await.expect("sent");
    *there.lock() += 1;
    while !over.load(Ordering::Relaxed) {
        // Faster than 1 KiB a second, or that would end it.
        let goes_on = stream.write_all(&[1; 800]).await.is_ok();
        let ended = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut answer));
        // What arrives is the greeting, or the reason for the end.
        let ended = ended.await.is_ok_and(|read| {
            read.is_err() || read.is_ok_and(|read| read == 0 || answer[0] == 0x88)
        });
        if ended || !goes_on {
            return came.elapsed();
        }
    }
    Duration::MAX
}

async fn writes(client: &mut Socket, name: &str) {
    // After the greeting.
    client.next().await;
    client.write(&key(name), 7, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_ack().await.0, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_client_gets_in_while_2000_that_trickle_are_held() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("more open files");
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let to = server.address().parse().expect("an address");
    let (over, there) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
    let mut strangers = JoinSet::new();
    let began = Instant::now();
    for _ in 0..TRICKLING {
        strangers.spawn(trickle(to, over.clone(), there.clone()));
    }
    while *there.lock() < TRICKLING {
        assert!(began.elapsed() < Duration::from_secs(60), "{} are there", there.lock());
        sleep(Duration::from_millis(10)).await;
    }
    // Whether those have been there for long or not.
    let healthy = Ipv4Addr::LOCALHOST;
    let mut pushed_out = 0;
    let mut newcomers = Vec::new();
    while pushed_out < 3 {
        assert!(began.elapsed() < Duration::from_secs(60), "{pushed_out} went");
        let came = Socket::try_connect_from(healthy, &server.url).await;
        let mut newcomer = came.expect("it gets in");
        writes(&mut newcomer, "alice").await;
        // It stays a stranger, so that there are too many.
        newcomers.extend(Socket::try_connect_from(healthy, &server.url).await);
        while let Some(ended) = strangers.try_join_next() {
            let age = ended.expect("it ran");
            assert!(age >= YOUNG, "one was pushed out after {age:?}");
            pushed_out += 1;
        }
        sleep(Duration::from_millis(200)).await;
    }
    over.store(true, Ordering::Relaxed);
    while strangers.join_next().await.is_some() {}
}

/// Of a stranger, until it is whole.
#[tokio::test]
async fn a_lone_first_write_may_be_as_large_as_a_message() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let mut client = Socket::connect(&server.url).await;
    let most = Limits::default().message_bytes_max - 1_000;
    client.write_in_chunks(&key("alice"), 1, &batch(&[entry("E", "", &vec![1; most])])).await;
    assert_eq!(client.next_ack().await, (1, vec![1]));
}

/// An administrator's requests are not limited to 32 KiB, whoever else waits.
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

/// The operator is told without looking at metrics: by one line, however many connections are refused.
#[tokio::test]
async fn that_connections_are_refused_for_their_number_is_said_once_with_what_to_do() {
    let lines = |server: &Logged, word: &str| {
        let log = server.log();
        let warned = log.lines().filter(|line| line.contains(" WARN ") && line.contains(word));
        warned.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let server = Logged::start("auth.mode = \"allow-all\"\nlimits.strangers_max = 2");
    let address: SocketAddr = server.serve().address().parse().expect("an address");
    let mut strangers = Vec::new();
    for _ in 0..20 {
        strangers.push(tokio::net::TcpStream::connect(address).await.expect("a connection"));
    }
    server.comes_to_log("strangers_max");
    let warned = lines(&server, "strangers_max");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("raise strangers_max") && warned[0].contains("127.0.0.1"));
    let server = Logged::start(
        "auth.mode = \"allow-all\"\nlimits.connections_max = 1\n\
         [[assign]]\npublic_key = \"alice\"\nstore_id = \"team\"",
    );
    let mut first = Socket::try_connect(server.url()).await.expect("it gets in");
    writes(&mut first, "alice").await;
    for _ in 0..3 {
        assert!(Socket::try_connect(server.url()).await.is_none());
    }
    let warned = lines(&server, "connections_max");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("raise connections_max"), "{warned:?}");
}
