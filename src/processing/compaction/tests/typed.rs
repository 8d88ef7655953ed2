//! Groups of typed events.

use serde::{Deserialize, Serialize};

use super::*;
use crate::processing::{Event, EventGroup, Msgpack, PayloadCodec};

#[derive(Debug, Serialize, Deserialize)]
struct Renamed {
    todo: String,
    title: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Closed {
    todo: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    todo: String,
    title: Option<String>,
    closed: bool,
}

impl Event for Renamed {
    const TAG: &'static str = "Renamed";
    fn primary_key(&self) -> String {
        self.todo.clone()
    }
}

impl Event for Closed {
    const TAG: &'static str = "Closed";
    fn primary_key(&self) -> String {
        self.todo.clone()
    }
}

impl Event for Snapshot {
    const TAG: &'static str = "Snapshot";
    fn primary_key(&self) -> String {
        self.todo.clone()
    }
}

struct Todos;

impl EventGroup for Todos {
    type Events = (Renamed, Closed, Snapshot);
    type Codec = Msgpack;
}

fn snapshot(bucket: &GroupBucket<'_, Todos>) -> Snapshot {
    let todo = bucket.primary_key.to_owned();
    let mut snapshot = Snapshot { todo, title: None, closed: false };
    for event in &bucket.events {
        if let Some(Renamed { title, .. }) = event.get::<Renamed, _>() {
            snapshot.title = Some(title.clone());
        }
        snapshot.closed |= event.get::<Closed, _>().is_some();
    }
    snapshot
}

fn write<E: Event>(feed: &mut Feed, created: u64, event: &E) {
    let payload = Msgpack::encode(event).expect("it encodes");
    feed.append(created, E::TAG, &event.primary_key(), &payload);
}

fn renamed(todo: &str, title: &str) -> Renamed {
    Renamed { todo: todo.to_owned(), title: title.to_owned() }
}

#[test]
fn a_group_is_compacted_by_type() {
    let compaction = Compaction::new(&Limits::default());
    let _guard = compaction
        .register_group::<Todos>(DAY, |bucket, out| out.write(&snapshot(bucket)))
        .expect("the first");
    let mut feed = Feed::new();
    write(&mut feed, 1, &renamed("milk", "Buy milk"));
    write(&mut feed, 2, &renamed("bread", "Buy bread"));
    write(&mut feed, 3, &Closed { todo: "milk".to_owned() });
    write(&mut feed, 950, &renamed("milk", "Buy oat milk"));
    let sent = feed.read(&compaction, (0, 1_000), 1_000);
    let places: Vec<_> = shown(&sent).iter().map(|it| (it.0, it.1, it.2)).collect();
    let expected = [(2, "Snapshot", "bread"), (3, "Snapshot", "milk"), (4, "Renamed", "milk")];
    assert_eq!(places, expected);
    let milk: Snapshot = Msgpack::decode(&sent[1].entry.payload).expect("a snapshot");
    assert_eq!((milk.title.as_deref(), milk.closed), (Some("Buy milk"), true));
    assert_eq!(sent[1].entry.id.created_at_millis(), 1);
}

#[test]
fn a_payload_of_another_type_leaves_its_whole_bucket_alone() {
    let compaction = Compaction::new(&Limits::default());
    let _guard = compaction.register_group::<Todos>(DAY, |_, _| ()).expect("the first");
    let mut feed = Feed::new();
    write(&mut feed, 1, &renamed("milk", "Buy milk"));
    feed.append(1, "Closed", "milk", b"\xc1");
    write(&mut feed, 1, &renamed("bread", "Buy bread"));
    let sent = feed.read(&compaction, (0, 1_000), 1_000);
    assert!(sent.iter().map(|it| &it.entry).eq(&feed.entries[..2]));
}

#[test]
fn a_replacement_about_something_else_is_refused() {
    let compaction = Compaction::new(&Limits::default());
    let _guard = compaction
        .register_group::<Todos>(DAY, |bucket, out| {
            out.keep(&bucket.entries[0]);
            out.write(&renamed("other", "title"));
        })
        .expect("the first");
    let mut feed = Feed::new();
    write(&mut feed, 1, &renamed("milk", "Buy milk"));
    write(&mut feed, 1, &renamed("milk", "Buy oat milk"));
    let sent = feed.read(&compaction, (0, 1_000), 1_000);
    assert!(sent.iter().map(|it| &it.entry).eq(&feed.entries));
}
