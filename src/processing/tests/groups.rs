//! Groups: their names, where they begin, and that they are independent of each other.

use super::*;
use crate::model::RemoteEntry;
use crate::services::journal::layout;

/// Records what it receives, one line a call: the store, then the sequences. Its results come from `answers`; when that
/// is empty, everything is done.
#[derive(Default)]
struct Recorder {
    seen: Seen,
    answers: Mutex<Vec<Answer>>,
    permits: Option<Arc<tokio::sync::Semaphore>>,
}

/// The result for a number of received entries.
type Answer = fn(usize) -> BatchOutcome;

impl Recorder {
    fn new(seen: &Seen) -> Self {
        Self { seen: Arc::clone(seen), ..Self::default() }
    }
}

impl EntryHandler for Recorder {
    fn wants(&self, _: &StoreId, event: &str) -> bool {
        event != "Unknown"
    }

    fn entries_max(&self) -> usize {
        3
    }

    fn handle<'a>(
        &'a self,
        store: &'a StoreId,
        entries: &'a [CommittedEntry],
    ) -> BoxFuture<'a, BatchOutcome> {
        Box::pin(async move {
            if let Some(permits) = &self.permits {
                permits.acquire().await.expect("open").forget();
            }
            let sequences = entries.iter().map(|one| one.entry.remote_sequence.to_string());
            let sequences: Vec<String> = sequences.collect();
            self.seen.lock().push(format!("{store} {}", sequences.join(",")));
            let answer = self.answers.lock().pop();
            answer.map_or(BatchOutcome::done(entries.len()), |answer| answer(entries.len()))
        })
    }
}

fn lines(seen: &Seen) -> Vec<String> {
    std::mem::take(&mut *seen.lock())
}

fn memory() -> Arc<dyn EventJournal> {
    Arc::new(MemoryJournal::new())
}

/// Typed handlers under the name `Todos`, and these.
fn with(
    journal: &Arc<dyn EventJournal>,
    groups: impl IntoIterator<Item = (GroupOptions, Recorder)>,
) -> Arc<Processor> {
    let builder = Processor::builder(Arc::clone(journal)).group(handlers(&Model::new()));
    let builder = groups
        .into_iter()
        .fold(builder, |builder, (options, recorder)| builder.entry_group(options, recorder));
    Arc::new(builder.build().expect("a processor"))
}

fn heads(feeds: &[&Feed]) -> Vec<(StoreId, Sequence)> {
    feeds.iter().map(|feed| (feed.store.clone(), feed.log.head())).collect()
}

#[tokio::test]
async fn a_group_added_to_others_begins_at_the_head_of_each_store_unless_it_says_otherwise() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let feed = |name| Feed::new(&storage, name);
    feed("old").add(&["one", "two"]).await;
    feed("old").replay_to_the_end(&with(&journal, [])).await;

    let (late, all) = (Seen::default(), Seen::default());
    let groups = [
        (GroupOptions::named("late"), Recorder::new(&late)),
        (GroupOptions::named("all").from_start(), Recorder::new(&all)),
    ];
    let processor = with(&journal, groups);
    let behind = processor.stores_behind(&heads(&[&feed("old")])).await.expect("read");
    assert_eq!(behind.len(), 1, "the group that begins at the start is behind");
    processor.begun().await.expect("written");
    let old = feed("old");
    old.add(&["three"]).await;
    old.replay_to_the_end(&processor).await;
    // Younger than the group.
    let young = feed("young");
    young.add(&["one"]).await;
    young.replay_to_the_end(&processor).await;
    assert_eq!(lines(&late), ["old 3", "young 1"]);
    assert_eq!(lines(&all), ["old 1,2,3", "young 1"]);

    // They are known from now on, whatever they say.
    let groups = [(GroupOptions::named("late").from_start(), Recorder::new(&late))];
    feed("old").add(&["four"]).await;
    feed("old").replay_to_the_end(&with(&journal, groups)).await;
    assert_eq!(lines(&late), ["old 4"]);
    // A group that was away continues where it was.
    let groups = [(GroupOptions::named("all"), Recorder::new(&all))];
    feed("old").replay_to_the_end(&with(&journal, groups)).await;
    assert_eq!(lines(&all), ["old 4"]);
}

/// The process ends after some stores were looked at and others were not, with writes in between.
#[tokio::test]
async fn what_is_committed_once_a_group_is_known_is_given_to_it_whatever_ends_the_first_look() {
    let (journal, storage, late) = (memory(), MemoryStorage::new(), Seen::default());
    let groups = || [(GroupOptions::named("late").from_now(), Recorder::new(&late))];
    let [opened, closed] = ["opened", "closed"].map(|name| Feed::new(&storage, name));
    opened.add(&["one", "two"]).await;
    closed.add(&["one"]).await;
    let first = with(&journal, groups());
    // As before each opening of a store.
    first.begin(&heads(&[&opened])).await.expect("written");
    opened.add(&["three", "four"]).await;
    drop(first);

    let second = with(&journal, groups());
    let behind = second.stores_behind(&heads(&[&opened, &closed])).await.expect("read");
    assert!(behind.contains(&opened.store));
    second.begun().await.expect("written");
    closed.add(&["two"]).await;
    opened.replay_to_the_end(&second).await;
    closed.replay_to_the_end(&second).await;
    assert_eq!(lines(&late), ["opened 3,4", "closed 2"]);
}

#[tokio::test]
async fn groups_from_before_take_over_the_one_position_of_a_store_and_its_conflicts() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let [known, other] = ["known", "other"].map(|name| Feed::new(&storage, name));
    let (oldest, later) = (entry("k", "oldest"), entry("k", "later"));
    known.append(&client(), &[entry("k", "one"), later.clone(), oldest]).await;
    other.add(&["one"]).await;
    // What an earlier version wrote: position, row, and a part of an entry.
    let origin = journal_origin(&known.store);
    let second = Sequence::FIRST.next();
    let mut former = JournalChanges::default();
    former.set(&layout::former_position(origin), &layout::sequence_value(second));
    let subject = layout::subject(&later.as_ref());
    former.set(&layout::row(origin, &subject, later.id), &layout::sequence_value(second));
    former.set(&[&[3][..], origin.as_bytes(), &[0; 12]].concat(), b"part");
    journal.write(former).await.expect("written");

    let given: Seen = Seen::default();
    let group = Todos::handlers(Arc::clone(&given))
        .on(async |given, added: Committed<Added>| {
            let conflicts = added.conflicts().iter().map(|one| one.payload.title.clone());
            let conflicts: Vec<String> = conflicts.collect();
            let line = format!("{} {} {conflicts:?}", added.store(), added.title);
            given.lock().push(line);
        })
        .on(async |_, _: Committed<Done>| ());
    let processor = Processor::builder(Arc::clone(&journal)).group(group);
    let processor = Arc::new(processor.build().expect("a processor"));
    let behind = processor.stores_behind(&heads(&[&known, &other])).await.expect("read");
    assert_eq!(behind.len(), 2);
    processor.begun().await.expect("written");
    known.replay_to_the_end(&processor).await;
    other.replay_to_the_end(&processor).await;
    assert_eq!(lines(&given), ["known oldest [\"later\"]", "other one []"]);
    let left = journal.read(layout::former(9).into()).await.expect("read");
    assert!(left.iter().all(Vec::is_empty), "{left:?}");
}

#[tokio::test]
async fn a_group_that_hangs_holds_up_no_other() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let (slow, quick) = (Seen::default(), Seen::default());
    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    let hanging = Recorder { permits: Some(Arc::clone(&permits)), ..Recorder::new(&slow) };
    let groups = [
        (GroupOptions::named("slow"), hanging),
        (GroupOptions::named("quick"), Recorder::new(&quick)),
    ];
    let processor = with(&journal, groups);
    let feed = Feed::new(&storage, "s");
    feed.add(&["one", "two"]).await;
    let replay = feed.replay(&processor);
    until(|| quick.lock().len() == 1).await;
    feed.add(&["three"]).await;
    until(|| quick.lock().len() == 2).await;
    let status = processor.status(&feed.store).expect("under way");
    assert_eq!((status.position.get(), status.lag()), (0, 3));
    permits.add_permits(9);
    drop(feed.head);
    replay.await.expect("no panic");
    assert_eq!(lines(&slow), ["s 1,2", "s 3"]);
}

#[tokio::test]
async fn a_group_of_any_events_gets_the_rest_again_and_passes_what_fails() {
    let (journal, storage, seen) = (memory(), MemoryStorage::new(), Seen::default());
    let recorder = Recorder::new(&seen);
    // The last comes first.
    recorder.answers.lock().extend::<[Answer; 4]>([
        |_| BatchOutcome::done(0),
        |_| panic!("told to panic"),
        |_| BatchOutcome::failed(1, "told to fail"),
        |_| BatchOutcome::done(2),
    ]);
    let processor = with(&journal, [(GroupOptions::named("g"), recorder)]);
    let feed = Feed::new(&storage, "s");
    feed.add(&["one", "two", "three", "four", "five"]).await;
    feed.append(&Origin::Server { run_handlers: false }, &[entry("k", "silent")]).await;
    let unknown = Entry { event: "Unknown".to_owned(), ..entry("k", "") };
    feed.append(&client(), &[unknown, entry("k", "eight"), entry("k", "nine")]).await;
    feed.replay_to_the_end(&processor).await;
    // Two are done; the fourth fails; the fifth panics; nothing is said about the eighth, so it comes again.
    assert_eq!(lines(&seen), ["s 1,2,3", "s 3,4,5", "s 5,8,9", "s 8,9", "s 8,9"]);
}

#[test]
fn groups_have_names_that_can_be_kept_and_told_apart() {
    let built = |options: [GroupOptions; 2]| {
        let builder = Processor::builder(memory()).group(handlers(&Model::new()));
        let builder = options
            .into_iter()
            .fold(builder, |builder, options| builder.entry_group(options, Recorder::default()));
        builder.build().err()
    };
    let named = |name: &str| GroupOptions::named(name);
    assert_eq!(built([named("a"), named("b")]), None);
    let twice = |name: &str| Some(ProcessorError::NameTwice(name.to_owned()));
    assert_eq!(built([named("a"), named("a")]), twice("a"));
    assert_eq!(built([named("a"), named("Todos")]), twice("Todos"), "the name of the type");
    let unusable = |name: &str| Some(ProcessorError::Name(name.to_owned()));
    assert_eq!(built([named("a"), GroupOptions::default()]), unusable(""));
    let long = "n".repeat(201);
    assert_eq!(built([named("a"), named(&long)]), unusable(&long));
}

/// Writing positions takes a while; what is durable is known when they are done.
#[derive(Default)]
struct Slow {
    journal: MemoryJournal,
    durable: AtomicUsize,
    writes: AtomicUsize,
}

impl EventJournal for Slow {
    fn read(
        &self,
        ranges: Vec<JournalRange>,
    ) -> BoxFuture<'_, Result<Vec<Vec<JournalPair>>, JournalError>> {
        self.journal.read(ranges)
    }

    fn write(&self, changes: JournalChanges) -> BoxFuture<'_, Result<(), JournalError>> {
        Box::pin(async move {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let place = changes.iter().filter_map(|(_, value)| layout::read_place(value?).ok());
            let place = place.last();
            self.journal.write(changes).await?;
            if let Some(place) = place {
                self.durable.store(place.position.get() as usize, SeqCst);
                self.writes.fetch_add(1, SeqCst);
            }
            Ok(())
        })
    }
}

#[tokio::test]
async fn no_more_than_was_said_is_handled_beyond_what_is_durable() {
    const ENTRIES: usize = 500;
    for repeats_max in [1, 2, 3, 10, 100, 1_024] {
        let storage = MemoryStorage::new();
        let state = Arc::new((Arc::new(Slow::default()), AtomicUsize::new(0)));
        let journal: Arc<dyn EventJournal> = Arc::clone(&state.0) as _;
        let group = Todos::handlers(Arc::clone(&state))
            .on(async |state, added: Committed<Added>| {
                let ahead = added.sequence().get() as usize - state.0.durable.load(SeqCst);
                state.1.fetch_max(ahead, SeqCst);
            })
            .on(async |_, _: Committed<Done>| ());
        let builder = Processor::builder(journal).group(group).repeats_max(repeats_max);
        let processor = Arc::new(builder.build().expect("a processor"));
        let feed = Feed::new(&storage, "s");
        let entries: Vec<Entry> = (0..ENTRIES).map(|_| entry("k", "")).collect();
        feed.append(&client(), &entries).await;
        feed.replay_to_the_end(&processor).await;
        let (ahead, writes) = (state.1.load(SeqCst), state.0.writes.load(SeqCst));
        assert!(ahead <= repeats_max, "{ahead} of {repeats_max}");
        assert!(
            ahead == ENTRIES.min(repeats_max) || repeats_max % 2 == 1,
            "{ahead} of {repeats_max}"
        );
        let batch = (repeats_max / 2).max(1);
        assert!(writes <= ENTRIES / batch + 2, "{writes} writes at {repeats_max}");
        assert_eq!(state.0.durable.load(SeqCst), ENTRIES);
    }
}

/// An `Added` of few subjects and ids. The same ones for a round, whenever it runs.
fn few(round: u64) -> Vec<Entry> {
    let mut state = round;
    let mut below = |bound: u64| {
        // Knuth's MMIX generator; its upper bits are random enough.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    // Some rounds have more than is kept in memory.
    let count = if round % 16 == 15 { 2_500 } else { 1 + below(39) };
    let (keys, ids) = (3 + count / 10, 9 + count / 3);
    let made = (0..count).map(|sequence| {
        let key = ["", "k", "l"].get(below(keys) as usize).unwrap_or(&"m");
        let mut id = [0; 16];
        id[8..].copy_from_slice(&(below(ids) * 3_000 + sequence).to_be_bytes());
        let key = if *key == "m" { format!("m{}", below(keys)) } else { (*key).to_owned() };
        Entry { id: EntryId::from_bytes(id), ..entry(&key, "") }
    });
    made.collect()
}

/// The sequences of those in `before` that conflict with `entry`, in the order of their ids.
fn scan(before: &[Entry], entry: &Entry) -> Vec<usize> {
    let same = before
        .iter()
        .zip(1..)
        .filter(|(other, _)| other.primary_key == entry.primary_key && other.id > entry.id);
    let mut conflicts: Vec<_> = same.collect();
    conflicts.sort_by_key(|(other, _)| other.id);
    conflicts.into_iter().map(|(_, sequence)| sequence).collect()
}

/// What each entry sees is compared with a scan of those before it; some have to come from the journal, some cannot be
/// there yet.
#[tokio::test]
async fn conflicts_agree_with_a_scan_in_any_number_of_lives() {
    for round in 0..48 {
        let (journal, storage) = (memory(), MemoryStorage::new());
        let given: Arc<Mutex<Vec<Vec<usize>>>> = Arc::default();
        let entries = few(round);
        let lives = 1 + round as usize % 3;
        for part in entries.chunks(entries.len().div_ceil(lives)) {
            let group = Todos::handlers(Arc::clone(&given))
                .on(async |given, added: Committed<Added>| {
                    let conflicts = added.conflicts().iter();
                    let sequences = conflicts.map(|one| one.entry.remote_sequence.get() as usize);
                    given.lock().push(sequences.collect());
                })
                .on(async |_, _: Committed<Done>| ());
            let builder = Processor::builder(Arc::clone(&journal)).group(group);
            let builder = builder.repeats_max([1, 2, 7, 1_024][round as usize % 4]);
            let processor = Arc::new(builder.build().expect("a processor"));
            let feed = Feed::new(&storage, "s");
            feed.append(&client(), part).await;
            feed.replay_to_the_end(&processor).await;
        }
        let expected: Vec<_> =
            (0..entries.len()).map(|at| scan(&entries[..at], &entries[at])).collect();
        assert_eq!(*given.lock(), expected, "round {round}");
    }
}

/// Conflicts, and whether they are complete.
type Given = (Vec<Arc<RemoteEntry>>, bool);

#[tokio::test]
async fn conflicts_are_bounded_and_the_latest_are_kept() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let given: Arc<Mutex<Vec<Given>>> = Arc::default();
    let group = Todos::handlers(Arc::clone(&given))
        .on(async |given, added: Committed<Added>| {
            let conflicts = added.conflicts().iter().map(|one| Arc::clone(&one.entry));
            given.lock().push((conflicts.collect(), added.has_all_conflicts()));
        })
        .on(async |_, _: Committed<Done>| ());
    let processor = Processor::builder(journal).group(group).build().expect("a processor");
    let feed = Feed::new(&storage, "s");
    let oldest = [entry("k", "oldest"), entry("k", "older")];
    // More than one read of the feed.
    let later: Vec<Entry> = (0..=CONFLICTS_MAX).map(|_| entry("k", &"x".repeat(100))).collect();
    feed.append(&client(), &later).await;
    feed.append(&client(), &[oldest[1].clone()]).await;
    let small = EntryId::from_bytes([1; 16]);
    feed.append(&client(), &[Entry { id: small, ..entry("other", "") }, oldest[0].clone()]).await;
    feed.replay_to_the_end(&Arc::new(processor)).await;
    let given = given.lock();
    let [.., older, other, oldest] = &given[..] else { panic!("{} were handled", given.len()) };
    assert_eq!((other.0.len(), other.1), (0, true));
    for (conflicts, all) in [older, oldest] {
        assert_eq!((conflicts.len(), *all), (CONFLICTS_MAX, false));
        let kept = conflicts.iter().map(|one| one.remote_sequence.get());
        assert!(kept.clone().max() == Some(CONFLICTS_MAX as u64 + 1) && kept.min() >= Some(2));
    }
}

#[tokio::test]
async fn an_entry_for_the_feed_alone_conflicts_with_nothing() {
    let (journal, storage) = (memory(), MemoryStorage::new());
    let given: Arc<Mutex<Vec<usize>>> = Arc::default();
    let group = Todos::handlers(Arc::clone(&given))
        .on(async |given, added: Committed<Added>| given.lock().push(added.conflicts().len()))
        .on(async |_, _: Committed<Done>| ());
    let processor = Processor::builder(journal).group(group).build().expect("a processor");
    let feed = Feed::new(&storage, "s");
    let older = entry("k", "older");
    feed.add(&["one"]).await;
    feed.append(&Origin::Server { run_handlers: false }, &[entry("k", "silent")]).await;
    feed.append(&client(), &[older]).await;
    feed.replay_to_the_end(&Arc::new(processor)).await;
    assert_eq!(*given.lock(), [0, 1]);
}
