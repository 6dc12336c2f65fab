//! What a rejection means right after the store came back.

use std::sync::Arc;
use std::time::Duration;

use crate::credentials::fixture::{
    Api, Faulty, Medium, Process, Says, authorized, jwt, settings, until, user,
};
use crate::credentials::{Credentials, Error, Settings};
use crate::store::{Generation, Note, Store};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);

fn patient() -> Settings {
    Settings {
        wait: SECOND * 15,
        ..settings()
    }
}

/// A process, and what it holds of the first user.
async fn start(medium: &Medium, api: &Api) -> (Process, Arc<Faulty>, Arc<Credentials>) {
    let (process, store) = medium.start_faulty(api, patient());
    let adopted = process.adopt(&user(1), 1).await;
    (process, store, adopted)
}

fn learnt_nothing(store: &Faulty) -> bool {
    store.calls("note") == 0 && store.calls("set_guard") == 0
}

#[tokio::test]
async fn a_rejection_in_doubt_is_not_believed_and_what_is_restored_is_adopted() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store, held) = start(&medium, &api).await;
    let other = medium.start();
    store.is_doubted_for(Some(LONG));
    api.will_say([Says::Rejected]);
    let caller = authorized(user(1));
    let renewing = process.provider.renew(&caller, &held);
    let restoring = async {
        until(|| api.calls() == ["RefreshToken"]).await;
        // It looks again and again.
        let loads = store.calls("load");
        until(|| store.calls("load") >= loads + 2).await;
        other.adopt(&user(1), 9).await;
    };
    let (renewed, ()) = tokio::join!(renewing, restoring);
    let renewed = renewed.unwrap().expect("what was restored");
    assert_eq!(renewed.credentials().token(), jwt(&user(1), 9));
    assert!(learnt_nothing(&store));
    assert_eq!(api.calls(), ["RefreshToken"]);
}

#[tokio::test]
async fn after_the_doubt_a_rejection_is_asked_again_once_and_then_believed() {
    for again in [Says::Granted, Says::Rejected] {
        let (api, medium) = (Api::start().await, Medium::new());
        let (process, store, held) = start(&medium, &api).await;
        store.is_doubted_for(Some(LONG));
        api.will_say([Says::Rejected, again]);
        let caller = authorized(user(1));
        let renewing = process.provider.renew(&caller, &held);
        let doubting = async {
            until(|| api.calls() == ["RefreshToken"]).await;
            let loads = store.calls("load");
            until(|| store.calls("load") >= loads + 2).await;
            assert!(learnt_nothing(&store));
            assert_eq!(api.calls(), ["RefreshToken"]);
            store.is_doubted_for(None);
        };
        let (renewed, ()) = tokio::join!(renewing, doubting);
        renewed.unwrap().expect("a newer one").ok();
        match again {
            Says::Rejected => {
                assert_eq!(api.calls(), ["RefreshToken", "RefreshToken", "Login"]);
                assert!(!learnt_nothing(&store));
            }
            _ => assert_eq!(api.calls(), ["RefreshToken", "RefreshToken"]),
        }
        let entry = store.load(&user(1)).await.unwrap();
        assert_eq!(entry.generation, Generation(2));
    }
}

#[tokio::test]
async fn in_doubt_nobody_who_holds_a_pair_is_logged_in() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store, held) = start(&medium, &api).await;
    let dead = Note::RefreshDead(Generation(1));
    store.note(&user(1), dead).await.unwrap();
    store.is_doubted_for(Some(LONG));
    let caller = authorized(user(1));
    let renewing = process.provider.renew(&caller, &held);
    let doubting = async {
        let loads = store.calls("load");
        until(|| store.calls("load") >= loads + 2).await;
        assert!(api.calls().is_empty());
        store.is_doubted_for(None);
    };
    let (renewed, ()) = tokio::join!(renewing, doubting);
    renewed.unwrap().expect("a newer one").ok();
    assert_eq!(api.calls(), ["Login"]);
}

#[tokio::test]
async fn in_doubt_a_user_that_never_had_a_pair_is_not_held_up() {
    let api = Api::start().await;
    let (process, store) = Medium::new().start_faulty(&api, settings());
    store.is_doubted_for(Some(LONG));
    let got = process.get(user(1)).await;
    assert!(got.is_ok(), "{got:?}");
    assert_eq!(api.calls(), ["Login"]);
}

#[tokio::test]
async fn one_whose_patience_a_doubt_outlasts_is_told_and_the_renewal_ends() {
    let (api, medium) = (Api::start().await, Medium::new());
    let (process, store) = medium.start_faulty(&api, settings());
    let held = process.adopt(&user(1), 1).await;
    store.is_doubted_for(Some(LONG));
    api.will_say([Says::Rejected]);
    let caller = authorized(user(1));
    let renewed = process.provider.renew(&caller, &held).await;
    let renewed = renewed.map(drop);
    assert!(
        matches!(renewed, Err(Error::StoreUnavailable(_))),
        "{renewed:?}"
    );
    let ended = process.provider.engine.renewals.all_ended();
    let ended = tokio::time::timeout(LONG / 2, ended).await;
    assert!(ended.is_ok(), "nobody waits for it");
    assert!(learnt_nothing(&store));
    assert_eq!(api.calls(), ["RefreshToken"]);
}
