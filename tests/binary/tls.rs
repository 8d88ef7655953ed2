//! `[tls]`: clients over `wss://`, certificates that are renewed, and who is kept out.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};
use tokio::time::{Instant, sleep};

use super::process::{Serve, command, data, logged, run};
use crate::support::certificates::{Authority, Signed};
use crate::support::http;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// Files are checked every few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with the certificate in `tls.pem` of the directory, and with the authorities for its clients, if it asks
/// for certificates.
fn serve(directory: &Path, client_ca: Option<&str>) -> Serve {
    serve_with(directory, client_ca, "")
}

/// The same, with these lines in `[tls]`.
fn serve_with(directory: &Path, client_ca: Option<&str>, lines: &str) -> Serve {
    let clients = client_ca.map_or_else(String::new, |pem| {
        std::fs::write(directory.join("clients.pem"), pem).expect("written");
        format!("client_ca_file = {:?}\n", data(&directory.join("clients.pem")))
    });
    let [certificate, key] =
        ["tls.pem", "tls.key"].map(|name| data(&directory.join(name)).to_owned());
    let file = format!(
        "auth.mode = \"allow-all\"\nlog.access = true\n[tls]\ncertificate_file = {certificate:?}\n\
         key_file = {key:?}\n{clients}{lines}\n[admin]\ntoken = \"s3cret\"\n[[assign]]\npublic_key = \"alice\"\nstore_id = \"team\"\n"
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
    for (url, arguments) in [
        (format!("ws://{address}/eventlog"), &["tail", "--key", "alice"][..]),
        (format!("http://{address}"), &["keys", "--token", "t", "list"]),
    ] {
        let said = server.run(&[arguments, &["--url", &url]].concat()).failed(1);
        assert!(said.contains("write https:// or wss:// in front, not http"), "{said}");
    }
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

#[tokio::test]
async fn the_cookie_of_the_console_goes_nowhere_without_tls() {
    let (directory, authority) = set_up();
    let server = serve(directory.path(), None);
    let config = authority.trusted(None);
    let address = server.address();
    let headers = format!("origin: https://{address}\r\ncontent-type: application/json\r\n");
    let line = "POST /console/session";
    let set = http::request_tls(address, &config, line, &headers, r#"{"token":"s3cret"}"#).await;
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
async fn other_files_with_certificates_count_after_a_reload_and_only_if_they_can_be_used() {
    let (directory, authority) = set_up();
    let server = serve(directory.path(), None);
    let mut before = comes_through(&server.url, &authority.trusted(None)).await;
    before.next().await;
    let config = directory.path().join("eventlog.toml");
    let file = std::fs::read_to_string(&config).expect("a file");
    let moved = |to: &str, origins: &str| {
        let file = file.replace("/tls.pem", &format!("/{to}.pem"));
        let file = file.replace("/tls.key", &format!("/{to}.key"));
        std::fs::write(&config, format!("{origins}{file}")).expect("written");
        server.signal(Signal::HUP);
    };
    let log = directory.path().join("log");
    moved("nowhere", "origins = \"*\"\n");
    logged(&log, "nowhere.pem cannot be read", 1);
    comes_through(&server.url, &authority.trusted(None)).await;
    let second = Authority::new();
    let elsewhere = directory.path().join("other");
    std::fs::create_dir(&elsewhere).expect("created");
    second.sign().write(&elsewhere);
    moved("other/tls", "");
    logged(&log, "applied: tls.certificate_file, tls.key_file", 1);
    comes_through(&server.url, &second.trusted(None)).await;
    // From now on these are watched.
    let third = Authority::new();
    third.sign().write(&elsewhere);
    comes_through(&server.url, &third.trusted(None)).await;
    writes(&mut before, 1).await;
}

#[tokio::test]
async fn it_is_known_when_certificates_expire_and_again_once_they_are_renewed() {
    let (directory, authority) = set_up();
    authority.sign_until(2031).write(directory.path());
    let server = serve(directory.path(), None);
    let config = authority.trusted(None);
    let expires = async || {
        let text = http::request_tls(server.address(), &config, "GET /metrics", "", "").await;
        let name = "eventlog_tls_certificate_expires_seconds ";
        text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    };
    assert_eq!(expires().await.as_deref(), Some("1924992000"));
    // Until 2049, a year in a certificate has two digits, and then four.
    authority.sign_until(2050).write(directory.path());
    server.signal(Signal::HUP);
    let began = Instant::now();
    while expires().await.as_deref() != Some("2524608000") {
        assert!(began.elapsed() < PATIENCE, "{:?}", expires().await);
        sleep(Duration::from_millis(50)).await;
    }
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
    // The commands show one as well, over WebSockets and for the admin API.
    let (mine, theirs) = (directory.path().join("mine"), directory.path().join("theirs"));
    for (of, to) in [(&own, &mine), (&other, &theirs)] {
        std::fs::create_dir(to).expect("created");
        of.write(to);
    }
    let ca = directory.path().join("ca.pem");
    let with = |command: &[&str], shown: &Path, key: &Path| {
        let (cert, key) = (shown.join("tls.pem"), key.join("tls.key"));
        let shown = ["--ca", data(&ca), "--cert", data(&cert), "--cert-key", data(&key)];
        server.run(&[command, &shown].concat())
    };
    let write = ["write", "--key", "alice", "--event", "E", "--payload", "1"];
    let stores = ["stores", "--token", "s3cret"];
    with(&write, &mine, &mine).ok();
    assert!(with(&stores, &mine, &mine).ok().contains("team  head 2"));
    for command in [&write[..], &stores] {
        with(command, &theirs, &theirs).failed(1);
        let said = with(command, &mine, &theirs).failed(1);
        assert!(said.contains("--cert, --cert-key: the certificate cannot be used with"), "{said}");
        let said = with(command, &mine, &directory.path().join("nowhere")).failed(1);
        assert!(said.contains("--cert-key: ") && said.contains("cannot be read"), "{said}");
    }
    for config in [authority.trusted(None), authority.trusted(Some(&other))] {
        assert!(Socket::try_connect_tls(&server.url, &config).await.is_none());
    }
    let config = directory.path().join("eventlog.toml");
    run(&["health", "--config", data(&config), "--listen", server.address()]).ok();
}

#[tokio::test]
async fn a_certificate_that_nobody_needs_is_checked_and_passed_on() {
    let (directory, authority) = set_up();
    let clients = Authority::new();
    let optional = "client_certificates = \"optional\"";
    let server = serve_with(directory.path(), Some(&clients.pem), optional);
    let mut without = comes_through(&server.url, &authority.trusted(None)).await;
    without.next().await;
    writes(&mut without, 1).await;
    let own = clients.sign();
    let mut with = comes_through(&server.url, &authority.trusted(Some(&own))).await;
    with.next().await;
    writes(&mut with, 1).await;
    let other = Authority::new().sign();
    let of_another = authority.trusted(Some(&other));
    assert!(Socket::try_connect_tls(&server.url, &of_another).await.is_none());
    let ca = directory.path().join("ca.pem");
    let sessions = ["sessions", "--json", "--ca", data(&ca), "--token", "s3cret"];
    let sessions = server.run(&sessions).ok();
    let shown = |line: &str| {
        let session: serde_json::Value = serde_json::from_str(line).expect("JSON");
        session["certificateSha256"].as_str().map(str::to_owned)
    };
    let der = CertificateDer::from_pem_slice(own.certificate.as_bytes()).expect("PEM");
    let hash = format!("{:x}", Sha256::digest(&der));
    let mut shown: Vec<_> = sessions.lines().map(shown).collect();
    shown.sort();
    assert_eq!(shown, [None, Some(hash.clone())], "{sessions}");
    let config = directory.path().join("eventlog.toml");
    run(&["health", "--config", data(&config), "--listen", server.address()]).ok();
    drop((with, without));
    logged(&directory.path().join("log"), &format!("with certificate {hash}"), 1);
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
