//! One request to a receiver.
//!
//! Keeps: a request ends within its time, whatever the receiver does; redirects are not followed; of an answer no more
//! than some KiB are read. Leaves out: what the answer means (`answer`), trying again (`deliver`).

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::answer::Answer;
use crate::tls::trusting;

/// More of an answer is not read, and the connection is not used again.
const ANSWER_BYTES_MAX: usize = 16 * 1_024;
/// A connection that was not used for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What is sent.
pub(super) struct Message {
    pub(super) id: String,
    pub(super) timestamp: String,
    pub(super) signatures: String,
    pub(super) body: Bytes,
}

/// Sends to one receiver.
pub(super) struct Sender {
    url: Uri,
    timeout: Duration,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Sender {
    /// Connects when there is something to send. `trusted` are further authorities, X.509 in DER.
    pub(super) fn new(url: Uri, timeout: Duration, trusted: &[Vec<u8>]) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // TLS is put around it.
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trusting(trusted))
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { url, timeout, client }
    }

    /// Sends `message`, and says what came of it.
    pub(super) async fn send(&self, message: Message, now: SystemTime) -> Answer {
        let failed = |why: String| Answer::Failed(why, None);
        match tokio::time::timeout(self.timeout, self.exchange(message, now)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => failed(error),
            Err(_) => failed(format!("it did not answer within {:?}", self.timeout)),
        }
    }

    async fn exchange(&self, message: Message, now: SystemTime) -> Result<Answer, String> {
        let Message { id, timestamp, signatures, body } = message;
        let request = Request::post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("eventlog-server/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures)
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| reason(&error))?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|text| text.to_str().ok());
        let answer = Answer::of(response.status(), retry_after, now);
        // Read to its end, the connection serves the next request. What it says has no meaning.
        let _ = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok(answer)
    }
}

/// An error with what caused it: the first alone often says no more than that there is one.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
