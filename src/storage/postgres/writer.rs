//! The tasks that append: each has a connection of its own, and takes what waits.
//!
//! Keeps: a store's appends are in progress on one connection at a time, in order; one statement is in progress on a
//! connection, so that a warning of the server belongs to it; while statements are in progress, the next ones collect.
//! Leaves out: the statement (`append`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::append::{Outcome, Part, append};
use super::bus::Bus;
use super::connect::{Conn, Connector};
use super::fence::Fence;
use super::figures::Counted;
use super::state::LogState;
use super::tables::Tables;
use crate::storage::AppendError;

/// The maximum number of stores in one statement.
const STORES_MAX: usize = 256;
/// A statement is closed at this many bytes; one store's appends may exceed it.
const BYTES_MAX: usize = 1 << 20;
/// How many times a statement is tried if others were in the way.
const TRIES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// The stores with waiting appends.
#[derive(Default)]
pub(super) struct Queue {
    stores: Mutex<VecDeque<Arc<LogState>>>,
    more: Notify,
}

impl Queue {
    pub(super) fn push(&self, log: Arc<LogState>) {
        self.stores.lock().push_back(log);
        self.more.notify_one();
    }

    /// The parts of the next statement, once there are any.
    async fn next(&self) -> Vec<Part> {
        loop {
            let more = self.more.notified();
            let parts = self.take();
            if !parts.is_empty() {
                return parts;
            }
            more.await;
        }
    }

    fn take(&self) -> Vec<Part> {
        let mut stores = self.stores.lock();
        let (mut parts, mut bytes) = (Vec::<Part>::new(), 0);
        while parts.len() < STORES_MAX && bytes < BYTES_MAX {
            let Some(log) = stores.pop_front() else { break };
            let (alone, heard) = log.goes_alone_and_heard();
            if parts.first().is_some_and(|first| alone || first.taken.heard != heard) {
                stores.push_front(log);
                break;
            }
            let taken = log.take(BYTES_MAX);
            bytes += taken.bytes();
            parts.push(Part { log, taken });
            if alone {
                break;
            }
        }
        if !stores.is_empty() {
            self.more.notify_one();
        }
        parts
    }
}

/// What every writer needs.
#[derive(Clone)]
pub(super) struct Writing {
    pub(super) connector: Connector,
    pub(super) tables: Arc<Tables>,
    pub(super) queue: Arc<Queue>,
    pub(super) bus: Arc<Bus>,
    pub(super) fence: Arc<Fence>,
    pub(super) counted: Arc<Counted>,
}

/// Appends what waits, for as long as its task lives.
pub(super) async fn write(writing: Writing) {
    let mut conn: Option<Conn> = None;
    loop {
        let parts = writing.queue.next().await;
        writing.append_all(&mut conn, parts).await;
    }
}

impl Writing {
    async fn append_all(&self, conn: &mut Option<Conn>, parts: Vec<Part>) {
        let mut together = Some(parts);
        let mut each = VecDeque::new();
        while let Some(parts) = together.take().or_else(|| each.pop_front()) {
            match self.try_append(conn, &parts).await {
                Outcome::Won(won) => self.settle_won(parts, &won),
                Outcome::Known if parts.len() == 1 => {
                    self.counted.known.add();
                    self.settle(parts, &AppendError::Overtaken);
                }
                Outcome::Known => {
                    // It is not known to whom the id belongs.
                    each.extend(parts.into_iter().map(|part| {
                        part.log.set_alone();
                        vec![part]
                    }));
                }
                Outcome::Fenced => {
                    self.bus.ask_soon();
                    let heard = parts.first().map(|part| part.taken.heard);
                    let error = self.fence.refused(heard.unwrap_or_default()).await;
                    self.settle(parts, &error);
                }
                Outcome::Again(failed) | Outcome::Refused(failed) => {
                    let error = AppendError::Definite(failed.to_string().into());
                    self.settle(parts, &error);
                }
                Outcome::Unclear(told) => {
                    // The result of pending statements on this connection will never be known.
                    *conn = None;
                    self.settle(parts, &AppendError::Indefinite(told.into()));
                }
            }
        }
    }

    async fn try_append(&self, conn: &mut Option<Conn>, parts: &[Part]) -> Outcome {
        let mut tries = 0;
        loop {
            if conn.as_ref().is_none_or(|conn| conn.client.is_closed()) {
                *conn = match self.connector.connect(None).await {
                    Ok((conn, _)) => Some(conn),
                    Err(failed) => return Outcome::Refused(failed),
                };
            }
            let Some(connected) = conn.as_mut() else { continue };
            self.counted.statements.add();
            match append(connected, &self.tables, parts).await {
                Outcome::Again(_) if tries < TRIES_MAX => {
                    tries += 1;
                    tokio::time::sleep(PAUSE * tries).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn settle_won(&self, parts: Vec<Part>, won: &[bool]) {
        for (part, won) in parts.into_iter().zip(won) {
            let result = if *won {
                Ok(())
            } else {
                self.counted.overtaken.add();
                Err(AppendError::Overtaken)
            };
            self.settle_one(part, &result);
        }
    }

    fn settle(&self, parts: Vec<Part>, error: &AppendError) {
        let result = Err(error.clone());
        parts.into_iter().for_each(|part| self.settle_one(part, &result));
    }

    fn settle_one(&self, Part { log, taken }: Part, result: &Result<(), AppendError>) {
        let has_moved = result.is_ok();
        let goes_on = log.settle(taken, result);
        if has_moved {
            self.bus.moved(&log.store, log.head());
        }
        if goes_on {
            self.queue.push(log);
        }
    }
}
