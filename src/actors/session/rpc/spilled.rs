//! Writes in parts that are too large for memory: their parts go to disk, and each is answered once it is there.
//!
//! Keeps: a set has space for all of it before its first part is accepted; until then none of its parts is answered, so
//! the client waits; a set counts as broken if its connection sends too little, or it takes too long. Leaves out: who
//! gets space (`actors::spill`), and what happens to a complete set.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::actors::session::wire::Passed;
use crate::actors::spill::{Counted, Spill, SpillFile, TooLarge, Waiting};
use crate::model::limits::CHUNK_BYTES;
use crate::model::{Limits, PublicKey};
use crate::protocol::chunk::ChunkError;
use crate::protocol::rpc::RequestId;

/// Most bytes of one connection that may be on their way to the disk; stock clients send four parts of 512,000 bytes.
const WRITING_BYTES_MAX: usize = 8 * CHUNK_BYTES;

/// The sets of one connection.
pub(super) struct Spilled {
    spill: Arc<Spill>,
    sets: Vec<Set>,
}

struct Set {
    id: u64,
    total: u64,
    place: Place,
    /// A bit for each part that is here or on its way to the disk.
    taken: Vec<u64>,
    /// Parts that are not on disk.
    missing: u64,
    /// Not sent to the disk yet.
    held: Vec<(Part, Counted)>,
    writing: Vec<Writing>,
    progress: Option<Progress>,
}

enum Place {
    Waiting(Waiting),
    Opening(JoinHandle<io::Result<SpillFile>>),
    Open(Arc<SpillFile>),
}

/// A part, and the request that delivered it.
pub(super) struct Part {
    pub(super) request: RequestId,
    pub(super) set: u64,
    pub(super) index: u64,
    pub(super) total: u64,
    pub(super) data: Bytes,
}

struct Writing {
    request: RequestId,
    bytes: usize,
    done: JoinHandle<io::Result<()>>,
}

/// When watching a connection began, and what it had sent by then.
struct Progress {
    opened_millis: u64,
    /// Measured in the time that the client had.
    since_millis: u64,
    received_bytes: u64,
}

/// A set that cannot become a write.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetError {
    #[error(transparent)]
    Broken(#[from] ChunkError),
    #[error(
        "chunk {set}: part {index} has {bytes} bytes; of a write this large every part but the last has 512000"
    )]
    PartLength { set: u64, index: u64, bytes: usize },
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    #[error("busy: too many writes wait for space on disk, send it again later")]
    Busy,
    #[error("the write cannot be kept: {0}")]
    Disk(#[from] io::Error),
}

/// What happened to parts that were accepted before.
pub(super) enum Event {
    /// A part is on disk, and others are missing.
    Written(RequestId),
    /// This part completes the set.
    Whole(RequestId, Arc<SpillFile>),
    /// Its set is given up.
    Failed { set: u64, requests: Vec<RequestId>, error: SetError },
}

impl Spilled {
    pub(super) fn new(spill: Arc<Spill>) -> Self {
        Self { spill, sets: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Whether no more parts are accepted for now.
    pub(super) fn is_busy(&self) -> bool {
        let writing = self.sets.iter().flat_map(|set| &set.writing);
        let bytes: usize = writing.map(|part| part.bytes).sum();
        bytes >= WRITING_BYTES_MAX || (bytes > 0 && self.spill.is_busy())
    }

    /// Accepts a part; `false` if it was there before.
    pub(super) fn take(
        &mut self,
        part: Part,
        key: &PublicKey,
        limits: &Limits,
    ) -> Result<bool, SetError> {
        part.check()?;
        let at = match self.sets.iter().position(|set| set.id == part.set) {
            Some(at) => at,
            None => self.begin(&part, key, limits)?,
        };
        let set = &mut self.sets[at];
        if part.total != set.total {
            let (id, total, total_before) = (part.set, part.total, set.total);
            return Err(ChunkError::TotalChanged { id, total, total_before }.into());
        }
        let (word, bit) = ((part.index / 64) as usize, 1 << (part.index % 64));
        if set.taken[word] & bit != 0 {
            return Ok(false);
        }
        if let Place::Open(file) = &set.place {
            set.writing.push(write(&self.spill, file, part));
        } else {
            let held = self.spill.wait(part.data.len()).ok_or(SetError::Busy)?;
            set.held.push((part, held));
        }
        set.taken[word] |= bit;
        Ok(true)
    }

    fn begin(&mut self, part: &Part, key: &PublicKey, limits: &Limits) -> Result<usize, SetError> {
        let sets_max = limits.chunk_sets_max;
        if self.sets.len() >= sets_max {
            return Err(ChunkError::TooManySets { id: part.set, sets_max }.into());
        }
        let bytes = part.total.saturating_mul(CHUNK_BYTES as u64);
        let waiting = self.spill.enter(key.clone(), bytes)?;
        self.sets.push(Set {
            id: part.set,
            total: part.total,
            place: Place::Waiting(waiting),
            // It has space, so the number of bits is bounded.
            taken: vec![0; part.total.div_ceil(64) as usize],
            missing: part.total,
            held: Vec::new(),
            writing: Vec::new(),
            progress: None,
        });
        Ok(self.sets.len() - 1)
    }

    /// Discards set `id`, and returns which of its requests are unanswered.
    pub(super) fn forget(&mut self, id: u64) -> Vec<RequestId> {
        let Some(at) = self.sets.iter().position(|set| set.id == id) else { return Vec::new() };
        self.sets.swap_remove(at).into_requests()
    }

    /// The next thing that happened.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<Event> {
        for at in 0..self.sets.len() {
            let set = &mut self.sets[at];
            match set.poll(&self.spill, cx) {
                Ok(None) => {}
                Ok(Some(request)) if set.missing > 0 => return Some(Event::Written(request)),
                Ok(Some(request)) => {
                    let set = self.sets.swap_remove(at);
                    let Place::Open(file) = set.place else { continue };
                    return Some(Event::Whole(request, file));
                }
                Err((request, error)) => {
                    let set = self.sets.swap_remove(at);
                    let id = set.id;
                    let requests = request.into_iter().chain(set.into_requests()).collect();
                    return Some(Event::Failed { set: id, requests, error: error.into() });
                }
            }
        }
        None
    }

    /// Fails if a set is too slow.
    pub(super) fn expire(&mut self, passed: Passed, limits: &Limits) -> Result<(), String> {
        self.sets.iter_mut().try_for_each(|set| set.expire(passed, limits))
    }
}

impl Part {
    fn check(&self) -> Result<(), SetError> {
        let Self { set, index, total, .. } = *self;
        if index >= total {
            return Err(ChunkError::NoSuchPart { id: set, index, total }.into());
        }
        let bytes = self.data.len();
        if bytes == 0 {
            return Err(ChunkError::EmptyPart { id: set, index }.into());
        }
        // The positions of parts depend on it, and so does the space that the set takes.
        if bytes > CHUNK_BYTES || (bytes < CHUNK_BYTES && index + 1 < total) {
            return Err(SetError::PartLength { set, index, bytes });
        }
        Ok(())
    }
}

fn write(spill: &Spill, file: &Arc<SpillFile>, part: Part) -> Writing {
    let (file, Part { request, index, data, .. }) = (Arc::clone(file), part);
    let (bytes, counted) = (data.len(), spill.write(data.len()));
    let done = spawn_blocking(move || {
        let _counted = counted;
        file.write(index * CHUNK_BYTES as u64, &data)
    });
    Writing { request, bytes, done }
}

/// The result of a thread for blocking work.
fn answer<T>(handle: &mut JoinHandle<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
    handle.poll_unpin(cx).map(|done| done.unwrap_or_else(|error| Err(io::Error::other(error))))
}

impl Set {
    /// A request whose part is on disk by now.
    fn poll(
        &mut self,
        spill: &Spill,
        cx: &mut Context<'_>,
    ) -> Result<Option<RequestId>, (Option<RequestId>, io::Error)> {
        if let Place::Waiting(waiting) = &self.place
            && let Poll::Ready(room) = waiting.poll(cx)
        {
            self.place = Place::Opening(spawn_blocking(move || SpillFile::create(room)));
        }
        if let Place::Opening(opening) = &mut self.place
            && let Poll::Ready(file) = answer(opening, cx)
        {
            let file = Arc::new(file.map_err(|error| (None, error))?);
            for (part, _) in self.held.drain(..) {
                self.writing.push(write(spill, &file, part));
            }
            self.place = Place::Open(file);
        }
        for at in 0..self.writing.len() {
            if let Poll::Ready(done) = answer(&mut self.writing[at].done, cx) {
                let request = self.writing.swap_remove(at).request;
                if let Err(error) = done {
                    return Err((Some(request), error));
                }
                self.missing -= 1;
                return Ok(Some(request));
            }
        }
        Ok(None)
    }

    fn into_requests(self) -> Vec<RequestId> {
        let held = self.held.into_iter().map(|(part, _)| part.request);
        held.chain(self.writing.into_iter().map(|part| part.request)).collect()
    }

    fn expire(&mut self, passed: Passed, limits: &Limits) -> Result<(), String> {
        let Place::Open(_) = self.place else { return Ok(()) };
        let Passed { now_millis, client_millis, received_bytes } = passed;
        let start =
            Progress { opened_millis: now_millis, since_millis: client_millis, received_bytes };
        let progress = self.progress.get_or_insert(start);
        let millis =
            |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        if now_millis - progress.opened_millis > millis(limits.spill_age_max) {
            return Err(format!("chunk {}: unfinished for longer than spill_age_max", self.id));
        }
        let waited = client_millis - progress.since_millis;
        if waited < millis(limits.chunk_set_age_max) {
            return Ok(());
        }
        let brought = received_bytes - progress.received_bytes;
        let least = limits.spill_rate_min as u64 * waited / 1_000;
        (progress.since_millis, progress.received_bytes) = (client_millis, received_bytes);
        // A client that waits for us does not have to send.
        if brought < least && self.writing.is_empty() {
            return Err(format!(
                "chunk {}: {brought} bytes in {waited} ms (spill_rate_min)",
                self.id
            ));
        }
        Ok(())
    }
}
