//! The one thread that writes: it takes whatever is queued, applies it, makes it durable with one sync, and answers.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::database::{Durability, Trees};
use super::keyspace::Keyspace;
use super::ops::Ops;
use crate::storage::{AppendError, StorageError};

type Answer = oneshot::Sender<Result<(), AppendError>>;

struct Job {
    keyspace: Keyspace,
    ops: Ops,
    answer: Answer,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

pub(super) struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<(), StorageError>>>>,
}

pub(super) fn start(
    path: &Path,
    trees: Arc<Trees>,
    _durability: Durability,
) -> std::io::Result<Committer> {
    let directory = File::open(path)?;
    let shared = Arc::new(Shared::default());
    let run = {
        let shared = shared.clone();
        move || run(&shared, &trees, &directory)
    };
    let thread = std::thread::Builder::new().name("commit".to_owned()).spawn(run)?;
    Ok(Committer { shared, thread: Mutex::new(Some(thread)) })
}

impl Committer {
    pub(super) fn commit(
        &self,
        keyspace: Keyspace,
        ops: Ops,
    ) -> oneshot::Receiver<Result<(), AppendError>> {
        let (answer, receiver) = oneshot::channel();
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            let _ = answer.send(Err(AppendError::Definite("the database is closed".into())));
            return receiver;
        }
        queue.jobs.push(Job { keyspace, ops, answer });
        drop(queue);
        self.shared.wake.notify_one();
        receiver
    }

    pub(super) fn close(&self) -> Result<(), StorageError> {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_one();
        match self.thread.lock().take() {
            Some(thread) => thread
                .join()
                .unwrap_or_else(|_| Err(StorageError::unavailable("the commit thread panicked"))),
            None => Ok(()),
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::error!("closing the database: {error}");
        }
    }
}

fn run(shared: &Shared, trees: &Trees, directory: &File) -> Result<(), StorageError> {
    loop {
        let mut queue = shared.queue.lock();
        while queue.jobs.is_empty() && !queue.closed {
            shared.wake.wait(&mut queue);
        }
        let jobs = std::mem::take(&mut queue.jobs);
        drop(queue);
        if jobs.is_empty() {
            return sync(trees, directory).map_err(StorageError::unavailable);
        }
        let (batches, answers) = split(jobs);
        let outcome = batches
            .into_iter()
            .try_for_each(|(keyspace, ops)| trees.get(keyspace).apply_batch(ops.into_batch()))
            .and_then(|()| sync(trees, directory))
            .map_err(|error| AppendError::Indefinite(error.to_string().into()));
        for answer in answers {
            // Nobody may be waiting any more.
            let _ = answer.send(outcome.clone());
        }
    }
}

fn split(jobs: Vec<Job>) -> (Vec<(Keyspace, Ops)>, Vec<Answer>) {
    let mut merged: Vec<(Keyspace, Ops)> = Vec::new();
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        match merged.iter_mut().find(|(keyspace, _)| *keyspace == job.keyspace) {
            Some((_, ops)) => ops.extend(job.ops),
            None => merged.push((job.keyspace, job.ops)),
        }
        answers.push(job.answer);
    }
    (merged, answers)
}

fn sync(trees: &Trees, directory: &File) -> sled::Result<()> {
    trees.db.flush()?;
    rustix::fs::syncfs(directory).map_err(|error| sled::Error::Io(error.into()))
}
