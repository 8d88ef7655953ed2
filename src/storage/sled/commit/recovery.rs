//! What happens after a failed write to the commit log: it continues in another file, as soon as the disk accepts
//! writes.
//!
//! Keeps: nothing is written before the disk was seen to accept a write and has space; what is found of the failed
//! group is shown from then on. Sled is not touched. Tries for as long as necessary.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::storage::commit_log::{FoundFrame, LogWriter, Salvaged};
use crate::storage::sled::files::is_full;
use crate::storage::sled::redo::Redo;
use crate::storage::sled::shared::Shared;
use crate::storage::sled::steps::{self, Step};

const DELAY_MIN: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(5);

/// Makes `writer` accept frames again; false once the database has to be closed.
pub(super) fn recover(shared: &Arc<Shared>, writer: &mut LogWriter, cause: &io::Error) -> bool {
    let mut full = is_full(cause);
    let mut delay = DELAY_MIN;
    let mut found = None;
    while !shared.queue.wait_for_closing(delay) {
        match attempt(shared, writer, full, &mut found) {
            Ok(()) => {
                shared.queue.recovered();
                log::info!("the commit log takes writes again");
                return true;
            }
            Err(error) => {
                full = is_full(&error);
                log::warn!("the commit log does not take writes yet: {error}");
                shared.health.look(&shared.files, &shared.options);
            }
        }
        delay = (delay * 2).min(DELAY_MAX);
    }
    false
}

/// What is in `found` was salvaged earlier, and is not shown yet.
fn attempt(
    shared: &Arc<Shared>,
    writer: &mut LogWriter,
    full: bool,
    found: &mut Option<Salvaged>,
) -> io::Result<()> {
    if full {
        shared.files.drop_ballast()?;
    }
    steps::take(shared.faults(), Step::Probe, || shared.files.probe())?;
    if !shared.files.has_room()? {
        return Err(io::ErrorKind::StorageFull.into());
    }
    // Returned only once: it must not get lost.
    *found = writer.reopen_after_failure()?.or_else(|| found.take());
    if let Some(Salvaged { position, time_ms, body }) = found {
        let (position, time_ms) = (*position, *time_ms);
        Redo::new(shared).frame(FoundFrame { position, time_ms, body })?;
        shared.set_settled(position);
        *found = None;
    }
    if let Err(error) = shared.files.make_ballast() {
        log::warn!("reserving disk space: {error}");
    }
    Ok(())
}
