//! The handlers of a group, from the builder that an application uses to the closure that replay calls.
//!
//! Keeps: a set of handlers covers its group. Leaves out: when a handler runs, and what happens to its failure
//! (`replay`).

use std::collections::HashMap;
use std::fmt::Display;
use std::future::ready;
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::codec::CodecError;
use super::committed::{Committed, Delivery};
use super::event::{Event, EventGroup, Events, Holds, ListOf};
use super::failure::Failure;
use super::group::{ErasedEntry, EventProcessing, GroupOptions, OnErased, OwnPosition};
use crate::model::{RemoteId, Sequence, StoreId};

/// The handlers of group `G` and what they share; `Left` are the events that still lack one.
///
/// A server accepts it once `Left` is empty; a missing handler is a compile error that names the event:
///
/// ```compile_fail
/// # use eventlog_server::processing::*;
/// # use eventlog_server::services::journal::MemoryJournal;
/// # use std::sync::Arc;
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Added;
/// # impl Event for Added { const TAG: &'static str = "A"; fn primary_key(&self) -> String { String::new() } }
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Done;
/// # impl Event for Done { const TAG: &'static str = "D"; fn primary_key(&self) -> String { String::new() } }
/// # struct Todos;
/// # impl EventGroup for Todos { type Events = (Added, Done); type Codec = Msgpack; }
/// # let processor = Processor::builder(Arc::new(MemoryJournal::new()));
/// // error: events of the group have no handler: `(Done, ())`
/// processor.group(Todos::handlers(Arc::new(())).on(async |_, _: Committed<Added>| ()));
/// ```
#[must_use = "handlers do nothing until a server has them"]
pub struct Handlers<G: EventGroup, S, Left> {
    state: Arc<S>,
    parts: HandlerParts,
    group: PhantomData<fn() -> (G, Left)>,
}

/// The handlers of one group without their types.
#[derive(Default)]
struct HandlerParts {
    options: GroupOptions,
    own_position: Option<OwnPosition>,
    on_erased: Option<OnErased>,
    handlers: Vec<(&'static str, EventHandler)>,
    invalidates: HashMap<&'static str, Vec<Arc<str>>>,
}

impl HandlerParts {
    /// Adds those of `keys` that the event does not have yet.
    fn invalidate(&mut self, tag: &'static str, keys: impl IntoIterator<Item = Arc<str>>) {
        let invalidated = self.invalidates.entry(tag).or_default();
        for key in keys {
            if !invalidated.contains(&key) {
                invalidated.push(key);
            }
        }
    }
}

/// The parts of a group.
pub(super) struct Parts {
    pub(super) options: GroupOptions,
    /// The name of the type.
    pub(super) name: &'static str,
    pub(super) events: Vec<(&'static str, EventProcessing)>,
    pub(super) own_position: Option<OwnPosition>,
    pub(super) on_erased: Option<OnErased>,
}

/// Decodes a delivery and runs the handler of its event.
pub(super) type EventHandler =
    Box<dyn Fn(Delivery) -> BoxFuture<'static, Result<(), HandlerError>> + Send + Sync>;

/// Why a handler did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandlerError {
    #[error("the payload does not decode: {0}")]
    Undecodable(#[from] CodecError),
    #[error("the handler failed: {}", .0.message)]
    Failed(Failure),
}

impl<G: EventGroup, S: Send + Sync + 'static> Handlers<G, S, ListOf<G>> {
    pub(super) fn new(state: Arc<S>) -> Self {
        Self { state, parts: HandlerParts::default(), group: PhantomData }
    }
}

impl<G: EventGroup, S: Send + Sync + 'static, Left> Handlers<G, S, Left> {
    /// Runs `handler` on every committed `E`: an async closure, or an async fn, that takes the shared state and the
    /// event.
    ///
    /// It returns nothing, or a `Result` whose error is logged and kept, or retried, see [`Failure`]. In each store,
    /// one handler runs at a time, in the order of the feed; a slow one delays only its own group in its own store. One
    /// that blocks its thread should use [`tokio::task::spawn_blocking`]. After a crash the last events of a store may
    /// be handled a second time, at most [`ProcessorBuilder::repeats_max`](super::ProcessorBuilder::repeats_max) of
    /// them.
    pub fn on<E, F, Fut, At>(mut self, handler: F) -> Handlers<G, S, Left::Rest>
    where
        E: Event,
        Left: Holds<E, At>,
        F: Fn(Arc<S>, Committed<E>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Outcome> + Send + 'static,
    {
        let state = Arc::clone(&self.state);
        let handler = Arc::new(handler);
        let run: EventHandler = Box::new(move |delivery| {
            let (state, handler) = (Arc::clone(&state), Arc::clone(&handler));
            // Decoding and the call are inside the future, so that a panic in either is caught with the rest.
            Box::pin(async move {
                let event = delivery.decode::<E, G::Codec>()?;
                handler(state, event).await.into_result().map_err(HandlerError::Failed)
            })
        });
        self.parts.handlers.push((E::TAG, run));
        Handlers { state: self.state, parts: self.parts, group: PhantomData }
    }

    /// Names the group: the journal keeps its position in each store under this name. Without it, the name is that of
    /// the type `G` without its path, so renaming the type makes a new group.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.parts.options.name = Some(name.into());
        self
    }

    /// How the group is kept and run, including [`Handlers::named`].
    pub fn options(mut self, options: GroupOptions) -> Self {
        let in_transaction = self.parts.options.in_transaction;
        self.parts.options = GroupOptions { in_transaction, ..options };
        self
    }

    /// For handlers that keep their results in a database of their own, each in one transaction with the sequence of
    /// its entry: `position` is asked for the last sequence of a store in that database when the group begins there in
    /// this process. Its answer counts instead of the journal, so that every entry is applied exactly once, whatever
    /// ends the process. `None` leaves it to the journal, as for a store that the database does not know. If it fails,
    /// it is asked again.
    ///
    /// A group with such positions is rewound in its own database. See `examples/exactly_once.rs`.
    pub fn own_position<F, Fut, E>(mut self, position: F) -> Self
    where
        F: Fn(Arc<S>, StoreId, RemoteId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<Sequence>, E>> + Send + 'static,
        E: Display,
    {
        let state = Arc::clone(&self.state);
        self.parts.own_position = Some(Box::new(move |store, origin| {
            let asked = position(Arc::clone(&state), store, origin);
            Box::pin(async move { asked.await.map_err(|error| error.to_string()) })
        }));
        self
    }

    /// Each handler receives the transaction in which the group's position moves, [`Committed::transaction`], and
    /// writes its own tables through it: what it writes is applied exactly once, whatever ends the process or moves the
    /// group to another node. That needs a journal with transactions (`PostgresJournal`), and a connection for as long
    /// as a handler runs: at most half of the pool.
    ///
    /// If a handler fails or is retried, its transaction is rolled back. See `examples/exactly_once_postgres.rs`.
    pub fn in_transaction(mut self) -> Self {
        self.parts.options.in_transaction = true;
        self
    }

    /// Calls `erased` for entries of a store that were erased, with the shared state: what was derived from them should
    /// be removed as well. They may be of any event, handled or not. Called at least once for each; failures are
    /// repeated.
    pub fn on_erased<F, Fut>(mut self, erased: F) -> Self
    where
        F: Fn(Arc<S>, StoreId, Vec<ErasedEntry>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Outcome> + Send + 'static,
    {
        let state = Arc::clone(&self.state);
        self.parts.on_erased = Some(Box::new(move |store, entries| {
            let told = erased(Arc::clone(&state), store, entries);
            Box::pin(async move { told.await.into_result() })
        }));
        self
    }

    /// The options (with a name if they have none), what is done with each event, and who knows positions.
    pub(super) fn into_parts(mut self) -> Parts {
        let path = std::any::type_name::<G>();
        // For `a::b::Group<a::c::Param>` that is `Group`.
        let path = path.split('<').next().unwrap_or(path);
        let name = path.rsplit("::").next().unwrap_or(path);
        let handlers = self.parts.handlers.into_iter().map(|(tag, handler)| {
            let invalidates = self.parts.invalidates.remove(tag).unwrap_or_default();
            (tag, EventProcessing { handler, invalidates })
        });
        let events = handlers.collect();
        let HandlerParts { options, own_position, on_erased, .. } = self.parts;
        Parts { options, name, events, own_position, on_erased }
    }

    /// Leaves the events without a handler as they are: they count as handled, without being decoded, and invalidate
    /// the group's keys. `Todos::handlers(Arc::new(())).invalidates(["todos"]).pass_rest()` has no handler at all.
    pub fn pass_rest(mut self) -> Handlers<G, S, ()> {
        for tag in <G::Events as Events>::TAGS {
            if self.parts.handlers.iter().all(|(handled, _)| handled != tag) {
                self.parts.handlers.push((tag, Box::new(|_| Box::pin(ready(Ok(()))))));
            }
        }
        Handlers { state: self.state, parts: self.parts, group: PhantomData }
    }

    /// Invalidates `keys` after every event of the group whose handler succeeded. If an event has a key more than once,
    /// from here or from [`Handlers::invalidates_on`], it is invalidated once.
    pub fn invalidates<K: Into<Arc<str>>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        let keys: Vec<Arc<str>> = keys.into_iter().map(Into::into).collect();
        for tag in <G::Events as Events>::TAGS {
            self.parts.invalidate(tag, keys.iter().cloned());
        }
        self
    }

    /// Invalidates `keys` after every `E` whose handler succeeded: `.invalidates_on::<TodoDone, _>(["done"])`.
    pub fn invalidates_on<E, At>(
        mut self,
        keys: impl IntoIterator<Item = impl Into<Arc<str>>>,
    ) -> Self
    where
        E: Event,
        ListOf<G>: Holds<E, At>,
    {
        self.parts.invalidate(E::TAG, keys.into_iter().map(Into::into));
        self
    }
}

/// What a handler may return: `()`, or a `Result` whose error is a [`Failure`] or implements `Display`.
pub trait Outcome {
    /// Success, or what failed.
    fn into_result(self) -> Result<(), Failure>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: Display> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), Failure> {
        self.map_err(Failure::failed)
    }
}

impl Outcome for Result<(), Failure> {
    fn into_result(self) -> Result<(), Failure> {
        self
    }
}
