//! Watches over sled's flush, which can sleep for ever.
//!
//! Sled writes its buffers on threads of its own and wakes whoever waits for them. On one of its two paths it keeps an
//! error but wakes nobody. Any later write sees that error first thing, wakes everybody and fails: so while a flush
//! is under way and there is such an error, this makes a write.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::keyspace::Keyspace;
use super::trees::Trees;

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is being flushed.
type Flushing = Mutex<Option<Arc<Trees>>>;

/// Flushes, watched by a thread that ends soon after this is dropped.
pub(super) struct FlushWatch {
    flushing: Arc<Flushing>,
}

impl FlushWatch {
    pub(super) fn start() -> io::Result<Self> {
        let flushing = Arc::new(Flushing::default());
        let watched = Arc::downgrade(&flushing);
        std::thread::Builder::new()
            .name("flush-watch".to_owned())
            .spawn(move || watch(&watched))?;
        Ok(Self { flushing })
    }

    /// Has sled write out what it holds.
    pub(super) fn flush(&self, trees: &Arc<Trees>) -> io::Result<()> {
        *self.flushing.lock() = Some(trees.clone());
        let flushed = trees.db.flush();
        *self.flushing.lock() = None;
        Ok(flushed.map(drop)?)
    }
}

fn watch(watched: &Weak<Flushing>) {
    while let Some(flushing) = watched.upgrade() {
        let trees = flushing.lock().clone();
        drop(flushing);
        if let Some(trees) = &trees
            && trees.db.context.global_error().is_err()
            && let Err(error) = trees.get(Keyspace::Meta).insert("wake", &[])
        {
            log::debug!("woke a flush that had failed: {error}");
        }
        drop(trees);
        std::thread::sleep(LOOK_EVERY);
    }
}
