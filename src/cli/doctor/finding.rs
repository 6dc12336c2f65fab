//! What `doctor` found at one step.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// What was found at one step.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    step: &'static str,
    pub(super) verdict: Verdict,
    /// `None` if nothing was asked.
    #[serde(rename = "took_millis", serialize_with = "as_millis")]
    took: Option<Duration>,
    /// What was found.
    found: String,
    /// What to do; `None` if nothing is to be done.
    advice: Option<String>,
}

/// Whether a step is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Good,
    Failed,
    /// It was not made, and need not be.
    Skipped,
}

impl Finding {
    pub(super) fn good(step: &'static str, found: String) -> Finding {
        Finding {
            step,
            verdict: Verdict::Good,
            took: None,
            found,
            advice: None,
        }
    }

    pub(super) fn failed(step: &'static str, found: String, advice: String) -> Finding {
        Finding {
            verdict: Verdict::Failed,
            advice: Some(advice),
            ..Finding::good(step, found)
        }
    }

    pub(super) fn skipped(step: &'static str, found: String) -> Finding {
        Finding {
            verdict: Verdict::Skipped,
            ..Finding::good(step, found)
        }
    }

    /// Says how long it took, too.
    pub(super) fn took(self, took: Duration) -> Finding {
        Finding {
            took: Some(took),
            ..self
        }
    }
}

/// As `ok      name         user.telematicssdk.com: 203.0.113.7 (12 ms)`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "-",
        };
        write!(f, "{verdict:<7} {:<13} {}", self.step, self.found)?;
        if let Some(took) = self.took {
            write!(f, " ({} ms)", took.as_millis())?;
        }
        if let Some(advice) = &self.advice {
            write!(f, "\n        what to do    {advice}")?;
        }
        Ok(())
    }
}

fn as_millis<S: Serializer>(took: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match took {
        Some(took) => serializer.serialize_f64(took.as_secs_f64() * 1000.0),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_how_long_it_took_and_what_to_do() {
        let good = Finding::good("name", "a.example: 192.0.2.1".to_owned());
        assert_eq!(
            good.took(Duration::from_millis(12)).to_string(),
            "ok      name          a.example: 192.0.2.1 (12 ms)"
        );
        let failed = Finding::failed("clock", "2h ahead".to_owned(), "set it".to_owned());
        assert_eq!(
            failed.to_string(),
            "FAILED  clock         2h ahead\n        what to do    set it"
        );
    }
}
