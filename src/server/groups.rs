//! Manages the groups of a running server, in open stores and in all others.

use std::sync::Arc;

use super::handle::Server;
use super::replay::Processing;
use crate::actors::audit::{self, By};
use crate::model::{Sequence, StoreId};
use crate::processing::{DeadLetter, GroupError, GroupStatus, Processor};
use crate::services::JournalError;
use crate::storage::{StorageError, StoreSize};

/// How many stores are rewound at a time.
const PAGE: usize = 1_000;

/// How many stores are named at most in which a group begins later than requested.
const LATER_MAX: usize = 100;

/// The groups of handlers of a [`Server`]. Each change is durable once it is answered.
#[derive(Clone)]
pub struct Groups {
    server: Server,
    by: By,
}

impl From<StorageError> for GroupError {
    fn from(error: StorageError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl Groups {
    /// The groups of a server that has handlers; `by` is named in the audit log.
    pub(super) const fn new(server: Server, by: By) -> Self {
        Self { server, by }
    }

    fn processing(&self) -> Result<&Processing, GroupError> {
        let processing = self.server.inner().processing.as_ref();
        processing.ok_or_else(|| GroupError::Unavailable("there are no handlers".to_owned()))
    }

    fn processor(&self) -> Result<&Arc<Processor>, GroupError> {
        Ok(&self.processing()?.processor)
    }

    /// The state of each group; those that only the journal knows and this server does not run come last.
    pub async fn list(&self) -> Result<Vec<GroupStatus>, JournalError> {
        match self.server.processor() {
            Some(processor) => processor.groups().await,
            None => Ok(Vec::new()),
        }
    }

    /// See [`Processor::pause`].
    pub async fn pause(&self, group: &str) -> Result<(), GroupError> {
        self.processor()?.pause(group).await?;
        audit::note(&self.by, format_args!("action=pause group={group:?}"));
        Ok(())
    }

    /// See [`Processor::resume`].
    pub async fn resume(&self, group: &str) -> Result<(), GroupError> {
        self.processor()?.resume(group).await?;
        audit::note(&self.by, format_args!("action=resume group={group:?}"));
        Ok(())
    }

    /// See [`Processor::forget`].
    pub async fn forget(&self, group: &str) -> Result<(), GroupError> {
        self.processor()?.forget(group).await?;
        audit::note(&self.by, format_args!("action=forget group={group:?}"));
        Ok(())
    }

    /// See [`Processor::dead_letters`].
    pub async fn dead_letters(
        &self,
        group: &str,
        after: Option<(&StoreId, Sequence)>,
        count: usize,
    ) -> Result<Vec<DeadLetter>, GroupError> {
        self.processor()?.dead_letters(group, after, count).await
    }

    /// See [`Processor::dismiss`].
    pub async fn dismiss(
        &self,
        group: &str,
        letter: Option<(&StoreId, Sequence)>,
    ) -> Result<usize, GroupError> {
        let count = self.processor()?.dismiss(group, letter).await?;
        match letter {
            Some((store, sequence)) => audit::note(
                &self.by,
                format_args!("action=dismiss group={group:?} store={store:?} sequence={sequence}"),
            ),
            None => audit::note(
                &self.by,
                format_args!("action=dismiss group={group:?} letters={count}"),
            ),
        }
        Ok(count)
    }

    /// Runs the handler on a dead letter once more, after the handler that is running in its store. On success the
    /// letter is removed; otherwise it has the new failure. The handler gets the current conflicts: later entries of
    /// the primary key are among them, so an old value does not overwrite a new one.
    pub async fn retry(
        &self,
        group: &str,
        store: &StoreId,
        sequence: Sequence,
    ) -> Result<(), GroupError> {
        let processing = self.processing()?;
        // Held until it is done: the store stays open.
        let opened = self.server.inner().shared.stores.open(store).await?;
        let _lease = opened.feed.lease();
        let processor = Arc::clone(&processing.processor);
        // Even if it fails again: the handler ran.
        let what = format_args!("action=retry group={group:?} store={store:?} sequence={sequence}");
        audit::note(&self.by, what);
        let (group, store) = (group.to_owned(), store.clone());
        let retried = processing
            .on_handlers(async move { processor.retry_letter(&group, &store, sequence).await });
        let stopped = || Err(GroupError::Unavailable("the server stops".to_owned()));
        retried.await.unwrap_or_else(stopped)
    }

    /// Makes a group, or all of them, continue with entry `from` of a store, or of all stores; beyond a head, with the
    /// next entry. Waits for handlers that are running there. Conflicts reach back to where the group began to go
    /// through the feed: after a rewind to the first entry, it knows all of them. Where the beginning of a store is
    /// trimmed, the group begins after that, and the answer says so.
    pub async fn rewind(
        &self,
        store: Option<&StoreId>,
        group: Option<&str>,
        from: Sequence,
    ) -> Result<Rewound, GroupError> {
        let rewound = self.go_back(store, group, from).await?;
        audit::note(&self.by, format_args!("action=rewind {} from={from}", Where(group, store)));
        Ok(rewound)
    }

    async fn go_back(
        &self,
        store: Option<&StoreId>,
        group: Option<&str>,
        from: Sequence,
    ) -> Result<Rewound, GroupError> {
        let processor = self.processor()?;
        let mut rewound = Rewound::default();
        let storage = self.server.inner().storage.clone();
        let read = |read: Box<dyn FnOnce() -> Result<_, StorageError> + Send>| async {
            tokio::task::spawn_blocking(read).await.map_err(StorageError::unavailable)?
        };
        if let Some(store) = store {
            let asked = store.clone();
            let size = read(Box::new(move || Ok(vec![(asked.clone(), storage.size(&asked)?)])));
            let sizes = size.await?;
            rewound.note(&sizes, from);
            let heads: Vec<_> = sizes.into_iter().map(|(store, size)| (store, size.head)).collect();
            if heads.iter().any(|(_, head)| *head == Sequence::ZERO) {
                return Err(GroupError::NoSuchStore(store.clone()));
            }
            processor.rewind(&heads, group, from).await?;
            return Ok(rewound);
        }
        let mut after: Option<StoreId> = None;
        loop {
            let (storage, from_store) = (storage.clone(), after.take());
            let page = read(Box::new(move || storage.stores(from_store.as_ref(), PAGE))).await?;
            let Some((last, _)) = page.last() else { return Ok(rewound) };
            after = Some(last.clone());
            rewound.note(&page, from);
            let heads: Vec<_> = page.into_iter().map(|(store, size)| (store, size.head)).collect();
            processor.rewind(&heads, group, from).await?;
        }
    }
}

/// Where a group begins later than requested, because earlier entries are trimmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewound {
    /// Stores, and the sequence at which the group begins there; at most 100 of them.
    pub later: Vec<(StoreId, Sequence)>,
}

impl Rewound {
    fn note(&mut self, stores: &[(StoreId, StoreSize)], from: Sequence) {
        let later = stores.iter().filter(|(_, size)| from.max(Sequence::FIRST) <= size.trimmed);
        let room = LATER_MAX.saturating_sub(self.later.len());
        self.later
            .extend(later.take(room).map(|(store, size)| (store.clone(), size.trimmed.next())));
    }
}

/// A group or all, and a store or all, as shown in a line of the log.
struct Where<'a>(Option<&'a str>, Option<&'a StoreId>);

impl std::fmt::Display for Where<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(group) => write!(f, "group={group:?} ")?,
            None => f.write_str("group=all ")?,
        }
        match self.1 {
            Some(store) => write!(f, "store={store:?}"),
            None => f.write_str("store=all"),
        }
    }
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Groups")
    }
}
