//! The writes of a connection that wait for their answer.
//!
//! Keeps: an answer finds its write by its request id, without a search; an id is not reused for a long time.

use super::template::REQUEST_MIN;

/// A write that waits.
#[derive(Clone, Copy, Default)]
pub(super) struct Pending {
    pub(super) store: usize,
    pub(super) due: u64,
    pub(super) id_sum: u128,
    /// The number of the batch on this connection, from 0.
    pub(super) batch: u64,
}

/// The writes that wait for their answer.
pub(super) struct InFlight {
    /// A power of two; the low bits of a request id select one.
    places: Vec<Option<(u32, Pending)>>,
    count: usize,
    count_max: usize,
    request: u32,
}

impl InFlight {
    pub(super) fn new(count_max: usize) -> Self {
        let count_max = count_max.max(1);
        let places = vec![None; count_max.next_power_of_two()];
        Self { places, count: 0, count_max, request: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) const fn is_full(&self) -> bool {
        self.count == self.count_max
    }

    /// Adds one and returns its request id: never below `REQUEST_MIN`, so that all have the same width. It must not be
    /// full.
    pub(super) fn put(&mut self, write: Pending) -> u32 {
        let place = loop {
            self.request = (self.request + 1) & (u32::MAX >> 1);
            let place = self.request as usize & (self.places.len() - 1);
            // An earlier write may wait for longer than later ones.
            if self.places[place].is_none() {
                break place;
            }
        };
        let request = self.request + REQUEST_MIN;
        self.places[place] = Some((request, write));
        self.count += 1;
        request
    }

    /// Removes what `request` names, if that is in flight.
    pub(super) fn answered(&mut self, request: u64) -> Option<Pending> {
        let number = request.checked_sub(REQUEST_MIN.into())?;
        let place = number as usize & (self.places.len() - 1);
        let (_, write) = self.places[place].take_if(|found| u64::from(found.0) == request)?;
        self.count -= 1;
        Some(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_finds_its_write_once() {
        let mut in_flight = InFlight::new(3);
        let mut requests = Vec::new();
        for batch in 0..3 {
            requests.push(in_flight.put(Pending { batch, ..Pending::default() }));
        }
        assert!(in_flight.is_full());
        assert!(in_flight.answered(u64::MAX).is_none() && in_flight.answered(0).is_none());
        // The first one is answered last, and later ones overtake it.
        for batch in 3..10 {
            let request = requests.remove(1);
            assert_eq!(
                in_flight.answered(request.into()).map(|found| found.batch),
                Some(batch - 2)
            );
            assert!(in_flight.answered(request.into()).is_none());
            requests.push(in_flight.put(Pending { batch, ..Pending::default() }));
        }
        for request in requests {
            assert!(in_flight.answered(request.into()).is_some());
        }
        assert!(in_flight.is_empty() && !in_flight.is_full());
    }
}
