//! Where the bytes of a large write are, and where the positions of its strings are recorded.

use std::io;

use bytes::Bytes;

/// Bytes that may not fit in memory.
pub trait Source: Send + Sync {
    /// How many there are.
    fn bytes(&self) -> u64;

    /// Fills `into` from `at` on; the range is within the source. May wait for a disk.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()>;

    /// A list for recording numbers, up to as many as there are bytes. May wait for a disk.
    fn table(&self) -> io::Result<Box<dyn Table>>;
}

/// A list of numbers, written from its beginning.
pub trait Table: Send {
    /// Appends a number.
    fn push(&mut self, number: u64) -> io::Result<()>;

    /// The number at `at`, counted from 0, if there are that many.
    fn get(&self, at: u64) -> io::Result<Option<u64>>;
}

/// In memory, including the list.
impl Source for Bytes {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let found = self.get(at..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn table(&self) -> io::Result<Box<dyn Table>> {
        Ok(Box::new(Vec::new()))
    }
}

impl Table for Vec<u64> {
    fn push(&mut self, number: u64) -> io::Result<()> {
        Vec::push(self, number);
        Ok(())
    }

    fn get(&self, at: u64) -> io::Result<Option<u64>> {
        Ok(usize::try_from(at).ok().and_then(|at| <[u64]>::get(self, at)).copied())
    }
}
