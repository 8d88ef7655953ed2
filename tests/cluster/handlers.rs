//! Handlers on several nodes: in each store, each group runs on one node, and all nodes see the results.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use eventlog_server::model::Sequence;
use eventlog_server::processing::{
    Committed, Event, EventGroup, Failure, GroupOptions, Msgpack, Observed, Processor,
};
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::PostgresJournal;
use eventlog_server::services::registry::PostgresRegistry;
use eventlog_server::storage::postgres::{Postgres, PostgresOptions, PostgresStorage};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{cluster, rounds};
use crate::support::process::{Process, binary};
use crate::support::receiver::{Receiver, Reply};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

#[path = "../../examples/exactly_once_postgres.rs"]
mod example;

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    id: String,
}

impl Event for Noted {
    const TAG: &'static str = "Noted";
    fn primary_key(&self) -> String {
        self.id.clone()
    }
}

struct Notes;

impl EventGroup for Notes {
    type Events = (Noted,);
    type Codec = Msgpack;
}

/// State shared by all nodes of a test.
#[derive(Default)]
struct Book {
    /// What each node handled: node, store, sequence.
    lines: Mutex<Vec<(usize, String, u64)>>,
    /// The number of handlers in progress in one store, and its maximum.
    under_way: AtomicUsize,
    most: AtomicUsize,
    broken: AtomicBool,
    /// Handlers wait while this is true.
    held: AtomicBool,
    takes: Mutex<Duration>,
}

impl Book {
    fn handled(&self) -> Vec<u64> {
        self.lines.lock().iter().map(|(_, _, sequence)| *sequence).collect()
    }

    fn last_node(&self) -> usize {
        self.lines.lock().last().expect("something was handled").0
    }
}

async fn note((node, book): &(usize, Arc<Book>), noted: Committed<Noted>) -> Result<(), Failure> {
    let now = book.under_way.fetch_add(1, SeqCst) + 1;
    book.most.fetch_max(now, SeqCst);
    let takes = *book.takes.lock();
    tokio::time::sleep(takes).await;
    while book.held.load(SeqCst) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    book.under_way.fetch_sub(1, SeqCst);
    if book.broken.load(SeqCst) {
        return Err(Failure::failed("the book is closed"));
    }
    let (store, sequence) = (noted.store().to_string(), noted.sequence().get());
    book.lines.lock().push((*node, store, sequence));
    Ok(())
}

/// A node in this process.
fn node(url: &str, number: usize, book: &Arc<Book>) -> Server {
    let mut options = PostgresOptions::new(url);
    options.connections_max = 4;
    let postgres = Postgres::open(&options).expect("it opens");
    let group = Notes::handlers(Arc::new((number, book.clone())))
        .on(async |own, noted: Committed<Noted>| note(&own, noted).await)
        .invalidates(["notes"])
        .options(GroupOptions::named("notes"));
    let journal = Arc::new(PostgresJournal::new(postgres.clone()));
    let processor = Processor::builder(journal).group(group).build().expect("one group");
    let storage = Arc::new(PostgresStorage::new(postgres.clone()));
    let registry = Arc::new(PostgresRegistry::new(postgres));
    let builder = Server::builder(storage, registry, Arc::new(AllowAll)).processor(processor);
    builder.start().expect("it starts")
}

async fn write(server: &Server, name: &str, count: usize) -> Sequence {
    let mut last = Sequence::ZERO;
    for n in 0..count {
        let noted = Noted { id: n.to_string() };
        last = server.writer(&Notes).write(&store(name), &noted).await.expect("written");
    }
    last
}

async fn processed(server: &Server, name: &str, sequence: Sequence) {
    let store = store(name);
    let done = server.processed(&store, sequence);
    tokio::time::timeout(PATIENCE, done).await.expect("soon").expect("processed");
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[actix_web::test]
async fn one_node_at_a_time_handles_a_store_in_order_whoever_writes_where() {
    let Some(cluster) = cluster() else { return };
    let (url, book) = (cluster.database(), Arc::<Book>::default());
    let nodes = [node(&url, 0, &book), node(&url, 1, &book)];
    *book.takes.lock() = Duration::from_millis(2);
    let mut last = Sequence::ZERO;
    for round in 0..40 {
        last = write(&nodes[round % 2], "team", 3).await;
    }
    processed(&nodes[0], "team", last).await;
    processed(&nodes[1], "team", last).await;
    assert_eq!(book.handled(), (1..=120).collect::<Vec<_>>());
    assert_eq!(book.most.load(SeqCst), 1, "handlers at a time");
    // The node that has the group leaves, and the other one continues.
    let holder = book.last_node();
    nodes[holder].shutdown(Duration::from_secs(5)).await;
    let last = write(&nodes[1 - holder], "team", 1).await;
    processed(&nodes[1 - holder], "team", last).await;
    assert_eq!(book.last_node(), 1 - holder);
    assert_eq!(book.handled().len(), 121);
}

#[actix_web::test]
async fn an_observer_at_another_node_is_told_once_the_handler_has_succeeded() {
    let Some(cluster) = cluster() else { return };
    let (url, book) = (cluster.database(), Arc::<Book>::default());
    let here = node(&url, 0, &book);
    let last = write(&here, "team", 1).await;
    processed(&here, "team", last).await;
    assert_eq!(book.last_node(), 0);
    let there = node(&url, 1, &book);
    *book.takes.lock() = Duration::from_millis(200);
    let observe = || async {
        let mut observer = there.reactivity().expect("handlers").observe("notes");
        assert_eq!(observer.next().await, Some(Observed::Look));
        observer
    };
    // If the store is not open there, the kind of change is unknown. Changes during the start of a node may be reported
    // twice.
    let mut observer = observe().await;
    let last = write(&here, "team", 1).await;
    loop {
        let told = tokio::time::timeout(PATIENCE, observer.next()).await.expect("it is told");
        assert!(told.is_some(), "until it reads the new state");
        if book.handled().len() == 2 {
            break;
        }
    }
    // From then on it is open.
    processed(&there, "team", last).await;
    let mut observer = observe().await;
    for n in 3..=6 {
        write(&here, "team", 1).await;
        let told = tokio::time::timeout(PATIENCE, observer.next()).await.expect("it is told");
        let Some(Observed::Invalidated(one)) = told else { panic!("{told:?}") };
        assert_eq!((&*one.key, &*one.primary_key), ("notes", "0"));
        assert_eq!(book.handled().len(), n, "it reads the new state");
    }
    assert_eq!(book.lines.lock().iter().filter(|(node, ..)| *node == 1).count(), 0);
}

#[actix_web::test]
async fn groups_are_seen_to_from_any_node() {
    let Some(cluster) = cluster() else { return };
    let (url, book) = (cluster.database(), Arc::<Book>::default());
    let here = node(&url, 0, &book);
    let last = write(&here, "team", 3).await;
    processed(&here, "team", last).await;
    let there = node(&url, 1, &book);
    let groups = there.groups().expect("handlers");
    // A rewind takes the group from the node that has it.
    let one = Sequence::new(1).expect("a sequence");
    groups.rewind(Some(&store("team")), Some("notes"), one).await.expect("rewound");
    until("handled again", || book.handled() == [1, 2, 3, 1, 2, 3]).await;
    // An entry that fails on one node is a dead letter on both.
    book.broken.store(true, SeqCst);
    let last = write(&here, "team", 1).await;
    processed(&there, "team", last).await;
    let letters = groups.dead_letters("notes", None, 10).await.expect("read");
    assert_eq!(letters.iter().map(|letter| letter.sequence).collect::<Vec<_>>(), [last]);
    assert!(groups.retry("notes", &store("team"), last).await.is_err(), "it fails again");
    book.broken.store(false, SeqCst);
    let mut observer = here.reactivity().expect("handlers").observe("notes");
    assert_eq!(observer.next().await, Some(Observed::Look));
    groups.retry("notes", &store("team"), last).await.expect("handled");
    assert_eq!(book.lines.lock().last(), Some(&(1, "team".to_owned(), 4)));
    let told = tokio::time::timeout(PATIENCE, observer.next()).await.expect("it is told");
    assert!(told.is_some());
    assert_eq!(here.groups().expect("handlers").dismiss("notes", None).await.expect("none"), 0);
    // A pause reaches all nodes within seconds.
    groups.pause("notes").await.expect("paused");
    let listed = || async {
        let listed = here.groups().expect("handlers").list().await.expect("listed");
        listed[0].paused
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !listed().await {
        assert!(tokio::time::Instant::now() < deadline, "paused there, too");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = book.handled().len();
    let last = write(&here, "team", 1).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(book.handled().len(), before);
    here.groups().expect("handlers").resume("notes").await.expect("resumed");
    processed(&there, "team", last).await;
    assert_eq!(book.handled().len(), before + 1);
}

#[actix_web::test]
async fn many_stores_with_slow_handlers_need_no_more_connections_than_the_pool_has() {
    let Some(cluster) = cluster() else { return };
    let (url, book) = (cluster.database(), Arc::<Book>::default());
    book.held.store(true, SeqCst);
    let nodes = [node(&url, 0, &book), node(&url, 1, &book)];
    let stores = 400;
    for n in 0..stores {
        write(&nodes[n % 2], &format!("store {n}"), 1).await;
    }
    until("all are under way at once", || book.under_way.load(SeqCst) == stores).await;
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'eventlog-server' AND datname = current_database()";
    let open: usize = cluster.sql(&url, count).parse().expect("a number");
    assert!(open <= 2 * (4 + 2 + 3), "{open} connections");
    book.held.store(false, SeqCst);
    until("all are done", || book.handled().len() == stores).await;
}

#[actix_web::test]
async fn a_node_that_was_taken_for_dead_moves_nothing_any_more() {
    let Some(cluster) = cluster() else { return };
    let (url, book) = (cluster.database(), Arc::<Book>::default());
    *book.takes.lock() = Duration::from_secs(3);
    let here = node(&url, 0, &book);
    let last = write(&here, "team", 2).await;
    until("it is under way", || book.under_way.load(SeqCst) == 1).await;
    let there = node(&url, 1, &book);
    // Simulates a node that has been silent for long: the first node that comes gets the store.
    cluster.sql(
        &url,
        "DELETE FROM effect_events_handlers WHERE node = (SELECT node FROM effect_events_claims)",
    );
    cluster.sql(&url, "UPDATE effect_events_claims SET node = NULL, fence = fence + 1, moved = pg_current_xact_id()::text::bigint");
    processed(&there, "team", last).await;
    processed(&here, "team", last).await;
    let mut handled = book.handled();
    // Each time that a store changes its node, what was in progress comes again; on a busy machine it may do so more often.
    assert!(handled.len() <= 5, "at most what was in progress comes again: {handled:?}");
    handled.sort_unstable();
    handled.dedup();
    assert_eq!(handled, [1, 2]);
}

/// The real binary with a webhook.
fn webhook_node(directory: &std::path::Path, database: &str, receiver: &str) -> Process {
    let file = directory.join("eventlog.toml");
    let config = format!(
        "listen = \"127.0.0.1:0\"\n[[webhook]]\nname = \"notes\"\nurl = \"http://{receiver}/in\"\n\
         secret = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\nfrom = \"start\"\n"
    );
    std::fs::write(&file, config).expect("written");
    let mut command = binary();
    command.args(["serve", "--dev", "--config"]).arg(&file);
    command.arg("--data-dir").arg(directory.join("data"));
    command.env("EVENTLOG_STORAGE_KIND", "postgres").env("EVENTLOG_STORAGE_URL", database);
    Process::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_called_by_one_node_and_by_another_once_that_is_killed() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let receiver = Receiver::start(|_| Reply::Now("200 OK")).await;
    let address = receiver.address.to_string();
    let directories = [tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two")];
    let start = |n: usize| webhook_node(directories[n].path(), &url, &address);
    let (mut one, two) = (start(0), start(1));
    let sequences = || {
        let received = receiver.received.lock();
        let entries = received.iter().flat_map(|request| request.entries().to_vec());
        entries.map(|entry| entry["sequence"].as_u64().expect("a sequence")).collect::<Vec<_>>()
    };
    let mut sockets = [Socket::connect(&one.url).await, Socket::connect(&two.url).await];
    for n in 0..20 {
        let noted = batch(&[entry("Noted", "n", b"\x02\x20a")]);
        sockets[n % 2].write(&key("alice"), n as u64, &noted).await;
        sockets[n % 2].next_ack().await;
    }
    until("all have arrived", || sequences().len() >= 20).await;
    assert_eq!(sequences(), (1..=20).collect::<Vec<_>>(), "each once, in order");
    // The first node had the store, since the first write went there.
    one.signal("KILL");
    one.wait();
    let killed = std::time::Instant::now();
    sockets[1].write(&key("alice"), 20, &batch(&[entry("Noted", "n", b"\x02\x20a")])).await;
    until("the other node goes on", || sequences().contains(&21)).await;
    assert!(killed.elapsed() < Duration::from_secs(30), "{:?}", killed.elapsed());
}

const THIS_TEST: &str =
    "cluster::handlers::what_is_written_in_the_transaction_is_there_once_over_kills";

#[actix_web::test]
async fn what_is_written_in_the_transaction_is_there_once_over_kills() {
    if let Ok(url) = std::env::var(example::DATABASE) {
        example::pay_until_killed(&url).await.expect("it pays");
    }
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let mut paying = Command::new(std::env::current_exe().expect("this test"));
    paying.args([THIS_TEST, "--exact"]);
    let entries = example::run(&url, rounds(), paying).await.expect("exactly once");
    assert!(entries > 10, "only {entries} entries were written");
}
