//! The part of the admin API that manages entries in quarantine.

use std::ops::Range;
use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{self, Bytes, Path, Query, ReqData, ServiceConfig};
use futures_util::stream;
use serde_json::json;

use super::admin::{Answer, Failure, PageOf, name};
use super::admin_operations::AdminEndpoint;
use super::handle::Server;
use super::quarantine::{InQuarantine, QuarantineError};
use crate::actors::audit::By;
use crate::services::Quarantined;

pub(super) fn configure(config: &mut ServiceConfig) {
    let at = AdminEndpoint::at;
    config
        .service(at("/quarantine").get(list).done())
        .service(at("/quarantine/{number}").get(show).delete(remove).done())
        .service(at("/quarantine/{number}/event").get(event).done())
        .service(at("/quarantine/{number}/primary-key").get(primary_key).done())
        .service(at("/quarantine/{number}/payload").get(payload).done())
        .service(at("/quarantine/{number}/release").post(release).done());
}

fn quarantine(server: &Server) -> Result<InQuarantine, Failure> {
    Ok(server.quarantine().ok_or(QuarantineError::None)?)
}

async fn list(server: web::Data<Server>, Query(page): Query<PageOf>) -> Answer {
    let after: u64 = page.after().map_or(Ok(0), name)?;
    let quarantine = quarantine(&server)?;
    quarantine.look().await?;
    let listed = quarantine.list(after, page.count() + 1);
    let listed: Vec<&Quarantined> = listed.iter().map(|entry| &**entry).collect();
    Ok(page.answer("quarantine", listed, |last| last.number.to_string()))
}

async fn show(server: web::Data<Server>, number: Path<String>) -> Answer {
    Ok(HttpResponse::Ok().json(&*quarantine(&server)?.get(name(&number)?)?))
}

async fn remove(server: web::Data<Server>, by: ReqData<By>, number: Path<String>) -> Answer {
    let removed = quarantine(&server)?.remove_by(by.into_inner(), name(&number)?).await?;
    Ok(HttpResponse::Ok().json(&*removed))
}

async fn release(server: web::Data<Server>, by: ReqData<By>, number: Path<String>) -> Answer {
    let number: u64 = name(&number)?;
    let sequence = quarantine(&server)?.release_by(by.into_inner(), number).await?;
    Ok(HttpResponse::Ok().json(json!({ "number": number, "sequence": sequence.get() })))
}

async fn event(server: web::Data<Server>, number: Path<String>) -> Answer {
    download(&server, name(&number)?, |entry| 0..entry.event_bytes)
}

async fn primary_key(server: web::Data<Server>, number: Path<String>) -> Answer {
    let stands =
        |entry: &Quarantined| entry.event_bytes..entry.event_bytes + entry.primary_key_bytes;
    download(&server, name(&number)?, stands)
}

async fn payload(server: web::Data<Server>, number: Path<String>) -> Answer {
    let stands = |entry: &Quarantined| entry.event_bytes + entry.primary_key_bytes..entry.bytes();
    download(&server, name(&number)?, stands)
}

/// Sends the given part of an entry's content, which may be larger than memory.
fn download(
    server: &Server,
    number: u64,
    stands: impl FnOnce(&Quarantined) -> Range<u64>,
) -> Answer {
    let quarantine = quarantine(server)?;
    let entry = quarantine.get(number)?;
    let Range { start, end } = stands(&entry);
    let parts = stream::try_unfold(start, move |at| {
        let (quarantine, entry) = (quarantine.clone(), Arc::clone(&entry));
        async move {
            if at == end {
                return Ok::<_, actix_web::Error>(None);
            }
            let mut part = quarantine.read(&entry, at).await.map_err(Failure::from)?;
            part.truncate(usize::try_from(end - at).unwrap_or(usize::MAX));
            let next = at + part.len() as u64;
            Ok(Some((Bytes::from(part), next)))
        }
    });
    let answer = HttpResponse::Ok()
        .content_type("application/octet-stream")
        .no_chunking(end - start)
        .streaming(parts);
    Ok(answer)
}
