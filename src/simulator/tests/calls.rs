//! The data endpoints, the sockets and the control API.

use super::*;

#[tokio::test]
async fn each_endpoint_wants_its_kind_of_token() {
    let (simulator, client) = start(unlimited()).await;
    let user = client.log_in(USER).await.access();
    let admin = client.log_in_account().await.access();
    // Path, status for a user's token, status for an account's.
    let table = [
        (
            "/indicators/v3/Scores/safety?StartDate=2026-06-01&EndDate=2026-06-30",
            200,
            403,
        ),
        ("/indicators/v3/Scores/safety?StartDate=yesterday", 422, 403),
        (
            "/indicators/v3/Scores/safety?StartDate=2026-06-02&EndDate=2026-06-01",
            422,
            403,
        ),
        ("/indicators/admin/v3/Scores/safety", 403, 200),
        ("/trips/get/v1/", 200, 403),
        ("/trips/get/v1/no-such-trip", 404, 403),
        ("/trips/get/admin/v1", 403, 200),
        ("/statistics/v1/statistics/individual/daily", 200, 403),
        ("/statistics/v1/statistics/consolidated/daily", 403, 200),
        ("/v1/Management/users", 200, 200),
        ("/v1/Management/users/GetFilteredPage", 403, 200),
        (
            "/v1/Instances/11111111-1111-4111-8111-111111111111",
            403,
            200,
        ),
        ("/v1/instances", 404, 404),
        ("/v1/companies", 403, 200),
        ("/v1/Applications", 403, 200),
        ("/v1/applications", 403, 200),
        ("/auth/permissions", 403, 200),
        ("/v1/Permissions/all", 403, 200),
        ("/realtime/api/v1/devices", 200, 200),
        ("/mobilesdk/stage/x", 200, 403),
        ("/api/rewarding/x", 200, 403),
        ("/mobilesdkx", 404, 404),
        ("/nowhere", 404, 404),
    ];
    for (path, as_user, as_admin) in table {
        assert_eq!(client.get(path, &user).await.status, as_user, "user {path}");
        assert_eq!(
            client.get(path, &admin).await.status,
            as_admin,
            "account {path}"
        );
        let nobody = client.get(path, "never.issued.this").await;
        let expected = if as_user == 404 && as_admin == 404 {
            404
        } else {
            401
        };
        assert_eq!(nobody.status, expected, "nobody {path}");
        let status = if path.starts_with("/realtime") || path.contains("ermissions") {
            "status"
        } else {
            "Status"
        };
        assert_eq!(nobody.json()[status], expected, "{path}");
    }
    let path = "/v1/Instances/11111111-1111-4111-8111-111111111111";
    let known = client.get(path, &admin).await;
    assert_eq!(known.json()["Result"]["Status"], "Active");
    let unknown = client
        .get(&path.replace("11111111", "22222222"), &admin)
        .await;
    assert_eq!(unknown.json()["Result"], Value::Null);
    assert!(client.get("/auth/permissions", &admin).await.json()["result"].is_object());
    simulator.shutdown().await;
}

#[tokio::test]
async fn an_answer_says_whose_token_came_with_what_and_a_test_finds_it_again() {
    let (simulator, client) = start(unlimited()).await;
    let token = client.log_in(USER).await.access();
    let target = "/mobilesdk/stage/echo/a%20b?x=%41&&y";
    let request = client::request(Method::PUT, target)
        .header("authorization", format!("Bearer {token}"))
        .header("devicetoken", OTHER)
        .header("x-test-id", "7")
        .body(client::content("abc"))
        .unwrap();
    let answered = client.send(request).await.unwrap();
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(answered.headers["x-sim-device-token"], USER);
    assert_eq!(answered.headers["x-sim-method"], "PUT");
    assert_eq!(answered.headers["x-sim-target"], target);
    assert_eq!(answered.headers["x-sim-content-length"], "3");
    assert_eq!(answered.headers["x-sim-content-sha256"], sha256);
    assert_eq!(answered.json()["Result"]["Sim"]["DeviceToken"], USER);
    assert_eq!(simulator.handle().counts_of(&user(USER)).wrong_tokens, 1);

    let recorded = simulator.handle().requests_of("7");
    assert_eq!(recorded.len(), 1);
    assert_eq!(
        (recorded[0].method.as_str(), recorded[0].target.as_str()),
        ("PUT", target)
    );
    assert_eq!(recorded[0].content, Some(Bytes::from("abc")));
    assert_eq!(recorded[0].headers["devicetoken"], OTHER);
    let listed = client
        .control(Method::GET, "/requests?test_id=7", "")
        .await
        .json();
    assert_eq!(listed[0]["content_sha256"], sha256);
    assert_eq!(
        client
            .control(Method::GET, "/requests?test_id=8", "")
            .await
            .json(),
        json!([])
    );
    simulator.shutdown().await;
}

#[tokio::test]
async fn large_answers_and_uploads_stream() {
    let (simulator, client) = start(unlimited()).await;
    let token = client.log_in(USER).await.access();
    for length in [0, 1, 65_536, 3_000_000] {
        let sized = client
            .get(&format!("/mobilesdk/stage/bytes/{length}"), &token)
            .await;
        assert_eq!(sized.content.len(), length);
        assert_eq!(sized.headers["content-length"], length.to_string());
        let chunked = client
            .get(&format!("/mobilesdk/stage/chunked/{length}"), &token)
            .await;
        assert_eq!(chunked.content.len(), length);
        assert!(!chunked.headers.contains_key("content-length"));
    }
    let upload = client::request(Method::POST, "/mobilesdk/stage/sink")
        .header("authorization", format!("Bearer {token}"))
        .body(client::content(vec![b'u'; 6 << 20]))
        .unwrap();
    let answered = client.send(upload).await.unwrap();
    assert_eq!(answered.json()["Result"]["Sim"]["ContentLength"], 6 << 20);
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_thousand_calls_at_once_are_all_answered() {
    let (simulator, client) = start(unlimited()).await;
    let token = client.log_in(USER).await.access();
    let calls = (0..1000).map(|_| client.get("/indicators/v3/x", &token));
    for answered in futures_util::future::join_all(calls).await {
        assert_eq!(answered.status, 200);
    }
    assert_eq!(simulator.handle().counts_of(&user(USER)).data_calls, 1000);
    simulator.shutdown().await;
}

#[tokio::test]
async fn with_tls_http_1_1_is_spoken_and_nothing_else() {
    for (offered, status) in [("h2", None), ("http/1.1", Some(200))] {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private.unwrap())
            .unwrap();
        let settings = Settings {
            tls: Some(Arc::new(tls)),
            ..unlimited()
        };
        let simulator = Simulator::start(settings).await.unwrap();
        assert!(simulator.base_url().starts_with("https://127.0.0.1:"));

        let mut roots = rustls::RootCertStore::empty();
        roots.add(key.cert.der().clone()).unwrap();
        let mut trusting = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        trusting.alpn_protocols = vec![offered.into()];
        let seen = client::status_over_tls(simulator.addr(), trusting).await;
        assert_eq!(seen.ok(), status, "{offered}");
        simulator.shutdown().await;
    }
}

#[tokio::test]
async fn the_control_api_steers_one_or_all() {
    let (simulator, client) = start(unlimited()).await;
    let (mine, theirs) = (client.log_in(USER).await, client.log_in(OTHER).await);
    let post = async |command: &str| client.control(Method::POST, command, "").await.json();
    assert_eq!(
        post(&format!("/expire?principal={USER}")).await,
        json!({"expired": 1})
    );
    assert_eq!(
        client.get("/trips/get/v1", &mine.access()).await.status,
        401
    );
    assert_eq!(
        client.get("/trips/get/v1", &theirs.access()).await.status,
        200
    );
    assert_eq!(post("/revoke-refresh-tokens").await, json!({"revoked": 2}));
    assert_eq!(client.refresh(&theirs).await.unwrap().status, 401);
    assert_eq!(
        client.get("/trips/get/v1", &theirs.access()).await.status,
        200
    );

    let issued = post(&format!("/issue?principal={USER}")).await;
    let token = issued["access_token"].as_str().unwrap().to_owned();
    assert_eq!(client.get("/trips/get/v1", &token).await.status, 200);
    assert_eq!(post("/revoke").await, json!({"revoked": 1}));
    assert_eq!(client.get("/trips/get/v1", &token).await.status, 401);

    let counts = client.control(Method::GET, "/counts", "").await.json();
    assert_eq!(counts["total"]["logins"]["ok"], 2);
    assert_eq!(
        counts["principals"][format!("user:{USER}")]["unauthorized"],
        2
    );
    post("/reset").await;
    assert_eq!(simulator.handle().counts().total, Count::default());

    let refused = client
        .control(
            Method::POST,
            "/faults",
            r#"{"on":"nowhere","action":"reset"}"#,
        )
        .await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("a path like /trips"),
        "{}",
        refused.text()
    );
    assert_eq!(client.control(Method::GET, "/what", "").await.status, 404);
    assert_eq!(
        client
            .control(Method::POST, "/expire?principal=x", "")
            .await
            .status,
        400
    );
    simulator.shutdown().await;
}
