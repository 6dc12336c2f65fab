//! Days pass at once here: the tests say which one it is.

use std::sync::Arc;

use super::*;
use crate::credentials::MayLogIn;
use crate::credentials::fixture::{Api, Faulty, Medium, Process, settings, user};
use crate::store::contract::{over, record};
use crate::store::{Store, Uses};

/// Two days.
const AFTER: Duration = Duration::from_secs(2 * DAY);

/// A process that forgets after two days, or never, and lets as many users log in as come.
fn start(medium: &Medium, api: &Api, after: Option<Duration>) -> (Process, Arc<Faulty>) {
    let mut settings = settings();
    settings.forget_unused = after;
    settings.budget.windows[0].logins = 100;
    medium.start_faulty(api, settings)
}

impl Days {
    /// A round on that day, when all processes have written what was named on the day before.
    async fn pass(&mut self, process: &Process, day: i32) {
        let engine = &process.provider.engine;
        engine.vault.cache.named.begin(Day(day));
        self.round(engine, Day(day), SETTLED).await.unwrap();
    }
}

async fn is_kept(store: &dyn Store, number: u32) -> bool {
    store.load(&user(number)).await.unwrap().record.is_some()
}

async fn stands(process: &Process) -> Counted {
    let row = process.store.guard(ROW).await.unwrap();
    serde_json::from_slice(&row.value).unwrap()
}

#[tokio::test]
async fn a_user_that_nobody_names_is_forgotten_and_the_others_stay() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store) = start(&medium, &api, Some(AFTER));
    let mut days = Days::default();
    process.provider.engine.vault.cache.named.begin(Day(100));
    for _ in 0..2 {
        process.get(user(1)).await.unwrap();
        process.get(user(2)).await.unwrap();
    }
    for day in 100..=104 {
        process.provider.engine.vault.cache.named.begin(Day(day));
        for _ in 0..3 {
            process.get(user(1)).await.unwrap();
            days.pass(&process, day).await;
        }
        assert_eq!(is_kept(&*store, 2).await, day < 103, "{day}");
    }
    assert_eq!(store.calls("mark_used"), 5, "once a day");
    assert!(is_kept(&*store, 1).await);
    assert_eq!(store.load(&user(2)).await.unwrap().epoch, 1);
    assert_eq!(api.calls(), ["Login", "Login"]);
}

#[tokio::test]
async fn a_process_that_forgets_nobody_counts_for_the_others() {
    let (api, medium) = (Api::start().await, Medium::new());
    let ((off, _), (on, store)) = (
        start(&medium, &api, None),
        start(&medium, &api, Some(AFTER)),
    );
    let (mut ours, mut theirs) = (Days::default(), Days::default());
    off.provider.engine.vault.cache.named.begin(Day(100));
    off.get(user(2)).await.unwrap();
    for day in 100..=103 {
        off.provider.engine.vault.cache.named.begin(Day(day));
        off.get(user(1)).await.unwrap();
        // It counts the day, and does not forget in the place of the other one.
        ours.pass(&off, day).await;
    }
    theirs.pass(&on, 103).await;
    assert!(is_kept(&*store, 1).await);
    assert!(!is_kept(&*store, 2).await);
}

#[tokio::test]
async fn a_user_is_used_whose_renewal_fails() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store) = start(&medium, &api, None);
    let committed = store.commit(&user(1), record(1), over(0, 0), None).await;
    committed.unwrap();
    process.provider.engine.vault.cache.named.begin(Day(100));
    let failed = process.get(user(1)).await;
    assert!(failed.is_err(), "the record is sealed with another key");
    Days::default().pass(&process, 100).await;
    let all = store.unused(Day(101), 10).await.unwrap();
    assert_eq!(all, [user(1)]);
    assert_eq!(store.unused(Day(100), 10).await, Ok(vec![]));
}

#[tokio::test]
async fn who_was_named_is_known_after_eviction_a_store_away_and_a_stop() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store) = start(&medium, &api, None);
    let vault = &process.provider.engine.vault;
    vault.cache.named.begin(Day(100));
    process.get(user(1)).await.unwrap();
    vault.cache.forget(&user(1));
    store.is_away(true);
    let engine = &process.provider.engine;
    let missed = Days::default().round(engine, Day(100), SETTLED).await;
    assert!(matches!(missed, Err(Error::Away(_))));
    store.is_away(false);
    process.background.finish(Duration::from_secs(1)).await;
    assert_eq!(store.unused(Day(101), 10).await, Ok(vec![user(1)]));
}

#[tokio::test]
async fn a_registration_and_a_login_count_as_a_use() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store) = start(&medium, &api, None);
    let vault = &process.provider.engine.vault;
    vault.cache.named.begin(Day(100));
    process.get(user(1)).await.unwrap();
    Days::default().pass(&process, 100).await;
    vault.cache.named.begin(Day(200));
    process.adopt(&user(1), 7).await;
    process.adopt(&user(2), 7).await;
    Days::default().pass(&process, 200).await;
    assert_eq!(store.unused(Day(200), 10).await, Ok(vec![]));
    // Named when there was no pair yet; the login came later.
    let (third, provider) = (user(3), &process.provider);
    let asked = provider.renew_on_demand(&third, MayLogIn::Yes);
    asked.await.unwrap();
    Days::default().pass(&process, 200).await;
    let mut all = store.unused(Day(201), 10).await.unwrap();
    all.sort();
    assert_eq!(all, [user(1), user(2), user(3)]);
}

#[tokio::test]
async fn nobody_is_forgotten_before_the_marks_of_others_are_in() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store) = start(&medium, &api, Some(AFTER));
    let engine = &process.provider.engine;
    let mut days = Days::default();
    for day in 100..=102 {
        days.pass(&process, day).await;
        if day == 100 {
            process.get(user(1)).await.unwrap();
        }
    }
    for (known_for, kept) in [(SETTLED - Duration::from_secs(1), true), (SETTLED, false)] {
        days.round(engine, Day(103), known_for).await.unwrap();
        assert_eq!(is_kept(&*store, 1).await, kept);
    }
}

#[tokio::test]
async fn a_user_that_is_named_while_others_are_forgotten_stays() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store) = start(&medium, &api, Some(AFTER));
    let engine = &process.provider.engine;
    let mut days = Days::default();
    engine.vault.cache.named.begin(Day(100));
    for number in [1, 2] {
        process.get(user(number)).await.unwrap();
    }
    for day in 100..=102 {
        days.pass(&process, day).await;
    }
    store.stops("forget_unused");
    let named = async {
        while store.calls("forget_unused") < 2 {
            tokio::task::yield_now().await;
        }
        store.mark_used(vec![(user(1), Day(103))]).await.unwrap();
        store.goes_on();
    };
    tokio::join!(days.pass(&process, 103), named);
    assert!(is_kept(&*store, 1).await);
    assert!(!is_kept(&*store, 2).await);
}

#[tokio::test]
async fn after_days_that_nobody_counted_the_counting_begins_anew() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store) = start(&medium, &api, Some(AFTER));
    let mut days = Days::default();
    process.provider.engine.vault.cache.named.begin(Day(100));
    process.get(user(1)).await.unwrap();
    for day in [100, 101, 150, 151, 152] {
        days.pass(&process, day).await;
        assert!(is_kept(&*store, 1).await, "{day}");
    }
    days.pass(&process, 153).await;
    assert!(!is_kept(&*store, 1).await);
}

#[tokio::test]
async fn names_that_found_no_room_let_the_counting_begin_anew() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, _) = start(&medium, &api, None);
    let mut days = Days::default();
    for day in [100, 101] {
        days.pass(&process, day).await;
    }
    assert_eq!(stands(&process).await.since, 100);
    process.provider.engine.vault.cache.named.overflow();
    for day in [101, 102] {
        days.pass(&process, day).await;
        assert_eq!(stands(&process).await.since, 101);
    }
}

#[test]
fn nobody_is_forgotten_who_may_have_been_named_while_nobody_counted() {
    let after = Duration::from_secs(3 * DAY);
    let mut counted = Counted::anew(Day(100));
    let mut forgets = |day| {
        counted = counted.with(Day(day));
        counted.forgets_before(Day(day), after)
    };
    // Of the first day only a part was counted.
    assert_eq!([100, 101, 102, 103].map(&mut forgets), [None; 4]);
    assert_eq!(forgets(104), Some(Day(101)));
    assert_eq!(forgets(105), Some(Day(102)));
    // No proxy ran for a day.
    assert_eq!([107, 108, 109, 110].map(&mut forgets), [None; 4]);
    assert_eq!(forgets(111), Some(Day(108)));
    // The clock of this process is a moment behind.
    assert_eq!(forgets(110), None);
    assert_eq!(forgets(111), Some(Day(108)));
    // The clock jumps, and back.
    assert_eq!(
        [9_000, 9_001, 112, 113, 114, 115].map(&mut forgets),
        [None; 6]
    );
    assert_eq!(forgets(116), Some(Day(113)));
}

#[test]
fn a_begun_day_counts_as_one_and_no_number_of_days_overflows() {
    let counted = Counted {
        since: 0,
        last: 100,
        forgot: None,
    };
    let before = |seconds| counted.forgets_before(Day(100), Duration::from_secs(seconds));
    assert_eq!(before(DAY), Some(Day(99)));
    assert_eq!(before(DAY + 1), Some(Day(98)));
    assert_eq!(before(u64::MAX), None);
}
