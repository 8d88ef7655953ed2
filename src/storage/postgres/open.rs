//! Which logs are open at this node.
//!
//! Keeps: what is heard about a store reaches its log; a log that nobody holds any more is dropped; a head below one
//! that this node has shown is detected.

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
}

#[derive(Default)]
struct Logs {
    by_store: HashMap<StoreId, Weak<LogState>>,
    kept: usize,
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

    /// The open stores.
    pub(super) fn names(&self) -> Vec<StoreId> {
        let logs = self.logs.lock();
        let open = logs.by_store.iter().filter(|(_, log)| log.strong_count() > 0);
        open.map(|(store, _)| store.clone()).collect()
    }

    /// Returns what this node has seen of a store before, if that is more than `head`; otherwise records `head`.
    pub(super) fn check_head(&self, store: &StoreId, head: Sequence) -> Result<(), Sequence> {
        let mut shown = self.shown.lock();
        let before = shown.heads.get(store).copied();
        if let Some(before) = before.filter(|before| *before > head) {
            shown.refused.insert(store.clone());
            return Err(before);
        }
        shown.refused.remove(store);
        match shown.heads.get_mut(store) {
            Some(before) if *before == head => return Ok(()),
            Some(before) => *before = head,
            None => {
                if shown.heads.len() >= SHOWN_MAX {
                    // Any of them is fine: it is not known which one matters.
                    let any = shown.heads.keys().next().cloned();
                    if let Some(any) = any {
                        shown.heads.remove(&any);
                        shown.refused.remove(&any);
                    }
                }
                shown.heads.insert(store.clone(), head);
            }
        }
        shown.moved.insert(store.clone());
        Ok(())
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
