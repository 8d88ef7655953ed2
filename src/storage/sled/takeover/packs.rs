//! Moves the contents of packs into segments of their stores.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::pack;
use crate::model::{Segment, Sequence};
use crate::storage::sled::files::Files;
use crate::storage::sled::key::Ordinal;
use crate::storage::sled::ops::Ops;
use crate::storage::sled::options::OpenFailure;
use crate::storage::sled::segments::{Arena, Layout, Portion, Reader};
use crate::storage::sled::tree::Trees;

/// How much is written at once, in bytes.
const PORTION_BYTES: usize = 2 << 20;
/// How many packs are removed at once.
const REMOVED_AT_ONCE: usize = 1_000;

/// Writes the entries in all packs as segments, then removes the packs.
pub(super) fn write_out(trees: &Trees, files: &Files) -> Result<(), OpenFailure> {
    let mut arena = Arena::open(trees.log())?;
    let mut ops = Portion::new(trees.log(), &mut arena);
    for (ordinal, pieces) in read_all(trees)? {
        let mut layout = Layout::default();
        layout.complete(&Reader { tree: trees.log(), ordinal }, None, trees.generation)?;
        let pieces = behind(ordinal, layout.last, pieces)?;
        if !pieces.is_empty() {
            layout.stage(ordinal, pieces, &mut ops);
        }
        if ops.bytes() >= PORTION_BYTES {
            let full = ops.finish();
            write(trees, files, &mut arena, full)?;
            ops = Portion::new(trees.log(), &mut arena);
        }
    }
    let last = ops.finish();
    write(trees, files, &mut arena, last)?;
    remove(trees, files)
}

/// What stores have in packs, each in order.
fn read_all(trees: &Trees) -> Result<BTreeMap<Ordinal, Vec<Segment>>, OpenFailure> {
    let mut stores: BTreeMap<Ordinal, Vec<Segment>> = BTreeMap::new();
    for item in trees.log().range(pack::keys()) {
        let pieces = pack::decode(&Bytes::from_owner(item?.1)).map_err(OpenFailure::corrupt)?;
        for (ordinal, piece) in pieces {
            stores.entry(ordinal).or_default().push(piece);
        }
    }
    // Numbers of packs were reused.
    stores.values_mut().for_each(|pieces| pieces.sort_by_key(Segment::first));
    Ok(stores)
}

/// Those of `pieces` that count: they follow `last` without a gap.
fn behind(
    ordinal: Ordinal,
    mut last: Sequence,
    pieces: Vec<Segment>,
) -> Result<Vec<Segment>, OpenFailure> {
    let mut counting = Vec::new();
    for piece in pieces {
        if piece.last() <= last {
            continue;
        }
        if piece.first() != last.next() {
            let first = piece.first();
            let finding = format!("in store number {ordinal}, entry {first} follows entry {last}");
            return Err(OpenFailure::Corrupt(finding));
        }
        last = piece.last();
        counting.push(piece);
    }
    Ok(counting)
}

pub(super) fn write(trees: &Trees, files: &Files, arena: &mut Arena, ops: Ops) -> io::Result<()> {
    arena.place(trees.log())?;
    ops.apply(trees.log())?;
    trees.flush()?;
    trees.sync(files)
}

fn remove(trees: &Trees, files: &Files) -> Result<(), OpenFailure> {
    loop {
        let mut ops = Ops::default();
        for key in trees.log().range(pack::keys()).keys().take(REMOVED_AT_ONCE) {
            ops.remove(key?);
        }
        if ops.is_empty() {
            return Ok(());
        }
        ops.apply(trees.log())?;
        trees.flush()?;
        trees.sync(files)?;
    }
}
