//! The server's storage without sockets, sessions and actors: the same entries in the same batches, handed over as a
//! store does.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventlog_server::model::{
    Batch, EntryId, Origin, PublicKey, Segment, SegmentBuilder, Sequence, StoreId,
};
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use eventlog_server::storage::{AppendError, Storage, StoreLog};
use futures_util::future::BoxFuture;

use super::super::load::Load;
use super::super::process::unix_millis;
use super::super::template::{EntryShape, IdSource, entries, random_bytes};

/// How many entries are read or looked up, if the load does not say.
const ENTRIES: u64 = 1_000_000;
/// As much as a session requests at once.
const READ_BYTES: usize = 256 << 10;
/// Groups of one store that are at the disk at the same time.
const GROUPS: usize = 2;

/// Appends for this long; returns entries per second.
pub(super) async fn append(directory: &Path, load: &Load, time: Duration) -> io::Result<f64> {
    let mut alone = Alone::open(directory, load)?;
    let start = Instant::now();
    while start.elapsed() < time {
        alone.append().await?;
    }
    alone.settle(0).await?;
    let per_second = alone.entries as f64 / start.elapsed().as_secs_f64();
    alone.database.close().map_err(io::Error::other)?;
    Ok(per_second)
}

/// Reads a store from its first entry to its last; returns entries per second.
pub(super) async fn read(directory: &Path, load: &Load) -> io::Result<f64> {
    let alone = Alone::filled(directory, load, |_| ()).await?;
    let log = &alone.stores[0].log;
    let (start, mut next) = (Instant::now(), Sequence::FIRST);
    while next <= log.head() {
        let segments = log.read(next, READ_BYTES).map_err(io::Error::other)?;
        next = segments.last().map_or(next, Segment::last).next();
    }
    Ok(log.head().get() as f64 / start.elapsed().as_secs_f64())
}

/// Looks up everything that a store has, batch by batch; returns entries per second.
pub(super) async fn find(directory: &Path, load: &Load) -> io::Result<f64> {
    let mut ids: Vec<EntryId> = Vec::new();
    let alone = Alone::filled(directory, load, |id| ids.push(id)).await?;
    let log = &alone.stores[0].log;
    let start = Instant::now();
    for batch in ids.chunks(load.shape.batch) {
        let probed = log.probe(batch);
        let found = log.lookup(&probed.open_of(batch)).map_err(io::Error::other)?;
        let found = probed.completed(found);
        if found.contains(&None) {
            return Err(io::Error::other("the storage has lost an entry"));
        }
    }
    Ok(ids.len() as f64 / start.elapsed().as_secs_f64())
}

/// A storage that nobody else writes to.
struct Alone {
    database: Database,
    storage: SledStorage,
    stores: Vec<Store>,
    shape: EntryShape,
    payload: Vec<u8>,
    origin: Origin,
    ids: IdSource,
    /// The batches of one append.
    batches: usize,
    appends_max: usize,
    pending: VecDeque<BoxFuture<'static, Result<(), AppendError>>>,
    turn: usize,
    entries: u64,
}

struct Store {
    log: Arc<dyn StoreLog>,
    next: Sequence,
}

impl Store {
    fn open(storage: &SledStorage, number: usize) -> io::Result<Self> {
        let name = StoreId::new(format!("bench-{number}")).map_err(io::Error::other)?;
        let log = storage.open(&name).map_err(io::Error::other)?;
        Ok(Self { next: log.head().next(), log })
    }
}

impl Alone {
    /// The batches that `load` has in flight are distributed over its stores; those of a store form one group at the
    /// disk and one that collects meanwhile.
    fn open(directory: &Path, load: &Load) -> io::Result<Self> {
        let options = DatabaseOptions::default();
        let database = Database::open(directory, options).map_err(io::Error::other)?;
        let storage = SledStorage::new(database.clone());
        let stores = (0..load.stores).map(|number| Store::open(&storage, number));
        let stores = stores.collect::<io::Result<_>>()?;
        let in_flight = load.connections * load.in_flight;
        let of_store = in_flight.div_ceil(load.stores);
        let batches = of_store.div_ceil(GROUPS.min(of_store));
        Ok(Self {
            database,
            storage,
            stores,
            shape: load.shape,
            payload: random_bytes(load.shape.payload),
            origin: Origin::Client(PublicKey::new("bench").map_err(io::Error::other)?),
            ids: IdSource::new(load.ids),
            batches,
            appends_max: (in_flight / batches).max(1),
            pending: VecDeque::new(),
            turn: 0,
            entries: 0,
        })
    }

    /// A storage with one store, freshly opened, that holds as many entries as `load` says; `each` gets the ids.
    async fn filled(
        directory: &Path,
        load: &Load,
        mut each: impl FnMut(EntryId),
    ) -> io::Result<Self> {
        let load = Load { stores: 1, ..*load };
        let mut alone = Self::open(directory, &load)?;
        while alone.entries < load.count.unwrap_or(ENTRIES) {
            alone.append().await?.into_iter().for_each(&mut each);
        }
        alone.settle(0).await?;
        alone.stores.clear();
        alone.stores.push(Store::open(&alone.storage, 0)?);
        Ok(alone)
    }

    /// Appends one group to the next store, once there is space for it; returns its ids.
    async fn append(&mut self) -> io::Result<Vec<EntryId>> {
        self.settle(self.appends_max - 1).await?;
        let count = self.batches * self.shape.batch;
        let ids: Vec<EntryId> = self.ids.take(unix_millis(), count).iter().collect();
        let batch = Batch::from_entries(entries(&ids, &self.payload));
        let store = &mut self.stores[self.turn];
        let mut builder = SegmentBuilder::new(store.next);
        for record in (0..count).filter_map(|slot| batch.record(slot)) {
            builder.push(record, &self.origin);
        }
        store.next = builder.next();
        self.pending.push_back(store.log.append(builder.finish()));
        self.turn = (self.turn + 1) % self.stores.len();
        self.entries += count as u64;
        Ok(ids)
    }

    /// Waits until no more than this many appends are in progress.
    async fn settle(&mut self, appends_max: usize) -> io::Result<()> {
        while self.pending.len() > appends_max
            && let Some(append) = self.pending.pop_front()
        {
            append.await.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(stores: usize, batch: usize) -> Load {
        Load {
            connections: 2,
            in_flight: 3,
            shape: EntryShape { batch, payload: 20 },
            stores,
            count: Some(500),
            ..Load::default()
        }
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(future)
    }

    #[test]
    fn what_the_floor_counts_is_stored() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut alone = Alone::open(directory.path(), &load(4, 7)).expect("open");
        wait(async {
            for _ in 0..10 {
                assert_eq!(alone.append().await.expect("appended").len(), 7);
            }
            alone.settle(0).await.expect("durable");
        });
        let heads: Vec<u64> = alone.stores.iter().map(|store| store.log.head().get()).collect();
        assert_eq!(heads, [21, 21, 14, 14]);
        assert_eq!(alone.entries, 70);
    }

    #[test]
    fn everything_that_was_filled_in_is_read_and_found() {
        for measure in [true, false] {
            let directory = tempfile::tempdir().expect("a directory");
            let load = load(1, 10);
            let rate = wait(async {
                if measure {
                    read(directory.path(), &load).await
                } else {
                    find(directory.path(), &load).await
                }
            });
            assert!(rate.expect("measured") > 0.0);
        }
    }
}
