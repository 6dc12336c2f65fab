//! Memory and a store that is older than memory.

use std::sync::Arc;
use std::time::Duration;

use crate::credentials::Credentials;
use crate::credentials::fixture::{Api, Faulty, Medium, Process, authorized, settings, user};
use crate::store::{Entry, Generation, Restored, Store};

/// Logs the first user in and refreshes its pair up to `generation`. Returns what stood before that.
async fn grow(process: &Process, store: &Faulty, generation: u64) -> (Arc<Credentials>, Entry) {
    let (provider, caller) = (&process.provider, authorized(user(1)));
    let mut held = process.get(user(1)).await.unwrap();
    let mut before = Entry::default();
    while held.generation < Generation(generation) {
        before = store.load(&user(1)).await.unwrap();
        let renewed = provider.renew(&caller, &held).await.unwrap();
        renewed.expect("a newer one").ok();
        held = process.get(user(1)).await.unwrap();
    }
    (held, before)
}

/// A store in which the entry of the first user is this one.
async fn backup(entry: Entry) -> (Process, Arc<dyn Store>) {
    let process = Medium::new().start();
    let store = process.store.clone();
    let restored = store.restore(vec![(user(1), entry)]).await;
    assert_eq!(restored, Ok(vec![Restored::Written]));
    (process, store)
}

#[tokio::test]
async fn a_401_after_the_store_went_back_costs_one_refresh_and_no_loop() {
    for back_to in [5, 2] {
        let api = Api::start().await;
        let (process, store) = Medium::new().start_faulty(&api, settings());
        let (held, before) = grow(&process, &store, 6).await;
        let calls = api.calls().len();
        let (_kept, older) = backup(Entry {
            generation: Generation(back_to),
            ..before
        })
        .await;
        store.becomes(older);
        let caller = authorized(user(1));
        let renewed = process.provider.renew(&caller, &held).await.unwrap();
        let renewed = renewed.expect("what follows on the older pair");
        let token = renewed.credentials().token().to_owned();
        assert_ne!(token, held.token());
        assert_eq!(renewed.credentials().generation, Generation(back_to + 1));
        renewed.ok();
        assert_eq!(api.calls().len(), calls + 1);
        assert_eq!(process.metrics.store_went_back.get(), 1);

        let loads = store.calls("load");
        let served = process.get(user(1)).await.unwrap();
        assert_eq!(served.token(), token);
        // A 401 for the token of before comes late.
        let late = process.provider.renew(&caller, &held).await.unwrap();
        let late = late.expect("what stands");
        assert_eq!(late.credentials().token(), token);
        late.ok();
        let served = process.get(user(1)).await.unwrap();
        assert_eq!(served.token(), token);
        assert_eq!(store.calls("load"), loads, "from memory");
        assert_eq!(api.calls().len(), calls + 1);
    }
}

#[tokio::test]
async fn a_good_token_is_served_although_the_store_went_back() {
    let api = Api::start().await;
    let (process, store) = Medium::new().start_faulty(&api, settings());
    let (held, before) = grow(&process, &store, 4).await;
    let (_kept, older) = backup(Entry {
        generation: Generation(2),
        ..before
    })
    .await;
    store.becomes(older);
    let provider = &process.provider;
    let epoch = held.epoch() + 1;
    store.is_doubted_for(Some(Duration::from_secs(5)));
    assert_eq!(provider.is_current(&user(1), epoch).await, Ok(false));
    let served = process.get(user(1)).await.unwrap();
    assert_eq!(
        served.generation,
        Generation(4),
        "others may restore what the store lost"
    );
    assert_eq!(process.metrics.store_went_back.get(), 0);

    store.is_doubted_for(None);
    for _ in 0..2 {
        assert_eq!(provider.is_current(&user(1), epoch).await, Ok(false));
        assert_eq!(process.metrics.store_went_back.get(), 1);
    }
    let calls = api.calls().len();
    let served = process.get(user(1)).await.unwrap();
    assert_eq!(served.token(), held.token(), "it has not expired");
    assert_eq!(served.generation, Generation(2));
    assert_eq!(api.calls().len(), calls);
    // It is renewed as any other is, and no longer served once a 401 came back for it.
    let caller = authorized(user(1));
    let renewed = provider.renew(&caller, &held).await.unwrap();
    let renewed = renewed.expect("a newer one");
    assert_ne!(renewed.credentials().token(), held.token());
    assert_eq!(renewed.credentials().generation, Generation(3));
    renewed.ok();
    assert_eq!(api.calls().len(), calls + 1);
}

#[tokio::test]
async fn memory_gives_way_to_an_older_entry_if_its_token_is_not_good() {
    let api = Api::start().await;
    let (process, store) = Medium::new().start_faulty(&api, settings());
    let (held, before) = grow(&process, &store, 4).await;
    let forgotten = Entry {
        generation: Generation(2),
        epoch: held.epoch() + 1,
        ..before
    };
    let (_kept, older) = backup(forgotten).await;
    store.becomes(older);
    let provider = &process.provider;
    let current = provider.is_current(&user(1), held.epoch() + 1).await;
    assert_eq!(current, Ok(true));
    assert!(provider.engine.vault.cache.peek(&user(1)).is_none());
    assert_eq!(process.metrics.store_went_back.get(), 1);
}
