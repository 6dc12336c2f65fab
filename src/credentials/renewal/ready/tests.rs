//! What the budget refuses costs the store no write.

use std::sync::Arc;
use std::time::Duration;

use crate::credentials::fixture::{Api, Medium, authorized, settings, until, user, windows};
use crate::credentials::{Error, Need};
use crate::directory::Directory;
use crate::store::{Budgets, Generation, Store};

#[tokio::test]
async fn a_new_user_that_the_budget_refuses_costs_no_write() {
    let api = Api::start().await;
    let (process, store) = Medium::new().start_faulty(&api, settings());
    // The only slot of the hour.
    process.get(user(1)).await.unwrap();
    let before = ["lease", "note", "set_guard", "extend"].map(|name| store.calls(name));
    let made_up = (2..200).map(|number| {
        let provider = process.provider.clone();
        tokio::spawn(async move { provider.get(&authorized(user(number)), Need::Usable).await })
    });
    let made_up: Vec<_> = made_up.collect();
    for refused in made_up {
        let refused = refused.await.unwrap().map(drop);
        assert!(
            matches!(refused, Err(Error::BudgetExhausted { .. })),
            "{refused:?}"
        );
    }
    let after = ["lease", "note", "set_guard", "extend"].map(|name| store.calls(name));
    assert_eq!(before, after);
    assert_eq!(api.calls(), ["Login"]);
    assert_eq!(store.calls("end_login"), 1);
}

#[tokio::test]
async fn a_slot_taken_before_the_lease_is_given_back_if_it_is_not_needed() {
    let api = Api::start().await;
    let (process, store) = Medium::new().start_faulty(&api, settings());
    store.is_held_for(Some(Duration::from_secs(60)));
    let got = process.get(user(1)).await.map(drop);
    assert_eq!(got, Err(Error::WaitedTooLong));
    assert_eq!(store.calls("take_login"), 1);
    assert_eq!(store.calls("give_login_back"), 1);
    store.is_held_for(None);
    process.get(user(2)).await.unwrap();
    assert_eq!(
        store.load(&user(2)).await.unwrap().generation,
        Generation(1)
    );
    assert_eq!(api.calls(), ["Login"], "the only slot of the hour");
}

#[tokio::test]
async fn a_slot_is_given_back_although_the_process_closes_meanwhile() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store) = medium.start_faulty(&api, settings());
    let other = medium.start();
    store.is_held_for(Some(Duration::from_secs(60)));
    store.stops("give_login_back");
    let provider = process.provider.clone();
    let got = tokio::spawn(async move { provider.get(&authorized(user(1)), Need::Usable).await });
    until(|| store.calls("give_login_back") == 1).await;
    let closing = process.background.finish(Duration::from_secs(20));
    let going_on = async {
        tokio::task::yield_now().await;
        store.goes_on();
    };
    tokio::join!(closing, going_on);
    let got = got.await.unwrap().map(drop);
    assert_eq!(got, Err(Error::Closing));
    let budget = other.store.login_budget(&windows()).await.unwrap();
    assert_eq!(budget.windows[0].used, 0);
}

#[tokio::test]
async fn what_was_taken_for_a_login_is_given_back_if_its_key_is_gone() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store) = medium.start_faulty(&api, settings());
    store.stops("lease");
    let provider = process.provider.clone();
    let got = tokio::spawn(async move { provider.get(&authorized(user(1)), Need::Usable).await });
    until(|| store.calls("lease") == 1).await;
    let nobody = Directory::new(Vec::new(), Vec::new());
    let current = &process.provider.engine.current;
    current.publish(settings(), Arc::new(nobody));
    store.goes_on();
    let got = got.await.unwrap().map(drop);
    assert_eq!(got, Err(Error::InstanceUnknown));
    process.provider.engine.renewals.all_ended().await;
    let budget = store.login_budget(&windows()).await.unwrap();
    assert_eq!(budget.windows[0].used, 0);
    assert!(api.calls().is_empty());
}
