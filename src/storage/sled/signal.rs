//! How the checkpoint thread is told what to do.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// What the checkpoint thread should do.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
pub(super) struct Wanted {
    /// Make a checkpoint now.
    pub(super) checkpoint: bool,
    /// Make one too, however little is in memory: ids wait to be indexed, or somebody waits for what the archive will
    /// have.
    pub(super) at_once: bool,
    /// Compact sled.
    pub(super) compact: bool,
    /// Make a last checkpoint, and end.
    pub(super) end: bool,
}

/// Tells the checkpoint thread.
#[derive(Debug, Default)]
pub(super) struct Signal {
    wanted: Mutex<Wanted>,
    wake: Condvar,
}

impl Signal {
    pub(super) fn ask_for_checkpoint(&self) {
        self.ask(|wanted| std::mem::replace(&mut wanted.checkpoint, true));
    }

    pub(super) fn ask_at_once(&self) {
        self.ask(|wanted| std::mem::replace(&mut wanted.at_once, true));
    }

    pub(super) fn ask_to_compact(&self) {
        self.ask(|wanted| std::mem::replace(&mut wanted.compact, true));
    }

    pub(super) fn ask_to_end(&self) {
        self.ask(|wanted| std::mem::replace(&mut wanted.end, true));
    }

    fn ask(&self, set: impl FnOnce(&mut Wanted) -> bool) {
        if !set(&mut self.wanted.lock()) {
            self.wake.notify_all();
        }
    }

    /// The requests, once there are any; after `patience` there may be none. A request to end stays.
    pub(super) fn wait(&self, patience: Duration) -> Wanted {
        let mut wanted = self.wanted.lock();
        let Wanted { checkpoint, at_once, compact, end } = *wanted;
        if !(checkpoint || at_once || compact || end) {
            self.wake.wait_for(&mut wanted, patience);
        }
        let end = wanted.end;
        std::mem::replace(&mut wanted, Wanted { end, ..Wanted::default() })
    }

    /// Waits out `delay`; true at once if the thread is to end.
    pub(super) fn wait_for_end(&self, delay: Duration) -> bool {
        let mut wanted = self.wanted.lock();
        let _ = self.wake.wait_while_for(&mut wanted, |wanted| !wanted.end, delay);
        wanted.end
    }
}
