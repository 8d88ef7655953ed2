//! How many connections there may be that are not accepted yet, and which of them makes way for a new one.
//!
//! A client's place is its address; for IPv6 the first half, because whoever has one has all of the other half. The
//! place that holds most makes way: so whoever opens many pushes out their own. A new connection is never pushed out,
//! because it may be about to say who it is; while all connections of that place are new, newcomers are refused, and
//! only those from places that hold few are let in, up to a quarter more: so the space for others is not filled by a
//! handful of places that all hold many.
//!
//! Keeps: at most the limit and a quarter more. Leaves out: the clock, and ending a connection (`actors::strangers`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};

/// Identifies a stranger here: the longer it has been there, the smaller the number.
pub(crate) type Number = u64;

/// A connection that is younger than this is never pushed out, in milliseconds.
const YOUNG_MILLIS: u64 = 5_000;

/// A place that holds this fraction of the limit, or more, has no share in the extra quarter.
const FEW: usize = 64;

/// There is no space for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Where a client is; `None` if unknown.
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
    count_max: usize,
    next: Number,
    /// The place of each, and since when it has been there.
    by_number: BTreeMap<Number, (Place, u64)>,
    by_place: HashMap<Place, BTreeSet<Number>>,
}

impl Strangers {
    pub(crate) fn new(count_max: usize) -> Self {
        Self { count_max, next: 0, by_number: BTreeMap::new(), by_place: HashMap::new() }
    }

    /// Adds one, and returns which one has to make way.
    pub(crate) fn enter(
        &mut self,
        now: u64,
        place: Place,
    ) -> Result<(Number, Option<Number>), Full> {
        let gone = if self.count() < self.count_max { None } else { self.make_room(now, place)? };
        if let Some(number) = gone {
            self.leave(number);
        }
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, (place, now));
        self.by_place.entry(place).or_default().insert(number);
        Ok((number, gone))
    }

    /// It is gone, or no longer a stranger; returns whether it was there.
    pub(crate) fn leave(&mut self, number: Number) -> bool {
        let Some((place, _)) = self.by_number.remove(&number) else { return false };
        self.leave_place(number, place);
        true
    }

    /// A proxy has said where it really is.
    pub(crate) fn is_at(&mut self, number: Number, place: Place) {
        let Some((at, _)) = self.by_number.get_mut(&number) else { return };
        let before = std::mem::replace(at, place);
        self.leave_place(number, before);
        self.by_place.entry(place).or_default().insert(number);
    }

    pub(crate) fn count(&self) -> usize {
        self.by_number.len()
    }

    fn leave_place(&mut self, number: Number, place: Place) {
        let Some(there) = self.by_place.get_mut(&place) else { return };
        there.remove(&number);
        if there.is_empty() {
            self.by_place.remove(&place);
        }
    }

    /// Which one makes way for one that comes from `place`; `None` if none has to.
    fn make_room(&self, now: u64, place: Place) -> Result<Option<Number>, Full> {
        // Of two that hold equally many, the place whose connection has been there longer.
        let holds_most = self
            .by_place
            .values()
            .max_by_key(|there| (there.len(), std::cmp::Reverse(there.first().copied())));
        let Some(there) = holds_most else { return Err(Full) };
        let longest = there.first().copied();
        let since = longest.and_then(|number| self.by_number.get(&number)).map(|(_, since)| *since);
        if since.is_some_and(|since| now.saturating_sub(since) >= YOUNG_MILLIS) {
            return Ok(longest);
        }
        let here = self.by_place.get(&place).map_or(0, BTreeSet::len);
        let holds_few = here < there.len() && here < (self.count_max / FEW).max(1);
        if !holds_few || self.count() >= self.count_max + self.count_max / 4 {
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
        // Now each holds one: the first one goes.
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
        strangers.is_at(0, place(2));
        assert_eq!(strangers.enter(9_000, place(3)), Ok((3, Some(0))));
    }

    #[test]
    fn half_of_an_ipv6_address_is_a_place() {
        let at = |text: &str| Place::of(Some(text.parse().expect("an address")));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:127.0.0.1"), place(1));
    }
}
