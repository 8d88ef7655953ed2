//! The threads that stores and handlers run on.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use actix::{Arbiter, ArbiterHandle, System};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Threads with an actix system each, independent of the one that the application may have.
pub(super) struct Threads {
    arbiters: Vec<ArbiterHandle>,
    running: Mutex<Vec<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Threads {
    /// Starts `count` threads, at least one, named after what they do.
    pub(super) fn start(what: &str, count: usize) -> io::Result<Self> {
        let mut arbiters = Vec::new();
        let mut running = Vec::new();
        for number in 0..count.max(1) {
            let (stop, stopped) = oneshot::channel::<()>();
            let (started, arbiter) = mpsc::channel();
            let name = format!("eventlog-{what}-{number}");
            let thread = thread::Builder::new().name(name).spawn(move || {
                System::new().block_on(async move {
                    // If nobody waits any more, `stopped` is gone as well and the thread ends.
                    let _ = started.send(Arbiter::current());
                    let _ = stopped.await;
                });
            })?;
            arbiters.push(arbiter.recv().map_err(io::Error::other)?);
            running.push((stop, thread));
        }
        Ok(Self { arbiters, running: Mutex::new(running) })
    }

    pub(super) fn arbiters(&self) -> &[ArbiterHandle] {
        &self.arbiters
    }

    /// Stops the threads and waits for them; what is not finished is dropped.
    pub(super) fn stop(&self) {
        for (stop, thread) in self.running.lock().drain(..) {
            // Fails only if the thread is gone already.
            let _ = stop.send(());
            if thread.join().is_err() {
                log::error!("a thread of the server panicked");
            }
        }
    }
}
