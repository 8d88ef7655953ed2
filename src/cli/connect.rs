//! A connection to a server, for the commands that are clients.

use std::io;

use eventlog_server::client::{ConnectError, EventLogRemote, Options};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::address::ServerUrl;

/// The server cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {cause}; is the server running, and is --url right?")]
pub(super) struct Unconnected {
    url: String,
    cause: ConnectError,
}

/// Connects once. Later losses of the connection mend themselves.
pub(super) async fn connect(
    url: &ServerUrl,
    options: Options,
) -> Result<EventLogRemote, Unconnected> {
    let connected = EventLogRemote::connect(&url.websocket(), options).await;
    connected.map_err(|cause| Unconnected { url: url.without_query(), cause })
}

/// A runtime for a command that talks to a server: one thread is plenty.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Whether output failed because nobody reads it any more (`… | head`): a good reason to stop, and no failure.
pub(super) fn is_reader_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Resolves once nobody reads standard output any more, even if nothing is printed; never for a file.
///
/// A thread waits for it, until the process ends.
pub(super) async fn reader_gone() {
    let (sender, gone) = oneshot::channel();
    std::thread::spawn(move || {
        let output = io::stdout();
        // No event is asked for: only an error, or the other end's hanging up, ends the wait.
        let mut watched = [PollFd::new(&output, PollFlags::empty())];
        while let Err(rustix::io::Errno::INTR) = poll(&mut watched, None) {}
        // Nobody waits for it if the command has ended.
        let _ = sender.send(());
    });
    if gone.await.is_err() {
        std::future::pending::<()>().await;
    }
}
