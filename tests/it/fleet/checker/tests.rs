//! Forged journals: one that breaks each rule, and good ones that look as if they did.

use std::sync::Arc;
use std::time::Duration;

use damoov_proxy::clock::Timestamp;
use damoov_proxy::simulator::{Birth, Called, End, Entry, Fate, Journal, Serial, Tick, Verdict};

use super::{Excuse, Heard, Rule, Served, Trial, violations};
use crate::harness::{principal, user};

const SECOND: Duration = Duration::from_secs(1);

/// A journal that is written by hand. A tick of it takes a millisecond.
#[derive(Default)]
struct Forger {
    journal: Journal,
    ticks: u64,
    millis: i64,
    serials: u64,
}

impl Forger {
    fn tick(&mut self) -> Tick {
        self.ticks += 1;
        self.millis += 1;
        Tick {
            number: self.ticks,
            at: Timestamp::from_millis(self.millis),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.millis += time.as_millis() as i64;
    }

    /// A call has arrived; says which entry it is.
    fn arrives(&mut self, called: Called, door: &str, number: usize) -> usize {
        let arrived = self.tick();
        self.journal.entries.push(Entry {
            arrived,
            end: None,
            called,
            door: Some(Arc::from(door)),
            principal: Some(principal(number)),
            named: None,
            presented: None,
            issued: None,
            verdict: None,
            status: None,
        });
        self.journal.entries.len() - 1
    }

    fn presents(&mut self, door: &str, number: usize, serial: u64) -> usize {
        let call = self.arrives(Called::Refresh, door, number);
        self.journal.entries[call].presented = Some(Serial(serial));
        call
    }

    fn ends(&mut self, call: usize, verdict: Verdict, status: u16, fate: Fate) {
        let at = self.tick();
        let entry = &mut self.journal.entries[call];
        entry.end = Some(End { at, fate });
        entry.verdict = Some(verdict);
        entry.status = Some(status);
    }

    fn is_granted(&mut self, call: usize, fate: Fate) -> u64 {
        self.serials += 1;
        self.ends(call, Verdict::Granted, 200, fate);
        let entry = &mut self.journal.entries[call];
        entry.issued = Some(Birth {
            serial: Serial(self.serials),
            parent: entry.presented,
        });
        self.serials
    }

    fn is_rejected(&mut self, call: usize) {
        self.ends(call, Verdict::Rejected, 401, Fate::Delivered);
    }

    /// A login that brings a pair.
    fn logs_in(&mut self, door: &str, number: usize) -> u64 {
        let call = self.arrives(Called::Login, door, number);
        self.is_granted(call, Fate::Delivered)
    }

    /// A refresh that brings a pair.
    fn refreshes(&mut self, door: &str, number: usize, serial: u64) -> u64 {
        let call = self.presents(door, number, serial);
        self.is_granted(call, Fate::Delivered)
    }

    /// A refresh that is rejected.
    fn is_refused(&mut self, door: &str, number: usize, serial: u64) {
        let call = self.presents(door, number, serial);
        self.is_rejected(call);
    }

    /// A data call that is served.
    fn uses(&mut self, door: &str, number: usize, serial: u64) -> usize {
        let call = self.arrives(Called::Data, door, number);
        self.journal.entries[call].presented = Some(Serial(serial));
        self.ends(call, Verdict::Granted, 200, Fate::Delivered);
        call
    }

    /// Everybody's access tokens expire.
    fn expires(&mut self) {
        let command = self.arrives(Called::Expire, "", 0);
        self.ends(command, Verdict::Granted, 200, Fate::Delivered);
        let entry = &mut self.journal.entries[command];
        (entry.door, entry.principal) = (None, None);
    }

    /// A caller that asked now and got this.
    fn hears(&mut self, door: &'static str, number: usize, answer: Served) -> Heard {
        Heard {
            door,
            principal: principal(number),
            asked: self.tick(),
            answered: self.tick(),
            answer,
        }
    }

    /// The rules that were broken.
    fn breaks(&self, trial: &Trial) -> Vec<Rule> {
        let mut rules: Vec<_> = violations(&self.journal, trial)
            .into_iter()
            .map(|violation| violation.rule)
            .collect();
        rules.dedup();
        rules
    }
}

fn refused() -> Served {
    Served::Refused(503, "store_unavailable".to_owned())
}

/// A trial with one excuse.
fn excused(excuse: Excuse) -> Trial {
    Trial {
        excuses: vec![excuse],
        ..Trial::default()
    }
}

#[test]
fn an_ordinary_history_breaks_no_rule() {
    let mut forger = Forger::default();
    let first = forger.logs_in("one", 1);
    let other = forger.logs_in("other", 2);
    forger.uses("other", 1, first);
    forger.expires();
    let second = forger.refreshes("other", 1, first);
    let lost = forger.presents("one", 2, other);
    forger.is_granted(lost, Fate::Lost);
    forger.is_refused("one", 2, other);
    forger.logs_in("one", 2);
    let busy = forger.presents("one", 1, second);
    forger.ends(busy, Verdict::Faulted, 503, Fate::Delivered);
    forger.pass(SECOND);
    let third = forger.refreshes("other", 1, second);
    forger.uses("one", 1, third);
    let trial = Trial {
        budget: vec![(3, SECOND)],
        heard: vec![
            forger.hears("one", 1, Served::As(principal(1))),
            // Never asked this sidecar before.
            forger.hears("a third one", 1, refused()),
        ],
        healed: Some(forger.tick()),
        ..Trial::default()
    };
    forger.expires();
    forger.refreshes("one", 1, third);
    assert_eq!(forger.breaks(&trial), []);
}

#[test]
fn two_refreshes_of_a_user_at_a_time_are_found() {
    let mut forger = Forger::default();
    let pair = forger.logs_in("one", 1);
    let first = forger.presents("one", 1, pair);
    let second = forger.presents("other", 1, pair);
    forger.ends(first, Verdict::Faulted, 503, Fate::Delivered);
    forger.is_granted(second, Fate::Delivered);
    assert_eq!(forger.breaks(&Trial::default()), [Rule::OneRefreshAtATime]);
}

#[test]
fn a_retry_may_arrive_before_the_hang_up_is_noticed() {
    for (door, breaks) in [("one", vec![]), ("other", vec![Rule::OneRefreshAtATime])] {
        let mut forger = Forger::default();
        let pair = forger.logs_in("one", 1);
        let given_up = forger.presents("one", 1, pair);
        let again = forger.presents(door, 1, pair);
        forger.ends(given_up, Verdict::Faulted, 503, Fate::HungUp);
        forger.is_granted(again, Fate::Delivered);
        assert_eq!(forger.breaks(&Trial::default()), breaks);
    }
}

#[test]
fn a_pair_that_was_redeemed_and_is_presented_again_is_found() {
    let mut forger = Forger::default();
    let pair = forger.logs_in("one", 1);
    forger.refreshes("one", 1, pair);
    forger.is_refused("other", 1, pair);
    let broken = [Rule::RedeemedOnce, Rule::OnlyForward];
    assert_eq!(forger.breaks(&Trial::default()), broken);
}

#[test]
fn a_pair_that_was_rejected_and_is_presented_again_is_found() {
    let mut forger = Forger::default();
    let pair = forger.logs_in("one", 1);
    let from = forger.tick();
    forger.is_refused("one", 1, pair);
    forger.is_refused("other", 1, pair);
    assert_eq!(forger.breaks(&Trial::default()), [Rule::RedeemedOnce]);
    let to = forger.tick();
    let suspended = excused(Excuse::Suspended { from, to });
    assert_eq!(forger.breaks(&suspended), []);
}

#[test]
fn a_pair_that_was_redeemed_for_two_others_is_found() {
    let mut forger = Forger::default();
    let pair = forger.logs_in("one", 1);
    for _ in 0..2 {
        let call = forger.presents("one", 1, pair);
        forger.is_granted(call, Fate::Lost);
    }
    assert_eq!(forger.breaks(&Trial::default()), [Rule::RedeemedOnce]);
}

#[test]
fn an_older_pair_than_a_known_one_is_found() {
    let mut forger = Forger::default();
    let first = forger.logs_in("one", 1);
    let lost = forger.presents("one", 1, first);
    let second = forger.is_granted(lost, Fate::Lost);
    // By way of an import, say.
    let busy = forger.presents("other", 1, second);
    forger.ends(busy, Verdict::Faulted, 503, Fate::Delivered);
    let from = forger.tick();
    forger.is_refused("one", 1, first);
    assert_eq!(forger.breaks(&Trial::default()), [Rule::OnlyForward]);
    let to = forger.tick();
    assert_eq!(forger.breaks(&excused(Excuse::Doubted { from, to })), []);
}

#[test]
fn a_login_more_than_the_budget_is_found_wherever_the_window_lies() {
    let mut forger = Forger::default();
    forger.logs_in("one", 1);
    forger.pass(SECOND * 50);
    for number in 2..5 {
        forger.logs_in("other", number);
    }
    forger.pass(SECOND * 20);
    let within = |logins| Trial {
        budget: vec![(logins, SECOND * 60)],
        ..Trial::default()
    };
    assert_eq!(forger.breaks(&within(4)), []);
    let rejected = forger.arrives(Called::Login, "one", 5);
    forger.is_rejected(rejected);
    assert_eq!(forger.breaks(&within(4)), []);
    forger.logs_in("one", 6);
    assert_eq!(forger.breaks(&within(4)), [Rule::LoginsWithinTheBudget]);
    assert_eq!(forger.breaks(&within(5)), []);
    let limited = forger.arrives(Called::Login, "one", 7);
    forger.ends(limited, Verdict::Limited, 429, Fate::Delivered);
    assert_eq!(forger.breaks(&within(9)), [Rule::LoginsWithinTheBudget]);
}

#[test]
fn a_login_of_a_user_whose_pair_was_not_refused_is_found() {
    let lost = [Rule::NothingAcknowledgedIsLost];
    let mut forger = Forger::default();
    let pair = forger.logs_in("one", 1);
    let busy = forger.presents("one", 1, pair);
    forger.ends(busy, Verdict::Faulted, 503, Fate::Delivered);
    let forgotten = excused(Excuse::Forgotten {
        principal: principal(1),
        at: forger.tick(),
    });
    forger.logs_in("other", 1);
    assert_eq!(forger.breaks(&Trial::default()), lost);
    assert_eq!(forger.breaks(&forgotten), []);

    let mut forger = Forger::default();
    forger.uses("one", 1, 1);
    forger.logs_in("one", 1);
    assert_eq!(forger.breaks(&Trial::default()), lost, "an imported one");

    let mut forger = Forger::default();
    let pair = forger.logs_in("one", 1);
    let broken = forger.presents("one", 1, pair);
    forger.ends(broken, Verdict::Faulted, 400, Fate::Delivered);
    forger.logs_in("one", 1);
    assert_eq!(forger.breaks(&Trial::default()), []);
}

#[test]
fn once_all_has_healed_any_login_of_a_known_user_is_found() {
    let mut forger = Forger::default();
    let pair = forger.logs_in("one", 1);
    let lost = forger.presents("one", 1, pair);
    forger.is_granted(lost, Fate::Lost);
    let healed = Some(forger.tick());
    forger.is_refused("one", 1, pair);
    forger.logs_in("one", 1);
    forger.logs_in("one", 2);
    assert_eq!(forger.breaks(&Trial::default()), []);
    let trial = Trial {
        healed,
        ..Trial::default()
    };
    assert_eq!(forger.breaks(&trial), [Rule::NothingAcknowledgedIsLost]);
}

#[test]
fn a_rejection_in_doubt_permits_no_login() {
    let mut forger = Forger::default();
    let first = forger.logs_in("one", 1);
    let second = forger.refreshes("one", 1, first);
    let from = forger.tick();
    forger.is_refused("other", 1, first);
    let doubted = Excuse::Doubted {
        from,
        to: forger.tick(),
    };
    forger.refreshes("other", 1, second);
    assert_eq!(forger.breaks(&excused(doubted.clone())), []);
    forger.journal.entries.pop();
    forger.logs_in("other", 1);
    let lost = [Rule::NothingAcknowledgedIsLost];
    assert_eq!(forger.breaks(&excused(doubted)), lost);
}

#[test]
fn a_rejection_after_the_store_was_set_back_permits_one() {
    let mut forger = Forger::default();
    let first = forger.logs_in("one", 1);
    forger.refreshes("one", 1, first);
    let from = forger.tick();
    forger.is_refused("other", 1, first);
    forger.logs_in("other", 1);
    let to = forger.tick();
    assert_eq!(forger.breaks(&excused(Excuse::SetBack { from, to })), []);
    assert!(!forger.breaks(&Trial::default()).is_empty());
}

#[test]
fn a_kill_excuses_what_arrived_just_before_it_and_no_more() {
    for (before, is_excused) in [(Duration::ZERO, true), (SECOND, false)] {
        let mut forger = Forger::default();
        let pair = forger.logs_in("one", 1);
        forger.pass(SECOND);
        forger.refreshes("one", 1, pair);
        forger.pass(before);
        let at = forger.tick();
        forger.is_refused("other", 1, pair);
        forger.logs_in("other", 1);
        let one = excused(Excuse::Killed { door: "one", at });
        assert_eq!(forger.breaks(&one).is_empty(), is_excused);
        let other = excused(Excuse::Killed { door: "other", at });
        assert!(!forger.breaks(&other).is_empty());
    }
}

#[test]
fn a_sidecar_that_stood_still_is_excused_for_what_arrived_meanwhile() {
    for (awake, is_excused) in [(false, true), (true, false)] {
        let mut forger = Forger::default();
        let pair = forger.logs_in("one", 1);
        forger.pass(SECOND);
        let from = forger.tick();
        let woke = awake.then(|| forger.tick());
        forger.refreshes("one", 1, pair);
        forger.pass(SECOND * 20);
        forger.is_refused("other", 1, pair);
        forger.logs_in("other", 1);
        let to = woke.unwrap_or_else(|| forger.tick());
        let door = "one";
        let stopped = excused(Excuse::Stopped { door, from, to });
        assert_eq!(forger.breaks(&stopped).is_empty(), is_excused);
    }
}

#[test]
fn a_token_of_somebody_else_is_found() {
    let foreign = [Rule::NobodyElsesToken];
    let mut forger = Forger::default();
    let mine = forger.logs_in("one", 1);
    let call = forger.uses("one", 1, mine);
    forger.journal.entries[call].named = Some(user(1));
    assert_eq!(forger.breaks(&Trial::default()), []);
    forger.journal.entries[call].named = Some(user(2));
    assert_eq!(forger.breaks(&Trial::default()), foreign);

    let mut forger = Forger::default();
    forger.logs_in("one", 1);
    let theirs = forger.logs_in("one", 2);
    forger.is_refused("one", 1, theirs);
    assert_eq!(forger.breaks(&Trial::default()), foreign);

    let mut forger = Forger::default();
    let trial = Trial {
        heard: vec![forger.hears("one", 1, Served::As(principal(2)))],
        ..Trial::default()
    };
    assert_eq!(forger.breaks(&trial), foreign);
}

#[test]
fn who_holds_a_good_token_and_is_not_served_is_found() {
    let unserved = [Rule::WhoHoldsAGoodTokenIsServed];
    let hears = |forger: &mut Forger, answer| Trial {
        heard: vec![forger.hears("one", 1, answer)],
        ..Trial::default()
    };
    let mut forger = Forger::default();
    let pair = forger.logs_in("one", 1);
    for answer in [refused(), Served::Nothing] {
        let trial = hears(&mut forger, answer);
        assert_eq!(forger.breaks(&trial), unserved);
    }
    forger.expires();
    let trial = hears(&mut forger, refused());
    assert_eq!(forger.breaks(&trial), []);
    let pair = forger.refreshes("other", 1, pair);
    let trial = hears(&mut forger, refused());
    assert_eq!(forger.breaks(&trial), [], "it holds none yet");
    forger.uses("one", 1, pair);
    let mut trial = hears(&mut forger, refused());
    assert_eq!(forger.breaks(&trial), unserved);
    let at = trial.heard[0].asked;
    trial.excuses = vec![Excuse::Killed { door: "one", at }];
    assert_eq!(forger.breaks(&trial), []);
    forger.is_refused("other", 1, pair);
    forger.logs_in("other", 1);
    let trial = hears(&mut forger, refused());
    assert_eq!(forger.breaks(&trial), [], "a login ended it");
}

#[test]
#[should_panic(expected = "the beginning of the history is lost")]
fn a_journal_without_its_beginning_proves_nothing() {
    let mut forger = Forger::default();
    forger.journal.forgotten = 1;
    forger.breaks(&Trial::default());
}
