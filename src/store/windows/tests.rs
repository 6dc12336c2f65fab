//! No sliding window is ever exceeded, whatever the clocks do.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::clock::{Boot, Timestamp};

const SECOND: Duration = Duration::from_secs(1);
/// The wall clock when the machine booted, in seconds.
const BOOTED: i64 = 1_000_000;

/// This many seconds after the boot, by clocks that nobody set.
fn at(seconds: i64) -> Stamp {
    on(1, seconds, BOOTED + seconds)
}

fn on(boot: u64, seconds: i64, wall: i64) -> Stamp {
    Stamp {
        boot: Boot(boot),
        since_boot: seconds * 1_000,
        wall: Timestamp::from_millis(wall * 1_000),
    }
}

fn windows(windows: &[(u32, u32)], reserve: u32) -> LoginWindows {
    let window = |&(logins, per)| LoginWindow {
        logins,
        per: SECOND * per,
    };
    LoginWindows {
        group: "default".into(),
        windows: windows.iter().map(window).collect(),
        reserve,
    }
}

#[test]
fn a_window_that_grows_counts_the_slots_of_the_last_day() {
    const HOUR: i64 = 3_600;
    let narrow = windows(&[(1, 60)], 0);
    let mut history = History::default();
    // One a minute for two days.
    for minute in 0..2 * 24 * 60 {
        let taken = history.take_one(Class::Known, &narrow, at(minute * 60));
        assert_eq!(taken, Slot::Taken, "minute {minute}");
    }
    let now = 48 * HOUR;
    assert!(history.past.len() <= 24 * 12 + 1, "{}", history.past.len());
    // What is remembered is what a row of the store holds, also after a boot.
    let text = serde_json::to_string(&history).unwrap();
    assert!(text.len() < 64 * 1024, "{}", text.len());
    let read: History = serde_json::from_str(&text).unwrap();
    for now in [at(now), on(2, 10, BOOTED + now)] {
        let mut history = read.clone();
        let wide = windows(&[(120, 2 * 3_600), (10_000, 86_400)], 0);
        let budget = history.budget(&wide, now);
        // Slots of five minutes leave a window together.
        let used: Vec<_> = budget.windows.iter().map(|window| window.used).collect();
        assert!((119..=124).contains(&used[0]), "{used:?}");
        assert!((1_435..=1_444).contains(&used[1]), "{used:?}");
        let Slot::Wait {
            left,
            blocked: false,
        } = history.take_one(Class::Known, &wide, now)
        else {
            panic!("two hours are full");
        };
        assert!(left <= SECOND * 400, "{left:?}");
    }
    let mut later = read;
    let day_later = at(now + 25 * HOUR);
    let one_a_day = windows(&[(1, 86_400)], 0);
    assert_eq!(
        later.take_one(Class::Known, &one_a_day, day_later),
        Slot::Taken
    );
}

fn wait(seconds: u32) -> Slot {
    Slot::Wait {
        left: SECOND * seconds,
        blocked: false,
    }
}

impl History {
    /// Takes a slot that nobody took before.
    fn take_one(&mut self, class: Class, windows: &LoginWindows, now: Stamp) -> Slot {
        self.take(SlotId(Uuid::new_v4()), class, windows, now)
    }
}

#[test]
fn a_slot_comes_back_when_its_window_has_slid_past_it() {
    let (mut history, windows) = (History::default(), windows(&[(2, 60)], 0));
    let mut take = |now| history.take_one(Class::Known, &windows, at(now));
    assert_eq!(take(0), Slot::Taken);
    assert_eq!(take(10), Slot::Taken);
    assert_eq!(take(59), wait(1));
    assert_eq!(take(60), Slot::Taken);
    assert_eq!(take(61), wait(9));
}

#[test]
fn all_windows_must_allow_a_login() {
    let (mut history, windows) = (History::default(), windows(&[(2, 10), (3, 100)], 0));
    let mut take = |now| history.take_one(Class::Known, &windows, at(now));
    for now in [0, 1, 11] {
        assert_eq!(take(now), Slot::Taken);
    }
    assert_eq!(take(30), wait(70));
}

#[test]
fn newcomers_leave_the_reserve_of_every_window_alone() {
    let (mut history, windows) = (History::default(), windows(&[(3, 60)], 1));
    let mut take = |class, now| history.take_one(class, &windows, at(now));
    assert_eq!(take(Class::New, 0), Slot::Taken);
    assert_eq!(take(Class::New, 1), Slot::Taken);
    assert_eq!(take(Class::New, 2), wait(58));
    assert_eq!(take(Class::Known, 2), Slot::Taken);
    assert_eq!(take(Class::Known, 3), wait(57));
    // Two of three slots must be free before a newcomer leaves one.
    assert_eq!(take(Class::New, 3), wait(58));
    let state = history.budget(&windows, at(3));
    assert_eq!(
        (state.next_known, state.next_new),
        (SECOND * 57, SECOND * 58)
    );
    assert_eq!((state.windows[0].limit, state.windows[0].used), (3, 3));
}

#[test]
fn a_reserve_as_large_as_the_window_leaves_newcomers_one_slot() {
    let (mut history, windows) = (History::default(), windows(&[(1, 60)], 5));
    let mut take = |now| history.take_one(Class::New, &windows, at(now));
    assert_eq!(take(0), Slot::Taken);
    assert_eq!(take(1), wait(59));
}

#[test]
fn a_slot_that_is_taken_again_by_its_own_name_is_the_same_one() {
    let (mut history, windows) = (History::default(), windows(&[(1, 60)], 0));
    let id = SlotId(Uuid::new_v4());
    for now in [0, 5] {
        let again = history.take(id, Class::Known, &windows, at(now));
        assert_eq!(again, Slot::Taken);
    }
    assert_eq!(history.budget(&windows, at(5)).windows[0].used, 1);
    history.end(id, at(7));
    assert_eq!(history.take_one(Class::Known, &windows, at(60)), wait(7));
}

#[test]
fn a_slot_that_is_given_back_is_free_at_once_and_no_other_is() {
    let (mut history, windows) = (History::default(), windows(&[(2, 60)], 0));
    let ids = [0, 1].map(|_| SlotId(Uuid::new_v4()));
    for (now, id) in (0..).zip(ids) {
        let taken = history.take(id, Class::Known, &windows, at(now));
        assert_eq!(taken, Slot::Taken);
    }
    assert_eq!(history.take_one(Class::Known, &windows, at(2)), wait(58));
    for _repeated in 0..2 {
        history.give_back(ids[1]);
        assert_eq!(history.budget(&windows, at(2)).remaining, 1);
    }
    assert_eq!(history.take_one(Class::Known, &windows, at(2)), Slot::Taken);
    assert_eq!(history.take_one(Class::Known, &windows, at(2)), wait(58));
}

#[test]
fn a_block_stands_whatever_the_windows_say_and_is_never_shortened() {
    let (mut history, windows) = (History::default(), windows(&[(4, 60)], 0));
    history.block(SECOND * 500, None, at(0));
    history.block(SECOND * 100, None, at(0));
    let blocked = Slot::Wait {
        left: SECOND,
        blocked: true,
    };
    let slot = history.take_one(Class::Known, &windows, at(499));
    assert_eq!(slot, blocked);
    let state = history.budget(&windows, at(499));
    assert_eq!((state.remaining, state.next_known), (0, SECOND));
    let slot = history.take_one(Class::Known, &windows, at(500));
    assert_eq!(slot, Slot::Taken);
    assert!(!history.unblock(at(500)));
    history.block(SECOND * 500, Some(SECOND * 900), at(500));
    assert!(history.unblock(at(501)));
    let state = history.budget(&windows, at(501));
    assert_eq!(
        (state.blocked, state.halved),
        (Duration::ZERO, SECOND * 899)
    );
}

#[test]
fn halved_windows_allow_half_but_one_at_least() {
    let (mut history, windows) = (History::default(), windows(&[(5, 60), (1, 10)], 3));
    history.block(Duration::ZERO, Some(SECOND * 30), at(0));
    assert_eq!(history.budget(&windows, at(0)).remaining, 1);
    let mut take = |class, now| history.take_one(class, &windows, at(now));
    assert_eq!(take(Class::New, 0), Slot::Taken);
    assert_eq!(take(Class::Known, 10), Slot::Taken);
    // The whole windows would allow a third once the halving ends, long before second 60.
    assert_eq!(take(Class::Known, 20), wait(10));
    assert_eq!(take(Class::Known, 30), Slot::Taken);
    assert_eq!(history.budget(&windows, at(30)).halved, Duration::ZERO);
}

#[test]
fn a_step_of_the_wall_clock_frees_no_slot_and_prolongs_nothing() {
    const YEAR: i64 = 365 * 86_400;
    let windows = windows(&[(1, 60)], 0);
    for wall in [BOOTED, 1, BOOTED + YEAR, BOOTED - YEAR] {
        let mut history = History::default();
        let mut take = |now| history.take_one(Class::Known, &windows, now);
        assert_eq!(take(at(0)), Slot::Taken);
        assert_eq!(take(on(1, 5, wall)), wait(55));
        assert_eq!(take(on(1, 60, wall)), Slot::Taken);
        history.block(SECOND * 100, Some(SECOND * 200), on(1, 60, wall));
        let state = history.budget(&windows, at(70));
        assert_eq!((state.blocked, state.halved), (SECOND * 90, SECOND * 190));
    }
}

#[test]
fn after_a_reboot_the_wall_clock_counts_once_and_no_slot_is_in_the_future() {
    const YEAR: i64 = 365 * 86_400;
    let windows = windows(&[(1, 60)], 0);
    let before = || {
        let mut history = History::default();
        let taken = history.take_one(Class::Known, &windows, at(0));
        assert_eq!(taken, Slot::Taken);
        history
    };
    let first = on(2, 3, BOOTED + 20);
    let mut history = before();
    assert_eq!(history.take_one(Class::Known, &windows, first), wait(40));
    let stepped = on(2, 13, BOOTED + YEAR);
    assert_eq!(history.take_one(Class::Known, &windows, stepped), wait(30));
    // The clock of the first boot was a year ahead.
    let mut history = before();
    let now = on(2, 3, BOOTED - YEAR);
    assert_eq!(history.take_one(Class::Known, &windows, now), wait(60));
    let mut history = before();
    history.block(SECOND * 3_600, Some(SECOND * 86_400), at(0));
    let state = history.budget(&windows, now);
    assert_eq!(
        (state.blocked, state.halved),
        (SECOND * 3_600, SECOND * 86_400)
    );
}

#[derive(Clone, Debug)]
struct Step {
    /// Seconds that really pass.
    passes: i64,
    /// Seconds that the wall clock is set forward, or back.
    jump: i64,
    /// Whether the machine boots meanwhile; its wall clock is right then.
    boots: bool,
    class: Class,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let jump = prop_oneof![8 => Just(0), 1 => -5..5i64, 1 => -100_000..100_000i64];
    let class = prop_oneof![Just(Class::Known), Just(Class::New)];
    let boots = prop_oneof![9 => Just(false), 1 => Just(true)];
    let step = (0..20i64, jump, boots, class).prop_map(|(passes, jump, boots, class)| Step {
        passes,
        jump: if boots { 0 } else { jump },
        boots,
        class,
    });
    prop::collection::vec(step, 1..120)
}

proptest! {
    #[test]
    fn no_sliding_window_is_ever_exceeded_whatever_the_wall_clock_does(
        steps in steps(),
        limits in prop::collection::vec((1..6u32, 1..90u32), 1..4),
        reserve in 0..3u32,
        wrong in prop::bool::ANY,
    ) {
        let windows = windows(&limits, reserve);
        let mut history = History::default();
        let (mut boot, mut booted, mut real, mut offset) = (1, 0, 0, 0);
        let mut logins = Vec::new();
        for step in steps {
            real += step.passes;
            // Steps and boots together would free what was taken while the clock was wrong.
            match wrong {
                true => offset += step.jump,
                false if step.boots => (boot, booted) = (boot + 1, real),
                false => {}
            }
            let now = on(boot, real - booted, BOOTED + real + offset);
            let before = history.clone();
            match history.take_one(step.class, &windows, now) {
                Slot::Taken => logins.push(real),
                Slot::Wait { left, .. } => {
                    // The wait is honest: not a millisecond too long or too short.
                    prop_assert!(!left.is_zero());
                    let after = |left: Duration| {
                        let left = i64::try_from(left.as_millis()).unwrap();
                        let then = Stamp { since_boot: now.since_boot + left, ..now };
                        history.clone().take_one(step.class, &windows, then)
                    };
                    prop_assert_ne!(after(left - Duration::from_millis(1)), Slot::Taken);
                    prop_assert_eq!(after(left), Slot::Taken);
                }
            }
            let budget = before.budget(&windows, now);
            let mut taken = 0;
            let mut all = before;
            while all.take_one(Class::Known, &windows, now) == Slot::Taken {
                taken += 1;
            }
            prop_assert_eq!(budget.remaining, taken);
        }
        for (limit, per) in limits {
            for first in &logins {
                let span = *first..first + i64::from(per);
                let inside = logins.iter().filter(|at| span.contains(at)).count();
                prop_assert!(inside <= limit as usize, "{inside} logins in {per} s");
            }
        }
    }
}
