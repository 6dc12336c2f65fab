//! What counts the lines that the log loses.

use prometheus_client::metrics::counter::Counter;

use super::Target;

/// What counts the lines that were lost.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    /// `access_events_lost_total`: the same as `access`, under its older name.
    pub access_events: Counter,
    /// `log_lines_lost_total{target="access"}`
    pub access: Counter,
    /// `log_lines_lost_total{target="audit"}`
    pub audit: Counter,
    /// `log_lines_lost_total{target="other"}`
    pub other: Counter,
}

impl Lost {
    pub(super) fn count(&self, target: Target, lines: u64) {
        match target {
            Target::Access => {
                self.access_events.inc_by(lines);
                self.access.inc_by(lines);
            }
            Target::Audit => drop(self.audit.inc_by(lines)),
            Target::Other => drop(self.other.inc_by(lines)),
        }
    }

    /// Counts what `past` has counted, too.
    pub(super) fn add(&self, past: &Lost) {
        for (here, there) in [
            (&self.access_events, &past.access_events),
            (&self.access, &past.access),
            (&self.audit, &past.audit),
            (&self.other, &past.other),
        ] {
            here.inc_by(there.get());
        }
    }
}
