//! Reads of feeds from disk, for sessions.
//!
//! Keeps: no more of them run at once than there are processors, first come, first served, and each is bounded in
//! bytes. If each got a thread at once, thirty clients that catch up would be thirty threads competing with those that
//! answer writes. Leaves out: what is done with what was read.

use std::num::NonZero;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::model::{Segment, Sequence};
use crate::storage::{StorageError, StoreLog};

/// At least this many even on few processors: one may wait for the disk.
const AT_ONCE_MIN: usize = 2;

/// The right to read. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reads(Arc<Semaphore>);

impl Default for Reads {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::at_once(processors.max(AT_ONCE_MIN))
    }
}

impl Reads {
    fn at_once(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// Durable segments from `log`, see [`StoreLog::read`]. Once it has begun, a read is finished even if nobody waits
    /// for it any more.
    pub(crate) async fn read(
        self,
        log: Arc<dyn StoreLog>,
        from: Sequence,
        bytes_max: usize,
    ) -> Result<Vec<Segment>, StorageError> {
        self.run(move || log.read(from, bytes_max)).await
    }

    async fn run<T: Send + 'static>(
        self,
        read: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let turn = self.0.acquire_owned().await.map_err(StorageError::unavailable)?;
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read()
        });
        read.await.unwrap_or_else(|error| Err(StorageError::unavailable(error)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use futures_util::future::join_all;

    use super::*;

    #[actix_web::test]
    async fn no_more_run_at_once_than_may_and_all_are_done_in_turn() {
        let reads = Reads::at_once(2);
        let (begun, waits) = mpsc::channel();
        let (go_on, wait) = mpsc::channel();
        let wait = Arc::new(Mutex::new(wait));
        let all = (0..5).map(|number| {
            let (begun, wait) = (begun.clone(), wait.clone());
            reads.clone().run(move || {
                let _ = begun.send(number);
                let _ = wait.lock().map(|wait| wait.recv());
                Ok(number)
            })
        });
        let all = actix_web::rt::spawn(join_all(all.collect::<Vec<_>>()));
        let watcher = std::thread::spawn(move || {
            let mut order = vec![waits.recv(), waits.recv()];
            assert_eq!(reads.0.available_permits(), 0);
            assert!(waits.try_recv().is_err(), "a third one has begun");
            for _ in 0..3 {
                let _ = go_on.send(());
                order.push(waits.recv());
            }
            let _ = (go_on.send(()), go_on.send(()));
            order.into_iter().map(Result::unwrap_or_default).collect::<Vec<i32>>()
        });
        let done: Vec<_> = all.await.expect("no panic");
        assert!(done.into_iter().map(|done| done.expect("read")).eq(0..5));
        let mut order = watcher.join().expect("two at once");
        order[..2].sort_unstable();
        assert_eq!(order, [0, 1, 2, 3, 4]);
    }
}
