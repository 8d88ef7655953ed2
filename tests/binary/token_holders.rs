//! Connections over HTTP that have shown an admin token: how many there may be, and what they may hold.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::logged::{ADMIN, Logged};
use crate::support::http;

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Whoever was active within this time is not closed.
const YOUNG: Duration = Duration::from_secs(5);

fn server(limits: &str) -> (Logged, SocketAddr) {
    let server = Logged::start(&format!(
        "admin.token = {ADMIN:?}\nauth.mode = \"allow-all\"\n[limits]\n{limits}\n"
    ));
    let address = server.serve().address().parse().expect("an address");
    (server, address)
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("a connection")
}

/// Asks with the token, and returns the status; zero if the connection has ended.
async fn asks(stream: &mut TcpStream) -> u16 {
    let request =
        format!("HEAD /admin/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return 0;
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match timeout(PATIENCE, stream.read(&mut byte)).await.expect("an answer") {
            Ok(1) => answer.push(byte[0]),
            Ok(_) | Err(_) => return 0,
        }
    }
    let status = answer.get(9..12).and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
    status.unwrap_or_else(|| panic!("{}", answer.escape_ascii()))
}

async fn metric(address: SocketAddr, name: &str) -> f64 {
    let text = http::get(address, "/metrics").await;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name}")).trim().parse().expect("a number")
}

/// There was no limit: whoever had a token could open as many as the system has files.
#[tokio::test]
async fn the_one_that_is_idle_for_longest_makes_way_and_active_ones_stay() {
    let (server, address) = server("admin_connections_max = 5\nkeep_alive = \"120s\"");
    let mut all = Vec::new();
    for _ in 0..5 {
        let mut stream = connect(address).await;
        assert_eq!(asks(&mut stream).await, 200);
        all.push(stream);
    }
    let began = Instant::now();
    // One is active all the time, and one more tries to get in.
    let mut newcomer = connect(address).await;
    loop {
        assert_eq!(asks(&mut all[0]).await, 200);
        let status = asks(&mut newcomer).await;
        if status == 200 {
            break;
        }
        assert_eq!(status, 503);
        assert!(began.elapsed() < PATIENCE, "it does not get in");
        sleep(Duration::from_millis(200)).await;
    }
    assert!(began.elapsed() + Duration::from_secs(1) >= YOUNG, "{:?}", began.elapsed());
    let mut end = [0];
    let read = timeout(PATIENCE, all[1].read(&mut end)).await.expect("it is closed");
    assert!(!matches!(read, Ok(1..)), "it was idle for longest");
    for active in [0, 2, 3, 4] {
        assert_eq!(asks(&mut all[active]).await, 200, "{active}");
    }
    assert!((metric(address, "eventlog_connections_admin").await - 5.0).abs() < 0.1);
    assert!(
        (metric(address, "eventlog_admin_connections_pushed_out_total").await - 1.0).abs() < 0.1
    );
    assert!(metric(address, "eventlog_admin_connections_refused_total").await >= 1.0);
    server.comes_to_log("raise admin_connections_max");
}

/// Bodies counted nowhere, so that a few connections could take any amount of memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_count_against_the_budget_and_take_turns() {
    let (_server, address) = server(
        "frame_bytes_max = 520000\nmessage_bytes_max = 600000\nchunk_set_bytes_max = 600000\n\
         unfinished_bytes_total_max = \"1MiB\"\nunfinished_grace = \"120s\"",
    );
    let entry =
        format!(r#"{{"event":"E","primaryKey":"","payload":"{}"}}"#, "AAAA".repeat(100_000));
    let body = format!(r#"{{"runHandlers":false,"entries":[{entry}]}}{}"#, " ".repeat(700_000));
    let head = format!(
        "POST /admin/stores/s/entries HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         authorization: Bearer {ADMIN}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let (last, most) = body.as_bytes().split_last().expect("a body");
    let mut begun = Vec::new();
    for _ in 0..6 {
        let mut stream = connect(address).await;
        let (head, most, last) = (head.clone().into_bytes(), most.to_vec(), *last);
        begun.push(tokio::spawn(async move {
            stream.write_all(&head).await.expect("sent");
            // The server reads the rest of it when it is its turn.
            stream.write_all(&most).await.expect("sent");
            sleep(Duration::from_millis(500)).await;
            stream.write_all(&[last]).await.expect("sent");
            let mut answer = String::new();
            let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
            read.expect("an end").expect("an answer");
            answer
        }));
    }
    let began = Instant::now();
    while metric(address, "eventlog_unfinished_waiting").await < 3.0 {
        assert!(began.elapsed() < PATIENCE, "nobody waits");
        sleep(Duration::from_millis(20)).await;
    }
    let held = metric(address, "eventlog_unfinished_bytes").await;
    // The largest one, what is open to all, and what is read at once.
    assert!((100_000.0..2_000_000.0).contains(&held), "{held} bytes");
    for body in begun {
        let answer = body.await.expect("it ran");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(metric(address, "eventlog_unfinished_bytes").await < 1.0);
}
