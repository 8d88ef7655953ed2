//! The writes of a connection that wait for their answer.
//!
//! Keeps: an answer finds its write by its request id, without a search; an id is not used again for a long time.

use super::template::REQUEST_MIN;

/// A write that waits.
#[derive(Clone, Copy, Default)]
pub(super) struct Pending {
    /// Zero if nothing is in flight here.
    pub(super) request: u32,
    pub(super) store: usize,
    pub(super) due: u64,
    pub(super) id_sum: u128,
    /// Which batch of this connection it is, from 0.
    pub(super) batch: u64,
}

/// The writes that wait for their answer.
pub(super) struct InFlight {
    /// As many as there may be; the low bits of a request id say which.
    pending: Vec<Pending>,
    free: Vec<usize>,
    slot_bits: u32,
    generation: u32,
}

impl InFlight {
    pub(super) fn new(count: usize) -> Self {
        let count = count.max(1);
        Self {
            pending: vec![Pending::default(); count],
            free: (0..count).rev().collect(),
            slot_bits: count.next_power_of_two().ilog2(),
            generation: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.pending.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// A place for one more, which is taken by [`InFlight::put`].
    pub(super) fn take_slot(&mut self) -> Option<usize> {
        self.free.pop()
    }

    pub(super) fn put(&mut self, slot: usize, write: Pending) {
        self.pending[slot] = write;
    }

    /// A request id that answers find `slot` by: never below `REQUEST_MIN`, so that all have one width; each comes
    /// again after some billion only.
    pub(super) fn request(&mut self, slot: usize) -> u32 {
        self.generation = self.generation.wrapping_add(1) & (u32::MAX >> (self.slot_bits + 1));
        (self.generation << self.slot_bits | slot as u32) + REQUEST_MIN
    }

    /// Takes out what `request` names, if that is in flight.
    pub(super) fn answered(&mut self, request: u64) -> Option<Pending> {
        let request = u32::try_from(request).ok()?;
        let slot = (request.checked_sub(REQUEST_MIN)? & !(u32::MAX << self.slot_bits)) as usize;
        let found = self.pending.get_mut(slot).filter(|found| found.request == request)?;
        self.free.push(slot);
        Some(std::mem::take(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_finds_its_write_once() {
        let mut in_flight = InFlight::new(3);
        let slots: Vec<usize> = std::iter::from_fn(|| in_flight.take_slot()).collect();
        assert_eq!(slots.len(), 3);
        let mut requests = Vec::new();
        for slot in slots {
            let request = in_flight.request(slot);
            in_flight.put(slot, Pending { request, batch: slot as u64, ..Pending::default() });
            requests.push((request, slot as u64));
        }
        assert!(in_flight.answered(u64::MAX).is_none() && in_flight.answered(0).is_none());
        for (request, batch) in requests {
            assert_eq!(in_flight.answered(request.into()).map(|found| found.batch), Some(batch));
            assert!(in_flight.answered(request.into()).is_none());
        }
        assert!(in_flight.is_empty() && !in_flight.is_full());
    }
}
