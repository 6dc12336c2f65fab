//! Reading the configuration again while the process runs: who may ask for it ([`Reloads`]), and who does it
//! ([`Requests`]). Knows when it was asked for and what came of it, nothing of what a configuration says.
//!
//! ```text
//!   asked 1, 2, 3 ──▶ reading (of 3) ──▶ done up to 3 ──▶ ask 1, 2 and 3 have their outcome
//!   asked 4 ─────────────┘ meanwhile ──▶ reading (of 4) …
//! ```

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::metrics::ReloadResult;

/// Asks for reloads, and says what came of the last one. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reloads {
    /// The number of the last ask. Asks are counted, not queued: those that come while a file is read are
    /// one.
    asked: watch::Sender<Asked>,
    done: watch::Receiver<Done>,
}

/// What asks for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// A file that has changed.
    File,
    /// The admin API.
    Api,
}

impl Trigger {
    /// As it stands in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::Signal => "signal",
            Trigger::File => "file",
            Trigger::Api => "api",
        }
    }
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the file is in force now.
    pub result: ReloadResult,
    /// If it was refused: all that is wrong with it. Several lines; no secret.
    pub report: Option<Arc<str>>,
    /// The keys of the file that take effect only at a restart, and differ from what is in force.
    pub restart_needed: Keys,
}

/// Dotted names of keys, as in `store.path`.
pub type Keys = Arc<[&'static str]>;

/// What is in force, and what of the file is not.
#[derive(Clone, Debug)]
pub struct State {
    /// The file, as it was found at the start.
    pub file: PathBuf,
    /// When what is in force was read last.
    pub loaded: SystemTime,
    /// What came of the last reload; `None` if there was none.
    pub last: Option<ReloadResult>,
    /// Set while the file is refused: what was in force before stays.
    pub refused: Option<Refused>,
    /// Set while something that the file says needs a restart.
    pub restart: Option<RestartNeeded>,
}

/// A file that is refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// When it was refused first, in a row.
    pub since: SystemTime,
    /// All that is wrong with it now. Several lines; no secret.
    pub report: Arc<str>,
}

/// What takes effect only at a restart.
#[derive(Clone, Debug)]
pub struct RestartNeeded {
    /// Since when, in a row.
    pub since: SystemTime,
    /// The keys that differ; at least one.
    pub keys: Keys,
}

/// What it means and what to do about it.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.report.lines().next().unwrap_or_default();
        let why = first.strip_prefix("error: ").unwrap_or(first);
        write!(
            f,
            "the configuration is refused, and what was in force before stays: {why}; \
             `damoov-proxy check` says all that is wrong"
        )
    }
}

/// What it means and what to do about it.
impl fmt::Display for RestartNeeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.join(", ");
        write!(
            f,
            "these keys take effect at a restart only, and differ from what is in force: {keys}; \
             restart, or put them back"
        )
    }
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    by: Trigger,
}

#[derive(Clone, Debug)]
struct Done {
    /// Every ask up to this number has been answered.
    up_to: u64,
    outcome: Outcome,
    state: Arc<State>,
}

/// Takes the asks of [`Reloads`]; one task has it.
#[derive(Debug)]
pub struct Requests {
    asked: watch::Receiver<Asked>,
    taken: u64,
    done: watch::Sender<Done>,
}

/// How a reload ended, for whoever writes the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The file is refused, for the same reasons as before.
    Known,
    /// There is something to be logged: it is in force, or is refused for new reasons.
    New,
}

/// For a file that was read at `loaded`, and needed no restart.
pub fn channel(file: PathBuf, loaded: SystemTime) -> (Reloads, Requests) {
    let (ask, asked) = watch::channel(Asked {
        number: 0,
        by: Trigger::Signal,
    });
    let (done, watched) = watch::channel(Done {
        up_to: 0,
        outcome: Outcome {
            result: ReloadResult::Unchanged,
            report: None,
            restart_needed: Arc::default(),
        },
        state: Arc::new(State {
            file,
            loaded,
            last: None,
            refused: None,
            restart: None,
        }),
    });
    let reloads = Reloads {
        asked: ask,
        done: watched,
    };
    let requests = Requests {
        asked,
        taken: 0,
        done,
    };
    (reloads, requests)
}

impl Reloads {
    /// Of a process that never reads its file again, for tests.
    #[cfg(any(test, feature = "internals"))]
    pub fn unanswered(file: &str) -> Reloads {
        channel(file.into(), SystemTime::now()).0
    }

    /// Asks for a reload, and waits for none.
    pub fn request(&self, by: Trigger) {
        self.enter(by);
    }

    /// Asks for a reload and waits for what comes of it. Asks that overlap share a reading, which begins
    /// after the last of them. Takes as long as the file takes to be read.
    pub async fn ask(&self, by: Trigger) -> Outcome {
        let number = self.enter(by);
        let mut done = self.done.clone();
        match done.wait_for(|done| done.up_to >= number).await {
            Ok(done) => done.outcome.clone(),
            Err(_) => Outcome {
                result: ReloadResult::Refused,
                report: Some("the process is about to end, and reads no configuration".into()),
                restart_needed: Arc::default(),
            },
        }
    }

    /// What is in force now, and what of the file is not.
    pub fn state(&self) -> Arc<State> {
        self.done.borrow().state.clone()
    }

    fn enter(&self, by: Trigger) -> u64 {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            number = asked.number + 1;
            *asked = Asked { number, by };
        });
        number
    }
}

impl Requests {
    /// Returns once a reload is asked for: by what it was asked for last.
    pub async fn next(&mut self) -> Trigger {
        let taken = self.taken;
        let asked = self.asked.wait_for(|asked| asked.number > taken).await;
        match asked.map(|asked| asked.by) {
            Ok(by) => by,
            // Nobody is left who could ask.
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes every ask that has come until now: the reading that begins here answers them all.
    pub fn begin(&mut self) {
        self.taken = self.asked.borrow_and_update().number;
    }

    /// What is published now.
    pub fn state(&self) -> Arc<State> {
        self.done.borrow().state.clone()
    }

    /// The keys that need a restart, as far as is known.
    pub fn restart_needed(&self) -> Keys {
        let state = self.state();
        let keys = state.restart.as_ref().map(|needed| needed.keys.clone());
        keys.unwrap_or_default()
    }

    /// Answers the asks that were taken. `at`: when the reading began.
    pub fn end(&self, at: SystemTime, outcome: Outcome) -> Report {
        let before = self.state();
        let state = Arc::new(before.followed_by(at, &outcome));
        let told = before.refused.as_ref().map(|refused| &refused.report);
        let report = match &outcome.report {
            Some(report) if told == Some(report) => Report::Known,
            Some(_) | None => Report::New,
        };
        self.done.send_replace(Done {
            up_to: self.taken,
            outcome,
            state,
        });
        report
    }
}

impl State {
    /// The state after a reload that began at `at`.
    fn followed_by(&self, at: SystemTime, outcome: &Outcome) -> State {
        let file = self.file.clone();
        let last = Some(outcome.result);
        if let Some(report) = &outcome.report {
            let since = self.refused.as_ref().map_or(at, |refused| refused.since);
            let report = report.clone();
            return State {
                last,
                refused: Some(Refused { since, report }),
                ..self.clone()
            };
        }
        let keys = &outcome.restart_needed;
        let restart = (!keys.is_empty()).then(|| RestartNeeded {
            since: self.restart.as_ref().map_or(at, |needed| needed.since),
            keys: keys.clone(),
        });
        State {
            file,
            loaded: at,
            last,
            refused: None,
            restart,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    fn applied(restart_needed: &[&'static str]) -> Outcome {
        Outcome {
            result: ReloadResult::Applied,
            report: None,
            restart_needed: restart_needed.into(),
        }
    }

    fn refused(report: &str) -> Outcome {
        Outcome {
            result: ReloadResult::Refused,
            report: Some(report.into()),
            restart_needed: Arc::default(),
        }
    }

    #[test]
    fn asks_that_overlap_share_the_reading_that_begins_after_them() {
        let (reloads, mut requests) = channel("x.toml".into(), SystemTime::now());
        assert!(requests.next().now_or_never().is_none());
        reloads.request(Trigger::Signal);
        let mut first = Box::pin(reloads.ask(Trigger::Api));
        assert!(first.as_mut().now_or_never().is_none());
        assert_eq!(requests.next().now_or_never(), Some(Trigger::Api));
        requests.begin();
        let mut late = Box::pin(reloads.ask(Trigger::Signal));
        assert!(late.as_mut().now_or_never().is_none());
        requests.end(SystemTime::now(), applied(&[]));
        assert_eq!(first.now_or_never(), Some(applied(&[])));
        assert!(late.as_mut().now_or_never().is_none(), "its file is newer");
        assert_eq!(requests.next().now_or_never(), Some(Trigger::Signal));
        requests.begin();
        requests.end(SystemTime::now(), refused("no"));
        assert_eq!(late.now_or_never(), Some(refused("no")));
        assert!(requests.next().now_or_never().is_none());
    }

    #[test]
    fn an_ask_is_refused_once_nobody_reads_the_file() {
        let reloads = Reloads::unanswered("x.toml");
        let outcome = reloads.ask(Trigger::Api).now_or_never().unwrap();
        assert_eq!(outcome.result, ReloadResult::Refused);
        assert!(outcome.report.unwrap().contains("about to end"));
    }

    #[test]
    fn what_lasts_keeps_its_beginning_until_it_is_over() {
        let start = SystemTime::UNIX_EPOCH;
        let at = |seconds| start + Duration::from_secs(seconds);
        let (reloads, requests) = channel("x.toml".into(), start);
        assert_eq!(requests.end(at(1), refused("a")), Report::New);
        assert_eq!(requests.end(at(2), refused("a")), Report::Known);
        assert_eq!(requests.end(at(3), refused("b")), Report::New);
        let state = reloads.state();
        let (since, report) = state
            .refused
            .as_ref()
            .map(|r| (r.since, &*r.report))
            .unwrap();
        assert_eq!((since, report, state.loaded), (at(1), "b", start));

        requests.end(at(4), applied(&["listen"]));
        requests.end(at(5), applied(&["listen", "store.path"]));
        requests.end(at(6), refused("a"));
        let state = reloads.state();
        let restart = state.restart.as_ref().unwrap();
        assert_eq!((restart.since, restart.keys.len()), (at(4), 2));
        assert_eq!(
            (state.loaded, state.last),
            (at(5), Some(ReloadResult::Refused))
        );
        requests.end(at(7), applied(&[]));
        let state = reloads.state();
        assert!(state.restart.is_none() && state.refused.is_none());
    }
}
