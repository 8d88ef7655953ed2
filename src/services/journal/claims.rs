//! Which groups this node runs in which stores, where several nodes share a journal.
//!
//! In each store, a group runs at one node at a time. That node has claimed the group's place in the journal, under a
//! number that grows with each claim, the fence. A position is written under a fence, and refused once another node has
//! claimed the place. So a node that was wrongly considered dead can no longer move anything.
//!
//! Keeps: a node never believes to have more than it was granted, and its belief expires by its own clock before others
//! may take the place. Leaves out: the database that decides (`postgres`), and what is run (`processing`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::model::{Sequence, StoreId};

/// How many stores are remembered in which groups have moved and that nobody follows here.
const ELSEWHERE_MAX: usize = 10_000;

/// Connects a journal and the groups of this node for claims. Made by a journal that several nodes share.
#[derive(Default)]
pub struct Claims {
    state: Mutex<State>,
    /// Woken when there is something to ask of the database.
    due: Notify,
    /// Changes when something has happened that nobody follows here.
    elsewhere: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    places: HashMap<Arc<[u8]>, Followed>,
    given: Vec<(Arc<[u8]>, i64)>,
    /// Until then our claims are ours, unless somebody says otherwise.
    good_until: Option<Instant>,
    moved_elsewhere: HashSet<StoreId>,
    /// A node is gone, and left stores behind that may not be open anywhere.
    orphans: bool,
    /// From now on moves are reported; earlier ones are unknown.
    began: bool,
}

/// A place that is followed here.
struct Followed {
    store: StoreId,
    followers: usize,
    /// How many want to have it, and how many want it now.
    wants: usize,
    urgent: usize,
    /// Whether it is worth trying.
    may_be_free: bool,
    /// Whether the database was asked about it.
    is_known: bool,
    seen: watch::Sender<Seen>,
}

/// What is known about a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The fence under which this node holds it.
    pub(crate) fence: Option<i64>,
    /// Another node wants it now.
    pub(crate) asked: bool,
    /// The last sequence that its group has processed, at any node.
    pub(crate) position: Option<Sequence>,
    /// How often something before that was processed again.
    pub(crate) again: i64,
}

/// What to ask the database.
#[derive(Default)]
pub(crate) struct Due {
    pub(crate) given: Vec<(Arc<[u8]>, i64)>,
    /// Places that are wanted, their stores, and whether they are wanted at once.
    pub(crate) wanted: Vec<(Arc<[u8]>, StoreId, bool)>,
    /// Places about which nothing is known.
    pub(crate) unknown: Vec<Arc<[u8]>>,
}

/// Events that nobody follows here.
pub(crate) struct Elsewhere {
    /// Stores in which groups have moved.
    pub(crate) moved: Vec<StoreId>,
    /// A node that held some is gone.
    pub(crate) some_gone: bool,
    /// This node has started to receive reports.
    pub(crate) began: bool,
}

/// The row of a place.
pub(crate) struct Row<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) store: StoreId,
    pub(crate) is_ours: bool,
    pub(crate) is_free: bool,
    pub(crate) fence: i64,
    pub(crate) asked: bool,
    pub(crate) position: Sequence,
    pub(crate) again: i64,
}

impl Claims {
    /// Follows a place from now on, until the returned value is dropped.
    pub(crate) fn follow(self: &Arc<Self>, key: &[u8], store: &StoreId) -> Claim {
        let mut state = self.state.lock();
        let key: Arc<[u8]> = match state.places.get_key_value(key) {
            Some((key, _)) => key.clone(),
            None => key.into(),
        };
        let place = state.places.entry(key.clone()).or_insert_with(|| Followed {
            store: store.clone(),
            followers: 0,
            wants: 0,
            urgent: 0,
            may_be_free: true,
            is_known: false,
            seen: watch::channel(Seen::default()).0,
        });
        place.followers += 1;
        let seen = place.seen.subscribe();
        drop(state);
        self.due.notify_one();
        Claim { claims: self.clone(), key, seen, wants: Mutex::new((false, false)) }
    }

    /// Resolves when there is something to ask, now or later.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }

    /// What to ask; with `all`, including places that another node held when they were last asked about.
    pub(crate) fn take_due(&self, all: bool) -> Due {
        let mut state = self.state.lock();
        let mut due = Due { given: std::mem::take(&mut state.given), ..Due::default() };
        for (key, place) in &mut state.places {
            let fence = place.seen.borrow().fence;
            if !std::mem::replace(&mut place.is_known, true) {
                due.unknown.push(key.clone());
            }
            let is_urgent = place.urgent > 0;
            let is_wanted = is_urgent || place.wants > 0;
            if is_wanted && fence.is_none() && (all || is_urgent || place.may_be_free) {
                place.may_be_free = false;
                due.wanted.push((key.clone(), place.store.clone(), is_urgent));
            }
        }
        due
    }

    /// What [`Claims::take_due`] returned was not asked: it is asked again.
    pub(crate) fn not_asked(&self, due: Due) {
        let mut state = self.state.lock();
        state.given.extend(due.given);
        for key in due.unknown {
            if let Some(place) = state.places.get_mut(&key) {
                place.is_known = false;
            }
        }
        for (key, ..) in due.wanted {
            if let Some(place) = state.places.get_mut(&key) {
                place.may_be_free = true;
            }
        }
    }

    /// This node holds a place now. If nobody wants it any more, it is given back.
    pub(crate) fn claimed(&self, key: &[u8], fence: i64) {
        let mut state = self.state.lock();
        match state.places.get_mut(key) {
            Some(place) if place.wants + place.urgent > 0 => {
                let has = |seen: &mut Seen| (seen.fence, seen.asked) = (Some(fence), false);
                place.seen.send_modify(has);
            }
            _ => state.given.push((key.into(), fence)),
        }
        if !state.given.is_empty() {
            self.due.notify_one();
        }
    }

    /// What this node holds is its own until then.
    pub(crate) fn good_until(&self, until: Instant) {
        self.state.lock().good_until = Some(until);
    }

    /// Others may have taken what this node held: it holds nothing any more.
    pub(crate) fn lapse(&self) {
        let mut state = self.state.lock();
        state.good_until = None;
        state.given.clear();
        for place in state.places.values_mut() {
            place.may_be_free = true;
            place.seen.send_if_modified(|seen| seen.fence.take().is_some());
        }
    }

    /// A node is gone: its places can be taken.
    pub(crate) fn somebody_gone(&self, left_stores: bool) {
        let mut state = self.state.lock();
        state.places.values_mut().for_each(|place| place.may_be_free = true);
        state.orphans |= left_stores;
        drop(state);
        if left_stores {
            self.elsewhere.send_replace(());
        }
    }

    /// A report from the database.
    pub(crate) fn hear(&self, row: Row<'_>) {
        let mut state = self.state.lock();
        let Some(place) = state.places.get_mut(row.key) else {
            if row.position > Sequence::ZERO && state.moved_elsewhere.len() < ELSEWHERE_MAX {
                state.moved_elsewhere.insert(row.store);
                drop(state);
                self.elsewhere.send_replace(());
            }
            return;
        };
        place.may_be_free |= row.is_free;
        place.seen.send_if_modified(|seen| {
            let before = seen.clone();
            match seen.fence {
                // The row is older than our claim.
                Some(fence) if row.fence < fence => {}
                Some(fence) if row.is_ours && row.fence == fence => seen.asked = row.asked,
                _ => (seen.fence, seen.asked) = (None, false),
            }
            (seen.position, seen.again) = (Some(row.position), row.again);
            *seen != before
        });
    }

    /// From now on moves are reported. Existing observers cannot know what moved before.
    pub(crate) fn begin(&self) {
        self.state.lock().began = true;
        self.elsewhere.send_replace(());
    }

    /// Resolves when [`Claims::take_elsewhere`] has something.
    pub(crate) fn elsewhere(&self) -> watch::Receiver<()> {
        self.elsewhere.subscribe()
    }

    /// Takes the events that nobody follows here.
    pub(crate) fn take_elsewhere(&self) -> Elsewhere {
        let mut state = self.state.lock();
        Elsewhere {
            moved: std::mem::take(&mut state.moved_elsewhere).into_iter().collect(),
            some_gone: std::mem::take(&mut state.orphans),
            began: std::mem::take(&mut state.began),
        }
    }
}

impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claims").finish_non_exhaustive()
    }
}

/// A place that is followed. When it is dropped, the place is given to others, unless somebody else here wants it.
pub(crate) struct Claim {
    claims: Arc<Claims>,
    key: Arc<[u8]>,
    seen: watch::Receiver<Seen>,
    /// Whether it is wanted, and whether at once.
    wants: Mutex<(bool, bool)>,
}

impl Claim {
    /// What is known. A fence that is set may have expired, see [`Claim::is_good`].
    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Changes whenever more is known.
    pub(crate) fn watch(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    /// Whether this node's claim stays valid for some time.
    pub(crate) fn is_good(&self) -> bool {
        self.claims.state.lock().good_until.is_some_and(|until| Instant::now() < until)
    }

    /// Says whether the group is to run here. If not, others can have it: everything it did must be written by then.
    pub(crate) fn want(&self, wants: bool) {
        self.set(|(wanted, _)| *wanted = wants);
    }

    /// Says that it is wanted now: its holder is asked to give it up.
    pub(crate) fn want_now(&self) {
        self.set(|(_, urgent)| *urgent = true);
    }

    fn set(&self, change: impl FnOnce(&mut (bool, bool))) {
        let mut wants = self.wants.lock();
        let before = *wants;
        change(&mut wants);
        if *wants == before {
            return;
        }
        let mut state = self.claims.state.lock();
        let Some(place) = state.places.get_mut(&self.key) else { return };
        let count = |count: &mut usize, was: bool, is: bool| {
            *count = *count + usize::from(is) - usize::from(was);
        };
        count(&mut place.wants, before.0, wants.0);
        count(&mut place.urgent, before.1, wants.1);
        place.may_be_free = true;
        if place.wants + place.urgent == 0 {
            give(&mut state, &self.key);
        }
        drop(state);
        self.claims.due.notify_one();
    }

    /// Gives it up because another node wants it now. It is wanted again at once.
    pub(crate) fn give(&self) {
        give(&mut self.claims.state.lock(), &self.key);
        self.claims.due.notify_one();
    }

    /// It turned out that another node holds it.
    pub(crate) fn lost(&self, fence: i64) {
        let state = self.claims.state.lock();
        let Some(place) = state.places.get(&self.key) else { return };
        let is_lost = |seen: &mut Seen| seen.fence.take_if(|held| *held == fence).is_some();
        place.seen.send_if_modified(is_lost);
    }
}

fn give(state: &mut State, key: &Arc<[u8]>) {
    let Some(place) = state.places.get_mut(key) else { return };
    let mut given = None;
    place.seen.send_if_modified(|seen| {
        given = seen.fence.take();
        seen.asked = false;
        given.is_some()
    });
    state.given.extend(given.map(|fence| (key.clone(), fence)));
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.set(|wants| *wants = (false, false));
        let mut state = self.claims.state.lock();
        let Some(place) = state.places.get_mut(&self.key) else { return };
        place.followers -= 1;
        if place.followers == 0 {
            give(&mut state, &self.key);
            state.places.remove(&self.key);
            self.claims.due.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
