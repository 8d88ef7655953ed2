//! One connection that writes.
//!
//! Keeps: an ack answers a write that is in flight, once, with one sequence per slot; each of them is new to its store,
//! or, for what is sent again, the one that it had.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use eventlog_server::model::PublicKey;
use tokio::time::Sleep;

use super::figures::{Figures, Phase};
use super::in_flight::{InFlight, Pending};
use super::message::{Ack, Message, Messages};
use super::process::unix_millis;
use super::seen::Seen;
use super::socket::Socket;
use super::template::{IdRange, IdSource, Template};

/// More is not put into the send buffer at once.
const OUT_BYTES: usize = 1 << 20;

/// When writes are sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// As soon as fewer than the most are in flight.
    Closed,
    /// One every so many nanoseconds, beginning at `first`, however long answers take.
    Open { first: u64, every: f64 },
}

/// What the writers of a run share.
pub(super) struct Writing {
    pub(super) figures: Figures,
    /// By the number of the store.
    pub(super) seen: RefCell<Vec<Seen>>,
    /// The sum of all acknowledged ids, to compare with what is read.
    pub(super) id_sum: Cell<u128>,
    /// What each connection sent, if that is recorded.
    pub(super) sent: RefCell<Vec<Vec<Sent>>>,
}

/// A write that was sent, with enough to send it again.
#[derive(Clone)]
pub(super) struct Sent {
    ids: IdRange,
    at_key: usize,
    sequences: Vec<u64>,
}

/// How one connection writes.
pub(super) struct WriterOptions {
    /// Which one it is.
    pub(super) number: usize,
    /// Keys, all of one length, and the number of the store of each.
    pub(super) keys: Vec<(PublicKey, usize)>,
    pub(super) in_flight: usize,
    pub(super) pace: Pace,
    /// It writes so many, if that is said.
    pub(super) batches: Option<u64>,
    /// What it writes is recorded.
    pub(super) records: bool,
    /// What was recorded, to be sent instead of new entries.
    pub(super) again: Option<Vec<Sent>>,
    /// The server sends back what it gets.
    pub(super) echo: bool,
}

pub(super) struct Writer {
    writing: Rc<Writing>,
    socket: Socket,
    template: Template,
    options: WriterOptions,
    ids: IdSource,
    in_flight: InFlight,
    sent: u64,
    recorded: Vec<Sent>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Writer {
    pub(super) fn new(
        writing: Rc<Writing>,
        socket: Socket,
        template: Template,
        options: WriterOptions,
    ) -> Self {
        Self {
            writing,
            socket,
            template,
            ids: IdSource::new(),
            in_flight: InFlight::new(options.in_flight),
            sent: 0,
            recorded: Vec::new(),
            timer: None,
            options,
        }
    }

    /// Writes until the run stops, or there is no more to write, and everything is answered.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let mut messages = Messages::new(self.template.protocol());
        std::future::poll_fn(|cx| self.poll(&mut messages, cx)).await?;
        self.count_unsent();
        self.writing.sent.borrow_mut()[self.options.number] = self.recorded;
        Ok(())
    }

    fn poll(&mut self, messages: &mut Messages, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.send_due();
            let written = self.socket.poll_write(cx)?;
            if self.socket.poll_read(cx)?.is_ready() {
                self.receive(messages)?;
                continue;
            }
            if self.is_done() && self.in_flight.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if written.is_pending() || self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Whether nothing more is to be sent.
    fn is_done(&self) -> bool {
        self.writing.figures.phase() == Phase::Stop
            || self.options.batches.is_some_and(|batches| self.sent >= batches)
    }

    /// Puts into the send buffer what may be sent by now.
    fn send_due(&mut self) {
        if self.in_flight.is_full() || self.is_done() {
            return;
        }
        let now = self.writing.figures.nanos();
        let unix_millis = unix_millis();
        while self.socket.unsent() < OUT_BYTES && !self.is_done() {
            let due = self.next_due().unwrap_or(now);
            if due > now {
                return;
            }
            if self.in_flight.is_full() {
                return;
            }
            self.send(due, unix_millis);
        }
    }

    /// When the next batch is due; `None` if whenever it can be sent.
    fn next_due(&self) -> Option<u64> {
        match self.options.pace {
            Pace::Closed => None,
            #[expect(clippy::cast_sign_loss, reason = "neither factor is negative")]
            Pace::Open { first, every } => Some(first + (self.sent as f64 * every) as u64),
        }
    }

    /// Takes in what was due and could not be sent in time.
    fn count_unsent(&mut self) {
        while self.options.batches.is_none_or(|batches| self.sent < batches)
            && self.next_due().is_some_and(|due| self.writing.figures.unsent(due))
        {
            self.sent += 1;
        }
    }

    fn send(&mut self, due: u64, unix_millis: u64) {
        let batch = self.sent;
        let (ids, at_key) = match &self.options.again {
            Some(sent) => (sent[batch as usize].ids, sent[batch as usize].at_key),
            None => {
                let at_key = batch as usize % self.options.keys.len();
                (self.ids.take(unix_millis, self.template.len()), at_key)
            }
        };
        if self.options.records {
            self.recorded.push(Sent { ids, at_key, sequences: Vec::new() });
        }
        let (key, store) = &self.options.keys[at_key];
        if self.options.keys.len() > 1 {
            self.template.set_key(key);
        }
        let pending = Pending { store: *store, due, id_sum: ids.sum(), batch };
        self.template.set_ids(ids.iter());
        self.template.set_request(self.in_flight.put(pending));
        self.template.set_stamp(due);
        if self.options.echo {
            self.template.push_whole(&mut self.socket);
        } else {
            self.template.push_to(&mut self.socket);
        }
        self.sent += 1;
    }

    fn receive(&mut self, messages: &mut Messages) -> io::Result<()> {
        let now = self.writing.figures.nanos();
        let slots = self.template.len();
        let Self { writing, socket, template, options, in_flight, recorded, .. } = self;
        let figures = &writing.figures;
        while let Some(message) = socket.next_message()? {
            if options.echo {
                // The first message may be anything.
                let request = template.request_in(message).unwrap_or(0);
                match in_flight.answered(request.into()) {
                    Some(pending) => figures.acked(pending.due, now, slots as u64),
                    None => figures.fault("an answer to nothing"),
                }
                continue;
            }
            match messages.read(message)? {
                Message::Ack(ack) => match in_flight.answered(ack.request) {
                    Some(pending) => {
                        writing.acked(&pending, now, slots, &ack);
                        let at = pending.batch as usize;
                        if options.records {
                            recorded[at].sequences = ack.sequences.to_vec();
                        }
                        let again = options.again.as_ref();
                        if again.is_some_and(|sent| sent[at].sequences != ack.sequences) {
                            figures.fault("a duplicate got another sequence");
                        }
                    }
                    None => figures.fault("an ack for nothing in flight"),
                },
                Message::Changes(..) => figures.fault("entries without subscription"),
                Message::Refused(id, reason) => {
                    id.and_then(|id| in_flight.answered(id));
                    figures.fault(reason);
                }
                Message::Pong | Message::Part(..) | Message::Nothing => {}
            }
        }
        Ok(())
    }

    /// Ready once the next batch is due; pending if answers have to come first.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waits = self.in_flight.is_full() || self.is_done();
        let Some(due) = self.next_due().filter(|_| !waits) else { return Poll::Pending };
        let due = self.writing.figures.moment(due).into();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::ZERO)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }
}

impl Writing {
    pub(super) fn new(stores: usize, connections: usize) -> Self {
        Self {
            figures: Figures::new(),
            seen: RefCell::new((0..stores).map(|_| Seen::default()).collect()),
            id_sum: Cell::new(0),
            sent: RefCell::new((0..connections).map(|_| Vec::new()).collect()),
        }
    }

    fn acked(&self, pending: &Pending, now: u64, slots: usize, ack: &Ack<'_>) {
        self.figures.acked(pending.due, now, slots as u64);
        self.id_sum.set(self.id_sum.get().wrapping_add(pending.id_sum));
        if ack.sequences.len() != slots {
            self.figures.fault("an ack without a sequence for each slot");
        }
        if ack.id_sum.is_some_and(|id_sum| id_sum != pending.id_sum) {
            self.figures.fault("an ack of other entries");
        }
        let seen = &mut self.seen.borrow_mut()[pending.store];
        for sequence in ack.sequences {
            if !seen.insert(*sequence) {
                self.figures.fault("a sequence was acknowledged twice");
            }
        }
    }
}
