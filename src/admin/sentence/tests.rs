//! What is told of each thing that can be wrong, and which of several.

use super::*;

const NOW: u64 = 1_000;

fn condition(code: Code) -> Condition {
    Condition {
        code,
        message: "api.example cannot be connected to; the log says why".to_owned(),
        since: "1970-01-01T00:10:00Z".to_owned(),
    }
}

fn told_of(codes: &[Code], logins: &Logins) -> Sentence {
    let conditions: Vec<_> = codes.iter().map(|code| condition(*code)).collect();
    sentence(&Facts {
        conditions: &conditions,
        logins,
        failed_lately: 0,
        now: NOW,
    })
}

#[test]
fn if_nothing_is_wrong_it_says_so_and_that_nothing_is_to_do() {
    let calm = told_of(&[], &Logins::default());
    assert_eq!(calm.level, Level::Calm);
    assert_eq!(
        (&*calm.what, &*calm.to_do),
        ("Nothing is wrong.", "Nothing is to do.")
    );
    assert_eq!((calm.since, calm.until), (None, None));
}

#[test]
fn whatever_is_wrong_has_its_own_sentence_who_is_hurt_and_what_to_do() {
    let mut all = std::collections::HashSet::new();
    for code in Code::ALL {
        let said = told_of(&[code], &Logins::default());
        assert!(said.level > Level::Calm, "{code:?}");
        assert_eq!(said.since.as_deref(), Some("1970-01-01T00:10:00Z"));
        for text in [&said.what, &said.who, &said.to_do] {
            assert!(text.ends_with('.') && text.len() > 10, "{code:?}: {text}");
            assert!(!text.contains("  "), "{code:?}: {text}");
        }
        assert!(all.insert(said.what), "{code:?} is told as another is");
    }
}

#[test]
fn the_worst_of_several_is_told_whatever_their_order() {
    let mut codes = Code::ALL.to_vec();
    codes.sort_by_key(|code| std::cmp::Reverse(code.weight()));
    let weights: std::collections::HashSet<_> = codes.iter().map(|code| code.weight()).collect();
    assert_eq!(weights.len(), codes.len(), "no two weigh the same");
    assert_eq!(codes[0], Code::StoreUnwritable);
    for worst in 0..codes.len() {
        let expected = told_of(&codes[worst..=worst], &Logins::default());
        let mut some = codes[worst..].to_vec();
        assert_eq!(told_of(&some, &Logins::default()), expected);
        some.reverse();
        assert_eq!(told_of(&some, &Logins::default()), expected);
    }
}

#[test]
fn a_block_and_a_spent_budget_say_until_when() {
    let logins = Logins {
        blocked: Duration::from_secs(59),
        next: Duration::from_secs(29),
        next_new: Duration::from_secs(19),
        ..Logins::default()
    };
    let until = |codes: &[Code], logins: &Logins| told_of(codes, logins).until.unwrap();
    let (blocked, spent) = ([Code::LoginBlocked], [Code::LoginBudgetExhausted]);
    assert_eq!(until(&blocked, &logins), "1970-01-01T00:17:40Z");
    assert_eq!(until(&spent, &logins), "1970-01-01T00:17:10Z");
    let only_new = Logins {
        next: Duration::ZERO,
        ..logins
    };
    assert_eq!(until(&spent, &only_new), "1970-01-01T00:17:00Z");
    let said = told_of(&spent, &only_new);
    assert!(said.who.starts_with("Users never seen"), "{}", said.who);
}

#[test]
fn contested_users_are_told_of_if_nothing_else_is_wrong() {
    let logins = Logins {
        contested: 3,
        ..Logins::default()
    };
    let said = told_of(&[], &logins);
    assert_eq!(said.level, Level::Warn);
    assert!(said.what.contains("3 users"), "{}", said.what);
    let worse = told_of(&[Code::LogUnwritable], &logins);
    assert!(worse.what.contains("log"), "{}", worse.what);
}

#[test]
fn requests_that_fail_meanwhile_are_counted() {
    let of = |codes: &[Code], failed_lately| {
        let conditions: Vec<_> = codes.iter().map(|code| condition(*code)).collect();
        let facts = Facts {
            conditions: &conditions,
            logins: &Logins::default(),
            failed_lately,
            now: NOW,
        };
        sentence(&facts).who
    };
    let blocked = of(&[Code::LoginBlocked], 12);
    assert!(
        blocked.ends_with(" 12 requests failed in the last minute."),
        "{blocked}"
    );
    let one = of(&[Code::StoreAway], 1);
    assert!(one.ends_with(" One request failed in the last minute."));
    assert!(of(&[], 2).starts_with("2 requests of the last minute failed"));
}

#[test]
fn the_host_that_cannot_be_reached_is_named() {
    let said = told_of(&[Code::UpstreamUnreachable], &Logins::default());
    assert_eq!(said.what, "api.example cannot be connected to.");
}
