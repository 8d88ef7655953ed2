//! What the server does to the sockets of its connections.

use std::any::Any;
use std::time::Duration;

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use socket2::{SockRef, Socket, TcpKeepalive};

use super::sever::Severable;

/// A peer that acknowledges nothing for this long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// An idle connection is probed after this long.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Pass this to [`HttpServer::on_connect`](actix_web::HttpServer::on_connect) in applications that mount the server: it
/// sends small messages at once, ends connections whose peer is gone, and lets the watchdog end those that do not read.
///
/// Without it everything works, but a client that stops reading keeps its connection until its socket fails.
pub fn on_connect(connection: &dyn Any, extensions: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<TcpStream>() else { return };
    set_options(stream);
    if let Some(severable) = severable(stream) {
        extensions.insert(severable);
    }
}

/// A handle to end the connection, where that is possible.
pub(super) fn severable(stream: &TcpStream) -> Option<Severable> {
    let told = |error: &_| log::warn!("connection cannot be watched: {error}");
    Severable::of(stream).inspect_err(told).ok()
}

pub(super) fn set_options(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    let options = [
        socket.set_tcp_nodelay(true),
        socket.set_tcp_keepalive(&keepalive),
        set_user_timeout(&socket),
    ];
    for error in options.into_iter().filter_map(Result::err) {
        log::debug!("socket option refused: {error}");
    }
}

#[cfg(target_os = "linux")]
fn set_user_timeout(socket: &Socket) -> std::io::Result<()> {
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

#[cfg(not(target_os = "linux"))]
fn set_user_timeout(_: &Socket) -> std::io::Result<()> {
    Ok(())
}
