//! Requests as the vendor's open-source apps build them: Retrofit and OkHttp on Android,
//! AFNetworking on iOS. The user is the bearer's own, and an account that could be meant is
//! configured.

use damoov_proxy::principal::InstanceId;
use damoov_proxy::simulator::{INSTANCE_ID, INSTANCE_KEY, Instance, Simulator};
use serde_json::{Value, json};

use crate::harness::{Proxy, damoov_with, principal, proxy, user};
use crate::wire::{Message, Wire};

/// What users join by a code, which the simulator takes for the instance's id.
const COMPANY: &str = "22222222-2222-4222-8222-222222222222";
const MULTIPART: &str = "--Boundary-1\r\nContent-Disposition: form-data; name=\"file\"; \
                         filename=\"a.png\"\r\nContent-Type: image/*\r\n\r\n\u{1}PNG\r\n\
                         --Boundary-1--\r\n";

/// Which app calls.
#[derive(Clone, Copy, Debug)]
enum App {
    Android,
    Ios,
}

struct Scene {
    damoov: Simulator,
    proxy: Proxy,
}

impl Scene {
    async fn new() -> Scene {
        let damoov = damoov_with(|settings| {
            settings.login_limit = None;
            settings.instances.push(Instance {
                id: InstanceId::parse(COMPANY).unwrap(),
                key: "another-key".to_owned(),
            });
        })
        .await;
        let proxy = proxy(&damoov)
            .set("login_budget.logins", "100")
            .set("renewal.contested_backoff", "0s")
            .toml(&format!(
                "[[instance]]\nname = \"company\"\nid = \"{COMPANY}\"\nkey = \"another-key\"\n"
            ))
            .set("instance.0.default", "true")
            .start()
            .await;
        Scene { damoov, proxy }
    }

    /// The token that the app of this user holds.
    async fn log_in(&self, number: usize) -> String {
        let fields = json!({"DeviceToken": user(number).to_string()});
        let login = json!({"loginFields": fields, "password": INSTANCE_KEY}).to_string();
        let head = format!(
            "POST /v1/Auth/Login HTTP/1.1\r\nHost: localhost\r\nInstanceId: {INSTANCE_ID}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            login.len()
        );
        let answer = Wire::to(&self.proxy).await.ask(head + &login).await;
        let answer: Value = serde_json::from_slice(&answer.content).unwrap();
        let token = answer["Result"]["AccessToken"]["Token"].as_str().unwrap();
        token.to_owned()
    }

    /// A call as an app makes it. `token` is empty before there is a login.
    async fn call(&self, app: App, line: &str, number: usize, token: &str, body: Body) -> Message {
        let mut fields = match app {
            // Interceptors put these on every request.
            App::Android => format!(
                "Authorization: {}\r\nInstanceId: {INSTANCE_ID}\r\nInstanceKey: {INSTANCE_KEY}\r\n\
                 Accept-Encoding: gzip\r\nUser-Agent: okhttp/4.9.0\r\n",
                format!("Bearer {token}").trim()
            ),
            App::Ios => format!(
                "Authorization: Bearer {token}\r\nDeviceToken: {}\r\nInstanceId: {INSTANCE_ID}\r\n\
                 InstanceKey: {INSTANCE_KEY}\r\nappversion: 2.0\r\nAccept: */*\r\n\
                 Accept-Language: en;q=1\r\nAccept-Encoding: gzip, deflate, br\r\n",
                user(number)
            ),
        };
        let content = match body {
            Body::None => "",
            Body::Json(content) => {
                fields += "Content-Type: application/json; charset=UTF-8\r\n";
                content
            }
            Body::Image => {
                fields += "Content-Type: multipart/form-data; boundary=Boundary-1\r\n";
                MULTIPART
            }
        };
        if !line.starts_with("GET") {
            fields += &format!("Content-Length: {}\r\n", content.len());
        }
        let head =
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nX-Test-Id: 1\r\n{fields}\r\n{content}");
        Wire::to(&self.proxy).await.ask(head).await
    }
}

#[derive(Clone, Copy)]
enum Body {
    None,
    Json(&'static str),
    Image,
}

#[tokio::test]
async fn what_an_app_calls_with_its_users_token_goes_out_as_that_user() {
    let scene = Scene::new().await;
    let token = scene.log_in(1).await;
    let device = user(1).to_string();
    let profile = Body::Json(r#"{"FirstName":"Grace"}"#);
    for app in [App::Android, App::Ios] {
        for (line, body) in [
            ("GET /v1/Management/users", Body::None),
            ("GET /v1/Management/Users/", Body::None),
            ("PUT /v1/Management/Users", profile),
            ("PUT /v1/management/users", profile),
            ("PUT /V1/MANAGEMENT/USERS/", profile),
            ("POST /v1/Management/users/images/upload", Body::Image),
            ("POST /v1/Management/Users/Images/Upload/", Body::Image),
            (
                "GET /indicators/v1/Scores/safety?StartDate=2026-11-01&EndDate=2026-11-02",
                Body::None,
            ),
            ("GET /indicators/v1/Statistics?Tag=Business", Body::None),
            ("GET /indicators/v1/Streaks", Body::None),
            ("GET /indicators/v2/Scores/eco", Body::None),
            ("GET /indicators/v3/Scores/safety/daily", Body::None),
            ("GET /api/rewarding/v1/Coins/individual", Body::None),
            ("GET /api/rewarding/v2/DriveCoins/dailylimit", Body::None),
            (
                "GET /v1/Leaderboard?usersCount=10&roundUsersCount=3",
                Body::None,
            ),
            ("GET /v1/Leaderboard/user", Body::None),
            ("POST /mobilesdk/stage/track/7/setdeleted/v1", Body::None),
            (
                "POST /mobilesdk/stage/events/reportwrongeventtype/v1/7",
                profile,
            ),
        ] {
            // Each meets an expired token: it is sent twice, alike.
            scene.damoov.handle().expire(None);
            let answer = scene.call(app, line, 1, &token, body).await;
            assert_eq!(answer.status(), 200, "{app:?} {line}: {}", answer.head);
            let served = answer.field("x-sim-device-token");
            assert_eq!(served, Some(&*device), "{app:?} {line}");
            let heard = scene.damoov.handle().requests();
            let [.., first, second] = &heard[..] else {
                panic!("{line}: {heard:?}");
            };
            assert_eq!((first.status, second.status), (401, 200), "{line}");
            for heard in [first, second] {
                let target = line.split_once(' ').unwrap().1;
                assert_eq!(heard.target, target, "as the app writes it");
                assert!(!format!("{heard:?}").contains(&token), "{line}");
                if let Body::Image = body {
                    let content = heard.content.as_ref().unwrap();
                    assert_eq!(content, MULTIPART.as_bytes());
                    let kind = &heard.headers["content-type"];
                    assert_eq!(kind, "multipart/form-data; boundary=Boundary-1");
                }
            }
        }
    }
    assert_eq!(
        scene.damoov.handle().counts_of(&principal(1)).logins.all(),
        1
    );
    assert_eq!(scene.damoov.handle().counts().total.logins.all(), 1);
}

#[tokio::test]
async fn before_there_is_a_login_an_app_may_ask_whether_a_user_exists() {
    let scene = Scene::new().await;
    for (app, line) in [
        (App::Android, "GET /v1/Check/UserExists?Phone=%2B371000"),
        (App::Android, "GET /v1/Check/UserExists?Email=a%40b.example"),
        (App::Android, "GET /v1/check/userexists/?ClientId=7"),
        (App::Ios, "GET /v1/Check/UserExists?Phone=%2B371000"),
    ] {
        let answer = scene.call(app, line, 1, "", Body::None).await;
        assert_eq!(answer.status(), 200, "{line}: {}", answer.head);
        let heard = scene.damoov.handle().requests().pop().unwrap();
        assert_eq!(heard.target, line.split_once(' ').unwrap().1);
        assert_eq!(heard.headers["instancekey"], INSTANCE_KEY);
        assert!(!heard.headers.contains_key("authorization"), "{line}");
    }
    assert_eq!(scene.damoov.handle().counts().total.logins.all(), 0);
}

#[tokio::test]
async fn a_user_that_joins_a_company_is_forgotten_and_no_other() {
    let scene = Scene::new().await;
    let bystander = scene.log_in(99).await;
    let scores = "GET /indicators/v1/Scores/safety";
    let paths = [
        format!("/v1/Management/users/instances/change/{COMPANY}"),
        format!("/v1/Management/Users/Instances/Change/{COMPANY}"),
        format!("/V1/MANAGEMENT/USERS/INSTANCES/CHANGE/{COMPANY}/"),
    ];
    let calls = [App::Android, App::Ios]
        .into_iter()
        .flat_map(|app| paths.iter().map(move |path| (app, path)));
    for (number, (app, path)) in (1..).zip(calls) {
        let token = scene.log_in(number).await;
        let answer = scene
            .call(app, &format!("POST {path}"), number, &token, Body::None)
            .await;
        assert_eq!(answer.status(), 200, "{app:?} {path}: {}", answer.head);
        let served = answer.field("x-sim-device-token");
        assert_eq!(served, Some(&*user(number).to_string()));

        // Its tokens ended, here as there: the app is told to log in.
        let answer = scene
            .call(App::Android, scores, number, &token, Body::None)
            .await;
        assert_eq!((answer.status(), &*answer.code()), (401, "token_invalid"));
        let named = format!(
            "{scores} HTTP/1.1\r\nHost: localhost\r\nDeviceToken: {}\r\nInstanceId: {COMPANY}\r\n\r\n",
            user(number)
        );
        let answer = Wire::to(&scene.proxy).await.ask(named).await;
        assert_eq!(answer.status(), 200, "{}", answer.head);
        let count = scene.damoov.handle().counts_of(&principal(number));
        // Nothing dead was tried: no refresh was rejected, and the second login is the company's.
        assert_eq!((count.logins.ok, count.refreshes.all()), (2, 0), "{path}");

        let answer = scene
            .call(App::Android, scores, 99, &bystander, Body::None)
            .await;
        assert_eq!(answer.status(), 200);
    }
    let count = scene.damoov.handle().counts_of(&principal(99));
    assert_eq!((count.logins.all(), count.refreshes.all()), (1, 0));
}

#[tokio::test]
async fn a_code_that_is_refused_leaves_the_users_tokens() {
    let scene = Scene::new().await;
    let token = scene.log_in(1).await;
    for code in ["wrong", "two%20words", "%C3%A4"] {
        let line = format!("POST /v1/Management/users/instances/change/{code}");
        let answer = scene.call(App::Ios, &line, 1, &token, Body::None).await;
        assert_eq!(answer.status(), 404, "{code}");
        assert_eq!(answer.code(), "Request", "the API's own answer");
    }
    let line = "GET /indicators/v1/Statistics/dates";
    let answer = scene.call(App::Ios, line, 1, &token, Body::None).await;
    assert_eq!(answer.status(), 200);
    let count = scene.damoov.handle().counts_of(&principal(1));
    assert_eq!((count.logins.all(), count.refreshes.all()), (1, 0));
}
