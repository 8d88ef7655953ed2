//! The task behind a client: one connection after another, until nobody needs them.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::connection::{Connection, End};
use super::core::{Command, Core};
use super::error::RemoteError;
use super::socket::{Link, Target};
use super::state::State;
use crate::model::RemoteId;

/// The longest wait before the first attempt to reconnect.
const DELAY_FIRST: Duration = Duration::from_millis(100);

pub(super) struct Driver {
    target: Target,
    /// The server of the first connection.
    remote_id: RemoteId,
    core: Core,
    state: State,
    commands: mpsc::UnboundedReceiver<Command>,
    /// The longest wait before the next attempt to reconnect.
    delay_max: Duration,
}

impl Driver {
    pub(super) fn new(
        target: Target,
        remote_id: RemoteId,
        core: Core,
        state: State,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self { target, remote_id, core, state, commands, delay_max: DELAY_FIRST }
    }

    /// Runs until the client is closed, or every handle and stream is dropped.
    pub(super) async fn run(mut self, link: Link) {
        let error = self.serve(link).await.err();
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            self.core.command(command);
        }
        self.core.end(error.as_ref());
    }

    async fn serve(&mut self, mut link: Link) -> Result<(), RemoteError> {
        loop {
            let started = Instant::now();
            self.core.connected();
            let connection = Connection::new(link, self.target.options());
            match connection.run(&mut self.core, &mut self.commands).await {
                End::Closed => return Ok(()),
                End::BrokenOff(error) => {
                    log::warn!("{error}");
                    self.state.is_lost(&error.to_string());
                    self.core.disconnected(Some(&error));
                }
                End::Lost(reason) => {
                    log::debug!("connection lost: {reason}");
                    self.state.is_lost(&reason);
                    self.core.disconnected(None);
                }
            }
            // A server that hangs up on everybody must not be called again at once, forever.
            if started.elapsed() >= self.target.options().reconnect_delay_max {
                self.delay_max = DELAY_FIRST;
            }
            let Some(next) = self.reconnect().await? else { return Ok(()) };
            link = next;
            self.state.is_connected();
        }
    }

    /// Tries until there is a connection; `None` if the client ends meanwhile.
    async fn reconnect(&mut self) -> Result<Option<Link>, RemoteError> {
        loop {
            let (target, delay) = (&self.target, jittered(self.delay_max));
            self.delay_max = (self.delay_max * 2).min(target.options().reconnect_delay_max);
            let attempt = async {
                sleep(delay).await;
                target.connect().await
            };
            let connected = tokio::select! {
                connected = attempt => connected,
                () = take_commands(&mut self.core, &mut self.commands) => return Ok(None),
            };
            match connected {
                Ok((link, found)) if found == self.remote_id => return Ok(Some(link)),
                Ok((_, found)) => {
                    return Err(RemoteError::OtherServer { expected: self.remote_id, found });
                }
                Err(error) => {
                    log::debug!("cannot reconnect: {error}");
                    self.state.is_lost(&error.to_string());
                }
            }
        }
    }
}

/// Takes commands while there is no connection, until one of them, or the end of them, ends the client.
async fn take_commands(core: &mut Core, commands: &mut mpsc::UnboundedReceiver<Command>) {
    while !core.is_closing() {
        match commands.recv().await {
            Some(command) => core.command(command),
            None => return,
        }
    }
}

/// Between half of `delay` and all of it, so that the clients of a restarted server do not return all at once.
fn jittered(delay: Duration) -> Duration {
    let [random, ..] = uuid::Uuid::new_v4().into_bytes();
    delay.mul_f64(0.5 + f64::from(random) / 512.0)
}
