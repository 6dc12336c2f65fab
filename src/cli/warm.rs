//! `warm`: logs many users in, one after the other and within the budget, so that their first requests need
//! not wait. It takes no slot that requests could use instead: none of the reserve, and one that it had to
//! wait for only a moment after it came. Who has a pair is skipped, so that it goes on where it is run
//! again.

mod duration;
mod line;
mod report;

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::future::{BoxFuture, FutureExt, Shared};
use futures_util::stream::StreamExt;

use self::line::Named;
use self::report::{Outcome, Report, WaitsFor};
use super::lines::{self, InputLine, Source};
use super::opening::open_store;
use super::output::{Format, print_json};
use super::progress::while_shown;
use super::wiring::{finish, renewer};
use super::{ConfigFile, Failure, exit, interrupted, print, say};
use crate::clock::Clock;
use crate::config::{Secrets, Settings};
use crate::credentials::{Error, Renewer, Stored};
use crate::directory::Directory;
use crate::principal::Principal;
use crate::store;
use crate::telemetry;

/// Lines whose users are looked up at once.
const LOOKED_UP: usize = 32;
/// After a wait for a slot, requests that wait for it as well have this long to take it, in real time.
const GRACE: Duration = Duration::from_secs(1);
/// The budget is looked at this often at least, in real time: an operator may have ended a block.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A login that failed in a way that may pass is tried again after this time.
const AGAIN: Duration = Duration::from_secs(5);
/// So many times if it was sent: each takes a slot.
const TRIES: u32 = 3;

/// Whom to log in.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Lines that each name a user: a DeviceToken, or {"DeviceToken", "InstanceId"}; - for standard input
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// How.
    #[command(flatten)]
    format: Format,
}

/// Why it ends before the lines do.
enum Ended {
    /// A signal. If a login was under way, of whom.
    Interrupted(Option<Principal>),
    /// The file cannot be read any further.
    Unreadable(io::Error),
    /// The store fails, for this user as for all others.
    Store(store::Error),
}

/// What a line comes to before a login.
enum Checked {
    Done(Outcome),
    NeedsLogin(Named),
}

/// What is to be done about a login that failed.
enum Then {
    /// It is over.
    Over(Outcome),
    /// Once more, after a wait.
    Again(WaitsFor, Duration),
    /// The same, but not for ever: it was sent.
    AgainIfFew(String),
    /// There is no point in going on.
    End(Ended),
}

/// Returns once a signal has come, as often as it is asked.
type Interrupt = Shared<BoxFuture<'static, ()>>;

/// One run.
struct Warming {
    renewer: Renewer,
    directory: Arc<Directory>,
    clock: Clock,
    report: Report,
    interrupt: Interrupt,
}

/// Runs the command.
pub fn run(config: ConfigFile, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (_, loaded) = config.load(Secrets::Resolve)?;
    let _audit = telemetry::audit_command(loaded.settings.log).map_err(Failure::other)?;
    super::background_runtime()?.block_on(warm(loaded.settings, arguments))
}

async fn warm(settings: Settings, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let source = Source::open(&arguments.from)?;
    let report = Report::new(lines::count(&arguments.from)?);
    let interrupt = interrupted().boxed().shared();
    // From here on a signal no longer ends the process by itself.
    let _ = interrupt.clone().now_or_never();
    let clock = Clock::from_environment();
    let open = open_store(&settings.store).await?;
    let warming = Warming {
        directory: settings.directory.clone(),
        renewer: renewer(open, settings)?,
        clock,
        report,
        interrupt,
    };
    let ended = warming.all(source.lines(line::LONGEST)?).await;
    // A login under way is brought to its end.
    finish(&warming.renewer).await;
    warming.conclude(ended, arguments).await
}

impl Warming {
    async fn all(&self, lines: impl futures_util::Stream<Item = InputLine>) -> Result<(), Ended> {
        if let Ok(budget) = self.renewer.login_budget().await {
            self.report.note_budget(budget);
        }
        let checked = lines.map(|line| async move { (line.number, self.check(line).await) });
        let checked = checked
            .buffered(LOOKED_UP)
            .take_until(self.interrupt.clone());
        let mut checked = pin!(checked);
        while let Some((number, checked)) = checked.next().await {
            let outcome = match checked? {
                Checked::Done(outcome) => outcome,
                Checked::NeedsLogin(named) => self.log_in(&named).await?,
            };
            self.report.count(number, outcome);
        }
        match self.interrupt.clone().now_or_never() {
            Some(()) => Err(Ended::Interrupted(None)),
            None => Ok(()),
        }
    }

    /// Whom a line names, and whether he needs a login.
    async fn check(&self, line: InputLine) -> Result<Checked, Ended> {
        let named = match line.text {
            Ok(text) => line::read(&text, &self.directory),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error.to_string()),
            Err(error) => return Err(Ended::Unreadable(error)),
        };
        match named {
            Ok(named) => Ok(match self.without_login(&named.principal).await? {
                Some(outcome) => Checked::Done(outcome),
                None => Checked::NeedsLogin(named),
            }),
            Err(why) => Ok(Checked::Done(Outcome::Bad(why))),
        }
    }

    /// What becomes of a principal without a login; `None` if only a login helps.
    async fn without_login(&self, principal: &Principal) -> Result<Option<Outcome>, Ended> {
        let entry = loop {
            match self.renewer.store().load(principal).await {
                Ok(entry) => break entry,
                Err(store::Error::Away(_)) => self.waits(WaitsFor::Store, AGAIN).await?,
                Err(error @ store::Error::Damaged(_)) => {
                    return Ok(Some(Outcome::Failed(error.to_string())));
                }
                Err(error) => return Err(Ended::Store(error)),
            }
        };
        let stored = self.renewer.stored(principal, &entry);
        Ok(match stored {
            Stored::KeyMissing(key) => Some(Outcome::Failed(format!(
                "the stored pair of {principal} is sealed with the key {key}, which is not configured"
            ))),
            stored if stored.needs_login() => None,
            _ => {
                self.renewer.note_wanted(principal).await;
                Some(Outcome::HadAPair)
            }
        })
    }

    async fn log_in(&self, named: &Named) -> Result<Outcome, Ended> {
        let Named {
            principal,
            instance,
        } = named;
        let mut tries = 0;
        loop {
            self.slot().await?;
            // Somebody may have logged it in meanwhile.
            if let Some(outcome) = self.without_login(principal).await? {
                return Ok(outcome);
            }
            let login = self.shown(self.renewer.log_in(principal, *instance));
            let done = tokio::select! {
                done = login => done,
                () = self.interrupt.clone() => {
                    return Err(Ended::Interrupted(Some(principal.clone())));
                }
            };
            let Err(error) = done else {
                return Ok(Outcome::LoggedIn);
            };
            let (waits_for, pause) = match then(principal, error) {
                Then::Over(outcome) => return Ok(outcome),
                Then::End(ended) => return Err(ended),
                Then::Again(waits_for, pause) => (waits_for, pause),
                Then::AgainIfFew(why) => {
                    tries += 1;
                    if tries >= TRIES {
                        return Ok(Outcome::Failed(why));
                    }
                    (WaitsFor::Api, AGAIN)
                }
            };
            self.waits(waits_for, pause).await?;
        }
    }

    /// Returns once there is a slot for a login that requests leave.
    async fn slot(&self) -> Result<(), Ended> {
        loop {
            let budget = match self.renewer.login_budget().await {
                Ok(budget) => budget,
                Err(store::Error::Away(_)) => {
                    self.waits(WaitsFor::Store, AGAIN).await?;
                    continue;
                }
                Err(error) => return Err(Ended::Store(error)),
            };
            let (blocked, next) = (budget.blocked, budget.next_new);
            self.report.note_budget(budget);
            let (waits_for, left) = match (blocked.is_zero(), next.is_zero()) {
                (true, true) => {
                    self.report.note_wait(None);
                    return Ok(());
                }
                (true, false) => (WaitsFor::Slot, next),
                (false, _) => (WaitsFor::Block, blocked),
            };
            let left = left.saturating_add(self.clock.to_real(GRACE));
            self.report.note_wait(Some((waits_for, left)));
            self.pause(left.min(LOOK_AGAIN)).await?;
        }
    }

    /// Waits this long on the engine's clock.
    async fn waits(&self, what: WaitsFor, pause: Duration) -> Result<(), Ended> {
        let pause = self.clock.to_real(pause);
        self.report.note_wait(Some((what, pause)));
        self.pause(pause).await
    }

    async fn pause(&self, pause: Duration) -> Result<(), Ended> {
        tokio::select! {
            () = self.shown(tokio::time::sleep(pause)) => Ok(()),
            () = self.interrupt.clone() => Err(Ended::Interrupted(None)),
        }
    }

    /// Does `work`, and keeps what is shown up to date.
    async fn shown<T>(&self, work: impl Future<Output = T>) -> T {
        while_shown(work, || self.report.show()).await
    }

    /// The last line, and the exit code.
    async fn conclude(
        self,
        ended: Result<(), Ended>,
        arguments: &Arguments,
    ) -> Result<ExitCode, Failure> {
        if let Err(Ended::Interrupted(Some(principal))) = &ended
            && let Ok(entry) = self.renewer.store().load(principal).await
            && !self.renewer.stored(principal, &entry).needs_login()
        {
            self.report.count(0, Outcome::LoggedIn);
        }
        let counts = self.report.counts();
        drop(self);
        let printed = match arguments.format.is_json() {
            true => print_json(&counts),
            false => print(&counts.to_string()),
        };
        let code = match ended {
            Err(Ended::Store(error)) => return Err(error.into()),
            Err(Ended::Unreadable(error)) => {
                return Err(lines::unreadable(&arguments.from, error));
            }
            Err(Ended::Interrupted(_)) => {
                say("interrupted: who was logged in stays; run it again for the rest");
                exit::INTERRUPTED
            }
            Ok(()) if counts.bad + counts.rejected > 0 => exit::INPUT,
            Ok(()) if counts.failed > 0 => {
                say("run it again for those that failed");
                exit::FAILURE
            }
            Ok(()) => exit::DONE,
        };
        match code {
            // Nobody reads the line: that is all that went wrong.
            exit::DONE => printed.map(|()| ExitCode::SUCCESS),
            code => Ok(ExitCode::from(code)),
        }
    }
}

/// What is to be done about a failed login of `principal`.
fn then(principal: &Principal, error: Error) -> Then {
    let told = format!("{principal}: {error}");
    match error {
        Error::InstanceUnknown
        | Error::InstanceGone
        | Error::AccountUnknown
        | Error::InstanceMismatch => Then::Over(Outcome::Bad(told)),
        Error::LoginRejected => Then::Over(Outcome::Rejected(told)),
        Error::Contested { .. } => Then::Over(Outcome::Failed(told)),
        // The budget was looked at: somebody else took the slot.
        Error::BudgetExhausted { .. } => Then::Again(WaitsFor::Slot, GRACE),
        Error::LoginBlocked { .. } => Then::Again(WaitsFor::Block, GRACE),
        Error::Suspended { .. } => Then::Again(WaitsFor::Suspension, AGAIN),
        Error::StoreUnavailable(store::Error::Away(_)) => Then::Again(WaitsFor::Store, AGAIN),
        Error::StoreUnavailable(error) => Then::End(Ended::Store(error)),
        Error::Unreachable(_) => Then::Again(WaitsFor::Api, AGAIN),
        Error::BadResponse | Error::Timeout | Error::WaitedTooLong => Then::AgainIfFew(told),
        Error::Closing => Then::End(Ended::Interrupted(None)),
    }
}
