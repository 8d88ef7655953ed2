//! Tests for those who write a [`Storage`], a [`StoreRegistry`], [`Identities`], [`Records`], a [`Quarantine`] or an
//! [`EventJournal`] of their own, with the feature `testing`.
//!
//! A contract is a list of clauses, and [`contract_tests!`](crate::contract_tests) makes a test of each. The
//! implementations that come with the server pass the same tests:
//!
//! ```
//! use std::sync::Arc;
//!
//! use eventlog_server::services::StoreRegistry;
//! use eventlog_server::services::registry::MemoryRegistry;
//!
//! eventlog_server::contract_tests!(registry: Arc::new(MemoryRegistry::new()) as Arc<dyn StoreRegistry>);
//! ```
//!
//! Keeps: each clause gets a subject of its own, and calls it as the server does: on a thread that may block, with a
//! tokio runtime around it that lives as long as the subject. Leaves out: what only one implementation can be asked
//! (which step of its disk fails); and [`Auth`](crate::services::Auth), whose answers are its own business.
//!
//! [`fault`] is the opposite: implementations that fail on demand, for tests of their users.
//!
//! [`Storage`]: crate::services::Storage
//! [`StoreRegistry`]: crate::services::StoreRegistry
//! [`Identities`]: crate::services::Identities
//! [`Records`]: crate::services::Records
//! [`Quarantine`]: crate::services::Quarantine
//! [`EventJournal`]: crate::services::EventJournal

#![allow(clippy::expect_used)] // what does not go as expected fails a test

#[cfg(all(test, feature = "postgres"))]
#[expect(clippy::disallowed_methods, reason = "it waits for programs, on threads of tests")]
#[allow(dead_code, unreachable_pub, reason = "the tests of the binary have it as well")]
pub(crate) mod cluster;
pub mod fault;
pub mod identities;
pub mod journal;
#[cfg(all(test, feature = "postgres"))]
pub(crate) mod on_postgres;
#[cfg(all(test, feature = "sled"))]
pub(crate) mod on_sled;
pub mod quarantine;
pub mod records;
pub mod registry;
pub mod storage;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::model::{PublicKey, StoreId};

/// Something under test that is a `T`: `dyn Storage`, `dyn StoreRegistry`, `dyn Identities`, `dyn Records`, `dyn
/// Quarantine` or `dyn EventJournal`. Empty at first.
pub trait Subject<T: ?Sized> {
    /// The service, as it is open now.
    fn service(&self) -> &T;

    /// Closes the service and opens it again with what it has stored; does nothing if its data ends with the process.
    fn reopen(&mut self);
}

/// For a service that keeps nothing beyond its process.
impl<T: ?Sized> Subject<T> for Arc<T> {
    fn service(&self) -> &T {
        self
    }

    fn reopen(&mut self) {}
}

/// One clause of a contract.
pub struct Clause<T: ?Sized> {
    /// Its statement, as the name of a test.
    pub name: &'static str,
    /// Panics unless it holds.
    #[doc(hidden)]
    pub run: fn(&mut dyn Subject<T>),
}

impl<T: ?Sized + 'static> Clause<T> {
    /// Panics unless it holds for what `make` creates.
    pub fn check<S: Subject<T>>(&self, make: impl FnOnce() -> S + Send + 'static) {
        let (run, runtime) = (self.run, runtime());
        let checked = runtime.block_on(runtime.spawn_blocking(move || run(&mut make())));
        if let Err(failed) = checked {
            resume_unwind(failed.into_panic());
        }
    }
}

/// The clauses that do not hold for what `make` creates.
pub fn broken<T: ?Sized + 'static, S: Subject<T>>(
    clauses: &[Clause<T>],
    make: impl Fn() -> S + Clone + Send + 'static,
) -> Vec<&'static str> {
    let holds =
        |clause: &&Clause<T>| catch_unwind(AssertUnwindSafe(|| clause.check(make.clone()))).is_ok();
    clauses.iter().filter(|clause| !holds(clause)).map(|clause| clause.name).collect()
}

/// Waits for the answer on a thread that may block.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    match Handle::try_current() {
        Ok(handle) => handle.block_on(future),
        Err(_) => runtime().block_on(future),
    }
}

/// The results of four threads that did `act` at the same time, each with its number.
fn racing<T: Send>(act: impl Fn(u8) -> T + Sync) -> Vec<(u8, T)> {
    let handle = Handle::current();
    let race = &|racer| {
        let _entered = handle.enter();
        (racer, act(racer))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|racer| scope.spawn(move || race(racer))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

pub(crate) fn key(name: &str) -> PublicKey {
    PublicKey::new(name).expect("a public key")
}

pub(crate) fn store(name: &str) -> StoreId {
    StoreId::new(name).expect("a store id")
}

/// Makes a test of each clause of a contract: `storage`, `registry`, `identities`, `records`, `quarantine` or
/// `journal`. The expression creates a [`Subject`](crate::testing::Subject), or an `Arc` of the service if it keeps
/// nothing beyond its process.
#[macro_export]
macro_rules! contract_tests {
    ($contract:ident: $subject:expr) => {
        $crate::clauses!($contract tests $subject);
    };
}

/// The clauses of each contract; a clause that is not listed here is dead code.
#[doc(hidden)]
#[macro_export]
macro_rules! clauses {
    (storage $then:ident $($with:tt)*) => {
        $crate::clauses! { @$then storage ($($with)*);
            an_empty_store_has_nothing
            what_was_appended_is_read
            a_read_may_begin_anywhere_and_is_bounded
            ids_are_known_from_the_call_on
            ids_of_any_age_are_found
            what_stands_above_an_id_is_told_whole_or_not_at_all
            appends_may_be_queued_behind_each_other
            a_dropped_append_is_not_taken_back
            what_does_not_follow_is_refused
            an_earlier_log_refuses_appends_and_still_reads
            stores_are_listed_once_they_have_entries
            a_gap_is_kept_and_read_like_entries
            what_is_trimmed_is_a_gap_whose_ids_stay_known
            more_can_be_trimmed_and_never_less
            what_is_beyond_is_told
            times_of_commits_are_told
            what_is_erased_is_a_gap_whose_ids_stay_known
            what_is_not_there_is_not_erased
            stores_do_not_mix
            large_payloads_are_kept
            the_remote_id_stays
            a_key_stays_with_the_store_it_was_used_with_first
            of_racing_first_uses_one_wins
            used_keys_are_counted
        }
    };
    (registry $then:ident $($with:tt)*) => {
        $crate::clauses! { @$then registry ($($with)*);
            nothing_derives_a_store_from_a_key
            an_assignment_holds_and_may_be_repeated
            a_key_never_moves_by_assignment
            many_keys_share_a_store
            removing_tells_the_store_and_frees_the_key
            lists_come_in_pages_in_key_order
            names_are_taken_as_they_are
            of_racing_assignments_one_wins
            a_dropped_assignment_is_seen_by_the_next_one
            mappings_are_there_after_reopening
        }
    };
    (identities $then:ident $($with:tt)*) => {
        $crate::clauses! { @$then identities ($($with)*);
            the_first_signing_key_stays
            keys_do_not_mix
            of_racing_bindings_one_wins
            an_administrator_replaces_and_frees
            bindings_are_counted
            a_dropped_binding_is_seen_by_the_next_one
            bindings_are_there_after_reopening
        }
    };
    (records $then:ident $($with:tt)*) => {
        $crate::clauses! { @$then records ($($with)*);
            what_was_set_is_listed_and_the_last_counts
            removing_leaves_nothing_and_may_be_repeated
            records_come_in_pages_in_the_order_of_their_names
            any_text_is_a_name_and_any_bytes_a_value
            of_racing_changes_one_is_the_last
            a_dropped_change_is_seen_by_the_next_one
            records_are_there_after_reopening
        }
    };
    (quarantine $then:ident $($with:tt)*) => {
        $crate::clauses! { @$then quarantine ($($with)*);
            an_entry_is_listed_once_it_is_finished
            numbers_grow_and_are_given_once
            entries_come_in_pages_in_the_order_of_their_numbers
            removing_leaves_nothing_and_may_be_repeated
            a_sweep_takes_what_was_not_finished
            a_dropped_removal_leaves_no_entry_without_its_parts
            entries_are_there_after_reopening
        }
    };
    (journal $then:ident $($with:tt)*) => {
        $crate::clauses! { @$then journal ($($with)*);
            ranges_are_in_the_order_of_keys_with_both_ends
            each_range_of_a_read_is_answered_in_its_place
            of_several_changes_to_a_key_the_last_counts
            keys_and_values_are_any_bytes
            a_dropped_write_happened_whole_or_not_at_all
            many_changes_are_one_write
            what_was_written_is_there_after_reopening
            destroying_leaves_nothing
        }
    };
    (@tests $contract:ident ($subject:expr); $($clause:ident)*) => {
        $(
            #[test]
            fn $clause() {
                let clauses = $crate::testing::$contract::CLAUSES.iter();
                let named = clauses.filter(|clause| clause.name == stringify!($clause));
                named.for_each(|clause| clause.check(|| $subject));
            }
        )*
    };
    (@tests_on_postgres $contract:ident ($subject:expr); $($clause:ident)*) => {
        $(
            #[test]
            fn $clause() {
                let clauses = $crate::testing::$contract::CLAUSES.iter();
                let named = clauses.filter(|clause| clause.name == stringify!($clause));
                if $crate::testing::on_postgres::is_there() {
                    named.for_each(|clause| clause.check(|| $subject));
                }
            }
        )*
    };
    (@table $contract:ident (); $($clause:ident)*) => {
        &[$($crate::testing::Clause { name: stringify!($clause), run: $clause }),*]
    };
}
