//! Login budgets: shared by processes, and kept across restarts.

use std::time::Duration;

use uuid::Uuid;

use super::{LONG, MINUTE, Medium, SECOND, run};
use crate::store::{Budgets, Class, Error, LoginWindow, LoginWindows, Slot, SlotId};

/// One window of an hour.
pub(super) fn windows(group: &str, logins: u32) -> LoginWindows {
    LoginWindows {
        group: group.into(),
        windows: vec![LoginWindow {
            logins,
            per: MINUTE * 60,
        }],
        reserve: 1,
    }
}

pub(super) fn slot() -> SlotId {
    SlotId(Uuid::new_v4())
}

/// Whether this is what is left of a span: the clock of some media runs on while a test looks.
fn is_left(left: Duration, expected: Duration) -> bool {
    left <= expected && left + MINUTE / 2 >= expected
}

/// Whether the windows allow none for this long.
fn must_wait(slot: Result<Slot, Error>, expected: Duration) -> bool {
    match slot {
        Ok(Slot::Wait {
            left,
            blocked: false,
        }) => is_left(left, expected),
        _ => false,
    }
}

pub(crate) async fn processes_share_the_login_budget(medium: &impl Medium) {
    let stores = [medium.open(run()).await, medium.open(run()).await];
    let windows = windows("default", 5);
    let takes = (0..20).map(|n| stores[n % 2].take_login(slot(), Class::Known, &windows));
    let slots = futures_util::future::join_all(takes).await;
    let taken = slots
        .iter()
        .filter(|slot| **slot == Ok(Slot::Taken))
        .count();
    assert_eq!(taken, 5);
    let reopened = medium.open(run()).await;
    medium.pass(MINUTE).await;
    let take = async |id| reopened.take_login(id, Class::Known, &windows).await;
    let full = take(slot()).await;
    assert!(must_wait(full.clone(), MINUTE * 59), "{full:?}");
    medium.pass(MINUTE * 59).await;
    assert_eq!(take(slot()).await, Ok(Slot::Taken));
    let budget = stores[0].login_budget(&windows).await.unwrap();
    assert_eq!((budget.remaining, budget.windows[0].used), (4, 1));
}

pub(crate) async fn a_block_outlives_the_process_and_is_never_shortened(medium: &impl Medium) {
    let windows = windows("default", 4);
    let one = medium.open(run()).await;
    one.block_logins("default", MINUTE * 50, Some(MINUTE * 90))
        .await
        .unwrap();
    medium.close(one).await;
    let other = medium.open(run()).await;
    other
        .block_logins("default", MINUTE * 40, Some(MINUTE * 80))
        .await
        .unwrap();
    medium.pass(MINUTE * 45).await;
    let blocked = other.take_login(slot(), Class::Known, &windows).await;
    let Ok(Slot::Wait {
        left,
        blocked: true,
    }) = blocked
    else {
        panic!("not blocked: {blocked:?}")
    };
    assert!(is_left(left, MINUTE * 5), "{left:?}");
    let budget = other.login_budget(&windows).await.unwrap();
    assert_eq!(budget.remaining, 0);
    for left in [budget.blocked, budget.next_known, budget.next_new] {
        assert!(is_left(left, MINUTE * 5), "{budget:?}");
    }
    assert!(is_left(budget.halved, MINUTE * 45), "{budget:?}");
    medium.pass(MINUTE * 5).await;
    let halved = other.login_budget(&windows).await.unwrap();
    assert_eq!((halved.remaining, halved.blocked), (2, Duration::ZERO));
}

pub(crate) async fn a_block_is_lifted_on_demand_and_the_halving_stays(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    assert_eq!(one.unblock_logins("default").await, Ok(false));
    one.block_logins("default", MINUTE * 50, Some(MINUTE * 90))
        .await
        .unwrap();
    assert_eq!(other.unblock_logins("default").await, Ok(true));
    assert_eq!(one.unblock_logins("default").await, Ok(false));
    let budget = one.login_budget(&windows("default", 4)).await.unwrap();
    assert_eq!(budget.blocked, Duration::ZERO);
    assert!(is_left(budget.halved, MINUTE * 90), "{budget:?}");
    assert_eq!(
        (budget.windows[0].limit, budget.next_known),
        (2, Duration::ZERO)
    );
}

pub(crate) async fn groups_do_not_share_slots(medium: &impl Medium) {
    let store = medium.open(run()).await;
    for group in ["a", "b"] {
        let taken = store
            .take_login(slot(), Class::Known, &windows(group, 1))
            .await;
        assert_eq!(taken, Ok(Slot::Taken));
    }
}

pub(crate) async fn a_login_counts_from_when_it_was_answered(medium: &impl Medium) {
    let one = medium.open(run()).await;
    let windows = LoginWindows {
        reserve: 0,
        ..windows("default", 1)
    };
    let take = async |id| one.take_login(id, Class::Known, &windows).await;
    let first = slot();
    assert_eq!(take(first).await, Ok(Slot::Taken));
    medium.pass(MINUTE * 7).await;
    one.end_login("default", first).await.unwrap();
    medium.pass(MINUTE * 53).await;
    let full = take(slot()).await;
    assert!(must_wait(full.clone(), MINUTE * 7), "{full:?}");
    medium.pass(MINUTE * 7).await;
    assert_eq!(take(slot()).await, Ok(Slot::Taken));
}

pub(crate) async fn a_slot_that_is_given_back_is_free_for_every_process(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    let windows = LoginWindows {
        reserve: 0,
        ..windows("default", 2)
    };
    let (kept, given_back) = (slot(), slot());
    for id in [kept, given_back] {
        let taken = one.take_login(id, Class::Known, &windows).await;
        assert_eq!(taken, Ok(Slot::Taken));
        medium.pass(MINUTE).await;
    }
    let take = async |id| other.take_login(id, Class::New, &windows).await;
    assert!(must_wait(take(slot()).await, MINUTE * 58));
    // Of another group, or of nobody, it is none of these.
    one.give_login_back("another", kept).await.unwrap();
    one.give_login_back("default", slot()).await.unwrap();
    assert!(must_wait(take(slot()).await, MINUTE * 58));
    one.give_login_back("default", given_back).await.unwrap();
    medium.close(one).await;
    let budget = other.login_budget(&windows).await.unwrap();
    assert_eq!((budget.remaining, budget.windows[0].used), (1, 1));
    let again = slot();
    assert_eq!(take(again).await, Ok(Slot::Taken));
    // A repetition of the first takes nothing from the process that has it since.
    other.give_login_back("default", given_back).await.unwrap();
    assert!(must_wait(take(slot()).await, MINUTE * 58));
    other.give_login_back("default", again).await.unwrap();
    assert_eq!(take(slot()).await, Ok(Slot::Taken));
}

pub(crate) async fn every_write_of_a_budget_can_be_repeated(medium: &impl Medium) {
    let (one, other) = (medium.open(run()).await, medium.open(run()).await);
    let windows = windows("default", 2);
    let used = async || {
        let budget = other.login_budget(&windows).await.unwrap();
        (budget.remaining, budget.windows[0].used)
    };
    let (first, second) = (slot(), slot());
    // A repetition finds its slot, though no other is free by then.
    for id in [first, first, second, second, first] {
        let taken = one.take_login(id, Class::Known, &windows).await;
        assert_eq!(taken, Ok(Slot::Taken));
    }
    assert_eq!(used().await, (0, 2));
    for _repeated in 0..2 {
        one.end_login("default", first).await.unwrap();
        one.end_login("default", slot()).await.unwrap();
        one.end_login("another", first).await.unwrap();
    }
    assert_eq!(used().await, (0, 2));
    for _repeated in 0..2 {
        one.give_login_back("default", second).await.unwrap();
    }
    assert_eq!(used().await, (1, 1));
    for (pass, blocked) in [(0, 50), (10, 50)] {
        medium.pass(MINUTE * pass).await;
        one.block_logins("default", MINUTE * 50, None)
            .await
            .unwrap();
        let budget = other.login_budget(&windows).await.unwrap();
        assert!(is_left(budget.blocked, MINUTE * blocked), "{budget:?}");
    }
    assert_eq!(one.unblock_logins("default").await, Ok(true));
    assert_eq!(one.unblock_logins("default").await, Ok(false));
    assert_eq!(used().await, (1, 1));
}

/// A budget is Damoov's, whose clock nobody scales.
pub(crate) async fn budgets_count_real_time_whatever_the_scale_of_a_clock(medium: &impl Medium) {
    const SCALE: u32 = 100_000;
    let scaled = medium.open_scaled(run(), SCALE).await;
    let real = medium.open_scaled(run(), 1).await;
    let windows = windows("default", 2);
    for _slot in 0..2 {
        let taken = scaled.take_login(slot(), Class::Known, &windows).await;
        assert_eq!(taken, Ok(Slot::Taken));
    }
    scaled
        .block_logins("blocked", LONG, Some(LONG))
        .await
        .unwrap();
    // A day and more on the scaled clock.
    tokio::time::sleep(SECOND).await;
    for store in [&scaled, &real] {
        let full = store.take_login(slot(), Class::Known, &windows).await;
        assert!(must_wait(full.clone(), MINUTE * 60), "{full:?}");
        let blocked = LoginWindows {
            group: "blocked".into(),
            ..windows.clone()
        };
        let budget = store.login_budget(&blocked).await.unwrap();
        assert!(is_left(budget.blocked, LONG), "{budget:?}");
        assert!(is_left(budget.halved, LONG), "{budget:?}");
    }
}
