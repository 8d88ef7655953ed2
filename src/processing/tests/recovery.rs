//! What survives restarts, failures of journal and feed, and two replays at once.

use super::*;
use crate::services::journal::SledJournal;
use crate::storage::sled::{Database, DatabaseOptions};

/// A journal whose writes fail, before or after they happened, as often as told.
struct Faulty {
    journal: MemoryJournal,
    failures: AtomicUsize,
    write_first: AtomicBool,
}

impl Faulty {
    fn new(failures: usize, write_first: bool) -> Arc<Self> {
        let (failures, write_first) = (AtomicUsize::new(failures), AtomicBool::new(write_first));
        Arc::new(Self { journal: MemoryJournal::new(), failures, write_first })
    }
}

impl EventJournal for Faulty {
    fn read(
        &self,
        ranges: Vec<JournalRange>,
    ) -> BoxFuture<'_, Result<Vec<Vec<JournalPair>>, JournalError>> {
        self.journal.read(ranges)
    }

    fn write(&self, changes: JournalChanges) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            let fails = self.failures.load(SeqCst) > 0;
            if !fails || self.write_first.load(SeqCst) {
                self.journal.write(changes).await?;
            }
            if fails {
                self.failures.fetch_sub(1, SeqCst);
                return Err(JournalError::Unwritten("told to fail".into()));
            }
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_journal_that_fails_after_the_handler_does_not_run_it_again() {
    for write_first in [false, true] {
        let (model, storage) = (Model::new(), MemoryStorage::new());
        let processor = processor(&model, Faulty::new(2, write_first));
        let feed = Feed::new(&storage, "s");
        let replay = feed.replay(&processor);
        feed.add(&["one", "two"]).await;
        until(|| model.seen().len() == 2).await;
        drop(feed.head);
        replay.await.expect("no panic");
        assert_eq!(model.seen(), ["s 1 one", "s 2 two"]);
        assert_eq!(processor.position(&feed.store).await.expect("read").get(), 2);
        assert_eq!(processor.stats().pauses.load(SeqCst), 2);
    }
}

#[tokio::test]
async fn a_replay_goes_on_where_the_journal_stands_and_skipped_stays_skipped() {
    let (model, storage) = (Model::new(), MemoryStorage::new());
    let directory = tempfile::tempdir().expect("a directory");
    let open = || Database::open(directory.path(), DatabaseOptions::default()).expect("opens");
    let first = Feed::new(&storage, "s");
    first.add(&["one"]).await;
    first.append(&Origin::Server { run_handlers: false }, &[entry("k", "silent")]).await;
    let database = open();
    let journal = Arc::new(SledJournal::new(database.clone()));
    first.replay_to_the_end(&processor(&model, journal)).await;
    database.close().expect("closed");
    drop(database);

    let (second, other) = (Feed::new(&storage, "s"), Feed::new(&storage, "t"));
    let restarted = processor(&model, Arc::new(SledJournal::new(open())));
    let heads = |feeds: [&Feed; 2]| feeds.map(|feed| (feed.store.clone(), feed.log.head()));
    let behind = restarted.stores_behind(&heads([&second, &other])).await;
    assert_eq!(behind.expect("read"), []);
    second.add(&["three"]).await;
    let behind = restarted.stores_behind(&heads([&second, &other])).await;
    assert_eq!(behind.expect("read"), std::slice::from_ref(&second.store));
    second.replay_to_the_end(&restarted).await;
    assert_eq!(model.seen(), ["s 1 one", "s 3 three"]);
}

#[tokio::test]
async fn two_replays_of_one_store_take_turns() {
    let (model, storage) = (Model::new(), MemoryStorage::new());
    let processor = processor(&model, Arc::new(MemoryJournal::new()));
    let [first, second] = [(); 2].map(|()| Feed::new(&storage, "s"));
    second.add(&["wait", "two"]).await;
    first.head.send_replace(second.log.head());
    let replays = [first.replay(&processor), second.replay(&processor)];
    model.until_one_waits().await;
    second.add(&["three"]).await;
    model.permits.add_permits(1);
    drop((first.head, second.head));
    for replay in replays {
        replay.await.expect("no panic");
    }
    assert_eq!(model.seen(), ["s 1 wait", "s 2 two", "s 3 three"]);
}

#[tokio::test]
async fn stopping_lets_the_handler_under_way_end_and_the_next_start_goes_on_behind_it() {
    let (model, storage) = (Model::new(), MemoryStorage::new());
    let journal: Arc<dyn EventJournal> = Arc::new(MemoryJournal::new());
    let stopped = processor(&model, Arc::clone(&journal));
    let feed = Feed::new(&storage, "s");
    let unhandled = Entry { event: "Unknown".to_owned(), ..entry("k", "") };
    feed.append(&client(), &[entry("k", "wait"), unhandled, entry("k", "three")]).await;
    let replay = feed.replay(&stopped);
    model.until_one_waits().await;
    stopped.stop();
    let still_running = tokio::time::timeout(Duration::from_millis(20), stopped.stopped()).await;
    assert!(still_running.is_err(), "the handler under way is waited for");
    model.permits.add_permits(1);
    stopped.stopped().await;
    replay.await.expect("no panic");
    let position = stopped.position(&feed.store).await.expect("read");
    assert_eq!(position.get(), 1, "what came behind was neither run nor passed");
    feed.replay_to_the_end(&processor(&model, journal)).await;
    assert_eq!(model.seen(), ["s 1 wait", "s 3 three"]);
}

#[tokio::test]
async fn a_feed_that_fails_is_read_again() {
    let (model, storage) = (Model::new(), MemoryStorage::new());
    let processor = processor(&model, Arc::new(MemoryJournal::new()));
    let feed = Feed::new(&storage, "s");
    feed.add(&["one", "two"]).await;
    let (read, calls) = (feed.read(), AtomicUsize::new(0));
    let faulty: ReadFeed = Arc::new(move |from, bytes_max| match calls.fetch_add(1, SeqCst) {
        0 => Err(crate::storage::StorageError::unavailable("told to fail")),
        1 => Ok(Vec::new()),
        2 => panic!("told to panic"),
        _ => read(from, bytes_max),
    });
    let replay = processor.replay(feed.open(faulty));
    let end = async {
        until(|| model.seen().len() == 2).await;
        drop(feed.head);
    };
    tokio::join!(replay, end);
    assert_eq!(model.seen(), ["s 1 one", "s 2 two"]);
}

#[tokio::test]
async fn an_entry_whose_handler_was_dropped_is_run_again() {
    let (model, storage) = (Model::new(), MemoryStorage::new());
    let processor = processor(&model, Arc::new(MemoryJournal::new()));
    let feed = Feed::new(&storage, "s");
    feed.add(&["one", "wait"]).await;
    let replay = feed.replay(&processor);
    model.until_one_waits().await;
    replay.abort();
    assert!(replay.await.is_err());
    model.permits.add_permits(1);
    feed.replay_to_the_end(&processor).await;
    assert_eq!(model.seen(), ["s 1 one", "s 2 wait"]);
}
