//! The session actor: one per WebSocket, on the thread of its connection.
//!
//! Keeps: requests are taken one after the other, each through all its checks before the next; `core::connection`
//! decides what is sent; nothing grows while the client does not read. Leaves out: how messages are encoded (`wire`).
//!
//! An actix-web-actors context is polled only while the socket takes bytes. So the whole session is one future that
//! runs on each poll: handle notices, read frames, send writes to stores, then fetch entries until there are enough
//! bytes to fill the socket. A client that does not read is not polled, fetches nothing, and costs only its cursor.
//!
//! | file | what it has of a session |
//! | --- | --- |
//! | `gate` | the socket's bytes, one frame at a time |
//! | `wire`, `msgpack`, `rpc` | what a protocol does: messages to requests, answers to messages |
//! | `pipeline`, `checks` | a request, from the wire until it is carried out or refused |
//! | `quota` | what it uses of the quotas of its keys and their stores |
//! | `unfinished` | the space for messages that are not complete |
//! | `writes` | the writes that are on their way, until they are answered |
//! | `large` | those that are too large for a batch, until they are on their way in pieces |
//! | `turn` | when others of the thread go first |
//! | `subscriptions`, `delivery` | what a subscription has at hand; what of it is sent, and when |
//! | `again` | whether a subscription is still allowed |

mod again;
pub(crate) mod ahead;
pub(crate) mod checks;
mod clock;
mod delivery;
mod gate;
pub(crate) mod large;
pub(crate) mod msgpack;
mod pipeline;
mod quota;
pub(crate) mod refusal;
pub(crate) mod rpc;
pub(crate) mod shared;
mod subscriptions;
mod turn;
pub(crate) mod unfinished;
pub(crate) mod wire;
mod writes;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use actix::prelude::*;
use actix_http::ws::{CloseCode, CloseReason, Message as WsMessage, ProtocolError};
use actix_web::web::Payload;
use actix_web_actors::ws::WebsocketContext;
use log::Level;

use self::again::Again;
use self::clock::{Clock, Expiry, Pings};
use self::gate::{Gate, Inbound};
use self::large::Larges;
use self::pipeline::Pipeline;
use self::quota::Used;
use self::refusal::Refusal;
use self::shared::Shared;
use self::subscriptions::Core;
use self::turn::Turn;
use self::unfinished::Unfinished;
use self::wire::{Broken, Out, Passed, Wire};
use self::writes::Writes;
use super::complaints::{self, Complaint};
use super::connections::Seat;
use super::inbox::{Inbox, Notice};
use super::trace::Moment;
use crate::model::{Limits, PublicKey};
use crate::services::{Caller, RegistryError};

/// A poll ends once this many bytes are ready for the socket; it is polled again when they have been taken.
const OUT_BYTES_PER_POLL: usize = 64 * 1_024;

/// How long a session waits when all connections together have too many writes in flight.
const FULL_RETRY: Duration = Duration::from_millis(10);

/// What a client is told when its proof expires.
const EXPIRED: &str = "expired: connect again with a new token";

/// What a client is told that has to make way for another.
const PUSHED_OUT: &str =
    "strangers: too many connections without a valid request, and this one was the oldest";

pub(crate) struct Session<W: Wire> {
    shared: Arc<Shared>,
    /// The limits that count for it: those of its beginning, or of the last change.
    limits: Arc<Limits>,
    inbox: Arc<Inbox>,
    /// Released when the session ends.
    seat: Seat,
    gate: Gate<Payload>,
    /// When the last message came.
    received: Moment,
    unfinished: Unfinished,
    wire: W,
    pipeline: Pipeline<W>,
    used: Used,
    writes: Writes<W>,
    larges: Larges<W>,
    core: Core<W>,
    again: Again,
    out: Out,
    clock: Clock,
    expiry: Expiry,
    pings: Pings,
    turn: Turn,
    life: Life,
}

/// The stage of a session's life.
enum Life {
    Open,
    /// What was received is answered, then the session ends with a close frame.
    Finishing(CloseCode, String),
    /// It ends with a close frame.
    Closing(CloseCode, String),
    /// The client is gone: there is nobody to tell.
    Gone,
}

impl Life {
    fn is_over(&self) -> bool {
        match self {
            Self::Open | Self::Finishing(..) => false,
            Self::Closing(..) | Self::Gone => true,
        }
    }
}

type Ctx<W> = WebsocketContext<Session<W>>;

impl<W: Wire> Session<W> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        caller: Caller,
        inbox: Arc<Inbox>,
        seat: Seat,
        wire: W,
        payload: Payload,
        unfinished: Unfinished,
    ) -> Self {
        let limits = shared.limits.get();
        let expires = caller.verified().and_then(|verified| verified.expires);
        let gate = Gate::new(payload, limits.frame_bytes_max, limits.message_bytes_max);
        let pings = Pings::every(limits.ping_interval);
        Self {
            shared,
            limits,
            inbox,
            seat,
            gate,
            received: Moment::default(),
            unfinished,
            wire,
            pipeline: Pipeline::new(caller),
            used: Used::default(),
            writes: Writes::default(),
            larges: Larges::default(),
            core: Core::<W>::default(),
            again: Again::default(),
            out: Out::default(),
            clock: Clock::start(),
            expiry: Expiry::at(expires),
            pings,
            turn: Turn::default(),
            life: Life::Open,
        }
    }

    /// One poll. The order of its steps matters.
    fn run(&mut self, ctx: &mut Ctx<W>, cx: &mut Context<'_>) {
        if self.life.is_over() || self.turn.pass(cx) {
            return;
        }
        // This comes first, so that everything put into the inbox from here on makes this run again.
        self.inbox.running(cx.waker());
        // Before anything is read or sent: from here on the caller is unknown.
        if self.expiry.has_come(cx) {
            self.expire();
            return self.close_if_due(ctx);
        }
        // Heads before notices: then every own entry below these heads is known to be our own.
        self.look_at_heads();
        // Before reading: answers make space for further writes, and a removed key must not be allowed anything more.
        self.take_notices();
        // Before reading and delivering, for the same reason.
        self.ask_again(cx);
        self.larges.drained();
        self.read(ctx, cx);
        self.advance_larges(cx);
        self.hold_unfinished();
        self.check_unfinished();
        // After everything was read, so that one message carries all writes of this poll to a store.
        self.send_writes();
        // After everything that ends or begins subscriptions. It gets the rest of the socket's fill.
        self.deliver(cx);
        self.show();
        if self.out.bytes() == 0 {
            // Otherwise this runs again when the bytes have been taken, and passes the turn on if it is over.
            self.turn.end(cx);
        }
        self.send(ctx);
        self.end_large(cx);
        // Last: these look at what the steps above have left.
        self.check_timer(cx);
        self.wait_for_ends(cx);
        if self.pings.is_due(cx) {
            ctx.ping(b"");
        }
        self.close_if_due(ctx);
    }

    /// Publishes the progress for those who look from outside.
    fn show(&mut self) {
        self.seat.traffic().is(self.gate.received_bytes(), self.out.bytes());
        for sub in self.core.subscriptions_mut() {
            sub.delivery.shown.store(sub.cursor().get(), Ordering::Relaxed);
        }
    }

    fn take_notices(&mut self) {
        let mut notices = Vec::new();
        self.inbox.drain(&mut notices);
        for notice in notices {
            match notice {
                Notice::Answered { write, result } => self.answered(write, result),
                Notice::KeyRemoved(key) => self.key_removed(&key),
                Notice::SubscriptionClosed(key) => {
                    self.end_subscription_of(&key, &Refusal::Closed);
                }
                Notice::PushedOut => self
                    .break_off(Broken { code: CloseCode::Again, message: PUSHED_OUT.to_owned() }),
                Notice::Closed => {
                    let said = "an administrator closed this connection".to_owned();
                    self.life = Life::Finishing(CloseCode::Away, said);
                }
                Notice::Lost => {
                    // Nothing more is acknowledged here. What clients have not heard of, they send again elsewhere.
                    let said = "the storage of this server was given to another one: connect again";
                    self.life = Life::Closing(CloseCode::Away, said.to_owned());
                }
                Notice::Shutdown => {
                    self.life =
                        Life::Finishing(CloseCode::Away, "the server is stopping".to_owned());
                }
            }
        }
    }

    fn key_removed(&mut self, key: &PublicKey) {
        self.pipeline.check_again();
        self.end_subscription_of(key, &Refusal::KeyRemoved);
    }

    fn end_subscription_of(&mut self, key: &PublicKey, refusal: &Refusal) {
        if let Some(sub) = self.core.unsubscribe_key(key) {
            self.end_subscription(sub, refusal);
        }
    }

    /// Accepts one message; `false` if there is none yet.
    fn read_message(&mut self, ctx: &mut Ctx<W>, cx: &mut Context<'_>) -> bool {
        let next = match self.life {
            Life::Finishing(..) => self.gate.next_received(),
            Life::Open | Life::Closing(..) | Life::Gone => {
                let behind = self.held_behind_gate();
                let unfinished = &mut self.unfinished;
                self.gate.poll_next(cx, |bytes| unfinished.may_read(bytes + behind))
            }
        };
        let received = self.gate.take_received();
        self.shared.metrics.bytes_received.inc_by(received as u64);
        self.unfinished.received(received, next.is_pending());
        match next {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(Inbound::Binary(message)))) => {
                self.turn.spend(message.len());
                self.lead_to_nothing(message.is_empty(), 1);
                self.received = Moment::now();
                self.wire.accept(message);
            }
            Poll::Ready(Some(Ok(Inbound::Text(text)))) => {
                self.break_off(Broken::stranger::<W>(&text).unwrap_or_else(|| Broken {
                    code: CloseCode::Unsupported,
                    message: "a text message; this protocol is binary".to_owned(),
                }));
            }
            Poll::Ready(Some(Ok(Inbound::Ping(data)))) => {
                self.lead_to_nothing(true, 1);
                ctx.pong(&data);
            }
            Poll::Ready(Some(Ok(Inbound::Pong | Inbound::Fragment(0)))) => {
                self.lead_to_nothing(true, 1);
            }
            Poll::Ready(Some(Ok(Inbound::Fragment(bytes)))) => self.turn.spend(bytes),
            Poll::Ready(Some(Ok(Inbound::Close))) => {
                self.life = Life::Closing(CloseCode::Normal, String::new());
            }
            Poll::Ready(None) => self.life = Life::Gone,
            Poll::Ready(Some(Err(error))) => match error.close_code() {
                Some(code) => self.break_off(Broken { code, message: error.to_string() }),
                None => self.life = Life::Gone,
            },
        }
        true
    }

    fn break_off(&mut self, Broken { code, message }: Broken) {
        let caller = self.pipeline.caller();
        let (address, path) = (caller.shown_address(), caller.shown_path());
        let line = format!("{address} at {path} is closed: {message}");
        self.complain(&Complaint::hourly(line.clone(), line));
        self.shared.metrics.connections_broken.inc();
        self.life = Life::Closing(code, message);
    }

    /// The caller's proof has expired. What is in progress is committed and not acknowledged: a client that comes back
    /// with a new proof sends it again, and gets the existing sequences.
    fn expire(&mut self) {
        log::debug!("connection closed: {EXPIRED}");
        self.life = Life::Closing(CloseCode::Policy, EXPIRED.to_owned());
    }

    /// A problem that only the operator can solve is logged once, in words that help; its clients ask again and again.
    fn log_refusal(&self, what: &str, refusal: &Refusal) {
        match refusal {
            Refusal::Registry(RegistryError::NotMapped { key }) => {
                let caller = self.pipeline.caller();
                let how_else = self.shared.registry.how_else();
                self.complain(&complaints::no_store(key, caller, how_else));
            }
            refusal if refusal.level() > Level::Warn => {
                log::log!(refusal.level(), "{what}: {}", refusal.in_log());
            }
            // While the storage is away, each client tries again and again.
            refusal => self.complain(&Complaint::minutely(format!("{what}: {}", refusal.in_log()))),
        }
    }

    /// Tells whoever runs the server.
    fn complain(&self, complaint: &Complaint) {
        self.shared.complaints.log(complaint);
    }

    /// Passes what was collected to the socket, and to the log.
    fn send(&mut self, ctx: &mut Ctx<W>) {
        for complaint in self.out.take_complaints() {
            self.complain(&complaint);
        }
        if self.out.bytes() > 0 {
            self.turn.spend(self.out.bytes());
            self.lead_to_nothing(false, self.out.count() as u64);
            self.pings.sent();
            self.inbox.mark_wanted();
            let metrics = &self.shared.metrics;
            metrics.bytes_sent.inc_by(self.out.bytes() as u64);
            metrics.requests_refused.inc_by(self.out.refusals().len() as u64);
            for label in self.out.refusals() {
                metrics.refused_with.get_or_create(label).inc();
            }
            self.out.take().into_iter().for_each(|message| ctx.binary(message));
        }
    }

    /// Keeps a timer while something may become too old, or the server is full.
    fn check_timer(&mut self, cx: &mut Context<'_>) {
        let after = if self.shared.is_full(&self.limits) || self.wire.is_busy() {
            Some(FULL_RETRY)
        } else if self.wire.has_unfinished() {
            Some(self.limits.chunk_set_age_max / 4 + Duration::from_millis(1))
        } else if self.is_ending_large() {
            Some(self.limits.stall_timeout / 4 + Duration::from_millis(1))
        } else {
            None
        };
        if self.clock.is_due(after, cx) {
            let now_millis = self.clock.now_millis();
            let (client_millis, received_bytes) =
                (self.unfinished.client_millis(now_millis), self.gate.received_bytes());
            let passed = Passed { now_millis, client_millis, received_bytes };
            if let Err(broken) = self.wire.expire(passed) {
                self.break_off(broken);
            }
            self.check_large();
            cx.waker().wake_by_ref();
        }
    }

    fn close_if_due(&mut self, ctx: &mut Ctx<W>) {
        let finished = self.pipeline.is_empty()
            && self.larges.is_empty()
            && self.writes.is_empty()
            && self.core.acks_are_sent();
        if finished && let Life::Finishing(code, text) = &mut self.life {
            self.life = Life::Closing(*code, std::mem::take(text));
        }
        match &self.life {
            Life::Open | Life::Finishing(..) => return,
            Life::Gone => {}
            Life::Closing(code, text) => {
                // A close frame holds 125 bytes, two of them the code.
                let description = text.chars().take(120).filter(char::is_ascii).collect();
                ctx.close(Some(CloseReason { code: *code, description: Some(description) }));
            }
        }
        ctx.stop();
    }
}

impl<W: Wire> Drop for Session<W> {
    fn drop(&mut self) {
        let metrics = &self.shared.metrics;
        let bytes = self.writes.bytes();
        self.shared.write_bytes_in_flight.fetch_sub(bytes, std::sync::atomic::Ordering::Relaxed);
        metrics.connections_open.dec();
        metrics.subscriptions_open.dec_by(self.core.subscriptions().len() as i64);
    }
}

impl<W: Wire> Actor for Session<W> {
    type Context = Ctx<W>;

    fn started(&mut self, ctx: &mut Ctx<W>) {
        let metrics = &self.shared.metrics;
        metrics.connections_accepted.inc();
        metrics.connections_open.inc();
        self.wire.open(self.pipeline.caller(), &mut self.out);
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

/// The context requires it, but its decoder is not used: frames come through the [`Gate`].
impl<W: Wire> StreamHandler<Result<WsMessage, ProtocolError>> for Session<W> {
    fn handle(&mut self, _: Result<WsMessage, ProtocolError>, _: &mut Ctx<W>) {}
}
