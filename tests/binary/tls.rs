//! `[tls]`: clients over `wss://`, certificates that are renewed, and who is kept out.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;

use super::process::{Serve, command, data, run};
use crate::support::certificates::{Authority, Signed};
use crate::support::http;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// Files are checked every few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with the certificate in `tls.pem` of the directory, and the authorities for its clients if it asks them for
/// certificates.
fn serve(directory: &Path, client_ca: Option<&str>) -> Serve {
    let clients = client_ca.map_or_else(String::new, |pem| {
        std::fs::write(directory.join("clients.pem"), pem).expect("written");
        format!("client_ca_file = {:?}\n", data(&directory.join("clients.pem")))
    });
    let [certificate, key] =
        ["tls.pem", "tls.key"].map(|name| data(&directory.join(name)).to_owned());
    let file = format!(
        "auth.mode = \"allow-all\"\n[tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n{clients}\
         [admin]\ntoken = \"s3cret\"\n[[assign]]\npublic_key = \"alice\"\nstore_id = \"team\"\n"
    );
    let config = directory.join("eventlog.toml");
    std::fs::write(&config, file).expect("written");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--config", data(&config), "--data-dir"];
    let mut command = command(&arguments);
    let log = std::fs::File::create(directory.join("log")).expect("a log");
    command.arg(directory.join("data")).stderr(log);
    Serve::of(command)
}

fn set_up() -> (TempDir, Authority) {
    let (directory, authority) = (tempdir().expect("a directory"), Authority::new());
    authority.sign().write(directory.path());
    std::fs::write(directory.path().join("ca.pem"), &authority.pem).expect("written");
    (directory, authority)
}

async fn writes(socket: &mut Socket, id: u64) {
    socket.write(&key("alice"), id, &batch(&[entry("E", "", b"x")])).await;
    assert_eq!(socket.next_ack().await.0, id);
}

/// Waits until a client with `config` gets through.
async fn comes_through(url: &str, config: &Arc<ClientConfig>) -> Socket {
    let began = Instant::now();
    loop {
        match Socket::try_connect_tls(url, config).await {
            Some(socket) => return socket,
            None => assert!(began.elapsed() < PATIENCE, "the new certificate does not count"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn clients_and_commands_speak_tls_and_http_gets_a_hint() {
    let (directory, authority) = set_up();
    let server = serve(directory.path(), None);
    assert!(server.url.starts_with("wss://127.0.0.1:"), "{}", server.url);
    let mut socket = comes_through(&server.url, &authority.trusted(None)).await;
    socket.next().await;
    writes(&mut socket, 1).await;
    let ca = directory.path().join("ca.pem");
    let write = ["write", "--ca", data(&ca), "--key", "alice", "--event", "E", "--payload", "1"];
    server.run(&write).ok();
    let config = directory.path().join("eventlog.toml");
    run(&["health", "--config", data(&config), "--listen", server.address()]).ok();
    let address: SocketAddr = server.address().parse().expect("an address");
    let said = http::get(address, "/healthz").await;
    assert!(
        said.starts_with("HTTP/1.1 400 ") && said.ends_with("wss:// in front, not http\n"),
        "{said}"
    );
    assert!(Socket::try_connect_tls(&server.url, &Authority::new().trusted(None)).await.is_none());
    let log = || std::fs::read_to_string(directory.path().join("log")).expect("a log");
    for line in ["speaks HTTP, and this port has TLS", "the TLS handshake failed", "can read"] {
        let began = Instant::now();
        while !log().contains(line) {
            assert!(began.elapsed() < PATIENCE, "{line}: {}", log());
            sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(server.end(Signal::TERM), Some(0));
}

/// The answer to a request over TLS; `headers` end with their line.
async fn request(address: &str, config: &Arc<ClientConfig>, headers: &str, body: &str) -> String {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let connector = TlsConnector::from(Arc::clone(config));
    let mut stream = connector.connect(name, stream).await.expect("TLS");
    let length = body.len();
    let text = format!(
        "POST /console/session HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // Whether or not the end is announced.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn the_cookie_of_the_console_goes_nowhere_without_tls() {
    let (directory, authority) = set_up();
    let server = serve(directory.path(), None);
    let config = authority.trusted(None);
    let address = server.address();
    let headers = format!("origin: https://{address}\r\ncontent-type: application/json\r\n");
    let set = request(address, &config, &headers, r#"{"token":"s3cret"}"#).await;
    let cookie = set.lines().find(|line| line.starts_with("set-cookie: ")).unwrap_or_default();
    assert!(cookie.ends_with("; Secure"), "{set}");
}

#[tokio::test]
async fn renewed_certificates_count_and_nobody_is_cut_off() {
    let (directory, authority) = set_up();
    let server = serve(directory.path(), None);
    let mut before = comes_through(&server.url, &authority.trusted(None)).await;
    before.next().await;
    // Automatically.
    let second = Authority::new();
    second.sign().write(directory.path());
    comes_through(&server.url, &second.trusted(None)).await;
    assert!(Socket::try_connect_tls(&server.url, &authority.trusted(None)).await.is_none());
    writes(&mut before, 1).await;
    // A file that cannot be used changes nothing, and is reported.
    let broken =
        Signed { certificate: Authority::new().sign().certificate, key: second.sign().key };
    broken.write(directory.path());
    server.signal(Signal::HUP);
    let log = || std::fs::read_to_string(directory.path().join("log")).expect("a log");
    let began = Instant::now();
    while !log().contains("nothing has changed") {
        assert!(began.elapsed() < PATIENCE, "{}", log());
        sleep(Duration::from_millis(20)).await;
    }
    comes_through(&server.url, &second.trusted(None)).await;
    // On request.
    let third = Authority::new();
    third.sign().write(directory.path());
    server.signal(Signal::HUP);
    comes_through(&server.url, &third.trusted(None)).await;
    writes(&mut before, 2).await;
}

#[tokio::test]
async fn clients_need_a_certificate_where_that_is_asked_for() {
    let (directory, authority) = set_up();
    let clients = Authority::new();
    let server = serve(directory.path(), Some(&clients.pem));
    let own = clients.sign();
    let mut socket = comes_through(&server.url, &authority.trusted(Some(&own))).await;
    socket.next().await;
    writes(&mut socket, 1).await;
    let other = Authority::new().sign();
    for config in [authority.trusted(None), authority.trusted(Some(&other))] {
        assert!(Socket::try_connect_tls(&server.url, &config).await.is_none());
    }
    let config = directory.path().join("eventlog.toml");
    run(&["health", "--config", data(&config), "--listen", server.address()]).ok();
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let (directory, authority) = set_up();
    let path = |name: &str| directory.path().join(name);
    let config = path("eventlog.toml");
    let check = |file: &str| {
        std::fs::write(&config, format!("auth.mode = \"allow-all\"\n[tls]\n{file}"))
            .expect("written");
        let checked = run(&["config", "check", "--config", data(&config)]);
        assert_eq!(checked.code, Some(1), "{}", checked.out);
        checked.err
    };
    let both = |certificate: &str, key: &str| {
        let [certificate, key] = [certificate, key].map(path);
        check(&format!("certificate_file = {:?}\nkey_file = {:?}", data(&certificate), data(&key)))
    };
    assert!(check("certificate_file = \"a\"").contains("tls.key_file"));
    assert!(check("client_ca_file = \"a\"").contains("tls.certificate_file"));
    assert!(both("nowhere.pem", "tls.key").contains("nowhere.pem cannot be read"));
    assert!(both("tls.pem", "tls.pem").contains("PRIVATE KEY"));
    assert!(both("tls.key", "tls.key").contains("BEGIN CERTIFICATE"));
    std::fs::write(path("other.key"), authority.sign().key).expect("written");
    let said = both("tls.pem", "other.key");
    assert!(said.contains("cannot be used with the key in"), "{said}");
}
