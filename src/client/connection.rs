//! Moves messages between the core and one socket.
//!
//! Keeps: it reads what the socket has even while the socket takes nothing, so that the two sides never wait for each
//! other; it takes no more commands while what it has cannot be sent.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::core::{Command, Core, Outgoing};
use super::error::RemoteError;
use super::options::Options;
use super::socket::Socket;
use super::wire::Wire;

/// Time between looks at streams that hold entries back, see [`Core::tick`].
const TICK: Duration = Duration::from_secs(5);
/// How long a polite end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages read before something is sent, so that neither starves.
const READS_PER_TURN: usize = 64;
/// Messages that wait to be sent, at most, before commands have to wait.
const OUTGOING_MAX: usize = 256;

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// It is lost: on to the next one.
    Lost(String),
    /// The server closed it because of what it was sent.
    BrokenOff(RemoteError),
    /// The client ends: it was closed and everything is answered, or nobody holds it any longer.
    Closed,
}

pub(super) struct Connection {
    socket: Socket,
    wire: Wire,
    message_bytes_max: usize,
    /// The frames of the message that is being sent.
    frames: VecDeque<Bytes>,
    unflushed: bool,
    heartbeat: Interval,
    tick: Interval,
}

impl Connection {
    pub(super) fn new(socket: Socket, options: &Options) -> Self {
        let every = |period: Duration| {
            let mut interval = interval_at(Instant::now() + period, period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        Self {
            socket,
            wire: Wire::new(options.message_bytes_max),
            message_bytes_max: options.message_bytes_max,
            frames: VecDeque::new(),
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
            // Its failure changes nothing: everything is answered.
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

    /// Does what can be done now; the context is woken when there is more.
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

    /// Takes in some messages; `true` if there may be more.
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
        let frame = match message {
            Message::Binary(frame) => frame,
            Message::Close(frame) => return Err(closed(frame)),
            Message::Text(_) => return Err(End::Lost("a text message".to_owned())),
            // The library answers pings by itself.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        };
        let decoded = self.wire.decode(&frame).map_err(|error| End::Lost(error.to_string()))?;
        let Some(response) = decoded else { return Ok(()) };
        core.receive(response).map_err(|fault| End::Lost(fault.to_string()))
    }

    /// Sends what the socket takes; `true` if nothing is left.
    fn send(&mut self, cx: &mut Context<'_>, core: &mut Core) -> Result<bool, End> {
        let mut socket = Pin::new(&mut self.socket);
        loop {
            if self.frames.is_empty() {
                let Some(outgoing) = core.next_outgoing() else { break };
                let encoded = self.wire.encode(&outgoing, |frame| self.frames.push_back(frame));
                if let (Err(error), Outgoing::Write { id, .. }) = (encoded, &outgoing) {
                    let (bytes, bytes_max) = (error.bytes, self.message_bytes_max);
                    core.refuse(*id, RemoteError::TooLarge { bytes, bytes_max });
                }
                continue;
            }
            match socket.as_mut().poll_ready(cx) {
                Poll::Ready(ready) => ready.map_err(|error| lost(&error))?,
                Poll::Pending => return Ok(false),
            }
            if let Some(frame) = self.frames.pop_front() {
                let sent = socket.as_mut().start_send(Message::Binary(frame));
                sent.map_err(|error| lost(&error))?;
                self.unflushed = true;
            }
        }
        if self.unflushed {
            match socket.poll_flush(cx) {
                Poll::Ready(flushed) => flushed.map_err(|error| lost(&error))?,
                Poll::Pending => return Ok(false),
            }
            self.unflushed = false;
        }
        Ok(true)
    }
}

/// Takes commands in; `true` if there may be more.
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

/// Whether a close was our fault decides whether what we sent is worth sending again.
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
