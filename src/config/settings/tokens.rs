//! `[login_budget]` and `[renewal]`: the numbers by which tokens live.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::quantity::{
    DAY, HOUR, MIB, MILLISECOND, MINUTE, SECOND, TIB, YEAR, duration, integer, share, size,
};
use crate::config::section::Section;
use crate::config::shape;
use crate::config::tree::Node;
use crate::replay;
use crate::store::{LoginWindow, LoginWindows};

/// `[login_budget]`
pub(super) struct Budget {
    pub(super) windows: LoginWindows,
    pub(super) blocked_for: Duration,
}

pub(super) fn login_budget(budget: &mut Section<'_>) -> Budget {
    let logins = budget.get("logins", integer(1..=1_000_000)).unwrap_or(4);
    let per = budget.get("per", duration(SECOND..=YEAR)).unwrap_or(MINUTE);
    let mut windows = vec![LoginWindow { logins, per }];
    windows.extend(budget.tables("more", |window| {
        let logins = window.require("logins", integer(1..=1_000_000));
        let per = window.require("per", duration(SECOND..=YEAR));
        Some(LoginWindow {
            logins: logins?,
            per: per?,
        })
    }));
    // Principals never seen must find a slot in every window.
    let largest_reserve = windows.iter().map(|w| w.logins).min().unwrap_or(1) - 1;
    let reserve = budget
        .get("reserve", integer(0..=largest_reserve))
        .unwrap_or(largest_reserve.min(1));
    Budget {
        windows: LoginWindows {
            group: budget
                .get("group", shape::name)
                .unwrap_or_else(|| "default".to_owned()),
            windows,
            reserve,
        },
        blocked_for: budget
            .get("blocked_for", duration(SECOND..=YEAR))
            .unwrap_or(HOUR),
    }
}

/// `[renewal]`
pub(super) struct Renewal {
    pub(super) ahead: f64,
    pub(super) wait: Duration,
    pub(super) timeout: Duration,
    pub(super) keep_refresh_tokens: Option<Duration>,
    pub(super) renewals_per_second: u32,
    pub(super) remember_rejected: Duration,
    pub(super) contested_backoff: Duration,
    pub(super) forget_unused: Option<Duration>,
    pub(super) in_band_401: bool,
    pub(super) replay: replay::Settings,
    pub(super) max_cached: u64,
}

pub(super) fn renewal(renewal: &mut Section<'_>) -> Renewal {
    Renewal {
        ahead: renewal.get("ahead", share).unwrap_or(0.8),
        wait: renewal
            .get("wait", duration(MILLISECOND..=HOUR))
            .unwrap_or(20 * SECOND),
        timeout: renewal
            .get("timeout", duration(MILLISECOND..=HOUR))
            .unwrap_or(10 * SECOND),
        keep_refresh_tokens: renewal
            .get("keep_refresh_tokens", age_or_off(SECOND..=YEAR))
            .unwrap_or(Some(60 * DAY)),
        renewals_per_second: renewal
            .get("renewals_per_second", integer(1..=1_000_000))
            .unwrap_or(50),
        remember_rejected: renewal
            .get("remember_rejected", duration(SECOND..=YEAR))
            .unwrap_or(10 * MINUTE),
        contested_backoff: renewal
            .get("contested_backoff", duration(Duration::ZERO..=YEAR))
            .unwrap_or(6 * HOUR),
        forget_unused: renewal
            .get("forget_unused", age_or_off(DAY..=10 * YEAR))
            .unwrap_or(None),
        in_band_401: renewal.get("in_band_401", shape::flag).unwrap_or(true),
        replay: replay::Settings {
            limit: renewal.get("replay_limit", size(0..=TIB)).unwrap_or(MIB),
            memory: renewal
                .get("replay_memory", size(0..=TIB))
                .unwrap_or(256 * MIB),
        },
        max_cached: renewal
            .get("max_cached", size(MIB..=TIB))
            .unwrap_or(256 * MIB),
    }
}

/// None for `"off"`.
fn age_or_off(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Node) -> Result<Option<Duration>, String> {
    move |node| match node.text() {
        Some("off") => Ok(None),
        _ => duration(range.clone())(node)
            .map(Some)
            .map_err(|expected| format!("{expected}, or \"off\"")),
    }
}
