//! Text that others had a hand in is shown as text, whatever stands in it.

use super::*;
use crate::harness::{SCORES, damoov, rounds};

/// As tests/clients/dashboard.py writes it, and as it is shown: with what would hide or turn text.
const SHOWN: &str = r"<img src=x onerror=alert(1)>\u{202e}<script>alert(2)</script>\u{7}";

#[tokio::test]
async fn hostile_names_and_events_are_shown_as_text() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).administered().start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let mut browser = Browser::start();
    for look in &LOOKS[..rounds(2, LOOKS.len())] {
        let Look { scheme, width } = *look;
        let how = json!({"scheme": scheme, "width": width, "hostile": true});
        browser.open_as(&proxy, how).await;
        assert_eq!(browser.text("#what").await, SHOWN);
        assert!(browser.title().await.contains(SHOWN));
        let event = browser.text("#events li").await;
        // Message, target, a field's name and value; and within a nested field.
        assert_eq!(event.matches(SHOWN).count(), 4, "{event}");
        assert!(browser.text("#upstream tbody th").await.contains(SHOWN));
        let elements = browser
            .step("texts", "main img, main script, main b img")
            .await;
        assert_eq!(elements, json!([]));
        browser.is_flawless(&format!("hostile {look:?}")).await;
    }
    browser.end().await;
}
