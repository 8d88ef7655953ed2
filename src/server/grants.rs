//! Grants that administrators set while the server runs.
//!
//! Keeps: they are durable, and exist beside those that the server was started with; removing a permission ends what it
//! allowed. Leaves out: which grant counts (`services::auth::grants`).

use std::collections::HashMap;
use std::sync::Arc;

use actix::ArbiterHandle;

use super::access::to_its_end;
use super::handle::Server;
use crate::actors::audit::{self, By};
use crate::model::PublicKey;
use crate::services::RecordsUnavailable;
use crate::services::auth::{Grant, Grants, ListedGrant};
use crate::services::records::{Kept, Records};

/// The maximum size of a grant as JSON.
const GRANT_BYTES_MAX: usize = 30 << 10;

/// A grant was not set or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantsError {
    /// The server was started without [`Builder::grants`](super::Builder::grants).
    #[error("this server uses no grants; another [auth] mode says who may do what")]
    NoGrants,
    /// It names more events than can be stored.
    #[error("the events of a grant may take about 30,000 bytes")]
    TooLong,
    /// The place where grants are kept does not answer. The change may have happened.
    #[error(transparent)]
    Unavailable(#[from] RecordsUnavailable),
}

/// The grants of a server, and those that were set at run time.
#[derive(Clone)]
pub(super) struct KeptGrants {
    grants: Arc<Grants>,
    pub(super) kept: Arc<Kept<Grant>>,
}

impl KeptGrants {
    pub(super) fn start(
        grants: Arc<Grants>,
        records: Arc<dyn Records>,
        home: &ArbiterHandle,
    ) -> Self {
        let kept = Arc::new(Kept::<Grant>::new(records, "grant", "all connections are refused"));
        let counted = grants.clone();
        kept.start(home, move |all| {
            for grant in all.values() {
                counted.set_as(&grant.public_key, || Some(grant.clone()));
            }
        });
        Self { grants, kept }
    }

    /// Applies what is stored now, because another server has changed some grants.
    pub(super) async fn read_again(&self) -> Result<(), RecordsUnavailable> {
        let set = |all: &HashMap<Box<str>, Arc<Grant>>, before: &HashMap<Box<str>, Arc<Grant>>| {
            let gone = before.iter().filter(|(name, _)| !all.contains_key(*name));
            gone.for_each(|(_, grant)| self.grants.set_as(&grant.public_key, || None));
            all.values()
                .for_each(|grant| self.grants.set_as(&grant.public_key, || Some(grant.clone())));
        };
        self.kept.read_again(set).await
    }

    /// Applies what is stored for this grantee.
    fn count(&self, grantee: &PublicKey) {
        self.grants.set_as(grantee, || self.kept.get(grantee.as_str()));
    }
}

impl Server {
    fn kept_grants(&self) -> Result<&KeptGrants, GrantsError> {
        self.inner().grants.as_ref().ok_or(GrantsError::NoGrants)
    }

    /// Sets a grant, durably. It replaces an earlier one for the same grantee and takes precedence over one that the
    /// server was started with. What it no longer allows ends within a second. If the future is dropped, the change
    /// continues anyway.
    pub async fn set_grant(&self, grant: Grant) -> Result<(), GrantsError> {
        self.set_grant_by(By::Process, grant).await
    }

    pub(super) async fn set_grant_by(&self, by: By, grant: Grant) -> Result<(), GrantsError> {
        let (server, grants) = (self.clone(), self.kept_grants()?.clone());
        if serde_json::to_vec(&grant).map_or(0, |bytes| bytes.len()) > GRANT_BYTES_MAX {
            return Err(GrantsError::TooLong);
        }
        to_its_end(async move {
            let Grant { public_key, write, read, events } = grant.clone();
            grants.kept.set(public_key.as_str(), grant).await?;
            grants.count(&public_key);
            server.access_changed();
            let events = events.map_or_else(|| "all".to_owned(), |events| format!("{events:?}"));
            let what = format_args!(
                "action=grant key={} read={read} write={write} events={events}",
                public_key.in_log()
            );
            audit::note(&by, what);
            Ok(())
        })
        .await
    }

    /// Removes a grant that was set, durably; returns what it was. A grant that the server was started with then counts
    /// again. What is no longer allowed ends within a second. If the future is dropped, the change continues anyway.
    pub async fn remove_grant(&self, grantee: &PublicKey) -> Result<Option<Grant>, GrantsError> {
        self.remove_grant_by(By::Process, grantee).await
    }

    pub(super) async fn remove_grant_by(
        &self,
        by: By,
        grantee: &PublicKey,
    ) -> Result<Option<Grant>, GrantsError> {
        let (server, grants) = (self.clone(), self.kept_grants()?.clone());
        let grantee = grantee.clone();
        to_its_end(async move {
            let removed = grants.kept.remove(grantee.as_str(), |_| true).await?;
            grants.count(&grantee);
            if removed.is_some() {
                server.access_changed();
                audit::note(&by, format_args!("action=ungrant key={}", grantee.in_log()));
            }
            Ok(removed.map(|grant| Grant::clone(&grant)))
        })
        .await
    }

    /// At most `count` grants for grantees after `after`: those that were set, and those that the server was started
    /// with.
    pub fn grants(
        &self,
        after: Option<&PublicKey>,
        count: usize,
    ) -> Result<Vec<ListedGrant>, GrantsError> {
        Ok(self.kept_grants()?.grants.list(after, count))
    }
}
