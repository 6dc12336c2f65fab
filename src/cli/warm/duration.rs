//! How long logins take that the budget paces.

use std::time::Duration;

use crate::store::{LoginBudget, WindowState};

/// How long this many logins of the lowest class take at least, if nobody else logs in: real time, as
/// `budget` is.
pub(super) fn of_logins(logins: u64, budget: &LoginBudget) -> Duration {
    let windows = budget.windows.iter();
    let longest = windows.map(|state| within(logins, state, budget.reserve));
    budget
        .blocked
        .saturating_add(longest.max().unwrap_or_default())
}

/// As one window paces them: what is free goes at once, and then a window's worth in each window.
fn within(logins: u64, state: &WindowState, reserve: u32) -> Duration {
    let usable = u64::from(state.limit.saturating_sub(reserve).max(1));
    let free = usable.saturating_sub(u64::from(state.used));
    let windows = logins.saturating_sub(free).div_ceil(usable);
    let windows = u32::try_from(windows).unwrap_or(u32::MAX);
    state.window.per.saturating_mul(windows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LoginWindow;

    fn budget(windows: &[(u32, u64, u32)]) -> LoginBudget {
        let state = |&(logins, seconds, used): &(u32, u64, u32)| WindowState {
            window: LoginWindow {
                logins,
                per: Duration::from_secs(seconds),
            },
            limit: logins,
            used,
        };
        LoginBudget {
            remaining: 0,
            windows: windows.iter().map(state).collect(),
            reserve: 1,
            next_known: Duration::ZERO,
            next_new: Duration::ZERO,
            blocked: Duration::ZERO,
            halved: Duration::ZERO,
        }
    }

    #[test]
    fn the_slowest_window_says_how_long_logins_take() {
        const HOUR: u64 = 3600;
        let minute = budget(&[(4, 60, 0)]);
        for (logins, seconds) in [
            (0, 0),
            (3, 0),
            (4, 60),
            (6, 60),
            (7, 120),
            (1_800, 599 * 60),
        ] {
            assert_eq!(of_logins(logins, &minute).as_secs(), seconds, "{logins}");
        }
        let used = budget(&[(4, 60, 4)]);
        assert_eq!(of_logins(1, &used).as_secs(), 60);
        let hourly = budget(&[(4, 60, 0), (31, HOUR, 0)]);
        assert_eq!(of_logins(60, &hourly).as_secs(), HOUR);
        assert_eq!(of_logins(1_000_000, &hourly).as_secs(), 33_333 * HOUR);
        // Only the reserve: one in each window all the same.
        assert_eq!(of_logins(3, &budget(&[(1, 60, 0)])).as_secs(), 120);
        let blocked = LoginBudget {
            blocked: Duration::from_secs(600),
            ..minute
        };
        assert_eq!(of_logins(4, &blocked).as_secs(), 660);
    }
}
