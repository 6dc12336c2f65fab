//! News that stop, and go on: the page says how old is what it shows, and nobody has to load it again.

use super::*;
use crate::harness::{damoov, eventually};

async fn quiet() -> Proxy {
    let damoov = damoov().await;
    proxy(&damoov).administered().start().await
}

#[tokio::test]
async fn when_news_stop_the_page_says_since_when_and_recovers_by_itself() {
    let mut proxy = quiet().await;
    let mut browser = Browser::start();
    browser.open(&proxy).await;
    let calm = browser.title().await;
    assert!(calm.starts_with('✓'), "{calm}");
    proxy.kill();
    let said = browser.wait("#stale").await;
    assert!(
        said.starts_with("No news since ") && said.contains(" UTC"),
        "{said}"
    );
    assert!(said.contains("has ended"), "{said}");
    assert!(browser.title().await.starts_with("? No news since "));
    assert_eq!(browser.attribute("body", "class").await, "stale");

    proxy.start().await;
    browser.step("gone", "#stale").await;
    assert_eq!(browser.title().await, calm);
    assert_eq!(browser.attribute("body", "class").await, "");
    browser.is_flawless("after a restart").await;
    browser.end().await;
}

/// It keeps its connection, and says nothing on it.
#[tokio::test]
async fn a_proxy_that_hangs_is_no_news_either() {
    let proxy = quiet().await;
    let mut browser = Browser::start();
    browser.open(&proxy).await;
    proxy.signal(rustix::process::Signal::STOP);
    let said = browser.wait("#stale").await;
    assert!(said.starts_with("No news since "), "{said}");
    proxy.signal(rustix::process::Signal::CONT);
    browser.step("gone", "#stale").await;
    browser.end().await;
}

/// How many event streams the proxy serves, as it says itself.
async fn streams(proxy: &Proxy) -> u64 {
    let state = proxy.state().await;
    let rooms = state["room"].as_array().unwrap();
    let room = rooms.iter().find(|room| room["what"] == "event streams");
    room.expect("a row of event streams")["used"]
        .as_u64()
        .unwrap()
}

#[tokio::test]
async fn a_tab_that_nobody_looks_at_holds_no_event_stream() {
    let proxy = quiet().await;
    let mut browser = Browser::start();
    let until = async |wanted: u64| {
        let what = format!("{wanted} streams");
        eventually(&what, async || streams(&proxy).await == wanted).await;
    };
    browser.step("tab", &dashboard(&proxy)).await;
    until(1).await;
    browser.step("tab", "about:blank").await;
    until(0).await;
    browser.step("look", "0").await;
    until(1).await;
    // The first one is hidden by the second page, which has a stream of its own.
    browser.step("tab", &dashboard(&proxy)).await;
    until(1).await;
    browser.step("tab", "about:blank").await;
    until(0).await;
    browser.end().await;
}
