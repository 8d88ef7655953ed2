//! Goes through the files of a log in order, and decides what they hold together.
//!
//! Keeps: what a later file says about where an earlier one ends, what was noted about the end, and what is known from
//! elsewhere must all hold; otherwise the missing frames are named. Damage that affects only frames that nobody asks
//! for is mentioned in the server's log and otherwise ignored.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use super::acked::{self, Note};
use super::block::BLOCK_BYTES;
use super::header::{Header, NoHeader};
use super::open::{Found, FoundFrame};
use super::scan::{Fault, FileScan, Next};
use super::{DamageKind, LogDamage, LogError, LogOptions, Position, folder};

/// What the walk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To continue the log: what is found is synced, and repaired bits are written back.
    Open,
    /// To look at it: nothing is written.
    Verify,
    /// The same, while it is written to: this frame was the last one before the walk began, and the walk ends with it.
    Running(Position),
}

/// What was found.
pub(super) struct Walked {
    /// The last frame, including lost ones that the caller accepted.
    pub(super) last: Position,
    /// The time of the last frame that was read.
    pub(super) time: u64,
    /// The files, by number and first frame.
    pub(super) files: Vec<(u64, Position)>,
    /// The files that were named ahead of time, and are not begun.
    pub(super) ahead: Vec<u64>,
    /// The least number that no file had.
    pub(super) next_file: u64,
    /// How many blocks were repaired.
    pub(super) repaired: u64,
}

/// Passes to `visit` every frame after `from`, and all damage that affects one of those.
pub(super) fn walk<E: From<LogError>>(
    options: &LogOptions,
    from: Position,
    seen: Position,
    purpose: Purpose,
    visit: impl FnMut(Found<'_>) -> Result<(), E>,
) -> Result<Walked, E> {
    // This comes first, so that what is appended meanwhile is not reported as missing when a running server is looked
    // at.
    let note = acked::read(&options.folder, options.generation).map_err(LogError::from)?;
    let mut chain = Chain::read(options, purpose)?;
    if let Purpose::Running(last) = purpose {
        chain.good.retain(|file| file.header.first <= last.next());
    }
    let mut walk = Walk { from, purpose, visit, last: from, time: 0, repaired: 0 };
    let end = walk.files(&chain)?;
    walk.judge_end(&chain, end, note, seen)?;
    let noted_file = note.map_or(0, |note| note.file);
    let next_file = chain.last_number().max(noted_file) + 1;
    let Walk { last, time, repaired, .. } = walk;
    let (files, ahead) = (chain.by_first(last.next()), chain.ahead);
    Ok(Walked { last, time, files, ahead, next_file, repaired })
}

/// The files of a log.
struct Chain {
    /// Those with a valid header, by number.
    good: Vec<GoodFile>,
    /// The others.
    bad: Vec<(u64, DamageKind)>,
    /// Those that were named ahead of time, and are not begun.
    ahead: Vec<u64>,
}

struct GoodFile {
    file: File,
    header: Header,
}

impl Chain {
    fn read(options: &LogOptions, purpose: Purpose) -> Result<Self, LogError> {
        let mut chain = Self { good: Vec::new(), bad: Vec::new(), ahead: Vec::new() };
        let names = match folder::list(&options.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(chain),
            names => names?,
        };
        for number in names.files {
            let path = folder::file(&options.folder, number);
            let file = OpenOptions::new().read(true).write(purpose == Purpose::Open).open(path)?;
            let least = chain.good.last().map_or(Position(0), |before| before.header.first);
            match Header::read(&file, number, options.generation)? {
                Ok(header) if header.first >= least => chain.good.push(GoodFile { file, header }),
                Ok(_) => chain.bad.push((number, DamageKind::Header)),
                Err(NoHeader::Damaged(kind)) => chain.bad.push((number, kind)),
                Err(NoHeader::NotBegun) => chain.ahead.push(number),
                Err(NoHeader::Version(version)) => {
                    return Err(LogError::UnknownVersion { file: number, version });
                }
            }
        }
        Ok(chain)
    }

    fn last_number(&self) -> u64 {
        let good = self.good.last().map_or(0, |file| file.header.file);
        let bad = self.bad.last().map_or(0, |(bad, _)| *bad);
        good.max(bad).max(self.last_ahead())
    }

    fn last_ahead(&self) -> u64 {
        self.ahead.last().copied().unwrap_or(0)
    }

    /// What is wrong between two files that leave frames out, if it is not in one of the two: a file that cannot be
    /// read, or that is missing.
    fn fault_between(&self, before: u64, behind: u64) -> Option<(u64, DamageKind)> {
        let bad = self.bad.iter().find(|(number, _)| (before + 1..behind).contains(number));
        bad.copied().or((before + 1 < behind).then_some((before + 1, DamageKind::FileMissing)))
    }

    /// All files by number and first frame. A file that cannot be read counts for none: the caller accepted its loss.
    fn by_first(&self, next: Position) -> Vec<(u64, Position)> {
        let first = |number: u64| {
            let behind = self.good.iter().find(|file| file.header.file >= number);
            behind.map_or(next, |file| file.header.first)
        };
        let good = self.good.iter().map(|file| file.header.file);
        let mut numbers: Vec<u64> =
            good.chain(self.bad.iter().map(|(number, _)| *number)).collect();
        numbers.sort_unstable();
        numbers.into_iter().map(|number| (number, first(number))).collect()
    }
}

/// How the last file ends.
struct End {
    file: u64,
    place: u32,
    fault: Option<Fault>,
    /// Its last frame.
    reached: Position,
    /// The highest number on any block after that.
    highest: Position,
}

struct Walk<V> {
    from: Position,
    purpose: Purpose,
    visit: V,
    /// The last frame that was read, skipped, or lost.
    last: Position,
    time: u64,
    repaired: u64,
}

impl<V> Walk<V> {
    /// Goes through the files that have frames after `from`.
    fn files<E: From<LogError>>(&mut self, chain: &Chain) -> Result<Option<End>, E>
    where
        V: FnMut(Found<'_>) -> Result<(), E>,
    {
        let wanted = chain.good.partition_point(|file| file.header.first <= self.from.next());
        let start = wanted.saturating_sub(1);
        if let Some(first) = chain.good.first().filter(|_| wanted == 0) {
            let number = first.header.file;
            let bad = chain.bad.iter().rfind(|(bad, _)| *bad < number).copied();
            let (file, kind) = bad.unwrap_or((number.saturating_sub(1), DamageKind::FileMissing));
            self.lost(file, None, kind, self.from.next(), Some(first.header.first.before()))?;
        }
        let mut end = None;
        for (index, file) in chain.good.iter().enumerate().skip(start) {
            end = self.file(chain, file, chain.good.get(index + 1).map(|next| &next.header))?;
        }
        Ok(end)
    }

    /// Goes through one file, which ends before the first frame of the `next` one; returns how it ends if it is the
    /// last.
    fn file<E: From<LogError>>(
        &mut self,
        chain: &Chain,
        GoodFile { file, header }: &GoodFile,
        next: Option<&Header>,
    ) -> Result<Option<End>, E>
    where
        V: FnMut(Found<'_>) -> Result<(), E>,
    {
        self.make_durable(file, next.is_none()).map_err(LogError::from)?;
        self.time = self.time.max(header.time);
        let until = next.map(|next| next.first).or(self.last_of_running().map(Position::next));
        let mut scan = FileScan::new(file, header).map_err(LogError::from)?;
        loop {
            let expected = scan.position();
            match scan.next(until) {
                Next::Frame { position, time } => {
                    self.frame(FoundFrame { position, time_ms: time, body: scan.body() })?;
                    self.put_right(file, header, &mut scan);
                }
                Next::Gap { fault, to } => {
                    self.lost(header.file, Some(fault.place), fault.kind, expected, Some(to))?;
                }
                Next::End { place, fault } => {
                    let Some(next) = next else {
                        let (reached, highest) = (expected.before(), scan.highest());
                        return Ok(Some(End { file: header.file, place, fault, reached, highest }));
                    };
                    if expected < next.first {
                        let here = Fault { place, kind: DamageKind::BlockMissing };
                        let here = fault.unwrap_or(here);
                        let between = chain.fault_between(header.file, next.file);
                        let (file, block, kind) = between
                            .map_or((header.file, Some(here.place), here.kind), |(file, kind)| {
                                (file, None, kind)
                            });
                        self.lost(file, block, kind, expected, Some(next.first.before()))?;
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// Decides whether the log can end where it does.
    fn judge_end<E: From<LogError>>(
        &mut self,
        chain: &Chain,
        end: Option<End>,
        note: Option<Note>,
        seen: Position,
    ) -> Result<(), E>
    where
        V: FnMut(Found<'_>) -> Result<(), E>,
    {
        let last_file = end.as_ref().map_or(0, |end| end.file);
        let note = note.unwrap_or(Note { file: 0, position: Position(0), closed: false });
        let known = self.from.max(seen).max(note.position);
        let known = self.last_of_running().map_or(known, |last| last.min(known));
        // Files that were begun since are not looked at.
        let there = last_file.max(chain.last_ahead());
        let is_behind = there < note.file && self.last_of_running().is_none();
        let missing =
            (is_behind || last_file == 0).then_some((note.file.max(1), DamageKind::FileMissing));
        let unread = chain.bad.iter().find(|(number, _)| *number > last_file).copied();
        let fault = end.as_ref().and_then(|end| {
            let early = Fault { place: end.place, kind: DamageKind::BlockMissing };
            end.fault.or((end.reached < known).then_some(early))
        });
        let (file, block, kind) = match (unread.or(missing), fault) {
            (Some((file, kind)), _) => (file, None, kind),
            (None, Some(fault)) => (last_file, Some(fault.place), fault.kind),
            (None, None) => return Ok(()),
        };
        // If the log was closed, nothing came after that: then it is known what is missing, if anything. Not so if the
        // note is from before the log was continued.
        let closed = note.closed && last_file <= note.file && known.max(self.last) == note.position;
        self.lost(file, block, kind, self.last.next(), closed.then_some(note.position))?;
        let highest = end.filter(|_| !closed).map_or(Position(0), |end| end.highest);
        self.last = self.last.max(known).max(highest);
        Ok(())
    }

    fn last_of_running(&self) -> Option<Position> {
        match self.purpose {
            Purpose::Running(last) => Some(last),
            Purpose::Open | Purpose::Verify => None,
        }
    }

    fn frame<E>(&mut self, frame: FoundFrame<'_>) -> Result<(), E>
    where
        V: FnMut(Found<'_>) -> Result<(), E>,
    {
        self.time = self.time.max(frame.time_ms);
        if frame.position > self.from {
            (self.visit)(Found::Frame(frame))?;
            self.last = frame.position;
        }
        Ok(())
    }

    /// The frames from `from` to `to` are missing.
    fn lost<E>(
        &mut self,
        file: u64,
        block: Option<u32>,
        kind: DamageKind,
        from: Position,
        to: Option<Position>,
    ) -> Result<(), E>
    where
        V: FnMut(Found<'_>) -> Result<(), E>,
    {
        let damage = LogDamage { file, block, kind, from: from.max(self.from.next()), to };
        if to.is_some_and(|to| to < damage.from) {
            log::warn!(
                "log file {file:08}.log is damaged ({kind:?}); nothing that is needed was lost"
            );
            return Ok(());
        }
        (self.visit)(Found::Damage(&damage))?;
        self.last = to.unwrap_or(self.last);
        Ok(())
    }

    /// Everything that is returned has to be on disk; and in the last file, read from there.
    fn make_durable(&self, file: &File, last: bool) -> io::Result<()> {
        if self.purpose == Purpose::Open {
            file.sync_data()?;
            if last {
                folder::forget_cached(file)?;
            }
        }
        Ok(())
    }

    /// Writes back the repaired blocks of a whole frame: a second wrong bit would be one too many.
    fn put_right(&mut self, file: &File, header: &Header, scan: &mut FileScan<'_>) {
        for (place, block) in scan.take_repaired() {
            self.repaired += 1;
            log::warn!(
                "log file {:08}.log: one bit of block {place} was changed; it is repaired",
                header.file
            );
            if self.purpose == Purpose::Open {
                let written = file.write_all_at(&block, u64::from(place) * BLOCK_BYTES as u64);
                if let Err(error) = written.and_then(|()| file.sync_data()) {
                    log::warn!("writing that block: {error}");
                }
            }
        }
    }
}
