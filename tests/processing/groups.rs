//! Groups of a running server, managed from the command line, and so through the admin API.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use eventlog_server::processing::{Failure, GroupOptions};
use tokio::task::spawn_blocking;

use super::*;
use crate::support::http;
use crate::support::process::binary;
use crate::support::server::in_memory;

/// Records what arrives; while it is broken, entries fail for good.
#[derive(Default)]
struct Book {
    lines: Handled,
    broken: AtomicBool,
}

async fn note(book: Arc<Book>, todo: Committed<TodoAdded>) -> Result<(), Failure> {
    if book.broken.load(SeqCst) {
        return Err(Failure::failed("the book is closed"));
    }
    book.lines.lock().push(format!("{} {} {}", todo.store(), todo.sequence(), todo.title));
    Ok(())
}

async fn start() -> (TestServer, Arc<Book>) {
    let book = Arc::<Book>::default();
    let options = GroupOptions::named("the book").dead_letters(10);
    let group = Todos::handlers(Arc::clone(&book)).on(note).options(options);
    let processor = Processor::builder(Arc::new(MemoryJournal::new())).group(group).build();
    let builder = in_memory().processor(processor.expect("one group")).admin_token("s3cret");
    (TestServer::start(builder, &[]).await, book)
}

/// Runs `groups` against the server: its exit code, and what it printed.
async fn groups(server: &TestServer, arguments: &[&str]) -> (i32, String) {
    let mut command = binary();
    command.arg("groups").args(arguments).args(["--url", &server.url()]);
    command.env("EVENTLOG_ADMIN_TOKEN", "s3cret");
    let ended = spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs");
    let printed = [ended.stdout, ended.stderr].concat();
    let printed = String::from_utf8(printed).expect("text");
    (ended.status.code().expect("a code"), printed.trim_end().to_owned())
}

async fn ok(server: &TestServer, arguments: &[&str]) -> String {
    let (code, printed) = groups(server, arguments).await;
    assert_eq!(code, 0, "{printed}");
    printed
}

async fn write_to(server: &TestServer, name: &str, titles: &[&str]) {
    let entries = titles.iter().map(|title| added(title, title)).collect();
    server.server.write_to_store(store(name), entries, true).await.expect("written");
}

/// Lists those of one store while `team` and `other` have some, in pages of one.
async fn dead_letters_of_one_store(server: &TestServer) {
    for (store, expected) in [("team", &[4, 5][..]), ("other", &[1][..]), ("nobody", &[][..])] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let path =
                format!("/admin/groups/the%20book/dead-letters?limit=1&storeId={store}{after}");
            let answer = http::get_with_token(server.addr, &path, "s3cret").await;
            let body = answer.split_once("\r\n\r\n").expect("a body").1;
            let page: serde_json::Value = serde_json::from_str(body).expect("JSON");
            for letter in page["deadLetters"].as_array().expect("a list") {
                assert_eq!(letter["storeId"], store);
                found.push(letter["sequence"].as_u64().expect("a number"));
            }
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(found, expected, "{store}");
    }
}

fn taken(book: &Book) -> Vec<String> {
    std::mem::take(&mut *book.lines.lock())
}

async fn until(done: impl Fn() -> bool) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(tokio::time::Instant::now() < patience, "it does not happen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn groups_are_listed_paused_rewound_and_their_dead_letters_seen_to_from_the_command_line() {
    let (server, book) = start().await;
    write_to(&server, "team", &["one", "two"]).await;
    processed(&server.server, "team", 2).await;
    assert_eq!(
        ok(&server, &["list"]).await,
        "the book  running  0 behind in 0 stores  0 dead letters"
    );

    ok(&server, &["pause", "the book"]).await;
    write_to(&server, "team", &["three"]).await;
    let listed = ok(&server, &["list"]).await;
    assert_eq!(listed, "the book  paused  1 behind in 1 store  0 dead letters");
    assert_eq!(taken(&book), ["team 1 one", "team 2 two"]);
    ok(&server, &["resume", "the book"]).await;
    processed(&server.server, "team", 3).await;
    assert_eq!(taken(&book), ["team 3 three"]);

    ok(&server, &["rewind", "--store", "team", "--group", "the book", "--from", "2"]).await;
    until(|| book.lines.lock().len() == 2).await;
    ok(&server, &["rewind", "--from", "3"]).await;
    until(|| book.lines.lock().len() == 3).await;
    assert_eq!(taken(&book), ["team 2 two", "team 3 three", "team 3 three"]);

    book.broken.store(true, SeqCst);
    write_to(&server, "team", &["four", "five"]).await;
    write_to(&server, "other", &["one"]).await;
    processed(&server.server, "team", 5).await;
    processed(&server.server, "other", 1).await;
    server.comes_to("eventlog_dead_letters", 3).await;
    until_listed(&server, 3).await;
    dead_letters_of_one_store(&server).await;
    let (code, again) = groups(&server, &["retry", "the book", "team", "4"]).await;
    assert!(code == 1 && again.contains("the book is closed"), "{again}");
    book.broken.store(false, SeqCst);
    ok(&server, &["retry", "the book", "team", "4"]).await;
    assert_eq!(taken(&book), ["team 4 four"]);
    ok(&server, &["dismiss", "the book", "other", "1"]).await;
    let letters = ok(&server, &["dead-letters", "the book"]).await;
    assert!(
        letters.starts_with("team  5  ") && letters.ends_with("the book is closed"),
        "{letters}"
    );
    let json = ok(&server, &["dead-letters", "the book", "--json"]).await;
    assert!(
        json.contains(r#""storeId":"team""#) && json.contains(r#""event":"TodoAdded""#),
        "{json}"
    );
    ok(&server, &["dismiss", "the book", "--all"]).await;
    assert_eq!(ok(&server, &["dead-letters", "the book"]).await, "");

    for wrong in [
        &["pause", "nobody"][..],
        &["retry", "the book", "team", "4"],
        &["dismiss", "the book", "team", "4"],
        &["rewind", "--store", "nowhere", "--from", "1"],
        &["forget", "the book"],
        &["forget", "nobody"],
    ] {
        let (code, said) = groups(&server, wrong).await;
        assert!(code == 1 && said.starts_with("error: "), "{wrong:?}: {said}");
    }
}

/// A failure is listed once it is durable.
async fn until_listed(server: &TestServer, count: usize) {
    let groups = server.server.groups().expect("handlers");
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while groups.dead_letters("the book", None, 9).await.expect("read").len() < count {
        assert!(tokio::time::Instant::now() < patience, "not listed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_server_without_handlers_has_no_groups_and_says_so() {
    let server = TestServer::start(in_memory().admin_token("s3cret"), &[]).await;
    assert_eq!(ok(&server, &["list"]).await, "");
    let (code, said) = groups(&server, &["pause", "any"]).await;
    assert!(code == 1 && said.contains("runs no groups of handlers"), "{said}");
}
