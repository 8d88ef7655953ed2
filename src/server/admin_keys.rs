//! The part of the admin API that lists keys: all of them, or those that match.
//!
//! Keeps: a request looks at a bounded number of keys, however few of them match.

use actix_web::web::{self, Query, ServiceConfig};
use serde::{Deserialize, Serialize};

use super::admin::{self, Answer, PageOf, name};
use super::admin_operations::AdminEndpoint;
use super::handle::Server;
use crate::model::{PublicKey, StoreId};

/// The maximum number of keys that one request looks at to find those that match.
const LOOKED_AT_MAX: usize = 10_000;

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/keys").get(list).done());
}

/// Which keys.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeysOf {
    after: Option<String>,
    limit: Option<usize>,
    /// Only keys of this store.
    store_id: Option<StoreId>,
    /// Only keys with this text in their name, or in that of their store. Capitals do not matter.
    search: Option<String>,
}

/// What a key has to match.
struct Wanted {
    store_id: Option<StoreId>,
    text: Option<String>,
}

impl Wanted {
    const fn is_everything(&self) -> bool {
        self.store_id.is_none() && self.text.is_none()
    }

    fn has(&self, Mapping { public_key, store_id }: &Mapping) -> bool {
        let has = |name: &str, text: &String| name.to_lowercase().contains(text);
        self.store_id.as_ref().is_none_or(|wanted| wanted == store_id)
            && self
                .text
                .as_ref()
                .is_none_or(|text| has(public_key.as_str(), text) || has(store_id.as_str(), text))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    public_key: PublicKey,
    store_id: StoreId,
}

/// The following page begins after the last key that was looked at, so a page may be short, or empty, and have a `next`.
async fn list(server: web::Data<Server>, Query(asked): Query<KeysOf>) -> Answer {
    let KeysOf { after, limit, store_id, search } = asked;
    let page = PageOf::new(after, limit);
    let wanted = Wanted { store_id, text: search.map(|text| text.to_lowercase()) };
    let at_once = if wanted.is_everything() { page.count() } else { admin::PAGE_MAX };
    let mut cursor = page.after().map(name::<PublicKey>).transpose()?;
    let (mut found, mut looked_at) = (Vec::new(), 0);
    let is_more = 'looking: loop {
        // One more shows whether this is the end.
        let listed = server.inner().store_registry.list(cursor.as_ref(), at_once + 1).await?;
        let has_more = listed.len() > at_once;
        for (public_key, store_id) in listed.into_iter().take(at_once) {
            if found.len() == page.count() {
                break 'looking true;
            }
            cursor = Some(public_key.clone());
            let mapping = Mapping { public_key, store_id };
            if wanted.has(&mapping) {
                found.push(mapping);
            }
        }
        looked_at += at_once;
        if !has_more || found.len() == page.count() || looked_at >= LOOKED_AT_MAX {
            break has_more;
        }
        // Others are served meanwhile.
        tokio::task::yield_now().await;
    };
    let next = cursor.filter(|_| is_more).map(|key| key.to_string());
    Ok(admin::page("keys", &found, next))
}
