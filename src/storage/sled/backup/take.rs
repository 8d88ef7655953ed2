//! Brings everything written so far into the archive, and lists the files of the archive that contain it.

use std::time::{Duration, Instant};

use crate::model::{RemoteId, Sequence};
use crate::storage::archive::{Archive, Kind, Listing};
use crate::storage::commit_log::{Generation, Position};
use crate::storage::sled::commit::Job;
use crate::storage::sled::erasures::Erasures;
use crate::storage::sled::open;
use crate::storage::sled::shared::Shared;
use crate::storage::{Snapshot, SnapshotFile, StorageError};

/// How long it may take until the archive has everything. Sled must have it first.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often to check the archive.
const POLL: Duration = Duration::from_millis(20);
/// How often the request is repeated: an earlier request may have been completed just before.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// The start of the name of an erasure ledger in a backup. The number of its bytes follows. Persisted.
pub(super) const LEDGER: &str = "erased-";
/// The end of that name.
pub(super) const LEDGER_END: &str = ".ledger";

/// Facts about the directory of a snapshot.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage::sled) struct Origin {
    pub(in crate::storage::sled) remote_id: RemoteId,
    pub(in crate::storage::sled) generation: Generation,
    /// Whether the commit log began with an empty database.
    pub(in crate::storage::sled) complete: bool,
}

/// The files of the archive that hold everything up to a moment within this call. Blocks: for seconds if little was
/// written recently, and otherwise as long as it takes to archive the new changes.
pub(in crate::storage::sled) fn take(
    shared: &Shared,
    origin: &Origin,
) -> Result<Snapshot, StorageError> {
    let archive = archive_of(shared, origin)?;
    let wanted = shared.synced();
    let begun = Instant::now();
    let mut asked: Option<Instant> = None;
    loop {
        let listing = archive.files().map_err(StorageError::unavailable)?;
        let last = last_of(&listing);
        if last >= wanted {
            let taken = snapshot(origin, shared.new_store().head, &listing)?;
            return Ok(with_ledger(shared, taken));
        }
        if begun.elapsed() > PATIENCE {
            let why = format!("the archive ends at frame {last}, and is to have frame {wanted}");
            return Err(StorageError::unavailable(why));
        }
        if asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            asked = Some(Instant::now());
            shared.queue.ready()?;
            shared.queue.enqueue(Job::FinishFile);
            shared.signal.ask_at_once();
        }
        std::thread::sleep(POLL);
    }
}

/// The files that the archive has now, which may be less than everything. Blocks on disk for a moment.
pub(in crate::storage::sled) fn archived(
    shared: &Shared,
    origin: &Origin,
) -> Result<Snapshot, StorageError> {
    let listing = archive_of(shared, origin)?.files().map_err(StorageError::unavailable)?;
    Ok(with_ledger(shared, snapshot(origin, shared.new_store().head, &listing)?))
}

/// Adds the current erasure ledger, which may be newer than the rest of the snapshot.
fn with_ledger(shared: &Shared, mut snapshot: Snapshot) -> Snapshot {
    let file = shared.erasures.lock().as_ref().and_then(Erasures::file);
    if let Some((path, bytes)) = file {
        // The ledger only grows, so this many bytes of it never change.
        let name = format!("{LEDGER}{bytes:020}{LEDGER_END}");
        snapshot.files.push(SnapshotFile { name, path, bytes });
    }
    snapshot
}

pub(super) fn archive_of(shared: &Shared, origin: &Origin) -> Result<Archive, StorageError> {
    let off = || StorageError::unavailable("a backup is made of the archive, and [archive] is off");
    let archive = shared.options.archive.enabled;
    let found = open::archive_to_read(&shared.files, &shared.options, origin.generation);
    found.filter(|_| archive).ok_or_else(off)
}

pub(super) fn last_of(listing: &Listing) -> Position {
    listing.files.iter().map(|file| file.last).max().unwrap_or_default()
}

/// The backup that consists of these files.
pub(super) fn snapshot(
    origin: &Origin,
    floor: Sequence,
    listing: &Listing,
) -> Result<Snapshot, StorageError> {
    let last = last_of(listing);
    if !listing.is_whole(origin.complete, last.next()) {
        let why = "files of the archive are missing; a further base is written within an hour, see docs/FAULTS.md";
        return Err(StorageError::unavailable(why));
    }
    let base = listing.base();
    let from = base.map_or(Position(0), |base| base.last);
    let logs = listing.files.iter().filter(|file| file.kind == Kind::Log && file.last > from);
    let mut files = Vec::new();
    let mut time_ms = 0;
    for file in base.into_iter().chain(logs) {
        let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| StorageError::corrupt("a file without a name"))?;
        files.push(SnapshotFile { name, path: file.path.clone(), bytes: file.bytes });
        time_ms = file.time_ms;
    }
    let Origin { remote_id, generation, complete } = *origin;
    Ok(Snapshot {
        remote_id,
        generation: generation.0,
        floor,
        complete: complete && base.is_none(),
        position: last.0,
        time_ms,
        files,
    })
}
