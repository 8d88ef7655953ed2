//! How many connections of one sort there may be, and which of them makes way for a new one: of those that are not
//! accepted yet, which are called strangers here, or of others.
//!
//! A client's place is its address. For IPv6 it is the first half, because the owner of one address has all of the other half. The
//! place with the most connections makes way, so a client that opens many pushes out its own. A new connection is never pushed
//! out, because it may be about to identify itself. While all connections of that place are new, newcomers are refused, except
//! from places with few connections: these are let in, up to a quarter more. So a few places with many connections each cannot
//! use the space for others.
//!
//! A connection with a long handshake counts as several, because its handshake is kept.
//!
//! Keeps: at most the limit and a quarter more. Leaves out: the clock, and ending a connection (`actors::crowd`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};

/// Identifies a stranger here. Older ones have smaller numbers.
pub(crate) type Number = u64;

/// A connection that is younger than this is never pushed out, in milliseconds.
const YOUNG_MILLIS: u64 = 5_000;

/// A place with this fraction of the limit, or more, has no share in the extra quarter.
const FEW: usize = 64;

/// A connection counts once more for each of these bytes of its handshake.
const HANDSHAKE_BYTES: usize = 8 * 1_024;

/// There is no space for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The place of a client. `None` if unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place(Option<IpAddr>);

impl Place {
    pub(crate) fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(network))
    }
}

/// The part that an address has in common with all others of the same owner: an IPv6 address comes with 2^64 others.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// All connections that are not accepted yet.
#[derive(Debug)]
pub(crate) struct Strangers {
    weight_max: usize,
    /// The sum of all weights.
    weight: usize,
    next: Number,
    by_number: BTreeMap<Number, Stranger>,
    by_place: HashMap<Place, There>,
}

#[derive(Clone, Copy, Debug)]
struct Stranger {
    place: Place,
    /// When it arrived, or was last active.
    since: u64,
    /// How many connections it counts as.
    weight: usize,
}

/// The strangers of one place.
#[derive(Debug, Default)]
struct There {
    numbers: BTreeSet<Number>,
    weight: usize,
}

impl Strangers {
    pub(crate) fn new(count_max: usize) -> Self {
        let (by_number, by_place) = (BTreeMap::new(), HashMap::new());
        Self { weight_max: count_max, weight: 0, next: 0, by_number, by_place }
    }

    /// Another number counts from now on. If there are more, nobody goes for that, but each new one replaces one.
    pub(crate) fn set(&mut self, count_max: usize) {
        self.weight_max = count_max;
    }

    /// Adds one. Returns the one that must make way.
    pub(crate) fn enter(
        &mut self,
        now: u64,
        place: Place,
    ) -> Result<(Number, Option<Number>), Full> {
        let gone = if self.weight < self.weight_max { None } else { self.make_room(now, place)? };
        if let Some(number) = gone {
            self.leave(number);
        }
        let number = self.next;
        self.next += 1;
        self.insert(number, Stranger { place, since: now, weight: 1 });
        Ok((number, gone))
    }

    /// Removes one that is gone or no longer a stranger. Returns whether it was there.
    pub(crate) fn leave(&mut self, number: Number) -> bool {
        let Some(stranger) = self.by_number.remove(&number) else { return false };
        self.weight -= stranger.weight;
        if let Some(there) = self.by_place.get_mut(&stranger.place) {
            there.numbers.remove(&number);
            there.weight -= stranger.weight;
            if there.numbers.is_empty() {
                self.by_place.remove(&stranger.place);
            }
        }
        true
    }

    /// It did something, so it counts as new. Returns its new number; `None` if it is gone.
    pub(crate) fn touch(&mut self, number: Number, now: u64) -> Option<Number> {
        let stranger = self.by_number.get(&number).copied()?;
        self.leave(number);
        let number = self.next;
        self.next += 1;
        self.insert(number, Stranger { since: now, ..stranger });
        Some(number)
    }

    /// Its handshake is answered: a proxy may have reported its real place, and `bytes` of the handshake are kept. Returns those that must make
    /// way, which may include itself.
    pub(crate) fn shook_hands(
        &mut self,
        number: Number,
        now: u64,
        place: Place,
        bytes: usize,
    ) -> Vec<Number> {
        let Some(stranger) = self.by_number.get(&number).copied() else { return Vec::new() };
        let weight = 1 + bytes / HANDSHAKE_BYTES;
        self.leave(number);
        self.insert(number, Stranger { place, weight, ..stranger });
        let mut gone = Vec::new();
        // A connection that counts as one was let in as one.
        while weight > 1 && self.weight > self.weight_max && !gone.contains(&number) {
            match self.make_room(now, place) {
                Ok(None) => break,
                Ok(Some(longest)) => gone.push(longest),
                Err(Full) => gone.push(number),
            }
            gone.last().map(|gone| self.leave(*gone));
        }
        gone
    }

    pub(crate) const fn count_max(&self) -> usize {
        self.weight_max
    }

    pub(crate) fn count(&self) -> usize {
        self.by_number.len()
    }

    fn insert(&mut self, number: Number, stranger: Stranger) {
        self.by_number.insert(number, stranger);
        self.weight += stranger.weight;
        let there = self.by_place.entry(stranger.place).or_default();
        there.numbers.insert(number);
        there.weight += stranger.weight;
    }

    /// The one that makes way for a connection from `place`. `None` if none must.
    fn make_room(&self, now: u64, place: Place) -> Result<Option<Number>, Full> {
        // If two places have the same number, the one that has been there longer is chosen.
        let holds_most = self
            .by_place
            .values()
            .max_by_key(|there| (there.weight, std::cmp::Reverse(there.numbers.first().copied())));
        let Some(there) = holds_most else { return Err(Full) };
        let longest = there.numbers.first().copied();
        let since = longest.and_then(|number| self.by_number.get(&number)).map(|one| one.since);
        if since.is_some_and(|since| now.saturating_sub(since) >= YOUNG_MILLIS) {
            return Ok(longest);
        }
        let here = self.by_place.get(&place).map_or(0, |there| there.weight);
        let holds_few = here < there.weight && here < (self.weight_max / FEW).max(1);
        if !holds_few || self.weight >= self.weight_max + self.weight_max / 4 {
            return Err(Full);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(last: u8) -> Place {
        Place::of(Some(IpAddr::from([127, 0, 0, last])))
    }

    #[test]
    fn the_longest_of_the_place_that_holds_most_goes() {
        let mut strangers = Strangers::new(4);
        for last in [9, 1, 2, 1] {
            assert!(matches!(strangers.enter(0, place(last)), Ok((_, None))));
        }
        assert_eq!(strangers.enter(5_000, place(3)), Ok((4, Some(1))));
        // Now each place has one, so the first one is pushed out.
        assert_eq!(strangers.enter(5_000, place(4)), Ok((5, Some(0))));
        assert_eq!(strangers.count(), 4);
    }

    #[test]
    fn who_has_just_come_stays_and_others_are_let_in() {
        let mut strangers = Strangers::new(4);
        for _ in 0..4 {
            strangers.enter(0, place(1)).expect("room");
        }
        assert_eq!(strangers.enter(4_999, place(1)), Err(Full));
        assert_eq!(strangers.enter(4_999, place(2)), Ok((4, None)));
        assert_eq!(strangers.enter(4_999, place(2)), Err(Full));
        // An accepted connection frees its place.
        assert!(strangers.leave(4) && !strangers.leave(4));
        assert_eq!(strangers.enter(4_999, place(2)), Ok((5, None)));
        assert_eq!(strangers.enter(5_000, place(1)), Ok((6, Some(0))));
    }

    /// Three addresses filled the extra quarter, and clients from a fourth were refused.
    #[test]
    fn a_few_places_that_hold_many_leave_room_for_others() {
        let mut strangers = Strangers::new(640);
        for last in [1, 2, 3] {
            let came = (0..1_000).filter(|_| strangers.enter(0, place(last)).is_ok()).count();
            assert_eq!(came, if last == 1 { 640 } else { 10 });
        }
        for last in 4..18 {
            let came = (0..1_000).filter(|_| strangers.enter(0, place(last)).is_ok()).count();
            assert_eq!(came, 10);
        }
        assert_eq!(strangers.enter(0, place(18)), Err(Full));
        assert_eq!(strangers.count(), 800);
    }

    #[test]
    fn who_comes_through_a_proxy_is_where_the_proxy_says() {
        let mut strangers = Strangers::new(3);
        for last in [1, 1, 2] {
            strangers.enter(0, place(last)).expect("room");
        }
        assert!(strangers.shook_hands(0, 0, place(2), 100).is_empty());
        assert_eq!(strangers.enter(9_000, place(3)), Ok((3, Some(0))));
    }

    #[test]
    fn who_is_active_goes_last() {
        let mut strangers = Strangers::new(3);
        for last in [1, 1, 2] {
            strangers.enter(0, place(last)).expect("room");
        }
        assert_eq!(strangers.touch(0, 6_000), Some(3));
        assert_eq!(strangers.touch(0, 6_000), None, "it has another number now");
        assert_eq!(strangers.enter(6_000, place(3)), Ok((4, Some(1))));
        // The other one has just been active, and no place has more than one.
        assert_eq!(strangers.enter(6_000, place(3)), Ok((5, Some(2))));
        assert!(strangers.leave(3) && !strangers.leave(0));
    }

    #[test]
    fn a_long_handshake_counts_for_several() {
        let mut strangers = Strangers::new(8);
        for last in [1, 1, 1, 2, 2] {
            strangers.enter(0, place(last)).expect("room");
        }
        // Five count as seven, as eight, as nine and a tenth is too much.
        assert!(strangers.shook_hands(3, 0, place(2), 16 << 10).is_empty());
        assert!(strangers.shook_hands(4, 0, place(2), 8 << 10).is_empty());
        assert_eq!(strangers.shook_hands(0, 0, place(1), 8 << 10), [0], "all have just come");
        assert_eq!(strangers.count(), 4);
        // Connections of the place with the most weight are pushed out, although it has fewer.
        assert_eq!(strangers.shook_hands(2, 5_000, place(1), 16 << 10), [3]);
        assert!(strangers.leave(1) && strangers.leave(2) && strangers.leave(4));
        assert_eq!((strangers.weight, strangers.by_place.len()), (0, 0));
    }

    #[test]
    fn half_of_an_ipv6_address_is_a_place() {
        let at = |text: &str| Place::of(Some(text.parse().expect("an address")));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:127.0.0.1"), place(1));
    }
}
