//! The target `audit`: what became of whose tokens, and who asked for it. It is filtered apart from `access`.

use damoov_proxy::simulator::{Action, Fault, INSTANCE_ID, On, Status};
use serde_json::{Value, json};

use super::objects;
use crate::harness::{Proxy, SCORES, Scene, captured, eventually, principal, user, write_private};

/// The lines of a target so far.
fn lines_of(log: &str, target: &str) -> Vec<Value> {
    // The last line may be half written.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let mut lines = objects(whole);
    lines.retain(|line| line["target"] == target);
    lines
}

/// Message, trigger and result of each audit line, once there are as many.
async fn audited(proxy: &Proxy, count: usize) -> Vec<String> {
    let lines = || lines_of(&proxy.log(), "audit");
    eventually("audit lines", async || lines().len() >= count).await;
    let text = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
    let summary = |line: &Value| {
        let [message, grant, trigger, result] =
            ["message", "grant", "trigger", "result"].map(|field| text(line, field));
        format!("{message}: {grant} {trigger} {result}")
    };
    lines().iter().map(summary).collect()
}

#[tokio::test]
async fn logins_refreshes_and_rejections_are_audited_under_the_users_log_name() {
    let scene = Scene::new().await;
    let (damoov, proxy) = (scene.damoov.handle(), &scene.proxy);
    proxy.get(1, SCORES).await;
    damoov.expire(None);
    proxy.get(1, SCORES).await;
    damoov.revoke_refresh_tokens(Some(&principal(1)));
    damoov.expire(None);
    proxy.get(1, SCORES).await;
    assert_eq!(
        audited(proxy, 4).await,
        [
            "login: login missing ok",
            "refresh: refresh rejected ok",
            "rejection: refresh rejected rejected",
            "login: login rejected ok",
        ]
    );
    let log = proxy.log();
    let access = lines_of(&log, "access");
    for line in lines_of(&log, "audit") {
        assert_eq!(line["principal"], access[0]["principal"], "{line}");
        assert_eq!(line["level"], "INFO");
        assert!(line["duration_ms"].as_f64().is_some(), "{line}");
    }
    assert!(!log.contains(&user(1).to_string()));
}

#[tokio::test]
async fn audit_and_access_are_filtered_apart() {
    for (filter, access, audit) in [
        ("info,access=off", 0, 1),
        ("info,audit=off", 1, 0),
        // What the harness waits for is info as well.
        ("warn,damoov_proxy=info,audit=info", 0, 1),
    ] {
        let mut scene = Scene::with(|proxy| proxy.env("DAMOOV_PROXY_LOG", filter)).await;
        assert_eq!(scene.proxy.get(1, SCORES).await.status, 200);
        scene.proxy.terminate().await;
        let log = scene.proxy.log();
        for (target, lines) in [("access", access), ("audit", audit)] {
            assert_eq!(lines_of(&log, target).len(), lines, "{filter}: {log}");
        }
    }
}

/// The audit lines that a command writes, all of them to standard error.
async fn audited_by(proxy: &Proxy, command: &str) -> Vec<Value> {
    let output = captured(proxy.command(command)).await;
    let [printed, said] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{said}");
    assert!(!printed.contains("audit"), "{printed}");
    let is_object = |line: &&str| line.starts_with('{');
    let lines: Vec<_> = said.lines().filter(is_object).collect();
    let lines = objects(&lines.join("\n"));
    assert!(lines.iter().all(|line| line["target"] == "audit"), "{said}");
    lines
}

#[tokio::test]
async fn commands_write_their_audit_lines_to_their_own_standard_error() {
    let limited = || {
        Action::Status(Status {
            code: 429,
            retry_after: Some(3000),
            content: None,
        })
    };
    let scene = Scene::new().await;
    let (damoov, proxy) = (&scene.damoov, &scene.proxy);
    let whose = principal(1);
    let pair = damoov.handle().issue(&whose);
    let file = proxy.config().with_file_name("pairs.jsonl");
    let line = json!({
        "DeviceToken": user(1).to_string(),
        "InstanceId": INSTANCE_ID,
        "AccessToken": pair.access_token,
        "RefreshToken": pair.refresh_token,
    });
    write_private(&file, &format!("{line}\n"));
    damoov.handle().add_fault(Fault::new(On::Login, limited()));
    assert_eq!(proxy.get(2, SCORES).await.code(), "login_blocked");

    let import = format!("tokens import --from {}", file.display());
    let dry_run = audited_by(proxy, &format!("{import} --dry-run")).await;
    assert_eq!(dry_run, [Value::Null; 0], "it changes nothing");
    let [imported] = &audited_by(proxy, &import).await[..] else {
        panic!("one line for all that is imported")
    };
    assert_eq!(
        (&imported["message"], &imported["imported"]),
        (&"import".into(), &1.into())
    );
    let forget = format!("tokens forget {}", user(1));
    let [forgotten] = &audited_by(proxy, &forget).await[..] else {
        panic!("one line")
    };
    assert_eq!(forgotten["message"], "forget");
    let (_, shown) = proxy.run(&format!("tokens show {}", user(1))).await;
    assert!(
        shown.contains(forgotten["principal"].as_str().unwrap()),
        "{shown}"
    );
    let [unblocked] = &audited_by(proxy, "budget unblock --yes").await[..] else {
        panic!("one line")
    };
    assert_eq!(
        (&unblocked["message"], &unblocked["group"]),
        (&"unblock".into(), &"default".into())
    );
    let uid = rustix::process::getuid().as_raw();
    for line in [imported, forgotten, unblocked] {
        assert_eq!(line["uid"], uid, "{line}");
        assert!(!line.to_string().contains(&user(1).to_string()), "{line}");
    }
}
