//! What can be wrong with a log, as reported to the caller.

use std::io;

use super::Position;

/// Why a log could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The disk failed; nothing is known about the log.
    #[error("the log cannot be read: {0}")]
    Unavailable(#[from] io::Error),
    /// Something of the log is missing or was changed, and the caller did not accept that.
    #[error("the log is damaged: {0}")]
    Damaged(LogDamage),
    /// The folder already has a log.
    #[error("there is a log in {0} already")]
    Exists(std::path::PathBuf),
    /// The log was written by a later version.
    #[error("the log file {file} has version {version}, which this program does not know")]
    UnknownVersion { file: u64, version: u32 },
}

/// Frames that the log had, or may have had, and cannot return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogDamage {
    /// The number of the file with the fault.
    pub(crate) file: u64,
    /// Which of its blocks of 512 bytes, if it is in one; the first one is 0.
    pub(crate) block: Option<u32>,
    /// What is wrong there.
    pub(crate) kind: DamageKind,
    /// The first frame that is missing.
    pub(crate) from: Position,
    /// The last frame that is missing; `None` means this one and everything after it.
    pub(crate) to: Option<Position>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DamageKind {
    /// There is no file with this number.
    FileMissing,
    /// The file does not say what it is, or says that it is another one.
    Header,
    /// The file belongs to another directory's log.
    Foreign,
    /// The file is shorter than when it was made.
    Short,
    /// More than one bit of a block has changed.
    Block,
    /// The disk cannot read a block. It may be able to later.
    Unreadable,
    /// A block is not there, although something after it is, or it is known to have been synced.
    BlockMissing,
    /// A block is in a place where it was not written.
    Misplaced,
    /// All blocks of a frame look correct, but they were not written together.
    Frame,
}

impl LogDamage {
    /// What is wrong, without the file.
    pub(crate) fn finding(&self) -> String {
        let what = match self.kind {
            DamageKind::FileMissing => "it is missing",
            DamageKind::Header => "its header is wrong",
            DamageKind::Foreign => "it belongs to another directory",
            DamageKind::Short => "it was cut off",
            DamageKind::Block => "a block was changed",
            DamageKind::Unreadable => "a block cannot be read",
            DamageKind::BlockMissing => "it ends early",
            DamageKind::Misplaced => "a block stands in the wrong place",
            DamageKind::Frame => "the sum of a frame is wrong",
        };
        let block = self.block.map_or(String::new(), |block| format!(", at block {block}"));
        match self.to {
            Some(to) if to == self.from => format!("{what}{block}; frame {to} is lost"),
            Some(to) => format!("{what}{block}; frames {} to {to} are lost", self.from),
            None => format!("{what}{block}; frames from {} on are lost", self.from),
        }
    }
}

impl std::fmt::Display for LogDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "file {:08}.log: {}", self.file, self.finding())
    }
}
