//! Orders of events, by hand and generated: who is dead, when the mass is believed, and what ends it.
//! No store, no clock: every moment is given.

use proptest::prelude::*;

use super::*;

fn who(number: usize) -> Principal {
    Principal::Account(number.to_string().into())
}

fn at(seconds: i64) -> SharedMoment {
    SharedMoment::of_boot(1, seconds)
}

fn received(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn rejected(state: &mut State, number: usize, seconds: i64) -> Verdict {
    state.rejected(&who(number), received(seconds), How::Plainly, &at(100))
}

/// Five principals whose pairs are of the seconds 0 to 4 were rejected at the second 100.
fn broken() -> State {
    let mut state = State::default();
    for number in 0..4 {
        assert_eq!(rejected(&mut state, number, number as i64), Verdict::Dead);
    }
    let all = (0..5).map(who).collect();
    assert_eq!(rejected(&mut state, 4, 4), Verdict::Broken(all));
    state
}

/// The same, and one with a pair of the second 60 refreshed.
fn proved() -> State {
    let mut state = broken();
    state.refreshed(&who(60), received(60), &at(100));
    state
}

#[test]
fn the_fifth_distinct_principal_makes_a_mass_rejection() {
    let mut state = broken();
    assert!(state.is_suspended());
    assert_eq!(rejected(&mut state, 9, 9), Verdict::StillBroken);
    assert_eq!(state.count(), MANY);
}

#[test]
fn the_same_principal_counts_once_and_a_lost_answer_not_at_all() {
    let mut state = State::default();
    for _ in 0..20 {
        assert_eq!(rejected(&mut state, 1, 0), Verdict::Dead);
    }
    for number in 2..20 {
        let explained = state.rejected(&who(number), received(0), How::Explained, &at(0));
        assert_eq!(explained, Verdict::Dead);
    }
    assert_eq!(state.count(), 1);
}

#[test]
fn any_refresh_that_succeeds_resets_the_count_and_ends_a_suspension() {
    for mut state in [State::default(), broken()] {
        rejected(&mut state, 3, 3);
        state.refreshed(&who(70), received(2), &at(100));
        assert!(state.is_calm());
        assert_eq!(state.confirmed(), None, "older than a rejected one");
        for number in 0..4 {
            assert_eq!(rejected(&mut state, number, 1), Verdict::Dead);
        }
    }
}

#[test]
fn after_a_newer_pairs_refresh_older_ones_are_confirmed_not_counted() {
    let mut state = proved();
    assert!(!state.is_suspended());
    for number in 5..50 {
        assert_eq!(rejected(&mut state, number, 5), Verdict::Unsure(1));
    }
    state.refreshed(&who(60), received(61), &at(100));
    for number in 5..50 {
        let again = state.rejected(&who(number), received(5), How::Again, &at(101));
        assert_eq!(again, Verdict::Outlived);
    }
    assert!(state.is_calm());
    // What is as new as the proof counts as ever.
    for number in 100..104 {
        assert_eq!(rejected(&mut state, number, 60), Verdict::Dead);
    }
    assert!(matches!(rejected(&mut state, 104, 99), Verdict::Broken(_)));
}

#[test]
fn a_few_rejections_prove_nothing_about_age_and_a_proof_expires() {
    let mut state = State::default();
    rejected(&mut state, 1, 1);
    state.refreshed(&who(60), received(60), &at(100));
    assert_eq!(state.confirmed(), None);
    let mut state = proved();
    let later = |state: &mut State, seconds: i64| {
        state.rejected(&who(1), received(1), How::Plainly, &at(100 + seconds))
    };
    assert_eq!(later(&mut state, 3599), Verdict::Unsure(1));
    assert_eq!(later(&mut state, 3600), Verdict::Dead);
}

#[test]
fn a_witness_that_is_rejected_leaves_nothing_proved() {
    let mut state = proved();
    let probe = state.claim_probe(true, &at(105));
    assert_eq!(probe, Some(Probe::Witness(who(60))));
    let verdict = state.rejected(&who(60), received(61), How::AsWitness, &at(106));
    assert_eq!(verdict, Verdict::Dead);
    for number in 0..3 {
        assert_eq!(rejected(&mut state, number, 1), Verdict::Dead);
    }
    assert!(matches!(rejected(&mut state, 3, 1), Verdict::Broken(_)));
}

#[test]
fn a_former_witness_proves_nothing_by_its_rejection() {
    let mut state = proved();
    let late = state.rejected(&who(4), received(4), How::AsWitness, &at(106));
    assert_eq!(late, Verdict::Unsure(1));
}

#[test]
fn a_witness_proves_as_much_as_its_pair_is_new() {
    let mut state = broken();
    state.logged_in(&who(0), &at(101));
    state.logged_in(&who(1), &at(102));
    state.refreshed(&who(1), received(102), &at(100));
    assert_eq!(state.confirmed(), Some(1));
    state.refreshed(&who(0), received(101), &at(100));
    assert_eq!(state.confirmed(), Some(2));
    assert_eq!(rejected(&mut state, 50, 101), Verdict::Dead);
    assert_eq!(rejected(&mut state, 51, 100), Verdict::Unsure(2));
}

#[test]
fn one_refresh_is_tried_in_five_seconds_and_one_login_in_a_minute() {
    let mut state = broken();
    let probes: Vec<_> = (0..200)
        .filter_map(|second| Some((second, state.claim_probe(false, &at(100 + second))?)))
        .collect();
    let moments: Vec<_> = probes.iter().map(|(second, _)| *second).collect();
    assert!(moments.is_sorted_by(|a, b| b - a >= 5), "{moments:?}");
    let logins: Vec<_> = probes
        .iter()
        .filter(|(_, probe)| matches!(probe, Probe::LogIn(_)))
        .map(|(second, _)| *second)
        .collect();
    assert_eq!(logins, [15, 75, 135, 195]);
}

#[test]
fn a_principal_just_logged_in_is_the_next_whose_refresh_is_tried() {
    for before in 0..3 {
        let mut state = broken();
        state.logged_in(&who(0), &at(100));
        let mut second = 105;
        for _ in 0..before {
            assert!(state.claim_probe(false, &at(second)).is_some());
            second += 5;
        }
        state.logged_in(&who(7), &at(second - 1));
        let probe = state.claim_probe(false, &at(second));
        assert_eq!(probe, Some(Probe::Witness(who(7))), "after {before}");
        let next = state.claim_probe(false, &at(second + 5));
        assert_ne!(next, Some(Probe::Witness(who(7))));
    }
}

#[test]
fn with_a_witness_a_probe_costs_a_login_once_an_hour_only() {
    let mut state = broken();
    state.logged_in(&who(0), &at(101));
    let mut witnesses = 0;
    for second in 0..3600 {
        match state.claim_probe(false, &at(101 + second)) {
            Some(Probe::Witness(witness)) => {
                assert_eq!(witness, who(0));
                witnesses += 1;
            }
            Some(Probe::Waiting(_)) | None => {}
            Some(Probe::LogIn(_)) => panic!("in the second {second}"),
        }
    }
    assert!(witnesses > 300, "{witnesses}");
    let probe = state.claim_probe(false, &at(3701));
    assert!(matches!(probe, Some(Probe::LogIn(_))));
}

#[test]
fn while_nothing_is_wrong_and_nobody_asks_nothing_is_tried() {
    for mut state in [State::default(), proved()] {
        assert_eq!(state.claim_probe(false, &at(1000)), None);
    }
    assert_eq!(State::default().claim_probe(true, &at(1000)), None);
    let mut state = proved();
    state.forgotten(&who(60));
    assert_eq!(state.claim_probe(true, &at(1000)), None);
    assert_eq!(state.confirmed(), None, "nobody is left to confirm it");
}

#[test]
fn notes_that_were_not_withdrawn_are_withdrawn_later() {
    let mut state = broken();
    let patience = Duration::from_secs(10);
    assert!(state.to_withdraw(patience, &at(105)).is_empty());
    assert_eq!(state.to_withdraw(patience, &at(110)).len(), MANY);
    state.withdrew();
    assert!(state.to_withdraw(patience, &at(110)).is_empty());
}

#[test]
fn another_boot_frees_the_probes_and_nothing_else() {
    let mut state = broken();
    let now = SharedMoment::of_boot(2, 1);
    assert!(state.claim_probe(false, &now).is_some());
    assert_eq!(state.claim_probe(false, &now), None);
    assert!(state.is_suspended());
}

#[derive(Clone, Debug)]
enum Event {
    Rejected(usize, i64, u8),
    Refreshed(usize, i64),
    LoggedIn(usize),
    Claim(bool),
    Unproven,
    Forgotten(usize),
    Withdrew,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..20usize, 0..50i64, 0..4u8).prop_map(|(n, r, how)| Event::Rejected(n, r, how)),
        1 => (0..20usize, 0..50i64).prop_map(|(n, r)| Event::Refreshed(n, r)),
        1 => (0..20usize).prop_map(Event::LoggedIn),
        1 => any::<bool>().prop_map(Event::Claim),
        1 => Just(Event::Unproven),
        1 => (0..20usize).prop_map(Event::Forgotten),
        1 => Just(Event::Withdrew),
    ]
}

proptest! {
    /// Whatever happens in whatever order: between two refreshes that succeed fewer than five
    /// distinct principals are believed dead by the count alone, the row reads back as it was
    /// written, and it stays small.
    #[test]
    fn no_order_of_events_costs_more_than_four(events in prop::collection::vec(event(), 0..200)) {
        let mut state = State::default();
        let mut dead = std::collections::HashSet::new();
        for (second, event) in events.into_iter().enumerate() {
            let now = at(second as i64);
            match event {
                Event::Rejected(number, seconds, how) => {
                    let how = [How::Explained, How::Plainly, How::Again, How::AsWitness]
                        [usize::from(how)];
                    let verdict = state.rejected(&who(number), received(seconds), how, &now);
                    if how != How::Explained && verdict == Verdict::Dead {
                        dead.insert(number);
                    }
                    if state.is_suspended() {
                        prop_assert_ne!(verdict, Verdict::Dead);
                    }
                }
                Event::Refreshed(number, seconds) => {
                    state.refreshed(&who(number), received(seconds), &at(100));
                    prop_assert!(state.is_calm());
                    dead.clear();
                }
                Event::LoggedIn(number) => state.logged_in(&who(number), &now),
                Event::Claim(wanted) => drop(state.claim_probe(wanted, &now)),
                Event::Unproven => state.unproven(),
                Event::Forgotten(number) => state.forgotten(&who(number)),
                Event::Withdrew => state.withdrew(),
            }
            prop_assert!(dead.len() < MANY);
            let written = serde_json::to_vec(&state).unwrap();
            prop_assert!(written.len() < 4096);
            prop_assert_eq!(serde_json::from_slice::<State>(&written).unwrap(), state.clone());
        }
    }
}
