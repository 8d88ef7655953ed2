//! Moves messages between the core, the wire and one socket.
//!
//! Keeps: it reads what the socket has even while the socket takes nothing, so that the two sides never wait for each
//! other; it takes no more commands while messages wait to be sent.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::core::{Command, Core};
use super::error::RemoteError;
use super::options::Options;
use super::socket::{Link, Socket};
use super::wire::{Wire, WireError};

/// Time between checks of streams that hold entries back, see [`Core::tick`].
const TICK: Duration = Duration::from_secs(1);
/// How long an orderly end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages that are read before something is sent, so that neither direction starves.
const READS_PER_TURN: usize = 64;
/// Most messages that wait to be sent before commands have to wait.
const OUTGOING_MAX: usize = 256;

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// It is lost: make the next one.
    Lost(String),
    /// The server closed it because of what it was sent.
    BrokenOff(RemoteError),
    /// The client ends: it was closed and everything is answered, or nobody holds it any more.
    Closed,
}

pub(super) struct Connection {
    socket: Socket,
    wire: Box<dyn Wire>,
    unflushed: bool,
    heartbeat: Interval,
    tick: Interval,
}

impl Connection {
    pub(super) fn new(link: Link, options: &Options) -> Self {
        let Link { socket, wire } = link;
        let every = |period: Duration| {
            let mut interval = interval_at(Instant::now() + period, period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        Self {
            socket,
            wire,
            unflushed: false,
            heartbeat: every(options.ping_interval),
            tick: every(TICK),
        }
    }

    /// Runs until the connection, or the client, ends.
    pub(super) async fn run(
        mut self,
        core: &mut Core,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> End {
        let end = poll_fn(|cx| self.poll(cx, core, commands)).await;
        if matches!(end, End::Closed) {
            // A failure here changes nothing: everything is answered.
            let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            let closing = self.socket.send(Message::Close(Some(frame)));
            drop(timeout(CLOSE_TIMEOUT, closing).await);
        }
        end
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        core: &mut Core,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Poll<End> {
        match self.turn(cx, core, commands) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Does what can be done now; the context is woken when there is more to do.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        core: &mut Core,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), End> {
        loop {
            self.watch(cx, core)?;
            let more_to_read = self.read(cx, core)?;
            let more_to_take = take(cx, core, commands)?;
            let sent = self.send(cx, core)?;
            if core.is_closing() && core.is_answered() && sent {
                return Err(End::Closed);
            }
            let more = more_to_read || (more_to_take && sent);
            if !more {
                return Ok(());
            }
        }
    }

    fn watch(&mut self, cx: &mut Context<'_>, core: &mut Core) -> Result<(), End> {
        while self.heartbeat.poll_tick(cx).is_ready() {
            core.heartbeat().map_err(|fault| End::Lost(fault.to_string()))?;
        }
        while core.wants_tick() && self.tick.poll_tick(cx).is_ready() {
            core.tick();
        }
        Ok(())
    }

    /// Receives some messages; `true` if there may be more.
    fn read(&mut self, cx: &mut Context<'_>, core: &mut Core) -> Result<bool, End> {
        for _ in 0..READS_PER_TURN {
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => self.receive(message, core)?,
                Poll::Ready(Some(Err(error))) => return Err(lost(&error)),
                Poll::Ready(None) => return Err(End::Lost("end of stream".to_owned())),
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    fn receive(&mut self, message: Message, core: &mut Core) -> Result<(), End> {
        match message {
            Message::Binary(message) => self.wire.accept(message),
            Message::Close(frame) => return Err(closed(frame)),
            Message::Text(_) => return Err(End::Lost("a text message".to_owned())),
            // The library answers pings itself.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        }
        self.hand_over(core)
    }

    /// Tells the core everything that the wire has received.
    fn hand_over(&mut self, core: &mut Core) -> Result<(), End> {
        while let Some(incoming) = self.wire.next_incoming().map_err(broken)? {
            core.receive(incoming).map_err(|fault| End::Lost(fault.to_string()))?;
        }
        Ok(())
    }

    /// Sends what the socket takes; `true` if nothing is left.
    fn send(&mut self, cx: &mut Context<'_>, core: &mut Core) -> Result<bool, End> {
        loop {
            if self.wire.messages().is_empty() {
                let Some(outgoing) = core.next_outgoing() else { break };
                self.wire.send(outgoing);
                self.hand_over(core)?;
                continue;
            }
            match Pin::new(&mut self.socket).poll_ready(cx) {
                Poll::Ready(ready) => ready.map_err(|error| lost(&error))?,
                Poll::Pending => return Ok(false),
            }
            if let Some(message) = self.wire.messages().pop_front() {
                let sent = Pin::new(&mut self.socket).start_send(Message::Binary(message));
                sent.map_err(|error| lost(&error))?;
                self.unflushed = true;
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(flushed) => flushed.map_err(|error| lost(&error))?,
                Poll::Pending => return Ok(false),
            }
            self.unflushed = false;
        }
        Ok(true)
    }
}

/// Receives commands; `true` if there may be more.
fn take(
    cx: &mut Context<'_>,
    core: &mut Core,
    commands: &mut mpsc::UnboundedReceiver<Command>,
) -> Result<bool, End> {
    while core.outgoing_len() < OUTGOING_MAX {
        match commands.poll_recv(cx) {
            Poll::Ready(Some(command)) => core.command(command),
            Poll::Ready(None) => return Err(End::Closed),
            Poll::Pending => return Ok(false),
        }
    }
    Ok(true)
}

fn lost(error: &Error) -> End {
    End::Lost(error.to_string())
}

fn broken(error: WireError) -> End {
    match error {
        WireError::Defect(text) => End::BrokenOff(RemoteError::Crashed(text)),
        error => End::Lost(error.to_string()),
    }
}

/// Whether the close was our fault decides whether it is worth sending again what we sent.
fn closed(frame: Option<CloseFrame>) -> End {
    let Some(CloseFrame { code, reason }) = frame else {
        return End::Lost("closed by the server".to_owned());
    };
    let reason = reason.to_string();
    match code {
        CloseCode::Protocol
        | CloseCode::Unsupported
        | CloseCode::Invalid
        | CloseCode::Policy
        | CloseCode::Size => End::BrokenOff(RemoteError::BrokenOff { code: code.into(), reason }),
        other => End::Lost(format!("closed by the server: {other} {reason}")),
    }
}
