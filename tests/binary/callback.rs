//! `[auth] mode = "http"`: the application decides who may do what, against the binary.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::protocol::rpc;
use eventlog_server::services::identities::signing_key_to_hex;
use parking_lot::Mutex;
use ring::hmac;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::logged::{ADMIN, Logged};
use super::process::{data, run};
use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::rpc::{RpcSocket, identity, identity_with};
use crate::support::socket::Socket;
use crate::support::{batch, entry, http, key};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

const ALLOWED: &str = r#"{"allow":true,"storeId":"team"}"#;

type Says = dyn Fn(&Received) -> Reply + Send + Sync;

/// An application, and a server that asks it.
struct Asked {
    server: Logged,
    application: Receiver,
    says: Arc<Mutex<Arc<Says>>>,
}

impl Asked {
    async fn start(says: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::with("", "timeout = \"60s\"", says).await
    }

    async fn with(
        auth: &str,
        settings: &str,
        says: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let says: Arc<Mutex<Arc<Says>>> = Arc::new(Mutex::new(Arc::new(says)));
        let application = Receiver::start(answers(&says)).await;
        let server = Logged::start(&format!(
            "admin.token = {ADMIN:?}\n[auth]\n{auth}\nmode = \"http\"\n[auth.http]\nurl = \"{}?CANARY-URL\"\n\
             secret = {SECRET:?}\nheaders = [\"Cookie\"]\n{settings}",
            application.url()
        ));
        Self { server, application, says }
    }

    fn rpc(&self) -> String {
        format!("ws://{}/rpc", self.server.serve().address())
    }

    fn says(&self, says: impl Fn(&Received) -> Reply + Send + Sync + 'static) {
        *self.says.lock() = Arc::new(says);
    }

    /// A client whose handshake has this cookie.
    async fn connect(&self, cookie: &str) -> Socket {
        let mut client = Socket::connect_with(self.server.url(), &[("cookie", cookie)]).await;
        client.next().await;
        client
    }

    fn asked(&self) -> usize {
        self.application.received.lock().len()
    }

    fn last(&self) -> Received {
        self.application.received.lock().last().expect("a question").clone()
    }
}

fn answers(says: &Arc<Mutex<Arc<Says>>>) -> impl Fn(&Received) -> Reply + Send + Sync + use<> {
    let says = says.clone();
    move |asked: &Received| {
        let now = says.lock().clone();
        now(asked)
    }
}

fn say(answer: &Value) -> Reply {
    Reply::Body(answer.to_string())
}

/// Allows everything to everybody, in the store `team`.
fn allow(_: &Received) -> Reply {
    Reply::Body(ALLOWED.to_owned())
}

async fn write(client: &mut Socket, name: &str, event: &str) -> Result<u64, (ErrorCode, String)> {
    client.write(&key(name), 1, &batch(&[entry(event, "", b"")])).await;
    match client.next_answer().await {
        Ok((_, sequences)) => Ok(sequences[0]),
        Err(refusal) => Err((refusal.code, refusal.message)),
    }
}

async fn read(client: &mut Socket, name: &str, count: usize) {
    client.subscribe(&key(name), 0).await;
    assert_eq!(client.next_entries(count).await.len(), count);
}

#[tokio::test]
async fn the_application_is_asked_what_somebody_wants_and_once_for_the_same() {
    let it = Asked::start(|asked| {
        let ann = asked.json["headers"]["cookie"] == "session=ann";
        say(&json!({ "allow": ann, "storeId": "team" }))
    })
    .await;
    let mut ann = it.connect("session=ann").await;
    assert_eq!(write(&mut ann, "alice", "E").await, Ok(1));
    assert_eq!(write(&mut ann, "alice", "E").await, Ok(2));
    let question = |action: &str, cookie: &str| {
        json!({
            "publicKey": "alice", "proved": false, "action": action, "path": "/eventlog",
            "headers": { "cookie": cookie }
        })
    };
    assert_eq!((it.asked(), it.last().json), (1, question("write", "session=ann")));
    read(&mut ann, "alice", 2).await;
    assert_eq!((it.asked(), it.last().json), (2, question("read", "session=ann")));
    // Another one of hers, which asks nothing new.
    let mut again = it.connect("session=ann").await;
    assert_eq!(write(&mut again, "alice", "E").await, Ok(3));
    read(&mut again, "alice", 3).await;
    assert_eq!(it.asked(), 2);
    // Somebody else with the same key.
    let mut bob = it.connect("session=bob").await;
    let (code, said) = write(&mut bob, "alice", "E").await.expect_err("refused");
    assert_eq!((code, said.starts_with("forbidden: ")), (ErrorCode::Unauthorized, true), "{said}");
    assert_eq!((it.asked(), it.last().json), (3, question("write", "session=bob")));
    // A refusal is an answer too.
    assert!(write(&mut bob, "alice", "E").await.is_err());
    assert_eq!(it.asked(), 3);
}

#[tokio::test]
async fn questions_are_signed_as_webhooks_are() {
    let it = Asked::start(allow).await;
    let mut client = it.connect("a=b").await;
    write(&mut client, "alice", "E").await.expect("allowed");
    let Received { headers, body, .. } = it.last();
    let (id, time) = (&headers["webhook-id"], &headers["webhook-timestamp"]);
    let signed = [id.as_bytes(), b".", time.as_bytes(), b".", &body].concat();
    let secret = BASE64.decode(&SECRET["whsec_".len()..]).expect("base64");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), &signed);
    assert_eq!(headers["webhook-signature"], format!("v1,{}", BASE64.encode(tag)));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    assert!(time.parse::<u64>().expect("seconds").abs_diff(now) < 60, "{time}");
    write(&mut client, "bob", "E").await.expect("allowed");
    assert_ne!(it.last().headers["webhook-id"], *id);
}

#[tokio::test]
async fn what_is_not_answered_is_refused_and_asked_again() {
    let it = Asked::with("", "timeout = \"3s\"", allow).await;
    let mut client = it.connect("CANARY-COOKIE").await;
    let padded = |bytes: usize| format!("{ALLOWED}{}", " ".repeat(bytes - ALLOWED.len()));
    let failures: Vec<(&str, Reply)> = vec![
        ("hangs", Reply::Never),
        ("slow headers", Reply::SlowHeaders),
        ("endless", Reply::Endless),
        ("500", Reply::Now("500 Internal Server Error")),
        ("403", Reply::Now("403 Forbidden")),
        ("204", Reply::Now("204 No Content")),
        ("a redirect", Reply::Now("302 Found\r\nlocation: /in")),
        ("nonsense", Reply::Body("<html>".to_owned())),
        ("another type", say(&json!({ "allow": "yes" }))),
        ("a word that is not known", say(&json!({ "allow": true, "event": ["A"] }))),
        ("too large", Reply::Body(padded(64 * 1_024 + 1))),
    ];
    let mut sequence = 0;
    for (what, reply) in failures {
        // A new key for each, so that nothing is known about it.
        let asked = it.asked();
        it.says(move |_| reply.clone());
        for tries in 1..=2 {
            let (code, said) = write(&mut client, what, "E").await.expect_err(what);
            assert_eq!(code, ErrorCode::InternalServerError, "{what}: {said}");
            assert!(said.starts_with("unavailable: "), "{what}: {said}");
            assert_eq!(it.asked(), asked + tries, "{what}");
        }
        it.says(allow);
        sequence += 1;
        assert_eq!(write(&mut client, what, "E").await, Ok(sequence), "{what}");
    }
    let largest = padded(64 * 1_024);
    it.says(move |_| Reply::Body(largest.clone()));
    assert_eq!(write(&mut client, "as large as may be", "E").await, Ok(sequence + 1));
    let to: SocketAddr = it.server.serve().address().parse().expect("an address");
    let metrics = http::get(to, "/metrics").await;
    assert!(metrics.contains("eventlog_auth_callback_failed_total 22\n"), "{metrics}");
    let asked = format!("eventlog_auth_callback_asked_total {}\n", it.asked());
    assert!(metrics.contains(&asked), "{asked}{metrics}");
    let log = it.server.log();
    assert!(log.contains("/in does not say who may do what: "), "{log}");
    for secret in ["CANARY", SECRET, &SECRET[6..], ADMIN] {
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
}

#[tokio::test]
async fn while_the_application_is_down_who_has_an_answer_goes_on_and_nobody_else() {
    let it = Asked::start(allow).await;
    let mut known = it.connect("a").await;
    assert_eq!(write(&mut known, "alice", "E").await, Ok(1));
    let address = it.application.address;
    let Asked { server, application, says } = it;
    drop(application);
    let mut new = Socket::connect_with(server.url(), &[("cookie", "b")]).await;
    new.next().await;
    let (code, said) = write(&mut new, "alice", "E").await.expect_err("refused");
    assert_eq!((code, said.starts_with("unavailable: ")), (ErrorCode::InternalServerError, true));
    assert_eq!(write(&mut known, "alice", "E").await, Ok(2));
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let _application = Receiver::on(listener, answers(&says));
    assert_eq!(write(&mut new, "alice", "E").await, Ok(3));
}

#[tokio::test]
async fn an_answer_says_what_may_be_done_and_assigns_a_store_for_good() {
    let it = Asked::start(|asked| {
        let name = asked.json["publicKey"].as_str().expect("a key").to_owned();
        say(&match &*name {
            "reader" => json!({ "allow": true, "storeId": "team", "write": false }),
            "writer" => json!({ "allow": true, "storeId": "team", "read": false }),
            "todos" => json!({ "allow": true, "storeId": "team", "events": ["Todo*"] }),
            "registered" => json!({ "allow": true }),
            "moved" => json!({ "allow": true, "storeId": "den" }),
            "torn" if asked.json["action"] == "read" => json!({ "allow": true, "storeId": "den" }),
            "torn" => json!({ "allow": true, "storeId": "team" }),
            _ => json!({ "allow": false }),
        })
    })
    .await;
    it.server.keys(&["assign", "moved", "team"]).ok();
    let mut client = it.connect("a").await;
    assert_eq!(write(&mut client, "todos", "TodoAdded").await, Ok(1));
    assert_eq!(write(&mut client, "writer", "E").await, Ok(2));
    let (_, said) = write(&mut client, "todos", "Note").await.expect_err("refused");
    assert!(said.contains("entry 0"), "{said}");
    assert!(write(&mut client, "reader", "E").await.is_err());
    read(&mut it.connect("a").await, "reader", 2).await;
    client.subscribe(&key("writer"), 0).await;
    assert_eq!(client.next_refusal().await.code, ErrorCode::Unauthorized);
    let (code, said) = write(&mut client, "registered", "E").await.expect_err("no store");
    assert_eq!((code, said.contains("not mapped")), (ErrorCode::InvalidRequest, true), "{said}");
    let (code, said) = write(&mut client, "moved", "E").await.expect_err("another store");
    assert_eq!((code, said.starts_with("moved: ")), (ErrorCode::InvalidRequest, true), "{said}");
    assert_eq!(write(&mut client, "torn", "E").await, Ok(3));
    client.subscribe(&key("torn"), 0).await;
    let refused = client.next_refusal().await;
    assert!(refused.message.contains("two stores"), "{}", refused.message);
    let audit = it.server.audit().join("\n");
    assert!(audit.contains(r#"action=assign key="todos" store="team" by=claim"#), "{audit}");
    // What an administrator has taken away, an answer does not restore.
    it.server.keys(&["remove", "todos"]).ok();
    let mut client = it.connect("b").await;
    let (_, said) = write(&mut client, "todos", "TodoAdded").await.expect_err("removed");
    assert!(said.contains("not mapped"), "{said}");
}

#[tokio::test]
async fn nobody_proves_to_be_a_key_that_the_application_does_not_give_them() {
    let it = Asked::start(|asked| {
        let (name, read) = (&asked.json["publicKey"], asked.json["action"] == "read");
        let allow = name == "alice" || (name == "writer" && !read);
        say(&json!({ "allow": allow, "storeId": "team" }))
    })
    .await;
    let mut client = RpcSocket::connect_with(&it.rpc(), &[("cookie", "a")]).await;
    client.authenticate(&identity("alice")).await.expect("her own");
    let asked = it.last().json;
    assert_eq!((&asked["proved"], &asked["path"]), (&json!(true), &json!("/rpc")));
    client.authenticate(&identity("writer")).await.expect("allowed to write");
    let refused = client.authenticate(&identity("bob")).await.expect_err("refused");
    assert_eq!(refused.code, rpc::ErrorCode::Unauthorized);
    // Bob's key is still nobody's.
    assert!(it.server.keys(&["show", "bob"]).failed(1).contains("no signing key"));
}

#[tokio::test]
async fn a_user_that_the_application_names_can_be_shut_out() {
    let it = Asked::start(|asked| {
        let user = asked.json["headers"]["cookie"].as_str().expect("a cookie").to_owned();
        say(&json!({ "allow": true, "storeId": "team", "sub": user, "ttlSeconds": 600 }))
    })
    .await;
    let (mut ann, mut bob) = (it.connect("ann").await, it.connect("bob").await);
    assert_eq!(write(&mut bob, "shared", "E").await, Ok(1));
    assert_eq!(write(&mut ann, "shared", "E").await, Ok(2));
    read(&mut ann, "shared", 2).await;
    let assigned = r#"action=assign key="shared" store="team" by=claim subject="bob""#;
    assert_eq!(it.server.audit(), [assigned]);
    let revoke = |arguments: &[&str]| {
        it.server.serve().run(&[&["revoke", "--token", ADMIN], arguments].concat()).ok()
    };
    revoke(&["--subject", "ann"]);
    let refused = ann.next_refusal().await;
    assert!(refused.message.starts_with("revoked: "), "{}", refused.message);
    let (_, said) = write(&mut ann, "shared", "E").await.expect_err("refused");
    assert!(said.starts_with("revoked: "), "{said}");
    let mut again = it.connect("ann").await;
    assert!(write(&mut again, "shared", "E").await.is_err());
    let mut rpc = RpcSocket::connect_with(&it.rpc(), &[("cookie", "ann")]).await;
    let refused = rpc.authenticate(&identity("own")).await.expect_err("refused");
    assert!(refused.message.starts_with("revoked: "), "{}", refused.message);
    assert_eq!(write(&mut bob, "shared", "E").await, Ok(3));
    revoke(&["--lift", "subject:ann"]);
    assert_eq!(write(&mut ann, "shared", "E").await, Ok(4));
}

#[tokio::test]
async fn an_answer_names_the_signing_key_that_may_be_bound() {
    let own = identity("alice");
    let hex = signing_key_to_hex(own.signing_public_key());
    let it = Asked::with("bind = \"token\"", "timeout = \"60s\"", move |asked| {
        let named = (asked.json["publicKey"] == "alice").then_some(&hex);
        say(&json!({ "allow": true, "storeId": "team", "signingKey": named }))
    })
    .await;
    let mut client = RpcSocket::connect_with(&it.rpc(), &[("cookie", "a")]).await;
    for identity in [identity_with("alice", 9), identity("bob")] {
        let refused = client.authenticate(&identity).await.expect_err("refused");
        assert_eq!(refused.code, rpc::ErrorCode::Unauthorized);
        assert!(refused.message.starts_with("token: "), "{}", refused.message);
    }
    client.authenticate(&own).await.expect("named");
}

#[tokio::test]
async fn a_live_subscription_is_asked_about_again_when_its_answer_ends() {
    for (refused, code) in [
        (say(&json!({ "allow": false })), ErrorCode::Unauthorized),
        (Reply::Now("500 Internal Server Error"), ErrorCode::InternalServerError),
        (Reply::Never, ErrorCode::InternalServerError),
    ] {
        let it = Asked::with("", "timeout = \"3s\"", |_| {
            say(&json!({ "allow": true, "storeId": "team", "ttlSeconds": 1 }))
        })
        .await;
        let mut reader = it.connect("reader").await;
        let mut writer = it.connect("writer").await;
        assert_eq!(write(&mut writer, "alice", "E").await, Ok(1));
        read(&mut reader, "alice", 1).await;
        let asked = it.asked();
        // As long as it is allowed, nobody notices.
        it.application.requests_come(asked + 2).await;
        assert_eq!(write(&mut writer, "alice", "E").await, Ok(2));
        reader.next_entries(1).await;
        it.says(move |asked| match &asked.json["headers"]["cookie"] {
            cookie if cookie == "reader" => refused.clone(),
            _ => allow(asked),
        });
        assert_eq!(reader.next_refusal().await.code, code);
        assert_eq!(write(&mut reader, "alice", "E").await.expect_err("refused").0, code);
        assert_eq!(write(&mut writer, "alice", "E").await, Ok(3));
        reader.nothing_comes().await;
    }
}

#[tokio::test]
async fn the_same_question_of_many_is_asked_once() {
    let (room, under_way) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let holds = room.clone();
    let it =
        Asked::start(move |_| Reply::HeldBody(ALLOWED, holds.clone(), under_way.clone())).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = it.connect("a").await;
        client.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
        clients.push(client);
    }
    it.application.requests_come(1).await;
    room.add_permits(20);
    for client in &mut clients {
        client.next_answer().await.expect("allowed");
    }
    assert_eq!(it.asked(), 1);
}

#[tokio::test]
async fn a_burst_of_sessions_gets_its_answers_and_the_application_few_questions_at_a_time() {
    const SESSIONS: usize = 1_000;
    let limit = rustix::process::Resource::Nofile;
    let files = rustix::process::getrlimit(limit);
    let raised = rustix::process::Rlimit { current: files.maximum, ..files };
    rustix::process::setrlimit(limit, raised).expect("more files");
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let room = Arc::new(Semaphore::new(0));
    let (counted, at_most, holds) = (under_way.clone(), most.clone(), room.clone());
    let it = Asked::start(move |_| {
        at_most.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Reply::HeldBody(ALLOWED, holds.clone(), counted.clone())
    })
    .await;
    let mut clients = Vec::new();
    for number in 0..SESSIONS {
        let mut client = it.connect(&format!("session={number}")).await;
        client.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
        clients.push(client);
    }
    while under_way.load(Ordering::SeqCst) < 32 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    room.add_permits(SESSIONS);
    let mut sequences = HashSet::new();
    for client in &mut clients {
        let (_, given) = client.next_answer().await.expect("allowed");
        sequences.extend(given);
    }
    assert_eq!((sequences.len(), it.asked()), (SESSIONS, SESSIONS));
    assert_eq!(most.load(Ordering::SeqCst), 32);
}

#[test]
fn what_cannot_be_asked_is_a_wrong_configuration() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("eventlog.toml");
    let url = "url = \"https://app.example/may\"";
    let secret = format!("secret = {SECRET:?}");
    for (settings, word) in [
        (secret.clone(), "`url`"),
        (url.to_owned(), "`secret`"),
        (format!("{url}\nsecret = \"whsec_short\""), "whsec_"),
        (format!("{secret}\nurl = \"http://app.example/may\""), "https"),
        (format!("{secret}\nurl = \"https://u:p@app.example/may\""), "a user"),
        (format!("{secret}\n{url}\nheaders = [\"a b\"]"), "`headers`"),
        (format!("{secret}\n{url}\ntimeout = \"0s\""), "`timeout`"),
    ] {
        let file = format!("[auth]\nmode = \"http\"\n[auth.http]\n{settings}");
        std::fs::write(&config, file).expect("written");
        let store = directory.path().join("data");
        let arguments = ["serve", "--config", data(&config), "--data-dir", data(&store)];
        let complaint = run(&arguments).failed(1);
        assert!(complaint.contains(word) && !complaint.contains(SECRET), "{settings}: {complaint}");
        assert!(!store.exists(), "nothing is left behind");
    }
}

/// Its session is not polled: it is ended from outside, although only the application said who it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_shut_out_and_does_not_read_is_gone_as_well() {
    let it = Asked::start(|asked| {
        let user = asked.json["headers"]["cookie"].as_str().expect("a cookie").to_owned();
        say(&json!({ "allow": true, "storeId": "team", "sub": user, "ttlSeconds": 600 }))
    })
    .await;
    let (mut frozen, mut bob) = (it.connect("ann").await, it.connect("bob").await);
    assert_eq!(write(&mut bob, "shared", "E").await, Ok(1));
    read(&mut frozen, "shared", 1).await;
    for sequence in 2..=11 {
        bob.write(&key("shared"), sequence, &batch(&[entry("E", "", &vec![0; 1_000_000])])).await;
        assert_eq!(bob.next_ack().await.1, [sequence]);
    }
    it.server.serve().run(&["revoke", "--token", ADMIN, "--subject", "ann"]).ok();
    let to = it.server.serve().address().parse().expect("an address");
    crate::support::server::comes_to(to, "eventlog_connections_open", 1).await;
    assert_eq!(write(&mut bob, "shared", "E").await, Ok(12));
}
