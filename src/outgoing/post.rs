//! One request, and its answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::{Secret, Signing};
use crate::tls::trusting;

/// A connection that has not been used for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Most bytes of an answer's headers.
const HEADER_BYTES_MAX: usize = 64 * 1_024;

/// Sends to one address.
pub(crate) struct Post {
    url: Uri,
    secrets: Signing,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// `None` if it is longer than requested, or was cut off.
    pub(crate) body: Option<Bytes>,
}

/// There is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct PostError {
    why: String,
    /// Whether a connection existed and broke: the other end may close one at the moment when it is used again.
    pub(crate) broke: bool,
}

impl Post {
    /// Connects when there is something to send. `trusted` are additional authorities, X.509 in DER.
    pub(crate) fn new(url: Uri, secrets: Vec<Secret>, trusted: &[Vec<u8>]) -> Self {
        let secrets = Signing::with(secrets);
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // TLS is added around it.
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trusting(trusted))
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(HEADER_BYTES_MAX)
            .build(connector);
        Self { url, secrets, client }
    }

    /// What requests are signed with; it can be replaced.
    pub(crate) const fn signing(&self) -> &Signing {
        &self.secrets
    }

    /// Sends `body` as the message `id`, signed with all secrets, and reads up to this many bytes of the answer's body,
    /// all of it within `timeout`.
    pub(crate) async fn send(
        &self,
        (id, body): (&str, Bytes),
        now: SystemTime,
        timeout: Duration,
        answer_bytes_max: usize,
    ) -> Result<Answer, PostError> {
        let exchange = self.exchange(id, body, now, answer_bytes_max);
        tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
            Err(PostError { why: format!("it did not answer within {timeout:?}"), broke: false })
        })
    }

    async fn exchange(
        &self,
        id: &str,
        body: Bytes,
        now: SystemTime,
        answer_bytes_max: usize,
    ) -> Result<Answer, PostError> {
        let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
        let signatures = self.secrets.signatures(id, &timestamp, &body);
        let request = Request::post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("eventlog-server/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures)
            .body(Full::new(body))
            .map_err(|error| PostError { why: error.to_string(), broke: false })?;
        let response = self.client.request(request).await;
        let response = response
            .map_err(|error| PostError { why: reason(&error), broke: !error.is_connect() })?;
        let (head, body) = response.into_parts();
        // If it is read to its end, the connection serves the next request.
        let body = Limited::new(body, answer_bytes_max).collect().await;
        let body = body.ok().map(http_body_util::Collected::to_bytes);
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// An error with its causes: the first one alone often says only that there is an error.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
