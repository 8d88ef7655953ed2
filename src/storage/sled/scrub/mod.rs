//! Makes files rid of what is erased: the archive, the commit log, free space of sled, and what was kept aside.
//!
//! Keeps: whatever is interrupted is done again; what is there besides stays as it is. Leaves out: what erasing an entry means
//! for readers (`erase`, `ends`).

mod frame;
mod gone;
mod kept;
mod needles;
mod note;
#[cfg(test)]
mod tests;
mod verify;
mod worker;

pub(super) use note::{Noted, Scrub};
pub(super) use verify::{look_at, verify};
pub(super) use worker::Scrubber;
