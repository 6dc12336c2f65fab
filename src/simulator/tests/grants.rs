//! Login, refresh and registration (damoov/API.md).

use super::*;

#[tokio::test]
async fn both_forms_of_login_are_understood_with_exactly_their_spelling() {
    let (simulator, client) = start(unlimited()).await;
    let email = ACCOUNT_EMAIL;
    let forms = [
        (
            json!({"LoginFields": format!("{{\"Devicetoken\":\"{USER}\"}}"), "Password": INSTANCE_KEY}),
            200,
        ),
        (
            json!({"LoginFields": format!("{{\"DeviceToken\":\"{USER}\"}}"), "Password": INSTANCE_KEY}),
            401,
        ),
        (
            json!({"LoginFields": format!("{{\"devicetoken\":\"{USER}\"}}"), "Password": INSTANCE_KEY}),
            401,
        ),
        (
            json!({"loginFields": {"DeviceToken": USER}, "password": INSTANCE_KEY}),
            200,
        ),
        (
            json!({"loginFields": {"Devicetoken": USER}, "password": INSTANCE_KEY}),
            401,
        ),
        (
            json!({"LoginFields": format!("{{\"Devicetoken\":\"{USER}\"}}"), "Password": "wrong"}),
            401,
        ),
        (
            json!({"LoginFields": format!("{{\"email\":\"{email}\"}}"), "Password": ACCOUNT_PASSWORD}),
            200,
        ),
        (
            json!({"loginFields": {"Email": email}, "password": ACCOUNT_PASSWORD}),
            200,
        ),
        (
            json!({"LoginFields": format!("{{\"email\":\"{email}\"}}"), "Password": "wrong"}),
            401,
        ),
    ];
    for (body, status) in forms {
        let answered = client.login(&body, Some(INSTANCE_ID)).await.unwrap();
        assert_eq!(answered.status, status, "{body}");
        assert_eq!(answered.json()["Status"], status);
        match status {
            200 => assert!(answered.json()["Result"]["AccessToken"]["Token"].is_string()),
            _ => assert_eq!(answered.json()["Errors"], json!([]), "no useful message"),
        }
    }
    let body = client::login_body(USER);
    for instance in [None, Some("22222222-2222-4222-8222-222222222222")] {
        assert_eq!(client.login(&body, instance).await.unwrap().status, 401);
    }
    let counted = simulator.handle().counts_of(&user(USER)).logins;
    assert_eq!((counted.ok, counted.rejected), (2, 3));
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_token_has_the_claims_the_size_and_the_lifetime_of_the_real_one() {
    let (simulator, client) = start(unlimited()).await;
    let answered = client.log_in(USER).await;
    let token = answered.access();
    assert!((800..1300).contains(&token.len()), "{}", token.len());
    let claims: Value = {
        let part = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(claims["DeviceToken"], USER.replace('-', ""));
    assert_eq!(claims["InstanceId"], INSTANCE_ID.replace('-', ""));
    assert_eq!(claims["IsAdmin"], "False");
    assert_eq!(claims["iss"], "webApi");
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(life, 86_400);
    assert_eq!(
        answered.json()["Result"]["AccessToken"]["ExpiresIn"],
        86_400
    );
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_login_revokes_both_tokens_issued_before() {
    let (simulator, client) = start(unlimited()).await;
    let before = client.log_in(USER).await;
    let other = client.log_in(OTHER).await;
    let after = client.log_in(USER).await;
    assert_eq!(
        client
            .get("/indicators/v3/Scores/safety", &before.access())
            .await
            .status,
        401
    );
    assert_eq!(client.refresh(&before).await.unwrap().status, 401);
    assert_eq!(
        client
            .get("/indicators/v3/Scores/safety", &after.access())
            .await
            .status,
        200
    );
    assert_eq!(
        client
            .get("/indicators/v3/Scores/safety", &other.access())
            .await
            .status,
        200
    );
    simulator.shutdown().await;
}

#[tokio::test]
async fn the_sixth_login_of_a_minute_starts_an_hour_of_429() {
    let (simulator, client) = start(Settings::default()).await;
    for _ in 0..5 {
        client.log_in(USER).await;
    }
    let body = client::login_body(USER);
    for _ in 0..2 {
        let limited = client.login(&body, Some(INSTANCE_ID)).await.unwrap();
        assert_eq!(limited.status, 429);
        let wait: u64 = limited.headers[RETRY_AFTER]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((3590..=3600).contains(&wait), "{wait}");
    }
    let counts = simulator.handle().counts();
    assert_eq!(
        (counts.total.logins.ok, counts.total.logins.limited),
        (5, 2)
    );
    assert_eq!((counts.blocks_tripped, counts.login_calls.len()), (1, 7));
    assert_eq!(counts.login_calls[6].outcome, Outcome::Limited);
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_block_ends_by_the_clock_of_the_simulator() {
    let clock = Clock::scaled(3600);
    let hour = Duration::from_secs(3600);
    let limit = LoginLimit {
        calls: 1,
        per: hour,
        block: hour,
        ..LoginLimit::default()
    };
    let settings = Settings {
        clock,
        login_limit: Some(limit),
        ..Settings::default()
    };
    let (simulator, client) = start(settings).await;
    client.log_in(USER).await;
    let limited = client
        .login(&client::login_body(USER), Some(INSTANCE_ID))
        .await
        .unwrap();
    assert_eq!(limited.status, 429);
    clock.sleep(hour).await;
    client.log_in(USER).await;
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_silent_limit_answers_429_without_retry_after() {
    let limit = LoginLimit {
        calls: 0,
        retry_after: RetryAfter::Silent,
        ..LoginLimit::default()
    };
    let (simulator, client) = start(Settings {
        login_limit: Some(limit),
        ..Settings::default()
    })
    .await;
    let limited = client
        .login(&client::login_body(USER), Some(INSTANCE_ID))
        .await
        .unwrap();
    assert_eq!(limited.status, 429);
    assert!(!limited.headers.contains_key(RETRY_AFTER));
    simulator.shutdown().await;
}

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
async fn a_registration_issues_tokens_where_asked_and_is_not_idempotent() {
    let settings = Settings {
        known_users: KnownUsers::Only(Vec::new()),
        ..unlimited()
    };
    let (simulator, client) = start(settings).await;
    assert_eq!(
        client
            .login(&client::login_body(USER), Some(INSTANCE_ID))
            .await
            .unwrap()
            .status,
        401
    );

    let body = json!({"CustomToken": USER, "CreateAccessToken": true});
    let registered = client.register(&body, INSTANCE_KEY).await;
    assert_eq!(registered.status, 200);
    assert_eq!(registered.json()["Result"]["DeviceToken"], USER);
    assert_eq!(
        registered.json()["Result"]["AccessToken"]["ExpiresIn"],
        432_000
    );
    assert_eq!(
        client
            .get("/indicators/v3/x", &registered.access())
            .await
            .status,
        200
    );
    assert_eq!(client.refresh(&registered).await.unwrap().status, 200);
    assert_eq!(client.register(&body, INSTANCE_KEY).await.status, 422);
    assert_eq!(client.register(&json!({}), "wrong").await.status, 401);
    assert_eq!(
        client
            .register(&json!({"CustomToken": "x"}), INSTANCE_KEY)
            .await
            .status,
        422
    );

    let without = client.register(&json!({}), INSTANCE_KEY).await;
    assert!(without.json()["Result"]["DeviceToken"].is_string());
    assert!(without.json()["Result"].get("AccessToken").is_none());
    client.log_in(USER).await;
    simulator.shutdown().await;
}

#[tokio::test]
async fn older_behaviours_of_the_api_are_settings() {
    let settings = Settings {
        registration: Registration {
            credentials: RegistrationCredentials::Always,
            shape: RegistrationShape::Bare,
        },
        expires_in: ExpiresIn::Text,
        rejected_users: vec!["7f1c".to_owned()],
        ..unlimited()
    };
    let (simulator, client) = start(settings).await;
    let registered = client
        .register(&json!({"CustomToken": USER}), INSTANCE_KEY)
        .await;
    assert_eq!(registered.json()["DeviceToken"], USER);
    assert_eq!(registered.json()["AccessToken"]["ExpiresIn"], "432000");
    assert_eq!(
        client
            .login(&client::login_body(OTHER), Some(INSTANCE_ID))
            .await
            .unwrap()
            .status,
        401
    );
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
