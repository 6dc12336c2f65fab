//! What every engine must keep, as tests. An engine says how to open handles on one medium
//! ([`Medium`]) and calls [`contract!`]; each handle stands for a process of its own. The promises are
//! listed in the macro, and grouped in the files beside this one. Where engines may differ, a constant of
//! the medium says so.

mod budgets;
mod changes;
mod clock;
mod commits;
mod due;
mod entries;
mod faults;
mod guards;
mod histories;
mod leases;
mod listings;
mod restores;
mod tombstones;
mod uses;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub(crate) use self::budgets::*;
pub(crate) use self::changes::*;
pub(crate) use self::clock::*;
pub(crate) use self::commits::*;
pub(crate) use self::due::*;
pub(crate) use self::entries::*;
pub(crate) use self::faults::*;
pub(crate) use self::guards::*;
pub(crate) use self::histories::*;
pub(crate) use self::leases::*;
pub(crate) use self::listings::*;
pub(crate) use self::restores::*;
pub(crate) use self::tombstones::*;
pub(crate) use self::uses::*;
use super::{
    Commit, Entry, Error, Generation, KeyId, Lease, LeaseId, Listed, Page, Pseudonyms, Record,
    Rejected, RunId, Store, Version, sqlite,
};
use crate::clock::{Clock, Timestamp};
use crate::principal::{DeviceToken, InstanceId, Principal};

/// Where a store lives: empty at first, gone when dropped. Its handles write to it at once: what one of
/// them was told is done, the others see.
pub(crate) trait Medium: Sized {
    /// The engine.
    type Store: Store;

    /// How long a lease lasts whose end a test waits for.
    const TTL: Duration;
    /// Whether [`Store::changes`] tells of commits and notes, too. An engine that all processes share over a
    /// network need not: they are found at the lease.
    const TELLS_COMMITS: bool;
    /// By how much the clocks of two handles may differ: not at all on one machine, by the error of a
    /// measured offset where the clock is that of a server.
    const CLOCK_ERROR: Duration;

    /// One that nobody has used yet.
    async fn new() -> Self;

    /// One more handle on the same medium, as the process `run`.
    async fn open(&self, run: RunId) -> Self::Store;

    /// One more handle, as a process whose own clock runs `scale` times as fast.
    async fn open_scaled(&self, run: RunId, scale: u32) -> Self::Store;

    /// Closes a handle, and returns once its leases are given back.
    async fn close(&self, store: Self::Store) {
        drop(store);
    }

    /// Lets `time` pass for the login budgets, at once.
    async fn pass(&self, time: Duration);

    /// Does this to the medium, and undoes it soon. Returns once it is undone, or false if that cannot happen
    /// to this medium, as to files of the machine itself.
    async fn suffer(&self, _fault: Fault) -> bool {
        false
    }
}

/// What happens to a medium while its handles use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Calls reach it, but no answer leaves it: what it was asked may have been done.
    Cut,
    /// It stands still, and goes on where it stood.
    Pause,
    /// It is killed, and starts again.
    Restart,
}

/// One `#[tokio::test]` for each promise, on a medium of its own.
macro_rules! contract {
    ($medium:ty: $($promise:ident)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let medium = <$medium as $crate::store::contract::Medium>::new().await;
                $crate::store::contract::$promise(&medium).await;
            }
        )*
    };
    ($medium:ty) => {
        $crate::store::contract::contract! { $medium:
            nothing_is_known_of_a_new_principal
            every_note_is_remembered_and_a_commit_clears_those_about_the_old_pair
            a_note_that_is_repeated_changes_nothing_more
            a_rejected_login_ends_being_known
            where_a_user_was_registered_is_known_until_a_login_says_more
            a_forgotten_principal_keeps_its_generation_and_stays_forgotten
            a_record_is_resealed_only_while_it_is_the_one_that_was_read

            a_commit_is_there_for_every_process
            a_commit_on_an_old_generation_is_superseded_and_writes_nothing
            of_commits_at_once_exactly_one_wins
            a_repeated_commit_is_committed_again_while_its_record_stands
            a_commit_ends_its_lease_and_no_other

            an_entry_is_restored_whole_where_nothing_stands
            an_entry_is_restored_only_where_it_outranks_what_stands
            anything_is_restored_over_an_entry_that_holds_nothing
            a_restored_entry_gets_a_generation_that_no_process_knows
            a_principal_twice_in_one_restore_keeps_what_outranks
            a_commit_under_way_during_a_restore_is_superseded

            a_day_of_use_is_written_once_and_only_of_users_with_a_pair
            users_of_whom_no_day_is_known_count_from_today
            an_unused_pair_is_forgotten_as_every_other_one
            a_mark_of_the_last_moment_keeps_a_pair
            a_forgotten_users_days_are_forgotten_with_it
            a_day_of_a_pair_that_is_gone_does_not_stay

            only_one_process_holds_a_lease_and_a_release_frees_it
            a_lease_comes_with_the_entry_that_stands_once_it_is_taken
            a_lease_that_follows_a_commit_reads_what_it_wrote
            nobody_releases_the_lease_of_another
            a_late_release_frees_no_later_lease_of_the_same_process
            a_repeated_lease_lasts_from_its_repetition
            a_held_lease_says_how_long_it_still_lasts
            a_lease_is_extended_by_who_holds_it
            a_lease_that_was_lost_is_not_extended
            a_lease_that_ran_out_is_orphaned_once
            a_commit_after_its_lease_was_lost_is_accepted
            the_leases_of_a_closed_process_are_orphaned_at_once
            the_lease_of_a_stopped_process_ends_with_its_ttl
            the_holder_of_a_lease_is_told_to_everybody

            processes_share_the_login_budget
            a_block_outlives_the_process_and_is_never_shortened
            a_block_is_lifted_on_demand_and_the_halving_stays
            groups_do_not_share_slots
            a_login_counts_from_when_it_was_answered
            a_slot_that_is_given_back_is_free_for_every_process
            every_write_of_a_budget_can_be_repeated
            budgets_count_real_time_whatever_the_scale_of_a_clock

            changes_of_all_processes_are_told
            a_new_receiver_of_changes_ends_the_stream_of_the_one_before

            due_are_living_pairs_oldest_first_and_claimed_once
            no_two_processes_claim_the_same_pair
            a_claim_is_over_after_its_hold

            a_listing_pages_through_pairs_and_notes_in_order
            what_is_forgotten_leaves_no_name_but_a_tombstone_that_all_find
            a_tombstone_of_another_store_is_only_ever_raised
            a_login_of_who_was_forgotten_stands_on_the_tombstone
            a_commit_stands_on_the_higher_version_of_notes_and_tombstone
            a_pair_that_a_tombstone_ended_goes_once_its_name_is_said
            a_rejected_login_of_who_was_forgotten_is_dropped_like_a_strangers
            what_is_said_of_a_pair_is_nothing_to_who_has_none
            rejected_strangers_are_dropped_once_they_may_try_again

            the_first_canary_stands_until_it_is_replaced
            a_store_is_writable
            a_guard_is_written_by_who_knows_what_stands_there
            a_repeated_write_of_a_guard_is_done_once
            of_writes_of_a_guard_at_once_exactly_one_wins

            the_clock_never_goes_back_and_is_every_handles
            a_write_repeated_through_a_fault_is_done_once
            random_histories_are_those_of_one_store
        }
    };
}
pub(crate) use contract;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// A ttl that no test outlives.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// Within this time everything happens that is to happen, on a busy machine, too.
const SOON: Duration = Duration::from_secs(20);

/// A store of the embedded engine in `directory`, for tests of what uses a store.
pub(crate) fn open_in(
    directory: &Path,
    pseudonyms: Pseudonyms,
    run: RunId,
    clock: Clock,
) -> Arc<dyn Store> {
    let opened = sqlite::open(directory, pseudonyms, run, clock);
    Arc::new(opened.expect("the directory is the test's own"))
}

/// What the forgotten are called.
pub(crate) fn pseudonyms() -> Pseudonyms {
    Pseudonyms::new(&[7; 32], [])
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

/// Asks for a lease until it is granted, as often as the answers say.
pub(crate) async fn lease_once_free(
    store: &impl Store,
    principal: &Principal,
    id: LeaseId,
    ttl: Duration,
) -> Lease {
    let granted = async {
        loop {
            let (lease, _) = store.lease(principal, id, ttl).await.unwrap();
            match lease {
                Lease::Held { left } => tokio::time::sleep(left).await,
                granted => return granted,
            }
        }
    };
    let granted = tokio::time::timeout(SOON, granted).await;
    granted.expect("the lease ends")
}

/// Releases, and returns once that has taken effect: before any later lease of the same handle.
pub(crate) async fn release(store: &impl Store, principal: &Principal, id: LeaseId) {
    store.release(principal, id);
    let nobody = user(1_000_000);
    lease_of(store, &nobody, id, LONG).await.unwrap();
    store.release(&nobody, id);
}

/// Everything that stands under a name.
pub(crate) async fn all(store: &impl Store) -> Vec<(Principal, Entry)> {
    let page = store.list(Listed::All, None, 1_000).await.unwrap();
    assert_eq!(page.next, None);
    page.entries
}

/// How often a test repeats what it repeats: `once` in `tests/run`, `long` in `tests/run long`.
pub(crate) fn rounds(once: u64, long: u64) -> u64 {
    match std::env::var("DAMOOV_PROXY_TESTS").as_deref() {
        Ok("long") => long,
        _ => once,
    }
}

/// The principals of a page.
pub(crate) fn principals(page: Page) -> Vec<Principal> {
    let all = page.entries.into_iter();
    all.map(|(principal, _)| principal).collect()
}

/// A login that was rejected, and may be tried again at second 50.
fn rejected() -> Rejected {
    Rejected {
        until: at(50),
        with: [7; 8],
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

/// Commits on top of nothing.
pub(crate) async fn first(store: &impl Store, principal: &Principal, record: Record) -> Generation {
    match store.commit(principal, record, over(0, 0), None).await {
        Ok(Commit::Committed(generation)) => generation,
        other => panic!("not committed: {other:?}"),
    }
}
