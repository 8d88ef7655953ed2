//! What a checkpoint writes, a portion at a time.

use std::io;
use std::sync::Arc;

use super::Checkpointer;
use super::staged::Staged;
use crate::model::Sequence;
use crate::storage::sled::ends::{End, Ends};
use crate::storage::sled::keyspace::Keyspace;
use crate::storage::sled::ops::Ops;
use crate::storage::sled::segments::Portion;
use crate::storage::sled::steps::{self, Step};
use crate::storage::sled::tables::TableChanges;
use crate::storage::sled::tree::{self, Trees};

/// The size of a portion in bytes; more only if one piece, or what is merged with it, is larger. Larger portions need
/// fewer syncs, but commits and reads wait longer for one. And sled writes a portion at once: from some MiB on the
/// kernel takes whole 2 MiB pages for that, which a virtual machine may first have to get from its host.
const PORTION_BYTES: usize = 3 << 19;

impl Checkpointer {
    /// Writes to sled everything that is in memory when it begins, but does not record that there.
    pub(crate) fn write_all(&mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let trees = shared.access.open_trees().map_err(io::Error::other)?;
        let mut ends = Taken::new(&shared.ends);
        while ends.written < ends.all.len() {
            self.write_stores(&mut ends, &trees)?;
        }
        for table in Keyspace::TABLES {
            let mut taken: Option<TableChanges> = None;
            loop {
                let after = taken.as_ref().and_then(TableChanges::last_key);
                taken = shared.tables.for_checkpoint(table, after, PORTION_BYTES);
                let Some(taken) = &mut taken else { break };
                self.write(&trees, table, std::mem::take(&mut taken.ops))?;
                shared.tables.settle(taken);
            }
        }
        Ok(())
    }

    /// Writes a portion of the stores' entries.
    fn write_stores(&mut self, ends: &mut Taken<'_>, trees: &Trees) -> io::Result<()> {
        let shared = self.shared.clone();
        let mut portion = Portion::new(trees.log(), &mut self.arena);
        let (mut staged, mut next) = (Vec::new(), ends.written);
        let mut has_more = false;
        while !has_more
            && let Some((end, last)) = ends.all.get(next)
            && let Some(room) = PORTION_BYTES.checked_sub(portion.bytes()).filter(|room| *room > 0)
        {
            let places = (&shared.access, trees, shared.options.times_apart);
            let one =
                Staged::add((end, *last), room, places, &mut portion).map_err(io::Error::other)?;
            has_more = one.leaves_some_up_to(*last);
            staged.push(one);
            next += 1;
        }
        let ops = portion.finish();
        self.write(trees, Keyspace::Log, ops)?;
        for staged in staged {
            let (store, reached) = staged.reached();
            self.sweeps.extend(staged.to_sweep());
            self.count_sweeps();
            staged.settle(&shared.ends);
            if let Some(watch) = &mut self.watch {
                watch.reached(store, reached);
            }
        }
        // The rest of the last one belongs to the next portion.
        ends.written = next - usize::from(has_more);
        Ok(())
    }

    /// Applies `ops`, and syncs sled.
    fn write(&mut self, trees: &Trees, keyspace: Keyspace, ops: Ops) -> io::Result<()> {
        if ops.is_empty() {
            return Ok(());
        }
        let tables = match &mut self.watch {
            Some(watch) if keyspace != Keyspace::Log => {
                Some(watch.change_tables(trees, keyspace, &ops)?)
            }
            _ => None,
        };
        let copy = self.compaction.is_some().then(|| ops.clone());
        steps::take(self.shared.faults(), Step::Apply, || {
            if !self.is_marked {
                tree::apply_changing(trees)?;
            }
            if keyspace == Keyspace::Log {
                self.arena.place(trees.log())?;
            }
            Ok(ops.apply(trees.get(keyspace))?)
        })?;
        self.sync(trees)?;
        (self.changing, self.is_marked) = (true, true);
        self.mirror(keyspace, copy);
        if let (Some(watch), Some(tables)) = (&mut self.watch, tables) {
            watch.set_tables(tables);
        }
        Ok(())
    }
}

/// The stores that a checkpoint has to write, each up to the entry that was its last one: what comes meanwhile is left
/// for the next checkpoint, so this one ends however fast entries come. Stores that it does not get to are put back.
struct Taken<'a> {
    ends: &'a Ends,
    /// In the order of their keys, with their last entries at that time.
    all: Vec<(Arc<End>, Sequence)>,
    written: usize,
}

impl<'a> Taken<'a> {
    fn new(ends: &'a Ends) -> Self {
        let mut taken = ends.take_changed();
        taken.sort_by_key(|end| end.ordinal);
        // One that got more while it was being written was reported twice.
        taken.dedup_by_key(|end| end.ordinal);
        let with_last = |end: Arc<End>| {
            let last = end.last().unwrap_or(Sequence::ZERO);
            (end, last)
        };
        Self { ends, all: taken.into_iter().map(with_last).collect(), written: 0 }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.ends.put_back(self.all.drain(self.written..).map(|(end, _)| end));
    }
}
