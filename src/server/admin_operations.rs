//! Everything that the admin API can do, in one table: the right that each operation needs, and its description in the
//! OpenAPI document.
//!
//! Keeps: what is not in the table is not mounted; each operation checks its right before its handler runs. Leaves out:
//! who has which right (`admin_tokens`), the document (`admin_openapi`).

use actix_web::dev::{Handler, HttpServiceFactory, ServiceRequest};
use actix_web::http::Method;
use actix_web::middleware::{Next, from_fn};
use actix_web::{FromRequest, HttpMessage, HttpResponse, Resource, Responder, guard, web};

use super::admin_failure::Failure;
use super::admin_tokens::AdminRight::{self, Admin, Read, Write};
use super::admin_tokens::Rights;

/// The HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Put,
    Post,
    Delete,
}

use Verb::{Delete, Get, Post, Put};

impl Verb {
    /// As an `Allow` header lists it.
    const fn allowed(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }

    fn of(method: &Method) -> Option<Self> {
        Some(match *method {
            Method::GET | Method::HEAD => Self::Get,
            Method::PUT => Self::Put,
            Method::POST => Self::Post,
            Method::DELETE => Self::Delete,
            _ => return None,
        })
    }
}

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) verb: Verb,
    /// Below `/admin`. A name that may contain slashes is written `{name:.+}`.
    pub(super) path: &'static str,
    pub(super) right: AdminRight,
    pub(super) summary: &'static str,
    /// Parameters of the query.
    pub(super) query: &'static [&'static str],
    /// Schemas, by their names in `admin_schemas.json`: of the body, if there is one, and of the answer.
    pub(super) body: Option<&'static str>,
    pub(super) answer: &'static str,
}

/// The parameters of every paged list.
const PAGE: &[&str] = &["after", "limit"];

const KEYS: &[&str] = &["after", "limit", "storeId", "search"];

/// The parameters of lists that may be of one store.
const OF_STORE: &[&str] = &["after", "limit", "storeId"];

/// The parameters that choose entries.
const ENTRIES: &[&str] = &[
    "from",
    "limit",
    "id",
    "event",
    "primaryKey",
    "createdFrom",
    "createdBefore",
    "committedFrom",
    "committedBefore",
    "newest",
    "payloadMax",
    "compacted",
    "as",
];

const fn row(
    verb: Verb,
    path: &'static str,
    right: AdminRight,
    summary: &'static str,
    answer: &'static str,
) -> Operation {
    Operation { verb, path, right, summary, query: &[], body: None, answer }
}

impl Operation {
    const fn query(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }

    const fn body(self, schema: &'static str) -> Self {
        Self { body: Some(schema), ..self }
    }
}

/// All operations. A row here, the handler in an [`AdminEndpoint`], a schema in `admin_schemas.json` and a line in
/// docs/ADMIN-API.md belong together; tests compare them.
pub(super) const OPERATIONS: &[Operation] = &[
    row(Get, "/keys", Read, "Keys and the store of each", "Keys").query(KEYS),
    row(Get, "/keys/{key:.+}", Read, "The store of a key", "Assignment"),
    row(Put, "/keys/{key:.+}", Write, "Assigns a key to a store", "Assignment").body("Assignment"),
    row(Delete, "/keys/{key:.+}", Admin, "Removes the store of a key", "Assignment"),
    row(
        Post,
        "/keys/{key:.+}/release",
        Admin,
        "Forgets which store a key was used with",
        "Assignment",
    ),
    row(Post, "/keys/{key:.+}/move", Admin, "Gives a key another store", "Assignment").body("To"),
    row(Get, "/keys/{key:.+}/signing-key", Read, "The signing key of a key", "SigningKey"),
    row(Put, "/keys/{key:.+}/signing-key", Admin, "Gives a key this signing key", "SigningKey")
        .body("SigningKey"),
    row(
        Delete,
        "/keys/{key:.+}/signing-key",
        Admin,
        "Removes the signing key of a key",
        "SigningKey",
    ),
    row(Get, "/overview", Read, "The state of the server, now and in the last hour", "Overview"),
    row(Post, "/schema-binary", Read, "JSON as a payload of Effect's clients", "Payload")
        .body("Json"),
    row(Get, "/tokens", Read, "The tokens of this API, and their rights", "Tokens"),
    row(Get, "/keys/{key:.+}/usage", Read, "How many bytes a key has written in all", "Usage"),
    row(
        Delete,
        "/keys/{key:.+}/usage",
        Admin,
        "Sets the bytes written by a key back to zero",
        "Usage",
    ),
    row(Get, "/stores", Read, "Stores and what they hold", "Stores").query(&[
        "after",
        "limit",
        "open",
        "search",
        "sort",
        "ascending",
    ]),
    row(Get, "/stores/{store:.+}", Read, "What a store holds", "Store"),
    row(Post, "/stores/{store:.+}/entries", Write, "Writes entries as the server", "Written")
        .body("NewEntries"),
    row(Get, "/stores/{store:.+}/entries", Read, "Entries of a store, in pages", "Entries")
        .query(ENTRIES),
    row(
        Post,
        "/stores/{store:.+}/erase",
        Admin,
        "Removes the content of entries for good",
        "Erased",
    )
    .body("Erase"),
    row(
        Post,
        "/stores/{store:.+}/trim",
        Admin,
        "Removes the beginning of a feed for good",
        "Trimmed",
    )
    .body("Trim"),
    row(Post, "/compact", Admin, "Begins to free unused space of the database", "Compacting"),
    row(Get, "/compact", Read, "The state of the latest compaction", "Compacting"),
    row(Post, "/erased", Admin, "Begins to look for content of erased entries", "ErasedFiles")
        .body("LookForErased"),
    row(Get, "/erased", Read, "What was found last", "ErasedFiles"),
    row(Post, "/backup", Admin, "Begins a backup", "Backup"),
    row(Get, "/backup/{generation}/{name}", Admin, "A file of the latest backup", "Bytes"),
    row(Get, "/groups", Read, "Groups of handlers", "Groups").query(OF_STORE),
    row(Delete, "/groups/{group}", Admin, "Forgets a group that no longer runs", "Named"),
    row(Post, "/groups/{group}/pause", Admin, "Pauses a group", "Paused"),
    row(Post, "/groups/{group}/resume", Admin, "Resumes a paused group", "Paused"),
    row(Post, "/rewind", Admin, "Makes groups process entries again", "Rewound").body("Rewind"),
    row(Get, "/groups/{group}/dead-letters", Read, "Dead letters of a group", "DeadLetters")
        .query(OF_STORE),
    row(
        Delete,
        "/groups/{group}/dead-letters",
        Admin,
        "Dismisses one dead letter, or all",
        "Dismissed",
    )
    .query(&["storeId", "sequence", "all"]),
    row(Post, "/groups/{group}/dead-letters/retry", Admin, "Retries a dead letter", "Retried")
        .body("DeadLetterName"),
    row(Get, "/revocations", Read, "The revocations", "Revocations").query(PAGE),
    row(Post, "/revocations", Admin, "Revokes a key, subject or token", "Revocation")
        .body("NewRevocation"),
    row(Delete, "/revocations/{id:.+}", Admin, "Lifts a revocation", "Revocation"),
    row(Get, "/grants", Read, "What keys may do", "Grants").query(PAGE),
    row(Get, "/grants/{key:.+}", Read, "The grant for exactly this key or pattern", "Grant"),
    row(Put, "/grants/{key:.+}", Admin, "Sets what a key or pattern may do", "Grant")
        .body("NewGrant"),
    row(Delete, "/grants/{key:.+}", Admin, "Removes a grant that this API set", "Grant"),
    row(Get, "/quarantine", Read, "Entries that are too large to be stored", "Quarantine")
        .query(PAGE),
    row(Get, "/quarantine/{number}", Read, "One of them", "Quarantined"),
    row(Delete, "/quarantine/{number}", Admin, "Removes it for good", "Quarantined"),
    row(Get, "/quarantine/{number}/event", Read, "Its event tag", "Bytes"),
    row(Get, "/quarantine/{number}/primary-key", Read, "Its primary key", "Bytes"),
    row(Get, "/quarantine/{number}/payload", Read, "Its payload", "Bytes"),
    row(
        Post,
        "/quarantine/{number}/release",
        Admin,
        "Stores it where its client wrote it to",
        "Released",
    ),
    row(Get, "/sessions", Read, "Who is connected, and what they follow", "Sessions")
        .query(&["after", "limit", "search"]),
    row(Delete, "/sessions/{id}", Admin, "Closes a connection", "SessionId"),
    row(
        Delete,
        "/sessions/{id}/subscriptions/{key:.+}",
        Admin,
        "Closes one subscription of a connection",
        "SessionId",
    ),
    row(Get, "/openapi.json", Read, "This document", "OpenApi"),
    row(Post, "/reload", Admin, "Reloads the configuration", "Reloaded"),
];

/// A path below `/admin`, with a handler for each of its operations.
pub(super) struct AdminEndpoint {
    path: &'static str,
    resource: Resource,
}

impl AdminEndpoint {
    /// `path` as written in [`OPERATIONS`].
    pub(super) fn at(path: &'static str) -> Self {
        // A trailing slash may be part of the name.
        let resource = if path.contains(":.+}") {
            web::resource(path)
        } else {
            web::resource([path.to_owned(), format!("{path}/")])
        };
        Self { path, resource }
    }

    pub(super) fn get<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Get, handler)
    }

    pub(super) fn put<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Put, handler)
    }

    pub(super) fn post<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Post, handler)
    }

    pub(super) fn delete<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Delete, handler)
    }

    /// Extra data for its handlers.
    pub(super) fn app_data<T: 'static>(mut self, data: T) -> Self {
        self.resource = self.resource.app_data(data);
        self
    }

    fn on<F, Args>(mut self, verb: Verb, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let is_described = rows(self.path).any(|operation| operation.verb == verb);
        debug_assert!(is_described, "OPERATIONS has no {verb:?} {}", self.path);
        if is_described {
            let is_asked =
                guard::fn_guard(move |asked| Verb::of(&asked.head().method) == Some(verb));
            self.resource = self.resource.route(web::route().guard(is_asked).to(handler));
        }
        self
    }

    /// The finished endpoint, ready to mount.
    pub(super) fn done(self) -> impl HttpServiceFactory {
        let path = self.path;
        let allowed: Vec<&str> = rows(path).map(|operation| operation.verb.allowed()).collect();
        let allowed = allowed.join(", ");
        let other = move || {
            let failure = Failure::Method { allowed: allowed.clone() };
            std::future::ready(Err::<HttpResponse, Failure>(failure))
        };
        self.resource.default_service(web::to(other)).wrap(from_fn(
            move |request: ServiceRequest, next: Next<_>| {
                let may = may(path, &request);
                async move {
                    may?;
                    next.call(request).await
                }
            },
        ))
    }
}

fn rows(path: &str) -> impl Iterator<Item = &'static Operation> {
    OPERATIONS.iter().filter(move |operation| operation.path == path)
}

/// Whether the caller has the right to do this.
fn may(path: &str, request: &ServiceRequest) -> Result<(), Failure> {
    let verb = Verb::of(request.method());
    let Some(asked) = rows(path).find(|operation| Some(operation.verb) == verb) else {
        // The answer to this will list the allowed methods.
        return Ok(());
    };
    let has = |rights: &Rights| rights.have(asked.right);
    if request.extensions().get::<Rights>().is_some_and(has) {
        Ok(())
    } else {
        Err(Failure::Right(asked.right))
    }
}
