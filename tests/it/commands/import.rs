//! `tokens import`: what it takes, what it leaves alone, and what it says of the rest.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::slice::from_ref;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use damoov_proxy::simulator::{Action, Delay, Fault, INSTANCE_ID, On, Simulator};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{
    ECHO, Proxy, SCORES, captured, damoov, eventually, principal, proxy, user, write_private,
};

/// A line with the pair that somebody else's login of user number `number` brings.
fn issued(damoov: &Simulator, number: usize) -> Value {
    let pair = damoov.handle().issue(&principal(number));
    json!({
        "DeviceToken": user(number).to_string(),
        "InstanceId": INSTANCE_ID,
        "AccessToken": pair.access_token,
        "RefreshToken": pair.refresh_token,
    })
}

fn file(proxy: &Proxy, lines: &[Value]) -> PathBuf {
    let file = proxy.store().with_file_name("pairs.jsonl");
    let lines: Vec<_> = lines.iter().map(Value::to_string).collect();
    write_private(&file, &lines.join("\n"));
    file
}

/// Imports these lines; exit code, all that is said, and its last line.
async fn import(proxy: &Proxy, lines: &[Value], options: &str) -> (Option<i32>, String, String) {
    let file = file(proxy, lines);
    let command = format!("tokens import --from {}{options}", file.display());
    let (code, said) = proxy.run(&command).await;
    let last = said.lines().find(|line| line.contains("kept newer"));
    let last = last.unwrap_or_default().to_owned();
    (code, said, last)
}

/// A JWT with these claims.
fn jwt(claims: &Value) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

#[tokio::test]
async fn a_running_proxy_follows_an_import_within_a_second_and_without_a_call() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, ECHO).await;
    // Somebody else logs both in; the pair of the first one is revoked by that.
    let pairs = [1, 2].map(|number| {
        let pair = damoov.handle().issue(&principal(number));
        serde_json::json!({
            "DeviceToken": user(number).to_string(),
            "InstanceId": INSTANCE_ID,
            "AccessToken": pair.access_token,
            "RefreshToken": pair.refresh_token,
        })
        .to_string()
    });
    let mut import = proxy.command("tokens import --from -");
    import.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut import = import.spawn().unwrap();
    let mut lines = import.stdin.take().unwrap();
    lines.write_all(pairs.join("\n").as_bytes()).unwrap();
    drop(lines);
    let output = tokio::task::spawn_blocking(|| import.wait_with_output().unwrap());
    let output = output.await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said,
        "imported 2, kept newer 0, without RefreshToken 0, failed 0\n"
    );
    let imported = Instant::now();
    eventually("the proxy has dropped the old pair", async || {
        proxy.metric("tokens_cached", "").await == 0.0
    })
    .await;
    assert!(imported.elapsed() < Duration::from_millis(1500));
    for number in [1, 2] {
        assert_eq!(proxy.get(number, ECHO).await.status, 200);
    }
    let total = damoov.handle().counts().total;
    assert_eq!((total.logins.all(), total.refreshes.all()), (1, 0));
    assert_eq!(total.unauthorized, 0);
}

#[tokio::test]
async fn an_older_pair_is_kept_away_from_the_newer_stored_one() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let old = [1, 2].map(|number| issued(&damoov, number));
    let (code, said, _) = import(&proxy, &old, "").await;
    assert_eq!(code, Some(0), "{said}");
    for number in [1, 2] {
        proxy.get(number, SCORES).await;
    }
    // A refresh rotates the pair: what was imported is worth nothing any more.
    damoov.handle().expire(None);
    for number in [1, 2] {
        assert_eq!(proxy.get(number, SCORES).await.status, 200);
    }
    for options in [" --dry-run", ""] {
        let (code, said, last) = import(&proxy, &old, options).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(last.contains("imported 0, kept newer 2"), "{said}");
    }
    damoov.handle().expire(None);
    for number in [1, 2] {
        assert_eq!(proxy.get(number, SCORES).await.status, 200);
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 0);

    let (code, said, last) = import(&proxy, &old, " --overwrite").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(last.starts_with("imported 2, kept newer 0"), "{said}");
}

#[tokio::test]
async fn an_import_that_is_repeated_changes_nothing() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let lines = [1, 2, 3].map(|number| issued(&damoov, number));
    let (_, said, last) = import(&proxy, &lines, "").await;
    assert!(last.starts_with("imported 3, kept newer 0"), "{said}");
    let (code, said, last) = import(&proxy, &lines, " --overwrite").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(last.starts_with("imported 0, kept newer 3"), "{said}");
    let (_, shown) = proxy.run(&format!("tokens show {}", user(1))).await;
    assert!(shown.contains("generation     1"), "{shown}");
}

#[tokio::test]
async fn a_stored_pair_known_dead_gives_way_to_an_older_one() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let good = issued(&damoov, 1);
    let claims = json!({ "iat": 2_000_000_000, "exp": 2_000_000_100 });
    let dead = json!({
        "DeviceToken": user(1).to_string(),
        "AccessToken": jwt(&claims),
        "RefreshToken": "never issued",
    });
    let (code, said, _) = import(&proxy, from_ref(&dead), "").await;
    assert_eq!(code, Some(0), "{said}");
    let (_, said, last) = import(&proxy, from_ref(&good), "").await;
    assert!(last.starts_with("imported 0, kept newer 1"), "{said}");
    // The API says that it is dead, and the login that would replace it fails.
    let fault = Fault::new(On::Login, Action::status(500));
    damoov.handle().add_fault(fault);
    proxy.get(1, SCORES).await;
    damoov.handle().clear_faults();
    let (_, shown) = proxy.run(&format!("tokens show {}", user(1))).await;
    assert!(shown.contains("dead"), "{shown}");

    let logins = damoov.handle().counts().total.logins.all();
    let (_, said, last) = import(&proxy, &[dead], "").await;
    assert!(last.starts_with("imported 0, kept newer 1"), "{said}");
    let (_, said, last) = import(&proxy, &[good], "").await;
    assert!(last.starts_with("imported 1, kept newer 0"), "{said}");
    eventually("the imported pair serves", async || {
        proxy.get(1, SCORES).await.status == 200
    })
    .await;
    assert_eq!(damoov.handle().counts().total.logins.all(), logins);
}

#[tokio::test]
async fn the_instance_is_the_lines_or_its_jwts_or_the_default_one() {
    const SECOND: &str = "22222222-2222-4222-8222-222222222222";
    let damoov = damoov().await;
    let builder = proxy(&damoov).toml(&format!(
        "[[instance]]\nname = \"second\"\nid = \"{SECOND}\"\nkey = \"key\"\n"
    ));
    let builder = builder.set("instance.0.default", "true");
    let store = builder.store();
    let proxy = builder.stopped(&store);
    let line = |number: usize, named: Value, claimed: Option<&str>| {
        let mut claims = json!({ "iat": 1, "exp": 2_000_000_000 });
        if let Some(claimed) = claimed {
            claims["InstanceId"] = claimed.replace('-', "").into();
        }
        json!({
            "DeviceToken": user(number).to_string(),
            "InstanceId": named,
            "AccessToken": jwt(&claims),
            "RefreshToken": "refresh",
        })
    };
    let lines = [
        line(1, Value::Null, Some(SECOND)),
        line(2, Value::Null, None),
        line(3, SECOND.into(), Some(INSTANCE_ID)),
        line(4, "".into(), Some(SECOND)),
        line(5, Value::Null, Some("33333333-3333-4333-8333-333333333333")),
        line(6, "33333333-3333-4333-8333-333333333333".into(), None),
    ];
    let (code, said, last) = import(&proxy, &lines, "").await;
    assert_eq!(code, Some(65), "{said}");
    assert!(
        last.contains("imported 4") && last.contains("failed 2"),
        "{said}"
    );
    let (_, list) = proxy.run("tokens list").await;
    for (number, instance) in [(1, SECOND), (2, INSTANCE_ID), (3, SECOND), (4, SECOND)] {
        let device = user(number).to_string();
        let line = list.lines().find(|line| line.contains(&device)).unwrap();
        assert!(line.contains(instance), "{line}");
    }
}

#[tokio::test]
async fn lines_that_are_no_good_are_told_by_number_and_the_others_taken() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let good = issued(&damoov, 1);
    let secret = "SECRET-SECRET";
    let mut lines: Vec<String> = vec![good.to_string(), String::new(), format!("{{\"{secret}\"")];
    for refresh_token in [Value::Null, "".into(), " ".into()] {
        let mut line = good.clone();
        line["RefreshToken"] = refresh_token;
        lines.push(line.to_string());
    }
    let mut line = good.clone();
    line.as_object_mut().unwrap().remove("RefreshToken");
    lines.push(line.to_string());
    for (key, value) in [
        ("DeviceToken", user(2).to_string()),
        ("DeviceToken", secret.to_owned()),
        ("AccessToken", String::new()),
        (secret, secret.to_owned()),
        ("Account", "reporting".to_owned()),
    ] {
        let mut line = good.clone();
        line[key] = value.into();
        lines.push(line.to_string());
    }
    let file = proxy.store().with_file_name("pairs");
    let mut bytes = lines.join("\r\n").into_bytes();
    bytes.extend_from_slice(b"\r\n\xff\xff\r\n");
    fs::write(&file, bytes).unwrap();
    let import = captured(proxy.command(&format!("tokens import --from {}", file.display())));
    let output = import.await;
    assert_eq!(output.status.code(), Some(65));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "imported 1, kept newer 0, without RefreshToken 4, failed 7\n",
        "{said}"
    );
    for number in 3..=13 {
        assert!(
            said.contains(&format!("line {number}: ")),
            "{number}: {said}"
        );
    }
    assert!(!said.contains(secret), "{said}");
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(damoov.handle().counts().total.logins.all(), 0);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_does_not_do_it() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let stored = issued(&damoov, 1);
    import(&proxy, from_ref(&stored), "").await;
    let lines = [
        stored,
        issued(&damoov, 2),
        json!({ "DeviceToken": "nobody" }),
    ];
    let (code, said, last) = import(&proxy, &lines, " --dry-run").await;
    assert_eq!(code, Some(65), "{said}");
    let counts = "would be imported 1, kept newer 1, without RefreshToken 0, failed 1";
    assert_eq!(last, counts, "{said}");
    assert!(
        said.contains(&format!("user:{} would be imported", user(2))),
        "{said}"
    );
    let (_, list) = proxy.run("tokens list").await;
    assert!(!list.contains(&user(2).to_string()), "{list}");
    let (_, said, last) = import(&proxy, &lines, " --dry-run --json").await;
    assert_eq!(last, "", "{said}");
    let mut told: Vec<Value> = said
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let counts = told.pop().unwrap();
    assert_eq!(told.len(), lines.len(), "{said}");
    let expected = json!({
        "imported": 1, "kept_newer": 1, "without_refresh_token": 0, "failed": 1,
    });
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn a_dry_run_without_a_store_makes_none() {
    let damoov = damoov().await;
    let builder = proxy(&damoov);
    let store = builder.store();
    let proxy = builder.stopped(&store);
    let lines = [issued(&damoov, 1)];
    let (code, said, last) = import(&proxy, &lines, " --dry-run").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(last.starts_with("would be imported 1"), "{said}");
    assert!(!store.exists());
}

#[tokio::test]
async fn an_import_waits_for_a_renewal_and_leaves_what_it_brought() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let old = issued(&damoov, 1);
    import(&proxy, from_ref(&old), "").await;
    damoov.handle().expire(None);
    let slow = Fault::new(On::Refresh, Action::Delay(Delay::Millis(1500)));
    damoov.handle().add_fault(slow);
    let call = proxy.calling(1, SCORES);
    eventually("the refresh is under way", async || {
        proxy.metric("requests_in_flight", "").await > 0.0
            && damoov.handle().counts().total.refreshes.all() > 0
    })
    .await;
    let (code, said, last) = import(&proxy, &[old], " --overwrite").await;
    assert_eq!(code, Some(0), "{said}");
    // It is the pair that the refresh replaced only once the refresh was through.
    assert!(last.starts_with("imported 1"), "{said}");
    assert_eq!(call.await.unwrap().status, 200);
}

/// An import whose lines come from a pipe.
fn piped(proxy: &Proxy) -> Child {
    let mut import = proxy.command("tokens import --from -");
    import
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    import.spawn().unwrap()
}

#[tokio::test]
async fn an_interrupted_import_keeps_what_it_has_and_is_exit_code_75() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    for signal in [Signal::INT, Signal::TERM] {
        let mut import = piped(&proxy);
        let mut lines = import.stdin.take().unwrap();
        // It says something of the second line once it has read the first.
        let line = issued(&damoov, 1);
        lines
            .write_all(format!("{line}\nnonsense\n").as_bytes())
            .unwrap();
        let mut said = BufReader::new(import.stderr.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        assert!(first.starts_with("line 2: "), "{first}");
        eventually("the pair is stored", async || {
            let (_, list) = proxy.run("tokens list").await;
            list.contains(&user(1).to_string())
        })
        .await;
        kill_process(Pid::from_child(&import), signal).unwrap();
        let status = import.wait().unwrap();
        assert_eq!(status.code(), Some(75));
        let mut summary = String::new();
        import
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut summary)
            .unwrap();
        assert!(summary.contains("failed 1"), "{summary}");
        drop(lines);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_exit_code_1() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    for path in ["/nowhere/pairs", "/"] {
        let (code, said) = proxy.run(&format!("tokens import --from {path}")).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("cannot read {path}")), "{said}");
    }
}
