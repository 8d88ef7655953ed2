//! The server on a socket of its own, for the binary and for tests.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_http::{HttpService, Request};
use actix_service::{ServiceFactory, map_config};
use actix_web::App;
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::rt::net::TcpStream;

use super::handle::Server;
use super::socket::on_connect;
use super::upgraded::upgraded;

/// How long a connection that is no WebSocket may be silent between requests.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

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
    let address = listener.local_addr()?;
    let mounted = server.clone();
    let service = move || {
        HttpService::build()
            .keep_alive(KEEP_ALIVE)
            .client_disconnect_timeout(Duration::from_secs(1))
            .local_addr(address)
            .on_connect_ext(|stream: &TcpStream, extensions| on_connect(stream, extensions))
            .upgrade(upgraded(application(&mounted)))
            .finish(application(&mounted))
            .tcp()
    };
    let http = actix_web::dev::Server::build()
        .workers(options.workers.max(1))
        .disable_signals()
        .backlog(4_096)
        .shutdown_timeout(1)
        .listen("eventlog", listener, service)?
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

/// Everything that the server answers, for one thread.
fn application(
    server: &Server,
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response = ServiceResponse,
    Error = actix_web::Error,
    InitError = (),
> + use<> {
    let server = server.clone();
    let app = App::new().configure(|config| {
        server.configure(config);
        server.configure_operations(config);
    });
    map_config(app, |()| AppConfig::default())
}
