//! Authorizations with behaviour that servers must survive.

use eventlog_server::model::{Batch, PublicKey};
use eventlog_server::services::{Auth, AuthError, AuthReason, Claim};
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
        claim: Claim<'a>,
        _: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        reject(claim.key)
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        reject(claim.key)
    }
}

/// Panics for this key: immediately when it wants to read, in the answer when it wants to write.
pub struct PanicOn(pub PublicKey);

impl PanicOn {
    fn decide(&self, key: &PublicKey) {
        assert_ne!(*key, self.0, "this panic belongs to the test");
    }
}

impl Auth for PanicOn {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        _: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        // Before there is a future; the other one panics while it runs.
        self.decide(claim.key);
        Box::pin(ready(Ok(())))
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        self.decide(claim.key);
        Box::pin(ready(Ok(())))
    }
}

/// Does not answer for this key, and panics when it is dropped. Nothing protects a session against that.
pub struct PanicWhenDropped(pub PublicKey);

struct Trap;

impl Drop for Trap {
    fn drop(&mut self) {
        // A second panic would end the process.
        assert!(std::thread::panicking(), "this panic belongs to the test");
    }
}

impl Auth for PanicWhenDropped {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        _: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        let trapped = *claim.key == self.0;
        Box::pin(async move {
            if trapped {
                let _trap = Trap;
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }

    fn authorize_read<'a>(&'a self, _: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(ready(Ok(())))
    }
}
