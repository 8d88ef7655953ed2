//! The part of the admin API that shuts people out and lets them in again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::HttpResponse;
use actix_web::web::{self, Json, Query, ReqData, ServiceConfig};
use serde::{Deserialize, Serialize};

use super::admin::{Answer, Failure, PageOf};
use super::admin_operations::AdminEndpoint;
use super::admin_path::Path;
use super::handle::Server;
use crate::actors::audit::By;
use crate::model::PublicKey;
use crate::services::revocations::{Revocation, Revoked};

/// 9999-12-30T00:00:00Z, in seconds since 1970. Whoever writes milliseconds comes out far behind it.
const UNTIL_MAX: u64 = 253_402_128_000;

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(AdminEndpoint::at("/revocations").get(list).post(revoke).done())
        .service(AdminEndpoint::at("/revocations/{id:.+}").delete(lift).done());
}

#[derive(Serialize)]
struct Shown<T> {
    id: String,
    #[serde(flatten)]
    revocation: T,
}

/// Exactly one of the first three is present.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewRevocation {
    public_key: Option<PublicKey>,
    subject: Option<Box<str>>,
    token_id: Option<Box<str>>,
    /// In seconds since 1970.
    until: Option<u64>,
    reason: Option<Box<str>>,
}

impl NewRevocation {
    fn into_revocation(self) -> Result<Revocation, Failure> {
        let Self { public_key, subject, token_id, until, reason } = self;
        let revoked = match (public_key, subject, token_id) {
            (Some(key), None, None) => Revoked::PublicKey(key),
            (None, Some(subject), None) => Revoked::Subject(subject),
            (None, None, Some(token_id)) => Revoked::TokenId(token_id),
            _ => return Err(invalid("one of publicKey, subject and tokenId is needed")),
        };
        Ok(Revocation { revoked, until: until.map(end).transpose()?, reason })
    }
}

/// The end of a revocation. One in the past would shut nobody out.
#[expect(clippy::disallowed_methods, reason = "it says until when")]
fn end(seconds: u64) -> Result<SystemTime, Failure> {
    if seconds > UNTIL_MAX {
        return Err(invalid("`until` is after the year 9999; it is in seconds since 1970"));
    }
    let end = UNIX_EPOCH + Duration::from_secs(seconds);
    if end <= SystemTime::now() {
        return Err(invalid("`until` is in the past: nobody would be revoked"));
    }
    Ok(end)
}

fn invalid(what: &str) -> Failure {
    Failure::Invalid(what.to_owned())
}

async fn revoke(
    server: web::Data<Server>,
    by: ReqData<By>,
    Json(new): Json<NewRevocation>,
) -> Answer {
    let revocation = new.into_revocation()?;
    let shown = Shown { id: revocation.revoked.id(), revocation: revocation.clone() };
    server.revoke_by(by.into_inner(), revocation).await?;
    Ok(HttpResponse::Ok().json(shown))
}

async fn list(server: web::Data<Server>, Query(page): Query<PageOf>) -> Answer {
    let revocations = server.revocations(page.after(), page.count() + 1).await?;
    let shown = |revocation: Arc<Revocation>| Shown { id: revocation.revoked.id(), revocation };
    Ok(page.answer("revocations", revocations.into_iter().map(shown).collect(), |shown| {
        shown.id.clone()
    }))
}

async fn lift(server: web::Data<Server>, by: ReqData<By>, id: Path<String>) -> Answer {
    let lifted = server.lift_by(by.into_inner(), &id).await?;
    let revocation = lifted.ok_or_else(|| Failure::NotRevoked(id.to_owned()))?;
    Ok(HttpResponse::Ok().json(Shown { id: revocation.revoked.id(), revocation }))
}
