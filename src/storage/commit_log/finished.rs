//! A file to which nothing will be added, and its frames.

use std::fs::File;
use std::path::PathBuf;

use super::header::{Header, NoHeader};
use super::scan::{FileScan, Next};
use super::{DamageKind, Found, FoundFrame, Generation, LogDamage, LogError, Place, Position};

/// A file to which nothing will be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FinishedFile {
    /// Its number.
    pub(crate) number: u64,
    /// Its path.
    pub(crate) path: PathBuf,
    /// The number of its first frame.
    pub(crate) first: Position,
    /// The number of its last frame; one less than `first` if it has none.
    pub(crate) last: Position,
}

impl FinishedFile {
    /// Passes all frames from the one at `from`, or the first, and what is missing of them, to `visit`, in order.
    pub(crate) fn read<E: From<LogError>>(
        &self,
        generation: Generation,
        from: Option<Place>,
        mut visit: impl FnMut(Found<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let from = from.unwrap_or(Place::first(self.first));
        if self.last < from.position {
            return Ok(());
        }
        let file = File::open(&self.path).map_err(LogError::from)?;
        let header = match Header::read(&file, self.number, generation).map_err(LogError::from)? {
            Ok(header) => header,
            // It was begun, or it would not be finished.
            Err(NoHeader::NotBegun) => {
                let kind = DamageKind::Header;
                return visit(Found::Damage(&self.damage(None, kind, from.position, self.last)));
            }
            Err(NoHeader::Damaged(kind)) => {
                return visit(Found::Damage(&self.damage(None, kind, from.position, self.last)));
            }
            Err(NoHeader::Version(version)) => {
                return Err(LogError::UnknownVersion { file: self.number, version }.into());
            }
        };
        let scan = FileScan::at(&file, &header, from).map_err(LogError::from)?;
        let mut scan = scan.past_cache(&self.path);
        while scan.position() <= self.last {
            let expected = scan.position();
            match scan.next(Some(self.last.next())) {
                Next::Frame { position, time } => {
                    let body = scan.body();
                    visit(Found::Frame(FoundFrame { position, time_ms: time, body }))?;
                }
                Next::Gap { fault, to } => {
                    let damage = self.damage(Some(fault.place), fault.kind, expected, to);
                    visit(Found::Damage(&damage))?;
                }
                Next::End { place, fault } => {
                    let kind = fault.map_or(DamageKind::BlockMissing, |fault| fault.kind);
                    let damage = self.damage(Some(place), kind, expected, self.last);
                    return visit(Found::Damage(&damage));
                }
            }
        }
        Ok(())
    }

    fn damage(
        &self,
        block: Option<u32>,
        kind: DamageKind,
        from: Position,
        to: Position,
    ) -> LogDamage {
        LogDamage { file: self.number, block, kind, from, to: Some(to) }
    }
}
