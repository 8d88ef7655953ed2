//! Everyone may do everything.

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use crate::model::Batch;
use crate::services::{Auth, AuthError, Claim};

/// Allows every key to write and to read: for tests, for `--dev`, and where the network decides who can connect.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Auth for AllowAll {
    fn authorize_write<'a>(
        &'a self,
        _claim: Claim<'a>,
        _entries: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        ready(Ok(())).boxed()
    }

    fn authorize_read<'a>(&'a self, _claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        ready(Ok(())).boxed()
    }
}
