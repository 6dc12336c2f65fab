//! The canary test (I8): unique strings in every secret, everything that can go wrong with them at
//! TRACE, and none of them in any output.

use std::fs;
use std::process::Output;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use damoov_proxy::simulator::{
    ACCOUNT_EMAIL, Account, Action, Fault, Garbage, INSTANCE_ID, Lost, On, Simulator,
};
use http::Request;

use crate::harness::{
    Answer, ECHO, Proxy, SCORES, captured, damoov_with, principal, proxy, user, write_private,
};
use crate::wire::{Wire, get};

// A store on PostgreSQL.
mod on_postgres;
// What is looked for: each form of a secret, in every text and file.
mod needles;
// What passes between the proxy and the Auth endpoints.
mod tap;

use needles::{absent, files_below, forms};
use tap::Tap;

const INSTANCE_KEY: &str = "canary-instance/key+%22\\ends";
const PASSWORD: &str = "canary-password\"/+%'ends";
/// 32 bytes: `canary-store-key-canary-store-ke`.
const STORE_KEY: &str = "Y2FuYXJ5LXN0b3JlLWtleS1jYW5hcnktc3RvcmUta2U=";
/// What callers send and nobody is to repeat.
const FROM_CALLERS: [&str; 4] = [
    "canary-bearer-of-a-caller",
    "canary-cookie-of-a-caller",
    "canary-proxy-key-of-a-caller",
    "canary-query-of-a-caller",
];

#[tokio::test]
async fn no_secret_is_in_any_output_whatever_happens() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.instances[0].key = INSTANCE_KEY.to_owned();
        settings.accounts = vec![Account {
            email: ACCOUNT_EMAIL.to_owned(),
            password: PASSWORD.to_owned(),
        }];
    })
    .await;
    let tap = Tap::before(&damoov).await;
    let mut proxy = proxy(&damoov)
        .redirect("user.telematicssdk.com", &tap.url)
        .set("instance.0.key.env", "CANARY_INSTANCE_KEY")
        .env("CANARY_INSTANCE_KEY", INSTANCE_KEY)
        .set("account.0.password.env", "CANARY_PASSWORD")
        .env("CANARY_PASSWORD", PASSWORD)
        .set("store.key.env", "CANARY_STORE_KEY")
        .env("CANARY_STORE_KEY", STORE_KEY)
        .set("login_budget.logins", "1000")
        .set("renewal.timeout", "1s")
        .env("DAMOOV_PROXY_LOG", "trace")
        .start()
        .await;

    let mut answers = what_can_happen(&damoov, &proxy).await;
    let handed_out = callers_that_log_in(&damoov, &proxy, &mut answers).await;
    let mut outputs = commands(&damoov, &proxy).await;
    answers.push(shown(&proxy.status("/metrics").await));
    let everything_logged = {
        assert!(proxy.terminate().await.success());
        proxy.log()
    };
    assert!(everything_logged.contains("\"level\":\"DEBUG\""));
    outputs.push(everything_logged);

    let mut secrets = tap.tokens();
    assert!(secrets.len() > 20, "only {} tokens issued", secrets.len());
    secrets.extend([INSTANCE_KEY, PASSWORD, STORE_KEY].map(str::to_owned));
    secrets.push(String::from_utf8(BASE64_STANDARD.decode(STORE_KEY).unwrap()).unwrap());
    let needles: Vec<_> = secrets.iter().flat_map(|secret| forms(secret)).collect();

    for text in outputs.iter().chain(&answers) {
        absent(&needles, text.as_bytes(), text);
    }
    let mut files = 0;
    for file in files_below(proxy.store()) {
        absent(
            &needles,
            &fs::read(&file).unwrap(),
            &file.display().to_string(),
        );
        files += 1;
    }
    assert!(files >= 2, "the store has files");
    let from_callers = FROM_CALLERS.into_iter().map(str::to_owned);
    let from_callers: Vec<_> = from_callers
        .chain(handed_out)
        .flat_map(|text| forms(&text))
        .collect();
    for text in &outputs {
        absent(&from_callers, text.as_bytes(), text);
    }
}

/// Logins, refreshes, replays, and every way in which they fail. What callers got to see.
async fn what_can_happen(damoov: &Simulator, proxy: &Proxy) -> Vec<String> {
    let handle = damoov.handle();
    let mut answers = Vec::new();
    let mut number = 0;
    let failures = [
        Action::Lose(Lost::Reset),
        Action::Lose(Lost::Half),
        Action::Lose(Lost::Hang),
        Action::Garbage(Garbage::Html),
        Action::Garbage(Garbage::CutJson),
        Action::Garbage(Garbage::ResultNull),
        Action::Garbage(Garbage::OtherStatus(500)),
        Action::Garbage(Garbage::NoRefreshToken),
        Action::Garbage(Garbage::ExpiresIn("x".into())),
        Action::Garbage(Garbage::OtherUser),
        Action::status(400),
        Action::status(401),
        Action::status(500),
    ];
    // Somebody whose token `OtherUser` can take.
    answers.push(shown(&proxy.get(0, ECHO).await));
    let mut calls = Vec::new();
    for on in [On::Login, On::Refresh] {
        for action in &failures {
            number += 1;
            if on == On::Refresh {
                answers.push(shown(&proxy.get(number, ECHO).await));
                handle.expire(Some(&principal(number)));
            }
            let fault = Fault::new(on.clone(), action.clone());
            handle.add_fault(fault.of(principal(number)).times(2));
            calls.push(proxy.get(number, SCORES));
        }
    }
    let failed = futures_util::future::join_all(calls).await;
    answers.extend(failed.iter().map(shown));

    let admin = Request::get("/v1/companies/current");
    answers.push(shown(&proxy.send(admin).await));
    handle.expire(None);
    let admin = Request::get("/v1/companies/current");
    answers.push(shown(&proxy.send(admin).await));
    let create = Request::post("/v1/Registration/create");
    answers.push(shown(&proxy.send_with(create, "{}").await));

    let [bearer, cookie, key, query] = FROM_CALLERS;
    let fields = format!(
        "Authorization: Bearer {bearer}\r\nCookie: {cookie}\r\nX-Damoov-Proxy-Key: {key}\r\n"
    );
    for path in [ECHO, "/nowhere", "/v1/Auth/Login", "/%zz"] {
        let mut caller = Wire::to(proxy).await;
        let answer = caller.ask(get(&format!("{path}?{query}"), &fields)).await;
        answers.push(answer.head);
    }
    Wire::to(proxy)
        .await
        .ask(get(ECHO, &format!("{fields}{query} : x\r\n")))
        .await;
    answers
}

/// Logins, refreshes and registrations through the proxy, good and bad ones. The tokens that were
/// handed out.
async fn callers_that_log_in(
    damoov: &Simulator,
    proxy: &Proxy,
    answers: &mut Vec<String>,
) -> Vec<String> {
    let mut handed_out = Vec::new();
    let device = user(2000).to_string();
    let login = |fields: serde_json::Value, password: &str| {
        serde_json::json!({"LoginFields": fields.to_string(), "Password": password}).to_string()
    };
    let as_user = serde_json::json!({"Devicetoken": device});
    let as_account = serde_json::json!({"email": ACCOUNT_EMAIL});
    let new_user = serde_json::json!({"CreateAccessToken": true}).to_string();
    for (path, content) in [
        ("/v1/Auth/Login", login(as_user.clone(), INSTANCE_KEY)),
        ("/v1/Auth/Login", login(as_account.clone(), PASSWORD)),
        ("/v1/Registration/create", new_user.clone()),
        ("/v1/Auth/Login", login(as_user.clone(), PASSWORD)),
        ("/v1/Auth/Login", login(as_account, INSTANCE_KEY)),
        ("/v1/Auth/Login", format!("{INSTANCE_KEY}{PASSWORD}")),
        ("/v1/Auth/RefreshToken", format!("[{INSTANCE_KEY:?}]")),
    ] {
        let answer = proxy.send_with(Request::post(path), content).await;
        answers.push(shown(&answer));
        let envelope: serde_json::Value = serde_json::from_slice(answer.content()).unwrap();
        let result = &envelope["Result"];
        let Some(access) = result["AccessToken"]["Token"].as_str() else {
            continue;
        };
        let refresh = result["RefreshToken"].as_str().unwrap();
        handed_out.extend([access, refresh].map(str::to_owned));
        for (access, refresh) in [(access, refresh), (refresh, access)] {
            let pair = serde_json::json!({"AccessToken": access, "RefreshToken": refresh});
            let request = Request::post("/v1/Auth/RefreshToken");
            let answer = proxy.send_with(request, pair.to_string()).await;
            answers.push(shown(&answer));
            for path in [SCORES, "/v1/Management/users", "/nowhere"] {
                let bearer = format!("Bearer {access}");
                let request = Request::get(path).header("Authorization", bearer);
                answers.push(shown(&proxy.send(request).await));
            }
        }
    }
    assert_eq!(handed_out.len(), 6);
    for action in [Action::Garbage(Garbage::CutJson), Action::status(500)] {
        let fault = Fault::new(On::Registration, action);
        damoov.handle().add_fault(fault.times(1));
        let request = Request::post("/v1/Registration/create");
        answers.push(shown(&proxy.send_with(request, new_user.clone()).await));
    }
    handed_out
}

/// What the command line says of the same store.
async fn commands(damoov: &Simulator, proxy: &Proxy) -> Vec<String> {
    let issued = damoov.handle().issue(&principal(1000));
    let line = |number: usize, access: &str| {
        serde_json::json!({
            "DeviceToken": user(number).to_string(),
            "InstanceId": INSTANCE_ID,
            "AccessToken": access,
            "RefreshToken": issued.refresh_token,
        })
        .to_string()
    };
    let good = line(1000, &issued.access_token);
    let lines = [
        good.clone(),
        good[..good.len() - 10].to_owned(),
        good.replace("AccessToken", "Access"),
        good.replacen("0000-", "x", 1),
        line(1001, &issued.access_token),
        line(1002, &format!("{}.", issued.access_token)),
        format!("[{good}]"),
    ];
    let file = proxy.store().with_file_name("pairs");
    write_private(&file, &lines.join("\n"));
    let import = format!("tokens import --from {}", file.display());
    let device = user(0).to_string();
    let mut outputs = Vec::new();
    for (command, code) in [
        (&*import, 65),
        ("tokens list", 0),
        (&format!("tokens show {device}"), 0),
        (&format!("explain {device} --json"), 0),
        (&format!("tokens forget {device}"), 0),
        ("check", 0),
    ] {
        let output = captured(proxy.command(command)).await;
        assert_eq!(output.status.code(), Some(code), "{command}: {output:?}");
        outputs.push(said(&output));
    }
    for (variable, value) in [
        ("DAMOOV_PROXY__INSTANCE__0__ID", "x"),
        ("DAMOOV_PROXY__ACCOUNT__0__EMAIL", "x"),
        ("CANARY_STORE_KEY", "canary-store-key-canary-store-ke"),
        ("CANARY_INSTANCE_KEY", "canary-instance/key+%22\\ends\n\n"),
        ("DAMOOV_PROXY__INSTANCE__0__KEY", INSTANCE_KEY),
    ] {
        let mut check = proxy.command("check");
        check.env(variable, value);
        outputs.push(said(&captured(check).await));
    }
    outputs
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr]
        .map(String::from_utf8_lossy)
        .concat()
}

fn shown(answer: &Answer) -> String {
    format!("{:?} {}", answer.headers, answer.text())
}
