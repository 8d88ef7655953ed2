//! Typed events, and groups of them.
//!
//! Keeps: a handler or a writer cannot name an event outside its group, and a group with an event that has no handler
//! does not compile. Leaves out: bytes (`codec`), what handlers do (`handlers`).

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::PayloadCodec;
use super::handlers::Handlers;

/// A kind of event: implemented on the type of its payload.
///
/// ```
/// # use eventlog_server::processing::Event;
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct TodoAdded { id: String, title: String }
///
/// impl Event for TodoAdded {
///     const TAG: &'static str = "TodoAdded";
///     fn primary_key(&self) -> String { self.id.clone() }
/// }
/// ```
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The event tag of its entries; one type per tag in a server.
    const TAG: &'static str;

    /// What the event is about: entries with the same tag and primary key can conflict.
    fn primary_key(&self) -> String;
}

/// Events that belong together: one codec, one set of handlers with one shared state.
///
/// ```
/// # use eventlog_server::processing::{Event, EventGroup, Msgpack};
/// # use std::sync::{Arc, Mutex};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct TodoAdded { id: String }
/// # impl Event for TodoAdded { const TAG: &'static str = "TodoAdded"; fn primary_key(&self) -> String { self.id.clone() } }
/// # #[derive(serde::Serialize, serde::Deserialize)] struct TodoDone { id: String }
/// # impl Event for TodoDone { const TAG: &'static str = "TodoDone"; fn primary_key(&self) -> String { self.id.clone() } }
/// # use eventlog_server::processing::Committed;
/// struct Todos;
///
/// impl EventGroup for Todos {
///     type Events = (TodoAdded, TodoDone);
///     type Codec = Msgpack;
/// }
///
/// type Open = Mutex<Vec<String>>;
///
/// let open = Arc::new(Open::default());
/// let handlers = Todos::handlers(open)
///     .on(async |open, added: Committed<TodoAdded>| open.lock().unwrap().push(added.id.clone()))
///     .on(async |open, done: Committed<TodoDone>| open.lock().unwrap().retain(|id| *id != done.id))
///     .invalidates(["todos"]);
/// ```
pub trait EventGroup: Send + Sync + 'static {
    /// The events: a tuple of up to 24 types.
    type Events: Events;
    /// How their payloads are encoded; [`Msgpack`](super::Msgpack) for what JavaScript clients write.
    type Codec: PayloadCodec;

    /// Starts a set of handlers that share `state`; see [`Handlers::on`].
    fn handlers<S: Send + Sync + 'static>(state: Arc<S>) -> Handlers<Self, S, ListOf<Self>>
    where
        Self: Sized,
    {
        Handlers::new(state)
    }
}

/// The events of a group as a list; see [`Holds`].
pub type ListOf<G> = <<G as EventGroup>::Events as Events>::List;

/// A tuple of [`Event`] types.
pub trait Events: 'static {
    /// The tuple `(A, B)` as `(A, (B, ()))`, which [`Holds`] can walk.
    type List;
    /// The tags, in order.
    const TAGS: &'static [&'static str];
}

/// A list of events that contains `E`. `At` is the position: the compiler finds it.
#[diagnostic::on_unimplemented(
    message = "`{E}` is not an event of this group, or it has a handler already",
    label = "the events left: `{Self}`"
)]
pub trait Holds<E, At> {
    /// The list without `E`.
    type Rest;
}

/// The front of a list; see [`Holds`].
#[derive(Debug)]
pub struct Front(());

/// Further back in a list; see [`Holds`].
#[derive(Debug)]
pub struct Behind<At>(std::marker::PhantomData<At>);

impl<E, Tail> Holds<E, Front> for (E, Tail) {
    type Rest = Tail;
}

impl<E, Head, Tail: Holds<E, At>, At> Holds<E, Behind<At>> for (Head, Tail) {
    type Rest = (Head, Tail::Rest);
}

/// The list of events left without a handler, when there is none.
#[diagnostic::on_unimplemented(
    message = "events of the group have no handler: `{Self}`",
    label = "add `.on(…)` for each of them"
)]
pub trait NoneLeft {}

impl NoneLeft for () {}

macro_rules! list {
    () => { () };
    ($head:ident $($tail:ident)*) => { ($head, list!($($tail)*)) };
}

macro_rules! events {
    () => {};
    ($head:ident $($tail:ident)*) => {
        impl<$head: Event, $($tail: Event),*> Events for ($head, $($tail,)*) {
            type List = list!($head $($tail)*);
            const TAGS: &'static [&'static str] = &[$head::TAG, $($tail::TAG),*];
        }
        events!($($tail)*);
    };
}

events!(A B C D E F G H I J K L M N O P Q R S T U V W X);
