//! Compactors that read and write typed events.
//!
//! Keeps: an effect receives decoded events, all of a bucket or none, and cannot write an event outside its group.
//! Leaves out: when it is asked, and what is done with its result (`compactor`, `answer`).

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::{Bucket, Compaction, CompactionFailure, CompactionGuard, DuplicateEvent};
use super::{EventPattern, Replacements, Strategy};
use crate::model::Entry;
use crate::processing::event::{Event, EventGroup, Events, Holds, ListOf};
use crate::processing::{CodecError, PayloadCodec};

/// The eligible entries of one primary key, decoded, in feed order; at least one.
pub struct GroupBucket<'a, G> {
    /// What they are about.
    pub primary_key: &'a str,
    /// The entries as they are stored.
    pub entries: &'a [Entry],
    /// The events of these entries, in the same order.
    pub events: Vec<GroupEvent<G>>,
}

/// An event of group `G`.
pub struct GroupEvent<G> {
    payload: Box<dyn Any>,
    group: PhantomData<fn() -> G>,
}

impl<G: EventGroup> GroupEvent<G> {
    /// The event, if it is an `E`: `event.get::<TodoDone, _>()`.
    pub fn get<E, At>(&self) -> Option<&E>
    where
        E: Event,
        ListOf<G>: Holds<E, At>,
    {
        self.payload.downcast_ref()
    }
}

/// Collects the events that replace a bucket.
pub struct GroupReplacements<'a, G> {
    primary_key: &'a str,
    out: &'a mut Replacements,
    failure: Option<CompactionFailure>,
    group: PhantomData<fn() -> G>,
}

impl<G: EventGroup> GroupReplacements<'_, G> {
    /// Adds an event in place of the bucket, after those written before; see [`Replacements::write`].
    ///
    /// If its primary key differs from the bucket's, or it cannot be encoded, the bucket is sent unchanged.
    pub fn write<E, At>(&mut self, event: &E)
    where
        E: Event,
        ListOf<G>: Holds<E, At>,
    {
        let primary_key = event.primary_key();
        if primary_key != self.primary_key {
            let reason =
                format_args!("it replaces {:?} but is about {primary_key:?}", self.primary_key);
            self.failure = Some(CompactionFailure::new(E::TAG, reason));
            return;
        }
        match G::Codec::encode(event) {
            Ok(payload) => self.out.write(E::TAG, payload),
            Err(error) => self.failure = Some(CompactionFailure::new(E::TAG, error)),
        }
    }

    /// Keeps one of the bucket's entries unchanged; see [`Replacements::keep`].
    pub fn keep(&mut self, entry: &Entry) {
        self.out.keep(entry);
    }
}

/// A list of events that can be decoded by their tags: every group's list.
pub trait DecodeEvents {
    /// The event with this tag in `payload`; `None` if no event of the list has the tag.
    fn decode<C: PayloadCodec>(
        tag: &str,
        payload: &[u8],
    ) -> Option<Result<Box<dyn Any>, CodecError>>;
}

impl DecodeEvents for () {
    fn decode<C: PayloadCodec>(_: &str, _: &[u8]) -> Option<Result<Box<dyn Any>, CodecError>> {
        None
    }
}

impl<E: Event, Rest: DecodeEvents> DecodeEvents for (E, Rest) {
    fn decode<C: PayloadCodec>(
        tag: &str,
        payload: &[u8],
    ) -> Option<Result<Box<dyn Any>, CodecError>> {
        if tag != E::TAG {
            return Rest::decode::<C>(tag, payload);
        }
        Some(C::decode::<E>(payload).map(|event| Box::new(event) as Box<dyn Any>))
    }
}

impl Compaction {
    /// Compacts the events of group `G` that were created at least `older_than` before a reader begins; see
    /// [`Strategy::effect`] for the rules that `effect` must follow. A bucket with an entry that cannot be decoded is
    /// sent unchanged.
    ///
    /// ```
    /// # use eventlog_server::processing::{Event, EventGroup, Msgpack};
    /// # use eventlog_server::processing::compaction::Compaction;
    /// # use std::time::Duration;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Added { key: String, count: u64 }
    /// # impl Event for Added { const TAG: &'static str = "Added"; fn primary_key(&self) -> String { self.key.clone() } }
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Total { key: String, count: u64 }
    /// # impl Event for Total { const TAG: &'static str = "Total"; fn primary_key(&self) -> String { self.key.clone() } }
    /// # struct Counter;
    /// # impl EventGroup for Counter { type Events = (Added, Total); type Codec = Msgpack; }
    /// # let compaction = Compaction::new(&eventlog_server::model::Limits::default());
    /// let month = Duration::from_secs(30 * 24 * 60 * 60);
    /// let guard = compaction.register_group::<Counter>(month, |bucket, out| {
    ///     let mut count = 0;
    ///     for event in &bucket.events {
    ///         if let Some(added) = event.get::<Added, _>() {
    ///             count += added.count;
    ///         }
    ///         if let Some(total) = event.get::<Total, _>() {
    ///             count = total.count;
    ///         }
    ///     }
    ///     out.write(&Total { key: bucket.primary_key.to_owned(), count });
    /// });
    /// # assert!(guard.is_ok());
    /// ```
    pub fn register_group<G>(
        &self,
        older_than: Duration,
        effect: impl Fn(&GroupBucket<'_, G>, &mut GroupReplacements<'_, G>) + Send + Sync + 'static,
    ) -> Result<CompactionGuard, DuplicateEvent>
    where
        G: EventGroup,
        ListOf<G>: DecodeEvents,
    {
        let tags = <G::Events as Events>::TAGS.iter();
        let effect = Strategy::effect(move |bucket, out| ask(bucket, out, &effect));
        self.register(tags.map(|tag| EventPattern::exact(*tag)), older_than, effect)
    }
}

fn ask<G>(
    bucket: &Bucket<'_>,
    out: &mut Replacements,
    effect: &impl Fn(&GroupBucket<'_, G>, &mut GroupReplacements<'_, G>),
) -> Result<(), CompactionFailure>
where
    G: EventGroup,
    ListOf<G>: DecodeEvents,
{
    let Bucket { primary_key, entries } = *bucket;
    let events = entries.iter().map(decode).collect::<Result<_, _>>()?;
    let mut typed = GroupReplacements { primary_key, out, failure: None, group: PhantomData };
    effect(&GroupBucket { primary_key, entries, events }, &mut typed);
    typed.failure.map_or(Ok(()), Err)
}

fn decode<G>(entry: &Entry) -> Result<GroupEvent<G>, CompactionFailure>
where
    G: EventGroup,
    ListOf<G>: DecodeEvents,
{
    let decoded = <ListOf<G>>::decode::<G::Codec>(&entry.event, &entry.payload);
    let unknown = || Err(CodecError::new("no event of the group has this tag"));
    let payload = decoded
        .unwrap_or_else(unknown)
        .map_err(|error| CompactionFailure::new(&entry.event, error))?;
    Ok(GroupEvent { payload, group: PhantomData })
}

impl<G> fmt::Debug for GroupBucket<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { primary_key, entries, .. } = self;
        f.debug_struct("GroupBucket")
            .field("primary_key", primary_key)
            .field("entries", entries)
            .finish()
    }
}

impl<G> fmt::Debug for GroupEvent<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupEvent")
    }
}

impl<G> fmt::Debug for GroupReplacements<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GroupReplacements").field(&self.out).finish()
    }
}
