//! Finds ids: in memory, and where that is not enough, on disk.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;

use super::above::Above;
use super::cache::{Cache, Cached, Key};
use super::hash::Seed;
use super::head::Head;
use super::page::Page;
use super::part::Part;
use super::record::Section;
use super::runs::Runs;
use super::tail::Tail;
use super::{SEAL_IDS_MAX, SEAL_IDS_MIN, Slots};
use crate::model::{EntryId, Sequence};
use crate::storage::sled::value::Malformed;
use crate::storage::{Probed, StorageError};

/// How often a lookup begins again because a merge was faster.
pub(super) const TRIES: usize = 8;

/// What is known about a store's ids without the disk.
#[derive(Debug)]
pub(super) struct Known {
    tail: Tail,
    runs: Arc<Runs>,
    /// Entries up to here are in `runs`. While the index is rebuilt, those between here and the tail are in neither.
    sealed: Sequence,
    /// Some of these, which are sealed next, with the first one's sequence.
    again: Option<(Sequence, Vec<EntryId>)>,
    /// What is wrong with the index, if something is.
    damage: Option<Arc<str>>,
}

/// Why it is not known whether a store has an id.
#[derive(Debug)]
pub(crate) enum Unknown {
    /// Some entries are not indexed: see [`Ids::gap`](super::Ids::gap).
    Gap,
    /// The index with this seed is damaged, and has to be rebuilt.
    Damaged(Seed, Arc<str>),
    /// It cannot be read.
    Failed(StorageError),
}

/// A lookup that has begun: what the tail said, and where to look for the rest.
#[derive(Debug)]
pub(super) struct Begun {
    answers: Vec<Option<Sequence>>,
    runs: Arc<Runs>,
}

/// Where heads and pages come from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) cache: &'a Cache,
    /// Without it, what is not in the cache is not looked at.
    pub(super) slots: Option<&'a dyn Slots>,
}

/// Why a search did not complete.
#[derive(Debug)]
pub(super) enum Stop {
    /// A section was merged with others since it was found.
    Gone,
    Damaged(Arc<str>),
    Failed(StorageError),
}

/// An id that was not found yet.
struct Wanted {
    id: EntryId,
    hash: u64,
    /// Its position among the requested ids.
    at: usize,
}

impl Known {
    /// For a store whose entries up to `sealed` are in `runs`; those from `next` on have to be pushed.
    pub(super) fn new(sealed: Sequence, runs: Arc<Runs>, next: Sequence) -> Self {
        Self { tail: Tail::new(next), runs, sealed, again: None, damage: None }
    }

    #[cfg(test)]
    pub(super) fn in_memory(&self) -> usize {
        self.tail.len() + self.again.as_ref().map_or(0, |(_, ids)| ids.len())
    }

    /// The seed of the index.
    pub(super) fn seed(&self) -> Seed {
        self.runs.seed
    }

    /// The first entries that are neither in the runs nor in the tail, as many as can be sealed at once.
    pub(super) fn gap(&self) -> Option<RangeInclusive<Sequence>> {
        let (first, behind) = (self.sealed.next(), self.tail.first());
        let last = behind.prev().min(self.sealed.plus(SEAL_IDS_MAX as u64));
        (first < behind).then_some(first..=last)
    }

    /// These are the ids of the entries from `first` on. Ignored if the gap no longer begins there.
    pub(super) fn fill(&mut self, first: Sequence, ids: Vec<EntryId>) {
        if self.gap().is_some_and(|gap| *gap.start() == first) {
            self.again = Some((first, ids));
        }
    }

    /// Nothing is answered any more until the index is rebuilt.
    pub(super) fn give_up(&mut self, finding: Arc<str>) {
        self.damage = Some(finding);
    }

    /// These runs replace what was given up.
    pub(super) fn begin_again(&mut self, runs: Arc<Runs>) {
        self.damage = None;
        self.sealed(Sequence::ZERO, runs);
    }

    /// Adds the id of the next entry.
    pub(super) fn push(&mut self, id: EntryId) {
        self.tail.push(id);
    }

    /// Whether there is something to seal, of entries up to `to`: [`SEAL_IDS_MIN`], or something that fills a gap.
    pub(super) fn is_due(&self, to: Sequence) -> bool {
        match self.gap() {
            Some(_) => self.again.is_some(),
            None => to.since(self.sealed) >= SEAL_IDS_MIN as u64,
        }
    }

    /// Ids to seal, of entries after the last sealed one, up to `to`, if that [is due](Known::is_due).
    pub(super) fn to_seal(&self, to: Sequence) -> Option<Vec<EntryId>> {
        if self.gap().is_some() {
            return self.again.as_ref().map(|(_, ids)| ids.clone());
        }
        let count = to.since(self.sealed).min(SEAL_IDS_MAX as u64);
        self.is_due(to).then(|| self.tail.ids(self.sealed.next(), self.sealed.plus(count)))
    }

    /// Entries up to `to` are in `runs`.
    pub(super) fn sealed(&mut self, to: Sequence, runs: Arc<Runs>) {
        self.runs = runs;
        self.sealed = to;
        self.again.take_if(|(first, _)| *first != to.next());
        self.tail.forget(to);
    }

    /// Begins a lookup of `ids`.
    pub(super) fn begin(&mut self, ids: &[EntryId]) -> Result<Begun, Unknown> {
        if let Some(finding) = &self.damage {
            return Err(Unknown::Damaged(self.seed(), finding.clone()));
        }
        if self.gap().is_some() {
            return Err(Unknown::Gap);
        }
        // Both at once: what leaves the tail is in the runs.
        let answers = ids.iter().map(|id| self.tail.find(*id)).collect();
        Ok(Begun { answers, runs: self.runs.clone() })
    }

    /// The newest entries that `above` asks for, and where to look for the others. `None` while that is not known for
    /// all ids.
    pub(super) fn begin_above(&self, above: &Above) -> Option<(Vec<Sequence>, Arc<Runs>)> {
        let all = self.damage.is_none() && self.gap().is_none();
        all.then(|| (self.tail.above(above.id, above.before), self.runs.clone()))
    }
}

/// The sequence of each id that the store has, as far as that can be told without the disk.
pub(super) fn probe(ids: &[EntryId], cache: &Cache, begun: Begun) -> Probed {
    let Begun { answers: mut known, runs } = begun;
    let searched = runs.search(ids, &mut known, Source { cache, slots: None });
    // After an error, a lookup finds out more.
    let mut open = searched.unwrap_or_else(|_| (0..ids.len()).collect());
    open.retain(|at| known[*at].is_none());
    open.sort_unstable();
    open.dedup();
    Probed { known, open }
}

/// The sequence of each id, if the store has it. `begin` calls [`Known::begin`], under the lock that protects it.
pub(super) fn lookup(
    ids: &[EntryId],
    cache: &Cache,
    slots: &dyn Slots,
    begin: impl Fn() -> Result<Begun, Unknown>,
) -> Result<Vec<Option<Sequence>>, Unknown> {
    let source = Source { cache, slots: Some(slots) };
    let mut tries = TRIES;
    loop {
        let Begun { mut answers, runs } = begin()?;
        tries -= 1;
        match runs.search(ids, &mut answers, source) {
            // With slots, nothing stays open.
            Ok(_) => return Ok(answers),
            Err(Stop::Failed(error)) => return Err(Unknown::Failed(error)),
            Err(Stop::Damaged(finding)) => return Err(Unknown::Damaged(runs.seed, finding)),
            Err(Stop::Gone) if tries > 0 => {}
            Err(Stop::Gone) => {
                return Err(Unknown::Damaged(runs.seed, "slots of ids are empty".into()));
            }
        }
    }
}

impl Runs {
    /// Fills in the missing answers. Returns the positions of ids that may be in something which is not in the cache, some
    /// of them repeatedly, if `source` has no slots.
    fn search(
        &self,
        ids: &[EntryId],
        answers: &mut [Option<Sequence>],
        source: Source<'_>,
    ) -> Result<Vec<usize>, Stop> {
        let mut open = Vec::new();
        let mut wanted = self.wanted(ids, answers);
        for run in self.iter() {
            if wanted.is_empty() {
                break;
            }
            let search = Search { runs: self, source, sections: &run.sections };
            if search.fill_in(&wanted, answers, &mut open)? {
                wanted.retain(|wanted| answers[wanted.at].is_none());
            }
        }
        Ok(open)
    }

    /// The unanswered ids that a section may have, ascending.
    fn wanted(&self, ids: &[EntryId], answers: &[Option<Sequence>]) -> Vec<Wanted> {
        let last = self.iter().filter_map(|run| run.sections.last()).map(|s| s.last).max();
        // Most ids of the current time end here.
        let Some(last) = last else { return Vec::new() };
        let missing = ids.iter().zip(answers).enumerate();
        let missing = missing.filter(|(_, (id, answer))| answer.is_none() && **id <= last);
        let wanted = missing.map(|(at, (id, _))| Wanted { id: *id, hash: self.seed.hash(*id), at });
        let mut wanted: Vec<Wanted> = wanted.collect();
        wanted.sort_unstable_by_key(|wanted| wanted.id);
        wanted
    }
}

/// A search in one run.
struct Search<'a> {
    runs: &'a Runs,
    source: Source<'a>,
    sections: &'a [Section],
}

/// A section of the run, and its head.
type Opened<'a> = (&'a Section, Arc<Head>);

/// An id that may be in a section.
struct Candidate<'a> {
    wanted: &'a Wanted,
    /// Its position among the opened ones.
    opened: usize,
    bucket: Range<usize>,
}

impl<'a> Search<'a> {
    /// Fills in the answers for those of `wanted`, which ascend, that the run has. True if there are any. Adds those to
    /// `open` for which something is not in the cache.
    fn fill_in(
        &self,
        wanted: &[Wanted],
        answers: &mut [Option<Sequence>],
        open: &mut Vec<usize>,
    ) -> Result<bool, Stop> {
        let (opened, mut candidates) = self.candidates(wanted, open)?;
        // Another such loop.
        candidates.retain(|candidate| {
            opened[candidate.opened].1.may_have(candidate.wanted.hash, candidate.bucket.clone())
        });
        let (mut found, mut last) = (false, None);
        for Candidate { wanted, opened: at, .. } in candidates {
            let (section, head) = &opened[at];
            let key = (at, head.page_of(wanted.id));
            let page = match last.take().filter(|(last, _)| *last == key) {
                Some((_, page)) => Some(page),
                None => self.source.page(self.runs, section, key.1)?,
            };
            let Some(page) = page else {
                open.push(wanted.at);
                continue;
            };
            answers[wanted.at] = page.find(wanted.id);
            found |= answers[wanted.at].is_some();
            last = Some((key, page));
        }
        Ok(found)
    }

    /// Those of `wanted` that a section may have, as far as its sieve tells, and these sections.
    fn candidates<'w>(
        &self,
        wanted: &'w [Wanted],
        open: &mut Vec<usize>,
    ) -> Result<(Vec<Opened<'a>>, Vec<Candidate<'w>>), Stop> {
        let mut opened: Vec<Opened<'a>> = Vec::new();
        let mut candidates = Vec::new();
        let (mut sections, mut rest) = (self.sections, wanted);
        while let Some(next) = rest.first() {
            sections = &sections[ahead(sections, |section| section.last < next.id)..];
            let Some(section) = sections.first() else { break };
            let (here, later) = rest.split_at(ahead(rest, |wanted| wanted.id <= section.last));
            rest = later;
            let here = &here[ahead(here, |wanted| wanted.id < section.first)..];
            if here.is_empty() {
                continue;
            }
            let Some(head) = self.source.head(self.runs, section)? else {
                open.extend(here.iter().map(|wanted| wanted.at));
                continue;
            };
            // A loop with little in it: the processor waits for the memory of several at a time.
            let passed = here.iter().filter(|wanted| head.sieve(wanted.hash));
            candidates.extend(passed.map(|wanted| Candidate {
                wanted,
                opened: opened.len(),
                bucket: head.bucket(wanted.hash),
            }));
            opened.push((section, head));
        }
        Ok((opened, candidates))
    }
}

/// The first item for which `is_before` is false, as is for all behind it. Fast if it is among the first.
fn ahead<T>(items: &[T], is_before: impl Fn(&T) -> bool) -> usize {
    let (mut from, mut step) = (0, 1);
    while items.get(from + step - 1).is_some_and(&is_before) {
        from += step;
        step *= 2;
    }
    let to = (from + step).min(items.len());
    from + items[from..to].partition_point(is_before)
}

impl Source<'_> {
    /// `None` if it is not in the cache, and there are no slots.
    pub(super) fn head(&self, runs: &Runs, section: &Section) -> Result<Option<Arc<Head>>, Stop> {
        let cached = self.part(runs, section, 0, |part, bytes| {
            let head = Head::decode(part, bytes)?;
            let is_its_head = head.is_of(section);
            is_its_head
                .then(|| Cached::Head(Arc::new(head)))
                .ok_or(Malformed("head of ids: it is another section's"))
        })?;
        match cached {
            Some(Cached::Head(head)) => Ok(Some(head)),
            Some(Cached::Page(_)) => Err(mixed_up(section)),
            None => Ok(None),
        }
    }

    /// `None` if it is not in the cache, and there are no slots.
    pub(super) fn page(
        &self,
        runs: &Runs,
        section: &Section,
        number: usize,
    ) -> Result<Option<Arc<Page>>, Stop> {
        // The head comes before the pages.
        let cached = self.part(runs, section, number as u32 + 1, |part, bytes| {
            Page::decode(part, bytes).map(|page| Cached::Page(Arc::new(page)))
        })?;
        match cached {
            Some(Cached::Page(page)) => Ok(Some(page)),
            Some(Cached::Head(_)) => Err(mixed_up(section)),
            None => Ok(None),
        }
    }

    fn part(
        &self,
        runs: &Runs,
        section: &Section,
        part: u32,
        decode: impl Fn(Part, &Bytes) -> Result<Cached, Malformed>,
    ) -> Result<Option<Cached>, Stop> {
        let key = Key { seed: runs.seed.tag(), section: section.number, part };
        if let Some(cached) = self.cache.get(key) {
            return Ok(Some(cached));
        }
        let Some(slots) = self.slots else { return Ok(None) };
        let slot = section.slot + u64::from(part);
        let bytes = slots.slot(slot).map_err(Stop::Failed)?.ok_or(Stop::Gone)?;
        let part = Part { ordinal: runs.ordinal, section: section.number, number: part };
        let cached = decode(part, &bytes);
        let cached = cached.map_err(|error| Stop::Damaged(error.to_string().into()))?;
        self.cache.insert(key, cached.clone());
        Ok(Some(cached))
    }
}

fn mixed_up(section: &Section) -> Stop {
    let slot = section.slot;
    Stop::Damaged(format!("slot {slot} is both a head and a page of ids").into())
}
