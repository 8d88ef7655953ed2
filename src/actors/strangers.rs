//! The connections that are not accepted yet. A connection is accepted once one of its keys was authorized and resolved.
//!
//! Keeps: their number is bounded, whatever each of them costs; one that is pushed out is told why, if possible.
//! Leaves out: the choice of which one that is (`core::strangers`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::complaints::{Complaint, Complaints};
pub(crate) use crate::core::strangers::Full;
use crate::core::strangers::{Number, Place, Strangers as Core};

/// Ends a connection that must go.
type PushOut = Box<dyn Fn() + Send + Sync>;

/// All strangers of a server.
pub(crate) struct Strangers {
    started: Instant,
    complaints: Arc<Complaints>,
    all: Mutex<All>,
}

struct All {
    core: Core,
    ends: HashMap<Number, PushOut>,
    pushed_out: u64,
    refused: u64,
}

impl Strangers {
    pub(crate) fn new(count_max: usize, complaints: Arc<Complaints>) -> Arc<Self> {
        let core = Core::new(count_max);
        let all = All { core, ends: HashMap::new(), pushed_out: 0, refused: 0 };
        Arc::new(Self { started: now(), complaints, all: Mutex::new(all) })
    }

    /// Another number counts from now on.
    pub(crate) fn set(&self, count_max: usize) {
        self.all.lock().core.set(count_max);
    }

    /// Registers a stranger with its address, if known. `push_out` ends it if it must make way for another one.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        push_out: impl Fn() + Send + Sync + 'static,
    ) -> Result<Stranger, Full> {
        let now = self.started.elapsed().as_millis() as u64;
        let mut all = self.all.lock();
        let Ok((number, gone)) = all.core.enter(now, Place::of(address)) else {
            all.refused += 1;
            drop(all);
            self.complain(address);
            return Err(Full);
        };
        all.ends.insert(number, Box::new(push_out));
        let gone = gone.and_then(|gone| all.ends.remove(&gone));
        all.pushed_out += u64::from(gone.is_some());
        drop(all);
        if let Some(end) = gone {
            self.complain(address);
            end();
        }
        Ok(Stranger { all: Arc::clone(self), number, accepted: AtomicBool::new(false) })
    }

    /// Logs that there are too many strangers, and what can be done.
    fn complain(&self, address: Option<IpAddr>) {
        let from = address.map_or_else(String::new, |address| format!(", now one from {address}"));
        let line = format!(
            "{} connections have no accepted request yet ([limits] strangers_max), so further ones are refused or \
             take the place of older ones{from}; if these are your clients, raise strangers_max, else see docs/STRANGERS.md",
            self.all.lock().core.count_max()
        );
        self.complaints.log(&Complaint::hourly("strangers_max".to_owned(), line));
    }

    /// The number of strangers, of those that were pushed out, and of those that were refused.
    pub(crate) fn counts(&self) -> (usize, u64, u64) {
        let all = self.all.lock();
        (all.core.count(), all.pushed_out, all.refused)
    }
}

#[expect(clippy::disallowed_methods, reason = "who has just come is not pushed out")]
fn now() -> Instant {
    Instant::now()
}

/// A connection that is not accepted yet. It stays one until it is accepted or this is dropped.
pub(crate) struct Stranger {
    all: Arc<Strangers>,
    number: Number,
    accepted: AtomicBool,
}

impl Stranger {
    /// It has become a session, which ends in its own way. A proxy may have reported its real place, and `bytes` of its handshake are kept. If
    /// these are many, others are pushed out for it, or it is pushed out itself.
    pub(crate) fn is_session(
        &self,
        address: Option<IpAddr>,
        bytes: usize,
        push_out: impl Fn() + Send + Sync + 'static,
    ) {
        let now = self.all.started.elapsed().as_millis() as u64;
        let mut all = self.all.all.lock();
        all.ends.entry(self.number).and_modify(|end| *end = Box::new(push_out));
        let gone = all.core.shook_hands(self.number, now, Place::of(address), bytes);
        let ends: Vec<_> = gone.iter().filter_map(|gone| all.ends.remove(gone)).collect();
        all.pushed_out += ends.len() as u64;
        drop(all);
        if !ends.is_empty() {
            self.all.complain(address);
        }
        ends.into_iter().for_each(|end| end());
    }

    /// Records that it is no longer a stranger.
    pub(crate) fn accept(&self) {
        self.accepted.store(true, Ordering::Relaxed);
        let mut all = self.all.all.lock();
        all.core.leave(self.number);
        all.ends.remove(&self.number);
    }

    /// Whether it was accepted. Takes no lock.
    pub(crate) fn was_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Whether it was accepted or must go.
    pub(crate) fn is_accepted(&self) -> bool {
        !self.all.all.lock().ends.contains_key(&self.number)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.accept();
    }
}
