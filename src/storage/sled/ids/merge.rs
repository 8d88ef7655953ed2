//! Merges runs, a few sections at a time.
//!
//! Keeps: what a step wrote contains all ids of the sections that it released; a partially read one stays until it was
//! read to its end. So the index is complete after each step, and abandoning a merge does no harm. A section that
//! overlaps none of the others is moved unchanged, so only what has to be written again is.

use super::Slots;
use super::hash::Seed;
use super::page::Page;
use super::part::Part;
use super::record::Section;
use super::runs::{Run, Runs};
use super::section::{Built, SECTION_IDS_MAX, build};
use crate::model::{EntryId, Sequence};
use crate::storage::StorageError;
use crate::storage::sled::key::Ordinal;

/// What moving a section costs, in ids written.
const MOVE_COST: u64 = 64;

/// A section, and the run it is in.
type InRun = (u64, Section);

/// A merge in progress.
#[derive(Debug)]
pub(super) struct Merge {
    /// The runs that are merged.
    pub(super) inputs: Vec<u64>,
    /// The run that results.
    pub(super) output: u64,
    /// How many of their ids have not been written again.
    pub(super) left: u64,
    /// Remaining sections, the least last.
    queue: Vec<InRun>,
    /// Sections that are being read.
    open: Vec<Open>,
    /// Read, but not written yet.
    entries: Vec<(EntryId, Sequence)>,
    /// Read to their end; their last entries are among those.
    read: Vec<InRun>,
    /// The last id that was read.
    last: Option<EntryId>,
    ordinal: Ordinal,
    seed: Seed,
}

/// What a step of a merge changes.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// New sections, for the output.
    pub(super) built: Vec<Built>,
    /// Sections that go to the output unchanged, from their runs.
    pub(super) moved: Vec<InRun>,
    /// Sections whose ids are all in the output.
    pub(super) gone: Vec<InRun>,
    /// The cost, in ids written.
    pub(super) cost: u64,
}

#[derive(Debug)]
struct Open {
    run: u64,
    section: Section,
    /// Counts from 1, as parts do.
    part: u32,
    page: Page,
    at: usize,
    next: (EntryId, Sequence),
}

impl Open {
    fn new(
        (run, section): InRun,
        ordinal: Ordinal,
        slots: &dyn Slots,
    ) -> Result<Self, StorageError> {
        let page = read_page(ordinal, &section, 1, slots)?;
        let next = page.entry(0);
        Ok(Self { run, section, part: 1, page, at: 0, next })
    }

    /// Goes to the next entry; false if there are no more.
    fn advance(&mut self, ordinal: Ordinal, slots: &dyn Slots) -> Result<bool, StorageError> {
        self.at += 1;
        if self.at == self.page.len() {
            if self.part == self.section.pages {
                return Ok(false);
            }
            self.part += 1;
            self.page = read_page(ordinal, &self.section, self.part, slots)?;
            self.at = 0;
        }
        self.next = self.page.entry(self.at);
        Ok(true)
    }
}

fn read_page(
    ordinal: Ordinal,
    section: &Section,
    part: u32,
    slots: &dyn Slots,
) -> Result<Page, StorageError> {
    let slot = section.slot + u64::from(part);
    let missing = || StorageError::corrupt(format!("slot {slot} of a page of ids is empty"));
    let bytes = slots.slot(slot)?.ok_or_else(missing)?;
    let part = Part { ordinal, section: section.number, number: part };
    Page::decode(part, &bytes).map_err(StorageError::corrupt)
}

impl Merge {
    /// A merge of the runs with these numbers, into the one with the number `output`.
    pub(super) fn new(runs: &Runs, inputs: Vec<u64>, output: u64) -> Self {
        let merged = || inputs.iter().filter_map(|number| runs.get(*number));
        let in_run = |run: &Run| {
            let number = run.number;
            run.sections.iter().map(move |section| (number, *section)).collect::<Vec<_>>()
        };
        let mut queue: Vec<InRun> = merged().flat_map(in_run).collect();
        queue.sort_unstable_by_key(|(_, section)| std::cmp::Reverse(section.first));
        let left = merged().map(|run| run.ids).sum();
        Self {
            inputs,
            output,
            left,
            queue,
            open: Vec::new(),
            entries: Vec::new(),
            read: Vec::new(),
            last: None,
            ordinal: runs.ordinal,
            seed: runs.seed,
        }
    }

    /// Whether all is written.
    pub(super) fn is_done(&self) -> bool {
        self.queue.is_empty() && self.open.is_empty()
    }

    /// Whether it reads or writes the run with this number.
    pub(super) fn has(&self, run: u64) -> bool {
        self.output == run || self.inputs.contains(&run)
    }

    /// Continues until that has cost `ids_max`, or a section more. New sections are numbered from `next` on. After an
    /// error the merge must be abandoned.
    pub(super) fn step(
        &mut self,
        ids_max: u64,
        next: u64,
        slots: &dyn Slots,
    ) -> Result<Output, StorageError> {
        let mut output = Output::default();
        while output.cost < ids_max && !self.is_done() {
            if let Some(alone) = self.take_alone() {
                output.cost += MOVE_COST;
                self.left = self.left.saturating_sub(u64::from(alone.1.count));
                output.moved.push(alone);
                continue;
            }
            self.read_section(slots)?;
            output.cost += self.entries.len() as u64;
            self.left = self.left.saturating_sub(self.entries.len() as u64);
            let number = next + output.built.len() as u64;
            output.built.extend(build(self.ordinal, number, self.seed, &self.entries));
            self.entries.clear();
            output.gone.append(&mut self.read);
        }
        Ok(output)
    }

    /// The next section, if it overlaps neither what is being read nor the one after it.
    fn take_alone(&mut self) -> Option<InRun> {
        let [rest @ .., (_, section)] = &self.queue[..] else { return None };
        let overlapped = rest.last().is_some_and(|(_, next)| next.first <= section.last);
        if overlapped || !self.open.is_empty() { None } else { self.queue.pop() }
    }

    /// Reads as much as a section holds, or up to where nothing overlaps.
    fn read_section(&mut self, slots: &dyn Slots) -> Result<(), StorageError> {
        while self.entries.len() < SECTION_IDS_MAX {
            let Some(at) = self.least(slots)? else { break };
            let open = &mut self.open[at];
            // What an abandoned merge had written is in two runs.
            if self.last != Some(open.next.0) {
                self.entries.push(open.next);
                self.last = Some(open.next.0);
            }
            if !open.advance(self.ordinal, slots)? {
                let open = self.open.swap_remove(at);
                self.read.push((open.run, open.section));
            }
        }
        Ok(())
    }

    /// The open section with the least next entry, after opening all that begin before it; none if nothing overlaps
    /// what was read.
    fn least(&mut self, slots: &dyn Slots) -> Result<Option<usize>, StorageError> {
        loop {
            let least = self.open.iter().enumerate().min_by_key(|(_, open)| open.next);
            let least = least.map(|(at, open)| (at, open.next.0));
            let opened = self.queue.pop_if(|(_, section)| match least {
                Some((_, id)) => section.first <= id,
                None => self.entries.is_empty(),
            });
            match opened {
                Some(opened) => self.open.push(Open::new(opened, self.ordinal, slots)?),
                None => return Ok(least.map(|(at, _)| at)),
            }
        }
    }
}
