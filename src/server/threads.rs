//! The threads that stores and handlers run on.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use actix::{Arbiter, ArbiterHandle, System};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Threads with an actix system each, independent of the one that the application may have.
pub(super) struct Threads {
    arbiters: Vec<ArbiterHandle>,
    running: Mutex<Vec<Running>>,
}

struct Running {
    name: String,
    stop: oneshot::Sender<()>,
    /// Resolves, without a value, when everything that ran on the thread is gone.
    ended: oneshot::Receiver<Infallible>,
    thread: JoinHandle<()>,
}

impl Threads {
    /// Starts `count` threads, at least one, named after what they do.
    pub(super) fn start(what: &str, count: usize) -> io::Result<Self> {
        let mut arbiters = Vec::new();
        let mut running = Vec::new();
        for number in 0..count.max(1) {
            let (stop, stopped) = oneshot::channel::<()>();
            let (ending, ended) = oneshot::channel();
            let (started, arbiter) = mpsc::channel();
            let name = format!("eventlog-{what}-{number}");
            let thread = thread::Builder::new().name(name.clone()).spawn(move || {
                // Dropped after the system, which waits for its blocking tasks.
                let _ending = ending;
                System::new().block_on(async move {
                    // If nobody waits any more, `stopped` is gone as well, and the thread ends.
                    let _ = started.send(Arbiter::current());
                    let _ = stopped.await;
                });
            })?;
            arbiters.push(arbiter.recv().map_err(io::Error::other)?);
            running.push(Running { name, stop, ended, thread });
        }
        Ok(Self { arbiters, running: Mutex::new(running) })
    }

    pub(super) fn arbiters(&self) -> &[ArbiterHandle] {
        &self.arbiters
    }

    /// Stops the threads; unfinished work is dropped. If somebody's code blocks a thread or it waits for a blocking
    /// task, this does not wait beyond `deadline`: the thread ends when that code does.
    pub(super) async fn stop(&self, deadline: Instant) {
        let running = std::mem::take(&mut *self.running.lock());
        let told = running.into_iter().map(|Running { name, stop, ended, thread }| {
            // Fails only if the thread is gone already.
            let _ = stop.send(());
            (name, ended, thread)
        });
        // All are told before any is waited for.
        for (name, ended, thread) in told.collect::<Vec<_>>() {
            if timeout_at(deadline, ended).await.is_err() {
                log::warn!("{name} is still busy and is left to end by itself");
            } else if thread.join().is_err() {
                log::error!("{name} panicked");
            }
        }
    }
}
