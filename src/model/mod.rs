//! The vocabulary of everything else: ids, entries, batches, segments, limits.
//!
//! Keeps: a name, an id, a sequence or a segment that exists is valid. They do not know how long an entry may be:
//! limits differ from server to server, and `core::validate` checks them. Leaves out: how the values travel
//! (`protocol`), where they are kept (`storage`), what is decided about them (`core`).

mod batch;
mod entry;
pub(crate) mod glob;
pub(crate) mod histogram;
mod id;
mod in_log;
pub mod limits;
mod name;
mod origin;
mod quota;
pub(crate) mod record;
mod retention;
mod secret;
mod segment;
pub(crate) mod seldom;
mod sequence;
pub(crate) mod sparing;
pub(crate) mod varint;

pub use batch::Batch;
pub use entry::{Entry, EntryRef, RemoteEntry};
pub use histogram::Observed;
pub use id::{EntryId, RemoteId};
pub use in_log::hash_keys_in_log;
pub(crate) use in_log::{hashes_keys_in_log, key_as_field, key_in_log};
pub use limits::Limits;
pub use name::{InvalidName, PublicKey, StoreId};
pub use origin::Origin;
pub use quota::{Quota, Quotas};
pub(crate) use record::RecordSizes;
pub use record::{MalformedRecord, RecordReader, record_len, write_record};
pub use retention::{Retention, RetentionRule};
pub use secret::{Secret, without_user};
pub use segment::{OriginRun, Segment, SegmentBuilder};
pub use sequence::{Sequence, SequenceOutOfRange};
