//! The server on a socket of its own, for the binary and for tests.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_web::{App, HttpServer};

use super::handle::Server;
use super::socket::on_connect;

/// How to serve.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Threads for connections; at least one.
    pub workers: usize,
    /// How long connections and stores may take to finish when the server stops.
    pub shutdown_timeout: Duration,
}

/// Serves everything at `listener` until `stop` resolves, then shuts the server down; an orderly end is `Ok`.
pub async fn listen(
    server: Server,
    listener: TcpListener,
    options: Listen,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mounted = server.clone();
    let app = move || {
        let server = mounted.clone();
        App::new().configure(|config| {
            server.configure(config);
            server.configure_operations(config);
        })
    };
    let http = HttpServer::new(app)
        .on_connect(on_connect)
        .workers(options.workers.max(1))
        .disable_signals()
        .backlog(4_096)
        .shutdown_timeout(1)
        .listen(listener)?
        .run();
    let handle = http.handle();
    let serving = actix_web::rt::spawn(http);
    stop.await;
    // No new connections from here on; the live ones are ours to finish.
    handle.pause().await;
    server.shutdown(options.shutdown_timeout).await;
    handle.stop(true).await;
    serving.await.map_err(io::Error::other)?
}
