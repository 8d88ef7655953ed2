//! Compares a whole index with the ids of the entries that it was made from.

use std::fmt::Display;

use super::Slots;
use super::head::Head;
use super::index::Index;
use super::page::Page;
use super::part::Part;
use super::record::Section;
use crate::model::{EntryId, Sequence};

/// Shows that an index has each entry's id with its sequence and nothing else, using one bit of memory for each entry.
pub(crate) struct Check<'a> {
    index: &'a Index,
    /// The checksum of the entries.
    sum: u64,
}

/// Which sequences were seen.
struct Seen(Vec<u64>);

impl<'a> Check<'a> {
    pub(crate) fn new(index: &'a Index) -> Self {
        Self { index, sum: 0 }
    }

    /// The store has this entry.
    pub(crate) fn entry(&mut self, id: EntryId, sequence: Sequence) {
        if sequence <= self.index.root.sealed {
            self.sum = self.sum.wrapping_add(self.index.root.seed.hash_of_entry(id, sequence));
        }
    }

    /// What is wrong, once all entries were shown.
    pub(crate) fn finish(self, slots: &dyn Slots) -> Result<(), String> {
        let Self { index, .. } = self;
        let sealed = index.root.sealed.get();
        let mut seen = Seen(vec![0; sealed.div_ceil(64) as usize]);
        let (mut sum, mut count) = (0_u64, 0);
        let mut show = |id, sequence: Sequence| {
            if sequence > index.root.sealed {
                return Err(format!("it has an id with the sequence {sequence}"));
            }
            // An id may be in two runs.
            if seen.is_first(sequence) {
                count += 1;
                sum = sum.wrapping_add(index.root.seed.hash_of_entry(id, sequence));
            }
            Ok(())
        };
        for section in index.runs.iter().flat_map(|run| &run.sections) {
            let read = read(index, section, slots, &mut show);
            read.map_err(|finding| format!("section {} of its ids: {finding}", section.number))?;
        }
        if count != sealed {
            return Err(format!("of the ids of {sealed} entries, {count} are indexed"));
        }
        if sum != self.sum {
            return Err("other ids are indexed than its entries have".into());
        }
        Ok(())
    }
}

impl Seen {
    /// Whether this one was not seen yet. It is among the existing ones, or was seen.
    fn is_first(&mut self, sequence: Sequence) -> bool {
        // Zero is not a sequence: it becomes a position far beyond all.
        let at = sequence.get().wrapping_sub(1);
        let Some(word) = self.0.get_mut((at / 64) as usize) else { return false };
        let bit = 1 << (at % 64);
        let is_first = *word & bit == 0;
        *word |= bit;
        is_first
    }
}

/// Reads a section, with its filter.
fn read(
    index: &Index,
    section: &Section,
    slots: &dyn Slots,
    show: &mut dyn FnMut(EntryId, Sequence) -> Result<(), String>,
) -> Result<(), String> {
    let part = |number| Part { ordinal: index.runs.ordinal, section: section.number, number };
    let value = |number: u32| {
        let slot = section.slot.saturating_add(number.into());
        let bytes = slots.slot(slot).map_err(|error| error.to_string())?;
        bytes.ok_or_else(|| format!("slot {slot} is empty"))
    };
    let head = Head::decode(part(0), &value(0)?).map_err(text)?;
    if !head.is_of(section) {
        return Err("its head is another one's".into());
    }
    let (mut count, mut last) = (0, None);
    for number in 1..=section.pages {
        let page = Page::decode(part(number), &value(number)?).map_err(text)?;
        for at in 0..page.len() {
            let (id, sequence) = page.entry(at);
            let hash = index.root.seed.hash(id);
            let is_found =
                head.page_of(id) + 1 == number as usize && head.may_have(hash, head.bucket(hash));
            if !is_found || last.replace(id).is_some_and(|last| last >= id) {
                return Err(format!("the id of entry {sequence} is not found in it"));
            }
            count += 1;
            show(id, sequence)?;
        }
    }
    if (count, last) != (section.count, Some(section.last)) {
        return Err("its pages have other ids than it has".into());
    }
    Ok(())
}

fn text(error: impl Display) -> String {
    error.to_string()
}
