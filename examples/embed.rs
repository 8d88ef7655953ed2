//! The server as a service inside an existing actix-web application, behind that application's own login.
//!
//! The application has a page and sessions in a cookie. Events live under `/sync`: whoever has no valid cookie gets 401
//! before anything becomes a WebSocket, and once connected may use the keys that are granted.
//!
//! ```text
//! cargo run --example embed
//! curl -i http://127.0.0.1:8080/sync/eventlog                        # 401
//! curl -i --cookie session=let-me-in http://127.0.0.1:8080/sync/eventlog   # 400: a WebSocket is expected
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::ErrorUnauthorized;
use actix_web::http::header::COOKIE;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, ServiceConfig};
use actix_web::{App, HttpServer};
use eventlog_server::model::{PublicKey, StoreId};
use eventlog_server::server::{Server, on_connect};
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::identities::SledIdentities;
use eventlog_server::services::registry::SledRegistry;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let database = Database::open("data-embed".as_ref(), DatabaseOptions::default())?;
    let server = start(&database).await?;
    let mounted = server.clone();
    HttpServer::new(move || App::new().configure(|config| application(&mounted, config)))
        // Lets the server watch its sockets; see `on_connect`.
        .on_connect(on_connect)
        .bind(("127.0.0.1", 8080))?
        .run()
        .await?;
    // Actix has stopped taking connections: finish what was received, then close what is ours.
    server.shutdown(Duration::from_secs(10)).await;
    database.close()?;
    Ok(())
}

/// The server, with everything it keeps in one database.
pub async fn start(database: &Database) -> Result<Server, Box<dyn Error>> {
    let storage = Arc::new(SledStorage::new(database.clone()));
    let registry = Arc::new(SledRegistry::new(database.clone()));
    let identities = Arc::new(SledIdentities::new(database.clone()));
    // Who gets this far has shown the cookie; the application trusts its users with each other's keys.
    let server = Server::builder(storage, registry, Arc::new(AllowAll)).identities(identities);
    let server = server.start()?;
    server.assign(PublicKey::new("alice")?, StoreId::new("household")?).await?;
    Ok(server)
}

/// The application's own routes, and the server's below `/sync`.
pub fn application(server: &Server, config: &mut ServiceConfig) {
    let sync = web::scope("/sync").wrap(from_fn(require_session));
    config
        .route("/", web::get().to(|| async { "an application of its own\n" }))
        .service(sync.configure(|config| server.configure(config)));
}

/// The application's login: here, one session that everybody knows.
async fn require_session(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let cookies = request.headers().get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.flat_map(|cookies| cookies.split(';').map(str::trim));
    if !cookies.any(|cookie| cookie == "session=let-me-in") {
        return Err(ErrorUnauthorized("log in first\n"));
    }
    next.call(request).await
}
