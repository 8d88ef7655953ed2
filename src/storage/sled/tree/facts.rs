//! What sled says about the data directory itself.
//!
//! ```text
//! tree          meta
//! remote-id     16 bytes
//! generation    16 bytes, of the commit log: a log of another one is not this directory's
//! floor         8 bytes, big-endian: new stores begin after this sequence; missing for zero
//! changing      exists while a checkpoint is in progress: what is in sled may be ahead of the position
//! checkpoint    version 1 (1), position (8, big-endian): the last frame whose content is wholly in sled; missing until
//!               the commit log was made
//! ```

use std::io;

use super::Trees;
use crate::model::{RemoteId, Sequence};
use crate::storage::sled::files::Files;
use crate::storage::sled::keyspace::Keyspace;
use crate::storage::sled::ops::Ops;
use crate::storage::sled::options::OpenFailure;

const REMOTE_ID: &[u8] = b"remote-id";
const GENERATION: &[u8] = b"generation";
const FLOOR: &[u8] = b"floor";
const CHECKPOINT: &[u8] = b"checkpoint";
/// Set while a checkpoint is in progress: the contents of sled may be ahead of the position.
const CHANGING: &[u8] = b"changing";
const CHECKPOINT_VERSION: u8 = 1;

/// What sled says about the data directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Whether nothing existed before: the directory is new, or sled's files were lost.
    pub(crate) are_new: bool,
    pub(crate) remote_id: RemoteId,
    /// The generation of the commit log.
    pub(crate) generation: [u8; 16],
    /// New stores begin after this sequence.
    pub(crate) floor: Sequence,
    /// The position of the last frame whose content is completely in sled; `None` before there was a commit log.
    pub(crate) checkpoint: Option<u64>,
    /// Whether there may be more in sled.
    pub(crate) changing: bool,
}

impl Facts {
    /// Reads them; for a new directory they are made and synced.
    pub(crate) fn read_or_make(trees: &Trees, files: &Files) -> Result<Self, OpenFailure> {
        let meta = trees.get(Keyspace::Meta);
        let malformed = |what: &str| OpenFailure::corrupt(format!("the {what} is malformed"));
        let are_new = !meta.contains_key(GENERATION)?;
        let bytes = |key| {
            let made = uuid::Uuid::new_v4().into_bytes();
            match meta.get(key)? {
                Some(bytes) => Ok::<_, sled::Error>(<[u8; 16]>::try_from(&*bytes).ok()),
                None => meta.insert(key, &made).map(|_| Some(made)),
            }
        };
        let remote_id = bytes(REMOTE_ID)?.and_then(|bytes| RemoteId::from_slice(&bytes));
        let remote_id = remote_id.ok_or_else(|| malformed("remote id"))?;
        let generation = bytes(GENERATION)?.ok_or_else(|| malformed("generation"))?;
        let floor = match meta.get(FLOOR)? {
            None => Sequence::ZERO,
            Some(bytes) => <[u8; 8]>::try_from(&*bytes)
                .ok()
                .and_then(|bytes| Sequence::new(u64::from_be_bytes(bytes)).ok())
                .ok_or_else(|| malformed("floor"))?,
        };
        let checkpoint = match meta.get(CHECKPOINT)?.as_deref() {
            None => None,
            Some([CHECKPOINT_VERSION, position @ ..]) => {
                let position = position.try_into().map_err(|_| malformed("checkpoint"))?;
                Some(u64::from_be_bytes(position))
            }
            Some(_) => return Err(malformed("checkpoint")),
        };
        if checkpoint.is_none() {
            trees.flush()?;
            trees.sync(files)?;
        }
        let changing = meta.contains_key(CHANGING)?;
        Ok(Self { are_new, remote_id, generation, floor, checkpoint, changing })
    }
}

/// Records in sled that it has everything up to the frame at `position`. That has to be on disk by now.
pub(crate) fn apply_checkpoint(trees: &Trees, position: u64) -> io::Result<()> {
    let mut value = [CHECKPOINT_VERSION; 9];
    value[1..].copy_from_slice(&position.to_be_bytes());
    let mut ops = Ops::default();
    ops.insert(CHECKPOINT, &value);
    ops.remove(CHANGING);
    Ok(ops.apply(trees.get(Keyspace::Meta))?)
}

/// Records in sled that a checkpoint is in progress, before anything else of it.
pub(crate) fn apply_changing(trees: &Trees) -> io::Result<()> {
    trees.get(Keyspace::Meta).insert(CHANGING, &[])?;
    Ok(())
}

/// Records in sled whose directory it is, and where new stores begin, before there is a checkpoint.
pub(crate) fn apply_identity(
    trees: &Trees,
    remote_id: RemoteId,
    generation: [u8; 16],
    floor: Sequence,
) -> io::Result<()> {
    let meta = trees.get(Keyspace::Meta);
    meta.insert(REMOTE_ID, &remote_id.as_bytes()[..])?;
    meta.insert(GENERATION, &generation)?;
    if floor > Sequence::ZERO {
        meta.insert(FLOOR, &floor.get().to_be_bytes())?;
    }
    Ok(())
}
