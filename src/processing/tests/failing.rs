//! What happens to failures, and how groups are managed.

use super::*;

/// What the next calls of the handler return, the last first; after that, it succeeds.
struct Script {
    seen: Seen,
    says: Mutex<Vec<Result<(), Failure>>>,
}

impl Script {
    fn new(says: impl IntoIterator<Item = Result<(), Failure>>) -> Arc<Self> {
        let mut says: Vec<_> = says.into_iter().collect();
        says.reverse();
        Arc::new(Self { seen: Seen::default(), says: Mutex::new(says) })
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock())
    }

    fn processor(
        self: &Arc<Self>,
        journal: &Arc<dyn EventJournal>,
        options: GroupOptions,
    ) -> Arc<Processor> {
        let group = Todos::handlers(Arc::clone(self))
            .on(async |script, added: Committed<Added>| {
                let conflicts = added.conflicts().len();
                script.seen.lock().push(format!("{} {} {conflicts}", added.store(), added.title));
                script.says.lock().pop().unwrap_or(Ok(()))
            })
            .on(async |_, _: Committed<Done>| ())
            .options(options);
        Arc::new(Processor::builder(Arc::clone(journal)).group(group).build().expect("a processor"))
    }
}

fn memory() -> Arc<dyn EventJournal> {
    Arc::new(MemoryJournal::new())
}

fn at_once(why: &str) -> Result<(), Failure> {
    Err(Failure::retry_after(Duration::from_millis(1), why))
}

fn lost(why: &str) -> Result<(), Failure> {
    Err(Failure::failed(why))
}

/// The dead letters of `Todos`, as lines.
async fn letters(processor: &Processor) -> Vec<String> {
    let letters = processor.dead_letters("Todos", None, 99).await.expect("read");
    letters.iter().map(|one| format!("{} {} {}", one.store, one.sequence, one.error)).collect()
}

async fn until_letters(processor: &Processor, count: usize) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while letters(processor).await.len() < count {
        assert!(tokio::time::Instant::now() < patience, "too few dead letters");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn sequence(at: u64) -> Sequence {
    Sequence::new(at).expect("a sequence")
}

#[tokio::test]
async fn a_retry_holds_its_group_back_in_its_store_and_nobody_else() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let long = Failure::retry_after(Duration::from_secs(600), "closed");
    let script = Script::new([Err(long)]);
    let processor = script.processor(&journal, GroupOptions::default());
    let [held, other] = ["held", "other"].map(|name| Feed::new(&storage, name));
    held.add(&["one", "two"]).await;
    let replays = [held.replay(&processor)];
    until(|| script.seen.lock().len() == 1).await;
    other.add(&["one"]).await;
    other.replay_to_the_end(&processor).await;
    assert_eq!(script.seen(), ["held one 0", "other one 0"]);
    assert_eq!(processor.status(&held.store).map(|status| status.lag()), Some(2));
    // Whoever is told about a change has it tried at once.
    processor.resume("Todos").await.expect("resumed");
    until(|| script.seen.lock().len() == 2).await;
    drop(held.head);
    for replay in replays {
        replay.await.expect("no panic");
    }
    assert_eq!(script.seen(), ["held one 0", "held two 0"]);
}

#[tokio::test]
async fn what_fails_for_good_is_a_dead_letter_and_the_next_one_runs() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let says = [
        at_once("1"),
        at_once("2"),
        Ok(()),
        lost("lost"),
        at_once("3"),
        at_once("4"),
        at_once("5"),
    ];
    let script = Script::new(says);
    let processor = script.processor(&journal, GroupOptions::default().tries(3));
    let feed = Feed::new(&storage, "s");
    feed.add(&["one", "two", "three", "four"]).await;
    feed.append(&client(), &[Entry { payload: vec![0xc1].into(), ..entry("k", "") }]).await;
    feed.replay_to_the_end(&processor).await;
    let tries = ["one", "one", "one", "two", "three", "three", "three", "four"];
    assert!(script.seen().iter().zip(tries).all(|(seen, title)| seen.contains(title)));
    let letters = letters(&processor).await;
    assert!(letters[0].ends_with("2 the handler failed: lost"), "{letters:?}");
    assert!(letters[1].ends_with("3 the handler failed: 5"), "{letters:?}");
    assert!(letters[2].contains("s 5 the payload does not decode"), "{letters:?}");
    let stats = processor.stats();
    let counted = [&stats.handled, &stats.failed, &stats.undecodable, &stats.retried];
    assert_eq!(counted.map(|count| count.load(SeqCst)), [2, 2, 1, 4]);
    // After a restart they exist, and are counted.
    let restarted = script.processor(&journal, GroupOptions::default());
    assert_eq!(restarted.groups().await.expect("read")[0].dead_letters, 3);
}

#[tokio::test]
async fn a_group_that_keeps_all_failures_pauses_at_its_bound_until_there_is_room() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let script = Script::new([lost("1"), lost("2"), lost("3")]);
    let processor = script.processor(&journal, GroupOptions::default().dead_letters(2));
    let feed = Feed::new(&storage, "s");
    feed.add(&["one", "two", "three", "four"]).await;
    let replay = feed.replay(&processor);
    until_letters(&processor, 2).await;
    let status = &processor.groups().await.expect("read")[0];
    assert_eq!((status.full, status.paused, status.dead_letters, status.lag), (true, false, 2, 2));
    assert_eq!(script.seen().len(), 2);
    processor.dismiss("Todos", Some((&feed.store, sequence(1)))).await.expect("dismissed");
    let again = processor.dismiss("Todos", Some((&feed.store, sequence(1)))).await;
    assert!(matches!(again, Err(GroupError::NoSuchLetter)));
    until_letters(&processor, 2).await;
    assert_eq!(processor.dismiss("Todos", None).await.expect("dismissed"), 2);
    drop(feed.head);
    replay.await.expect("no panic");
    assert_eq!(letters(&processor).await, [""; 0]);
}

#[tokio::test]
async fn a_group_that_says_nothing_of_dead_letters_loses_none_either() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let script = Script::new((0..=DEAD_LETTERS_MAX).map(|_| lost("x")));
    let processor = script.processor(&journal, GroupOptions::default());
    let feed = Feed::new(&storage, "s");
    feed.add(&vec!["one"; DEAD_LETTERS_MAX + 1]).await;
    let replay = feed.replay(&processor);
    until(|| script.seen.lock().len() == DEAD_LETTERS_MAX).await;
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    while !processor.groups().await.expect("read")[0].full {
        assert!(tokio::time::Instant::now() < patience, "the group does not pause");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(script.seen.lock().len(), DEAD_LETTERS_MAX);
    processor.dismiss("Todos", Some((&feed.store, sequence(1)))).await.expect("dismissed");
    until(|| script.seen.lock().len() == DEAD_LETTERS_MAX + 1).await;
    drop(feed.head);
    replay.await.expect("no panic");
}

#[tokio::test]
async fn a_group_keeps_at_least_one_dead_letter() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let script = Script::new([Ok(())]);
    let processor = script.processor(&journal, GroupOptions::default().dead_letters(0));
    let feed = Feed::new(&storage, "s");
    feed.add(&["one"]).await;
    feed.replay_to_the_end(&processor).await;
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test]
async fn a_dead_letter_that_is_retried_knows_what_came_after_it() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let script = Script::new([lost("1"), Ok(()), lost("2")]);
    let processor = script.processor(&journal, GroupOptions::default());
    let feed = Feed::new(&storage, "s");
    feed.add(&["one", "two"]).await;
    let replay = feed.replay(&processor);
    until_letters(&processor, 1).await;
    until(|| script.seen.lock().len() == 2).await;
    let retried = processor.retry_letter("Todos", &feed.store, sequence(1)).await;
    assert!(matches!(retried, Err(GroupError::FailedAgain(_))), "{retried:?}");
    assert_eq!(letters(&processor).await, ["s 1 the handler failed: 2"]);
    processor.retry_letter("Todos", &feed.store, sequence(1)).await.expect("done");
    assert_eq!(script.seen(), ["s one 0", "s two 0", "s one 1", "s one 1"]);
    assert_eq!(letters(&processor).await, [""; 0]);
    let gone = processor.retry_letter("Todos", &feed.store, sequence(1)).await;
    assert!(matches!(gone, Err(GroupError::NoSuchLetter)));
    drop(feed.head);
    replay.await.expect("no panic");
}

#[tokio::test]
async fn a_paused_group_stays_paused_over_restarts_and_goes_on_when_resumed() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let script = Script::new([]);
    let first = script.processor(&journal, GroupOptions::default());
    first.pause("Todos").await.expect("paused");
    assert!(matches!(first.pause("nobody").await, Err(GroupError::NoSuchGroup(_))));
    let processor = script.processor(&journal, GroupOptions::default());
    let feed = Feed::new(&storage, "s");
    feed.add(&["one"]).await;
    // It ends with its store: resuming the group causes the store to be opened.
    feed.replay_to_the_end(&processor).await;
    assert_eq!(script.seen(), [""; 0]);
    let status = &processor.groups().await.expect("read")[0];
    assert_eq!((status.paused, status.stores_behind, status.lag), (true, 1, 1));
    let feed = Feed::new(&storage, "s");
    let replay = feed.replay(&processor);
    processor.resume("Todos").await.expect("resumed");
    processor.look_again().await;
    until(|| script.seen.lock().len() == 1).await;
    drop(feed.head);
    replay.await.expect("no panic");
    assert!(!processor.groups().await.expect("read")[0].paused);
}

#[tokio::test]
async fn a_rewind_has_entries_handled_again_or_passed_over_open_or_closed() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let script = Script::new([]);
    let processor = script.processor(&journal, GroupOptions::default());
    let feed = Feed::new(&storage, "s");
    let late = entry("k", "late");
    feed.add(&["one", "two"]).await;
    feed.append(&client(), &[late]).await;
    let replay = feed.replay(&processor);
    until(|| script.seen.lock().len() == 3).await;
    let heads = [(feed.store.clone(), feed.log.head())];
    assert_eq!(script.seen(), ["s one 0", "s two 0", "s late 2"]);
    processor.rewind(&heads, Some("Todos"), sequence(2)).await.expect("rewound");
    until(|| script.seen.lock().len() == 2).await;
    // The conflicts are those of the first time.
    assert_eq!(script.seen(), ["s two 0", "s late 2"]);
    drop(feed.head);
    replay.await.expect("no panic");
    // The store is closed: whoever opens it next finds that.
    processor.rewind(&heads, None, Sequence::FIRST).await.expect("rewound");
    assert_eq!(processor.status(&heads[0].0).map(|status| status.lag()), Some(3));
    Feed::new(&storage, "s").replay_to_the_end(&processor).await;
    assert_eq!(script.seen(), ["s one 0", "s two 0", "s late 2"]);
    // Beyond the head: the next entry.
    processor.rewind(&heads, None, sequence(99)).await.expect("rewound");
    let feed = Feed::new(&storage, "s");
    feed.add(&["four"]).await;
    feed.replay_to_the_end(&processor).await;
    assert_eq!(script.seen(), ["s four 0"]);
    let nobody = processor.rewind(&heads, Some("nobody"), Sequence::FIRST).await;
    assert!(matches!(nobody, Err(GroupError::NoSuchGroup(_))));
}

#[tokio::test]
async fn a_group_that_is_gone_keeps_its_positions_until_it_is_forgotten() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let old = Script::new([lost("1")]);
    let feed = Feed::new(&storage, "s");
    feed.add(&["one"]).await;
    feed.replay_to_the_end(&old.processor(&journal, GroupOptions::named("old"))).await;

    let new = Script::new([]);
    let processor = new.processor(&journal, GroupOptions::named("new"));
    let groups = processor.groups().await.expect("read");
    let gone: Vec<_> = groups.iter().map(|one| (&*one.name, one.runs, one.dead_letters)).collect();
    assert_eq!(gone, [("new", true, 0), ("old", false, 1)]);
    assert!(matches!(processor.forget("new").await, Err(GroupError::Runs(_))));
    assert!(matches!(processor.forget("nobody").await, Err(GroupError::NoSuchGroup(_))));
    processor.forget("old").await.expect("forgotten");
    assert_eq!(processor.groups().await.expect("read").len(), 1);
    assert_eq!(processor.dead_letters("old", None, 9).await.expect("read"), []);
    // It comes back as a new group.
    let feed = Feed::new(&storage, "s");
    feed.replay_to_the_end(&old.processor(&journal, GroupOptions::named("old").from_start())).await;
    assert_eq!(old.seen(), ["s one 0", "s one 0"]);
}

/// The storage is an older one, or a different one altogether.
#[tokio::test]
async fn a_journal_of_another_feed_is_refused_until_the_group_is_rewound() {
    let journal = memory();
    let script = Script::new([]);
    let life = |titles: &'static [&'static str]| {
        let processor = script.processor(&journal, GroupOptions::default());
        async move {
            let storage = MemoryStorage::new();
            let feed = Feed::new(&storage, "s");
            feed.add(titles).await;
            (processor, feed)
        }
    };
    let (processor, feed) = life(&["one", "two"]).await;
    feed.replay_to_the_end(&processor).await;
    assert_eq!(script.seen(), ["s one 0", "s two 0"]);
    for (titles, why) in
        [(&["other"][..], "the feed ends at 1"), (&["a", "b", "c"][..], "processed last")]
    {
        let (processor, feed) = life(titles).await;
        let replay = feed.replay(&processor);
        let refused = || async { processor.groups().await.expect("read")[0].refused.clone() };
        let patience = tokio::time::Instant::now() + Duration::from_secs(20);
        while refused().await.is_empty() && tokio::time::Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let refused = refused().await;
        assert!(refused.len() == 1 && refused[0].1.contains(why), "{refused:?}");
        assert!(refused[0].1.contains("rewind"), "a way on");
        assert_eq!(script.seen(), [""; 0]);
        if titles.len() > 1 {
            let heads = [(feed.store.clone(), feed.log.head())];
            processor.rewind(&heads, None, sequence(2)).await.expect("rewound");
            until(|| script.seen.lock().len() == 2).await;
            assert_eq!(processor.groups().await.expect("read")[0].refused, []);
        }
        drop(feed.head);
        replay.await.expect("no panic");
    }
    assert_eq!(script.seen(), ["s b 0", "s c 0"]);
}

/// The store is closed as idle while its journal is down.
#[tokio::test]
async fn a_store_that_was_closed_while_its_journal_was_down_is_processed_when_it_is_up() {
    struct Down(MemoryJournal, AtomicBool);
    impl EventJournal for Down {
        fn read(
            &self,
            ranges: Vec<JournalRange>,
        ) -> BoxFuture<'_, Result<Vec<Vec<JournalPair>>, JournalError>> {
            if self.1.load(SeqCst) {
                let down = JournalError::Unreadable("down".into());
                return Box::pin(std::future::ready(Err(down)));
            }
            self.0.read(ranges)
        }

        fn write(&self, changes: JournalChanges) -> BoxFuture<'_, Result<(), JournalError>> {
            self.0.write(changes)
        }
    }
    let journal = Arc::new(Down(MemoryJournal::new(), AtomicBool::new(true)));
    let script = Script::new([]);
    let processor = script.processor(&(Arc::clone(&journal) as _), GroupOptions::default());
    let storage = MemoryStorage::new();
    let feed = Feed::new(&storage, "s");
    feed.add(&["one"]).await;
    let replay = feed.replay(&processor);
    until(|| processor.stats().pauses.load(SeqCst) > 0).await;
    drop(feed.head);
    until(|| processor.stats().pauses.load(SeqCst) > 1).await;
    journal.1.store(false, SeqCst);
    replay.await.expect("no panic");
    assert_eq!(script.seen(), ["s one 0"]);
}
