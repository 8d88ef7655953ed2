//! The commands that show who is connected to a running server.

use std::time::Duration;

use eventlog_server::protocol::msgpack::ErrorCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::logged::{ADMIN, Logged};
use super::process::{Running, Serve, command, data};
use crate::support::socket::Socket;
use crate::support::{batch, entry, http, key};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn connections_and_what_they_follow_are_shown_and_closed() {
    let server = Logged::start(&format!(
        "admin.token = {ADMIN:?}\nauth.mode = \"allow-all\"\n\
         [[assign]]\npublic_key = \"alice\"\nstore_id = \"team\"\n\
         [[assign]]\npublic_key = \"bob\"\nstore_id = \"other\""
    ));
    let run = |arguments: &[&str]| {
        server.serve().run(&[arguments, &["--token", ADMIN]].concat()).ok().trim_end().to_owned()
    };
    let mut alice = Socket::connect(server.url()).await;
    let mut other = Socket::connect(server.url()).await;
    alice.subscribe(&key("alice"), 0).await;
    for id in 1..=3 {
        other.write(&key("alice"), id, &batch(&[entry("E", "", &[0; 1_000])])).await;
        other.next_ack().await;
    }
    alice.next_entries(3).await;
    let listed: Vec<Value> = run(&["sessions", "--json"])
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(listed.len(), 2);
    let [subscribed, writer] = [&listed[0], &listed[1]];
    let followed = &subscribed["subscriptions"][0];
    assert_eq!((&followed["storeId"], &followed["publicKey"]), (&"team".into(), &"alice".into()));
    assert_eq!((&followed["cursor"], &followed["lag"]), (&4.into(), &0.into()));
    assert!(subscribed["sentBytes"].as_u64() > Some(3_000), "{subscribed}");
    assert!(writer["receivedBytes"].as_u64() > Some(3_000), "{writer}");
    assert_eq!((&writer["address"], &writer["path"]), (&"127.0.0.1".into(), &"/eventlog".into()));
    let shown = run(&["sessions"]);
    assert!(shown.contains("alice follows team: next 4, 0 behind"), "{shown}");
    assert!(shown.contains("  /eventlog  since 20"), "{shown}");
    assert!(run(&["stores"]).starts_with("team  head 3  3 entries  "), "{}", run(&["stores"]));
    assert!(run(&["stores"]).ends_with("\nother  no entries yet"), "{}", run(&["stores"]));
    let json = run(&["stores", "--json"]);
    let last: Value = serde_json::from_str(json.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["storeId"], &last["entries"]), (&"other".into(), &0.into()));
    assert_eq!(run(&["top"]), "", "nothing is written");
    let entries = run(&["entries", "--store", "team", "--from", "2", "--count", "1"]);
    assert!(
        entries.starts_with("2  ") && entries.contains("  E    alice  1000 bytes 0x00"),
        "{entries}"
    );
    let newest = run(&["entries", "--store", "team", "--last", "2", "--json"]);
    let newest: Vec<Value> =
        newest.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((newest.len(), &newest[1]["sequence"]), (2, &3.into()));
    let one = newest[0]["id"].as_str().expect("an id");
    assert!(run(&["entries", "--store", "team", "--id", one]).starts_with("2  "));
    assert_eq!(run(&["entries", "--store", "team", "--from", "1", "--event", "Other*"]), "");
    let id = subscribed["id"].to_string();
    run(&["sessions", "close", &id, "--key", "alice"]);
    let refusal = alice.next_refusal().await;
    assert_eq!(refusal.code, ErrorCode::InternalServerError);
    assert!(refusal.message.starts_with("closed: "), "{}", refusal.message);
    let none = server.serve().run(&["sessions", "close", &id, "--key", "alice", "--token", ADMIN]);
    assert!(none.failed(1).contains("has no subscription"), "it is over");
    // The connection is unchanged.
    alice.subscribe(&key("alice"), 0).await;
    alice.next_entries(3).await;
    run(&["sessions", "close", &id]);
    assert_eq!(alice.close_code().await, Some(1001));
    other.write(&key("alice"), 4, &batch(&[entry("E", "", b"")])).await;
    other.next_ack().await;
    let gone = server.serve().run(&["sessions", "close", &id, "--token", ADMIN]);
    assert!(gone.failed(1).contains("there is no session"), "it is gone");
}

/// A live stream of entries over HTTP, as a backend opens it.
async fn stream(server: &Logged, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.serve().address()).await.expect("a connection");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: eventlog\r\nauthorization: Bearer {ADMIN}\r\n\
         accept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("written");
    stream
}

/// Reads until this has come.
async fn comes(stream: &mut TcpStream, what: &str) {
    let (mut read, mut some) = (Vec::new(), vec![0; 65_536]);
    while !read.windows(what.len()).any(|bytes| bytes == what.as_bytes()) {
        // What is looked for may come in two pieces.
        read.drain(..read.len().saturating_sub(what.len()));
        let count = timeout(PATIENCE, stream.read(&mut some)).await.expect("in time");
        let count = count.expect("read");
        assert!(count > 0, "it ended");
        read.extend_from_slice(&some[..count]);
    }
}

#[tokio::test]
async fn live_streams_are_in_the_list_with_how_far_they_are_and_can_be_closed() {
    let server = Logged::start(&format!(
        "admin.token = {ADMIN:?}\nauth.mode = \"allow-all\"\n\
         [[assign]]\npublic_key = \"alice\"\nstore_id = \"team\""
    ));
    let run = |arguments: &[&str]| {
        server.serve().run(&[arguments, &["--token", ADMIN]].concat()).ok().trim_end().to_owned()
    };
    let mut alice = Socket::connect(server.url()).await;
    alice.write(&key("alice"), 1, &batch(&[entry("E", "", b""), entry("E", "", b"")])).await;
    alice.next_ack().await;
    let mut follows = stream(&server, "/admin/stores/team/entries?from=1").await;
    comes(&mut follows, "id: 2\n").await;
    let mut overview = stream(&server, "/admin/overview").await;
    comes(&mut overview, "data: ").await;
    // More than the buffers of a socket hold, and nobody reads it.
    let stuck = stream(&server, "/admin/stores/team/entries?from=1").await;
    let large = vec![0; 500_000];
    for id in 2..=20 {
        alice.write(&key("alice"), id, &batch(&[entry("E", "", &large)])).await;
        alice.next_ack().await;
    }
    let listed = || -> Vec<Value> {
        let lines = run(&["sessions", "--json"]);
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    comes(&mut follows, "id: 21\n").await;
    let all = listed();
    assert_eq!(all.len(), 4, "{all:?}");
    let path = "/admin/stores/team/entries";
    let of_entries: Vec<_> = all.iter().filter(|one| one["path"] == path).collect();
    let [one, behind] = of_entries[..] else { panic!("{all:?}") };
    assert_eq!((&one["token"], &one["address"]), (&"admin".into(), &"127.0.0.1".into()));
    assert_eq!((&one["stream"]["storeId"], &one["stream"]["cursor"]), (&"team".into(), &22.into()));
    assert_eq!(one["stream"]["lag"], 0);
    assert!(one["sinceMillis"].as_u64() > Some(1_700_000_000_000), "{one}");
    assert!(one["sentBytes"].as_u64() > Some(5_000_000), "{one}");
    assert!(behind["stream"]["lag"].as_u64() > Some(1), "{behind}");
    let shown = run(&["sessions"]);
    assert!(shown.contains("    token admin follows team: next 22, 0 behind"), "{shown}");
    let metrics = http::get(server.serve().address().parse().expect("an address"), "/metrics");
    assert!(metrics.await.contains("\neventlog_streams_open 3\n"));
    // Pages go through both kinds, in order.
    let next = |after: &Value| {
        let path = format!("/admin/sessions?limit=1&after={after}");
        let to = server.serve().address().parse().expect("an address");
        async move { http::get_with_token(to, &path, ADMIN).await }
    };
    let page = next(&all[0]["id"]).await;
    assert!(page.contains(&format!("\"id\":{},", all[1]["id"])), "{page}");
    assert!(page.contains(&format!("\"next\":\"{}\"", all[1]["id"])), "{page}");
    // One that reads, and one that does not.
    for one in [one, behind] {
        run(&["sessions", "close", &one["id"].to_string()]);
    }
    let mut rest = Vec::new();
    timeout(PATIENCE, follows.read_to_end(&mut rest)).await.expect("it ends").expect("read");
    let began = Instant::now();
    while listed().len() > 2 {
        assert!(began.elapsed() < PATIENCE, "{:?}", listed());
        sleep(Duration::from_millis(50)).await;
    }
    drop(stuck);
    comes(&mut overview, "data: ").await;
    let gone = server.serve().run(&["sessions", "close", &one["id"].to_string(), "--token", ADMIN]);
    assert!(gone.failed(1).contains("there is no session"));
}

/// Stores without recent writes are not read: a server may have many more stores than are in use.
#[tokio::test]
async fn top_shows_what_grows_and_looks_at_open_stores_alone() {
    let server = Logged::start(&format!(
        "admin.token = {ADMIN:?}\nauth.mode = \"allow-all\"\nlog.access = true\n\
         [[assign]]\npublic_key = \"alice\"\nstore_id = \"team\"\n[limits]\nstore_idle_timeout = \"1h\""
    ));
    let mut alice = Socket::connect(server.url()).await;
    let mut write = async |id| {
        alice.write(&key("alice"), id, &batch(&[entry("E", "", &[0; 1_000])])).await;
        alice.next_ack().await;
    };
    write(1).await;
    let top = async || {
        let (url, arguments) = (server.url().to_owned(), ["top", "--token", ADMIN]);
        let ended = tokio::task::spawn_blocking(move || {
            let mut command = super::process::command(&arguments);
            command.env("EVENTLOG_URL", url);
            super::process::Ended::of(command.spawn().expect("it runs")).ok()
        });
        ended.await.expect("it ran")
    };
    let writes = async {
        for id in 2..=60 {
            write(id).await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let (shown, ()) = tokio::join!(top(), writes);
    assert!(shown.starts_with("team  ") && shown.contains(" entries/s  "), "{shown}");
    let stores = |query: &str| {
        let address = server.serve().address().parse().expect("an address");
        let path = format!("/admin/stores{query}");
        async move { crate::support::http::get_with_token(address, &path, ADMIN).await }
    };
    assert!(stores("?open=true").await.contains(r#"{"stores":[{"storeId":"team","#));
    assert!(stores("?open=true&after=team").await.ends_with(r#"{"stores":[]}"#));
}

#[tokio::test]
async fn a_store_that_nobody_uses_is_listed_and_not_among_the_open_ones() {
    let mut server = Logged::start(&format!(
        "admin.token = {ADMIN:?}\nauth.mode = \"allow-all\"\n\
         [[assign]]\npublic_key = \"alice\"\nstore_id = \"team\""
    ));
    let mut alice = Socket::connect(server.url()).await;
    alice.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    alice.next_ack().await;
    drop(alice);
    server.restart();
    let address = server.serve().address().parse().expect("an address");
    let all = crate::support::http::get_with_token(address, "/admin/stores", ADMIN).await;
    assert!(all.contains("team"), "{all}");
    let open = crate::support::http::get_with_token(address, "/admin/stores?open=true", ADMIN);
    assert!(open.await.ends_with(r#"{"stores":[]}"#));
}

/// On a terminal that has fewer rows than there are stores.
#[test]
fn what_is_watched_on_a_terminal_fits_its_height() {
    let assigned = (1..=20)
        .map(|n| format!("[[assign]]\npublic_key = \"key-{n}\"\nstore_id = \"store-{n:02}\"\n"));
    let server = Logged::start(&format!(
        "admin.token = {ADMIN:?}\nauth.mode = \"allow-all\"\n{}",
        assigned.collect::<String>()
    ));
    let binary = env!("CARGO_BIN_EXE_eventlog-server");
    let line = format!(
        "stty rows 12 cols 80; exec {binary} stores --url {} --token {ADMIN} --watch 100ms",
        server.url()
    );
    let mut terminal = std::process::Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]);
    let Ok(mut shown) = terminal.stdout(std::process::Stdio::piped()).spawn() else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has to have script");
        return;
    };
    let lines = super::process::lines(shown.stdout.take().expect("its output"));
    let look: Vec<String> = lines.iter().take(12).collect();
    shown.kill().expect("killed");
    shown.wait().expect("it ends");
    assert!(look[0].contains("store-01  no entries yet"), "{look:?}");
    assert!(look[10].contains("store-11  no entries yet"), "{look:?}");
    // The next look comes at once behind it: there is no line break, which would move everything up.
    assert!(look[11].starts_with("… 9 more lines\u{1b}[2J"), "{look:?}");
}

/// Whoever watches a server through an upgrade wants to see it come back.
#[tokio::test]
async fn what_is_watched_is_shown_again_and_again_and_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = |address: &str| {
        let mut serve = command(&["serve", "--dev", "--listen", address]);
        serve.args(["--data-dir", data(directory.path())]).env("EVENTLOG_ADMIN_TOKEN", ADMIN);
        Serve::of(serve)
    };
    let server = start("127.0.0.1:0");
    let write = async |server: &Serve, id| {
        let mut alice = Socket::connect(&server.url).await;
        alice.write(&key("alice"), id, &batch(&[entry("E", "", b"")])).await;
        alice.next_ack().await;
    };
    write(&server, 1).await;
    let watch = ["stores", "--token", ADMIN, "--json", "--watch", "100ms"];
    let mut watching = Running::start(&server, &watch);
    let comes = |watching: &Running, head: u64| loop {
        let store: Value = serde_json::from_str(&watching.line()).expect("JSON");
        if store["head"] == head {
            return;
        }
    };
    comes(&watching, 1);
    comes(&watching, 1);
    write(&server, 2).await;
    comes(&watching, 2);
    let address = server.address().to_owned();
    assert_eq!(server.end(rustix::process::Signal::TERM), Some(0));
    // Longer than until the next look.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let server = start(&address);
    write(&server, 3).await;
    comes(&watching, 3);
    let told = watching.kill();
    assert_eq!(told.matches("does not answer").count(), 1, "{told}");
}
