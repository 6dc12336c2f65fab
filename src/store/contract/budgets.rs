//! Login budgets: shared by processes, and kept across restarts.

use std::time::Duration;

use uuid::Uuid;

use super::{Medium, SECOND, run};
use crate::clock::Stamp;
use crate::store::{Budgets, Class, Error, LoginWindow, LoginWindows, Slot, SlotId};

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
    // A repetition of the first takes nothing from the process that has it since.
    other.give_login_back("default", given_back).await.unwrap();
    assert_eq!(take(slot()).await, wait(SECOND * 58));
    other.give_login_back("default", again).await.unwrap();
    assert_eq!(take(slot()).await, Ok(Slot::Taken));
}
