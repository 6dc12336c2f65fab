//! What every engine must keep, as tests. An engine says how to open handles on one medium
//! ([`Medium`]) and calls [`contract!`]; each handle stands for a process of its own. The promises are
//! listed in the macro, and grouped in the files beside this one as the traits are.

mod budgets;
mod entries;
mod guards;
mod leases;
mod listings;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub(crate) use self::budgets::*;
pub(crate) use self::entries::*;
pub(crate) use self::guards::*;
pub(crate) use self::leases::*;
pub(crate) use self::listings::*;
use super::{
    Commit, Error, Generation, KeyId, Lease, LeaseId, Page, Record, RunId, Store, Version, sqlite,
};
use crate::clock::{Clock, Timestamp};
use crate::principal::{DeviceToken, InstanceId, Principal};

/// Where a store lives: empty at first, gone when dropped.
pub(crate) trait Medium: Default {
    /// The engine.
    type Store: Store;

    /// One more handle on the same medium, as the process `run`.
    fn open(&self, run: RunId) -> Self::Store;

    /// The clock of all handles, which stands.
    fn clock(&self) -> Clock;
}

/// One `#[tokio::test]` for each promise, on a medium of its own.
macro_rules! contract {
    ($medium:ty: $($promise:ident)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                $crate::store::contract::$promise(&<$medium>::default()).await;
            }
        )*
    };
    ($medium:ty) => {
        $crate::store::contract::contract! { $medium:
            nothing_is_known_of_a_new_principal
            a_commit_is_there_for_every_process
            a_commit_on_an_old_generation_is_superseded_and_writes_nothing
            of_commits_at_once_exactly_one_wins
            every_note_is_remembered_and_a_commit_clears_those_about_the_old_pair
            a_rejected_login_ends_being_known
            where_a_user_was_registered_is_known_until_a_login_says_more
            a_forgotten_principal_keeps_its_generation_and_stays_forgotten
            only_one_process_holds_a_lease_and_a_release_frees_it
            a_lease_comes_with_the_entry_that_stands_once_it_is_taken
            nobody_releases_the_lease_of_another
            a_lease_that_ran_out_is_granted_as_orphaned
            the_leases_of_a_closed_process_are_orphaned_at_once
            processes_share_the_login_budget
            a_block_outlives_the_process_and_is_never_shortened
            a_block_is_lifted_on_demand_and_the_halving_stays
            groups_do_not_share_slots
            changes_of_all_processes_are_told
            due_are_living_pairs_oldest_first_and_claimed_once
            a_listing_pages_through_pairs_and_notes_in_order
            the_first_canary_stands_until_it_is_replaced
            a_login_counts_from_when_it_was_answered
            a_slot_that_is_given_back_is_free_for_every_process
            a_record_is_resealed_only_while_it_is_the_one_that_was_read
            rejected_strangers_are_dropped_once_they_may_try_again
            a_store_is_writable
            a_guard_is_written_by_who_knows_what_stands_there
            of_writes_of_a_guard_at_once_exactly_one_wins
        }
    };
}
pub(crate) use contract;

const SECOND: Duration = Duration::from_secs(1);
/// A ttl that no test outlives.
const LONG: Duration = Duration::from_secs(600);

/// A store of the embedded engine in `directory`, for tests of what uses a store.
pub(crate) fn open_in(directory: &Path, run: RunId, clock: Clock) -> Arc<dyn Store> {
    Arc::new(sqlite::open(directory, run, clock).expect("the directory is the test's own"))
}

/// A process that did not run before.
pub(crate) fn run() -> RunId {
    RunId(Uuid::new_v4())
}

/// The user number `n`; the order of numbers is the order of principals.
pub(crate) fn user(n: u64) -> Principal {
    Principal::User(DeviceToken::parse(&Uuid::from_u64_pair(0, n).to_string()).unwrap())
}

/// A record that differs from those of other numbers in every field.
pub(crate) fn record(n: u8) -> Record {
    let instance = Uuid::from_u64_pair(1, n.into()).to_string();
    Record {
        instance: Some(InstanceId::parse(&instance).unwrap()),
        known: true,
        sealed: vec![n; 900],
        key: KeyId([n; 4]),
        received: at(n.into()),
        expires: at(i64::from(n) + 100),
        run: RunId(Uuid::from_u64_pair(2, n.into())),
    }
}

/// What a commit compares.
pub(crate) fn over(generation: u64, epoch: u64) -> Version {
    Version {
        generation: Generation(generation),
        epoch,
    }
}

/// A lease id that stands for the process number `n`.
pub(crate) fn id(n: u64) -> LeaseId {
    LeaseId(Uuid::from_u64_pair(3, n))
}

/// What [`lease_of`] returns for a lease that somebody else holds.
pub(crate) const HELD: Lease = Lease::Held {
    left: Duration::ZERO,
};

/// Takes a lease, whatever the entry; how long a held one lasts is left out.
pub(crate) async fn lease_of(
    store: &impl Store,
    principal: &Principal,
    id: LeaseId,
    ttl: Duration,
) -> Result<Lease, Error> {
    let (lease, _) = store.lease(principal, id, ttl).await?;
    Ok(match lease {
        Lease::Held { left } => {
            assert!(!left.is_zero(), "it is held");
            HELD
        }
        granted => granted,
    })
}

/// The principals of a page.
pub(crate) fn principals(page: Page) -> Vec<Principal> {
    let all = page.entries.into_iter();
    all.map(|(principal, _)| principal).collect()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

/// Commits on top of nothing.
async fn first(store: &impl Store, principal: &Principal, record: Record) -> Generation {
    match store.commit(principal, record, over(0, 0), None).await {
        Ok(Commit::Committed(generation)) => generation,
        other => panic!("not committed: {other:?}"),
    }
}
