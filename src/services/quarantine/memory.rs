//! A quarantine for tests.

use std::collections::BTreeMap;

use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::{Quarantine, QuarantineUnavailable, Quarantined};

/// A quarantine that lives as long as the process. For tests only: clients were told that their entries are kept, but
/// they are lost with it.
#[derive(Debug, Default)]
pub struct MemoryQuarantine {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    entries: BTreeMap<u64, Quarantined>,
    parts: BTreeMap<(u64, u32), Vec<u8>>,
}

impl Quarantine for MemoryQuarantine {
    fn begin(&self) -> BoxFuture<'_, Result<u64, QuarantineUnavailable>> {
        let mut kept = self.kept.lock();
        kept.last += 1;
        Box::pin(ready(Ok(kept.last)))
    }

    fn write(
        &self,
        number: u64,
        first: u32,
        parts: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<(), QuarantineUnavailable>> {
        let parts = (first..).map(|index| (number, index)).zip(parts);
        self.kept.lock().parts.extend(parts);
        Box::pin(ready(Ok(())))
    }

    fn finish<'a>(
        &'a self,
        entry: &'a Quarantined,
    ) -> BoxFuture<'a, Result<(), QuarantineUnavailable>> {
        self.kept.lock().entries.insert(entry.number, entry.clone());
        Box::pin(ready(Ok(())))
    }

    fn list(
        &self,
        after: u64,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<Quarantined>, QuarantineUnavailable>> {
        let kept = self.kept.lock();
        let entries = kept.entries.iter().filter(|(number, _)| **number > after).take(count);
        let entries = entries.map(|(_, entry)| entry.clone()).collect();
        Box::pin(ready(Ok(entries)))
    }

    fn read(
        &self,
        number: u64,
        index: u32,
    ) -> BoxFuture<'_, Result<Option<Vec<u8>>, QuarantineUnavailable>> {
        let part = self.kept.lock().parts.get(&(number, index)).cloned();
        Box::pin(ready(Ok(part)))
    }

    fn remove(&self, number: u64) -> BoxFuture<'_, Result<(), QuarantineUnavailable>> {
        let mut kept = self.kept.lock();
        kept.entries.remove(&number);
        kept.parts.retain(|(of, _), _| *of != number);
        Box::pin(ready(Ok(())))
    }

    fn sweep(&self) -> BoxFuture<'_, Result<(), QuarantineUnavailable>> {
        let Kept { entries, parts, .. } = &mut *self.kept.lock();
        parts.retain(|(of, _), _| entries.contains_key(of));
        Box::pin(ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    crate::contract_tests!(
        quarantine: Arc::new(MemoryQuarantine::default()) as Arc<dyn Quarantine>
    );
}
