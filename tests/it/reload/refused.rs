//! Files that are refused: what was in force stays, and one report says why.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::harness::{make_pipe, rounds};

const REFUSED: &str = "the configuration is refused";

/// What is done to a file, and what the report says of it.
type Damage = (&'static str, fn(&Path, &str), &'static str);

const DAMAGES: [Damage; 8] = [
    ("gone", |_, _| {}, "cannot be read"),
    (
        "a folder",
        |path, _| fs::create_dir(path).unwrap(),
        "cannot be read",
    ),
    (
        "10 MB",
        |path, text| put(path, &format!("{text}\n# {}", "x".repeat(10_000_000))),
        "larger than 1 MiB",
    ),
    (
        "half written",
        |path, text| put(path, &text[..text.find("[store]").unwrap() + 4]),
        "not valid TOML",
    ),
    (
        "writable for others",
        |path, text| {
            put(path, text);
            fs::set_permissions(path, PermissionsExt::from_mode(0o606)).unwrap();
        },
        "can be written by group or others",
    ),
    (
        "no text",
        |path, _| fs::write(path, [0xff; 64]).unwrap(),
        "not UTF-8",
    ),
    (
        "an unknown key",
        |path, text| put(path, &format!("nonsense = 1\n{text}")),
        "unknown key `nonsense`",
    ),
    (
        "a secret that cannot be read",
        |path, text| {
            let key = damoov_proxy::simulator::INSTANCE_KEY;
            let nowhere = "key = { file = \"/nowhere/key\" }";
            put(path, &text.replace(&format!("key = \"{key}\""), nowhere));
        },
        "/nowhere/key",
    ),
];

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing_and_is_reported_once() {
    let Scene {
        damoov: _damoov,
        proxy,
    } = Scene::new().await;
    proxy.edit_config(|text| format!("hosts = [\"proxy.example\"]\n{text}"));
    proxy.reload("applied").await;
    let text = fs::read_to_string(proxy.config()).unwrap();
    let host = [("Host", "proxy.example")];
    for (number, (what, damage, why)) in DAMAGES.into_iter().enumerate() {
        fs::remove_file(proxy.config()).unwrap();
        damage(proxy.config(), &text);
        let refused = proxy.reloads("refused").await;
        for _ in 0..rounds(2, 5) {
            proxy.reload("refused").await;
        }
        assert!(proxy.reloads("refused").await >= refused + 2.0);
        assert_eq!(get(&proxy, ECHO, &host).await.status, 200, "{what}");
        assert_eq!(proxy.metric("config_last_reload_successful", "").await, 0.0);
        let degraded = proxy.degraded().await;
        assert_eq!(degraded[0].0, "reload_failed", "{what}: {degraded:?}");
        eventually("it is reported", async || {
            proxy.lines_that_say(REFUSED) > number
        })
        .await;
        let log = proxy.log();
        let report = log.lines().rfind(|line| line.contains(REFUSED)).unwrap();
        assert!(report.contains(why), "{what}: {report}");
        assert_eq!(proxy.lines_that_say(REFUSED), number + 1, "{what}");

        if proxy.config().is_dir() {
            fs::remove_dir(proxy.config()).unwrap();
        }
        proxy.replace_config(&text);
        let unchanged = proxy.reloads("unchanged").await;
        proxy.signal(Signal::HUP);
        eventually("it is in force again", async || {
            proxy.reloads("unchanged").await > unchanged
        })
        .await;
        assert_eq!(proxy.degraded().await, [], "{what}");
    }
    assert_eq!(proxy.metric("config_last_reload_successful", "").await, 1.0);
    assert!(!proxy.log().contains(damoov_proxy::simulator::INSTANCE_KEY));
}

#[tokio::test]
async fn a_damaged_file_is_noticed_without_a_signal_and_is_reported_once() {
    let Scene {
        damoov: _damoov,
        proxy,
    } = Scene::new().await;
    let text = fs::read_to_string(proxy.config()).unwrap();
    fs::remove_file(proxy.config()).unwrap();
    fs::create_dir(proxy.config()).unwrap();
    eventually("it is noticed", async || {
        proxy.reloads("refused").await == 1.0
    })
    .await;
    assert_eq!(proxy.get(1, ECHO).await.status, 200);
    fs::remove_dir(proxy.config()).unwrap();
    put(proxy.config(), &text);
    eventually("it is well again", async || {
        proxy.reloads("unchanged").await == 1.0
    })
    .await;
    // Between the folder and the file there was perhaps nothing.
    assert!(proxy.lines_that_say(REFUSED) <= 2);
    assert_eq!(proxy.degraded().await, []);
}

/// A pipe that nobody writes stands for a mount that does not answer. Takes half a minute.
#[tokio::test]
async fn a_reading_that_hangs_is_refused_and_reloads_go_on_once_it_returns() {
    for _ in 0..rounds(0, 1) {
        let Scene {
            damoov: _damoov,
            proxy,
        } = Scene::new().await;
        let text = fs::read_to_string(proxy.config()).unwrap();
        fs::remove_file(proxy.config()).unwrap();
        make_pipe(proxy.config());
        proxy.signal(Signal::HUP);
        let is_told = async {
            while proxy.lines_that_say("is still waiting for its disk") == 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(90), is_told).await;
        told.expect("a reading that hangs is told of");
        assert_eq!(proxy.reloads("refused").await, 1.0);
        // Refused at once, and reported once.
        proxy.reload("refused").await;
        assert_eq!(proxy.lines_that_say(REFUSED), 1);
        assert_eq!(proxy.get(1, ECHO).await.status, 200);

        let writer = fs::OpenOptions::new().write(true).open(proxy.config());
        proxy.replace_config(&format!("hosts = [\"proxy.example\"]\n{text}"));
        drop(writer.unwrap());
        let host = [("Host", "proxy.example")];
        eventually("what stands there now is in force", async || {
            get(&proxy, ECHO, &host).await.status == 200
        })
        .await;
        assert_eq!(proxy.degraded().await, []);
    }
}
