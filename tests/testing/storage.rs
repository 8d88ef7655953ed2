//! A foreign implementation of a storage, which knows no id without reading; and a server on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eventlog_server::model::{
    Batch, EntryId, EntryRef, Origin, PublicKey, RemoteId, Segment, SegmentBuilder, Sequence,
    StoreId,
};
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::{
    AppendError, ERASE_MAX, Keep, MemoryUsedKeys, Probed, Storage, StorageError, StoreLog,
    StoreSize, UsedKeys, behind_trimmed, check_consecutive,
};
use eventlog_server::testing::storage::CLAUSES;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::{Elsewhere, found};
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    TakesAnySequence,
    KnowsNoIds,
    ReadsFromTheNextSegment,
    ReadsWithoutBound,
    PassesGaps,
    ShowsWhatIsTrimmed,
    ForgetsTrimmedIds,
    TakesTrimsBack,
    ShowsWhatIsErased,
    ErasesNeighbours,
    ForgetsErasedIds,
    ErasesWhatIsElsewhere,
    ForgetsErasures,
    KeepsTooMuch,
    TellsOfAllAbove,
    LetsEarlierLogsAppend,
    ListsEmptyStores,
    ForgetsAtReopening,
    LetsKeysMove,
}

struct Disk {
    remote_id: RemoteId,
    tables: Mutex<BTreeMap<StoreId, Arc<Mutex<Table>>>>,
    used_keys: MemoryUsedKeys,
    moving_keys: MovingKeys,
}

/// Records the last store of a key instead of the first.
#[derive(Default)]
struct MovingKeys(MemoryUsedKeys);

impl UsedKeys for MovingKeys {
    fn get<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<StoreId>, StorageError>> {
        self.0.get(key)
    }

    fn note<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<StoreId, StorageError>> {
        Box::pin(self.0.release(key).then(|_| self.0.note(key, store)))
    }

    fn release<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<StoreId>, StorageError>> {
        self.0.release(key)
    }

    fn of<'a>(
        &'a self,
        store: &'a StoreId,
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<PublicKey>, StorageError>> {
        self.0.of(store, most)
    }

    fn count(&self, _: usize) -> BoxFuture<'_, Result<usize, StorageError>> {
        self.0.count(usize::MAX)
    }
}

#[derive(Default)]
struct Table {
    /// Counts openings: an earlier log no longer appends.
    opened: u64,
    rows: BTreeMap<Sequence, Segment>,
    ids: HashMap<EntryId, Sequence>,
    trimmed: Sequence,
    erasures: u64,
    times: Vec<(Sequence, SystemTime)>,
}

struct Rows {
    disk: Arc<Disk>,
    fault: Option<Fault>,
}

struct Log {
    table: Arc<Mutex<Table>>,
    opened: u64,
    fault: Option<Fault>,
}

fn disk() -> Arc<Disk> {
    Arc::new(Disk {
        remote_id: RemoteId::random(),
        tables: Mutex::default(),
        used_keys: MemoryUsedKeys::default(),
        moving_keys: MovingKeys::default(),
    })
}

fn rows(fault: Option<Fault>) -> Elsewhere<dyn Storage> {
    let kept = disk();
    Elsewhere::new(move || -> Arc<dyn Storage> {
        let forgets = fault == Some(Fault::ForgetsAtReopening);
        Arc::new(Rows { disk: if forgets { disk() } else { kept.clone() }, fault })
    })
}

impl Table {
    fn head(&self) -> Sequence {
        self.rows.last_key_value().map_or(Sequence::ZERO, |(_, last)| last.last())
    }

    fn size(&self) -> StoreSize {
        let (head, trimmed) = (self.head(), self.trimmed);
        let kept = behind_trimmed(trimmed, trimmed.next(), self.rows.values().cloned());
        let bytes = kept.iter().map(|row| row.records().len() as u64).sum();
        let of = |row: &Segment| if row.is_erased() { row.span() } else { row.len() as u64 };
        let entries = kept.iter().map(of).sum();
        StoreSize { head, trimmed, entries, bytes }
    }

    fn append(&mut self, segments: Vec<Segment>) {
        for segment in segments {
            self.ids.extend(segment.ids().map(|(sequence, id)| (id, sequence)));
            self.rows.insert(segment.first(), segment);
        }
        self.times.push((self.head(), SystemTime::now()));
    }
}

impl Storage for Rows {
    fn remote_id(&self) -> RemoteId {
        self.disk.remote_id
    }

    fn open(&self, store: &StoreId) -> Result<Arc<dyn StoreLog>, StorageError> {
        let table = self.disk.tables.lock().entry(store.clone()).or_default().clone();
        let opened = {
            let mut table = table.lock();
            table.opened += 1;
            table.opened
        };
        Ok(Arc::new(Log { table, opened, fault: self.fault }))
    }

    fn stores(
        &self,
        after: Option<&StoreId>,
        count: usize,
    ) -> Result<Vec<(StoreId, StoreSize)>, StorageError> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tables = self.disk.tables.lock();
        let behind = tables.range::<StoreId, _>((after, Bound::Unbounded));
        let sizes = behind.map(|(store, table)| (store.clone(), table.lock().size()));
        let all = self.fault == Some(Fault::ListsEmptyStores);
        Ok(sizes.filter(|(_, size)| all || size.head > Sequence::ZERO).take(count).collect())
    }

    fn size(&self, store: &StoreId) -> Result<StoreSize, StorageError> {
        let tables = self.disk.tables.lock();
        Ok(tables.get(store).map_or_else(StoreSize::default, |table| table.lock().size()))
    }

    fn beyond(&self, store: &StoreId, keep: &Keep) -> Result<Sequence, StorageError> {
        let table = self.disk.tables.lock().get(store).cloned().unwrap_or_default();
        let table = table.lock();
        let (mut beyond, mut size) = (table.trimmed, table.size());
        if self.fault == Some(Fault::KeepsTooMuch) {
            return Ok(beyond);
        }
        for row in behind_trimmed(beyond, beyond.next(), table.rows.values().cloned()) {
            for (at, entry) in row.iter() {
                let bytes = 19 + entry.event.len() + entry.primary_key.len() + entry.payload.len();
                let is_much = keep.entries_max.is_some_and(|most| size.entries > most)
                    || keep.bytes_max.is_some_and(|most| size.bytes > most);
                beyond = if is_much { at } else { beyond };
                size.entries -= 1;
                size.bytes -= bytes as u64;
            }
        }
        let since = Duration::from_millis(keep.since_ms.unwrap_or_default());
        let old = table.times.iter().take_while(|(_, time)| *time < UNIX_EPOCH + since).last();
        Ok(beyond.max(old.map_or(Sequence::ZERO, |(at, _)| *at)))
    }

    fn used_keys(&self) -> &dyn UsedKeys {
        if self.fault == Some(Fault::LetsKeysMove) {
            &self.disk.moving_keys
        } else {
            &self.disk.used_keys
        }
    }

    fn ready(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Log {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn append_now(&self, segments: Vec<Segment>) -> Result<(), AppendError> {
        let mut table = self.table.lock();
        if table.opened != self.opened && !self.has(Fault::LetsEarlierLogsAppend) {
            return Err(AppendError::Definite("it was opened again".into()));
        }
        if !self.has(Fault::TakesAnySequence) {
            check_consecutive(table.head(), &segments).map_err(AppendError::Definite)?;
        }
        table.append(segments);
        Ok(())
    }

    fn erase_now(&self, entries: &[(Sequence, EntryId)]) -> Result<(), AppendError> {
        let mut table = self.table.lock();
        let is_other = |(at, id): &&(Sequence, EntryId)| table.ids.get(id) != Some(at);
        let is_wrong = entries.len() > ERASE_MAX || entries.iter().any(|one| is_other(&one));
        if is_wrong && !self.has(Fault::ErasesWhatIsElsewhere) {
            return Err(AppendError::Definite("it is not there".into()));
        }
        if self.has(Fault::ShowsWhatIsErased) {
            return Ok(());
        }
        let mut gone: BTreeSet<Sequence> = entries.iter().map(|(at, _)| *at).collect();
        if self.has(Fault::ErasesNeighbours) {
            gone.extend(entries.iter().map(|(at, _)| at.next()));
        }
        let rows = std::mem::take(&mut table.rows).into_values();
        for row in rows.flat_map(|row| parts(&row, &gone)) {
            table.rows.insert(row.first(), row);
        }
        table.erasures += u64::from(!self.has(Fault::ForgetsErasures));
        if self.has(Fault::ForgetsErasedIds) {
            table.ids.retain(|_, at| !gone.contains(at));
        }
        Ok(())
    }
}

impl StoreLog for Log {
    fn head(&self) -> Sequence {
        self.table.lock().head()
    }

    fn probe(&self, ids: &[EntryId]) -> Probed {
        Probed::all_open(ids.len())
    }

    fn lookup(&self, ids: &[EntryId]) -> Result<Vec<Option<Sequence>>, StorageError> {
        let table = self.table.lock();
        let known = |id| table.ids.get(id).copied().filter(|_| !self.has(Fault::KnowsNoIds));
        Ok(ids.iter().map(known).collect())
    }

    fn append(&self, segments: Vec<Segment>) -> BoxFuture<'static, Result<(), AppendError>> {
        Box::pin(ready(self.append_now(segments)))
    }

    fn trimmed(&self) -> Sequence {
        self.table.lock().trimmed
    }

    fn trim(&self, last: Sequence) -> BoxFuture<'static, Result<(), AppendError>> {
        let mut table = self.table.lock();
        if last > table.head() {
            return Box::pin(ready(Err(AppendError::Definite("it is not there".into()))));
        }
        let before = table.trimmed;
        table.trimmed = if self.has(Fault::TakesTrimsBack) { last } else { last.max(before) };
        if self.has(Fault::ForgetsTrimmedIds) {
            table.ids.retain(|_, at| *at > last);
        }
        Box::pin(ready(Ok(())))
    }

    fn erase(
        &self,
        entries: &[(Sequence, EntryId)],
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        Box::pin(ready(self.erase_now(entries)))
    }

    fn erasures(&self) -> u64 {
        self.table.lock().erasures
    }

    fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, StorageError> {
        let table = self.table.lock();
        let shows_all = self.has(Fault::ShowsWhatIsTrimmed) || from > table.head();
        let trimmed = if shows_all { Sequence::ZERO } else { table.trimmed };
        let (asked, from) = (from, from.max(trimmed.next()));
        let next_row = self.has(Fault::ReadsFromTheNextSegment);
        let behind =
            |row: &&Segment| if next_row { row.first() >= from } else { row.last() >= from };
        let bytes_max = if self.has(Fault::ReadsWithoutBound) { usize::MAX } else { bytes_max };
        let mut bytes = 0;
        let mut read = Vec::new();
        for row in table.rows.values().filter(behind) {
            if bytes > 0 && bytes >= bytes_max {
                break;
            }
            if row.is_gap() && self.has(Fault::PassesGaps) {
                continue;
            }
            bytes += row.records().len();
            read.push(row.clone());
        }
        Ok(behind_trimmed(trimmed, asked, read))
    }

    fn above(
        &self,
        id: EntryId,
        before: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<Sequence>>, StorageError> {
        let table = self.table.lock();
        let wanted =
            |at: Sequence| self.has(Fault::TellsOfAllAbove) || table.trimmed < at && at < before;
        let ids = table.ids.iter().filter(|(other, at)| **other > id && wanted(**at));
        let mut above: Vec<Sequence> = ids.map(|(_, at)| *at).collect();
        above.sort_unstable();
        Ok((above.len() <= count_max).then_some(above))
    }

    fn bytes(&self) -> u64 {
        self.table.lock().size().bytes
    }
}

/// Each entry of `row` by itself, or as a gap.
fn parts(row: &Segment, gone: &BTreeSet<Sequence>) -> Vec<Segment> {
    if row.is_gap() {
        return vec![row.clone()];
    }
    let each = row.iter().zip(row.origin_of_each());
    let part = |((at, entry), origin): ((Sequence, EntryRef<'_>), &Origin)| {
        if gone.contains(&at) {
            return Segment::erased(at, 1).expect("a gap");
        }
        let mut builder = SegmentBuilder::new(at);
        builder.push(Batch::from_entries([entry]).record(0).expect("a slot"), origin);
        builder.finish().remove(0)
    };
    each.map(part).collect()
}

eventlog_server::contract_tests!(storage: rows(None));

#[test]
fn each_fault_is_found() {
    let faults = [
        (Fault::TakesAnySequence, "what_does_not_follow_is_refused"),
        (Fault::KnowsNoIds, "ids_are_known_from_the_call_on"),
        (Fault::ReadsFromTheNextSegment, "a_read_may_begin_anywhere_and_is_bounded"),
        (Fault::ReadsWithoutBound, "a_read_may_begin_anywhere_and_is_bounded"),
        (Fault::PassesGaps, "a_gap_is_kept_and_read_like_entries"),
        (Fault::ShowsWhatIsTrimmed, "what_is_trimmed_is_a_gap_whose_ids_stay_known"),
        (Fault::ForgetsTrimmedIds, "what_is_trimmed_is_a_gap_whose_ids_stay_known"),
        (Fault::KeepsTooMuch, "what_is_beyond_is_told"),
        (Fault::TakesTrimsBack, "more_can_be_trimmed_and_never_less"),
        (Fault::ShowsWhatIsErased, "what_is_erased_is_a_gap_whose_ids_stay_known"),
        (Fault::ErasesNeighbours, "what_is_erased_is_a_gap_whose_ids_stay_known"),
        (Fault::ForgetsErasedIds, "what_is_erased_is_a_gap_whose_ids_stay_known"),
        (Fault::ForgetsErasures, "what_is_erased_is_a_gap_whose_ids_stay_known"),
        (Fault::ErasesWhatIsElsewhere, "what_is_not_there_is_not_erased"),
        (Fault::TellsOfAllAbove, "what_stands_above_an_id_is_told_whole_or_not_at_all"),
        (Fault::LetsEarlierLogsAppend, "an_earlier_log_refuses_appends_and_still_reads"),
        (Fault::ListsEmptyStores, "stores_are_listed_once_they_have_entries"),
        (Fault::ForgetsAtReopening, "what_was_appended_is_read"),
        (Fault::ForgetsAtReopening, "a_key_stays_with_the_store_it_was_used_with_first"),
        (Fault::LetsKeysMove, "a_key_stays_with_the_store_it_was_used_with_first"),
        (Fault::LetsKeysMove, "used_keys_are_counted"),
    ];
    found(CLAUSES, &faults, rows);
}

/// Every group of writes waits for a lookup, and the next ones wait behind it.
#[tokio::test]
async fn a_server_needs_no_id_to_be_known_without_a_read() {
    let storage = Arc::new(Rows { disk: disk(), fault: None });
    let builder = Server::builder(storage, Arc::new(MemoryRegistry::new()), Arc::new(AllowAll));
    let server = TestServer::start(builder, &[("alice", "team"), ("bob", "team")]).await;
    let (mut alice, mut bob) =
        (Socket::connect(&server.url()).await, Socket::connect(&server.url()).await);
    let entries: Vec<_> = (0..200).map(|n| entry("E", &n.to_string(), b"")).collect();
    // Both write the same entries without waiting for an answer: each id is placed once, and both are told the same
    // place.
    for (id, one) in (0..).zip(&entries) {
        alice.write(&key("alice"), id, &batch(std::slice::from_ref(one))).await;
        bob.write(&key("bob"), id, &batch(std::slice::from_ref(one))).await;
    }
    for id in 0..200 {
        let answered = alice.next_ack().await;
        assert_eq!(answered.0, id);
        assert_eq!(answered, bob.next_ack().await);
    }
    alice.write(&key("alice"), 200, &batch(&entries)).await;
    let (_, mut sequences) = alice.next_ack().await;
    sequences.sort_unstable();
    assert!(sequences.into_iter().eq(1..=200));
    let mut reader = Socket::connect(&server.url()).await;
    reader.subscribe(&key("alice"), 0).await;
    assert_eq!(reader.next_entries(200).await.len(), 200);
    reader.nothing_comes().await;
}
