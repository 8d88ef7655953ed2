//! The session actor: one per WebSocket, on the thread of its connection.
//!
//! Keeps: requests are taken one after the other, each through all its checks before the next; what is sent is decided
//! by `core::connection`; nothing grows while the client does not read. Leaves out: how messages look (`wire`).
//!
//! An actix-web-actors context is polled only while the socket takes bytes. So the whole session is one future that is
//! run on each poll: take in events, read frames, send writes to stores, then fetch entries until a socket's fill of
//! bytes is at hand. A client that does not read is not polled, fetches nothing, and costs its cursor.

mod checks;
mod delivery;
mod gate;
pub(crate) mod msgpack;
mod refusal;
mod requests;
pub(crate) mod rpc;
pub(crate) mod shared;
pub(crate) mod wire;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix::prelude::*;
use actix_http::ws::{CloseCode, CloseReason, Message as WsMessage, ProtocolError};
use actix_web::web::Payload;
use actix_web_actors::ws::WebsocketContext;
use futures_util::future::LocalBoxFuture;

use self::delivery::Subscription;
use self::gate::{Gate, Inbound};
use self::refusal::Refusal;
use self::requests::{Checked, Known, PendingWrite};
use self::shared::Shared;
use self::wire::{Broken, Out, Wire};
use super::connections::Place;
use super::inbox::{Event, Inbox};
use super::reply::{Reply, WriteFailure};
use super::store::StoreHandle;
use crate::core::connection::{ConnectionCore, SubscriptionId};
use crate::core::store::{Acked, Slots, Write};
use crate::model::{PublicKey, Sequence};
use crate::services::Caller;

/// A poll ends once so many bytes are at hand for the socket; it is polled again when they are on their way.
const OUT_BYTES_PER_POLL: usize = 64 * 1_024;

/// A poll takes in at most so many messages before the thread's other connections have their turn.
const MESSAGES_PER_POLL: usize = 512;

/// How long a session waits when all connections together have too many writes in flight.
const FULL_RETRY_MILLIS: u64 = 10;

pub(crate) struct Session<W: Wire> {
    shared: Arc<Shared>,
    caller: Caller,
    inbox: Arc<Inbox>,
    /// Given back when the session ends.
    _place: Place,
    wire: W,
    gate: Gate<Payload>,
    core: ConnectionCore<StoreHandle, (W::Write, Slots)>,
    /// Boxed, since the smallest map has room for four.
    subscriptions: HashMap<SubscriptionId, Box<Subscription<W>>>,
    /// The heads of this poll, see `core::connection`.
    heads: Vec<(SubscriptionId, Sequence)>,
    /// The request that is being checked; the next one waits.
    checking: Option<LocalBoxFuture<'static, Checked<W>>>,
    /// The key of that request was removed meanwhile.
    checking_void: bool,
    /// The key of writes that come one after the other, and its store.
    resolved: Option<Known>,
    /// Unanswered writes by number; the first one's number is `writes_answered`.
    writes: VecDeque<Option<PendingWrite<W>>>,
    writes_answered: u64,
    write_bytes_in_flight: usize,
    /// Checked writes on their way, by store.
    outgoing: Vec<(StoreHandle, Vec<Write<Reply>>)>,
    out: Out,
    started: Instant,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
    finishing: bool,
    closing: Option<Closing>,
}

/// How a session ends.
enum Closing {
    /// The client is gone: there is nobody to tell.
    Gone,
    /// With a close frame.
    With(CloseCode, String),
}

type Ctx<W> = WebsocketContext<Session<W>>;

impl<W: Wire> Session<W> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        caller: Caller,
        inbox: Arc<Inbox>,
        place: Place,
        wire: W,
        payload: Payload,
    ) -> Self {
        let limits = &shared.limits;
        let gate = Gate::new(payload, limits.frame_bytes_max, limits.message_bytes_max);
        Self {
            shared,
            caller,
            inbox,
            _place: place,
            wire,
            gate,
            core: ConnectionCore::default(),
            subscriptions: HashMap::new(),
            heads: Vec::new(),
            checking: None,
            checking_void: false,
            resolved: None,
            writes: VecDeque::new(),
            writes_answered: 0,
            write_bytes_in_flight: 0,
            outgoing: Vec::new(),
            out: Out::default(),
            started: Instant::now(),
            timer: None,
            finishing: false,
            closing: None,
        }
    }

    fn run(&mut self, ctx: &mut Ctx<W>, cx: &mut Context<'_>) {
        if self.closing.is_some() {
            return;
        }
        self.inbox.running(cx.waker());
        // Heads first, events second: then every entry below these heads that is our own is known to be.
        self.look_at_heads();
        self.take_events();
        self.read(ctx, cx);
        self.send_writes();
        self.deliver(cx);
        self.send(ctx);
        self.check_timer(cx);
        self.close_if_due(ctx);
    }

    fn take_events(&mut self) {
        let mut events = Vec::new();
        self.inbox.drain(&mut events);
        for event in events {
            match event {
                Event::Answered { write, result } => self.answered(write, result),
                Event::KeyRemoved(key) => self.key_removed(&key),
                Event::Shutdown => self.finishing = true,
            }
        }
    }

    fn answered(&mut self, write: u64, result: Result<Acked, WriteFailure>) {
        let at = write.wrapping_sub(self.writes_answered) as usize;
        let Some(pending) = self.writes.get_mut(at).and_then(Option::take) else { return };
        while let Some(None) = self.writes.front() {
            self.writes.pop_front();
            self.writes_answered += 1;
        }
        self.release(pending.bytes);
        match result {
            Ok(acked) => {
                let ack = (pending.tag, acked.slots.clone());
                self.core.answered(pending.store, pending.subscription, &acked, ack);
            }
            Err(failure) => self.refuse_write(pending.tag, &failure.into()),
        }
    }

    fn refuse_write(&mut self, tag: W::Write, refusal: &Refusal) {
        // An invalid entry is one that an RPC client sends again for ever: somebody has to see it.
        let invalid = matches!(refusal, Refusal::Invalid(_));
        let level = if invalid { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "write refused: {refusal}");
        self.wire.write_refused(tag, refusal, &mut self.out);
    }

    fn refuse_subscription(&mut self, tag: W::Subscription, refusal: &Refusal) {
        log::debug!("subscription refused: {refusal}");
        self.wire.subscription_refused(tag, refusal, &mut self.out);
    }

    fn key_removed(&mut self, key: &PublicKey) {
        // Whichever key it is for: checking again costs little, and keys are rarely removed.
        self.checking_void = self.checking.is_some();
        if let Some(id) = self.core.unsubscribe_key(key) {
            self.end_subscription(id, &Refusal::KeyRemoved);
        }
    }

    /// Reads and starts requests until one has to wait, limits are reached, or nothing more is there.
    fn read(&mut self, ctx: &mut Ctx<W>, cx: &mut Context<'_>) {
        let mut messages = 0;
        while self.closing.is_none() && self.out.bytes() < OUT_BYTES_PER_POLL {
            if !self.poll_checking(cx) || self.is_full() {
                return;
            }
            let now = self.now_millis();
            match self.wire.next_request(&self.shared.limits, now, &mut self.out) {
                Ok(Some(request)) => self.check(request),
                Ok(None) if messages == MESSAGES_PER_POLL => return cx.waker().wake_by_ref(),
                Ok(None) => {
                    messages += 1;
                    if !self.read_message(ctx, cx) {
                        return;
                    }
                }
                Err(broken) => self.break_off(broken),
            }
        }
    }

    /// Takes in one message; `false` if there is none yet.
    fn read_message(&mut self, ctx: &mut Ctx<W>, cx: &mut Context<'_>) -> bool {
        let next = if self.finishing { self.gate.next_received() } else { self.gate.poll_next(cx) };
        match next {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(Inbound::Binary(message)))) => self.wire.accept(message),
            Poll::Ready(Some(Ok(Inbound::Text))) => self.break_off(Broken {
                code: CloseCode::Unsupported,
                message: "a text message; this protocol is binary".to_owned(),
            }),
            Poll::Ready(Some(Ok(Inbound::Ping(data)))) => ctx.pong(&data),
            Poll::Ready(Some(Ok(Inbound::Pong))) => {}
            Poll::Ready(Some(Ok(Inbound::Close))) => {
                self.closing = Some(Closing::With(CloseCode::Normal, String::new()));
            }
            Poll::Ready(None) => self.closing = Some(Closing::Gone),
            Poll::Ready(Some(Err(error))) => match error.close_code() {
                Some(code) => self.break_off(Broken { code, message: error.to_string() }),
                None => self.closing = Some(Closing::Gone),
            },
        }
        true
    }

    fn break_off(&mut self, Broken { code, message }: Broken) {
        log::info!("connection closed: {message}");
        self.shared.metrics.connections_broken.inc();
        self.closing = Some(Closing::With(code, message));
    }

    /// Hands what was collected to the socket.
    fn send(&mut self, ctx: &mut Ctx<W>) {
        if self.out.bytes() > 0 {
            self.inbox.mark_wanted();
            self.shared.metrics.requests_refused.inc_by(self.out.refusals());
            self.out.take().into_iter().for_each(|message| ctx.binary(message));
        }
    }

    /// Keeps a timer while something may become too old, or the server is full.
    fn check_timer(&mut self, cx: &mut Context<'_>) {
        let millis = if self.shared.is_full() {
            FULL_RETRY_MILLIS
        } else if self.wire.has_unfinished() {
            self.shared.limits.chunk_set_age_max.as_millis() as u64 / 4 + 1
        } else {
            self.timer = None;
            return;
        };
        let sleep = || Box::pin(tokio::time::sleep(std::time::Duration::from_millis(millis)));
        let timer = self.timer.get_or_insert_with(sleep);
        if timer.as_mut().poll(cx).is_ready() {
            self.timer = None;
            if let Err(broken) = self.wire.expire(self.now_millis()) {
                self.break_off(broken);
            }
            cx.waker().wake_by_ref();
        }
    }

    fn close_if_due(&mut self, ctx: &mut Ctx<W>) {
        let finished = self.finishing
            && self.checking.is_none()
            && self.writes.is_empty()
            && self.core.acks_are_sent();
        if finished && self.closing.is_none() {
            self.closing = Some(Closing::With(CloseCode::Away, "the server stops".to_owned()));
        }
        match &self.closing {
            None => return,
            Some(Closing::Gone) => {}
            Some(Closing::With(code, text)) => {
                // A close frame holds 125 bytes, two of them the code.
                let description = text.chars().take(120).filter(char::is_ascii).collect();
                ctx.close(Some(CloseReason { code: *code, description: Some(description) }));
            }
        }
        ctx.stop();
    }

    fn now_millis(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl<W: Wire> Drop for Session<W> {
    fn drop(&mut self) {
        let metrics = &self.shared.metrics;
        let bytes = self.write_bytes_in_flight;
        self.shared.write_bytes_in_flight.fetch_sub(bytes, std::sync::atomic::Ordering::Relaxed);
        metrics.connections_open.dec();
        metrics.subscriptions_open.dec_by(self.subscriptions.len() as i64);
    }
}

impl<W: Wire> Actor for Session<W> {
    type Context = Ctx<W>;

    fn started(&mut self, ctx: &mut Ctx<W>) {
        let metrics = &self.shared.metrics;
        metrics.connections_accepted.inc();
        metrics.connections_open.inc();
        self.wire.open(&mut self.out);
        ctx.spawn(Running);
    }
}

/// Runs the session on every poll of its context.
struct Running;

impl<W: Wire> ActorFuture<Session<W>> for Running {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        session: &mut Session<W>,
        ctx: &mut Ctx<W>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        session.run(ctx, cx);
        Poll::Pending
    }
}

/// Required by the context, whose own decoder is not used: frames come through the [`Gate`].
impl<W: Wire> StreamHandler<Result<WsMessage, ProtocolError>> for Session<W> {
    fn handle(&mut self, _: Result<WsMessage, ProtocolError>, _: &mut Ctx<W>) {}
}
