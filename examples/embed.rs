//! The server as a service inside an existing actix-web application, behind that application's own login.
//!
//! The application has a page, and sessions in a cookie. Events live under `/sync`. A caller without a valid cookie gets 401
//! before there is a WebSocket. A caller with one may use only the public key with the user's name.
//!
//! ```text
//! cargo run --example embed
//! curl -i http://127.0.0.1:8080/sync/eventlog                        # 401
//! curl -i --cookie session=let-me-in http://127.0.0.1:8080/sync/eventlog   # 400: a WebSocket is expected
//! ```

use std::error::Error;
use std::future::{pending, ready};
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::ErrorUnauthorized;
use actix_web::http::header::COOKIE;
use actix_web::middleware::{Next, from_fn};
use actix_web::rt::signal::ctrl_c;
use actix_web::rt::signal::unix::{SignalKind, signal};
use actix_web::web::{self, ServiceConfig};
use actix_web::{App, HttpMessage, HttpServer};
use eventlog_server::model::{Batch, PublicKey, StoreId};
use eventlog_server::server::{Server, on_connect};
use eventlog_server::services::identities::SledIdentities;
use eventlog_server::services::registry::SledRegistry;
use eventlog_server::services::{Auth, AuthError, AuthReason, Claim};
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use futures_util::future::BoxFuture;

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let database = Database::open("data-embed".as_ref(), DatabaseOptions::default())?;
    let server = start(&database).await?;
    let (mounted, ending) = (server.clone(), server);
    HttpServer::new(move || App::new().configure(|config| application(&mounted, config)))
        // Lets the server watch its sockets; see `on_connect`.
        .on_connect(on_connect)
        // First the server closes its sockets, then actix the rest: the other way round, actix would wait for the
        // sockets.
        .shutdown_signal(async move {
            told_to_stop().await;
            ending.shutdown(Duration::from_secs(10)).await;
        })
        .bind(("127.0.0.1", 8080))?
        .run()
        .await?;
    database.close()?;
    Ok(())
}

/// Ctrl-C, or what a service manager sends.
async fn told_to_stop() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await,
            Err(_) => pending().await,
        }
    };
    tokio::select! {
        _ = ctrl_c() => {}
        _ = terminate => {}
    }
}

/// The server, with everything it keeps in one database.
pub async fn start(database: &Database) -> Result<Server, Box<dyn Error>> {
    let storage = Arc::new(SledStorage::new(database.clone()));
    let registry = Arc::new(SledRegistry::new(database.clone()));
    let identities = Arc::new(SledIdentities::new(database.clone()));
    let server = Server::builder(storage, registry, Arc::new(OwnKeyOnly))
        .identities(identities)
        // Called once for each connection: what the login below has found out.
        .caller(|request| request.extensions().get::<User>().copied())
        .start()?;
    for (_, User(name)) in SESSIONS {
        server.assign(PublicKey::new(name)?, StoreId::new("household")?).await?;
    }
    Ok(server)
}

/// The application's own routes, with the server's below `/sync`.
pub fn application(server: &Server, config: &mut ServiceConfig) {
    let sync = web::scope("/sync").wrap(from_fn(require_session));
    config
        .route("/", web::get().to(|| async { "an application of its own\n" }))
        .service(sync.configure(|config| server.configure(config)));
}

/// Who is logged in.
#[derive(Clone, Copy)]
struct User(&'static str);

/// The application's sessions. A real one looks them up.
const SESSIONS: [(&str, User); 2] = [("let-me-in", User("alice")), ("me-too", User("bob"))];

/// The application's login.
async fn require_session(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let cookies = request.headers().get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.flat_map(|cookies| cookies.split(';').map(str::trim));
    let user = cookies.find_map(|cookie| {
        let session = cookie.strip_prefix("session=")?;
        SESSIONS.into_iter().find_map(|(known, user)| (known == session).then_some(user))
    });
    let Some(user) = user else { return Err(ErrorUnauthorized("log in first\n")) };
    request.extensions_mut().insert(user);
    next.call(request).await
}

/// Lets a user be the public key with the same name.
struct OwnKeyOnly;

impl OwnKeyOnly {
    fn check(claim: Claim<'_>) -> Result<(), AuthError> {
        match claim.caller.get() {
            Some(Some(User(name))) if *name == claim.key.as_str() => Ok(()),
            _ => {
                let message = "this is another user's key".into();
                Err(AuthError { reason: AuthReason::Forbidden, key: claim.key.clone(), message })
            }
        }
    }
}

impl Auth for OwnKeyOnly {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        _entries: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(ready(Self::check(claim)))
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(ready(Self::check(claim)))
    }

    /// Otherwise somebody could prove a key that its user has not used yet, and keep it.
    fn authorize_identity<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(ready(Self::check(claim)))
    }
}
