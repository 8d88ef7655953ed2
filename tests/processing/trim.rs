//! Trims wait for groups of handlers, and report for which ones. The tests use the command line, and therefore the
//! admin API.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use eventlog_server::processing::{Failure, GroupOptions};
use tokio::task::spawn_blocking;

use super::*;
use crate::support::process::binary;
use crate::support::server::in_memory;

#[derive(Default)]
struct Book {
    lines: Handled,
    broken: AtomicBool,
}

async fn note(book: Arc<Book>, todo: Committed<TodoAdded>) -> Result<(), Failure> {
    if book.broken.load(SeqCst) {
        return Err(Failure::failed("the book is closed"));
    }
    let conflicts = todo.conflicts().len();
    book.lines.lock().push(format!("{} {} {conflicts}", todo.sequence(), todo.title));
    Ok(())
}

async fn start(journal: &Arc<MemoryJournal>) -> (TestServer, Arc<Book>) {
    let book = Arc::<Book>::default();
    let options = GroupOptions::named("the book").dead_letters(10);
    let group = Todos::handlers(Arc::clone(&book)).on(note).options(options);
    let processor = Processor::builder(journal.clone()).group(group).build();
    let builder = in_memory().processor(processor.expect("one group")).admin_token("s3cret");
    (TestServer::start(builder, &[("alice", "team")]).await, book)
}

async fn run(server: &TestServer, arguments: &[&str]) -> (i32, String) {
    let mut command = binary();
    command.args(arguments).args(["--url", &server.url()]);
    command.env("EVENTLOG_ADMIN_TOKEN", "s3cret");
    let ended = spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs");
    let printed = String::from_utf8([ended.stdout, ended.stderr].concat()).expect("text");
    (ended.status.code().expect("a code"), printed.trim_end().to_owned())
}

async fn ok(server: &TestServer, arguments: &[&str]) -> String {
    let (code, printed) = run(server, arguments).await;
    assert_eq!(code, 0, "{printed}");
    printed
}

async fn write(server: &TestServer, titles: &[&str]) {
    let entries = titles.iter().map(|title| added(title, title)).collect();
    server.server.write_to_store(store("team"), entries, true).await.expect("written");
}

async fn begins(server: &TestServer) -> u64 {
    server
        .server
        .changes(&store("team"), eventlog_server::model::Sequence::ZERO)
        .await
        .expect("a feed")
        .begins()
        .get()
}

async fn begins_with(server: &TestServer, entry: u64) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while begins(server).await != entry {
        assert!(tokio::time::Instant::now() < patience, "it begins with {}", begins(server).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_trim_waits_for_a_group_that_pauses_and_goes_on_by_itself() {
    let journal = Arc::new(MemoryJournal::new());
    let (server, book) = start(&journal).await;
    let trim = ["trim", "--yes", "--store", "team", "--before"];
    write(&server, &["one", "two", "three"]).await;
    processed(&server.server, "team", 3).await;
    ok(&server, &["groups", "pause", "the book"]).await;
    write(&server, &["four", "five", "six"]).await;

    let said = ok(&server, &[&trim[..], &["6"]].concat()).await;
    assert!(
        said.contains("before entry 4 is trimmed")
            && said.contains("the book has processed entry 3")
    );
    assert_eq!(begins(&server).await, 4);
    server.comes_to("eventlog_trims_waiting{group=\"the book\"}", 1).await;
    ok(&server, &["groups", "resume", "the book"]).await;
    begins_with(&server, 6).await;
    assert!(book.lines.lock().iter().map(|line| &line[..1]).eq(["1", "2", "3", "4", "5", "6"]));

    // The group continues in the trimmed store. A rewind begins where the store begins, and reports that.
    let said = ok(&server, &["groups", "rewind", "--store", "team", "--from", "2"]).await;
    assert!(said.contains("in team it begins with entry 6"), "{said}");
    processed(&server.server, "team", 6).await;
    write(&server, &["seven"]).await;
    processed(&server.server, "team", 7).await;
    let lines = std::mem::take(&mut *book.lines.lock());
    assert!(lines[6..].iter().map(|line| &line[..1]).eq(["6", "7"]), "{lines:?}");

    // Nobody waits any more. Without a group to wait for, it is done at once, and with `--force` in any case.
    assert_eq!(
        ok(&server, &[&trim[..], &["7"]].concat()).await,
        "what came before entry 7 is trimmed"
    );
    ok(&server, &["groups", "pause", "the book"]).await;
    write(&server, &["eight", "nine"]).await;
    let said = ok(&server, &[&trim[..], &["9", "--force"]].concat()).await;
    assert!(said.starts_with("what came before entry 9 is trimmed\n  the book has"), "{said}");
    let said = ok(&server, &["groups", "list"]).await;
    assert!(said.contains("1 behind in 1 store"), "what is trimmed is not waited for: {said}");
    ok(&server, &["groups", "resume", "the book"]).await;
    processed(&server.server, "team", 9).await;
    assert!(book.lines.lock().iter().map(|line| &line[..1]).eq(["9"]), "eight is gone");
    let (code, said) =
        run(&server, &["trim", "--yes", "--store", "nobody's", "--before", "1"]).await;
    assert!(code == 1 && said.contains("does not exist"), "{said}");
}

/// What the journal looks conflicts up by goes with the entries.
#[tokio::test]
async fn the_journal_forgets_what_is_trimmed_and_a_dead_letter_of_it_cannot_be_tried_again() {
    let journal = Arc::new(MemoryJournal::new());
    let (server, book) = start(&journal).await;
    // By its id, the last entry was written before the others: it conflicts with those of its key.
    let late = added("key", "late");
    let early: Vec<_> = ["a", "b", "c"].iter().map(|title| added("key", title)).collect();
    let expected = |conflicts: usize, at: u64| format!("{at} late {conflicts}");
    server.server.write_to_store(store("team"), early, true).await.expect("written");
    processed(&server.server, "team", 3).await;
    book.broken.store(true, SeqCst);
    write(&server, &["broken"]).await;
    processed(&server.server, "team", 4).await;
    book.broken.store(false, SeqCst);
    // Rows are written for the first late entry.
    let other = added("other", "late");
    server.server.write_to_store(store("team"), vec![other], true).await.expect("written");
    processed(&server.server, "team", 5).await;
    ok(&server, &["trim", "--yes", "--store", "team", "--before", "5"]).await;
    let (code, said) = run(&server, &["groups", "retry", "the book", "team", "4"]).await;
    assert!(code == 1 && said.contains("entry 4 is trimmed"), "{said}");
    ok(&server, &["groups", "dismiss", "the book", "team", "4"]).await;
    server.server.write_to_store(store("team"), vec![late], true).await.expect("written");
    processed(&server.server, "team", 6).await;
    assert_eq!(book.lines.lock().last(), Some(&expected(0, 6)));
}

/// A group that the server no longer runs is waited for, until it is forgotten.
#[tokio::test]
async fn a_group_that_is_only_remembered_is_waited_for_until_it_is_forgotten() {
    let journal = Arc::new(MemoryJournal::new());
    let (server, _) = start(&journal).await;
    write(&server, &["one"]).await;
    processed(&server.server, "team", 1).await;
    drop(server);
    let processor = Processor::builder(journal.clone());
    assert!(processor.is_needed().await.expect("read"));
    let builder = in_memory().processor(processor.build().expect("none")).admin_token("s3cret");
    let server = TestServer::start(builder, &[("alice", "team")]).await;
    write(&server, &["one", "two", "three"]).await;
    let said = ok(&server, &["trim", "--yes", "--store", "team", "--before", "4"]).await;
    assert!(said.contains("the book has processed entry 1"), "{said}");
    assert_eq!(begins(&server).await, 2);
    ok(&server, &["groups", "forget", "the book"]).await;
    begins_with(&server, 4).await;
}
