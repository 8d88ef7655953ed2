//! What reaches the right port but is not a WebSocket of the expected protocol.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use eventlog_server::protocol::msgpack::{ErrorCode, encode_write};
use eventlog_server::protocol::rpc::{self, Call, encode_write_entries};
use tempfile::tempdir;

use super::process::{Serve, command, data, lines, logged};
use crate::support::rpc::{DEFAULT, RpcSocket, acks, framed_entry};
use crate::support::socket::Socket;
use crate::support::{batch, key};

/// A whole answer to these bytes.
fn exchange(server: &Serve, sent: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream.write_all(sent).expect("sent");
    let mut received = Vec::new();
    // A reset counts as an end.
    let _ = stream.read_to_end(&mut received);
    String::from_utf8_lossy(&received).into_owned()
}

fn request(server: &Serve, line: &str, headers: &str) -> String {
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    exchange(server, head.as_bytes())
}

const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn upgrade(server: &Serve, path: &str, headers: &str) -> String {
    exchange(server, format!("GET {path} HTTP/1.1\r\nhost: x\r\n{UPGRADE}{headers}\r\n").as_bytes())
}

#[test]
fn http_at_the_path_of_a_websocket_and_a_websocket_elsewhere_are_told_where_to_go() {
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let server = Serve::logged(&["--dev", "--data-dir", data(&directory.path().join("d"))], &log);
    for _ in 0..3 {
        let plain = request(&server, "GET /rpc", "");
        assert!(
            plain.starts_with("HTTP/1.1 426 ") && plain.contains("upgrade: websocket\r\n"),
            "{plain}"
        );
        assert!(plain.contains("the proxy in front must pass on Upgrade"), "{plain}");
        let elsewhere = upgrade(&server, "/sync/eventlog", "");
        assert!(elsewhere.starts_with("HTTP/1.1 404 "), "{elsewhere}");
        assert!(elsewhere.contains(
            "a WebSocket is at /eventlog and at /rpc; a proxy in front must remove \"/sync\""
        ));
    }
    logged(&log, "\"/rpc\": WebSocket upgrade is expected", 1);
    logged(&log, "\"/sync/eventlog\": nothing is there", 1);
    let text = std::fs::read_to_string(&log).expect("UTF-8");
    assert_eq!(text.matches("cannot connect").count(), 2, "once each\n{text}");
}

/// A WebSocket got what a GET gets, and the log had nothing.
#[test]
fn a_websocket_where_something_else_is_is_told_where_to_go() {
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let server = Serve::logged(&["--dev", "--data-dir", data(&directory.path().join("d"))], &log);
    let paths = ["/healthz", "/readyz/", "/metrics", "/console", "/admin/keys", "/admin/what"];
    for path in paths {
        for _ in 0..2 {
            let answer = upgrade(&server, path, "");
            assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
            assert!(answer.ends_with(
                "this path takes no WebSocket; a WebSocket is at /eventlog and at /rpc\n"
            ));
        }
        assert_eq!(
            logged(&log, &format!("cannot connect at {path:?}: this path takes no"), 1).len(),
            1
        );
    }
    let text = std::fs::read_to_string(&log).expect("UTF-8");
    assert_eq!(text.matches("cannot connect").count(), paths.len(), "once each\n{text}");
}

/// Our own commands, where the URL says TLS and the port has none. See `tls` for the reverse.
#[test]
fn commands_that_begin_tls_where_there_is_none_say_so() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let address = server.address();
    for (url, arguments) in [
        (format!("wss://{address}/eventlog"), &["tail", "--key", "a"][..]),
        (format!("https://{address}"), &["keys", "--token", "t", "list"]),
        (format!("wss://{address}/eventlog"), &["stores", "--token", "t"]),
    ] {
        let said = server.run(&[arguments, &["--url", &url]].concat()).failed(1);
        assert!(said.contains("this port has no TLS: write ws:// or http:// in front"), "{said}");
    }
}

#[test]
fn what_is_no_http_ends_at_once_and_is_named_in_the_log() {
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let server = Serve::logged(&["--dev", "--data-dir", data(&directory.path().join("d"))], &log);
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let proxy = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for (bytes, line) in [
        (&hello[..], "speaks TLS; this port has none: connect with ws://"),
        (preface, "speaks HTTP/2; this port has HTTP/1.1"),
        (proxy, "speaks the PROXY protocol"),
    ] {
        for _ in 0..2 {
            exchange(&server, bytes);
        }
        assert_eq!(logged(&log, line, 1).len(), 1);
    }
    let text = std::fs::read_to_string(&log).expect("UTF-8");
    assert!(!text.contains("ERROR"), "{text}");
}

#[test]
fn each_path_says_what_it_takes_and_answers_a_head() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    for path in ["/healthz", "/readyz", "/metrics", "/healthz/"] {
        let (get, head) = (
            request(&server, &format!("GET {path}"), ""),
            request(&server, &format!("HEAD {path}"), ""),
        );
        assert!(
            get.starts_with("HTTP/1.1 200 ") && head.starts_with("HTTP/1.1 200 "),
            "{get}{head}"
        );
        assert!(head.ends_with("\r\n\r\n") && !get.ends_with("\r\n\r\n"), "no body: {head}");
        let post = request(&server, &format!("POST {path}"), "content-length: 0\r\n");
        assert!(
            post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD\r\n"),
            "{post}"
        );
    }
    let socket = request(&server, "POST /rpc", "content-length: 0\r\n");
    assert!(socket.starts_with("HTTP/1.1 405 ") && socket.contains("allow: GET\r\n"), "{socket}");
}

#[test]
fn names_with_slashes_are_found_whether_a_proxy_decoded_them_or_not() {
    let directory = tempdir().expect("a directory");
    let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0"]);
    serve.args(["--data-dir", data(directory.path())]).env("EVENTLOG_ADMIN_TOKEN", "secret");
    let server = Serve::of(serve);
    let ask = |line: &str, body: &str| {
        let length = body.len();
        let headers = format!("authorization: bEARER secret\r\ncontent-length: {length}\r\n");
        let head =
            format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n{body}");
        exchange(&server, head.as_bytes())
    };
    let assignment = r#"{"storeId":"team/a"}"#;
    for (put, get) in
        [("user%2F1", "user/1"), ("user/2", "user%2F2"), ("a%2Frelease", "a%2Frelease")]
    {
        let assigned = ask(&format!("PUT /admin/keys/{put}"), assignment);
        assert!(assigned.starts_with("HTTP/1.1 200 "), "{assigned}");
        let shown = ask(&format!("GET /admin/keys/{get}"), "");
        assert!(shown.ends_with(assignment), "{shown}");
    }
    let entries = r#"{"entries":[{"event":"E","primaryKey":"","payload":""}]}"#;
    for (count, path) in [(1, "team%2Fa"), (2, "team/a")] {
        let written = ask(&format!("POST /admin/stores/{path}/entries"), entries);
        assert!(written.contains(&format!(r#""sequenceNumbers":[{count}]"#)), "{written}");
        let shown = ask(&format!("GET /admin/stores/{path}"), "");
        assert!(shown.contains(&format!(r#""head":{count},"#)), "{shown}");
    }
    let refused = ask("DELETE /admin/keys", "");
    assert!(refused.contains("allow: GET, HEAD\r\n"), "{refused}");
    assert!(ask("GET /admin/keys/", "").contains(r#""publicKey":"user/2""#));
}

#[test]
fn the_start_says_where_each_kind_of_client_connects() {
    let directory = tempdir().expect("a directory");
    let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0"]);
    serve.args(["--data-dir", data(directory.path())]);
    let mut child = serve.spawn().expect("it starts");
    let lines = lines(child.stdout.take().expect("a pipe"));
    let said: Vec<String> =
        (0..4).map_while(|_| lines.recv_timeout(Duration::from_secs(60)).ok()).collect();
    child.kill().expect("it is ours");
    child.wait().expect("it ends");
    let [msgpack, who, rpc, effect] = &said[..] else { panic!("{said:?}") };
    assert!(msgpack.ends_with("/eventlog") && who.contains("msgpack"), "{said:?}");
    assert!(rpc.ends_with("/rpc") && effect.contains("layerSchemaBinary"), "{said:?}");
}

/// Two requests on one connection, unless connections are not kept: then the server ends it.
#[test]
fn connections_are_kept_for_as_long_as_the_configuration_says() {
    let first = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    for (keep_alive, sent, answers) in [("1h", [first, last], 2), ("0s", [first, ""], 1)] {
        let directory = tempdir().expect("a directory");
        let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0"]);
        serve.args(["--data-dir", data(directory.path())]);
        serve.env("EVENTLOG_LIMITS_KEEP_ALIVE", keep_alive);
        let received = exchange(&Serve::of(serve), sent.concat().as_bytes());
        assert_eq!(received.matches("HTTP/1.1 200 ").count(), answers, "{received}");
        assert_eq!(received.matches("connection: close\r\n").count(), 1, "{received}");
    }
}

/// Half of a surrogate pair, which JavaScript's strings may have.
fn halve(message: &mut [u8]) {
    let at = message.windows(4).position(|text| text == b"half").expect("the key");
    message[at..at + 3].copy_from_slice(b"\xed\xa0\x80");
}

#[tokio::test]
async fn text_that_is_no_text_has_its_write_refused_and_the_entry_named_and_the_connection_stays() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let entries = [framed_entry("E", "good", b""), framed_entry("E", "half", b"")];
    let mut client = Socket::connect(&server.url).await;
    let mut message = BytesMut::new();
    encode_write(&mut message, &key("alice"), 7, &batch(&entries));
    halve(&mut message);
    client.send(message).await;
    let refusal = client.next_refusal().await;
    assert_eq!((refusal.code, refusal.id), (ErrorCode::InvalidRequest, Some(7)));
    assert!(refusal.message.starts_with("entry 1: "), "{}", refusal.message);
    client.write(&key("alice"), 8, &batch(&entries)).await;
    assert_eq!(client.next_ack().await, (8, vec![1, 2]));

    let url = format!("ws://{}/rpc", server.address());
    let mut client = RpcSocket::authenticated(&url, &["bob"]).await;
    let entries = [framed_entry("E", "good", b""), framed_entry("E", "half", b"")];
    let mut data = encode_write_entries("bob", DEFAULT, &batch(&entries));
    halve(&mut data);
    let write = client.call(&Call::WriteSingle { data: &data }).await;
    let refused = client.refused(&write).await;
    assert_eq!(refused.code, rpc::ErrorCode::InvalidRequest);
    assert!(refused.message.starts_with("entry 1: "), "{}", refused.message);
    assert_eq!(client.write("bob", &entries).await, Ok(acks(&entries, &[3, 4])));
}
