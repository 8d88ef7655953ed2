//! What strangers cause the server to store for good: public keys that are new to it, and signing keys that are new to
//! those.
//!
//! Keeps: their total number is bounded, and so is the number of new ones in a minute, whoever brings them; at the
//! limit, new ones are refused, and nothing that exists is given up for them. A key that an administrator or the
//! application's registry has set does not come from a stranger: it is counted, but not bounded. Leaves out: where they
//! are kept (`storage::UsedKeys`, `services::Identities`).

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use crate::core::quota::{Bucket, Rate};
use crate::model::PublicKey;
use crate::model::seldom::Seldom;

/// At the limit they are counted again at most this often: an administrator may have removed some.
const COUNTED_EVERY: Duration = Duration::from_secs(60);
/// How often at most the log says that new ones are refused.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// What is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    PublicKeys,
    SigningKeys,
}

impl Kind {
    /// The limit that applies.
    const fn setting(self) -> &'static str {
        match self {
            Self::PublicKeys => "keys_max",
            Self::SigningKeys => "identities_max",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PublicKeys => "public keys",
            Self::SigningKeys => "signing keys",
        })
    }
}

/// One more would be too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooMany {
    #[error("quota: too many new {kind} at once; try again in {seconds} s")]
    AtOnce { kind: Kind, seconds: u128 },
    #[error("quota: this server takes no further {kind}; its administrator can raise the limit")]
    InAll { kind: Kind },
}

/// The ones of one kind.
pub(crate) struct Newcomers {
    kind: Kind,
    state: Mutex<State>,
    /// Held while they are being counted.
    counting: tokio::sync::Mutex<()>,
    pub(crate) refused: Counter,
    seldom: Seldom,
}

struct State {
    /// How many there may be.
    most: usize,
    /// How fast new ones may come.
    rate: Rate,
    bucket: Option<Bucket>,
    /// How many there are, and when they were counted.
    counted: Option<(usize, Instant)>,
    /// How many were let in since the start.
    kept: usize,
    /// The keys that were let in and are not stored yet.
    under_way: HashSet<PublicKey>,
}

impl Newcomers {
    /// `most` in total, and this many new ones in a minute, all of which may come at once.
    pub(crate) fn new(kind: Kind, most: usize, per_minute: usize) -> Self {
        let state = State {
            most,
            rate: Rate::per_minute(per_minute as u64),
            bucket: None,
            counted: None,
            kept: 0,
            under_way: HashSet::new(),
        };
        Self {
            kind,
            state: Mutex::new(state),
            counting: tokio::sync::Mutex::default(),
            refused: Counter::default(),
            seldom: Seldom::every(TOLD_EVERY),
        }
    }

    /// Other bounds count from now on. They are counted again, because a count stops at the bound.
    pub(crate) fn set(&self, most: usize, per_minute: usize) {
        let mut state = self.state.lock();
        if state.most != most {
            state.counted = None;
        }
        state.most = most;
        state.rate = Rate::per_minute(per_minute as u64);
    }

    /// How many there are, if that is known.
    pub(crate) fn count(&self) -> Option<usize> {
        self.state.lock().counted.map(|(count, _)| count)
    }

    /// Uses `count`, which is told how far it has to count, to find out how many there are.
    pub(crate) async fn find_out<E, F>(
        &self,
        now: Instant,
        count: impl FnOnce(usize) -> F,
    ) -> Result<(), E>
    where
        F: Future<Output = Result<usize, E>>,
    {
        let _turn = self.counting.lock().await;
        if !self.is_to_be_counted(now) {
            return Ok(());
        }
        let (before, most) = {
            let state = self.state.lock();
            (state.kept, state.most)
        };
        let found = count(most).await?;
        let mut state = self.state.lock();
        // Some of those that came meanwhile may have been counted.
        let came = state.kept - before;
        // Under another bound it would have counted further.
        if state.most == most {
            state.counted = Some((found + came, now));
        }
        Ok(())
    }

    /// Whether they have to be counted to know if there is space for another one.
    fn is_to_be_counted(&self, now: Instant) -> bool {
        let state = self.state.lock();
        state.counted.is_none_or(|(count, at)| {
            count >= state.most && now.saturating_duration_since(at) >= COUNTED_EVERY
        })
    }

    /// Lets `key` in; it has to be stored while the result is held. Others who come with the same key meanwhile are let
    /// in too: two devices of a user may come at once.
    pub(crate) async fn enter<E, F>(
        &self,
        key: &PublicKey,
        now: Instant,
        count: impl FnOnce(usize) -> F,
    ) -> Result<Result<Entered<'_>, TooMany>, E>
    where
        F: Future<Output = Result<usize, E>>,
    {
        if self.is_to_be_counted(now) {
            self.find_out(now, count).await?;
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.under_way.contains(key) {
            return Ok(Ok(Entered { newcomers: self, key: None, is_kept: false }));
        }
        let there = state.counted.map_or(0, |(count, _)| count) + state.under_way.len();
        if there >= state.most {
            return Ok(Err(TooMany::InAll { kind: self.kind }));
        }
        let bucket = state.bucket.get_or_insert_with(|| Bucket::full(now));
        let wait = bucket.wait(&state.rate, now);
        if !wait.is_zero() {
            let seconds = wait.as_millis().div_ceil(1_000);
            return Ok(Err(TooMany::AtOnce { kind: self.kind, seconds }));
        }
        bucket.take(&state.rate, 1, now);
        state.under_way.insert(key.clone());
        Ok(Ok(Entered { newcomers: self, key: Some(key.clone()), is_kept: false }))
    }

    /// Counts a refusal, and logs it once in a while.
    pub(crate) fn refuse(&self, key: &PublicKey, too_many: TooMany, now: Instant) -> TooMany {
        self.refused.inc();
        if let Some(unsaid) = self.seldom.next_line(now) {
            let setting = match too_many {
                TooMany::AtOnce { .. } => "newcomers_per_minute",
                TooMany::InAll { .. } => self.kind.setting(),
            };
            let key = key.in_log();
            log::warn!(
                key:%, error = setting;
                "{key} is refused: new {} are above [limits] {setting} ({unsaid} more since the last such line); keys that exist go \
                 on, and so does one that is given a store (eventlog-server keys assign KEY STORE); for further ones \
                 raise {setting}",
                self.kind
            );
        }
        too_many
    }

    /// One was stored that is not bounded.
    pub(crate) fn came(&self) {
        self.state.lock().came();
    }
}

impl State {
    fn came(&mut self) {
        self.kept += 1;
        if let Some((count, _)) = &mut self.counted {
            *count += 1;
        }
    }
}

/// One that was let in. If it is dropped before it is [kept](Entered::keep), it does not count.
pub(crate) struct Entered<'a> {
    newcomers: &'a Newcomers,
    /// `None` if somebody else came with the same key, which is counted there.
    key: Option<PublicKey>,
    is_kept: bool,
}

impl Entered<'_> {
    /// It was stored.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut state = self.newcomers.state.lock();
        let state = &mut *state;
        state.under_way.remove(&key);
        if self.is_kept {
            state.came();
        } else if let Some(bucket) = &mut state.bucket {
            bucket.give_back(&state.rate, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::FutureExt;
    use futures_util::future::ready;

    use super::*;
    use crate::testing::key;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "some time to begin with")]
        Instant::now()
    }

    fn enter(newcomers: &Newcomers, now: Instant, there: usize) -> Result<Entered<'_>, TooMany> {
        enter_as(newcomers, "alice", now, there)
    }

    fn enter_as<'a>(
        newcomers: &'a Newcomers,
        name: &str,
        now: Instant,
        there: usize,
    ) -> Result<Entered<'a>, TooMany> {
        let entered =
            newcomers.enter(&key(name), now, |_| ready(Ok::<_, Infallible>(there))).now_or_never();
        let Ok(entered) = entered.expect("nothing is waited for");
        entered
    }

    #[test]
    fn who_was_there_before_the_start_counts_and_who_did_not_come_does_not() {
        let now = start();
        let newcomers = Newcomers::new(Kind::PublicKeys, 10, 1_000);
        let full = TooMany::InAll { kind: Kind::PublicKeys };
        drop(enter(&newcomers, now, 8).expect("the ninth"));
        enter(&newcomers, now, 0).expect("the ninth").keep();
        let tenth = enter(&newcomers, now, 0).expect("the tenth");
        assert_eq!(enter_as(&newcomers, "bob", now, 0).err(), Some(full), "one is under way");
        enter(&newcomers, now, 0).expect("another device of hers").keep();
        tenth.keep();
        assert_eq!(newcomers.count(), Some(10));
        let soon = now + Duration::from_secs(59);
        assert_eq!(enter_as(&newcomers, "bob", soon, 0).err(), Some(full), "not counted again yet");
        let later = now + COUNTED_EVERY;
        enter(&newcomers, later, 9).expect("one was taken away").keep();
        assert_eq!(enter(&newcomers, later, 9).err(), Some(full));
    }

    #[test]
    fn another_bound_counts_at_once_and_they_are_counted_as_far_as_it_reaches() {
        let now = start();
        let newcomers = Newcomers::new(Kind::PublicKeys, 2, 1_000);
        let full = Some(TooMany::InAll { kind: Kind::PublicKeys });
        // There are three, and a count stops at the bound.
        assert_eq!(enter(&newcomers, now, 2).err(), full);
        newcomers.set(4, 1_000);
        enter(&newcomers, now, 3).expect("the fourth").keep();
        assert_eq!(enter_as(&newcomers, "bob", now, 4).err(), full);
        newcomers.set(5, 1);
        let later = now + Duration::from_secs(60);
        enter_as(&newcomers, "bob", later, 4).expect("the fifth").keep();
        newcomers.set(9, 1);
        let too_fast = enter_as(&newcomers, "carol", later, 5).err();
        assert!(matches!(too_fast, Some(TooMany::AtOnce { .. })), "{too_fast:?}");
    }

    #[test]
    fn those_of_a_minute_may_come_at_once_and_then_one_after_the_other() {
        let now = start();
        let newcomers = Newcomers::new(Kind::SigningKeys, 1_000, 30);
        for _ in 0..30 {
            drop(enter(&newcomers, now, 0).expect("it does not come"));
        }
        for _ in 0..30 {
            enter(&newcomers, now, 0).expect("in the minute").keep();
        }
        let too_fast = TooMany::AtOnce { kind: Kind::SigningKeys, seconds: 2 };
        assert_eq!(enter(&newcomers, now, 0).err(), Some(too_fast));
        let later = now + Duration::from_secs(2);
        enter(&newcomers, later, 0).expect("as it was told").keep();
        assert_eq!(enter(&newcomers, later, 0).err(), Some(too_fast));
    }
}
