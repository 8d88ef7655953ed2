//! Authorizations that do what servers must survive.

use eventlog_server::model::{Batch, PublicKey};
use eventlog_server::services::{Auth, AuthError, AuthReason};
use futures_util::future::{BoxFuture, ready};

/// Refuses everything.
pub struct RejectAll;

fn reject(key: &PublicKey) -> BoxFuture<'static, Result<(), AuthError>> {
    let (reason, message) = (AuthReason::Forbidden, "not today".into());
    Box::pin(ready(Err(AuthError { reason, key: key.clone(), message })))
}

impl Auth for RejectAll {
    fn authorize_write<'a>(
        &'a self,
        key: &'a PublicKey,
        _: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        reject(key)
    }

    fn authorize_read<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<(), AuthError>> {
        reject(key)
    }
}

/// Panics when it is asked about this key.
pub struct PanicOn(pub PublicKey);

impl PanicOn {
    fn decide(&self, key: &PublicKey) {
        assert_ne!(*key, self.0, "this panic belongs to the test");
    }
}

impl Auth for PanicOn {
    fn authorize_write<'a>(
        &'a self,
        key: &'a PublicKey,
        _: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(async move {
            self.decide(key);
            Ok(())
        })
    }

    fn authorize_read<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(async move {
            self.decide(key);
            Ok(())
        })
    }
}
