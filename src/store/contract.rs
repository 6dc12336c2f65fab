//! What every engine must keep, as tests. An engine says how to open handles on one medium
//! ([`Medium`]) and calls [`contract!`]; each handle stands for a process of its own.

use std::time::Duration;

use uuid::Uuid;

use super::{
    Change, Class, Commit, Entry, Error, Generation, Guard, Guarded, KeyId, Lease, LoginWindow,
    LoginWindows, Note, Notes, Record, Rejected, Resealed, RunId, Slot, SlotId, Store,
};
use crate::clock::{Clock, Stamp, Timestamp};
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
            due_are_living_pairs_oldest_first
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

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn granted(orphaned: bool) -> Result<Lease, Error> {
    Ok(Lease::Granted { orphaned })
}

fn windows(group: &str, logins: u32) -> LoginWindows {
    LoginWindows {
        group: group.into(),
        windows: vec![LoginWindow {
            logins,
            per: Duration::from_secs(60),
        }],
        reserve: 1,
    }
}

/// Commits on top of nothing.
async fn first(store: &impl Store, principal: &Principal, record: Record) -> Generation {
    match store.commit(principal, record, Generation(0), 0).await {
        Ok(Commit::Committed(generation)) => generation,
        other => panic!("not committed: {other:?}"),
    }
}

pub(crate) async fn nothing_is_known_of_a_new_principal(medium: &impl Medium) {
    let store = medium.open(run());
    assert_eq!(store.load(&user(1)).await, Ok(Entry::default()));
    assert_eq!(store.count().await, Ok(0));
    assert_eq!(store.forget(&user(1)).await, Ok(false));
}

pub(crate) async fn a_commit_is_there_for_every_process(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    let account = Principal::Account("reporting".into());
    let of_account = Record {
        instance: None,
        ..record(2)
    };
    assert_eq!(first(&one, &user(1), record(1)).await, Generation(1));
    assert_eq!(
        first(&one, &account, of_account.clone()).await,
        Generation(1)
    );
    for (principal, record) in [(user(1), record(1)), (account, of_account)] {
        let expected = Entry {
            generation: Generation(1),
            record: Some(record),
            ..Entry::default()
        };
        assert_eq!(other.load(&principal).await, Ok(expected.clone()));
        let reopened = medium.open(run());
        assert_eq!(reopened.load(&principal).await, Ok(expected));
    }
    assert_eq!(other.count().await, Ok(2));
}

pub(crate) async fn a_commit_on_an_old_generation_is_superseded_and_writes_nothing(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    first(&one, &user(1), record(1)).await;
    let stands = one.load(&user(1)).await.unwrap();
    for (expected, epoch) in [(0, 0), (2, 0), (1, 1)] {
        let late = other
            .commit(&user(1), record(2), Generation(expected), epoch)
            .await;
        assert_eq!(late, Ok(Commit::Superseded(stands.clone())));
    }
    assert_eq!(other.load(&user(1)).await, Ok(stands));
    let ahead = other.commit(&user(2), record(2), Generation(1), 0).await;
    assert_eq!(ahead, Ok(Commit::Superseded(Entry::default())));
    assert_eq!(other.load(&user(2)).await, Ok(Entry::default()));
}

pub(crate) async fn of_commits_at_once_exactly_one_wins(medium: &impl Medium) {
    let stores = [medium.open(run()), medium.open(run())];
    let principal = user(1);
    let commits = (0..40u8).map(|n| {
        let store = &stores[usize::from(n) % stores.len()];
        store.commit(&principal, record(n), Generation(0), 0)
    });
    let answers = futures_util::future::join_all(commits).await;
    let won: Vec<_> = (0..40u8)
        .zip(answers)
        .filter(|(_, answer)| *answer == Ok(Commit::Committed(Generation(1))))
        .collect();
    assert_eq!(won.len(), 1, "{won:?}");
    let entry = stores[0].load(&principal).await.unwrap();
    assert_eq!(entry.record, Some(record(won[0].0)));
    assert_eq!(entry.generation, Generation(1));
}

pub(crate) async fn every_note_is_remembered_and_a_commit_clears_those_about_the_old_pair(
    medium: &impl Medium,
) {
    let (store, other) = (medium.open(run()), medium.open(run()));
    let rejected = Rejected {
        until: at(50),
        with: *b"a fprint",
    };
    for note in [
        Note::RefreshDead(Generation(0)),
        Note::AnswerLost(Generation(0)),
        Note::Rejected(rejected),
        Note::Displaced(at(60)),
        Note::ContestedUntil(at(70)),
    ] {
        assert_eq!(store.note(&user(1), note).await, Ok(()));
    }
    let mut notes = Notes {
        refresh_dead: Some(Generation(0)),
        answer_lost: Some(Generation(0)),
        rejected: Some(rejected),
        displaced: Some(at(60)),
        contested_until: Some(at(70)),
        registered_in: None,
    };
    assert_eq!(other.load(&user(1)).await.unwrap().notes, notes);
    store.note(&user(1), Note::RefreshAlive).await.unwrap();
    notes.refresh_dead = None;
    assert_eq!(other.load(&user(1)).await.unwrap().notes, notes);
    store
        .note(&user(1), Note::RefreshDead(Generation(0)))
        .await
        .unwrap();
    first(&other, &user(1), record(1)).await;
    let entry = store.load(&user(1)).await.unwrap();
    let outlived = Notes {
        displaced: Some(at(60)),
        contested_until: Some(at(70)),
        ..Notes::default()
    };
    assert_eq!((entry.generation, entry.epoch), (Generation(1), 0));
    assert_eq!(entry.notes, outlived);
}

pub(crate) async fn a_rejected_login_ends_being_known(medium: &impl Medium) {
    let store = medium.open(run());
    first(&store, &user(1), record(1)).await;
    let rejected = Rejected {
        until: at(50),
        with: [7; 8],
    };
    store
        .note(&user(1), Note::Rejected(rejected))
        .await
        .unwrap();
    let kept = store.load(&user(1)).await.unwrap().record.unwrap();
    assert!(!kept.known);
    assert_eq!(kept.sealed, record(1).sealed);
}

pub(crate) async fn where_a_user_was_registered_is_known_until_a_login_says_more(
    medium: &impl Medium,
) {
    let (store, other) = (medium.open(run()), medium.open(run()));
    let [here, elsewhere] = [1, 2].map(|n| InstanceId::parse(&format!("{n:032x}")).unwrap());
    let known = async |number| other.load(&user(number)).await.unwrap().known_instance();
    for number in 1..=3 {
        let note = Note::RegisteredIn(here);
        store.note(&user(number), note).await.unwrap();
        assert_eq!(known(number).await, Some(here));
    }
    assert_eq!(store.count().await, Ok(0), "there is no pair");
    assert_eq!(store.list(None, 10).await.unwrap().len(), 3);

    let rejected = Rejected {
        until: at(50),
        with: [7; 8],
    };
    store
        .note(&user(1), Note::Rejected(rejected))
        .await
        .unwrap();
    assert_eq!(known(1).await, None);
    assert_eq!(store.forget(&user(2)).await, Ok(true));
    assert_eq!(known(2).await, None);
    let record = Record {
        instance: Some(elsewhere),
        ..record(3)
    };
    first(&store, &user(3), record).await;
    store
        .note(&user(3), Note::RegisteredIn(here))
        .await
        .unwrap();
    assert_eq!(known(3).await, Some(elsewhere), "the pair's counts");
}

pub(crate) async fn a_forgotten_principal_keeps_its_generation_and_stays_forgotten(
    medium: &impl Medium,
) {
    let (store, other) = (medium.open(run()), medium.open(run()));
    first(&store, &user(1), record(1)).await;
    store.note(&user(1), Note::Displaced(at(1))).await.unwrap();
    assert_eq!(other.forget(&user(1)).await, Ok(true));
    assert_eq!(other.forget(&user(1)).await, Ok(false));
    let tombstone = Entry {
        generation: Generation(1),
        epoch: 1,
        ..Entry::default()
    };
    assert_eq!(store.load(&user(1)).await, Ok(tombstone.clone()));
    assert_eq!(store.count().await, Ok(0));
    assert_eq!(store.list(None, 10).await, Ok(Vec::new()));
    let in_flight = store.commit(&user(1), record(2), Generation(1), 0).await;
    assert_eq!(in_flight, Ok(Commit::Superseded(tombstone)));
    let anew = store.commit(&user(1), record(3), Generation(1), 1).await;
    assert_eq!(anew, Ok(Commit::Committed(Generation(2))));
}

pub(crate) async fn only_one_process_holds_a_lease_and_a_release_frees_it(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    assert_eq!(one.lease(&user(1), LONG).await, granted(false));
    assert_eq!(one.lease(&user(1), LONG).await, granted(false));
    assert_eq!(other.lease(&user(1), LONG).await, Ok(Lease::Held));
    assert_eq!(other.lease(&user(2), LONG).await, granted(false));
    release(&one, 1).await;
    assert_eq!(other.lease(&user(1), LONG).await, granted(false));
}

/// Releases, and returns once that has taken effect: before any later lease of the same handle.
async fn release(store: &impl Store, number: u64) {
    store.release(&user(number));
    store.lease(&user(1_000_000), LONG).await.unwrap();
    store.release(&user(1_000_000));
}

pub(crate) async fn a_lease_comes_with_the_entry_that_stands_once_it_is_taken(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    let taken = async |store, expected, generation| {
        let (lease, entry) = Store::lease_and_load(store, &user(1), LONG).await.unwrap();
        assert_eq!(
            (Ok(lease), entry.unwrap().generation),
            (expected, generation)
        );
    };
    taken(&one, granted(false), Generation(0)).await;
    first(&one, &user(1), record(1)).await;
    taken(&other, Ok(Lease::Held), Generation(1)).await;
    taken(&one, granted(false), Generation(1)).await;
    release(&one, 1).await;
    taken(&other, granted(false), Generation(1)).await;
    let next = other.commit(&user(1), record(2), Generation(1), 0).await;
    assert_eq!(next, Ok(Commit::Committed(Generation(2))));
    taken(&one, Ok(Lease::Held), Generation(2)).await;
}

pub(crate) async fn nobody_releases_the_lease_of_another(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    one.lease(&user(1), LONG).await.unwrap();
    release(&other, 1).await;
    assert_eq!(other.lease(&user(1), LONG).await, Ok(Lease::Held));
}

pub(crate) async fn a_lease_that_ran_out_is_granted_as_orphaned(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    one.lease(&user(1), Duration::ZERO).await.unwrap();
    assert_eq!(other.lease(&user(1), LONG).await, granted(true));
    assert_eq!(one.lease(&user(1), LONG).await, Ok(Lease::Held));
    release(&other, 1).await;
    assert_eq!(one.lease(&user(1), LONG).await, granted(false));
}

pub(crate) async fn the_leases_of_a_closed_process_are_orphaned_at_once(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    one.lease(&user(1), LONG).await.unwrap();
    one.lease(&user(2), LONG).await.unwrap();
    drop(one);
    assert_eq!(other.lease(&user(1), LONG).await, granted(true));
    // A process that starts later, and clears up behind the dead, finds it out as well.
    let later = medium.open(run());
    assert_eq!(later.lease(&user(2), LONG).await, granted(true));
    assert_eq!(later.lease(&user(1), LONG).await, Ok(Lease::Held));
}

/// Lets time pass on the clock of all handles.
fn pass(medium: &impl Medium, time: Duration) {
    let now = medium.clock().stamp();
    let millis = i64::try_from(time.as_millis()).unwrap();
    medium.clock().set(Stamp {
        since_boot: now.since_boot + millis,
        wall: now.wall.plus(time),
        ..now
    });
}

fn slot() -> SlotId {
    SlotId(Uuid::new_v4())
}

fn wait(left: Duration) -> Result<Slot, Error> {
    Ok(Slot::Wait {
        left,
        blocked: false,
    })
}

pub(crate) async fn processes_share_the_login_budget(medium: &impl Medium) {
    let stores = [medium.open(run()), medium.open(run())];
    let windows = windows("default", 5);
    let takes = (0..20).map(|n| stores[n % 2].take_login(slot(), Class::Known, &windows));
    let slots = futures_util::future::join_all(takes).await;
    let taken = slots
        .iter()
        .filter(|slot| **slot == Ok(Slot::Taken))
        .count();
    assert_eq!(taken, 5);
    let reopened = medium.open(run());
    pass(medium, SECOND);
    let take = async |id| reopened.take_login(id, Class::Known, &windows).await;
    assert_eq!(take(slot()).await, wait(SECOND * 59));
    // The wall clock is set forward and back: no slot is freed, and none lasts longer.
    let right = medium.clock().stamp();
    for wall in [
        right.wall.plus(SECOND * 9_000),
        right.wall.minus(SECOND * 9_000),
    ] {
        medium.clock().set(Stamp { wall, ..right });
        assert_eq!(take(slot()).await, wait(SECOND * 59));
    }
    pass(medium, SECOND * 59);
    let id = slot();
    for _repeated in 0..2 {
        assert_eq!(take(id).await, Ok(Slot::Taken));
    }
    let budget = stores[0].login_budget(&windows).await.unwrap();
    assert_eq!((budget.remaining, budget.windows[0].used), (4, 1));
}

pub(crate) async fn a_block_outlives_the_process_and_is_never_shortened(medium: &impl Medium) {
    let windows = windows("default", 4);
    let one = medium.open(run());
    one.block_logins("default", SECOND * 500, Some(SECOND * 900))
        .await
        .unwrap();
    drop(one);
    let other = medium.open(run());
    other
        .block_logins("default", SECOND * 400, None)
        .await
        .unwrap();
    pass(medium, SECOND * 450);
    let blocked = other.take_login(slot(), Class::Known, &windows).await;
    let left = SECOND * 50;
    assert_eq!(
        blocked,
        Ok(Slot::Wait {
            left,
            blocked: true
        })
    );
    let budget = other.login_budget(&windows).await.unwrap();
    assert_eq!((budget.remaining, budget.next_new), (0, left));
    assert_eq!((budget.blocked, budget.halved), (left, SECOND * 450));
    pass(medium, SECOND * 50);
    let halved = other.login_budget(&windows).await.unwrap();
    assert_eq!((halved.remaining, halved.blocked), (2, Duration::ZERO));
}

pub(crate) async fn a_block_is_lifted_on_demand_and_the_halving_stays(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    assert_eq!(one.unblock_logins("default").await, Ok(false));
    one.block_logins("default", SECOND * 500, Some(SECOND * 900))
        .await
        .unwrap();
    assert_eq!(other.unblock_logins("default").await, Ok(true));
    assert_eq!(one.unblock_logins("default").await, Ok(false));
    let budget = one.login_budget(&windows("default", 4)).await.unwrap();
    assert_eq!(
        (budget.blocked, budget.halved),
        (Duration::ZERO, SECOND * 900)
    );
    assert_eq!(
        (budget.windows[0].limit, budget.next_known),
        (2, Duration::ZERO)
    );
}

pub(crate) async fn groups_do_not_share_slots(medium: &impl Medium) {
    let store = medium.open(run());
    for group in ["a", "b"] {
        let taken = store
            .take_login(slot(), Class::Known, &windows(group, 1))
            .await;
        assert_eq!(taken, Ok(Slot::Taken));
    }
}

pub(crate) async fn changes_of_all_processes_are_told(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    first(&one, &user(9), record(1)).await;
    let mut changes = one.changes();
    let mut next_of = async |principal: Principal| {
        let told = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                // Repeats, and what happened just before, are permitted.
                match changes.recv().await.expect("the store is open") {
                    change if change.principal == principal => return change,
                    _ => {}
                }
            }
        });
        told.await.expect("a change is told within a second")
    };
    let change = |principal, generation, epoch| Change {
        principal,
        generation: Generation(generation),
        epoch,
    };
    first(&one, &user(1), record(1)).await;
    assert_eq!(next_of(user(1)).await, change(user(1), 1, 0));
    first(&other, &user(2), record(1)).await;
    assert_eq!(next_of(user(2)).await, change(user(2), 1, 0));
    other.forget(&user(1)).await.unwrap();
    assert_eq!(next_of(user(1)).await, change(user(1), 1, 1));
    other.note(&user(3), Note::Displaced(at(1))).await.unwrap();
    assert_eq!(next_of(user(3)).await, change(user(3), 0, 0));
}

pub(crate) async fn due_are_living_pairs_oldest_first(medium: &impl Medium) {
    let store = medium.open(run());
    for n in [5, 3, 1, 4, 2, 6] {
        first(&store, &user(n.into()), record(n)).await;
    }
    let dead = |n, generation| {
        let note = Note::RefreshDead(Generation(generation));
        let (store, user) = (&store, user(n));
        async move { store.note(&user, note).await.unwrap() }
    };
    dead(2, 1).await;
    dead(3, 0).await; // Of a pair that is no more.
    store.forget(&user(4)).await.unwrap();
    store.note(&user(7), Note::Displaced(at(1))).await.unwrap();
    let due = store.due(at(6), 0, 10).await;
    assert_eq!(due, Ok(vec![user(1), user(3), user(5)]));
    assert_eq!(store.due(at(6), 0, 2).await, Ok(vec![user(1), user(3)]));
    assert_eq!(store.due(at(6), 2, 2).await, Ok(vec![user(5)]));
    assert_eq!(store.due(at(6), 3, 2).await, Ok(vec![]));
    assert_eq!(store.count().await, Ok(5));
}

pub(crate) async fn a_listing_pages_through_pairs_and_notes_in_order(medium: &impl Medium) {
    let store = medium.open(run());
    let account = |name: &str| Principal::Account(name.into());
    let expected = vec![user(1), user(2), user(3), account("a"), account("b")];
    for principal in expected.iter().rev().filter(|p| **p != user(2)) {
        first(&store, principal, record(1)).await;
    }
    store.note(&user(2), Note::Displaced(at(1))).await.unwrap();
    for size in 1..=expected.len() + 1 {
        let mut listed: Vec<Principal> = Vec::new();
        loop {
            let page = store.list(listed.last(), size).await.unwrap();
            assert!(page.len() <= size);
            if page.is_empty() {
                break;
            }
            for (principal, entry) in page {
                assert_eq!(store.load(&principal).await, Ok(entry));
                listed.push(principal);
            }
        }
        assert_eq!(listed, expected);
    }
    assert!(
        expected.is_sorted(),
        "the expected order is the principals'"
    );
}

pub(crate) async fn the_first_canary_stands_until_it_is_replaced(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    assert_eq!(one.canary(b"one".to_vec()).await, Ok(b"one".to_vec()));
    assert_eq!(other.canary(b"other".to_vec()).await, Ok(b"one".to_vec()));
    other.replace_canary(b"new".to_vec()).await.unwrap();
    assert_eq!(one.canary(b"one".to_vec()).await, Ok(b"new".to_vec()));
}

pub(crate) async fn a_login_counts_from_when_it_was_answered(medium: &impl Medium) {
    let one = medium.open(run());
    let windows = LoginWindows {
        reserve: 0,
        ..windows("default", 1)
    };
    let take = async |id| one.take_login(id, Class::Known, &windows).await;
    let first = slot();
    assert_eq!(take(first).await, Ok(Slot::Taken));
    pass(medium, SECOND * 7);
    one.end_login("default", first).await.unwrap();
    pass(medium, SECOND * 53);
    assert_eq!(take(slot()).await, wait(SECOND * 7));
    pass(medium, SECOND * 7);
    assert_eq!(take(slot()).await, Ok(Slot::Taken));
}

pub(crate) async fn a_slot_that_is_given_back_is_free_for_every_process(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    let windows = LoginWindows {
        reserve: 0,
        ..windows("default", 2)
    };
    let (kept, given_back) = (slot(), slot());
    for id in [kept, given_back] {
        let taken = one.take_login(id, Class::Known, &windows).await;
        assert_eq!(taken, Ok(Slot::Taken));
        pass(medium, SECOND);
    }
    let take = async |id| other.take_login(id, Class::New, &windows).await;
    assert_eq!(take(slot()).await, wait(SECOND * 58));
    // Of another group, or of nobody, it is none of these.
    one.give_login_back("another", kept).await.unwrap();
    one.give_login_back("default", slot()).await.unwrap();
    assert_eq!(take(slot()).await, wait(SECOND * 58));
    one.give_login_back("default", given_back).await.unwrap();
    drop(one);
    let budget = other.login_budget(&windows).await.unwrap();
    assert_eq!((budget.remaining, budget.windows[0].used), (1, 1));
    let again = slot();
    assert_eq!(take(again).await, Ok(Slot::Taken));
    // A repetition of the first takes nothing from who has it since.
    other.give_login_back("default", given_back).await.unwrap();
    assert_eq!(take(slot()).await, wait(SECOND * 58));
    other.give_login_back("default", again).await.unwrap();
    assert_eq!(take(slot()).await, Ok(Slot::Taken));
}

pub(crate) async fn a_record_is_resealed_only_while_it_is_the_one_that_was_read(
    medium: &impl Medium,
) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    for n in 1..=3 {
        first(&one, &user(n.into()), record(n)).await;
    }
    let keys = |mut keys: Vec<(KeyId, u64)>| {
        keys.sort_unstable();
        keys
    };
    let anew = |n: u8| Resealed {
        principal: user(n.into()),
        before: record(n).sealed,
        sealed: vec![n; 901],
        key: KeyId([9; 4]),
    };
    other.forget(&user(1)).await.unwrap();
    let newer = other.commit(&user(2), record(7), Generation(1), 0).await;
    assert_eq!(newer, Ok(Commit::Committed(Generation(2))));
    let before = one.load(&user(3)).await.unwrap();
    assert_eq!(one.reseal((1..=3).map(anew).collect()).await, Ok(1));
    assert_eq!(one.load(&user(1)).await.unwrap().record, None);
    let kept = one.load(&user(2)).await.unwrap().record;
    assert_eq!(kept, Some(record(7)));
    let after = Entry {
        record: Some(Record {
            sealed: vec![3; 901],
            key: KeyId([9; 4]),
            ..record(3)
        }),
        ..before
    };
    assert_eq!(other.load(&user(3)).await, Ok(after));
    let needed = vec![(KeyId([7; 4]), 1), (KeyId([9; 4]), 1)];
    assert_eq!(other.keys().await.map(keys), Ok(needed));
}

pub(crate) async fn rejected_strangers_are_dropped_once_they_may_try_again(medium: &impl Medium) {
    let store = medium.open(run());
    let reject = async |n, until| {
        let with = [7; 8];
        let note = Note::Rejected(Rejected { until, with });
        store.note(&user(n), note).await.unwrap();
    };
    for n in 1..=5 {
        reject(n, at(50)).await;
    }
    reject(6, at(60)).await;
    reject(7, at(9_000)).await; // A clock was ahead.
    first(&store, &user(8), record(8)).await;
    reject(8, at(50)).await;
    reject(9, at(50)).await;
    store.note(&user(9), Note::Displaced(at(1))).await.unwrap();
    reject(10, at(50)).await;
    store.forget(&user(10)).await.unwrap();
    reject(10, at(50)).await;
    let dropped = async |limit| store.drop_rejected(at(50), at(100), limit).await;
    assert_eq!(dropped(4).await, Ok(4));
    assert_eq!(dropped(4).await, Ok(2));
    assert_eq!(dropped(4).await, Ok(0));
    let listed = store.list(None, 20).await.unwrap();
    let left: Vec<_> = listed.into_iter().map(|(principal, _)| principal).collect();
    assert_eq!(left, [6, 8, 9, 10].map(user));
    assert_eq!(store.load(&user(10)).await.unwrap().epoch, 1);
    assert_eq!(store.load(&user(1)).await, Ok(Entry::default()));
    assert_eq!(first(&store, &user(1), record(1)).await, Generation(1));
    // What came last is told before it goes: its number is not given twice.
    let (one, other) = (medium.open(run()), medium.open(run()));
    let mut changes = one.changes();
    reject(11, at(50)).await;
    let mut next = async || {
        let told = tokio::time::timeout(Duration::from_secs(5), changes.recv());
        told.await.unwrap().unwrap().principal
    };
    while next().await != user(11) {}
    assert_eq!(other.drop_rejected(at(50), at(100), 4).await, Ok(0));
    reject(12, at(50)).await;
    assert_eq!(other.drop_rejected(at(50), at(100), 4).await, Ok(1));
    while next().await != user(12) {}
}

pub(crate) async fn a_store_is_writable(medium: &impl Medium) {
    assert_eq!(medium.open(run()).writable(), Ok(()));
}

pub(crate) async fn a_guard_is_written_by_who_knows_what_stands_there(medium: &impl Medium) {
    let (one, other) = (medium.open(run()), medium.open(run()));
    assert_eq!(one.guard("a").await, Ok(Guard::default()));
    let set = one.set_guard("a", 0, b"first".to_vec()).await;
    assert_eq!(set, Ok(Guarded::Set(1)));
    let stands = Guard {
        version: 1,
        value: b"first".to_vec(),
    };
    assert_eq!(other.guard("a").await, Ok(stands.clone()));
    assert_eq!(other.guard("b").await, Ok(Guard::default()));
    for stale in [0, 2] {
        let late = other.set_guard("a", stale, b"late".to_vec()).await;
        assert_eq!(late, Ok(Guarded::Superseded(stands.clone())));
    }
    assert_eq!(
        other.set_guard("a", 1, Vec::new()).await,
        Ok(Guarded::Set(2))
    );
    drop((one, other));
    let reopened = medium.open(run());
    let stands = Guard {
        version: 2,
        value: Vec::new(),
    };
    assert_eq!(reopened.guard("a").await, Ok(stands));
}

pub(crate) async fn of_writes_of_a_guard_at_once_exactly_one_wins(medium: &impl Medium) {
    let stores = [medium.open(run()), medium.open(run())];
    let writes = (0..20u8).map(|n| stores[usize::from(n) % 2].set_guard("a", 0, vec![n]));
    let answers = futures_util::future::join_all(writes).await;
    let won: Vec<_> = (0..20u8)
        .zip(answers)
        .filter(|(_, answer)| *answer == Ok(Guarded::Set(1)))
        .collect();
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(stores[0].guard("a").await.unwrap().value, vec![won[0].0]);
}
