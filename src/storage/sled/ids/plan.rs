//! Decides which runs are merged.
//!
//! Runs of a class differ in size by at most a factor of eight, and eight of a class are merged into one of a higher
//! class. So at rest there are at most seven of each class, and an id is written again once for each class that it
//! passes: four times on its way from a seal of 8,192 to a run of ten million, and twice from a seal of 32,768. Looking into twice as
//! many runs costs less than writing ids twice as often.

/// How many runs of a class are merged.
pub(super) const FAN_IN: usize = 8;
/// How many ids are merged for each id that is sealed, at most: more than there are classes, so that merges keep up
/// with any ingest. Larger merges get what smaller ones leave over.
pub(super) const MERGED_PER_SEALED: u64 = 6;
/// Runs up to this many ids are in the lowest class. Merging them again and again costs less than sealing does.
const SMALL_IDS: u64 = 8_192;

/// A run, as far as planning needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sized {
    pub(super) run: u64,
    pub(super) ids: u64,
}

fn class(ids: u64) -> u32 {
    ids.max(SMALL_IDS).ilog(FAN_IN as u64)
}

/// The runs to merge next, of those that are in no merge yet: smaller ones first.
pub(super) fn plan(mut runs: Vec<Sized>) -> Option<Vec<u64>> {
    runs.sort_unstable_by_key(|run| run.ids);
    let of_a_class = runs.chunk_by(|a, b| class(a.ids) == class(b.ids));
    let merged = of_a_class.into_iter().find(|runs| runs.len() >= FAN_IN)?;
    Some(merged.iter().map(|run| run.run).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(ids: &[u64]) -> Option<Vec<u64>> {
        plan((0..).zip(ids).map(|(run, ids)| Sized { run, ids: *ids }).collect())
    }

    #[test]
    fn eight_of_a_size_are_merged() {
        let small = [9_000, 8_192, 15_000, 8_192, 10_000, 8_192, 8_192];
        assert_eq!(planned(&small), None);
        let eight = [&small[..], &[8_193]].concat();
        assert_eq!(planned(&eight), Some(vec![1, 3, 5, 6, 7, 0, 4, 2]));
        assert_eq!(planned(&[&small[..], &[70_000, 2_000_000]].concat()), None);
        assert_eq!(
            planned(&[1, 70_000, 100, 2_000_000, 3, 5_000, 4, 6, 7, 8]).map(|runs| runs.len()),
            Some(8)
        );
    }

    #[test]
    fn the_smallest_go_first() {
        let ids = [[100_000; 8], [8_192; 8]].concat();
        assert_eq!(planned(&ids), Some((8..16).collect()));
    }

    #[test]
    fn a_merge_leads_to_a_higher_class() {
        for ids in [8_192, 20_000, 1_000_000, 123_456_789] {
            assert!(class(ids * FAN_IN as u64) > class(ids));
        }
    }
}
