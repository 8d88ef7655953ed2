//! Makes sled write out what it holds, under supervision: its flush can sleep forever.
//!
//! Sled writes its buffers on threads of its own and wakes those who wait for them. On one of its two paths it keeps an
//! error but wakes nobody. Any later write sees that error first, wakes everybody and fails: so if there is such an
//! error while a flush is in progress, this code makes a write.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Flushes `db`; `any` is one of its trees, for a write that wakes sled.
pub(super) fn flush(db: &sled::Db, any: &sled::Tree) -> io::Result<()> {
    let (flushing, over) = channel::<()>();
    std::thread::scope(|scope| {
        std::thread::Builder::new().name("flush-watch".to_owned()).spawn_scoped(scope, || {
            // Owned here, so that it belongs to one thread only.
            let over = over;
            while over.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                if db.context.global_error().is_err()
                    && let Err(error) = any.insert("wake", &[])
                {
                    log::debug!("woke a flush that had failed: {error}");
                }
            }
        })?;
        let flushed = db.flush();
        drop(flushing);
        Ok(flushed.map(drop)?)
    })
}
