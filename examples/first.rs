//! A server of your own on one page: the application decides who may do what, and which store a key has.

use std::error::Error;
use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer};
use eventlog_server::model::{Batch, PublicKey, StoreId};
use eventlog_server::server::{Server, on_connect};
use eventlog_server::services::{Auth, AuthError, AuthReason, Claim, RegistryError, StoreRegistry};
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use futures_util::future::BoxFuture;

/// Lets in whoever has the password: `ws://127.0.0.1:8080/eventlog?password=let-me-in`.
struct Password;

impl Password {
    fn check(claim: Claim<'_>) -> BoxFuture<'static, Result<(), AuthError>> {
        let refusal = || AuthError {
            reason: AuthReason::Forbidden,
            key: claim.key.clone(),
            message: "the password is wrong".into(),
        };
        let known = claim.caller.query() == "password=let-me-in";
        Box::pin(ready(if known { Ok(()) } else { Err(refusal()) }))
    }
}

impl Auth for Password {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        _entries: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        Self::check(claim)
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        Self::check(claim)
    }
}

/// The users' table: each household has a store, and each of its members a key.
struct Users(Vec<(&'static str, &'static str)>);

impl StoreRegistry for Users {
    fn resolve<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        let user = self.0.iter().find(|(user, _)| *user == key.as_str());
        let store = user.and_then(|(_, household)| StoreId::new(*household).ok());
        Box::pin(ready(store.ok_or_else(|| RegistryError::not_mapped(key))))
    }

    fn assign<'a>(
        &'a self,
        key: &'a PublicKey,
        _store: &'a StoreId,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(ready(Err(RegistryError::unavailable(Some(key), "change the users' table"))))
    }

    fn remove<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        Box::pin(ready(Err(RegistryError::unavailable(Some(key), "change the users' table"))))
    }

    fn list<'a>(
        &'a self,
        _after: Option<&'a PublicKey>,
        _count: usize,
    ) -> BoxFuture<'a, Result<Vec<(PublicKey, StoreId)>, RegistryError>> {
        Box::pin(ready(Err(RegistryError::unavailable(None, "look at the users' table"))))
    }
}

/// The server, with its data in `directory`.
pub fn start(directory: &Path) -> Result<(Server, Database), Box<dyn Error>> {
    let database = Database::open(directory, DatabaseOptions::default())?;
    let users = Users(vec![("alice", "household"), ("bob", "household")]);
    let storage = Arc::new(SledStorage::new(database.clone()));
    Ok((Server::builder(storage, Arc::new(users), Arc::new(Password)).start()?, database))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (server, database) = start("data".as_ref())?;
    let (mounted, ending) = (server.clone(), server);
    HttpServer::new(move || App::new().configure(|config| mounted.configure(config)))
        .on_connect(on_connect)
        .shutdown_signal(async move {
            // If that fails, there is no other way to be told.
            let _ = actix_web::rt::signal::ctrl_c().await;
            ending.shutdown(Duration::from_secs(10)).await;
        })
        .bind(("127.0.0.1", 8080))?
        .run()
        .await?;
    database.close()?;
    Ok(())
}
