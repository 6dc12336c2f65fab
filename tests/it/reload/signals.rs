//! SIGHUP: a thousand of them, before the file is read, while draining.

use std::fs::OpenOptions;
use std::io::Write;
use tokio::time::Instant;

use super::*;
use crate::harness::make_pipe;

#[tokio::test]
async fn a_thousand_sighups_in_a_second_are_served_and_the_last_file_wins() {
    let Scene {
        damoov: _damoov,
        proxy,
    } = Scene::new().await;
    let text = fs::read_to_string(proxy.config()).unwrap();
    assert_eq!(proxy.get(1, ECHO).await.status, 200);
    let began = Instant::now();
    for number in 0..1000 {
        if number % 50 == 0 {
            proxy.replace_config(&format!("hosts = [\"{number}.example\"]\n{text}"));
        }
        proxy.signal(Signal::HUP);
        if number % 100 == 0 {
            assert_eq!(proxy.get(1, ECHO).await.status, 200);
        }
    }
    let host = [("Host", "950.example")];
    eventually("the last file is in force", async || {
        get(&proxy, ECHO, &host).await.status == 200
    })
    .await;
    let reloads = proxy.reloads("applied").await + proxy.reloads("unchanged").await;
    // Each is followed by a pause of 100 ms.
    let most = began.elapsed().as_millis() as f64 / 100.0 + 2.0;
    assert!(
        (1.0..=most).contains(&reloads),
        "{reloads} of at most {most}"
    );
    assert_eq!(proxy.reloads("refused").await, 0.0);
}

#[tokio::test]
async fn a_sighup_that_comes_before_the_file_is_read_is_remembered() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).stopped_here();
    let text = fs::read_to_string(proxy.config()).unwrap();
    // Whoever opens it waits until somebody writes.
    fs::remove_file(proxy.config()).unwrap();
    make_pipe(proxy.config());
    proxy.begin();
    let mut file = tokio::task::spawn_blocking({
        let fifo = proxy.config().to_owned();
        // Returns once the proxy reads.
        move || OpenOptions::new().write(true).open(fifo).unwrap()
    })
    .await
    .unwrap();
    proxy.signal(Signal::HUP);
    proxy.replace_config(&format!("hosts = [\"late.example\"]\n{text}"));
    file.write_all(text.as_bytes()).unwrap();
    drop(file);
    proxy.listens().await;
    let host = [("Host", "late.example")];
    eventually("it is read again", async || {
        get(&proxy, ECHO, &host).await.status == 200
    })
    .await;
    proxy.has_logged("\"trigger\":\"signal\"").await;
}

#[tokio::test]
async fn a_sighup_while_draining_is_ignored() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).set("drain_delay", "60s").start().await;
    proxy.signal(Signal::TERM);
    eventually("it drains", async || {
        proxy.status("/readyz").await.status == 503
    })
    .await;
    proxy.edit_config(|text| format!("hosts = [\"late.example\"]\n{text}"));
    proxy.signal(Signal::HUP);
    proxy
        .has_logged("the configuration is not read again")
        .await;
    let host = [("Host", "late.example")];
    assert_eq!(get(&proxy, ECHO, &host).await.code(), "misdirected");
    assert_eq!(proxy.reloads("applied").await, 0.0);
    proxy.signal(Signal::INT);
    assert!(proxy.ended().await.success());
}
