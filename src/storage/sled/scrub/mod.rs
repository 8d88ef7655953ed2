//! Removes erased content from files: the archive, the commit log, free space of sled, and what was kept aside.
//!
//! Keeps: whatever is interrupted is done again; everything else in the files stays as it is. Leaves out: what an erasure means
//! for readers (`erase`, `ends`).

mod frame;
mod frames;
mod gone;
mod kept;
mod needles;
mod note;
#[cfg(test)]
mod tests;
mod trimmed;
mod verify;
mod worker;

pub(super) use note::{Noted, Scrub};
pub(super) use trimmed::trimmed_of_key;
pub use verify::ErasedContent;
pub(super) use verify::verify;
pub(super) use worker::Scrubber;
