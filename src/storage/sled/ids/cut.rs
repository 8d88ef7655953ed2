//! Splits ids that are sealed together where there are gaps between their times.
//!
//! Otherwise, some ids of a device whose clock is a year ahead, or that was offline, would make a section overlap with
//! everything that others write, and it would have to be merged with theirs.

use crate::model::{EntryId, Sequence};

/// Ids that are further apart than this may be separated, in milliseconds.
const GAP_MILLIS: u64 = 60_000;
/// What lies between two such gaps becomes a separate piece if it is at least this fraction of all; otherwise it is
/// joined with its neighbours. So there are at most 17 pieces, and evenly spread ids are one piece.
const PIECES_MAX: usize = 8;

/// The pieces of `entries`, which ascend.
pub(super) fn pieces(entries: &[(EntryId, Sequence)]) -> Vec<&[(EntryId, Sequence)]> {
    let large = entries.len().div_ceil(PIECES_MAX);
    let wide = |pair: &[(EntryId, Sequence)]| {
        pair[1].0.created_at_millis() - pair[0].0.created_at_millis() > GAP_MILLIS
    };
    let mut gaps: Vec<usize> = entries
        .windows(2)
        .enumerate()
        .filter(|(_, neighbours)| wide(neighbours))
        .map(|(at, _)| at + 1)
        .collect();
    gaps.push(entries.len());
    let (mut pieces, mut start, mut last) = (Vec::new(), 0, 0);
    for gap in gaps {
        if gap - last >= large {
            pieces.extend([start..last, last..gap]);
            start = gap;
        }
        last = gap;
    }
    pieces.push(start..entries.len());
    pieces.into_iter().filter(|piece| !piece.is_empty()).map(|piece| &entries[piece]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(millis: impl IntoIterator<Item = u64>) -> Vec<(EntryId, Sequence)> {
        let id = |millis: u64| EntryId::from_bytes((u128::from(millis) << 80).to_be_bytes());
        millis.into_iter().zip(1..).map(|(at, n)| (id(at), Sequence::ZERO.plus(n))).collect()
    }

    fn lengths(millis: impl IntoIterator<Item = u64>) -> Vec<usize> {
        pieces(&entries(millis)).iter().map(|piece| piece.len()).collect()
    }

    const DAY: u64 = 86_400_000;
    const NOW: u64 = 20_000 * DAY;

    #[test]
    fn ids_far_ahead_or_far_behind_are_cut_from_those_of_now() {
        let now = || NOW..NOW + 8_000;
        assert_eq!(lengths(now()), [8_000]);
        let past = || (0..300).map(|day| NOW - (301 - day) * DAY);
        let future = [NOW + 100 * DAY, NOW + 365 * DAY];
        assert_eq!(lengths(past().chain(now()).chain(future)), [300, 8_000, 2]);
        assert_eq!(lengths(now().chain(future)), [8_000, 2]);
        assert_eq!(lengths(past().chain(now())), [300, 8_000]);
        assert_eq!(lengths([0].into_iter().chain(now()).chain([(1 << 48) - 1])), [1, 8_000, 1]);
    }

    #[test]
    fn ids_of_two_times_are_two_pieces() {
        assert_eq!(lengths((NOW..NOW + 4_000).chain(NOW + DAY..NOW + DAY + 4_000)), [4_000; 2]);
    }

    #[test]
    fn evenly_spread_ids_are_one_piece() {
        assert_eq!(lengths((0..8_192).map(|n| NOW + n * DAY / 24)), [8_192]);
        assert_eq!(lengths(vec![NOW; 8_192]), [8_192]);
    }

    proptest! {
        #[test]
        fn pieces_are_few_and_leave_nothing_out(
            times in proptest::collection::vec(0..100_u64, 1..300), unit in 1..100_000_u64,
        ) {
            let mut times: Vec<u64> = times.into_iter().map(|time| time * unit).collect();
            times.sort_unstable();
            let entries = entries(times);
            let pieces = pieces(&entries);
            prop_assert_eq!(pieces.concat(), &entries[..]);
            prop_assert!(pieces.len() <= 2 * PIECES_MAX + 1);
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
        }
    }
}
