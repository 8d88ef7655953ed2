//! The connections of one sort, which are bounded in number, whatever each of them costs: strangers, and those over
//! HTTP that have shown an admin token.
//!
//! Keeps: at the bound, one makes way for a new one, and the log says so. Leaves out: the choice of which one that is
//! (`core::strangers`), and how it is told (`strangers`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::complaints::{Complaint, Complaints};
pub(crate) use crate::core::strangers::Full;
use crate::core::strangers::{Number, Place, Strangers as Core};
use crate::model::Limits;

/// Ends a connection that must go.
type PushOut = Box<dyn Fn() + Send + Sync>;

/// What the connections have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// They are not accepted yet.
    Strangers,
    /// They are no sessions, and have shown an admin token.
    TokenHolders,
}

impl Sort {
    /// The setting that bounds their number.
    const fn setting(self) -> &'static str {
        match self {
            Self::Strangers => "strangers_max",
            Self::TokenHolders => "admin_connections_max",
        }
    }

    /// What the log says if there are `count_max` of them, and one more comes `from` somewhere.
    fn line(self, count_max: usize, from: &str) -> String {
        match self {
            Self::Strangers => format!(
                "{count_max} connections have no accepted request yet ([limits] strangers_max), so further ones are refused \
                 or take the place of older ones{from}; if these are your clients, raise strangers_max, else see \
                 docs/STRANGERS.md"
            ),
            Self::TokenHolders => format!(
                "{count_max} connections use the admin API ([limits] admin_connections_max), so further ones take the \
                 place of those that have been idle for longest, or are refused{from}; if your programs need so many, \
                 raise admin_connections_max"
            ),
        }
    }
}

/// All connections of a sort.
pub(crate) struct Crowd {
    sort: Sort,
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

impl Crowd {
    /// The crowds of a server: its strangers, and its token holders.
    pub(crate) fn all(limits: &Limits, complaints: &Arc<Complaints>) -> [Arc<Self>; 2] {
        let new = |sort, count_max| Self::new(sort, count_max, complaints);
        [
            new(Sort::Strangers, limits.strangers_max),
            new(Sort::TokenHolders, limits.admin_connections_max),
        ]
    }

    fn new(sort: Sort, count_max: usize, complaints: &Arc<Complaints>) -> Arc<Self> {
        let core = Core::new(count_max);
        let all = All { core, ends: HashMap::new(), pushed_out: 0, refused: 0 };
        let complaints = Arc::clone(complaints);
        Arc::new(Self { sort, started: now(), complaints, all: Mutex::new(all) })
    }

    /// Another number counts from now on.
    pub(crate) fn set(&self, count_max: usize) {
        self.all.lock().core.set(count_max);
    }

    /// Adds a connection from this address, if known. `push_out` ends it if it must make way for another one.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        push_out: impl Fn() + Send + Sync + 'static,
    ) -> Result<Member, Full> {
        let now = self.now();
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
        Ok(Member { crowd: Arc::clone(self), number: AtomicU64::new(number) })
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Logs that there are too many, and what can be done.
    fn complain(&self, address: Option<IpAddr>) {
        let from = address.map_or_else(String::new, |address| format!(", now one from {address}"));
        let line = self.sort.line(self.all.lock().core.count_max(), &from);
        self.complaints.log(&Complaint::hourly(self.sort.setting().to_owned(), line));
    }

    /// The number of them, of those that were pushed out, and of those that were refused.
    pub(crate) fn counts(&self) -> (usize, u64, u64) {
        let all = self.all.lock();
        (all.core.count(), all.pushed_out, all.refused)
    }
}

#[expect(clippy::disallowed_methods, reason = "who has just come is not pushed out")]
fn now() -> Instant {
    Instant::now()
}

/// A connection among others, until it leaves or this is dropped.
pub(crate) struct Member {
    crowd: Arc<Crowd>,
    /// It changes with each activity.
    number: AtomicU64,
}

impl Member {
    /// A proxy may have reported its real place, and `bytes` of its handshake are kept. It ends in another way from now
    /// on. If the bytes are many, others are pushed out for it, or it is pushed out itself.
    pub(super) fn shook_hands(
        &self,
        address: Option<IpAddr>,
        bytes: usize,
        push_out: impl Fn() + Send + Sync + 'static,
    ) {
        let now = self.crowd.now();
        let number = self.number.load(Ordering::Relaxed);
        let mut all = self.crowd.all.lock();
        all.ends.entry(number).and_modify(|end| *end = Box::new(push_out));
        let gone = all.core.shook_hands(number, now, Place::of(address), bytes);
        let ends: Vec<_> = gone.iter().filter_map(|gone| all.ends.remove(gone)).collect();
        all.pushed_out += ends.len() as u64;
        drop(all);
        if !ends.is_empty() {
            self.crowd.complain(address);
        }
        ends.into_iter().for_each(|end| end());
    }

    /// It did something, so others make way before it does.
    pub(super) fn is_active(&self) {
        let now = self.crowd.now();
        let mut all = self.crowd.all.lock();
        let before = self.number.load(Ordering::Relaxed);
        if let Some(number) = all.core.touch(before, now) {
            if let Some(end) = all.ends.remove(&before) {
                all.ends.insert(number, end);
            }
            self.number.store(number, Ordering::Relaxed);
        }
    }

    /// Whether it neither left nor must go.
    pub(super) fn is_there(&self) -> bool {
        let all = self.crowd.all.lock();
        all.ends.contains_key(&self.number.load(Ordering::Relaxed))
    }

    pub(super) fn leave(&self) {
        let mut all = self.crowd.all.lock();
        let number = self.number.load(Ordering::Relaxed);
        all.core.leave(number);
        all.ends.remove(&number);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}
