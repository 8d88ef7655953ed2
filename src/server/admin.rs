//! The admin API: the registry, the stores, and server-authored writes, as JSON over HTTP.
//!
//! Keeps: nothing is answered without the token. Here our errors become HTTP statuses.

use actix_web::dev::ServiceRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Json, Path, Query, ReqData, ServiceConfig};
use actix_web::{HttpMessage, HttpResponse, ResponseError};
use serde::{Deserialize, Serialize};

use super::access::RevokeError;
use super::endpoint::Endpoint;
use super::grants::GrantsError;
use super::handle::Server;
use super::reload::ReloadError;
use super::{
    admin_backup, admin_entries, admin_grants, admin_groups, admin_guard, admin_revocations,
    admin_signing_keys, pages,
};
use crate::actors::audit::By;
use crate::actors::registry::{Assign, Release, Remove};
use crate::model::{PublicKey, StoreId};
use crate::processing::{GroupError, WriteError};
use crate::services::identities::{SigningKey, signing_key_from_hex};
use crate::services::{IdentityError, RecordsUnavailable, RegistryError};
use crate::storage::{Storage, StorageError, StoreSize};

/// A page of a list has so many items unless the request says otherwise, and at most [`PAGE_MAX`].
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

pub(super) fn configure(server: &Server, config: &mut ServiceConfig) {
    if server.inner().admin_token.is_none() {
        return;
    }
    let asked = server.clone();
    let authorized = from_fn(move |request: ServiceRequest, next: Next<_>| {
        let allowed = if pages::may(&asked, request.request()) {
            admin_guard::check(&asked, request.request())
        } else {
            Err(Failure::Page)
        };
        async move {
            request.extensions_mut().insert(allowed?);
            next.call(request).await
        }
    });
    let largest = server.inner().shared.limits.message_bytes_max * 2;
    let scope = web::scope("/admin")
        .wrap(authorized)
        .app_data(web::Data::new(server.clone()))
        .app_data(json_config(largest))
        .app_data(
            web::QueryConfig::default()
                .error_handler(|error, _| Failure::Invalid(error.to_string()).into()),
        )
        .service(Endpoint::at("/keys").get(list_keys).done())
        .service(Endpoint::of_name("/keys/{key:.+}/release").post(release_key).done())
        .configure(admin_signing_keys::configure)
        .service(
            Endpoint::of_name("/keys/{key:.+}")
                .get(show_key)
                .put(assign_key)
                .delete(remove_key)
                .done(),
        )
        .service(Endpoint::at("/stores").get(list_stores).done())
        .configure(|config| admin_entries::configure(server, config))
        .service(Endpoint::of_name("/stores/{store:.+}").get(show_store).done())
        .configure(admin_backup::configure)
        .configure(admin_groups::configure)
        .configure(admin_revocations::configure)
        .configure(admin_grants::configure)
        .service(Endpoint::at("/reload").post(reload).done());
    config.service(scope);
}

/// How bodies of up to `bytes_max` are read.
pub(super) fn json_config(bytes_max: usize) -> web::JsonConfig {
    web::JsonConfig::default()
        .limit(bytes_max)
        // Bodies are nothing but JSON, and `curl -d` calls them a form.
        .content_type_required(false)
        .content_type(|_| true)
        .error_handler(|error, _| Failure::Invalid(error.to_string()).into())
}

/// Why an admin request is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(
        "the admin API wants the header Authorization: Bearer TOKEN, with the token of [admin]"
    )]
    Unauthorized,
    #[error(
        "too many wrong tokens came from this address; the next one is looked at in {seconds} s"
    )]
    Guessing { seconds: u64 },
    #[error("{}", pages::REFUSED.trim_end())]
    Page,
    #[error("{0}")]
    Invalid(String),
    #[error("public key {0:?} was not used with a store")]
    NotUsed(PublicKey),
    #[error("public key {0:?} has no signing key")]
    NotBound(PublicKey),
    #[error("nothing is granted to just {0:?}")]
    NotGranted(PublicKey),
    #[error("there is no revocation {0:?}")]
    NotRevoked(String),
    #[error("this storage has no backups of this kind")]
    NoBackup,
    #[error("{0:?} is no file of the backup that was begun last, or is kept no more: begin one")]
    NoSuchFile(String),
    #[error("store {0:?} does not exist")]
    NoSuchStore(StoreId),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Revoke(#[from] RevokeError),
    #[error(transparent)]
    Grants(#[from] GrantsError),
    #[error(transparent)]
    Reload(#[from] ReloadError),
    #[error(transparent)]
    Records(#[from] RecordsUnavailable),
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Guessing { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Page => StatusCode::FORBIDDEN,
            Self::Invalid(_)
            | Self::Write(WriteError::Invalid(_))
            | Self::Revoke(RevokeError::Invalid(_))
            | Self::Grants(GrantsError::TooLong)
            | Self::Reload(ReloadError::Wrong(_)) => StatusCode::BAD_REQUEST,
            Self::NoSuchStore(_)
            | Self::NoBackup
            | Self::NoSuchFile(_)
            | Self::NotUsed(_)
            | Self::NotBound(_)
            | Self::NotRevoked(_)
            | Self::NotGranted(_)
            | Self::Reload(ReloadError::NoConfiguration)
            | Self::Registry(RegistryError::NotMapped { .. })
            | Self::Group(
                GroupError::NoSuchGroup(_) | GroupError::NoSuchStore(_) | GroupError::NoSuchLetter,
            ) => StatusCode::NOT_FOUND,
            Self::Registry(RegistryError::AlreadyAssigned { .. } | RegistryError::Moved { .. })
            | Self::Identity(IdentityError::BoundToAnother { .. })
            | Self::Grants(GrantsError::NoGrants)
            | Self::Group(GroupError::Runs(_) | GroupError::FailedAgain(_)) => StatusCode::CONFLICT,
            Self::Registry(RegistryError::Unavailable { .. })
            | Self::Storage(_)
            | Self::Records(_)
            | Self::Revoke(RevokeError::Unavailable(_))
            | Self::Grants(GrantsError::Unavailable(_))
            | Self::Identity(IdentityError::Unavailable { .. })
            | Self::Group(GroupError::Unavailable(_))
            | Self::Write(
                WriteError::Unencodable { .. }
                | WriteError::Definite(_)
                | WriteError::Indefinite(_),
            ) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let error = self.to_string();
        let mut response = HttpResponse::build(self.status_code());
        if let Self::Guessing { seconds } = self {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        response.json(serde_json::json!({ "error": error }))
    }
}

pub(super) type Answer = Result<HttpResponse, Failure>;

pub(super) fn name<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error: T::Err| Failure::Invalid(error.to_string()))
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Assignment {
    store_id: StoreId,
    /// Bound to the key besides, if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signing_key: Option<String>,
}

/// The signing key that `text` is, see [`signing_key_from_hex`].
pub(super) fn signing_key(text: &str) -> Result<SigningKey, Failure> {
    let wrong = || Failure::Invalid("a signing key is 64 hexadecimal digits".to_owned());
    signing_key_from_hex(text).ok_or_else(wrong)
}

async fn assign_key(
    server: web::Data<Server>,
    by: ReqData<By>,
    key: Path<String>,
    Json(assignment): Json<Assignment>,
) -> Answer {
    let key: PublicKey = name(&key)?;
    let signing_key = assignment.signing_key.as_deref().map(signing_key).transpose()?;
    let assign = Assign { public_key: key.clone(), store_id: assignment.store_id.clone() };
    server.change(By::clone(&by), assign).await?;
    if let Some(signing_key) = signing_key {
        server.bind_by(&by, &key, &signing_key).await?;
    }
    Ok(HttpResponse::Ok().json(assignment))
}

async fn show_key(server: web::Data<Server>, key: Path<String>) -> Answer {
    let store_id = server.inner().store_registry.look_up(&name(&key)?).await?;
    Ok(HttpResponse::Ok().json(Assignment { store_id, signing_key: None }))
}

async fn remove_key(server: web::Data<Server>, by: ReqData<By>, key: Path<String>) -> Answer {
    let remove = Remove { public_key: name(&key)? };
    let store_id = server.change(by.into_inner(), remove).await?;
    Ok(HttpResponse::Ok().json(Assignment { store_id, signing_key: None }))
}

async fn release_key(server: web::Data<Server>, by: ReqData<By>, key: Path<String>) -> Answer {
    let key: PublicKey = name(&key)?;
    let release = Release { public_key: key.clone() };
    let released = server.change(by.into_inner(), release).await?;
    let store_id = released.ok_or(Failure::NotUsed(key))?;
    Ok(HttpResponse::Ok().json(Assignment { store_id, signing_key: None }))
}

/// Which part of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageOf {
    /// The name that the page begins after.
    after: Option<String>,
    count: Option<usize>,
}

impl PageOf {
    pub(super) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    pub(super) fn count(&self) -> usize {
        self.count.unwrap_or(PAGE).clamp(1, PAGE_MAX)
    }
}

async fn reload(server: web::Data<Server>, by: ReqData<By>) -> Answer {
    Ok(HttpResponse::Ok().json(server.reload_by(by.into_inner()).await?))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    public_key: PublicKey,
    store_id: StoreId,
}

async fn list_keys(server: web::Data<Server>, Query(page): Query<PageOf>) -> Answer {
    let after = page.after.as_deref().map(name::<PublicKey>).transpose()?;
    let registry = &server.inner().store_registry;
    let listed = registry.list(after.as_ref(), page.count()).await?;
    let keys = listed.into_iter().map(|(public_key, store_id)| Mapping { public_key, store_id });
    let keys: Vec<Mapping> = keys.collect();
    Ok(HttpResponse::Ok().json(serde_json::json!({ "keys": keys })))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StoreStatus {
    store_id: StoreId,
    /// The last sequence.
    head: u64,
    /// As many, but for what is in a gap.
    entries: u64,
    bytes: u64,
    /// Over the entries; absent where the storage keeps none.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    subscribers: usize,
    /// The last entry that handlers were run on; absent without handlers.
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_position: Option<u64>,
}

/// How much a store has, and the hash over that.
struct Measured {
    size: StoreSize,
    hash: Option<String>,
}

impl Measured {
    fn read(
        storage: &dyn Storage,
        store: &StoreId,
        mut size: StoreSize,
    ) -> Result<Self, StorageError> {
        let hash = storage.hash(store)?.map(|(last, hash)| {
            // There may be more than there was a moment ago.
            size.head = last;
            hash
        });
        Ok(Self { size, hash })
    }
}

async fn list_stores(server: web::Data<Server>, Query(page): Query<PageOf>) -> Answer {
    let after = page.after.as_deref().map(name::<StoreId>).transpose()?;
    let count = page.count();
    let stores = read_storage(&server, move |storage| {
        let stores = storage.stores(after.as_ref(), count)?.into_iter();
        stores.map(|(store, size)| Ok((Measured::read(storage, &store, size)?, store))).collect()
    });
    let stores: Vec<_> = stores.await?;
    let mut statuses = Vec::with_capacity(stores.len());
    for (sized, store) in stores {
        statuses.push(read_status(&server, store, sized).await?);
    }
    Ok(HttpResponse::Ok().json(serde_json::json!({ "stores": statuses })))
}

async fn show_store(server: web::Data<Server>, store: Path<String>) -> Answer {
    let store: StoreId = name(&store)?;
    let asked = store.clone();
    let sized = read_storage(&server, move |storage| {
        Measured::read(storage, &asked, storage.size(&asked)?)
    });
    let sized = sized.await?;
    if sized.size.entries == 0 {
        return Err(Failure::NoSuchStore(store));
    }
    Ok(HttpResponse::Ok().json(read_status(&server, store, sized).await?))
}

async fn read_storage<T: Send + 'static>(
    server: &Server,
    read: impl FnOnce(&dyn Storage) -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let storage = server.inner().storage.clone();
    web::block(move || read(&*storage)).await.map_err(StorageError::unavailable)?
}

async fn read_status(
    server: &Server,
    store_id: StoreId,
    Measured { size: StoreSize { head, entries, bytes }, hash }: Measured,
) -> Result<StoreStatus, Failure> {
    let status = server.replay_status(&store_id).await.map_err(StorageError::unavailable)?;
    let replay_position = status.map(|status| status.position.get());
    let subscribers = server.inner().shared.stores.subscribers(&store_id);
    let head = head.get();
    Ok(StoreStatus { store_id, head, entries, bytes, hash, subscribers, replay_position })
}
