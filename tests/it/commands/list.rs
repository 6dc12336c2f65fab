//! `tokens list`: which principals its filters let through, and what is said of a filter that is wrong.

use damoov_proxy::simulator::{Action, Fault, INSTANCE_ID, On, Simulator};

use crate::harness::{Proxy, SCORES, damoov, principal, proxy, user};

/// The users that are listed, of the first nine.
async fn listed(proxy: &Proxy, options: &str) -> Vec<usize> {
    let (code, list) = proxy.run(&format!("tokens list --json {options}")).await;
    assert_eq!(code, Some(0), "{list}");
    let is_listed = |number: &usize| list.contains(&user(*number).to_string());
    let found: Vec<_> = (1..10).filter(is_listed).collect();
    assert_eq!(list.lines().count(), found.len(), "{list}");
    found
}

/// A proxy that holds the pairs of three users, of whom the second one's is dead.
async fn with_three(damoov: &Simulator) -> Proxy {
    let proxy = proxy(damoov).start().await;
    proxy.import(damoov, 1..=3);
    // Somebody else logs the second one in, and the login that would follow fails.
    damoov.handle().issue(&principal(2));
    let fails = Fault::new(On::Login, Action::status(500));
    damoov.handle().add_fault(fails);
    proxy.get(2, SCORES).await;
    proxy
}

#[tokio::test]
async fn a_listing_shows_what_its_filters_let_through() {
    let damoov = damoov().await;
    let proxy = with_three(&damoov).await;
    for (options, expected) in [
        ("--instance main", &[1, 2, 3][..]),
        (&format!("--instance {INSTANCE_ID}"), &[1, 2, 3]),
        ("--instance 99999999999999999999999999999999", &[]),
        ("--note dead", &[2]),
        ("--note contested", &[]),
        ("--younger-than 1h", &[1, 2, 3]),
        ("--older-than 1h", &[]),
        ("--note dead --instance main --younger-than 1d", &[2]),
    ] {
        assert_eq!(listed(&proxy, options).await, expected, "{options}");
    }
    assert_eq!(listed(&proxy, "--limit 2").await.len(), 2);
    for (options, printed) in [
        ("--count", "3\n"),
        ("--count --note dead", "1\n"),
        ("--count --limit 2", "2\n"),
        ("--count --json", "{\"count\":3}\n"),
    ] {
        let (code, said) = proxy.run(&format!("tokens list {options}")).await;
        assert_eq!((code, &*said), (Some(0), printed), "{options}");
    }
}

#[tokio::test]
async fn a_filter_that_is_wrong_is_told_what_would_be_right() {
    let damoov = damoov().await;
    let proxy = with_three(&damoov).await;
    for (options, said_of_it) in [
        ("--instance mian", "configured are: main"),
        (
            "--note ded",
            "dead, answer-lost, rejected, contested, suppressed, registered",
        ),
        ("--older-than soon", "12h"),
        ("--younger-than 5", "1h30m"),
        ("--limit many", "invalid digit"),
    ] {
        let (code, said) = proxy.run(&format!("tokens list {options}")).await;
        assert_eq!(code, Some(2), "{options}: {said}");
        assert!(said.contains(said_of_it), "{options}: {said}");
    }
}
