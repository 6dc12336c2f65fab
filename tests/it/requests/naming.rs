//! Naming the principal and the instance.

use damoov_proxy::principal::InstanceId;
use damoov_proxy::simulator::{INSTANCE_KEY, Instance};

use crate::harness::{ECHO, SCORES, Scene, damoov_with, principal, proxy, user};
use crate::wire::{get, request};

/// `GET path` with nothing but these fields.
fn bare(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

#[tokio::test]
async fn a_device_token_that_is_not_one_uuid_is_refused() {
    let scene = Scene::new().await;
    let device = user(1).to_string();
    for value in [
        "",
        "a, b",
        "1",
        "not-a-uuid",
        &format!("{device}, {device}"),
        &format!("{device}0"),
        &format!("\"{device}\""),
        &format!("{{{device}}}"),
        &format!("urn:uuid:{device}"),
        &device[1..],
        &device.replace('-', "_"),
        &device.replace('0', "g"),
    ] {
        let fields = format!("DeviceToken: {value}\r\n");
        scene
            .refuses(bare(ECHO, &fields), 400, "device_token_invalid")
            .await;
    }
    let twice = format!("DeviceToken: {device}\r\nDeviceToken: {device}\r\n");
    scene
        .refuses(bare(ECHO, &twice), 400, "device_token_invalid")
        .await;
    for path in ["/~/mobilesdk/stage/echo", "/~x/mobilesdk/stage/echo"] {
        scene
            .refuses(bare(path, ""), 400, "device_token_invalid")
            .await;
    }
}

#[tokio::test]
async fn every_spelling_of_a_device_token_means_the_same_user() {
    let scene = Scene::new().await;
    let device = user(0xabcdef).to_string();
    let spellings = [
        device.clone(),
        device.to_uppercase(),
        device.replace('-', ""),
        device.replace('-', "").to_uppercase(),
    ];
    for spelling in &spellings {
        for request in [
            bare(ECHO, &format!("DeviceToken: {spelling}\r\n")),
            bare(&format!("/~{spelling}{ECHO}"), ""),
            bare(
                &format!("/%7e{spelling}{ECHO}"),
                &format!("DeviceToken: {device}\r\n"),
            ),
        ] {
            let answer = scene.ask(request).await;
            assert_eq!(answer.field("x-sim-device-token"), Some(&*device));
            assert_eq!(scene.heard().target, ECHO, "the prefix is cut off");
        }
    }
    assert_eq!(
        scene.damoov.handle().counts().total.logins.all(),
        1,
        "one user, one login"
    );
    let sent = format!("DeviceToken: {}\r\n", spellings[3]);
    scene.ask(bare(ECHO, &sent)).await;
    assert_eq!(scene.heard().headers["devicetoken"], spellings[3].as_str());
}

#[tokio::test]
async fn names_of_two_principals_are_a_conflict_and_nothing_is_looked_up() {
    let scene = Scene::new().await;
    let other = user(2);
    for (path, fields) in [
        (format!("/~{other}{ECHO}"), ""),
        (format!("/~{other}/v1/Management/users"), ""),
        ("/~account:reporting/v1/Management/users".to_owned(), ""),
        (
            format!("/~{other}{ECHO}"),
            "Authorization: Bearer somebody\r\n",
        ),
    ] {
        scene
            .refuses(get(&path, fields), 400, "principal_conflict")
            .await;
    }
    assert_eq!(scene.proxy.metric("token_lookups_total", "").await, 0.0);
}

#[tokio::test]
async fn a_request_that_names_nobody_is_told_how_to() {
    let scene = Scene::new().await;
    for (path, fields, code) in [
        (SCORES, "", "device_token_missing"),
        ("/v1/Management/users", "", "device_token_missing"),
        (
            "/~account:reporting/indicators/v3/Scores/safety",
            "",
            "device_token_missing",
        ),
        (
            "/~account:nobody/v1/companies/current",
            "",
            "account_unknown",
        ),
        ("/~account:/v1/companies/current", "", "account_unknown"),
    ] {
        scene.refuses(bare(path, fields), 400, code).await;
    }
    for path in [SCORES, "/v1/Management/users", "/v1/companies/current"] {
        let strangers = bare(path, "Authorization: Bearer somebody\r\n");
        scene.refuses(strangers, 401, "token_invalid").await;
    }
    let user_on_admin = format!("/~{}/v1/companies/current", user(1));
    scene
        .refuses(bare(&user_on_admin, ""), 400, "account_unknown")
        .await;
}

#[tokio::test]
async fn on_user_or_admin_routes_the_one_who_is_named_is_meant() {
    let scene = Scene::new().await;
    let profile = "/v1/Management/users";
    let answer = scene.ask(get(profile, "")).await;
    let device = user(1).to_string();
    assert_eq!(answer.field("x-sim-device-token"), Some(&*device));
    let answer = scene
        .ask(bare("/~account:reporting/v1/Management/users", ""))
        .await;
    let principal = answer.field("x-sim-principal").unwrap();
    assert!(principal.starts_with("account:"), "{principal}");
}

#[tokio::test]
async fn what_users_do_to_themselves_goes_out_as_the_user_or_as_an_account() {
    let scene = Scene::new().await;
    let device = user(1).to_string();
    for (method, path) in [
        ("PUT", "/v1/Management/Users"),
        ("POST", "/v1/Management/users/images/upload"),
        ("GET", "/v1/Leaderboard"),
    ] {
        let about = format!("Content-Length: 2\r\nUserDeviceToken: {device}\r\n");
        let of_the_user = request(method, path, "Content-Length: 2\r\n") + "{}";
        let answer = scene.ask(of_the_user).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.field("x-sim-device-token"), Some(&*device), "{path}");
        let head = format!("{method} /~account:reporting{path} HTTP/1.1\r\nHost: localhost\r\n");
        let answer = scene.ask(format!("{head}{about}\r\n{{}}")).await;
        assert_eq!(answer.status(), 200, "{path}");
        let principal = answer.field("x-sim-principal").unwrap();
        assert!(principal.starts_with("account:"), "{path}: {principal}");
    }
    for path in ["/indicators/v1/Scores", "/indicators/v2/Scores"] {
        let answer = scene.ask(get(path, "")).await;
        assert_eq!(answer.field("x-sim-device-token"), Some(&*device), "{path}");
    }
}

#[tokio::test]
async fn whether_a_user_exists_is_asked_with_the_instances_key_and_no_login() {
    let scene = Scene::new().await;
    let path = "/v1/Check/UserExists?Phone=%2B371000";
    let answer = scene.ask(bare(path, "X-Test-Id: 1\r\n")).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.code());
    let heard = scene.heard();
    assert_eq!(heard.target, path);
    assert_eq!(heard.headers["instancekey"], INSTANCE_KEY);
    assert!(!heard.headers.contains_key("authorization"));
    assert_eq!(scene.damoov.handle().counts().total.logins.all(), 0);
}

#[tokio::test]
async fn on_admin_routes_a_device_token_is_no_name_but_the_apis_own() {
    let scene = Scene::new().await;
    for value in [user(7).to_string(), "not-a-uuid".to_owned()] {
        let fields = format!("DeviceToken: {value}\r\nX-Test-Id: {value}\r\n");
        let answer = scene
            .ask(bare("/indicators/admin/v3/Scores/safety", &fields))
            .await;
        assert!(
            answer
                .field("proxy-status")
                .unwrap()
                .starts_with("damoov-proxy")
        );
        let heard = scene.heard();
        assert!(heard.principal.unwrap().starts_with("account:"));
        assert_eq!(heard.headers["devicetoken"], value.as_str());
    }
    let counts = scene.damoov.handle().counts_of(&principal(7));
    assert_eq!(counts.logins.all(), 0);
}

#[tokio::test]
async fn the_target_user_of_an_update_passes_untouched() {
    let scene = Scene::new().await;
    let value = "  {6F1C0C1E}, anything at all ";
    let fields = format!("UserDeviceToken:{value}\r\nX-Test-Id: 1\r\nContent-Length: 2\r\n");
    scene
        .ask(request("PUT", "/v1/Management/users", &fields) + "{}")
        .await;
    let heard = scene.heard();
    assert_eq!(heard.headers["userdevicetoken"], value.trim());
    assert!(heard.principal.unwrap().starts_with("account:"));
}

const OTHER_INSTANCE: &str = "22222222-2222-4222-8222-222222222222";

#[tokio::test]
async fn the_instance_is_the_one_named_else_the_one_the_user_is_known_under() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.instances.push(Instance {
            id: InstanceId::parse(OTHER_INSTANCE).unwrap(),
            key: "another-key".to_owned(),
        });
    })
    .await;
    let proxy = proxy(&damoov)
        .set("instance.0.default", "true")
        .toml(&format!(
            "[[instance]]\nname = \"other\"\nid = \"{OTHER_INSTANCE}\"\nkey = \"another-key\"\n"
        ))
        .start()
        .await;
    let scene = Scene { damoov, proxy };
    let named = format!("InstanceId: {OTHER_INSTANCE}\r\nX-Test-Id: 1\r\n");
    let unknown = "InstanceId: 33333333-3333-4333-8333-333333333333\r\n";
    for fields in [unknown, "InstanceId: x\r\n", "InstanceId: \r\n"] {
        scene
            .refuses(get(ECHO, fields), 400, "instance_unknown")
            .await;
    }
    let answer = scene.ask(get(ECHO, &named)).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.code());
    assert!(
        !scene.heard().headers.contains_key("instanceid"),
        "only `instance` routes see it"
    );
    assert_eq!(
        scene.ask(get(ECHO, "")).await.status(),
        200,
        "known under the other instance"
    );
    // An instance may be called what the configuration calls it.
    let answer = scene.ask(get(ECHO, "InstanceId: other\r\n")).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.code());
    for main in ["11111111-1111-4111-8111-111111111111", "main"] {
        let answer = scene
            .ask(get(ECHO, &format!("InstanceId: {main}\r\n")))
            .await;
        assert_eq!(
            (answer.status(), &*answer.code()),
            (403, "instance_mismatch")
        );
    }
    assert_eq!(scene.damoov.handle().counts().total.logins.all(), 1);
    let path = "/v1/Check/UserExists";
    let fields = "InstanceId: other\r\nX-Test-Id: 2\r\n";
    assert_eq!(scene.ask(bare(path, fields)).await.status(), 200);
    assert_eq!(scene.heard().headers["instanceid"], OTHER_INSTANCE);
}

/// A route of each kind that attaches no JWT, and where it is.
const NO_JWT: [(&str, &str, &str); 3] = [
    ("GET", "/pass/x", ""),
    ("GET", "/v1/Check/UserExists", ""),
    ("POST", "/v1/Auth/Login", "Content-Length: 2\r\n"),
];

async fn with_a_passthrough_route() -> Scene {
    Scene::with(|proxy| {
        proxy.toml(
            "[[route]]\npath = \"/pass\"\nhost = \"api.telematicssdk.com\"\n\
             credential = \"passthrough\"\n",
        )
    })
    .await
}

#[tokio::test]
async fn a_device_token_is_one_uuid_on_routes_without_a_jwt_too() {
    let scene = with_a_passthrough_route().await;
    let device = user(1).to_string();
    let list = format!("DeviceToken: {device}, {device}\r\n");
    let twice = format!("DeviceToken: {device}\r\n").repeat(2);
    let quoted = format!("DeviceToken: \"{device}\"\r\n");
    for (method, path, fields) in NO_JWT {
        for named in [
            "DeviceToken: \r\n",
            "DeviceToken: x\r\n",
            &list,
            &twice,
            &quoted,
        ] {
            let head =
                format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}{named}\r\n{{}}");
            scene.refuses(head, 400, "device_token_invalid").await;
        }
        let conflict = format!(
            "{method} /~{}{path} HTTP/1.1\r\nHost: localhost\r\n{fields}DeviceToken: {device}\r\n\r\n{{}}",
            user(2)
        );
        scene.refuses(conflict, 400, "principal_conflict").await;
    }
    let head = "GET /v1/Check/UserExists HTTP/1.1\r\nHost: localhost\r\nInstanceId: x\r\n\r\n";
    scene.refuses(head, 400, "instance_unknown").await;
    let fields = format!("DeviceToken: {}\r\nX-Test-Id: 1\r\n", device.to_uppercase());
    scene.ask(bare("/pass/x", &fields)).await;
    let heard = scene.heard().headers;
    assert_eq!(heard["devicetoken"], device.to_uppercase(), "as sent");
}

#[tokio::test]
async fn a_token_that_the_proxy_handed_out_passes_on_no_route() {
    let scene = with_a_passthrough_route().await;
    let fields = format!("{{\\\"Devicetoken\\\":\\\"{}\\\"}}", user(1));
    let login = format!("{{\"LoginFields\":\"{fields}\",\"Password\":\"{INSTANCE_KEY}\"}}");
    let head = format!("Content-Length: {}\r\n", login.len());
    let answer = scene
        .ask(request("POST", "/v1/Auth/Login", &head) + &login)
        .await;
    let answer: serde_json::Value = serde_json::from_slice(&answer.content).unwrap();
    let ours = answer["Result"]["AccessToken"]["Token"].as_str().unwrap();
    scene.damoov.handle().reset();
    for lines in [
        format!("Authorization: Bearer {ours}\r\n"),
        format!("Authorization: {ours}\r\n"),
        format!("Authorization: Basic eA==\r\nAuthorization: token {ours}\r\n"),
    ] {
        scene
            .refuses(bare("/pass/x", &lines), 400, "bad_request")
            .await;
    }
    for (method, path, more) in &NO_JWT[1..2] {
        let fields = format!("{more}Authorization: Bearer {ours}\r\nX-Test-Id: 1\r\n");
        assert_eq!(
            scene.ask(request(method, path, &fields)).await.status(),
            200
        );
        assert!(!format!("{:?}", scene.heard()).contains(ours));
    }
}
