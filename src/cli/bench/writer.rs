//! One connection that writes.
//!
//! Keeps: an ack answers a write that is in flight, once, with one sequence per slot; each of them is new to its store,
//! or, when entries are sent again, the existing one.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use eventlog_server::model::PublicKey;
use tokio::time::Sleep;

use super::figures::Figures;
use super::in_flight::{InFlight, Pending};
use super::load::{Key, Load, Round};
use super::process::unix_millis;
use super::reader::{Ack, Answer, MessageReader};
use super::seen::Seen;
use super::socket::Socket;
use super::target::Target;
use super::template::{IdRange, IdSource, Template};

/// The most that is put into the send buffer at once.
const OUT_BYTES: usize = 1 << 20;

/// What the connections of a run share, and its result.
#[derive(Default)]
pub(super) struct Run {
    pub(super) figures: Figures,
    /// By the number of the store.
    pub(super) seen: Vec<Seen>,
    /// The sum of all acknowledged ids, for comparison with what is read.
    pub(super) id_sum: u128,
    /// What each connection sent, if there are two rounds.
    pub(super) sent: Vec<Vec<Sent>>,
}

/// A write that was sent, with enough to send it again.
pub(super) struct Sent {
    ids: IdRange,
    sequences: Vec<u64>,
}

pub(super) struct Writer {
    run: Rc<RefCell<Run>>,
    socket: Socket,
    reader: MessageReader,
    template: Template,
    load: Load,
    /// The number of the connection.
    number: usize,
    /// Keys, all of one length, and the number of the store of each.
    keys: Vec<(PublicKey, usize)>,
    /// When its first batch is due, if the load has a rate.
    first_due: u64,
    /// How many batches it writes.
    batches: u64,
    ids: IdSource,
    in_flight: InFlight,
    sent: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Writer {
    /// Connects as number `number` of `load`.
    pub(super) async fn open(
        target: &Target,
        run: Rc<RefCell<Run>>,
        keys: &[Key],
        load: Load,
        number: usize,
    ) -> io::Result<Self> {
        let own = keys.iter().enumerate().skip(number % keys.len()).step_by(load.connections);
        let keys: Vec<_> = own.map(|(at, (key, _))| (key.clone(), at % load.stores)).collect();
        let socket = target.connect(keys.iter().map(|(key, _)| key)).await?;
        // Spread out, so that not all of them send at once.
        let delay = load.nanos_each().unwrap_or(0.0) * number as f64 / load.connections as f64;
        let first_due = run.borrow().figures.now() + whole(delay);
        Ok(Self {
            run,
            socket,
            reader: MessageReader::new(target.protocol),
            template: Template::new(target.protocol, &keys[0].0, load.shape),
            load,
            number,
            keys,
            first_due,
            batches: load.batches(number),
            ids: IdSource::new(load.ids),
            in_flight: InFlight::new(load.in_flight),
            sent: 0,
            timer: None,
        })
    }

    /// Writes until the run stops or there is no more to write, and everything is answered.
    pub(super) async fn write(mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll(cx)).await?;
        self.count_unsent();
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.send_due();
            let written = self.socket.poll_write(cx)?;
            if self.socket.poll_read(cx)?.is_ready() {
                self.receive()?;
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

    /// Whether nothing more has to be sent.
    fn is_done(&self) -> bool {
        self.sent >= self.batches || self.run.borrow().figures.has_stopped()
    }

    /// Whether another batch may be sent once it is due.
    fn may_send(&self) -> bool {
        !self.in_flight.is_full() && !self.is_done()
    }

    /// Puts into the send buffer what may be sent by now.
    fn send_due(&mut self) {
        if !self.may_send() {
            return;
        }
        let now = self.run.borrow().figures.now();
        let unix_millis = unix_millis();
        while self.socket.unsent() < OUT_BYTES && self.may_send() {
            let due = self.next_due().unwrap_or(now);
            if due > now {
                return;
            }
            self.send(due, unix_millis);
        }
    }

    /// When the next batch is due, however long answers take; `None` if it may be sent at any time.
    fn next_due(&self) -> Option<u64> {
        Some(self.first_due + whole(self.sent as f64 * self.load.nanos_each()?))
    }

    /// Counts what was due and could not be sent in time.
    fn count_unsent(&mut self) {
        let figures = &mut self.run.borrow_mut().figures;
        while self.sent < self.batches && self.next_due().is_some_and(|due| figures.unsent(due)) {
            self.sent += 1;
        }
    }

    fn send(&mut self, due: u64, unix_millis: u64) {
        let (batch, at_key) = (self.sent, self.sent as usize % self.keys.len());
        let ids = match self.load.round {
            Round::Second => self.run.borrow().sent[self.number][batch as usize].ids,
            Round::Only | Round::First => self.ids.take(unix_millis, self.template.len()),
        };
        if self.load.round == Round::First {
            let sent = &mut self.run.borrow_mut().sent[self.number];
            sent.push(Sent { ids, sequences: Vec::new() });
        }
        let (key, store) = &self.keys[at_key];
        if self.keys.len() > 1 {
            self.template.set_key(key);
        }
        let pending = Pending { store: *store, due, id_sum: ids.sum(), batch };
        self.template.set_ids(ids.iter());
        self.template.set_request(self.in_flight.put(pending));
        self.template.set_stamp(due);
        self.template.push_to(&mut self.socket, self.load.echo);
        self.sent += 1;
    }

    fn receive(&mut self) -> io::Result<()> {
        let run = &mut *self.run.borrow_mut();
        let now = run.figures.now();
        let slots = self.template.len();
        while let Some(message) = self.socket.next_message()? {
            if self.load.echo {
                // The first message may be anything.
                let request = self.template.request_in(message).unwrap_or(0);
                match self.in_flight.answered(request.into()) {
                    Some(pending) => run.figures.acked(pending.due, now, slots as u64),
                    None => run.figures.fault("an answer to nothing"),
                }
                continue;
            }
            match self.reader.read(message, &mut |_| ())? {
                Answer::Ack(ack) => match self.in_flight.answered(ack.request) {
                    Some(pending) => {
                        run.acked(&pending, now, slots, &ack);
                        run.compare(self.load.round, self.number, &pending, &ack);
                    }
                    None => run.figures.fault("an ack for nothing in flight"),
                },
                Answer::Refused(id, reason) => {
                    id.and_then(|id| self.in_flight.answered(id));
                    run.figures.fault(reason);
                }
                Answer::Other => {}
            }
        }
        Ok(())
    }

    /// Ready once the next batch is due; pending if answers have to come first.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.next_due().filter(|_| self.may_send()) else { return Poll::Pending };
        let due = self.run.borrow().figures.instant(due).into();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::ZERO)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }
}

#[expect(clippy::cast_sign_loss, reason = "no time is negative")]
const fn whole(nanos: f64) -> u64 {
    nanos as u64
}

impl Run {
    /// `sent` is empty except in a second round.
    pub(super) fn new(load: &Load, mut sent: Vec<Vec<Sent>>) -> Self {
        sent.resize_with(load.connections, Vec::new);
        let seen = (0..load.stores).map(|_| Seen::default()).collect();
        Self { seen, sent, ..Self::default() }
    }

    fn acked(&mut self, pending: &Pending, now: u64, slots: usize, ack: &Ack<'_>) {
        self.figures.acked(pending.due, now, slots as u64);
        self.id_sum = self.id_sum.wrapping_add(pending.id_sum);
        if ack.sequences.len() != slots {
            self.figures.fault("an ack without a sequence for each slot");
        }
        if ack.id_sum.is_some_and(|id_sum| id_sum != pending.id_sum) {
            self.figures.fault("an ack of other entries");
        }
        let seen = &mut self.seen[pending.store];
        for sequence in ack.sequences {
            if !seen.insert(*sequence) {
                self.figures.fault("a sequence was acknowledged twice");
            }
        }
    }

    /// What is sent twice gets the sequences of the first time.
    fn compare(&mut self, round: Round, connection: usize, pending: &Pending, ack: &Ack<'_>) {
        let batch = pending.batch as usize;
        match round {
            Round::Only => {}
            Round::First => self.sent[connection][batch].sequences = ack.sequences.to_vec(),
            Round::Second if self.sent[connection][batch].sequences == ack.sequences => {}
            Round::Second => self.figures.fault("a duplicate got another sequence"),
        }
    }
}
