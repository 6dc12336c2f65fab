//! Registrations, and what older versions of the API did.

use super::*;

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
