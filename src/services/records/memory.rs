//! Records for tests, and for servers whose storage is memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::{Record, Records, RecordsUnavailable};

/// Records that live as long as the process.
#[derive(Debug, Default)]
pub struct MemoryRecords {
    values: Mutex<BTreeMap<Box<str>, Vec<u8>>>,
}

impl Records for MemoryRecords {
    fn set<'a>(
        &'a self,
        name: &'a str,
        value: &'a [u8],
    ) -> BoxFuture<'a, Result<(), RecordsUnavailable>> {
        self.values.lock().insert(name.into(), value.to_vec());
        Box::pin(ready(Ok(())))
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), RecordsUnavailable>> {
        self.values.lock().remove(name);
        Box::pin(ready(Ok(())))
    }

    fn list<'a>(
        &'a self,
        after: &'a str,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<Record>, RecordsUnavailable>> {
        let values = self.values.lock();
        let page = values.range::<str, _>((Bound::Excluded(after), Bound::Unbounded)).take(count);
        let page = page.map(|(name, value)| (name.clone(), value.clone())).collect();
        Box::pin(ready(Ok(page)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    crate::contract_tests!(records: Arc::new(MemoryRecords::default()) as Arc<dyn Records>);
}
