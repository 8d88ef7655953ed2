//! The part of the admin API that shows who is connected, and closes connections.
//!
//! Keeps: a connection that does not read is closed as well. Leaves out: keeping somebody out, who would reconnect at
//! once (`admin_revocations`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::{self, Query, ReqData, ServiceConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::admin::{self, Answer, Failure, PageOf};
use super::admin_operations::AdminEndpoint;
use super::admin_path::Path;
use super::admin_search::{Text, choose};
use super::handle::{Inner, Server};
use super::streams::OpenStream;
use crate::actors::audit::{self, By};
use crate::actors::connections::{self, Shown};
use crate::model::{PublicKey, StoreId};

/// A connection that has not closed after this long is severed.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(AdminEndpoint::at("/sessions").get(list).done())
        .service(
            AdminEndpoint::at("/sessions/{id}/subscriptions/{key:.+}")
                .delete(close_subscription)
                .done(),
        )
        .service(AdminEndpoint::at("/sessions/{id}").delete(close).done());
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    id: u64,
    address: Option<String>,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// The SHA-256 of the client's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<String>,
    since_millis: u64,
    received_bytes: u64,
    sent_bytes: u64,
    subscriptions: Vec<Subscription>,
    /// Of a live stream over HTTP: the name of the token that opened it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Of a live stream of entries: what it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<Followed>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Followed {
    store_id: String,
    /// The next sequence that it needs.
    cursor: u64,
    /// How many entries it has not been sent yet; absent while the store is not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscription {
    public_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    store_id: String,
    since_millis: u64,
    /// The next sequence that it needs.
    cursor: u64,
    /// How many entries it has not been sent yet; absent while the store is not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<u64>,
}

fn session(server: &Server, shown: Shown) -> Session {
    let Shown { number, caller, since_millis, received, sent, followed } = shown;
    let subscription = |followed: connections::Followed| {
        let connections::Followed { key, subject, store, since_millis, cursor } = followed;
        let cursor = cursor.load(Ordering::Relaxed).max(1);
        Subscription {
            public_key: key.to_string(),
            subject: subject.map(|subject| subject.to_string()),
            store_id: store.to_string(),
            since_millis,
            cursor,
            lag: lag(server, &store, cursor),
        }
    };
    let subject = caller.verified().and_then(|verified| verified.subject.as_deref());
    Session {
        id: number,
        address: caller.address().map(|address| address.to_string()),
        path: caller.path().chars().take(100).collect(),
        subject: subject.map(str::to_owned),
        certificate_sha256: caller.certificate_sha256(),
        since_millis,
        received_bytes: received,
        sent_bytes: sent,
        subscriptions: followed.into_iter().map(subscription).collect(),
        token: None,
        stream: None,
    }
}

fn lag(server: &Server, store: &StoreId, cursor: u64) -> Option<u64> {
    let head = server.inner().shared.stores.head(store);
    head.map(|head| (head.get() + 1).saturating_sub(cursor))
}

fn stream(server: &Server, number: u64, open: &OpenStream) -> Session {
    let followed = open.follows.get().map(|(store, cursor)| {
        let cursor = cursor.get();
        Followed { store_id: store.to_string(), cursor, lag: lag(server, store, cursor) }
    });
    Session {
        id: number,
        address: open.address.map(|address| address.to_string()),
        path: open.path.chars().take(100).collect(),
        subject: None,
        certificate_sha256: None,
        since_millis: open.since_millis,
        received_bytes: 0,
        sent_bytes: open.sent.load(Ordering::Relaxed),
        subscriptions: Vec::new(),
        token: open.token.as_deref().map(str::to_owned),
        stream: followed,
    }
}

/// The connections and the live streams after this one: at most `count`, in order.
fn sessions(server: &Server, after: Option<u64>, count: usize) -> Vec<Session> {
    let connections = server.inner().shared.connections.list(after, count);
    // A long list of connections is cut short; what comes behind its end is on the next page.
    let end = connections.last().map(|last| last.number).filter(|_| {
        let last = connections.last().map(|last| last.number);
        !server.inner().shared.connections.list(last, 1).is_empty()
    });
    let streams = server.inner().open_streams.list(after, count);
    let streams = streams.iter().filter(|(number, _)| end.is_none_or(|end| *number < end));
    let streams = streams.map(|(number, open)| stream(server, *number, open));
    let shown = connections.into_iter().map(|shown| session(server, shown));
    let mut found: Vec<Session> = shown.chain(streams).collect();
    found.sort_by_key(|session| session.id);
    found.truncate(count);
    found
}

fn number(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| Failure::Invalid(format!("{text:?} is not the number of a session")))
}

/// Which connections.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionsOf {
    after: Option<String>,
    limit: Option<usize>,
    /// Only connections with this text in their number, address, path, subject or token, or in a key, store or subject
    /// that they follow. Capitals do not matter.
    search: Option<String>,
}

impl Session {
    fn has(&self, text: &Text) -> bool {
        let has = |name: &Option<String>| name.as_ref().is_some_and(|name| text.is_in(name));
        let follows = |one: &Subscription| {
            text.is_in(&one.public_key) || text.is_in(&one.store_id) || has(&one.subject)
        };
        text.is_in(&self.id.to_string())
            || has(&self.address)
            || text.is_in(&self.path)
            || has(&self.subject)
            || has(&self.token)
            || self.stream.as_ref().is_some_and(|stream| text.is_in(&stream.store_id))
            || self.subscriptions.iter().any(follows)
    }
}

async fn list(server: web::Data<Server>, Query(asked): Query<SessionsOf>) -> Answer {
    let SessionsOf { after, limit, search } = asked;
    let page = PageOf::new(after, limit);
    let after = page.after().map(number).transpose()?;
    let text = search.as_deref().map(Text::new);
    let is_wanted = text.map(|text| move |session: &Session| session.has(&text));
    let list = async |after, count| Ok(sessions(&server, after, count));
    let (found, last) = choose(&page, after, is_wanted, list, |session| session.id).await?;
    Ok(admin::page("sessions", &found, last.map(|id| id.to_string())))
}

async fn close(server: web::Data<Server>, by: ReqData<By>, id: Path<String>) -> Answer {
    let number = number(&id)?;
    let is_there =
        |inner: &Inner| inner.shared.connections.close(number) || inner.open_streams.close(number);
    if !is_there(server.inner()) {
        return Err(Failure::NoSuchSession(number));
    }
    audit::note(&by, format_args!("action=close session={number}"));
    let severing = Server::clone(&server);
    // Only a thread that has stopped refuses this.
    server.inner().registry_thread.arbiters()[0].spawn(async move {
        tokio::time::sleep(GOODBYE).await;
        severing.inner().shared.connections.sever(number);
        severing.inner().open_streams.sever(number);
    });
    Ok(HttpResponse::Ok().json(json!({ "id": number })))
}

async fn close_subscription(
    server: web::Data<Server>,
    by: ReqData<By>,
    path: Path<(String, String)>,
) -> Answer {
    let (number, key): (_, PublicKey) = (number(&path.0)?, admin::name(&path.1)?);
    if !server.inner().shared.connections.close_subscription(number, &key) {
        return Err(Failure::NoSuchSubscription(number, key));
    }
    audit::note(&by, format_args!("action=close session={number} key={}", key.in_log()));
    Ok(HttpResponse::Ok().json(json!({ "id": number })))
}
