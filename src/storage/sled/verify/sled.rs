//! Reads sled: the stores, their entries and the indexes of their ids.

use std::collections::HashMap;

use super::{Expected, Verifier};
use crate::model::Sequence;
use crate::storage::StorageError;
use crate::storage::commit_log::Position;
use crate::storage::sled::gaps::Gaps;
use crate::storage::sled::ids::Check;
use crate::storage::sled::options::{DatabaseOptions, OpenFailure};
use crate::storage::sled::segments::Reader;
use crate::storage::sled::tree::{self, Facts, Trees};
use crate::storage::sled::value::segment::Bare;
use crate::storage::sled::value::store;
use crate::storage::sled::watch;

impl Verifier<'_> {
    /// Reads sled, which nobody else may have open.
    pub(super) fn sled(&mut self, options: &DatabaseOptions) -> Result<(), OpenFailure> {
        let path = self.files.database();
        if !self.files.database_log().try_exists()? {
            self.fault(&path, None, "it is missing");
            return Ok(());
        }
        let trees = match tree::open(self.files, options, 0) {
            Ok(trees) => trees,
            Err(OpenFailure::Io(error)) => return Err(error.into()),
            Err(OpenFailure::Corrupt(finding) | OpenFailure::Refused(finding)) => {
                self.fault(&path, None, finding);
                return Ok(());
            }
        };
        let read = tree::guarded(|| self.trees(&trees));
        tree::close(trees)?;
        match read {
            Err(OpenFailure::Corrupt(finding) | OpenFailure::Refused(finding)) => {
                self.fault(&path, None, finding);
                Ok(())
            }
            read => read,
        }
    }

    fn trees(&mut self, trees: &Trees) -> Result<(), OpenFailure> {
        let facts = Facts::read_or_make(trees, self.files)?;
        let position = Position(facts.checkpoint.unwrap_or(0));
        match watch::compare(self.files.directory(), trees, &facts, position) {
            Err(OpenFailure::Corrupt(finding)) => self.fault(&self.files.database(), None, finding),
            compared => drop(compared?),
        }
        let mut counted = HashMap::new();
        for record in tree::store_records(trees, None) {
            let (name, record) = record?;
            counted.extend(record.head.map(|head| (record.ordinal, head)));
            self.found.stores += 1;
            for finding in
                self.store(trees, &record).unwrap_or_else(|error| vec![error.to_string()])
            {
                self.fault(&self.files.database(), Some(&name), finding);
            }
            if let Some(head) = record.head {
                let expected = Expected { head, hash: record.hash, name: Some(name) };
                self.expected.insert(record.ordinal, expected);
            }
        }
        self.counted = Some(counted);
        Ok(())
    }

    /// Reads the entries of a store and the index of their ids. Returns what is wrong with them.
    fn store(
        &mut self,
        trees: &Trees,
        record: &store::StoreRecord,
    ) -> Result<Vec<String>, StorageError> {
        let reader = Reader { tree: trees.log(), ordinal: record.ordinal };
        let found = reader.find(Sequence::MAX)?;
        let last = found.map_or(Sequence::ZERO, |found| found.last());
        if let Some(head) = record.head.filter(|head| *head != last) {
            let finding = format!("it ends with entry {last}, not with {head}");
            return Err(StorageError::corrupt(finding));
        }
        let in_tree = record.gaps.place(last);
        let index = reader.ids().and_then(|index| index.checked(in_tree));
        let mut gaps = Gaps::default();
        let mut check = index.as_ref().ok().map(Check::new);
        let mut next = Sequence::FIRST;
        let trimmed = record.trimmed;
        while next <= last {
            let is_bare = reader.find(next)?.is_some_and(|found| found.record.bare == Bare::All);
            let segment = reader.segment(next)?;
            let is_swept = segment.last() <= trimmed.swept;
            if is_bare != is_swept && !segment.is_gap() {
                let finding =
                    format!("entry {next} has content or lacks it, contrary to what is trimmed");
                return Err(StorageError::corrupt(finding));
            }
            if segment.first() != next {
                let first = segment.first();
                let finding = format!("entry {next} is in a segment from {first} on");
                return Err(StorageError::corrupt(finding));
            }
            self.found.entries +=
                (segment.ids().filter(|(at, _)| *at > trimmed.last)).count() as u64;
            if segment.is_gap() {
                gaps.add(&segment);
            }
            for (sequence, id) in segment.ids() {
                let place = gaps.place(sequence);
                check.iter_mut().for_each(|check| check.entry(id, place));
            }
            next = segment.last().next();
        }
        if gaps != record.gaps {
            return Err(StorageError::corrupt("its record speaks of other gaps than it has"));
        }
        let checked = check.map_or(Ok(()), |check| check.finish(&reader));
        Ok(checked.err().into_iter().chain(index.err().map(|error| error.to_string())).collect())
    }
}
