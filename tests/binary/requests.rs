//! Requests over HTTP that do not end, and answers that nobody reads.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::logged::{ADMIN, Logged};
use super::process::command;
use crate::support::http;

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn server(limits: &str) -> (Logged, SocketAddr) {
    let server = Logged::start(&format!(
        "admin.token = {ADMIN:?}\nauth.mode = \"allow-all\"\n[limits]\n{limits}\n"
    ));
    let address = server.serve().address().parse().expect("an address");
    (server, address)
}

fn head(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")
}

/// Sends the beginning, and then a byte now and then; returns once the server has ended the connection.
async fn trickle(to: SocketAddr, first: String, byte: Option<u8>) {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    stream.write_all(first.as_bytes()).await.expect("sent");
    let mut answer = [0; 4_096];
    loop {
        match timeout(Duration::from_millis(50), stream.read(&mut answer)).await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(_)) => {}
            Err(_) => {
                if let Some(byte) = byte
                    && stream.write_all(&[byte]).await.is_err()
                {
                    return;
                }
            }
        }
    }
}

/// Whoever sends it, and whatever takes it: the server answered at once, or waited for the rest, for as long as the
/// client liked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_does_not_end_is_not_waited_for() {
    let limits = "handshake_timeout = \"1s\"\nunfinished_grace = \"1s\"\nkeep_alive = \"1s\"";
    let (_server, address) = server(limits);
    let token = format!("authorization: Bearer {ADMIN}\r\n");
    let (chunked, sized) = ("transfer-encoding: chunked\r\n", "content-length: 100000\r\n");
    let lines = [
        "GET /healthz",
        "HEAD /readyz",
        "POST /healthz",
        "GET /metrics",
        "GET /rpc",
        "PUT /nothing",
        "DELETE /admin/keys/a",
        "PUT /admin/keys/a",
        "POST /admin/stores/s/entries",
        "GET /admin/stores",
    ];
    let mut unfinished = tokio::task::JoinSet::new();
    for line in lines {
        for (length, begun) in [(chunked, "fffff\r\n{"), (sized, "{")] {
            for whose in ["", &token] {
                let first = format!("{}{begun}", head(line, &format!("{length}{whose}")));
                unfinished.spawn(trickle(address, first.clone(), None));
                unfinished.spawn(trickle(address, first, Some(b' ')));
            }
        }
        // The head of a later request.
        let first = head("GET /healthz", "") + line;
        unfinished.spawn(trickle(address, first, Some(b'x')));
        let first = head("GET /admin/keys", &token) + line;
        unfinished.spawn(trickle(address, first, Some(b'x')));
    }
    let ended = timeout(PATIENCE, async { while unfinished.join_next().await.is_some() {} }).await;
    assert!(ended.is_ok(), "{} are still open", unfinished.len());
}

/// At the least rate, a body may take longer than a head.
#[tokio::test]
async fn a_body_of_an_administrator_may_come_slowly() {
    let limits = "handshake_timeout = \"1s\"\nunfinished_grace = \"20s\"";
    let (_server, address) = server(limits);
    let body = format!(r#"{{"entries":[]{}}}"#, " ".repeat(3_000));
    let headers = format!("authorization: Bearer {ADMIN}\r\ncontent-length: {}\r\n", body.len());
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream
        .write_all(head("POST /admin/stores/s/entries", &headers).as_bytes())
        .await
        .expect("sent");
    for piece in body.as_bytes().chunks(1_000) {
        sleep(Duration::from_millis(700)).await;
        stream.write_all(piece).await.expect("it is open");
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_ne!(&answer, b"HTTP/1.1 408");
}

/// Everything that arrives on one connection, up to its end.
async fn exchange(address: SocketAddr, sent: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(sent.as_bytes()).await.expect("sent");
    let mut answers = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answers)).await.expect("an end").expect("answers");
    String::from_utf8_lossy(&answers).into_owned()
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_order() {
    let (_server, address) = server("");
    let token = format!("authorization: Bearer {ADMIN}\r\n");
    let body = r#"{"storeId":"team"}"#;
    let length = body.len();
    let put = head("PUT /admin/keys/alice", &format!("{token}content-length: {length}\r\n")) + body;
    let chunked = format!("{token}transfer-encoding: chunked\r\n");
    let chunks = format!("5\r\n{}\r\nD;x=y\r\n{}\r\n0\r\n\r\n", &body[..5], &body[5..]);
    let again = head("PUT /admin/keys/bob", &chunked) + &chunks;
    let get = head("GET /admin/keys/bob", &token);
    let last = head("GET /readyz", "connection: close\r\n");
    let ok = head("GET /healthz", "");
    let all = [ok.repeat(100), put, again, get, head("GET /nothing", ""), last].concat();
    let answers = exchange(address, &all).await;
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 104, "{answers}");
    assert_eq!(answers.matches(body).count(), 3, "{answers}");
    assert!(answers.ends_with("ready\n"), "{answers}");
    let (_, nothing) = answers.split_once("HTTP/1.1 404 ").expect("the one before");
    assert!(nothing.contains("HTTP/1.1 200 "), "{answers}");
    // An old client, and one that goes on after the other side of the connection is closed.
    let old = exchange(address, "GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 ") && old.ends_with("ok\n"), "{old}");
    let mut half = TcpStream::connect(address).await.expect("a connection");
    half.write_all(ok.repeat(3).as_bytes()).await.expect("sent");
    half.shutdown().await.expect("half of it");
    let mut answers = String::new();
    timeout(PATIENCE, half.read_to_string(&mut answers)).await.expect("an end").expect("answers");
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 3, "{answers}");
}

/// `curl` does this with large bodies. The permission to send it is no answer.
#[tokio::test]
async fn who_waits_for_permission_to_send_a_body_gets_it_and_then_an_answer() {
    let limits = "handshake_timeout = \"1s\"\nunfinished_grace = \"20s\"";
    let (_server, address) = server(limits);
    let body = r#"{"storeId":"team"}"#;
    let headers = format!(
        "authorization: Bearer {ADMIN}\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(head("PUT /admin/keys/alice", &headers).as_bytes()).await.expect("sent");
    let mut permission = [0; 25];
    stream.read_exact(&mut permission).await.expect("an answer");
    assert_eq!(&permission, b"HTTP/1.1 100 Continue\r\n\r\n");
    sleep(Duration::from_millis(1_500)).await;
    stream.write_all(body.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Each of these connections made the server hold several megabytes, for as long as it did not read.
#[tokio::test]
async fn answers_that_nobody_reads_cost_little_and_are_given_up() {
    let (server, address) = server("stall_timeout = \"5s\"\nhandshake_timeout = \"60s\"");
    let (files, before) = (server.serve().open_files(), server.serve().resident_bytes());
    let requests = head("GET /metrics", "").repeat(800);
    let mut unread = Vec::new();
    for _ in 0..40 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("small");
        let mut stream = socket.connect(address).await.expect("a connection");
        // The server need not take all of it.
        let _ = timeout(Duration::from_millis(200), stream.write_all(requests.as_bytes())).await;
        unread.push(stream);
    }
    let began = Instant::now();
    while server.serve().open_files() < files + 30 {
        assert!(began.elapsed() < PATIENCE, "{} files", server.serve().open_files());
        sleep(Duration::from_millis(10)).await;
    }
    let mut most = 0;
    while server.serve().open_files() > files + 10 {
        most = most.max(server.serve().resident_bytes());
        assert!(began.elapsed() < PATIENCE, "{} files", server.serve().open_files());
        sleep(Duration::from_millis(50)).await;
    }
    let cost = most.saturating_sub(before);
    assert!(cost < 24 * 1_024 * 1_024, "{cost} bytes");
}

/// The system's buffers took some megabytes of it at once, which is no reason to wait for the rest.
#[tokio::test]
async fn a_long_answer_that_is_not_read_to_its_end_is_given_up() {
    let (_server, address) = server("stall_timeout = \"2s\"");
    let entry = format!(r#"{{"event":"E","primaryKey":"","payload":"{}"}}"#, "AAAA".repeat(5_000));
    let body = format!(r#"{{"runHandlers":false,"entries":[{}]}}"#, vec![entry; 50].join(","));
    let token = format!("authorization: Bearer {ADMIN}\r\n");
    for _ in 0..12 {
        let answer = http::request(address, "POST /admin/stores/s/entries", &token, &body).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("small");
    let mut stream = socket.connect(address).await.expect("a connection");
    let lines = format!("{token}accept: application/x-ndjson\r\n");
    stream.write_all(head("GET /admin/stores/s/entries", &lines).as_bytes()).await.expect("sent");
    let mut beginning = [0; 15];
    stream.read_exact(&mut beginning).await.expect("an answer");
    assert_eq!(&beginning, b"HTTP/1.1 200 OK");
    let began = Instant::now();
    // This reads a byte now and then.
    while !http::get(address, "/metrics").await.contains("connections_stalled_total 1\n") {
        assert!(began.elapsed() < PATIENCE, "it is open");
        // What has arrived can be read even after the end.
        let _ = stream.read(&mut beginning[..1]).await;
        sleep(Duration::from_millis(100)).await;
    }
}

/// One whole answer, without the end of the connection.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = async {
        while !text.ends_with(b"\r\n\r\n") {
            text.push(stream.read_u8().await.expect("a head"));
        }
        let head = String::from_utf8_lossy(&text).to_lowercase();
        let (_, length) = head.split_once("content-length: ").expect("its length");
        let length = length.split('\r').next().expect("a line").parse().expect("a number");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.expect("a body");
        text.extend(body);
    };
    timeout(PATIENCE, read).await.expect("an answer");
    String::from_utf8_lossy(&text).into_owned()
}

/// Each long request, and each long answer, left a buffer of its size behind for as long as the connection was open.
#[tokio::test]
async fn strangers_cannot_leave_any_number_of_large_buffers_behind() {
    const COUNT: usize = 800;
    /// What one address may hold so.
    const BYTES_MAX: usize = 8 * 1_024 * 1_024;
    let (_server, address) = server("keep_alive = \"120s\"");
    let long = format!("x: {}\r\n", "x".repeat(30_000));
    for headers in ["", &long] {
        let request = head("GET /metrics", headers);
        let (mut open, mut least) = (Vec::new(), usize::MAX);
        for _ in 0..COUNT {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let answer = answer(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "each is answered: {answer}");
            least = least.min(headers.len() + answer.len());
            open.push(stream);
        }
        let began = Instant::now();
        while open.len() > BYTES_MAX / least {
            assert!(began.elapsed() < PATIENCE, "{} are open, with {least} bytes each", open.len());
            let goes_on = |stream: &TcpStream| {
                let read = stream.try_read(&mut [0]);
                read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
            };
            sleep(Duration::from_millis(20)).await;
            open.retain(goes_on);
        }
    }
}

/// Behind a pager, for example. The server gave the answer up, and the command ended with an error.
#[tokio::test]
async fn an_export_whose_reader_pauses_goes_on_where_it_was() {
    let (server, address) = server("stall_timeout = \"2s\"");
    let entry = format!(r#"{{"event":"E","primaryKey":"","payload":"{}"}}"#, "AAAA".repeat(50_000));
    let body = format!(r#"{{"runHandlers":false,"entries":[{}]}}"#, vec![entry; 5].join(","));
    let token = format!("authorization: Bearer {ADMIN}\r\n");
    for _ in 0..40 {
        let answer = http::request(address, "POST /admin/stores/s/entries", &token, &body).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let mut export = command(&["export", "--store", "s", "--token", ADMIN]);
    let mut export = export.env("EVENTLOG_URL", &server.serve().url).spawn().expect("it runs");
    let mut lines = BufReader::new(export.stdout.take().expect("a pipe")).lines();
    assert!(lines.next().expect("a line").expect("UTF-8").starts_with(r#"{"export":"#));
    let began = Instant::now();
    while !http::get(address, "/metrics").await.contains("connections_stalled_total 1\n") {
        assert!(began.elapsed() < PATIENCE, "it is open");
        sleep(Duration::from_millis(100)).await;
    }
    let mut sequences = Vec::new();
    for line in lines {
        let line: Value = serde_json::from_str(&line.expect("UTF-8")).expect("JSON");
        sequences.extend(line["sequence"].as_u64());
    }
    let ended = export.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("going on at sequence "), "{said}");
    assert!(sequences.into_iter().eq(1..=200));
}
