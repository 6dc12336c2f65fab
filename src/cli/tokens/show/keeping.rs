//! How a principal is kept: who renews it now, and how the store is that it is kept in.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::cli::output::rough;
use crate::clock::Timestamp;
use crate::store::{Condition, LeaseHolder};

/// What the store says of itself and of the principal's lease.
pub(super) struct Keeping {
    pub(super) lease: Option<LeaseHolder>,
    pub(super) condition: Condition,
    /// By the store's clock.
    pub(super) now: Timestamp,
}

impl Keeping {
    /// Names and values, for a person. Of an embedded store there is nothing to say: the leases of its
    /// processes end with them.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let condition = &self.condition;
        if !condition.shared {
            return Vec::new();
        }
        let mut rows = vec![("lease", self.lease_in_words())];
        if let Some(away) = &condition.away {
            let since = SystemTime::now()
                .duration_since(away.since)
                .unwrap_or_default();
            rows.push(("store", format!("away for {}: {}", rough(since), away.why)));
        }
        rows.push(("store clock", clock_in_words(condition.clock_offset)));
        rows.push((
            "outbox",
            match condition.outbox {
                0 => "empty".to_owned(),
                1 => "1 pair waits on this machine until the store has it".to_owned(),
                pairs => format!("{pairs} pairs wait on this machine until the store has them"),
            },
        ));
        rows
    }

    fn lease_in_words(&self) -> String {
        let Some(LeaseHolder { run, since, left }) = &self.lease else {
            return "none: nobody renews it now".to_owned();
        };
        let since = since.map_or(String::new(), |since| {
            format!(", taken {} ago", rough(self.now.since(since)))
        });
        let left = (*left).max(Duration::from_secs(1));
        format!(
            "held by run {run}{since}; it ends in {} unless it is extended",
            rough(left)
        )
    }

    /// For a program.
    pub(super) fn lease_as_json(&self) -> Option<Value> {
        let LeaseHolder { run, since, left } = self.lease.as_ref()?;
        Some(json!({
            "run": run.to_string(),
            "since_millis": since.map(Timestamp::as_millis),
            "left_seconds": left.as_secs_f64(),
        }))
    }

    /// For a program.
    pub(super) fn store_as_json(&self) -> Value {
        let Condition {
            away,
            shared,
            outbox,
            clock_offset,
            ..
        } = &self.condition;
        json!({
            "shared": shared,
            "away": away.as_ref().map(|away| &away.why),
            "outbox": outbox,
            "clock_offset_seconds": clock_offset,
        })
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

    fn keeping(condition: Condition) -> Keeping {
        Keeping {
            lease: Some(LeaseHolder {
                run: RunId(uuid::Uuid::from_u128(7)),
                since: Some(Timestamp::from_millis(1_000)),
                left: Duration::from_secs(12),
            }),
            condition,
            now: Timestamp::from_millis(4_000),
        }
    }

    #[test]
    fn the_holder_of_a_lease_is_named_with_since_when_and_until_when() {
        assert_eq!(keeping(Condition::default()).rows(), []);
        let rows = keeping(Condition {
            shared: true,
            ..Condition::default()
        })
        .rows();
        assert_eq!(rows[0].0, "lease");
        assert_eq!(
            rows[0].1,
            "held by run 00000000-0000-0000-0000-000000000007, taken 3s ago; it ends in 12s unless it is \
             extended"
        );
    }

    #[test]
    fn a_shared_store_tells_its_clock_and_what_waits_for_it() {
        for (clock_offset, outbox, clock, waits) in [
            (0.01, 0, "that of this machine", "empty"),
            (2.25, 3, "2.2 s ahead of", "3 pairs wait"),
            (-3600.0, 1, "3600.0 s behind", "1 pair waits"),
        ] {
            let rows = keeping(Condition {
                shared: true,
                outbox,
                clock_offset,
                ..Condition::default()
            })
            .rows();
            let said = |name| &rows.iter().find(|row| row.0 == name).unwrap().1;
            assert!(said("store clock").starts_with(clock), "{rows:?}");
            assert!(said("outbox").starts_with(waits), "{rows:?}");
        }
    }
}
