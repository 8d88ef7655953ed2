//! The `[[webhook]]` entries as groups.

use std::collections::HashMap;
use std::sync::Arc;

use eventlog_server::processing::Processor;
use eventlog_server::services::EventJournal;
use eventlog_server::webhooks::{Signing, Webhook, WebhookOptions};

use super::ServeError;

/// What the requests of each webhook are signed with, by name.
pub(super) type Signings = HashMap<String, Signing>;

/// Runs the webhooks; `None` without any, if there never were any: then nothing is journaled. The positions of former
/// webhooks are kept until they are forgotten.
pub(super) async fn processor(
    webhooks: &[WebhookOptions],
    journal: &Arc<dyn EventJournal>,
) -> Result<Option<(Processor, Signings)>, ServeError> {
    let mut builder = Processor::builder(journal.clone());
    if webhooks.is_empty() && !builder.is_needed().await? {
        return Ok(None);
    }
    let mut signings = Signings::new();
    for options in webhooks {
        let (name, url) = (&options.name, &options.url);
        let webhook = Webhook::new(options.clone())?;
        log::info!("webhook {name} sends to {url}");
        signings.insert(name.clone(), webhook.signing());
        builder = builder.entry_group(webhook.group(), webhook);
    }
    Ok(Some((builder.build()?, signings)))
}
