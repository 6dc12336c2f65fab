//! Leases that run out, are held by others, or cannot be asked for.

use std::time::Duration;

use super::*;
use crate::credentials::Settings;
use crate::credentials::fixture::{
    Api, Faulty, Medium, Process, Says, authorized, jwt, settings, until, user,
};
use crate::credentials::renewal::token_endpoint::Reply;
use crate::damoov::auth;
use crate::secret::Secret;
use crate::store::{Generation, LeaseId, Store};

const SECOND: Duration = Duration::from_secs(1);

fn patient() -> Settings {
    Settings {
        wait: SECOND * 15,
        timeout: SECOND * 3,
        lease: SECOND * 8,
        ..settings()
    }
}

/// A lease of this length.
async fn hold(process: &Process, principal: &Principal, ttl: Duration) -> Hold {
    let vault = &process.provider.engine.vault;
    match vault.lease(principal, LeaseId::fresh(), ttl).await.unwrap() {
        Leasing::Ours { hold, .. } => hold,
        Leasing::Theirs { .. } => panic!("nobody else wants it"),
    }
}

async fn committed(store: &Faulty) -> Generation {
    store.load(&user(1)).await.unwrap().generation
}

#[tokio::test]
async fn a_lease_that_does_not_outlast_a_call_is_prolonged_before_it() {
    let api = Api::start().await;
    let (process, store) = Medium::new().start_faulty(&api, patient());
    let engine = &process.provider.engine;
    let long = hold(&process, &user(1), SECOND * 15).await;
    assert_eq!(engine.may_call(&user(1), &long).await, Ok(true));
    assert_eq!(store.calls("extend"), 0);
    engine.vault.release(&user(1), &long);

    let short = hold(&process, &user(1), SECOND * 3).await;
    assert_eq!(engine.may_call(&user(1), &short).await, Ok(true));
    assert_eq!(store.calls("extend"), 1);
    assert_eq!(engine.may_call(&user(1), &short).await, Ok(true));
    assert_eq!(store.calls("extend"), 1, "it lasts");
}

#[tokio::test]
async fn a_lease_that_is_lost_or_cannot_be_prolonged_allows_no_call() {
    let api = Api::start().await;
    let (process, store) = Medium::new().start_faulty(&api, patient());
    let engine = &process.provider.engine;
    let short = hold(&process, &user(1), SECOND * 3).await;
    store.loses("extend", 1);
    let unknown = engine.may_call(&user(1), &short).await;
    assert!(
        matches!(unknown, Err(Error::StoreUnavailable(_))),
        "{unknown:?}"
    );
    store.is_held_for(Some(SECOND));
    assert_eq!(engine.may_call(&user(1), &short).await, Ok(false));
    store.is_held_for(None);
    assert_eq!(
        engine.may_call(&user(1), &short).await,
        Ok(false),
        "for good"
    );

    let long = hold(&process, &user(2), SECOND * 15).await;
    store.is_away(true);
    let away = engine.may_call(&user(2), &long).await;
    assert!(matches!(away, Err(Error::StoreUnavailable(_))), "{away:?}");
}

#[tokio::test]
async fn a_process_that_wakes_up_with_a_lease_that_ran_out_sends_nothing() {
    let api = Api::start().await;
    let (process, _store) = Medium::new().start_faulty(&api, patient());
    let endpoint = &process.provider.engine.endpoint;
    let call = || auth::refresh(&Secret::from("jwt"), &Secret::from("refresh"));
    let over = hold(&process, &user(1), Duration::from_millis(30)).await;
    tokio::time::sleep(Duration::from_millis(40)).await;
    let turn = endpoint.turn().await.unwrap();
    let reply = endpoint.refresh(call(), turn, SECOND * 3, &over).await;
    assert!(matches!(reply, Reply::Withheld), "{reply:?}");
    let reply = endpoint.log_in(call(), SECOND * 3, &over).await;
    assert!(matches!(reply, Reply::Withheld), "{reply:?}");
    assert!(api.calls().is_empty());
}

#[tokio::test]
async fn a_pair_that_came_after_the_lease_was_lost_is_committed() {
    let api = Api::start().await;
    let (process, store) = Medium::new().start_faulty(&api, patient());
    api.will_say([Says::GrantedLate]);
    let got = process.get(user(1));
    let heartbeat = async {
        until(|| api.calls() == ["Login"]).await;
        store.is_held_for(Some(SECOND));
        until(|| store.calls("extend") > 0).await;
        api.lets_go();
    };
    let (got, ()) = tokio::join!(got, heartbeat);
    assert!(got.is_ok(), "{got:?}");
    assert_eq!(committed(&store).await, Generation(1));
}

#[tokio::test]
async fn without_a_store_no_call_is_sent_and_fresh_tokens_are_served() {
    let api = Api::start().await;
    let (process, store) = Medium::new().start_faulty(&api, patient());
    let fresh = process.get(user(1)).await;
    store.is_away(true);
    let served = process.get(user(1)).await;
    let (fresh, served) = (fresh.unwrap(), served.unwrap());
    assert!(Arc::ptr_eq(&fresh, &served));
    for _ in 0..3 {
        let refused = process.get(user(2)).await;
        let refused = refused.map(drop);
        assert!(
            matches!(refused, Err(Error::StoreUnavailable(store::Error::Away(_)))),
            "{refused:?}"
        );
    }
    let caller = authorized(user(1));
    let renewed = process.provider.renew(&caller, &fresh).await;
    assert!(matches!(renewed, Err(Error::StoreUnavailable(_))));
    assert_eq!(api.calls(), ["Login"]);
    store.is_away(false);
    let healed = process.provider.renew(&caller, &fresh).await;
    healed.unwrap().expect("a newer one").ok();
    assert_eq!(api.calls(), ["Login", "RefreshToken"]);
}

#[tokio::test]
async fn one_that_waits_reads_until_it_can_adopt_and_asks_for_no_lease() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store) = medium.start_faulty(&api, patient());
    let other = medium.start();
    store.is_held_for(Some(SECOND * 60));
    let got = process.get(user(1));
    let holder = async {
        until(|| store.calls("load") >= 4).await;
        other.adopt(&user(1), 7).await;
    };
    let (got, ()) = tokio::join!(got, holder);
    assert_eq!(got.unwrap().token(), jwt(&user(1), 7));
    assert_eq!(store.calls("lease"), 1);
    assert!(api.calls().is_empty());
    assert_eq!(store.calls("give_login_back"), 1, "the slot was not needed");
}

#[tokio::test]
async fn one_that_waits_asks_again_once_the_lease_may_be_free() {
    let api = Api::start().await;
    let (process, store) = Medium::new().start_faulty(&api, patient());
    store.is_held_for(Some(Duration::from_millis(400)));
    let asked = Instant::now();
    let got = process.get(user(1));
    let holder = async {
        // Nobody says that it is released.
        until(|| store.calls("lease") > 1).await;
        store.is_held_for(None);
    };
    let (got, ()) = tokio::join!(got, holder);
    assert!(got.is_ok(), "{got:?}");
    assert!(asked.elapsed() >= Duration::from_millis(400));
    assert_eq!(store.calls("lease"), 3);
    assert_eq!(api.calls(), ["Login"]);
}

#[tokio::test]
async fn one_that_waits_notices_a_lease_that_is_released_without_a_commit() {
    let api = Api::start().await;
    let (process, store) = Medium::new().start_faulty(&api, patient());
    store.is_held_for(Some(SECOND * 60));
    let got = process.get(user(1));
    let holder = async {
        until(|| store.calls("load") >= 3).await;
        store.is_held_for(None);
    };
    let (got, ()) = tokio::join!(got, holder);
    assert!(got.is_ok(), "{got:?}");
    assert_eq!(store.calls("lease"), 2, "it asks once it is free");
    assert_eq!(api.calls(), ["Login"]);
}

#[tokio::test]
async fn a_call_to_the_store_whose_answer_is_lost_is_done_once() {
    for name in [
        "load",
        "guard",
        "take_login",
        "lease",
        "end_login",
        "commit",
    ] {
        let api = Api::start().await;
        let (process, store) = Medium::new().start_faulty(&api, patient());
        store.loses(name, 1);
        let got = process.get(user(1)).await;
        assert!(got.is_ok(), "{name}: {got:?}");
        assert_eq!(api.calls(), ["Login"], "{name}");
        assert_eq!(committed(&store).await, Generation(1), "{name}");
        let budget = process.provider.engine.guards.budget.state().await.unwrap();
        assert_eq!(budget.windows[0].used, 1, "{name}");
        let entry = store.load(&user(1)).await.unwrap();
        assert_eq!(entry.epoch, 0, "{name}");
    }
}

#[tokio::test]
async fn what_a_dead_holder_left_open_is_noted_once_however_the_renewal_ends() {
    let api = Api::start().await;
    for answers in [vec![Says::Nothing, Says::Nothing], vec![Says::Limited; 3]] {
        let (process, store) = Medium::new().start_faulty(&api, patient());
        let held = process.adopt(&user(1), 1).await;
        store.grants_orphaned_leases(true);
        api.will_say(answers);
        let caller = authorized(user(1));
        let renewed = process.provider.renew(&caller, &held).await.map(drop);
        assert!(renewed.is_err(), "{renewed:?}");
        let notes = store.load(&user(1)).await.unwrap().notes;
        assert_eq!(notes.answer_lost, Some(Generation(1)));
        assert_eq!(store.calls("note"), 1);
    }
}

#[tokio::test]
async fn a_pair_is_stored_before_the_end_of_its_slot_is() {
    let api = Api::start().await;
    let (process, store) = Medium::new().start_faulty(&api, patient());
    store.stops("end_login");
    let got = process.get(user(1));
    let stores = async {
        until(|| store.calls("end_login") == 1 && store.calls("commit") == 1).await;
        store.goes_on();
    };
    let (got, ()) = tokio::join!(got, stores);
    assert!(got.is_ok(), "{got:?}");
}
