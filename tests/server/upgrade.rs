//! How a connection becomes a WebSocket, as bytes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::server::TestServer;

const PING: &[u8] = b"\x89\x84\0\0\0\0ping";
const PONG: &[u8] = b"\x8a\x04ping";
const CLOSE: &[u8] = b"\x88\x80\0\0\0\0";

fn upgrade(method: &str, path: &str) -> Vec<u8> {
    let headers = "host: test\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    format!("{method} {path} HTTP/1.1\r\n{headers}").into_bytes()
}

/// Everything that is received after these bytes were sent at once, until the server ends the connection.
async fn exchange(addr: SocketAddr, sent: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    stream.write_all(&sent.concat()).await.expect("sent");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.expect("an end");
    received
}

fn position(received: &[u8], what: &[u8]) -> usize {
    let at = received.windows(what.len()).position(|some| some == what);
    at.unwrap_or_else(|| panic!("no {what:?} in {}", received.escape_ascii()))
}

#[tokio::test]
async fn frames_that_come_along_with_the_request_are_read() {
    let server = TestServer::with_keys(&[]).await;
    let sent = [&upgrade("GET", "/eventlog")[..], PING, CLOSE];
    let received = exchange(server.addr, &sent).await;
    assert!(received.starts_with(b"HTTP/1.1 101 "), "{}", received.escape_ascii());
    position(&received, b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n");
    assert!(position(&received, b"\r\n\r\n") < position(&received, PONG));
    let end = received.len() - 4;
    assert_eq!(received[end..], *b"\x88\x02\x03\xe8", "1000");
}

#[tokio::test]
async fn a_request_before_it_on_the_connection_is_answered_first() {
    let server = TestServer::with_keys(&[]).await;
    let plain = b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n";
    let received = exchange(server.addr, &[plain, &upgrade("GET", "/rpc"), PING, CLOSE]).await;
    let order = [&b"HTTP/1.1 200 OK"[..], b"\r\n\r\nok\n", b"HTTP/1.1 101 ", PONG];
    assert!(order.map(|what| position(&received, what)).is_sorted());
}

#[tokio::test]
async fn a_refusal_is_whole_and_ends_the_connection() {
    let server = TestServer::with_keys(&[]).await;
    let nothing = "nothing is here; a WebSocket is at /eventlog and at /rpc\n";
    let elsewhere = "this path takes no WebSocket; a WebSocket is at /eventlog and at /rpc\n";
    for (method, path, status, body) in [
        ("GET", "/nowhere", "404", nothing),
        ("GET", "/healthz", "400", elsewhere),
        ("HEAD", "/nowhere", "404", nothing),
    ] {
        let received = exchange(server.addr, &[&upgrade(method, path)]).await;
        let text = String::from_utf8(received).expect("text");
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        let length = format!("content-length: {}\r\n", body.len());
        assert!(text.contains(&length) && text.contains("connection: close\r\n"), "{text}");
        let body = if method == "HEAD" { "" } else { body };
        assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{text}");
    }
}

/// A socket that is closed while the client still sends is reset. Then its system drops what the client has not read: the
/// last acks, and why the connection ends.
#[tokio::test]
async fn what_a_client_still_sends_does_not_cost_it_what_it_was_told() {
    let server = TestServer::with_keys(&[]).await;
    let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
    // A text, which the protocol does not have.
    let sent = [&upgrade("GET", "/eventlog")[..], b"\x81\x81\0\0\0\0x"].concat();
    stream.write_all(&sent).await.expect("sent");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.expect("an end");
    position(&received, b"\x03\xeba text message");
    // After a reset the second one would fail.
    for _ in 0..2 {
        stream.write_all(PING).await.expect("nobody resets it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
