//! How a principal is kept: who renews it now, and how the store is that it is kept in.

use std::time::{Duration, SystemTime};

use crate::cli::output::rough;
use crate::credentials::{Explanation, Renewing};

/// Names and values, for a person. Of an embedded store there is nothing to say: the leases of its
/// processes end with them.
pub(super) fn rows(explanation: &Explanation) -> Vec<(&'static str, String)> {
    let store = &explanation.store;
    if !store.shared {
        return Vec::new();
    }
    let mut rows = vec![("lease", lease_in_words(explanation.lease))];
    if let Some(away) = &store.away {
        let since = SystemTime::now()
            .duration_since(away.since)
            .unwrap_or_default();
        rows.push(("store", format!("away for {}: {}", rough(since), away.why)));
    }
    rows.push(("store clock", clock_in_words(store.clock_offset)));
    rows.push(("outbox", outbox_in_words(store.outbox)));
    rows
}

fn lease_in_words(lease: Option<Renewing>) -> String {
    let Some(Renewing { run, age, left, .. }) = lease else {
        return "none: nobody renews it now".to_owned();
    };
    let taken = age.map_or(String::new(), |age| format!(", taken {} ago", rough(age)));
    let left = left.max(Duration::from_secs(1));
    format!(
        "held by run {run}{taken}; it ends in {} unless it is extended",
        rough(left)
    )
}

fn outbox_in_words(pairs: u64) -> String {
    match pairs {
        0 => "empty".to_owned(),
        1 => "1 pair waits on this machine until the store has it".to_owned(),
        pairs => format!("{pairs} pairs wait on this machine until the store has them"),
    }
}

fn clock_in_words(offset: f64) -> String {
    let seconds = offset.abs();
    match offset {
        _ if seconds < 0.05 => "that of this machine".to_owned(),
        offset if offset > 0.0 => format!("{seconds:.1} s ahead of this machine's"),
        _ => format!("{seconds:.1} s behind this machine's"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RunId;

    #[test]
    fn the_holder_of_a_lease_is_named_with_since_when_and_until_when() {
        let lease = Renewing {
            run: RunId(uuid::Uuid::from_u128(7)),
            since: None,
            age: Some(Duration::from_secs(3)),
            left: Duration::from_secs(12),
        };
        assert_eq!(
            lease_in_words(Some(lease)),
            "held by run 00000000-0000-0000-0000-000000000007, taken 3s ago; it ends in 12s unless it is \
             extended"
        );
    }

    #[test]
    fn what_waits_for_the_store_is_counted() {
        for (pairs, said) in [(0, "empty"), (1, "1 pair waits"), (3, "3 pairs wait")] {
            assert!(outbox_in_words(pairs).starts_with(said));
        }
    }

    #[test]
    fn a_clock_that_is_ahead_and_one_that_is_behind_are_told_apart() {
        for (offset, said) in [
            (0.01, "that of this machine"),
            (2.25, "2.2 s ahead of this machine's"),
            (-3600.0, "3600.0 s behind this machine's"),
        ] {
            assert_eq!(clock_in_words(offset), said);
        }
    }
}
