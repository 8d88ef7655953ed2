//! Compacts sled between checkpoints, one part at a time, on request.
//!
//! Keeps: checkpoints go first; any failure ends the compaction, and sled stays as it was. Leaves out: the copy
//! (`compact`).

use std::io;

use super::Checkpointer;
use crate::storage::Work;
use crate::storage::sled::compact::{self, Compaction};
use crate::storage::sled::keyspace::Keyspace;
use crate::storage::sled::ops::Ops;
use crate::storage::sled::options::OpenFailure;
use crate::storage::sled::steps::{self, Compact, Step};
use crate::storage::sled::tree;

impl Checkpointer {
    /// Begins a copy, unless one is being made.
    pub(super) fn begin_compaction(&mut self) {
        if self.compaction.is_some() {
            return;
        }
        let (shared, work) = (self.shared.clone(), Work::default());
        shared.compacting.lock().work = work.clone();
        let begun = steps::take(shared.faults(), Step::Compact(Compact::Begin), || Ok(()))
            .map_err(OpenFailure::from)
            .and_then(|()| Compaction::begin(&shared.files, &shared.options, work));
        match begun {
            Ok(compaction) => {
                log::info!("the database is being compacted");
                self.compaction = Some(compaction);
            }
            Err(failure) => self.end_compaction(Err(failure)),
        }
    }

    /// Copies a part, if a copy is being made. True if the copy should replace sled, which then has to be opened again.
    /// After an error it has to be opened again as well.
    pub(super) fn compact(&mut self) -> io::Result<bool> {
        let Some(compaction) = &mut self.compaction else { return Ok(false) };
        let shared = self.shared.clone();
        let copied = shared.access.open_trees().map_err(OpenFailure::from).and_then(|trees| {
            steps::take(shared.faults(), Step::Compact(Compact::Copy), || Ok(()))?;
            tree::guarded(|| Ok(compaction.copy(&shared.files, &trees)?))
        });
        match copied {
            Ok(false) => Ok(false),
            Ok(true) => self.complete_compaction(),
            Err(failure) => {
                self.end_compaction(Err(failure));
                Ok(false)
            }
        }
    }

    fn complete_compaction(&mut self) -> io::Result<bool> {
        // So that it can be compared with the witness.
        self.checkpoint()?;
        let Some(compaction) = self.compaction.take() else { return Ok(false) };
        let shared = self.shared.clone();
        let completed = shared.access.open_trees().map_err(OpenFailure::from).and_then(|trees| {
            let place = (&shared.files, shared.faults());
            compaction.complete(place, &trees, self.position)
        });
        if let Err(failure) = completed {
            self.end_compaction(Err(failure));
            return Ok(false);
        }
        // Readers of what is not in memory wait for a moment.
        shared.access.fail("the database is compacted".into());
        Ok(true)
    }

    /// The copy has replaced sled.
    pub(super) fn compacted(&mut self) {
        self.count_bytes();
        self.end_compaction(Ok(()));
        log::info!("the database is compacted");
    }

    /// `ops` were made in sled, and synced.
    pub(super) fn mirror(&mut self, keyspace: Keyspace, ops: Option<Ops>) {
        let Some((compaction, ops)) = self.compaction.as_mut().zip(ops) else { return };
        let mirrored = tree::guarded(|| Ok(compaction.mirror(keyspace, ops)?));
        if let Err(failure) = mirrored {
            self.end_compaction(Err(failure));
        }
    }

    /// Reports the result; unless it succeeded, nothing of the copy stays.
    pub(super) fn end_compaction(&mut self, ended: Result<(), OpenFailure>) {
        if let Some(compaction) = self.compaction.take() {
            compaction.close();
        }
        let shared = &self.shared;
        let failed = ended.err().map(io::Error::from);
        if let Some(failure) = &failed {
            log::warn!("the database is not compacted: {failure}");
            if let Err(error) = compact::abandon(&shared.files) {
                log::warn!("removing what was made of it: {error}");
            }
        }
        let mut state = shared.compacting.lock();
        state.running = false;
        state.failure = failed.map(|failure| failure.to_string().into());
    }
}
