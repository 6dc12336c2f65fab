//! Refreshes: rotation, the grace period, age.

use super::*;

#[tokio::test]
async fn a_refresh_rotates_both_tokens_and_the_old_pair_is_dead_at_once() {
    for (dead, status) in [
        (DeadRefreshToken::BadRequest, 400),
        (DeadRefreshToken::Unauthorized, 401),
    ] {
        let refresh = Refresh {
            dead,
            ..Refresh::default()
        };
        let (simulator, client) = start(Settings {
            refresh,
            ..unlimited()
        })
        .await;
        let first = client.log_in(USER).await;
        let second = client.refresh(&first).await.unwrap();
        assert_eq!(second.status, 200);
        assert_ne!(
            (first.access(), first.refresh_token()),
            (second.access(), second.refresh_token())
        );
        assert_eq!(client.refresh(&first).await.unwrap().status, status);
        assert_eq!(
            client.get("/indicators/v3/x", &first.access()).await.status,
            200,
            "until its exp"
        );
        let third = client.refresh(&second).await.unwrap();
        assert_eq!(
            third.status, 200,
            "a rejected re-send does not harm the new pair"
        );
        let counted = simulator.handle().counts_of(&user(USER)).refreshes;
        assert_eq!((counted.ok, counted.rejected), (2, 1));
        simulator.shutdown().await;
    }
}

#[tokio::test]
async fn a_refresh_needs_both_tokens_of_the_same_user_but_no_living_jwt() {
    let (simulator, client) = start(unlimited()).await;
    let (mine, theirs) = (client.log_in(USER).await, client.log_in(OTHER).await);
    for body in [
        json!({"RefreshToken": mine.refresh_token()}),
        json!({"AccessToken": mine.access()}),
    ] {
        assert_eq!(
            client
                .post("/v1/Auth/RefreshToken", &body)
                .await
                .unwrap()
                .status,
            400
        );
    }
    let mixed = json!({"AccessToken": theirs.access(), "RefreshToken": mine.refresh_token()});
    assert_eq!(
        client
            .post("/v1/Auth/RefreshToken", &mixed)
            .await
            .unwrap()
            .status,
        401
    );
    assert_eq!(simulator.handle().expire(None), 2);
    assert_eq!(client.refresh(&mine).await.unwrap().status, 200);
    simulator.shutdown().await;
}

#[tokio::test]
async fn within_the_grace_period_the_same_pair_gets_the_same_new_pair() {
    let clock = Clock::scaled(1000);
    let refresh = Refresh {
        grace: Duration::from_secs(300),
        previous_token: PreviousToken::Revoked,
        ..Refresh::default()
    };
    let (simulator, client) = start(Settings {
        clock,
        refresh,
        ..unlimited()
    })
    .await;
    let first = client.log_in(USER).await;
    let second = client.refresh(&first).await.unwrap();
    let again = client.refresh(&first).await.unwrap();
    assert_eq!(second.json(), again.json());
    assert_eq!(
        client.get("/indicators/v3/x", &first.access()).await.status,
        401,
        "revoked"
    );
    clock.sleep(Duration::from_secs(300)).await;
    assert_eq!(client.refresh(&first).await.unwrap().status, 401);
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_jwt_and_a_refresh_token_die_of_age() {
    let clock = Clock::scaled(1000);
    let lifetimes = Lifetimes {
        after_login: Duration::from_secs(200),
        refresh_token: Duration::from_secs(200),
        ..Lifetimes::default()
    };
    let (simulator, client) = start(Settings {
        clock,
        lifetimes,
        ..unlimited()
    })
    .await;
    let pair = client.log_in(USER).await;
    clock.sleep(Duration::from_secs(200)).await;
    assert_eq!(
        client.get("/indicators/v3/x", &pair.access()).await.status,
        401
    );
    assert_eq!(client.refresh(&pair).await.unwrap().status, 401);
    simulator.shutdown().await;
}

#[tokio::test]
async fn refreshes_under_way_at_once_are_counted() {
    let (simulator, client) = start(unlimited()).await;
    let pair = client.log_in(USER).await;
    simulator
        .handle()
        .add_fault(Fault::new(On::Refresh, Action::Lose(Lost::Hang)));
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(client.refresh(&pair))).collect();
    while simulator.handle().counts_of(&user(USER)).refreshes.all() < 3 {
        for call in &mut calls {
            assert!(
                tokio::time::timeout(Duration::from_millis(1), call)
                    .await
                    .is_err()
            );
        }
    }
    assert_eq!(
        simulator.handle().counts_of(&user(USER)).refreshes_at_once,
        3
    );
    simulator.shutdown().await;
}
