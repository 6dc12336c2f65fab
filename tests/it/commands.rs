//! The commands as processes: exit codes, what they print, where they listen, and the status
//! listener.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use damoov_proxy::simulator::INSTANCE_ID;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::harness::{SCORES, captured, damoov, eventually, principal, proxy, user, write_private};
use crate::wire::get;

// `budget`: what it says of windows and blocks, and that a running proxy follows when one is
// lifted.
mod budget;
// `explain`: the last renewal, the next request, and what a 401 to it does.
mod explain;
// `tokens export`, and that an import of it saves every login.
mod export;
// `healthcheck`: whom it asks, what it says, how long it takes.
mod healthcheck;
// `tokens import`: what it takes, what it leaves alone, and what it says of the rest.
mod import;
// `tokens list`: filters.
mod list;
// What becomes of a command whose output nobody reads, or that cannot be written.
mod output;
// `tokens export --sealed`, and the same store elsewhere.
mod sealed;
// `tokens renew`: a refresh that somebody asked for, and a login that he allowed.
mod renew;
// `man`, `completions`, `-V`, colours, `check --json`: what shells and terminals get.
mod shell;
// `tokens show`: each obstacle with its end, and the name that the log has for a user.
mod show;
// `tokens verify`: refreshes that nobody asked for, and what they cost.
mod verify;
// `warm`: many logins within the budget, in flat memory.
mod warm;
// `demo` and `simulate`, as the README shows them.
mod simulated;
// The status listener: `/livez`, `/readyz` and `/metrics`.
mod status;

#[tokio::test]
async fn a_wrong_configuration_is_exit_code_64_for_every_command() {
    let damoov = damoov().await;
    let builder = proxy(&damoov).set("listen", "0.0.0.0:8080");
    let store = builder.store();
    let proxy = builder.stopped(&store);
    for command in ["run", "check", "check --offline", "tokens list"] {
        let (code, said) = proxy.run(command).await;
        assert_eq!(code, Some(64), "{command}: {said}");
        assert!(said.contains("loopback"), "{said}");
    }
    assert!(!store.exists(), "nothing was opened");
}

#[tokio::test]
async fn what_this_machine_lacks_is_told_by_check_as_by_run() {
    let damoov = damoov().await;
    for (key, value, said_of_it) in [
        ("upstream.ca_file", "/nowhere/ca.pem", "/nowhere/ca.pem"),
        (
            "listen",
            r#"{ unix = "/nowhere/proxy.sock", group = "no such group" }"#,
            "no such group",
        ),
    ] {
        let builder = proxy(&damoov).set(key, value);
        let store = builder.store();
        let proxy = builder.stopped(&store);
        for command in ["run", "check"] {
            let (code, said) = proxy.run(command).await;
            assert_eq!(code, Some(64), "{command}: {said}");
            assert!(said.contains(said_of_it), "{said}");
        }
        let (code, said) = proxy.run("check --offline").await;
        assert_eq!(code, Some(0), "{said}");
    }
}

#[tokio::test]
async fn two_listeners_on_one_address_are_exit_code_64() {
    let damoov = damoov().await;
    for (key, value, of) in [
        (
            "listen",
            r#"["127.0.0.1:18080", "127.0.0.1:18080"]"#,
            "listen",
        ),
        (
            "listen",
            r#"[{ unix = "/tmp/./a.sock" }, { unix = "/tmp/a.sock" }]"#,
            "listen",
        ),
        ("status.listen", "\"0.0.0.0:18080\"", "status"),
        ("status.listen", "\"127.0.0.1:18080\"", "status"),
    ] {
        let builder = proxy(&damoov).set("listen", "\"127.0.0.1:18080\"");
        let builder = builder.set(key, value);
        let store = builder.store();
        let proxy = builder.stopped(&store);
        for command in ["run", "check", "check --offline"] {
            let (code, said) = proxy.run(command).await;
            assert_eq!(code, Some(64), "{command}: {said}");
            assert!(said.contains("is listened on already"), "{said}");
            assert!(said.contains(&format!("`{of}`")), "{said}");
        }
        assert!(!store.exists(), "nothing was opened");
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_exit_code_78_and_is_left_alone() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    let (code, said) = proxy.run("check").await;
    assert_eq!(code, Some(0), "{said}");
    proxy.terminate().await;

    let other_key = "b3RoZXIta2V5LW90aGVyLWtleS1vdGhlci1rZXktbyE=";
    for command in ["run", "check", "tokens list"] {
        let mut command = proxy.command(command);
        command.env("DAMOOV_PROXY__STORE__KEY__ENV", "OTHER");
        command.env("OTHER", other_key);
        let output = captured(command).await;
        assert_eq!(output.status.code(), Some(78), "{output:?}");
    }
    let largest = fs::read_dir(proxy.store())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_file())
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap()
        .path();
    let whole = fs::read(&largest).unwrap();
    write_private(&largest, "not a store");
    for command in ["run", "check", "tokens list"] {
        let (code, said) = proxy.run(command).await;
        assert_eq!(code, Some(78), "{command} with {largest:?}: {said}");
    }
    assert_eq!(fs::read(&largest).unwrap(), b"not a store");
    let (code, said) = proxy.run("check --offline").await;
    assert_eq!(code, Some(0), "{said}");
    fs::write(&largest, whole).unwrap();
    proxy.start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(damoov.handle().counts().total.logins.all(), 1);
}

#[tokio::test]
async fn tokens_lists_and_shows_what_is_stored() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    for number in [1, 2] {
        proxy.get(number, SCORES).await;
    }
    let (code, list) = proxy.run("tokens list").await;
    assert_eq!(code, Some(0));
    let lines: Vec<_> = list.lines().collect();
    assert!(lines[0].starts_with("PRINCIPAL"), "{list}");
    assert_eq!(lines.len(), 3, "{list}");
    for number in [1, 2] {
        let device = user(number).to_string();
        let line = lines.iter().find(|line| line.contains(&device)).unwrap();
        assert!(line.contains(INSTANCE_ID), "{line}");
    }
    let (code, list) = proxy.run("tokens list --json").await;
    assert_eq!(code, Some(0));
    for line in list.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["instance"], INSTANCE_ID);
        assert_eq!(line["generation"], 1);
    }
    assert_eq!(list.lines().count(), 2, "{list}");
    let (code, shown) = proxy.run(&format!("tokens show {}", user(1))).await;
    assert_eq!(code, Some(0));
    for line in ["generation     1", "RefreshToken   present"] {
        assert!(shown.contains(line), "{shown}");
    }
    let (code, said) = proxy.run(&format!("tokens show {}", user(3))).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("nothing is known"), "{said}");
}

#[tokio::test]
async fn a_running_proxy_follows_a_forget_within_a_second() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    let (code, said) = proxy.run(&format!("tokens forget {}", user(1))).await;
    assert_eq!(code, Some(0), "{said}");
    let started = Instant::now();
    eventually("the user logs in anew", async || {
        proxy.get(1, SCORES).await;
        damoov.handle().counts_of(&principal(1)).logins.ok == 2
    })
    .await;
    assert!(started.elapsed() < Duration::from_millis(1500));
    let (code, _) = proxy.run(&format!("tokens forget {}", user(2))).await;
    assert_eq!(code, Some(1), "nothing to forget");
}

#[tokio::test]
async fn each_request_is_logged_once_by_the_name_that_tokens_show_prints() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    damoov.handle().expire(None);
    proxy.get(1, SCORES).await;
    proxy.get(1, "/nowhere").await;
    let shown = captured(proxy.command(&format!("tokens show {}", user(1)))).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(proxy.terminate().await.success());
    let log = proxy.log();
    let events: Vec<serde_json::Value> = log
        .lines()
        .filter(|line| line.contains("\"target\":\"access\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            (
                text("route"),
                event["status"].as_u64().unwrap(),
                text("outcome"),
            )
        })
        .collect();
    let told_of =
        |route: &str, status, outcome: &str| (route.to_owned(), status, outcome.to_owned());
    assert_eq!(
        told,
        [
            told_of("/indicators/v3", 200, "forwarded"),
            told_of("/indicators/v3", 200, "replayed"),
            told_of("none", 404, "caller_error"),
        ]
    );
    let name = events[0]["principal"].as_str().unwrap();
    assert!(shown.contains(name), "{name} is not in {shown}");
}

#[tokio::test]
async fn a_unix_socket_is_served_like_a_port_and_a_dead_one_is_replaced() {
    let damoov = damoov().await;
    let builder = proxy(&damoov);
    let socket = builder.folder().join("proxy.sock");
    let listen = format!(
        r#"["127.0.0.1:0", {{ unix = "{}", mode = "0600" }}]"#,
        socket.display()
    );
    let mut proxy = builder.set("listen", &listen).start().await;
    for restarted in [false, true] {
        let mut caller = UnixStream::connect(&socket).await.unwrap();
        let request = get(SCORES, "Connection: close\r\n");
        caller.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        if !restarted {
            proxy.kill();
            assert!(socket.exists(), "left behind");
            proxy.start().await;
        }
    }
}
