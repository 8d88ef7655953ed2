//! Which logs are open at this node.
//!
//! Keeps: what is heard about a store reaches its log; a log that nobody holds any more is dropped; a head below one
//! that this node has shown is detected, and such a store stays refused.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::state::{LogState, Trimmed};
use crate::model::{Sequence, StoreId};

/// Unused logs are searched for when there are this many more than after the last search.
const FORGET_ABOVE: usize = 1_024;
/// How many heads of stores that are not open are remembered.
const SHOWN_MAX: usize = 100_000;

/// See the module's description.
#[derive(Default)]
pub(super) struct OpenLogs {
    logs: Mutex<Logs>,
    shown: Mutex<Shown>,
}

/// The greatest head of each store that this node has seen.
#[derive(Default)]
struct Shown {
    heads: HashMap<StoreId, Sequence>,
    /// Those that are not recorded yet.
    moved: HashSet<StoreId>,
    /// Stores of which the database had less when it was last asked.
    refused: HashSet<StoreId>,
    /// Those of them that stay refused, whatever is written to them later.
    lost: HashMap<StoreId, Lost>,
}

/// The database has less of a store than this node has shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    head: Sequence,
    shown: Sequence,
}

impl Lost {
    /// What has happened to `store`, and what to do.
    pub(super) fn told(self, store: &StoreId) -> String {
        let Self { head, shown } = self;
        format!(
            "store {store}: its head is {head}, and this node has shown entries up to {shown}. The database has lost what it had \
             committed: a standby that was behind has become the primary, or an older copy was put back. The store stays closed, since \
             clients would miss what is written now. Stop all nodes, run `eventlog-server heal --database URL`, and start them again"
        )
    }
}

#[derive(Default)]
struct Logs {
    by_store: HashMap<StoreId, Weak<LogState>>,
    kept: usize,
}

impl Shown {
    fn move_to(&mut self, store: &StoreId, head: Sequence) {
        if self.heads.len() >= SHOWN_MAX && !self.heads.contains_key(store) {
            // Any of them is fine: it is not known which one matters.
            let any = self.heads.keys().next().cloned();
            if let Some(any) = any {
                self.heads.remove(&any);
                self.refused.remove(&any);
                self.lost.remove(&any);
            }
        }
        self.heads.insert(store.clone(), head);
        self.moved.insert(store.clone());
    }
}

impl OpenLogs {
    /// Replaces an earlier log of the same store by `log`; returns the earlier one.
    pub(super) fn replace(&self, log: &Arc<LogState>) -> Option<Arc<LogState>> {
        let mut logs = self.logs.lock();
        if logs.by_store.len() > 2 * logs.kept + FORGET_ABOVE {
            logs.by_store.retain(|_, log| log.strong_count() > 0);
            logs.kept = logs.by_store.len();
        }
        let earlier = logs.by_store.insert(log.store.clone(), Arc::downgrade(log));
        earlier.and_then(|earlier| earlier.upgrade())
    }

    /// The head of a store is at least this.
    pub(super) fn hear(&self, store: &StoreId, head: Sequence) {
        let log = self.logs.lock().by_store.get(store).and_then(Weak::upgrade);
        let Some(log) = log else { return };
        let known = log.head();
        if head > known {
            // Even if it was reported before: a store that could not look then looks now.
            log.heard.send_replace(head);
        }
    }

    /// A store was trimmed, or something of it was erased, here or at another node.
    pub(super) fn hear_trimmed(&self, store: &StoreId, trimmed: Trimmed) {
        let log = self.logs.lock().by_store.get(store).and_then(Weak::upgrade);
        if let Some(log) = log {
            log.trimmed_to(trimmed);
        }
    }

    /// How far the open log of a store knows that it is trimmed, and the number of the last erasure that it knows.
    pub(super) fn trimmed(&self, store: &StoreId) -> (Sequence, u64) {
        let log = self.logs.lock().by_store.get(store).and_then(Weak::upgrade);
        log.map(|log| (log.trimmed(), log.erasures())).unwrap_or_default()
    }

    /// The open stores with their heads, without those that stay refused.
    pub(super) fn heads(&self) -> Vec<(StoreId, Sequence)> {
        let logs = self.logs.lock();
        let open: Vec<_> = logs.by_store.values().filter_map(Weak::upgrade).collect();
        drop(logs);
        let shown = self.shown.lock();
        let kept = open.iter().filter(|log| !shown.lost.contains_key(&log.store));
        kept.map(|log| (log.store.clone(), log.head())).collect()
    }

    /// Fails if this node has seen more of a store before; otherwise records `head`.
    pub(super) fn check_head(&self, store: &StoreId, head: Sequence) -> Result<(), Lost> {
        let mut shown = self.shown.lock();
        if let Some(lost) = shown.lost.get(store) {
            return Err(*lost);
        }
        let before = shown.heads.get(store).copied();
        if let Some(before) = before.filter(|before| *before > head) {
            shown.refused.insert(store.clone());
            return Err(Lost { head, shown: before });
        }
        shown.refused.remove(store);
        if before != Some(head) {
            shown.move_to(store, head);
        }
        Ok(())
    }

    /// The database has `head` as the head of a store of which this node has shown entries up to `known`: it stays refused from now
    /// on. Returns what to say about it.
    pub(super) fn lose(&self, store: &StoreId, head: Sequence, known: Sequence) -> String {
        let mut shown = self.shown.lock();
        let most = shown.heads.get(store).map_or(known, |before| known.max(*before));
        shown.move_to(store, most);
        let lost = Lost { head, shown: most };
        shown.refused.insert(store.clone());
        shown.lost.insert(store.clone(), lost);
        drop(shown);
        let told = lost.told(store);
        let log = self.logs.lock().by_store.get(store).and_then(Weak::upgrade);
        if let Some(log) = log {
            log.lose(&told);
        }
        told
    }

    /// How many stores are refused, since the database has less of them than this node has shown.
    pub(super) fn refused(&self) -> u64 {
        self.shown.lock().refused.len() as u64
    }

    /// Remembers what this node had shown before it was started.
    pub(super) fn remember(&self, heads: HashMap<StoreId, Sequence>) {
        self.shown.lock().heads = heads;
    }

    /// The heads that have moved since the last call.
    pub(super) fn moved(&self) -> Vec<(StoreId, Sequence)> {
        let Shown { heads, moved, .. } = &mut *self.shown.lock();
        let moved = moved.drain();
        moved.filter_map(|store| heads.get(&store).map(|head| (store, *head))).collect()
    }

    /// All heads.
    pub(super) fn shown(&self) -> Vec<(StoreId, Sequence)> {
        let shown = self.shown.lock();
        shown.heads.iter().map(|(store, head)| (store.clone(), *head)).collect()
    }
}
