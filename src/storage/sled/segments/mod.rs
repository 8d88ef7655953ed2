//! How stores' entries are kept in sled's tree: as segments, whose larger bodies are in slots.
//!
//! Keeps: a portion changes a store from one consistent state to another; reads find every entry that the tree has.
//! Leaves out: what is only in memory (`ends`), when portions are written (`checkpoint`).

mod arena;
mod erase;
mod layout;
mod portion;
mod reader;
mod sweep;
mod times;

pub(super) use arena::Arena;
pub(super) use erase::erase;
pub(super) use layout::Layout;
pub(super) use portion::Portion;
pub(super) use reader::Reader;
pub(super) use sweep::Sweep;
pub(super) use times::TimeOf;
