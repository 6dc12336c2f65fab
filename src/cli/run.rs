//! `run`: serves callers until a signal ends it.

use std::process::ExitCode;

use super::reloading::Start;
use super::service::{self, Served, Service};
use super::supervision::Supervision;
use super::{ConfigFile, Failure};
use crate::config::{Loaded, Settings};
use crate::server::{self, Drained, Ending, Inherited};
use crate::signals::{Followed, Signals};
use crate::supervisor::Supervisor;
use crate::telemetry::{Lines, Log};

/// Loads the configuration and serves until SIGTERM or SIGINT; a second signal cuts the answers off.
pub fn run(config: ConfigFile, signals: Signals) -> Result<ExitCode, Failure> {
    // The file or a secret may be a pipe that nobody writes, or lie on a mount that hangs.
    let signals = signals.follow().map_err(Failure::other)?;
    let read = config.source().and_then(|source| {
        let (loaded, seen) = source.read();
        Ok((source, loaded?, seen))
    });
    let (source, loaded, seen) = match read {
        Ok(read) => read,
        Err(error) => {
            signals.release();
            return Err(error.into());
        }
    };
    let log = Log::open(loaded.settings.log.format).map_err(Failure::other)?;
    let ended = log
        .follow(loaded.settings.log.level)
        .map_err(Failure::other)
        .and_then(|level| {
            let start = Start::new(source, seen, &loaded.settings, level);
            begin(loaded, start, signals, log.lines())
        });
    // The reason for the end is logged in the same form as everything else.
    Ok(ended.unwrap_or_else(|failure| {
        let why = failure.to_string();
        log.fatal(why.strip_prefix("error: ").unwrap_or(&why));
        failure.exit_code()
    }))
}

fn begin(
    loaded: Loaded,
    start: Start,
    signals: Followed,
    log: &Lines,
) -> Result<ExitCode, Failure> {
    super::check_descriptors(&loaded.settings)?;
    harden();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let file = start.reloads.state().file.clone();
    tracing::info!(config = %file.display(), version = env!("CARGO_PKG_VERSION"), "starting");
    let inherited = Inherited::from_environment().map_err(server::Error::from);
    let inherited = inherited.map_err(service::Error::from)?;
    let runtime = super::background_runtime()?;
    let ended = runtime.block_on(serve(loaded.settings, start, inherited, signals, log));
    // The process does not wait for a store that is still being opened: nothing has been promised yet.
    runtime.shutdown_background();
    ended
}

async fn serve(
    settings: Settings,
    mut start: Start,
    inherited: Inherited,
    signals: Followed,
    log: &Lines,
) -> Result<ExitCode, Failure> {
    let supervisor = Supervisor::from_environment();
    supervisor
        .status("starting: the store is being opened")
        .await;
    start.supervisor = supervisor.clone();
    let ending = until_signalled(signals, &start);
    let begun = ending.begun.clone();
    let served = match Service::open(settings, inherited, start, ending, log).await? {
        Some(service) => {
            for address in service.local_addrs() {
                tracing::info!(%address, "listening");
            }
            let supervision = Supervision::new(supervisor, &service);
            let answers = service.answers();
            let served = tokio::select! {
                served = service.serve() => served,
                never = supervision.tell(async || answers.codes().await) => match never {},
            };
            served.map_err(Failure::other)?
        }
        None => Served::default(),
    };
    let begun = begun.get();
    let signal = begun.map(|begun| begun.signal.as_str());
    let seconds = begun.map(|begun| begun.at.elapsed().as_millis() as f64 / 1000.0);
    let Drained { ended, cut } = served.drained;
    if served.pairs_lost > 0 {
        tracing::error!(
            users = served.pairs_lost,
            "the store could not be written: the new tokens of {} users are lost, and each of them \
             costs a login",
            served.pairs_lost
        );
    }
    tracing::info!(
        signal,
        seconds,
        answers_ended = ended,
        answers_cut = cut,
        "ended"
    );
    Ok(match served.pairs_lost {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// What the signals say, followed on the current runtime.
pub(super) fn until_signalled(signals: Followed, start: &Start) -> Ending {
    let (times, reloads) = (start.times.subscribe(), start.reloads.clone());
    let (ending, following) = Ending::by_signals(signals.in_order(), times, reloads);
    tokio::spawn(following);
    ending
}

/// Only the owner can read files that this process creates, and neither a debugger of the same user
/// nor a core dump shows tokens in memory.
fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let undumpable = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    for result in [undumpable, setrlimit(Resource::Core, none)] {
        if let Err(error) = result {
            tracing::warn!(%error, "core dumps cannot be disabled");
        }
    }
}
