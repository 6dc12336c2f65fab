//! One user: searched for, explained, renewed, forgotten; without a mouse.

use damoov_proxy::simulator::Simulator;

use super::*;
use crate::harness::{SCORES, damoov, principal, user};

/// A proxy that has logged user 1 in, and its dashboard with that user explained.
async fn explained() -> (Simulator, Proxy, Browser) {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).administered().start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let mut browser = Browser::start();
    browser.open(&proxy).await;
    assert_eq!(browser.press("/").await, "who");
    browser.step("type", &user(1).to_string()).await;
    browser.press("Enter").await;
    browser.wait("#found dl").await;
    (damoov, proxy, browser)
}

fn calls(damoov: &Simulator) -> (u64, u64) {
    let count = damoov.handle().counts_of(&principal(1));
    (count.logins.all(), count.refreshes.all())
}

#[tokio::test]
async fn a_user_is_found_explained_and_renewed_by_keyboard_alone() {
    let (damoov, _proxy, mut browser) = explained().await;
    let name = browser.text("#found-name").await;
    assert!(name.contains(&user(1).to_string()), "{name}");
    let said = browser.text("#found").await;
    assert!(said.contains("costs nothing"), "{said}");
    browser.is_flawless("a user is explained").await;

    assert_eq!(browser.press("Tab").await, "close");
    assert_eq!(browser.press("Tab").await, "renew");
    assert_ne!(browser.step("outline", "").await, "none");
    browser.press("Enter").await;
    let outcome = browser.wait("#outcome:has-text('✓')").await;
    assert!(outcome.contains("cost no login"), "{outcome}");
    assert_eq!(calls(&damoov), (1, 1));

    assert_eq!(browser.press("Escape").await, "who");
    browser.step("gone", "#found").await;
    assert_ne!(browser.press("Escape").await, "who");
    assert_eq!(browser.press("/").await, "who");
    browser.end().await;
}

#[tokio::test]
async fn nothing_is_forgotten_before_it_was_asked_about_twice() {
    let (damoov, proxy, mut browser) = explained().await;
    assert_eq!(browser.press("Tab").await, "close");
    browser.press("Tab").await;
    assert_eq!(browser.press("Tab").await, "forget");
    // Who presses Enter without reading keeps it.
    assert_eq!(browser.press("Enter").await, "keep");
    assert_eq!(browser.press("Enter").await, "forget");
    browser.step("gone", "#question").await;
    // So does who leaves, before either answer.
    assert_eq!(browser.press("Enter").await, "keep");
    assert_eq!(browser.press("Tab").await, "yes");
    assert_eq!(browser.press("Enter").await, "keep");
    let second = browser.text("#ask").await;
    assert!(second.contains("Really"), "{second}");
    browser.is_flawless("forgetting is asked about").await;
    assert_eq!(browser.press("Escape").await, "forget");
    browser.step("gone", "#question").await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(calls(&damoov), (1, 0));

    browser.press("Enter").await;
    for _ in 0..2 {
        assert_eq!(browser.press("Tab").await, "yes");
        browser.press("Enter").await;
    }
    browser.wait("#outcome:has-text('Forgotten')").await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    assert_eq!(calls(&damoov), (2, 0), "its next request logged in");
    browser.end().await;
}

#[tokio::test]
async fn of_whom_nothing_is_known_the_page_says_so() {
    let (_damoov, _proxy, mut browser) = explained().await;
    for (who, said) in [
        (user(2).to_string(), "nothing is known"),
        ("account:nobody".to_owned(), "account:nobody"),
        ("<b>x</b>/../%2f?a#b".to_owned(), "<b>x</b>/../%2f?a#b"),
    ] {
        browser.press("/").await;
        browser.step("type", &who).await;
        browser.press("Enter").await;
        let found = browser.wait(&format!("#found:has-text('{who}')")).await;
        let found = found.to_lowercase();
        assert!(found.contains(said), "{found}");
        browser.step("gone", "#acts").await;
    }
    browser.is_flawless("nobody is found").await;
    browser.end().await;
}
