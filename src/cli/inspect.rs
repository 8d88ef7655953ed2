//! `inspect`: what a data directory holds, read without a server.

use std::io::{self, BufWriter, Write};
use std::num::NonZero;

use eventlog_server::model::{Sequence, StoreId};
use eventlog_server::storage::sled::{Database, OpenError, SledStorage};
use eventlog_server::storage::{Storage, StorageError, StoreSize};
use serde_json::json;

use super::connect::is_reader_gone;
use super::data_dir::{DataDir, NoDataDirectory};
use super::entry::{Format, Printer, parse_count, parse_sequence};
use super::text::{self, json_text, one_line, people_bytes};

/// How many stores are read at a time.
const PAGE: usize = 1_000;

/// How much of a log is read at a time.
const READ_BYTES: usize = 1 << 20;

/// Show the stores in a data directory, without a server.
///
/// A line has a store, the number of its entries, its last sequence if that differs (after a restore, for
/// example, a store has a gap), the bytes on disk, and a hash over the entries. Two copies of a store with the
/// same last sequence and the same hash were written the same entries; erasing and trimming leave the hash as it
/// is. Erased entries count as entries. With --store it prints the entries of that store, and says how many of
/// those that it looked at are erased. It changes no entry. Stop the server first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  eventlog-server inspect --data-dir /var/lib/eventlog
  eventlog-server inspect --json
  eventlog-server inspect --store team --from 1000 --count 10")]
pub(super) struct Args {
    #[command(flatten)]
    data: DataDir,
    /// Print the entries of this store
    #[arg(long)]
    store: Option<StoreId>,
    /// The first sequence to print
    #[arg(long, requires = "store", default_value = "1", value_parser = parse_sequence)]
    from: Sequence,
    /// Print at most this many entries [default: all]
    #[arg(long, requires = "store", value_parser = parse_count)]
    count: Option<NonZero<u64>>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// `inspect` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum InspectError {
    /// There is nothing to inspect.
    #[error(transparent)]
    NoDataDirectory(#[from] NoDataDirectory),
    /// It cannot be opened.
    #[error("{0}{hint}", hint = what_to_do(.0))]
    Open(#[from] OpenError),
    /// It cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no such store.
    #[error("there is no store {store:?}; without --store all are listed")]
    NoSuchStore {
        /// The requested store.
        store: StoreId,
    },
    /// The result cannot be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

fn what_to_do(error: &OpenError) -> &'static str {
    match error {
        OpenError::InUse { .. } => {
            ", or ask the server: `eventlog-server stores` and `entries` show the same"
        }
        _ => "",
    }
}

pub(super) fn run(args: &Args) -> Result<(), InspectError> {
    args.data.must_exist()?;
    let database = Database::open(&args.data.path, args.data.options())?;
    let storage = SledStorage::new(database.clone());
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = show(&storage, args, &mut out).and_then(|()| Ok(out.flush()?));
    database.close()?;
    match printed {
        Err(InspectError::Print(error)) if is_reader_gone(&error) => Ok(()),
        printed => printed,
    }
}

fn show(storage: &dyn Storage, args: &Args, out: &mut impl Write) -> Result<(), InspectError> {
    let format = Format::new(args.json);
    match &args.store {
        None => list_stores(storage, format, out),
        Some(store) => {
            let count_max = args.count.map_or(u64::MAX, NonZero::get);
            let shown = print_entries(storage, store, args.from, count_max, format, out)?;
            if shown.erased > 0 {
                let Shown { entries, erased } = shown;
                out.flush()?;
                let (entries, erased) =
                    (text::entries(entries), text::counted(erased, "entry was", "entries were"));
                eprintln!("printed {entries}; {erased} skipped (erased)");
            }
            Ok(())
        }
    }
}

fn list_stores(
    storage: &dyn Storage,
    format: Format,
    out: &mut impl Write,
) -> Result<(), InspectError> {
    let mut page = storage.stores(None, PAGE)?;
    if page.is_empty() {
        eprintln!("there are no stores yet: nothing was written, and no key has a store");
    }
    while let Some((last, _)) = page.last() {
        let next = storage.stores(Some(last), PAGE)?;
        for (store, size) in page {
            print_store(&store, size, storage.hash(&store)?, format, out)?;
        }
        page = next;
    }
    Ok(())
}

fn print_store(
    store: &StoreId,
    StoreSize { head, trimmed, entries, bytes }: StoreSize,
    hash: Option<(Sequence, String)>,
    format: Format,
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::People => {
            let name = one_line(store.as_str());
            write!(out, "{name}  {}  ", text::entries(entries))?;
            if head.get() != entries {
                write!(out, "up to {head}  ")?;
            }
            if trimmed > Sequence::ZERO {
                write!(out, "trimmed up to {trimmed}  ")?;
            }
            write!(out, "{}", people_bytes(bytes))?;
            hash.map_or(Ok(()), |(_, hash)| write!(out, "  {hash}"))?;
            writeln!(out)
        }
        Format::Json => {
            let (head, store) = (head.get(), store.as_str());
            let mut line =
                json!({ "storeId": store, "head": head, "entries": entries, "bytes": bytes });
            if trimmed > Sequence::ZERO {
                line["trimmed"] = trimmed.get().into();
            }
            if let Some((_, hash)) = hash {
                line["hash"] = hash.into();
            }
            writeln!(out, "{}", json_text(&line))
        }
    }
}

/// What was printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shown {
    entries: u64,
    /// What was passed over between them.
    erased: u64,
}

fn print_entries(
    storage: &dyn Storage,
    store: &StoreId,
    from: Sequence,
    count_max: u64,
    format: Format,
    out: &mut impl Write,
) -> Result<Shown, InspectError> {
    let log = storage.open(store)?;
    let size = storage.size(store)?;
    if size.entries == 0 && size.trimmed == Sequence::ZERO {
        return Err(InspectError::NoSuchStore { store: store.clone() });
    }
    let printer = Printer::new(format, []);
    let mut next = from.max(Sequence::FIRST);
    let mut shown = Shown::default();
    while next <= log.head() && shown.entries < count_max {
        let segments = log.read(next, READ_BYTES)?;
        for segment in &segments {
            if shown.entries == count_max {
                break;
            }
            if segment.is_erased() {
                shown.erased += segment.last().next().since(segment.first().max(next));
            }
            for (sequence, entry) in segment.iter().filter(|(sequence, _)| *sequence >= next) {
                if shown.entries < count_max {
                    printer.print(out, sequence, &entry)?;
                    shown.entries += 1;
                }
            }
        }
        let Some(last) = segments.last() else { break };
        next = last.last().next();
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use eventlog_server::model::{Batch, EntryId, EntryRef, Origin, Segment, SegmentBuilder};
    use eventlog_server::storage::memory::MemoryStorage;

    use super::*;

    /// Two stores, one of them with so many entries.
    async fn storage(entries: usize) -> MemoryStorage {
        let storage = MemoryStorage::new();
        for (store, entries) in [("other", 1), ("team", entries)] {
            let log = storage.open(&StoreId::new(store).expect("a store")).expect("it opens");
            let batch = Batch::from_entries((0..entries).map(|_| EntryRef {
                id: EntryId::now(),
                event: "Note",
                primary_key: "n",
                payload: &[0xc0; 100],
            }));
            let mut segments = SegmentBuilder::new(Sequence::FIRST);
            for slot in 0..batch.len() {
                let record = batch.record(slot).expect("a slot");
                segments.push(record, &Origin::Server { run_handlers: false });
            }
            log.append(segments.finish()).await.expect("appended");
        }
        storage
    }

    fn printed(storage: &dyn Storage, arguments: &[&str]) -> Result<String, InspectError> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let line = <Line as clap::Parser>::parse_from([&["inspect"], arguments].concat());
        let mut out = Vec::new();
        show(storage, &line.args, &mut out)?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[tokio::test]
    async fn stores_are_listed_with_what_they_hold() {
        let storage = storage(1_000).await;
        let people = printed(&storage, &[]).expect("it prints");
        assert!(people.contains("other  1 entry  ") && people.contains("team  1000 entries"));
        let json = printed(&storage, &["--json"]).expect("it prints");
        let team: serde_json::Value =
            serde_json::from_str(json.lines().nth(1).expect("two lines")).expect("JSON");
        assert_eq!(team["storeId"], "team");
        assert_eq!((&team["head"], &team["entries"]), (&json!(1_000), &json!(1_000)));
        assert!(team["bytes"].as_u64() > Some(100_000));
    }

    #[tokio::test]
    async fn entries_are_printed_from_where_to_where_they_were_asked_for() {
        let storage = storage(1_000).await;
        let sequences = |arguments: &[&str]| -> Vec<u64> {
            let lines = printed(&storage, &[&["--store", "team"], arguments].concat());
            let lines = lines.expect("it prints");
            lines
                .lines()
                .map(|line| {
                    line.split_whitespace().next().expect("columns").parse().expect("a number")
                })
                .collect()
        };
        assert!(sequences(&[]).into_iter().eq(1..=1_000));
        assert!(sequences(&["--from", "0", "--count", "2"]).into_iter().eq(1..=2));
        assert!(sequences(&["--from", "500", "--count", "400"]).into_iter().eq(500..900));
        assert!(sequences(&["--from", "999", "--count", "400"]).into_iter().eq(999..=1_000));
        assert!(sequences(&["--from", "1001"]).is_empty());
    }

    /// Sequences were counted, those in gaps and of erased entries too.
    #[tokio::test]
    async fn so_many_entries_are_printed_as_there_are_behind_gaps_and_erased_ones() {
        let storage = storage(3).await;
        let log = storage.open(&StoreId::new("team").expect("a store")).expect("it opens");
        let at = |number| Sequence::new(number).expect("a sequence");
        log.append(Segment::gaps(at(4), at(1_000))).await.expect("appended");
        let mut segments = SegmentBuilder::new(at(1_001));
        let entry = |event| EntryRef { id: EntryId::now(), event, primary_key: "n", payload: &[] };
        let batch = Batch::from_entries(["A", "B", "C"].map(entry));
        for slot in 0..3 {
            let record = batch.record(slot).expect("a slot");
            segments.push(record, &Origin::Server { run_handlers: false });
        }
        log.append(segments.finish()).await.expect("appended");
        let id = batch.ids().next().expect("an id");
        log.erase(&[(at(1_001), id)]).await.expect("erased");
        let told = printed(&storage, &["--store", "team", "--from", "3", "--count", "2"]);
        let told = told.expect("it prints");
        let first = |line: &str| line.split_whitespace().next().map(ToOwned::to_owned);
        let sequences: Vec<_> = told.lines().filter_map(first).collect();
        assert_eq!(sequences, ["3", "1002"], "{told}");
        let all = printed(&storage, &[]).expect("it prints");
        assert!(all.contains("team  6 entries  up to 1003"), "{all}");
        let mut out = Vec::new();
        let team = StoreId::new("team").expect("a store");
        let shown = print_entries(&storage, &team, at(1), 4, Format::People, &mut out);
        assert_eq!(shown.expect("it prints"), Shown { entries: 4, erased: 1 });
    }

    #[tokio::test]
    async fn a_store_that_is_not_there_is_an_error() {
        let nobody = printed(&storage(1).await, &["--store", "nobody"]);
        assert!(matches!(nobody, Err(InspectError::NoSuchStore { .. })));
    }
}
