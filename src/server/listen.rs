//! The server on a socket of its own, for the binary and for tests.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_http::{HttpService, KeepAlive, Request};
use actix_service::{ServiceFactory, ServiceFactoryExt, map_config};
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::{App, HttpRequest, web};

use super::arrived::{Arrived, arrivals};
use super::handle::Server;
use super::upgraded::upgraded;
use super::wrong_peers;

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
    let keep_alive = match server.inner().shared.limits.keep_alive {
        Duration::ZERO => KeepAlive::Disabled,
        keep_alive => KeepAlive::Timeout(keep_alive),
    };
    let service = move || {
        let http = HttpService::build()
            .keep_alive(keep_alive)
            .client_disconnect_timeout(Duration::from_secs(1))
            .local_addr(address)
            .on_connect_ext(|arrived: &Arrived, extensions| arrived.on_connect(extensions))
            .upgrade(upgraded(application(&mounted)))
            .finish(application(&mounted));
        arrivals(&mounted).and_then(http)
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
    let elsewhere = server.clone();
    let nothing = move |request: HttpRequest| {
        std::future::ready(wrong_peers::nothing_here(&elsewhere, &request))
    };
    let app = App::new().default_service(web::to(nothing)).configure(|config| {
        server.configure(config);
        server.configure_operations(config);
    });
    map_config(app, |()| AppConfig::default())
}
