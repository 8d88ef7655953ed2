//! A connection to a server, for the commands that are clients.

use std::io;

use eventlog_server::client::{ConnectError, EventLogRemote, HeadError, Options};
use eventlog_server::model::{PublicKey, Sequence};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Error;

use super::address::ServerUrl;

/// The server cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {cause}; {hint}")]
pub(super) struct Unconnected {
    url: String,
    cause: ConnectError,
    hint: String,
}

impl Unconnected {
    fn new(url: &ServerUrl, cause: ConnectError) -> Self {
        let hint = hint(&cause);
        Self { url: url.without_query(), cause, hint }
    }
}

/// What may be wrong.
fn hint(cause: &ConnectError) -> String {
    if let ConnectError::Unreachable(error) = cause
        && let Error::Http(response) = &**error
    {
        let said = response.body().as_deref().unwrap_or_default();
        let said = String::from_utf8_lossy(&said[..said.len().min(500)]);
        return match (said.trim(), response.status().as_u16()) {
            ("", 401) => "does it need a --token?".to_owned(),
            ("", _) => "is --url right?".to_owned(),
            (said, _) => format!("it says: {said}"),
        };
    }
    if let Some(hint) = no_tls(&cause.to_string()) {
        return hint.to_owned();
    }
    if cause.to_string().contains("CaUsedAsEndEntity") {
        return "the server shows a certificate that is a certificate authority itself. Make it one for a server \
                (basicConstraints CA:FALSE), signed by the authority that --ca names"
            .to_owned();
    }
    if cause.to_string().contains("certificate") {
        return "if it uses its own certificate authority, give that with --ca".to_owned();
    }
    "is the server running, and is --url right?".to_owned()
}

/// What to do if TLS was begun where there is none: rustls then gets something that is no TLS.
pub(super) fn no_tls(cause: &str) -> Option<&'static str> {
    let hint = "this port has no TLS: write ws:// or http:// in front, not wss:// or https://";
    cause.contains("InvalidContentType").then_some(hint)
}

/// Connects once. A connection that is lost later is reopened automatically.
pub(super) async fn connect(
    url: &ServerUrl,
    options: Options,
) -> Result<EventLogRemote, Unconnected> {
    let connected = EventLogRemote::connect(&url.websocket(), options).await;
    connected.map_err(|cause| Unconnected::new(url, cause))
}

/// The head of the store of `key`.
pub(super) async fn head(
    url: &ServerUrl,
    options: Options,
    key: &PublicKey,
) -> Result<Sequence, HeadFault> {
    let head = EventLogRemote::head(&url.websocket(), options, key).await;
    head.map_err(|error| match error {
        HeadError::Connect(cause) => HeadFault::Unconnected(Unconnected::new(url, cause)),
        error @ (HeadError::Refused(_) | HeadError::NotSaid) => HeadFault::Head(error),
    })
}

/// Why the head of a store is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeadFault {
    /// The server cannot be reached.
    #[error(transparent)]
    Unconnected(Unconnected),
    /// It does not say.
    #[error(transparent)]
    Head(HeadError),
}

/// A runtime for a command that talks to a server: one thread is enough.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Whether output failed because nobody reads it any more (`… | head`): a good reason to stop, and not a failure.
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
        // No event is requested: only an error, or the other end hanging up, ends the wait.
        let mut watched = [PollFd::new(&output, PollFlags::empty())];
        while let Err(rustix::io::Errno::INTR) = poll(&mut watched, None) {}
        // If the command has ended, nobody waits for it.
        let _ = sender.send(());
    });
    if gone.await.is_err() {
        std::future::pending::<()>().await;
    }
}
