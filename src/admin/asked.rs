//! What can be asked for: the paths, and the methods of each.

use super::Serves;
use crate::percent;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Livez,
    Startupz,
    Readyz,
    Metrics,
    Dashboard,
    State,
    Events,
    Budget,
    Config,
    Principals,
    Principal { who: String },
    Renew { who: String },
    Forget { who: String },
    Reload,
}

impl Asked {
    /// What `path` names on a listener that `serves` this; `None` if nothing.
    pub(super) fn of(path: &str, serves: Serves) -> Option<Asked> {
        let asked = match path {
            "/livez" => return Some(Asked::Livez),
            "/startupz" => return Some(Asked::Startupz),
            "/readyz" => return Some(Asked::Readyz),
            "/metrics" => return Some(Asked::Metrics),
            "/dashboard" => Asked::Dashboard,
            "/api/state" => Asked::State,
            "/api/events" => Asked::Events,
            "/api/budget" => Asked::Budget,
            "/api/config" => Asked::Config,
            "/api/principals" => Asked::Principals,
            "/api/reload" => Asked::Reload,
            path => Asked::of_one(path.strip_prefix("/api/principals/")?)?,
        };
        (serves == Serves::Everything).then_some(asked)
    }

    /// What is asked of one principal.
    fn of_one(rest: &str) -> Option<Asked> {
        let (who, what) = match rest.split_once('/') {
            Some((who, what)) => (who, Some(what)),
            None => (rest, None),
        };
        let who = String::from_utf8(percent::decoded(who).collect()).ok()?;
        match what {
            None => Some(Asked::Principal { who }),
            Some("renew") => Some(Asked::Renew { who }),
            Some("forget") => Some(Asked::Forget { who }),
            Some(_) => None,
        }
    }

    /// Whether it changes something.
    pub(super) fn is_write(&self) -> bool {
        match self {
            Asked::Renew { .. } | Asked::Forget { .. } | Asked::Reload => true,
            Asked::Livez
            | Asked::Startupz
            | Asked::Readyz
            | Asked::Metrics
            | Asked::Dashboard
            | Asked::State
            | Asked::Events
            | Asked::Budget
            | Asked::Config
            | Asked::Principals
            | Asked::Principal { .. } => false,
        }
    }

    /// The methods that it has.
    pub(super) fn allows(&self) -> &'static str {
        match self.is_write() {
            true => "POST",
            false => "GET, HEAD",
        }
    }

    /// Whether probes may come under any name: of a pod, of a service, of a load balancer's choice.
    pub(super) fn is_health(&self) -> bool {
        matches!(self, Asked::Livez | Asked::Startupz | Asked::Readyz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_and_the_dashboard_are_not_served_beside_callers() {
        for path in ["/dashboard", "/api/state", "/api/principals/a/forget"] {
            assert!(Asked::of(path, Serves::Everything).is_some(), "{path}");
            assert_eq!(Asked::of(path, Serves::Health), None, "{path}");
        }
        for path in ["/livez", "/startupz", "/readyz", "/metrics"] {
            let asked = Asked::of(path, Serves::Health);
            assert!(asked.is_some() && asked == Asked::of(path, Serves::Everything));
        }
    }

    #[test]
    fn a_principal_is_named_in_the_path_escaped_or_not() {
        let of = |path: &str| Asked::of(path, Serves::Everything);
        let who = || "account:reporting".to_owned();
        for name in ["account:reporting", "account%3Areporting"] {
            let path = format!("/api/principals/{name}");
            assert_eq!(of(&path), Some(Asked::Principal { who: who() }));
            let renew = of(&format!("{path}/renew"));
            assert_eq!(renew, Some(Asked::Renew { who: who() }));
        }
        for path in [
            "/api/principals/a/b",
            "/api/principals/a/renew/",
            "/api/",
            "/api/principals/%ff",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
