//! What handlers run on, and what they receive.

use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::services::journal::layout;

fn journal() -> Arc<dyn EventJournal> {
    Arc::new(MemoryJournal::new())
}

#[tokio::test]
async fn each_entry_that_runs_handlers_is_handled_once_in_feed_order() {
    let (model, storage) = (Model::new(), MemoryStorage::new());
    let processor = processor(&model, journal());
    let feed = Feed::new(&storage, "s");
    feed.add(&["one", "two"]).await;
    let replay = feed.replay(&processor);
    feed.append(&Origin::Server { run_handlers: false }, &[entry("k", "silent")]).await;
    until(|| model.seen().len() == 2).await;
    feed.append(&Origin::Server { run_handlers: true }, &[entry("k", "four")]).await;
    feed.add(&["five"]).await;
    until(|| model.seen().len() == 4).await;
    drop(feed.head);
    replay.await.expect("no panic");
    assert_eq!(model.seen(), ["s 1 one", "s 2 two", "s 4 four", "s 5 five"]);
    assert_eq!(processor.stats().handled.load(SeqCst), 4);
    assert_eq!(processor.stats().skipped.load(SeqCst), 1);
}

#[tokio::test]
async fn a_handler_that_fails_panics_or_cannot_decode_stops_nothing() {
    let (model, storage) = (Model::new(), MemoryStorage::new());
    let processor = processor(&model, journal());
    let mut observer = processor.reactivity().observe("todos");
    let feed = Feed::new(&storage, "s");
    feed.add(&["fail", "panic"]).await;
    let undecodable = Entry { payload: vec![0xc1].into(), ..entry("k", "") };
    let unknown = Entry { event: "Unknown".to_owned(), ..entry("k", "") };
    feed.append(&client(), &[undecodable, unknown]).await;
    feed.add(&["fine"]).await;
    let store = feed.store.clone();
    feed.replay_to_the_end(&processor).await;
    assert_eq!(model.seen(), ["s 1 fail", "s 2 panic", "s 5 fine"]);
    let stats = processor.stats();
    let counters =
        [&stats.handled, &stats.failed, &stats.panicked, &stats.undecodable, &stats.unhandled];
    assert_eq!(counters.map(|counter| counter.load(SeqCst)), [1; 5]);
    assert_eq!(processor.position(&store).await.expect("read").get(), 5);
    assert_eq!(observer.next().now_or_never(), Some(Some(Observed::Look)));
    let invalidated = observer.next().now_or_never().flatten();
    assert!(matches!(invalidated, Some(Observed::Invalidated(one)) if &*one.primary_key == "k"));
    assert_eq!(observer.next().now_or_never(), None);
}

#[tokio::test]
async fn keys_are_invalidated_per_event_with_its_primary_key() {
    let (model, storage) = (Model::new(), MemoryStorage::new());
    let processor = processor(&model, journal());
    let (mut todos, mut done) =
        (processor.reactivity().observe("todos"), processor.reactivity().observe("done"));
    let feed = Feed::new(&storage, "s");
    let payload = Msgpack::encode(&Done { id: "b".to_owned() }).expect("encodes").into();
    let finished =
        Entry { event: "Done".to_owned(), primary_key: "b".to_owned(), payload, ..entry("", "") };
    feed.append(&client(), &[entry("a", "one"), finished]).await;
    let silent = Origin::Server { run_handlers: false };
    feed.append(&silent, &[entry("c", "silent")]).await;
    feed.replay_to_the_end(&processor).await;
    let told = |observer: &mut Observer| {
        let mut told = Vec::new();
        while let Some(Some(observed)) = observer.next().now_or_never() {
            if let Observed::Invalidated(one) = observed {
                told.push(format!("{} {} {}", one.store, one.key, one.primary_key));
            }
        }
        told
    };
    assert_eq!(told(&mut todos), ["s todos a", "s todos b"]);
    assert_eq!(told(&mut done), ["s done b"]);
}

#[tokio::test]
async fn a_handler_is_given_entry_origin_and_the_decoded_conflicts_of_its_store() {
    let given: Arc<Mutex<Vec<String>>> = Arc::default();
    let group = Todos::handlers(Arc::clone(&given))
        .on(async |given, added: Committed<Added>| {
            let conflicts = added.conflicts().iter().map(|one| one.payload.title.clone());
            let conflicts: Vec<String> = conflicts.collect();
            let (entry, origin, title) = (added.entry(), added.origin(), &added.title);
            assert_eq!((&*entry.event, &*entry.primary_key), ("Added", "k"));
            assert!(added.has_all_conflicts());
            given.lock().push(format!("{title} of {origin:?}: {}", conflicts.join(",")));
        })
        .on(async |_, _: Committed<Done>| ());
    let processor = Processor::builder(journal()).group(group).build().expect("a processor");
    let (processor, storage) = (Arc::new(processor), MemoryStorage::new());
    let (old, older) = (entry("k", "old"), entry("k", "older"));
    let [a, b] = ["a", "b"].map(|store| Feed::new(&storage, store));
    // Its id is the greatest of all, but it is not a conflict, because it cannot be decoded.
    let undecodable = Entry { payload: vec![0xc1].into(), ..entry("k", "") };
    let latest = entry("k", "latest");
    a.append(&client(), &[undecodable, latest, older]).await;
    a.append(&Origin::Server { run_handlers: true }, std::slice::from_ref(&old)).await;
    b.append(&client(), &[old]).await;
    a.replay_to_the_end(&processor).await;
    b.replay_to_the_end(&processor).await;
    let alice = "Client(\"alice\")";
    let expected = [
        format!("latest of {alice}: "),
        format!("older of {alice}: latest"),
        "old of Server { run_handlers: true }: older,latest".to_owned(),
        format!("old of {alice}: "),
    ];
    assert_eq!(*given.lock(), expected);
}

#[tokio::test]
async fn a_slow_handler_delays_its_own_store_only_and_its_lag_shows() {
    let (model, storage) = (Model::new(), MemoryStorage::new());
    let processor = processor(&model, journal());
    let [slow, quick] = ["slow", "quick"].map(|store| Feed::new(&storage, store));
    slow.add(&["wait", "after"]).await;
    let replays = [slow.replay(&processor), quick.replay(&processor)];
    quick.add(&["one", "two"]).await;
    until(|| model.seen().len() == 2).await;
    slow.add(&["late"]).await;
    until(|| processor.status(&slow.store).is_some_and(|status| status.lag() > 0)).await;
    assert_eq!(model.seen(), ["quick 1 one", "quick 2 two"]);
    model.permits.add_permits(1);
    until(|| model.seen().len() == 5).await;
    drop((slow.head, quick.head));
    for replay in replays {
        replay.await.expect("no panic");
    }
    assert_eq!(processor.statuses(), []);
}

#[test]
fn two_events_of_one_tag_do_not_build() {
    let (first, second) = (handlers(&Model::new()), handlers(&Model::new()));
    let built = Processor::builder(journal()).group(first).group(second.named("other")).build();
    assert_eq!(built.err(), Some(ProcessorError::EventTwice("Added")));
}

/// Its rows are behind its position, and all the missing ones are of trimmed entries: a late entry causes them to be
/// written first.
#[tokio::test]
async fn rows_of_what_is_trimmed_hold_nothing_up() {
    let (model, storage) = (Model::new(), MemoryStorage::new());
    let journal = Arc::new(MemoryJournal::new());
    let late = entry("k", "late");
    let feed = Feed::new(&storage, "s");
    feed.add(&["one", "two", "three"]).await;
    let first = processor(&model, journal.clone());
    let key = layout::place(journal_origin(&feed.store), &first.groups[0].name);
    feed.replay_to_the_end(&first).await;
    let found = journal.read(vec![JournalRange::one(key.clone())]).await.expect("read");
    let place = layout::read_place(&found[0][0].1).expect("a place");
    assert_eq!(place.position.get(), 3);
    let behind = layout::Place { indexed: Sequence::ZERO, ..place };
    let mut changes = JournalChanges::default();
    changes.set(&key, &layout::place_value(&behind));
    journal.write(changes).await.expect("written");

    let feed = Feed::new(&storage, "s");
    feed.log.trim(Sequence::ZERO.plus(3)).await.expect("trimmed");
    feed.append(&client(), &[late]).await;
    let again = processor(&model, journal);
    let replay = feed.replay_to_the_end(&again);
    tokio::time::timeout(Duration::from_secs(20), replay).await.expect("it ends");
    assert_eq!(model.seen(), ["s 1 one", "s 2 two", "s 3 three", "s 4 late"]);
}
