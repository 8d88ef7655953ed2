//! The part of the admin API that lists keys: all of them, or those that match.

use actix_web::web::{self, Query, ServiceConfig};
use serde::{Deserialize, Serialize};

use super::admin::{self, Answer, PageOf, name};
use super::admin_operations::AdminEndpoint;
use super::admin_search::{Text, choose};
use super::handle::Server;
use crate::model::{PublicKey, StoreId};

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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    public_key: PublicKey,
    store_id: StoreId,
}

async fn list(server: web::Data<Server>, Query(asked): Query<KeysOf>) -> Answer {
    let KeysOf { after, limit, store_id, search } = asked;
    let page = PageOf::new(after, limit);
    let after = page.after().map(name::<PublicKey>).transpose()?;
    let (is_everything, text) =
        (store_id.is_none() && search.is_none(), search.as_deref().map(Text::new));
    let is_wanted = |(key, store): &(PublicKey, StoreId)| {
        let has = |text: &Text| text.is_in(key.as_str()) || text.is_in(store.as_str());
        store_id.as_ref().is_none_or(|wanted| wanted == store) && text.as_ref().is_none_or(has)
    };
    let registry = &server.inner().store_registry;
    let list =
        async |after: Option<PublicKey>, count| Ok(registry.list(after.as_ref(), count).await?);
    let (found, last) =
        choose(&page, after, (!is_everything).then_some(is_wanted), list, |(key, _)| key.clone())
            .await?;
    let found: Vec<_> =
        found.into_iter().map(|(public_key, store_id)| Mapping { public_key, store_id }).collect();
    Ok(admin::page("keys", &found, last.map(|key| key.to_string())))
}
