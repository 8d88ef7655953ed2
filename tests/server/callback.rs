//! The answers of the application that an `HttpAuth` asks.

use std::time::Duration;

use eventlog_server::services::auth::http::{HttpAuth, HttpOptions};
use eventlog_server::services::{Auth, Caller, Claim};

use crate::support::receiver::{Receiver, Reply};
use crate::support::{key, store};

/// A session whose client does not read is not polled, so it picks its answer up late. Nothing was known about the
/// answer any more then: its subscription was never checked again, and neither its user nor its store mattered.
#[tokio::test]
async fn an_answer_that_is_picked_up_after_its_end_is_asked_for_again() {
    let answer = r#"{"allow":true,"storeId":"team","sub":"ann","ttlSeconds":1}"#;
    let application = Receiver::start(|_| Reply::Body(answer.to_owned())).await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().expect("a secret");
    let auth = HttpAuth::new(HttpOptions::new(application.url(), [secret])).expect("options");
    let (caller, alice) = (Caller::default(), key("alice"));
    let claim = Claim { caller: &caller, key: &alice, proof: None };
    let mut asked = auth.authorize_read(claim);
    assert!(futures_util::poll!(&mut asked).is_pending());
    application.requests_come(1).await;
    // Longer than the answer is valid, and than it is known.
    tokio::time::sleep(Duration::from_secs(3)).await;
    asked.await.expect("allowed");
    assert!(auth.holds_until(claim).is_some());
    assert_eq!(auth.subject_of(claim).as_deref(), Some("ann"));
    assert_eq!(auth.store_of(claim), Some(store("team")));
}

/// For example because there was no room for it.
#[tokio::test]
async fn what_is_not_known_any_more_has_ended() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().expect("a secret");
    let auth = HttpAuth::new(HttpOptions::new("http://127.0.0.1:1/", [secret])).expect("options");
    let (caller, alice) = (Caller::default(), key("alice"));
    let claim = Claim { caller: &caller, key: &alice, proof: None };
    assert!(auth.holds_until(claim).is_some());
}
