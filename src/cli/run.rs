//! `run`: serves callers until a signal ends it.

use std::path::Path;
use std::process::ExitCode;

use tokio::sync::watch;

use super::service::Service;
use super::{ConfigFile, Failure};
use crate::config::{Loaded, Secrets, Settings};
use crate::server::{self, Stage};
use crate::telemetry::{Lines, Log};

/// Loads the configuration and serves until SIGTERM or SIGINT; a second one hurries the answers.
pub fn run(config: ConfigFile) -> Result<ExitCode, Failure> {
    let (path, loaded) = config.load(Secrets::Resolve).map_err(Failure::Config)?;
    let log = Log::open(loaded.settings.log.format).map_err(Failure::other)?;
    let ended = log
        .follow(loaded.settings.log.level)
        .map_err(Failure::other)
        .and_then(|()| begin(&path, loaded, log.lines()));
    // Whoever reads the log reads why it ends in the form of all other lines.
    Ok(ended.unwrap_or_else(|failure| {
        let why = failure.to_string();
        log.fatal(why.strip_prefix("error: ").unwrap_or(&why));
        failure.exit_code()
    }))
}

fn begin(path: &Path, loaded: Loaded, log: &Lines) -> Result<ExitCode, Failure> {
    super::check_descriptors(&loaded.settings)?;
    harden();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(config = %path.display(), version = env!("CARGO_PKG_VERSION"), "starting");
    super::background_runtime()?.block_on(serve(loaded.settings, log))
}

async fn serve(settings: Settings, log: &Lines) -> Result<ExitCode, Failure> {
    let stage = until_signalled();
    let service = Service::open(settings, stage, log).await?;
    for address in service.local_addrs() {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = service.status_addr() {
        tracing::info!(%address, "serving health and metrics");
    }
    service.serve().await.map_err(Failure::other)?;
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// What the signals say: the first SIGTERM or SIGINT drains, the second one stops.
pub(super) fn until_signalled() -> watch::Receiver<Stage> {
    let (stage, watched) = watch::channel(Stage::Serving);
    tokio::spawn(async move {
        if let Err(error) = server::follow_signals(&stage).await {
            tracing::error!(%error, "signals cannot be followed");
        }
    });
    watched
}

/// Files are the owner's alone, and neither a debugger of the same user nor a core file sees
/// tokens in memory.
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
            tracing::warn!(%error, "core files cannot be ruled out");
        }
    }
}
