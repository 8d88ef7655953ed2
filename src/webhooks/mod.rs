//! Handlers outside the process: entries are sent to receivers as JSON, signed according to Standard Webhooks.
//!
//! A [`Webhook`] is a group of a [`Processor`](crate::processing::Processor), with positions of its own in each store:
//!
//! ```
//! # use std::sync::Arc;
//! use eventlog_server::processing::Processor;
//! use eventlog_server::services::journal::MemoryJournal;
//! use eventlog_server::webhooks::{Begin, Webhook, WebhookOptions};
//!
//! let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?;
//! let options = WebhookOptions {
//!     events: vec!["Todo*".to_owned()],
//!     ..WebhookOptions::new("mailer", "https://mailer.example/events", [secret], Begin::Now)
//! };
//! let webhook = Webhook::new(options)?;
//! # let journal = Arc::new(MemoryJournal::new());
//! let processor = Processor::builder(journal).entry_group(webhook.group(), webhook).build()?;
//! # drop(processor);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Keeps: each store's entries arrive in order, at least once, one request at a time; a slow or dead receiver takes a
//! bounded number of connections, and holds up only itself. Leaves out: positions (`processing`), who receives what
//! (`cli` reads the configuration). `docs/WEBHOOKS.md` says what each answer means.

mod answer;
mod body;
mod deliver;
mod options;

pub use options::{Begin, WebhookError, WebhookOptions};

pub use crate::outgoing::{InvalidSecret, Secret, Signing};

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::outgoing::Post;
use crate::processing::GroupOptions;
use crate::processing::compaction::EventPattern;

/// A receiver of entries outside the process.
pub struct Webhook {
    name: String,
    from: Begin,
    stores: Vec<EventPattern>,
    events: Vec<EventPattern>,
    entries_max: usize,
    post: Post,
    timeout: Duration,
    /// One for each request that may be in progress.
    permits: Semaphore,
    /// How often it has answered that nothing more should be sent.
    gone: AtomicU64,
}

impl Webhook {
    /// Does not connect yet.
    pub fn new(options: WebhookOptions) -> Result<Self, WebhookError> {
        let url = options.check()?;
        let patterns = |texts: Vec<String>| texts.into_iter().map(EventPattern::glob).collect();
        Ok(Self {
            post: Post::new(url, options.secrets, &options.trusted_certificates),
            timeout: options.timeout,
            name: options.name,
            from: options.from,
            stores: patterns(options.stores),
            events: patterns(options.events),
            entries_max: options.entries_max,
            permits: Semaphore::new(options.requests_max),
            gone: AtomicU64::new(0),
        })
    }

    /// What its requests are signed with; it can be replaced while it runs.
    pub fn signing(&self) -> Signing {
        self.post.signing().clone()
    }

    /// The options of its group, for [`entry_group`](crate::processing::ProcessorBuilder::entry_group): the name and
    /// the beginning, unlimited tries, and otherwise the defaults.
    pub fn group(&self) -> GroupOptions {
        // A receiver that does not answer says nothing about entries, so none of them fails however long that takes.
        let options = GroupOptions::named(self.name.as_str()).tries(u32::MAX);
        match self.from {
            Begin::Start => options.from_start(),
            Begin::Now => options.from_now(),
        }
    }
}
