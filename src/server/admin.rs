//! The admin API: the registry, the stores, and server-authored writes, as JSON over HTTP.
//!
//! Keeps: nothing is answered without the token. `admin_operations` says what each route needs, `admin_failure` what
//! can go wrong.

use actix_web::dev::ServiceRequest;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Json, ReqData, ServiceConfig};
use actix_web::{HttpMessage, HttpResponse};
use serde::{Deserialize, Serialize};

pub(super) use super::admin_failure::Failure;
use super::admin_operations::AdminEndpoint;
use super::admin_path::Path;
use super::handle::Server;
use super::{
    admin_backup, admin_compact, admin_entries, admin_erase, admin_erased, admin_grants,
    admin_groups, admin_guard, admin_keys, admin_openapi, admin_quarantine, admin_revocations,
    admin_sessions, admin_signing_keys, admin_stores, admin_tokens_list, admin_trim, encode,
    overview, pages,
};
use crate::actors::audit::By;
use crate::actors::registry::{Assign, Move, Release, Remove};
use crate::model::{PublicKey, StoreId};
use crate::services::identities::{SigningKey, signing_key_from_hex};

/// The default number of items on a page of a list; the most is [`PAGE_MAX`].
pub(super) const PAGE: usize = 100;
pub(super) const PAGE_MAX: usize = 1_000;

pub(super) fn configure(server: &Server, config: &mut ServiceConfig) {
    if server.inner().admin_tokens.read().0.is_empty() {
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
            let (by, rights) = allowed?;
            request.extensions_mut().insert(by);
            request.extensions_mut().insert(rights);
            next.call(request).await
        }
    });
    let largest = server.inner().shared.limits.get().message_bytes_max * 2;
    let scope = web::scope("/admin")
        .wrap(authorized)
        .app_data(web::Data::new(server.clone()))
        .app_data(json_config(largest))
        .app_data(
            web::QueryConfig::default()
                .error_handler(|error, _| Failure::Invalid(error.to_string()).into()),
        )
        .configure(admin_keys::configure)
        .service(AdminEndpoint::at("/keys/{key:.+}/release").post(release_key).done())
        .service(AdminEndpoint::at("/keys/{key:.+}/move").post(move_key).done())
        .configure(admin_signing_keys::configure)
        .service(
            AdminEndpoint::at("/keys/{key:.+}/usage").get(show_usage).delete(reset_usage).done(),
        )
        .service(
            AdminEndpoint::at("/keys/{key:.+}")
                .get(show_key)
                .put(assign_key)
                .delete(remove_key)
                .done(),
        )
        .configure(admin_stores::configure)
        .configure(overview::configure)
        .configure(encode::configure)
        .configure(admin_tokens_list::configure)
        .configure(|config| admin_entries::configure(server, config))
        .configure(admin_erase::configure)
        .configure(admin_trim::configure)
        .configure(admin_stores::configure_one)
        .configure(admin_backup::configure)
        .configure(admin_compact::configure)
        .configure(admin_erased::configure)
        .configure(admin_groups::configure)
        .configure(admin_revocations::configure)
        .configure(admin_grants::configure)
        .configure(admin_quarantine::configure)
        .configure(admin_sessions::configure)
        .service(AdminEndpoint::at("/openapi.json").get(admin_openapi::show).done())
        .service(AdminEndpoint::at("/reload").post(reload).done())
        .default_service(web::to(|| {
            std::future::ready(Err::<HttpResponse, _>(Failure::NothingHere))
        }));
    config.service(scope);
    #[cfg(feature = "console")]
    super::console::configure(server, config);
}

/// How bodies of up to `bytes_max` are read.
pub(super) fn json_config(bytes_max: usize) -> web::JsonConfig {
    web::JsonConfig::default()
        .limit(bytes_max)
        // Bodies are always JSON, and `curl -d` labels them as a form.
        .content_type_required(false)
        .content_type(|_| true)
        .error_handler(|error, _| Failure::Invalid(error.to_string()).into())
}

pub(super) type Answer = Result<HttpResponse, Failure>;

pub(super) fn name<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error: T::Err| Failure::Invalid(error.to_string()))
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Assignment {
    store_id: StoreId,
    /// If present, it is bound to the key as well, unless the key has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signing_key: Option<String>,
}

/// Parses `text` as a signing key, see [`signing_key_from_hex`].
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct To {
    store_id: StoreId,
}

async fn move_key(
    server: web::Data<Server>,
    by: ReqData<By>,
    key: Path<String>,
    Json(To { store_id }): Json<To>,
) -> Answer {
    // The registry carries it out to the end, also if whoever asked hangs up.
    let moving = Move { public_key: name(&key)?, to: store_id.clone() };
    server.change(by.into_inner(), moving).await?;
    Ok(HttpResponse::Ok().json(Assignment { store_id, signing_key: None }))
}

async fn show_usage(server: web::Data<Server>, key: Path<String>) -> Answer {
    let bytes = server.usage(&name(&key)?);
    Ok(HttpResponse::Ok().json(usage(&server, bytes)))
}

/// The count of the key before the reset.
async fn reset_usage(server: web::Data<Server>, by: ReqData<By>, key: Path<String>) -> Answer {
    let before = server.reset_usage_by(by.into_inner(), &name(&key)?).await?;
    Ok(HttpResponse::Ok().json(usage(&server, before)))
}

fn usage(server: &Server, bytes: u64) -> serde_json::Value {
    let counted = server.inner().shared.quotas.counts_keys();
    serde_json::json!({ "bytes": bytes, "counted": counted })
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
    /// The name after which the page begins.
    after: Option<String>,
    limit: Option<usize>,
}

impl PageOf {
    pub(super) const fn new(after: Option<String>, limit: Option<usize>) -> Self {
        Self { after, limit }
    }

    pub(super) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    pub(super) fn count(&self) -> usize {
        self.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX)
    }

    /// The answer with `found` under `list`. `found` has one more item than the page if there is more.
    pub(super) fn answer<T: Serialize>(
        &self,
        list: &str,
        mut found: Vec<T>,
        name: impl Fn(&T) -> String,
    ) -> HttpResponse {
        let has_more = found.len() > self.count();
        found.truncate(self.count());
        let next = found.last().filter(|_| has_more).map(name);
        page(list, &found, next)
    }
}

/// A page of a list; the following page begins after `next`.
pub(super) fn page<T: Serialize>(list: &str, items: &[T], next: Option<String>) -> HttpResponse {
    let mut answer = serde_json::json!({ list: items });
    if let Some(next) = next {
        answer["next"] = next.into();
    }
    HttpResponse::Ok().json(answer)
}

async fn reload(server: web::Data<Server>, by: ReqData<By>) -> Answer {
    Ok(HttpResponse::Ok().json(server.reload_by(by.into_inner()).await?))
}
