//! Has sled write out what it holds, watched: its flush can sleep for ever.
//!
//! Sled writes its buffers on threads of its own and wakes whoever waits for them. On one of its two paths it keeps an
//! error but wakes nobody. Any later write sees that error first thing, wakes everybody and fails: so while a flush
//! is under way and there is such an error, this makes a write.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Flushes `db`; `any` is one of its trees, for a write that wakes sled.
pub(super) fn flush(db: &sled::Db, any: &sled::Tree) -> io::Result<()> {
    let (flushing, over) = channel::<()>();
    std::thread::scope(|scope| {
        std::thread::Builder::new().name("flush-watch".to_owned()).spawn_scoped(scope, || {
            // Owned here, so that it is one thread's alone.
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
