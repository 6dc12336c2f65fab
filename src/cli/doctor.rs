//! `doctor`: is everything that a request needs in order? Looks at each step in the order in which a request
//! takes them, and says of each that fails what to do about it.

mod finding;
mod renewal;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use self::finding::{Finding, Verdict};
use super::opening::{StoreError, is_there, open_store, shown_place};
use super::output::{Format, print_json, rough};
use super::{ConfigFile, Failure, print};
use crate::clock::Clock;
use crate::config::{Secrets, Settings};
use crate::damoov::retry_after::sent_at;
use crate::damoov::routes::Table;
use crate::store::LoginBudget;
use crate::telemetry;
use crate::telemetry::episode::Chain;
use crate::upstream::{Examination, Hosts, Step};

/// Hosts that are looked at at once: each may take as long as a connection may.
const AT_ONCE: usize = 16;
/// A clock that is further off makes certificates look expired, and logs hard to compare.
const SKEW: Duration = Duration::from_secs(60);

/// How far to go.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Log a user in if no refresh shows that the Auth endpoints work: this spends a slot of the login budget
    #[arg(long)]
    allow_login: bool,
    /// How.
    #[command(flatten)]
    format: Format,
}

/// What was found, shown as it comes.
struct Findings {
    format: Format,
    failed: bool,
}

impl Findings {
    fn add(&mut self, finding: &Finding) -> Result<(), Failure> {
        self.failed |= finding.verdict == Verdict::Failed;
        match self.format.is_json() {
            true => print_json(finding),
            false => print(&finding.to_string()),
        }
    }
}

/// Runs the command.
pub fn run(config: ConfigFile, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (path, loaded) = config.load(Secrets::Resolve)?;
    let _audit = telemetry::audit_command(loaded.settings.log).map_err(Failure::other)?;
    let mut findings = Findings {
        format: arguments.format,
        failed: false,
    };
    findings.add(&Finding::good("configuration", path.display().to_string()))?;
    super::background_runtime()?.block_on(async {
        hosts(&loaded.settings, &mut findings).await?;
        store(loaded.settings, arguments, &mut findings).await?;
        Ok(match findings.failed {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    })
}

/// The hosts of all routes, and the clock against the first that answers.
async fn hosts(settings: &Settings, findings: &mut Findings) -> Result<(), Failure> {
    let hosts = Hosts::new(&settings.upstream)?;
    let table = Table::new(settings.routes.clone(), settings.default_host.clone());
    let names: BTreeSet<_> = table.hosts().map(str::to_owned).collect();
    let examined = stream::iter(names).map(|name| {
        let (hosts, upstream) = (&hosts, &settings.upstream);
        async move { hosts.examine(&name, upstream).await }
    });
    let mut examined = std::pin::pin!(examined.buffered(AT_ONCE));
    let mut clock = None;
    while let Some(examination) = examined.next().await {
        let examination = examination?;
        for finding in of_host(&examination) {
            findings.add(&finding)?;
        }
        clock = clock.or_else(|| of_clock(&examination));
    }
    findings.add(&clock.unwrap_or_else(|| {
        let told = "no host answered with a Date that it could be compared with";
        Finding::skipped("clock", told.to_owned())
    }))
}

/// One finding for each step that was made.
fn of_host(examination: &Examination) -> Vec<Finding> {
    let host = &examination.host;
    let mut findings = Vec::new();
    findings.push(of_step("name", host, &examination.name, |addresses| {
        let first = addresses.first().map(|first| first.ip().to_string());
        match addresses.len() {
            1 => first.unwrap_or_default(),
            many => format!("{} and {} more", first.unwrap_or_default(), many - 1),
        }
    }));
    if let Some(step) = &examination.connection {
        findings.push(of_step("connection", host, step, ToString::to_string));
    }
    match (&examination.certificate, &examination.answer) {
        (Some(step), _) => findings.push(of_step("certificate", host, step, |()| {
            "valid, trusted, and this host's".to_owned()
        })),
        (None, Some(_)) => findings.push(Finding::skipped(
            "certificate",
            format!("{host}: redirected in plain text by [upstream]"),
        )),
        (None, None) => {}
    }
    if let Some(step) = &examination.answer {
        findings.push(of_step("answer", host, step, |_| {
            "answers HTTP/1.1".to_owned()
        }));
    }
    findings
}

fn of_step<T>(
    name: &'static str,
    host: &str,
    step: &Step<T>,
    told: impl FnOnce(&T) -> String,
) -> Finding {
    let finding = match &step.ended {
        Ok(brought) => Finding::good(name, format!("{host}: {}", told(brought))),
        Err(failed) => {
            let advice = failed.advice().to_owned();
            Finding::failed(name, format!("{host}: {}", Chain(failed)), advice)
        }
    };
    finding.took(step.took)
}

/// This machine's clock against the host's; `None` if there is no answer, or it does not say.
fn of_clock(examination: &Examination) -> Option<Finding> {
    let answer = examination.answer.as_ref()?;
    let sent = sent_at(answer.ended.as_ref().ok()?)?;
    // It was sent after it was asked for, and counts whole seconds.
    let now = SystemTime::now();
    let (off, which) = match now.duration_since(sent) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let host = &examination.host;
    let told = format!("{} {which} {host}'s", rough(off));
    Some(match off <= SKEW {
        true => Finding::good("clock", told),
        false => {
            let advice =
                "set this machine's clock (NTP): certificates and the times in logs depend on it";
            Finding::failed("clock", told, advice.to_owned())
        }
    })
}

/// The store, the budget, and whether the Auth endpoints renew.
async fn store(
    settings: Settings,
    arguments: &Arguments,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let place = shown_place(&settings.store);
    let began = Instant::now();
    let opened = match is_there(&settings.store).await {
        Ok(false) => {
            let told = format!("{place}: none yet, the first `run` will make one");
            findings.add(&Finding::skipped("store", told))?;
            return findings.add(&Finding::skipped(
                "renewal",
                "no user is known yet".to_owned(),
            ));
        }
        Ok(true) => open_store(&settings.store).await,
        Err(error) => Err(error),
    };
    let open = match opened {
        Ok(open) => open,
        Err(error) => return findings.add(&unusable_store(&place, &error).took(began.elapsed())),
    };
    findings.add(&Finding::good("store", place).took(began.elapsed()))?;
    let clock = Clock::from_environment();
    let windows = settings.credentials.budget.in_real_time(clock);
    let began = Instant::now();
    let budget = match open.store.login_budget(&windows).await {
        Ok(budget) => of_budget(&budget),
        Err(error) => Finding::failed("budget", error.to_string(), STORE_ADVICE.to_owned()),
    };
    findings.add(&budget.took(began.elapsed()))?;
    let renewal = renewal::look(open, settings, arguments.allow_login).await?;
    findings.add(&renewal)
}

const STORE_ADVICE: &str = "see `damoov-proxy check`; without its store no proxy renews a token";

fn unusable_store(place: &str, error: &StoreError) -> Finding {
    let told = format!("{place}: {}", Chain(error));
    Finding::failed("store", told, STORE_ADVICE.to_owned())
}

fn of_budget(budget: &LoginBudget) -> Finding {
    let LoginBudget {
        remaining,
        next_known,
        next_new,
        blocked,
        ..
    } = budget;
    if !blocked.is_zero() {
        return Finding::failed(
            "budget",
            format!("Damoov blocks logins for {} more (login_blocked)", rough(*blocked)),
            "users that hold a pair are served; the others wait. It ends by itself; find out what else \
             logs in from this address, and see `damoov-proxy budget`"
                .to_owned(),
        );
    }
    if !next_new.is_zero() {
        let known = match next_known.is_zero() {
            true => "now".to_owned(),
            false => format!("in {}", rough(*next_known)),
        };
        return Finding::failed(
            "budget",
            format!(
                "used up: the next login of a new user is possible in {}, of a known one {known} \
                 (login_budget_exhausted)",
                rough((*next_new).max(Duration::from_secs(1)))
            ),
            "wait; if it is used up again and again, log users in before they are needed (`warm`), or \
             raise [login_budget] if Damoov allows more"
                .to_owned(),
        );
    }
    Finding::good("budget", format!("{remaining} logins are possible now"))
}
