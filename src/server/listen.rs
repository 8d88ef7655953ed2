//! The server on a socket of its own, for the binary and for tests.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Request};
use actix_service::{Service, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::rt::net::TcpStream;
use actix_web::web::{self, ServiceConfig};
use actix_web::{App, HttpRequest};

use super::arrived::{Arrived, Connected, arrive};
use super::handle::Server;
use super::pace::{Paced, Who};
use super::upgraded::{PATH_SHOWN_MAX, upgraded};
use super::wire::Secure;
use super::wrong_peers;
use crate::core::strangers::Place;
use crate::model::hashes_keys_in_log;

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
    serve(server, vec![(listener, Mounted::Everything)], options, None, stop).await
}

/// Like [`listen()`], with the admin API only at `admin`.
pub async fn listen_apart(
    server: Server,
    listener: TcpListener,
    admin: TcpListener,
    options: Listen,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let listeners = vec![(listener, Mounted::AllButAdmin), (admin, Mounted::Admin)];
    serve(server, listeners, options, None, stop).await
}

/// Like [`listen()`], or like [`listen_apart`] with a second listener; every connection speaks TLS.
#[cfg(feature = "tls")]
pub async fn listen_tls(
    server: Server,
    (listener, admin): (TcpListener, Option<TcpListener>),
    options: Listen,
    tls: super::tls::Tls,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    // If it is served twice, the first certificates are shown.
    let _ = server.inner().tls.set(tls.clone());
    let listeners = match admin {
        None => vec![(listener, Mounted::Everything)],
        Some(admin) => vec![(listener, Mounted::AllButAdmin), (admin, Mounted::Admin)],
    };
    serve(server, listeners, options, Some(tls), stop).await
}

/// Like [`listen()`], with the routes of your application beside the server's. What `docs/STRANGERS.md` says
/// of connections then holds for your routes as well. Call [`Server::accept`] once you know who sent a request.
pub async fn listen_beside(
    server: Server,
    listener: TcpListener,
    options: Listen,
    routes: impl Fn(&mut ServiceConfig) + Send + Sync + 'static,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let listeners = vec![(listener, Mounted::Beside(Arc::new(routes)))];
    serve(server, listeners, options, None, stop).await
}

/// What is served on a listener.
#[derive(Clone)]
enum Mounted {
    Everything,
    /// Everything, beside the routes of an application.
    Beside(Arc<dyn Fn(&mut ServiceConfig) + Send + Sync>),
    AllButAdmin,
    Admin,
}

async fn serve(
    server: Server,
    listeners: Vec<(TcpListener, Mounted)>,
    options: Listen,
    secure: Option<Secure>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let keep_alive = match server.inner().shared.limits.get().keep_alive {
        Duration::ZERO => KeepAlive::Disabled,
        keep_alive => KeepAlive::Timeout(keep_alive),
    };
    let mut http = actix_web::dev::Server::build()
        .workers(options.workers.max(1))
        .disable_signals()
        .backlog(4_096)
        .shutdown_timeout(1);
    for (listener, mounted) in listeners {
        let (address, server) = (listener.local_addr()?, server.clone());
        let secure = secure.clone();
        let service = move || {
            let http = HttpService::build()
                .keep_alive(keep_alive)
                .client_disconnect_timeout(Duration::from_secs(1))
                .local_addr(address)
                .on_connect_ext(|arrived: &Arrived, extensions| arrived.on_connect(extensions))
                .upgrade(upgraded(application(&server, mounted.clone())))
                .finish(application(&server, mounted.clone()));
            connections(&server, secure.as_ref(), http)
        };
        http = http.listen(format!("eventlog {address}"), listener, service)?;
    }
    let http = http.run();
    let handle = http.handle();
    let serving = actix_web::rt::spawn(http);
    stop.await;
    // From here on, there are no new connections. Existing ones are completed.
    handle.pause().await;
    server.shutdown(options.shutdown_timeout).await;
    handle.stop(true).await;
    serving.await.map_err(io::Error::other)?
}

/// Handles each connection, from its first byte to its last. `http` gets those whose request has arrived.
fn connections<H>(
    server: &Server,
    secure: Option<&Secure>,
    http: H,
) -> impl ServiceFactory<
    TcpStream,
    Config = (),
    Response = (),
    Error = DispatchError,
    InitError = H::InitError,
> + use<H>
where
    H: ServiceFactory<Connected, Config = (), Response = (), Error = DispatchError>,
    H::Service: 'static,
{
    let (shared, secure) = (Arc::clone(&server.inner().shared), secure.cloned());
    fn_factory(move || {
        let (shared, secure) = (Arc::clone(&shared), secure.clone());
        let http = http.new_service(());
        async move {
            let http = Rc::new(http.await?);
            Ok(fn_service(move |stream: TcpStream| {
                let (shared, secure) = (Arc::clone(&shared), secure.clone());
                let http = Rc::clone(&http);
                let address = stream.peer_addr().ok().map(|peer| peer.ip());
                let who = Who::from(Place::of(address));
                let connected = who.clone();
                Paced::new(who, move || async move {
                    http.call(arrive(shared, secure, stream, &connected).await?).await
                })
            }))
        }
    })
}

/// Logs each request in the access log, without its query, which may reveal who asks.
async fn accessed<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    if !log::log_enabled!(target: "access", log::Level::Debug) {
        return next.call(request).await;
    }
    let began = tokio::time::Instant::now();
    let connection = request.peer_addr().map_or_else(|| "?".to_owned(), |peer| peer.to_string());
    let mut path: String = request.path().chars().take(PATH_SHOWN_MAX).collect();
    let method = request.method().clone();
    let response = next.call(request).await?;
    if hashes_keys_in_log() && path.contains("/admin/") {
        // There may be a public key in it.
        let pattern = response.request().match_pattern();
        path = pattern.map_or_else(|| "/admin/…".to_owned(), |path| path.replace(":.+", ""));
    }
    let (status, millis) = (response.status().as_u16(), began.elapsed().as_millis() as u64);
    log::debug!(
        target: "access", connection:%, method:%, path, status, millis;
        "{connection} {method} {path:?}: {status} after {millis} ms"
    );
    Ok(response)
}

/// Everything that the server answers, for one thread.
fn application(
    server: &Server,
    mounted: Mounted,
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
    let sockets = server.clone();
    let sockets = from_fn(move |request: ServiceRequest, next: Next<_>| {
        wrong_peers::socket_elsewhere(sockets.clone(), request, next)
    });
    // The last one comes first.
    let app = App::new().wrap(sockets).wrap(from_fn(accessed));
    let app = app.default_service(web::to(nothing));
    let app = app.configure(|config| match mounted {
        Mounted::Everything => {
            server.configure(config);
            server.configure_operations(config);
        }
        Mounted::Beside(routes) => {
            server.configure(config);
            server.configure_operations(config);
            routes(config);
        }
        Mounted::AllButAdmin => {
            server.configure(config);
            server.configure_health(config);
        }
        Mounted::Admin => server.configure_admin(config),
    });
    map_config(app, |()| AppConfig::default())
}
