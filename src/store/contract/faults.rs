//! Faults of the medium while it is used: what is repeated until it is answered was done once.

use std::collections::HashSet;
use std::time::Duration;

use super::{
    Fault, LONG, Medium, SECOND, SOON, all, at, first, id, over, record, run, slot, user, windows,
};
use crate::principal::Principal;
use crate::store::{
    Budgets, Class, Commit, Day, Entry, Error, Generation, Guarded, KeyId, Lease, LeaseId, Note,
    Rejected, Resealed, Restored, Slot, Store,
};

/// How long a process waits before it repeats a call that was not answered.
const AGAIN: Duration = Duration::from_millis(50);

/// Repeats a call until the store answers it.
async fn answered<T>(mut call: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let answered = async {
        loop {
            match call().await {
                Err(Error::Away(_)) => tokio::time::sleep(AGAIN).await,
                answer => return answer.unwrap(),
            }
        }
    };
    let answered = tokio::time::timeout(SOON * 2, answered).await;
    answered.expect("the fault is undone")
}

pub(crate) async fn a_write_repeated_through_a_fault_is_done_once(medium: &impl Medium) {
    let (store, other) = (medium.open(run()).await, medium.open(run()).await);
    let mut claimed = HashSet::new();
    for (round, fault) in (1..).zip([Fault::Cut, Fault::Pause, Fault::Restart]) {
        let forgotten = user(round * 1_000);
        first(&store, &forgotten, record(1)).await;
        let writes = (0..10).map(|n| writes(&store, round * 1_000 + n * 10));
        let writes = futures_util::future::join_all(writes);
        let (_, claims) = tokio::join!(medium.suffer(fault), writes);
        for principal in claims.into_iter().flatten() {
            let name = principal.to_string();
            assert!(claimed.insert(principal), "{name} is claimed twice");
        }
        answered(async || other.count().await).await;
    }
    let budget = answered(async || other.login_budget(&windows("default", 1_000)).await).await;
    assert_eq!(budget.windows[0].used, 30);
    for (principal, entry) in all(&other).await {
        assert!(entry.generation <= Generation(1), "{principal}: {entry:?}");
        assert!(entry.epoch <= 1, "{principal}: {entry:?}");
    }
}

/// One write of each kind, for users and names that nobody else uses. Returns whose pairs were claimed.
async fn writes(store: &impl Store, n: u64) -> Vec<Principal> {
    let [committed, noted, forgotten, restored, rejected] =
        [1, 2, 3, 4, 5].map(|part| user(n + part));
    let note = Note::Rejected(Rejected {
        until: at(50),
        with: [7; 8],
    });
    answered(async || store.note(&rejected, note).await).await;

    let lease = async || store.lease(&committed, id(n), LONG).await;
    let (lease, _) = answered(lease).await;
    assert_eq!(lease, Lease::Granted { orphaned: false });
    assert!(answered(async || store.extend(&committed, id(n), LONG).await).await);
    let commit = async || {
        store
            .commit(&committed, record(1), over(0, 0), Some(id(n)))
            .await
    };
    assert_eq!(answered(commit).await, Commit::Committed(Generation(1)));
    let entry = answered(async || store.load(&committed).await).await;
    assert_eq!(entry.record, Some(record(1)));

    answered(async || store.note(&noted, Note::Displaced(at(1))).await).await;
    let entry = answered(async || store.load(&noted).await).await;
    assert_eq!(entry.notes.displaced, Some(at(1)));

    let commit = async || store.commit(&forgotten, record(1), over(0, 0), None).await;
    assert_eq!(answered(commit).await, Commit::Committed(Generation(1)));
    // After a repetition there was nothing to drop any more.
    answered(async || store.forget(&forgotten).await).await;
    let entry = answered(async || store.load(&forgotten).await).await;
    assert_eq!(entry.version(), over(1, 1));

    let whole = Entry {
        generation: Generation(1),
        record: Some(record(1)),
        ..Entry::default()
    };
    let restore = async || store.restore(vec![(restored.clone(), whole.clone())]).await;
    let answers = answered(restore).await;
    assert!(matches!(answers[..], [Restored::Written | Restored::Kept]));
    assert_eq!(answered(async || store.load(&restored).await).await, whole);
    reseal(store, &restored).await;
    let mark = async || store.mark_used(vec![(restored.clone(), Day(1))]).await;
    answered(mark).await;
    assert_eq!(answered(mark).await, 0);
    release(store, &user(n + 6), [id(n + 1), id(n + 2)]).await;

    let windows = windows("default", 1_000);
    let (kept, given_back) = (slot(), slot());
    for id in [kept, given_back] {
        let take = async || store.take_login(id, Class::Known, &windows).await;
        assert_eq!(answered(take).await, Slot::Taken);
    }
    answered(async || store.end_login("default", kept).await).await;
    answered(async || store.give_login_back("default", given_back).await).await;
    let group = format!("group {n}");
    answered(async || store.block_logins(&group, SECOND * 500, None).await).await;
    answered(async || store.unblock_logins(&group).await).await;

    let guard = format!("guard {n}");
    for version in 0..3 {
        let value = vec![u8::try_from(version).unwrap()];
        let set = async || store.set_guard(&guard, version, value.clone()).await;
        assert_eq!(answered(set).await, Guarded::Set(version + 1));
    }

    let canary = b"canary".to_vec();
    let leave = async || store.leave_canary(canary.clone()).await;
    assert_eq!(answered(leave).await, canary);
    let replace = async || store.replace_canary(canary.clone(), canary.clone()).await;
    assert!(answered(replace).await);

    // Any of these calls drops those of the others.
    answered(async || store.drop_rejected(at(50), at(100), 1_000).await).await;
    let entry = answered(async || store.load(&rejected).await).await;
    assert_eq!(entry, Entry::default());
    answered(async || store.claim_due(at(2), 1_000, LONG).await).await
}

/// Seals the record number 1 anew.
async fn reseal(store: &impl Store, principal: &Principal) {
    let anew = Resealed {
        principal: principal.clone(),
        before: record(1).sealed,
        sealed: vec![2; 901],
        key: KeyId([9; 4]),
    };
    let replaced = answered(async || store.reseal(vec![anew.clone()]).await).await;
    assert!(replaced <= 1, "{replaced}");
    let entry = answered(async || store.load(principal).await).await;
    let record = entry.record.expect("it was restored");
    assert_eq!((record.sealed, record.key), (anew.sealed, anew.key));
}

/// Releases the first lease, which may take several attempts, and takes the second.
async fn release(store: &impl Store, principal: &Principal, [before, after]: [LeaseId; 2]) {
    let (lease, _) = answered(async || store.lease(principal, before, LONG).await).await;
    assert_eq!(lease, Lease::Granted { orphaned: false });
    let taken = async || {
        store.release(principal, before);
        match store.lease(principal, after, LONG).await? {
            (Lease::Held { .. }, _) => Err(Error::Away("its release was lost".to_owned())),
            (granted, _) => Ok(granted),
        }
    };
    assert_eq!(answered(taken).await, Lease::Granted { orphaned: false });
    store.release(principal, before);
    assert!(answered(async || store.extend(principal, after, LONG).await).await);
}
